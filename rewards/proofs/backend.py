"""What every proof assistant has to offer here: check a script against a statement that the script cannot change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rewards.proofs.verdicts import ProofVerdict
from rewards.scoring import SetupError

MAX_SCRIPT_LENGTH = 50_000
"""Characters of a script; a longer one has failed."""


class ProofToolError(SetupError):
    """The proof assistant is missing or does not start. Never a reward: the model did nothing wrong."""


@dataclass(frozen=True, kw_only=True)
class ProofTask:
    """One script to check. Statement and preamble (imports, notations, definitions) come from the data set and are
    trusted; the script comes from the model.
    """

    statement: str
    script: str
    preamble: str = ""


@runtime_checkable
class ProofBackend(Protocol):
    """A proof assistant. Safe to call from any thread."""

    language: str

    def check(self, statement: str, script: str, preamble: str = "", timeout: float | None = None) -> ProofVerdict:
        """Whether `script` proves `statement`, in at most `timeout` seconds (None: the backend's own).

        Raises ProofToolError where the assistant cannot be used.
        """
        ...

    def check_many(self, tasks: Sequence[ProofTask], timeout: float | None = None) -> list[ProofVerdict]:
        """One verdict a task, in order, several at a time."""
        ...

    def close(self) -> None:
        """End all processes. The next check starts new ones."""
        ...
