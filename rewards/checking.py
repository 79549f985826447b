"""The project's one answer checker: gold and answer, always by keyword, to a Verdict.

Order matters to math-verify (`verify(gold, answer)` is not symmetric), and open-source reward files swap the two; hence
one place and keywords only. A task of rewards.tasks is checked exactly. Everything else is mathematics: cheap exact
stages first, then math-verify in worker processes that are killed on time-out. Nothing from a model is ever evaluated
by Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rewards.mathematics import as_latex, compare_exactly, read_gold
from rewards.tasks import MAX_ANSWER_LENGTH, TASKS
from rewards.verdicts import NO_ANSWER, Verdict, VerdictKind, unparsable
from rewards.workers import Pair, WorkerPool, default_pool


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer to check. `answer` None means that the completion marked none; `numbers` are Countdown's."""

    gold: str
    answer: str | None
    task: str | None = None
    numbers: Sequence[int] = ()


def check(*, gold: str, answer: str | None, task: str | None = None, numbers: Sequence[int] = ()) -> Verdict:
    r"""Whether `answer` is the gold answer, in the sense of the task (see rewards.tasks; any other task is
    mathematics).

    Raises WorkerError if mathematics needs a checking process and none can be started; nothing a model writes makes it
    raise.

    >>> check(gold="42", answer="42.0").kind.value
    'correct'
    >>> check(gold="24", answer="(1 + 3) × 6", task="countdown", numbers=[6, 3, 1]).reward
    1.0
    """
    return check_many([Case(gold=gold, answer=answer, task=task, numbers=numbers)])[0]


def check_many(cases: Iterable[Case], pool: WorkerPool | None = None) -> list[Verdict]:
    """One verdict a case, in order. What needs computer algebra runs in parallel, in `pool` or the process's default
    pool.
    """
    cases = list(cases)
    verdicts = [check_exactly(case) for case in cases]
    open_ones = [index for index, verdict in enumerate(verdicts) if verdict is None]
    if open_ones:
        pairs = [_as_pair(cases[index]) for index in open_ones]
        for index, verdict in zip(open_ones, (pool or default_pool()).verify_many(pairs), strict=True):
            verdicts[index] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def check_exactly(case: Case) -> Verdict | None:
    """The verdict where this process can give one at no risk; None where math-verify has to."""
    if case.task not in TASKS:
        return compare_exactly(gold=read_gold(case.gold), answer=case.answer)
    verdict = TASKS[case.task].check(
        gold=case.gold, answer=(case.answer or "")[:MAX_ANSWER_LENGTH], numbers=case.numbers
    )
    if verdict.kind is VerdictKind.UNREADABLE_GOLD:
        return verdict  # before what the answer lacks, so that a bad row is masked for all its completions alike
    if case.answer is None:
        return NO_ANSWER
    if len(case.answer) > MAX_ANSWER_LENGTH:
        return unparsable(f"the answer has {len(case.answer)} characters, {MAX_ANSWER_LENGTH} are read at most")
    return verdict


def _as_pair(case: Case) -> Pair:
    return Pair(gold=as_latex(read_gold(case.gold)), answer=None if case.answer is None else as_latex(case.answer))
