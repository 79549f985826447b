r"""Mathematical answers: from two texts to a verdict, or to a question that only computer algebra can answer.

The stages, cheapest first: the same text; multiple choice; both texts read as forms (`answers`) and compared exactly
(`equality`). What is left are equalities of expressions with functions in them, for SymPy, and gold answers that our
reader does not know, for math-verify: both in worker processes (`pool`), as a `Question`.

math-verify comes last because of what it accepts: number bases ignored, `41 = 42` and "42 million" for 42, the
question's own integral for its value. Where our reader understands the gold answer, an answer that it does not
understand is unparsable.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from rewards.extraction import boxed_answer
from rewards.mathematics.algebra import TooLargeError, UndefinedError, is_finite, normal_form, rational
from rewards.mathematics.answers import Form, Items, Value, Words, read_answer, read_gold_answer, spell_words
from rewards.mathematics.equality import Facts, Undecided, Wrong, compare, solved
from rewards.mathematics.expressions import INFINITY, Expression, UnreadableError
from rewards.mathematics.pool import Pair
from rewards.mathematics.spelling import plain, squeezed, without_lead_in
from rewards.tasks import MAX_ANSWER_LENGTH
from rewards.verdicts import NO_ANSWER, Verdict, correct, unparsable, unreadable_gold, wrong


@dataclass(frozen=True)
class Question:
    """What a worker process has to answer first. `expressions`: an equality; None: the whole case, by math-verify."""

    pair: Pair
    expressions: tuple[Expression, Expression] | None = None


def read_gold(gold: str) -> str:
    r"""The answer inside a gold column: its last `\boxed{}` (MATH solutions), what follows `####` (GSM8K), or all of
    it.

    >>> read_gold(r"So $x = \boxed{7}$."), read_gold("6 * 7 = 42\n#### 42"), read_gold("1/2")
    ('7', '42', '1/2')
    """
    return (boxed_answer(gold) or gold.rpartition("####")[2]).strip()


def judge(*, gold: str, answer: str | None, facts: Facts | None = None) -> Verdict | Question:
    """The verdict, or the question to be answered first. `gold` comes from `read_gold`; `facts` holds the equalities
    that were answered.

    >>> judge(gold="42", answer="42.0").kind.value, judge(gold=r"\\frac12", answer="0.5").detail
    ('correct', 'the same number')
    """
    if facts:
        return _judge(gold, answer, facts)
    return _judge_alone(gold, answer)


@functools.lru_cache(maxsize=8192)
def _judge_alone(gold: str, answer: str | None) -> Verdict | Question:
    return _judge(gold, answer, {})


_INTEGER = re.compile(r"-?[0-9]{1,18}")


def _judge(gold: str, answer: str | None, facts: Facts) -> Verdict | Question:
    if not gold:
        return unreadable_gold("the gold answer is empty")
    if len(gold) > MAX_ANSWER_LENGTH:
        return unreadable_gold(f"the gold answer has {len(gold)} characters, {MAX_ANSWER_LENGTH} are read at most")
    if answer is not None and len(answer) > MAX_ANSWER_LENGTH:
        return unparsable(f"the answer has {len(answer)} characters, {MAX_ANSWER_LENGTH} are read at most")
    if answer is not None and _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        same = int(gold) == int(answer)
        return (correct("the same number") if same else wrong(f"{answer} is not {gold}")).with_forms(gold, answer)
    wanted = _read_gold_form(gold)
    choice = _choice(gold)
    if answer is None:
        return NO_ANSWER if wanted is not None or choice else _ask_math_verify(gold, None)
    if _same_text(gold, answer):
        return correct("the same text").with_forms(wanted or plain(gold), plain(answer))
    if choice and (verdict := _compare_choice(choice, answer, facts)):
        return verdict
    if (letters := _letters(plain(gold))) and letters == _letters(plain(answer)):
        return correct("the same choices").with_forms(plain(gold), plain(answer))
    if wanted is None:
        if _is_prose(gold):
            return _compare_prose(gold, answer)
        return _ask_math_verify(gold, answer) if plain(answer) else unparsable("the answer is empty")
    if (flaw := _uncalculable(wanted)) is not None:
        return unreadable_gold(flaw)
    try:
        given = read_answer(answer)
    except UnreadableError as error:
        return unparsable(str(error)).with_forms(wanted, "")
    verdict = _compare_forms(wanted, given, facts)
    if (
        isinstance(verdict, Verdict)
        and verdict.reward == 0.0
        and (swapped := _decimal_commas(wanted, given, gold, answer))
    ):
        return _compare_forms(*swapped, facts)
    return verdict


_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+")


def _decimal_commas(wanted: Form, given: Form, gold: str, answer: str) -> tuple[Form, Form] | None:
    """Both forms with a decimal comma read as such, where the other side is one decimal; None where none is written."""
    if (
        isinstance(wanted, Value)
        and isinstance(given, Items)
        and "." in gold
        and wanted.expression[0] in ("num", "neg")
    ):
        return (wanted, _with_point(answer)) if _DECIMAL_COMMA.fullmatch(plain(answer)) else None
    if isinstance(wanted, Items) and isinstance(given, Value) and "." in answer:
        return (_with_point(gold), given) if _DECIMAL_COMMA.fullmatch(plain(gold)) else None
    return None


def _with_point(text: str) -> Form:
    return read_answer(plain(text).replace(",", "."))


def _compare_forms(wanted: Form, given: Form, facts: Facts) -> Verdict | Question:
    try:
        verdict = correct(compare(wanted, given, facts))
    except Wrong as error:
        verdict = wrong(str(error))
    except Undecided as question:
        left, right = question.pair
        return Question(Pair(gold=as_json(left), answer=as_json(right), how="expressions"), (left, right))
    except RecursionError:
        verdict = unparsable("the answer is nested too deep")
    return verdict.with_forms(wanted, given)


def as_json(expression: Expression) -> str:
    """An expression as a worker reads it: nested lists, fractions as texts."""
    return json.dumps(expression, default=str)


def _ask_math_verify(gold: str, answer: str | None) -> Question:
    return Question(Pair(gold=as_latex(gold), answer=None if answer is None else as_latex(answer)))


_OWN_COMMANDS = {
    r"\Reals": r"\mathbb{R}", r"\Integers": r"\mathbb{Z}", r"\Naturals": r"\mathbb{N}", r"\Rationals": r"\mathbb{Q}",
    r"\Complexes": r"\mathbb{C}", r"\deg": r"^\circ", r"\surd": r"\sqrt",
}  # fmt: skip


def as_latex(text: str) -> str:
    r"""One answer as one `$formula$`: math-verify reads a bare LaTeX answer poorly, and of several takes the last.

    >>> as_latex(r"\int_0^1 x\,dx.")
    '$\\int_0^1 x dx$'
    """
    text = plain(text)
    for own, latex in _OWN_COMMANDS.items():
        text = text.replace(own, latex)
    return f"${text}$"


@functools.lru_cache(maxsize=4096)
def _read_gold_form(gold: str) -> Form | None:
    try:
        return read_gold_answer(gold)
    except UnreadableError:
        return None


def _same_text(gold: str, answer: str) -> bool:
    return gold == answer or squeezed(plain(gold)) == squeezed(plain(answer))


def expressions_in(form: object) -> Iterator[Expression]:
    """All expressions that a form holds."""
    if isinstance(form, tuple) and form and isinstance(form[0], str):
        yield form
    elif isinstance(form, tuple):
        for item in form:
            yield from expressions_in(item)
    elif is_dataclass(form) and not isinstance(form, type):
        for field in fields(form):
            if field.name in ("expression", "items", "sides", "sets", "condition", "rows"):
                yield from expressions_in(getattr(form, field.name))


def _uncalculable(form: Form) -> str | None:
    """Why a gold answer has no value, such as 1/0 or a tower of powers; None if all is well."""
    for expression in expressions_in(form):
        if expression in (INFINITY, ("neg", INFINITY)):
            continue
        try:
            normal_form(expression)
        except UndefinedError as error:
            return f"the gold answer has no value: {error}"
        except (TooLargeError, RecursionError):
            if not is_finite(expression):
                return "the gold answer is too large to be calculated"
    return None


def mathematics_key(answer: str) -> str:
    """One spelling for answers that are equal at first sight: the value of a number, else the text without its
    typesetting.

    >>> mathematics_key("x = 3.5"), mathematics_key(r"\\frac{14}{4}"), mathematics_key(r"(1,\\,x)")
    ('7/2', '7/2', '(1, x)')
    """
    text = plain(answer[:MAX_ANSWER_LENGTH])
    try:
        form = solved(read_answer(text))
    except UnreadableError:
        return squeezed(text)
    value = rational(form.expression) if isinstance(form, Value) and form.unit is None else None
    return squeezed(text) if value is None else str(value)


# Multiple choice

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s*)?(?:\(\s*([A-Z])\s*\)|([A-Z])(?![A-Za-z']))\s*(?:[.):,]?\s+|[.):]\s*|$)(.*)",
    re.IGNORECASE | re.DOTALL,
)
_LETTERS = re.compile(r"\(?[A-J]\)?(?:(?:\s*(?:,|and|,\s*and)\s*)?\(?[A-J]\)?){0,9}")


@dataclass(frozen=True)
class Choice:
    letter: str
    content: str

    def __str__(self) -> str:
        return f"choice {self.letter}" + (f": {self.content}" if self.content else "")


@functools.lru_cache(maxsize=4096)
def _choice(gold: str) -> Choice | None:
    """The gold answer as a choice: "B", "(B)", "B. 12 cm", "(B) 12 cm"."""
    text = plain(gold)
    match = _CHOICE.fullmatch(text)
    if match is None:
        return None
    letter, content = match[1] or match[2], match[3].strip()
    if not "A" <= letter <= "J" or (content and not re.match(r"(?:option\s*|choice\s*)?\(?[A-J][).:]", text)):
        return None
    return Choice(letter, content)


def _letters(text: str) -> set[str] | None:
    """The letters of several choices, "AC", "A, C" or "A and C"; None if the text is anything else."""
    found = re.findall("[A-J]", text) if _LETTERS.fullmatch(text) else []
    return set(found) if len(found) > 1 and sorted(set(found)) == found else None


def _compare_choice(gold: Choice, answer: str, facts: Facts) -> Verdict | Question | None:
    """The verdict on an answer that names a choice; None if it names none and the gold answer's content may decide."""
    text = without_lead_in(plain(answer))
    match = _CHOICE.fullmatch(text)
    if match is None or (match[3] and not re.search(r"[).:]|option|choice", text[: len(text) - len(match[3])].lower())):
        if not gold.content:
            return None if text.casefold() != gold.letter.casefold() else correct("the same choice")
        return judge(gold=gold.content, answer=answer, facts=facts)
    letter, content = (match[1] or match[2]).upper(), match[3].strip()
    if letter != gold.letter:
        return wrong(f"choice {letter}, not {gold.letter}").with_forms(gold, Choice(letter, content))
    if content and gold.content:
        return judge(gold=gold.content, answer=content, facts=facts)
    if re.match(r"(?:or|and)\b|[^\w\\$({\[.-]", content) or re.search(r"\b(?:or|not)\b", content):
        return wrong("several choices").with_forms(gold, text)
    return correct("the same choice").with_forms(gold, Choice(letter, content))


# Prose


def _is_prose(gold: str) -> bool:
    """A gold answer such as "May 5" or "12:30 PM": words with figures in them and no formula."""
    text = plain(gold)
    return "\\" not in text and bool(re.search(r"[^\W\d_]{2,}", text)) and not re.search(r"[=^_{}<>]", text)


def _compare_prose(gold: str, answer: str) -> Verdict:
    wanted, given = (Words(spell_words(plain(text))) for text in (gold, answer))
    verdict = correct("the same words") if wanted == given else wrong(f"{given} is not {wanted}"[:120])
    return verdict.with_forms(wanted, given)
