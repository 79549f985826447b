"""Two real processes give the steps that one process gives: the same losses, gradient norms and weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_run import run

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("distributed_run.py")
COMMON = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "num_iterations": 2}
"""Plain SGD: Adam makes a step of full size from a gradient that is only rounding. Two updates a rollout of G = 4."""
BUFFERS = {"ddp_broadcast_buffers": True}
"""Then every first forward pass of a step is a meeting too, as it is in FSDP."""
RUNS = {
    "even": {"per_device_train_batch_size": 8, "max_steps": 3, "beta": 0.1, "max_tokens_per_pack": 32},
    "uneven": {"per_device_train_batch_size": 6, "max_steps": 6, "equal": True, "max_tokens_per_pack": 40},
    "refilled": {"per_device_train_batch_size": 8, "max_steps": 4, "equal": True, "refill_prompts": 3},
    "ahead": {"per_device_train_batch_size": 8, "max_steps": 4, "rollouts_ahead": True, "steps_per_generation": 2},
    "alone": {"per_device_train_batch_size": 2, "max_steps": 4, "beta": 0.1, "max_tokens_per_pack": 20, **BUFFERS},
}
SAVED_AT = 3


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Every run on two processes, {name: what distributed_run.run returns}; "resumed" goes on with "alone"."""
    folder = tmp_path_factory.mktemp("two")
    runs = {name: COMMON | settings | {"folder": str(folder / name)} for name, settings in RUNS.items()}
    checkpoint = str(folder / "alone" / f"checkpoint-{SAVED_AT}")
    runs["resumed"] = runs["alone"] | {"folder": str(folder / "resumed"), "resume": checkpoint}
    runs["alone"] |= {"save_strategy": "steps", "save_steps": SAVED_AT}
    (folder / "runs.json").write_text(json.dumps(runs))
    # Not `accelerate launch --cpu --num_processes 2`: that starts one process without a word.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, SCRIPT, folder / "runs.json", folder / "results.json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((folder / "results.json").read_text())
    assert {result["world_size"] for result in results.values()} == {2}
    return results


def on_one(name, folder):
    """The same run, with the whole batch on the one process of this test."""
    batch = 2 * RUNS[name]["per_device_train_batch_size"]
    result = run(**COMMON | RUNS[name] | {"folder": folder, "per_device_train_batch_size": batch})
    assert result["world_size"] == 1
    return result


def assert_same(two, one):
    assert len(two["metrics"]) == len(one["metrics"]) == len(one["weights"])
    for mine, other in zip(two["metrics"], one["metrics"]):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert mine[name] == pytest.approx(value, rel=1e-5, abs=1e-6), f"{name} of step {other['step']}"
    for step, (mine, other) in enumerate(zip(two["weights"], one["weights"], strict=True), start=1):
        for parameter, expected in zip(mine, other, strict=True):
            torch.testing.assert_close(
                torch.tensor(parameter), torch.tensor(expected), rtol=1e-5, atol=1e-5, msg=f"weights of step {step}"
            )
    assert two["evaluation"] == pytest.approx(one["evaluation"], rel=1e-6)


def test_two_processes_give_the_step_of_one(two, tmp_path):
    """Four prompts x four completions, in several packs a rank; and the evaluation afterwards, of three problems."""
    one = on_one("even", tmp_path)
    assert min(line["grad_norm"] for line in one["metrics"]) > 0.1
    first, second = two["even"]["packs"]
    assert min(first + second) > 1
    assert first != second, "so the gradients have to meet on the last pack, whichever that is"
    assert_same(two["even"], one)


def test_ranks_with_unequal_work(two, tmp_path):
    """Three prompts on two ranks; equal rewards leave one of them nothing to learn from in some steps."""
    steps = list(zip(*two["uneven"]["packs"]))
    assert any(min(step) == 0 < max(step) for step in steps), steps
    assert_same(two["uneven"], on_one("uneven", tmp_path))


@pytest.mark.parametrize("name", ["refilled", "ahead"])
def test_what_is_sampled_does_not_depend_on_the_ranks(two, tmp_path, name):
    """Prompts that take the place of others, mini-batches of a rollout, and what was sampled a rollout ahead."""
    one = on_one(name, tmp_path)
    assert_same(two[name], one)
    if name == "refilled":
        assert {line["refill/prompts"] for line in one["metrics"][::2]} == {3}


def test_a_rank_without_a_prompt(two, tmp_path):
    """One prompt on two ranks. The second still meets the first in every forward and backward pass."""
    assert [max(packs) for packs in two["alone"]["packs"]][1] == 0
    assert_same(two["alone"], on_one("alone", tmp_path))


def test_two_processes_resume_in_the_middle_of_a_rollout(two):
    resumed, straight = two["resumed"], two["alone"]
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["weights"] == straight["weights"][SAVED_AT:], "to the last bit"
