"""Checkpoints that survive: which one to resume from, and what a full disk may cost."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def latest_checkpoint(run_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a run; one that a kill or a crash cut short is passed over, with a warning."""
    folders = [folder for folder in Path(run_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", folder.name)]
    for folder in sorted(folders, key=lambda folder: int(folder.name.split("-")[1]), reverse=True):
        if not (fault := fault_of(folder)):
            return folder
        _warn_once(f"{folder} is not whole and is passed over: {fault}")
    return None


@functools.cache
def _warn_once(message: str) -> None:
    """A run looks for its newest checkpoint several times."""
    logger.warning("%s", message)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return not fault_of(checkpoint)


def fault_of(checkpoint: Path) -> str:
    """What is missing or cut short, "" for nothing: trainer_state.json, which is written last, or a .safetensors file,
    whose header says how long it is. Weights in other files, as FSDP's shards, are not looked at."""
    path = checkpoint / "trainer_state.json"
    try:
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(checkpoint.glob("*.safetensors")):
            with safe_open(path, framework="np"):  # reads the header alone
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return f"{path.name} cannot be read ({error})"
    return ""


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
