"""The shipped student: the base's tokenizer, a fifth of its parameters, and the weights that its README names."""

import hashlib
from pathlib import Path

from transformers import AutoModelForCausalLM

DATA = Path(__file__).resolve().parents[2] / "data"
BASE, STUDENT = DATA / "base", DATA / "student"


def test_it_has_the_tokenizer_of_the_base():
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (STUDENT / name).read_bytes() == (BASE / name).read_bytes()


def test_it_is_a_fifth_of_the_base():
    base, student = (AutoModelForCausalLM.from_pretrained(path) for path in (BASE, STUDENT))
    assert student.num_parameters() == 1_050_240
    assert 4 < base.num_parameters() / student.num_parameters() < 6
    assert student.config.vocab_size == base.config.vocab_size
    assert student.generation_config.eos_token_id == base.generation_config.eos_token_id


def test_its_readme_names_the_weights_that_are_here():
    sha256 = hashlib.sha256((STUDENT / "model.safetensors").read_bytes()).hexdigest()
    assert sha256 in (STUDENT / "README.md").read_text(encoding="utf-8")
