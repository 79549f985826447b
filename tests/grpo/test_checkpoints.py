"""A run that was cut off and resumed equals one that was not, to the last bit; and what a full disk costs."""

import errno
import json
import logging
import shutil

import pytest
import torch
from tiny import digits, metrics_of, tiny_dataset, tiny_model, tiny_trainer
from transformers import Trainer, TrainerCallback

from grpo.checkpoints import forgiving_disk, is_disk_full, latest_checkpoint
from rewards import RewardError


class StopAt(TrainerCallback):
    """Ends training after a step, with a checkpoint: what a signal does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


RUNS = {
    "plain": {},
    "a learning rate that falls": {"lr_scheduler_type": "cosine", "warmup_steps": 2},
    "between updates of one rollout": {"steps_per_generation": 2, "num_iterations": 2},
    "a reference that is refreshed": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2},
    "a rollout in use and its reference": {"beta": 0.1, "num_iterations": 4},
    "dropout, which draws random numbers": {"model": {"attention_dropout": 0.2}, "num_iterations": 2},
    "a rollout that was sampled ahead": {"rollouts_ahead": True},
    "a rollout ahead of several updates": {"rollouts_ahead": True, "steps_per_generation": 2, "num_iterations": 2},
    "more epochs than one": {"dataset": ["1+2=", "7-3=?", "9="]},
}


def trainer_of(folder, model=None, dataset=None, **settings):
    data = None if dataset is None else tiny_dataset(dataset)
    return tiny_trainer(folder, model=tiny_model(**model or {}), dataset=data, max_steps=6, **settings)


def assert_same_run(resumed, straight):
    assert metrics_of(resumed) == metrics_of(straight)
    for mine, other in zip(resumed.model.parameters(), straight.model.parameters()):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", RUNS)
def test_resume_is_exact(tmp_path, name):
    straight = trainer_of(tmp_path / "straight", **RUNS[name])
    straight.train()
    assert len({line["loss"] for line in metrics_of(straight)}) > 3, "steps differ, so that a wrong one shows"
    cut = trainer_of(tmp_path / "cut", **RUNS[name])
    cut.add_callback(StopAt(3))
    cut.train()
    assert cut.state.global_step == 3
    resumed = trainer_of(tmp_path / "cut", **RUNS[name])
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_same_run(resumed, straight)


def test_metrics_kept_since_the_last_line_are_resumed(tmp_path):
    """A checkpoint between two lines. The loss of a line is Trainer's: the mean since the resume."""
    straight, cut, resumed = (trainer_of(tmp_path / name, logging_steps=3) for name in ("straight", "cut", "cut"))
    straight.train()
    cut.add_callback(StopAt(2))
    cut.train()
    resumed.train(resume_from_checkpoint=True)
    lines = [metrics_of(trainer) for trainer in (straight, resumed)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]] == [3, 6]
    assert lines[0][1] == lines[1][1]
    assert {k: v for k, v in lines[0][0].items() if k != "loss"} == {
        k: v for k, v in lines[1][0].items() if k != "loss"
    }


def test_resume_takes_true_for_the_newest_whole_checkpoint(tmp_path):
    straight, cut, resumed = (trainer_of(tmp_path / name) for name in ("straight", "cut", "cut"))
    straight.train()
    cut.add_callback(StopAt(3))
    cut.train()
    (tmp_path / "cut" / "checkpoint-5").mkdir()  # a kill came while it was written
    resumed.train(resume_from_checkpoint=True)
    assert_same_run(resumed, straight)


def test_resume_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no whole checkpoint to resume from"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("broken_call", [3, 4])
def test_a_run_that_breaks_off_in_a_step_resumes_with_that_step(tmp_path, broken_call):
    """Memory runs out in the first or second update of a rollout; a checkpoint is written then, as the recipe does."""
    straight = trainer_of(tmp_path / "straight", num_iterations=2)
    straight.train()
    broken = trainer_of(tmp_path / "broken", num_iterations=2)
    calls = []

    def failing(*args):
        calls.append(None)
        if len(calls) == broken_call:
            raise RuntimeError("out of memory")
        return type(broken).pack(broken, *args)

    broken.pack = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.train()
    broken._save_checkpoint(broken.model, trial=None)
    resumed = trainer_of(tmp_path / "broken", num_iterations=2)
    resumed.train(resume_from_checkpoint=True)
    assert_same_run(resumed, straight)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": ["1+2=", "9="]}, "made with num_rows 6 and this run has 2"),
        ({"seed": 1}, "made with seed 42 and this run has 1"),
        ({"num_iterations": 3}, "serve 1 updates and this run's 3; resume with the batch settings"),
    ],
)
def test_another_run_s_checkpoint_is_refused(tmp_path, changed, message):
    cut = trainer_of(tmp_path)
    cut.add_callback(StopAt(1))
    cut.train()
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, **changed).train(resume_from_checkpoint=True)


def test_another_number_of_ranks_is_refused(tmp_path):
    cut = trainer_of(tmp_path)
    cut.add_callback(StopAt(1))
    cut.train()
    folder = tmp_path / "checkpoint-1"
    shutil.copy(folder / "rollouts-rank0.json", folder / "rollouts-rank1.json")
    with pytest.raises(ValueError, match=r"written by 2 rank\(s\) and this run has 1; resume with as many processes"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)


