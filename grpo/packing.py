"""Packs: the micro-batches of an update, bounded by tokens rather than by rows, each prompt once for its group.

A row holds bundles one behind the other. A bundle is a prompt and some completions of its group:

    prompt[:-1] | prompt[-1] completion[:-1] | prompt[-1] completion[:-1] | …

Every completion's branch begins with a copy of the prompt's last token, which predicts its first token, and ends before
its last, which predicts nothing. grpo.attention keeps branches apart. Where a model cannot share prompts, a bundle has
one completion and a row one bundle, and the very same code makes ordinary padded rows.

How rows are packed changes no gradient: the loss divides by what the whole update counts (grpo.loss.Divisors).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo.attention import BundleLengths, Segments, Spans, by_segments, dense_mask
from grpo.loss import LossInputs
from grpo.rollouts import Group

IGNORE = -100
"""The label of a position that predicts no token of a completion, as in transformers."""
ROW_MULTIPLE = 128
"""Long rows are a multiple of this wide, as matrix products are slow at odd sizes."""


@dataclass(frozen=True, kw_only=True)
class PackLayout:
    """What the rows of a pack look like."""

    share_prompts: bool = True
    """Each prompt once for the completions of its bundle. False: one prompt and one completion a row."""
    long_rows: bool = False
    """One long row a pack, cut into segments for FlashAttention. False: a bundle a row, as a dense mask costs a row's
    width squared."""

    @classmethod
    def for_device(cls, device: torch.device, share_prompts: bool, follows_segments: bool = True) -> PackLayout:
        return cls(share_prompts=share_prompts, long_rows=share_prompts and follows_segments and device.type == "cuda")


@dataclass(frozen=True)
class Bundle:
    """A prompt and some of its group's completions, by their numbers."""

    group: int
    completions: tuple[int, ...]
    num_tokens: int
    """Positions that it takes in a row."""


@dataclass(frozen=True, eq=False)
class Pack:
    """R rows of W positions. The loss's tensors are [B, T]: a row a completion, a column one of its tokens."""

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    """[R, W], the token that each position predicts; IGNORE where it is none of a completion."""
    attention: dict[str, Any]
    """The model's keywords for who sees whom."""
    where: Tensor
    """[B, T], for each token of each completion the position in the flattened rows that predicts it."""
    scored: Tensor
    """[B, T] bool, True where there is a token."""
    loss_inputs: LossInputs
    num_tokens: int
    """Positions that are no padding."""
    places: list[tuple[int, int]]
    """For each of the B completions, which group and which completion of the given groups it is."""
    kept_ids: Tensor | None = None
    """[R, W, K] int32, where completions say so: the tokens that each label was sampled from, -1 for none."""

    @property
    def model_inputs(self) -> dict[str, Any]:
        """For a model with TRL's fused head: `shift_labels` says what each position predicts."""
        kept = {} if self.kept_ids is None else {"kept_ids": self.kept_ids}
        return kept | {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            **self.attention,
            "shift_labels": self.labels,
            "use_cache": False,
        }

    def by_completion(self, per_position: Tensor) -> Tensor:
        """[R, W] -> [B, T], 0 where a completion has ended."""
        return per_position.flatten()[self.where].masked_fill(~self.scored, 0)


def pack_groups(
    groups: Sequence[Group],
    max_tokens: int,
    pad_token_id: int,
    device: torch.device | str = "cpu",
    mask_truncated: bool = False,
    layout: PackLayout | None = None,
    sampling_logprobs: bool = False,
) -> list[Pack]:
    """The completions of these groups in packs of at most `max_tokens` positions, padding included; none for no groups.

    Long rows are filled evenly. A group that does not fit is cut into bundles, which repeat its prompt; a completion
    that alone is longer than max_tokens gets a pack of its own. sampling_logprobs: the packs carry the sampler's
    log-probs, which a correction of its mismatch needs.
    """
    layout = layout or PackLayout()
    bundles = [bundle for g, group in enumerate(groups) for bundle in _bundles(g, group, max_tokens, layout)]
    bundles.sort(key=lambda bundle: (-bundle.num_tokens, bundle.group, bundle.completions))
    rows = _fill_evenly(bundles, max_tokens) if layout.long_rows else [[bundle] for bundle in bundles]
    make = _PackMaker(groups, pad_token_id, torch.device(device), mask_truncated, layout, sampling_logprobs)
    if layout.long_rows:
        return [make.pack([row]) for row in rows]
    return [make.pack(some) for some in _rows_by_width(rows, max_tokens)]


