"""Auditing a file of completions: nothing is lost, every line has its verdict, and other checkers stay in their box."""

import json
import multiprocessing
import os
import time

import pytest

from rewards.audit import Finding, LineError, audit_file, for_others, judge, read_sample, render
from rewards.second_checkers import FAILED, TIMEOUT, SecondChecker

GOOD = "<think>6*7</think><answer>42</answer>"
MESSAGES = [{"role": "assistant", "content": GOOD}]


def row(completion, **columns):
    return {"completion": completion} | columns


SAMPLES = [  # row, verdict, reward
    (row(GOOD, answer="42"), "correct", 1.0),
    (row(GOOD, solution="So it is #### 42"), "correct", 1.0),
    (row(GOOD, answer=42, prompt="6*7?"), "correct", 1.0),
    (row(MESSAGES, answer="42", prompt=[{"role": "user", "content": "6*7?"}]), "correct", 1.0),
    (row(GOOD, answer="41", task="arithmetic"), "wrong", 0.0),
    (row("6*7</think><answer>42</answer>", answer="42", prompt="6*7? <think>"), "correct", 1.0),
    (
        row("<think>3*4+5</think><answer>3*4+5</answer>", answer="17", task="countdown", numbers=[3, 4, 5]),
        "correct",
        1.0,
    ),
    (row("It is 42.", answer="42"), "no_answer", 0.0),
    (row(GOOD, answer="", task="arithmetic"), "unreadable_gold", None),
    (row(GOOD, answer=None), "no_gold", None),
    (row(GOOD, answer=None, solution="42", task=None, numbers=None), "correct", 1.0),
    (row(GOOD), "no_gold", None),
]

BAD_LINES = [  # line, what the error says
    ("{", "not JSON: Expecting property name"),
    ("[" * 100_000, "not JSON: "),
    ("[1]", "a line is a JSON object"),
    ("42", "not a int"),
    ('{"answer": "42"}', "there is no 'completion' among its keys ['answer']"),
    ('{"completion": 42, "answer": "42"}', "a str or a list of messages"),
    ('{"completion": "", "answer": ["42"]}', "'answer' cannot be a list: ['42']"),
    ('{"completion": "", "answer": true}', "'answer' cannot be a bool"),
    ('{"completion": "", "answer": "1", "task": 3}', "'task' cannot be a int"),
    ('{"completion": "", "answer": "1", "numbers": ["1"]}', "'numbers' is a list of whole numbers"),
    ('{"completion": "", "answer": 1' + "0" * 5000 + "}", "not JSON: "),
]


def write(path, lines):
    path.write_text("\n".join(json.dumps(line) if isinstance(line, dict) else line for line in lines), encoding="utf-8")
    return path


def test_every_line_has_its_verdict(tmp_path):
    audit = audit_file(write(tmp_path / "samples.jsonl", [sample for sample, _, _ in SAMPLES]))
    found = [(finding.verdict, finding.reward) for finding in audit.findings]
    assert found == [(verdict, reward) for _, verdict, reward in SAMPLES]
    assert [finding.line for finding in audit.findings] == list(range(1, len(SAMPLES) + 1))
    assert audit.verdicts == {"correct": 7, "no_gold": 2, "wrong": 1, "no_answer": 1, "unreadable_gold": 1}
    assert audit.errors == {}


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_says_what_is_wrong_with_it(line, message):
    with pytest.raises((LineError, TypeError)) as caught:
        judge(1, read_sample(line.encode()))
    assert message in str(caught.value)


def test_bad_lines_cost_no_good_ones(tmp_path):
    good = json.dumps(SAMPLES[0][0])
    path = write(tmp_path / "samples.jsonl", [part for line, _ in BAD_LINES for part in (line, "", good)])
    with path.open("ab") as file:  # a last line that a crash cut short inside a character
        file.write(b'\n{"completion": "\xed\x95')
    audit = audit_file(path)
    assert [finding.verdict for finding in audit.findings] == ["correct"] * len(BAD_LINES)
    assert list(audit.errors) == [*range(1, 3 * len(BAD_LINES), 3), 3 * len(BAD_LINES) + 1]
    assert audit.errors[3 * len(BAD_LINES) + 1] == "not UTF-8: byte 17 of the line is 0xed"
    assert f"{len(BAD_LINES) + 1} lines could not be scored\n  line 1: not JSON" in render(audit)


def test_line_separators_inside_a_completion_end_no_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row(f"\u2028\x85{GOOD}", answer="42"), ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert audit_file(path).verdicts == {"correct": 1}


