"""The losses against TRL's own GRPOTrainer._compute_loss, called unbound on a stand-in that holds what it reads."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from grpo.loss import CORRECTION_MODES, Divisors, LossConfig, LossInputs, grpo_loss, mean_statistics

LOSS_TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"]
LEVELS = ["token", "sequence"]
ROWS, LENGTH = 8, 9


class OneProcess:
    """What TRL asks of accelerate, for one process."""

    num_processes = 1
    sync_gradients = True

    def reduce(self, tensor, reduction):
        return tensor

    def gather(self, tensor):
        return tensor


def trl_trainer(cfg, policy, accumulation_steps, steps_per_generation):
    """A stand-in for GRPOTrainer whose model answers with the given log-probs; input_ids hold the row numbers."""

    def logprobs_and_entropies(model, input_ids, *_, **__):
        rows = input_ids[:, 0]
        return policy[rows], entropy_of(policy[rows]), None

    return SimpleNamespace(
        _get_per_token_logps_and_entropies=logprobs_and_entropies,
        _entropy_bonus_enabled=cfg.entropy_coef != 0,
        entropy_coef=cfg.entropy_coef,
        use_adaptive_entropy=False,
        _metrics={"train": defaultdict(list)},
        accelerator=OneProcess(),
        args=SimpleNamespace(
            delta=cfg.delta,
            sapo_temperature_pos=cfg.sapo_temperature_pos,
            sapo_temperature_neg=cfg.sapo_temperature_neg,
            steps_per_generation=steps_per_generation,
            use_bias_correction_kl=cfg.use_bias_correction_kl,
        ),
        aux_loss_enabled=False,
        beta=cfg.beta,
        current_gradient_accumulation_steps=accumulation_steps,
        epsilon_high=cfg.upper_epsilon,
        epsilon_low=cfg.epsilon,
        importance_sampling_level=cfg.importance_sampling_level,
        loss_type=cfg.loss_type,
        max_completion_length=cfg.max_completion_length,
        model=SimpleNamespace(training=True),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        off_policy_mask_threshold=cfg.off_policy_mask_threshold,
        top_entropy_quantile=1.0,
        use_vllm=bool(cfg.vllm_importance_sampling_correction),
        vllm_importance_sampling_correction=bool(cfg.vllm_importance_sampling_correction),
    )


def trl_update(cfg, policy, batch, micro_batches, rollout_tokens, steps_per_generation):
    """One accumulation window of TRL: (loss, gradient, metrics of the last micro-batch)."""
    trainer = trl_trainer(cfg, policy, len(micro_batches), steps_per_generation)
    losses = []
    for rows in micro_batches:
        inputs = {
            "prompt_ids": torch.tensor(rows)[:, None],
            "prompt_mask": torch.ones(len(rows), 1, dtype=torch.long),
            "completion_ids": torch.zeros(len(rows), LENGTH, dtype=torch.long),
            "completion_mask": batch.mask[rows].long(),
            "advantages": batch.advantages[rows],
            "num_items_in_batch": torch.tensor(rollout_tokens),
        }
        optional = {"old_per_token_logps": batch.old_logprobs, "ref_per_token_logps": batch.ref_logprobs}
        if cfg.vllm_importance_sampling_correction:
            optional["importance_sampling_ratio"] = trl_correction(cfg, batch)
            optional["sampling_per_token_logps"] = batch.sampling_logprobs
        inputs |= {name: value[rows] for name, value in optional.items() if value is not None}
        losses.append(GRPOTrainer._compute_loss(trainer, None, inputs))
    total = sum(losses)
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return total.detach(), torch.autograd.grad(total, policy)[0], metrics


def trl_correction(cfg, batch):
    """GRPOTrainer._generate_and_score_completions of TRL 1.16, copied line by line."""
    per_token_logps_diff = (batch.old_logprobs - batch.sampling_logprobs) * batch.mask
    per_token_logps_diff = torch.nan_to_num(per_token_logps_diff, nan=0.0)
    mode = cfg.vllm_importance_sampling_mode
    if mode in ["sequence_mask", "sequence_truncate"]:
        logps_diff = per_token_logps_diff.sum(dim=-1, keepdim=True)
    else:
        logps_diff = per_token_logps_diff
    ratio = torch.exp(logps_diff)
    lowest, highest = cfg.vllm_importance_sampling_clip_min, cfg.vllm_importance_sampling_clip_max
    if mode in ["sequence_truncate", "token_truncate"]:
        return torch.clamp(ratio, min=lowest, max=highest)
    min_val = lowest if lowest is not None else -math.inf
    max_val = highest if highest is not None else math.inf
    return ratio.masked_fill((ratio < min_val) | (ratio > max_val), value=0.0)


def entropy_of(policy):
    """Any smooth function of the log-probs, so that the bonus has a gradient in them."""
    return policy.square() / 3


def our_update(cfg, policy, batch, divisors):
    loss, stats = grpo_loss(policy, batch, divisors, cfg, entropy_of(policy))
    return loss.detach(), torch.autograd.grad(loss, policy)[0], mean_statistics(stats)


def make_batch(dtype, empty_row=True):
    generator = torch.Generator().manual_seed(3)
    old = -3 * torch.rand(ROWS, LENGTH, dtype=dtype, generator=generator)
    lengths = torch.tensor([9, 4, 7, 1, 9, 5, 2, 0 if empty_row else 3])
    row_shift = torch.linspace(-0.6, 0.7, ROWS, dtype=dtype)[:, None]  # whole completions beyond either clip
    policy = old + row_shift + 0.3 * torch.randn(old.shape, dtype=dtype, generator=generator)
    ref = old + 0.3 * torch.randn(old.shape, dtype=dtype, generator=generator)
    advantages = torch.tensor([-1.2, 0.5, 0.9, -0.3, 1.1, -0.8, 0.6, -1.4], dtype=dtype)
    mask = torch.arange(LENGTH) < lengths[:, None]
    return policy.requires_grad_(), LossInputs(old, ref, advantages, mask)


def config(**options):
    # TRL rounds SAPO's temperatures to float32; this one is exact there.
    return LossConfig(**{"max_completion_length": 12, "sapo_temperature_neg": 1.0625, **options})


@pytest.mark.parametrize(
    ("loss_type", "level", "beta", "bias_correction", "epsilon_high", "delta"),
    [
        choice
        for choice in itertools.product(LOSS_TYPES, LEVELS, [0.0, 0.04], [False, True], [None, 0.28], [None, 1.5])
        if choice[2] or not choice[3]
    ],
)
def test_one_batch_matches_trl(loss_type, level, beta, bias_correction, epsilon_high, delta):
    cfg = config(
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=beta,
        use_bias_correction_kl=bias_correction,
        epsilon_high=epsilon_high,
        delta=delta,
    )
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        policy, batch = make_batch(dtype)
        tokens = int(batch.mask.sum())
        trl = trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)
        divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
        ours = our_update(cfg, policy, batch, divisors)
        assert_close(ours[0], trl[0], rtol=tolerance, atol=tolerance)
        assert_close(ours[1], trl[1], rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_masking_off_policy_sequences_matches_trl(loss_type):
    """A threshold that drops one completion of negative advantage and keeps the others, and one that keeps all."""
    policy, batch = make_batch(torch.float64)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    gradients = []
    for threshold in (0.3, 5.0, None):
        cfg = config(loss_type=loss_type, beta=0.04, off_policy_mask_threshold=threshold)
        ours = our_update(cfg, policy, batch, divisors)
        assert_close(
            ours[:2], trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)[:2], rtol=1e-10, atol=1e-12
        )
        gradients.append(ours[1])
    dropped = (gradients[0] != gradients[2]).any(dim=1)
    assert dropped.tolist() == [True] + [False] * (ROWS - 1)
    assert torch.equal(gradients[1], gradients[2])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_entropy_bonus_matches_trl(loss_type):
    cfg = config(loss_type=loss_type, beta=0.04, entropy_coef=0.07)
    policy, batch = make_batch(torch.float64)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    ours, trl = our_update(cfg, policy, batch, divisors), trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)
    assert_close(ours[:2], trl[:2], rtol=1e-10, atol=1e-12)
    assert ours[2]["policy_loss"] == pytest.approx(trl[2]["policy_loss"], rel=1e-10)
    without = trl_update(config(loss_type=loss_type, beta=0.04), policy, batch, [list(range(ROWS))], tokens, 1)
    assert (trl[1] - without[1]).norm() > 0.01


@pytest.mark.parametrize("mode", CORRECTION_MODES)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_corrected_sampler_matches_trl(loss_type, mode):
    """With the mask of off-policy sequences, which asks how far the sampler is, not the trainer's old policy."""
    policy, batch = make_batch(torch.float64)
    noise = 0.4 * torch.randn(batch.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    batch = replace(batch, sampling_logprobs=batch.old_logprobs + noise)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    gradients = []
    for bounds in ((None, 3.0), (0.8, 1.2)):
        cfg = config(
            loss_type=loss_type, beta=0.04, off_policy_mask_threshold=0.3, vllm_importance_sampling_mode=mode,
            vllm_importance_sampling_correction=True, vllm_importance_sampling_clip_min=bounds[0],
            vllm_importance_sampling_clip_max=bounds[1],
        )  # fmt: skip
        ours = our_update(cfg, policy, batch, divisors)
        trl = trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)
        assert_close(ours[:2], trl[:2], rtol=1e-10, atol=1e-12)
        gradients.append(ours[1])
    assert not torch.equal(*gradients)


