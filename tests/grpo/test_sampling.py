"""The sampler against transformers' own generate and forward."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from grpo import sampling
from grpo.sampling import Sampler, SamplingConfig, choose_tokens, filter_logits

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
STOP, PAD = 3, 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, initializer_range=0.3, eos_token_id=STOP, pad_token_id=PAD,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def sampler(model):
    return Sampler(model, stop_token_ids=[STOP], pad_token_id=PAD)


def test_greedy_equals_generate(model, sampler):
    groups = sampler.sample(PROMPTS, [[0]] * 3, SamplingConfig(max_new_tokens=20, temperature=0))
    for prompt, (completion,) in zip(PROMPTS, groups):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=20, do_sample=False
        )[0, len(prompt) :]
        assert completion.token_ids == expected.tolist()


def test_logprobs_are_those_of_one_full_forward(model, sampler):
    config = SamplingConfig(max_new_tokens=24, temperature=0.7)
    groups = sampler.sample(PROMPTS, [[1, 2, 3]] * 3, config)
    for prompt, group in zip(PROMPTS, groups):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids])
            logprobs = (model(ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
            expected = logprobs.gather(-1, ids[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=2e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_its_batch(sampler):
    """Rows drawn together, alone, in other batches: the same tokens for the same seed."""
    config = SamplingConfig(max_new_tokens=24)
    together = sampler.sample(PROMPTS, [[1, 2], [3, 4], [5, 6]], config)
    alone = [sampler.sample([p], [s], config)[0] for p, s in zip(PROMPTS, [[1, 2], [3, 4], [5, 6]])]
    split = sampler.sample(PROMPTS, [[1, 2], [3, 4], [5, 6]], config, max_rows=2)
    tokens = [[c.token_ids for c in group] for group in together]
    assert tokens == [[c.token_ids for c in group] for group in alone]
    assert tokens == [[c.token_ids for c in group] for group in split]


def test_stop_and_truncation_are_told_apart(sampler):
    groups = sampler.sample(PROMPTS, [list(range(20))] * 3, SamplingConfig(max_new_tokens=12))
    completions = [c for group in groups for c in group]
    assert {c.truncated for c in completions} == {True, False}
    for c in completions:
        assert c.truncated == (c.token_ids[-1] != STOP)
        assert STOP not in c.token_ids[:-1]
        assert len(c.token_ids) == len(c.logprobs) <= 12


def test_sampled_frequencies_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, -torch.inf]])
    uniforms = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = choose_tokens(
        logits.expand(40_000, 5), uniforms, SamplingConfig(max_new_tokens=1, temperature=0.8)
    )
    expected = (logits[0] / 0.8).softmax(-1)
    torch.testing.assert_close(tokens.bincount(minlength=5) / 40_000, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, (logits[0] / 0.8).log_softmax(-1)[tokens])
    edge, _ = choose_tokens(logits, torch.tensor([1 - 2**-53], dtype=torch.float64), SamplingConfig(max_new_tokens=1))
    assert edge.item() == 3, "the last token with any probability, not the impossible one behind it"


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.6}, {0, 1}),
        ({"top_p": 0.4}, {0}),
        ({"min_p": 0.5}, {0, 1}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_filters(settings, kept):
    probs = torch.tensor([[0.45, 0.3, 0.15, 0.1]])
    filtered = filter_logits(probs.log(), SamplingConfig(max_new_tokens=1, **settings))
    assert set(filtered.isfinite()[0].nonzero()[:, 0].tolist()) == kept


@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.999])
@pytest.mark.parametrize("scales", [(4.0, 8.0), (0.1, 8.0)])  # nuclei of a few tokens; one of most of the vocabulary
def test_a_look_at_the_first_tokens_finds_the_nucleus_of_a_whole_sort(top_p, scales, monkeypatch):
    torch.manual_seed(0)
    logits = torch.cat([scale * torch.randn(20, 500) for scale in scales])
    config = SamplingConfig(max_new_tokens=1, top_p=top_p)
    found = filter_logits(logits, config)
    monkeypatch.setattr(sampling, "NUCLEUS_TOKENS", 500)
    assert torch.equal(found, filter_logits(logits, config))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "1 or more"),
        ({"temperature": -1}, "0 \\(greedy\\)"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 2}, "min_p"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**({"max_new_tokens": 4} | settings))
