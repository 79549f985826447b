"""Group-relative advantages: compare each completion with its siblings, so no value network is needed.

Source: DeepSeekMath (arXiv:2402.03300) section 4.1.2 and DeepSeek-R1 (arXiv:2501.12948) eq. 3. `scale_rewards` has
TRL's meaning: "none" is Dr. GRPO (arXiv:2503.20783), which drops the std; "batch" takes the std of the whole batch
(arXiv:2508.08221). The baseline "leave_one_out" is RLOO's (arXiv:2402.14740). A completion that no reward could judge
is not `live`: its siblings are compared without it, and it teaches nothing. Rewards of steps (DeepSeekMath section
4.1.3) give each token an advantage of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards import StepRewards

STD_EPSILON = 1e-4
"""Added to the std before dividing by it, as TRL does."""

EQUAL_REWARDS = 1e-6
"""Rewards of a group that lie within this distance count as equal: rounding, not a preference."""

BASELINES = ("group", "leave_one_out")
"""What a reward is compared with: the mean of its group, or that of its siblings alone."""

_SCALES = {True: "group", False: "none", "group": "group", "batch": "batch", "none": "none"}


def group_advantages(
    rewards: Tensor,
    scale_rewards: str | bool = "group",
    live: Tensor | None = None,
    eps: float = STD_EPSILON,
    baseline: str = "group",
) -> Tensor:
    """rewards [P, G] (prompts x completions) -> advantages [P, G]; the live ones of each row sum to zero.

    live [P, G] bool marks the completions that have a reward (None: those that are not NaN); the others get advantage 0
    and count in no mean and no std. Equal rewards, or fewer than two live completions, give a row of exact zeros: such
    a group teaches nothing. The std divides by count - 1, as TRL's does; "batch" takes it over every live reward, so
    pass the rewards of all ranks. True means "group", False "none". baseline "leave_one_out" subtracts from each reward
    the mean of its live siblings without itself (RLOO), which makes the advantages of n live ones n / (n - 1) times as
    large. Raises ValueError when G < 2, for an unknown scale_rewards or baseline, and for a live reward that is not
    finite.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), scale_rewards="none")
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000]])
    >>> group_advantages(torch.tensor([[3.0, 0.0, 0.0]]), scale_rewards="none", baseline="leave_one_out")
    tensor([[ 3.0000, -1.5000, -1.5000]])
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be {' or '.join(map(repr, BASELINES))}, got {baseline!r}")
    scale, live = _checked(rewards, scale_rewards, live)
    rewards = rewards.masked_fill(~live, 0.0)
    centered = (rewards - _live_mean(rewards, live)).masked_fill(~live, 0.0)
    # A mean rounds, so equal rewards would leave 1e-7, and a std near 0 would turn that into an advantage.
    centered = centered.masked_fill(~teaches(rewards, live)[:, None], 0.0)
    if baseline == "leave_one_out":  # r - (n mean - r) / (n - 1)
        count = live.sum(dim=1, keepdim=True)
        centered = centered * count / (count - 1).clamp(min=1)
    if scale == "none":
        return centered
    std = _live_std(rewards, live) if scale == "group" else _live_std(rewards.reshape(1, -1), live.reshape(1, -1))
    return centered / (std + eps)


def process_advantages(
    steps: Sequence[StepRewards | None], lengths: Sequence[int], scale_rewards: str | bool = "group"
) -> list[Tensor]:
    """Rewards of the steps of a group's completions -> an advantage for each of their tokens (DeepSeekMath 4.1.3).

    steps [G], None where a completion has none; lengths [G] in tokens -> G tensors, of T_i tokens. The step rewards of
    the whole group are compared with each other as `group_advantages` compares completions: less their mean, over their
    std unless scale_rewards is "none". A token's advantage is the sum over the steps that end at it or after it; so
    tokens behind the last step get 0, and steps of equal rewards exact zeros.

    >>> process_advantages([StepRewards((1, 3), (1.0, 0.0)), StepRewards((2,), (2.0,))], [5, 3], "none")
    [tensor([-1., -1., -1., -1.,  0.]), tensor([1., 1., 1.])]
    """
    every = torch.tensor([reward for some in steps if some for reward in some.rewards], dtype=torch.float64)
    scale = "none" if _SCALES.get(scale_rewards) == "none" else "group"
    compared = iter(group_advantages(every[None], scale)[0] if len(every) > 1 else torch.zeros_like(every))
    advantages = []
    for some, length in zip(steps, lengths, strict=True):
        at_end = torch.zeros(length)
        for end in some.ends if some else ():
            at_end[end] = next(compared)
        advantages.append(at_end.flip(0).cumsum(0).flip(0))
    return advantages


