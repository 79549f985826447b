"""report.html: what it shows, that model text stays text, and that a crashed run still gets its page."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_pages import ATTACK, Page, assert_harmless
from hypothesis import given
from hypothesis import strategies as st

from recipes import page_parts, report

ROOT = Path(__file__).parents[2]


def scores(pass_at_1: float, length: float, greedy: float | None) -> dict:
    """A score table with 16 samples whose numbers are all different."""
    return {
        "num_problems": 1234,
        "k": 16,
        "pass@1": pass_at_1,
        "ci95": [pass_at_1 - 0.0312, pass_at_1 + 0.0287],
        "cons@16": pass_at_1 + 0.0511,
        "cons@16_ci95": [pass_at_1 + 0.0123, pass_at_1 + 0.0777],
        "pass@16": pass_at_1 + 0.1713,
        "pass@16_ci95": [pass_at_1 + 0.1514, pass_at_1 + 0.1919],
        "lenient_pass@1": pass_at_1 + 0.0222,
        "lenient_ci95": [pass_at_1 + 0.0105, pass_at_1 + 0.0333],
        "lenient_pass@16": pass_at_1 + 0.1857,
        "format": pass_at_1 + 0.0666,
        "mean_length": length,
        "truncated": 0.0123,
        "greedy": greedy,
    }


def evaluation() -> dict:
    pair = {"base": scores(0.3171, 38.44, 0.3519), "trained": scores(0.7313, 71.92, 0.7605)}
    return {
        "overall": pair,
        "tasks": {"arithmetic": pair, "word_problems": {"base": scores(0.2, 33.31, None)}},
        "difficulties": {"2": pair, "1": pair},
        "languages": {"en": pair, "ko": pair},
        "gain": {
            "pass@1": 0.4142,
            "ci95": [0.3718, 0.4554],
            "lenient_pass@1": 0.4033,
            "lenient_ci95": [0.3601, 0.4478],
        },
        "protocol": {"temperature": 0.6, "top_p": 0.95, "k": 16},
    }


def metric_lines(steps: int) -> list[dict]:
    lines: list[dict] = [{"step": 0, "eval/pass@1": 0.31, "eval/greedy": 0.33, "eval/format": 0.4}]
    for step in range(1, steps + 1):
        accuracy, form = 0.4 + 0.004 * step + 0.02 * (-1) ** step, 0.5 + 0.003 * step
        lines.append(
            {"step": step, "loss": 0.01, "reward": accuracy + form, "rewards/accuracy/mean": accuracy}
            | {"rewards/format/mean": form, "completions/mean_length": 40 + step / 3, "entropy": 1 - step / 200}
            | {"frac_reward_zero_std": step / 150, "learning_rate": 2e-4, "grad_norm": 0.5, "step_time": 5.0}
            | {"time/sample": 2.0, "time/score": 0.5, "time/update": 2.25, "elapsed": 5.0 * step}
        )
    return lines


def sample_lines() -> list[dict]:
    def line(kind: str, step: int, task: str, completion: str, accuracy: float | None, form: float) -> dict:
        problem = {"id": f"{task}-1", "task": task, "language": "ko", "difficulty": 3, "problem": f"문제 of {task}?"}
        rewards = {"accuracy": accuracy, "format": form, "brevity": 0.25}
        result = {"completion": completion, "reward": 1.0, "rewards": rewards, "length": 57, "truncated": False}
        return problem | {"kind": kind, "step": step, "prompt": f"User: {task}", "answer": "7/2"} | result

    return [
        line("before", 0, "equations", "4x = 14", 0.0, 0.0),
        line("before", 0, "arithmetic", "it is 35", None, 0.0),
        line("train", 40, "equations", "<think>halfway", 0.0, 0.0),
        line("after", 100, "equations", "<think> 14/4 </think> <answer> 7/2 </answer>", 1.0, 1.0),
    ]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_dir(tmp_path) -> Path:
    folder = tmp_path / "r1-zero"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "model_name_or_path: data/base  # the shipped one\nlearning_rate: 2.0e-4\nmax_steps: 100\nprovenance:\n"
        "  commit: 5f3c9a1e2b7d4c60\n  versions: {torch: 2.13.0, trl: 1.16.0}\n  command: python -m recipes.rl x.yaml\n"
        "  started: 2026-03-01 14:02:11\n  seed: 42\n  device: cpu\n  host_threads: 2\n"
    )
    write_lines(folder / "metrics.jsonl", metric_lines(100))
    write_lines(folder / "samples.jsonl", sample_lines())
    (folder / "eval.json").write_text(json.dumps(evaluation()))
    (folder / "status.json").write_text('{"state": "finished", "step": 100, "max_steps": 100}')
    return folder


def written(run_dir: Path) -> Page:
    return Page(report.write_report(run_dir))


def numbers(value, key: str = ""):
    """(key, number) of every number in nested JSON."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from numbers(child, name)
    elif isinstance(value, list):
        for child in value:
            yield from numbers(child, key)
    elif value is not None:
        yield key, value


