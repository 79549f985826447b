"""Attention over packs whose prompts are shared, and over decoding caches: what lets one row hold many completions.

A pack's row holds bundles one behind the other, each as `prompt[:-1]`, then a branch `prompt[-1] + completion[:-1]` for
every completion. A branch sees its bundle's prompt and itself, never its siblings, so each prompt is computed once and
its gradient is the sum of what its copies would have got (exact: the copies are the same function of the same inputs).

Two forms say who sees whom. On a GPU `Segments` cut a row into the prompts and branches, each a sequence of its own for
FlashAttention (arXiv:2307.08691): a branch brings its own copy of the prompt's keys and values, the only thing that is
repeated. On a CPU a boolean mask (`Spans`) goes to SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The attention implementation registered here: FlashAttention for segments, SDPA for all else."""
PROCESSORS = 132
"""Of an H100 or H200. While decoding each attends to one row's keys of one head."""
SPLIT_COLUMNS = 1024
"""Rows of fewer keys are not worth being split."""
REPLACES = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Implementations that compute what `packed` computes; any other was asked for on purpose and stays."""


class BundleLengths(NamedTuple):
    """A prompt's shared part and the branches behind it, by their lengths in tokens."""

    shared: int
    branches: Sequence[int]


@dataclass(frozen=True, eq=False)
class Spans:
    """Who sees whom in R rows of W positions; each field [R, W], int32, a column of the same row.

    Position q sees k where k <= q and (start <= k < prompt_end, or branch <= k).
    """

    start: Tensor
    """Where the position's bundle begins."""
    prompt_end: Tensor
    """Where the shared part of its bundle ends."""
    branch: Tensor
    """Where its own branch begins; for the shared part, where the bundle begins; for padding, the position itself."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[BundleLengths]], width: int) -> Spans:
        columns = np.broadcast_to(np.arange(width, dtype=np.int32), (3, len(rows), width)).copy()
        for r, row in enumerate(rows):
            begin = 0
            for shared, branches in row:
                at = begin + shared
                ends = at + np.cumsum(branches, dtype=np.int32)
                end = int(ends[-1])
                columns[0, r, begin:end] = begin
                columns[1, r, begin:end] = at
                columns[2, r, begin:at] = begin
                columns[2, r, at:end] = np.repeat(ends - branches, branches)
                begin = end
        return cls(*torch.from_numpy(columns))

    def to(self, device: torch.device | str) -> Spans:
        return Spans(self.start.to(device), self.prompt_end.to(device), self.branch.to(device))


def dense_mask(spans: Spans) -> Tensor:
    """[R, 1, W, W] bool, True where a query (row) sees a key (column)."""
    width = spans.start.shape[1]
    query, key = torch.arange(width, device=spans.start.device)[:, None], torch.arange(width, device=spans.start.device)
    start, prompt_end, branch = (column[:, :, None] for column in (spans.start, spans.prompt_end, spans.branch))
    return ((key <= query) & (((key >= start) & (key < prompt_end)) | (key >= branch)))[:, None]


@dataclass(frozen=True, eq=False)
class Segments:
    """One row of W positions as N sequences with keys of their own, K in all: prompts, branches, and the padding.

    A branch's keys are its prompt's and its own, so that its last query sees its last key: what FlashAttention calls a
    causal mask aligned to the lower right.
    """

    keys: Tensor
    """[K], the position that each key is a copy of."""
    own: Tensor
    """[W], for each position its copy among the keys of its own sequence."""
    shared: Tensor
    """[S], the positions of prompts, those that branches copy; the last two stand for none."""
    copies: Tensor
    """[S, C], the copies that branches made of them; `copied` is False where a prompt has fewer than C branches."""
    copied: Tensor
    query_ends: Tensor
    """[N + 1] int32, where each sequence ends among the queries, from 0."""
    key_ends: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, row: Sequence[BundleLengths], width: int) -> Segments:
        """Raises ValueError when the bundles take more than `width` positions."""
        used = sum(shared + sum(branches) for shared, branches in row)
        if used > width:
            raise ValueError(f"bundles of {used} positions do not fit into a row of {width}")
        keys: list[NDArray] = []
        own = np.empty(width, dtype=np.int64)
        shared_positions: list[NDArray] = []
        copies: list[NDArray] = []
        lengths: list[tuple[int, int]] = []
        begin = total = 0

        def sequence(start: int, end: int, prompt: NDArray) -> None:
            nonlocal total
            keys.extend((prompt, np.arange(start, end)))
            own[start:end] = np.arange(total + len(prompt), total + len(prompt) + end - start)
            lengths.append((end - start, len(prompt) + end - start))
            total += lengths[-1][1]

        # Two columns and two rows at least, as torch.compile would compile anew for none or one.
        most = max([2, *(len(branches) for _, branches in row)])
        for shared, branches in row:
            at = begin + shared
            prompt = np.arange(begin, at)
            if shared:
                sequence(begin, at, prompt[:0])
            copied = np.full((shared, most), -1, dtype=np.int64)
            for number, length in enumerate(branches):
                copied[:, number] = np.arange(total, total + shared)
                sequence(at, at + length, prompt)
                at += length
            shared_positions.append(prompt)
            copies.append(copied)
            begin = at
        if begin < width:
            sequence(begin, width, np.arange(0))
        ends = np.cumsum([(0, 0), *lengths], axis=0, dtype=np.int32)
        unshared = np.full(2, width - 1)  # a position that no branch copies
        table = torch.from_numpy(np.concatenate([*copies, np.full((2, most), -1, dtype=np.int64)]))
        return cls(
            keys=torch.from_numpy(np.concatenate(keys).astype(np.int64)),
            own=torch.from_numpy(own),
            shared=torch.from_numpy(np.concatenate([*shared_positions, unshared])),
            copies=table.clamp(min=0),
            copied=table >= 0,
            query_ends=torch.from_numpy(ends[:, 0].copy()),
            key_ends=torch.from_numpy(ends[:, 1].copy()),
            longest_query=max(queries for queries, _ in lengths),
            longest_key=max(count for _, count in lengths),
        )

    def to(self, device: torch.device | str) -> Segments:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Segments(**vars(self) | moved)


@dataclass(frozen=True, eq=False)
class RowLengths:
    """B rows that decode: each looks at the first `lengths` of its `columns` keys."""

    lengths: Tensor
    """[B] int32."""
    query_ends: Tensor
    """[B + 1] int32, as in Segments."""
    key_ends: Tensor
    columns: int
    queries: int
    """The heads that share keys become as many queries of one sequence. 1: they stay heads, and FlashAttention splits
    long rows among the GPU's processors, which pays where there are few rows."""

    @classmethod
    def of(cls, last: Tensor, num_heads: int, columns: int, kv_heads: int) -> RowLengths:
        """last [B]: the column of each row's query."""
        many = len(last) * kv_heads >= PROCESSORS // 2 or columns <= SPLIT_COLUMNS
        queries = num_heads // kv_heads if many else 1
        ends = torch.arange(len(last) + 1, dtype=torch.int32, device=last.device)
        return cls((last + 1).int(), ends * queries, ends * columns, columns, queries)


