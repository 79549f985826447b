"""Compiled layers: the same numbers, and one compilation for packs of every size."""

import random

import torch
from test_packing import make_groups
from tiny import PAD, tiny_model
from torch.testing import assert_close

from grpo import attention
from grpo.attention import use_packed_attention
from grpo.compiling import CompiledLayers
from grpo.packing import PackLayout, pack_groups


def packs_of_many_sizes(layout):
    for seed in range(8):
        rng = random.Random(seed)
        sizes = [rng.choice([1, 4, 8]) for _ in range(rng.randint(1, 5))]
        groups = make_groups(seed, sizes, longest=60, with_logprobs=False)
        yield from pack_groups(groups, 300, PAD, layout=layout)


def gradient(model, pack):
    model.zero_grad()
    logits = model(input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False, **pack.attention).logits
    logits[pack.labels >= 0].logsumexp(-1).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_one_compilation_serves_packs_of_every_size(monkeypatch):
    """On a GPU each costs half a minute. FlashAttention, which no CPU has, is stood in for by what can be traced."""
    monkeypatch.setattr(attention, "_flash_takes", lambda query: True)
    monkeypatch.setattr(attention, "_flash", lambda query, key, value, *_: query * key.mean() + value.mean())
    model = tiny_model(max_position_embeddings=512).train()
    assert use_packed_attention(model) is None
    graphs, widths = [], set()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    layers = CompiledLayers(model, backend=backend)
    for pack in packs_of_many_sizes(PackLayout(long_rows=True)):
        expected = gradient(model, pack)
        with layers.in_use():
            assert_close(gradient(model, pack), expected)
        widths.add(pack.input_ids.shape[1])
    assert len(widths) > 2
    assert len(graphs) == 1


def test_a_layer_stays_whole_under_ddp(tmp_path):
    """Dynamo cuts what it compiles inside DDP where DDP's buckets end, here after every few parameters."""
    model = tiny_model(max_position_embeddings=512).train()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    layers = CompiledLayers(model, backend=backend)
    ids = torch.arange(8)[None]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.001)
        with layers.in_use():
            wrapped(input_ids=ids, use_cache=False).logits.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(graphs) == 1


def test_the_layers_are_themselves_again_afterwards():
    model = tiny_model()
    layers = CompiledLayers(model, backend="eager")
    before = [layer.forward for layer in layers.layers]
    with layers.in_use():
        assert all("forward" in vars(layer) for layer in layers.layers)
    assert [layer.forward for layer in layers.layers] == before
    assert not any("forward" in vars(layer) for layer in layers.layers)
