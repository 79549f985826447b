"""Which models share prompts, and what is said where one cannot."""

import pytest
import torch
from tiny import tiny_model
from transformers import GPT2Config, GPT2LMHeadModel

from grpo.attention import PACKED, use_packed_attention


def test_a_model_of_full_attention_shares_prompts():
    model = tiny_model()
    assert use_packed_attention(model) is None
    assert model.config._attn_implementation == PACKED
    assert use_packed_attention(model) is None, "asked twice, the same"
    ids = torch.arange(5, 15)[None]
    alone = tiny_model()(ids).logits
    torch.testing.assert_close(model(ids).logits, alone)


def test_a_padded_batch_through_packed_attention_is_what_sdpa_gives():
    model, reference = tiny_model(), tiny_model()
    use_packed_attention(model)
    ids = torch.arange(2, 14).view(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    ours, theirs = (each(ids, attention_mask=mask).logits for each in (model, reference))
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: tiny_model(use_sliding_window=True, sliding_window=4, max_window_layers=0), "sliding_attention"),
        (lambda: eager(tiny_model()), "'eager'"),
        (lambda: tiny_model(attention_dropout=0.1), "attention_dropout 0.1"),
    ],
)
def test_why_a_model_cannot_is_said_and_it_stays_as_it_was(make, reason):
    model = make()
    before = model.config._attn_implementation
    assert reason in use_packed_attention(model)
    assert model.config._attn_implementation == before


def eager(model):
    model.set_attn_implementation("eager")
    return model


def test_a_model_that_ignores_masks_is_found_out(monkeypatch):
    """Decided by trying: its architecture claims full attention."""
    model = tiny_model()
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, **kw: forward(*args, **kw | {"attention_mask": None}))
    assert "does not follow" in use_packed_attention(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_ignores_positions_is_found_out(monkeypatch):
    model = tiny_model()
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, **kw: forward(*args, **kw | {"position_ids": None}))
    assert "positions" in use_packed_attention(model)


def test_learned_positions_share_prompts_too():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, attn_pdrop=0.0)
    assert use_packed_attention(GPT2LMHeadModel(config).eval()) is None