def test_a_run_is_compared_with_what_it_recorded(tmp_path):
    rows = [row(GOOD, answer="42", rewards={"accuracy": score}) for score in (1.0, 0.0, None)]
    audit = audit_file(write(tmp_path / "samples.jsonl", [*rows, row(GOOD, answer="42", rewards={"format": 1.0})]))
    assert [finding.line for finding in audit.disagreements("recorded")] == [2]
    assert "recorded differs on 1 of 2\n  recorded 0, ours 1  line 2: correct" in render(audit)


def test_progress_and_ctrl_c(tmp_path):
    path = write(tmp_path / "samples.jsonl", [SAMPLES[0][0]] * 5)
    seen = []

    def stop_at_three(read, count):
        seen.append((read, count))
        if count == 3:
            raise KeyboardInterrupt

    audit = audit_file(path, on_progress=stop_at_three)
    assert [count for _, count in seen] == [1, 2, 3]
    assert seen[-1][0] == sum(len(line) + 1 for line in path.read_text().split("\n")[:3])
    assert len(audit.findings) == 3
    assert "3 completions in 0.0 s\n\nthe rest of the file was not read: interrupted" in render(audit)


def test_a_checker_that_does_not_start_costs_no_verdicts(tmp_path, monkeypatch):
    def fail(self, gold, text):
        raise RuntimeError("the second checker trl did not start")

    monkeypatch.setattr(SecondChecker, "ask", fail)
    rows = [row(GOOD, answer=None), row(GOOD, answer="42"), row(GOOD, answer="42")]
    audit = audit_file(write(tmp_path / "samples.jsonl", rows), second=["trl"])
    assert audit.stopped == "the second checker trl did not start"
    assert audit.verdicts == {"no_gold": 1}


def test_the_report_is_bounded_and_harmless():
    audit = audit_file(os.devnull)
    assert render(audit) == "0 completions in 0.0 s"
    for number in range(100):
        audit.findings.append(
            Finding(
                line=number, verdict="wrong", detail="\x1b[2J", reward=0.0, seconds=number / 100, gold="4" * 999,
                answer="\x1b]0;title\x07", others={"trl": 1.0, "math-verify": TIMEOUT},
            )
        )  # fmt: skip
    text = render(audit, examples=4)
    assert "trl differs on 100 of 100" in text
    assert "… and 96 more" in text
    assert "math-verify differs on 0 of 100, 100 timeout" in text
    assert "0.990 s  line 99" in text
    assert "0.950 s" not in text
    assert not set(text) & {"\x1b", "\x07"}
    assert len(text) < 4000
    assert json.loads(json.dumps(audit.to_json()))["disagreements"] == {"math-verify": [], "trl": list(range(100))}


@pytest.mark.parametrize(
    ("text", "answer", "given"),
    [
        (GOOD, "42", r"\boxed{42}"),
        (r"<think>\boxed{41}</think> So \boxed{42}.", "42", r" So \boxed{42}."),
        ("It is 42.", None, "It is 42."),
        ("<think>It is 42.", None, "<think>It is 42."),
    ],
)
def test_what_a_second_checker_reads(text, answer, given):
    assert for_others(text, answer) == given


# --- other projects' checkers -----------------------------------------------------------------------------------------


def test_math_verify_has_its_say(tmp_path):
    rows = [
        row(r"\boxed{\frac{1}{2}}", answer="0.5"),
        row(GOOD, answer="41"),
        row("<think>.</think><answer>Bob, Ann</answer>", answer="Bob, Ann", task="ordering"),
        row(GOOD, answer=None),
        row("So it is $42$.", answer="42"),
    ]
    audit = audit_file(write(tmp_path / "samples.jsonl", rows), second=["math-verify"])
    said = [finding.others for finding in audit.findings]
    assert said == [{"math-verify": 1.0}, {"math-verify": 0.0}, {}, {}, {"math-verify": 1.0}]
    assert [finding.line for finding in audit.disagreements("math-verify")] == [5], "ours wants the answer marked"
    assert multiprocessing.active_children() == []


def test_a_second_checker_that_hangs_or_dies_is_replaced():
    checker = SecondChecker("math-verify", seconds=1.0)

    def ask(text):
        checker.ask(gold="42", text=text)
        return checker.reply()

    try:
        assert ask("$42$") == 1.0
        started = time.monotonic()
        assert ask("$9^{9^9}$") == TIMEOUT
        assert time.monotonic() - started < 3
        assert ask("$42$") == 1.0
        checker._process.kill()
        checker._process.join()
        assert ask("$42$") == FAILED
        assert ask("$42$") == 1.0
    finally:
        checker.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow  # importing trl takes seconds
def test_trl_has_its_say(tmp_path):
    rows = [row(GOOD, answer="42"), row(GOOD, answer="41")]
    audit = audit_file(write(tmp_path / "samples.jsonl", rows), second=["trl"])
    assert [finding.others for finding in audit.findings] == [{"trl": 1.0}, {"trl": 0.0}]
