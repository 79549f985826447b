"""Rewards as a recipe writes them: by name, weighted, for some of the samples, shaped."""

import math
import sys
from types import SimpleNamespace

import pytest

from rewards.accuracy import accuracy_reward
from rewards.combination import RewardSpec, load_reward, load_rewards
from rewards.format import format_reward
from rewards.preference import RewardInfo
from rewards.registry import BUILT_IN
from rewards.scoring import RewardError, is_async, score_all

GOOD = "<think>.</think><answer>42</answer>"


def shortness(prompts, completions, **columns):
    """Nothing is shorter than 1."""
    return [1.0 / (1 + len(completion)) for completion in completions]


def seen(prompts, completions, kind=None, floor=0.0, **columns):
    """What it was asked about: the length of each completion, from `floor` up."""
    return [max(floor, float(len(completion))) for completion in completions]


async def seen_later(prompts, completions, floor=0.0, **columns):
    return seen(prompts, completions, floor=floor)


class Constant:
    def __init__(self, value=0.5):
        self.value = value

    def __call__(self, prompts, completions, **columns):
        return [self.value] * len(completions)


@pytest.fixture(autouse=True)
def my_rewards(monkeypatch):
    """A user's module."""
    module = SimpleNamespace(
        __name__="my_rewards",
        shortness=shortness,
        seen=seen,
        seen_later=seen_later,
        constant=Constant(),
        Constant=Constant,
        NOT_CALLABLE=3,
        box=SimpleNamespace(shortness=shortness),
    )
    monkeypatch.setitem(sys.modules, "my_rewards", module)


# --- by name ----------------------------------------------------------------------------------------------------------


def test_built_ins_carry_their_short_names():
    for name, original in (("accuracy", accuracy_reward), ("format", format_reward)):
        reward = load_reward(name)
        assert reward.__name__ == name
        assert reward.__doc__ == original.__doc__
        assert reward(prompts=["Q"], completions=[GOOD], answer=["42"]) == [1.0]


def test_own_rewards_load_by_path():
    assert load_reward("my_rewards:shortness") is shortness
    assert load_reward("my_rewards:box.shortness") is shortness
    for name in ("constant", "Constant"):
        reward = load_reward(f"my_rewards:{name}")
        assert reward.__name__ == name
        assert reward(["Q"], ["A"]) == [0.5]
    assert load_reward("my_rewards:Constant", {"value": 2.0})(["Q"], ["A"]) == [2.0]


KNOWN = ", ".join(BUILT_IN)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("acuracy", {}, rf"unknown reward 'acuracy'; did you mean 'accuracy'\? Built in: {KNOWN}; your own"),
        ("kindness", {}, f"unknown reward 'kindness'; Built in: {KNOWN}; your own: 'package.module:function'"),
        ("my_rewards:", {}, "unknown reward 'my_rewards:'"),
        ("no_such_module:f", {}, "importing the module 'no_such_module' failed: No module named 'no_such_module'"),
        ("my_rewards:shortnes", {}, "was imported and has no 'shortnes'; did you mean 'shortness'"),
        ("my_rewards:NOT_CALLABLE", {}, "is a int, not a function"),
        (accuracy_reward, {}, "a reward is named by a text"),
        ("my_rewards:seen", {"flor": 1}, r"takes no args 'flor'; did you mean 'floor'\? It takes: kind, floor"),
        ("my_rewards:shortness", {"floor": 1}, "takes no args 'floor'; It takes: none"),
        ("my_rewards:Constant", {"valu": 1}, "takes no args 'valu'; did you mean 'value'"),
        ("my_rewards:seen", {"prompts": 1}, "args of reward 'my_rewards:seen' must be other keywords than prompts"),
    ],
)
def test_errors_say_what_to_do(name, args, message):
    with pytest.raises(RewardError, match=message):
        load_reward(name, args)