def test_the_rollout_state_is_plain_json_and_small(tmp_path):
    """Of a rollout that is used up, nothing is kept."""
    trainer = trainer_of(tmp_path, num_iterations=2, save_strategy="steps", save_steps=1)
    trainer.train()
    sizes = {}
    for step in range(1, 7):
        text = (tmp_path / f"checkpoint-{step}" / "rollouts-rank0.json").read_text()
        sizes[step] = len(json.loads(text)["buffer"]["groups"])
    assert sizes == {1: 2, 2: 0, 3: 2, 4: 0, 5: 2, 6: 0}


# ---------------------------------------------------------------- a full disk


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def torch_s_words(*args, **kwargs):
    raise RuntimeError("[enforce fail at inline_container.cc:778] . PytorchStreamWriter failed writing file data/0")


@pytest.mark.parametrize("fails", [full_disk, torch_s_words])
@pytest.mark.parametrize(
    "where", ["torch.save", "transformers.PreTrainedModel.save_pretrained", "pathlib.Path.write_text"]
)
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch, caplog, where, fails):
    """While the optimizer's state, the weights or the rollout is written."""
    straight = trainer_of(tmp_path / "straight")
    straight.train()
    trainer = trainer_of(tmp_path / "full", save_strategy="steps", save_steps=2)

    class FullAtStep4(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                monkeypatch.setattr(where, fails)

        def on_save(self, args, state, control, **kwargs):
            monkeypatch.undo()

    trainer.add_callback(FullAtStep4())
    with caplog.at_level(logging.ERROR, logger="grpo.checkpoints"):
        trainer.train()
    assert trainer.state.global_step == 6
    assert_same_run(trainer, straight)
    assert sorted(path.name for path in (tmp_path / "full").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]
    (record,) = caplog.records
    assert "checkpoint-4 was not saved: the disk is full" in record.message
    assert latest_checkpoint(tmp_path / "full").name == "checkpoint-6"


def test_other_errors_of_a_checkpoint_end_the_run(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path, save_strategy="steps", save_steps=2)

    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", forbidden)
    with pytest.raises(PermissionError):
        trainer.train()


def wrapped(cause):
    """An error with another behind it, as libraries raise them."""
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("could not save") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (wrapped(OSError(errno.ENOSPC, "…")), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (wrapped(ValueError("NaN")), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert is_disk_full(error) is full


def test_a_checkpoint_without_room_is_removed(tmp_path):
    folder = tmp_path / "checkpoint-7"
    with forgiving_disk(folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half of it")
        full_disk()
    assert not folder.exists()


# ---------------------------------------------------------------- which one


def test_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for name, whole in (
        ("checkpoint-9", True),
        ("checkpoint-20", True),
        ("checkpoint-100", False),
        ("checkpoint-x", True),
    ):
        (tmp_path / name).mkdir()
        if whole:
            (tmp_path / name / "trainer_state.json").write_text("{}")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-20", "by number, and whole"
    assert latest_checkpoint(str(tmp_path)) == tmp_path / "checkpoint-20"


def test_weights_that_are_cut_short_cost_a_checkpoint_and_not_the_run(tmp_path, caplog):
    straight = trainer_of(tmp_path / "straight")
    straight.train()
    trainer_of(tmp_path / "cut", save_strategy="steps", save_steps=2).train()
    for name in ("checkpoint-6", "checkpoint-4"):
        weights = tmp_path / "cut" / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: 1000 if name == "checkpoint-6" else -1])
    resumed = trainer_of(tmp_path / "cut", save_strategy="steps", save_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert_same_run(resumed, straight)
    assert latest_checkpoint(tmp_path / "cut").name == "checkpoint-6"
    said = [record.message for record in caplog.records if "passed over" in record.message]
    assert len(said) == 2
    for message, name in zip(said, ("checkpoint-6", "checkpoint-4")):
        assert f"{name} is not whole and is passed over: model.safetensors cannot be read" in message


def test_a_rollout_ahead_that_breaks_costs_no_checkpoint(tmp_path):
    """Its error comes up at its own step, and a run that goes on from the checkpoint samples its prompts again."""
    calls = []

    def breaks_at_the_second(prompts, completions, **columns):
        calls.append(len(completions))
        if len(calls) == 2:
            raise RuntimeError("once")
        return digits(prompts, completions)

    settings = {"rollouts_ahead": True, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer = tiny_trainer(tmp_path, rewards=breaks_at_the_second, **settings)
    with pytest.raises(RewardError, match="once"):
        trainer.train()
    assert latest_checkpoint(tmp_path).name == "checkpoint-1"
    resumed = tiny_trainer(tmp_path, rewards=breaks_at_the_second, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    assert resumed.stream.drawn == 6


def test_a_run_that_goes_on_without_rollouts_ahead_knows_who_sampled(tmp_path):
    straight = trainer_of(tmp_path / "straight", rollouts_ahead=True)
    straight.train()
    cut = trainer_of(tmp_path / "cut", rollouts_ahead=True)
    cut.add_callback(StopAt(3))
    cut.train()
    resumed = trainer_of(tmp_path / "cut", rollouts_ahead=False)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    fourth = [metrics_of(trainer)[3]["ratio/mean"] for trainer in (straight, resumed)]
    assert fourth[1] == pytest.approx(fourth[0], abs=1e-5)
    assert abs(fourth[1] - 1) > 1e-3
