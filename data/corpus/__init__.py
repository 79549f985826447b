"""The pretraining corpus of the shipped base: an endless, seeded stream of generated documents.

Three quarters are worked problems of the pretraining split (solutions); the rest is what keeps later stages real: prose,
dialogues, instructions, requests to refuse, small programs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from data.corpus import solutions

KINDS: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "solutions": (76, solutions.draw),
}  # fmt: skip
"""Document kinds: (share in percent, generator)."""


def documents(seed: int, shard: int) -> Iterator[str]:
    """The documents of one shard, endless; the same seed and shard always give the same documents."""
    rng = random.Random(f"corpus-{seed}-{shard}")
    weights, draws = zip(*KINDS.values())
    while True:
        yield rng.choices(draws, weights)[0](rng)
