r"""Sets of real numbers, compared by what they contain: intervals, inequalities, unions, set-builders, "all reals".

A set is a test of membership with the places where it may change. Walking over these places gives one canonical
description of x < 1 or x > 3, of (-\infty, 1) \cup (3, \infty) and of \mathbb{R} \setminus [1, 3].
Places are told apart as floats here, and compared exactly, later, by rewards.mathematics.equality.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from rewards.mathematics.algebra import value_of
from rewards.mathematics.expressions import INFINITY, Expression, num, symbols
from rewards.mathematics.forms import Builder, Combined, Form, Items, NumberSet, Relation, Value, Words, name_of, tidy

MAX_INTEGERS = 60
"""Integers between the bounds of a set-builder over the integers."""
MAX_PARTS = 12
"""Intervals that are listed one by one."""
MINUS_INFINITY: Expression = ("neg", INFINITY)
Contains = Callable[[float], bool]


@dataclass(frozen=True)
class Pieces:
    """A set of reals from left to right: whether it begins at -∞, then (bound, is it inside?, is what follows?)."""

    first: bool
    changes: tuple[tuple[Expression, bool, bool], ...]


@dataclass(frozen=True)
class RealSet:
    """A set of reals by a test and the places where the test may change; `variable` is the name that was solved for."""

    bounds: tuple[tuple[float, Expression], ...]
    contains: Contains
    variable: str = ""

    def pieces(self) -> Pieces:
        places: list[tuple[float, Expression]] = []
        for value, expression in sorted(self.bounds, key=lambda bound: bound[0]):
            if math.isfinite(value) and (not places or not _close(places[-1][0], value)):
                places.append((value, expression))
        values = [value for value, _ in places] or [0.0]
        middles = [(a + b) / 2 for a, b in zip([values[0] - 2, *values], [*values, values[-1] + 2])]
        between = [self.contains(middle) for middle in middles]
        changes = []
        for n, (value, expression) in enumerate(places):
            inside = self.contains(value)
            if not between[n] == inside == between[n + 1]:
                changes.append((expression, inside, between[n + 1]))
        return Pieces(between[0], tuple(changes))


def _close(a: float, b: float) -> bool:
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 1e-11 * max(1.0, abs(a), abs(b)))


NO_NUMBERS = RealSet((), lambda value: False)
ALL_NUMBERS = RealSet((), lambda value: True)


def interval(low: Expression, high: Expression, low_inside: bool, high_inside: bool) -> RealSet | None:
    """None if a bound is no real number, the bounds are the wrong way round, or an infinity is inside."""
    a, b = value_of(low), value_of(high)
    if a is None or b is None or a > b or (low_inside and math.isinf(a)) or (high_inside and math.isinf(b)):
        return None
    if a == b and not (low_inside and high_inside):
        return None  # (0, 0) is a point of the plane

    def contains(value: float) -> bool:
        if _close(value, a):
            return low_inside and (b > a or high_inside)
        return high_inside if _close(value, b) else a < value < b

    return RealSet(((a, low), (b, high)), contains)


def point(form: Form) -> RealSet | None:
    form = tidy(form)
    return interval(form.expression, form.expression, True, True) if isinstance(form, Value) else None


def combine(operation: str, sets: Iterable[RealSet | None]) -> RealSet | None:
    """Union, intersection or difference ("∪", "∩", "∖"); None if a part is None or parts are about two variables."""
    known: list[RealSet] = []
    for one in sets:
        if one is None:
            return None
        known.append(one)
    variables = {one.variable for one in known} - {""}
    if len(variables) > 1:
        return None

    def contains(value: float) -> bool:
        found = [one.contains(value) for one in known]
        if operation == "∖":
            return found[0] and not any(found[1:])
        return any(found) if operation == "∪" else all(found)

    bounds = tuple(itertools.chain.from_iterable(one.bounds for one in known))
    return RealSet(bounds, contains, "".join(variables))


def is_real_set(form: Form) -> bool:
    """Whether a form can only be meant as a set of reals (a tuple or a list of values may be something else)."""
    if isinstance(form, Items):
        return form.brackets in ("(]", "[)") or (form.brackets == "" and any(map(is_real_set, form.items)))
    if isinstance(form, Relation):
        return bool(set(form.signs) & set("<>≤≥≠∈"))
    return isinstance(form, Combined | Builder | NumberSet)


def as_real_set(form: Form) -> RealSet | None:
    """The set of reals that a form describes, None if it describes none."""
    form = tidy(form)
    if isinstance(form, NumberSet):
        return ALL_NUMBERS if form.name == "Reals" else None
    if isinstance(form, Words):
        return NO_NUMBERS if form.text == "no solution" else None
    if isinstance(form, Combined):
        return combine(form.operation, map(as_real_set, form.sets))
    if isinstance(form, Builder):
        return _built(form)
    if isinstance(form, Relation):
        return _solved(form)
    return _listed(form) if isinstance(form, Items) else None


def _listed(form: Items) -> RealSet | None:
    items = [tidy(item) for item in form.items]
    if form.brackets == "{}":
        return combine("∪", map(point, items))
    if form.brackets != "":
        values = [item.expression for item in items if isinstance(item, Value) and item.unit is None]
        if len(items) != 2 or len(values) != 2 or form.brackets == ":":
            return None
        return interval(values[0], values[1], form.brackets[0] == "[", form.brackets[1] == "]")
    if items and all(isinstance(item, Value) for item in items):
        return combine("∪", map(point, items))
    if len(items) > MAX_PARTS:
        return None
    sets = [as_real_set(item) for item in items]
    if form.joint != "or" and all(isinstance(item, Relation) for item in items):
        both = combine("∩", sets)
        if form.joint == "and" or not _is_empty(both):
            return both
    if any(not _is_empty(combine("∩", pair)) for pair in itertools.combinations(sets, 2)):
        return None  # "x < 25 or x < 20" is two answers; parts of one answer do not overlap
    return combine("∪", sets)  # "x < 1, x > 3" and "(-∞, 1) and (3, ∞)" list two parts


def _is_empty(found: RealSet | None) -> bool:
    return found is None or found.pieces() == NO_NUMBERS.pieces()


TURNED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "=": "=", "≠": "≠"}


def _solved(form: Relation) -> RealSet | None:
    """A relation that is solved for one variable: x > 2, 1 < x ≤ 3, -x > -2, |x| < 1, x ≠ 1, x = 4, x ∈ (1, 2)."""
    if form.signs == ("∈",):
        found, member = as_real_set(form.sides[1]), name_of(form.sides[0])
        return None if found is None or member is None else replace(found, variable=member)
    sides = [side.expression for side in map(tidy, form.sides) if isinstance(side, Value) and side.unit is None]
    variable = [n for n, side in enumerate(sides) if symbols(side)]
    if len(sides) != len(form.sides) or len(variable) != 1 or len(sides) > 3 or (len(sides) == 3 and variable != [1]):
        return None
    middle, signs = variable[0], form.signs
    if sides[middle][0] == "neg":
        sides = [side[1] if side[0] == "neg" else ("neg", side) for side in sides]
        signs = tuple(TURNED.get(sign, sign) for sign in signs)
    name = sides[middle]
    halves = [
        _half_line(sign, sides[n + 1], name) if n == middle else _half_line(TURNED.get(sign, sign), sides[n], name)
        for n, sign in enumerate(signs)
    ]
    inner = name[2] if name[:2] == ("fun", "abs") else name
    found = combine("∩", halves) if inner[0] == "sym" else None
    return None if found is None else replace(found, variable=inner[1])


def _half_line(sign: str, bound: Expression, name: Expression) -> RealSet | None:
    """The numbers that stand in the relation `sign` to `bound`, or whose absolute value does."""
    if name[:2] == ("fun", "abs"):
        return _around_zero(sign, bound)
    if sign in ("<", "≤"):
        return interval(MINUS_INFINITY, bound, False, sign == "≤" and bound != INFINITY)
    if sign in (">", "≥"):
        return interval(bound, INFINITY, sign == "≥" and bound != MINUS_INFINITY, False)
    only = point(Value(bound))
    if sign == "≠":
        return combine("∖", [ALL_NUMBERS, only])
    return only if sign == "=" else None


def _around_zero(sign: str, bound: Expression) -> RealSet | None:
    if (value_of(bound) or 0) <= 0 or sign not in TURNED:
        return None
    minus = ("neg", bound)
    if sign in ("=", "≠"):
        both = combine("∪", [point(Value(minus)), point(Value(bound))])
        return both if sign == "=" else combine("∖", [ALL_NUMBERS, both])
    if sign in ("<", "≤"):
        return interval(minus, bound, sign == "≤", sign == "≤")
    return combine("∖", [ALL_NUMBERS, interval(minus, bound, sign == ">", sign == ">")])


def _built(form: Builder) -> RealSet | None:
    found = as_real_set(form.condition)
    if found is None or found.variable not in ("", form.variable):
        return None
    if form.domain == "Reals":
        return replace(found, variable="")
    finite = [value for value, _ in found.bounds if math.isfinite(value)]
    if form.domain not in ("Integers", "Naturals") or not finite or max(finite) - min(finite) > MAX_INTEGERS:
        return None
    if found.contains(max(finite) + 1.5) or (found.contains(min(finite) - 1.5) and form.domain == "Integers"):
        return None
    lowest = 0 if form.domain == "Naturals" else math.ceil(min(finite))
    inside = [n for n in range(lowest, math.floor(max(finite)) + 1) if found.contains(float(n))]
    return combine("∪", [point(Value(num(n))) for n in inside])