def empty_pack(pad_token_id: int, device: torch.device | str = "cpu", layout: PackLayout | None = None) -> Pack:
    """A pack without a trained token: its backward gives zero gradients, which a rank that has nothing still owes."""
    pack = _PackMaker([], pad_token_id, torch.device(device), False, layout or PackLayout()).pack([[]])
    loss_inputs = LossInputs(
        old_logprobs=torch.zeros(1, 1, device=device),
        ref_logprobs=torch.zeros(1, 1, device=device),
        advantages=torch.zeros(1, device=device),
        mask=torch.zeros(1, 1, dtype=torch.bool, device=device),
        sampling_logprobs=torch.zeros(1, 1, device=device),
    )
    nothing = torch.zeros(1, 1, dtype=torch.long, device=device)
    return dataclasses.replace(pack, where=nothing, scored=nothing.bool(), loss_inputs=loss_inputs)


def trained_mask(group: Group, mask_truncated: bool) -> list[bool]:
    """Which completions of a group are trained on: those with a reward, and not cut off when that is asked."""
    return [
        live and not (mask_truncated and completion.truncated)
        for live, completion in zip(group.live, group.completions)
    ]


def _bundles(number: int, group: Group, max_tokens: int, layout: PackLayout) -> Iterator[Bundle]:
    """The group whole where it fits, else in runs of completions that do."""
    prompt = len(group.prompt_ids) - 1
    members: list[int] = []
    size = prompt
    for c, completion in enumerate(group.completions):
        length = len(completion.token_ids)
        if members and (not layout.share_prompts or size + length > max_tokens):
            yield Bundle(number, tuple(members), size)
            members, size = [], prompt
        members.append(c)
        size += length
    if members:
        yield Bundle(number, tuple(members), size)