FACTORY_ARGS = {
    "soft_overlong": {"max_completion_length": 200, "soft_tokens": 50},
    "cosine": {"max_completion_length": 200},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_is_there(name, tmp_path):
    learned = {"helpful": "final_summary", "harmless": "whole_response"}
    for part, reads in learned.items():  # before the first completion, headers are all that is read of weights
        (tmp_path / part).mkdir()
        RewardInfo(part, reads).write(tmp_path / part)
        (tmp_path / part / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    models = {part: str(tmp_path / part) for part in learned}
    args = FACTORY_ARGS | {"preference": models} | {part: {"model": folder} for part, folder in models.items()}
    reward = load_reward(name, args.get(name))
    assert reward.__name__ == name
    assert BUILT_IN[name].summary[-1] != "."


# --- what a recipe may say --------------------------------------------------------------------------------------------


def test_a_recipes_rewards_load_in_order():
    functions, weights = load_rewards({"format": 1, "my_rewards:shortness": 0.5, "accuracy": {"weight": 2}})
    assert [function.__name__ for function in functions] == ["format", "shortness", "accuracy"]
    assert weights == [1.0, 0.5, 2.0]
    assert all(type(weight) is float for weight in weights)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "at least one name"),
        (["accuracy"], "maps at least one name to its weight"),
        ({"accuracy": "1e-5"}, "weight of reward 'accuracy' must be a finite number such as 1.0, got '1e-5'"),
        ({"accuracy": True}, "must be a finite number"),
        ({"accuracy": None}, "must be a finite number"),
        ({"accuracy": math.nan}, "must be a finite number"),
        ({"my_rewards:shortness": 1.0, "my_rewards:box.shortness": 1.0}, "share a name.*its_name: {function:"),
        ({"acc": 1.0}, "unknown reward 'acc'"),
        ({"accuracy": {"weigth": 1.0}}, r"reward 'accuracy' has an unknown setting 'weigth'; did you mean 'weight'\?"),
        ({"accuracy": {"zzz": 1.0}}, "unknown setting 'zzz'; It may have: function, weight, where, clip"),
        ({"accuracy": {"scale": math.inf}}, "the scale of reward 'accuracy' must be a finite number"),
        ({"accuracy": {"offset": "1"}}, "the offset of reward 'accuracy' must be a finite number"),
        ({"accuracy": {"clip": [1, 0]}}, r"the clip of reward 'accuracy' must be two numbers \[lowest, highest\]"),
        ({"accuracy": {"clip": 1}}, "must be two numbers"),
        ({"accuracy": {"clip": [0, "1"]}}, "must be two numbers"),
        ({"accuracy": {"where": "math"}}, "the where of reward 'accuracy' must be a mapping such as {kind: math}"),
        ({"accuracy": {"where": {"kind": []}}}, "must be one value or more for each column"),
        ({"accuracy": {"args": [1]}}, "the args of reward 'accuracy' must be a mapping"),
        ({"mine": {"weight": 1.0}}, "unknown reward 'mine'"),
        ({"mine": {"function": "acuracy"}}, "unknown reward 'acuracy'; did you mean 'accuracy'"),
    ],
)
def test_senseless_mappings_are_refused(mapping, message):
    with pytest.raises(RewardError, match=message):
        load_rewards(mapping)


LENGTHS = {"a": 1.0, "bbb": 3.0, "ccccc": 5.0}


@pytest.mark.parametrize("function", ["my_rewards:seen", "my_rewards:seen_later"])
@pytest.mark.parametrize(
    ("settings", "rewards"),
    [
        ({}, [1.0, 3.0, 5.0]),
        ({"clip": [2, 4]}, [2.0, 3.0, 4.0]),
        ({"scale": -2}, [-2.0, -6.0, -10.0]),
        ({"offset": 1}, [2.0, 4.0, 6.0]),
        ({"clip": [0, 3], "scale": 10, "offset": -1}, [9.0, 29.0, 29.0]),
        ({"args": {"floor": 2.5}}, [2.5, 3.0, 5.0]),
        ({"where": {"kind": "math"}}, [1.0, None, 5.0]),
        ({"where": {"kind": ["code", "proof"]}}, [None, 3.0, None]),
        ({"where": {"kind": "math", "level": 2}}, [None, None, 5.0]),
        ({"where": {"level": None}}, [None, 3.0, None]),
        ({"where": {"kind": "chat"}}, [None, None, None]),
        ({"where": {"kind": "math"}, "clip": [0, 2], "scale": 3.0, "weight": 9}, [3.0, None, 6.0]),
    ],
)
def test_a_spec_chooses_samples_and_shapes_values(function, settings, rewards):
    functions, _ = load_rewards({"mine": {"function": function, **settings}})
    columns = {"kind": ["math", "code", "math"], "level": [1, None, 2]}
    assert functions[0].__name__ == "mine"
    assert is_async(functions[0]) == (function == "my_rewards:seen_later")
    assert score_all(functions, ["Q"] * 3, list(LENGTHS), columns) == [rewards]


