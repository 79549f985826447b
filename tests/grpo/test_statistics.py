"""Evaluation statistics against brute force: subsets for pass@k, a count for the vote, a binomial's interval."""

import doctest
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import enumerated_pass_at_k, exact_binomial_interval

from grpo import statistics
from grpo.statistics import (
    bootstrap_ci,
    majority_correct,
    paired_gain_ci,
    pass_at_k,
    share_interval,
    summarize,
    summarize_by,
)


def verdicts(n):
    return st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 8).flatmap(verdicts))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(rows):
    for k in range(1, len(rows[0]) + 1):
        assert pass_at_k(rows, k) == pytest.approx([enumerated_pass_at_k(row, k) for row in rows], abs=1e-12)


def test_pass_at_k_is_stable_where_binomials_overflow():
    correct = np.zeros((2, 5000), dtype=bool)
    correct[0, :1] = True
    assert pass_at_k(correct, 64) == pytest.approx([64 / 5000, 0.0], rel=1e-9)


def test_pass_at_one_is_the_mean_and_pass_at_n_is_any():
    correct = np.random.default_rng(0).random((50, 8)) < 0.2
    assert pass_at_k(correct, 1) == pytest.approx(correct.mean(axis=1))
    assert pass_at_k(correct, 8).tolist() == correct.any(axis=1).tolist()


@pytest.mark.parametrize("k", [0, 9])
def test_pass_at_k_refuses_more_samples_than_there_are(k):
    with pytest.raises(ValueError, match=f"got k = {k} with 8 samples; draw more samples"):
        pass_at_k(np.zeros((1, 8)), k)


@settings(max_examples=100, deadline=None)
@given(answers=st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=7), gold=st.sampled_from("123"))
def test_the_majority_is_a_most_frequent_answer_and_the_first_of_them(answers, gold):
    given_answers = [answer for answer in answers if answer is not None]
    counts = Counter(given_answers)
    winners = [answer for answer in given_answers if counts[answer] == max(counts.values())]
    expected = float(bool(winners) and winners[0] == gold)
    assert majority_correct([answers], [[answer == gold for answer in answers]]).tolist() == [expected]


def test_none_never_wins_and_a_stray_verdict_does_not_decide():
    assert majority_correct([[None, None, None, "7"]], [[False, False, False, True]]).tolist() == [1.0]
    assert majority_correct([[None, None]], [[False, False]]).tolist() == [0.0]
    assert majority_correct([["7", "7", "7"]], [[True, False, True]]).tolist() == [1.0]  # one check timed out
    with pytest.raises(ValueError, match="answers must have the shape of correct"):
        majority_correct([["7"]], [[True, False]])


@pytest.mark.parametrize("successes", [12, 60, 100, 150, 190])
def test_the_bootstrap_agrees_with_the_exact_interval_of_a_binomial(successes):
    values = np.arange(200) < successes
    assert bootstrap_ci(values) == pytest.approx(exact_binomial_interval(successes, 200), abs=0.02)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    trials = [bootstrap_ci(rng.random(80) < 0.4, level=0.9, resamples=400, seed=i) for i in range(300)]
    assert 0.85 < np.mean([low <= 0.4 <= high for low, high in trials]) < 0.95


def test_the_bootstrap_is_deterministic_and_blocks_change_nothing(monkeypatch):
    values = np.random.default_rng(1).random(30)
    interval = bootstrap_ci(values, seed=7)
    assert interval == bootstrap_ci(values, seed=7)
    assert interval != bootstrap_ci(values, seed=8)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 100)
    assert interval == pytest.approx(bootstrap_ci(values, seed=7))


def test_an_interval_of_one_problem_has_no_width_and_of_none_is_refused():
    assert bootstrap_ci([0.25]) == (0.25, 0.25)
    for values in ([], [0.5, float("nan")], [[0.5, 0.5]]):
        with pytest.raises(ValueError, match="1 problem or more"):
            bootstrap_ci(values)
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_ci([0.5], level=95)


@pytest.mark.parametrize("right", [True, False])
def test_shares_that_are_all_equal_are_not_certain(right):
    """As scipy's Clopper-Pearson for 40 coins: problems count, not their samples. A paired gain stays as it is."""
    samples = [problem([right] * 3) for _ in range(40)]
    expected = exact_binomial_interval(40 if right else 0, 40)
    assert share_interval([float(right)] * 40) == pytest.approx(expected)
    summary = summarize(samples)
    for name in ("ci95", "cons@3_ci95", "pass@3_ci95"):
        assert summary[name] == pytest.approx(expected)
    assert paired_gain_ci([float(right)] * 40, [float(right)] * 40) == (0.0, 0.0)