def _fill_evenly(bundles: Sequence[Bundle], max_tokens: int) -> list[list[Bundle]]:
    """As few rows as can hold them, the longest bundle first, each into the emptiest row that has room."""
    count = -(-sum(bundle.num_tokens for bundle in bundles) // max_tokens)
    rows: list[list[Bundle]] = [[] for _ in range(count)]
    used = [0] * count
    for bundle in bundles:
        row = min(range(len(rows)), key=used.__getitem__)
        if used[row] and used[row] + bundle.num_tokens > max_tokens:
            row = len(rows)
            rows.append([])
            used.append(0)
        rows[row].append(bundle)
        used[row] += bundle.num_tokens
    return sorted((row for row in rows if row), key=_width, reverse=True)


def _rows_by_width(rows: Sequence[list[Bundle]], max_tokens: int) -> Iterator[Sequence[list[Bundle]]]:
    """Rows, widest first, cut into runs whose count times widest stays within max_tokens (at least one row each)."""
    start = 0
    while start < len(rows):
        count = max(1, max_tokens // _width(rows[start]))
        yield rows[start : start + count]
        start += count


def _width(row: Sequence[Bundle]) -> int:
    return sum(bundle.num_tokens for bundle in row)


@dataclass(frozen=True)
class _PackMaker:
    groups: Sequence[Group]
    pad_token_id: int
    device: torch.device
    mask_truncated: bool
    layout: PackLayout
    sampling_logprobs: bool = False

    def pack(self, rows: Sequence[Sequence[Bundle]]) -> Pack:
        width = max(2, *map(_width, rows))
        if self.layout.long_rows:
            width += -width % ROW_MULTIPLE
        shape = (len(rows), width)
        ids, labels = np.full(shape, self.pad_token_id), np.full(shape, IGNORE)
        positions = np.zeros(shape, dtype=np.int64)
        places: list[tuple[int, int]] = []
        starts: list[int] = []
        for r, row in enumerate(rows):
            at = 0
            for bundle in row:
                group = self.groups[bundle.group]
                shared = len(group.prompt_ids) - 1
                ids[r, at : at + shared] = group.prompt_ids[:-1]
                positions[r, at : at + shared] = np.arange(shared)
                at += shared
                for c in bundle.completions:
                    tokens = np.array(group.completions[c].token_ids, dtype=np.int64)
                    stop = at + len(tokens)
                    ids[r, at] = group.prompt_ids[-1]
                    ids[r, at + 1 : stop] = tokens[:-1]
                    labels[r, at:stop] = tokens
                    positions[r, at:stop] = np.arange(shared, shared + len(tokens))
                    places.append((bundle.group, c))
                    starts.append(r * width + at)
                    at = stop
        where, scored, loss_inputs = self._by_completion(places, starts)
        return Pack(
            input_ids=self._tensor(ids),
            position_ids=self._tensor(positions),
            labels=self._tensor(labels),
            attention=self._attention(rows, width),
            where=where.to(self.device),
            scored=scored.to(self.device),
            loss_inputs=loss_inputs,
            num_tokens=sum(map(_width, rows)),
            places=places,
            kept_ids=self._kept_ids(places, starts, shape),
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _kept_ids(self, places: list[tuple[int, int]], starts: list[int], shape: tuple[int, int]) -> Tensor | None:
        by_completion = [self.groups[g].completions[c].kept_ids for g, c in places]
        if not by_completion or by_completion[0] is None:
            return None
        kept = torch.full((shape[0] * shape[1], by_completion[0].shape[1]), -1, dtype=torch.int32)
        for start, ids in zip(starts, by_completion):
            assert ids is not None  # one config sampled them all
            kept[start : start + len(ids)] = ids
        return kept.view(*shape, -1).to(self.device)

    def _attention(self, rows: Sequence[Sequence[Bundle]], width: int) -> dict[str, Any]:
        if not self.layout.share_prompts:
            mask = np.arange(width) < np.array([[max(_width(row), 1)] for row in rows])  # 1 on tokens, 0 on padding
            return {"attention_mask": self._tensor(mask.astype(np.int64))}
        lengths = [[self._lengths(bundle) for bundle in row] for row in rows]
        if self.layout.long_rows:
            (row,) = lengths
            return by_segments(Segments.of(row, width).to(self.device))
        return {"attention_mask": dense_mask(Spans.of(lengths, width).to(self.device))}

    def _lengths(self, bundle: Bundle) -> BundleLengths:
        group = self.groups[bundle.group]
        branches = [len(group.completions[c].token_ids) for c in bundle.completions]
        return BundleLengths(len(group.prompt_ids) - 1, branches)

    def _by_completion(self, places: list[tuple[int, int]], starts: list[int]) -> tuple[Tensor, Tensor, LossInputs]:
        lengths = torch.tensor([len(self.groups[g].completions[c].token_ids) for g, c in places], dtype=torch.long)
        column = torch.arange(max(lengths.tolist(), default=1))
        scored = column < lengths[:, None]
        where = (torch.tensor(starts, dtype=torch.long)[:, None] + column).masked_fill(~scored, 0)
        by_group = {g: trained_mask(self.groups[g], self.mask_truncated) for g in {g for g, _ in places}}
        trained = torch.tensor([by_group[g][c] for g, c in places], dtype=torch.bool)
        sampled = [[c.logprobs for c in group.completions] if self.sampling_logprobs else None for group in self.groups]
        loss_inputs = LossInputs(
            old_logprobs=self._spread([self.groups[g].old_logprobs for g, _ in places], places, scored),
            ref_logprobs=self._spread([self.groups[g].ref_logprobs for g, _ in places], places, scored),
            advantages=self._advantages(places, scored),
            mask=(scored & trained[:, None]).to(self.device),
            sampling_logprobs=self._spread([sampled[g] for g, _ in places], places, scored),
        )
        return where, scored, loss_inputs

    def _advantages(self, places: list[tuple[int, int]], scored: Tensor) -> Tensor:
        """[B], or [B, T] where a group of the pack tells the tokens of a completion apart."""
        if all(self.groups[g].token_advantages is None for g, _ in places):
            return torch.tensor([self.groups[g].advantages[c] for g, c in places], device=self.device)
        by_token = [
            group.token_advantages
            or [[advantage] * len(c.token_ids) for advantage, c in zip(group.advantages, group.completions)]
            for group in self.groups
        ]
        spread = self._spread([by_token[g] for g, _ in places], places, scored)
        assert spread is not None  # no group is without advantages
        return spread

    def _spread(
        self, stored: list[list[list[float]] | None], places: list[tuple[int, int]], scored: Tensor
    ) -> Tensor | None:
        """[B, T] of what is stored of each token; None when there is nothing."""
        if not stored or any(group is None for group in stored):
            return None
        spread = torch.zeros(scored.shape)
        spread[scored] = torch.tensor([value for group, (_, c) in zip(stored, places) for value in (group or [])[c]])
        return spread.to(self.device)
