"""Compiled code: the decoder layers in the training passes, and what a decoding step does.

The layers of a model share their code and differ in weights alone, so compiling one compiles all, in seconds. Fused,
the many small operations of a layer cost a GPU a fraction of what they cost one by one. Only passes over packs are
compiled: sampling brings caches, for which the same code would be compiled anew in every layer (grpo.decoding compiles
its own).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo
import torch.fx.experimental._config
from transformers.modeling_layers import GradientCheckpointingLayer


def compiled_for_any_size(function: Callable, **options: Any) -> Callable:
    """torch.compile, once for batches and packs of every size: a second size must not cost a second compilation."""
    compiled = torch.compile(function, dynamic=True, **options)

    def call(*args: Any, **keywords: Any) -> Any:
        # Sizes that happen to be equal, such as rows and a head's size, must not be taken for one and the same. And a
        # layer stays whole under DDP: dynamo would cut it where DDP's buckets end, which pays for whole models alone.
        whole = torch._dynamo.config.patch(optimize_ddp=False)
        with torch.fx.experimental._config.patch(use_duck_shape=False), whole:  # type: ignore[attr-defined]
            return compiled(*args, **keywords)

    return call


class CompiledLayers:
    """The decoder layers of a model, compiled inside `with layers.in_use():`."""

    def __init__(self, model: torch.nn.Module, **options: Any):
        self.layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        self.forwards: list[Callable] = [compiled_for_any_size(layer.forward, **options) for layer in self.layers]

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