@pytest.mark.parametrize("mini_batches", [1, 3])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "cispo", "sapo"])
def test_an_accumulation_window_matches_trl(loss_type, mini_batches):
    """Four micro-batches of two rows; the rollout serves this update, or three such updates (dapo's divisor)."""
    cfg = config(loss_type=loss_type, beta=0.04)
    policy, batch = make_batch(torch.float64)
    tokens = int(batch.mask.sum())
    rollout_tokens = tokens if mini_batches == 1 else 131  # the other two updates' tokens are not this one's
    windows = [[0, 1], [2, 3], [4, 5], [6, 7]]
    trl = trl_update(cfg, policy, batch, windows, rollout_tokens, steps_per_generation=4 * mini_batches)
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=rollout_tokens / mini_batches)
    ours = our_update(cfg, policy, batch, divisors)
    assert_close(ours[:2], trl[:2], rtol=1e-7, atol=1e-12)  # TRL's divisor of dapo is a float32


def test_bnpo_does_not_depend_on_micro_batches_where_trl_s_does():
    """docs/losses.md: TRL averages the means of its micro-batches. With one micro-batch the two agree."""
    cfg = config(loss_type="bnpo")
    policy, batch = make_batch(torch.float64)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    ours = our_update(cfg, policy, batch, divisors)
    one = trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)
    four = trl_update(cfg, policy, batch, [[0, 1], [2, 3], [4, 5], [6, 7]], tokens, 4)
    assert_close(ours[:2], one[:2], rtol=1e-12, atol=1e-12)
    assert (four[1] - one[1]).norm() / one[1].norm() > 0.1


def test_old_logprobs_of_none_match_trl():
    cfg = config(beta=0.04)
    policy, batch = make_batch(torch.float64)
    batch = LossInputs(None, batch.ref_logprobs, batch.advantages, batch.mask)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    trl = trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)
    assert_close(our_update(cfg, policy, batch, divisors)[:2], trl[:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_metrics_match_trl(level, bias_correction):
    options = {"epsilon_high": 0.28, "beta": 0.04, "use_bias_correction_kl": bias_correction}
    cfg = config(importance_sampling_level=level, **options)
    policy, batch = make_batch(torch.float64, empty_row=False)
    tokens = int(batch.mask.sum())
    divisors = Divisors(num_rows=ROWS, num_tokens=tokens, rollout_tokens_per_update=tokens)
    ours = our_update(cfg, policy, batch, divisors)[2]
    trl = trl_update(cfg, policy, batch, [list(range(ROWS))], tokens, 1)[2]
    assert ours["clip_ratio/low_mean"] > 0 < ours["clip_ratio/high_mean"]
    for name in ("kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"):
        assert ours[name] == pytest.approx(trl[name], rel=1e-6), name
