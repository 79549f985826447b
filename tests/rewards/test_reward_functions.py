"""The reward functions as a trainer calls them: TRL's protocol, conversations, columns, prefilled tags."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import (
    VerdictKind,
    accuracy_reward,
    accuracy_verdicts,
    answer_key,
    format_reward,
    has_r1_format,
    lenient_accuracy,
)
from rewards.accuracy import phrase_accuracy

GOOD = "<think>6*7</think><answer>42</answer>"


def say(text):
    return [{"role": "assistant", "content": text}]


def ask(text):
    return [{"role": "user", "content": text}]


ACCURACY = [  # completion, gold, task, numbers, reward
    (GOOD, "42", "arithmetic", [], 1.0),
    (GOOD, "41", "arithmetic", [], 0.0),
    (GOOD, "42", None, [], 1.0),
    (GOOD, "42", "geometry", [], 1.0),
    ("42", "42", "arithmetic", [], 0.0),
    ("<think>42</think>", "42", "arithmetic", [], 0.0),
    (r"<think>.</think>\boxed{\frac{84}{4}}", "10.5", None, [], 0.0),
    (r"<think>.</think>\boxed{\frac{84}{8}}", "10.5", None, [], 1.0),
    (r"<think>.</think>\boxed{\frac{84}{2}}", "42", None, [], 0.0),
    ("<think>.</think><answer>(1+2)*3 = 9</answer>", "9", "countdown", [1, 2, 3], 1.0),
    ("<think>.</think><answer>9</answer>", "9", "countdown", [1, 2, 3], 0.0),
    ("<think>.</think><answer>bob, ann</answer>", "Bob, Ann", "ordering", None, 1.0),
    ("<think>.</think><answer>7/2</answer>", "3.5", "equations", None, 1.0),
    ("<think>.</think><answer>9^9^9</answer>", "42", "arithmetic", [], 0.0),
    (GOOD, "no number", "arithmetic", [], None),
    (GOOD, "", None, [], None),
    (GOOD, None, None, [], None),
]


@pytest.mark.parametrize("wrap", [str, say], ids=["plain", "conversational"])
def test_accuracy(wrap):
    completions, golds, tasks, numbers, rewards = map(list, zip(*ACCURACY, strict=True))
    prompts = [ask("?")] * len(golds)
    found = accuracy_reward(prompts, list(map(wrap, completions)), answer=golds, task=tasks, numbers=numbers)
    assert list(zip(completions, golds, found, strict=True)) == list(zip(completions, golds, rewards, strict=True))


def test_either_gold_column_will_do_and_others_are_ignored():
    assert accuracy_reward(["Q"], [GOOD], solution=["$42$"], completion_ids=[[1]], trainer_state=None) == [1.0]
    assert accuracy_reward(["Q"], [GOOD], answer=["42"], solution=["a long derivation"]) == [1.0]
    assert accuracy_reward(["Q"], [GOOD], answer=[42]) == [1.0]
    assert accuracy_reward([], [], answer=[]) == []


def test_missing_gold_columns_are_named():
    with pytest.raises(ValueError, match=r"neither a column 'answer' nor a column 'solution'"):
        accuracy_reward(["Q"], [GOOD])
    with pytest.raises(ValueError, match="2 completions need as many values in 'task', got 1"):
        accuracy_reward(["Q"] * 2, [GOOD] * 2, answer=["42"] * 2, task=["arithmetic"])


def test_a_completion_that_begins_inside_a_prefilled_think_is_still_thinking():
    prompts, completions = ["Q: 6*7? A: <think>\n"] * 2, [r"maybe \boxed{42}", r"6*7 </think> \boxed{42}"]
    assert accuracy_reward(prompts, completions, answer=["42"] * 2) == [0.0, 1.0]
    assert accuracy_reward(["Q: 6*7? A:"] * 2, completions, answer=["42"] * 2) == [1.0, 1.0]
    prefilled = [[*ask("6*7?"), *say("<think>")]] * 2
    assert accuracy_reward(prefilled, list(map(say, completions)), answer=["42"] * 2) == [0.0, 1.0]


def test_lenient_accuracy_counts_unmarked_answers_and_is_fair():
    completions = ["The answer is 42.", "42, or rather 43", GOOD, "no idea", "<think>6*7 = 42"]
    size = len(completions)
    columns = {"answer": ["42"] * size, "task": ["arithmetic"] * size}
    assert lenient_accuracy(["Q"] * size, completions, **columns) == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert accuracy_reward(["Q"] * size, completions, **columns) == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_phrases_count_where_they_are_asked_for():
    completions = ["The answer is 42.", "6 * 7 = 42\n#### 42", "A: 42", GOOD, "42", "<think>The answer is 42."]
    size = len(completions)
    assert phrase_accuracy(["Q"] * size, completions, answer=["42"] * size) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert accuracy_reward(["Q"] * size, completions, answer=["42"] * size) == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("function", [accuracy_reward, phrase_accuracy])
def test_verdicts_and_parsed_forms_reach_the_trainers_log(function):
    metrics, extra = {}, {}
    completions, golds = [GOOD, r"\boxed{x = \frac{1}{3}}", "no idea", GOOD], ["42", "1/2", "42", None]
    function(["Q"] * 4, completions, answer=golds, log_metric=metrics.__setitem__, log_extra=extra.__setitem__)
    assert metrics == {
        "accuracy/correct": 1 / 3, "accuracy/wrong": 1 / 3, "accuracy/no_answer": 1 / 3, "accuracy/unparsable": 0.0,
        "accuracy/unreadable_gold": 0.0, "accuracy/timeout": 0.0, "accuracy/gold_timeout": 0.0,
    }  # fmt: skip
    assert extra == {
        "verdict": ["correct", "wrong", "no_answer", ""],
        "gold_read": ["42", "1/2", "", ""],
        "answer_read": ["42", "x = 1/3", "", ""],
    }


def test_verdicts_can_be_counted():
    verdicts = accuracy_verdicts(["Q"] * 3, [GOOD, "42", GOOD], answer=["42", "42", "?"], task=["arithmetic"] * 3)
    kinds = [verdict.kind for verdict in verdicts]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.NO_ANSWER, VerdictKind.UNREADABLE_GOLD]


def test_completions_may_be_parts_or_empty_but_not_numbers():
    parts = [{"role": "assistant", "content": [{"type": "text", "text": GOOD}]}]
    assert accuracy_reward(["Q"] * 2, [parts, say(None)], answer=["42"] * 2) == [1.0, 0.0]
    with pytest.raises(TypeError, match="a str or a list of messages"):
        format_reward(["Q"], [42])


FORMAT = [
    (GOOD, 1.0),
    ("  <think>6*7</think>\n\n<answer>42</answer>\n", 1.0),
    ("<think>a < b > c </thin></think><answer>x</answer>", 1.0),
    ("<think>6*7</think>", 0.0),
    ("<answer>42</answer>", 0.0),
    ("<think></think><answer>42</answer>", 0.0),
    ("<think> \n</think><answer>42</answer>", 0.0),
    ("<think>6*7</think><answer> </answer>", 0.0),
    ("<think>6*7</think>so<answer>42</answer>", 0.0),
    ("so <think>6*7</think><answer>42</answer>", 0.0),
    ("<think>6*7</think><answer>42</answer>.", 0.0),
    ("<answer>42</answer><think>6*7</think>", 0.0),
    ("<think>6*7<answer>42</answer></think>", 0.0),
    ("<think>6*7</think><answer>41</answer><answer>42</answer>", 0.0),
    ("<think>6<think>*7</think><answer>42</answer>", 0.0),
    ("<think>6*7</think><answer>42", 0.0),
    ("6*7</think><answer>42</answer>", 0.0),
    ("<THINK>6*7</THINK><answer>42</answer>", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize("wrap", [str, say], ids=["plain", "conversational"])
def test_format(wrap):
    found = format_reward(["Q"] * len(FORMAT), [wrap(completion) for completion, _ in FORMAT])
    assert list(zip([completion for completion, _ in FORMAT], found, strict=True)) == FORMAT


@pytest.mark.parametrize("prompt", ["Assistant: <think>", "Assistant: <think>\n", [*ask("Q"), *say("<think>")]])
def test_format_after_a_prefilled_think(prompt):
    inside, whole = "6*7</think><answer>42</answer>", GOOD
    assert format_reward([prompt] * 2, [inside, whole]) == [1.0, 0.0]


TAG = "</?(?:think|answer)>"
PATTERN = re.compile(
    rf"\s*<think>(?=\s*(?!{TAG})\S)(?:(?!{TAG}).)*</think>\s*<answer>(?=\s*(?!{TAG})\S)(?:(?!{TAG}).)*</answer>\s*",
    re.S,
)
PARTS = ["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "x", "<", "42"]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_format_agrees_with_a_regular_expression(text):
    assert has_r1_format(text) == bool(PATTERN.fullmatch(text))


@given(st.tuples(*[st.sampled_from(["", " ", "x", "x y", "\n"])] * 5))
def test_format_agrees_with_a_regular_expression_near_the_format(gaps):
    text = "".join(gap + tag for gap, tag in zip(gaps, PARTS[:4])) + gaps[4]
    assert has_r1_format(text) == bool(PATTERN.fullmatch(text))


DOCS = Path(__file__).parents[2] / "docs" / "rewards.md"


def documented_rows():
    """The rows of the table of completions in docs/rewards.md, without their code quotes."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| completion | gold"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        yield tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))


