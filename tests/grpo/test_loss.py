"""The losses against a scalar loop (value, and gradient by central differences), then the properties of section 6."""

import itertools
from dataclasses import replace

import pytest
import torch
from references import numeric_gradient, scalar_correction, scalar_entropy_bonus, scalar_loss
from torch.autograd import gradcheck
from torch.testing import assert_close

from grpo.advantages import group_advantages
from grpo.loss import AVERAGES, CORRECTION_MODES, Divisors, LossConfig, LossInputs, grpo_loss, mean_statistics

LOSS_TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"]
LEVELS = ["token", "sequence"]
OPTIONS = [
    dict(
        zip(
            ("loss_type", "importance_sampling_level", "beta", "use_bias_correction_kl", "epsilon_high", "delta"),
            choice,
        )
    )
    for choice in itertools.product(LOSS_TYPES, LEVELS, [0.0, 0.04], [False, True], [None, 0.28], [None, 1.4])
    if choice[2] or not choice[3]
]


def config(**options):
    return LossConfig(**{"max_completion_length": 7, **options})


@pytest.fixture
def batch():
    """Five rows of up to six tokens, the last row empty; ratios beyond every clip with either sign of the advantage."""
    generator = torch.Generator().manual_seed(1)
    old = -3 * torch.rand(5, 6, dtype=torch.float64, generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [3], [5], [1], [0]])
    mask[0, 2] = False  # a token of a tool, in the middle of a completion
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.1, 0.9], dtype=torch.float64)
    return LossInputs(
        old, old + 0.4 * torch.randn(old.shape, dtype=torch.float64, generator=generator), advantages, mask
    )


