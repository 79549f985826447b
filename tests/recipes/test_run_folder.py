"""A run's folder: never another run's, never half a file, and readable after a crash or on a full disk."""

import json
import logging
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from transformers import SchedulerType

from recipes import run_folder
from recipes.run_folder import RunFolder, RunRecorder, changed_settings, sample_row


def started(path: Path, age: float = 0) -> Path:
    """A folder that holds a run, begun `age` seconds ago."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 1\n")
    os.utime(path / "config.yaml", (time.time() - age,) * 2)
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def fill_disk_under(path: Path) -> None:
    """Whatever is written to this file meets "No space left on device"."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path.symlink_to("/dev/full")


# --- which folder -----------------------------------------------------------------------------------------------------


def test_a_new_run_never_gets_the_folder_of_another(tmp_path):
    first = started(tmp_path / "run")
    before = (first / "config.yaml").stat().st_mtime_ns
    assert RunFolder.new(tmp_path / "run").path == tmp_path / "run-2"
    started(tmp_path / "run-3")
    (tmp_path / "run-2/config.yaml").touch()
    assert RunFolder.new(tmp_path / "run").path == tmp_path / "run-4"
    assert (first / "config.yaml").stat().st_mtime_ns == before
    assert [path.name for path in first.iterdir()] == ["config.yaml"]


def test_a_folder_without_a_run_is_taken(tmp_path):
    (tmp_path / "deep/run").mkdir(parents=True)
    (tmp_path / "deep/run/notes.txt").write_text("mine")
    assert RunFolder.new(tmp_path / "deep/run").path == tmp_path / "deep/run"
    assert (tmp_path / "deep/run/notes.txt").read_text() == "mine"


def test_runs_that_start_at_once_get_a_folder_each(tmp_path):
    """A run writes its config.yaml some seconds after it took the folder, when its model is loaded."""
    assert RunFolder.new(tmp_path / "run").path == tmp_path / "run"
    assert RunFolder.new(tmp_path / "run").path == tmp_path / "run-2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_failed_at_its_start_leaves_its_folder(tmp_path):
    child = os.fork()
    if child == 0:
        RunFolder.new(tmp_path / "run")
        os._exit(0)  # before it wrote a config.yaml
    os.waitpid(child, 0)
    assert RunFolder.new(tmp_path / "run").path == tmp_path / "run"


def test_the_latest_run_is_the_one_that_began_last(tmp_path):
    started(tmp_path / "run", age=30)
    started(tmp_path / "run-2", age=10)
    started(tmp_path / "run-10", age=20)
    for other in ("run-2-copy", "run-x", "running", "other-2"):
        started(tmp_path / other)
    (tmp_path / "run-3").mkdir()  # no run began here
    assert RunFolder.latest(tmp_path / "run").path == tmp_path / "run-2"


def test_names_are_not_patterns(tmp_path):
    started(tmp_path / "run[1]+")
    assert RunFolder.latest(tmp_path / "run[1]+").path == tmp_path / "run[1]+"
    with pytest.raises(FileNotFoundError):
        RunFolder.latest(tmp_path / "run1")


@pytest.mark.parametrize("name", ["run", "missing/run"])
def test_nothing_to_resume_says_so(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no run to resume at .*run; start one without --resume"):
        RunFolder.latest(tmp_path / name)


# --- what a resumed run keeps -----------------------------------------------------------------------------------------

ODD = 'line\u2028separator, next\u0085line, 한국어, \x0b\x1c and a quote "'


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path):
    run = RunFolder(tmp_path)
    run.append("metrics.jsonl", [{"step": step, "elapsed": 2.0 * step} for step in range(1, 6)])
    run.append("samples.jsonl", [{"kind": "before", "step": 0}, {"step": 3, "completion": ODD}, {"step": 4}])
    run.append("samples.jsonl", [{"kind": "after", "step": 3}])  # of the model that will now be trained further
    run.forget_after(3)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert lines(tmp_path / "samples.jsonl") == [{"kind": "before", "step": 0}, {"step": 3, "completion": ODD}]
    assert run.last_elapsed() == 6.0
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "samples.jsonl"}


