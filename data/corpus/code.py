"""Placeholder while the generators are being written."""

from __future__ import annotations

import random
from collections.abc import Callable


def draw(rng: random.Random) -> str:
    return f"{rng.random()}"


KINDS: dict[str, Callable[[random.Random], str]] = {"code": draw}
