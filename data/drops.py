"""Rows that a data set loses on its way in, counted by the filter that dropped them, with examples.

Loaders log these counts; `collected_drops` hands them to whoever writes a report of a whole stage.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

EXAMPLES = 3
"""Dropped rows that are shown of each filter."""
LONGEST_EXAMPLE = 200
"""Characters."""

_collected: ContextVar[list[dict[str, Any]] | None] = ContextVar("collected_drops", default=None)


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
    label = str(source) if isinstance(source, str | Path) else "the given Dataset"
    collect_drops(label, report["filters"])
    if report["filters"]:
        reasons = "; ".join(
            f"{one['dropped']} {one['name']} (such as: {one['examples'][0]})" for one in report["filters"]
        )
        logger.warning("%s: kept %d of %d; dropped %s", label, report["kept"], report["seen"], reasons)


@contextlib.contextmanager
def collected_drops() -> Iterator[list[dict[str, Any]]]:
    """What every loader that is called inside drops: the list gets a row {"name": "set: filter", "dropped", "examples"}
    for each filter that dropped something.

    >>> with collected_drops() as found:
    ...     collect_drops("gsm8k", [{"name": "seen before", "dropped": 2, "examples": ["1+1?"]}])
    >>> found
    [{'name': 'gsm8k: seen before', 'dropped': 2, 'examples': ['1+1?']}]
    """
    found: list[dict[str, Any]] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def collect_drops(label: str, filters: Sequence[Mapping[str, Any]]) -> None:
    """What a loader says of a set, for whoever collects."""
    if (found := _collected.get()) is not None:
        found += [{**one, "name": f"{label}: {one['name']}"} for one in filters if one["dropped"]]
