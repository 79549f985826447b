"""Rewards as the trainer calls them: async, in the background, logging, failing."""

import asyncio
import threading

import pytest

from rewards import RewardError


def accurate(prompts, completions, **columns):
    return [float(len(set(completion)) > 3) for completion in completions]


@pytest.mark.parametrize(
    ("settings", "background"), [({}, False), ({"beta": 0.1}, True), ({"num_iterations": 2}, True)]
)
def test_sync_rewards_leave_the_main_thread_only_where_it_has_work(make_trainer, settings, background):
    threads = []

    def reward(prompts, completions, **columns):
        threads.append(threading.current_thread())
        return accurate(prompts, completions)

    make_trainer(rewards=reward, max_steps=1, **settings).train()
    assert (threads[0] is not threading.main_thread()) == background


def test_an_async_reward_is_awaited_and_named(make_trainer):
    async def patient(prompts, completions, **columns):
        await asyncio.sleep(0)
        return accurate(prompts, completions)

    trainer = make_trainer(rewards=[patient, accurate], max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/patient/mean"] == logged["rewards/accurate/mean"]


def test_what_rewards_log_becomes_metrics_and_columns(make_trainer):
    seen = []

    def telling(prompts, completions, trainer_state, log_metric, log_extra, **columns):
        log_metric("telling/step", trainer_state.global_step)
        log_extra("first", [completion[:1] for completion in completions])
        return accurate(prompts, completions)

    trainer = make_trainer(rewards=telling, max_steps=2)
    trainer._call_on_rollout = lambda groups: seen.extend(groups)
    trainer.train()
    steps = [line["telling/step"] for line in trainer.state.log_history if "telling/step" in line]
    assert steps == [0, 1]
    assert all(group.extra["first"] == [text[:1] for text in group.texts] for group in seen)


def test_a_reward_that_raises_masks_its_completions_where_the_settings_say_so(make_trainer):
    calls = []

    def picky(prompts, completions, number, **columns):
        calls.append(number)
        if number[0] == calls[0][0]:
            raise ValueError("not this one")
        return accurate(prompts, completions)

    with pytest.raises(RewardError, match="reward 'picky' raised ValueError: not this one on sample 0; prompt"):
        make_trainer(rewards=picky, max_steps=1).train()
    calls.clear()
    trainer = make_trainer(rewards=picky, max_steps=1, on_reward_error="mask")
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["frac_masked"] == logged["rewards/picky/errors"] > 0
    with pytest.raises(ValueError, match="on_reward_error must be 'stop' or 'mask', got 'ignore'"):
        make_trainer(rewards=picky, on_reward_error="ignore")


def test_rewards_that_never_apply_are_found_at_the_first_rollout(make_trainer):
    """Else a run would end as a success that has learned nothing."""

    def never(prompts, completions, **columns):
        return [None] * len(completions)

    with pytest.raises(ValueError, match=r"no reward \(never\) applied to any of the 8 completions .* prompt, number"):
        make_trainer(rewards=never).train()
