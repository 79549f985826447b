"""Rewards by name and weight, and one guarded way to call them.

A reward function follows TRL's protocol: `f(prompts, completions, **columns) -> list[float | None]`, where None means
that it does not apply to that sample. Its `__name__` names its metrics: `rewards/<name>/mean`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence

from rewards.accuracy import accuracy_reward
from rewards.format import format_reward

RewardFunction = Callable[..., Sequence[float | None]]
BUILT_IN: dict[str, RewardFunction] = {"accuracy": accuracy_reward, "format": format_reward}
"""Short names, as they stand in a recipe: `rewards: {accuracy: 1.0, format: 1.0}`."""


class RewardError(ValueError):
    """A reward that cannot be found or loaded, or that returned what the trainer cannot use."""


def load_reward(name: str) -> RewardFunction:
    """The reward function called `name`: a short built-in name, or "package.module:function". Its `__name__` is the
    short name.

    Raises RewardError for an unknown name, a module that cannot be imported, or something that is not callable.

    >>> load_reward("format").__name__
    'format'
    """
    if not isinstance(name, str):
        raise RewardError(f"a reward is named by a text such as 'accuracy' or 'package.module:function', got {name!r}")
    if name in BUILT_IN:
        return _named(BUILT_IN[name], name)
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        raise RewardError(_unknown(name))
    function = _import(module, attribute, name)
    return function if hasattr(function, "__name__") else _named(function, attribute.rpartition(".")[2])


def load_rewards(mapping: Mapping[str, float]) -> tuple[list[RewardFunction], list[float]]:
    """The functions of a recipe's `rewards` and their weights, in its order.

    Raises RewardError when the mapping is empty, a weight is not a finite number, or two rewards would share a metric
    name.

    >>> functions, weights = load_rewards({"accuracy": 1.0, "format": 0.5})
    >>> [function.__name__ for function in functions], weights
    (['accuracy', 'format'], [1.0, 0.5])
    """
    if not isinstance(mapping, Mapping) or not mapping:
        raise RewardError(
            f"rewards maps at least one name to its weight, such as {{accuracy: 1.0, format: 1.0}}, got {mapping!r}"
        )
    weights = [_weight(name, weight) for name, weight in mapping.items()]
    functions = [load_reward(name) for name in mapping]
    names = [function.__name__ for function in functions]
    if len(set(names)) < len(names):
        raise RewardError(f"the metrics of two rewards would share a name: {names}; rename one of the functions")
    return functions, weights


def call_reward(
    function: RewardFunction, prompts: Sequence, completions: Sequence, **columns: object
) -> list[float | None]:
    """Call a reward function and check what it returned: one finite number or None for each completion.

    Raises RewardError that names the reward, the sample and what to return instead; an exception of the function itself
    is its cause.

    >>> call_reward(load_reward("format"), ["Q"], ["no tags"])
    [0.0]
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        rewards = function(prompts=prompts, completions=completions, **columns)
    except Exception as error:
        raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(rewards, list | tuple):
        raise RewardError(
            f"reward {name!r} returned {type(rewards).__name__}; return a list with one float or None "
            "for each completion (of a tensor or an array: .tolist())"
        )
    if len(rewards) != len(completions):
        raise RewardError(
            f"reward {name!r} returned {len(rewards)} values for {len(completions)} completions; "
            "return one for each, None where it does not apply"
        )
    return [_checked(name, index, reward) for index, reward in enumerate(rewards)]


def _checked(name: str, index: int, reward: object) -> float | None:
    if reward is None:
        return None
    if not isinstance(reward, numbers.Real):
        raise RewardError(
            f"reward {name!r} returned {reward!r:.60} ({type(reward).__name__}) for sample {index}; "
            "return a float or None"
        )
    if not math.isfinite(reward):
        raise RewardError(
            f"reward {name!r} returned {reward} for sample {index}; return a finite float, or None if it does not apply"
        )
    return float(reward)


def _weight(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not math.isfinite(weight):
        raise RewardError(
            f"the weight of reward {name!r} must be a finite number such as 1.0, "
            f"got {weight!r} ({type(weight).__name__})"
        )
    return float(weight)


def _named(function: RewardFunction, name: str) -> RewardFunction:
    @functools.wraps(function)
    def reward(*args: object, **kwargs: object) -> Sequence[float | None]:
        return function(*args, **kwargs)

    reward.__name__ = reward.__qualname__ = name
    return reward


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown reward {name!r}; {hint}Built in: {', '.join(BUILT_IN)}; your own: 'package.module:function'"


def _import(module: str, attribute: str, name: str) -> RewardFunction:
    try:
        found: object = importlib.import_module(module)
    except ImportError as error:
        raise RewardError(
            f"reward {name!r}: importing the module {module!r} failed: {error}; "
            "is it installed, or in the current folder?"
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        near = difflib.get_close_matches(attribute, dir(found), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RewardError(
            f"reward {name!r}: the module {module!r} was imported and has no {attribute!r}{hint}"
        ) from error
    if not callable(found):
        raise RewardError(
            f"reward {name!r} is a {type(found).__name__}, not a function; write f(prompts, completions, **columns)"
        )
    return found
