"""What checking one answer found, and what reward that gives.

What the model caused (no answer, text that cannot be read, a bomb that runs into the time-out) scores 0. What the data
set caused (a gold answer that cannot be read) scores None, which masks the completion as TRL does, so a bad row neither
teaches nor punishes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_FORM = 200
"""Characters of a parsed form that a verdict keeps."""


class VerdictKind(StrEnum):
    """The seven things that can happen when an answer is checked."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The completion marks no answer."""
    UNPARSABLE = "unparsable"
    """There is an answer, but it does not read as one of this task."""
    UNREADABLE_GOLD = "unreadable_gold"
    TIMEOUT = "timeout"
    """The answer was being read or compared when the time ran out."""
    GOLD_TIMEOUT = "gold_timeout"
    """The gold answer was still being read when the time ran out."""


GOLD_AT_FAULT = frozenset({VerdictKind.UNREADABLE_GOLD, VerdictKind.GOLD_TIMEOUT})


@dataclass(frozen=True)
class Verdict:
    """One outcome: a sentence for people in `detail`, and both answers as they were read ("" where they were not)."""

    kind: VerdictKind
    detail: str = ""
    gold: str = ""
    answer: str = ""

    @property
    def reward(self) -> float | None:
        """1.0 if correct, None if the gold answer is at fault, else 0.0.

        >>> Verdict(VerdictKind.CORRECT).reward, Verdict(VerdictKind.TIMEOUT).reward
        (1.0, 0.0)
        """
        if self.kind in GOLD_AT_FAULT:
            return None
        return 1.0 if self.kind is VerdictKind.CORRECT else 0.0

    def with_forms(self, gold: object, answer: object) -> Verdict:
        """The same verdict that also says how gold and answer were read."""
        return replace(self, gold=str(gold)[:MAX_FORM], answer=str(answer)[:MAX_FORM])


def correct(detail: str) -> Verdict:
    return Verdict(VerdictKind.CORRECT, detail)


def wrong(detail: str) -> Verdict:
    return Verdict(VerdictKind.WRONG, detail)


def unparsable(detail: str) -> Verdict:
    return Verdict(VerdictKind.UNPARSABLE, detail)


def unreadable_gold(detail: str) -> Verdict:
    return Verdict(VerdictKind.UNREADABLE_GOLD, detail)


NO_ANSWER = Verdict(VerdictKind.NO_ANSWER, "the completion marks no answer")


def shares(verdicts: Iterable[Verdict | None]) -> dict[str, float]:
    """The share of each kind among the rows that have a gold answer; every kind is named, so that curves have no gaps.

    >>> shares([correct("the same number"), NO_ANSWER, None])["no_answer"]
    0.5
    """
    counts = Counter(verdict.kind for verdict in verdicts if verdict is not None)
    total = max(1, counts.total())
    return {kind.value: counts[kind] / total for kind in VerdictKind}
