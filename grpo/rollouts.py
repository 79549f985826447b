"""Rollouts: which prompts come next, what was sampled, and which update uses what. Every state has an owner.

`PromptStream` owns the order of the prompts and the seeds of their completions; `RolloutBuffer` owns the groups that
are sampled and not yet used up. Both save and load their state as plain JSON values, so a run resumes anywhere, also
between two updates on one rollout.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from grpo.config import RolloutPlan
from grpo.sampling import Completion
from rewards import StepRewards


@dataclass
class Group:
    """One prompt and its G completions. Lists are indexed by completion; log-probs in nats, one a token."""

    row: dict[str, Any]
    """The data set's row, with `prompt` and the columns that rewards read."""
    prompt_ids: list[int]
    completions: list[Completion]
    texts: list[str]
    number: int = 0
    """Its place in the prompt stream."""
    part: int = 0
    """Which mini-batch of its rollout it belongs to."""
    rewards: dict[str, list[float | None]] = field(default_factory=dict)
    """By reward function; None where it does not apply, the mean where it judged steps."""
    steps: dict[str, list[StepRewards | None]] = field(default_factory=dict)
    """By reward function, where it judged steps; None elsewhere."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """What reward functions said of the completions by `log_extra`, by column."""
    totals: list[float] = field(default_factory=list)
    """Weighted sums; 0 for a completion that is not live."""
    live: list[bool] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    """Of whole completions."""
    token_advantages: list[list[float]] | None = None
    """Of each token, where a reward judged steps, those of whole completions included; None: they are all the same."""
    teaches: bool = True
    """False when all rewards are equal."""
    old_logprobs: list[list[float]] | None = None
    """By the trainer's own forward pass; None while the policy has not moved since sampling."""
    ref_logprobs: list[list[float]] | None = None

    def outcomes(self, name: str) -> list[float | None]:
        """A reward function's values for whole completions; None where it does not apply or judged steps."""
        steps = self.steps.get(name) or [None] * len(self.completions)
        return [None if some else reward for reward, some in zip(self.rewards[name], steps)]

    def to_json(self) -> dict[str, Any]:
        saved = asdict(self) | {"extra": {}}  # any objects, and already shown
        for completion in saved["completions"]:
            if completion["kept_ids"] is not None:
                completion["kept_ids"] = completion["kept_ids"].tolist()
        return saved

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Group:
        completions = []
        for completion in saved["completions"]:
            kept = completion.get("kept_ids")
            kept = None if kept is None else torch.tensor(kept, dtype=torch.int32)
            completions.append(Completion(**completion | {"kept_ids": kept}))
        steps = {
            name: [None if one is None else StepRewards(**one) for one in given]
            for name, given in saved["steps"].items()
        }
        return cls(**saved | {"completions": completions, "steps": steps})


@dataclass(frozen=True)
class Draw:
    """One prompt to sample: a row of the data set, and a seed for each of its completions."""

    index: int
    seeds: list[int]
    number: int = 0
    """Its place in the stream."""


class PromptStream:
    """An endless, seeded order over a data set's rows: a new permutation every epoch.

    The same on every rank, so that ranks can share a draw out among themselves. The k-th prompt that is ever drawn gets
    the same seeds on one rank or on many, so sampling does not depend on the number of ranks either.
    """

    def __init__(self, num_rows: int, num_generations: int, seed: int, shuffle: bool = True):
        self.num_rows, self.num_generations, self.seed, self.shuffle = num_rows, num_generations, seed, shuffle
        self.drawn = 0

    def draw(self, count: int) -> list[Draw]:
        """The next `count` prompts."""
        draws = [self._nth(number) for number in range(self.drawn, self.drawn + count)]
        self.drawn += count
        return draws

    def _nth(self, number: int) -> Draw:
        epoch, place = divmod(number, self.num_rows)
        return Draw(
            index=self._order(epoch)[place],
            seeds=[_seed(self.seed, number, completion) for completion in range(self.num_generations)],
            number=number,
        )

    def _order(self, epoch: int) -> Sequence[int]:
        if not self.shuffle:
            return range(self.num_rows)
        if getattr(self, "_epoch", None) != epoch:
            self._permutation = list(range(self.num_rows))
            random.Random(f"{self.seed}-{epoch}").shuffle(self._permutation)
            self._epoch = epoch
        return self._permutation

    @property
    def epoch(self) -> float:
        return self.drawn / self.num_rows

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn, "num_rows": self.num_rows, "seed": self.seed, "shuffle": self.shuffle}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError when the data set's size, the seed or shuffling changed, as another order would follow."""
        for name, now in (("num_rows", self.num_rows), ("seed", self.seed), ("shuffle", self.shuffle)):
            if state[name] != now:
                raise ValueError(
                    f"the checkpoint was made with {name} {state[name]} and this run has {now}; "
                    "resume with the data set, seed and shuffling of the run that was cut off, or start a new run"
                )
        self.drawn = state["drawn"]


