"""The order of training rows: batches of like length, which halves the padding, and that a resumed run finds again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


def like_lengths(lengths: Sequence[int], batch_size: int, seed: int | str) -> list[int]:
    """An order whose batches hold rows of like length, the batches in random order.

    >>> sorted(like_lengths([5, 1, 4, 2], 2, seed=0)[:2]) in ([0, 2], [1, 3])
    True
    """
    rng = random.Random(seed)
    rows = rng.sample(range(len(lengths)), len(lengths))
    rows.sort(key=lengths.__getitem__)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    last = batches.pop() if len(rows) % batch_size else []  # the short one stays last, so that the others are whole
    rng.shuffle(batches)
    return [row for batch in [*batches, last] for row in batch]


class LikeLengths(Sampler):
    """Such an order for each epoch, which follows from the seed and the epoch alone. transformers' LengthGroupedSampler
    draws from the global random numbers, which are other ones when a run resumes within an epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(like_lengths(self.lengths, self.batch_size, f"{self.seed}-{self.epoch}"))
