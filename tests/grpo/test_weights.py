"""The copy of the weights that is sampled from: merged projections, and a policy whose weights are sharded."""

import copy

import pytest
import torch
import torch.distributed as dist
from tiny import EOS, PAD, tiny_model
from torch.distributed.fsdp import fully_shard
from torch.testing import assert_close
from transformers import Qwen2Config, Qwen2ForCausalLM

from grpo.sampling import Sampler, SamplingConfig
from grpo.weights import WeightsCopy, merge_projections

IDS = torch.arange(2, 14).view(2, 6)


def biased_model():
    """Qwen2's projections have biases, Qwen3's norms behind them."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=21, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, eos_token_id=EOS, pad_token_id=PAD, bos_token_id=None,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("make", [tiny_model, biased_model])
def test_merged_projections_compute_the_same(make):
    plain, merged = make(), make()
    merge_projections(merged)
    assert_close(merged(IDS).logits, plain(IDS).logits)
    attention = merged.model.layers[0].self_attn
    assert attention.q_proj.weight.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    for (name, mine), (_, theirs) in zip(merged.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_refreshed_copy_computes_with_the_new_weights():
    policy = biased_model()
    follower = WeightsCopy(policy, torch.float32)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    stale = follower.model(IDS).logits
    follower.refresh()
    assert (stale - policy(IDS).logits).abs().max() > 0.1
    assert_close(follower.model(IDS).logits, policy(IDS).logits)


def test_parts_of_different_inputs_are_not_mixed_up():
    """Between its parts another input, as where a caller breaks off in the middle."""
    model = tiny_model()
    merge_projections(model)
    mlp, one, other = model.model.layers[0].mlp, torch.randn(1, 24), torch.randn(1, 24)
    plain = tiny_model().model.layers[0].mlp
    mlp.gate_proj(one)
    assert_close(mlp.up_proj(other), plain.up_proj(other))
    assert_close(mlp(one), plain(one))


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_sharded_policy_is_sampled_from_gathered_weights(one_rank):
    """FSDP2: its parameters are DTensors, and the copy holds whole ones."""
    policy = tiny_model()
    bare = copy.deepcopy(policy)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    for layer in policy.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(policy, mesh=mesh)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    expected = tiny_model()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.mul_(1.2)
    sampler = Sampler(policy, [EOS], PAD, dtype=torch.float32, bare=bare)
    assert sampler.collective
    config, prompts = SamplingConfig(max_new_tokens=10), [[5, 6, 7], [8, 9]]
    (mine, theirs) = (s.sample(prompts, [[0, 1]] * 2, config) for s in (sampler, Sampler(expected, [EOS], PAD)))
    assert [[c.token_ids for c in group] for group in mine] == [[c.token_ids for c in group] for group in theirs]
    assert sampler.sample([], [], config) == []
