"""Exact readers for short answers: numbers, arithmetic expressions and lists of names, none evaluated by Python.

`read_*` and `evaluate_expression` want the whole text to be the answer; `last_*` find the last such answer inside a
longer text. Everything is bounded (characters, digits, nesting), because the text comes from a model: `9**9**9` must
cost nothing.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_NUMBER_LENGTH = 100
"""Characters; a longer "number" is not read."""
MAX_EXPRESSION_LENGTH = 200
MAX_DIGITS = 12
"""Digits of one number in an expression, so that any result stays below a few thousand digits."""
MAX_DEPTH = 30
"""Open parentheses at one place in an expression."""

# × ∗ ⋅ · ÷ ∕ and the dashes that models write for a minus. "x" is not a times sign: it is a letter.
SIGNS = str.maketrans(
    {"×": "*", "∗": "*", "⋅": "*", "·": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "﹣": "-", "－": "-"}
)
LATEX_SIGNS = {
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    r"\left": "",
    r"\right": "",
    r"\,": "",
    r"\!": "",
    r"\ ": " ",
}
DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_SCIENTIFIC = rf"{_DECIMAL}(?:[eE][+-]?[0-9]{{1,2}})?"
_READABLE_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:\\[dt]?frac\{{(?P<top>[+-]?{_DECIMAL})\}}\{{(?P<bottom>[+-]?{_DECIMAL})\}}"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>[+-]?{_DECIMAL})|(?P<plain>{_SCIENTIFIC}))"
)
_NUMBER_INSIDE = re.compile(rf"\\[dt]?frac\{{[+-]?{_DECIMAL}\}}\{{{_DECIMAL}\}}|{_DECIMAL}(?:\s*/\s*[0-9]+)?(?<![.,])")
_VARIABLE = re.compile(r"[A-Za-z]\s*=\s*")


def strip_delimiters(text: str) -> str:
    r"""Without white space, `$…$`, `\(…\)`, one pair of outer braces and a closing full stop.

    >>> strip_delimiters(" $42$. "), strip_delimiters(r"\({7}\)"), strip_delimiters("$1$ and $2$")
    ('42', '7', '$1$ and $2$')
    """
    text = _strip_stop(text)
    for opening, closing in DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if (
            text.startswith(opening)
            and text.endswith(closing)
            and inner
            and opening not in inner
            and closing not in inner
        ):
            text = _strip_stop(inner)
    if text.startswith("{") and text.endswith("}") and not set("{}") & set(text[1:-1]):
        text = _strip_stop(text[1:-1])
    return text


def _strip_stop(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith((".", "。")) else text


def read_number(text: str) -> Fraction | None:
    r"""The exact value of an integer, decimal (also with an exponent) or fraction; None if the text is anything else.

    Understands thousands separators, Unicode minus signs, `\frac{a}{b}`, `$…$` and a leading `x =`. An expression is
    not a number: `3 + 4` must not pass for an answer to "What is 3 + 4?".

    >>> read_number("−1,234.50"), read_number("7/2"), read_number("x = -3"), read_number("3 + 4")
    (Fraction(-2469, 2), Fraction(7, 2), Fraction(-3, 1), None)
    """
    match = _match_number(text)
    if match is None:
        return None
    numerator, denominator = match["top"] or match["over"] or match["plain"], match["bottom"] or match["under"] or "1"
    below = _fraction(denominator)
    if below == 0:
        return None
    value = _fraction(numerator) / below
    return -value if match["sign"] == "-" else value


def is_unreduced_integer(text: str) -> bool:
    """Whether the text is a fraction whose value is an integer, such as 12/4: a division left undone.

    >>> is_unreduced_integer("12/4"), is_unreduced_integer("3"), is_unreduced_integer("7/2")
    (True, False, False)
    """
    match, value = _match_number(text), read_number(text)
    return match is not None and value is not None and match["plain"] is None and value.denominator == 1


def _match_number(text: str) -> re.Match[str] | None:
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    text = strip_delimiters(text).translate(SIGNS)
    return _READABLE_NUMBER.fullmatch(_VARIABLE.sub("", text, count=1) if _VARIABLE.match(text) else text)


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def last_number(text: str) -> str | None:
    r"""The last integer, decimal or fraction in a text, with its sign.

    A dash right after a digit or `)` is a subtraction, not a sign.

    >>> last_number("so 5-3 leaves -2 apples."), last_number(r"x = \frac{7}{2}"), last_number("none")
    ('-2', '\\frac{7}{2}', None)
    """
    text = text.translate(SIGNS)
    matches = list(_NUMBER_INSIDE.finditer(text))
    if not matches:
        return None
    before = text[: matches[-1].start()]
    negative = before.endswith("-") and not before[:-1].rstrip().endswith(tuple("0123456789)"))
    return ("-" if negative else "") + matches[-1][0]


class ExpressionError(ValueError):
    """The text is no arithmetic expression over + - * / and parentheses, or is too large to read."""


_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))")


def evaluate_expression(text: str) -> tuple[Fraction, list[int]]:
    r"""The exact value of an arithmetic expression and the numbers it uses, in the order they stand.

    Grammar: + - * / ( ), non-negative integers, and a minus sign before a number or a parenthesis. `×`, `÷`, `−`,
    `\times`, `\cdot` and `\div` are read as their ASCII forms. Raises ExpressionError for any other text,
    ZeroDivisionError for a division by zero.

    >>> evaluate_expression("(1 + 2) × 7 − 4/2")
    (Fraction(19, 1), [1, 2, 7, 4, 2])
    """
    tokens = _tokens(text)
    reader = _ExpressionReader(tokens)
    value = reader.sum()
    if reader.peek():
        raise ExpressionError(f"{reader.peek()!r} stands where the expression should end")
    return value, [int(token) for token in tokens if token.isdigit()]


def plain_signs(text: str) -> str:
    """The text with Unicode and LaTeX operators written as + - * / and without `$…$`."""
    text = strip_delimiters(text).translate(SIGNS)
    for latex, plain in LATEX_SIGNS.items():
        text = text.replace(latex, plain)
    return text


def _tokens(text: str) -> list[str]:
    text = plain_signs(text).strip() if len(text) <= MAX_EXPRESSION_LENGTH else text
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, {MAX_EXPRESSION_LENGTH} are read at most")
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{text[position:].strip()[:1]!r} is neither a number nor one of + - * / ( )")
        if len(match[1] or "") > MAX_DIGITS:
            raise ExpressionError(f"a number has {len(match[1])} digits, {MAX_DIGITS} are read at most")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


class _ExpressionReader:
    """Recursive descent over tokens: sum = product ((+|-) product)*, product = factor ((*|/) factor)*."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.peek() in ("*", "/"):
            value = value * self.factor() if self.take() == "*" else value / self.factor()
        return value

    def factor(self) -> Fraction:
        if self.peek() != "-":
            return self.atom()
        self.take()
        return -self.atom()

    def atom(self) -> Fraction:
        token = self.take()
        if token.isdigit():
            return Fraction(int(token))
        if token != "(":
            raise ExpressionError(f"a number or '(' should stand where {token or 'the end'!r} is")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"more than {MAX_DEPTH} parentheses inside each other")
        value = self.sum()
        if self.take() != ")":
            raise ExpressionError("a '(' is never closed")
        self.depth -= 1
        return value


