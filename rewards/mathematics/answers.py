r"""Reading answers: from a text to a form (rewards.mathematics.forms).

`read_answer` goes from the outside in: alternatives and lists are split first, then relations, then set operations and
brackets, at last expressions (rewards.mathematics.expressions). It raises UnreadableError rather than guess.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from rewards.mathematics.algebra import rational
from rewards.mathematics.expressions import (
    PLAIN_WORDS,
    Expression,
    UnreadableError,
    expand_signs,
    num,
    parts,
    read_expression,
)
from rewards.mathematics.forms import Based, Builder, Combined, Form, Items, Matrix, NumberSet, Relation, Value, Words
from rewards.mathematics.spelling import HEDGING, last_word, plain, without_lead_in
from rewards.mathematics.units import Unit, split_unit

MAX_NESTING = 12
"""Brackets of lists, sets and tuples inside each other."""
MAX_ITEMS = 200
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words that multiply the number before them."""


@functools.lru_cache(maxsize=8192)
def read_answer(text: str) -> Form:
    r"""The form of a whole answer. Raises UnreadableError.

    >>> print(read_answer("$x=\\frac{1}{2}$ or $x=3$"), "|", read_answer("(-\\infty, 2]"), "|", read_answer("10 cm"))
    x = 1/2 or x = 3 | (-oo, 2] | 10 [1/100 length]
    """
    text = plain(last_word(plain(text)))
    if not text:
        raise UnreadableError("nothing is written")
    try:
        return _read(text)
    except UnreadableError:
        shorter = without_lead_in(text)
        if shorter == text:
            raise
        return _read(shorter)


_FORMULA = re.compile(r"\$\$?([^$]+)\$|\\\(((?:[^\\]|\\[^)])*)\\\)|\\\[((?:[^\\]|\\[^\]])*)\\\]")


def read_gold_answer(text: str) -> Form:
    r"""The form of a gold answer: as `read_answer`, or the one formula in a sentence. Raises UnreadableError.

    >>> print(read_gold_answer("Thus the height of it all was $h = 3$ in the end."))
    h = 3
    """
    formulas = [next(filter(None, match.groups())) for match in _FORMULA.finditer(text)]
    if len(formulas) == 1 and len(_FORMULA.sub(" ", text).split()) > 3:
        return _read(plain(formulas[0]))
    return read_answer(text)


_CLOCK = re.compile(r"([0-9]{1,2}):([0-5][0-9])(?:\s*([ap])\.?\s?m\.?)?", re.IGNORECASE)


def _read(text: str) -> Form:
    if clock := _CLOCK.fullmatch(text):
        return Words(f"{int(clock[1])}:{clock[2]}" + (f" {clock[3].lower()}m" if clock[3] else ""))
    if words := read_words(text):
        return words
    return read_form(text, 0)


# Words

_NOT_WORDS = re.compile(r"[0-9+=^_\\*/<>|$&%{}\[\]?!]")
_WORD = re.compile(r"[A-Za-z]{4,}|[^\W\d_A-Za-z]+")
_SHORT_WORDS = {"yes", "no", "odd", "even", "dne", "red", "all", "any", "one", "two", "six", "ten", "true"}
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS.split())}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_SAME_WORDS = {
    "no solution": "no solution", "no solutions": "no solution", "there is no solution": "no solution",
    "there are no solutions": "no solution", "no real solution": "no solution", "no real solutions": "no solution",
    "empty set": "no solution", "no such value": "no solution",
    "does not exist": "does not exist", "dne": "does not exist", "undefined": "undefined", "not defined": "undefined",
    "infinitely many": "infinitely many", "infinitely many solutions": "infinitely many",
    "an infinite number": "infinitely many", "infinite": "infinitely many",
}  # fmt: skip
_ALL_REALS = {"all real numbers", "all reals", "real numbers", "every real number", "the set of all real numbers"}
_ARTICLES = re.compile(r"\b(?:a|an|the)\b ")
_FORMULA_WORDS = PLAIN_WORDS | {"frac"}


