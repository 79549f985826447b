r"""Exact equality of expressions without computer algebra: normal forms where they decide, floats where they refute.

An expression becomes a quotient of two sums of monomials over the rationals. The atoms of a monomial are variables, π,
e, i, roots of primes, powers such as 2^x, and whatever is not understood further (sin x, roots of sums): "opaque".
Roots of primes are reduced (√18 = 3√2), i² = -1. Equal normal forms prove equality. Unequal ones prove inequality only
without opaque atoms; with them, floats at a few points refute (in microseconds) or leave the question open (`equal`
returns None), for SymPy to decide in a worker process.

Everything is bounded: terms, digits, exponents. A tower of powers raises TooLargeError before it costs anything.
"""

from __future__ import annotations

import cmath
import functools
import math
import random
from collections.abc import Mapping
from fractions import Fraction

from rewards.mathematics.expressions import Expression, parts, symbols

MAX_TERMS = 400
"""Terms of a sum."""
MAX_BITS = 6_000
"""Bits of a coefficient."""
MAX_POWER = 60
"""A sum is multiplied out up to this exponent."""
MAX_NODES = 1_500
SAMPLES, SIGNED_SAMPLES = 6, 2
"""Points at which floats compare expressions; from SIGNED_SAMPLES on, variables take both signs."""

Monomial = tuple[tuple[object, Fraction], ...]
Polynomial = dict[Monomial, Fraction]
Quotient = tuple[Polynomial, Polynomial]
ONE: Polynomial = {(): Fraction(1)}
_EXACT = ("prime", "sym")


class TooLargeError(ArithmeticError):
    """The calculation would not stay small."""


class UndefinedError(ArithmeticError):
    """A division by zero, or a value outside a function's domain."""


def equal(left: Expression, right: Expression) -> bool | None:
    """Whether two expressions are equal, exactly; None where only computer algebra could tell.

    >>> from rewards.mathematics.expressions import read_expression as read
    >>> equal(read(r"\\frac{1}{\\sqrt2}"), read(r"\\sqrt2/2")), equal(read("(x+1)^2"), read("x^2+1"))
    (True, False)
    >>> equal(read(r"\\sin^2 x + \\cos^2 x"), read("1")) is None
    True
    """
    try:
        difference = numerator_of_difference(left, right)
    except TooLargeError:
        difference = None
    except UndefinedError:
        return False
    if difference == {}:
        return True
    if refuted(left, right):
        return False
    if difference is None:
        return None if max(map(size, (left, right))) < MAX_NODES and is_finite(left) and is_finite(right) else False
    return None if any(_is_opaque(atom) for monomial in difference for atom, _ in monomial) else False


def numerator_of_difference(left: Expression, right: Expression) -> Polynomial:
    """The numerator of left - right: empty exactly if the normal forms are equal."""
    (a, b), (c, d) = normal_form(left), normal_form(right)
    return add(multiply(a, d), multiply(c, b), -1)


def rational(expression: Expression) -> Fraction | None:
    """The value of an expression that is a rational number, else None.

    >>> from rewards.mathematics.expressions import read_expression as read
    >>> rational(read(r"\\sqrt{16}/3")), rational(read("9^9^9"))
    (Fraction(4, 3), None)
    """
    try:
        top, bottom = normal_form(expression)
    except (TooLargeError, UndefinedError):
        return None
    if set(top) <= {()} and set(bottom) == {()}:
        return top.get((), Fraction(0)) / bottom[()]
    return None


def ratio(left: Expression, right: Expression) -> Fraction | None:
    """The rational c with left = c · right for the numerators of both; None if there is none or it is zero."""
    try:
        a, b = normal_form(left)[0], normal_form(right)[0]
    except (TooLargeError, UndefinedError):
        return None
    if not a or set(a) != set(b):
        return None
    quotients = {a[monomial] / b[monomial] for monomial in a}
    return quotients.pop() if len(quotients) == 1 else None


def size(expression: Expression) -> int:
    return sum(1 for _ in parts(expression))


