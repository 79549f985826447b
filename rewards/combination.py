"""What a recipe says under `rewards:`, as functions and weights.

A weight alone (`accuracy: 1.0`), or a mapping with what RewardSpec lists: a choice of samples by column, so that
mathematics goes to one reward and code to another, and a shape for the value. Samples that a reward is not asked about
get None, as TRL has it; their other rewards count all the same.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.registry import BUILT_IN, GIVEN, did_you_mean, find_reward
from rewards.scoring import Batch, Reward, RewardError, RewardFunction, Rewards, as_list, is_async
from rewards.steps import StepRewards


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """One entry of `rewards`, whose key is the function, or a name of one's own if `function` says which one is meant.

    The value that counts and is logged is `offset + scale * clip(reward)`; the weight comes on top of it.
    """

    function: str
    """A built-in name or package.module:function."""
    weight: float = 1.0
    where: Mapping[str, Any] = field(default_factory=dict)
    """Column -> value, or a list of values: only samples that match in every column are handed to the function."""
    clip: Sequence[float] | None = None
    """[lowest, highest]"""
    scale: float = 1.0
    offset: float = 0.0
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the function; of a factory such as soft_overlong, what it is made with."""

    def __post_init__(self) -> None:
        for name in ("weight", "scale", "offset"):
            self._check(_is_number(getattr(self, name)), name, "a finite number such as 1.0")
        for name in ("where", "args"):
            value = getattr(self, name)
            plain = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            self._check(plain, name, "a mapping such as {kind: math}")
        self._check([] not in self.where.values(), "where", "one value or more for each column")
        self._check(not set(GIVEN) & set(self.args), "args", f"other keywords than {' and '.join(GIVEN)}")
        if self.clip is not None:
            pair = isinstance(self.clip, list | tuple) and len(self.clip) == 2 and all(map(_is_number, self.clip))
            self._check(pair and self.clip[0] < self.clip[1], "clip", "two numbers [lowest, highest]")

    def _check(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise RewardError(
                f"the {name} of reward {self.function!r} must be {expected}, got {value!r} ({type(value).__name__})"
            )

    @classmethod
    def read(cls, key: str, entry: object) -> RewardSpec:
        """An entry as YAML gives it: a weight, or a mapping of these fields. Raises RewardError, the nearest key named.

        >>> RewardSpec.read("accuracy", 0.5).weight
        0.5
        >>> RewardSpec.read("proofs", {"function": "proof", "where": {"kind": "proof"}}).function
        'proof'
        """
        if not isinstance(entry, Mapping):
            return cls(function=key, weight=entry)  # type: ignore[arg-type]  # checked there
        known = [part.name for part in dataclasses.fields(cls)]
        for setting in entry:
            if setting not in known:
                raise RewardError(
                    f"reward {key!r} has an unknown setting {setting!r}; {did_you_mean(str(setting), known)}"
                    f"It may have: {', '.join(known)}"
                )
        return cls(**{"function": key, **entry})

    def rows(self, batch: Batch) -> list[int]:
        """The samples that it is about. Raises RewardError for a column that the data set lacks."""
        rows = list(range(len(batch)))
        for column, wanted in self.where.items():
            values = batch.columns.get(column)
            if not batch.is_column(values):
                columns = [name for name, value in batch.columns.items() if batch.is_column(value)]
                raise RewardError(
                    f"reward {self.function!r} chooses samples by column {column!r}, which the data set lacks; "
                    f"{did_you_mean(column, columns)}Its columns: {', '.join(columns)}"
                )
            accepted = wanted if isinstance(wanted, list | tuple) else [wanted]
            rows = [row for row in rows if values[row] in accepted]  # type: ignore[index]
        return rows

    def shaped(self, reward: Reward) -> Reward:
        """Of StepRewards each step. What is no finite number passes as it is, for the check that names the sample."""
        if isinstance(reward, StepRewards):
            return StepRewards(reward.ends, tuple(map(self.shaped, reward.rewards)))  # type: ignore[arg-type]
        if not isinstance(reward, numbers.Real) or not math.isfinite(reward):
            return reward
        if self.clip is not None:
            reward = min(max(reward, self.clip[0]), self.clip[1])
        return self.offset + self.scale * reward

    @property
    def is_plain(self) -> bool:
        """Whether it changes nothing about the function."""
        return self == RewardSpec(function=self.function, weight=self.weight)


def load_reward(name: str, args: Mapping[str, Any] | None = None) -> RewardFunction:
    """The reward function called `name`: a short built-in name, or "package.module:function". Its `__name__` is the
    short name.

    Raises RewardError for an unknown name, a module that cannot be imported, something that is not callable, or `args`
    that it does not take.

    >>> load_reward("format").__name__
    'format'
    """
    return build_reward(name, RewardSpec(function=name, args=args or {}))


def load_rewards(rewards: Mapping[str, Any]) -> tuple[list[RewardFunction], list[float]]:
    """The functions of a recipe's `rewards` and their weights, in its order.

    Raises RewardError when the mapping is empty, an entry is neither a weight nor a RewardSpec, or two rewards would
    share a metric name.

    >>> functions, weights = load_rewards({"accuracy": {"where": {"kind": "math"}}, "format": 0.5})
    >>> [function.__name__ for function in functions], weights
    (['accuracy', 'format'], [1.0, 0.5])
    """
    if not isinstance(rewards, Mapping) or not rewards:
        raise RewardError(
            f"rewards maps at least one name to its weight, such as {{accuracy: 1.0, format: 1.0}}, got {rewards!r}"
        )
    specs = {key: RewardSpec.read(key, entry) for key, entry in rewards.items()}
    functions = [build_reward(key, spec) for key, spec in specs.items()]
    names = [function.__name__ for function in functions]
    if len(set(names)) < len(names):
        raise RewardError(
            f"the metrics of two rewards would share a name: {names}; give one a name of its own: "
            "`its_name: {function: package.module:function}`"
        )
    return functions, [float(spec.weight) for spec in specs.values()]


def build_reward(key: str, spec: RewardSpec) -> RewardFunction:
    """The function of a spec as TRL's protocol has it, async if the original is, with the name of its metrics."""
    function, keywords = find_reward(spec.function, spec.args)
    own_name = key != spec.function or key in BUILT_IN
    if spec.is_plain and not own_name and hasattr(function, "__name__"):
        return function
    short = spec.function.rpartition(":")[2].rpartition(".")[2]
    return _shaped(function, spec, keywords, key if own_name else getattr(function, "__name__", short))


def _shaped(function: RewardFunction, spec: RewardSpec, keywords: Mapping[str, Any], name: str) -> RewardFunction:
    """`function`, asked about the samples of the spec only, its values shaped."""

    def ask(batch: Batch, rows: list[int]) -> Any:
        return function(**{**_spreading_log_extra(batch.take(rows), rows, len(batch)).keywords, **keywords})

    def spread(values: object, batch: Batch, rows: list[int]) -> list[Reward]:
        shaped = [spec.shaped(value) for value in as_list(name, values, len(rows))]
        return _spread(shaped, rows, len(batch))

    def reward(prompts: Sequence, completions: Sequence, **columns: Any) -> Rewards:
        batch = Batch(prompts, completions, columns)
        rows = spec.rows(batch)
        return spread(ask(batch, rows) if rows else [], batch, rows)

    async def async_reward(prompts: Sequence, completions: Sequence, **columns: Any) -> Rewards:
        batch = Batch(prompts, completions, columns)
        rows = spec.rows(batch)
        return spread(await ask(batch, rows) if rows else [], batch, rows)

    result: Callable[..., Any] = async_reward if is_async(function) else reward
    result.__name__ = result.__qualname__ = name
    result.__doc__ = function.__doc__
    return result


def _spread(values: Sequence, rows: Sequence[int], size: int) -> list:
    """Values of some rows in a list for all, None elsewhere."""
    spread = [None] * size
    for row, value in zip(rows, values, strict=True):
        spread[row] = value
    return spread


def _spreading_log_extra(batch: Batch, rows: Sequence[int], size: int) -> Batch:
    """A part of a batch whose `log_extra` gives the whole batch's table one value a sample, as it must have."""
    log_extra = batch.columns.get("log_extra")
    if log_extra is None:
        return batch

    def spreading(column: str, values: Sequence) -> None:
        log_extra(column, _spread(values, rows, size))

    return dataclasses.replace(batch, columns={**batch.columns, "log_extra": spreading})


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