def is_words(text: str) -> bool:
    r"""Whether a plain text is words and no formula: "Monday", "no solution", "서울"; not "xy" or "2\pi".

    >>> is_words("Monday"), is_words("xy"), is_words("10 cm")
    (True, False, False)
    """
    if _NOT_WORDS.search(text):
        return False
    found = set(re.findall(r"[^\W\d_]+", text.lower()))
    return bool(_WORD.search(text) or found & _SHORT_WORDS) and not found & _FORMULA_WORDS


def read_words(text: str) -> Form | None:
    """Words, or the number or set that they name."""
    if not is_words(text):
        return None
    spelled = spell_words(text)
    if spelled in _ALL_REALS:
        return NumberSet("Reals")
    value = _number_in_words(spelled)
    return Words(_SAME_WORDS.get(spelled, spelled)) if value is None else Value(num(value))


def spell_words(text: str) -> str:
    text = re.sub(r"\s*(?:→|>|;|,)\s*", ", ", text.casefold())
    return _ARTICLES.sub("", " ".join(text.replace('"', "").replace("*", " ").strip(" .,!").split()))


def _number_in_words(text: str) -> int | None:
    """zero … ninety-nine, else None."""
    values = [_NUMBER_WORDS.get(word) for word in re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text).split()]
    if len(values) == 1:
        return values[0]
    if len(values) == 2 and None not in values:
        tens, ones = values
        return tens + ones if tens >= 20 and 0 < ones < 10 else None  # type: ignore[operator]
    return None


# Lists

_CONNECTIVE = re.compile(
    r"(?<![A-Za-z\\])(?:and|or|And|Or|OR|AND)(?![A-Za-z])|\\(?:lor|vee|land|wedge|text)(?![A-Za-z])|;|,"
)
_MEANING = {"lor": "or", "vee": "or", "land": "and", "wedge": "and", ";": ","}


def top_level(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """The matches of a pattern outside all brackets and environments. Any bracket closes any: [0, 1) is an interval."""
    depth, position = 0, 0
    while position < len(text):
        if depth == 0 and (match := pattern.match(text, position)) and match.end() > position:
            yield match
            position = match.end()
            continue
        if text[position] == "\\":
            step, change = _command_at(text, position)
            depth, position = depth + change, position + step
            continue
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth < 0:
            raise UnreadableError("a bracket closes that was never opened")
        position += 1
    if depth:
        raise UnreadableError("a bracket is never closed")


def _command_at(text: str, position: int) -> tuple[int, int]:
    """Length of the command that begins here, and what it does to the depth."""
    following = text[position + 1 : position + 2]
    if following in ("{", "}"):
        return 2, 1 if following == "{" else -1
    name = re.compile(r"[A-Za-z]+").match(text, position + 1)
    if name is None:
        return 2, 0
    depth = {"begin": 1, "langle": 1, "lfloor": 1, "lceil": 1, "end": -1, "rangle": -1, "rfloor": -1, "rceil": -1}
    return 1 + len(name[0]), depth.get(name[0], 0)


def split_items(text: str, *, bracketed: bool) -> tuple[list[str], str]:
    """The items of a list and the word between them. "1,234" is one number, unless brackets or other commas (with
    spaces) show that commas separate.
    """
    matches = list(top_level(text, _CONNECTIVE))
    spaced = any(match[0] == "," and text[match.end() :].startswith(" ") for match in matches)
    whole = re.fullmatch(r"[-+]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?(?:\s*%|\s*[A-Za-z\\ .^{}23/]+)?", text)
    joined = spaced or (bool(whole) and not bracketed)
    items, joints, start = [], set(), 0
    for match in matches:
        if match[0] == "," and _separates_thousands(text, match.start()) and (joined or not bracketed):
            continue
        items.append(text[start : match.start()].strip())
        start = match.end()
        word = match[0].lstrip("\\").lower()
        joints.add(_MEANING.get(word, word))
    items.append(text[start:].strip())
    if len(items) > 1:
        items = _without_oxford_gaps(items)
    joint = "or" if "or" in joints else "and" if "and" in joints else ","
    if len(items) > MAX_ITEMS:
        raise UnreadableError(f"a list of {len(items)} items")
    return items, joint


def _without_oxford_gaps(items: list[str]) -> list[str]:
    """Without the empty item of ", and"; any other empty item is an error, a trailing comma aside."""
    kept = [item for item in items if item]
    if len(items) - len(kept) > 1 or not kept or (len(items) > len(kept) and items[0] == ""):
        raise UnreadableError("a list with an empty item")
    return kept


def _separates_thousands(text: str, comma: int) -> bool:
    before = re.search(r"(?<![0-9.])([1-9][0-9]{0,2})(?:,[0-9]{3})*$", text[max(0, comma - 40) : comma])
    return before is not None and bool(re.match(r",[0-9]{3}(?![0-9])", text[comma : comma + 5]))


_THOUSANDS = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})((?:,[0-9]{3})+)(?![0-9])")
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,/])(?<![0-9] )([1-9][0-9]{0,2})((?: [0-9]{3})+)(?![0-9/]| [0-9])")


