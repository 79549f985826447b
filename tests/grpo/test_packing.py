"""Packs against the completions they came from, one token at a time; then: how rows are packed changes no gradient."""

import functools
import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PAD, TOKENS, tiny_model
from torch.testing import assert_close
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from grpo.attention import use_packed_attention
from grpo.loss import AVERAGES, Divisors, LossConfig, LossInputs, grpo_loss
from grpo.packing import IGNORE, PackLayout, empty_pack, pack_groups, trained_mask
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


LAYOUTS = {
    "shared": PackLayout(),
    "shared, long rows": PackLayout(long_rows=True),
    "separate": PackLayout(share_prompts=False),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


@layouts
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), max_tokens=st.integers(1, 120), sizes=st.lists(st.integers(1, 5), max_size=4))
def test_every_completion_is_in_one_pack_and_packs_are_bounded(layout, seed, max_tokens, sizes):
    groups = make_groups(seed, sizes)
    packs = pack_groups(groups, max_tokens, PAD, layout=layout)
    places = [place for pack in packs for place in pack.places]
    assert sorted(places) == [(g, c) for g, size in enumerate(sizes) for c in range(size)]
    for pack in packs:
        tokens = pack.input_ids.numel() if not layout.long_rows else held_tokens(groups, pack)
        assert tokens <= max(max_tokens, 2) or len(pack.places) == 1, "padding counts; a long completion stands alone"


def held_tokens(groups, pack):
    """Positions of a pack that are no padding, when every group in it stands once."""
    prompts = {g: len(groups[g].prompt_ids) - 1 for g, _ in pack.places}
    return sum(prompts.values()) + sum(len(groups[g].completions[c].token_ids) for g, c in pack.places)


@layouts
@pytest.mark.parametrize("max_tokens", [17, 40, 1000])
def test_what_each_position_predicts(layout, max_tokens):
    """Every token of every completion sees its prompt and what came before it, no more."""
    groups = make_groups()
    for pack in pack_groups(groups, max_tokens, PAD, layout=layout):
        width = pack.input_ids.shape[1]
        visible = seen_by(pack)
        for b, (g, c) in enumerate(pack.places):
            prompt, completion = groups[g].prompt_ids, groups[g].completions[c].token_ids
            assert pack.scored[b].sum() == len(completion)
            for t, token in enumerate(completion):
                row, at = divmod(int(pack.where[b, t]), width)
                assert pack.labels[row, at] == token
                seen = visible[row, at].nonzero().flatten()
                assert pack.input_ids[row, seen].tolist() == prompt + completion[:t]
                assert pack.position_ids[row, seen].tolist() == list(range(len(prompt) + t))
        assert (pack.labels != IGNORE).sum() == pack.scored.sum(), "nothing else is predicted"
        ours = {"input_ids", "position_ids", "attention_mask", "shift_labels", "use_cache"}
        assert pack.model_inputs.keys() - {"segments"} == ours


def seen_by(pack):
    """[R, W, W] bool, from whichever form of attention the pack has."""
    rows, width = pack.input_ids.shape
    segments = pack.attention.get("segments")
    if segments is not None:
        seen = torch.zeros(rows, width, width, dtype=torch.bool)
        queries, keys = segments.query_ends.tolist(), segments.key_ends.tolist()
        for (start, end), (first, last) in zip(itertools.pairwise(queries), itertools.pairwise(keys)):
            for query in range(start, end):  # its last query sees its last key
                seen[0, query, segments.keys[first : last - (end - 1 - query)]] = True
        return seen
    mask = pack.attention["attention_mask"]
    if mask.ndim == 4:
        return mask[:, 0]
    return torch.ones(width, width).tril().bool() & mask[:, None, :].bool()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_segments_know_every_copy_of_every_position(seed, sizes):
    for pack in pack_groups(make_groups(seed, sizes), 60, PAD, layout=LAYOUTS["shared, long rows"]):
        segments, width = pack.attention["segments"], pack.input_ids.shape[1]
        copies = {position: [int(segments.own[position])] for position in range(width)}
        for position, others, there in zip(segments.shared.tolist(), segments.copies, segments.copied):
            copies[position] += others[there].tolist()
        expected = {p: (segments.keys == p).nonzero().flatten().tolist() for p in range(width)}
        assert {position: sorted(found) for position, found in copies.items()} == expected
        assert segments.longest_query == segments.query_ends.diff().max()
        assert segments.longest_key == segments.key_ends.diff().max()