def test_every_number_of_the_evaluation_is_shown(run_dir):
    text = written(run_dir).text
    for key, value in numbers(
        {name: table for name, table in evaluation().items() if name not in ("gain", "protocol")}
    ):
        shown = {"num_problems": "1,234", "k": "16", "mean_length": f"{value:.1f}"}.get(key, f"{value * 100:.1f}")
        assert re.search(rf"(?<![\d.,]){re.escape(shown)}(?![\d])", text), (key, value)
    for gain in ("+41.4", "+37.2 – +45.5", "+40.3", "+36.0 – +44.8", "+33.5"):  # the last: 71.92 - 38.44 tokens
        assert gain in text
    assert "temperature 0.6, top_p 0.95, k 16" in text


def test_the_title_tells_which_run_this_was(run_dir):
    page = written(run_dir)
    for fact in ("r1-zero", "data/base", "2026-03-01 14:02", "5f3c9a1e2b", "finished, 100 steps", "torch 2.13.0"):
        assert fact in page.text
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert "model_name_or_path: data/base  # the shipped one\nlearning_rate: 2.0e-4\n" in page.html


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": "interrupted", "step": 41, "max_steps": 100}, "interrupted at step 41 of 100"),
        (
            {"state": "failed", "step": 7, "max_steps": 9, "error": "out of <memory>"},
            "failed at step 7 of 9: out of <memory>",
        ),
        ({"state": "running", "step": 3}, "running at step 3 of 100"),
        ({}, "finished, 100 steps"),
    ],
)
def test_the_state_comes_from_the_status_and_else_from_the_steps(run_dir, status, words):
    (run_dir / "status.json").write_text(json.dumps(status))
    assert words in written(run_dir).text


def test_an_interval_that_holds_zero_is_called_no_gain(run_dir):
    changed = evaluation() | {"gain": {"pass@1": 0.004, "ci95": [-0.011, 0.019]}}
    (run_dir / "eval.json").write_text(json.dumps(changed))
    assert "95 % interval −1.1 to +1.9. It includes zero: this run shows no gain" in written(run_dir).text
    (run_dir / "eval.json").write_text(json.dumps(evaluation()))
    assert "no gain" not in written(run_dir).text


def test_dots_and_bars_stand_where_the_numbers_say():
    svg = report.dumbbell(page_parts.Estimate(0.25, (0.2, 0.31)), page_parts.Estimate(0.75))
    assert re.findall(r'<circle class="(\w+)" cx="([\d.]+)%"', svg) == [("c5", "25.00"), ("c0", "75.00")]
    assert re.findall(r'<rect class="ci c5" x="([\d.]+)%" width="([\d.]+)%"', svg) == [("20.00", "11.00")]


def test_a_curve_runs_through_its_data_on_the_scale_that_the_axis_prints(run_dir):
    html = written(run_dir).html
    figure = next(part for part in html.split("<figure>") if part.startswith("<figcaption><h3>Accuracy"))
    labels = re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+) %', figure)
    (y0, low), (y1, high) = ((float(y) - 3.5, float(label)) for y, label in (labels[0], labels[-1]))
    path = re.search(r'class="raw" d="M([^"]+)"', figure)
    assert path
    drawn = [low + (float(p.split(",")[1]) - y0) / (y1 - y0) * (high - low) for p in path[1].split()]
    data = [100 * row["rewards/accuracy/mean"] for row in metric_lines(100)[1:]]
    np.testing.assert_allclose(drawn, data, atol=0.1)
    assert re.search(r"<title>evaluation pass@1, step 0: 31.0 %</title>", figure)


def test_curves_show_what_was_logged_and_nothing_else(run_dir):
    page = written(run_dir)
    for title in (
        "Reward",
        "Accuracy",
        "Format",
        "Response length",
        "Entropy",
        "Groups without a signal",
        "Learning rate",
    ):
        assert f"<h3>{title}<" in page.html
    assert "<h3>KL<" not in page.html
    tips = [json.loads(attrs["data-tip"]) for tag, attrs in page.tags if tag == "svg" and "data-tip" in attrs]
    at_step_7 = {tuple(texts) for tip in tips for _, texts in tip if texts[0] == "step 7"}
    assert ("step 7", "0.93", "0.41", "0.52") in at_step_7  # reward, accuracy, format