def read_form(text: str, depth: int) -> Form:
    """One form: a bare list, a relation, a set, a bracketed list, or a value."""
    if depth > MAX_NESTING:
        raise UnreadableError("brackets too deep inside each other")
    text = text.strip()
    if text.startswith(("]", "(", "[")) and (french := re.fullmatch(r"\]([^\[\]]+)([;,])([^\[\]]+)\[", text)):
        return read_form(f"({french[1]},{french[3]})", depth)
    if compound := _compound(text):
        return compound
    items, joint = split_items(text, bracketed=False)
    if len(items) == 1:
        return _read_relation(items[0], depth)
    forms = tuple(_flattened(read_form(item, depth + 1) for item in _shared_unit(items)))
    if len(forms) == 2 and _says_integer(forms[1]):
        return forms[0]
    return Items(forms, "", joint)


def _says_integer(form: Form) -> bool:
    """k ∈ ℤ, which only says what the k in a family such as 2kπ is."""
    return isinstance(form, Relation) and form.signs == ("∈",) and form.sides[1] == NumberSet("Integers")


def _flattened(forms: Iterator[Form]) -> Iterator[Form]:
    for form in forms:
        if isinstance(form, Items) and form.brackets == "":  # ± gives two
            yield from form.items
        else:
            yield form


def _shared_unit(items: list[str]) -> list[str]:
    """ "3, 4 and 5 cm": a unit at the end holds for the bare numbers before it."""
    last = split_unit(items[-1])
    if last is None or any(not re.fullmatch(r"-?[0-9.,/]+", item) for item in items[:-1]):
        return items
    tail = items[-1][len(last[0]) :]
    return [item + " " + tail.strip() for item in items[:-1]] + [items[-1]]


_COMPOUND = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)(?:\s*(?:,|and|,\s*and)\s*|\s+)(?=[0-9])")


def _compound(text: str) -> Value | None:
    """5 hours and 30 minutes, 5 ft 6 in: quantities of one dimension that add up, each smaller than the one before."""
    if not _COMPOUND.match(text):
        return None
    pieces, position = [], 0
    while match := _COMPOUND.match(text, position):
        pieces.append(f"{match[1]} {match[2]}")
        position = match.end()
    quantities = [split_unit(piece) for piece in [*pieces, text[position:]]]
    if any(quantity is None or not re.fullmatch(r"[0-9]+(?:\.[0-9]+)?\s*", quantity[0]) for quantity in quantities):
        return None
    units = [quantity[1] for quantity in quantities if quantity]
    if len({unit.powers for unit in units}) > 1 or any(a.size <= b.size for a, b in itertools.pairwise(units)):
        return None
    total = sum(Fraction(quantity[0].strip()) * quantity[1].size for quantity in quantities if quantity)
    return Value(num(total), Unit(units[0].powers))


# Relations

_SIGN = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|simeq|sim|cong|to|rightarrow|mapsto|notin)(?![A-Za-z])|:=|==?|<|>")
_SIGNS = {
    r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\in": "∈", r"\approx": "≈", r"\simeq": "≈", r"\sim": "≈", ":=": "=",
    "==": "=", r"\cong": "≈", r"\equiv": "=",
}  # fmt: skip


