"""Rewards for length, in tokens: DAPO's soft overlong penalty and the cosine reward.

Sources: DAPO (arXiv:2503.14476) section 3.4, eq. 13; "Demystifying Long Chain-of-Thought Reasoning in LLMs"
(arXiv:2502.03373) section 4.2 and appendix C.1. Parity with TRL 1.16's `get_soft_overlong_punishment` and
`get_cosine_scaled_reward` is a test.

The rewards are classes, so that they can be pickled; the factories below them are what a recipe calls. A length is that
of the row's `completion_ids`, which the trainer hands over, or stands in a column `length`, as in samples.jsonl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rewards.accuracy import accuracy_reward


def soft_overlong_penalty(length: int, max_length: int, soft_tokens: int) -> float:
    """DAPO eq. 13: 0 up to max_length - soft_tokens, then falling in a straight line to -1 at max_length, -1 beyond.

    >>> [soft_overlong_penalty(length, 100, 20) for length in (80, 90, 100, 101)]
    [0.0, -0.5, -1.0, -1.0]
    """
    over = length - (max_length - soft_tokens)
    if over <= 0:
        return 0.0
    return -1.0 if length > max_length else -over / soft_tokens


def cosine_value(length: int, max_length: int, shortest: float, longest: float) -> float:
    """`shortest` at length 0, `longest` from max_length on, half a cosine wave between (arXiv:2502.03373, CosFn).

    The paper's formula is periodic; ours stays at `longest`, or a text of twice the limit would be a short one.

    >>> [round(cosine_value(length, 100, 1.0, 0.5), 3) for length in (0, 25, 50, 100, 200)]
    [1.0, 0.927, 0.75, 0.5, 0.5]
    """
    progress = min(length / max_length, 1.0)
    return longest + 0.5 * (shortest - longest) * (1.0 + math.cos(math.pi * progress))


def soft_overlong_reward(max_completion_length: int, soft_tokens: int) -> SoftOverlongReward:
    """The reward function of `soft_overlong_penalty`. DAPO: 20,480 tokens, of which the last 4,096 are soft.

    It is for runs that cut a completion off at the limit: right or not, one that ran into it is not finished.

    >>> soft_overlong_reward(100, 20)(["Q"] * 2, ["…"] * 2, completion_ids=[[0] * 50, [0] * 90])
    [0.0, -0.5]
    """
    return SoftOverlongReward(max_completion_length, soft_tokens)


def cosine_reward(
    max_completion_length: int,
    *,
    correct_short: float = 1.0,
    correct_long: float = 0.5,
    wrong_short: float = -1.0,
    wrong_long: float = -0.5,
    exceeded: float | None = None,
    accuracy: Callable[..., Sequence[float | None]] = accuracy_reward,
) -> CosineReward:
    """The cosine reward: a right completion earns more when it is short, a wrong one loses more, so that a model thinks
    longer where it fails. It replaces the accuracy reward. The values' defaults are TRL's and open-r1's.

    exceeded: what a completion of max_completion_length or more gets, right or wrong (the paper's r_e); None gives it
        the value of the longest.
    accuracy: what decides; 1.0 is right, None makes the cosine reward None too, anything else is wrong.

    >>> reward = cosine_reward(100)
    >>> texts = ["<think>.</think><answer>42</answer>", "<think>.</think><answer>41</answer>"]
    >>> reward(["6*7?"] * 2, texts, answer=["42"] * 2, completion_ids=[[0] * 50] * 2)
    [0.75, -0.75]
    """
    return CosineReward(
        max_completion_length, (correct_short, correct_long), (wrong_short, wrong_long), exceeded, accuracy
    )


@dataclass(frozen=True)
class SoftOverlongReward:
    max_completion_length: int
    soft_tokens: int
    __name__ = "soft_overlong"

    def __post_init__(self) -> None:
        _check_limit(self.max_completion_length)
        if not 0 <= self.soft_tokens <= self.max_completion_length:
            raise ValueError(
                f"soft_tokens must lie between 0 and max_completion_length ({self.max_completion_length}), "
                f"got {self.soft_tokens}; DAPO takes a fifth of it"
            )

    def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        completion_ids: Sequence[Sequence[int]] | None = None,
        length: Sequence[int] | None = None,
        **columns: object,
    ) -> list[float]:
        lengths = token_counts(completions, completion_ids, length, self.__name__)
        return [soft_overlong_penalty(tokens, self.max_completion_length, self.soft_tokens) for tokens in lengths]


@dataclass(frozen=True)
class CosineReward:
    max_completion_length: int
    correct: tuple[float, float]
    wrong: tuple[float, float]
    exceeded: float | None = None
    accuracy: Callable[..., Sequence[float | None]] = field(default=accuracy_reward, repr=False)
    __name__ = "cosine"

    def __post_init__(self) -> None:
        _check_limit(self.max_completion_length)

    def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        completion_ids: Sequence[Sequence[int]] | None = None,
        length: Sequence[int] | None = None,
        **columns: object,
    ) -> list[float | None]:
        lengths = token_counts(completions, completion_ids, length, self.__name__)
        scores = self.accuracy(prompts, completions, **columns)
        return [
            None if score is None else self._value(tokens, right=score == 1.0)
            for tokens, score in zip(lengths, scores, strict=True)
        ]

    def _value(self, tokens: int, right: bool) -> float:
        if self.exceeded is not None and tokens >= self.max_completion_length:
            return self.exceeded
        return cosine_value(tokens, self.max_completion_length, *(self.correct if right else self.wrong))


def token_counts(
    completions: Sequence,
    completion_ids: Sequence[Sequence[int]] | None,
    length: Sequence[int] | None,
    name: str,
) -> list[int]:
    """Tokens of each completion. Raises ValueError when neither column came, or one of another length."""
    if completion_ids is None and length is None:
        raise ValueError(
            f"reward {name!r} counts tokens: it needs the column 'completion_ids' (the trainer passes it) or 'length'"
        )
    counts = [len(ids) for ids in completion_ids] if completion_ids is not None else list(length or ())
    if len(counts) != len(completions):
        raise ValueError(f"reward {name!r}: {len(completions)} completions need as many lengths, got {len(counts)}")
    if odd := [count for count in counts if not isinstance(count, int)]:
        raise ValueError(f"reward {name!r}: a length is a whole number of tokens, got {odd[0]!r}")
    return counts


def _check_limit(max_completion_length: int) -> None:
    if not isinstance(max_completion_length, int) or max_completion_length < 1:
        raise ValueError(f"max_completion_length is in tokens and must be 1 or more, got {max_completion_length!r}")
