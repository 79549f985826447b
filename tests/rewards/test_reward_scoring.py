"""A batch and its reward functions: sync and async, what a trainer is protected from, and who is to blame."""

import asyncio
import functools
import logging
import math
import multiprocessing
import threading

import pytest

from rewards import scoring
from rewards.combination import load_reward
from rewards.scoring import RewardError, SetupError, call_reward, is_async, reward_name, score_all, score_later

PROMPTS, COMPLETIONS = ["Q"] * 4, ["a", "bb", "", "dddd"]
LENGTHS = [1.0, 2.0, 0.0, 4.0]


def length(prompts, completions, **columns):
    return [float(len(completion)) for completion in completions]


async def length_later(prompts, completions, **columns):
    await asyncio.sleep(0)
    return length(prompts, completions)


class AsyncLength:
    async def __call__(self, prompts, completions, **columns):
        return await length_later(prompts, completions)


def one_over_length(prompts, completions, **columns):
    """Raises for an empty completion, wherever it stands in the batch."""
    return [1 / len(completion) for completion in completions]


async def one_over_length_later(prompts, completions, **columns):
    await asyncio.sleep(0)
    return one_over_length(prompts, completions)


# --- what a function returns ------------------------------------------------------------------------------------------


def returning(value):
    def reward(prompts, completions, **columns):
        return value

    return reward


@pytest.mark.parametrize(
    ("value", "expected"), [([1.0, None], [1.0, None]), ((0, 1), [0.0, 1.0]), ([True, False], [1.0, 0.0])]
)
def test_rewards_become_floats(value, expected):
    rewards = call_reward(returning(value), ["Q"] * 2, ["A"] * 2)
    assert rewards == expected
    assert all(reward is None or type(reward) is float for reward in rewards)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "'reward' returned NoneType; return a list"),
        (1.0, "'reward' returned float; return a list"),
        ([1.0], "'reward' returned 1 values for 2 completions; return one for each"),
        ([1.0, "0.5"], r"'reward' returned '0.5' \(str\) for sample 1; return a float or None"),
        ([math.nan, 1.0], "'reward' returned nan for sample 0; return a finite float, or None if it does not apply"),
        ([0.0, math.inf], "'reward' returned inf for sample 1"),
        ([0.0, 1j], r"\(complex\) for sample 1"),
    ],
)
def test_unusable_returns_are_named(value, message):
    with pytest.raises(RewardError, match=message):
        call_reward(returning(value), ["Q"] * 2, ["A"] * 2)


def test_columns_and_the_trainers_keywords_reach_every_function():
    seen = []

    def reward(prompts, completions, **columns):
        seen.append(columns | {"prompts": prompts})
        return [0.0]

    async def later(prompts, completions, **columns):
        return reward(prompts, completions, **columns)

    score_all([reward, functools.partial(later)], ["Q"], ["A"], {"answer": ["42"]}, trainer_state="state")
    assert seen == [{"prompts": ["Q"], "answer": ["42"], "trainer_state": "state"}] * 2


def test_senseless_calls_are_refused():
    with pytest.raises(RewardError, match="2 completions need as many prompts, got 1"):
        score_all([length], ["Q"], ["a", "b"], {})
    with pytest.raises(RewardError, match="on_error is 'stop' or 'mask', got 'ignore'"):
        score_all([length], ["Q"], ["a"], {}, on_error="ignore")
    assert score_all([length, length_later], [], [], {}) == [[], []]


# --- sync and async ---------------------------------------------------------------------------------------------------

ASYNC = [length_later, AsyncLength(), functools.partial(length_later, scale=2)]
SYNC = [length, functools.partial(length, scale=2), AsyncLength]


@pytest.mark.parametrize("function", ASYNC)
def test_async_functions_of_every_form_are_awaited(function):
    assert is_async(function)
    assert call_reward(function, PROMPTS, COMPLETIONS) == LENGTHS


@pytest.mark.parametrize("function", SYNC)
def test_what_is_not_async(function):
    assert not is_async(function)


def test_names_look_through_partials():
    assert [reward_name(function) for function in ASYNC] == ["length_later", "AsyncLength", "length_later"]


