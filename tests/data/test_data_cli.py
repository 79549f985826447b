"""`python -m data`: what it prints and writes, and one line with exit code 2 for every mistake of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.__main__ import main, read_mapping
from data.loading import load_problems

ROOT = Path(__file__).resolve().parents[2]
LONG = "a train leaves the station at nine and another one leaves at ten"


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    train = [
        {"question": f"First, {LONG}; when?", "answer": "#### 1,200"},
        {"question": "What is 2 + 3?", "answer": "5"},
    ]
    evaluation = [{"prompt": f"Say {LONG}, where do they meet?"}]
    for name, rows in [("train.jsonl", train), ("eval.jsonl", evaluation)]:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fails(capsys, *arguments: object) -> str:
    """The one line that a mistake prints."""
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert err.startswith(f"python -m data {arguments[0]}: ")
    return err


def test_show_prints_problems_in_the_schema(sets, capsys):
    assert run("show", sets / "train.jsonl", "--limit", 1) == 0
    out = capsys.readouterr().out
    assert f"problem: First, {LONG}; when?\nanswer: 1200\ntask: math\nlanguage: en\n" in out
    assert "--- 2" not in out


def test_show_takes_a_mapping(sets, capsys):
    assert run("show", sets / "train.jsonl", "--column", "problem=answer", "--column", "answer=question") == 0
    assert "answer: What is 2 + 3?" in capsys.readouterr().out
    assert read_mapping(["answer=a=b"]) == {"answer": "a=b"}


def test_decontaminate_writes_the_rest_and_a_report(sets, capsys):
    output, report = sets / "new" / "clean.jsonl", sets / "reports" / "report.json"
    code = run(
        "decontaminate", sets / "train.jsonl", "--against", sets / "eval.jsonl", "--output", output, "--report", report
    )
    assert code == 0
    assert "1 of 2 training rows dropped, 1 kept" in capsys.readouterr().out
    assert load_problems(output)["problem"][:] == ["What is 2 + 3?"]
    written = json.loads(report.read_text())
    assert (written["kept"], written["dropped"]) == (1, 1)
    assert written["matches"][0]["ngram"] == "a train leaves the station at nine and another one"
    assert list(written["evaluation_rows"].values()) == [1]


def test_decontaminate_writes_parquet_and_takes_n_and_mappings(sets):
    output = sets / "clean.parquet"
    mapping = ("--column", "problem=question", "--against-column", "problem=prompt")
    assert (
        run(
            "decontaminate",
            sets / "train.jsonl",
            "--against",
            sets / "eval.jsonl",
            "--n",
            99,
            "--output",
            output,
            *mapping,
        )
        == 0
    )
    original = load_problems(sets / "train.jsonl")
    assert load_problems(output)["id"][:] == original["id"][:], "a written set keeps its ids"


def test_problems_prints_or_writes_generated_ones(sets, capsys):
    pytest.importorskip("data.problems")
    wanted = ("problems", "--split", "test", "--tasks", "arithmetic", "countdown", "--count", 6, "--languages", "en")
    assert run(*wanted) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    assert {row["task"] for row in rows} == {"arithmetic", "countdown"}
    assert {row["language"] for row in rows} == {"en"}
    assert run(*wanted, "--output", sets / "made.jsonl") == 0
    assert load_problems(sets / "made.jsonl").to_list() == rows


def test_notes_on_dropped_rows_reach_stderr(sets):
    (sets / "bad.jsonl").write_text('{"problem": "A", "answer": ""}\n{"problem": "B", "answer": "1"}\n')
    done = subprocess.run(
        [sys.executable, "-m", "data", "show", sets / "bad.jsonl"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "dropped 1 of 2 rows: 1 with an empty or unreadable gold answer" in done.stderr


def test_mistakes_are_one_line(sets, capsys):
    train, evaluation, output = sets / "train.jsonl", sets / "eval.jsonl", sets / "clean.jsonl"
    clean = ("decontaminate", train, "--against", evaluation, "--output")
    assert "did you mean" in fails(capsys, "show", sets / "trian.jsonl")
    assert "no column for the gold answer" in fails(capsys, "show", evaluation)
    assert "expected OURS=THEIRS" in fails(capsys, "show", train, "--column", "answer")
    assert "limit must be 1 or more" in fails(capsys, "show", train, "--limit", 0)
    assert "no file or folder" in fails(
        capsys, "decontaminate", train, "--against", sets / "no.jsonl", "--output", output
    )
    assert "n must be 1 or more" in fails(capsys, *clean, output, "--n", 0)
    assert "must end in .jsonl or .parquet" in fails(capsys, *clean, sets / "clean.txt")
    assert "would be overwritten" in fails(capsys, *clean, train)
    assert "same file" in fails(capsys, *clean, output, "--report", output)
    assert "unknown split 'tset'" in fails(capsys, "problems", "--split", "tset", "--count", 3)
    assert "--count must be 1 or more" in fails(capsys, "problems", "--split", "test", "--count", 0)
    assert "arithmetik" in fails(capsys, "problems", "--split", "test", "--count", 3, "--tasks", "arithmetik")
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments", [[], ["shwo"], ["show"], ["show", "x", "--limit", "many"], ["show", "x", "--lim", "3"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "python -m data" in capsys.readouterr().err


def test_as_a_program_without_a_traceback(sets):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "data", "show", "owner/no-such-set"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "give its local path" in done.stderr


def test_a_closed_pipe_is_no_error(sets):
    rows = "".join(json.dumps({"problem": f"P{i} {'x' * 500}", "answer": "1"}) + "\n" for i in range(2000))
    (sets / "many.jsonl").write_text(rows)
    command = f'"{sys.executable}" -m data show "{sets / "many.jsonl"}" --limit 2000 | head -1'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("--- 1\n", "")
