"""Checkpoints that survive: which one to resume from, and what a full disk may cost."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def latest_checkpoint(run_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a run: one that a kill cut short has no trainer_state.json, or half of
    one, and is passed over."""
    found = []
    for folder in Path(run_dir).glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        if step and is_whole(folder):
            found.append((int(step.group(1)), folder))
    return max(found)[1] if found else None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, which is that of trainer_state.json."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that the disk is full; torch and safetensors say it in words only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        if any(said in str(error) for said in ("PytorchStreamWriter failed", "file write failed", "iostream error")):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


@contextlib.contextmanager
def forgiving_disk(folder: Path) -> Iterator[None]:
    """Drop a checkpoint that the disk has no room for, say so, and let training go on. Other errors pass."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free / 2**20
        logger.error(
            "checkpoint %s was not saved: the disk is full (%.0f MiB free). Training goes on; free some space or lower "
            "save_total_limit, and the next checkpoint will be saved.", folder.name, free,
        )  # fmt: skip
