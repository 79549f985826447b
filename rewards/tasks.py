"""The tasks whose answers are checked exactly, without computer algebra. One line in `TASKS` adds one.

A task that is not listed here (or no task at all) is mathematics: see rewards.mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewards.exact import (
    ExpressionError,
    evaluate_expression,
    is_unreduced_integer,
    last_expression,
    last_list,
    last_number,
    plain_signs,
    read_list,
    read_number,
    strip_delimiters,
)
from rewards.verdicts import Verdict, correct, unparsable, unreadable_gold, wrong

MAX_ANSWER_LENGTH = 2_000
"""Characters of an answer, or of a gold answer, that are read at most, in any task. Longer answers are unparsable."""


@dataclass(frozen=True)
class Task:
    """How one task's answers are compared, and where in a loose text its answer stands."""

    check: Callable[..., Verdict]
    """Called with the keywords gold, answer (texts) and numbers (a sequence of int)."""
    settle: Callable[[str], str | None]
    """The answer that a text ends on; None if it holds none. For evaluation only."""
    key: Callable[[str, Sequence[int]], str]
    """What a majority vote counts: answers that are equal in this task have equal keys."""
    equals: bool = True
    """Whether a loose answer stands right of the last `=`."""


def check_number(*, gold: str, answer: str, numbers: Sequence[int] = ()) -> Verdict:
    """Equal as exact numbers. `12/4` is no answer where 3 is asked for: it may be the question itself."""
    wanted, given = read_number(gold), read_number(answer)
    if wanted is None:
        return unreadable_gold(f"the gold answer {_short(gold)} is not a number")
    if given is None:
        return unparsable(f"{_short(answer)} is not one number")
    if is_unreduced_integer(answer) and not is_unreduced_integer(gold):
        return wrong(f"{_short(answer)} leaves a division undone")
    return correct("the same number") if wanted == given else wrong(f"{given} is not {wanted}")


def check_countdown(*, gold: str, answer: str, numbers: Sequence[int] = ()) -> Verdict:
    """An expression over + - * / that uses each of `numbers` exactly once and equals the target `gold`. `= target` may
    follow it.
    """
    target = read_number(gold)
    if target is None or not numbers:
        return unreadable_gold(
            f"countdown needs a target and numbers, got target {_short(gold)} and numbers {list(numbers)}"
        )
    expression, equals, stated = strip_delimiters(answer).partition("=")
    if equals and read_number(stated) != target:
        return wrong(f"the answer ends in {_short(stated)}, the target is {target}")
    try:
        value, used = evaluate_expression(expression)
    except ExpressionError as error:
        return unparsable(str(error))
    except ZeroDivisionError:
        return wrong("the expression divides by zero")
    if sorted(used) != sorted(numbers):
        return wrong(f"the expression uses {sorted(used)}, the numbers are {sorted(numbers)}")
    return correct(f"the expression equals {target}") if value == target else wrong(f"{_short(value)} is not {target}")


def check_list(*, gold: str, answer: str, numbers: Sequence[int] = ()) -> Verdict:
    """The same names (or words) in the same order; case, white space and the kind of separator do not matter."""
    wanted, given = read_list(gold), read_list(answer)
    if not wanted:
        return unreadable_gold("the gold answer names nothing")
    if not given:
        return unparsable("the answer names nothing")
    return (
        correct("the same list")
        if wanted == given
        else wrong(f"{_short(', '.join(given))} is not {_short(', '.join(wanted))}")
    )


def _short(value: object) -> str:
    text = str(value).strip()
    return repr(text if len(text) <= 40 else text[:40] + "…")


def number_key(answer: str, numbers: Sequence[int] = ()) -> str:
    value = read_number(answer)
    return answer if value is None else str(value)


def countdown_key(answer: str, numbers: Sequence[int] = ()) -> str:
    """Expressions that play by the rules and have one value are one answer; any other text stands for itself."""
    try:
        value, used = evaluate_expression(plain_signs(answer).partition("=")[0])
    except (ExpressionError, ZeroDivisionError):
        return answer
    return str(value) if sorted(used) == sorted(numbers) else answer


def list_key(answer: str, numbers: Sequence[int] = ()) -> str:
    return ", ".join(read_list(answer))


NUMBER = Task(check_number, last_number, number_key)
LIST = Task(check_list, last_list, list_key, equals=False)
TASKS: dict[str, Task] = {
    "arithmetic": NUMBER,
    "word_problems": NUMBER,
    "equations": NUMBER,
    "sequences": NUMBER,
    "countdown": Task(check_countdown, last_expression, countdown_key, equals=False),
    "ordering": LIST,
    "text": LIST,
}
