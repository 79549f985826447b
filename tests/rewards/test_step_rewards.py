"""StepRewards: what they refuse, and how they pass from a reward function to the trainer."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from rewards import RewardError, RewardSpec, StepRewards, call_reward


@pytest.mark.parametrize(
    ("ends", "rewards", "message"),
    [
        ((), (), "one reward for each step, got 0 ends and 0 rewards; where there is no step to judge, return None"),
        ((1, 2), (1.0,), "got 2 ends and 1 rewards"),
        ((-1, 2), (1.0, 0.0), r"indices of tokens, from 0 on; got \(-1, 2\)"),
        ((0.5,), (1.0,), r"indices of tokens, from 0 on; got \(0.5,\)"),
        ((2, 2), (1.0, 0.0), r"must rise from step to step, got \(2, 2\)"),
        ((3, 1), (1.0, 0.0), r"must rise from step to step, got \(3, 1\)"),
        ((1,), (float("nan"),), r"must be finite numbers, got \(nan,\)"),
        ((1,), ("1",), "must be finite numbers"),
    ],
)
def test_what_cannot_be_steps_is_refused(ends, rewards, message):
    with pytest.raises(ValueError, match=message):
        StepRewards(ends, rewards)


def returning(*values):
    def steps(prompts, completions, **columns):
        return list(values)

    return steps


def test_steps_pass_beside_floats_and_none():
    values = [StepRewards([0, 2], [1.0, 0.5]), 0.25, None]
    ids = [[5, 6, 7], [5], [5, 6]]
    assert call_reward(returning(*values), ["Q"] * 3, ["A"] * 3, completion_ids=ids) == values
    assert call_reward(returning(*values), ["Q"] * 3, ["A"] * 3) == values, "without tokens there is nothing to compare"
    assert values[0] == StepRewards((0, 2), (1.0, 0.5))
    assert values[0].mean == 0.75


def test_a_step_beyond_the_completion_names_the_sample():
    far = returning(StepRewards((0,), (1.0,)), StepRewards((0, 2), (1.0, 0.0)))
    message = "reward 'steps' returned a step that ends with token 2 for sample 1, which has 2 tokens"
    with pytest.raises(RewardError, match=message):
        call_reward(far, ["Q"] * 2, ["A"] * 2, completion_ids=[[5], [5, 6]])


def test_a_spec_shapes_every_step():
    spec = RewardSpec(function="steps", clip=[0, 1], scale=2.0, offset=-1.0)
    assert spec.shaped(StepRewards((1, 4), (-3.0, 0.75))) == StepRewards((1, 4), (-1.0, 0.5))


def test_numbers_of_numpy_become_plain_ones():
    """As a checkpoint is JSON."""
    steps = StepRewards(ends=np.array([1, 4]), rewards=np.array([0.5, 1.0], dtype=np.float32))
    assert json.loads(json.dumps(asdict(steps))) == {"ends": [1, 4], "rewards": [0.5, 1.0]}