@functools.lru_cache(maxsize=4096)
def normal_form(expression: Expression) -> Quotient:
    """(numerator, denominator) of an expression, not to be written to. Raises TooLargeError, UndefinedError."""
    head = expression[0]
    if head == "num":
        return _constant(expression[1])
    if head == "sym":
        return _atom(("sym", expression[1])), ONE
    if head == "neg":
        top, bottom = normal_form(expression[1])
        return add({}, top, -1), bottom
    if head == "pct":
        top, bottom = normal_form(expression[1])
        return top, scale(bottom, Fraction(100))
    if head in ("add", "mul", "div"):
        (a, b), (c, d) = normal_form(expression[1]), normal_form(expression[2])
        if head == "add":
            return (add(a, c), b) if b == d else (add(multiply(a, d), multiply(c, b)), multiply(b, d))
        if head == "div":
            c, d = d, c
        if not d:
            raise UndefinedError("a division by zero")
        return multiply(a, c), multiply(b, d)
    if head == "pow":
        return _power(expression[1], expression[2])
    if head == "root":
        return _root(expression[1], expression[2])
    if head == "fun":
        return _function(expression)
    raise UndefinedError(f"{head} has no value")


def _constant(value: Fraction) -> Quotient:
    _check(value)
    return ({(): value} if value else {}), ONE


def _check(value: Fraction) -> None:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooLargeError("a number of thousands of digits")


def _atom(atom: object, exponent: Fraction = Fraction(1)) -> Polynomial:
    return {((atom, exponent),): Fraction(1)}


def _is_opaque(atom: object) -> bool:
    return not (isinstance(atom, tuple) and atom[0] in _EXACT)


def add(left: Polynomial, right: Polynomial, sign: int = 1) -> Polynomial:
    total = dict(left)
    for monomial, coefficient in right.items():
        value = total.get(monomial, Fraction(0)) + sign * coefficient
        if value:
            total[monomial] = value
        else:
            total.pop(monomial, None)
    return total


def scale(polynomial: Polynomial, factor: Fraction) -> Polynomial:
    return {monomial: coefficient * factor for monomial, coefficient in polynomial.items()} if factor else {}


def multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    if left == ONE:
        return right
    if right == ONE:
        return left
    if len(left) * len(right) > MAX_TERMS * 10:
        raise TooLargeError("too many terms")
    product: Polynomial = {}
    for one, a in left.items():
        for other, b in right.items():
            monomial, factor, sums = _join(one, other)
            term: Polynomial = {monomial: a * b * factor}
            _check(a * b * factor)
            for base, exponent in sums:
                term = multiply(term, _integer_power(dict(base), exponent))
            for key, coefficient in term.items():
                product[key] = product.get(key, Fraction(0)) + coefficient
    if len(product) > MAX_TERMS:
        raise TooLargeError("too many terms")
    return {monomial: coefficient for monomial, coefficient in product.items() if coefficient}


def _join(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction, list[tuple[tuple, int]]]:
    """The product of two monomials: what is left, the rational that came out, and sums whose root was completed."""
    if not left or not right:
        return left or right, Fraction(1), []
    exponents: dict[object, Fraction] = dict(left)
    for atom, exponent in right:
        exponents[atom] = exponents.get(atom, Fraction(0)) + exponent
    factor, sums = Fraction(1), []
    for atom, exponent in list(exponents.items()):
        kind = atom[0] if isinstance(atom, tuple) else ""
        whole = math.floor(exponent)
        if kind == "prime" and whole:
            factor *= Fraction(atom[1]) ** whole  # type: ignore[index]
            exponents[atom] = exponent - whole
        elif atom == ("sym", "i") and exponent.denominator == 1:
            factor *= -1 if whole % 4 in (2, 3) else 1
            exponents[atom] = Fraction(whole % 2)
        elif kind == "sum" and whole >= 1:
            sums.append((atom[1], whole))  # type: ignore[index]
            exponents[atom] = exponent - whole
    monomial = tuple(sorted(((a, e) for a, e in exponents.items() if e), key=repr))
    return monomial, factor, sums


def _integer_power(base: Polynomial, exponent: int) -> Polynomial:
    if len(base) == 1:
        ((monomial, coefficient),) = base.items()
        if abs(coefficient) != 1 and exponent * coefficient_bits(coefficient) > MAX_BITS:
            raise TooLargeError("a power with thousands of digits")
        if exponent > 10**6:
            raise TooLargeError("an exponent above a million")
        if monomial and any(atom[0] != "sym" or atom[1] == "i" for atom, _ in monomial):  # type: ignore[index]
            return _repeated(base, exponent)
        return {tuple((atom, e * exponent) for atom, e in monomial): coefficient**exponent}
    return _repeated(base, exponent)


