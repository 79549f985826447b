"""The accuracy reward: 1 if the marked answer is the gold answer, 0 if not (DeepSeek-R1, Nature version, section
"Reward design").

None means that the reward does not apply: the row has no gold answer, or an unreadable one. Such a completion is
masked, as in TRL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.checking import Case, check_many
from rewards.extraction import extract_answer, extract_lenient
from rewards.mathematics import mathematics_key
from rewards.tasks import TASKS
from rewards.texts import with_prefill
from rewards.verdicts import Verdict, shares


def accuracy_reward(
    prompts: Sequence,
    completions: Sequence,
    answer: Sequence | None = None,
    solution: Sequence | None = None,
    task: Sequence[str | None] | None = None,
    numbers: Sequence[Sequence[int] | None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list], None] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 for a right answer where training wants it marked (rewards.extraction, strict), 0.0 for anything else the
    model caused.

    The gold answers come in the column `answer`, or `solution` as in TRL's and open-r1's data sets; `task` and
    `numbers` may be missing. Other columns are ignored. Where the trainer hands over TRL's `log_metric` and
    `log_extra`, the share of each verdict becomes a metric (`accuracy/wrong`, …), and verdict and parsed forms become
    columns of the logged completions. Raises ValueError when neither gold column came or a column has another length.

    >>> accuracy_reward(["6*7?"] * 2, ["<think>.</think><answer>42</answer>", "42"], answer=["42"] * 2)
    [1.0, 0.0]
    """
    verdicts = accuracy_verdicts(prompts, completions, answer, solution, task, numbers)
    log_verdicts(verdicts, log_metric, log_extra)
    return rewards_of(verdicts)


def phrase_accuracy(
    prompts: Sequence,
    completions: Sequence,
    answer: Sequence | None = None,
    solution: Sequence | None = None,
    task: Sequence[str | None] | None = None,
    numbers: Sequence[Sequence[int] | None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list], None] | None = None,
    **columns: object,
) -> list[float | None]:
    """As `accuracy_reward`, but where nothing is marked, what follows the last "The answer is", "####" or "A:" counts.

    For models that were taught such a phrase, as GSM8K's solutions do.

    >>> phrase_accuracy(["6*7?"] * 2, ["The answer is 42.", "6 * 7 = 42\\n#### 42"], answer=["42"] * 2)
    [1.0, 1.0]
    """
    verdicts = accuracy_verdicts(prompts, completions, answer, solution, task, numbers, extract=extract_with_phrases)
    log_verdicts(verdicts, log_metric, log_extra)
    return rewards_of(verdicts)


def rewards_of(verdicts: Sequence[Verdict | None]) -> list[float | None]:
    return [None if verdict is None else verdict.reward for verdict in verdicts]


def log_verdicts(
    verdicts: Sequence[Verdict | None],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list], None] | None,
) -> None:
    """Hand the shares of the verdicts, and each row's, to TRL's callbacks, where they came."""
    if log_metric is not None:
        for kind, share in shares(verdicts).items():
            log_metric(f"accuracy/{kind}", share)
    if log_extra is not None:
        log_extra("verdict", ["" if verdict is None else verdict.kind.value for verdict in verdicts])
        log_extra("gold_read", ["" if verdict is None else verdict.gold for verdict in verdicts])
        log_extra("answer_read", ["" if verdict is None else verdict.answer for verdict in verdicts])


def lenient_accuracy(
    prompts: Sequence,
    completions: Sequence,
    answer: Sequence | None = None,
    solution: Sequence | None = None,
    task: Sequence[str | None] | None = None,
    numbers: Sequence[Sequence[int] | None] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 where a completion settles on the right answer, marked or not. For evaluation only.

    It tells what a base model can do from what it formats: a base that ignores the tags scores 0 by `accuracy_reward`.
    Never train on it: it guesses where the answer stands, so it can be satisfied without marking anything and by texts
    that only look settled, and the strict reward would no longer teach the model to say which of its numbers is the
    answer.

    >>> lenient_accuracy(["6*7?"] * 2, ["It is 42.", "It is 42, no: 43."], answer=["42"] * 2, task=["arithmetic"] * 2)
    [1.0, 0.0]
    """
    return rewards_of(accuracy_verdicts(prompts, completions, answer, solution, task, numbers, extract=extract_lenient))


def answer_key(completion: str, row: Mapping[str, Any]) -> str | None:
    """What a majority vote counts (cons@k): the marked answer in one spelling for equal answers of the row's task; None
    where none is marked. In mathematics, numbers are equal by value and other answers by their spelling.

    >>> answer_key("<think>.</think><answer>7/2</answer>", {"task": "equations"})
    '7/2'
    >>> answer_key("<think>.</think><answer>3.5</answer>", {"task": "equations"})
    '7/2'
    """
    answer = extract_answer(with_prefill(row.get("prompt", ""), completion))
    if answer is None:
        return None
    task = TASKS.get(row.get("task") or "")
    return task.key(answer, row.get("numbers") or ()) if task else mathematics_key(answer)


def extract_strict(completion: str, task: str | None) -> str | None:
    return extract_answer(completion)


def extract_with_phrases(completion: str, task: str | None) -> str | None:
    return extract_answer(completion, phrases=True)


def accuracy_verdicts(
    prompts: Sequence,
    completions: Sequence,
    answer: Sequence | None = None,
    solution: Sequence | None = None,
    task: Sequence[str | None] | None = None,
    numbers: Sequence[Sequence[int] | None] | None = None,
    extract: Callable[[str, str | None], str | None] = extract_strict,
) -> list[Verdict | None]:
    """The verdicts behind the rewards, for counting and for reports; None where the row has no gold answer."""
    golds = answer if answer is not None else solution
    if golds is None:
        raise ValueError(
            "the accuracy reward found no gold answers: neither a column 'answer' nor a column 'solution' came; "
            "name the data set's gold column one of these"
        )
    size = len(completions)
    for name, column in (("prompts", prompts), ("answer or solution", golds), ("task", task), ("numbers", numbers)):
        if column is not None and len(column) != size:
            raise ValueError(f"{size} completions need as many values in {name!r}, got {len(column)}")
    tasks: Sequence[str | None] = task if task is not None else [None] * size
    sets: Sequence[Sequence[int] | None] = numbers if numbers is not None else [None] * size
    texts = [with_prefill(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    rows = [index for index in range(size) if not _is_missing(golds[index])]
    cases = [
        Case(gold=str(golds[i]), answer=extract(texts[i], tasks[i]), task=tasks[i], numbers=tuple(sets[i] or ()))
        for i in rows
    ]
    verdicts: list[Verdict | None] = [None] * size
    for index, verdict in zip(rows, check_many(cases), strict=True):
        verdicts[index] = verdict
    return verdicts


def _is_missing(gold: object) -> bool:
    """None, or the NaN that tables and JSON have for it."""
    return gold is None or gold != gold
