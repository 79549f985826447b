r"""Cases with certain verdicts for the mathematics checker: the independent evidence behind the accuracy reward.

Written from mathematics and from the definitions in docs/rewards.md, never from what the checker says. Where a
definition leaves a verdict open (is `50` an answer for `50\%`?) there is no case. Three sources:

- `*.jsonl`, by hand. A row is one gold answer with its right and its wrong answers, or one whole completion with its
  verdict;
- derived.py: objects made at random (numbers, intervals, matrices, …), respelled and changed, so that the verdict is
  known by construction;
- hostile.py: answers meant to break a checker. None of them may be accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bank import derived, hostile

HERE = Path(__file__).parent
THOUGHT = "<think>\nLet me work it out.\n</think>\n"
REWARDS = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0, "unreadable_gold": None}
"""The verdicts of the bank, with the reward that each means. `wrong` leaves open whether the answer was readable."""


@dataclass(frozen=True, kw_only=True)
class BankCase:
    """One completion with its certain verdict. `answer` is what it marks, where the case is about the answer alone."""

    kind: str
    gold: str | int | float
    completion: str | list[dict]
    verdict: str
    prompt: str | list[dict] = "What is it?"
    answer: str | None = None

    @property
    def reward(self) -> float | None:
        return REWARDS[self.verdict]

    def __str__(self) -> str:
        shown = f"answer {self.answer}" if self.answer is not None else f"completion {self.completion!r}"
        return f"{self.kind}: gold {self.gold!r}, {shown}"


def in_tags(answer: str) -> str:
    """A completion as DeepSeek-R1-Zero writes it."""
    return f"{THOUGHT}<answer>{answer}</answer>"


def in_box(answer: str) -> str:
    """A completion as instruct models write it."""
    return rf"{THOUGHT}Hence \boxed{{{answer}}}"


def written() -> Iterator[BankCase]:
    """The cases of the JSONL files."""
    for path in sorted(HERE.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "completion" in row:
                yield BankCase(**row)
            else:
                yield from about_answers(**row)


def about_answers(kind: str, gold: str, correct: Iterable[str], wrong: Iterable[str]) -> Iterator[BankCase]:
    """The cases of one gold answer."""
    for verdict, answers in (("correct", correct), ("wrong", wrong)):
        for answer in answers:
            yield BankCase(kind=kind, gold=gold, completion=in_tags(answer), verdict=verdict, answer=answer)


def cases() -> list[BankCase]:
    """The whole bank, hostile answers aside; the same on every call. What was derived and also written counts once."""
    made = (case for group in derived.groups() for case in about_answers(*group))
    unique = {(str(case.gold), str(case.prompt), str(case.completion)): case for case in [*made, *written()]}
    return list(unique.values())


__all__ = ["BankCase", "about_answers", "cases", "hostile", "in_box", "in_tags", "written"]
