"""Small Python functions with a specification and an assert or two, mostly correct, sometimes with a bug.

Expected values come from a reference function beside each template, never from running the text. A bug is one that the
first assert catches.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from data.corpus.vocabulary import LANGUAGES, NOUNS, draw_side
from data.korean import Hangul

CORRECT_SHARE = 0.85
"""Share of programs in the pretraining text that do what they should."""


@dataclass(frozen=True)
class Program:
    """`source` defines one function; `test` holds its asserts, which a correct one passes and another does not."""

    family: str
    language: str
    specification: str
    source: str
    test: str
    correct: bool


class _Template(NamedTuple):
    """Texts with slots: {a} {b} numbers, {xs} a list, {x} its elements, {s} a string, {k} {m} constants, {c} a letter.

    `right` and `wrong` compute what `body` and `bug` return, from (constants, *arguments).
    """

    family: str
    names: tuple[str, ...]
    parameters: str
    specification: tuple[str, str]
    body: str
    bug: str
    right: Callable[..., Any]
    wrong: Callable[..., Any]


class _Constants(NamedTuple):
    k: int
    m: int
    c: str


_LOOP = "total = {start}\nfor {x} in {xs}:\n    total {step}\nreturn total"

_TEMPLATES = tuple(
    _Template(family, tuple(names.split()), parameters, (english, korean), body, bug, right, wrong)
    for family, names, parameters, english, korean, body, bug, right, wrong in (
        (
            *("arithmetic", "add plus sum_two total", "{a}, {b}"),
            *("the sum of {a} and {b}", "{a:와/과} {b}의 합"),
            *("return {a} + {b}", "return {a} - {b}"),
            *(lambda c, a, b: a + b, lambda c, a, b: a - b),
        ),
        (
            *("arithmetic", "subtract minus difference take_away", "{a}, {b}"),
            *("{a} minus {b}", "{a}에서 {b:을/를} 뺀 값"),
            *("return {a} - {b}", "return {b} - {a}"),
            *(lambda c, a, b: a - b, lambda c, a, b: b - a),
        ),
        (
            *("arithmetic", "scale line transform compute", "{a}"),
            *("{a} times {k} plus {m}", "{a}에 {k:을/를} 곱하고 {m:을/를} 더한 값"),
            *("return {a} * {k} + {m}", "return {a} + {k} * {m}"),
            *(lambda c, a: a * c.k + c.m, lambda c, a: a + c.k * c.m),
        ),
        (
            *("arithmetic", "area multiply product times", "{a}, {b}"),
            *("the product of {a} and {b} plus {k}", "{a:와/과} {b:을/를} 곱하고 {k:을/를} 더한 값"),
            *("return {a} * {b} + {k}", "return {a} * ({b} + {k})"),
            *(lambda c, a, b: a * b + c.k, lambda c, a, b: a * (b + c.k)),
        ),
        (
            *("arithmetic", "remainder rest modulo left_over", "{a}"),
            *("the remainder of {a} divided by {k}", "{a:을/를} {k:으로/로} 나눈 나머지"),
            *("return {a} % {k}", "return {a} // {k}"),
            *(lambda c, a: a % c.k, lambda c, a: a // c.k),
        ),
        (
            *("arithmetic", "square power squared compute", "{a}"),
            *("the square of {a} plus {k}", "{a}의 제곱에 {k:을/를} 더한 값"),
            *("return {a} * {a} + {k}", "return {a} * 2 + {k}"),
            *(lambda c, a: a * a + c.k, lambda c, a: a * 2 + c.k),
        ),
        (
            *("conditional", "bigger larger maximum pick", "{a}, {b}"),
            *("the larger of {a} and {b}", "{a:와/과} {b} 가운데 큰 수"),
            *("if {a} > {b}:\n    return {a}\nreturn {b}", "if {a} < {b}:\n    return {a}\nreturn {b}"),
            *(lambda c, a, b: max(a, b), lambda c, a, b: min(a, b)),
        ),
        (
            *("conditional", "distance gap absolute_difference", "{a}, {b}"),
            *("the distance between {a} and {b}", "{a:와/과} {b} 사이의 거리"),
            *("if {a} > {b}:\n    return {a} - {b}\nreturn {b} - {a}", "return {a} - {b}"),
            *(lambda c, a, b: abs(a - b), lambda c, a, b: a - b),
        ),
        (
            *("conditional", "limit cap at_most", "{a}"),
            *("{a}, but at most {k}", "{k:을/를} 넘지 않는 {a}"),
            *("if {a} > {k}:\n    return {k}\nreturn {a}", "if {a} < {k}:\n    return {k}\nreturn {a}"),
            *(lambda c, a: min(a, c.k), lambda c, a: max(a, c.k)),
        ),
        (
            *("conditional", "is_multiple divides can_divide check", "{a}"),
            *("whether {a} is a multiple of {k}", "{a:이/가} {k}의 배수인지"),
            *("return {a} % {k} == 0", "return {a} % {k} == 1"),
            *(lambda c, a: a % c.k == 0, lambda c, a: a % c.k == 1),
        ),
        (
            *("conditional", "size label big_or_small", "{a}"),
            *("'big' if {a} is more than {k}, else 'small'", "{a:이/가} {k}보다 크면 'big', 아니면 'small'이라는 말"),
            *("if {a} > {k}:\n    return 'big'\nreturn 'small'", "if {a} > {k}:\n    return 'small'\nreturn 'big'"),
            *(lambda c, a: "big" if a > c.k else "small", lambda c, a: "small" if a > c.k else "big"),
        ),
        (
            *("list", "add_all total sum_list", "{xs}"),
            *("the sum of the numbers in {xs}", "{xs}에 있는 수의 합"),
            *("return sum({xs})", "return len({xs})"),
            *(lambda c, xs: sum(xs), lambda c, xs: len(xs)),
        ),
        (
            *("list", "biggest maximum top", "{xs}"),
            *("the largest number in {xs}", "{xs}에서 가장 큰 수"),
            *("return max({xs})", "return min({xs})"),
            *(lambda c, xs: max(xs), lambda c, xs: min(xs)),
        ),
        (
            *("list", "last final end_of", "{xs}"),
            *("the last element of {xs}", "{xs}의 마지막 원소"),
            *("return {xs}[-1]", "return {xs}[0]"),
            *(lambda c, xs: xs[-1], lambda c, xs: xs[0]),
        ),
        (
            *("list", "in_order sort_numbers ordered", "{xs}"),
            *("{xs} sorted from small to big", "{xs:을/를} 작은 수부터 정렬한 목록"),
            *("return sorted({xs})", "return {xs}"),
            *(lambda c, xs: sorted(xs), lambda c, xs: xs),
        ),
        (
            *("filter", "above keep_large more_than", "{xs}"),
            *("the numbers in {xs} that are more than {k}", "{xs}에서 {k}보다 큰 수의 목록"),
            *("return [{x} for {x} in {xs} if {x} > {k}]", "return [{x} for {x} in {xs} if {x} < {k}]"),
            *(lambda c, xs: [x for x in xs if x > c.k], lambda c, xs: [x for x in xs if x < c.k]),
        ),
        (
            *("filter", "evens keep_even only_even", "{xs}"),
            *("the even numbers in {xs}", "{xs}에 있는 짝수의 목록"),
            *("return [{x} for {x} in {xs} if {x} % 2 == 0]", "return [{x} for {x} in {xs} if {x} % 2 == 1]"),
            *(lambda c, xs: [x for x in xs if x % 2 == 0], lambda c, xs: [x for x in xs if x % 2 == 1]),
        ),
        (
            *("filter", "scale_all times_all multiply_all", "{xs}"),
            *("the numbers in {xs} times {k}", "{xs}의 수에 {k:을/를} 곱한 목록"),
            *("return [{x} * {k} for {x} in {xs}]", "return [{x} + {k} for {x} in {xs}]"),
            *(lambda c, xs: [x * c.k for x in xs], lambda c, xs: [x + c.k for x in xs]),
        ),
        (
            *("loop", "add_all loop_sum total_of", "{xs}"),
            *("the sum of {xs} plus {k}", "{xs}의 합에 {k:을/를} 더한 값"),
            "total = {k}\nfor {x} in {xs}:\n    total += {x}\nreturn total",
            "total = {k}\nfor {x} in {xs}:\n    total = {x}\nreturn total",
            *(lambda c, xs: sum(xs) + c.k, lambda c, xs: xs[-1]),
        ),
        (
            *("loop", "count_above how_many count_large", "{xs}"),
            *("how many numbers in {xs} are more than {k}", "{xs}에서 {k}보다 큰 수의 개수"),
            "count = 0\nfor {x} in {xs}:\n    if {x} > {k}:\n        count += 1\nreturn count",
            "count = 0\nfor {x} in {xs}:\n    if {x} > {k}:\n        count += {x}\nreturn count",
            *(lambda c, xs: sum(x > c.k for x in xs), lambda c, xs: sum(x for x in xs if x > c.k)),
        ),
        (
            *("loop", "sum_to add_up triangle", "{a}"),
            *("the sum of the numbers from 1 to {a}", "1부터 {a}까지 수의 합"),
            "total = 0\nfor i in range(1, {a} + 1):\n    total += i\nreturn total",
            "total = 0\nfor i in range(1, {a}):\n    total += i\nreturn total",
            *(lambda c, a: sum(range(1, a + 1)), lambda c, a: sum(range(1, a))),
        ),
        (
            *("loop", "steps count_steps divide_down", "{a}"),
            *("how often {a} can be divided by {k} before it is 0", "{a:이/가} 0이 될 때까지 {k:으로/로} 나누는 횟수"),
            "count = 0\nwhile {a} > 0:\n    {a} = {a} // {k}\n    count += 1\nreturn count",
            "count = 1\nwhile {a} > 0:\n    {a} = {a} // {k}\n    count += 1\nreturn count",
            *(lambda c, a: _digits(a, c.k), lambda c, a: _digits(a, c.k) + 1),
        ),
        (
            *("string", "reverse backwards turn_around", "{s}"),
            *("{s} in reverse order", "{s:을/를} 거꾸로 한 문자열"),
            *("return {s}[::-1]", "return {s}"),
            *(lambda c, s: s[::-1], lambda c, s: s),
        ),
        (
            *("string", "capitals shout to_upper", "{s}"),
            *("{s} in capital letters", "{s:을/를} 대문자로 바꾼 문자열"),
            *("return {s}.upper()", "return {s}.lower()"),
            *(lambda c, s: s.upper(), lambda c, s: s.lower()),
        ),
        (
            *("string", "repeat copies say_again", "{s}"),
            *("{s} repeated {k} times", "{s:을/를} {k}번 반복한 문자열"),
            *("return {s} * {k}", "return {s} * {m}"),
            *(lambda c, s: s * c.k, lambda c, s: s * c.m),
        ),
        (
            *("count", "count_letter letters how_many", "{s}"),
            *("how often '{c}' occurs in {s}", "{s}에 있는 글자 {c}의 개수"),
            *("return {s}.count('{c}')", "return len({s})"),
            *(lambda c, s: s.count(c.c), lambda c, s: len(s)),
        ),
        (
            *("count", "length size letters", "{s}"),
            *("the length of {s} plus {k}", "{s}의 길이에 {k:을/를} 더한 값"),
            *("return len({s}) + {k}", "return len({s}) - {k}"),
            *(lambda c, s: len(s) + c.k, lambda c, s: len(s) - c.k),
        ),
        (
            *("count", "count_equal occurrences times_in", "{xs}"),
            *("how often {k} occurs in {xs}", "{xs}에 {k:이/가} 나오는 횟수"),
            *("return {xs}.count({k})", "return {xs}.count({m})"),
            *(lambda c, xs: xs.count(c.k), lambda c, xs: xs.count(c.m)),
        ),
    )
)
PROGRAM_FAMILIES = tuple(dict.fromkeys(template.family for template in _TEMPLATES))


def _digits(number: int, base: int) -> int:
    count = 0
    while number > 0:
        number, count = number // base, count + 1
    return count


# --- Drawing ----------------------------------------------------------------------------------------------------------

_PAIRS = tuple(
    (Hangul(a), Hangul(b))
    for a, b in (("a", "b"), ("x", "y"), ("m", "n"), ("p", "q"), ("first", "second"), ("left", "right"))
)
_LISTS = tuple(Hangul(name) for name in ("xs", "numbers", "values", "data", "nums"))
_ELEMENTS = ("n", "v", "number", "value", "x")
_STRINGS = tuple(Hangul(name) for name in ("s", "text", "word", "name"))
_LETTERS = "aeorn"
_WORDS = tuple(word.en for word in NOUNS if word.en.islower())


def draw_program(rng: random.Random, correct: bool | None = None, language: str | None = None) -> Program:
    """A program, correct in 85 % of the draws unless `correct` is given. Raises ValueError for an unknown language."""
    if language not in (None, *LANGUAGES):
        raise ValueError(f"unknown language {language!r}: expected one of {LANGUAGES}")
    side = LANGUAGES.index(language) if language else draw_side(rng)
    correct = rng.random() < CORRECT_SHARE if correct is None else correct
    template = rng.choice(_TEMPLATES)
    constants, slots = _names(rng)
    name = rng.choice(template.names)
    body = (template.body if correct else template.bug).format_map(slots).replace("\n", "\n    ")
    source = f"def {name}({template.parameters.format_map(slots)}):\n    {body}"
    test = _asserts(rng, name, template, constants)
    return Program(
        template.family, LANGUAGES[side], template.specification[side].format_map(slots), source, test, correct
    )


def _names(rng: random.Random) -> tuple[_Constants, dict[str, str]]:
    """Constants and the names of variables."""
    (a, b), (k, m) = rng.choice(_PAIRS), rng.sample(range(2, 10), 2)
    constants = _Constants(k, m, rng.choice(_LETTERS))
    return constants, {
        "a": a,
        "b": b,
        "xs": rng.choice(_LISTS),
        "x": rng.choice(_ELEMENTS),
        "s": rng.choice(_STRINGS),
        "k": Hangul(k),
        "m": Hangul(m),
        "c": constants.c,
    }


def _asserts(rng: random.Random, name: str, template: _Template, constants: _Constants) -> str:
    """Two or three different asserts with the right values; on the first one, the bug would give another value."""
    lines: list[str] = []
    wanted = rng.choice((2, 2, 3))
    while len(lines) < wanted:
        arguments = _arguments(rng, template.parameters)
        value = template.right(constants, *arguments)
        if lines or value != template.wrong(constants, *arguments):
            relation = "is" if isinstance(value, bool) else "=="
            line = f"assert {name}({', '.join([repr(argument) for argument in arguments])}) {relation} {value!r}"
            if line not in lines:
                lines.append(line)
    return "\n".join(lines)


def _arguments(rng: random.Random, parameters: str) -> list:
    if parameters == "{xs}":
        return [[rng.randint(0, 12) for _ in range(rng.randint(3, 5))]]
    if parameters == "{s}":
        return [rng.choice(_WORDS)]
    return [rng.randint(1, 20) for _ in parameters.split(",")]


_REQUESTS = (
    (
        "Write a function that returns {x}.",
        "Write a Python function that gives {x}.",
        "I need a function that returns {x}.",
    ),
    (
        "{x:을/를} 반환하는 함수를 작성하세요.",
        "{x:을/를} 돌려주는 파이썬 함수를 써 줘.",
        "{x:을/를} 구하는 함수가 필요해요.",
    ),
)
_DOCSTRINGS = ("Return {x}.", "{x:을/를} 반환한다.")


def draw(rng: random.Random) -> str:
    """A program as a document: specification (docstring, comment or request), function and asserts."""
    program = draw_program(rng)
    side = LANGUAGES.index(program.language)
    style, wanted = rng.random(), Hangul(program.specification)
    if style < 0.4:
        head, body = program.source.split("\n", 1)
        return f'{head}\n    """{_DOCSTRINGS[side].format(x=wanted)}"""\n{body}\n\n{program.test}'
    if style < 0.6:
        return f"# {_DOCSTRINGS[side].format(x=wanted)}\n{program.source}\n\n{program.test}"
    return f"{rng.choice(_REQUESTS[side]).format(x=wanted)}\n\n{program.source}\n\n{program.test}"


KINDS: dict[str, Callable[[random.Random], str]] = {"code": draw}
"""Document kinds of this module and their generators."""
