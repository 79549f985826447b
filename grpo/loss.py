"""The GRPO losses: a clipped policy gradient with a KL penalty, in the variants that differ by what they divide by.

Sources: DeepSeekMath (arXiv:2402.03300) eq. 3 and 4 for the objective and its KL estimator, PPO (arXiv:1707.06347)
eq. 7 for the clipping, DAPO (arXiv:2503.14476) section 3.3 and Dr. GRPO (arXiv:2503.20783) for the divisors. Names and
defaults are TRL's; docs/losses.md holds each formula and each difference from TRL.

A loss here is a sum over one pack, divided by what the whole update counts (`Divisors`). So the packs and the ranks of
an update add up to the same gradient however they were split.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What the loss computes. Fields have TRL's names, meanings and, save use_bias_correction_kl, defaults."""

    loss_type: str = "dapo"
    """What a token's loss is and how they are averaged: "grpo", "bnpo", "dr_grpo", "dapo", "cispo" or "sapo"."""
    epsilon: float = 0.2
    """The ratio is clipped below at 1 - epsilon. PPO section 6.1 uses 0.2."""
    epsilon_high: float | None = None
    """The ratio is clipped above at 1 + epsilon_high; None takes epsilon. DAPO uses 0.28."""
    delta: float | None = None
    """Largest ratio for a negative advantage, which epsilon_high leaves unbounded; None is no bound. INTELLECT-2
    (arXiv:2505.07291) uses 4."""
    beta: float = 0.0
    """Weight of the KL to the reference policy; 0 leaves it out. DeepSeek-R1 uses 0.001, DeepSeekMath 0.04."""
    use_bias_correction_kl: bool = False
    """Multiply the KL by the ratio, as DeepSeek-V3.2 (arXiv:2512.02556) does. R1 does not; TRL does by default."""
    sapo_temperature_pos: float = 1.0
    """SAPO's temperature for positive advantages (arXiv:2511.20347); TRL's default."""
    sapo_temperature_neg: float = 1.05
    """For the others a little larger, as their gradients lift every token but the sampled one; TRL's default."""
    off_policy_mask_threshold: float | None = None
    """Leave out a completion of negative advantage whose mean log(old / policy) exceeds this (DeepSeek-V3.2,
    arXiv:2512.02556, eq. 9); None keeps all."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus, the mean entropy of the update's trained tokens in nats; negative: a penalty."""
    vllm_importance_sampling_correction: bool | None = None
    """Weigh each token by trainer / sampler, whatever the sampler. None: off; GRPOTrainer decides it before."""
    vllm_importance_sampling_mode: str = "sequence_mask"
    """One weight a token or, with the product of its tokens', a sequence; beyond its bounds it is cut to them
    (truncate) or 0 (mask): see `sampling_correction`."""
    vllm_importance_sampling_clip_max: float | None = 3.0
    """Upper bound of that weight; None: none."""
    vllm_importance_sampling_clip_min: float | None = None
    """Lower bound of that weight; None: none."""
    importance_sampling_level: str = "token"
    """One ratio a "token" (GRPO), or one a "sequence": the geometric mean of its tokens' (GSPO, arXiv:2507.18071)."""
    max_completion_length: int
    """Tokens. Divides the dr_grpo loss; no other type reads it."""

    def __post_init__(self):
        if self.loss_type not in AVERAGES:
            raise ValueError(f"loss_type must be one of {', '.join(sorted(AVERAGES))}; got {self.loss_type!r}")
        if self.importance_sampling_level not in ("token", "sequence"):
            raise ValueError(
                f"importance_sampling_level must be 'token' or 'sequence', got {self.importance_sampling_level!r}"
            )
        for name, value in {"epsilon": self.epsilon, "epsilon_high": self.upper_epsilon}.items():
            if not 0 < value < float("inf"):
                raise ValueError(
                    f"{name} must be a positive number, got {value}; PPO uses 0.2, DAPO 0.28 for the upper"
                )
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta must be 0 or a positive number, got {self.beta}; DeepSeek-R1 uses 0.001")
        if not abs(self.entropy_coef) < float("inf"):
            raise ValueError(f"entropy_coef must be a finite number, got {self.entropy_coef}; 0 leaves the bonus out")
        if self.delta is not None and not self.delta > 1 + self.upper_epsilon:
            raise ValueError(
                f"delta must exceed the upper clip, 1 + epsilon_high = {1 + self.upper_epsilon:g}, got {self.delta}: "
                "below it, positive advantages are clipped there too; INTELLECT-2 uses 4"
            )
        for name in ("sapo_temperature_pos", "sapo_temperature_neg", "off_policy_mask_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive number, got {value}")
        self._check_sampling_correction()
        if self.max_completion_length < 1:
            raise ValueError(f"max_completion_length must be 1 token or more, got {self.max_completion_length}")

    def _check_sampling_correction(self):
        mode, prefix = self.vllm_importance_sampling_mode, "vllm_importance_sampling"
        lowest, highest = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if mode not in CORRECTION_MODES:
            raise ValueError(f"{prefix}_mode must be one of {', '.join(CORRECTION_MODES)}; got {mode!r}")
        if highest is not None and not highest > 1:
            raise ValueError(f"{prefix}_clip_max must exceed 1, where the two agree, got {highest}; TRL's is 3")
        if lowest is not None and not 0 <= lowest < 1:
            raise ValueError(f"{prefix}_clip_min must lie in [0, 1), as 1 is where the two agree, got {lowest}")
        unbounded = lowest is None and highest is None
        if self.vllm_importance_sampling_correction and mode.endswith("truncate") and unbounded:
            raise ValueError(f"{prefix}_mode {mode!r} needs {prefix}_clip_max or _clip_min, got neither; TRL's is 3")

    @property
    def upper_epsilon(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


@dataclass(frozen=True, eq=False)
class LossInputs:
    """What the loss needs of one pack besides the policy. B completions of up to T tokens; log-probs in nats.

    A position where mask is False may hold anything, NaN too. Raises ValueError when shapes or the mask's type differ.
    """

    old_logprobs: Tensor | None
    """[B, T], under the policy that sampled. None: the policy has not moved since, so every ratio is 1, as in TRL."""
    ref_logprobs: Tensor | None
    """[B, T], under the frozen reference policy. None is fine while beta is 0."""
    advantages: Tensor
    """[B], or [B, T] where the tokens of a completion differ."""
    mask: Tensor
    """[B, T] bool, True on trained tokens."""
    sampling_logprobs: Tensor | None = None
    """[B, T], as the sampler computed them; NaN where it gave none. None is fine without a sampling correction."""

    def __post_init__(self):
        if self.mask.ndim != 2 or self.mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be a bool tensor [B, T], got {self.mask.dtype} of shape {tuple(self.mask.shape)}; "
                "use mask.bool()"
            )
        for name in ("old_logprobs", "ref_logprobs", "sampling_logprobs"):
            value = getattr(self, name)
            if value is not None and value.shape != self.mask.shape:
                raise ValueError(
                    f"{name} must have the mask's shape {tuple(self.mask.shape)}, got {tuple(value.shape)}"
                )
        if self.advantages.shape not in (self.mask.shape, self.mask.shape[:1]):
            raise ValueError(
                f"advantages must be [B] or [B, T] for a mask of shape {tuple(self.mask.shape)}, "
                f"got {tuple(self.advantages.shape)}"
            )