def test_completions_before_and_after_stand_side_by_side_with_their_verdicts(run_dir):
    page = written(run_dir)
    article = page.html.split("<article>")[1]
    assert article.index("4x = 14") < article.index("14/4")
    assert "<i>&lt;answer&gt;</i><b> 7/2 </b><i>&lt;/answer&gt;</i>" in article
    for words in (
        "✗ wrong",
        "✓ correct",
        "✓ format",
        "brevity 0.25",
        "57 tokens",
        "문제 of equations?",
        "7/2",
        "difficulty 3",
    ):
        assert words in article
    assert "accuracy not scored" in page.html
    assert "no completion was written" in page.html.split("<article>")[2]  # its "after" is missing
    assert "Step 40" in page.text


def test_problems_take_turns_by_task():
    ids = ["a1", "a2", "a3", "b1", "c1", "b2"]
    rows = [{"kind": "before", "id": name, "task": name[0]} for name in ids]
    pairs = report.before_and_after(rows)
    assert [pair["before"]["id"] for pair in pairs] == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_time_per_phase_adds_up(run_dir):
    text = written(run_dir).text
    for words in (
        "sample 3 min 20 s 2.00 s a step 40.0 %",
        "score 0 min 50 s",
        "update 3 min 45 s",
        "other 0 min 25 s",
    ):
        assert words in text


def test_what_a_run_wrote_stays_text(run_dir):
    """An attack in every string that a model, a data set, a configuration or a folder could bring in."""
    run_dir = run_dir.rename(run_dir.with_name("<img src=x onerror=alert(4)>"))
    rows = sample_lines()
    for row in rows:
        row |= dict.fromkeys(("id", "task", "language", "problem", "prompt", "answer", "completion"), ATTACK)
        row["rewards"] = {ATTACK: 0.5}
    write_lines(run_dir / "samples.jsonl", rows)
    attacked = evaluation() | {"tasks": {ATTACK: evaluation()["overall"]}, "protocol": {ATTACK: ATTACK}}
    attacked["overall"] |= {ATTACK: {ATTACK: 0.5}}
    (run_dir / "eval.json").write_text(json.dumps(attacked))
    write_lines(run_dir / "metrics.jsonl", [{"step": 1, "reward": 1.0, f"rewards/{ATTACK}/mean": 0.5}])
    (run_dir / "config.yaml").write_text(json.dumps({"model_name_or_path": ATTACK, "provenance": {ATTACK: ATTACK}}))
    (run_dir / "status.json").write_text(json.dumps({"state": ATTACK, "error": ATTACK}))
    page = written(run_dir)
    assert_harmless(page)
    assert page.text.count("alert(1)") > 20  # all of it is there to read
    (run_dir / "eval.json").write_text(json.dumps(ATTACK))  # an unreadable file is quoted in the notes
    page = written(run_dir)
    assert_harmless(page)
    assert "eval.json cannot be read, perhaps cut off by a crash: expected a mapping, got: </pre><script>" in page.text


def test_the_page_loads_nothing_and_runs_only_its_own_script(run_dir):
    (run_dir / "config.yaml").write_text("model_name_or_path: https://example.org/model\n")
    page = written(run_dir)
    assert not [attrs for _, attrs in page.tags if {"src", "href", "action", "data"} & attrs.keys()]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page.html)
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@pytest.mark.parametrize("name", report.FILES)
def test_a_missing_file_is_named_and_the_rest_is_shown(run_dir, name):
    (run_dir / name).unlink()
    page = written(run_dir)
    assert f"{name} is missing" in page.text
    assert ("Learning rate" in page.html) == (name != "metrics.jsonl")


@pytest.mark.parametrize("name", report.FILES)
def test_one_file_is_enough(run_dir, name):
    for path in run_dir.iterdir():
        if path.name != name:
            path.unlink()
    assert written(run_dir).text.count("is missing") == 3


@pytest.mark.parametrize("name", [*report.FILES, "status.json"])
def test_a_file_cut_off_anywhere_still_gives_a_page(run_dir, name):
    data = (run_dir / name).read_bytes()
    for size in {0, 1, *np.linspace(2, len(data) - 1, 12).astype(int)}:
        (run_dir / name).write_bytes(data[:size])
        written(run_dir)


