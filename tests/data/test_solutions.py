"""The pretraining text of the micro world: a reproducible stream, in the mix of habits that it announces."""

import hashlib
import itertools
import random
import re

import pytest

from data.corpus import KINDS, documents, solutions
from data.corpus.solutions import FRAMES, STYLES, TAGGED, closed, mixed_steps, slip, tagged, work_out, wrong_answer
from data.tasks import TASKS
from rewards import extract_answer, has_r1_format

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def digest(seed: int, shard: int, count: int) -> str:
    texts = "\0".join(itertools.islice(documents(seed, shard), count))
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def draws(count: int, seed: int = 0):
    rng = random.Random(seed)
    return [solutions.draw(rng) for _ in range(count)]


def test_the_stream_is_the_one_that_the_shipped_base_was_pretrained_on():
    """A change that moves this needs a new base (`make base`): say so where you change it."""
    assert digest(0, 0, 500) == "06cca2f827b4e2f4"


def test_seed_and_shard_name_a_stream():
    assert digest(3, 5, 40) == digest(3, 5, 40)
    assert len({digest(seed, shard, 40) for seed in (0, 1) for shard in (-1, 0, 1)}) == 6


def test_shares_are_percent():
    for shares in (STYLES, FRAMES, TAGGED):
        assert sum(shares.values()) == 100
    assert sum(share for share, _ in KINDS.values()) == pytest.approx(100)
    assert KINDS["solutions"][0] == 76


def test_documents_are_whole_texts():
    for text in draws(500):
        assert text.strip()
        assert "None" not in text
        assert "{" not in text.replace("\\boxed{", "").replace("}", "")


def test_tags_stand_in_a_minority_of_documents():
    """A base that always tags would leave R1-Zero nothing to learn; one that never does, nothing to reinforce."""
    texts = draws(3000)
    framed = [text for text in texts if "<answer> </answer>" in text]
    answered = [text for text in framed if any(tag in text.partition("Assistant:")[2] for tag in TAGS)]
    assert 0.18 < len(framed) / len(texts) < 0.30
    assert 0.35 < len(answered) / len(framed) < 0.55


def test_tagged_answers_are_proper_as_often_as_announced():
    rng = random.Random(1)
    texts = [tagged("2 + 3 = 5", "5", "en", rng) for _ in range(2000)]
    proper = [text for text in texts if has_r1_format(text.strip())]
    # Proper ones, and those whose answer is a sentence ("wordy"), have both tags in order.
    share = (TAGGED["proper"] + TAGGED["wordy"]) / 100
    assert share - 0.04 < len(proper) / len(texts) < share + 0.04
    assert {extract_answer(text) for text in proper} >= {"5"}


@pytest.mark.parametrize("style", ["direct", "terse", "careful", "noticed"])
@pytest.mark.parametrize("name", TASKS)
def test_right_styles_end_on_the_right_answer(name, style):
    rng, task = random.Random(f"{name}-{style}"), TASKS[name]
    for difficulty in range(1, 6):
        instance = task.draw(rng, difficulty)
        reasoning, answer, _ = work_out(task, instance, "en", style, rng)
        assert answer == task.final(instance, "en")
        assert (reasoning == "") == (style == "direct")


@pytest.mark.parametrize("name", ["arithmetic", "word_problems", "sequences", "countdown", "equations"])
def test_wrong_solutions_are_wrong(name):
    rng, task = random.Random(name), TASKS[name]
    for _ in range(40):
        instance = task.draw(rng, rng.randint(1, 5))
        _, answer, _ = work_out(task, instance, "ko", "wrong", rng)
        assert answer != task.final(instance, "ko")


def test_mixed_steps_are_steps_of_the_two_languages_in_order():
    rng, task = random.Random(4), TASKS["word_problems"]
    mixed = 0
    for seed in range(300):
        instance = task.draw(rng, 4)
        steps, language = mixed_steps(task, instance, "ko", "careful", random.Random(seed))
        korean = [bool(re.search("[가-힣]", step)) for step in steps]
        mixed += len(set(korean)) == 2
        assert language == ("ko" if korean[-1] else "en")
        numbers = [re.findall(r"\d+", step) for step in task.solve(instance, "en", "careful", random.Random(0))]
        assert [re.findall(r"\d+", step) for step in steps] == numbers
    assert 0.05 < mixed / 300 < 0.30


def test_slips():
    rng = random.Random(0)
    assert slip("3 + 4 = 7", rng) in {f"3 + 4 = {n}" for n in (0, 5, 6, 8, 9, 17)}
    assert slip("Tom > Anna > Ben", rng) in {"Anna > Tom > Ben", "Tom > Ben > Anna"}
    assert wrong_answer("Tom, Anna", rng) == "Anna, Tom"
    assert wrong_answer("7/2", rng) != "7/2"


def test_closing_sentences_state_the_answer():
    rng = random.Random(0)
    for language, reasoning in itertools.product(("en", "ko"), ("", "2 + 3 = 5")):
        for _ in range(50):
            text = closed(reasoning, "421", language, rng)
            assert text.startswith(reasoning)
            assert "421" in text