def _seed(*parts: int) -> int:
    """A 63-bit seed that neighbouring inputs do not share."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class RolloutBuffer:
    """Serves mini-batches of groups: filled by `fill` when used up, then `plan.num_updates` updates from it."""

    def __init__(self, plan: RolloutPlan, fill: Callable[[], list[Group]]):
        self.plan, self.fill = plan, fill
        self.groups: list[Group] = []
        self.used = plan.num_updates
        """Updates done with the groups that are here."""

    def next(self) -> list[Group]:
        """The groups of the next update (this rank's share): the same ones until `advance` says that it is done."""
        if self.used == self.plan.num_updates:
            self.groups, self.used = self.fill(), 0
        part = self.used % self.plan.num_minibatches
        return [group for group in self.groups if group.part == part]

    def advance(self) -> None:
        self.used += 1

    def state_dict(self) -> dict[str, Any]:
        empty = self.used == self.plan.num_updates
        return {
            "used": self.used,
            "updates": self.plan.num_updates,
            "groups": [] if empty else [g.to_json() for g in self.groups],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError when a rollout now serves another number of updates than at the checkpoint."""
        if state["updates"] != self.plan.num_updates:
            raise ValueError(
                f"the checkpoint's rollouts serve {state['updates']} updates and this run's {self.plan.num_updates}; "
                "resume with the batch settings of the run that was cut off"
            )
        self.used = state["used"]
        self.groups = [Group.from_json(group) for group in state["groups"]]


@dataclass
class RolloutClock:
    """What making a rollout took, in seconds, and how many prompts it took beyond the planned."""

    sampling_seconds: float = 0.0
    waiting_seconds: float = 0.0
    """Those of sampling that the step had to wait for."""
    scoring_seconds: float = 0.0
    refilled: int = 0


class RolloutAhead:
    """A rank's share of the next rollout, which is sampled and scored in a thread while this one is trained on.

    place: the prompt stream's state before its prompts were drawn. score(groups, logged) keeps the rewards with the
    groups and what reward functions log in `logged`. On a GPU the thread works in a CUDA stream of its own, behind what
    is queued by now.
    """

    def __init__(
        self,
        place: dict[str, Any],
        sample: Callable[[], list[Group]],
        score: Callable[[list[Group], dict[str, list[float]]], None],
        device: torch.device,
    ):
        self.place = place
        self.seconds = 0.0
        """What sampling took."""
        self.logged: dict[str, list[float]] = defaultdict(list)
        self.future: Future[list[Group]] = Future()
        stream = _rollout_stream(device) if device.type == "cuda" else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(device))

        def run() -> None:
            started = time.perf_counter()
            try:
                with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
                    groups = sample()
                self.seconds = time.perf_counter() - started
                score(groups, self.logged)
                self.future.set_result(groups)
            except BaseException as error:  # it belongs to whoever waits
                self.future.set_exception(error)

        # A daemon, so that a run which broke off need not wait for what it will not use.
        threading.Thread(target=run, name="rollout", daemon=True).start()

    def wait(self) -> list[Group]:
        """The groups, sampled and scored. Raises what sampling or scoring raised."""
        return self.future.result()

    def failed(self) -> bool:
        """Waits, and says whether sampling or scoring raised; `wait` raises it."""
        return self.future.exception() is not None

    def state_dict(self) -> dict[str, Any]:
        """Waits for the groups: what was sampled with weights that are gone cannot be sampled again."""
        groups = [group.to_json() for group in self.wait()]
        return {"place": self.place, "groups": groups, "seconds": self.seconds, "logged": self.logged}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RolloutAhead:
        ahead = cls.__new__(cls)
        ahead.place, ahead.seconds = state["place"], state["seconds"]
        ahead.logged = defaultdict(list, state["logged"])
        ahead.future = Future()
        ahead.future.set_result([Group.from_json(group) for group in state["groups"]])
        return ahead


@functools.cache
def _rollout_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all rollouts: the allocator keeps memory for each stream apart."""
    return torch.cuda.Stream(device)


def assign_ranks(costs: Sequence[int], homes: Sequence[int], num_ranks: int, tolerance: float = 0.05) -> list[int]:
    """Which rank trains on which group, so that no rank waits for another: costs in tokens, homes the ranks that hold
    the groups now -> a rank each. Groups move one by one from the fullest rank to the emptiest, until these differ by
    less than `tolerance` of the mean or no move helps.

    >>> assign_ranks([9, 1, 1, 7], [0, 1, 1, 0], num_ranks=2)
    [0, 1, 1, 1]
    """
    ranks = list(homes)
    loads = [sum(cost for cost, rank in zip(costs, ranks) if rank == r) for r in range(num_ranks)]
    while True:
        full, empty = max(range(num_ranks), key=loads.__getitem__), min(range(num_ranks), key=loads.__getitem__)
        gap = loads[full] - loads[empty]
        movable = [i for i, rank in enumerate(ranks) if rank == full and 0 < costs[i] < gap]
        if gap <= tolerance * sum(loads) / num_ranks or not movable:
            return ranks
        moved = min(movable, key=lambda i: abs(costs[i] - gap / 2))
        ranks[moved] = empty
        loads[full] -= costs[moved]
        loads[empty] += costs[moved]