@pytest.fixture
def policy(batch):
    shift = torch.tensor([[0.5], [-0.4], [-0.1], [0.6], [0.0]], dtype=torch.float64)
    noise = torch.randn(batch.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return (batch.old_logprobs + shift + 0.2 * noise).requires_grad_()


@pytest.fixture
def divisors(batch):
    return Divisors(num_rows=5, num_tokens=int(batch.mask.sum()), rollout_tokens_per_update=11.5)


def gradient(policy, batch, divisors, cfg):
    return torch.autograd.grad(grpo_loss(policy, batch, divisors, cfg)[0], policy)[0]


def rows_of(batch, rows):
    """The pack that holds only these rows."""
    parts = (batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.mask)
    return LossInputs(*(part[rows] for part in parts))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_value_and_gradient_match_a_scalar_loop(policy, batch, divisors, options):
    cfg = config(**options)
    old, ref, advantages, mask = (
        x.tolist() for x in (batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.mask)
    )

    weights = policy.tolist()  # cispo's weights carry no gradient, so they stay where the policy is

    def reference(rows):
        return scalar_loss(rows, old, ref, advantages, mask, divisors, cfg, weights)

    loss, _ = grpo_loss(policy, batch, divisors, cfg)
    assert loss.item() == pytest.approx(reference(policy.tolist()), rel=1e-12)
    expected = torch.tensor(numeric_gradient(reference, policy.tolist()), dtype=torch.float64)
    assert_close(gradient(policy, batch, divisors, cfg), expected, rtol=1e-6, atol=1e-9)
    if cfg.loss_type != "cispo":
        assert gradcheck(lambda p: grpo_loss(p, batch, divisors, cfg)[0], policy)


def test_the_batch_reaches_every_branch(policy, batch, divisors):
    """Else the test above would compare less than it claims to."""
    ratio = (policy - batch.old_logprobs).exp()[batch.mask]
    negative = batch.advantages[:, None].expand_as(batch.mask)[batch.mask] < 0
    assert (negative & (ratio < 0.8)).any()
    assert (negative & (ratio > 1.4)).any()
    assert (~negative & (ratio > 1.28)).any()
    assert (~negative & (ratio < 0.8)).any()
    plain, bounded = (gradient(policy, batch, divisors, config(delta=delta)) for delta in (None, 1.4))
    assert not torch.equal(plain, bounded)
    metrics = mean_statistics(grpo_loss(policy, batch, divisors, config(importance_sampling_level="sequence"))[1])
    assert metrics["clip_ratio/low_mean"] > 0 < metrics["clip_ratio/high_mean"]


@pytest.fixture
def entropy(batch):
    return torch.rand(batch.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("coef", [0.01, -0.3])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_entropy_bonus_is_a_mean_over_tokens_whatever_the_loss_type(
    policy, batch, divisors, entropy, loss_type, coef
):
    plain, cfg = config(loss_type=loss_type, beta=0.04), config(loss_type=loss_type, beta=0.04, entropy_coef=coef)
    entropy.masked_fill_(~batch.mask, torch.nan).requires_grad_()
    policy_loss, _ = grpo_loss(policy, batch, divisors, plain)
    loss, stats = grpo_loss(policy, batch, divisors, cfg, entropy)
    bonus = scalar_entropy_bonus(entropy.tolist(), batch.mask.tolist(), divisors, cfg)
    assert loss.item() == pytest.approx(policy_loss.item() - bonus, rel=1e-12)
    assert mean_statistics(stats)["policy_loss"] == policy_loss.item()
    of_policy, of_entropy = torch.autograd.grad(loss, (policy, entropy))
    assert torch.equal(of_policy, gradient(policy, batch, divisors, plain))
    assert_close(of_entropy, -coef * batch.mask.double() / divisors.num_tokens)
    rows = ([0], [1, 4], [2, 3])
    packs = sum(grpo_loss(policy[r], rows_of(batch, r), divisors, cfg, entropy[r])[0] for r in rows)
    assert_close(packs, loss, rtol=1e-12, atol=1e-12)


def test_an_entropy_bonus_needs_the_entropy(policy, batch, divisors, entropy):
    for missing in (None, entropy[:, :3]):
        with pytest.raises(ValueError, match=r"entropy_coef = 0\.01 needs entropy of the mask's shape"):
            grpo_loss(policy, batch, divisors, config(entropy_coef=0.01), missing)


@pytest.fixture
def sampled(batch):
    """The batch with a sampler's log-probs, whose ratios leave the bounds below; one is missing, padding is NaN."""
    noise = torch.randn(batch.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    noise[2] += 2.0  # a sequence far below, by its product
    sampling = batch.old_logprobs + 0.5 * noise
    sampling[2, 1] = torch.nan
    return replace(batch, sampling_logprobs=sampling.masked_fill(~batch.mask, torch.nan))


@pytest.mark.parametrize("bounds", [(None, 1.5), (0.7, 1.5), (0.7, None)], ids=str)
@pytest.mark.parametrize("mode", CORRECTION_MODES)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_corrected_sampler_matches_a_scalar_loop(policy, sampled, divisors, loss_type, mode, bounds):
    lowest, highest = bounds
    cfg = config(
        loss_type=loss_type, beta=0.04, vllm_importance_sampling_correction=True, vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=lowest, vllm_importance_sampling_clip_max=highest,
    )  # fmt: skip
    old, ref, advantages, mask = (
        x.tolist() for x in (sampled.old_logprobs, sampled.ref_logprobs, sampled.advantages, sampled.mask)
    )
    sampling = [[None if x != x else x for x in row] for row in sampled.sampling_logprobs.tolist()]
    correction = scalar_correction(old, sampling, mask, mode, lowest, highest)
    weights = policy.tolist()

    def reference(rows):
        return scalar_loss(rows, old, ref, advantages, mask, divisors, cfg, weights, correction)

    loss, stats = grpo_loss(policy, sampled, divisors, cfg)
    assert loss.item() == pytest.approx(reference(policy.tolist()), rel=1e-12)
    expected = torch.tensor(numeric_gradient(reference, policy.tolist()), dtype=torch.float64)
    assert_close(gradient(policy, sampled, divisors, cfg), expected, rtol=1e-6, atol=1e-9)
    packs = [grpo_loss(policy[r], sampled_rows(sampled, r), divisors, cfg) for r in ([0], [1, 4], [2, 3])]
    assert_close(sum(part for part, _ in packs), loss, rtol=1e-12, atol=1e-12)
    assert_close({name: sum(s[name] for _, s in packs) for name in stats}, stats, rtol=1e-12, atol=1e-12)
    metrics = mean_statistics(stats)
    tokens = [(i, t) for i in range(5) for t in range(6) if mask[i][t]]
    differences = [abs(old[i][t] - sampling[i][t]) for i, t in tokens if sampling[i][t] is not None]
    assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(sum(differences) / len(differences))
    counted = [correction[i][t] for i, t in (tokens if mode.startswith("token") else [(i, 0) for i in range(4)])]
    assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(sum(counted) / len(counted))


def sampled_rows(batch, rows):
    return replace(rows_of(batch, rows), sampling_logprobs=batch.sampling_logprobs[rows])


def test_the_sampler_reaches_every_bound(sampled):
    """Else the test above would compare less than it claims to."""
    log_ratio = (sampled.old_logprobs - sampled.sampling_logprobs).masked_fill(~sampled.mask, 0.0).nan_to_num(0.0)
    for ratio in (log_ratio.exp()[sampled.mask], log_ratio.sum(dim=1).exp()):
        assert (ratio > 1.5).any()
        assert (ratio < 0.7).any()
        assert ((ratio > 0.7) & (ratio < 1.5)).any()


def test_a_sampler_like_the_trainer_changes_nothing(policy, batch, divisors):
    for mode in CORRECTION_MODES:
        cfg = config(vllm_importance_sampling_correction=True, vllm_importance_sampling_mode=mode)
        same = replace(batch, sampling_logprobs=batch.old_logprobs)
        assert torch.equal(gradient(policy, same, divisors, cfg), gradient(policy, batch, divisors, config()))
        moved_not = replace(batch, old_logprobs=None, sampling_logprobs=policy.detach())
        plain = replace(batch, old_logprobs=None)
        assert torch.equal(gradient(policy, moved_not, divisors, cfg), gradient(policy, plain, divisors, config()))
    with pytest.raises(ValueError, match="needs sampling_logprobs, got None"):
        grpo_loss(policy, batch, divisors, cfg)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_splitting_into_packs_changes_no_gradient(policy, batch, divisors, loss_type, level):
    cfg = config(loss_type=loss_type, beta=0.04, importance_sampling_level=level)
    whole, stats = grpo_loss(policy, batch, divisors, cfg)
    packs = [grpo_loss(policy[rows], rows_of(batch, rows), divisors, cfg) for rows in ([0], [1, 4], [2, 3])]
    split = sum(loss for loss, _ in packs)
    assert_close(split, whole, rtol=1e-12, atol=1e-12)
    whole_gradient, split_gradient = (torch.autograd.grad(loss, policy)[0] for loss in (whole, split))
    assert_close(split_gradient, whole_gradient, rtol=0, atol=1e-12)
    assert_close({name: sum(s[name] for _, s in packs) for name in stats}, stats, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_padding_and_row_order_change_no_gradient(policy, batch, divisors, loss_type, level):
    cfg = config(loss_type=loss_type, beta=0.04, importance_sampling_level=level)
    expected = gradient(policy, batch, divisors, cfg)
    order = [3, 0, 4, 2, 1]
    shuffled = gradient(policy[order].detach().requires_grad_(), rows_of(batch, order), divisors, cfg)
    assert_close(shuffled, expected[order], rtol=0, atol=1e-12)

    def pad(x, value):
        return torch.nn.functional.pad(x, (0, 3), value=value)

    wider = LossInputs(
        pad(batch.old_logprobs, 9.0), pad(batch.ref_logprobs, -9.0), batch.advantages, pad(batch.mask, False)
    )
    padded = gradient(pad(policy.detach(), 5.0).requires_grad_(), wider, divisors, cfg)
    assert_close(padded, pad(expected, 0.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_leaving_out_rows_that_teach_nothing_changes_no_gradient(policy, batch, divisors, loss_type):
    """The divisors count them all the same; with beta > 0 they would still have a KL to learn from."""
    batch = replace(batch, advantages=batch.advantages * torch.tensor([1, 0, 1, 0, 1]))
    cfg, kept = config(loss_type=loss_type), [0, 2, 4]
    result = gradient(policy[kept].detach().requires_grad_(), rows_of(batch, kept), divisors, cfg)
    expected = gradient(policy, batch, divisors, cfg)
    assert_close(result, expected[kept], rtol=0, atol=1e-12)
    assert not expected[[1, 3]].any()


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize(
    "options", OPTIONS[::3], ids=lambda options: "-".join(str(value) for value in options.values())
)
def test_garbage_in_padding_reaches_neither_loss_nor_gradient(policy, batch, divisors, options, garbage):
    cfg = config(**options)

    def spoil(x):
        return x.masked_fill(~batch.mask, garbage)

    per_token = batch.advantages[:, None].expand_as(batch.mask)
    spoiled = LossInputs(spoil(batch.old_logprobs), spoil(batch.ref_logprobs), spoil(per_token), batch.mask)
    dirty = spoil(policy.detach()).requires_grad_()
    loss, stats = grpo_loss(dirty, spoiled, divisors, cfg)
    clean_loss, clean_stats = grpo_loss(policy, batch, divisors, cfg)
    assert_close(loss, clean_loss, rtol=0, atol=0)
    assert_close(stats, clean_stats, rtol=0, atol=0)
    result = gradient(dirty, spoiled, divisors, cfg)
    assert_close(result, gradient(policy, batch, divisors, cfg), rtol=0, atol=0)
    assert not result[~batch.mask].any()


@pytest.mark.parametrize("epsilon", [0.2, 10.0])  # DeepSeek-R1 prints a clip of 10 for its first RL stage
@pytest.mark.parametrize("old", ["none", "equal"])
def test_a_ratio_of_one_is_reinforce(policy, batch, divisors, old, epsilon):
    """The gradient of A x log pi, a token's share of it: -A / num_tokens."""
    on_policy = replace(batch, old_logprobs=None if old == "none" else policy.detach())
    result = gradient(policy, on_policy, divisors, config(loss_type="bnpo", epsilon=epsilon))
    reinforce = -(batch.advantages[:, None] * policy * batch.mask).sum() / divisors.num_tokens
    assert_close(result, torch.autograd.grad(reinforce, policy)[0], rtol=1e-12, atol=1e-14)


def test_the_kl_gradient_on_policy_is_one_minus_the_reference_ratio(policy, batch, divisors):
    quiet = replace(batch, advantages=torch.zeros_like(batch.advantages))
    result = gradient(policy, quiet, divisors, config(loss_type="bnpo", beta=0.5))
    expected = 0.5 * (1 - (batch.ref_logprobs - policy).exp()) * batch.mask / divisors.num_tokens
    assert_close(result, expected.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_equal_rewards_leave_only_the_kl(policy, batch, divisors, loss_type):
    equal = replace(batch, advantages=group_advantages(torch.full((1, 5), 0.7, dtype=torch.float64))[0])
    assert not gradient(policy, equal, divisors, config(loss_type=loss_type)).any()
    assert gradient(policy, equal, divisors, config(loss_type=loss_type, beta=0.04)).abs().sum() > 1e-3


def test_a_clipped_token_has_no_gradient_until_delta_bounds_the_rest():
    log_ratio = torch.tensor([[0.5, -0.5, 2.0]], dtype=torch.float64)
    mask, divisors = torch.ones(1, 3, dtype=torch.bool), Divisors(num_rows=1, num_tokens=3, rollout_tokens_per_update=3)

    def touched(advantage, **options):
        inputs = LossInputs(torch.zeros(1, 3, dtype=torch.float64), None, torch.tensor([advantage]), mask)
        return (gradient(log_ratio.clone().requires_grad_(), inputs, divisors, config(**options)) != 0)[0].tolist()

    assert touched(+1.0) == [False, True, False]
    assert touched(+1.0, epsilon_high=0.7) == [True, True, False]
    assert touched(-1.0) == [True, False, True]
    assert touched(-1.0, delta=4.0) == [True, False, False]


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_pack_without_tokens_adds_zero_and_still_has_a_backward(batch, policy, divisors, loss_type):
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    loss, stats = grpo_loss(policy, empty, divisors, config(loss_type=loss_type, beta=0.04))
    loss.backward()
    assert loss.item() == 0
    assert not policy.grad.any()
    assert not any(stats.values())
    nothing = Divisors(num_rows=0, num_tokens=0, rollout_tokens_per_update=0.0)
    assert grpo_loss(policy, empty, nothing, config(loss_type=loss_type))[0].item() == 0
    assert mean_statistics(stats) == {
        "clip_ratio/low_mean": 0, "clip_ratio/high_mean": 0, "clip_ratio/region_mean": 0, "ratio/mean": 1, "kl": 0
    }  # fmt: skip


def test_advantages_a_token_are_those_a_row_when_equal(policy, batch, divisors):
    per_token = replace(batch, advantages=batch.advantages[:, None].expand_as(batch.mask))
    for level in LEVELS:
        cfg = config(importance_sampling_level=level)
        assert_close(grpo_loss(policy, per_token, divisors, cfg), grpo_loss(policy, batch, divisors, cfg))


def test_metrics_match_a_plain_count(policy, batch, divisors):
    metrics = mean_statistics(grpo_loss(policy, batch, divisors, config(epsilon_high=0.28, beta=0.04))[1])
    low = high = kl = ratios = count = 0.0
    for i, t in itertools.product(range(5), range(6)):
        if not batch.mask[i, t]:
            continue
        ratio = torch.exp(policy[i, t] - batch.old_logprobs[i, t]).item()
        log_ref = (batch.ref_logprobs[i, t] - policy[i, t]).item()
        low += ratio < 0.8 and batch.advantages[i].item() < 0
        high += ratio > 1.28 and batch.advantages[i].item() > 0
        kl += torch.tensor(log_ref).exp().item() - log_ref - 1
        ratios += ratio
        count += 1
    assert low > 0
    assert high > 0
    expected = {"low_mean": low, "high_mean": high, "region_mean": low + high}
    expected = {f"clip_ratio/{name}": value / count for name, value in expected.items()}
    assert metrics == pytest.approx(expected | {"ratio/mean": ratios / count, "kl": kl / count}, rel=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_a_zero_advantage_is_never_clipped(policy, batch, divisors, level):
    quiet = replace(batch, advantages=torch.zeros_like(batch.advantages))
    metrics = mean_statistics(grpo_loss(policy, quiet, divisors, config(importance_sampling_level=level))[1])
    assert metrics["clip_ratio/region_mean"] == 0


def test_statistics_are_detached_and_of_one_dtype(policy, batch, divisors):
    for options in ({}, {"beta": 0.04}, {"importance_sampling_level": "sequence"}):
        stats = grpo_loss(policy, batch, divisors, config(**options))[1]
        assert not any(value.requires_grad for value in stats.values())
        assert {value.dtype for value in stats.values()} == {torch.float64}
        assert ("kl_sum" in stats) == (options.get("beta", 0) > 0)


def test_arguments_are_left_alone(policy, batch, divisors):
    parts = (policy, batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.mask)
    before = [part.detach().clone() for part in parts]
    for options in OPTIONS[::5]:
        gradient(policy, batch, divisors, config(**options))
    assert all(torch.equal(part, copy) for part, copy in zip(parts, before))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "ppo"}, "bnpo, cispo, dapo, dr_grpo, grpo, sapo; got 'ppo'"),
        ({"importance_sampling_level": "word"}, "'token' or 'sequence', got 'word'"),
        ({"epsilon": 0.0}, "epsilon must be a positive number, got 0"),
        ({"epsilon": float("nan")}, "epsilon must be a positive number, got nan"),
        ({"epsilon_high": -0.1}, "epsilon_high must be a positive number, got -0.1"),
        ({"beta": -1.0}, "beta must be 0 or a positive number, got -1"),
        ({"beta": float("nan")}, "beta"),
        ({"delta": 1.2}, r"delta must exceed the upper clip, 1 \+ epsilon_high = 1.2, got 1.2"),
        ({"vllm_importance_sampling_mode": "row"}, "token_truncate, token_mask, sequence_truncate, sequence_mask; got"),
        ({"vllm_importance_sampling_clip_min": 4.0}, r"clip_min must lie in \[0, 1\).* got 4.0"),
        ({"vllm_importance_sampling_clip_max": 0.5}, "clip_max must exceed 1, where the two agree, got 0.5"),
        (
            {
                "vllm_importance_sampling_correction": True,
                "vllm_importance_sampling_mode": "token_truncate",
                "vllm_importance_sampling_clip_max": None,
            },
            "'token_truncate' needs vllm_importance_sampling_clip_max or _clip_min, got neither",
        ),
        ({"entropy_coef": float("nan")}, "entropy_coef must be a finite number, got nan"),
        ({"max_completion_length": 0}, "1 token or more, got 0"),
    ],
)
def test_a_wrong_setting_says_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_every_loss_type_is_tested():
    assert sorted(AVERAGES) == sorted(LOSS_TYPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"mask": b.mask.int()}, "use mask.bool"),
        (lambda b: {"old_logprobs": b.old_logprobs[:1]}, "old_logprobs must have the mask's shape"),
        (lambda b: {"ref_logprobs": b.ref_logprobs[:, :1]}, "ref_logprobs must have the mask's shape"),
        (lambda b: {"advantages": b.advantages[:, None]}, r"advantages must be \[B\] or \[B, T\]"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(batch, change, message):
    with pytest.raises(ValueError, match=message):
        replace(batch, **change(batch))


def test_a_policy_that_does_not_fit_is_refused(policy, batch, divisors):
    with pytest.raises(ValueError, match="policy_logprobs must have the mask's shape"):
        grpo_loss(policy[:, :3], batch, divisors, config())
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.bfloat16"):
        grpo_loss(policy.bfloat16(), batch, divisors, config())
    with pytest.raises(ValueError, match=r"beta = 0\.04 needs ref_logprobs"):
        grpo_loss(policy, replace(batch, ref_logprobs=None), divisors, config(beta=0.04))
    with pytest.raises(ValueError, match="none may be negative"):
        replace(divisors, num_tokens=-1)