def test_sharing_saves_the_copies_of_the_prompts():
    groups = make_groups(sizes=(4, 4), longest=5)
    (shared,) = pack_groups(groups, 10_000, PAD, layout=LAYOUTS["shared, long rows"])
    separate = pack_groups(groups, 10_000, PAD, layout=LAYOUTS["separate"])
    copies = sum(3 * (len(group.prompt_ids) - 1) for group in groups)
    assert copies > 0
    tokens = sum(int((pack.attention["attention_mask"] == 1).sum()) for pack in separate)
    assert held_tokens(groups, shared) == tokens - copies


@layouts
@pytest.mark.parametrize("mask_truncated", [False, True])
def test_loss_inputs_stand_at_their_tokens(layout, mask_truncated):
    groups = make_groups()
    dropped = 0
    for pack in pack_groups(groups, 40, PAD, mask_truncated=mask_truncated, layout=layout):
        inputs = pack.loss_inputs
        for row, (g, c) in enumerate(pack.places):
            group, completion = groups[g], groups[g].completions[c]
            where = list(range(len(completion.token_ids)))
            trained = group.live[c] and not (mask_truncated and completion.truncated)
            assert inputs.mask[row].nonzero().flatten().tolist() == (where if trained else [])
            assert inputs.advantages[row] == pytest.approx(group.advantages[c])
            for name in ("old_logprobs", "ref_logprobs"):
                expected = torch.zeros(inputs.mask.shape[1])
                expected[where] = torch.tensor(getattr(group, name)[c])
                assert torch.equal(getattr(inputs, name)[row], expected)
            dropped += not trained
    assert dropped == (1 if not mask_truncated else sum(not t for g in groups for t in trained_mask(g, True)))
    assert not mask_truncated or dropped > 1, "the groups do hold completions that were cut off"


@layouts
def test_advantages_a_token_stand_at_their_tokens(layout):
    """Of the group that has them; the tokens of the others have their completion's."""
    groups = make_groups()
    groups[1].token_advantages = [
        [c + t / 10 for t in range(len(x.token_ids))] for c, x in enumerate(groups[1].completions)
    ]
    shapes = set()
    for pack in pack_groups(groups, 25, PAD, layout=layout):
        inputs = pack.loss_inputs
        shapes.add(inputs.advantages.ndim)
        for row, (g, c) in enumerate(pack.places):
            count = len(groups[g].completions[c].token_ids)
            tokens = groups[g].token_advantages[c] if g == 1 else [groups[g].advantages[c]] * count
            found = inputs.advantages[row].expand(inputs.mask.shape[1])[:count]
            assert found.tolist() == pytest.approx(tokens)
    assert shapes == {1, 2}


def test_log_probs_that_nobody_computed_stay_away():
    inputs = pack_groups(make_groups(with_logprobs=False), 10_000, PAD)[0].loss_inputs
    assert inputs.old_logprobs is None, "the loss takes the ratio as 1"
    assert inputs.ref_logprobs is None


def test_rows_of_like_length_share_a_pack():
    """Little padding: at a bound of four times the longest row, at most a fifth of the tokens in these packs."""
    groups = make_groups(sizes=(8, 8, 8, 8), longest=40)
    packs = pack_groups(groups, 4 * max(lengths_of(groups)), PAD, layout=LAYOUTS["separate"])
    held = sum(pack.input_ids.numel() for pack in packs)
    assert len(packs) > 3
    assert 1 - sum(n - 1 for n in lengths_of(groups)) / held < 0.2