def coefficient_bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _repeated(base: Polynomial, exponent: int) -> Polynomial:
    if exponent > MAX_POWER and not (len(base) == 1 and exponent <= 2000):
        raise TooLargeError("a sum to a high power")
    result, square = ONE, base
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result


def _power(base: Expression, exponent: Expression) -> Quotient:
    value = rational(exponent)
    if value is None:
        return _symbolic_power(base, exponent)
    top, bottom = normal_form(base)
    if value.denominator == 1:
        if value == 0 and not top:
            raise UndefinedError("0^0")
        if value < 0:
            if not top:
                raise UndefinedError("a division by zero")
            top, bottom, value = bottom, top, -value
        if not top:
            return {}, ONE
        return _integer_power(top, int(value)), _integer_power(bottom, int(value))
    return _fractional(top, bottom, value)


def _root(degree: Expression, base: Expression) -> Quotient:
    n = rational(degree)
    if n is None or n.denominator != 1 or not 2 <= n <= 100:
        raise UndefinedError("a root of a strange degree")
    top, bottom = normal_form(base)
    return _fractional(top, bottom, 1 / n)


def _fractional(top: Polynomial, bottom: Polynomial, exponent: Fraction) -> Quotient:
    """(top/bottom)^exponent for a fraction `exponent`."""
    if exponent < 0:
        top, bottom, exponent = bottom, top, -exponent
    if not bottom:
        raise UndefinedError("a division by zero")
    if not top:
        return {}, ONE
    if len(bottom) == 1:  # rationalise: (a/b)^(1/n) of a rational b
        ((monomial, coefficient),) = bottom.items()
        if not monomial:
            top, bottom = scale(top, 1 / coefficient), ONE
    return _fractional_polynomial(top, exponent), _fractional_polynomial(bottom, exponent)


def _fractional_polynomial(base: Polynomial, exponent: Fraction) -> Polynomial:
    if base == ONE:
        return ONE
    whole = math.floor(exponent)
    exponent -= whole
    result = _integer_power(base, whole) if whole else ONE
    if exponent == 0:
        return result
    content = _content(base)
    if len(base) == 1:
        ((monomial, coefficient),) = base.items()
        sign = -1 if coefficient < 0 else 1
        result = multiply(result, _root_of_rational(abs(coefficient), exponent))
        if sign < 0:
            if exponent.denominator % 2:  # the real root
                result = scale(result, Fraction(-1) ** exponent.numerator)
            elif exponent.denominator == 2:
                result = multiply(result, _integer_power(_atom(("sym", "i")), exponent.numerator))
            else:
                return multiply(result, _atom(("sum", ((((), Fraction(-1)),))), exponent))
        if not monomial:
            return result
        simple = all(e == 1 and atom[0] == "sym" and atom[1] != "i" for atom, e in monomial)  # type: ignore[index]
        if simple:
            return multiply(result, {tuple((atom, exponent) for atom, _ in monomial): Fraction(1)})
        return multiply(result, _atom(("sum", ((monomial, Fraction(1)),)), exponent))
    primitive = scale(base, 1 / content)
    result = multiply(result, _root_of_rational(content, exponent))
    return multiply(result, _atom(("sum", tuple(sorted(primitive.items(), key=repr))), exponent))


def _content(polynomial: Polynomial) -> Fraction:
    """The positive rational that all coefficients share."""
    top = math.gcd(*(c.numerator for c in polynomial.values()))
    return Fraction(top, math.lcm(*(c.denominator for c in polynomial.values())))


def _root_of_rational(value: Fraction, exponent: Fraction) -> Polynomial:
    _check(value)
    result: Polynomial = ONE
    for number, sign in ((value.numerator, 1), (value.denominator, -1)):
        for prime, power in _factors(number):
            total = sign * power * exponent
            if abs(total) > MAX_BITS:
                raise TooLargeError("a root of a huge power")
            whole = math.floor(total)
            result = scale(result, Fraction(prime) ** whole)
            if total - whole:
                result = multiply(result, _atom(("prime", prime), total - whole))
    return result


def _factors(number: int) -> list[tuple[int, int]]:
    """Prime factors by trial division up to 5,000; a cofactor beyond that stands for itself, its square root aside."""
    found, divisor = [], 2
    while divisor < 5000 and divisor * divisor <= number:
        power = 0
        while number % divisor == 0:
            number //= divisor
            power += 1
        if power:
            found.append((divisor, power))
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        root = math.isqrt(number)
        found.append((root, 2) if root * root == number else (number, 1))
    return found


