"""A run is a folder: what it was asked, what it measured, what it sampled, and how it ended.

config.yaml      the settings that differ from their defaults, and where they came from; itself a recipe
metrics.jsonl    a line a step
samples.jsonl    completions: during training, and of the same problems before and after
eval.json        base against trained
status.json      running, finished, interrupted or failed, and at which step
checkpoint-*/    to resume from;  model/  the result;  report.html  all of it on a page
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from recipes.manifest import checkout_commit
from recipes.parser import config_paths, dump_yaml, parse

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


class RunFolder:
    """The paths of a run and the only code that writes to them."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.alarm: str | None = None
        """What recipes.hacking_alarm saw; status.json shows it from then on."""
        self.alarm_stopped = False
        """Whether it ended the run, which then is no run that was broken off."""
        self.model_step: int | None = None
        """The step whose weights model/ holds, where that is not the last; status.json shows it."""

    @classmethod
    def new(cls, path: str | Path) -> RunFolder:
        """A folder that no run has used: `path`, or with -2, -3, … behind it. Nothing of an earlier run is touched.

        Runs that start at the same time get a folder each.
        """
        candidate, number = Path(path), 2
        while True:
            candidate.mkdir(parents=True, exist_ok=True)
            if _claim(candidate) and not (candidate / "config.yaml").exists():
                return cls(candidate)
            candidate, number = Path(f"{path}-{number}"), number + 1

    @classmethod
    def latest(cls, path: str | Path) -> RunFolder:
        """The newest of `path`, `path-2`, … that holds a run. Raises FileNotFoundError when none does."""
        path = Path(path)
        runs = [
            run
            for run in (path.parent.iterdir() if path.parent.is_dir() else ())
            if re.fullmatch(rf"{re.escape(path.name)}(-\d+)?", run.name) and (run / "config.yaml").exists()
        ]
        if not runs:
            raise FileNotFoundError(f"there is no run to resume at {path}; start one without --resume")
        return cls(max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime))

    def write_config(self, *settings: Any) -> None:
        """The settings of these dataclasses that are not defaults, and the provenance of the run."""
        chosen: dict[str, Any] = {}
        for part in settings:
            chosen |= changed_settings(part)
        chosen["provenance"] = provenance(chosen.get("seed", 42))
        text = dump_yaml(json.loads(json.dumps(chosen, default=str)))
        self._replace("config.yaml", text)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replaced in one step, so that a reader never meets half a file. A full disk costs the file, not the run."""
        try:
            self._replace(name, json.dumps(content, ensure_ascii=False, indent=1))
        except OSError as error:
            logger.error("could not write %s: %s; the run goes on", self.path / name, error)

    def _replace(self, name: str, text: str) -> None:
        partial = self.path / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path / name)

    def save_dataset(self, name: str, rows: Dataset) -> None:
        """A data set as a folder that `datasets.load_from_disk` reads; an older one is replaced when the new one is
        whole. Raises OSError."""
        final = self.path / name
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        rows.save_to_disk(str(partial))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    def append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Add lines to a .jsonl file. A full disk costs the lines, not the run."""
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except OSError as error:
            logger.error("could not write to %s: %s; the run goes on", self.path / name, error)

    def forget_after(self, step: int) -> None:
        """Drop what was written after the checkpoint that a run resumes from; it will be written again."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            if (self.path / name).is_file():
                kept = [line for line in self._lines(name) if _step(line) <= step]
                self._replace(name, "".join(line + "\n" for line in kept))

    def last_elapsed(self) -> float:
        """Seconds of training that metrics.jsonl already holds."""
        try:
            return json.loads(self._lines("metrics.jsonl")[-1])["elapsed"]
        except (OSError, IndexError, KeyError, json.JSONDecodeError):
            return 0.0

    def _lines(self, name: str) -> list[str]:
        """Not by splitlines(), which also splits at U+2028 and others that a completion may hold; and a line that a
        crash cut short may end inside a character."""
        text = (self.path / name).read_text(encoding="utf-8", errors="replace")
        return [line for line in text.split("\n") if line]

    def set_status(self, state: str, step: int = 0, max_steps: int = 0, error: str | None = None) -> None:
        told = {"alarm": self.alarm, "model_step": self.model_step}
        told = {name: value for name, value in told.items() if value is not None}
        self.write_json("status.json", {"state": state, "step": step, "max_steps": max_steps, "error": error} | told)

    def check_space(self, num_parameters: int, checkpoints: int) -> None:
        """Warn before training when the disk cannot hold the checkpoints: weights and two moments in float32 each."""
        needed = num_parameters * 12 * (checkpoints + 1)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            logger.warning(
                "checkpoints may need %.1f GiB and %s has %.1f GiB free; lower save_total_limit or free some space",
                needed / 2**30, self.path, free / 2**30,
            )  # fmt: skip


def _claim(folder: Path) -> bool:
    """Lock a folder until this process ends; False where another run holds it."""
    if fcntl is None:
        return True
    descriptor = os.open(folder, os.O_RDONLY)  # left open: the lock goes with it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # a file system without locks
        os.close(descriptor)
    return True


def _step(line: str) -> float:
    """The step of a line; one that a crash cut short, or that shows the model after training, belongs to no step."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return float("inf")
    return float("inf") if row.get("kind") == "after" else row.get("step", 0)