def test_async_functions_and_the_sync_ones_run_at_the_same_time():
    """Each waits for the other two; one after the other they would wait for ever."""
    here = threading.Event()
    meet = [asyncio.Event(), asyncio.Event()]

    def waiting(mine, other):
        async def reward(prompts, completions, **columns):
            meet[mine].set()
            await asyncio.wait_for(meet[other].wait(), 20)
            await asyncio.to_thread(here.wait, 20)
            return length(prompts, completions)

        return reward

    def sync(prompts, completions, **columns):
        here.set()
        return length(prompts, completions)

    assert score_all([waiting(0, 1), sync, waiting(1, 0)], PROMPTS, COMPLETIONS, {}) == [LENGTHS] * 3
    assert here.is_set()


def test_sync_functions_run_in_order_in_the_callers_thread():
    calls = []

    def numbered(number):
        def reward(prompts, completions, **columns):
            calls.append((number, threading.current_thread()))
            return length(prompts, completions)

        return reward

    score_all([numbered(0), length_later, numbered(1), numbered(2)], PROMPTS, COMPLETIONS, {})
    assert calls == [(number, threading.current_thread()) for number in range(3)]


def test_async_functions_work_where_a_loop_runs_already():
    """As in a notebook."""

    async def cell():
        return score_all([length_later, length], PROMPTS, COMPLETIONS, {})

    assert asyncio.run(cell()) == [LENGTHS] * 2


def test_all_batches_share_one_loop():
    """An HTTP client that outlives a batch is bound to it."""
    loops = []

    async def reward(prompts, completions, **columns):
        loops.append(asyncio.get_running_loop())
        return length(prompts, completions)

    for _ in range(2):
        call_reward(reward, PROMPTS, COMPLETIONS)
    assert loops[0] is loops[1]


def test_scoring_goes_on_in_the_background():
    go = threading.Event()

    def patient(prompts, completions, **columns):
        assert go.wait(20)
        return length(prompts, completions)

    pending = score_later([patient, length_later], PROMPTS, COMPLETIONS, {})
    assert not pending.done()
    go.set()
    assert pending.result(20) == [LENGTHS] * 2
    with pytest.raises(RewardError, match="on sample 2"):
        score_later([one_over_length], PROMPTS, COMPLETIONS, {}).result(20)


def test_an_error_cancels_the_async_functions_that_still_run():
    cancelled = threading.Event()
    started = threading.Event()

    async def endless(prompts, completions, **columns):
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def broken(prompts, completions, **columns):
        assert started.wait(20)
        return None

    with pytest.raises(RewardError, match="returned NoneType"):
        score_all([endless, broken], PROMPTS, COMPLETIONS, {})
    assert cancelled.wait(20)


def _score_in_child(results):
    results.put(call_reward(length_later, PROMPTS, COMPLETIONS))


def test_a_forked_rank_has_a_loop_of_its_own():
    call_reward(length_later, PROMPTS, COMPLETIONS)
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=_score_in_child, args=(results,))
    child.start()
    try:
        assert results.get(timeout=20) == LENGTHS
    finally:
        child.kill()
        child.join()


# --- who is to blame --------------------------------------------------------------------------------------------------

FAILING = [one_over_length, one_over_length_later]


@pytest.mark.parametrize("function", FAILING)
def test_the_first_sample_at_fault_is_named(function):
    with pytest.raises(RewardError) as caught:
        score_all([length, function], ["Q0", "Q1", "Q2", "Q3"], ["a", "bb", "", ""], {})
    message = str(caught.value)
    assert message.startswith(f"reward '{function.__name__}' raised ZeroDivisionError: division by zero on sample 2")
    assert "prompt 'Q2'" in message
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("function", FAILING)
@pytest.mark.parametrize("empty", [[], [0], [3], [0, 1], [1, 4, 6], range(7)])
def test_mask_takes_the_sample_out_and_keeps_every_other(function, empty):
    completions = ["" if row in empty else "ab" for row in range(7)]
    logged = {}
    rewards, lengths = score_all(
        [function, length], ["Q"] * 7, completions, {}, on_error="mask", log_metric=logged.__setitem__
    )
    assert rewards == [None if row in empty else 0.5 for row in range(7)]
    assert lengths == [None if row in empty else 2.0 for row in range(7)], (
        "a total that lacks a part compares with none"
    )
    assert logged == {f"rewards/{function.__name__}/errors": len(empty) / 7, "rewards/length/errors": 0.0}


