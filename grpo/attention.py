"""Attention over packs whose prompts are shared, and over decoding caches: what lets one row hold many completions.

A pack's row holds groups one behind the other, each as `prompt[:-1]`, then a branch `prompt[-1] + completion[:-1]` for
every completion. A branch sees its group's prompt and itself, never its siblings, so each prompt is computed once and
its gradient is the sum of what its copies would have got (exact: the copies are the same function of the same inputs).

`Spans` says who sees whom by three columns for each position; from them come FlexAttention's block mask on a GPU
(arXiv:2412.05496) and a boolean mask for SDPA on a CPU, where FlexAttention has no backward.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The attention implementation registered here: FlexAttention for block masks, SDPA for all else."""
BLOCK = 128
"""Tokens of FlexAttention's sparse blocks; a row's width on a GPU is a multiple of it."""
REPLACES = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Implementations that compute what `packed` computes; any other was asked for on purpose and stays."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Who sees whom in R rows of W positions; each field [R, W], int32, a column of the same row.

    Position q sees k where k <= q and (start <= k < prompt_end, or branch <= k).
    """

    start: Tensor
    """Where the position's group begins."""
    prompt_end: Tensor
    """Where the shared part of its group ends."""
    branch: Tensor
    """Where its own branch begins; for the shared part, where the group begins; for padding, the position itself."""

    def to(self, device: torch.device | str) -> Spans:
        return Spans(self.start.to(device), self.prompt_end.to(device), self.branch.to(device))


def dense_mask(spans: Spans) -> Tensor:
    """[R, 1, W, W] bool, True where a query (row) sees a key (column)."""
    width = spans.start.shape[1]
    query, key = torch.arange(width, device=spans.start.device)[:, None], torch.arange(width, device=spans.start.device)
    start, prompt_end, branch = (column[:, :, None] for column in (spans.start, spans.prompt_end, spans.branch))
    return ((key <= query) & (((key >= start) & (key < prompt_end)) | (key >= branch)))[:, None]


def block_mask(spans: Spans) -> BlockMask:
    """The same for FlexAttention. Rows must be a multiple of BLOCK wide.

    Which blocks are looked at follows from the spans' extremes in each block of queries, so no [W, W] tensor is made; a
    block that holds no visible pair may be looked at, one that does is never left out.
    """
    start, prompt_end, branch = spans.start, spans.prompt_end, spans.branch
    rows, width = start.shape
    if width % BLOCK:
        raise ValueError(f"a block mask needs rows of a multiple of {BLOCK} positions, got {width}")

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        in_prompt = (key >= start[row, query]) & (key < prompt_end[row, query])
        return (key <= query) & (in_prompt | (key >= branch[row, query]))

    first = torch.arange(0, width, BLOCK, device=start.device, dtype=start.dtype)
    last = first + BLOCK - 1
    by_block = [column.view(rows, -1, BLOCK) for column in (start, prompt_end, branch)]
    lowest_start, _, lowest_branch = (column.amin(-1)[:, :, None] for column in by_block)
    highest_start, highest_end, highest_branch = (column.amax(-1)[:, :, None] for column in by_block)
    lowest_end = by_block[1].amin(-1)[:, :, None]
    causal = first <= first[:, None]
    touched = causal & (((last >= lowest_start) & (first < highest_end)) | (last >= lowest_branch))
    wholly = (last < first[:, None]) & (((first >= highest_start) & (last < lowest_end)) | (first >= highest_branch))
    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~wholly), *_ordered(touched & wholly), BLOCK_SIZE=BLOCK, mask_mod=sees
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[R, Q, K] bool -> how many key blocks each query block has, [R, 1, Q], and which, [R, 1, Q, K]."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention protocol: query [B, H, Q, D], key and value [B, H_kv, K, D] -> [B, Q, H, D]."""
    if isinstance(attention_mask, BlockMask):
        flex = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
        # One key head a query head: in the backward pass the blocks of a shared prompt, which every branch sees, would
        # otherwise be worked off by H / H_kv times fewer threads and hold up all others.
        key, value = _repeat_heads(key, query.shape[1]), _repeat_heads(value, query.shape[1])
        return flex(query, key, value, block_mask=attention_mask, scale=scaling).transpose(1, 2).contiguous(), None
    if query.shape[2] == 1 and attention_mask is not None and dropout == 0:
        return _one_query(query, key, value, attention_mask, scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _one_query(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float | None) -> Tensor:
    """Decoding: the heads that share keys become the queries of one attention, so that no key is copied."""
    batch, heads, _, _ = query.shape
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1], query.shape[3])
    if attention_mask.shape[1] != 1:
        attention_mask = attention_mask.reshape(batch, *grouped.shape[1:3], -1)
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(batch, 1, heads, value.shape[3])


