"""What a task family provides, and helpers that several families share."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Protocol


class Task(Protocol):
    """A family of problems with exact answers, graded 1 (easy) to 5 (hard), in every language of the project.

    An instance is the problem itself, free of language and wording. Its `key` holds the numbers and the structure and
    decides the split (data.problems).
    """

    name: str

    def draw(self, rng: random.Random, difficulty: int) -> Any:
        """A new instance."""

    def state(self, instance: Any, language: str, rng: random.Random) -> str:
        """The question in one of several wordings."""

    def answer(self, instance: Any, language: str) -> str:
        """The gold answer as rewards.check reads it."""

    def solve(self, instance: Any, language: str, style: str, rng: random.Random) -> list[str]:
        """The steps of a correct worked solution, without the final answer. `style` is "terse" or "careful".

        The same rng state gives the same steps in every language, so steps of two languages can be mixed.
        """

    def final(self, instance: Any, language: str) -> str:
        """The answer as a solution writes it (for Countdown an expression, not the target)."""


_INTEGER = re.compile(r"\d+")


def perturb_number(text: str, rng: random.Random) -> str:
    """`text` with its last integer changed a little: the kind of slip a person makes. Unchanged if it has none."""
    matches = list(_INTEGER.finditer(text))
    if not matches:
        return text
    last = matches[-1]
    value = int(last.group())
    wrong = max(0, value + rng.choice((-10, -2, -1, 1, 2, 10)))
    return text[: last.start()] + str(wrong if wrong != value else value + 1) + text[last.end() :]


def pick(rng: random.Random, phrases: Sequence[str], **values: object) -> str:
    """One of several wordings, filled in."""
    return rng.choice(phrases).format(**values)