def _read_relation(text: str, depth: int) -> Form:
    matches = list(top_level(text, _SIGN))
    if not matches:
        return _read_side(text, depth)
    if len(matches) > 20:
        raise UnreadableError("a chain of more than 20 relations")
    bounds = [0, *(position for match in matches for position in match.span()), len(text)]
    texts = [text[a:b].strip() for a, b in zip(bounds[::2], bounds[1::2])]
    signs = [_SIGNS.get(match[0], match[0]) for match in matches]
    if not texts[0] and signs[0] in ("≈", "="):  # "≈ 3.14", "= 42"
        texts, signs = texts[1:], signs[1:]
    if any(sign not in "=<>≤≥≠≈∈" for sign in signs) or not all(texts):
        raise UnreadableError(f"{text[:40]!r} is no relation that is understood")
    if not signs:
        return _read_side(texts[0], depth)
    sides = tuple(_read_left(side, depth) if i == 0 else _read_side(side, depth) for i, side in enumerate(texts))
    if not isinstance(sides[-1], Items) or sides[-1].brackets != "":
        return Relation(sides, tuple(signs))
    return Items(tuple(Relation((*sides[:-1], item), tuple(signs)) for item in sides[-1].items), "", "or")  # x = ±2


def _read_left(text: str, depth: int) -> Form:
    """The left side may be a name that is no expression: P(A), "Area", |AB|."""
    try:
        return _read_side(text, depth)
    except UnreadableError:
        named = re.fullmatch(r"[A-Za-z][A-Za-z' ]{0,40}(?:_\{?\w+\}?)?\s*(?:\([^()]{0,30}\))?", text)
        if named is None or HEDGING.search(text):
            raise
        return Value(("sym", " ".join(text.split())))


# Sets, brackets, values

_SET_OPERATION = {
    "∪": re.compile(r"\\cup(?![A-Za-z])|(?<=[)\]}])\s*U\s*(?=[(\[\\{])"),
    "∩": re.compile(r"\\cap(?![A-Za-z])"),
    "∖": re.compile(r"\\setminus(?![A-Za-z])|-\s*(?=\\\{)"),
}
_DOMAINS = ("Reals", "Integers", "Naturals", "Rationals", "Complexes")
_MATRIX = re.compile(
    r"(?P<scalar>[^&]{0,60}?)\s*(?:\\cdot|\*)?\s*\\begin\{(?P<kind>[pbB]?matrix|smallmatrix|array)\}"
    r"(?P<body>(?:(?!\\begin).)*)\\end\{(?P=kind)\}",
    re.DOTALL,
)
_COLON = re.compile(r":|(?<=[0-9]) to (?=[0-9])")
_POINT = re.compile(r"[A-Z]'*\s*\(")
"""A named point, A(1, 2)."""
_SUCH_THAT = re.compile(r"\\mid(?![A-Za-z])|\||:|such that")


def _read_side(text: str, depth: int) -> Form:
    if depth > MAX_NESTING:
        raise UnreadableError("brackets too deep inside each other")
    if not text:
        raise UnreadableError("nothing stands where a value should be")
    for operation, pattern in _SET_OPERATION.items():
        if pattern.search(text) and (pieces := _split_by(text, pattern)):
            pieces = [rf"\{piece[:-1]}\}}" if piece.startswith("{") else piece for piece in pieces]
            return Combined(operation, tuple(_read_side(piece, depth + 1) for piece in pieces))
    if text in (r"\emptyset", r"\{ \}", r"\{\}"):
        return Items((), "{}")
    if text.startswith("\\") and text[1:] in _DOMAINS:
        return NumberSet(text[1:])
    if (based := read_based(text)) is not None:
        return based
    if matrix := _read_matrix(text, depth):
        return matrix
    if _POINT.match(text) and (inside := _enclosed(text[1:].lstrip("' "))) and "," in inside[1]:
        return _read_bracketed(*inside, depth) or read_value(text)
    if inside := _enclosed(text):
        found = _read_bracketed(*inside, depth)
        if found is not None:
            return found
    if _COLON.search(text) and (pieces := _split_by(text, _COLON)):
        return Items(tuple(Value(read_expression(piece)) for piece in pieces), ":")
    return read_value(text)


