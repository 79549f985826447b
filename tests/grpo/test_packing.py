"""Packs against the completions they came from, one token at a time; then: how rows are packed changes no gradient."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PAD, TOKENS, tiny_model
from torch.testing import assert_close

from grpo.loss import AVERAGES, Divisors, LossConfig, grpo_loss
from grpo.packing import IGNORE, empty_pack, pack_groups, trained_mask
from grpo.rollouts import Group
from grpo.sampling import Completion


def make_groups(seed=0, sizes=(4, 3, 4), longest=11, with_logprobs=True):
    """Groups of random lengths with log-probs of old and reference; some completions cut off, one not live."""
    rng = random.Random(seed)
    groups = []
    for g, size in enumerate(sizes):
        lengths = [rng.randint(1, longest) for _ in range(size)]
        logprobs = [[-3 * rng.random() for _ in range(n)] for n in lengths]
        group = Group(
            row={},
            prompt_ids=[rng.randrange(2, len(TOKENS)) for _ in range(rng.randint(1, 6))],
            completions=[
                Completion([rng.randrange(2, len(TOKENS)) for _ in row], row, rng.random() < 0.3) for row in logprobs
            ],
            texts=[""] * size,
            live=[(g, c) != (1, 0) for c in range(size)],
            advantages=[rng.uniform(-1.5, 1.5) for _ in range(size)],
        )
        if with_logprobs:
            group.old_logprobs = [[x + rng.gauss(0, 0.3) for x in row] for row in logprobs]
            group.ref_logprobs = [[x + rng.gauss(0, 0.3) for x in row] for row in logprobs]
        groups.append(group)
    return groups


def lengths_of(groups):
    return [len(g.prompt_ids) + len(c.token_ids) for g in groups for c in g.completions]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), max_tokens=st.integers(1, 120), sizes=st.lists(st.integers(1, 5), max_size=4))
def test_every_completion_is_in_one_pack_and_packs_are_bounded(seed, max_tokens, sizes):
    groups = make_groups(seed, sizes)
    packs = pack_groups(groups, max_tokens, PAD)
    places = [place for pack in packs for place in pack.places]
    assert sorted(places) == [(g, c) for g, size in enumerate(sizes) for c in range(size)]
    for pack in packs:
        assert len(pack.places) == pack.input_ids.shape[0]
        assert pack.input_ids.numel() <= max_tokens or len(pack.places) == 1, "padding counts; a long row stands alone"


def test_rows_hold_prompt_then_completion():
    groups = make_groups()
    for pack in pack_groups(groups, 40, PAD):
        for row, (g, c) in enumerate(pack.places):
            prompt, completion = groups[g].prompt_ids, groups[g].completions[c].token_ids
            padding = pack.input_ids.shape[1] - len(prompt) - len(completion)
            assert pack.input_ids[row].tolist() == prompt + completion + [PAD] * padding
            assert pack.attention_mask[row].tolist() == [1] * (len(prompt) + len(completion)) + [0] * padding
            assert pack.labels[row].tolist() == [IGNORE] * len(prompt) + completion + [IGNORE] * padding
        assert pack.model_inputs.keys() == {"input_ids", "attention_mask", "labels"}


@pytest.mark.parametrize("mask_truncated", [False, True])
def test_loss_inputs_stand_at_the_position_that_predicts_the_token(mask_truncated):
    """Position t of the loss belongs to token t + 1, so a completion begins at len(prompt) - 1."""
    groups = make_groups()
    dropped = 0
    for pack in pack_groups(groups, 40, PAD, mask_truncated=mask_truncated):
        inputs = pack.loss_inputs
        for row, (g, c) in enumerate(pack.places):
            group, completion = groups[g], groups[g].completions[c]
            start = len(group.prompt_ids) - 1
            where = range(start, start + len(completion.token_ids))
            trained = group.live[c] and not (mask_truncated and completion.truncated)
            assert inputs.mask[row].nonzero().flatten().tolist() == (list(where) if trained else [])
            assert inputs.advantages[row] == pytest.approx(group.advantages[c])
            for name in ("old_logprobs", "ref_logprobs"):
                expected = torch.zeros(inputs.mask.shape[1])
                expected[list(where)] = torch.tensor(getattr(group, name)[c])
                assert torch.equal(getattr(inputs, name)[row], expected)
            dropped += not trained
    assert dropped == (1 if not mask_truncated else sum(not t for g in groups for t in trained_mask(g, True)))
    assert not mask_truncated or dropped > 1, "the groups do hold completions that were cut off"


def test_log_probs_that_nobody_computed_stay_away():
    inputs = pack_groups(make_groups(with_logprobs=False), 10_000, PAD)[0].loss_inputs
    assert inputs.old_logprobs is None, "the loss takes the ratio as 1"
    assert inputs.ref_logprobs is None


def test_rows_of_like_length_share_a_pack():
    """Little padding: at a bound of four times the longest row, at most a fifth of the tokens in these packs."""
    groups = make_groups(sizes=(8, 8, 8, 8), longest=40)
    packs = pack_groups(groups, 4 * max(lengths_of(groups)), PAD)
    held = sum(pack.input_ids.numel() for pack in packs)
    assert len(packs) > 3
    assert 1 - sum(lengths_of(groups)) / held < 0.2


def test_no_groups_no_packs():
    assert pack_groups([], 100, PAD) == []


# ---------------------------------------------------------------- gradients

WHOLE_UPDATE = 10_000
OPTIONS = [
    {"loss_type": loss_type, "beta": beta, "importance_sampling_level": level}
    for loss_type, beta, level in itertools.product(sorted(AVERAGES), (0.0, 0.05), ("token", "sequence"))
]


def update(model, groups, packs, cfg):
    """Loss and gradient of all packs, in float64, with log-probs by an ordinary forward."""
    tokens = sum(len(c.token_ids) for g in groups for c, t in zip(g.completions, trained_mask(g, False)) if t)
    divisors = Divisors(
        num_rows=sum(len(g.completions) for g in groups), num_tokens=tokens, rollout_tokens_per_update=tokens * 1.5
    )
    model.zero_grad()
    total = 0.0
    for pack in packs:
        logits = model(input_ids=pack.input_ids, attention_mask=pack.attention_mask).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, pack.input_ids[:, 1:, None])[..., 0]
        loss, _ = grpo_loss(logprobs, pack.loss_inputs, divisors, cfg)
        loss.backward()
        total += loss.item()
    gradient = torch.cat(
        [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters()]
    )
    return total, gradient


@pytest.fixture(scope="module")
def model():
    return tiny_model(dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_how_rows_are_packed_changes_no_gradient(model, options):
    cfg = LossConfig(max_completion_length=11, **options)
    groups = make_groups(seed=5)
    total, gradient = update(model, groups, pack_groups(groups, WHOLE_UPDATE, PAD), cfg)
    assert gradient.norm() > 0.01
    for max_tokens in (1, 17, 60):
        packs = pack_groups(groups, max_tokens, PAD)
        assert len(packs) > 1
        split_total, split_gradient = update(model, groups, packs, cfg)
        assert split_total == pytest.approx(total, abs=1e-10)
        assert_close(split_gradient, gradient, rtol=1e-10, atol=1e-10)


def test_an_empty_pack_gives_zero_gradients_and_not_none(model):
    """DDP waits for the gradient of every parameter, so a rank without a completion still has to give one."""
    cfg = LossConfig(max_completion_length=11, beta=0.05)
    pack = empty_pack(PAD)
    assert pack.places == []
    total, gradient = update(model, [], [pack], cfg)
    assert total == 0
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(gradient, torch.zeros_like(gradient))
