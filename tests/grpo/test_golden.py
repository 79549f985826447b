"""Twenty updates over stored completions give the stored losses: whatever changes a number of training shows here.

A change that is meant to move them says why in its commit, and writes the curve anew (and the rollouts, where
tests/golden/rollouts.json was removed before):

    PYTHONPATH=.:tests python tests/grpo/test_golden.py

The rollouts are stored, so no sampler and no machine's rounding decides a token; plain SGD, because Adam turns the sign
of a rounding error into a step of full size.
"""

import json
import re
import tempfile
from pathlib import Path

import pytest
from tiny import PROMPTS, digits, metrics_of, tiny_dataset, tiny_trainer

from grpo.rollouts import Group
from grpo.sampling import Completion

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = (
    "loss", "grad_norm", "kl", "entropy", "ratio/mean", "clip_ratio/low_mean", "clip_ratio/high_mean", "reward",
    "reward_std", "frac_reward_zero_std", "frac_masked", "completions/mean_length", "completions/clipped_ratio",
)  # fmt: skip
SETTINGS = {
    "max_steps": 20, "num_generations": 4, "per_device_train_batch_size": 12, "steps_per_generation": 2,
    "num_iterations": 2, "max_completion_length": 24, "optim": "sgd", "learning_rate": 0.03, "max_grad_norm": 1.0,
    "beta": 0.02, "epsilon": 0.1, "epsilon_high": 0.14, "mask_truncated_completions": True, "temperature": 0.9,
    "lr_scheduler_type": "linear", "sync_ref_model": True, "ref_model_sync_steps": 8, "ref_model_mixup_alpha": 1.0,
}  # fmt: skip
"""Five rollouts of six prompts, each in two mini-batches, twice through: every part of a step has work to do."""


def reward(prompts, completions, **columns):
    """None for a completion that begins with "b", so that some are masked; 0 for every completion of "9="."""
    shares = digits(prompts, completions)
    shares = [0.0 if prompt == "9=" else share for prompt, share in zip(prompts, shares)]
    return [None if re.match("b", text) else share for text, share in zip(completions, shares)]


def stored_sample(trainer, rollouts):
    """Instead of trainer.sample: the completions of the next stored rollout, each [token ids, truncated]."""
    remaining = iter(rollouts)

    def sample(dataset, draws, config):
        stored = next(remaining)
        assert [draw.index for draw in draws] == [group["index"] for group in stored], "the prompts' order changed"
        return [stored_group(trainer, dataset[group["index"]], group["completions"]) for group in stored]

    return sample


def stored_group(trainer, row, completions):
    tokenizer = trainer.processing_class
    completions = [Completion(ids, [0.0] * len(ids), truncated) for ids, truncated in completions]
    texts = [tokenizer.decode(c.token_ids, skip_special_tokens=True) for c in completions]
    return Group(row, tokenizer(row["prompt"])["input_ids"], completions, texts)


def train(folder, rollouts=None, **settings):
    """Twenty updates; the rollouts are sampled, and returned, unless they are given."""
    trainer = tiny_trainer(folder, rewards=reward, dataset=tiny_dataset(PROMPTS), **SETTINGS | settings)
    sampled = []
    if rollouts is not None:
        trainer.sample = stored_sample(trainer, rollouts)
    else:

        def sample(dataset, draws, config):
            groups = type(trainer).sample(trainer, dataset, draws, config)
            sampled.append(
                [
                    {"index": draw.index, "completions": [[c.token_ids, c.truncated] for c in group.completions]}
                    for draw, group in zip(draws, groups)
                ]
            )
            return groups

        trainer.sample = sample
    trainer.train()
    return [{name: line[name] for name in NAMES if name in line} for line in metrics_of(trainer)], sampled


def load(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def assert_same_curve(curve, expected, rel):
    assert len(curve) == len(expected) == 20
    for step, (line, golden) in enumerate(zip(curve, expected), start=1):
        assert line.keys() == golden.keys(), f"step {step}"
        for name, value in golden.items():
            assert line[name] == pytest.approx(value, rel=rel, abs=1e-6), f"{name} of step {step}"


def test_the_stored_curve(tmp_path):
    curve, _ = train(tmp_path, load("rollouts.json"))
    assert_same_curve(curve, load("loss_curve.json"), rel=1e-5)


def test_the_curve_exercises_the_step():
    """Clipping on both sides, a KL, masked and truncated completions, a group of equal rewards."""
    curve = load("loss_curve.json")
    assert (
        max(line["clip_ratio/low_mean"] for line in curve) > 0.01 < max(line["clip_ratio/high_mean"] for line in curve)
    )
    assert max(line["kl"] for line in curve) > 1e-3
    first = [line for line in curve if "reward" in line]
    assert len(first) == 5
    for name in ("frac_masked", "frac_reward_zero_std", "completions/clipped_ratio"):
        assert 0 < sum(line[name] for line in first) < 5, name
    assert sum(abs(line["loss"]) > 0.05 for line in curve) > 15, "losses far from rounding errors"


def test_the_curve_does_not_depend_on_packs(tmp_path):
    """Twenty updates in other packs: rounding alone differs."""
    curve, _ = train(tmp_path, load("rollouts.json"), max_tokens_per_pack=1)
    assert_same_curve(curve, load("loss_curve.json"), rel=1e-4)


def write_json_lines(name, rows):
    """A JSON list with a row a line, so that a change shows where it is."""
    text = ",\n".join(json.dumps(row) for row in rows)
    (GOLDEN / name).write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    stored = load("rollouts.json") if (GOLDEN / "rollouts.json").exists() else None
    with tempfile.TemporaryDirectory() as folder:
        curve, rollouts = train(folder, stored)
    if stored is None:
        write_json_lines("rollouts.json", rollouts)
    write_json_lines("loss_curve.json", curve)
