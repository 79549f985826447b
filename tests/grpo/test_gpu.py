"""The GPU paths against the CPU's: FlashAttention over shared prompts, compiled decoding in CUDA graphs.

Skipped without a GPU; every path has a CPU twin in the other tests.
"""

import pytest
import torch
from test_packing import make_groups
from tiny import EOS, PAD, tiny_model, tiny_trainer

from grpo import attention
from grpo.attention import use_packed_attention
from grpo.loss import Divisors, LossConfig, grpo_loss
from grpo.packing import PackLayout, pack_groups, trained_mask
from grpo.sampling import Sampler, SamplingConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13], [4] * 30]


def gradient(model, groups, max_tokens, layout):
    tokens = sum(len(c.token_ids) for g in groups for c, t in zip(g.completions, trained_mask(g, False)) if t)
    divisors = Divisors(num_rows=24, num_tokens=tokens, rollout_tokens_per_update=tokens)
    model.zero_grad()
    for pack in pack_groups(groups, max_tokens, PAD, "cuda", layout=layout):
        logits = model(input_ids=pack.input_ids, position_ids=pack.position_ids, **pack.attention).logits.float()
        logprobs = logits.log_softmax(-1).gather(-1, pack.labels.clamp(min=0)[..., None])[..., 0]
        config = LossConfig(max_completion_length=300, beta=0.05)
        grpo_loss(pack.by_completion(logprobs), pack.loss_inputs, divisors, config)[0].backward()
    return torch.cat([p.grad.float().flatten() for p in model.parameters()])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("max_tokens", [4000, 1500])
def test_shared_prompts_through_flash_attention(dtype, bound, max_tokens, monkeypatch):
    """Relative error of the gradient; in bfloat16 that of one padded batch against another is 0.005."""
    if dtype == torch.bfloat16:
        monkeypatch.setattr(attention, "_one_by_one", None)
    model = tiny_model(dtype=dtype, max_position_embeddings=512).cuda()
    assert use_packed_attention(model) is None
    groups = make_groups(seed=5, sizes=(8, 8, 8), longest=300)
    expected = gradient(model, groups, 4000, PackLayout(share_prompts=False))
    shared = gradient(model, groups, max_tokens, PackLayout(long_rows=True))
    assert (shared - expected).norm() / expected.norm() < bound


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cuda_graphs_sample_what_the_cpu_samples(compiled, temperature):
    config = SamplingConfig(max_new_tokens=60, temperature=temperature)
    model = tiny_model()
    expected = Sampler(model, [EOS], PAD).sample(PROMPTS, [list(range(5))] * 4, config)
    sampler = Sampler(tiny_model().cuda(), [EOS], PAD, compiled=compiled)
    for max_rows in (512, 8):
        groups = sampler.sample(PROMPTS, [list(range(5))] * 4, config, max_rows)
        for ours, theirs in zip(groups, expected):
            for one, other in zip(ours, theirs):
                assert one.token_ids == other.token_ids
                torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs))


def test_decoding_by_lengths_gives_the_trainers_log_probs():
    """bfloat16, rows of different lengths that end and move; against one padded forward pass of the same weights."""
    model = tiny_model(dtype=torch.bfloat16, max_position_embeddings=512).cuda()
    assert use_packed_attention(model) is None
    sampler = Sampler(model, [EOS], PAD)
    assert sampler.by_lengths
    groups = sampler.sample(PROMPTS, [list(range(5))] * 4, SamplingConfig(max_new_tokens=200), max_rows=8)
    for prompt, group in zip(PROMPTS, groups):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids], device="cuda")
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
            difference = (torch.tensor(completion.logprobs, device="cuda") - expected).abs()
            assert difference.max() < 0.3
            assert difference.mean() < 0.03


@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_graphs_keep_what_the_cpu_keeps(compiled):
    config = SamplingConfig(max_new_tokens=60, top_k=6, top_p=0.9, keep_mask=True)
    expected = Sampler(tiny_model(), [EOS], PAD).sample(PROMPTS, [list(range(5))] * 4, config)
    groups = Sampler(tiny_model().cuda(), [EOS], PAD, compiled=compiled).sample(PROMPTS, [list(range(5))] * 4, config)
    for one, other in ((one, other) for pair in zip(groups, expected) for one, other in zip(*pair)):
        assert one.token_ids == other.token_ids
        assert torch.equal(one.kept_ids.sort().values, other.kept_ids.sort().values)
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs))


def test_a_kept_mask_trains_on_the_gpu(tmp_path):
    settings = {"keep_sampling_mask": True, "top_k": 5, "beta": 0.01, "entropy_coef": 0.01}
    settings["vllm_importance_sampling_correction"] = True  # whose metrics compare sampler and trainer
    trainer = tiny_trainer(tmp_path, use_cpu=False, max_steps=4, num_iterations=2, bf16=True, **settings)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["ratio/mean"] == pytest.approx(1, abs=0.02) for line in lines[::2]] == [True, True]
    assert all(line["sampling/sampling_logp_difference/mean"] < 0.1 for line in lines[::2])
    assert all(line["grad_norm"] > 0 for line in lines)


def test_training_steps_on_the_gpu(tmp_path):
    """Compiled layers, checkpointing, a weights copy for sampling, a reference, two updates a rollout."""
    trainer = tiny_trainer(tmp_path, use_cpu=False, beta=0.01, max_steps=4, num_iterations=2, bf16=True)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["ratio/mean"] == pytest.approx(1, abs=0.02) for line in lines[::2]] == [True, True]
    assert all(line["grad_norm"] > 0 for line in lines)


def test_rollouts_ahead_on_the_gpu(tmp_path):
    """Graphs are recorded in the thread while this one trains; two runs with one seed sample the same."""
    runs = []
    for name in ("one", "two"):
        settings = {"use_cpu": False, "rollouts_ahead": True, "refill_prompts": 1, "max_steps": 6, "bf16": True}
        trainer = tiny_trainer(tmp_path / name, **settings)
        trainer.train()
        lines = [line for line in trainer.state.log_history if "loss" in line]
        assert lines[0]["ratio/mean"] == pytest.approx(1, abs=0.02)
        assert all(line["grad_norm"] > 0 for line in lines)
        runs.append(lines[1]["reward"])
    assert runs[0] == runs[1], "the second rollout was sampled before the first update"
