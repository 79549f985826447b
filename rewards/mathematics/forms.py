r"""The forms of an answer: a value with its unit, a list, set, tuple or interval, a relation, a matrix, words.

`answers` reads them out of texts, `equality` and `real_sets` compare them. `str` shows a form
to people, in verdicts and reports.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards.mathematics.expressions import Expression, show, symbols
from rewards.mathematics.units import Unit


@dataclass(frozen=True)
class Value:
    """An expression, perhaps with a unit."""

    expression: Expression
    unit: Unit | None = None

    def __str__(self) -> str:
        return show(self.expression) + (f" [{self.unit}]" if self.unit else "")


@dataclass(frozen=True)
class Based:
    """A number written in a base other than ten: its digits and the base."""

    digits: str
    base: int

    def __str__(self) -> str:
        return f"{self.digits} in base {self.base}"


@dataclass(frozen=True)
class Items:
    """Several forms in a row.

    brackets: "" a bare list, "{}" a set, "()" "[]" "(]" "[)" a tuple or an interval, ":" a ratio. joint: the word
    between the items of a bare list: ",", "and" or "or".
    """

    items: tuple[Form, ...]
    brackets: str = ""
    joint: str = ","

    def __str__(self) -> str:
        opening, closing = (self.brackets[0], self.brackets[1]) if len(self.brackets) == 2 else ("", "")
        between = ":" if self.brackets == ":" else ", " if self.joint == "," or self.brackets else f" {self.joint} "
        return opening + between.join(map(str, self.items)) + closing


@dataclass(frozen=True)
class Relation:
    """A chain such as x = 5 or 1 < x \\le 3: n + 1 sides and n signs out of = < > ≤ ≥ ≠ ≈ ∈."""

    sides: tuple[Form, ...]
    signs: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.sides[0]) + "".join(f" {sign} {side}" for sign, side in zip(self.signs, self.sides[1:]))


@dataclass(frozen=True)
class Combined:
    """Sets joined by ∪, ∩ or ∖."""

    operation: str
    sets: tuple[Form, ...]

    def __str__(self) -> str:
        return f" {self.operation} ".join(map(str, self.sets))


@dataclass(frozen=True)
class Builder:
    """{variable ∈ domain | condition}."""

    variable: str
    domain: str
    condition: Form

    def __str__(self) -> str:
        return f"{{{self.variable} in {self.domain} | {self.condition}}}"


@dataclass(frozen=True)
class NumberSet:
    """One of the sets Reals, Integers, Naturals, Rationals, Complexes."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Form, ...], ...]

    def __str__(self) -> str:
        return "[" + "; ".join(", ".join(map(str, row)) for row in self.rows) + "]"


@dataclass(frozen=True)
class Words:
    """Text that is compared as text, in one spelling."""

    text: str

    def __str__(self) -> str:
        return f'"{self.text}"'


Form = Value | Based | Items | Relation | Combined | Builder | NumberSet | Matrix | Words


def tidy(form: Form) -> Form:
    """A form without the bare list around a single item."""
    while isinstance(form, Items) and form.brackets == "" and len(form.items) == 1:
        form = form.items[0]
    return form


def name_of(form: Form) -> str | None:
    """The name of a form that is one variable."""
    form = tidy(form)
    return str(form.expression[1]) if isinstance(form, Value) and form.expression[0] == "sym" else None


def symbols_of(form: Form) -> frozenset[str]:
    """The variables of a value; none for other forms."""
    return symbols(form.expression) if isinstance(form, Value) else frozenset()


def short(thing: object) -> str:
    """A form in at most 60 characters, for messages."""
    text = str(thing)
    return text if len(text) <= 60 else text[:60] + "…"
