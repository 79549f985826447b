"""Compiled decoder layers for the training passes.

The layers of a model share their code and differ in weights alone, so compiling one compiles all, in seconds. Fused,
the many small operations of a layer cost a GPU a fraction of what they cost one by one. Only passes over packs are
compiled: sampling brings caches, for which the same code would be compiled anew in every layer (grpo.decoding compiles
its own).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from transformers.modeling_layers import GradientCheckpointingLayer


class CompiledLayers:
    """The decoder layers of a model, compiled inside `with layers.in_use():`."""

    def __init__(self, model: torch.nn.Module):
        self.layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        self.forwards: list[Callable] = [torch.compile(layer.forward) for layer in self.layers]

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        before = [layer.__dict__.get("forward") for layer in self.layers]
        for layer, forward in zip(self.layers, self.forwards):
            layer.forward = forward
        try:
            yield
        finally:
            for layer, forward in zip(self.layers, before):
                del layer.forward
                if forward is not None:
                    layer.forward = forward