class _CopyPrompts(torch.autograd.Function):
    """[W, H, D] -> [K, H, D]: prompts once for each branch. Its gradient sums the copies in float32 and in order, where
    indexing's own would add them by atomics, in any order and in the tensor's precision."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, keys: Tensor, own: Tensor, shared: Tensor, copies: Tensor, copied: Tensor
    ) -> Tensor:
        ctx.save_for_backward(own, shared, copies, copied)
        return states[keys]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        own, shared, copies, copied = ctx.saved_tensors
        total, wide = grad[own], torch.promote_types(grad.dtype, torch.float32)
        sums = grad[copies].to(wide).masked_fill(~copied[:, :, None, None], 0.0).sum(dim=1)
        total = total.index_copy(0, shared, (total[shared] + sums).to(total.dtype))
        return total, None, None, None, None, None


def _segment_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    """query [1, H, W, D], key and value [1, H_kv, W, D] -> [1, W, H, D]."""
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if torch.is_autocast_enabled(query.device.type):  # rotary frequencies in float32 raise what autocast had lowered
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    table = (segments.keys, segments.own, segments.shared, segments.copies, segments.copied)
    key, value = _CopyPrompts.apply(key, *table), _CopyPrompts.apply(value, *table)
    attend = _flash if _flash_takes(query) else _one_by_one
    return attend(query, key, value, segments, scaling)[None]


def _flash(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    ends = (segments.query_ends, segments.key_ends, segments.longest_query, segments.longest_key)
    return torch.ops.aten._flash_attention_forward(query, key, value, *ends, 0.0, True, False, scale=scaling)[0]


def _flash_takes(query: Tensor) -> bool:
    return query.is_cuda and flash_takes(query.dtype, query.shape[-1])


def flash_takes(dtype: torch.dtype, head_size: int) -> bool:
    """Whether FlashAttention runs in this precision and for heads of this size."""
    return dtype in (torch.float16, torch.bfloat16) and head_size <= 256 and head_size % 8 == 0


@torch.compiler.disable
def _one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    """The same where FlashAttention does not run (CPUs, float32): a call of SDPA for each sequence."""
    parts = []
    bounds = zip(pairwise(segments.query_ends.tolist()), pairwise(segments.key_ends.tolist()))
    for (start, end), (first, last) in bounds:
        q, k, v = query[start:end], key[first:last], value[first:last]
        q, k, v = (states.transpose(0, 1)[None] for states in (q, k, v))
        mask = causal_lower_right(end - start, last - first)
        k, v = _repeat_heads(k, q.shape[1]), _repeat_heads(v, q.shape[1])
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)[0].transpose(0, 1))
    return torch.cat(parts)


def _repeat_heads(states: Tensor, heads: int) -> Tensor:
    return states.repeat_interleave(heads // states.shape[1], dim=1)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    row_lengths: RowLengths | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention protocol: query [B, H, Q, D], key and value [B, H_kv, K, D] -> [B, Q, H, D].

    Instead of a mask: segments, for one row of many sequences, or row_lengths, for one query a row.
    """
    if segments is not None:
        return _segment_attention(query, key, value, segments, scaling), None
    if row_lengths is not None:
        return _row_attention(query, key, value, row_lengths, scaling), None
    if query.shape[2] == 1 and attention_mask is not None and dropout == 0:
        return _one_query(query, key, value, attention_mask, scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _row_attention(query: Tensor, key: Tensor, value: Tensor, rows: RowLengths, scaling: float | None) -> Tensor:
    """Decoding by FlashAttention, which reads just the keys that each row has."""
    batch, heads, _, size = query.shape
    key, value = (states.transpose(1, 2).flatten(0, 1) for states in (key, value))  # [B * K, H_kv, D], no copy
    queries = rows.queries
    split = query.view(batch, heads // queries, queries, size).transpose(1, 2)
    out = torch.ops.aten._flash_attention_forward(
        split.reshape(batch * queries, -1, size), key, value, rows.query_ends, rows.key_ends, queries, rows.columns,
        0.0, False, False, scale=scaling, seqused_k=rows.lengths,
    )[0]  # fmt: skip
    return out.view(batch, queries, -1, value.shape[-1]).transpose(1, 2).reshape(batch, 1, heads, -1)


def _one_query(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float | None) -> Tensor:
    """Decoding: the heads that share keys become the queries of one attention, so that no key is copied."""
    batch, heads, _, _ = query.shape
    if query.device.type == "cpu":  # whose kernel takes shared keys as they are, in three quarters of the time
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=heads > key.shape[1]
        )
        return out.transpose(1, 2)
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1], query.shape[3])
    if attention_mask.shape[1] != 1:
        attention_mask = attention_mask.reshape(batch, *grouped.shape[1:3], -1)
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(batch, 1, heads, value.shape[3])


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
    if error := _sharing_error(model, by_mask=True):
        model.set_attn_implementation(before)
    return error


