r"""Expressions: a bounded recursive-descent reader from LaTeX or plain text to nested tuples. Nothing is evaluated.

An expression is a tuple whose first item names its kind:

    ("num", value, places)   an exact Fraction and how many decimals were written (None: not as a decimal)
    ("sym", name)            a variable, or one of the constants pi, e, i, oo
    ("add", a, b), ("mul", a, b), ("div", a, b), ("pow", a, b), ("neg", a), ("root", n, a), ("pct", a)
    ("pm", a, b), ("mp", a, b)   a ± b and a ∓ b
    ("fun", name, *arguments)    sin, log, abs, factorial, binom, …, or an unknown f

What the reader does not know (integrals, sums, limits, derivatives, prose) raises UnreadableError: no guess is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Expression = tuple[Any, ...]
MAX_DEPTH = 40
"""Open groups at one place in an expression."""
MAX_TOKENS = 600
"""Of one expression; it bounds the recursion of what walks over it."""
MAX_DIGITS = 400
"""Digits of one number."""


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONSTANTS = frozenset({"pi", "e", "i", "oo"})
GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar"
)
TRIGONOMETRIC = word_set("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth")
LOGARITHMS = frozenset({"ln", "log", "lg", "exp"})
OF_SEVERAL = frozenset({"gcd", "lcm", "max", "min"})
FUNCTIONS = TRIGONOMETRIC | LOGARITHMS | OF_SEVERAL
PLAIN_WORDS = (
    FUNCTIONS
    | GREEK - {"Pi"}
    | {"pi", "sqrt", "infty", "inf", "oo", "infinity", "abs", "floor", "ceil", "binom", "asin", "acos", "atan", "cbrt"}
)
_WORD_COMMANDS = {"sqrt": "surd", "inf": "infty", "oo": "infty", "infinity": "infty"}
"""Commands for words whose argument is not LaTeX's next token, or that LaTeX spells otherwise."""
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
APPLIED = frozenset("fghFG")
"""Letters that are functions, not factors, before a parenthesis."""
ACCENTS = word_set("vec overrightarrow overline bar hat tilde widehat mathcal mathbb mathfrak mathscr dot")
OPERATORS = {"cdot": "*", "times": "*", "div": "/", "ast": "*", "bullet": "*"}


class UnreadableError(ValueError):
    """The text is no expression of this grammar, or too large."""


def num(value: Fraction | int, places: int | None = None) -> Expression:
    return ("num", Fraction(value), places)


