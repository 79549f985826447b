"""GRPOConfig against TRL's, field by field; then what ours adds: folding, rounding, and errors that help."""

import dataclasses
import logging
from pathlib import Path

import pytest
import yaml
from trl import GRPOConfig as TRLConfig

from grpo.config import GRPOConfig, RolloutPlan

DIFFERENT_DEFAULTS = {
    "gradient_checkpointing": (None, True),
    "ddp_timeout": (86_400, 1800),
    "use_bias_correction_kl": (False, True),
    "vllm_importance_sampling_correction": (None, True),
}
"""Field -> (our default, TRL's): every one; docs/trl.md says why."""

OUR_OWN = {
    "max_tokens_per_pack",
    "rollouts_ahead",
    "refill_prompts",
    "max_sampling_rows",
    "skip_equal_groups",
    "eval_temperature",
    "eval_top_p",
    "share_prompts",
    "compile_layers",
    "on_reward_error",
    "advantage_baseline",
    "keep_sampling_mask",
}
"""Fields that TRL does not have."""


def defaults(config):
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config)
    }


def config(tmp_path, **settings):
    return GRPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **settings)


def test_defaults_are_trl_s_save_for_the_listed_ones():
    ours, theirs = defaults(GRPOConfig), defaults(TRLConfig)
    assert len(ours.keys() & theirs.keys()) > 100
    different = {name: (ours[name], theirs[name]) for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert different == DIFFERENT_DEFAULTS
    assert ours.keys() - theirs.keys() == OUR_OWN


def test_made_configs_are_equal_too(tmp_path):
    """What __post_init__ makes of them. bf16: TRL's None means True everywhere, ours where a GPU has it."""
    ours, theirs = config(tmp_path), TRLConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=False)
    shared = [name for name in defaults(GRPOConfig).keys() & defaults(TRLConfig).keys() if name != "logging_dir"]
    different = {name for name in shared if getattr(ours, name) != getattr(theirs, name)}
    renamed = {"activation_checkpointing"}  # what later releases call gradient_checkpointing
    planned = {"generation_batch_size", "steps_per_generation"}  # TRL writes out what follows from the batch settings
    assert different - renamed == DIFFERENT_DEFAULTS.keys() | planned | {"ddp_broadcast_buffers"}
    assert ours.ddp_broadcast_buffers is False
    assert ours.bf16 is False


def test_the_docs_name_every_difference():
    text = (Path(__file__).parents[2] / "docs" / "trl.md").read_text(encoding="utf-8")
    assert [name for name in DIFFERENT_DEFAULTS.keys() | OUR_OWN if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 1}, r"num_generations must be 2 or more, got 1: .* DeepSeek-R1 uses 16"),
        ({"scale_rewards": "rows"}, r"scale_rewards must be 'group', 'batch' or 'none', got 'rows'"),
        ({"advantage_baseline": "mean"}, "advantage_baseline must be 'group' or 'leave_one_out', got 'mean'"),
        ({"loss_type": "ppo"}, r"loss_type must be one of bnpo, cispo, dapo, dr_grpo, grpo, sapo; got 'ppo'"),
        ({"importance_sampling_level": "word"}, "'token' or 'sequence', got 'word'"),
        ({"num_iterations": 0}, "num_iterations must be 1 or more, got 0"),
        ({"max_tokens_per_pack": 0}, "max_tokens_per_pack must be 1 or more, got 0"),
        ({"max_sampling_rows": 0}, "max_sampling_rows must be 1 or more, got 0"),
        ({"generation_batch_size": 16, "steps_per_generation": 2}, "not both"),
        ({"sync_ref_model": True}, r"with beta 0 there is none; set beta \(R1: 0.001\)"),
        ({"ref_model_mixup_alpha": 0.0, "beta": 0.1}, r"ref_model_mixup_alpha must lie in \(0, 1\], got 0.0"),
        ({"temperature": 0.0}, "no group can teach"),
        ({"keep_sampling_mask": True, "top_p": 0.9}, "keep_sampling_mask needs top_k, which bounds what is stored"),
        ({"eval_top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"epsilon": 0.0}, "epsilon must be a positive number, got 0.0"),
        ({"delta": 1.1}, "delta must exceed the upper clip"),
        ({"beta": -0.1}, "beta must be 0 or a positive number, got -0.1"),
        ({"max_completion_length": 0}, "1 token or more, got 0"),
        (
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
            r"steps_per_generation \(2\) must be gradient_accumulation_steps \(4\) or a multiple",
        ),
    ],
)
def test_settings_that_cannot_train_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


@pytest.mark.parametrize(("given", "meant"), [(True, "group"), (False, "none"), ("batch", "batch")])
def test_scale_rewards_takes_trl_s_booleans(tmp_path, given, meant):
    assert config(tmp_path, scale_rewards=given).scale_rewards == meant