def test_long_rows_are_filled_evenly():
    groups = make_groups(sizes=(4,) * 12, longest=40)
    packs = pack_groups(groups, 400, PAD, layout=LAYOUTS["shared, long rows"])
    held = [held_tokens(groups, pack) for pack in packs]
    assert len(packs) > 2
    assert min(held) > 0.75 * max(held)


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
        logits = model(input_ids=pack.input_ids, position_ids=pack.position_ids, **pack.attention).logits
        logprobs = logits.log_softmax(-1).gather(-1, pack.labels.clamp(min=0)[..., None])[..., 0]
        loss, _ = grpo_loss(pack.by_completion(logprobs), pack.loss_inputs, divisors, cfg)
        loss.backward()
        total += loss.item()
    gradient = torch.cat(
        [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters()]
    )
    return total, gradient


@pytest.fixture(scope="module")
def model():
    model = tiny_model(dtype=torch.float64)
    assert use_packed_attention(model) is None
    for module in model.modules():
        if isinstance(module, Qwen3RMSNorm):  # transformers' rounds to float32 on its way, which is 1e-9 of a gradient
            module.forward = functools.partial(rms_norm, module)
    return model


def rms_norm(module, states):
    return module.weight * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + module.variance_epsilon)


def reference_update(model, groups, cfg):
    """The same from the definition: every completion alone in a forward pass of its own, with a copy of its prompt."""
    tokens = sum(len(c.token_ids) for g in groups for c, t in zip(g.completions, trained_mask(g, False)) if t)
    divisors = Divisors(
        num_rows=sum(len(g.completions) for g in groups), num_tokens=tokens, rollout_tokens_per_update=tokens * 1.5
    )
    model.zero_grad()
    total = 0.0
    for group in groups:
        for c, completion in enumerate(group.completions):
            ids = torch.tensor([group.prompt_ids + completion.token_ids])
            logits = model(input_ids=ids).logits[:, len(group.prompt_ids) - 1 : -1]
            logprobs = logits.log_softmax(-1).gather(-1, ids[:, len(group.prompt_ids) :, None])[..., 0]
            inputs = LossInputs(
                old_logprobs=torch.tensor([group.old_logprobs[c]]),
                ref_logprobs=torch.tensor([group.ref_logprobs[c]]),
                advantages=torch.tensor([group.advantages[c]]),
                mask=torch.full(logprobs.shape, group.live[c]),
            )
            loss, _ = grpo_loss(logprobs, inputs, divisors, cfg)
            loss.backward()
            total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_packed_and_shared_is_padded_and_repeated(model, options):
    """Value and every parameter's gradient, whichever the layout and the size of the packs (float64)."""
    cfg = LossConfig(max_completion_length=11, **options)
    groups = make_groups(seed=5)
    total, gradient = reference_update(model, groups, cfg)
    assert gradient.norm() > 0.01
    for layout in LAYOUTS.values():
        for max_tokens in (WHOLE_UPDATE, 60, 17, 1):
            packs = pack_groups(groups, max_tokens, PAD, layout=layout)
            split_total, split_gradient = update(model, groups, packs, cfg)
            assert split_total == pytest.approx(total, abs=1e-10)
            assert_close(split_gradient, gradient, rtol=1e-10, atol=1e-10)
        assert len(packs) > 10


@layouts
def test_an_empty_pack_gives_zero_gradients_and_not_none(model, layout):
    """DDP waits for the gradient of every parameter, so a rank without a completion still has to give one; so does an
    update whose groups all teach nothing."""
    cfg = LossConfig(max_completion_length=11, beta=0.05)
    pack = empty_pack(PAD, layout=layout)
    assert pack.places == []
    total, gradient = update(model, [], [pack], cfg)
    assert total == 0
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(gradient, torch.zeros_like(gradient))
