"""The decoding loop: rows that move in and out change nothing that is sampled."""

import functools

import pytest
import torch
from tiny import EOS, PAD, tiny_model
from trl.trainer.utils import add_fused_lm_head

import grpo.decoding
import grpo.sampling
from grpo.attention import use_packed_attention
from grpo.sampling import Sampler, SamplingConfig
from grpo.weights import WeightsCopy

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13], [4] * 17]
SEEDS = [[10 * p + c for c in range(4)] for p in range(len(PROMPTS))]
CONFIG = SamplingConfig(max_new_tokens=20)


@pytest.fixture(scope="module")
def model():
    model = tiny_model()
    assert use_packed_attention(model) is None
    return model


def tokens(groups):
    return [[completion.token_ids for completion in group] for group in groups]


def one_by_one(model):
    """Every completion by full forward passes over all that came before it, without a cache."""
    from grpo.sampling import choose_tokens, row_uniforms

    groups = []
    for prompt, seeds in zip(PROMPTS, SEEDS):
        group = []
        for uniforms in row_uniforms(seeds, CONFIG.max_new_tokens):
            ids = list(prompt)
            for uniform in uniforms:
                with torch.no_grad():
                    logits = model(torch.tensor([ids]), use_cache=False).logits[:, -1]
                ids.append(choose_tokens(logits, uniform[None], CONFIG)[0].item())
                if ids[-1] == EOS:
                    break
            group.append(ids[len(prompt) :])
        groups.append(group)
    return groups


@pytest.mark.parametrize("max_rows", [1, 3, 7, 16, 100])
def test_any_number_of_rows_samples_what_full_passes_sample(model, max_rows):
    """16 completions through fewer rows: those that wait move in where others have ended."""
    sampled = tokens(Sampler(model, [EOS], PAD).sample(PROMPTS, SEEDS, CONFIG, max_rows))
    assert sampled == one_by_one(model)
    lengths = {len(ids) for group in sampled for ids in group}
    assert len(lengths) > 3, "rows do end at different steps"


def test_a_sampler_is_used_again_with_other_prompts(model):
    sampler = Sampler(model, [EOS], PAD)
    first = tokens(sampler.sample(PROMPTS, SEEDS, CONFIG))
    decoder = sampler._decoder[1]
    sampler.sample(PROMPTS[:2], [[7, 8, 9]] * 2, CONFIG)
    assert sampler._decoder[1] is decoder, "the cache serves a smaller call too"
    assert tokens(sampler.sample(PROMPTS, SEEDS, CONFIG)) == first
    sampler.sample(PROMPTS, SEEDS, SamplingConfig(max_new_tokens=20, temperature=0.5))
    assert sampler._decoder[1] is not decoder, "other settings, another decoder"


def test_every_row_that_lives_is_computed_and_no_other(model, monkeypatch):
    """On a CPU the batch shrinks with the rows that end: as many rows are computed as tokens are sampled."""
    counted = []
    step = grpo.decoding.Decoder.step

    def counting(self, count, end):
        counted.append(count)
        step(self, count, end)

    monkeypatch.setattr(grpo.decoding.Decoder, "step", counting)
    groups = tokens(Sampler(model, [EOS], PAD).sample(PROMPTS, SEEDS, CONFIG))
    assert sum(counted) == sum(len(ids) for group in groups for ids in group)


def test_one_compilation_serves_every_size(model, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with_backend = functools.partial(grpo.decoding.compiled_once, backend=backend)
    for module in (grpo.decoding, grpo.sampling):
        monkeypatch.setattr(module, "compiled_once", with_backend)
    sampler = Sampler(model, [EOS], PAD, compiled=True)
    assert tokens(sampler.sample(PROMPTS, SEEDS, CONFIG)) == one_by_one(model)
    for count, length in ((1, 9), (7, 30)):
        sampler.sample(PROMPTS, [list(range(count))] * 4, SamplingConfig(max_new_tokens=length))
    assert len(graphs) == 2, "of a forward pass, and of choosing its tokens"


def test_a_copy_of_the_weights_follows_the_policy():
    policy = tiny_model()
    copy = WeightsCopy(policy, torch.bfloat16)
    with torch.no_grad():
        policy.model.norm.weight.mul_(1.5)
    assert not torch.equal(copy.model.model.norm.weight.float(), policy.model.norm.weight)
    copy.refresh()
    for name, weight in copy.model.named_parameters():
        assert weight.dtype == torch.bfloat16
        assert not weight.requires_grad
        assert torch.equal(weight, policy.get_parameter(name).to(torch.bfloat16)), name
    for name, buffer in copy.model.named_buffers():
        assert torch.equal(buffer, policy.get_buffer(name)), "rotary frequencies stay float32"


def test_a_copy_of_a_model_with_a_fused_head_answers_for_itself():
    """TRL's head keeps hold of the forward of the model that it was put on, in a copy too."""
    policy = tiny_model()
    add_fused_lm_head(policy)
    copy = WeightsCopy(policy, torch.float64)
    ids = torch.arange(5, 12)[None]
    assert copy.model(ids).logits.dtype == torch.float64
    torch.testing.assert_close(copy.model(ids).logits.float(), tiny_model()(ids).logits)


def test_a_model_with_sliding_windows_is_sampled_in_padded_batches():
    model = tiny_model(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    sampler = Sampler(model, [EOS], PAD)
    assert "sliding" in sampler.reason
    greedy = SamplingConfig(max_new_tokens=12, temperature=0)
    for prompt, (completion,) in zip(PROMPTS, sampler.sample(PROMPTS, [[0]] * 4, greedy)):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=12, do_sample=False
        )[0, len(prompt) :]
        assert completion.token_ids == expected.tolist()