@dataclass(frozen=True, kw_only=True)
class Divisors:
    """What one update counts, over all its packs and all ranks, groups left out of the packs included.

    Leaving out a group that teaches nothing saves time; it must not change what the others weigh.
    """

    num_rows: int
    """Completions in this update, those without a trained token included. Divides grpo, and dr_grpo."""
    num_tokens: int
    """Trained tokens in this update. Divides bnpo, and the entropy bonus."""
    rollout_tokens_per_update: float
    """Trained tokens of the whole rollout / the updates that one pass over it makes. Divides dapo; equals num_tokens
    when a rollout serves one update. Several passes (num_iterations) do not change it."""

    def __post_init__(self):
        if min(self.num_rows, self.num_tokens, self.rollout_tokens_per_update) < 0:
            raise ValueError(f"divisors count rows and tokens, so none may be negative; got {self}")


def grpo_loss(
    policy_logprobs: Tensor, batch: LossInputs, divisors: Divisors, cfg: LossConfig, entropy: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """One pack's share of the update's loss: the negated clipped surrogate plus beta x KL (DeepSeekMath eq. 3 and 4).

    policy_logprobs [B, T] in nats carries the gradient, and so does entropy [B, T], the policy's at each token in nats,
    which only the bonus (`entropy_coef`) reads. The losses of an update's packs add up, over ranks too; where
    gradients are averaged over ranks (DDP, FSDP), multiply by the world size. The statistics are detached sums of one
    dtype, which add over packs and ranks as well: see `mean_statistics`. A pack without a trained token gives 0, with
    zero gradients. Raises ValueError for half precision, a shape that is not the mask's, and where beta, the
    entropy bonus or the sampling correction lacks what it needs.
    """
    _check(policy_logprobs, batch, cfg, entropy)
    mask = batch.mask
    old_logprobs = policy_logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    ratio = importance_ratio(policy_logprobs, old_logprobs, mask, cfg.importance_sampling_level)
    advantages = batch.advantages if batch.advantages.ndim == 2 else batch.advantages[:, None]
    advantages = advantages.expand_as(mask).masked_fill(~mask, 0.0)
    if cfg.loss_type == "cispo":
        per_token = -cispo_surrogate(ratio, advantages, policy_logprobs.masked_fill(~mask, 0.0), cfg)
    else:
        per_token = -SURROGATES.get(cfg.loss_type, clipped_surrogate)(ratio, advantages, cfg)
    sampler, correction = old_logprobs, None
    if cfg.vllm_importance_sampling_correction:
        assert batch.sampling_logprobs is not None  # or _check would have raised
        sampler = torch.where(batch.sampling_logprobs.isnan(), old_logprobs, batch.sampling_logprobs)
        correction = sampling_correction(old_logprobs, sampler, mask, cfg)
    if cfg.off_policy_mask_threshold is not None:
        near = near_policy(policy_logprobs, sampler, mask, cfg.off_policy_mask_threshold)
        per_token = per_token * (near | (advantages >= 0))
    if correction is not None:
        per_token = per_token * correction
    kl = None
    if cfg.beta > 0:
        assert batch.ref_logprobs is not None  # or _check would have raised
        kl = kl_to_reference(policy_logprobs, batch.ref_logprobs, mask)
        kl = kl * ratio if cfg.use_bias_correction_kl else kl
        per_token = per_token + cfg.beta * kl
    loss = AVERAGES[cfg.loss_type](per_token.masked_fill(~mask, 0.0), mask, divisors, cfg)
    statistics = _statistics(ratio, advantages, kl, mask, cfg)
    if correction is not None and batch.sampling_logprobs is not None:
        known = mask & ~batch.sampling_logprobs.isnan()
        statistics |= _sampling_statistics(old_logprobs - sampler, correction, known, mask)
    if cfg.entropy_coef:
        assert entropy is not None  # or _check would have raised
        statistics["policy_loss_sum"] = loss.detach()
        loss = loss - cfg.entropy_coef * mean_entropy(entropy, mask, divisors)
    return loss, statistics


def importance_ratio(policy_logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """policy / old: [B, T] for "token"; [B, 1] for "sequence", the geometric mean over a row's tokens (of none: 1)."""
    # Mask before exp(): a padded position may hold any value, and inf * 0 would put NaN in the gradient.
    log_ratio = (policy_logprobs - old_logprobs).masked_fill(~mask, 0.0)
    if level == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return log_ratio.exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, cfg: LossConfig) -> Tensor:
    """PPO's pessimistic surrogate (eq. 7), [B, T], to be maximised; delta bounds the ratio of negative advantages."""
    clipped = ratio.clamp(1 - cfg.epsilon, 1 + cfg.upper_epsilon)
    bounded = ratio if cfg.delta is None else ratio.clamp(max=cfg.delta)
    return torch.minimum(bounded * advantages, clipped * advantages)


def cispo_surrogate(ratio: Tensor, advantages: Tensor, policy_logprobs: Tensor, cfg: LossConfig) -> Tensor:
    """MiniMax-M1 (arXiv:2506.13585): the weight is clipped and not the update, so every token keeps a gradient.

    As in TRL, the weight is at most epsilon_high itself (ScaleRL, arXiv:2510.13786, uses 5), and has no lower clip.
    """
    return ratio.clamp(max=cfg.upper_epsilon).detach() * advantages * policy_logprobs


def sapo_surrogate(ratio: Tensor, advantages: Tensor, cfg: LossConfig) -> Tensor:
    """SAPO (arXiv:2511.20347): a sigmoid takes the clip's place, with the ratio's own gradient where that is 1."""
    temperature = torch.full_like(advantages, cfg.sapo_temperature_neg)
    temperature = temperature.masked_fill(advantages > 0, cfg.sapo_temperature_pos)
    return torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * advantages


@torch.no_grad()
def near_policy(policy_logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """[B, 1] bool: whether the policy is still near the one that sampled, by the mean log(old / policy) of a row."""
    log_ratio = (old_logprobs - policy_logprobs).masked_fill(~mask, 0.0)
    distance = log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return distance <= threshold


@torch.no_grad()
def sampling_correction(old_logprobs: Tensor, sampling_logprobs: Tensor, mask: Tensor, cfg: LossConfig) -> Tensor:
    """What a token's loss is weighed with because the sampler's numbers are not the trainer's: old / sampling, bounded.

    [B, T] in the token modes; [B, 1] in the sequence modes, the product over a row's tokens. Truncating is from "Your
    Efficient RL Framework Secretly Brings You Off-Policy RL Training" (Yao et al. 2025), masking from "When Speed Kills
    Stability" (Liu et al. 2025) and IcePop (arXiv:2510.18855). Modes and bounds are TRL's.
    """
    log_ratio = (old_logprobs - sampling_logprobs).masked_fill(~mask, 0.0)
    level, _, bounding = cfg.vllm_importance_sampling_mode.partition("_")
    weight = (log_ratio.sum(dim=1, keepdim=True) if level == "sequence" else log_ratio).exp()
    lowest, highest = cfg.vllm_importance_sampling_clip_min, cfg.vllm_importance_sampling_clip_max
    lowest, highest = -torch.inf if lowest is None else lowest, torch.inf if highest is None else highest
    if bounding == "truncate":
        return weight.clamp(lowest, highest)
    return weight.masked_fill((weight < lowest) | (weight > highest), 0.0)


def kl_to_reference(policy_logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """KL(policy || reference) estimated at each token, [B, T] in nats, never negative: k3, DeepSeekMath eq. 4."""
    log_ratio = (ref_logprobs - policy_logprobs).masked_fill(~mask, 0.0)
    return log_ratio.exp() - log_ratio - 1


def mean_entropy(entropy: Tensor, mask: Tensor, divisors: Divisors) -> Tensor:
    """A pack's share of the mean entropy of the update's trained tokens, in nats, with gradient: the entropy bonus.

    A3C (arXiv:1602.01783) section 4 adds it against early collapse. As in TRL it is a mean over tokens whatever the
    loss_type, so entropy_coef always means the same.
    """
    return entropy.masked_fill(~mask, 0.0).sum() / max(divisors.num_tokens, 1)


def mean_statistics(sums: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Summed statistics of an update's packs -> TRL's metrics. An update without a trained token reads as ratios of 1.

    "kl" is there when beta > 0, "policy_loss", the loss without its bonus, when entropy_coef is not 0, and sampling/*
    when the sampler's mismatch is corrected. clip_ratio/* are shares of tokens, or of completions when the ratio is one
    a sequence.
    """
    total = {name: float(value) for name, value in sums.items()}
    num_ratios = max(total["num_ratios"], 1.0)
    low, high = total["low_clipped_sum"] / num_ratios, total["high_clipped_sum"] / num_ratios
    metrics = {
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low + high,
        "ratio/mean": 1 + total["ratio_excess_sum"] / num_ratios,
    }
    if "kl_sum" in total:
        metrics["kl"] = total["kl_sum"] / max(total["num_tokens"], 1.0)
    if "num_sampling_ratios" in total:
        difference, excess = total["sampling_difference_sum"], total["sampling_ratio_excess_sum"]
        metrics["sampling/sampling_logp_difference/mean"] = difference / max(total["num_sampling_logprobs"], 1.0)
        metrics["sampling/importance_sampling_ratio/mean"] = 1 + excess / max(total["num_sampling_ratios"], 1.0)
    if "policy_loss_sum" in total:
        metrics["policy_loss"] = total["policy_loss_sum"]
    return metrics


def _mean_of_row_means(per_token: Tensor, mask: Tensor, divisors: Divisors, cfg: LossConfig) -> Tensor:
    """DeepSeekMath eq. 3: 1/G sum_i 1/|o_i| sum_t, so a long completion's tokens weigh less."""
    return (per_token.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum() / max(divisors.num_rows, 1)


def _mean_of_update_tokens(per_token: Tensor, mask: Tensor, divisors: Divisors, cfg: LossConfig) -> Tensor:
    return per_token.sum() / max(divisors.num_tokens, 1)


def _mean_of_rollout_tokens(per_token: Tensor, mask: Tensor, divisors: Divisors, cfg: LossConfig) -> Tensor:
    """DAPO section 3.3: every token of the rollout weighs the same, whichever update it falls in."""
    # Not clamped at 1: a rollout of few tokens that serves many updates has less than one an update.
    return per_token.sum() / (divisors.rollout_tokens_per_update or 1.0)


def _mean_of_longest(per_token: Tensor, mask: Tensor, divisors: Divisors, cfg: LossConfig) -> Tensor:
    """Dr. GRPO: a constant divisor, so the length of a completion changes nothing."""
    return per_token.sum() / (max(divisors.num_rows, 1) * cfg.max_completion_length)


CORRECTION_MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""What vllm_importance_sampling_mode may be."""

SURROGATES: dict[str, Callable[[Tensor, Tensor, LossConfig], Tensor]] = {"sapo": sapo_surrogate}
"""loss_type -> its objective of ratio and advantages, where that is not PPO's."""

AVERAGES: dict[str, Callable[[Tensor, Tensor, Divisors, LossConfig], Tensor]] = {
    "bnpo": _mean_of_update_tokens,
    "cispo": _mean_of_rollout_tokens,
    "dapo": _mean_of_rollout_tokens,
    "dr_grpo": _mean_of_longest,
    "grpo": _mean_of_row_means,
    "sapo": _mean_of_row_means,
}
"""loss_type -> what turns the token losses [B, T], 0 where mask is False, into this pack's share of the loss."""


@torch.no_grad()
def _statistics(
    ratio: Tensor, advantages: Tensor, kl: Tensor | None, mask: Tensor, cfg: LossConfig
) -> dict[str, Tensor]:
    """Sums over the pack. A token weighs 1, or 1/|o_i| where its completion has a single ratio."""
    weight = mask.to(ratio.dtype)
    num_tokens = weight.sum()
    if cfg.importance_sampling_level == "sequence":
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    low_clipped = (ratio < 1 - cfg.epsilon) & (advantages < 0)
    high_clipped = (ratio > 1 + cfg.upper_epsilon) & (advantages > 0)
    if cfg.loss_type == "cispo":  # a weight is clipped above alone, whatever the advantage's sign
        low_clipped, high_clipped = torch.zeros_like(low_clipped), (ratio > cfg.upper_epsilon).expand_as(mask)
    sums = {
        "num_tokens": num_tokens,
        "num_ratios": weight.sum(),
        "ratio_excess_sum": ((ratio - 1) * weight).sum(),
        "low_clipped_sum": (low_clipped * weight).sum(),
        "high_clipped_sum": (high_clipped * weight).sum(),
    }
    return sums if kl is None else sums | {"kl_sum": kl.sum()}


@torch.no_grad()
def _sampling_statistics(log_ratio: Tensor, correction: Tensor, known: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Sums over the pack: |log(old / sampling)| of the tokens that the sampler gave one, and the weights less 1."""
    counted = mask if correction.shape == mask.shape else mask.any(dim=1, keepdim=True)
    return {
        "num_sampling_logprobs": known.sum().to(correction.dtype),
        "sampling_difference_sum": log_ratio.masked_fill(~known, 0.0).abs().sum(),
        "num_sampling_ratios": counted.sum().to(correction.dtype),
        "sampling_ratio_excess_sum": (correction - 1).masked_fill(~counted, 0.0).sum(),
    }


def _check(policy_logprobs: Tensor, batch: LossInputs, cfg: LossConfig, entropy: Tensor | None) -> None:
    if policy_logprobs.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"policy_logprobs must be float32 or float64, got {policy_logprobs.dtype}, in which ratios move in coarse "
            "steps (bfloat16: 0.8 % at 1 nat); take the log-softmax in float32"
        )
    if policy_logprobs.shape != batch.mask.shape:
        raise ValueError(
            f"policy_logprobs must have the mask's shape {tuple(batch.mask.shape)}, got {tuple(policy_logprobs.shape)}"
        )
    if cfg.beta > 0 and batch.ref_logprobs is None:
        raise ValueError(
            f"beta = {cfg.beta} needs ref_logprobs, got None; pass the reference's log-probs, or set beta to 0"
        )
    if cfg.vllm_importance_sampling_correction and batch.sampling_logprobs is None:
        raise ValueError(
            "vllm_importance_sampling_correction needs sampling_logprobs, got None; pass the sampler's log-probs, or "
            "set it to False"
        )
    if cfg.entropy_coef and (entropy is None or entropy.shape != batch.mask.shape):
        raise ValueError(
            f"entropy_coef = {cfg.entropy_coef} needs entropy of the mask's shape {tuple(batch.mask.shape)}, got "
            f"{None if entropy is None else tuple(entropy.shape)}; pass the policy's entropy, or set entropy_coef to 0"
        )