DERIVED = (
    "reward_weights",
    "activation_checkpointing",
    "gradient_checkpointing",
    "disable_tqdm",
    "report_to",
    "do_eval",
    "debug",
)
"""Settings that follow from others: the weights from `rewards`, the rest from TrainingArguments."""


def changed_settings(settings: Any) -> dict[str, Any]:
    """The plain fields of a dataclass that differ from their defaults."""
    changed = {}
    for field in dataclasses.fields(settings):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        value = getattr(settings, field.name)
        plain = value is None or isinstance(value, str | int | float | bool | list | dict)
        if field.init and plain and value != default and field.name not in DERIVED:
            changed[field.name] = value
    return changed


def parse_or_resume(*dataclass_types: Any, args: Sequence[str]) -> tuple:
    """What a command line asks for; the first dataclass has `resume`, the last one `output_dir`. A run that is resumed
    keeps its own settings, save those that flags override."""
    parsed = parse(*dataclass_types, args=list(args))
    if not parsed[0].resume:
        return parsed
    run = RunFolder.latest(parsed[-1].output_dir)
    _, flags = config_paths(list(args))
    # The folder's place is the one thing that its config.yaml may not know: it can have been moved.
    own = ["--config", str(run.path / "config.yaml"), *flags, "--output_dir", str(run.path)]
    return parse(*dataclass_types, args=own)


def provenance(seed: int) -> dict[str, Any]:
    """What a reader needs to repeat a run: commit, versions, command, machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "commit": checkout_commit(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "accelerate", "datasets")}
        | {"python": platform.python_version()},
        "command": " ".join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "device": device,
        "host_threads": torch.get_num_threads(),
    }


MAX_EXTRA = 500
"""Characters kept of what a reward function says of one completion."""


class RunRecorder(TrainerCallback):
    """Writes metrics.jsonl, the training samples and status.json while a run goes on."""

    SAMPLES_A_STEP = 2

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def on_train_begin(self, args, state, control, **kwargs):
        # A resumed run goes on counting where the line it resumes from stopped.
        self.started = time.monotonic() - self.folder.last_elapsed()
        if state.is_world_process_zero:
            self.folder.set_status("running", state.global_step, state.max_steps)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            line = {"step": state.global_step, "elapsed": time.monotonic() - self.started} | logs
            self.folder.append("metrics.jsonl", [line])
            self.folder.set_status("running", state.global_step, state.max_steps)

    def on_rollout(self, args, state, control, groups):
        if state.is_world_process_zero:
            rows = [
                sample_row("train", state.global_step + 1, group.row, group.texts[0]) | _judged(group)
                for group in groups
            ]
            self.folder.append("samples.jsonl", rows[: self.SAMPLES_A_STEP])


def _judged(group: Any) -> dict[str, Any]:
    first = group.completions[0]
    return {
        "reward": group.totals[0] if group.live[0] else None,
        "rewards": {name: values[0] for name, values in group.rewards.items()},
        "logged": {name: str(values[0])[:MAX_EXTRA] for name, values in group.extra.items()},
        "length": len(first.token_ids),
        "truncated": first.truncated,
    }


def sample_row(kind: str, step: int, row: dict[str, Any], completion: str) -> dict[str, Any]:
    """A line of samples.jsonl."""
    about = {
        key: row.get(key) for key in ("id", "task", "language", "difficulty", "problem", "prompt", "answer", "numbers")
    }
    return {"kind": kind, "step": step, **about, "completion": completion}
