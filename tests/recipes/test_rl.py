"""The RL recipe from its YAML to its report, and what is left of a run when something breaks it off.

A random model of two layers, so nothing is learned here; the reward is a number that the sampled tokens decide.
"""

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo.config import GRPOConfig
from recipes import rl
from recipes.parser import parse, reported
from recipes.problem_sets import ProblemConfig
from recipes.rl import RLConfig
from rewards import RewardError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/micro/r1_zero.yaml"
SMALL = {
    "train_size": 24, "validation_size": 0, "test_size": 4, "k": 2, "num_generations": 2, "cpu_threads": 1,
    "per_device_train_batch_size": 4, "max_completion_length": 8, "max_steps": 3, "save_steps": 2,
    "eval_strategy": "no", "rewards": '{"test_rl:spread": 1.0}',
}  # fmt: skip
TIMES = ("elapsed", "time/", "step_time", "tokens_per_second")


def spread(prompts, completions, completion_ids, **columns):
    """A reward that differs between completions, and that the same tokens always get."""
    return [sum(ids) % 7 / 7 for ids in completion_ids]


class OnCall:
    """A reward that does something at its n-th call, which is the n-th step; then it goes on as `spread`."""

    __name__ = "spread"

    def __init__(self):
        self.calls, self.at, self.action = 0, 0, lambda: None

    def __call__(self, prompts, completions, completion_ids, **columns):
        self.calls += 1
        if self.calls == self.at:
            self.action()
        return spread(prompts, completions, completion_ids)


trapped = OnCall()


@pytest.fixture
def trap():
    """Sets what `trapped` does, and at which call from now on."""

    def at(call: int, action) -> None:
        trapped.calls, trapped.at, trapped.action = 0, call, action

    yield at
    at(0, lambda: None)


@pytest.fixture
def run(tiny_model, tmp_path):
    """Runs the recipe in this process and gives the folder `name` under tmp_path."""

    def go(name: str = "run", *flags: str, **changed) -> Path:
        rl.main(
            *parse(RLConfig, ProblemConfig, GRPOConfig, args=arguments(tiny_model, tmp_path / name, *flags, **changed))
        )
        return tmp_path / name

    return go


def arguments(model: str, output: Path, *flags: str, **changed) -> list[str]:
    settings = {"config": RECIPE, "model_name_or_path": model, "output_dir": output} | SMALL | changed
    return [*flags, *(str(part) for name, value in settings.items() for part in (f"--{name}", value))]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def untimed(path: Path) -> list[dict]:
    """A run's metrics without what a clock measured."""
    return [
        {key: value for key, value in line.items() if not key.startswith(TIMES)}
        for line in lines(path / "metrics.jsonl")
    ]


def status(path: Path) -> dict:
    return json.loads((path / "status.json").read_text())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def checkpoints(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.glob("checkpoint-*"))


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """A finished run of three steps."""
    path = tmp_path_factory.mktemp("runs") / "run"
    rl.main(*parse(RLConfig, ProblemConfig, GRPOConfig, args=arguments(tiny_model, path)))
    return path


def test_a_run_is_a_folder_with_everything_in_it(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "metrics.jsonl", "samples.jsonl", "eval.json", "status.json", "report.html", "model",
        "base_samples.json", "checkpoint-2", "checkpoint-3",
    }  # fmt: skip
    assert status(finished) == {"state": "finished", "step": 3, "max_steps": 3, "error": None}