_DECIMAL = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_TOKEN = re.compile(
    rf"\s*(?:(?P<repeating>[0-9]*\.[0-9]*\s*\\overline\s*\{{[0-9]{{1,12}}\}})"
    rf"|(?P<scientific>{_DECIMAL}[eE][+-]?[0-9]{{1,3}}(?![0-9.A-Za-z]))"
    rf"|(?P<number>{_DECIMAL}\.?(?![0-9]))"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}|]))|(?P<word>[A-Za-z]+)|(?P<sign>[-+*/^_()\[\]{}|!%',<>=]))"
)


def tokens_of(text: str) -> list[tuple[str, str]]:
    """(kind, text) pairs; letters that spell no known name stand alone, as variables."""
    found: list[tuple[str, str]] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(f"{text[position:].strip()[:12]!r} is not understood")
        kind = str(match.lastgroup)
        value = match[kind]
        if kind == "command" and value[1:] in OPERATORS:
            found.append(("sign", OPERATORS[value[1:]]))
        elif kind == "word":
            found.extend(_letters(value))
        else:
            found.append((kind, value))
        position = match.end()
    return found


_PROSE = word_set(
    "in the of if is to for or and at be as an on by it no not so are was with then when mod but we us he she"
)


def _letters(word: str) -> Iterator[tuple[str, str]]:
    if word in PLAIN_WORDS:
        yield ("command", "\\" + _WORD_COMMANDS.get(word, word))
        return
    if word.lower() in _PROSE or (len(word) > 4 and not (word.isupper() and len(word) < 7)):
        raise UnreadableError(f"{word[:20]!r} is a word")
    for name in ("sqrt", "pi"):  # 2sqrtx, pir
        if name in word:
            before, _, after = word.partition(name)
            yield from (("letter", letter) for letter in before)
            yield ("command", "\\" + _WORD_COMMANDS.get(name, name))
            yield from (("letter", letter) for letter in after)
            return
    yield from (("letter", letter) for letter in word)


def read_expression(text: str) -> Expression:
    r"""The expression that a whole text is. Raises UnreadableError.

    >>> read_expression(r"\frac12 x")
    ('mul', ('div', ('num', Fraction(1, 1), None), ('num', Fraction(2, 1), None)), ('sym', 'x'))
    """
    tokens = tokens_of(text)
    if len(tokens) > MAX_TOKENS:
        raise UnreadableError(f"an expression of {len(tokens)} tokens")
    reader = _Reader(tokens)
    found = reader.sum()
    if reader.position < len(reader.tokens):
        raise UnreadableError(f"{reader.peek()!r} stands where the expression should end")
    if found not in (INFINITY, ("neg", INFINITY)) and INFINITY in set(parts(found)):
        raise UnreadableError("an infinity is calculated with")
    return found


INFINITY: Expression = ("sym", "oo")


def parts(expression: Expression) -> Iterator[Expression]:
    """The expression and all below it."""
    stack = [expression]
    while stack:
        part = stack.pop()
        yield part
        stack.extend(item for item in part[1:] if isinstance(item, tuple))


def symbols(expression: Expression) -> frozenset[str]:
    """Its variables: no constants."""
    return frozenset(part[1] for part in parts(expression) if part[0] == "sym") - CONSTANTS


def functions(expression: Expression) -> frozenset[str]:
    return frozenset(part[1] for part in parts(expression) if part[0] == "fun")


class _Reader:
    """sum = product ((+|-|±|∓) product)*, product = factor ((*|/|nothing) factor)*, factor = base (^ base | ! | %)*."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.bars = 0
        """Open |…|: inside them a bar closes."""

    def peek(self, ahead: int = 0) -> str:
        position = self.position + ahead
        return self.tokens[position][1] if position < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        position = self.position + ahead
        return self.tokens[position][0] if position < len(self.tokens) else ""

    def take(self) -> str:
        value = self.peek()
        self.position += 1
        return value

    def expect(self, sign: str) -> None:
        if self.take() != sign:
            raise UnreadableError(f"a {sign!r} is missing")

    def sum(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError(f"more than {MAX_DEPTH} groups inside each other")
        value = self.signed_product()
        while (sign := self.peek()) in ("+", "-", r"\pm", r"\mp"):
            self.take()
            other = self.signed_product() if self.peek() in ("+", "-") else self.product()
            if sign in ("+", "-"):
                value = ("add", value, other if sign == "+" else ("neg", other))
            else:
                value = (sign[1:], value, other)
        self.depth -= 1
        return value

    def signed_product(self) -> Expression:
        sign = self.peek()
        if sign not in ("+", "-", r"\pm", r"\mp"):
            return self.product()
        self.take()
        value = self.product()
        if sign == "+":
            return value
        return ("neg", value) if sign == "-" else (sign[1:], num(0), value)

    def product(self) -> Expression:
        value = self.factor()
        while True:
            if self.peek() in ("*", "/") and self.kind() == "sign":
                operation = "mul" if self.take() == "*" else "div"
                value = (operation, value, self.signed_factor())
            elif self.begins_factor():
                value = ("mul", value, self.factor())
            else:
                return value

    def begins_factor(self) -> bool:
        """Whether a factor follows without a sign. A number may not: "2 3" and "x2" say nothing clear."""
        kind, value = self.kind(), self.peek()
        if kind == "letter":
            return True
        if kind == "command":
            return value not in (r"\pm", r"\mp", r"\}", r"\rfloor", r"\rceil", r"\|", r"\cup", r"\mid")
        return value in ("(", "[", "{") or (value == "|" and not self.bars)

    def signed_factor(self) -> Expression:
        negative = False
        while self.peek() in ("-", "+"):
            negative ^= self.take() == "-"
            if self.peek() in ("-", "+"):
                raise UnreadableError("two signs in a row")
        return ("neg", self.factor()) if negative else self.factor()

    def factor(self) -> Expression:
        return self.postfix(self.base())

    def postfix(self, value: Expression) -> Expression:
        while True:
            sign = self.peek()
            if sign == "^":
                self.take()
                if self.peek() == r"\prime":
                    self.take()
                    value = ("sym", f"{value[1]}'") if value[0] == "sym" else self.refuse("a prime")
                else:
                    value = ("pow", value, self.exponent())
            elif sign == "!":
                self.take()
                if self.peek() == "!":
                    raise UnreadableError("a double factorial")
                value = ("fun", "factorial", value)
            elif sign == "%":
                self.take()
                value = ("pct", value)
            elif sign == r"\deg":
                self.take()
                value = ("mul", value, ("div", ("sym", "pi"), num(180)))
            else:
                return value

    def refuse(self, what: str) -> Expression:
        raise UnreadableError(f"{what} stands in a strange place")

    def exponent(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError(f"more than {MAX_DEPTH} powers inside each other")
        negative = self.peek() in ("-", "+") and self.take() == "-"
        value = self.base()
        if self.peek() == "^":
            value = self.postfix(value)
        self.depth -= 1
        return ("neg", value) if negative else value

    def base(self) -> Expression:
        kind, value = self.kind(), self.peek()
        if kind in ("number", "scientific", "repeating"):
            self.take()
            return self.mixed(literal(kind, value))
        if kind == "letter":
            return self.symbol(self.take())
        if kind == "command":
            return self.command(self.take()[1:])
        if value in ("(", "[", "{"):
            return self.group()
        if value == "|":
            return self.absolute()
        raise UnreadableError(f"a value should stand where {value or 'the end'!r} is")

    def group(self) -> Expression:
        closing = {"(": ")", "[": "]", "{": "}"}[self.take()]
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.bars = bars
        self.expect(closing)
        return value

    def absolute(self) -> Expression:
        self.take()
        self.bars += 1
        value = self.sum()
        self.bars -= 1
        self.expect("|")
        return ("fun", "abs", value)

    def mixed(self, whole: Expression) -> Expression:
        r"""3\frac12 and 3 1/2 are 7/2: an integer directly before a proper fraction of integers."""
        if whole[2] is not None or whole[1].denominator != 1:
            return whole
        start, tokens = self.position, list(self.tokens)  # \frac12 splits a token
        if self.peek() == r"\frac":
            self.take()
            top, bottom = self.argument(), self.argument()
        elif self.kind() == "number" and self.peek(1) == "/" and self.kind(2) == "number":
            top, _, bottom = literal("number", self.take()), self.take(), literal("number", self.take())
        else:
            return whole
        if top[0] == bottom[0] == "num" and top[2] is bottom[2] is None and 0 < top[1] < bottom[1]:
            return num(whole[1] + top[1] / bottom[1])
        self.position, self.tokens = start, tokens
        return whole

    def symbol(self, letter: str) -> Expression:
        name = letter + self.subscript() + self.primes()
        if letter in APPLIED and self.peek() == "(":
            return ("fun", name, *self.arguments())
        return ("sym", name)

    def primes(self) -> str:
        marks = ""
        while self.peek() == "'":
            marks += self.take()
        return marks

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        return "_" + self.raw_argument()

    def raw_argument(self) -> str:
        """The text of one group or token, without its braces."""
        if self.peek() != "{":
            return self.take()
        depth = 0
        found: list[str] = []
        while self.position < len(self.tokens):
            token = self.take()
            depth += {"{": 1, "}": -1}.get(token, 0)
            if depth == 0:
                return "".join(found[1:])
            found.append(token)
        raise UnreadableError("a '{' is never closed")

    def argument(self) -> Expression:
        r"""One LaTeX argument: a group, or a single digit or letter, as in \frac12."""
        if self.kind() == "number" and len(self.peek()) > 1 and self.peek().isdigit():
            digits = self.peek()
            self.tokens[self.position] = ("number", digits[1:])
            return num(int(digits[0]))
        return self.base() if self.kind() != "letter" else self.symbol_without_call()

    def symbol_without_call(self) -> Expression:
        return ("sym", self.take())

    def arguments(self) -> list[Expression]:
        closing = {"(": ")", "{": "}", "[": "]"}[self.take()]
        bars, self.bars = self.bars, 0
        if closing == "}" and self.peek() == "(":  # \gcd{(a, b)}
            found: list[Expression] = self.arguments()
        else:
            found = [self.sum()]
            while self.peek() == ",":
                self.take()
                found.append(self.sum())
        self.bars = bars
        self.expect(closing)
        return found

    def command(self, name: str) -> Expression:
        name = _SYNONYMS.get(name, name)
        if name in ("pi", "infty"):
            return ("sym", {"pi": "pi", "infty": "oo"}[name])
        if name in GREEK:
            return ("sym", name + self.subscript() + self.primes())
        if name in ("frac", "binom"):
            if name == "frac" and self.is_differential():
                raise UnreadableError("a derivative is left to be taken")
            if name == "binom" and self.peek() == "(":
                return ("fun", "binom", *self.arguments())
            top, bottom = self.argument(), self.argument()
            return ("div", top, bottom) if name == "frac" else ("fun", "binom", top, bottom)
        if name == "sqrt":
            degree = self.degree()
            return ("root", degree, self.argument())
        if name in ("surd", "cbrt"):  # a plain sqrt or √ takes the whole number after it
            return ("root", num(2 if name == "surd" else 3), self.base())
        if name in ("lfloor", "lceil"):
            value = self.sum()
            self.expect({"lfloor": r"\rfloor", "lceil": r"\rceil"}[name])
            return ("fun", {"lfloor": "floor", "lceil": "ceil"}[name], value)
        if name in ("abs", "floor", "ceil"):
            return ("fun", name, *self.arguments()) if self.peek() in ("(", "{") else self.refuse(name)
        if name == "|":
            raise UnreadableError("a norm")
        if name in FUNCTIONS:
            return self.function(name)
        if name in ACCENTS:
            return ("sym", f"{name} {self.raw_argument()}{self.subscript()}")
        if name in ("angle", "triangle"):
            letters = ""
            while self.kind() == "letter":
                letters += self.take()
            return ("sym", f"{name} {letters}")
        raise UnreadableError(f"\\{name} is not understood")

    def is_differential(self) -> bool:
        r"""Whether \frac{d}{dx} or \frac{\partial …} follows."""
        ahead = [self.peek(n) for n in range(5)]
        return (ahead[0] == "{" and ahead[1] == "d" and (ahead[2] == "}" or ahead[4] == "}") and ahead[3] != "+") or (
            r"\partial" in ahead
        )

    def degree(self) -> Expression:
        if self.peek() != "[":
            return num(2)
        return self.group()

    def function(self, name: str) -> Expression:
        base: Expression | None = None
        power: Expression | None = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = (
                    self.argument() if self.peek() == "{" or self.kind() != "number" else literal("number", self.take())
                )
            else:
                power = self.exponent()
        if name in TRIGONOMETRIC and power == ("neg", num(1)):
            name, power = "arc" + name, None
        if self.peek() in ("(", "{", "["):
            arguments = self.arguments()
        elif name in OF_SEVERAL:
            raise UnreadableError(f"{name} of what?")
        else:
            arguments = [self.implicit_product()]
        if name in LOGARITHMS and (name != "log" or base == ("sym", "e")):
            value: Expression = ("fun", "ln", *arguments) if name != "exp" else ("pow", ("sym", "e"), *arguments)
            base = None
        else:
            value = ("fun", name, *arguments) if base is None else ("fun", name, *arguments, base)
        if (len(arguments) != 1 and name not in OF_SEVERAL) or (base is not None and name != "log"):
            raise UnreadableError(f"{name} of several things")
        return value if power is None else ("pow", value, power)

    def implicit_product(self) -> Expression:
        r"""The argument of a function without parentheses: \sin 2x, but \sin x \cos x ends before \cos."""
        value = self.signed_factor()
        while self.begins_factor() and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "["):
            value = ("mul", value, self.factor())
        return value


def literal(kind: str, text: str) -> Expression:
    """The value of one number token."""
    if len(text) > MAX_DIGITS:
        raise UnreadableError(f"a number of {len(text)} characters")
    if kind == "repeating":
        before, repeated = text.replace("\\overline", "").replace("}", "").replace(" ", "").split("{")
        whole, _, fixed = before.partition(".")
        start = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
        return num(start + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed)))
    if kind == "scientific":
        digits, _, exponent = text.lower().partition("e")
        places = max(0, len(digits.partition(".")[2]) - int(exponent))
        return num(Fraction(digits) * Fraction(10) ** int(exponent), places or None)
    text = text.removesuffix(".")
    places = len(text.partition(".")[2])
    return num(Fraction(text), places or None)


def expand_signs(expression: Expression) -> list[Expression]:
    """The expression, or, if it holds ±, its two readings: upper signs, then lower ones.

    >>> expand_signs(("pm", ("num", 3, None), ("num", 1, None)))[1]
    ('add', ('num', 3, None), ('neg', ('num', 1, None)))
    """
    if not any(part[0] in ("pm", "mp") for part in parts(expression)):
        return [expression]
    return [_with_sign(expression, upper) for upper in (True, False)]


def _with_sign(expression: Expression, upper: bool) -> Expression:
    head, *rest = expression
    rest = [_with_sign(item, upper) if isinstance(item, tuple) else item for item in rest]
    if head not in ("pm", "mp"):
        return (head, *rest)
    plus = upper == (head == "pm")
    if rest[0] == num(0):  # ±2 alone
        return rest[1] if plus else ("neg", rest[1])
    return ("add", rest[0], rest[1] if plus else ("neg", rest[1]))


def is_plain(expression: Expression) -> bool:
    """Whether it is a number as one writes it down, with nothing left to calculate: an integer, decimal, fraction of
    two numbers, mixed number, percentage, or a number times a power of ten.
    """
    head = expression[0]
    if head in ("neg", "pct"):
        return expression[1][0] != head and is_plain(expression[1])
    if head == "div":
        return all(part[0] == "num" or (part[0] == "neg" and part[1][0] == "num") for part in expression[1:])
    if head == "mul":
        return _is_number(expression[1]) and _is_power_of_ten(expression[2])
    return head == "num" or _is_power_of_ten(expression)


def _is_number(expression: Expression) -> bool:
    return expression[0] == "num" or (expression[0] == "neg" and expression[1][0] == "num")


def _is_power_of_ten(expression: Expression) -> bool:
    if expression[0] != "pow" or expression[1] != num(10):
        return False
    exponent = expression[2][1] if expression[2][0] == "neg" else expression[2]
    return exponent[0] == "num" and exponent[1].denominator == 1 and exponent[1] <= 300


def leaves_division(expression: Expression) -> bool:
    """Whether it is a fraction whose value is an integer, such as 12/4."""
    if expression[0] == "neg":
        return leaves_division(expression[1])
    if expression[0] != "div" or not is_plain(expression):
        return False
    top, bottom = (part[1] if part[0] == "num" else part[1][1] for part in expression[1:])
    return bottom != 0 and (top / bottom).denominator == 1


def show(expression: Expression) -> str:
    """The expression in words for people, fully bracketed where it matters.

    >>> show(read_expression(r"\\frac{1}{2}x^2 - \\sqrt{3}"))
    '1/2*x^2 - sqrt(3)'
    """
    return _show(expression, 0)


def _show(expression: Expression, outside: int) -> str:
    head = expression[0]
    if head == "num":
        text, inside = str(expression[1]), 3 if expression[1].denominator == 1 and expression[1] >= 0 else 1
    elif head == "sym":
        return str(expression[1])
    elif head in ("add", "pm", "mp"):
        right, sign = expression[2], {"add": "+", "pm": "±", "mp": "∓"}[head]
        if head == "add" and right[0] == "neg":
            right, sign = right[1], "-"
        text, inside = f"{_show(expression[1], 0)} {sign} {_show(right, 1)}", 0
    elif head == "neg":
        text, inside = f"-{_show(expression[1], 1)}", 0
    elif head in ("mul", "div"):
        sign = "*" if head == "mul" else "/"
        text, inside = f"{_show(expression[1], 1)}{sign}{_show(expression[2], 2)}", 1
    elif head == "pow":
        text, inside = f"{_show(expression[1], 3)}^{_show(expression[2], 3)}", 2
    elif head == "pct":
        text, inside = f"{_show(expression[1], 3)}%", 2
    elif head == "root":
        degree = "" if expression[1] == num(2) else f"{_show(expression[1], 0)}, "
        return f"sqrt({degree}{_show(expression[2], 0)})" if not degree else f"root({degree}{_show(expression[2], 0)})"
    else:
        return f"{expression[1]}({', '.join(_show(item, 0) for item in expression[2:])})"
    return f"({text})" if inside < outside else text
