"""Packs: the micro-batches of an update, bounded by tokens rather than by rows.

Rows of like length share a pack, so little of it is padding. How rows are packed changes no gradient: the loss divides
by what the whole update counts (grpo.loss.Divisors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.loss import LossInputs
from grpo.rollouts import Group

IGNORE = -100
"""The label of a token that is not trained, as in transformers."""


@dataclass(frozen=True)
class Pack:
    """B rows of up to T tokens, prompt first, padded on the right. The loss's tensors are [B, T - 1]: position t of
    them belongs to token t + 1."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    loss_inputs: LossInputs
    places: list[tuple[int, int]]
    """For each row, which group and which completion of the given groups it is."""

    @property
    def model_inputs(self) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "labels": self.labels}


def pack_groups(
    groups: Sequence[Group],
    max_tokens: int,
    pad_token_id: int,
    device: torch.device | str = "cpu",
    mask_truncated: bool = False,
) -> list[Pack]:
    """The completions of these groups in packs of at most `max_tokens` tokens, padding included; none for no groups.

    A row that is longer than max_tokens gets a pack of its own.
    """
    places = [(g, c) for g, group in enumerate(groups) for c in range(len(group.completions))]
    length = {(g, c): len(groups[g].prompt_ids) + len(groups[g].completions[c].token_ids) for g, c in places}
    places.sort(key=lambda place: (-length[place], place))
    packs, start = [], 0
    while start < len(places):
        rows = max(1, max_tokens // length[places[start]])
        packs.append(_pack(groups, places[start : start + rows], pad_token_id, device, mask_truncated))
        start += rows
    return packs


def empty_pack(pad_token_id: int, device: torch.device | str = "cpu") -> Pack:
    """One row without a trained token: its backward gives zero gradients, which a rank that has nothing still owes."""
    ids = torch.full((1, 2), pad_token_id, device=device)
    loss_inputs = LossInputs(
        old_logprobs=torch.zeros(1, 1, device=device),
        ref_logprobs=torch.zeros(1, 1, device=device),
        advantages=torch.zeros(1, device=device),
        mask=torch.zeros(1, 1, dtype=torch.bool, device=device),
    )
    return Pack(ids, torch.ones_like(ids), torch.full_like(ids, IGNORE), loss_inputs, [])


def trained_mask(group: Group, mask_truncated: bool) -> list[bool]:
    """Which completions of a group are trained on: those with a reward, and not cut off when that is asked."""
    return [
        live and not (mask_truncated and completion.truncated)
        for live, completion in zip(group.live, group.completions)
    ]


def _pack(
    groups: Sequence[Group],
    places: list[tuple[int, int]],
    pad: int,
    device: torch.device | str,
    mask_truncated: bool,
) -> Pack:
    rows = [groups[g].prompt_ids + groups[g].completions[c].token_ids for g, c in places]
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), pad)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    scored = torch.zeros((len(rows), width), dtype=torch.bool)
    trained = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, (ids, (g, c)) in enumerate(zip(rows, places)):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        scored[i, len(groups[g].prompt_ids) : len(ids)] = True
        trained[i] = scored[i] & trained_mask(groups[g], mask_truncated)[c]
    mask = trained[:, 1:]
    loss_inputs = LossInputs(
        old_logprobs=_spread([_values(groups[g].old_logprobs, c) for g, c in places], scored[:, 1:], device),
        ref_logprobs=_spread([_values(groups[g].ref_logprobs, c) for g, c in places], scored[:, 1:], device),
        advantages=torch.tensor([groups[g].advantages[c] for g, c in places], device=device),
        mask=mask.to(device),
    )
    labels = input_ids.masked_fill(~scored, IGNORE)
    return Pack(input_ids.to(device), attention_mask.to(device), labels.to(device), loss_inputs, places)


def _values(logprobs: list[list[float]] | None, completion: int) -> list[float] | None:
    return None if logprobs is None else logprobs[completion]


def _spread(values: list[list[float] | None], where: Tensor, device: torch.device | str) -> Tensor | None:
    """Per-token values of each row, laid on the positions that `where` marks; None when there are none."""
    if any(row is None for row in values):
        return None
    spread = torch.zeros(where.shape)
    spread[where] = torch.tensor([value for row in values for value in row or []])
    return spread.to(device)
