"""Calling rewards: all functions of a batch at once, sync and async, each value checked, failures pinned to samples.

A reward function follows TRL's protocol: `f(prompts, completions, **columns) -> list[float | None]`, where None means
that it does not apply to that sample; it may be `async def`. In place of a float it may return StepRewards, one reward
for each step. `trainer_state`, `log_metric(name, value)` and
`log_extra(column, values)` reach it as keywords, as TRL 1.16 hands them on. Its `__name__` names its metrics:
`rewards/<name>/mean`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import numbers
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from rewards.steps import StepRewards

logger = logging.getLogger(__name__)

Reward = float | StepRewards | None
Rewards = Sequence[Reward]
RewardFunction = Callable[..., Rewards | Awaitable[Rewards]]
OnError = Literal["stop", "mask"]
"""What a sample does whose reward raised: end the run with an error that names it, or drop out of the batch."""
SEARCH_SECONDS = 30.0
"""How long the samples at fault are looked for after a batch has failed; the rest of it then fails as a whole."""


class RewardError(ValueError):
    """A reward that cannot be found or loaded, that raised, or that returned what the trainer cannot use."""


class SetupError(RuntimeError):
    """This machine cannot run a reward: no sandbox, no proof assistant. It ends a run always: no sample is at fault."""


Score = Reward | RewardError
"""What a function gave one sample; in its place, why it could not."""


@dataclass(frozen=True)
class Batch:
    """What a reward function is called with.

    Of `columns`, a list or tuple of one value a completion belongs to the samples; anything else (`trainer_state`,
    `log_metric`) is handed on whole.
    """

    prompts: Sequence
    completions: Sequence
    columns: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.completions):
            raise RewardError(f"{len(self.completions)} completions need as many prompts, got {len(self.prompts)}")

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def keywords(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "completions": self.completions, **self.columns}

    def is_column(self, value: object) -> bool:
        return isinstance(value, list | tuple) and len(value) == len(self)

    def take(self, rows: Sequence[int]) -> Batch:
        """These samples, in this order."""
        columns = {
            name: [value[row] for row in rows] if self.is_column(value) else value
            for name, value in self.columns.items()
        }
        return Batch([self.prompts[row] for row in rows], [self.completions[row] for row in rows], columns)


def score_all(
    functions: Sequence[RewardFunction],
    prompts: Sequence,
    completions: Sequence,
    columns: Mapping[str, Sequence],
    on_error: OnError = "stop",
    **shared: Any,
) -> list[list[Reward]]:
    """Every function's rewards for one batch: a list a function, in it one finite number (or StepRewards) or None a
    completion.

    Async functions run concurrently, on one event loop of their own, while the others run here, in order; so this works
    in any thread, also where a loop is running already. `shared` are the keywords that are no columns: trainer_state,
    log_metric, log_extra.

    A function that raises is called again on ever smaller parts of the batch, until the sample at fault is known.
    on_error "stop" raises RewardError with the reward, the sample and what to return instead, its cause the original
    exception. "mask" goes on with the others: that completion gets None from every function, because a total that lacks
    one part compares with no other; the first such error of each kind is logged, and their share goes to `log_metric`
    as `rewards/<name>/errors`. What is wrong with the function or the machine, not with a sample (no list, another
    length, an unknown column, an ImportError, a SetupError), stops in either case.

    >>> def length(prompts, completions, **columns):
    ...     return [float(len(completion)) for completion in completions]
    >>> score_all([length], ["Q", "Q"], ["A", "no"], {})
    [[1.0, 2.0]]
    """
    if on_error not in ("stop", "mask"):
        raise RewardError(f"on_error is 'stop' or 'mask', got {on_error!r}")
    batch = Batch(prompts, completions, {**columns, **shared})
    if not len(batch):
        return [[] for _ in functions]
    begun = {i: _begin(function, batch) for i, function in enumerate(functions) if is_async(function)}
    scores: dict[int, list[Score]] = {}
    try:
        for i in sorted(range(len(functions)), key=begun.__contains__):  # the async ones last: they run meanwhile
            result = begun[i].result if i in begun else functools.partial(functions[i], **batch.keywords)
            scores[i] = _score(functions[i], batch, result, on_error)
    finally:
        for future in begun.values():
            future.cancel()
    failed = {row for values in scores.values() for row, value in enumerate(values) if isinstance(value, RewardError)}
    return [
        [None if row in failed else value for row, value in enumerate(scores[i])]  # type: ignore[misc]
        for i in range(len(functions))
    ]


def score_later(*args: Any, **keywords: Any) -> Future[list[list[Reward]]]:
    """`score_all` in a thread of its own, so that this one goes on (the next forward pass, say); it raises in
    `.result()`.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
    try:
        return executor.submit(score_all, *args, **keywords)
    finally:
        executor.shutdown(wait=False)


def call_reward(function: RewardFunction, prompts: Sequence, completions: Sequence, **columns: Any) -> list[Reward]:
    """`score_all` for one function. Raises RewardError for whatever it does wrong.

    >>> call_reward(lambda prompts, completions: [True], ["Q"], ["A"])
    [1.0]
    """
    return score_all([function], prompts, completions, columns)[0]


def reward_name(function: RewardFunction) -> str:
    """What its metrics are called: its `__name__`, of an object its class's, looked up through functools.partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def is_async(function: RewardFunction) -> bool:
    """Whether a call gives a coroutine: `async def` functions, partials of them, objects with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _outcome(name: str, call: Callable[[], object], size: int) -> list:
    """What a call returns, if it is a list of this size. Raises RewardError where no other sample would fare better."""
    try:
        return as_list(name, call(), size)
    except (ImportError, SetupError) as error:
        raise RewardError(f"reward {name!r} cannot run here: {error}") from error


