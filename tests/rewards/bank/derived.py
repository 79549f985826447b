r"""Cases by construction: a random object is the gold answer; respelling it keeps an answer right, changing it makes it
wrong.

Exact arithmetic only (integers and fractions), nothing of the checker and no computer algebra, so that no verdict here
depends on what is tested. The seed is the name of the family: every call gives the same cases.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import gcd
from typing import NamedTuple


class Group(NamedTuple):
    """One gold answer with its right and its wrong answers."""

    kind: str
    gold: str
    correct: list[str]
    wrong: list[str]


Family = Callable[[random.Random], tuple[str, list[str], list[str]]]


MAX_WRONG = 2


def groups() -> Iterator[Group]:
    """All families, GROUPS[family] gold answers each, all different; at most MAX_WRONG wrong answers to each, so that
    right ones prevail as in training.
    """
    for family, (kind, count) in GROUPS.items():
        rng = random.Random(family.__name__)
        seen: set[str] = set()
        while len(seen) < count:
            gold, correct, wrong = family(rng)
            if gold not in seen:
                seen.add(gold)
                right = list(dict.fromkeys(correct))
                others = [text for text in dict.fromkeys(wrong) if text not in right]
                yield Group(kind, gold, right, rng.sample(others, min(MAX_WRONG, len(others))))


# Spelling


def latex(value: Fraction, command: str = r"\frac") -> str:
    r"""-7/2 -> `-\frac{7}{2}`, 3 -> `3`."""
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else rf"{sign}{command}{{{top}}}{{{bottom}}}"


def decimal(value: Fraction) -> str | None:
    """The exact decimal, None where there is none within 6 digits."""
    scaled = value * 10**6
    if scaled.denominator != 1:
        return None
    digits = f"{abs(scaled.numerator):07d}"
    text = f"{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
    return ("-" if value < 0 else "") + text


def mixed(value: Fraction) -> str:
    whole, rest = divmod(abs(value.numerator), value.denominator)
    return rf"{'-' if value < 0 else ''}{whole}\frac{{{rest}}}{{{value.denominator}}}"


def spellings(value: Fraction) -> list[str]:
    """All of one rational number, the first in LaTeX."""
    texts = [latex(value), str(value), latex(value, r"\dfrac"), latex(value, r"\tfrac"), f"${latex(value)}$"]
    if (exact := decimal(value)) is not None:
        texts.append(exact)
    if value.denominator > 1 and abs(value) > 1:
        texts.append(mixed(value))
    return list(dict.fromkeys(texts))


def sum_of(terms: list[tuple[int, str]]) -> str:
    """[(3, 'x'), (-1, '')] -> `3x - 1`."""
    text = ""
    for factor, name in terms:
        size = str(abs(factor)) if abs(factor) != 1 or not name else ""
        sign = "-" if factor < 0 else "+"
        text += f" {sign} {size}{name}" if text else f"{'-' if factor < 0 else ''}{size}{name}"
    return text


def rational(rng: random.Random) -> Fraction:
    """A fraction in lowest terms that is no integer."""
    bottom = rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 11, 12])
    top = rng.choice([n for n in range(-40, 41) if gcd(n, bottom) == 1])
    return Fraction(top, bottom)


def distinct(rng: random.Random, count: int, values: range) -> list[int]:
    return rng.sample(list(values), count)


# Numbers


def integers(rng):
    n = rng.choice([rng.randint(2, 999), -rng.randint(2, 999), rng.randint(1001, 99_999), rng.randint(10**6, 10**8)])
    correct = [
        str(n), f"{n:,}", f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", r"\,"), f"{n}.0", f"${n}$",
        rf"\text{{{n}}}", f"x = {n}", f"{n}.", str(n).replace("-", "−"),
    ]  # fmt: skip
    return str(n), correct, [str(n + 1), str(n - 1), str(-n), f"{n}0", f"{n}.5", rf"\frac{{1}}{{{n}}}"]


def fractions(rng):
    value = rational(rng)
    top, bottom = value.numerator, value.denominator
    wrong = [1 / value, -value, value + 1, Fraction(top, bottom + 1), value + Fraction(1, bottom)]
    rounded = f"{float(value):.2f}"
    return (
        latex(value),
        spellings(value),
        [latex(other) for other in wrong if other != value] + [rounded] * (Fraction(rounded) != value),
    )


def decimals(rng):
    value = Fraction(rng.randint(-9999, 9999) * 2 + 1, rng.choice([10, 100, 1000]))
    text = decimal(value)
    wrong = [value * 10, value / 10, -value, value + Fraction(1, 10), value - 1]
    return text, [text, text + "0", f"${text}$", latex(value), str(value)], [decimal(other) for other in wrong]


def scientific(rng):
    head, power = f"{rng.randint(1, 9)}.{rng.randint(1, 9)}", rng.choice([-9, -6, -5, -3, 4, 5, 7, 12])
    correct = [rf"{head} \times 10^{{{power}}}", rf"{head}\cdot10^{{{power}}}", f"{head}e{power}", f"{head}E{power}"]
    if 0 < power < 8:
        whole = int(Fraction(head) * 10**power)
        correct += [str(whole), f"{whole:,}"]
    wrong = [rf"{head} \times 10^{{{p}}}" for p in (power + 1, power - 1, -power)] + [f"{head}e{power + 2}", head]
    return correct[0], correct, wrong


def percents(rng):
    value = Fraction(rng.randint(11, 1999), 10)
    text = decimal(value)
    wrong = [value / 10, value * 10, value + 1, -value]
    return (
        rf"{text}\%",
        [rf"{text}\%", f"{text}%", rf"${text}\%$", decimal(value / 100), f"{text} percent"],
        [rf"{decimal(other)}\%" for other in wrong] + [decimal(value / 1000)],
    )


def bases(rng):
    base = rng.randint(2, 9)
    digits = [rng.randint(1, base - 1), *(rng.randint(0, base - 1) for _ in range(rng.randint(2, 4)))]
    text = "".join(map(str, digits))
    changed = text[:-1] + str((digits[-1] + 1) % base)
    wrong = [f"{text}_{{{base + 1}}}", f"{changed}_{{{base}}}", f"{text}_{{10}}", f"{text}0_{{{base}}}"]
    return f"{text}_{base}", [f"{text}_{{{base}}}", f"${text}_{base}$", f"{text}_{base}."], wrong


SQUAREFREE = [2, 3, 5, 6, 7, 10, 11, 13]


def radicals(rng):
    factor, root = rng.choice([2, 3, 4, 5, 6, 7, -2, -3]), rng.choice(SQUAREFREE)
    correct = [rf"{factor}\sqrt{{{root}}}", rf"{factor} \sqrt {{{root}}}", f"{factor}*sqrt({root})", f"{factor}√{root}"]
    if factor > 0:
        correct.append(rf"\sqrt{{{root}}} \cdot {factor}")
    others = [factor + 1 or 1, -factor]
    wrong = [rf"{other}\sqrt{{{root}}}" for other in others] + [
        rf"{factor}\sqrt{{{root + 15}}}",
        rf"{factor}+\sqrt{{{root}}}",
    ]
    return correct[0], correct, [*wrong, f"{factor * root**0.5:.2f}", rf"{factor}\sqrt[3]{{{root}}}"]


def multiples_of_pi(rng):
    value = rng.choice([rational(rng), Fraction(rng.randint(2, 60))])
    top, bottom = abs(value.numerator), value.denominator
    sign, size = "-" if value < 0 else "", "" if top == 1 else str(top)
    if bottom == 1:
        correct = [rf"{sign}{size}\pi", f"{sign}{size}π", rf"{sign}{top} \cdot \pi", f"{sign}{top}*pi"]
    else:
        correct = [
            rf"{sign}\frac{{{size}\pi}}{{{bottom}}}",
            rf"{sign}\frac{{{top}}}{{{bottom}}}\pi",
            f"{sign}{size}π/{bottom}",
        ]
    wrong = [latex(value), rf"{latex(value + 1)}\pi", rf"{latex(-value)}\pi", rf"{latex(value)}\pi^2"]
    return correct[0], correct, [*wrong, f"{float(value) * 3.14159265:.2f}"]


def complex_numbers(rng):
    real, imaginary = rng.choice([n for n in range(-9, 10) if n]), rng.choice([n for n in range(-9, 10) if abs(n) > 1])
    if abs(real) == abs(imaginary):
        imaginary += 10
    text = sum_of([(real, ""), (imaginary, "i")])
    swapped = sum_of([(imaginary, "i"), (real, "")])
    correct = [text, text.replace(" ", ""), swapped, f"z = {text}", text.replace("i", r"\mathrm{i}"), f"${text}$"]
    changes = [
        (real, -imaginary),
        (-real, imaginary),
        (imaginary, real),
        (real + 1 or 5, imaginary),
        (real, imaginary + 20),
    ]
    wrong = [sum_of([(a, ""), (b, "i")]) for a, b in changes]
    return text, correct, [*wrong, str(real + imaginary), text.replace("i", "")]


def plus_minus(rng):
    middle, root = rng.choice([n for n in range(-7, 8) if n]), rng.choice(SQUAREFREE)
    low, high = rf"{middle} - \sqrt{{{root}}}", rf"{middle} + \sqrt{{{root}}}"
    correct = [
        rf"{middle} \pm \sqrt{{{root}}}",
        rf"x = {middle} \pm \sqrt{{{root}}}",
        f"{high}, {low}",
        f"{low}, {high}",
    ]
    correct += [rf"\{{{low}, {high}\}}", rf"{middle} ± \sqrt{{{root}}}"]
    wrong = [
        low,
        high,
        rf"{-middle} \pm \sqrt{{{root}}}",
        rf"{middle} \pm \sqrt{{{root + 15}}}",
        rf"{middle} \pm {root}",
    ]
    return correct[0], correct, wrong


# Algebra


def polynomials(rng):
    a, (r, s) = rng.choice([1, 2, 3]), distinct(rng, 2, range(-9, 10))
    if not r or not s or r + s == 0:
        return polynomials(rng)
    terms = [(a, "x^2"), (-a * (r + s), "x"), (a * r * s, "")]
    text = sum_of(terms)
    factored = ("" if a == 1 else str(a)) + "".join(f"(x{-root:+d})" for root in (r, s))
    correct = [text, text.replace(" ", ""), sum_of(terms[::-1]), sum_of([terms[1], terms[2], terms[0]]), factored]
    correct.append(text.replace("x^2", "x^{2}"))
    wrong = []
    for position, (factor, name) in enumerate(terms):
        for other in (factor + 1 or 2, -factor):
            wrong.append(sum_of([*terms[:position], (other, name), *terms[position + 1 :]]))
    return text, correct, [*wrong[:5], text.replace("x", "y"), text.replace("x^2", "x^3")]


def linear_forms(rng):
    a, b, c = (sign * value for sign, value in zip(rng.choices([-1, 1], k=3), distinct(rng, 3, range(2, 12))))
    terms = [(a, "a"), (b, "b"), (c, "c")]
    text = sum_of(terms)
    orders = [[terms[i] for i in order] for order in ((2, 1, 0), (1, 2, 0), (1, 0, 2))]
    correct = [text, text.replace(" ", ""), *map(sum_of, orders)]
    wrong = [
        [(b, "a"), (a, "b"), (c, "c")],
        [(a, "a"), (-b, "b"), (c, "c")],
        [(a, "a"), (b, "b")],
        [(a + 20, "a"), *terms[1:]],
    ]
    return text, correct, list(map(sum_of, wrong))


def lines(rng):
    a, b = distinct(rng, 2, range(2, 10))
    b, c, k = b * rng.choice([-1, 1]), rng.choice([n for n in range(-20, 21) if n]), rng.choice([2, 3, 5])
    left = [(a, "x"), (b, "y")]
    correct = [
        f"{sum_of(left)} = {c}", f"{c} = {sum_of(left)}", f"{sum_of(left[::-1])} = {c}",
        f"{sum_of([*left, (-c, '')])} = 0", f"{sum_of([(k * a, 'x'), (k * b, 'y')])} = {k * c}",
    ]  # fmt: skip
    wrong = [
        ([(a, "x"), (b, "y")], c + 1),
        ([(a, "x"), (-b, "y")], c),
        ([(b, "x"), (a, "y")], c),
        ([(a, "x"), (b, "y")], -c),
    ]
    return correct[0], correct, [f"{sum_of(terms)} = {value}" for terms, value in wrong]


# Intervals and sets


def intervals(rng):
    low = rng.choice([rational(rng), Fraction(rng.randint(-20, 20))])
    high = low + rng.randint(1, 9)
    closed = rng.choice([(True, False), (False, True), (True, True)])

    def interval(a: Fraction, b: Fraction, left: bool, right: bool) -> str:
        return f"{'[' if left else '('}{latex(a)}, {latex(b)}{']' if right else ')'}"

    def inequality(a: Fraction, b: Fraction, left: bool, right: bool, signs: tuple[str, str] = (r"\le", "<")) -> str:
        return f"{latex(a)} {signs[0] if left else signs[1]} x {signs[0] if right else signs[1]} {latex(b)}"

    gold = interval(low, high, *closed)
    chain = inequality(low, high, *closed)
    correct = [
        gold, gold.replace("-", "−"), rf"\left{gold[:-1]}\right{gold[-1]}", rf"x \in {gold}", chain,
        inequality(low, high, *closed, signs=("≤", "<")), rf"\{{x \mid {chain}\}}", rf"\{{x : {chain}\}}",
    ]  # fmt: skip
    flipped = interval(low, high, not closed[0], closed[1]), inequality(low, high, closed[0], not closed[1])
    wrong = [
        *flipped,
        interval(low - 1, high, *closed),
        interval(low, high + 1, *closed),
        interval(-high - 50, -low, *closed),
    ]
    return gold, correct, [*wrong, latex(high), f"{latex(low)}, {latex(high)}"]


def rays(rng):
    end, up, closed = rng.randint(-30, 30), rng.choice([True, False]), rng.choice([True, False])

    def ray(bound: int, up: bool, closed: bool, infinity: str = r"\infty") -> str:
        if up:
            return f"{'[' if closed else '('}{bound}, {infinity})"
        return f"(-{infinity}, {bound}{']' if closed else ')'}"

    def inequality(bound: int, up: bool, closed: bool, signs: str = r"\ge \le > <") -> str:
        return f"x {signs.split()[(0 if closed else 2) + (0 if up else 1)]} {bound}"

    gold = ray(end, up, closed)
    correct = [gold, ray(end, up, closed, "∞"), inequality(end, up, closed), inequality(end, up, closed, "≥ ≤ > <")]
    correct += [rf"\{{x \mid {inequality(end, up, closed)}\}}", rf"x \in {gold}"]
    wrong = [
        ray(end, up, not closed),
        inequality(end, not up, closed),
        ray(end + 1, up, closed),
        inequality(end - 1, up, closed),
    ]
    return gold, correct, [*wrong, str(end), rf"x = {end}"]


def unions(rng):
    a, b = sorted(distinct(rng, 2, range(-20, 20)))
    gold = rf"(-\infty, {a}) \cup ({b}, \infty)"
    correct = [
        gold, f"(-∞, {a}) ∪ ({b}, ∞)", rf"({b}, \infty) \cup (-\infty, {a})", rf"x < {a} \text{{ or }} x > {b}",
        f"x < {a} or x > {b}", rf"x \in {gold}",
    ]  # fmt: skip
    wrong = [
        rf"(-\infty, {a}] \cup [{b}, \infty)", rf"({a}, {b})", rf"(-\infty, {a - 1}) \cup ({b}, \infty)",
        rf"(-\infty, {a})", rf"(-\infty, {a}) \cup ({b + 1}, \infty)",
    ]  # fmt: skip
    return gold, correct, wrong


def sets(rng):
    values = [Fraction(n) for n in distinct(rng, rng.randint(1, 3), range(-15, 16))] + [rational(rng)]

    def written(items: list[Fraction], spell: Callable[[Fraction], str] = latex) -> str:
        return rf"\{{{', '.join(map(spell, items))}\}}"

    gold = written(values)
    correct = [gold, written(values[::-1]), written(sorted(values)), written(values, str), written(values)[2:-2]]
    correct += [rf"\left\{{{', '.join(map(latex, values))}\right\}}", f"${gold}$"]
    wrong = [values[1:], [*values, Fraction(40)], [values[0] + 50, *values[1:]], [-50 - values[0], *values[1:]]]
    return gold, correct, [*map(written, wrong), latex(sum(values) + 100)]


# Structures


def tuples(rng):
    values = [Fraction(n) for n in distinct(rng, rng.choice([1, 2]), range(-15, 16))] + [rational(rng)]

    def written(items: list[Fraction], spell: Callable[[Fraction], str] = latex) -> str:
        return f"({', '.join(map(spell, items))})"

    gold = written(values)
    correct = [
        gold,
        gold.replace(" ", ""),
        written(values, str),
        rf"\left{gold[:-1]}\right)",
        f"${gold}$",
        gold.replace("-", "−"),
    ]
    if all(decimal(value) for value in values):
        correct.append(written(values, lambda value: str(decimal(value))))
    wrong = [
        values[::-1],
        values[1:] + values[:1],
        [values[0] + 1, *values[1:]],
        [*values[:-1], -values[-1]],
        [*values, Fraction(0)],
    ]
    return gold, correct, list(map(written, wrong))


def matrices(rng):
    rows = [[rng.randint(-9, 9) for _ in range(rng.choice([2, 3]))]]
    rows += [[rng.randint(-9, 9) for _ in rows[0]]]
    if rows[0] == rows[1] or rows[0][1] == rows[1][0]:
        return matrices(rng)

    def written(entries: list[list[int]], name: str = "pmatrix") -> str:
        return rf"\begin{{{name}}}" + r" \\ ".join(" & ".join(map(str, row)) for row in entries) + rf"\end{{{name}}}"

    gold = written(rows)
    columns = "c" * len(rows[0])
    array = written(rows, "array").replace(r"\begin{array}", rf"\begin{{array}}{{{columns}}}")
    correct = [gold, gold.replace(" ", ""), written(rows, "bmatrix"), rf"\left[{array}\right]", f"${gold}$"]
    transposed = [list(column) for column in zip(*rows)]
    wrong = [
        transposed,
        rows[::-1],
        [[rows[0][0] + 1, *rows[0][1:]], rows[1]],
        [rows[0], [*rows[1][:-1], rows[1][-1] - 1]],
        rows[:1],
    ]
    return gold, correct, list(map(written, wrong))


# Words


UNITS = [("cm", "m"), ("kg", "g"), ("hours", "minutes"), ("miles", "feet"), ("dollars", "cents"), ("liters", "gallons")]


def units(rng):
    number, (unit, other) = rng.randint(2, 500), rng.choice(UNITS)
    correct = [
        rf"{number}\text{{ {unit}}}",
        f"{number} {unit}",
        rf"{number}\,\text{{{unit}}}",
        f"{number}.0 {unit}",
        str(number),
    ]
    return (
        correct[0],
        correct,
        [f"{number} {other}", f"{number + 1} {unit}", f"{number}0 {unit}", rf"{number - 1}\text{{ {unit}}}"],
    )


CHOICE = ["{}", "({})", r"\text{{{}}}", r"\text{{({})}}", r"\textbf{{({})}}", r"\mathrm{{{}}}", "{}.", "${}$"]


def choices(rng):
    right, *others = rng.sample("ABCDE", 4)
    gold = rng.choice(CHOICE[:5]).format(right)
    wrong = [rng.choice(CHOICE).format(other) for other in others]
    return gold, [form.format(right) for form in CHOICE], [*wrong, f"{right} or {others[0]}", f"{others[0]}, {right}"]


WORDS = ["red", "green", "Anna", "Boris", "north", "winter", "circle", "square", "odd", "prime", "Friday", "never"]


def words(rng):
    right, *others = rng.sample(WORDS, 3)
    forms = ["{}", r"\text{{{}}}", r"\mathrm{{{}}}", "{}.", r"\text{{ {} }}"]
    wrong = [others[0], rf"\text{{{others[1]}}}", f"{right} or {others[0]}", f"not {right}"]
    return rng.choice(forms[:2]).format(right), [*(form.format(right) for form in forms), right.upper()], wrong


# Typesetting: what only looks different keeps every verdict.

PAIRS = [
    (r"\frac{3}{4}", r"\frac{4}{3}"), ("42", "24"), (r"2\sqrt{3}", r"3\sqrt{2}"), ("x^2 + 1", "x^2 - 1"),
    ("(1, 2)", "(2, 1)"), ("[0, 1)", "(0, 1]"), (r"\{1, 2\}", r"\{1, 3\}"), ("3 + 4i", "3 - 4i"),
    (r"\frac{\pi}{2}", r"\frac{2}{\pi}"), ("-5", "5"),
    (r"\begin{pmatrix}1 & 2\end{pmatrix}", r"\begin{pmatrix}2 & 1\end{pmatrix}"), (r"\text{Monday}", r"\text{Friday}"),
    ("y = 2x + 1", "y = 2x - 1"), (r"x \ge 2", r"x \le 2"), (r"\pm 3", r"\pm 2"),
    (r"1.5 \times 10^{6}", r"1.5 \times 10^{5}"),
]  # fmt: skip
DRESSES = [
    "${}$", "$${}$$", r"\({}\)", r"\[{}\]", "{}.", "  {}  ", "{{{}}}", r"{}\,", r"\displaystyle {}", "${}$.", "\n{}\n",
    r"\boxed{{{}}}",
]  # fmt: skip


def typesetting(rng):
    right, wrong = PAIRS[rng.randrange(len(PAIRS))]
    dresses = rng.sample(DRESSES, 6)
    return right, [dress.format(right) for dress in dresses], [dress.format(wrong) for dress in dresses[:4]]


GROUPS: dict[Family, tuple[str, int]] = {
    integers: ("integers", 11),
    fractions: ("fractions", 11),
    decimals: ("decimals", 8),
    scientific: ("scientific", 7),
    percents: ("percent", 7),
    bases: ("bases", 8),
    radicals: ("radicals", 8),
    multiples_of_pi: ("pi and logarithms", 8),
    complex_numbers: ("complex numbers", 8),
    plus_minus: ("plus or minus", 7),
    polynomials: ("expressions", 8),
    linear_forms: ("expressions", 7),
    lines: ("equations", 8),
    intervals: ("intervals", 11),
    rays: ("inequalities", 8),
    unions: ("intervals", 7),
    sets: ("sets", 9),
    tuples: ("tuples", 9),
    matrices: ("matrices", 8),
    units: ("units", 8),
    choices: ("multiple choice", 8),
    words: ("text", 8),
    typesetting: ("typesetting", 16),
}
"""Each family with its kind and how many gold answers it makes."""
