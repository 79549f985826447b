r"""Whether an answer's form is right for a gold form. Gold and answer are not interchangeable.

The one rule about work left undone: an answer may be written differently, never less finished than the gold answer.
  - Where the gold answer is a plain number, the answer is one: an integer, decimal, fraction, mixed number, percentage,
    power-of-ten or based number. 6 * 7, 12/4, \sqrt{16} and 2^{10} name the number by a calculation, and are wrong.
  - Elsewhere sums, products, powers and roots may be arranged freely; a function (sine, logarithm, factorial, …) may
    stand in the answer only if one of its family stands in the gold answer.
  - An equation that is solved (x = 5) wants the solved form, so the question restated (2x + 1 = 11) is wrong.

A decimal stands for another exact number if it has at least 6 decimal places and is that number, rounded to them.

Comparing never calculates much: what only computer algebra can tell is asked of `facts`, and raises Undecided if it is
not there yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rewards.mathematics.algebra import equal, ratio, rational, value_of
from rewards.mathematics.expressions import (
    FUNCTIONS,
    LOGARITHMS,
    TRIGONOMETRIC,
    Expression,
    functions,
    is_plain,
    leaves_division,
    num,
    parts,
    show,
    symbols,
)
from rewards.mathematics.forms import (
    Based,
    Form,
    Items,
    Matrix,
    NumberSet,
    Relation,
    Value,
    Words,
    name_of,
    short,
    symbols_of,
    tidy,
)
from rewards.mathematics.real_sets import TURNED, as_real_set, is_real_set
from rewards.mathematics.spelling import without_lead_in
from rewards.mathematics.units import Unit

MIN_PLACES = 6
"""Decimal places from which a rounded decimal stands for the exact number."""
MAX_MATCHED = 60
"""Items of two lists that are matched in any order."""
Facts = Mapping[tuple[Expression, Expression], bool]


class Undecided(Exception):  # noqa: N818  (a question, not an error)
    """Only computer algebra can tell whether two expressions are equal."""

    def __init__(self, left: Expression, right: Expression):
        super().__init__(f"{show(left)} = {show(right)}?")
        self.pair = (left, right)


class Wrong(Exception):  # noqa: N818
    """The answer is wrong, and why."""


def compare(gold: Form, answer: Form, facts: Facts) -> str:
    """Why the answer is right. Raises Wrong with why it is wrong, Undecided where `facts` lacks an equality."""
    return _Comparison(facts).right(gold, answer)


@dataclass
class _Comparison:
    facts: Facts

    def equal(self, left: Expression, right: Expression) -> bool:
        found = equal(left, right)
        if found is None:
            if (left, right) not in self.facts:
                raise Undecided(left, right)
            found = self.facts[left, right]
        return found

    def same(self, gold: Form, answer: Form) -> bool:
        try:
            return bool(self.right(gold, answer))
        except Wrong:
            return False

    def right(self, gold: Form, answer: Form) -> str:
        gold, answer = tidy(gold), tidy(answer)
        answer = self.settled(gold, answer)
        if isinstance(gold, Value):
            return self.value(gold, answer)
        if isinstance(gold, Based):
            return self.based(gold, answer)
        if isinstance(gold, Words):
            return self.words(gold, answer)
        if isinstance(gold, Matrix):
            return self.matrix(gold, answer)
        if isinstance(gold, Relation):
            return self.relation(gold, answer)
        if is_real_set(gold) or is_real_set(answer):
            return self.sets(gold, answer)
        if isinstance(gold, Items):
            return self.items(gold, answer)
        return self.sets(gold, answer)

    def settled(self, gold: Form, answer: Form) -> Form:
        """The answer without what it repeats: a list whose items all say the same is one answer."""
        if not isinstance(answer, Items) or answer.brackets or isinstance(gold, Items):
            return answer
        values = [value for item in answer.items if isinstance(value := solved(item), Value)]
        if len(values) < 2 or len(values) < len(answer.items):
            return answer
        same = all(value.unit == values[0].unit and self.holds(values[0], value) for value in values[1:])
        return (values[0] if isinstance(gold, Value | Based) else answer.items[0]) if same else answer

    # One value

    def value(self, gold: Value, answer: Form) -> str:
        if isinstance(answer, Items) and answer.brackets == "{}" and len(answer.items) == 1:
            answer = tidy(answer.items[0])  # the set of solutions {42}
        if isinstance(answer, Relation):
            answer = self.stated(gold, answer)
        if isinstance(answer, Based):
            if answer.base != 10:  # it may be what had to be converted
                raise Wrong(f"{short(answer)} is not in base ten")
            answer = Value(num(int(answer.digits, answer.base)))
        if isinstance(answer, Items) and answer.brackets == ":" and len(answer.items) == 2:
            top, bottom = (_expression(item) for item in answer.items)
            answer = Value(("div", top, bottom))
        if not isinstance(answer, Value):
            raise Wrong(f"{short(answer)} is not one value")
        if not gold.unit and str(answer.unit or "").startswith("mod "):
            raise Wrong(f"{short(answer)} leaves its residue to be taken")
        if _in_degrees(gold.unit) and not answer.unit and ("sym", "pi") in set(parts(answer.expression)):
            gold = Value(_radians(gold.expression, gold.unit))
        self.finished(gold.expression, answer.expression)
        return self.amounts(gold, answer)

    def amounts(self, gold: Value, answer: Value) -> str:
        wanted, given = gold.expression, answer.expression
        if gold.unit and answer.unit and gold.unit != answer.unit:
            if gold.unit.powers != answer.unit.powers:
                if not _both_angles(gold.unit, answer.unit):
                    raise Wrong(f"in {answer.unit}, not in {gold.unit}")
                wanted, given = _in_radians(gold, answer)
            else:
                given = ("mul", given, num(answer.unit.size / gold.unit.size))
        percent = wanted[0] == "pct", given[0] == "pct"
        if self.equal_or_rounded(wanted, given):
            return "the same number" if is_plain(wanted) else "equal expressions"
        if percent == (True, False) and self.equal_or_rounded(wanted[1], given):
            return "the same number, the sign % left out"
        if percent == (False, True) and _at_least_one(wanted) and self.equal_or_rounded(wanted, given[1]):
            return "the same number of percent"
        degrees = _in_degrees(gold.unit) != _in_degrees(answer.unit) and not (gold.unit and answer.unit)
        if degrees and not is_plain(wanted) and self.equal(*_in_radians(gold, answer)):
            return "the same angle"
        raise Wrong(f"{short(answer)} is not {short(gold)}")

    def equal_or_rounded(self, gold: Expression, answer: Expression) -> bool:
        rounding = _rounded(gold, answer)
        return rounding if rounding is not None else self.equal(gold, answer)

    def finished(self, gold: Expression, answer: Expression) -> None:
        """Raises Wrong where the answer leaves work undone that the gold answer has done."""
        if is_plain(gold):
            if _places(gold) >= MIN_PLACES and not functions(answer):
                return  # a rounded number: its exact form says more
            if not is_plain(answer):
                raise Wrong(f"{short(show(answer))} leaves something to calculate")
            if leaves_division(answer) and not leaves_division(gold):
                raise Wrong(f"{short(show(answer))} leaves a division undone")
            return
        extra = _families(answer) - _families(gold)
        if symbols(gold):
            extra -= {"abs"}
        if extra:
            raise Wrong(f"{short(show(answer))} leaves {', '.join(sorted(extra))} to be calculated")
        if not symbols(gold) and symbols(answer):
            raise Wrong(f"{short(show(answer))} has variables, the gold answer has none")

    def stated(self, gold: Value, answer: Relation) -> Form:
        """The value that a chain of equalities ends on: x = 6 * 7 = 42. All its constant sides must agree."""
        if answer.signs == ("∈",):
            members = answer.sides[1]
            return tidy(members.items[0]) if isinstance(members, Items) and len(members.items) == 1 else members
        if set(answer.signs) - {"=", "≈"}:
            raise Wrong(f"{short(answer)} is no value")
        name, *chain = name_first(answer)
        signs = answer.signs[1:]
        if not names_value(name):
            chain, signs = [name, *chain], answer.signs
        values = [side for side in chain if isinstance(side, Value)]
        if len(values) < len(chain):
            return chain[-1] if len(chain) == 1 else answer
        if names_value(name) and name_of(name) in symbols_of(values[-1]):
            raise Wrong(f"{short(answer)} says what {short(name)} is by itself")
        if not names_value(name) and not symbols(gold.expression) and any(map(symbols_of, values)):
            raise Wrong(f"{short(answer)} is an equation, not its solution")
        return self.end_of(values, signs, is_plain(gold.expression))

    def end_of(self, values: Sequence[Value], signs: Sequence[str], plain: bool) -> Value:
        """What a chain of values ends on. An approximation that follows the exact value is a remark, unless a plain
        number is asked for and only the approximation is one.
        """
        end = len(values) - 1
        for position, sign in enumerate(signs):
            left, right = values[position : position + 2]
            if sign == "≈":
                if not _near(left.expression, right.expression):
                    raise Wrong(f"{short(left)} is not about {short(right)}")
                end = min(end, position)
            elif not self.holds(left, right):
                raise Wrong(f"{short(left)} = {short(right)} does not hold")
        return values[-1] if plain and not is_plain(values[end].expression) else values[end]

    def holds(self, left: Value, right: Value) -> bool:
        if left.unit and right.unit and left.unit.powers == right.unit.powers:
            return self.equal(
                ("mul", left.expression, num(left.unit.size)), ("mul", right.expression, num(right.unit.size))
            )
        return self.equal(left.expression, right.expression)

    # Bases, words, matrices

    def based(self, gold: Based, answer: Form) -> str:
        answer = solved(answer)
        digits = answer.digits if isinstance(answer, Based) else _digits(answer)
        base = answer.base if isinstance(answer, Based) else gold.base
        if digits is None or (digits.lstrip("0"), base) != (gold.digits.lstrip("0"), gold.base):
            raise Wrong(f"{short(answer)} is not {gold}")
        return "the same digits in the same base"

    def words(self, gold: Words, answer: Form) -> str:
        if isinstance(answer, Items) and not answer.items and gold.text == "no solution":
            return "the empty set"
        if isinstance(answer, Relation) and answer.signs == ("=",):
            answer = answer.sides[-1]
        if not isinstance(answer, Words) or gold.text not in (answer.text, without_lead_in(answer.text)):
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        return "the same words"

    def matrix(self, gold: Matrix, answer: Form) -> str:
        answer = solved(answer)
        if not isinstance(answer, Matrix) or list(map(len, gold.rows)) != list(map(len, answer.rows)):
            raise Wrong(f"{short(answer)} is no matrix of this shape")
        for wanted, given in zip(gold.rows, answer.rows):
            self.ordered(wanted, given)
        return "equal matrices"

    # Relations

    def relation(self, gold: Relation, answer: Form) -> str:
        signs = set(gold.signs)
        if signs == {"="}:
            return self.equation(gold, answer)
        if gold.signs == ("∈",):
            return self.member(gold, answer)
        if signs <= {"=", "≈"}:
            return self.right(gold.sides[-1], solved(answer))
        if as_real_set(gold) is not None:
            return self.sets(gold, answer)
        if not isinstance(answer, Relation):
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        if len(gold.signs) == 1:
            return self.proportional(gold, answer)
        if answer.signs != gold.signs or not all(self.same(*sides) for sides in zip(gold.sides, answer.sides)):
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        return "the same relation"

    def member(self, gold: Relation, answer: Form) -> str:
        """x ∈ S against S, against x ∈ S, and against an inequality."""
        if not isinstance(answer, Relation):
            return self.right(gold.sides[1], answer)
        if answer.signs != ("∈",):
            return self.sets(gold, answer)
        if not self.same(gold.sides[0], answer.sides[0]):
            raise Wrong(f"about {short(answer.sides[0])}, not {short(gold.sides[0])}")
        return self.right(gold.sides[1], answer.sides[1])

    def equation(self, gold: Relation, answer: Form) -> str:
        """A gold equation: a calculation (6 * 7 = 42), a point ((x, y) = (1, 2)), a solution (x = 5), or an equation in
        several variables.
        """
        name, *_, value = name_first(gold)
        if all(_is_constant(side) for side in gold.sides):
            return self.right(value, answer)
        if isinstance(name, Items):
            return self.point(name, value, answer)
        if names_value(name):
            return self.solution(name, value, answer)
        if isinstance(answer, Relation) and set(answer.signs) == {"="}:
            return self.proportional(gold, answer)
        raise Wrong(f"{short(answer)} is no equation")

    def solution(self, name: Form, value: Form, answer: Form) -> str:
        if not isinstance(answer, Relation) or set(answer.signs) != {"="}:
            return self.right(value, answer)
        left, *between, right = name_first(answer)
        if names_value(left):
            if _same_name(name, left) and not _defines_itself(left, right):
                return self.right(value, Relation((left, *between, right), answer.signs))
            if not symbols_of(name) <= symbols_of(right):
                raise Wrong(f"it gives {short(left)}, not {short(name)}")
        if not symbols_of(value) - symbols_of(name):
            raise Wrong(f"{short(answer)} is an equation, not its solution")
        return self.proportional(Relation((name, value), ("=",)), answer)

    def point(self, names: Items, values: Form, answer: Form) -> str:
        if isinstance(answer, Items) and answer.brackets == "" and (given := assignments(answer)) is not None:
            order = [name_of(item) or "" for item in names.items]
            if set(order) == set(given):
                answer = Items(tuple(given[name] for name in order), "()")
        if isinstance(answer, Relation):
            if answer.signs != ("=",) or not self.same(names, answer.sides[0]):
                raise Wrong(f"it gives {short(answer.sides[0])}, not {short(names)}")
            answer = answer.sides[1]
        return self.right(values, answer)

    def proportional(self, gold: Relation, answer: Relation) -> str:
        """Two equations or inequalities in several variables, of which one is a multiple of the other."""
        if len(gold.signs) != 1 or len(answer.signs) != 1:
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        factor = ratio(_difference(answer), _difference(gold)) or 0
        (wanted,), (given,) = gold.signs, answer.signs
        either_way = wanted == given and wanted in "=≠"
        if (factor and either_way) or (factor > 0 and wanted == given) or (factor < 0 and TURNED.get(wanted) == given):
            return "the same relation"
        if wanted == given and all(self.same(*sides) for sides in zip(gold.sides, answer.sides)):
            return "the same relation"
        raise Wrong(f"{short(answer)} is not {short(gold)}")

    # Lists, tuples, sets

    def items(self, gold: Items, answer: Form) -> str:
        if gold.brackets == ":":
            return self.proportion(gold, answer)
        if gold.brackets == "" and (wanted := assignments(gold)) is not None:
            return self.assigned(wanted, answer)
        if not gold.items:
            return self.empty(answer)
        if gold.brackets in ("", "{}"):
            return self.unordered(gold, answer)
        answer = self.tuple_of(gold, answer)
        if not isinstance(answer, Items):
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        bare = answer.brackets == "" and answer.joint == "," and (gold.brackets == "()" or _is_list(gold))
        if answer.brackets != gold.brackets and not bare:
            raise Wrong(f"{short(answer)} has other brackets than {short(gold)}")
        return self.ordered(gold.items, answer.items)

    def tuple_of(self, gold: Items, answer: Form) -> Form:
        """A tuple out of (x, y) = (1, 2), P = (1, 2), or x = 1, y = 2."""
        if isinstance(answer, Relation) and len(answer.signs) == 1:
            name, sign = tidy(answer.sides[0]), answer.signs[0]
            if sign == "∈" or (sign == "=" and (names_value(name) or isinstance(name, Items))):
                return tidy(answer.sides[1])
        if isinstance(answer, Items) and answer.brackets == "" and (given := assignments(answer)) is not None:
            return Items(tuple(given[name] for name in sorted(given)), gold.brackets)
        return answer

    def ordered(self, gold: Sequence[Form], answer: Sequence[Form]) -> str:
        if len(gold) != len(answer):
            raise Wrong(f"{len(answer)} items, not {len(gold)}")
        for wanted, given in zip(gold, answer):
            self.right(wanted, given)
        return "the same items in the same order"

    def unordered(self, gold: Items, answer: Form) -> str:
        wanted = solutions(gold)
        if isinstance(answer, Relation) and (answer.signs == ("∈",) or names_value(tidy(answer.sides[0]))):
            answer = tidy(answer.sides[-1])
        if not isinstance(answer, Items) or answer.brackets not in ("", "{}"):
            if len(wanted) == 1:
                return self.right(wanted[0], answer)
            if isinstance(answer, Items) and gold.brackets == "" and (answer.brackets == "()" or _is_list(answer)):
                return self.ordered(wanted, answer.items)
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        given = solutions(answer)
        if "{}" in (gold.brackets, answer.brackets):
            wanted, given = self.distinct(wanted), self.distinct(given)
        if len(wanted) != len(given):
            raise Wrong(f"{len(given)} values, not {len(wanted)}")
        words = gold.brackets == "" and all(isinstance(item, Words) for item in wanted)
        if words or len(wanted) > MAX_MATCHED:
            return self.ordered(wanted, given)
        return self.matched(wanted, given)

    def distinct(self, forms: Sequence[Form]) -> list[Form]:
        found: list[Form] = []
        for form in forms[: MAX_MATCHED * 2]:
            if not any(self.same(other, form) for other in found):
                found.append(form)
        return found

    def matched(self, gold: Sequence[Form], answer: Sequence[Form]) -> str:
        """Each gold item is met by an answer item of its own. Equality is as good as transitive, so greed is enough."""
        left = list(answer)
        for wanted in gold:
            match = next((n for n, given in enumerate(left) if self.same(wanted, given)), None)
            if match is None:
                raise Wrong(f"{short(wanted)} is missing")
            del left[match]
        return "the same values"

    def proportion(self, gold: Items, answer: Form) -> str:
        if isinstance(answer, Value) and len(gold.items) == 2 and answer.unit is None:
            answer = Items((Value(answer.expression), Value(num(1))), ":")
        if not isinstance(answer, Items) or answer.brackets != ":" or len(answer.items) != len(gold.items):
            raise Wrong(f"{short(answer)} is not the ratio {short(gold)}")
        wanted, given = ([_expression(item) for item in form.items] for form in (gold, answer))
        for a, b, c, d in zip(wanted, wanted[1:], given, given[1:]):
            self.finished(num(1), c)
            self.finished(num(1), d)
            if not self.equal(("mul", a, d), ("mul", b, c)):
                raise Wrong("another ratio")
        return "the same ratio"

    def assigned(self, gold: Mapping[str, Form], answer: Form) -> str:
        """x = 1, y = 2 against the same, in any order, or (1, 2) in the order of the names."""
        if isinstance(answer, Relation) and isinstance(answer.sides[0], Items) and isinstance(answer.sides[-1], Items):
            names = [name_of(item) for item in answer.sides[0].items]
            if set(names) != set(gold) or len(names) != len(answer.sides[-1].items):
                raise Wrong(f"it gives {short(answer.sides[0])}")
            given: Mapping[str, Form] | None = dict(zip(names, answer.sides[-1].items))  # type: ignore[arg-type]
        elif isinstance(answer, Items) and answer.brackets in ("", "()"):
            given = assignments(answer)
            if given is None and len(answer.items) == len(gold):
                if any(isinstance(item, Relation) for item in answer.items):
                    raise Wrong(f"{short(answer)} does not say which is which")
                given = dict(zip(sorted(gold), answer.items))
        else:
            given = None
        if given is None or set(given) != set(gold):
            raise Wrong(f"it does not give {', '.join(sorted(gold))}")
        for name, wanted in gold.items():
            self.right(wanted, given[name])
        return "the same assignments"

    def empty(self, answer: Form) -> str:
        answer = answer.sides[-1] if isinstance(answer, Relation) and answer.signs == ("∈",) else answer
        if (isinstance(answer, Items) and not answer.items) or (
            isinstance(answer, Words) and answer.text == "no solution"
        ):
            return "the empty set"
        raise Wrong(f"{short(answer)} is not empty")

    def sets(self, gold: Form, answer: Form) -> str:
        if isinstance(gold, NumberSet) and gold == answer:
            return "the same set"
        answer = solved(answer)
        wanted, given = as_real_set(gold), as_real_set(answer)
        if wanted is None or given is None:
            if isinstance(gold, Items) and isinstance(answer, Items) and _are_lists(gold, answer):
                return self.matched(gold.items, answer.items)
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        if wanted.variable and given.variable and wanted.variable != given.variable:
            raise Wrong(f"about {given.variable}, not {wanted.variable}")
        a, b = wanted.pieces(), given.pieces()
        if a.first != b.first or [inside for _, *inside in a.changes] != [inside for _, *inside in b.changes]:
            raise Wrong(f"{short(answer)} is not {short(gold)}")
        for (one, *_), (other, *_) in zip(a.changes, b.changes):
            if not self.equal_or_rounded(one, other):
                raise Wrong(f"{show(other)} bounds it, not {show(one)}")
        return "the same set of numbers"


# What a form says


def _expression(form: Form) -> Expression:
    form = tidy(form)
    if isinstance(form, Value):
        return form.expression
    raise Wrong(f"{short(form)} is no expression")


def names_value(form: Form) -> bool:
    """Whether it is a name that a value is given to: x, x_1, f(2), AB, |AB|, x + y. Not 2x, not x^2."""
    if not isinstance(form, Value) or form.unit is not None:
        return False
    expression = form.expression
    if expression[0] == "fun" and expression[1] not in FUNCTIONS | {"abs", "factorial", "binom"}:
        return True
    named = bool(symbols(expression)) or expression == ("sym", "i")
    return named and all(part[0] in ("sym", "mul", "add", "div", "fun") for part in parts(expression))


def name_first(relation: Relation) -> list[Form]:
    """The sides of an equation, turned round where its name stands last: 5 = x."""
    sides = [tidy(side) for side in relation.sides]
    return sides[::-1] if names_value(sides[-1]) and not names_value(sides[0]) else sides


def solved(form: Form) -> Form:
    """The value in "name = value"; any other form as it is."""
    if isinstance(form, Relation) and form.signs == ("=",):
        name, value = name_first(form)
        return value if names_value(name) else form
    return form


def _defines_itself(name: Form, value: Form) -> bool:
    return isinstance(name, Value) and name.expression[0] != "fun" and bool(symbols_of(name) & symbols_of(value))


def _is_list(form: Items) -> bool:
    """[1, 2, 3] can be no interval."""
    return form.brackets == "[]" and len(form.items) != 2


def _are_lists(gold: Items, answer: Items) -> bool:
    return gold.brackets == answer.brackets == "" and len(gold.items) == len(answer.items)


def _digits(form: Form) -> str | None:
    """The digits that a number without a written base consists of: 204, FF."""
    if not isinstance(form, Value) or form.unit is not None:
        return None
    if not all(part[0] in ("mul", "sym", "num") for part in parts(form.expression)):
        return None
    return show(form.expression).replace("*", "").upper()


def _same_name(one: Form, other: Form) -> bool:
    """Equal names; y and f(x) both name the value of a function."""
    a, b = _expression(one), _expression(other)
    return equal(a, b) is True or {str(a[1])[:1], str(b[1])[:1]} == {"y", "f"}


def _is_constant(form: Form) -> bool:
    return isinstance(form, Value) and not symbols(form.expression)


def _difference(relation: Relation) -> Expression:
    left, right = (_expression(side) for side in relation.sides)
    return ("add", left, ("neg", right))


def assignments(form: Items) -> dict[str, Form] | None:
    """x = 1, y = 2 as {x: 1, y: 2}; None if the items are anything else, or name one variable (or x_1, x_2) only."""
    found: dict[str, Form] = {}
    for item in form.items:
        if not isinstance(item, Relation) or item.signs != ("=",):
            return None
        name = name_of(item.sides[0])
        if name is None or name in found:
            return None
        found[name] = tidy(item.sides[1])
    stems = {name.partition("_")[0] for name in found}
    return found if len(found) > 1 and len(stems) > 1 else None


def solutions(form: Items) -> list[Form]:
    """The values of a list; "x = 1 or x = 2", "x = 1, 2" and x_1 = 1, x_2 = 2 list 1 and 2."""
    names = {name_of(item.sides[0]) for item in form.items if isinstance(item, Relation) and item.signs == ("=",)}
    stems = {name.partition("_")[0] if name else name for name in names}
    if len(stems) != 1 or None in stems:
        return [tidy(item) for item in form.items]
    return [
        tidy(item.sides[1]) if isinstance(item, Relation) and item.signs == ("=",) else tidy(item)
        for item in form.items
    ]


def _families(expression: Expression) -> frozenset[str]:
    family = {**dict.fromkeys(TRIGONOMETRIC, "a trigonometric function"), **dict.fromkeys(LOGARITHMS, "a logarithm")}
    family |= dict.fromkeys(("factorial", "binom"), "a factorial")
    return frozenset(family.get(name, name) for name in functions(expression))


def _rounded(gold: Expression, answer: Expression) -> bool | None:
    """Whether a decimal is the other, exact number rounded to its places; None if neither is such a decimal."""
    for decimal, exact in ((answer, gold), (gold, answer)):
        sign = 1
        if decimal[0] == "neg":
            sign, decimal = -1, decimal[1]
        if decimal[0] != "num" or (decimal[2] or 0) < MIN_PLACES:
            continue
        value, places = sign * decimal[1], decimal[2]
        known = rational(exact)
        if known is not None:
            if known == value:
                return True
            if (
                is_plain(exact)
                and (exact[0] == "num" or exact[0] == "neg")
                and known.denominator != 1
                and _places(exact)
            ):
                return round(known, places) == value if _places(exact) > places else False
            return abs(known - value) <= Fraction(1, 2 * 10**places)
        found = value_of(exact)
        if found is not None and math.isfinite(found):
            tolerance = Fraction(1, 2 * 10**places) + Fraction(abs(found)) / 10**14
            return abs(Fraction(found) - value) <= tolerance
    return None


def _places(expression: Expression) -> int:
    inner = expression[1] if expression[0] == "neg" else expression
    return (inner[2] or 0) if inner[0] == "num" else 0


def _near(left: Expression, right: Expression) -> bool:
    """Whether "left ≈ right" may be said: within 5 %."""
    a, b = value_of(left), value_of(right)
    return a is not None and b is not None and abs(a - b) <= 0.05 * max(abs(a), abs(b))


def _at_least_one(expression: Expression) -> bool:
    value = value_of(expression)
    return value is not None and abs(value) >= 1


def _in_degrees(unit: Unit | None) -> bool:
    return unit is not None and unit.powers == (("angle", 1),)


def _both_angles(one: Unit, other: Unit) -> bool:
    return {one.powers, other.powers} == {(("angle", 1),), (("radian", 1),)}


def _in_radians(*values: Value) -> list[Expression]:
    return [_radians(value.expression, value.unit) for value in values]


def _radians(expression: Expression, unit: Unit | None) -> Expression:
    return ("mul", expression, ("div", ("sym", "pi"), num(180))) if _in_degrees(unit) else expression