@pytest.mark.parametrize("cut", range(1, 37, 3))
def test_a_line_that_a_crash_cut_short_goes(tmp_path, cut):
    """Also where the cut goes through a character: Korean takes three bytes each."""
    run = RunFolder(tmp_path)
    run.append("samples.jsonl", [{"step": 1, "completion": "답은 5"}])
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(whole + whole[:-1][:cut])
    run.forget_after(1)
    run.append("samples.jsonl", [{"step": 2}])
    assert lines(tmp_path / "samples.jsonl") == [{"step": 1, "completion": "답은 5"}, {"step": 2}]


def test_forgetting_all_or_nothing(tmp_path):
    run = RunFolder(tmp_path)
    run.append("metrics.jsonl", [{"step": 1}, {"step": 2}])
    fill_disk_under(tmp_path / "metrics.jsonl.partial")
    with pytest.raises(OSError, match="No space left"):
        run.forget_after(1)
    assert len(lines(tmp_path / "metrics.jsonl")) == 2


def test_elapsed_time_is_read_where_it_can_be(tmp_path):
    run = RunFolder(tmp_path)
    assert run.last_elapsed() == 0.0
    for text, elapsed in (("", 0.0), ('{"step": 1, "elapsed": 4.5}\n', 4.5), ('{"step": 1}\n', 0.0), ('{"step', 0.0)):
        (tmp_path / "metrics.jsonl").write_text(text)
        assert run.last_elapsed() == elapsed


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_reader_never_meets_half_a_file(tmp_path, monkeypatch):
    """The file is complete before it takes the old one's name."""
    run = RunFolder(tmp_path)
    run.write_json("eval.json", {"n": 1})
    seen = []
    replace = Path.replace

    def watched(self, target):
        seen.append((json.loads(self.read_text()), json.loads(Path(target).read_text())))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    run.write_json("eval.json", {"n": 2, "text": "한국어"})
    assert seen == [({"n": 2, "text": "한국어"}, {"n": 1})]
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_a_full_disk_costs_the_lines_and_not_the_run(tmp_path, caplog):
    run = RunFolder(tmp_path)
    run.set_status("running", 1, 9)
    fill_disk_under(tmp_path / "metrics.jsonl")
    fill_disk_under(tmp_path / "status.json.partial")
    with caplog.at_level(logging.ERROR):
        run.append("metrics.jsonl", [{"step": 1}])
        run.set_status("running", 2, 9)
    assert [record.message.count("No space left on device") for record in caplog.records] == [1, 1]
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 1


def test_too_little_space_is_said_before_training(tmp_path, caplog, monkeypatch):
    run, usage = RunFolder(tmp_path), shutil.disk_usage(tmp_path)
    with caplog.at_level(logging.WARNING):
        run.check_space(num_parameters=1000, checkpoints=2)
        assert not caplog.records
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
        run.check_space(num_parameters=2**28, checkpoints=2)  # 3 GiB a checkpoint, and one more while it is written
    assert "checkpoints may need 9.0 GiB" in caplog.text
    assert "1.0 GiB free; lower save_total_limit" in caplog.text


# --- config.yaml ------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    seed: int = 42
    beta: float = 0.0
    scheduler: SchedulerType | str = "linear"
    rewards: dict[str, float] = field(default_factory=lambda: {"accuracy": 1.0})
    languages: list[str] = field(default_factory=lambda: ["en", "ko"])
    penalty: float | None = 0.5
    debug: str = ""
    state: object = None
    derived: int = field(init=False, default=0)

    def __post_init__(self):
        self.derived, self.debug, self.state = 3, "filled in", object()


def test_only_what_differs_from_its_default_is_written():
    assert changed_settings(Settings()) == {}
    changed = Settings(seed=1, scheduler=SchedulerType.COSINE, rewards={"format": 0.5}, languages=["ko"], penalty=None)
    assert changed_settings(changed) == {
        "seed": 1, "scheduler": "cosine", "rewards": {"format": 0.5}, "languages": ["ko"], "penalty": None,
    }  # fmt: skip


