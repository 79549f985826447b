"""Rows that a data set loses on its way in, counted by the filter that dropped them, with examples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

EXAMPLES = 3
"""Dropped rows that are shown of each filter."""
LONGEST_EXAMPLE = 200
"""Characters."""


class Drops:
    """What was seen and dropped so far. `as_dict` is what a stage reports of its filters."""

    def __init__(self) -> None:
        self.seen = 0
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def drop(self, name: str, example: object) -> None:
        """One more that the filter called `name` dropped."""
        self.counts[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < EXAMPLES:
            text = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, default=str)
            shown.append(text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 3] + "...")

    def as_dict(self, kept: int) -> dict[str, Any]:
        """{"filters": [{"name", "dropped", "examples"}], "kept", "seen"}."""
        filters = [{"name": name, "dropped": n, "examples": self.examples[name]} for name, n in self.counts.items()]
        return {"filters": filters, "kept": kept, "seen": self.seen}

    def __str__(self) -> str:
        """
        >>> drops = Drops()
        >>> drops.drop("empty", "row 3")
        >>> str(drops)
        '1 empty (such as: row 3)'
        """
        return "; ".join(f"{n} {name} (such as: {self.examples[name][0]})" for name, n in self.counts.items())


def log_drops(source: object, report: Mapping[str, Any]) -> None:
    """One warning that says what `Drops.as_dict` holds, if anything was dropped."""
    if report["filters"]:
        label = str(source) if isinstance(source, str | Path) else "the given Dataset"
        reasons = "; ".join(
            f"{one['dropped']} {one['name']} (such as: {one['examples'][0]})" for one in report["filters"]
        )
        logger.warning("%s: kept %d of %d; dropped %s", label, report["kept"], report["seen"], reasons)
