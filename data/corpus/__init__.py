"""The pretraining corpus of the shipped base: a seeded, endless stream of documents.

Three quarters are worked problems of the pretraining split (solutions); the rest is what keeps later stages real:
prose, dialogues, instructions, requests to refuse, small programs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from data.corpus import code, dialogues, instructions, prose, safety, solutions

Draw = Callable[[random.Random], str]

SHARES: tuple[tuple[float, dict[str, Draw]], ...] = (
    (76, {"solutions": solutions.draw}),
    (6, prose.KINDS),
    (6, dialogues.KINDS),
    (7, instructions.KINDS),
    (3, safety.KINDS),
    (2, code.KINDS),
)
"""(percent of the documents, the generators that share it evenly)."""

KINDS: dict[str, tuple[float, Draw]] = {
    name: (share / len(kinds), draw) for share, kinds in SHARES for name, draw in kinds.items()
}
"""Document kind -> (percent, generator)."""


def documents(seed: int, shard: int) -> Iterator[str]:
    """The documents of one shard, endless; the same seed and shard always give the same documents."""
    rng = random.Random(f"corpus-{seed}-{shard}")
    weights, draws = zip(*KINDS.values())
    while True:
        yield rng.choices(draws, weights)[0](rng)