def test_accumulation_is_folded_into_the_batch(tmp_path):
    folded = config(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=8, steps_per_generation=16)
    assert (folded.per_device_train_batch_size, folded.gradient_accumulation_steps) == (32, 1)
    assert folded.steps_per_generation == 2, "in updates, as one micro-batch is one update now"


def test_folding_happens_once(tmp_path):
    """A config that is copied, or written to a run's folder and read again, means the same."""
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8, "steps_per_generation": 16}
    once = config(tmp_path, **settings, scale_rewards=False)
    copied = dataclasses.replace(once, learning_rate=2e-6)
    names = {field.name for field in dataclasses.fields(GRPOConfig) if field.init}
    saved = {name: value for name, value in yaml.safe_load(yaml.safe_dump(once.to_dict())).items() if name in names}
    read = GRPOConfig(**saved)
    for again in (copied, read):
        different = {name for name in names if getattr(again, name) != getattr(once, name)}
        assert different - {"learning_rate", "hub_token"} == set()  # to_dict hides the token
        assert again.plan_rollouts(2) == once.plan_rollouts(2)
    assert copied.learning_rate == 2e-6


def trl_completions(tmp_path, **settings):
    """Completions of a rollout and updates that it serves, by TRL's own config, on one rank."""
    theirs = TRLConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=False, **settings)
    return theirs.generation_batch_size, theirs.steps_per_generation // theirs.gradient_accumulation_steps


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_generations": 16, "per_device_train_batch_size": 64},
        {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 4, "steps_per_generation": 8},
        {"per_device_train_batch_size": 16, "generation_batch_size": 64},
        {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "generation_batch_size": 128},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "num_iterations": 3},
    ],
)
def test_a_rollout_is_as_large_as_trl_s(tmp_path, settings, caplog):
    completions, updates = trl_completions(tmp_path, **settings)
    ours = config(tmp_path, **settings)
    plan = ours.plan_rollouts(num_ranks=1)
    assert plan.num_prompts * ours.num_generations == completions
    assert plan.num_minibatches == updates
    assert plan.num_updates == updates * ours.num_iterations
    assert not caplog.records


def test_r1_s_rollout(tmp_path):
    """DeepSeek-R1: 8,192 outputs a rollout, 16 mini-batches, 16 outputs a question, so 32 questions an update."""
    r1 = config(tmp_path, num_generations=16, per_device_train_batch_size=8, generation_batch_size=8192)
    expected = RolloutPlan(num_prompts=512, num_minibatches=16, num_iterations=1)
    assert r1.plan_rollouts(num_ranks=64) == expected
    r1 = config(
        tmp_path,
        num_generations=16,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        steps_per_generation=64,
    )
    assert r1.plan_rollouts(num_ranks=64) == expected, "the same in TRL's other words"


@pytest.mark.parametrize(
    ("settings", "ranks", "prompts", "minibatches"),
    [
        ({"per_device_train_batch_size": 20}, 1, 2, 1),  # 20 completions are 2.5 groups of 8
        ({"per_device_train_batch_size": 4}, 1, 1, 1),  # less than a group
        ({"per_device_train_batch_size": 4, "generation_batch_size": 8}, 1, 1, 1),  # no update without a prompt
        ({"per_device_train_batch_size": 16, "generation_batch_size": 40}, 1, 5, 2),
        ({"per_device_train_batch_size": 8}, 3, 3, 1),
    ],
)
def test_a_remainder_is_rounded_with_a_note(tmp_path, settings, ranks, prompts, minibatches, caplog):
    with caplog.at_level(logging.WARNING, logger="grpo.config"):
        plan = config(tmp_path, **settings).plan_rollouts(ranks)
    assert (plan.num_prompts, plan.num_minibatches) == (prompts, minibatches)
    exact = ranks == 3
    assert bool(caplog.records) is not exact
    if not exact:
        assert f"rounded to {prompts} prompts and {minibatches} update(s)" in caplog.text


def test_sampling_and_loss_settings_are_handed_on(tmp_path):
    made = config(
        tmp_path, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, max_completion_length=33, epsilon_high=0.28,
        beta=0.02, delta=4.0, loss_type="dr_grpo", eval_temperature=0.5, importance_sampling_level="sequence",
    )  # fmt: skip
    sampling, evaluation, loss = made.sampling_config, made.eval_sampling_config, made.loss_config
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.7, 0.9, 5, 0.1)
    assert sampling.max_new_tokens == evaluation.max_new_tokens == loss.max_completion_length == 33
    assert (evaluation.temperature, evaluation.top_p, evaluation.top_k) == (0.5, 0.95, 0), "not the training's top-k"
    for field in dataclasses.fields(loss):
        assert getattr(loss, field.name) == getattr(made, field.name), field.name
