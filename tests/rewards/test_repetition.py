"""The repetition penalty: by hand, beside open-r1's words and TRL's tokens, in texts without spaces, on loops."""

import pickle
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import call_reward
from rewards.repetition import repeated_share, repetition_reward, repetition_units

BY_HAND = [  # text, n, share
    ("", 3, 0.0),
    ("one two", 3, 0.0),
    ("one two three", 3, 0.0),
    ("a b c d e f", 1, 0.0),
    ("wait wait wait wait", 1, 0.75),
    ("wait wait wait wait", 3, 0.5),
    ("a b a b a b", 2, 0.6),
    ("So we get 5. so we get 5.", 2, 3 / 7),
    ("So we get 5. so we get 5.", 4, 1 / 5),
    ("그래서 답은 5 그래서 답은 5", 3, 0.25),
    ("所以答案是五所以答案是五", 3, 0.4),
    ("だから答えは五です。だから答えは五です。", 4, 7 / 17),
]


@pytest.mark.parametrize(("text", "ngram_size", "share"), BY_HAND)
def test_by_hand(text, ngram_size, share):
    assert repeated_share(repetition_units(text), ngram_size) == pytest.approx(share)
    found = repetition_reward(ngram_size, -2.0)(["Q"], [[{"role": "assistant", "content": text}]])
    assert found == [pytest.approx(-2.0 * share)]
    assert str(found[0]) != "-0.0"


def test_a_chinese_loop_is_seen():
    """Between white space it is one word, so that open-r1's split sees no repetition at all."""
    loop = "我再检查一遍。" * 50
    assert len(loop.split()) == 1
    assert repeated_share(repetition_units(loop), 3) > 0.97


def open_r1(text, ngram_size, max_penalty):
    """open-r1's penalty (arXiv:2502.03373's own code is the same), written out."""
    words = text.lower().split()
    if len(words) < ngram_size:
        return 0.0
    ngrams = [tuple(words[start : start + ngram_size]) for start in range(len(words) - ngram_size + 1)]
    return (1 - len(set(ngrams)) / len(ngrams)) * max_penalty


@given(
    st.lists(st.sampled_from(["so", "we", "We", "get", "5", "\n", "1+1", "답은", "да"])).map(" ".join),
    st.integers(1, 4),
)
def test_as_open_r1_where_words_have_spaces(text, ngram_size):
    assert repetition_reward(ngram_size, -1.5)(["Q"], [text])[0] == pytest.approx(open_r1(text, ngram_size, -1.5))


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_as_trl_on_tokens(ids, ngram_size):
    trl = pytest.importorskip("trl.rewards")
    theirs = trl.get_repetition_penalty_reward(ngram_size, -1.0)(completion_ids=[ids])[0]
    assert -repeated_share(ids, ngram_size) == pytest.approx(theirs)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_only_which_units_are_equal_matters(ids, ngram_size):
    share = repeated_share(ids, ngram_size)
    assert 0.0 <= share < 1.0
    assert repeated_share([f"word {unit}" for unit in ids], ngram_size) == share
    assert repeated_share([*ids, 99], ngram_size) <= share  # a new unit repeats nothing
    assert repeated_share(list(dict.fromkeys(ids)), ngram_size) == 0.0


def test_what_a_trainer_needs():
    reward = repetition_reward(2)
    assert reward.__name__ == "repetition"
    assert call_reward(reward, ["Q"], ["wait wait wait wait wait"], completion_ids=[[1]], answer=["42"]) == [-0.75]
    assert pickle.loads(pickle.dumps(reward)) == reward
    with pytest.raises(ValueError, match="ngram_size must be 1 or more words, got 0"):
        repetition_reward(0)
    with pytest.raises(ValueError, match=r"max_penalty must not be positive, got 0.5"):
        repetition_reward(3, 0.5)


def test_a_batch_is_scored_in_a_blink():
    rng = random.Random(0)
    completions = [" ".join(str(rng.randrange(300)) for _ in range(500)) for _ in range(512)]
    start = time.process_time()
    assert all(reward <= 0.0 for reward in repetition_reward(3)(["Q"] * 512, completions))
    repetition_reward(40)(["Q"], ["x " * 500_000])
    assert time.process_time() - start < 5.0  # 0.3 s on an idle core