def test_mask_covers_values_that_no_trainer_can_use():
    values = [1.0, math.nan, "x", None]
    assert score_all([returning(values)], PROMPTS, COMPLETIONS, {}, on_error="mask") == [[1.0, None, None, None]]


def test_what_is_wrong_with_the_function_stops_whatever_the_setting():
    for value in (None, [1.0]):
        with pytest.raises(RewardError, match="returned"):
            score_all([returning(value)], PROMPTS, COMPLETIONS, {}, on_error="mask")


@pytest.mark.parametrize("error", [SetupError("no sandbox"), ImportError("no detector")])
@pytest.mark.parametrize("whole_batch", [True, False])
def test_a_machine_that_cannot_run_a_reward_stops_whatever_the_setting(error, whole_batch):
    def lost(prompts, completions, **columns):
        raise error if whole_batch or len(completions) < 4 else TimeoutError

    with pytest.raises(RewardError, match=f"reward 'lost' cannot run here: {error}"):
        score_all([lost], PROMPTS, COMPLETIONS, {}, on_error="mask")


def test_the_culprit_is_found_in_few_calls():
    calls = []

    def picky(prompts, completions, **columns):
        calls.append(len(completions))
        return [1 / len(completion) for completion in completions]

    completions = ["a"] * 512
    completions[300] = ""
    with pytest.raises(RewardError, match="on sample 300"):
        score_all([picky], ["Q"] * 512, completions, {})
    assert sum(calls) <= 3 * 512
    assert len(calls) <= 1 + 2 * 9


def test_the_search_has_a_bound(monkeypatch):
    monkeypatch.setattr(scoring, "SEARCH_SECONDS", -1.0)
    with pytest.raises(RewardError, match="on one of the samples 0 to 3"):
        score_all([one_over_length], PROMPTS, COMPLETIONS, {})
    assert score_all([one_over_length], PROMPTS, COMPLETIONS, {}, on_error="mask") == [[None] * 4]


def test_a_failure_that_no_part_repeats():
    def flaky(prompts, completions, **columns):
        if len(completions) == 4:
            raise TimeoutError("too many at once")
        return length(prompts, completions)

    with pytest.raises(RewardError, match="raised TimeoutError: too many at once on 4 samples together") as caught:
        score_all([flaky], PROMPTS, COMPLETIONS, {})
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert score_all([flaky], PROMPTS, COMPLETIONS, {}, on_error="mask") == [LENGTHS]


def test_columns_go_with_their_samples_and_nothing_is_logged_twice():
    logged = []

    def judged(prompts, completions, weight, trainer_state, log_extra, **columns):
        assert trainer_state == [1]  # no column: it has another length
        rewards = [w / len(completion) for w, completion in zip(weight, completions, strict=True)]
        log_extra("judged", rewards)
        return rewards

    rewards = score_all(
        [judged], PROMPTS, COMPLETIONS, {"weight": [1.0, 2.0, 3.0, 4.0]}, on_error="mask", trainer_state=[1],
        log_extra=lambda name, values: logged.append(values),
    )  # fmt: skip
    assert rewards == [[1.0, 1.0, None, 1.0]]
    assert logged == []


def test_a_kind_of_failure_is_logged_once(caplog):
    def touchy(prompts, completions, **columns):
        return one_over_length(prompts, completions)

    with caplog.at_level(logging.ERROR, logger="rewards.scoring"):
        for _ in range(3):
            score_all([touchy], PROMPTS, COMPLETIONS, {}, on_error="mask")
    (record,) = caplog.records
    assert "reward 'touchy' raised ZeroDivisionError" in record.getMessage()
    assert "on sample 2" in record.getMessage()


def test_ctrl_c_is_no_reward_error():
    def stopped(prompts, completions, **columns):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_all([stopped], PROMPTS, COMPLETIONS, {}, on_error="mask")


def test_an_exception_keeps_its_cause():
    with pytest.raises(
        RewardError, match=r"reward 'accuracy' raised ValueError: .*'answer' nor a column 'solution'"
    ) as caught:
        call_reward(load_reward("accuracy"), ["Q"], ["A"])
    assert isinstance(caught.value.__cause__, ValueError)