def _split_by(text: str, pattern: re.Pattern[str]) -> list[str] | None:
    matches = list(top_level(text, pattern))
    if not matches:
        return None
    bounds = [0, *(position for match in matches for position in match.span()), len(text)]
    return [text[a:b].strip() for a, b in zip(bounds[::2], bounds[1::2])]


_BASED = re.compile(
    r"\(?([0-9A-Za-z]{1,100})\)?\s*_\s*(?:\{\s*\(?([0-9]{1,2}|[a-z]+)\)?\s*\}|([0-9]{1,2}))"
    r"|([0-9A-Z]{1,100}) (?:in )?base ([0-9]{1,2}|[a-z]+)"
)
_BASE_WORDS = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}


def read_based(text: str) -> Based | None:
    """204_5, 1101_{2}, 1A_{16}, "204 base 5"; None if it is none, or if a digit does not belong to the base."""
    if hexadecimal := re.fullmatch(r"0x([0-9a-fA-F]{1,60})", text):
        return Based(hexadecimal[1].upper().lstrip("0") or "0", 16)
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits, name = match[1] or match[4], match[2] or match[3] or match[5]
    if not digits[0].isdigit() and not any(character.isdigit() for character in digits) and len(digits) < 2:
        return None  # x_1 is a variable
    base = _BASE_WORDS.get(name) or (int(name) if name.isdigit() else 0)
    if not 2 <= base <= 36:
        return None
    try:
        int(digits, base)
    except ValueError:
        return None
    return Based(digits.upper().lstrip("0") or "0", base)


def _read_matrix(text: str, depth: int) -> Matrix | None:
    """A LaTeX matrix or array, perhaps with a number before it, or [[1, 2], [3, 4]]; None if it is none."""
    scalar: Expression = num(1)
    if match := _MATRIX.fullmatch(text):
        if match["scalar"]:
            scalar = (
                read_expression(match["scalar"] + "1") if match["scalar"] == "-" else read_expression(match["scalar"])
            )
        body = re.sub(r"^\s*\{[lcr| ]*\}", "", match["body"]) if match["kind"] == "array" else match["body"]
        body = body.replace(r"\hline", " ").strip().removesuffix(r"\\").strip()
        rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![A-Za-z])", body)]
    elif text.startswith("[[") and text.endswith("]]"):
        rows = [row.split(",") for row in re.split(r"\]\s*,\s*\[", text[2:-2])]
    else:
        return None
    if len({len(row) for row in rows}) > 1 or len(rows) * len(rows[0]) > MAX_ITEMS:
        raise UnreadableError("a matrix whose rows differ in length, or too large")
    return Matrix(tuple(tuple(_read_entry(entry.strip(), scalar, depth + 1) for entry in row) for row in rows))


def _read_entry(text: str, scalar: Expression, depth: int) -> Form:
    entry = _read_side(text, depth)
    if scalar == num(1):
        return entry
    if not isinstance(entry, Value):
        raise UnreadableError("a multiple of a matrix with strange entries")
    product: Expression = ("mul", scalar, entry.expression)
    value = rational(product)  # the multiple of a matrix is a finished answer, so nothing is left to calculate in it
    return Value(product if value is None else num(value))


def _enclosed(text: str) -> tuple[str, str] | None:
    """(brackets, inside) if one pair of brackets holds the whole text."""
    for opening, closing in (
        (r"\{", r"\}"),
        (r"\langle", r"\rangle"),
        ("(", ")"),
        ("[", "]"),
        ("(", "]"),
        ("[", ")"),
        ("{", "}"),
    ):
        if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
            inside = text[len(opening) : -len(closing)]
            if opening == "{" and inside.endswith("\\"):
                continue
            try:
                list(top_level(inside, _COLON))
            except UnreadableError:
                continue
            brackets = {r"\{": "{}", r"\langle": "()", "{": "group"}.get(opening, opening + closing)
            return brackets, inside.strip()
    return None


