"""Log-probs among the tokens that sampling kept: the policy is compared on the action space that it was sampled from.

Top-k, top-p and min-p cut the distribution, and a ratio of whole distributions then compares other actions than were
sampled. DeepSeek-V3.2 (arXiv:2512.02556) keeps the mask of each sampled token and applies it in training: log p(token)
less the log of the kept tokens' p. TRL's fused head gives no logits, so this one takes its place where a pack says what
was kept.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

CHUNK = 512
"""Tokens whose logits exist at once: 4 bytes x 512 x 150,000 tokens of vocabulary are 0.3 GB, some copies on top."""
SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""What a model's config calls a change to its logits after the projection."""


def kept_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, kept_ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """hidden [N, H], weight [V, H], bias [V], targets [N], kept_ids [N, K] (-1: none) -> log-probs and entropies, [N].

    Log-probs in nats of the targets among the kept tokens, entropies of the whole distribution, both at the temperature
    and in float32. Logits are computed anew in the backward pass, a chunk at a time, so no [N, V] is kept.
    """
    parts = [
        checkpoint(
            _chunk, hidden[i : i + CHUNK], weight, bias, targets[i : i + CHUNK], kept_ids[i : i + CHUNK], temperature,
            use_reentrant=False,
        )
        for i in range(0, max(len(hidden), 1), CHUNK)
    ]  # fmt: skip
    logprobs, entropies = zip(*parts)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, kept_ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
    logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    kept = logits.gather(-1, kept_ids.clamp(min=0).long()).masked_fill(kept_ids < 0, -torch.inf)
    logprobs = logits.gather(-1, targets[:, None])[:, 0] - kept.logsumexp(dim=-1)
    whole = logits.log_softmax(dim=-1)
    return logprobs, -(whole.exp() * whole).sum(dim=-1)


def add_kept_tokens_head(model: PreTrainedModel, temperature: float, cast_lm_head_to_fp32: bool = False) -> None:
    """Let `model(…, shift_labels=…, kept_ids=…)` compute log-probs among kept_ids [R, W, K] in its own forward pass.

    Without kept_ids the forward is the one before. Raises ValueError for a model that changes its logits after the
    projection.
    """
    config = model.config.get_text_config()
    scaled = [name for name in SCALES if getattr(config, name, None) not in (None, 1.0)]
    if scaled:
        raise ValueError(f"keep_sampling_mask needs plain logits, and this model's config has {', '.join(scaled)}")
    before = model.forward

    def forward(
        self: PreTrainedModel,
        *args: Any,
        kept_ids: Tensor | None = None,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if kept_ids is None or shift_labels is None:
            return before(*args, **kwargs | ({} if shift_labels is None else {"shift_labels": shift_labels}))
        kwargs.pop("fused_lm_head", None)
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        weight, bias = (x.full_tensor() if isinstance(x, DTensor) else x for x in (head.weight, head.bias))
        mask = shift_labels != -100
        picked = hidden[mask].float() if cast_lm_head_to_fp32 else hidden[mask]
        autocast = torch.is_autocast_enabled(hidden.device.type) and not cast_lm_head_to_fp32
        with torch.autocast(hidden.device.type, enabled=autocast), maybe_gather_lm_head_ctx(weight, bias):
            scored = kept_logprobs(picked, weight, bias, shift_labels[mask], kept_ids[mask], temperature)
        logprobs, entropy = (x.new_zeros(mask.shape).masked_scatter(mask, x) for x in scored)
        return FusedCausalLMOutput(log_probs=logprobs, entropy=entropy, label_mask=mask)

    model.forward = types.MethodType(forward, model)
