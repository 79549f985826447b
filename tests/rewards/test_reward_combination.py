"""Rewards by name: what loads, what the errors say, and what a trainer is protected from."""

import functools
import math
import sys
from types import SimpleNamespace

import pytest

from rewards import RewardError, accuracy_reward, call_reward, format_reward, load_reward, load_rewards


def shortness(prompts, completions, **columns):
    return [1.0 / (1 + len(completion)) for completion in completions]


class Constant:
    def __call__(self, prompts, completions, **columns):
        return [0.5] * len(completions)


NOT_CALLABLE = 3


@pytest.fixture
def my_rewards(monkeypatch):
    """A user's module."""
    module = SimpleNamespace(
        __name__="my_rewards",
        shortness=shortness,
        constant=Constant(),
        NOT_CALLABLE=3,
        box=SimpleNamespace(shortness=shortness),
    )
    monkeypatch.setitem(sys.modules, "my_rewards", module)


def test_built_ins_carry_their_short_names():
    completions = ["<think>.</think><answer>42</answer>"]
    for name, original in (("accuracy", accuracy_reward), ("format", format_reward)):
        reward = load_reward(name)
        assert reward.__name__ == name
        assert reward.__doc__ == original.__doc__
        assert reward(prompts=["Q"], completions=completions, answer=["42"]) == [1.0]


@pytest.mark.usefixtures("my_rewards")
def test_own_rewards_load_by_path():
    assert load_reward("my_rewards:shortness") is shortness
    assert load_reward("my_rewards:box.shortness") is shortness
    constant = load_reward("my_rewards:constant")
    assert constant.__name__ == "constant"
    assert call_reward(constant, ["Q"], ["A"]) == [0.5]


@pytest.mark.usefixtures("my_rewards")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", r"unknown reward 'acuracy'; did you mean 'accuracy'\? Built in: accuracy, format"),
        (
            "helpfulness",
            "unknown reward 'helpfulness'; Built in: accuracy, format; your own: 'package.module:function'",
        ),
        ("my_rewards:", "unknown reward 'my_rewards:'"),
        ("no_such_module:f", "importing the module 'no_such_module' failed: No module named 'no_such_module'"),
        ("my_rewards:shortnes", "the module 'my_rewards' was imported and has no 'shortnes'; did you mean 'shortness'"),
        ("my_rewards:NOT_CALLABLE", "is a int, not a function"),
        (accuracy_reward, "a reward is named by a text"),
    ],
)
def test_errors_say_what_to_do(name, message):
    with pytest.raises(RewardError, match=message):
        load_reward(name)


@pytest.mark.usefixtures("my_rewards")
def test_a_recipes_rewards_load_in_order():
    functions, weights = load_rewards({"format": 1, "my_rewards:shortness": 0.5, "accuracy": 2.0})
    assert [function.__name__ for function in functions] == ["format", "shortness", "accuracy"]
    assert weights == [1.0, 0.5, 2.0]
    assert all(type(weight) is float for weight in weights)


@pytest.mark.usefixtures("my_rewards")
@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "at least one name"),
        (["accuracy"], "maps at least one name to its weight"),
        ({"accuracy": "1e-5"}, "weight of reward 'accuracy' must be a finite number such as 1.0, got '1e-5'"),
        ({"accuracy": True}, "must be a finite number"),
        ({"accuracy": None}, "must be a finite number"),
        ({"accuracy": math.nan}, "must be a finite number"),
        ({"my_rewards:shortness": 1.0, "my_rewards:box.shortness": 1.0}, "share a name"),
        ({"acc": 1.0}, "unknown reward 'acc'"),
    ],
)
def test_senseless_mappings_are_refused(mapping, message):
    with pytest.raises(RewardError, match=message):
        load_rewards(mapping)


def returning(value):
    def reward(prompts, completions, **columns):
        return value

    return reward


@pytest.mark.parametrize(
    ("value", "expected"), [([1.0, None], [1.0, None]), ((0, 1), [0.0, 1.0]), ([True, False], [1.0, 0.0])]
)
def test_rewards_become_floats(value, expected):
    rewards = call_reward(returning(value), ["Q"] * 2, ["A"] * 2)
    assert rewards == expected
    assert all(reward is None or type(reward) is float for reward in rewards)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "'reward' returned NoneType; return a list"),
        (1.0, "'reward' returned float; return a list"),
        ([1.0], "'reward' returned 1 values for 2 completions; return one for each"),
        ([1.0, "0.5"], r"'reward' returned '0.5' \(str\) for sample 1; return a float or None"),
        ([math.nan, 1.0], "'reward' returned nan for sample 0; return a finite float, or None if it does not apply"),
        ([0.0, math.inf], "'reward' returned inf for sample 1"),
        ([0.0, 1j], r"\(complex\) for sample 1"),
    ],
)
def test_unusable_returns_are_named(value, message):
    with pytest.raises(RewardError, match=message):
        call_reward(returning(value), ["Q"] * 2, ["A"] * 2)


def test_an_exception_keeps_its_cause():
    with pytest.raises(
        RewardError, match=r"reward 'accuracy' raised ValueError: .*'answer' nor a column 'solution'"
    ) as caught:
        call_reward(load_reward("accuracy"), ["Q"], ["A"])
    assert isinstance(caught.value.__cause__, ValueError)


def test_columns_reach_the_function():
    seen = {}

    def reward(prompts, completions, **columns):
        seen.update(columns, prompts=prompts)
        return [0.0]

    call_reward(functools.partial(reward), ["Q"], ["A"], answer=["42"], trainer_state=None)
    assert seen == {"prompts": ["Q"], "answer": ["42"], "trainer_state": None}