def _read_bracketed(brackets: str, inside: str, depth: int) -> Form | None:
    """The list, set, tuple or interval in brackets; None if the brackets belong to an expression."""
    if brackets in ("{}", "group") and (said := _split_by(inside, _SUCH_THAT)) and len(said) == 2:
        return _read_builder(said[0], said[1], depth)
    if brackets in ("()", "[]") and (matrix := _read_matrix(inside, depth)):
        return matrix
    items, joint = split_items(inside, bracketed=True)
    if brackets == "group":
        return (
            (read_words(inside) or read_form(inside, depth + 1))
            if len(items) == 1
            else Items(_forms(items, depth), "", joint)
        )
    if brackets == "()" and len(items) == 1:
        if any(True for _ in top_level(inside, _SIGN)):
            return read_form(inside, depth + 1)
        inner = _enclosed(inside)
        return _read_side(inside, depth + 1) if inner or read_based(inside) else None
    if brackets == "{}":
        return Items(_forms(items, depth) if inside else (), "{}")
    if joint != ",":
        raise UnreadableError("'and' or 'or' inside a tuple")
    return _expanded_tuple(items, brackets, depth)


def _forms(items: Sequence[str], depth: int) -> tuple[Form, ...]:
    return tuple(_flattened(read_form(item, depth + 1) for item in items))


def _expanded_tuple(items: list[str], brackets: str, depth: int) -> Form:
    """A tuple; with ± in it all its readings, as a list. Signs in different places are independent."""
    forms = [read_form(item, depth + 1) for item in items]
    choices = [form.items if isinstance(form, Items) and form.brackets == "" else (form,) for form in forms]
    if math.prod(map(len, choices)) > 16:
        raise UnreadableError("a list inside a tuple, or many ± signs")
    readings = tuple(Items(reading, brackets) for reading in itertools.product(*choices))
    return readings[0] if len(readings) == 1 else Items(readings, "", "or")


def _read_builder(head: str, condition: str, depth: int) -> Form:
    said = read_form(condition, depth + 1)
    if _says_integer(said):
        return Items((read_form(head, depth + 1),), "{}")
    pieces = re.split(r"\\in(?![A-Za-z])", head)
    variable, domain = pieces[0].strip(), "Reals"
    if len(pieces) == 2 and pieces[1].strip().lstrip("\\") in _DOMAINS:
        domain = pieces[1].strip().lstrip("\\")
    if (
        len(pieces) > 2
        or (len(pieces) == 2 and domain not in pieces[1])
        or not re.fullmatch(r"[A-Za-z]|\\[a-z]+", variable)
    ):
        raise UnreadableError("a set-builder that is not understood")
    return Builder(variable.lstrip("\\"), domain, said)


_SCALED = re.compile(r"(.*[0-9)}])\s*(hundred|thousand|million|billion|trillion|dozen)(?:\s+(.+))?", re.DOTALL)
_PERCENT_WORD = re.compile(r"\s*(?:percent|per cent|percentage|percentage points?|pct\.?)$")


_ANGLE_INSIDE = re.compile(r"(?:sin|cos|tan|cot|sec|csc).*\\deg$")
r"""In \sin 30^\circ the degrees belong to the sine."""


def read_value(text: str) -> Form:
    """An expression with its unit; two values if it holds ±."""
    text = _PERCENT_WORD.sub("%", text)
    text = re.sub(r"(?<=[0-9])\s+%", "%", text)
    if scaled := _SCALED.fullmatch(text):
        return _scaled(*scaled.groups())
    text = _SPACED_THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text)
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    found = None if _ANGLE_INSIDE.search(text) else split_unit(text)
    if found is None:
        return _values(read_expression(text), None)
    value, unit = found
    return _values(read_expression(value), unit)


def _scaled(value: str, word: str, unit: str | None) -> Value:
    number = read_value(value)
    tail = split_unit(f"1 {unit}") if unit else None
    if not isinstance(number, Value) or number.unit or number.expression[0] != "num" or (unit and tail is None):
        raise UnreadableError(f"{word} of what?")
    return Value(num(number.expression[1] * SCALES[word]), tail[1] if tail else None)


def _values(expression: Expression, unit: Unit | None) -> Form:
    if sum(part[0] in ("pm", "mp") for part in parts(expression)) > 4:
        raise UnreadableError("many ± signs")
    found = [Value(reading, unit) for reading in expand_signs(expression)]
    return found[0] if len(found) == 1 else Items(tuple(found), "", "or")
