"""What a rollout and an update show, as numbers under TRL's names: docs/metrics.md is the table of them.

Pure functions over plain values, so that every rank's share can be gathered first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from grpo.loss import mean_statistics
from grpo.rollouts import Group, RolloutClock


def summary(group: Group) -> dict[str, Any]:
    """What the metrics need of a group, small enough to be sent between ranks."""
    return {
        "lengths": [len(c.token_ids) for c in group.completions],
        "truncated": [c.truncated for c in group.completions],
        "prompt_length": len(group.prompt_ids),
        "rewards": group.rewards,
        "totals": group.totals,
        "live": group.live,
        "teaches": group.teaches,
    }


def num_sampled_tokens(groups: Sequence[dict[str, Any]]) -> int:
    """Tokens of all completions, and of a prompt for each."""
    return sum(sum(group["lengths"]) + group["prompt_length"] * len(group["lengths"]) for group in groups)


def rollout_metrics(
    groups: Sequence[dict[str, Any]], reward_names: Sequence[str], clock: RolloutClock
) -> dict[str, float]:
    """Of all groups of a rollout, as `summary` gives them. Lengths are in tokens, times in seconds."""
    lengths = [n for group in groups for n in group["lengths"]]
    finished = [n for group in groups for n, cut in zip(group["lengths"], group["truncated"]) if not cut]
    totals = [t for group in groups for t, live in zip(group["totals"], group["live"]) if live]
    metrics = {
        "completions/mean_length": mean(lengths),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": 1 - len(finished) / len(lengths),
        "reward": mean(totals),
        "reward_std": mean([std(group["totals"], group["live"]) for group in groups]),
        "frac_reward_zero_std": mean([not group["teaches"] for group in groups]),
        "frac_masked": mean([not live for group in groups for live in group["live"]]),
        "time/sample": clock.waiting_seconds,
        "time/score": clock.scoring_seconds,
        "tokens_per_second": sum(lengths) / max(clock.sampling_seconds, 1e-9),
    }
    if finished:
        metrics["completions/mean_terminated_length"] = mean(finished)
    for name in reward_names:
        values = [v for group in groups for v in group["rewards"][name] if v is not None]
        if values:  # a reward that applied to none of them is no reward of 0
            metrics |= {f"rewards/{name}/mean": mean(values), f"rewards/{name}/std": std(values)}
    return metrics


def update_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Of an update's statistics, summed over packs and ranks."""
    totals = dict(sums)
    entropy_sum = totals.pop("entropy_sum")
    rows, skipped, computed = (totals.pop(f"{name}_tokens") for name in ("padded", "skipped", "computed"))
    metrics = mean_statistics(totals)
    if totals["num_tokens"]:
        metrics["entropy"] = entropy_sum / totals["num_tokens"]
    if rows:
        metrics |= {
            "compute/skipped_groups": skipped / rows,
            "compute/shared_prompts": (rows - skipped - computed) / rows,
        }
    return metrics


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def std(values: Sequence[float], live: Sequence[bool] | None = None) -> float:
    """Sample std (count - 1) of the live values; 0 for fewer than two."""
    kept = list(values) if live is None else [value for value, alive in zip(values, live) if alive]
    if len(kept) < 2:
        return 0.0
    center = mean(kept)
    return math.sqrt(sum((value - center) ** 2 for value in kept) / (len(kept) - 1))