def test_what_is_no_certain_share_has_the_bootstraps_interval():
    for values in ([0.0, 1.0, 1.0], [0.5, 0.5], [14.0, 14.0]):
        assert share_interval(values) == bootstrap_ci(values)
    with pytest.raises(ValueError, match="1 problem or more"):
        share_interval([])


def test_pairing_cancels_the_difficulty_of_the_problems():
    rng = np.random.default_rng(2)
    base = rng.random(100)
    trained = base + 0.05 + 0.02 * rng.standard_normal(100)
    low, high = paired_gain_ci(base, trained)
    assert 0.04 < low < 0.05 < high < 0.06
    assert paired_gain_ci(trained, base) == pytest.approx((-high, -low), abs=1e-3)
    apart = bootstrap_ci(trained)[1] - bootstrap_ci(base)[0]
    assert high < apart / 2
    with pytest.raises(ValueError, match="same problems twice"):
        paired_gain_ci(base, trained[:-1])


def problem(correct, **fields):
    """An evaluated problem with plain fields; its answers are the verdicts as text."""
    base = {"id": "p", "task": "arithmetic", "difficulty": 1, "language": "en", "greedy_correct": None}
    samples = {"correct": correct, "lenient": correct, "formatted": correct, "truncated": [False] * len(correct)}
    return base | samples | {"answers": [str(c) for c in correct], "lengths": [10] * len(correct)} | fields


def test_the_summary_matches_numbers_computed_by_hand():
    samples = [
        problem([True, True, False, False], lenient=[True] * 4, lengths=[10, 20, 30, 40], greedy_correct=True),
        problem(
            [False] * 4, answers=["5", None, None, "6"], truncated=[True, False, False, False], greedy_correct=False
        ),
        problem([True] * 4, formatted=[True, True, True, False]),
    ]
    summary = summarize(samples)
    expected = {"num_problems": 3, "k": 4, "pass@1": 0.5, "cons@4": 2 / 3, "pass@4": 2 / 3, "greedy": 0.5}
    expected |= {"lenient_pass@1": 2 / 3, "lenient_pass@4": 2 / 3, "format": 5 / 12, "truncated": 1 / 12}
    expected |= {"mean_length": (100 + 40 + 40) / 12}
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    intervals = {"ci95": "pass@1", "cons@4_ci95": "cons@4", "pass@4_ci95": "pass@4"}
    intervals |= {"lenient_ci95": "lenient_pass@1", "lenient_pass@4_ci95": "lenient_pass@4"}
    assert set(summary) == set(expected) | set(intervals)
    for interval, name in intervals.items():
        assert summary[interval][0] <= summary[name] <= summary[interval][1], name
    assert summary["ci95"] == list(bootstrap_ci([0.5, 0.0, 1.0]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_one_sample_a_problem_needs_no_special_case():
    summary = summarize([problem([True]), problem([False])])
    assert summary["pass@1"] == summary["cons@1"] == 0.5
    assert summary["greedy"] is None


def test_summaries_by_a_column_hold_the_problems_of_each_value():
    samples = [
        problem([True] * 2, difficulty=10),
        problem([False] * 2, difficulty=2),
        problem([True, False], difficulty=2),
    ]
    by_difficulty = summarize_by(samples, "difficulty")
    assert list(by_difficulty) == [2, 10]
    assert by_difficulty == {2: summarize(samples[1:]), 10: summarize(samples[:1])}
    assert list(summarize_by([problem([True], difficulty=None), *samples[:0], problem([True])], "difficulty")) == [
        1,
        None,
    ]
    with pytest.raises(ValueError, match="'p' has no 'colour' to group by"):
        summarize_by(samples, "colour")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no evaluated problems"),
        ([problem([True]), problem([True, False])], r"same number of samples.*\[1, 2\]"),
        ([problem([True, False], lengths=[3])], r"same number of samples.*\[1, 2\]"),
        ([problem([])], "1 or more"),
        ([{"id": "x", "correct": [True]}], "'x' lacks lenient, formatted, answers, lengths, truncated"),
    ],
)
def test_a_summary_refuses_what_it_cannot_compare(samples, message):
    with pytest.raises(ValueError, match=message):
        summarize(samples)


def test_statistics_load_without_torch():
    code = "import sys, grpo.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_docstring_examples_run():
    assert doctest.testmod(statistics).failed == 0
