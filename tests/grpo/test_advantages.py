"""Advantages against a plain loop and against TRL's nan-aware formula, then the properties of section 4.1.2."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import scalar_advantages, scalar_process_advantages
from torch.testing import assert_close
from trl.trainer.utils import nanstd

from grpo import advantages
from grpo.advantages import combine_rewards, group_advantages, process_advantages, teaches, token_advantages
from rewards import StepRewards


@pytest.fixture
def rewards():
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def live():
    """A full group, one without its first, one with two left, one with a single one left, and an empty one."""
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[1, 0] = mask[2, :4] = mask[3, 1:] = mask[4] = False
    return mask


def trl_advantages(rewards, scale):
    """GRPOTrainer._generate_and_score_completions of TRL 1.16, `sum_then_normalize`, copied line by line."""
    num_generations, flat = rewards.shape[1], rewards.flatten()
    mean = torch.nanmean(flat.view(-1, num_generations), dim=1).repeat_interleave(num_generations, dim=0)
    if scale == "batch":
        std = nanstd(flat).expand_as(flat)
    else:
        std = nanstd(flat.view(-1, num_generations), dim=1).repeat_interleave(num_generations, dim=0)
    result = flat - mean
    if scale != "none":
        result = result / (std + 1e-4)
    return torch.nan_to_num(result, nan=0.0).view_as(rewards)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("masked", [False, True])
def test_match_a_plain_loop_and_trl(rewards, live, scale, masked):
    live = live if masked else torch.ones_like(live)
    ours = group_advantages(rewards, scale, live)
    expected = torch.tensor(scalar_advantages(rewards.tolist(), scale, live.tolist()), dtype=torch.float64)
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    # TRL's nanstd takes count / (count - 1) in float32.
    assert_close(ours, trl_advantages(rewards.masked_fill(~live, torch.nan), scale), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("masked", [False, True])
def test_leave_one_out_matches_a_plain_loop_and_trl(rewards, live, scale, masked):
    live = live if masked else torch.ones_like(live)
    ours = group_advantages(rewards, scale, live, baseline="leave_one_out")
    expected = scalar_advantages(rewards.tolist(), scale, live.tolist(), baseline="leave_one_out")
    assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert_close(ours.sum(dim=1), torch.zeros(5, dtype=torch.float64))
    assert masked != bool(ours[3:].any()), "a lone completion has no sibling"
    if scale == "none":  # RLOOTrainer of TRL 1.16, copied line by line
        grouped_rewards = rewards.masked_fill(~live, torch.nan)
        scorable_counts = (~torch.isnan(grouped_rewards)).sum(dim=1, keepdim=True)
        grouped_sum = torch.nansum(grouped_rewards, dim=1, keepdim=True)
        baselines = (grouped_sum - grouped_rewards) / (scorable_counts - 1)
        assert_close(ours, torch.nan_to_num(grouped_rewards - baselines, nan=0.0))


def test_process_advantages_by_hand():
    """Step rewards 1, 0, 0.5 and 0.5 have the mean 0.5 and, over 3, the std 1 / sqrt(6)."""
    steps = [StepRewards((1, 3), (1.0, 0.0)), None, StepRewards((0, 2), (0.5, 0.5))]
    first, none, last = process_advantages(steps, [5, 2, 3])
    unit = 0.5 / (6**-0.5 + 1e-4)
    assert_close(first, torch.tensor([0.0, 0.0, -unit, -unit, 0.0]), rtol=1e-6, atol=1e-6)
    assert none.tolist() == [0.0, 0.0]
    assert last.tolist() == [0.0, 0.0, 0.0]
    steps = [StepRewards((1, 3), (2.0, 0.0)), StepRewards((1,), (1.0,))]
    assert [row.tolist() for row in process_advantages(steps, [4, 2], "none")] == [[0.0, 0.0, -1.0, -1.0], [0.0, 0.0]]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), scale=st.sampled_from(["group", "batch", "none", True, False]))
def test_process_advantages_match_a_plain_loop(data, scale):
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    steps = []
    for length in lengths:
        ends = sorted(data.draw(st.sets(st.integers(0, length - 1))))
        values = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=len(ends), max_size=len(ends)))
        steps.append(StepRewards(ends, values) if ends else None)
    expected = scalar_process_advantages(
        [(some.ends, some.rewards) if some else ((), ()) for some in steps],
        lengths,
        "none" if scale in ("none", False) else "group",
    )
    for ours, row in zip(process_advantages(steps, lengths, scale), expected, strict=True):
        assert_close(ours, torch.tensor(row), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_one_step_at_the_last_token_is_an_outcome(rewards, scale):
    lengths = [3, 1, 4, 1, 5, 9]
    steps = [StepRewards((length - 1,), (reward,)) for length, reward in zip(lengths, rewards[0].tolist())]
    for row, advantage in zip(process_advantages(steps, lengths, scale), group_advantages(rewards[:1], scale)[0]):
        assert_close(row, advantage.float().expand_as(row))


def test_outcome_and_process_advantages_add():
    steps = [StepRewards((0, 1), (1.0, 0.0)), StepRewards((1,), (0.5,))]
    other = [None, None]
    lengths, outcome = [2, 3], [0.7, -0.7]
    both = token_advantages(outcome, [other, steps], [5.0, 2.0], lengths, "none")
    assert both[0] == pytest.approx([0.7, 0.7 - 1.0])
    assert both[1] == pytest.approx([-0.7] * 3)
    assert token_advantages(outcome, [other, other], [5.0, 2.0], lengths) is None


def test_nan_is_not_live_unless_told_otherwise(rewards, live):
    holes = rewards.masked_fill(~live, torch.nan)
    assert_close(group_advantages(holes), group_advantages(rewards, live=live))
    assert_close(group_advantages(holes, live=live), group_advantages(rewards, live=live))
    with pytest.raises(ValueError, match="a reward must be a number"):
        group_advantages(holes, live=torch.ones_like(live))


def test_true_and_false_are_trl_s_spellings(rewards):
    assert_close(group_advantages(rewards, True), group_advantages(rewards, "group"))
    assert_close(group_advantages(rewards, False), group_advantages(rewards, "none"))


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.1, 2.0]), min_size=12, max_size=12),
    shift=st.floats(-10, 10),
    scale=st.sampled_from(["group", "batch", "none"]),
)
def test_a_constant_added_to_a_group_changes_no_advantage(values, shift, scale):
    rewards = torch.tensor(values, dtype=torch.float64).view(2, 6)
    moved = rewards.clone()
    moved[0] += shift
    if scale == "batch":  # its std sees the whole batch, so shift the whole batch
        moved[1] += shift
    assert_close(group_advantages(moved, scale), group_advantages(rewards, scale), rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_live_advantages_of_a_group_sum_to_zero(rewards, live, scale):
    assert_close(group_advantages(rewards, scale, live).sum(dim=1), torch.zeros(5, dtype=torch.float64))


def test_group_scaling_gives_a_std_of_one(rewards):
    assert_close(group_advantages(rewards).std(dim=1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.1, 1.1, 0.7, 12.3])
def test_equal_rewards_give_exact_zeros_whatever_the_mean_rounds_to(scale, value):
    rewards = torch.tensor([[value] * 7, [0.0, 1.0] * 3 + [0.0]])
    result = group_advantages(rewards, scale)
    assert result[0].tolist() == [0.0] * 7
    assert result[1].abs().min() > 0.05


def test_a_lone_completion_teaches_nothing(rewards, live):
    result = group_advantages(rewards, "batch", live)
    assert not result[3:].any()
    assert not result[~live].any()


def test_teaches_compares_live_completions_only():
    rewards = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.3, 0.3, 0.3 + 5e-8], [1.0, torch.nan, 1.0]])
    live = torch.tensor([[True, True, False], [True, True, True], [True, True, True], [True, False, True]])
    assert teaches(rewards, live).tolist() == [False, True, False, False]
    assert teaches(rewards).tolist() == [True, True, False, False]
    assert teaches(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [False]


def test_groups_that_do_not_teach_are_those_without_an_advantage(rewards, live):
    rewards[0] = 0.7
    assert (group_advantages(rewards, live=live).abs().sum(dim=1) > 0).tolist() == teaches(rewards, live).tolist()


def test_combined_rewards_match_trl_s_nansum():
    nan = float("nan")
    per_function = torch.tensor([[[1.0, 0.0, nan]], [[nan, 1.0, nan]], [[0.5, nan, nan]]])
    weights = [1.0, 2.0, 0.5]
    total, live = combine_rewards(per_function, weights)
    assert total.tolist() == [[1.25, 2.0, 0.0]]
    assert live.tolist() == [[True, True, False]]
    by_row = per_function.flatten(1).T  # TRL's layout, [P * G, F]
    assert_close(total.flatten(), (by_row * torch.tensor(weights).unsqueeze(0)).nansum(dim=1))


def test_a_masked_completion_is_left_out_end_to_end():
    total, live = combine_rewards(torch.tensor([[[1.0, 0.0, float("nan"), 0.0]]]), [1.0])
    expected = group_advantages(torch.tensor([[1.0, 0.0, 0.0]]))
    result = group_advantages(total, live=live)
    assert_close(result[:, [0, 1, 3]], expected)
    assert result[0, 2] == 0


def test_arguments_are_left_alone(rewards, live):
    before = rewards.clone(), live.clone()
    group_advantages(rewards, "batch", live)
    teaches(rewards, live)
    assert torch.equal(rewards, before[0])
    assert torch.equal(live, before[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages(torch.zeros(3, 1)), "2 or more completions.*raise num_generations"),
        (lambda: group_advantages(torch.zeros(6)), r"\[prompts, completions\]"),
        (lambda: group_advantages(torch.zeros(3, 2, dtype=torch.int64)), "floats"),
        (lambda: group_advantages(torch.zeros(3, 2), "std"), "'group', 'batch', 'none'.*'std'"),
        (lambda: group_advantages(torch.zeros(3, 2), baseline="mean"), "'group' or 'leave_one_out', got 'mean'"),
        (lambda: group_advantages(torch.zeros(3, 2), live=torch.ones(3, 3, dtype=torch.bool)), "live must be"),
        (lambda: group_advantages(torch.zeros(3, 2), live=torch.ones(3, 2)), "live must be a bool tensor"),
        (lambda: group_advantages(torch.full((1, 2), torch.inf)), "a reward must be a number"),
        (lambda: combine_rewards(torch.zeros(2, 3, 4), [1.0]), "one weight a function: got 2"),
    ],
)
def test_errors_say_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_docstring_examples_run():
    assert doctest.testmod(advantages).failed == 0