@pytest.mark.parametrize(("completion", "gold", "task", "accuracy", "format_"), list(documented_rows()))
def test_the_documented_table_holds(completion, gold, task, accuracy, format_):
    expected = None if accuracy == "None" else float(accuracy)
    columns = {"answer": [gold], "task": [task or None], "numbers": [[3, 4, 5]]}
    assert accuracy_reward(["Q"], [completion], **columns) == [expected]
    assert format_reward(["Q"], [completion]) == [float(format_)]


@pytest.mark.parametrize(
    ("answer", "task", "numbers", "key"),
    [
        ("14/4", "equations", (), "7/2"),
        ("3 * (5 - 1)", "countdown", (1, 3, 5), "12"),
        ("3 * 4", "countdown", (1, 3, 5), "3 * 4"),
        ("3 / (5 - 5)", "countdown", (3, 5, 5), "3 / (5 - 5)"),
        ("ANNA > Ben", "ordering", (), "anna, ben"),
        ("x + 1", "math", (), "x+1"),
        (r"\frac{14}{4}", "math", (), "7/2"),
        ("x = 3.5", None, (), "7/2"),
        (r"( 1,\, 2 )", None, (), "(1, 2)"),
    ],
)
def test_answers_that_are_equal_have_equal_keys(answer, task, numbers, key):
    row = {"prompt": "", "task": task, "numbers": list(numbers)}
    assert answer_key(f"<think>.</think><answer>{answer}</answer>", row) == key
    assert answer_key("no answer here", row) is None
