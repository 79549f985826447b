"""`python -m rewards`: check, list, audit. In this process, and once as a shell runs it."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.__main__ import main
from rewards.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
GOOD = "<think>6*7</think><answer>42</answer>"

CHECKS = [  # arguments, exit code, what it says
    (["--gold", "42", "--answer", "42.0"], 0, "correct: the same number\nreward: 1.0"),
    (["--gold", "42", "--answer", "43"], 1, "wrong: "),
    (["--gold", "42"], 1, "no_answer: "),
    (["--gold", "", "--answer", "1"], 1, "unreadable_gold: the gold answer is empty\nreward: none"),
    (["--gold", "42", "--completion", GOOD], 0, "correct: "),
    (["--column", "solution=#### 42", "--completion", GOOD], 0, "correct: "),
    (["--gold", "42", "--completion", GOOD, "--column", "kind=math"], 0, "correct: "),
    (["--gold", "42", "--completion", "42", "--task", "arithmetic"], 1, "no_answer: "),
    (["--gold", "42", "--completion", r"\boxed{42}", "--prompt", "6*7? <think>"], 1, "no_answer: "),
    (["--gold", "17", "--answer", "3*4+5", "--task", "countdown", "--numbers", "3", "4", "5"], 0, "correct: "),
    (["--gold", "17", "--answer", "3*4", "--column", "task=countdown", "--column", "numbers=[3, 4, 5]"], 1, "wrong: "),
    (["--reward", "format", "--completion", GOOD], 0, "reward: 1.0\n"),
    (["--reward", "format", "--completion", "42"], 1, "reward: 0.0\n"),
    (["--reward", "soft_overlong", "--completion", "…", "--column", "length=90", "--arg", "max_completion_length=100",
      "--arg", "soft_tokens=20"], 1, "reward: -0.5\n"),
    (["--reward", "data.values:no", "--completion", "…"], 2, "reward 'data.values:no': the module"),
    (["--reward", "acuracy", "--completion", GOOD], 2, "did you mean 'accuracy'?"),
    (["--reward", "format", "--answer", "42"], 2, "reward 'format' judges a whole completion; give it by --completion"),
    (["--answer", "42"], 2, "give it by --gold"),
    (["--reward", "soft_overlong", "--completion", "…", "--arg", "soft_tokens=20"], 2, "missing 1 required"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "says"), CHECKS)
def test_check(arguments, code, says, capsys):
    assert main(["check", *arguments]) == code
    captured = capsys.readouterr()
    assert says in (captured.err if code == 2 else captured.out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "--answer", "1", "--completion", "1"], "not allowed with argument --answer"),
        (["check", "--column", "numbers"], "expected NAME=VALUE, got 'numbers'"),
        (["check", "--gol", "1"], "unrecognized arguments: --gol"),
        (["audit", "x", "--second", "mine"], "invalid choice: 'mine'"),
        ([], "the following arguments are required"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, says, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert says in capsys.readouterr().err


def test_a_completion_may_come_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(GOOD))
    assert main(["check", "--gold", "42", "--completion", "-"]) == 0
    assert "correct" in capsys.readouterr().out


def test_what_a_reward_logs_says_why(monkeypatch, capsys):
    def telling(prompts, completions, log_metric, log_extra, **columns):
        log_metric("telling/share", 0.25)
        log_extra("words", ["two of eight"])
        return [0.25]

    monkeypatch.setattr("rewards.format.telling", telling, raising=False)
    assert main(["check", "--reward", "rewards.format:telling", "--completion", "…"]) == 0
    assert capsys.readouterr().out == "rewards.format:telling\nreward: 0.25\ntelling/share: 0.25\nwords: two of eight\n"


def test_list_names_every_built_in_reward(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(BUILT_IN)]] == list(BUILT_IN)
    assert "package.module:function" in lines[-1]
    assert max(map(len, lines)) <= 120


def audited(tmp_path, *lines):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_audit(tmp_path, capsys):
    good = json.dumps({"completion": GOOD, "answer": "42"})
    path = audited(tmp_path, good, good.replace('"42"', '"41"'))
    assert main(["audit", path, "--second", "none"]) == 0
    assert "2 completions in" in capsys.readouterr().out
    path = audited(tmp_path, good, "{", good)
    assert main(["audit", path, "--second", "none", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verdicts"] == {"correct": 2}
    assert [error["line"] for error in report["errors"]] == [2]
    assert [finding["line"] for finding in report["findings"]] == [1, 3]


def test_audit_of_no_file(tmp_path, capsys):
    assert main(["audit", str(tmp_path / "missing.jsonl"), "--second", "none"]) == 2
    assert "No such file" in capsys.readouterr().err


def test_audit_with_a_checker_that_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rewards.__main__.available", list)
    path = audited(tmp_path, json.dumps({"completion": GOOD, "answer": "42"}))
    assert main(["audit", path, "--second", "trl"]) == 2
    assert "trl is not installed; choose another --second, or none" in capsys.readouterr().err
    assert main(["audit", path]) == 0


def test_audit_from_a_shell_with_its_second_checkers_process(tmp_path):
    path = audited(tmp_path, json.dumps({"completion": r"\boxed{42.0}", "answer": "42"}))
    command = [sys.executable, "-m", "rewards", "audit", path, "--second", "math-verify"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "math-verify differs on 0 of 1\n" in done.stdout