def token_advantages(
    advantages: Sequence[float],
    steps: Sequence[Sequence[StepRewards | None]],
    weights: Sequence[float],
    lengths: Sequence[int],
    scale_rewards: str | bool = "group",
) -> list[list[float]] | None:
    """A group's advantages by token: those of its completions [G] for all of their tokens, plus the process advantages
    of each function, steps [F][G], times its weight [F]. None where no function judged a step."""
    if not any(some for row in steps for some in row):
        return None
    totals = [torch.full((length,), advantage) for length, advantage in zip(lengths, advantages, strict=True)]
    for row, weight in zip(steps, weights, strict=True):
        parts = process_advantages(row, lengths, scale_rewards)
        totals = [total + weight * part for total, part in zip(totals, parts)]
    return [total.tolist() for total in totals]


def teaches(rewards: Tensor, live: Tensor | None = None, tolerance: float = EQUAL_REWARDS) -> Tensor:
    """rewards [P, G], live [P, G] -> bool [P]: True where two live rewards differ by more than tolerance.

    Any other group has no policy gradient. It still has a gradient of the KL when beta > 0.
    """
    live = ~rewards.isnan() if live is None else live
    highest = rewards.masked_fill(~live, -torch.inf).amax(dim=1)
    lowest = rewards.masked_fill(~live, torch.inf).amin(dim=1)
    return highest - lowest > tolerance


def combine_rewards(per_function: Tensor, weights: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
    """per_function [F, P, G] (NaN where a function returned None), weights [F] -> total [P, G], live [P, G] bool.

    The total is the weighted sum of the rewards that apply, as TRL's nansum. A completion to which none applies is not
    live, and its total is 0. Raises ValueError unless there is one weight a function.
    """
    weights = torch.as_tensor(weights, dtype=per_function.dtype, device=per_function.device)
    if weights.shape != per_function.shape[:1]:
        raise ValueError(
            f"rewards need one weight a function: got {per_function.shape[0]} functions and weights of shape "
            f"{tuple(weights.shape)}; list as many weights as reward functions"
        )
    return (per_function * weights[:, None, None]).nansum(dim=0), ~per_function.isnan().all(dim=0)


def _checked(rewards: Tensor, scale_rewards: str | bool, live: Tensor | None) -> tuple[str, Tensor]:
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(
            f"rewards must be floats [prompts, completions], got {rewards.dtype} of shape {tuple(rewards.shape)}"
        )
    if rewards.shape[1] < 2:
        raise ValueError(
            f"a group needs 2 or more completions to compare, got {rewards.shape[1]}; raise num_generations"
        )
    if scale_rewards not in _SCALES:
        raise ValueError(f"scale_rewards must be 'group', 'batch', 'none', True or False, got {scale_rewards!r}")
    live = ~rewards.isnan() if live is None else live
    if live.shape != rewards.shape or live.dtype != torch.bool:
        raise ValueError(
            f"live must be a bool tensor of the rewards' shape {tuple(rewards.shape)}, got {live.dtype} of shape "
            f"{tuple(live.shape)}; combine_rewards returns one"
        )
    if not rewards.masked_fill(~live, 0.0).isfinite().all():
        raise ValueError("a live completion has a reward that is NaN or infinite; a reward must be a number, or None")
    return _SCALES[scale_rewards], live


def _live_mean(rewards: Tensor, live: Tensor) -> Tensor:
    """Mean of the live rewards of each row, [P, 1]; rewards hold 0 where they are not live."""
    return rewards.sum(dim=1, keepdim=True) / live.sum(dim=1, keepdim=True).clamp(min=1)


def _live_std(rewards: Tensor, live: Tensor) -> Tensor:
    """Std of the live rewards of each row, [P, 1], dividing by count - 1; 0 where fewer than two are live."""
    squares = (rewards - _live_mean(rewards, live)).masked_fill(~live, 0.0).square()
    return (squares.sum(dim=1, keepdim=True) / (live.sum(dim=1, keepdim=True) - 1).clamp(min=1)).sqrt()
