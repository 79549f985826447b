"""What checking one proof found: the kind, where the first error stands, and where a search can resume.

DeepSeek-Prover-V1.5 (arXiv:2408.08152) rewards a whole proof by 1 or 0 (section 2.3) and lets its tree search, RMaxTS,
cut a failed one at the first error and go on from the state there (section 3.2): hence `valid_prefix` and `goals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProofKind(StrEnum):
    """What can happen when a proof is checked."""

    PROVED = "proved"
    FAILED = "failed"
    """The proof assistant refuses the script at `position`."""
    INCOMPLETE = "incomplete"
    """Everything in the script holds, and goals are left."""
    CHEATING = "cheating"
    """The script does more than prove (declares, redefines, admits, reads, writes), or rests on a forbidden axiom."""
    TIMEOUT = "timeout"
    NO_PROOF = "no_proof"
    """The completion marks no proof."""
    UNREADABLE_STATEMENT = "unreadable_statement"
    """The statement or the preamble of the data set is refused."""


@dataclass(frozen=True)
class Position:
    """A place in the candidate's script. `offset` and `column` count characters from 0, `line` counts from 1."""

    offset: int
    line: int
    column: int

    @classmethod
    def at(cls, script: str, offset: int) -> Position:
        r"""
        >>> Position.at("intros.\nfoo.", 8)
        Position(offset=8, line=2, column=0)
        """
        before = script[:offset]
        return cls(offset, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1))


@dataclass(frozen=True)
class ProofVerdict:
    """One outcome. `detail` is a sentence for people, mostly the assistant's own message.

    `valid_prefix` is the script up to the first error: it holds, so a search can append to it. `goals` is what is left
    to prove there, as the assistant prints it; empty where that is not known (a time-out ends the assistant).
    """

    kind: ProofKind
    detail: str = ""
    position: Position | None = None
    valid_prefix: str = ""
    goals: str = ""

    @property
    def reward(self) -> float | None:
        """1.0 if proved, None if the data set is at fault, else 0.0.

        >>> ProofVerdict(ProofKind.PROVED).reward, ProofVerdict(ProofKind.CHEATING).reward
        (1.0, 0.0)
        """
        if self.kind is ProofKind.UNREADABLE_STATEMENT:
            return None
        return 1.0 if self.kind is ProofKind.PROVED else 0.0


PROVED = ProofVerdict(ProofKind.PROVED, "the assistant accepts the proof")
NO_PROOF = ProofVerdict(ProofKind.NO_PROOF, "the completion marks no proof")


def unreadable_statement(detail: str) -> ProofVerdict:
    return ProofVerdict(ProofKind.UNREADABLE_STATEMENT, detail)
