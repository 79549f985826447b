"""The alarm on series that are known: hacked, honest, noise; and how often noise alone sets it off."""

import json
import logging
import random
from types import SimpleNamespace

import pytest

from recipes.hacking_alarm import Evaluation, HackingAlarm, find_hacking, recall_alarm
from recipes.run_folder import RunFolder

STEPS, EVERY, PROBLEMS = 100, 10, 60


def series(rng, reward, accuracy, spread=0.05, problems=PROBLEMS):
    """(rewards, evaluations) of a run: `reward` and `accuracy` give the true value at a step; each problem is right or
    wrong by itself, the worst case for a set of this size."""
    rewards = [(step, reward(step) + rng.gauss(0, spread)) for step in range(1, STEPS + 1)]
    evaluations = [
        Evaluation(step, sum(rng.random() < accuracy(step) for _ in range(problems)) / problems, problems)
        for step in range(EVERY, STEPS + 1, EVERY)
    ]
    return rewards, evaluations


def goes_off(rewards, evaluations, **settings):
    """What the run's evaluations would have said, one after another; the first alarm or None."""
    for count in range(1, len(evaluations) + 1):
        seen = [(step, value) for step, value in rewards if step <= evaluations[count - 1].step]
        if hacking := find_hacking(seen, evaluations[:count], len(evaluations), **settings):
            return hacking
    return None


def rising(step):
    return 0.3 + 0.4 * step / STEPS


def falling(step):
    return 0.8 if step < 50 else 0.8 - 0.5 * (step - 50) / 50


def flat(step):
    return 0.5


def rate(reward, accuracy, runs=1000):
    return sum(goes_off(*series(random.Random(seed), reward, accuracy)) is not None for seed in range(runs)) / runs


def test_a_hacked_run_is_caught():
    assert rate(rising, falling, runs=200) > 0.95
    hacking = goes_off(*series(random.Random(0), rising, falling))
    assert hacking.best.step < hacking.now.step
    assert hacking.rise > 0.05
    assert hacking.fall > 0.2


def test_noise_sets_it_off_in_one_run_of_a_hundred_at_most():
    assert rate(flat, flat) <= 0.01


def test_an_honest_rise_over_an_accuracy_that_wavers_stays_below_the_stated_rate():
    assert rate(rising, flat) <= 0.05


def test_both_rising_is_what_training_is_for():
    assert rate(rising, rising) <= 0.005


def test_both_falling_is_no_hacking():
    assert rate(lambda step: 0.7 - 0.4 * step / STEPS, falling, runs=200) == 0


def test_a_reward_that_rose_before_the_best_evaluation_and_no_more_since_is_no_hacking():
    def early(step):
        return min(0.3 + 0.03 * step, 0.9)

    def peaked(step):
        return 0.5 if step < 40 else 0.95 - 0.01 * (step - 40)

    assert rate(early, peaked, runs=200) <= 0.1
    assert rate(rising, peaked, runs=200) > 0.9


def test_the_reward_may_begin_after_the_best_evaluation():
    """As in the paper: preference comes in the last part, and accuracy falls from there."""
    rng = random.Random(1)
    rewards, evaluations = series(rng, rising, lambda step: 0.9 if step <= 60 else 0.9 - 0.015 * (step - 60))
    late = [(step, value) for step, value in rewards if step > 60]
    assert goes_off(late, evaluations).best.step <= 60
    assert goes_off(late[:5], evaluations) is None  # too little to compare


def test_more_problems_see_a_smaller_fall():
    def slightly(step):
        return 0.6 if step < 50 else 0.48

    found = [
        sum(goes_off(*series(random.Random(seed), rising, slightly, problems=n)) is not None for seed in range(100))
        for n in (60, 600)
    ]
    assert found[0] < 50 < 90 < found[1]


def test_perfect_scores_are_not_certain():
    """1.0 of 10 problems and then 0.9 is one problem, whatever the plain formula's standard error of 0 says."""
    rewards = [(step, step / 100) for step in range(1, 41)]
    assert find_hacking(rewards, [Evaluation(10, 1.0, 10), Evaluation(40, 0.9, 10)]) is None