def follows_segments(model: PreTrainedModel) -> bool:
    """Whether a model that attends through `packed_attention` hands `segments` on to it, by the same trial."""
    if any(parameter.is_meta or parameter.numel() == 0 for parameter in model.parameters()):
        return True
    try:
        return _sharing_error(model, by_mask=False) is None
    except TypeError:  # an unexpected keyword
        return False


def attends_by_lengths(model: PreTrainedModel) -> bool:
    """Whether a model decodes by FlashAttention: on a GPU, in a precision and with heads that it takes."""
    if model.config._attn_implementation != PACKED or model.device.type != "cuda":
        return False
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return flash_takes(model.dtype, head_size) and follows_segments(model)


def by_segments(segments: Segments) -> dict[str, Any]:
    """A model's keywords for attention by segments."""
    # Without a mask of four dimensions transformers would make one, [W, W], of the positions.
    return {"attention_mask": finished_mask(segments.keys.device), "segments": segments}


def finished_mask(device: torch.device) -> Tensor:
    """A mask that transformers hands on as it is, for attention that looks at something else."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


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
def _sharing_error(model: PreTrainedModel, by_mask: bool) -> str | None:
    """What is wrong with the log-probs of two completions that share a prompt, on a small example; None if nothing is.

    Bit for bit they must not depend on each other; within rounding they must be what they are with a prompt of their
    own.
    """
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    ids = torch.arange(7, 19, device=device) % vocabulary  # a prompt of 4 tokens, two completions of 4
    prompt, first, second = ids[:4], ids[4:8], ids[8:12]
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6]], device=device)
    row = [BundleLengths(3, [4, 4])]
    if by_mask:
        how: dict[str, Any] = {"attention_mask": dense_mask(Spans.of([row], 11)).to(device)}
    else:
        how = by_segments(Segments.of(row, 11).to(device))

    def shared(sibling: Tensor) -> Tensor:
        ids = torch.cat([prompt[:3], prompt[3:], sibling[:3], prompt[3:], second[:3]])
        output = model(input_ids=ids[None], position_ids=positions, use_cache=False, **how)
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