def as_list(name: str, values: object, size: int) -> list:
    """What a reward function returned, if it is a list of this size."""
    if not isinstance(values, list | tuple):
        raise RewardError(
            f"reward {name!r} returned {type(values).__name__}; return a list with one float or None "
            "for each completion (of a tensor or an array: .tolist())"
        )
    if len(values) != size:
        raise RewardError(
            f"reward {name!r} returned {len(values)} values for {size} completions; "
            "return one for each, None where it does not apply"
        )
    return list(values)


def _score(function: RewardFunction, batch: Batch, result: Callable[[], object], on_error: OnError) -> list[Score]:
    """The checked values of one function, whose call `result` makes or waits for; RewardErrors only where they mask."""
    name = reward_name(function)
    try:
        values = _outcome(name, result, len(batch))
    except RewardError:
        raise
    except Exception as error:
        values = _pin_down(function, batch, error, first_only=on_error == "stop")
    ids = batch.columns.get("completion_ids")
    lengths = [len(tokens) for tokens in ids] if ids is not None and batch.is_column(ids) else [math.inf] * len(batch)
    checked = [_usable(name, row, value, lengths[row]) for row, value in enumerate(values)]
    failures = [value for value in checked if isinstance(value, RewardError)]
    if failures and on_error == "stop":
        raise failures[0]
    if on_error == "mask":
        _report(name, failures, batch)
    return checked


def _pin_down(function: RewardFunction, batch: Batch, error: Exception, first_only: bool) -> list:
    """The values of a batch whose call raised `error`, with a RewardError in the place of each sample at fault.

    Parts that fail are halved. One culprit costs about two more batches; `first_only` looks no further.
    """
    name = reward_name(function)
    quiet = Batch(batch.prompts, batch.completions, {**batch.columns, **_without_logs(batch.columns)})
    deadline = time.monotonic() + SEARCH_SECONDS
    values: list = [None] * len(batch)
    failing: list[tuple[range, Exception]] = [(range(len(batch)), error)]  # the first rows on top
    found = False
    while failing and not (found and first_only):
        rows, error = failing.pop()
        if len(rows) == 1 or time.monotonic() > deadline:
            found = True
            for row in rows:
                values[row] = _failure(name, batch, rows, error)
            continue
        middle = len(rows) // 2
        for half in (rows[middle:], rows[:middle]):
            try:
                parts = _outcome(name, functools.partial(_call, function, quiet.take(half)), len(half))
            except RewardError:
                raise
            except Exception as smaller:
                failing.append((half, smaller))
            else:
                values[half.start : half.stop] = parts
    if not found and first_only:
        raise RewardError(
            f"reward {name!r} raised {_described(error)} on {len(batch)} samples together and on no half of them "
            "alone; mend the function, or set on_error to 'mask' to go on"
        ) from error
    return values


def _failure(name: str, batch: Batch, rows: range, error: Exception) -> RewardError:
    if len(rows) == 1:
        prompt, completion = batch.prompts[rows[0]], batch.completions[rows[0]]
        where = f"sample {rows[0]}; prompt {prompt!r:.100}, completion {completion!r:.200}"
    else:
        where = f"one of the samples {rows[0]} to {rows[-1]}"
    failure = RewardError(f"reward {name!r} raised {_described(error)} on {where}")
    failure.__cause__ = error
    return failure


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _usable(name: str, row: int, value: object, num_tokens: float) -> Score:
    if value is None or isinstance(value, RewardError):
        return value
    if isinstance(value, StepRewards):
        if value.ends[-1] < num_tokens:
            return value
        return RewardError(
            f"reward {name!r} returned a step that ends with token {value.ends[-1]} for sample {row}, which has "
            f"{num_tokens} tokens; ends are indices in completion_ids, from 0 on"
        )
    if not isinstance(value, numbers.Real):
        return RewardError(
            f"reward {name!r} returned {value!r:.60} ({type(value).__name__}) for sample {row}; return a float or None"
        )
    if not math.isfinite(value):
        return RewardError(
            f"reward {name!r} returned {value} for sample {row}; return a finite float, or None if it does not apply"
        )
    return float(value)


_reported: set[tuple[str, str]] = set()


def _report(name: str, failures: Sequence[RewardError], batch: Batch) -> None:
    """The share of failures as a metric, 0 too so that means are right; the first failure of each kind in the log."""
    if log_metric := batch.columns.get("log_metric"):
        log_metric(f"rewards/{name}/errors", len(failures) / len(batch))
    for failure in failures:
        kind = (name, type(failure.__cause__).__name__)
        if kind not in _reported:
            _reported.add(kind)
            logger.error("%s; the sample is masked, and so are later ones, unlogged", failure, exc_info=failure)


def _without_logs(columns: Mapping[str, Any]) -> dict[str, Callable[..., None]]:
    """Stand-ins for the logging keywords: a batch that is called again in parts must not be logged twice."""
    return {name: lambda *values: None for name in ("log_metric", "log_extra") if columns.get(name) is not None}


def _call(function: RewardFunction, batch: Batch) -> object:
    return _begin(function, batch).result() if is_async(function) else function(**batch.keywords)


def _begin(function: RewardFunction, batch: Batch) -> Future:
    """Start an async function on the event loop."""

    async def rewards() -> Rewards:
        return await function(**batch.keywords)  # type: ignore[misc]

    return asyncio.run_coroutine_threadsafe(rewards(), _event_loop())


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One loop a process, in a thread of its own: an HTTP client keeps its connections from batch to batch, which a
    fresh loop each time would break.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async rewards", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_event_loop.cache_clear)  # a forked child has the loop and not its thread
