"""Pretraining: rows of whole documents, batches that a seed decides, a schedule, and a model that learns."""

import itertools
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.corpus import documents
from data.templates import CHAT_TEMPLATE
from recipes import pretrain
from recipes.pretrain import (
    SPECIAL_TOKENS,
    PretrainConfig,
    ShardMaker,
    batches,
    build_model,
    build_optimizers,
    fill_rows,
    learning_rate,
    train_tokenizer,
)

BASE = Path(__file__).resolve().parents[2] / "data/base"
SMALL = {
    "vocab_size": 400, "tokenizer_documents": 200, "context_length": 64, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rows_per_step": 8,
    "max_steps": 3, "warmup_steps": 1, "workers": 1,
}  # fmt: skip


def small(**changed) -> PretrainConfig:
    return PretrainConfig(**SMALL | changed)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(small())


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def test_the_tokenizer_follows_from_the_seed(tokenizer):
    assert len(tokenizer) == 400
    assert train_tokenizer(small()).get_vocab() == tokenizer.get_vocab()
    assert train_tokenizer(small(seed=1)).get_vocab() != tokenizer.get_vocab()


def test_the_tokenizer_splits_digits_and_knows_every_byte(tokenizer):
    assert len(tokenizer("98765")["input_ids"]) == 5
    for text in ("한국어 12개", "漢字 🙂\t\n  x", "\\boxed{7}"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_stand_first_and_have_their_roles(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(4)) == SPECIAL_TOKENS
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer("<|user|>2<|assistant|>")["input_ids"][::2] == [2, 3]


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_by_hand(texts: list[str], tokenizer, rows: int, length: int) -> list[list[int]]:
    """The same packing, a document at a time: one that does not fit is cut, and the next begins the next row."""
    filled: list[list[int]] = [[]]
    for text in texts:
        filled[-1] += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        if len(filled[-1]) >= length:
            filled[-1] = filled[-1][:length]
            filled.append([])
    return filled[:rows]


def test_every_row_begins_with_a_document(tokenizer):
    texts = list(itertools.islice(documents(0, 0), 400))
    rows = fill_rows(iter(texts), tokenizer.backend_tokenizer, 12, 64, tokenizer.eos_token_id)
    assert rows.tolist() == rows_by_hand(texts, tokenizer, 12, 64)
    for row in rows.tolist():
        first = tokenizer.decode(row).partition("<|endoftext|>")[0]
        assert any(text.startswith(first.rstrip("\ufffd")) for text in texts)  # cut inside a character, perhaps


def test_a_document_that_fills_a_row_exactly_is_whole(tokenizer):
    text = "2 + 3"
    length = len(tokenizer(text)["input_ids"]) + 1
    rows = fill_rows(itertools.repeat(text), tokenizer.backend_tokenizer, 3, length, tokenizer.eos_token_id)
    assert [tokenizer.decode(row) for row in rows] == [f"{text}<|endoftext|>"] * 3


@pytest.fixture
def threads_for_processes(monkeypatch):
    """Worker processes import torch anew, for ten seconds each; threads do here."""
    context = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(pretrain.multiprocessing, "get_context", lambda method: context)


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_worker_processes_make_the_shards_of_their_numbers(tokenizer):
    make = ShardMaker(small(workers=2), tokenizer.backend_tokenizer.to_str(), 8)
    made = [batch.numpy() for batch in batches(small(workers=2), tokenizer)]
    assert np.array_equal(made, [make(number) for number in range(3)])


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_arrive_in_order_whatever_the_workers(tokenizer, threads_for_processes, monkeypatch, workers):
    """Also when there are more than the workers hold at once, and when later ones are ready first."""

    class SlowForEvenShards:
        def __init__(self, config, tokenizer_json, rows):
            self.shape = rows, config.context_length

        def __call__(self, shard):
            time.sleep(0.01 * (shard % 2 == 0))
            return np.full(self.shape, shard, dtype=np.uint16)

    monkeypatch.setattr(pretrain, "ShardMaker", SlowForEvenShards)
    made = list(batches(small(workers=workers, max_steps=15), tokenizer))
    assert [batch.unique().tolist() for batch in made] == [[number] for number in range(15)]
    assert {(batch.shape, batch.dtype) for batch in made} == {((8, 64), torch.int64)}


def test_a_shard_follows_from_its_number_and_the_seed(tokenizer):
    make = ShardMaker(small(), tokenizer.backend_tokenizer.to_str(), 8)
    first = make(0)
    assert np.array_equal(first, make(0))
    assert not np.array_equal(first, make(1))
    other = ShardMaker(small(seed=1), tokenizer.backend_tokenizer.to_str(), 8)
    assert not np.array_equal(first, other(0))


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_stays_and_decays():
    """A WSD schedule, at its corners: 1/warm-up at once, 1 from there until the decay, 0 after the last step."""
    config = small(max_steps=1000, warmup_steps=100, decay_share=0.4)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[49] == pytest.approx(0.5)
    assert rates[99:601] == [1.0] * 502
    assert rates[800] == pytest.approx(0.5)
    assert rates[999] == pytest.approx(1 / 400)
    assert all(0 < rate <= 1 for rate in rates)
    assert all(abs(b - a) <= 0.01 + 1e-9 for a, b in itertools.pairwise(rates))


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_shipped_recipe_builds_the_shipped_shape():
    config = PretrainConfig()
    with torch.device("meta"):
        model = build_model(config, AutoTokenizer.from_pretrained(BASE))
    shipped = AutoModelForCausalLM.from_pretrained(BASE).config
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings"):  # fmt: skip
        assert getattr(model.config, name) == getattr(shipped, name)


def test_every_parameter_has_one_optimizer(tokenizer):
    """Muon takes the matrices of the blocks, AdamW the rest; weight decay spares embeddings and norms."""
    model = build_model(small(), tokenizer)
    muon, adamw = build_optimizers(model, small())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, others = ({names[id(p)] for group in o.param_groups for p in group["params"]} for o in (muon, adamw))
    assert matrices | others == set(names.values())
    assert not matrices & others
    assert matrices == {name for name in names.values() if "_proj" in name}
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.0]


def test_a_few_steps_on_a_cpu_learn_and_save(tmp_path, monkeypatch, capsys, threads_for_processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    losses = []
    train = pretrain.train

    def watched(*args):
        losses.extend(train(*args))
        return losses

    monkeypatch.setattr(pretrain, "train", watched)
    pretrain.main(small(output_dir=str(tmp_path / "base"), max_steps=6, learning_rate=2e-2))
    (first, start), (last, end) = losses
    assert (first, last) == (0, 5)
    assert start == pytest.approx(np.log(400), abs=0.5)  # a random model knows nothing: ln(vocabulary) nats
    assert end < start - 0.3
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == build_model(small(), train_tokenizer(small())).num_parameters()
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == CHAT_TEMPLATE
    assert "parameters, 3,072 tokens" in capsys.readouterr().out


def test_a_loss_that_is_no_number_stops_with_what_to_do(tokenizer, monkeypatch, threads_for_processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = build_model(small(), tokenizer)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0; lower learning_rate"):
        pretrain.train(model, tokenizer, small())
