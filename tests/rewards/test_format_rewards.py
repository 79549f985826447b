"""Formats: R1-Zero's strict and graded, R1's with a summary; tags that are only mentioned; linear time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.format import (
    TAGS,
    format_grade,
    format_reward,
    has_r1_format,
    has_think_format,
    lenient_format_reward,
    reasoning_of,
    think_format_reward,
)

GOOD = "<think>6*7</think><answer>42</answer>"

MENTIONS = [  # a reasoning, and whether the tags in it are only mentioned
    ("I close with `</think>` and go on.", True),
    ("The form is `<think>…</think><answer>…</answer>`.", True),
    ("The form is ``</think>``.", True),
    ("Look:\n```html\n<think>a</think>\n<answer>b</answer>\n```\ndone", True),
    ("```<answer>``` and ```</answer>```", True),
    ('They said "put it in <answer> tags".', True),
    ("They said “put it in <answer> tags”.", True),
    ("The tag '</think>' ends it.", True),
    ("The tag ‘</think>’ ends it.", True),
    ('"</think>"를 쓰고 「<answer>」 안에 답한다.', True),
    ("La balise «</think>» termine.", True),
    ('It is 5" and "</think>" is a tag.', True),
    ("a < b > c </thin> <thinking>", True),
    ("I close with </think> and go on.", False),
    ("so </think><answer>41</answer> no", False),
    ("`a` </think> `b`", False),
    ("a ` </think>", False),
    ("one line with `\n</think>\n` on three", False),
    ('a 5" pipe </think> and a 6" pipe', False),
    ("don't </think> won't", False),
    ("```\n</think>\nnever closed", False),
    ("```a```</think>```b```", False),
    ("(</think>)", False),
]


@pytest.mark.parametrize(("reasoning", "mentioned"), MENTIONS)
def test_a_tag_in_code_or_quotes_is_text(reasoning, mentioned):
    assert has_r1_format(f"<think>{reasoning}</think>\n<answer>42</answer>") is mentioned
    assert has_think_format(f"<think>{reasoning}</think>\nIt is 42.") is mentioned
    assert (format_grade(f"<think>{reasoning}</think><answer>42</answer>") == 1.0) is mentioned
    prefilled = format_reward(["Assistant: <think>\n"], [f"{reasoning}</think><answer>42</answer>"])
    assert prefilled == [float(mentioned)]


@pytest.mark.parametrize(
    "completion",
    [
        "<think>a</think><answer>41 `<answer>42</answer>`</answer>",
        '<think>a</think><answer>41 "</answer><answer>" 42</answer>',
        "<think>a</think><answer>```\n<answer>42</answer>\n```</answer>",
        "<think>a</think>`<answer>42</answer>`",
        '<think>a "</think>" <answer>42</answer>',
        "```\n<think>a</think><answer>42</answer>\n```",
        "`<think>`a</think><answer>42</answer>",
        "<think>`</think><answer>42</answer>`",
        "<think></think></think><answer>42</answer>",
    ],
)
def test_quotes_do_not_let_a_second_answer_in_or_a_part_out(completion):
    assert format_reward(["Q"], [completion]) == [0.0]
    assert lenient_format_reward(["Q"], [completion])[0] < 1.0


GRADES = [
    (GOOD, 1.0),
    (" <think>why</think>\n<answer>42</answer>\n", 1.0),
    (GOOD + " I am sure.", 0.8),
    ("<think>why</think> so <answer>42</answer>", 0.8),
    ("First: <think>why</think><answer>42</answer>", 0.6),
    ("<think>why</think><answer></answer>", 0.6),
    ("<think></think><answer>42</answer>", 0.6),
    ("<think>why</think><answer>42", 0.6),
    ("<think>why</think>42</answer>", 0.4),
    ("<think>why</think>42", 0.4),
    ("<think>why<answer>42</answer></think>", 0.4),
    ("<think>why<answer>42</answer>", 0.4),
    ("why</think><answer>42</answer>", 0.4),
    ("<answer>42</answer>", 0.4),
    ("<think>why</think><answer>41</answer><answer>42</answer>", 0.4),
    ("<answer>42</answer><think>why</think>", 0.4),
    ("<think></think><answer></answer>", 0.4),
    ("<think>why", 0.2),
    ("<think><think>why</think><answer>42</answer>", 0.4),
    ("<think><think></think></think><answer><answer></answer></answer>", 0.0),
    ("</answer><answer></think><think>", 0.0),
    ("42", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("completion", "grade"), GRADES)
def test_grades(completion, grade):
    assert lenient_format_reward(["Q"], [[{"role": "assistant", "content": completion}]]) == [grade]


PARTS = [*TAGS, " ", "\n", "x", "`", '"', "'", "```", "42"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(TEXTS)
def test_only_the_strict_format_has_full_credit(text):
    grade = format_grade(text)
    assert grade in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert (grade == 1.0) == has_r1_format(text)


@given(TEXTS, TEXTS)
def test_whatever_stands_before_it_the_last_part_is_one_clean_answer(reasoning, answer):
    """Where the strict format holds, the text after the last </think> is exactly one answer without tags in it."""
    text = f"<think>{reasoning}</think><answer>{answer}</answer>"
    if has_r1_format(text):
        final = re.fullmatch(r"\s*<answer>(.*)</answer>\s*", text.rpartition("</think>")[2], re.DOTALL)
        assert final
        assert final[1].strip()
        assert not any(tag in final[1] for tag in TAGS)


@given(st.text(max_size=80), st.text(min_size=1, max_size=20))
def test_any_reasoning_and_answer_without_tags_pass(reasoning, answer):
    text = f"<think>{reasoning}.</think><answer>{answer}.</answer>"
    assert has_r1_format(text)
    assert has_think_format(f"<think>{reasoning}.</think>{answer}.")


def test_taking_a_tag_away_costs():
    for tag in TAGS:
        assert format_grade(GOOD.replace(tag, "")) <= 0.6


THINK_FORMAT = [  # TRL's think_format_reward and ours: completion, TRL's, ours
    ("<think>why</think>It is 42.", 1.0, 1.0),
    ("<think>\nwhy\n</think>\n\nIt is 42.", 1.0, 1.0),
    ("why</think>It is 42.", 0.0, 0.0),
    ("<think>why It is 42.", 0.0, 0.0),
    ("It is 42.", 0.0, 0.0),
    ("<think>a<think>b</think>It is 42.", 0.0, 0.0),
    ("Hello <think>why</think>It is 42.", 0.0, 0.0),
    ("<think></think>It is 42.", 1.0, 0.0),
    ("<think>why</think> ", 1.0, 0.0),
    ("<think>why</think>so</think>It is 42.", 1.0, 0.0),
    ("<think>why</think><answer>42</answer>", 1.0, 0.0),
]


@pytest.mark.parametrize(("completion", "theirs", "ours"), THINK_FORMAT)
def test_think_format_beside_trl(completion, theirs, ours):
    pattern = r"^<think>(?!.*<think>)(.*?)</think>.*$"  # TRL 1.16's
    assert float(bool(re.match(pattern, completion, re.DOTALL | re.MULTILINE))) == theirs
    assert think_format_reward(["Q"], [completion]) == [ours]


def test_think_format_after_a_prefilled_think():
    prompts = ["Q <think>\n", [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "<think>"}]]
    assert think_format_reward(prompts, ["why</think>42."] * 2) == [1.0, 1.0]
    assert think_format_reward(prompts, ["</think>42."] * 2) == [0.0, 0.0]
    assert think_format_reward(prompts, ["<think>why</think>42."] * 2) == [0.0, 0.0]


def test_a_summary_may_mention_tags():
    text = "<think>why</think>Write `<think>` first and `</think>` last."
    assert has_think_format(text)
    assert not has_think_format(text.replace("`", ""))


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (GOOD, "6*7"),
        ("<think>a `</think>` b</think>42", "a `</think>` b"),
        ("<think>a, ", "a, "),
        ("a</think>42", "a"),
        ("plain", "plain"),
        ("", ""),
        ("<think></think>42", ""),
    ],
)
def test_reasoning_of(text, reasoning):
    assert reasoning_of(text) == reasoning


HOSTILE = ["<think>", "</think>", "`", '"', "“", "«", "「", "```", "` ", '" ', "'<answer>", "<", "'", "\n`", "<think>`"]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("end", ["", "</think><answer>42</answer>"])
def test_linear_in_the_length(unit, end):
    text = "<think>" + unit * (400_000 // len(unit)) + end
    start = time.process_time()
    has_r1_format(text), format_grade(text), has_think_format(text)
    assert time.process_time() - start < 2.0  # 0.2 s; quadratic would take minutes
