"""Rewards for length: values by hand, parity with TRL, the shapes that the papers draw, what is refused."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import call_reward
from rewards.length import cosine_reward, cosine_value, soft_overlong_penalty, soft_overlong_reward

RIGHT, WRONG = "<think>6*7</think><answer>42</answer>", "<think>6*7</think><answer>41</answer>"
SIZES = st.integers(1, 5000)

OVERLONG = [  # length, max_length, soft_tokens, penalty; DAPO eq. 13
    (0, 100, 20, 0.0),
    (80, 100, 20, 0.0),
    (81, 100, 20, -0.05),
    (90, 100, 20, -0.5),
    (100, 100, 20, -1.0),
    (101, 100, 20, -1.0),
    (10_000, 100, 20, -1.0),
    (50, 100, 100, -0.5),
    (100, 100, 0, 0.0),
    (101, 100, 0, -1.0),
    (18_432, 20_480, 4_096, -0.5),
]


@pytest.mark.parametrize(("length", "max_length", "soft_tokens", "penalty"), OVERLONG)
def test_soft_overlong(length, max_length, soft_tokens, penalty):
    assert soft_overlong_penalty(length, max_length, soft_tokens) == penalty
    assert soft_overlong_reward(max_length, soft_tokens)(["Q"], [RIGHT], completion_ids=[[7] * length]) == [penalty]
    assert soft_overlong_reward(max_length, soft_tokens)(["Q"], [RIGHT], length=[length]) == [penalty]


@given(SIZES, SIZES, st.data())
def test_soft_overlong_never_rises_and_stays_between_minus_one_and_zero(length, max_length, data):
    soft_tokens = data.draw(st.integers(0, max_length))
    penalties = [soft_overlong_penalty(tokens, max_length, soft_tokens) for tokens in (length, length + 1)]
    assert 0.0 >= penalties[0] >= penalties[1] >= -1.0


COSINE = [  # length of 100, right, reward with the default values
    (0, True, 1.0),
    (50, True, 0.75),
    (100, True, 0.5),
    (150, True, 0.5),
    (200, True, 0.5),
    (0, False, -1.0),
    (50, False, -0.75),
    (100, False, -0.5),
    (200, False, -0.5),
]


@pytest.mark.parametrize(("length", "right", "reward"), COSINE)
def test_cosine(length, right, reward):
    found = cosine_reward(100)(
        ["6*7?"], [RIGHT if right else WRONG], answer=["42"], task=["arithmetic"], completion_ids=[[7] * length]
    )
    assert found == pytest.approx([reward])


def test_cosine_with_the_papers_penalty_for_running_into_the_limit():
    reward = cosine_reward(100, correct_short=2.0, correct_long=1.0, wrong_short=-10.0, wrong_long=0.0, exceeded=-10.0)
    columns = {"answer": ["42"] * 5, "task": ["arithmetic"] * 5, "length": [0, 99, 100, 0, 100]}
    found = reward(["6*7?"] * 5, [RIGHT, RIGHT, RIGHT, WRONG, WRONG], **columns)
    assert found == pytest.approx([2.0, 1.0, -10.0, -10.0, -10.0], abs=1e-3)


def test_cosine_is_none_where_the_accuracy_is():
    reward = cosine_reward(100)
    columns = {"answer": ["no number", "42"], "task": ["arithmetic"] * 2, "length": [50, 50]}
    assert reward(["?"] * 2, [RIGHT] * 2, **columns) == [None, 0.75]
    graded = cosine_reward(100, accuracy=lambda prompts, completions, **columns: [1.0, 0.5, None])
    assert graded(["?"] * 3, ["a"] * 3, length=[0] * 3) == [1.0, -1.0, None]


@given(SIZES, SIZES, st.floats(-10, 10), st.floats(-10, 10))
def test_cosine_stays_between_its_two_values(length, max_length, shortest, longest):
    low, high = sorted((shortest, longest))
    assert low - 1e-9 <= cosine_value(length, max_length, shortest, longest) <= high + 1e-9
    assert cosine_value(0, max_length, shortest, longest) == pytest.approx(shortest)
    assert cosine_value(max_length, max_length, shortest, longest) == pytest.approx(longest)
    symmetric = cosine_value(length, 2 * length, shortest, longest)
    assert symmetric == pytest.approx((shortest + longest) / 2)


def test_parity_with_trl():
    trl = pytest.importorskip("trl.rewards")
    lengths = [0, 1, 50, 79, 80, 81, 99, 100, 101, 500]
    ids = [[7] * length for length in lengths]
    ours = soft_overlong_reward(100, 20)(["Q"] * 10, [RIGHT] * 10, completion_ids=ids)
    assert ours == trl.get_soft_overlong_punishment(100, 20)(completion_ids=ids)
    for right in (True, False):
        text = rf"\boxed{{{42 if right else 41}}}"
        theirs = trl.get_cosine_scaled_reward(max_len=100)(
            completions=[[{"role": "assistant", "content": text}]] * 10, solution=["$42$"] * 10, completion_ids=ids
        )
        found = cosine_reward(100)(
            ["6*7?"] * 10, [text] * 10, solution=["42"] * 10, task=["arithmetic"] * 10, completion_ids=ids
        )
        assert found == pytest.approx(theirs)


@pytest.mark.parametrize("reward", [soft_overlong_reward(100, 20), cosine_reward(100)])
def test_what_a_trainer_needs(reward):
    """A name for the metrics, the guarded call's protocol, a copy in another process."""
    assert reward.__name__ in ("soft_overlong", "cosine")
    columns = {"answer": ["42"], "task": ["arithmetic"], "completion_ids": [[7] * 90], "trainer_state": None}
    (value,) = call_reward(reward, ["6*7?"], [RIGHT], **columns)
    assert math.isfinite(value)
    assert pickle.loads(pickle.dumps(reward))(["6*7?"], [RIGHT], **columns) == [value]
    with pytest.raises(
        ValueError, match=f"reward '{reward.__name__}' counts tokens: it needs the column 'completion_ids'"
    ):
        reward(["6*7?"], [RIGHT], answer=["42"])
    with pytest.raises(ValueError, match="1 completions need as many lengths, got 2"):
        reward(["6*7?"], [RIGHT], answer=["42"], length=[1, 2])


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="max_completion_length is in tokens and must be 1 or more, got 0"):
        cosine_reward(0)
    for soft_tokens in (-1, 101):
        with pytest.raises(ValueError, match=r"soft_tokens must lie between 0 and max_completion_length \(100\)"):
            soft_overlong_reward(100, soft_tokens)