def _symbolic_power(base: Expression, exponent: Expression) -> Quotient:
    """2^x, e^{x+1}: one atom for each term of the exponent, so that 2^{x+1} = 2 · 2^x and 4^x = (2^x)^2."""
    top, bottom = normal_form(exponent)
    if set(bottom) != {()}:
        return _opaque(("power", _key(normal_form(base)), _key((top, bottom))))
    terms = scale(top, 1 / bottom[()])
    base_top, base_bottom = normal_form(base)
    factors: list[tuple[object, Fraction]] = []
    if set(base_top) == {()} and set(base_bottom) == {()} and base_top[()] > 0:
        value = base_top[()] / base_bottom[()]
        factors = [(prime, Fraction(power)) for prime, power in _factors(value.numerator)]
        factors += [(prime, Fraction(-power)) for prime, power in _factors(value.denominator)]
    elif base[0] == "sym":
        factors = [(base[1], Fraction(1))]
    else:
        return _opaque(("power", _key((base_top, base_bottom)), _key((top, bottom))))
    result = ONE
    for monomial, coefficient in terms.items():
        for factor, power in factors:
            if monomial:
                result = multiply(result, _atom(("power", factor, monomial), coefficient * power))
            elif isinstance(factor, int):
                result = multiply(result, _root_of_rational(Fraction(factor), coefficient * power))
            else:
                result = multiply(result, _atom(("sym", factor), coefficient * power))
    return result, ONE


def _opaque(atom: object) -> Quotient:
    return _atom(atom), ONE


def _key(quotient: Quotient) -> tuple:
    """Hashable; the same for quotients that differ by a rational factor above and below."""
    top, bottom = quotient
    if not top:
        return (), ()
    content = _content(bottom) * (1 if next(iter(sorted(bottom.items(), key=repr)))[1] > 0 else -1)
    return tuple(tuple(sorted(scale(polynomial, 1 / content).items(), key=repr)) for polynomial in (top, bottom))


def _function(expression: Expression) -> Quotient:
    """Functions of rational numbers that have a rational value, and opaque atoms otherwise."""
    name, arguments = expression[1], expression[2:]
    values = [rational(argument) for argument in arguments]
    if all(value is not None for value in values):
        exact = _exact_value(name, [value for value in values if value is not None])
        if exact is not None:
            return _constant(exact)
    if name in ("sin", "tan", "arcsin", "arctan", "sinh", "tanh") and len(arguments) == 1:  # odd functions
        top, bottom = normal_form(arguments[0])
        if top and sorted(top.items(), key=repr)[0][1] < 0:
            inner = add({}, top, -1)
            return scale(_atom(("fun", name, _key((inner, bottom)))), Fraction(-1)), ONE
    return _opaque(("fun", name, *(_key(normal_form(argument)) for argument in arguments)))


def _exact_value(name: str, values: list[Fraction]) -> Fraction | None:
    integers = [int(value) for value in values if value.denominator == 1]
    whole = len(integers) == len(values)
    if name == "abs":
        return abs(values[0])
    if name in ("floor", "ceil"):
        return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
    if name in ("max", "min"):
        return (max if name == "max" else min)(values)
    if name == "factorial" and whole:
        if integers[0] < 0:
            raise UndefinedError("a factorial of a negative number")
        if integers[0] > 500:
            raise TooLargeError("a factorial of a large number")
        return Fraction(math.factorial(integers[0]))
    if name == "binom" and whole and len(integers) == 2:
        if not 0 <= integers[0] <= 2000 or integers[1] < 0:
            raise TooLargeError("a binomial coefficient of a large number")
        return Fraction(math.comb(*integers))
    if name in ("gcd", "lcm") and whole:
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*integers))
    if name in ("ln", "log") and values[0] <= 0:
        raise UndefinedError("a logarithm of a number that is not positive")
    if name == "ln" and values[0] == 1:
        return Fraction(0)
    return None


# Floats


def refuted(left: Expression, right: Expression) -> bool:
    """Whether floats show, at one of a few points, that two expressions differ."""
    names = sorted(symbols(left) | symbols(right))
    complex_ones = any(part == ("sym", "i") for side in (left, right) for part in parts(side))
    for sample in range(SAMPLES if names else 1):
        values = _sample(tuple(names), sample)
        a, b = _evaluated(left, values), _evaluated(right, values)
        if a is None or b is None:
            if not names and (a is None) != (b is None):
                return True
            continue
        if (
            sample >= SIGNED_SAMPLES
            and not complex_ones
            and any(abs(value.imag) > 1e-9 * (1 + abs(value)) for value in (a, b))
        ):
            continue  # outside a real domain roots and logarithms have several branches
        if abs(a - b) > 1e-7 * max(abs(a), abs(b)) + 1e-12:
            return True
    return False


