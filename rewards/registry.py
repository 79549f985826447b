"""Rewards by name: the built-in ones, and `package.module:function` for one's own.

A name is looked up, and its module imported, when a recipe asks for it: importing `rewards` stays light, and a library
that only one reward needs may be missing until then.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rewards.scoring import RewardError, RewardFunction


@dataclass(frozen=True)
class BuiltIn:
    """Where a built-in reward lives."""

    path: str
    """module:attribute"""
    summary: str
    """One line for `python -m rewards list`."""
    args: str = ""
    """For a factory, which makes the reward function: the args that a recipe usually gives it."""
    verdicts: str = ""
    """module:attribute of what gives the verdicts behind the rewards, where there are any."""


BUILT_IN: dict[str, BuiltIn] = {
    "accuracy": BuiltIn(
        "rewards.accuracy:accuracy_reward", "1 if the marked answer is the gold answer, 0 if not",
        verdicts="rewards.accuracy:accuracy_verdicts",
    ),
    "phrase_accuracy": BuiltIn(
        "rewards.accuracy:phrase_accuracy", "the same; \"The answer is …\", \"#### …\" and \"A: …\" mark an answer too"
    ),
    "format": BuiltIn("rewards.format:format_reward", "1 for <think>…</think><answer>…</answer> and nothing else"),
    "lenient_format": BuiltIn("rewards.format:lenient_format_reward", "the share of that format that is there"),
    "think_format": BuiltIn(
        "rewards.format:think_format_reward", "1 for <think>…</think> and then an answer of any form"
    ),
    "language": BuiltIn("rewards.language:language_reward", "share of the reasoning's words in the prompt's language"),
    "soft_overlong": BuiltIn(
        "rewards.length:soft_overlong_reward", "0 to -1 near the length limit", "max_completion_length, soft_tokens"
    ),
    "cosine": BuiltIn("rewards.length:cosine_reward", "accuracy that falls with the length", "max_completion_length"),
    "repetition": BuiltIn("rewards.repetition:repetition_reward", "0 to -1 for repeated n-grams", "ngram_size"),
    "code": BuiltIn(
        "rewards.code:code_reward", "1 for a program that passes all hidden tests, 0 if not",
        verdicts="rewards.code:code_verdicts",
    ),
    "code_share": BuiltIn("rewards.code:code_share_reward", "the share of the hidden tests that a program passes"),
    "code_step": BuiltIn("rewards.code:code_step_reward", "the same, with a step for a program that compiles"),
    "proof": BuiltIn(
        "rewards.proofs:proof_reward", "1 for a proof that the proof assistant accepts, 0 if not",
        verdicts="rewards.proofs:proof_verdicts",
    ),
    "helpful_by_rule": BuiltIn(
        "rewards.general:helpful_by_rule", "1 if the final summary passes the request's rule; for evaluation"
    ),
    "harmless_by_rule": BuiltIn(
        "rewards.general:harmless_by_rule", "1 if the response refuses a harmful request kindly; for evaluation"
    ),
    "preference": BuiltIn(
        "rewards.preference:preference_reward", "two reward models together, on general prompts", "helpful, harmless"
    ),
    "helpful": BuiltIn("rewards.preference:helpful_reward", "a reward model's view of the final summary", "model"),
    "harmless": BuiltIn("rewards.preference:harmless_reward", "a classifier's view of the whole response", "model"),
}  # fmt: skip
"""Short names, as they stand in a recipe: `rewards: {accuracy: 1.0, format: 1.0}`."""

GIVEN = ("prompts", "completions")
"""Parameters that the trainer sets and `args` may not."""


def find_reward(name: str, args: Mapping[str, Any]) -> tuple[RewardFunction, Mapping[str, Any]]:
    """The function called `name`, and the keywords to call it with: `args`, save where a factory has used them up.

    A built-in factory, or a class of one's own, is called with `args`; of a plain function they are keywords. Raises
    RewardError for an unknown name, a module that cannot be imported, something that is not callable, or args that it
    does not take.
    """
    if not isinstance(name, str):
        raise RewardError(f"a reward is named by a text such as 'accuracy' or 'package.module:function', got {name!r}")
    built_in = BUILT_IN.get(name)
    if built_in is None and not all(name.partition(":")):
        raise RewardError(
            f"unknown reward {name!r}; {did_you_mean(name, BUILT_IN)}"
            f"Built in: {', '.join(BUILT_IN)}; your own: 'package.module:function'"
        )
    found = load_attribute(name, built_in.path if built_in else name)
    _check_args(name, found, args)
    if bool(built_in.args) if built_in else isinstance(found, type):
        return _made(name, found, args), {}
    return found, args


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a question, ready to be put into an error message; "" if none is near.

    >>> did_you_mean("acuracy", ["accuracy", "format"])
    "did you mean 'accuracy'? "
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def load_attribute(name: str, path: str) -> Any:
    """What stands at "module:attribute", for the reward called `name`. Raises RewardError unless it is callable."""
    module, _, attribute = path.partition(":")
    if module.startswith("."):
        raise RewardError(f"reward {name!r} names a relative module; write it whole, package.module:function")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise RewardError(
            f"reward {name!r}: importing the module {module!r} failed: {error}; "
            "is it installed, or in the current folder?"
        ) from error
    except (Exception, SystemExit) as error:  # a module of the user's own may do anything while it is imported
        raise RewardError(
            f"reward {name!r}: the module {module!r} raised {type(error).__name__} while it was imported: {error}"
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise RewardError(
            f"reward {name!r}: the module {module!r} was imported and has no {attribute!r}; "
            f"{did_you_mean(attribute, dir(found))}".rstrip("; ")
        ) from error
    if not callable(found):
        raise RewardError(
            f"reward {name!r} is a {type(found).__name__}, not a function; write f(prompts, completions, **columns)"
        )
    return found


def _made(name: str, factory: Any, args: Mapping[str, Any]) -> RewardFunction:
    try:
        function = factory(**args)
    except (TypeError, ValueError) as error:
        raise RewardError(f"reward {name!r} cannot be made with args {dict(args)}: {error}") from error
    if not callable(function):
        raise RewardError(f"reward {name!r} made a {type(function).__name__}, not a function")
    return function


def _check_args(name: str, found: Any, args: Mapping[str, Any]) -> None:
    """Every arg is one that the function names: under `**columns` a misspelt one would be ignored without a word."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # a few functions written in C tell nothing
        return
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [parameter.name for parameter in parameters if parameter.kind in named and parameter.name not in GIVEN]
    for arg in args:
        if arg not in known:
            raise RewardError(
                f"reward {name!r} takes no args {arg!r}; {did_you_mean(arg, known)}"
                f"It takes: {', '.join(known) or 'none'}"
            )