def test_the_config_says_where_a_run_came_from(tmp_path):
    RunFolder(tmp_path).write_config(Settings(seed=7, scheduler=SchedulerType.COSINE))
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    provenance = written.pop("provenance")
    assert written == {"seed": 7, "scheduler": "cosine"}
    assert provenance["seed"] == 7
    assert {"torch", "transformers", "trl", "accelerate", "datasets", "python"} == set(provenance["versions"])
    assert {"commit", "command", "started", "device", "host_threads"} <= set(provenance)


def test_a_run_outside_a_checkout_has_no_commit(monkeypatch):
    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "check_output", no_git)
    assert run_folder.provenance(0)["commit"] == "unknown"


def test_a_changed_checkout_is_marked(monkeypatch):
    answers = {"rev-parse": "0123456789ab\n", "status": " M data/problems.py\n"}
    monkeypatch.setattr(subprocess, "check_output", lambda command, **kwargs: answers[command[1]])
    assert run_folder.provenance(0)["commit"] == "0123456789ab-dirty"
    answers["status"] = "\n"
    assert run_folder.provenance(0)["commit"] == "0123456789ab"


# --- the recorder -----------------------------------------------------------------------------------------------------


def state(step: int, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=9, is_world_process_zero=main)


def group(text: str, live: bool = True) -> SimpleNamespace:
    completion = SimpleNamespace(token_ids=[5, 6, 7], truncated=False)
    row = {"id": "a-1", "task": "arithmetic", "problem": "1 + 1?", "prompt": "User: 1 + 1?", "answer": "2", "extra": 1}
    return SimpleNamespace(
        row=row, texts=[text, "other"], completions=[completion] * 2, totals=[1.5, 0.0], live=[live, True],
        rewards={"accuracy": [1.0, 0.0], "format": [0.5, None]}, extra={"verdict": ["correct", "wrong"]},
    )  # fmt: skip


def test_the_recorder_writes_a_line_a_step(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    recorder.on_train_begin(None, state(0), None)
    recorder.on_log(None, state(1), None, logs={"loss": 0.5})
    recorder.on_log(None, state(2), None, logs={"loss": 0.25})
    recorder.on_log(None, state(2), None, logs={"train_runtime": 1.0})
    written = lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in written] == [(1, 0.5), (2, 0.25)]
    assert 0 <= written[0]["elapsed"] <= written[1]["elapsed"] < 5
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "running", "step": 2, "max_steps": 9, "error": None,
    }  # fmt: skip


def test_a_resumed_run_goes_on_counting_its_seconds(tmp_path):
    run = RunFolder(tmp_path)
    run.append("metrics.jsonl", [{"step": 3, "elapsed": 100.0}])
    recorder = RunRecorder(run)
    recorder.on_train_begin(None, state(3), None)
    recorder.on_log(None, state(4), None, logs={"loss": 0.5})
    assert 100.0 <= lines(tmp_path / "metrics.jsonl")[1]["elapsed"] < 105.0


def test_the_recorder_keeps_completions_with_what_they_were_given_for(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    recorder.on_rollout(None, state(4), None, groups=[group(ODD), group("masked", live=False), group("third")])
    first, second = lines(tmp_path / "samples.jsonl")
    assert first == sample_row("train", 5, group("").row, ODD) | {
        "reward": 1.5, "rewards": {"accuracy": 1.0, "format": 0.5}, "logged": {"verdict": "correct"},
        "length": 3, "truncated": False,
    }  # fmt: skip
    assert "extra" not in first
    assert second["reward"] is None


def test_only_the_main_process_writes(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    recorder.on_train_begin(None, state(0, main=False), None)
    recorder.on_log(None, state(1, main=False), None, logs={"loss": 0.5})
    recorder.on_rollout(None, state(0, main=False), None, groups=[group("text")])
    assert list(tmp_path.iterdir()) == []
