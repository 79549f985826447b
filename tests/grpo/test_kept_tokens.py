"""The head among kept tokens against plain loops, TRL's fused head and gradcheck; and what the sampler says it kept."""

import json
import math

import pytest
import torch
from tiny import EOS, PAD, TOKENS, tiny_model
from torch.autograd import gradcheck
from torch.testing import assert_close
from trl.trainer.utils import add_fused_lm_head

from grpo import kept_tokens
from grpo.kept_tokens import add_kept_tokens_head, kept_logprobs
from grpo.rollouts import Group
from grpo.sampling import Completion, Sampler, SamplingConfig, filter_logits

PROMPTS, SEEDS = [[5, 6, 7], [8, 9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]]
CUT = SamplingConfig(max_new_tokens=12, temperature=0.8, top_k=6, top_p=0.9, min_p=0.02, keep_mask=True)


@pytest.fixture
def inputs():
    """Seven tokens over a vocabulary of five, of which two to four were kept, the target among them."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (7, 5))
    bias = torch.randn(5, dtype=torch.float64, generator=generator)
    kept = torch.tensor(
        [[0, 1, -1, -1], [4, 2, 3, -1], [1, 0, 3, 4], [2, -1, -1, -1], [3, 4, 0, -1]] + [[1, 2, 0, 4]] * 2
    )
    targets = torch.tensor([1, 4, 3, 2, 0, 2, 1])
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets, kept.int()


def test_log_probs_and_entropies_match_a_plain_loop(inputs, monkeypatch):
    hidden, weight, bias, targets, kept = inputs
    for chunk in (2, 7, 100):
        monkeypatch.setattr(kept_tokens, "CHUNK", chunk)
        logprobs, entropies = kept_logprobs(*inputs, 0.7)
        for n in range(7):
            exps = [math.exp((hidden[n] @ weight[v] + bias[v]).item() / 0.7) for v in range(5)]
            share = exps[targets[n]] / sum(exps[v] for v in kept[n].tolist() if v >= 0)
            assert logprobs[n].item() == pytest.approx(math.log(share), abs=1e-12)
            entropy = -sum(e / sum(exps) * math.log(e / sum(exps)) for e in exps)
            assert entropies[n].item() == pytest.approx(entropy, rel=1e-12)
        assert gradcheck(lambda *x: kept_logprobs(*x, targets, kept, 0.7), (hidden, weight, bias))
    assert kept_logprobs(*inputs, 0.7)[0][3].item() == 0, "a token that was kept alone was certain"


def test_no_logits_wait_for_the_backward_pass(inputs, monkeypatch):
    monkeypatch.setattr(kept_tokens, "CHUNK", 2)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(tuple(x.shape)) or x, lambda x: x):
        kept_logprobs(*inputs, 0.7)
    assert saved
    assert not [shape for shape in saved if shape in ((2, 5), (1, 5), (7, 5))]


@pytest.mark.parametrize("cast", [False, True])
def test_with_every_token_kept_it_is_trl_s_fused_head(cast):
    ids = torch.tensor([[5, 6, 7, 8, 9, 2], [4, 3, 12, 11, 2, 5]])
    labels = torch.tensor([[-100, 7, 8, 9, 2, 0], [3, 12, 11, -100, -100, -100]])
    results = []
    for kept in (None, torch.arange(len(TOKENS), dtype=torch.int32).expand(2, 6, -1)):
        model = tiny_model()
        add_fused_lm_head(model, 0.7, cast, outputs=("log_probs", "entropy"))
        add_kept_tokens_head(model, 0.7, cast)
        extra = {} if kept is None else {"kept_ids": kept}
        output = model(input_ids=ids, shift_labels=labels, fused_lm_head=True, use_cache=False, **extra)
        (output.log_probs.square().sum() + 0.3 * output.entropy.square().sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((output.log_probs, output.entropy, gradient))
    assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_a_pack_without_a_label_has_a_zero_gradient():
    model = tiny_model()
    add_kept_tokens_head(model, 1.0)
    nothing = torch.full((1, 2), -100)
    output = model(input_ids=torch.ones_like(nothing), shift_labels=nothing, kept_ids=nothing[..., None].int())
    output.log_probs.sum().backward()
    assert not model.lm_head.weight.grad.any()


def test_scaled_logits_are_refused():
    model = tiny_model()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="plain logits, and this model's config has final_logit_softcapping"):
        add_kept_tokens_head(model, 1.0)


@pytest.mark.parametrize("padded", [False, True])
def test_the_sampler_says_what_it_kept(padded):
    """Both ways of sampling, against a full forward pass over each completion."""
    model = tiny_model()
    sampler = Sampler(model, [EOS], PAD)
    sampler.reason = "on purpose" if padded else None
    groups = sampler.sample(PROMPTS, SEEDS, CUT, max_rows=4)
    plain = SamplingConfig(max_new_tokens=12, temperature=0.8, top_k=6, top_p=0.9, min_p=0.02)
    without = sampler.sample(PROMPTS, SEEDS, plain, max_rows=4)
    sizes = set()
    for prompt, group, others in zip(PROMPTS, groups, without):
        for completion, other in zip(group, others):
            assert completion.token_ids == other.token_ids, "what is recorded changes no token"
            assert other.kept_ids is None
            assert completion.kept_ids.shape == (len(completion.token_ids), 6)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1] / 0.8
            filtered = filter_logits(logits, plain)
            for t, token in enumerate(completion.token_ids):
                kept = {v for v in completion.kept_ids[t].tolist() if v >= 0}
                assert kept == set(filtered[t].isfinite().nonzero()[:, 0].tolist())
                assert token in kept
                assert completion.logprobs[t] == pytest.approx(filtered[t].log_softmax(-1)[token].item(), abs=2e-5)
                sizes.add(len(kept))
    assert len(sizes) > 2, "top-p and min-p cut too"


def test_exactly_k_are_kept_where_tokens_share_the_last_place():
    from grpo.sampling import choose_kept_tokens

    config = SamplingConfig(max_new_tokens=1, top_k=2, keep_mask=True)
    for uniform in (0.1, 0.5, 0.9):
        tokens, logprobs, kept = choose_kept_tokens(torch.zeros(1, 5), torch.tensor([uniform]).double(), config)
        assert tokens.item() in kept[0].tolist()
        assert logprobs.item() == pytest.approx(math.log(0.5))
    many = SamplingConfig(max_new_tokens=1, top_k=9, keep_mask=True)
    assert choose_kept_tokens(torch.zeros(1, 5), torch.tensor([0.5]).double(), many)[2].shape == (1, 5)


def test_what_was_kept_is_saved_as_json():
    completion = Completion([3, 0], [-0.1, -0.2], False, torch.tensor([[3, 4], [0, -1]], dtype=torch.int32))
    group = Group({}, [5], [completion, Completion([7], [-0.3], True)], ["", ""])
    read = Group.from_json(json.loads(json.dumps(group.to_json())))
    assert read == group
    assert torch.equal(read.completions[0].kept_ids, completion.kept_ids)
    assert read.completions[0].kept_ids.dtype == torch.int32
    assert read.completions[1].kept_ids is None


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 4, "temperature": 0.0}])
def test_what_would_not_be_bounded_is_refused(settings):
    with pytest.raises(ValueError, match="keep_sampling_mask needs top_k"):
        SamplingConfig(max_new_tokens=1, keep_mask=True, **settings)