_CHAIN = re.compile(r"[0-9()+\-*/ \t]+(?:=[0-9()+\-*/ \t]+)*")
_OPERATION = re.compile(r"[0-9)][ \t]*[-+*/][ \t]*[-0-9(]")


def last_expression(text: str) -> str | None:
    """The last arithmetic expression with an operator in a text; in a chain of `=`, its left end.

    >>> last_expression("First 2+2. So 3×4+5 = 12+5 = 17, done in 2 steps")
    '3*4+5'
    """
    chains = [chain[0] for chain in _CHAIN.finditer(plain_signs(text)) if _OPERATION.search(chain[0])]
    if not chains:
        return None
    return _trim_expression(next(side for side in chains[-1].split("=") if _OPERATION.search(side)))


def _trim_expression(run: str) -> str:
    """Without what belongs to the sentence around it: bullets, a closing parenthesis that was opened before the
    expression.
    """
    run = run.strip()
    try:
        evaluate_expression(run)
    except (ExpressionError, ZeroDivisionError):
        run = run.strip(" \t+-*/")
        surplus = run.count(")") - run.count("(")
        if surplus > 0 and run.endswith(")" * surplus):
            run = run[:-surplus]
        elif surplus < 0 and run.startswith("(" * -surplus):
            run = run[-surplus:]
    return run.strip()


_SEPARATOR = re.compile(r"\s*(?:[,;>→、，；]|\\(?:to|rightarrow|succ)(?![A-Za-z])|\n)\s*")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


def read_list(text: str) -> tuple[str, ...]:
    r"""The items of a list of names, in order, in one spelling: no case, no extra white space, no `\text{}`, no closing
    full stop.

    Commas, semicolons, `>`, `→` and line breaks separate. A `<` does not: `A < B` says the reverse of `A > B`, and
    which way a problem counts is not known here, so such a text stays one item and equals only itself.

    >>> read_list("Ann,  BOB → carl."), read_list("Ann < Bob")
    (('ann', 'bob', 'carl'), ('ann < bob',))
    """
    plain = _TEXT_COMMAND.sub(r" \1 ", strip_delimiters(text))
    plain = unicodedata.normalize("NFKC", _strip_stop(plain)).casefold()
    items = (" ".join(item.replace("*", " ").split()) for item in _SEPARATOR.split(plain))
    return tuple(item for item in items if item)


_NAME = r"(?<![^\W\d_])[^\W\d_]++(?:['’-][^\W\d_]++)*+"
_NAMES = re.compile(rf"{_NAME}(?:\s*(?:,\s*and\b|,|;|>|→|、|\band\b)\s*{_NAME})+")
_KOREAN_ENDING = re.compile(r"(?:입니다|이에요|예요|이다)\s*[.。]?\s*$")


def last_list(text: str) -> str | None:
    """The last list of names in a text, as `a, b, c`; if there is none, its last word.

    >>> last_list("So from tallest to shortest we have Ann, Bob and Carl."), last_list("The tallest is Ann.")
    ('Ann, Bob, Carl', 'Ann')
    """
    text = _KOREAN_ENDING.sub("", text.replace("*", " ")).strip()
    if len(read_list(text)) > 1 and "\n" not in text and all(len(item.split()) <= 2 for item in read_list(text)):
        return _strip_stop(text)
    runs = [run[0] for run in _NAMES.finditer(text)]
    if runs:
        return ", ".join(re.split(r"\s*(?:,\s*and\b|[,;>→、]|\band\b)\s*", runs[-1]))
    words = re.findall(_NAME, text)
    return words[-1] if words else None
