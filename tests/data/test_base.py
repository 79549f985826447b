"""The shipped base: small enough to ship, loadable offline by anyone, and what its README says."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from data.problems import make_problems
from data.templates import render_prompts

BASE = Path(__file__).resolve().parents[2] / "data/base"

TEXTS = [
    "What is 23 + 45 * 6?",
    "철수는 사과 12개를 가지고 있다. 지금 몇 개입니까?",
    "<think> 3 * 4 = 12 </think> <answer> 12 </answer>",
    "Tabs\tand\nlines,  two spaces, –, é, 漢字, 🙂 and \\boxed{\\frac{1}{2}}",
    " leading space",
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(BASE)


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 16 * 2**20


def test_it_is_a_qwen3_of_about_five_million_parameters(model):
    assert isinstance(model, Qwen3ForCausalLM)
    assert 4e6 < model.num_parameters() < 6e6
    assert model.config.max_position_embeddings >= 512
    assert model.dtype == torch.bfloat16


def test_model_and_tokenizer_agree(model, tokenizer):
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    assert tokenizer.padding_side == "left"


def test_padding_is_not_the_end_of_a_text(tokenizer):
    """A padding token that is the end token would be trained on, or masked, together with it."""
    assert None not in (tokenizer.eos_token, tokenizer.pad_token)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_every_digit_is_one_token(tokenizer):
    assert len(tokenizer("1234567890")["input_ids"]) == 10
    for digit in "0123456789":
        assert len(tokenizer(digit)["input_ids"]) == len(tokenizer(f" {digit}")["input_ids"]) == 1
    # The space before a number goes with its first digit.
    assert [tokenizer.decode([token]) for token in tokenizer("7 + 42")["input_ids"]] == ["7", " +", " 4", "2"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_korean_is_no_stranger_to_the_tokenizer(tokenizer):
    """Byte-level alone would take three tokens a syllable."""
    problems = make_problems("test", 60, languages=["ko"])["problem"]
    syllables = sum("가" <= letter <= "힣" for text in problems for letter in text)
    assert sum(len(tokenizer(text)["input_ids"]) for text in problems) < 1.5 * syllables


def test_prompts_leave_room_for_a_completion(tokenizer, model):
    """r1_zero.yaml asks for 200 tokens of completion."""
    prompts = render_prompts(make_problems("train", 600), "r1_zero_short")["prompt"]
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
    assert longest + 200 <= model.config.max_position_embeddings


@torch.no_grad()
def test_it_has_learned_something(model, tokenizer):
    """A model that knows nothing needs ln(2048) = 7.6 nats a token; this one knows the world's wordings."""
    texts = make_problems("test", 12)["problem"]
    ids = tokenizer("\n".join(texts), return_tensors="pt")["input_ids"][:, :512]
    assert model(input_ids=ids, labels=ids).loss.item() < 3.0


def test_its_weights_are_those_of_its_readme():
    readme = BASE / "README.md"
    if not readme.is_file():
        pytest.skip("data/base/README.md does not exist")
    assert hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest() in readme.read_text(encoding="utf-8")