@functools.lru_cache(maxsize=256)
def _sample(names: tuple[str, ...], number: int) -> Mapping[str, float]:
    """Values for variables, the same in every process: positive ones first, then of both signs."""
    generator = random.Random(f"{names}{number}")
    values = {name: generator.uniform(0.3, 2.3 if number % 2 == 0 else 20.0) for name in names}
    if number >= SIGNED_SAMPLES:
        values = {name: value * generator.choice((-1, 1)) for name, value in values.items()}
        if all(value > 0 for value in values.values()):
            values = {name: -value for name, value in values.items()}
    return values


def _evaluated(expression: Expression, values: Mapping[str, float]) -> complex | None:
    try:
        found = numeric(expression, values)
    except (ArithmeticError, ValueError, KeyError, RecursionError):
        return None
    return found if cmath.isfinite(found) else None


def is_finite(expression: Expression) -> bool:
    """Whether it has a finite value where its variables are small positive numbers."""
    return _evaluated(expression, _sample(tuple(sorted(symbols(expression))), 0)) is not None


def value_of(expression: Expression) -> float | None:
    """The real value of a constant as a float, infinities included; None if it has none."""
    if expression[0] == "neg" and expression[1] == ("sym", "oo"):
        return -math.inf
    if expression == ("sym", "oo"):
        return math.inf
    if symbols(expression):
        return None
    found = _evaluated(expression, {})
    return found.real if found is not None and abs(found.imag) <= 1e-9 * (1 + abs(found)) else None


def numeric(expression: Expression, values: Mapping[str, float]) -> complex:
    """The value in floats. Raises ArithmeticError, ValueError or KeyError where there is none."""
    head = expression[0]
    if head == "num":
        return complex(float(expression[1]))
    if head == "sym":
        known = {"pi": math.pi, "e": math.e, "i": 1j}
        return complex(known[expression[1]] if expression[1] in known else values[expression[1]])
    if head == "fun":
        return _numeric_function(expression[1], [numeric(item, values) for item in expression[2:]])
    if head == "root":
        degree, base = (numeric(item, values) for item in expression[1:])
        if base.imag == 0 and base.real < 0 and degree.real % 2 == 1:
            return complex(-((-base.real) ** (1 / degree.real)))
        return base ** (1 / degree)
    first, *rest = (numeric(item, values) for item in expression[1:])
    if head == "neg":
        return -first
    if head == "pct":
        return first / 100
    if head == "add":
        return first + rest[0]
    if head == "mul":
        return first * rest[0]
    if head == "div":
        return first / rest[0]
    if head == "pow":
        if first.imag == 0 and first.real < 0 and expression[2][0] == "div":
            exponent = rational(expression[2])
            if exponent is not None and exponent.denominator % 2:
                return complex((-1) ** exponent.numerator * (-first.real) ** float(exponent))
        return first ** rest[0]
    raise ValueError(f"{head} has no value")


def _numeric_function(name: str, arguments: list[complex]) -> complex:
    one = {
        "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
        "arctan": cmath.atan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "ln": cmath.log,
        "abs": abs,
        "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z),
        "coth": lambda z: 1 / cmath.tanh(z), "arccot": lambda z: math.pi / 2 - cmath.atan(z),
        "factorial": lambda z: math.gamma(z.real + 1),
        "floor": lambda z: math.floor(z.real), "ceil": lambda z: math.ceil(z.real),
    }  # fmt: skip
    if name == "log":
        return cmath.log(arguments[0]) / cmath.log(arguments[1] if len(arguments) > 1 else 10)
    if name in one and len(arguments) == 1:
        return complex(one[name](arguments[0]))  # type: ignore[operator]
    if name == "binom":
        n, k = (argument.real for argument in arguments)
        return complex(math.gamma(n + 1) / math.gamma(k + 1) / math.gamma(n - k + 1))
    if name in ("max", "min"):
        return complex((max if name == "max" else min)(argument.real for argument in arguments))
    raise ValueError(f"{name} is unknown")
