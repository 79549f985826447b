"""Process rewards: one for each step of a completion, where a reward function can judge steps.

Source: DeepSeekMath (arXiv:2402.03300) section 4.1.3. What an advantage is made of them: grpo.advantages.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass


@dataclass(frozen=True)
class StepRewards:
    """What a reward function may return for a completion in place of a float. In logs its reward is the mean.

    Raises ValueError unless there is a step, one finite reward a step, and ends that rise from 0 or more.

    >>> StepRewards(ends=(3, 9), rewards=(1.0, 0.0)).mean
    0.5
    """

    ends: tuple[int, ...]
    """For each step the index in `completion_ids` of its last token."""
    rewards: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(self.ends))
        object.__setattr__(self, "rewards", tuple(self.rewards))
        if not self.ends or len(self.ends) != len(self.rewards):
            raise ValueError(
                f"StepRewards needs one reward for each step, got {len(self.ends)} ends and {len(self.rewards)} "
                "rewards; where there is no step to judge, return None"
            )
        if not all(isinstance(end, numbers.Integral) for end in self.ends) or self.ends[0] < 0:
            raise ValueError(f"the ends of StepRewards are indices of tokens, from 0 on; got {self.ends}")
        if any(later <= earlier for earlier, later in zip(self.ends, self.ends[1:])):
            raise ValueError(f"the ends of StepRewards must rise from step to step, got {self.ends}")
        if not all(isinstance(reward, numbers.Real) and math.isfinite(reward) for reward in self.rewards):
            raise ValueError(f"the rewards of StepRewards must be finite numbers, got {self.rewards}")
        object.__setattr__(self, "ends", tuple(map(int, self.ends)))  # of NumPy's numbers too, which JSON does not know
        object.__setattr__(self, "rewards", tuple(map(float, self.rewards)))

    @property
    def mean(self) -> float:
        return sum(self.rewards) / len(self.rewards)
