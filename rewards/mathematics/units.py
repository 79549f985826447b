"""Units after a number: read, converted, compared. 10 cm is 0.1 m and 100 mm, never 10 m.

A table of what stands behind numbers in school and competition problems; any other noun ("42 apples") is a unit of its
own kind. A unit that only one side writes is taken as read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.mathematics.expressions import word_set


def _table() -> dict[str, tuple[str, Fraction]]:
    """Name -> (dimension, size in the dimension's base unit)."""
    rows: dict[str, dict[str, int | str]] = {
        "length": {
            "m meter meters metre metres": 1, "km kilometer kilometers kilometre kilometres kms": 1000,
            "cm centimeter centimeters centimetre centimetres cms": "1/100",
            "mm millimeter millimeters millimetre millimetres": "1/1000", "dm decimeter decimeters": "1/10",
            "nm nanometer nanometers": "1/1000000000",
            "in in. inch inches": "0.0254", "ft ft. foot feet": "0.3048", "yd yard yards": "0.9144",
            "mi mile miles": "1609.344",
        },
        "mass": {
            "g gram grams": "1/1000", "kg kilogram kilograms kgs": 1, "mg milligram milligrams": "1/1000000",
            "lb lbs pound pounds": "0.45359237", "oz ounce ounces": "0.028349523125", "tonne tonnes": 1000,
        },
        "time": {
            "s sec secs second seconds": 1, "min mins minute minutes": 60, "h hr hrs hour hours": 3600,
            "day days": 86400, "week weeks": 604800, "ms millisecond milliseconds": "1/1000",
        },
        "months": {"month months": 1, "year years yr yrs": 12},
        "volume": {
            "L l liter liters litre litres": "1/1000",
            "mL ml milliliter milliliters millilitre millilitres": "1/1000000",
            "gallon gallons gal": "0.003785411784", "quart quarts": "0.000946352946",
        },
        "money": {"dollar dollars USD": 1, "cent cents": "1/100"},
        "euro": {"euro euros EUR": 1}, "sterling": {"pounds_sterling": 1}, "yen": {"yen": 1},
        "angle": {"deg degree degrees": 1},
        "radian": {"rad radian radians": 1},
        "force": {"N newton newtons": 1}, "energy": {"J joule joules": 1, "kJ": 1000},
        "power": {"W watt watts": 1, "kW": 1000}, "voltage": {"V volt volts": 1},
        "current": {"A ampere amperes amps": 1},
        "frequency": {"Hz hertz": 1}, "pressure": {"Pa": 1, "kPa": 1000}, "amount": {"mol moles": 1},
        "unit": {"unit units": 1}, "celsius": {"celsius": 1}, "kelvin": {"K kelvin kelvins": 1},
        "fahrenheit": {"fahrenheit": 1},
    }  # fmt: skip
    table = {}
    for dimension, sizes in rows.items():
        for names, size in sizes.items():
            table.update({name: (dimension, Fraction(size)) for name in names.split()})
    return table


TABLE = _table()
BARE_LETTERS = frozenset("mgshLlNJWVAK")
"""One-letter units; without a space before them they are variables."""
CHANGING_WORDS = word_set(
    "hundred thousand million billion trillion dozen percent squared cubed half halves third thirds quarter quarters "
    "and or not to mod base times plus minus over choose factorial is are if maybe than by with per equals the but nor "
    "either neither perhaps possibly about approximately roughly degrees wait sorry no both between until at most "
    "least more less fewer pi sqrt sin cos tan log ln exp infinity"
)
"""Words that change the value before them or belong to a sentence, and so are no nouns that are counted."""


@dataclass(frozen=True)
class Unit:
    """A product of powers of dimensions and its size; a counted noun is a dimension of its own."""

    powers: tuple[tuple[str, int], ...]
    size: Fraction = Fraction(1)

    def __str__(self) -> str:
        names = " ".join(name if power == 1 else f"{name}^{power}" for name, power in self.powers)
        return names if self.size == 1 else f"{self.size} {names}"


_BEGINNING = re.compile(r"(?:(?<=[0-9)}\].])|(?<=\\pi))(?P<space>\s*)(?=\\deg(?![A-Za-z])|[A-Za-z])")
_FACTOR = re.compile(
    r"\s*(?P<by>/|\bper\b|\\cdot|\*)?\s*(?P<prefix>\b(?:square|cubic|sq\.?|cu\.?)(?=\s))?\s*"
    r"(?P<name>\\deg|[A-Za-z_]+\.?)(?:\s*\^\s*\{?\s*(?P<power>-?[1-3])\s*\}?)?\s*"
)


_MODULO = re.compile(r"\s*(?:\(\s*mod|\\pmod|\\[bp]?mod|\bmod)\s*\{?\s*([0-9]{1,9})\s*\}?\)?\s*$")
_SPELLED = [
    (re.compile(r"(?<=[0-9)}])\s*\\frac\{\s*([A-Za-z]+)\s*\}\{\s*([A-Za-z]+(?:\^\{?[23]\}?)?)\s*\}$"), r" \1/\2"),
    (re.compile(r"\bpounds sterling\b"), "pounds_sterling"),
    (re.compile(r"\bmph\b"), "miles/hour"),
    (re.compile(r"\b(?:kph|kmh)\b"), "km/h"),
    (re.compile(r"(?:\\deg|degrees?)\s*(?:C|Celsius|celsius)\b"), " celsius"),
    (re.compile(r"(?:\\deg|degrees?)\s*(?:F|Fahrenheit|fahrenheit)\b"), " fahrenheit"),
]


def split_unit(text: str) -> tuple[str, Unit] | None:
    r"""The value and the unit of a text such as "10 cm", "60 km/h", `90\deg` or "42 apples"; None if no unit ends it.

    >>> split_unit("10 cm^2")
    ('10', Unit(powers=(('length', 2),), size=Fraction(1, 10000)))
    >>> print(split_unit("42 red apples")[1], split_unit("42 million"), split_unit("2x"))
    red apple None None
    """
    for pattern, name in _SPELLED:
        text = pattern.sub(name, text)
    if modulus := _MODULO.search(text):
        return text[: modulus.start()], Unit(((f"mod {modulus[1]}", 1),))
    for start in _BEGINNING.finditer(text):
        unit = _read_unit(text[start.end() :], spaced=bool(start["space"]))
        if unit is not None and start.start() > 0:
            return text[: start.start()], unit
    return None


def _read_unit(text: str, *, spaced: bool) -> Unit | None:
    if len(text) > 80:
        return None
    powers: dict[str, int] = {}
    size, position, sign = Fraction(1), 0, 1
    while position < len(text):
        match = _FACTOR.match(text, position)
        if match is None or (position == 0 and match["by"]):
            return None
        found = _look_up(match["name"])
        if found is None or (len(text.strip()) == 1 and not (spaced and match["name"] in BARE_LETTERS)):
            return _noun(text) if spaced else None
        dimension, factor = found
        sign = -1 if match["by"] in ("/", "per") else sign
        power = sign * int(match["power"] or {"s": 2, "c": 3}.get((match["prefix"] or " ")[0], 1))
        size *= factor**power
        if dimension == "volume":
            dimension, power = "length", 3 * power
        powers[dimension] = powers.get(dimension, 0) + power
        position = match.end()
    return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)), size)


def _look_up(name: str) -> tuple[str, Fraction] | None:
    name = name.lstrip("\\")
    return TABLE.get(name) or TABLE.get(name.rstrip(".")) or (TABLE.get(name.lower()) if len(name) > 2 else None)


def _noun(text: str) -> Unit | None:
    """A counted noun of up to four words: "apples", "red marbles", "square units"."""
    words = text.lower().replace(".", "").split()
    if not 1 <= len(words) <= 4 or not all(word.isalpha() for word in words) or CHANGING_WORDS & set(words):
        return None
    if max(map(len, words)) < 3:
        return None
    return Unit(((" ".join(map(_singular, words)), 1),))


def _singular(word: str) -> str:
    for ending, replacement in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss") and len(word) > len(ending) + 1:
            return word[: -len(ending)] + replacement
    return word