def test_a_cut_line_is_reported_and_the_lines_before_it_count(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 101, "rewa')
    text = written(run_dir).text
    assert "metrics.jsonl: left out unreadable line 102 of 102" in text
    (run_dir / "eval.json").write_text('{"overall": {"base"')
    assert "eval.json cannot be read, perhaps cut off by a crash" in written(run_dir).text


@pytest.mark.parametrize(
    "value", [None, "0.5", float("nan"), float("inf"), -1e308, 10**400, [], {}, True, 5e-324, 0, -3]
)
def test_any_value_in_any_place_gives_a_page(run_dir, value):
    row = dict.fromkeys(metric_lines(1)[1], value)
    write_lines(run_dir / "metrics.jsonl", [row, row | {"step": 5}, row | {"step": 6}])
    write_lines(
        run_dir / "samples.jsonl", [dict.fromkeys(line, value) | {"kind": line["kind"]} for line in sample_lines()]
    )
    broken = {"base": dict.fromkeys(scores(0, 0, 0), value), "trained": value}
    tables = {"overall": broken, "tasks": {"x": broken, "y": value}, "gain": value, "languages": value}
    for content in (tables, tables | {"overall": value}, value):
        (run_dir / "eval.json").write_text(json.dumps(content))
        (run_dir / "status.json").write_text(
            json.dumps({"state": value, "step": value, "max_steps": value, "error": value})
        )
        written(run_dir)


def test_half_a_surrogate_pair_can_be_written(run_dir):
    (run_dir / "samples.jsonl").write_text('{"kind": "before", "id": "1", "completion": "\\ud83d is half"}\n')
    assert "? is half" in written(run_dir).text


def test_a_resumed_run_shows_the_later_of_two_lines(run_dir):
    write_lines(
        run_dir / "metrics.jsonl", [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}, {"step": 2, "reward": 0.9}]
    )
    assert report.read_run(run_dir).series("reward") == [(1, 0.1), (2, 0.9)]


def test_the_trainers_own_evaluation_lines_are_read_too(run_dir):
    write_lines(
        run_dir / "metrics.jsonl", [{"step": 4, "eval_rewards/accuracy/mean": 0.5, "eval_greedy/accuracy": 0.6}]
    )
    run = report.read_run(run_dir)
    assert (run.series("eval/pass@1"), run.series("eval/greedy")) == ([(4, 0.5)], [(4, 0.6)])


def test_a_long_run_stays_a_small_page(run_dir):
    write_lines(run_dir / "metrics.jsonl", metric_lines(10_000))
    path = report.write_report(run_dir)
    assert path.stat().st_size < 1_500_000
    series = [(i, float(i)) for i in range(10_001)]
    short = page_parts.averaged_down(series)
    assert len(short) <= page_parts.MAX_POINTS
    assert short[-1][0] == 10_000
    assert np.mean([value for _, value in page_parts.averaged_down(series[:-1])]) == pytest.approx(4999.5)


def test_smoothing_is_a_centred_mean():
    values = np.random.default_rng(0).normal(size=200)
    smooth = [value for _, value in page_parts.smoothed(list(enumerate(values.tolist())))]
    np.testing.assert_allclose(smooth[10:-10], np.convolve(values, np.full(21, 1 / 21), mode="valid"))
    assert smooth[0] == pytest.approx(values[:11].mean())


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_round_and_cover_the_data(low, span):
    ticks = page_parts.round_ticks(low, low + span)
    gaps = np.diff(ticks)
    assert ticks[0] <= low + 1e-5 * gaps[0]
    assert ticks[-1] >= low + span - 1e-5 * gaps[0]
    assert 1 <= len(gaps) <= 6
    assert f"{gaps[0]:.0e}"[0] in "125"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1830.4, "1,830"),
        (71.23, "71.2"),
        (0.84, "0.84"),
        (0.0012, "0.0012"),
        (2e-4, "2e-4"),
        (1.5e-5, "1.5e-5"),
        (0, "0.00"),
    ],
)
def test_short_numbers(value, text):
    assert page_parts.short(value) == text


def test_every_metric_that_is_drawn_is_documented():
    table = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    keys = " ".join(spec[3] for spec in page_parts.CURVES + page_parts.MORE_CURVES).replace("{parts}", "").split()
    keys += [
        *page_parts.TRAINER_EVAL_NAMES.values(),
        *(f"eval/{key.replace('@', '@k') if key[-1] == '@' else key}" for key in report.EVAL_LABELS),
    ]
    for key in keys:
        assert f"`{re.sub(r'^rewards/.+/', 'rewards/<name>/', key)}`" in table, key


def test_command_writes_the_page_and_names_it(run_dir, capsys):
    report.main([str(run_dir)])
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert (run_dir / "report.html").is_file()


@pytest.mark.parametrize("folder", ["missing", "."])
def test_command_refuses_a_folder_that_is_no_run(tmp_path, capsys, folder):
    with pytest.raises(SystemExit) as error:
        report.main([str(tmp_path / folder)])
    assert error.value.code == 2
    assert "is no run: it holds none of config.yaml, metrics.jsonl" in capsys.readouterr().err


def test_the_report_needs_no_torch(run_dir):
    code = f"import sys; from recipes.report import main; main([{str(run_dir)!r}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
