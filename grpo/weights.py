"""The policy's weights as sampling wants them: in the precision it computes in, and with fewer, larger products."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections of one input, by transformers' names, in the order in which its models call them."""


class WeightsCopy:
    """A copy of the policy that follows it at every `refresh`. Mixed precision would cast the weights for every token.

    bare: the policy before its weights were sharded, to copy what is not a weight. Refreshing then gathers the weights,
    one by one, so that every rank has to call it. device: where it samples; None takes the policy's, which under FSDP
    waits on the CPU until training begins.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        dtype: torch.dtype,
        bare: PreTrainedModel | None = None,
        device: torch.device | None = None,
    ):
        self.policy = policy
        self.model = copy.deepcopy(policy if bare is None else bare).requires_grad_(False).eval()
        self.model.to(policy.device if device is None else device)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers keep theirs: rotary frequencies are float32
        for module in self.model.modules():
            module.__dict__.pop("forward", None)  # a head that was fused in still calls the policy's own forward
        merge_projections(self.model)

    @torch.no_grad()
    def refresh(self) -> None:
        theirs = dict(self.policy.named_parameters()) | dict(self.policy.named_buffers())
        own = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        sharded = [name for name in own if isinstance(theirs[name], DTensor)]
        for name in sharded:
            own.pop(name).copy_(theirs[name].full_tensor())
        if own:
            torch._foreach_copy_(list(own.values()), [theirs[name].detach() for name in own])


def merge_projections(model: nn.Module) -> None:
    """Let linear layers that read one input run as one product. Their weights become views of one matrix, so copying
    into them still works; the module's other names stay as they are."""
    for parent in model.modules():
        for names in MERGED:
            layers: list[nn.Linear] = [
                layer for name in names if type(layer := getattr(parent, name, None)) is nn.Linear
            ]
            if len(layers) == len(names) and _alike(layers):
                _merge(layers)


def _alike(layers: Sequence[nn.Linear]) -> bool:
    return len({(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}) == 1


def _merge(layers: Sequence[nn.Linear]) -> None:
    weight = torch.cat([layer.weight.data for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias.data for layer in layers])
    sizes = [layer.out_features for layer in layers]
    merged = _MergedLinear(weight, bias, sizes)
    for number, layer in enumerate(layers):
        layer.weight.data = weight.split(sizes)[number]
        if bias is not None:
            layer.bias.data = bias.split(sizes)[number]
        layer.forward = _Part(merged, number)  # type: ignore[method-assign,assignment]


class _MergedLinear:
    """Computed for its first part, kept until its last one has been fetched."""

    def __init__(self, weight: Tensor, bias: Tensor | None, sizes: list[int]):
        self.weight, self.bias, self.sizes = weight, bias, sizes
        self.states: Tensor | None = None
        self.parts: tuple[Tensor, ...] = ()

    def part(self, number: int, states: Tensor) -> Tensor:
        if self.states is not states:
            self.states, self.parts = states, linear(states, self.weight, self.bias).split(self.sizes, dim=-1)
        part = self.parts[number]
        if number == len(self.sizes) - 1:
            self.states, self.parts = None, ()
        return part


class _Part:
    def __init__(self, merged: _MergedLinear, number: int):
        self.merged, self.number = merged, number

    def __call__(self, states: Tensor) -> Tensor:
        return self.merged.part(self.number, states)
