"""Hostile answers through the accuracy reward: none accepted, none crashes, no code run, none over its time, from the
main thread and from another one, where time-outs by signals do not work.
"""

import concurrent.futures
import time

import pytest
from bank import hostile

from rewards import accuracy_reward, accuracy_verdicts, default_pool
from rewards.verdicts import VerdictKind

SHORT = 0.3
"""Seconds for one check where only the verdicts count: an answer that never ends costs its whole time-out."""
THREADS = pytest.mark.parametrize("thread", ["main", "other"])


def judge(attacks):
    return accuracy_verdicts(
        [attack.prompt for attack in attacks],
        [attack.completion for attack in attacks],
        answer=[attack.gold for attack in attacks],
    )


def call(thread, function, *arguments):
    """The function's result, from the main thread or another one."""
    if thread == "main":
        return function(*arguments)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *arguments).result()


def honest_answers_are_judged():
    thought = "<think>.</think>"
    completions = [rf"{thought}\boxed{{q + 1}}", f"{thought}<answer>42</answer>", rf"{thought}\boxed{{q + 2}}"]
    return accuracy_reward([""] * 3, completions, answer=["1 + q", "42", "1 + q"]) == [1.0, 1.0, 0.0]


def test_the_bank_is_large():
    attacks = hostile.attacks("canary")
    assert len(attacks) >= 170
    assert len(set(attacks)) == len(attacks)


@THREADS
def test_none_is_accepted(thread, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(default_pool(), "timeout", SHORT)
    attacks = hostile.attacks(tmp_path / "canary")
    verdicts = call(thread, judge, attacks)
    paid = [f"{attack}: {verdict}" for attack, verdict in zip(attacks, verdicts, strict=True) if verdict.reward != 0.0]
    assert paid == []
    assert list(tmp_path.iterdir()) == [], "code from an answer was run"
    monkeypatch.undo()
    assert call(thread, honest_answers_are_judged)


@pytest.mark.slow
@THREADS
def test_none_takes_longer_than_its_budget(thread, tmp_path):
    """Each alone, with the default budget of 1 s. The bound leaves a busy machine another 2 s."""
    assert honest_answers_are_judged()  # the workers are warm
    slow = []
    for attack in hostile.attacks(tmp_path / "canary"):
        start = time.monotonic()
        call(thread, judge, [attack])
        seconds = time.monotonic() - start
        if seconds > 3.0:
            slow.append((str(attack), round(seconds, 2)))
    assert slow == []


BAD_GOLDS = [
    "9^{9^9}", "((((10!)!)!)!)!", r"\frac{1}{", "{" * 5_000, "9" * 100_000, "\x00", "\ud800", r"\boxed{", "\\", "$",
]  # fmt: skip


def test_a_hostile_gold_pays_nobody(monkeypatch):
    """A broken row of a data set may mask its completions or score 0; it never raises and never accepts a number."""
    monkeypatch.setattr(default_pool(), "timeout", SHORT)
    completions = ["<think>.</think><answer>42</answer>", "<think>.</think><answer></answer>", "<think>.", ""]
    for gold in BAD_GOLDS:
        verdicts = accuracy_verdicts([""] * 4, completions, answer=[gold] * 4)
        assert {verdict.reward for verdict in verdicts} <= {0.0, None}, gold[:20]
        assert VerdictKind.CORRECT not in {verdict.kind for verdict in verdicts}