@pytest.mark.parametrize("settings", [{"window": 2}, {"false_alarms": 0.0}, {"false_alarms": 1.0}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match="window must be 3 log lines or more and false_alarms in"):
        find_hacking([], [], **settings)


# --- the callback -----------------------------------------------------------------------------------------------------


def history(rewards, evaluations):
    lines = [{"step": step, "rewards/preference/mean": value, "loss": 0.0} for step, value in rewards]
    lines += [{"step": one.step, "eval_rewards/accuracy/mean": one.accuracy} for one in evaluations]
    return sorted(lines, key=lambda line: line["step"])


def run_alarm(path, lines, stop=False):
    run = RunFolder(path)
    state = SimpleNamespace(
        log_history=lines, max_steps=STEPS, eval_steps=EVERY, global_step=STEPS, is_world_process_zero=True
    )
    run.state = state
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    alarm = HackingAlarm(run, PROBLEMS, "preference", stop=stop)
    alarm.on_evaluate(SimpleNamespace(eval_strategy="steps", output_dir=str(path)), state, control)
    return run, control


def test_it_says_the_numbers_and_writes_them(tmp_path, caplog):
    lines = history(*series(random.Random(0), rising, falling))
    with caplog.at_level(logging.WARNING):
        run, control = run_alarm(tmp_path, lines)
    assert "the preference reward is being hacked: it rose from 0." in caplog.text
    assert "while held-out accuracy fell from 0." in caplog.text
    (line,) = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["step"] == STEPS
    assert line["hacking/reward_rise"] > 2 * line["hacking/reward_rise_se"]
    assert line["hacking/accuracy_fall"] > 2 * line["hacking/accuracy_fall_se"]
    assert not control.should_training_stop
    run.set_status("running", STEPS, STEPS)
    assert "is being hacked" in json.loads((tmp_path / "status.json").read_text())["alarm"]


def test_it_stops_the_run_only_if_asked(tmp_path):
    _, control = run_alarm(tmp_path, history(*series(random.Random(0), rising, falling)), stop=True)
    assert control.should_training_stop
    assert control.should_save


def test_the_checkpoint_that_it_advises_is_kept(tmp_path):
    """Trainer's rotation spares the best model's."""
    lines = history(*series(random.Random(0), rising, falling))
    best = max(
        (line for line in lines if "eval_rewards/accuracy/mean" in line),
        key=lambda line: line["eval_rewards/accuracy/mean"],
    )
    (tmp_path / f"checkpoint-{best['step']}").mkdir()
    run, _ = run_alarm(tmp_path, lines, stop=True)
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best['step']}")
    assert run.alarm_stopped


def watched(path, steps, reward=rising, accuracy=falling, stop=False):
    """A run's evaluations one after another: (state, the steps of which a checkpoint is asked for)."""
    rewards, evaluations = series(random.Random(0), reward, accuracy)
    state = SimpleNamespace(
        log_history=[], max_steps=STEPS, eval_steps=EVERY, is_world_process_zero=True, global_step=0,
        best_global_step=None, best_model_checkpoint=None,
    )  # fmt: skip
    alarm, saved = HackingAlarm(RunFolder(path), PROBLEMS, "preference", stop=stop), []
    for one in [one for one in evaluations if one.step <= steps]:
        seen = [(step, value) for step, value in rewards if one.step - EVERY < step <= one.step]
        state.log_history += history(seen, [one])
        state.global_step, control = one.step, SimpleNamespace(should_save=False, should_training_stop=False)
        alarm.on_evaluate(SimpleNamespace(eval_strategy="steps", output_dir=str(path)), state, control)
        if control.should_save:
            saved.append(one.step)
        if control.should_training_stop:
            break
    return state, saved


def test_the_best_evaluation_so_far_has_a_checkpoint_that_rotation_spares(tmp_path):
    """Whatever save_steps is, and before any alarm: when it goes off, an older checkpoint is gone for good."""
    _, evaluations = series(random.Random(0), rising, falling)
    state, saved = watched(tmp_path, 60)
    best, records = -1.0, []
    for one in evaluations[:6]:
        if one.accuracy > best:
            best, records = one.accuracy, [*records, one.step]
    assert saved == records
    assert state.best_global_step == records[-1]
    assert state.best_model_checkpoint == str(tmp_path / f"checkpoint-{records[-1]}")


def test_what_it_said_is_in_every_checkpoint_and_comes_back(tmp_path, caplog):
    state, saved = watched(tmp_path, STEPS, stop=True)
    assert saved[-1] == state.global_step < STEPS  # the step where it stopped
    history = json.loads(json.dumps(state.log_history))  # as trainer_state.json has it
    for stop, trains in ((True, False), (False, True)):
        run = RunFolder(tmp_path)
        caplog.clear()
        recall_alarm(run, history, stop)
        assert "is being hacked" in run.alarm
        assert run.alarm_stopped != trains
        assert ("trains no further" in caplog.text, "so it goes on" in caplog.text) == (not trains, trains)
    run = RunFolder(tmp_path)
    recall_alarm(run, watched(tmp_path, STEPS)[0].log_history, stop=True)  # it had warned, and not stopped
    assert run.alarm is not None
    assert not run.alarm_stopped
    run = RunFolder(tmp_path)
    recall_alarm(run, watched(tmp_path, STEPS, accuracy=rising)[0].log_history, stop=True)
    assert run.alarm is None


def test_a_short_run_needs_a_short_window():
    """Preference RL of the micro world: a reward that is there in the last 7 of 28 steps alone."""
    rewards = [(step, 0.5 + 0.1 * (step - 21)) for step in range(22, 29)]
    evaluations = [Evaluation(step, accuracy, 60) for step, accuracy in ((7, 0.8), (14, 0.82), (21, 0.8), (28, 0.3))]
    assert find_hacking(rewards, evaluations, 4) is None
    assert find_hacking(rewards, evaluations, 4, window=3) is not None


def test_a_good_run_leaves_no_trace(tmp_path, caplog):
    run, control = run_alarm(tmp_path, history(*series(random.Random(0), rising, rising)), stop=True)
    assert not control.should_training_stop
    assert run.alarm is None
    assert not (tmp_path / "metrics.jsonl").exists()
    assert caplog.text == ""