def test_every_step_has_a_line_of_metrics(finished):
    metrics = lines(finished / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    documented = {
        "loss", "grad_norm", "learning_rate", "reward", "reward_std", "rewards/spread/mean", "rewards/spread/std",
        "frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "clip_ratio/region_mean",
        "entropy", "num_tokens", "tokens_per_second", "step_time", "time/sample", "time/score", "time/update",
        "elapsed", "epoch",
    }  # fmt: skip
    assert all(documented <= set(line) for line in metrics)
    assert metrics[0]["rewards/spread/mean"] == metrics[0]["reward"]
    assert [line["elapsed"] for line in metrics] == sorted(line["elapsed"] for line in metrics)
    assert any(line["grad_norm"] > 0 for line in metrics)


def test_samples_show_training_and_the_same_problems_before_and_after(finished):
    samples = lines(finished / "samples.jsonl")
    by_kind = {kind: [row for row in samples if row["kind"] == kind] for kind in ("before", "train", "after")}
    assert sum(map(len, by_kind.values())) == len(samples)
    assert [row["id"] for row in by_kind["before"]] == [row["id"] for row in by_kind["after"]]
    assert len(by_kind["before"]) == 4
    assert [row["step"] for row in by_kind["train"]] == [1, 1, 2, 2, 3, 3]
    assert all(row["completion"] and row["prompt"].endswith("Assistant:") for row in samples)


def test_both_sides_are_measured_on_the_same_problems(finished):
    report = json.loads((finished / "eval.json").read_text(encoding="utf-8"))
    assert {side: summary["num_problems"] for side, summary in report["overall"].items()} == {"base": 4, "trained": 4}
    assert report["gain"]["pass@1"] == report["overall"]["trained"]["pass@1"] - report["overall"]["base"]["pass@1"]
    assert (report["protocol"]["k"], report["protocol"]["temperature"], report["protocol"]["top_p"]) == (2, 0.6, 0.95)


def test_the_model_is_a_plain_one_and_it_was_trained(finished, tiny_model):
    before, after = weights(tiny_model), weights(finished / "model")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert len(AutoTokenizer.from_pretrained(finished / "model")) == 2048


def test_the_report_is_one_page_that_loads_nothing(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert not any(mark in page for mark in ('src="http', 'href="http', "@import"))


def test_the_config_repeats_the_run(finished, tmp_path):
    """config.yaml is a recipe, and what it gives is what the run gave."""
    config = yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8"))
    assert config["rewards"] == {"test_rl:spread": 1.0}
    args = ["--config", str(finished / "config.yaml"), "--output_dir", str(tmp_path / "again")]
    rl.main(*parse(RLConfig, ProblemConfig, GRPOConfig, args=args))
    assert untimed(tmp_path / "again") == untimed(finished)
    first, second = weights(finished / "model"), weights(tmp_path / "again/model")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_run_gets_another_folder(run):
    first = run(max_steps=1, test_size=0)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    run(max_steps=1, test_size=0, seed=5)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert status(first.parent / "run-2")["state"] == "finished"
    assert untimed(first) != untimed(first.parent / "run-2")


def test_a_run_without_held_out_problems(run, capsys):
    path = run(max_steps=1, test_size=0)
    assert not (path / "eval.json").exists()
    assert {row["kind"] for row in lines(path / "samples.jsonl")} == {"train"}
    assert "no held-out problems were measured" in capsys.readouterr().out


def test_validation_is_logged_while_training(run):
    path = run(max_steps=2, test_size=0, validation_size=4, eval_strategy="steps", eval_steps=1)
    measured = [line for line in lines(path / "metrics.jsonl") if "eval_rewards/spread/mean" in line]
    assert [line["step"] for line in measured] == [1, 2]
    assert all({"eval_greedy/spread", "eval_completions/mean_length"} <= set(line) for line in measured)


def test_the_overlong_penalty_of_dapo_joins_the_rewards(run):
    """Random completions run into the limit of 8 tokens; in the last 4 before it, the penalty grows to 1 (eq. 13)."""
    path = run(max_steps=1, test_size=0, soft_overlong_tokens=4)
    (line,) = lines(path / "metrics.jsonl")
    (name,) = [key for key in line if "overlong" in key and key.endswith("/mean")]
    assert line["completions/min_length"] == line["completions/max_length"] == 8
    assert line[name] == -1.0
    assert line["reward"] == pytest.approx(line["rewards/spread/mean"] - 1.0)


def test_problems_of_ones_own(run, tmp_path):
    rows = [{"ask": f"{n} + 1", "truth": str(n + 1)} for n in range(12)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = run(
        max_steps=1, dataset=tmp_path / "mine.jsonl", columns='{"problem": "ask", "answer": "truth"}',
        eval_dataset=tmp_path / "mine.jsonl", test_size=3, rewards='{"accuracy": 1.0, "format": 0.5}',
    )  # fmt: skip
    assert json.loads((path / "eval.json").read_text())["overall"]["trained"]["num_problems"] == 3
    assert {row["problem"] for row in lines(path / "samples.jsonl")} <= {row["ask"] for row in rows}


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(run, trap):
    """Ctrl-C in step 2 of 5, then --resume: the same metrics and the same weights as in one go."""
    whole = run("whole", max_steps=5, rewards='{"test_rl:trapped": 1.0}')
    trap(2, interrupt)
    path = run("broken", max_steps=5, rewards='{"test_rl:trapped": 1.0}')
    assert status(path) == {"state": "interrupted", "step": 2, "max_steps": 5, "error": None}
    assert checkpoints(path) == ["checkpoint-2"]
    assert (path / "report.html").exists()
    assert (path / "model").is_dir()
    assert run("broken", "--resume", max_steps=5, rewards='{"test_rl:trapped": 1.0}') == path
    assert status(path)["state"] == "finished"
    assert untimed(path) == untimed(whole)
    assert lines(path / "samples.jsonl") == lines(whole / "samples.jsonl")
    assert (path / "base_samples.json").read_text() == (whole / "base_samples.json").read_text()
    first, second = weights(whole / "model"), weights(path / "model")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (path.parent / "broken-2").exists()


def test_a_second_ctrl_c_stops_at_once(run, trap, tmp_path):
    def twice():
        interrupt()
        interrupt()

    trap(2, twice)
    with pytest.raises(KeyboardInterrupt):
        run(max_steps=5, rewards='{"test_rl:trapped": 1.0}', save_steps=100)
    path = tmp_path / "run"
    assert status(path) == {"state": "interrupted", "step": 1, "max_steps": 5, "error": "KeyboardInterrupt"}
    assert checkpoints(path) == ["checkpoint-1"]
    assert (path / "report.html").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("phase", ["before", "after"])
def test_ctrl_c_while_measuring(run, tmp_path, monkeypatch, phase):
    """The measurement is made up for by --resume; one that is there is not made again."""
    measured, calls = rl.evaluate_policy, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == (1 if phase == "before" else 2):
            raise KeyboardInterrupt
        return measured(*args, **kwargs)

    monkeypatch.setattr(rl, "evaluate_policy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    path = tmp_path / "run"
    assert status(path)["state"] == "interrupted"
    assert (path / "report.html").exists()
    run("run", "--resume")
    assert status(path) == {"state": "finished", "step": 3, "max_steps": 3, "error": None}
    assert len(calls) == 3
    assert [line["step"] for line in lines(path / "metrics.jsonl")] == [1, 2, 3]
    assert "gain" in json.loads((path / "eval.json").read_text())


def test_resuming_a_finished_run_trains_no_further(run):
    path = run()
    before, model = untimed(path), weights(path / "model")
    samples = (path / "samples.jsonl").read_text()
    run("run", "--resume")
    assert untimed(path) == before
    assert (path / "samples.jsonl").read_text() == samples
    assert all(torch.equal(model[name], value) for name, value in weights(path / "model").items())
    assert status(path) == {"state": "finished", "step": 3, "max_steps": 3, "error": None}


def test_a_run_killed_before_its_first_checkpoint_begins_anew(run, trap):
    """Its lines are written again, not twice."""
    path = run(save_steps=2)
    for folder in path.glob("checkpoint-*"):
        folder.rename(path / f"lost-{folder.name}")
    before = untimed(path)
    run("run", "--resume")
    assert untimed(path) == before


def test_a_stage_killed_before_its_first_checkpoint_begins_anew(run, tmp_path):
    """Without --resume, which has nothing to go on from: a pipeline's stage starts over in its folder."""
    path = run()
    (tmp_path / "killed").mkdir()
    for name in ("metrics.jsonl", "samples.jsonl"):
        whole = (path / name).read_text(encoding="utf-8")
        (tmp_path / "killed" / name).write_text(whole[: len(whole) // 2], encoding="utf-8")  # its last line is torn
    assert untimed(run("killed")) == untimed(path)


@pytest.mark.parametrize("left", [None, "", '{"global_step": 3, "log_'])
def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(run, left):
    path = run()
    (path / "checkpoint-3/trainer_state.json").unlink()
    if left is not None:
        (path / "checkpoint-3/trainer_state.json").write_text(left)
    before = untimed(path)
    run("run", "--resume")
    assert untimed(path) == before


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failing_reward_costs_one_step(run, trap, tmp_path, caplog):
    def fail():
        raise ZeroDivisionError("no completion has a verb")

    trap(2, fail)
    with pytest.raises(RewardError, match="reward 'spread' raised ZeroDivisionError: no completion has a verb"):
        run(rewards='{"test_rl:trapped": 1.0}', save_steps=100)
    path = tmp_path / "run"
    failed = status(path)
    assert (failed["state"], failed["step"]) == ("failed", 1)
    assert failed["error"].startswith("RewardError: reward 'spread' raised ZeroDivisionError: no completion has a verb")
    assert checkpoints(path) == ["checkpoint-1"]
    assert "the run broke off after step 1" in caplog.text
    assert "--resume" in caplog.text
    assert "no completion has a verb" in (path / "report.html").read_text(encoding="utf-8")
    run("run", "--resume", rewards='{"test_rl:trapped": 1.0}')
    assert status(path)["state"] == "finished"
    assert [line["step"] for line in lines(path / "metrics.jsonl")] == [1, 2, 3]


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_a_checkpoint(run, monkeypatch, caplog):
    save, calls = transformers.Trainer._save_checkpoint, []

    def full_at_first(self, *args, **kwargs):
        calls.append(1)
        return full_disk() if len(calls) == 1 else save(self, *args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", full_at_first)
    path = run(save_steps=1)
    assert status(path)["state"] == "finished"
    assert checkpoints(path) == ["checkpoint-2", "checkpoint-3"]
    assert "checkpoint-1 was not saved: the disk is full" in caplog.text


def test_a_full_disk_at_the_end_costs_the_model_and_not_the_numbers(run, monkeypatch, caplog, capsys):
    monkeypatch.setattr(transformers.Trainer, "save_model", full_disk)
    path = run(max_steps=1, save_strategy="no")
    assert "the trained model was not saved: the disk is full" in caplog.text
    assert "overall trained" in capsys.readouterr().out
    assert "gain" in json.loads((path / "eval.json").read_text())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_lines_and_not_the_run(run, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    for name in ("samples.jsonl", "status.json.partial", "eval.json.partial"):  # written, and never read by the run
        (tmp_path / "run" / name).symlink_to("/dev/full")
    with caplog.at_level(logging.ERROR):
        path = run()
    assert "No space left on device" in caplog.text
    assert any(not torch.equal(a, b) for a, b in zip(*(weights(path / n).values() for n in ("model", "checkpoint-2"))))


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_name_or_path": "models/missing/here"}, "model path 'models/missing/here' does not exist"),
        ({"rewards": '{"accurracy": 1.0}'}, "accuracy"),
        ({"template": "r1-zero"}, "unknown template 'r1-zero'"),
        ({"tasks": "geometry"}, "unknown task 'geometry'"),
        ({"max_completion_length": 500}, "exceeds the model's context of 512 tokens"),
    ],
)
def test_mistakes_are_found_before_training(run, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        run(**changed)
    assert not (tmp_path / "run/config.yaml").exists()  # so the mended call gets this folder


def test_resuming_needs_a_run_and_its_settings(run):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        run("nothing", "--resume")
    run(max_steps=2)
    with pytest.raises(ValueError, match="num_rows 24 and this run has 12"):
        run("run", "--resume", max_steps=3, train_size=12)


# --- as a command -----------------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_terminal_and_then_resume(tiny_model, tmp_path, run):
    """The process ends in order, with status 0, a checkpoint and a report; --resume finishes the run."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    path = tmp_path / "run"
    command = [sys.executable, "-m", "recipes", "rl", *arguments(tiny_model, path, max_steps=400, save_steps=1000)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (path / "metrics.jsonl").exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, output
    assert "stopping after this step, with a checkpoint and a report" in output
    assert "Traceback" not in output
    step = status(path)["step"]
    assert status(path) == {"state": "interrupted", "step": step, "max_steps": 400, "error": None}
    assert 0 < step < 400
    assert checkpoints(path) == [f"checkpoint-{step}"]
    assert (path / "report.html").exists()
    run("run", "--resume", max_steps=step + 2, save_steps=1000)
    assert status(path) == {"state": "finished", "step": step + 2, "max_steps": step + 2, "error": None}
    assert [line["step"] for line in lines(path / "metrics.jsonl")] == list(range(1, step + 3))


def test_a_run_that_was_moved_goes_on_where_it_is(run, tmp_path):
    run("run", seed=5)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model_name_or_path: any\noutput_dir: {moved}\n")
    for config in (["--config", str(recipe)], [f"--config={recipe}"]):
        _, _, args = rl.settings(["--resume", *config])
        assert (args.seed, args.output_dir) == (5, str(moved))


def test_weights_are_written_with_their_rewards(tiny_model, tmp_path):
    """A list beside the mapping could only contradict it."""
    args = arguments(tiny_model, tmp_path / "run")
    with pytest.raises(ValueError, match=r"write the weights in `rewards: \{name: weight\}`"):
        rl.main(*parse(RLConfig, ProblemConfig, GRPOConfig, args=[*args, "--reward_weights", "1.0"]))


def test_settings_that_cannot_be_are_refused_at_once(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(k=0)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: k must be 1 or more samples a held-out problem, got 0; R1 uses 4 to 64\n"


def test_a_run_of_no_step_is_refused_at_once(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(max_steps=0)
    assert "error: max_steps is 0, so nothing would be trained" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_mistake_is_one_line_for_the_user(run, capsys):
    with pytest.raises(SystemExit) as stopped, reported():
        run(template="r1-zero")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown template 'r1-zero'")