def _repeat_heads(states: Tensor, heads: int) -> Tensor:
    batch, kv_heads, length, size = states.shape
    if kv_heads == heads:
        return states
    return (
        states[:, :, None].expand(batch, kv_heads, heads // kv_heads, length, size).reshape(batch, heads, length, size)
    )


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def use_packed_attention(model: PreTrainedModel) -> str | None:
    """Let the model attend through `packed_attention`. Returns None, or why prompts cannot be shared with this model.

    Decided by the architecture (every layer attends to all that came before), then by trying it: two prompts with two
    short completions each must get the log-probs that they get one by one.
    """
    if reason := cannot_share_prompts(model):
        return reason
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    if any(parameter.is_meta or parameter.numel() == 0 for parameter in model.parameters()):
        return None  # the weights are not here to be tried
    if error := _sharing_error(model):
        model.set_attn_implementation(before)
    return error


def cannot_share_prompts(model: PreTrainedModel) -> str | None:
    """Why by its architecture a model cannot share prompts, or take masks of ours at all; None if it can."""
    config = model.config.get_text_config()
    implementation = model.config._attn_implementation
    if implementation == PACKED:
        return None
    if implementation not in REPLACES:
        return f"its attention implementation is {implementation!r}; load it with sdpa to share prompts"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} does not take other attention functions"
    if getattr(config, "attention_dropout", 0.0):
        return f"it drops attention weights in training (attention_dropout {config.attention_dropout})"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers are not all full attention but {', '.join(sorted(kinds))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"it attends to a sliding window of {config.sliding_window} tokens"
    return None


@torch.no_grad()
def _sharing_error(model: PreTrainedModel) -> str | None:
    """What is wrong with the log-probs of two completions that share a prompt, on a small example; None if nothing is.

    Bit for bit they must not depend on each other; within rounding they must be what they are with a prompt of their
    own.
    """
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    ids = torch.arange(7, 19, device=device) % vocabulary  # a prompt of 4 tokens, two completions of 4
    prompt, first, second = ids[:4], ids[4:8], ids[8:12]
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6]], device=device)
    columns = [torch.zeros(11), torch.full((11,), 3), torch.tensor([0, 0, 0, 3, 3, 3, 3, 7, 7, 7, 7])]
    mask = dense_mask(Spans(*(column.to(device, torch.int32)[None] for column in columns)))

    def shared(sibling: Tensor) -> Tensor:
        row = torch.cat([prompt[:3], prompt[3:], sibling[:3], prompt[3:], second[:3]])
        output = model(input_ids=row[None], position_ids=positions, attention_mask=mask, use_cache=False)
        return output.logits[0, 7:].float().log_softmax(-1)

    training = model.training
    model.eval()
    try:
        logprobs = shared(first)
        if not torch.equal(logprobs, shared(first.flip(0))):
            return "its completions see each other, so it does not follow masks"
        alone = model(input_ids=torch.cat([prompt, second[:3]])[None], use_cache=False).logits[0, 3:]
    finally:
        model.train(training)
    difference = (alone.float().log_softmax(-1) - logprobs).abs().max().item()
    if difference > (1e-2 if alone.dtype in (torch.float32, torch.float64) else 0.5):
        return f"its log-probs change by {difference:.2g} nats when a prompt is shared, so it does not follow positions"
    return None


def to_block_width(width: int) -> int:
    """The next multiple of BLOCK."""
    return -(-width // BLOCK) * BLOCK