def test_only_the_chosen_samples_reach_the_function(monkeypatch):
    asked = []

    def spy(prompts, completions, answer, trainer_state, **columns):
        asked.append((prompts, completions, answer, trainer_state, columns))
        return [1.0] * len(completions)

    monkeypatch.setattr(sys.modules["my_rewards"], "spy", spy, raising=False)
    functions, _ = load_rewards({"my_rewards:spy": {"where": {"kind": "math"}}})
    columns = {"kind": ["code", "math", "math"], "answer": ["x", "1", "2"]}
    rewards = score_all(functions, ["P", "Q", "R"], ["a", "b", "c"], columns, trainer_state="state")
    assert rewards == [[None, 1.0, 1.0]]
    assert asked == [(["Q", "R"], ["b", "c"], ["1", "2"], "state", {"kind": ["math", "math"]})]
    assert score_all(functions, ["P"], ["a"], {"kind": ["code"], "answer": ["x"]}) == [[None]]
    assert len(asked) == 1, "a function is not called about nothing"


def test_one_reward_twice_has_two_names():
    functions, weights = load_rewards(
        {
            "accuracy": {"where": {"kind": "math"}},
            "code_accuracy": {"function": "accuracy", "weight": 0.5, "where": {"kind": "code"}},
        }
    )
    assert [function.__name__ for function in functions] == ["accuracy", "code_accuracy"]
    columns = {"kind": ["math", "code"], "answer": ["42", "41"]}
    assert score_all(functions, ["Q"] * 2, [GOOD] * 2, columns) == [[1.0, None], [None, 0.0]]
    assert weights == [1.0, 0.5]


def test_a_column_that_is_not_there_stops_the_run_and_names_the_nearest():
    functions, _ = load_rewards({"my_rewards:seen": {"where": {"kinds": "math"}}})
    with pytest.raises(RewardError, match=r"column 'kinds', which the data set lacks; did you mean 'kind'\? Its"):
        score_all(functions, ["Q"], ["a"], {"kind": ["math"]}, on_error="mask")


def test_the_sample_at_fault_has_its_number_in_the_whole_batch(monkeypatch):
    def picky(prompts, completions, **columns):
        return [1 / len(completion) for completion in completions]

    monkeypatch.setattr(sys.modules["my_rewards"], "picky", picky, raising=False)
    functions, _ = load_rewards({"my_rewards:picky": {"where": {"kind": "math"}, "scale": 2.0}})
    columns = {"kind": ["code", "math", "math", "math"]}
    with pytest.raises(RewardError, match="reward 'picky' raised ZeroDivisionError: division by zero on sample 2;"):
        score_all(functions, ["Q"] * 4, ["", "a", "", "b"], columns)
    assert score_all(functions, ["Q"] * 4, ["", "a", "", "b"], columns, on_error="mask") == [[None, 2.0, None, 2.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, "x"])
def test_clipping_hides_no_value_that_cannot_be_used(monkeypatch, value):
    reward = Constant(value)
    monkeypatch.setattr(sys.modules["my_rewards"], "constant", reward)
    functions, _ = load_rewards({"my_rewards:constant": {"clip": [0, 1], "where": {"kind": "math"}}})
    with pytest.raises(RewardError, match=r"returned .* for sample 1"):
        score_all(functions, ["Q"] * 2, ["a"] * 2, {"kind": ["code", "math"]})


def test_extra_columns_are_logged_for_the_whole_batch(monkeypatch):
    def telling(prompts, completions, log_extra, **columns):
        log_extra("upper", [completion.upper() for completion in completions])
        return [1.0] * len(completions)

    monkeypatch.setattr(sys.modules["my_rewards"], "telling", telling, raising=False)
    functions, _ = load_rewards({"my_rewards:telling": {"where": {"kind": "math"}}})
    logged = {}
    score_all(functions, ["Q"] * 3, ["a", "b", "c"], {"kind": ["code", "math", "math"]}, log_extra=logged.__setitem__)
    assert logged == {"upper": [None, "B", "C"]}


def test_args_of_the_recipe_win_over_a_column_of_the_same_name():
    functions, _ = load_rewards({"my_rewards:seen": {"args": {"floor": 9.0}}})
    assert score_all(functions, ["Q"], ["a"], {"floor": [0.0]}) == [[9.0]]


def test_a_spec_cannot_be_changed():
    with pytest.raises(AttributeError):
        RewardSpec(function="accuracy").weight = 2.0
