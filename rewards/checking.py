"""The project's one answer checker: gold and answer, always by keyword, to a Verdict.

Gold and answer are not interchangeable, and open-source reward files swap the two; hence one place and keywords only. A
task of rewards.tasks is checked exactly. Everything else is mathematics: exact stages in this process, which settle
almost all answers, then SymPy and math-verify in worker processes that are killed on time-out. Nothing from a model is
ever evaluated by Python.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from rewards.mathematics import Question, judge, read_gold
from rewards.mathematics.expressions import Expression
from rewards.mathematics.pool import WorkerPool, default_pool
from rewards.tasks import MAX_ANSWER_LENGTH, TASKS
from rewards.verdicts import NO_ANSWER, Verdict, VerdictKind, unparsable

MAX_ROUNDS = 6
"""Equalities that are asked of the workers for one answer, one after the other."""


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
    verdicts: dict[int, Verdict] = {}
    facts: dict[tuple[Expression, Expression], bool] = {}
    for _ in range(MAX_ROUNDS):
        questions: dict[int, Question] = {}
        for index in range(len(cases)):
            if index not in verdicts:
                found = decide(cases[index], facts)
                if isinstance(found, Verdict):
                    verdicts[index] = found
                else:
                    questions[index] = found
        if not questions:
            break
        replies = (pool or default_pool()).verify_many([question.pair for question in questions.values()])
        for (index, question), reply in zip(questions.items(), replies, strict=True):
            if question.expressions and reply.kind in (VerdictKind.CORRECT, VerdictKind.WRONG):
                facts[question.expressions] = reply.kind is VerdictKind.CORRECT
            else:
                verdicts[index] = reply
    undecided = unparsable(f"it takes more than {MAX_ROUNDS} questions to computer algebra")
    return [verdicts.get(index, undecided) for index in range(len(cases))]


def check_later(cases: Iterable[Case], pool: WorkerPool | None = None) -> Future[list[Verdict]]:
    """`check_many` in the background: the verdicts come as a Future, and the GPU goes on meanwhile.

    >>> check_later([Case(gold="42", answer="42")]).result()[0].reward
    1.0
    """
    cases = list(cases)
    future: Future[list[Verdict]] = Future()

    def run() -> None:
        try:
            future.set_result(check_many(cases, pool))
        except BaseException as error:  # handed on to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name="answer checks", daemon=True).start()
    return future


def decide(case: Case, facts: dict[tuple[Expression, Expression], bool]) -> Verdict | Question:
    """The verdict where this process can give one at no risk; the question for a worker where it cannot."""
    if case.task not in TASKS:
        return judge(gold=read_gold(case.gold), answer=case.answer, facts=facts)
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
