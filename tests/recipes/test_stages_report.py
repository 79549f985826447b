"""The table of stages against plain loops, and its page: what it shows, and that it survives whatever it finds."""

import json
import math
import random
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from html_pages import ATTACK, Page, assert_harmless

from grpo.statistics import bootstrap_ci, paired_gain_ci, share_interval
from recipes import stages_report, stages_table
from recipes.pipeline import Pipeline, Stage, StageContext, StageError, StageResult, declare
from recipes.stages_picture import BOX, LANES, LEFT, MIDDLE, RIGHT, Node, picture, place
from recipes.stages_table import AIMS, claims, gain, overall_draws, read_card, table

LABELS = ("base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1")
TASKS, FAMILIES = ("arithmetic", "equations", "countdown"), ("haiku", "lists", "greeting")
CHANCES = {  # right, formatted, consistent, helpful, harmless
    "base": (0.4, 0.45, 0.9, 0.3, 0.2),
    "R1-Zero": (0.75, 0.9, 0.7, 0.3, 0.2),
    "Dev1": (0.6, 0.97, 0.97, 0.35, 0.3),
    "Dev2": (0.8, 0.99, 0.99, 0.35, 0.3),
    "Dev3": (0.79, 0.98, 0.98, 0.7, 0.9),
    "R1": (0.8, 0.99, 0.995, 0.8, 0.97),
}


# --- a pipeline as its stages would leave it --------------------------------------------------------------------------


def scorecard(label: str, problems: int = 60, requests: int = 40, k: int = 4) -> dict:
    right, formatted, consistent, helpful, harmless = CHANCES[label]
    rng = random.Random(label)

    def flips(chance: float, count: int) -> list[bool]:
        return [rng.random() < chance for _ in range(count)]

    reasoning = [
        {"id": f"p{i}", "task": TASKS[i % 3], "language": ("en", "ko")[i % 2], "correct": flips(right, k)}
        | {"formatted": flips(formatted, k), "lengths": [rng.randint(20, 90) for _ in range(k)]}
        | {"consistent": [None if i % 7 == 0 else 1.0 if rng.random() < consistent else 0.5 for _ in range(k)]}
        for i in range(problems)
    ]
    general = [
        {"id": f"r{i}", "kind": ("instruction", "harmful")[i % 2], "family": FAMILIES[i % 3], "language": "en"}
        | {"judged": ("helpfulness", "harmlessness")[i % 2], "lengths": [rng.randint(3, 30) for _ in range(4)]}
        | {"passed": flips((helpful, harmless)[i % 2], 4)}
        for i in range(requests)
    ]
    return {
        "label": label,
        "k": k,
        "reasoning": reasoning,
        "general": general,
        "shown_problems": [
            {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "correct": row["correct"][0]}
            | {"text": f"<think>{label} thinks</think> <answer>{2 * i} by {label}</answer>"}
            for i, row in enumerate(reasoning[:5])
        ],
        "shown_requests": [
            {
                "problem": f"문장 {i}을 써라",
                "kind": row["kind"],
                "text": f"{label} writes {i}",
                "passed": row["passed"][0],
            }
            for i, row in enumerate(general[:4])
        ],
    }


def cards(*labels: str) -> dict[str, dict]:
    return {f"measure-{label.lower()}": scorecard(label) for label in labels or LABELS}


def entries() -> list[dict]:
    """name, title, inputs, outputs, config of the stages of recipes/micro/r1.yaml."""
    chain = [
        ("r1-zero", "R1-Zero: pure RL from the base", {}, "model", "data/base"),
        ("cold-start-data", "Long chains of the base and R1-Zero", {"r1_zero": "r1-zero"}, "dataset", "data/base"),
        ("dev1", "Dev1: SFT of the base on them", {"dataset": "cold-start-data"}, "model", "data/base"),
        ("dev2", "Dev2: reasoning RL", {"model": "dev1"}, "model", None),
        ("sft-data", "Rejection sampling, blended with general data", {"model": "dev2"}, "dataset", None),
        ("dev3", "Dev3: SFT of the base again", {"dataset": "sft-data"}, "model", "data/base"),
        ("reward-models", "Reward models for helpfulness and harmlessness", {}, "helpful", "data/base"),
        ("r1", "R1: RL for all scenarios", {"model": "dev3", "reward_models": "reward-models"}, "model", None),
        ("measure-base", "Base, measured", {}, "scorecard.json", "data/base"),
    ]
    chain += [
        (f"measure-{label.lower()}", f"{label}, measured", {"model": label.lower()}, "scorecard.json", None)
        for label in LABELS[1:]
    ]
    measures = {f"measure-{label.lower()}": f"measure-{label.lower()}" for label in LABELS}
    chain.append(("table", "The table of stages and the report", measures, "stages.json", None))
    names = ("name", "title", "inputs", "output", "model")
    return [dict(zip(names, entry)) for entry in chain]


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rl_lines() -> list[dict]:
    lines = []
    for step in range(1, 31):
        shares = {
            f"rewards/{name}/mean": 0.3 + 0.01 * step for name in ("accuracy", "format", "language", "preference")
        }
        lines.append({"step": step, "reward": 0.5 + 0.03 * step, "completions/mean_length": 50 + step} | shares)
        if step % 10 == 0:
            lines.append({"step": step, "eval_rewards/accuracy/mean": 0.6, "eval_rewards/language/mean": 0.88})
    return lines


def attempts(index: int) -> list[dict]:
    """Every other stage was killed once."""
    whole = {"started": f"2026-03-01T10:{index:02d}:00+00:00", "seconds": 61.5 + 100 * index, "status": "finished"}
    return [{"started": "2026-03-01T09:00:00+00:00", "seconds": None, "status": "running"}] * (index % 2) + [whole]


def write_pipeline(folder: Path, problems: int = 60) -> Path:
    for index, entry in enumerate(entries()):
        name, here = entry["name"], folder / entry["name"]
        outputs = {
            out: {"hash": ""} for out in {"helpful": ["helpful", "harmless"]}.get(entry["output"], [entry["output"]])
        }
        reads = {
            f"{role}/{out}": {"path": f"{other}/{out}"}
            for role, other in entry["inputs"].items()
            for out in next(
                ["helpful", "harmless"] if e["output"] == "helpful" else [e["output"]]
                for e in entries() if e["name"] == other
            )
        }  # fmt: skip
        manifest = {
            "stage": name, "title": entry["title"], "status": "finished", "seconds": 61.5 + 100 * index,
            "inputs": reads, "outputs": outputs,
            "config": {"model_name_or_path": entry["model"]} if entry["model"] else {},
            "started": f"2026-03-01T10:{index:02d}:00", "attempts": attempts(index), "commit": "5f3c9a1e2b7d",
            "metrics": {"reward": 1.25}, "machine": {"cores": 2, "gpus": [], "versions": {"torch": "2.13.0"}},
        }  # fmt: skip
        if entry["output"] == "dataset":
            manifest |= {"seen": 4800, "kept": 848, "filters": [
                {"name": "correct", "dropped": 3000, "examples": ["it is 41", "it is 43"]},
                {"name": "language", "dropped": 952, "examples": ["안녕 hello"]},
            ]}  # fmt: skip
        if name == "r1":
            manifest["config"] |= {"hacking_alarm": "preference"}
        write_json(here / "manifest.json", manifest)
        if name in ("r1-zero", "dev2", "r1"):
            write_lines(here / "metrics.jsonl", rl_lines())
            write_json(here / "status.json", {"state": "finished"})
        if name in ("dev1", "dev3"):
            write_lines(
                here / "metrics.jsonl", [{"step": s, "loss": 1 / s, "mean_token_accuracy": 0.9} for s in range(1, 9)]
            )
        if name == "reward-models":
            for part in ("helpful", "harmless"):
                write_lines(here / f"training/{part}/metrics.jsonl", [{"step": s, "loss": 1 / s} for s in range(1, 5)])
    for label in LABELS:
        name, card = f"measure-{label.lower()}", scorecard(label, problems, problems * 2 // 3)
        write_json(folder / name / "scorecard.json", card)
    stages = [
        {"name": e["name"], "title": e["title"], "inputs": e["inputs"], "folder": e["name"], "status": "finished"}
        for e in entries()
    ]
    write_json(folder / "pipeline.json", {"title": "R1 on the micro world", "seed": 0, "stages": stages})
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_pipeline(tmp_path / "r1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The same with its page, for tests that only read."""
    folder = write_pipeline(tmp_path_factory.mktemp("finished") / "r1")
    stages_report.write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(finished) -> Page:
    return Page(finished / "report.html")


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """The same stages on few problems and few resamples, for tests that write the page many times."""
    monkeypatch.setattr(stages_table, "RESAMPLES", 20)
    for function in (bootstrap_ci, paired_gain_ci):
        monkeypatch.setattr(stages_table, function.__name__, partial(function, resamples=20))
    return write_pipeline(tmp_path / "r1", problems=6)


def written(folder: Path) -> Page:
    stages_report.write_report(folder)
    return Page(folder / "report.html")


# --- the numbers ------------------------------------------------------------------------------------------------------


def plain_mean(values) -> float:
    total, count = 0.0, 0
    for value in values:
        if value is not None:
            total, count = total + value, count + 1
    return total / count


def by_problem(card: dict, name: str) -> list[float]:
    """The mean of each problem's or request's samples, those without any left out."""
    if name in ("helpfulness", "harmlessness"):
        rows = [row["passed"] for row in card["general"] if row["judged"] == name]
    else:
        field = {"reasoning": "correct", "format": "formatted", "language_consistency": "consistent"}.get(
            name, "lengths"
        )
        rows = [row[field] for row in card["reasoning"]]
    return [plain_mean(row) for row in rows if any(value is not None for value in row)]


def test_every_number_is_the_mean_over_problems_with_its_bootstrap_interval():
    measured = cards()
    rows = table(measured)
    assert [row["stage"] for row in rows] == list(LABELS)
    for row, card in zip(rows, measured.values()):
        for name in ("reasoning", "format", "language_consistency", "helpfulness", "harmlessness", "length"):
            values = by_problem(card, name)
            assert row[name] == pytest.approx(plain_mean(values), abs=1e-12)
            interval = bootstrap_ci if name == "length" else share_interval  # the bootstrap, unless all are 0 or 1
            assert row[f"{name}_ci95"] == pytest.approx(interval(values))
        four = ("reasoning", "language_consistency", "helpfulness", "harmlessness")
        assert row["overall"] == pytest.approx(sum(plain_mean(by_problem(card, name)) for name in four) / 4)
        assert row["general_length"] == pytest.approx(plain_mean(plain_mean(r["lengths"]) for r in card["general"]))
        assert (row["problems"], row["requests"]) == (60, 40)
    assert len(by_problem(measured["measure-r1"], "language_consistency")) == 51  # 9 problems have no words to judge


def test_groups_are_means_over_their_own_problems():
    card = scorecard("Dev2")
    (row,) = table({"measure-dev2": card})
    for task in TASKS:
        values = [plain_mean(r["correct"]) for r in card["reasoning"] if r["task"] == task]
        assert row["reasoning_by_task"][task] == pytest.approx(plain_mean(values))
        assert row["reasoning_by_task_ci95"][task] == pytest.approx(bootstrap_ci(values))
    for family in FAMILIES:
        values = [
            plain_mean(r["passed"]) for r in card["general"] if r["family"] == family and r["judged"] == "harmlessness"
        ]
        assert row["harmlessness_by_family"][family] == pytest.approx(plain_mean(values))
    assert set(row["reasoning_by_language"]) == {"en", "ko"}
    assert set(row["helpfulness_by_family"]) == set(FAMILIES)


def test_gains_are_paired():
    measured = cards()
    rows = {row["stage"]: row for row in table(measured)}
    for label in LABELS:
        for other, key in (("base", "gain_over_base"), ("R1-Zero", "gain_over_r1_zero")):
            found = rows[label][key]
            if label == other:
                assert found is None
                continue
            old, new = (by_problem(measured[f"measure-{name.lower()}"], "reasoning") for name in (other, label))
            assert found["reasoning"] == pytest.approx(plain_mean(new) - plain_mean(old))
            assert found["reasoning_ci95"] == pytest.approx(paired_gain_ci(old, new))
            assert found["overall"] == pytest.approx(rows[label]["overall"] - rows[other]["overall"])
            low, high = found["overall_ci95"]
            assert low < found["overall"] < high


def test_a_gain_in_language_is_over_the_problems_that_both_have_words_in():
    old, new = scorecard("base"), scorecard("R1")
    new["reasoning"][1]["consistent"] = [None] * 4
    both = [
        (plain_mean(a["consistent"]), plain_mean(b["consistent"]))
        for a, b in zip(old["reasoning"], new["reasoning"])
        if a["consistent"] != [None] * 4 and b["consistent"] != [None] * 4
    ]
    assert len(both) == 50
    found = gain(old, new, "language_consistency")
    assert found is not None
    assert found[0] == pytest.approx(plain_mean(b - a for a, b in both))
    assert found[1] == pytest.approx(paired_gain_ci(*zip(*both)))


def requests_card(label: str, *passed: list[bool], judged: str = "helpfulness") -> dict:
    return {
        "label": label,
        "general": [
            {"id": i, "kind": "instruction", "family": "f", "language": "en", "judged": judged, "passed": row}
            | {"lengths": [1] * len(row)}
            for i, row in enumerate(passed)
        ],
    }


def test_win_rates_by_hand():
    base = requests_card("base", [True, True, False, False], [False, False, False, False], [True, True, True, True])
    other = requests_card("R1", [True, False, True, True], [True, True, True, False], [True, True, True, True])
    first, second = table({"a": base, "b": other})
    # (tie, loss, win, win), (win, win, win, tie), four ties
    expected = [2.5 / 4, 3.5 / 4, 0.5]
    assert second["helpfulness_win_rate"] == pytest.approx(sum(expected) / 3)
    assert second["helpfulness_win_rate_ci95"] == pytest.approx(bootstrap_ci(expected))
    assert (first["helpfulness_win_rate"], first["helpfulness_win_rate_ci95"]) == (0.5, [0.5, 0.5])
    assert second["harmlessness_win_rate"] is second["harmlessness_win_rate_ci95"] is None


def test_the_interval_of_overall_is_that_of_a_mean_of_independent_parts():
    """Against the normal approximation. The two kinds of requests hold the very same verdicts, so that resampling them
    together would give an interval that is too wide."""
    card = scorecard("Dev1", problems=400, requests=0)
    rng = random.Random(3)
    passed = [[rng.random() < 0.5] * 4 for _ in range(400)]
    card["general"] = [
        row | {"id": f"{judged}{row['id']}"}
        for judged in ("helpfulness", "harmlessness")
        for row in requests_card("", *passed, judged=judged)["general"]
    ]
    (row,) = table({"a": card})
    reasoning = [plain_mean(r["correct"]) for r in card["reasoning"]]
    language = [plain_mean(r["consistent"]) for r in card["reasoning"] if r["consistent"][0] is not None]
    parts = [reasoning, language, [float(p[0]) for p in passed], [float(p[0]) for p in passed]]
    spread = math.sqrt(sum(np.var(part) / len(part) for part in parts)) / 4
    low, high = row["overall_ci95"]
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert (high + low) / 2 == pytest.approx(row["overall"], abs=0.1 * spread)


def test_draws_of_two_cards_take_the_same_problems():
    """A card that is better by the same on every request: the paired gain is known without any doubt."""
    old, new = scorecard("Dev1"), scorecard("Dev1") | {"label": "R1"}
    for row in old["general"]:
        row["passed"] = [False] * 4
    for row in new["general"]:
        row["passed"] = [True] * 4 if row["judged"] == "helpfulness" else [False] * 4
    assert np.std(overall_draws(old)) > 0.005
    assert gain(old, new, "overall") == (pytest.approx(0.25), (pytest.approx(0.25), pytest.approx(0.25)))


def test_a_part_that_a_scorecard_lacks_is_none():
    reasoning_only = {"label": "Dev1", "reasoning": scorecard("Dev1")["reasoning"]}
    general_only = {"label": "Dev2", "general": scorecard("Dev2")["general"], "reasoning": []}
    rows = table({"a": scorecard("base"), "b": reasoning_only, "c": general_only})
    for row, lacking in (
        (rows[1], "helpfulness harmlessness helpfulness_win_rate"),
        (rows[2], "reasoning format length"),
    ):
        for name in (*lacking.split(), "overall"):
            assert row[name] is row[f"{name}_ci95"] is None
    assert rows[1]["helpfulness_by_family"] is rows[2]["reasoning_by_task"] is None
    assert rows[1]["gain_over_base"]["reasoning"] is not None
    assert rows[1]["gain_over_base"]["overall"] is rows[2]["gain_over_base"]["reasoning"] is None
    assert rows[0]["gain_over_r1_zero"] is None
    assert rows[2]["helpfulness_win_rate"] is not None
    assert table({}) == []


def test_scorecards_of_different_problems_are_an_error_that_names_the_stages():
    measured = cards("base", "Dev1", "R1")
    measured["measure-r1"]["reasoning"][3]["id"] = "another"
    with pytest.raises(ValueError, match=r"'measure-base'.*'measure-r1'.*different problems"):
        table(measured)
    measured = cards("base", "Dev1", "R1")
    measured["measure-dev1"]["general"].reverse()
    with pytest.raises(ValueError, match=r"'measure-base'.*'measure-dev1'.*different requests"):
        table(measured)
    measured = cards("base", "Dev1")
    for row in measured["measure-dev1"]["general"]:
        row["passed"] = row["passed"][:3]
    with pytest.raises(ValueError, match=r"'measure-base' and 'measure-dev1' gave different numbers of answers"):
        table(measured)


@pytest.mark.parametrize(
    "content",
    [
        '{"label": "R1", "reaso',
        "[1, 2]",
        '{"reasoning": []}',
        '{"label": "R1", "reasoning": [{"id": 1}]}',
        '{"label": "R1", "reasoning": 7}',
        '{"label": "R1", "general": [{"id": 1, "family": "f", "language": "en", "judged": "helpfulness", "passed": [], '
        '"lengths": []}]}',
        '{"label": "R1", "general": [{"id": 1, "family": "f", "language": "en", "judged": "helpfulness", "passed": '
        '["x"], "lengths": [1]}]}',
    ],
)
def test_what_is_no_scorecard_is_said_with_its_path(tmp_path, content):
    (tmp_path / "scorecard.json").write_text(content)
    with pytest.raises(ValueError, match=r"scorecard\.json (cannot be read|is no scorecard)"):
        read_card(tmp_path / "scorecard.json")


# --- what came out ----------------------------------------------------------------------------------------------------


def test_claims_follow_their_intervals():
    measured = cards()
    paper = {claim.text: claim for claim in claims(measured)}
    by_label = {card["label"]: card for card in measured.values()}
    claim = paper["R1-Zero reasons better than the base"]
    expected = paired_gain_ci(by_problem(by_label["base"], "reasoning"), by_problem(by_label["R1-Zero"], "reasoning"))
    assert (claim.verdict, claim.interval) == ("came out", pytest.approx(expected))
    assert paper["R1-Zero mixes languages more than Dev1"].verdict == "came out"
    assert paper["Dev1 reasons worse than R1-Zero"].verdict == "came out"
    assert paper["Dev3 is more harmless than Dev2"].verdict == "came out"
    by_label["Dev2"]["reasoning"] = by_label["base"]["reasoning"]
    by_label["Dev3"]["reasoning"] = by_label["base"]["reasoning"]
    paper = {claim.text: claim for claim in claims(measured)}
    assert paper["Dev2 reasons better than Dev1"].verdict == "did not come out"
    assert paper["Dev3 keeps Dev2's reasoning (to 3 points)"].verdict == "came out"  # no loss at all
    assert claims(cards("base", "Dev1"))[0].verdict == "not measured"


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(0, "did not come out"), (40, "did not come out"), (57, "cannot be told"), (60, "came out")],
)
def test_keeping_means_losing_less_than_three_points(right, verdict):
    """60 problems that Dev2 all solves, of which Dev3 solves `right`: 57 are a loss of 5 points, 95 % [0, 12]."""
    measured = cards("Dev2", "Dev3")
    for index, (old, new) in enumerate(zip(*(card["reasoning"] for card in measured.values()))):
        old["correct"], new["correct"] = [True] * 4, [index < right] * 4
    claim = next(claim for claim in claims(measured) if claim.text.startswith("Dev3 keeps"))
    assert claim.verdict == verdict
    assert claim.value == pytest.approx(right / 60 - 1)


def test_aims_hold_a_share_against_its_bound():
    measured = {f"measure-{name.lower()}": scorecard(name, requests=400) for name in ("base", "R1-Zero", "R1")}
    for row in measured["measure-r1"]["general"]:
        row["passed"] = [True] * 4
    aims = {claim.text: claim for claim in claims(measured, AIMS)}
    assert aims["R1's harmlessness is at least 95 %"].verdict == "came out"
    assert aims["R1 beats the base overall"].verdict == aims["R1 beats R1-Zero overall"].verdict == "came out"
    for row in measured["measure-r1"]["reasoning"]:
        row["consistent"] = [0.9] * 4
    aims = {claim.text: claim for claim in claims(measured, AIMS)}
    assert aims["R1's language consistency is at least 98 %"].verdict == "did not come out"


def test_a_few_verdicts_that_all_say_the_same_prove_little():
    """12 refusals of 12: the exact interval of Clopper and Pearson begins at 0.025 ** (1 / 12) = 73.5 %."""
    low, high = share_interval(np.ones(12))
    assert (low, high) == (pytest.approx(0.7354, abs=1e-4), 1.0)
    assert share_interval(np.zeros(12)) == (0.0, pytest.approx(1 - low))
    assert share_interval(np.array([0.0, 1.0] * 6)) == bootstrap_ci(np.array([0.0, 1.0] * 6))


def test_a_stage_that_refuses_everything_is_not_certain_to():
    """In the table too: requests count as coins, by family the family's own; lengths are no shares."""
    card = scorecard("R1")
    for row in card["general"]:
        row["passed"], row["lengths"] = [True] * len(row["passed"]), [1] * len(row["lengths"])
    (row,) = table({"measure-r1": card})
    harmful = [row["family"] for row in card["general"] if row["judged"] == "harmlessness"]
    assert row["harmlessness_ci95"] == pytest.approx([0.025 ** (1 / len(harmful)), 1.0])
    for family, interval in row["harmlessness_by_family_ci95"].items():
        assert interval == pytest.approx([0.025 ** (1 / harmful.count(family)), 1.0])
    assert row["general_length_ci95"] == [1.0, 1.0]


def test_the_next_best_is_the_best_of_the_others():
    measured = cards()
    best = max(
        (card for card in measured.values() if card["label"] != "R1"),
        key=lambda c: plain_mean(by_problem(c, "reasoning")),
    )
    claim = next(claim for claim in claims(measured, AIMS) if "within 3 points" in claim.text)
    expected = plain_mean(by_problem(measured["measure-r1"], "reasoning")) - plain_mean(by_problem(best, "reasoning"))
    assert claim.value == pytest.approx(expected)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_every_stages_label_and_number_is_on_the_page(finished, page):
    rows = table(cards())
    assert json.loads((finished / "stages.json").read_text()) == rows
    lines = page.html.split('<table class="stages">')[1].split("</table>")[0].split("<tr>")[2:]
    assert len(lines) == len(LABELS)
    for row, line in zip(rows, lines):
        assert f'<th scope="row">{row["stage"]}</th>' in line
        shown = re.findall(r"<td[^>]*>([^<]+)<small>([^<]+)</small>", line)
        names = "reasoning format language_consistency helpfulness harmlessness overall"
        for (text, interval), name in zip(shown, f"{names} helpfulness_win_rate harmlessness_win_rate".split()):
            low, high = row[f"{name}_ci95"]
            assert (text, interval) == (f"{100 * row[name]:.1f} %", f"{100 * low:.1f} – {100 * high:.1f}")
        assert shown[-1][0] == f"{row['length']:.1f}"
    for group in (*TASKS, *FAMILIES, "en", "ko"):
        assert f'<th scope="row">{group}</th>' in page.html
    for row in rows:
        for value in (*row["reasoning_by_task"].values(), *row["harmlessness_by_family"].values()):
            assert f">{100 * value:.1f} %<" in page.html


def test_the_best_of_a_column_is_marked(finished, page):
    rows = json.loads((finished / "stages.json").read_text())
    body = page.html.split('<table class="stages">')[1].split("</table>")[0]
    for index, name in enumerate(("reasoning", "format", "language_consistency", "helpfulness")):
        top = max(row[name] for row in rows)
        marks = ["best" in line.split("<td")[index + 1].split(">")[0] for line in body.split("<tr>")[2:]]
        assert marks == [row[name] == top for row in rows]


def test_where_all_are_equal_none_is_the_best():
    assert stages_report.highest([0.5, None, 0.7, 0.7]) == 0.7
    assert stages_report.highest([0.5, 0.5]) is stages_report.highest([None]) is None


def test_the_picture_has_every_stage_and_every_line(page):
    drawing = page.html.split('<svg class="picture"')[1].split("</svg>")[0]
    for entry in entries():
        assert f">{entry['name']}<tspan>" in drawing
        for other in entry["inputs"].values():
            assert f"<title>{other} → {entry['name']}: " in drawing
    for user in ("r1-zero", "cold-start-data", "dev1", "dev3", "reward-models", "measure-base"):
        assert f"<title>data/base → {user}: model</title>" in drawing
    assert "data/base → dev2" not in drawing
    assert "cold-start-data → dev1: dataset" in drawing
    assert "reward-models → r1: helpful, harmless" in drawing
    assert drawing.count('class="flow') == 7 + 6 + 5 + 6  # between stages, of the base, to be measured, to the table
    assert "2 min 42 s" in drawing
    assert "kept 848 of 4,800, dropped 3,952" in drawing


def corners(drawing: str) -> list[list[tuple[float, float]]]:
    """The points of every line of a picture, rounded corners cut off straight."""
    paths = re.findall(r'<g class="flow[^>]*><title>.*?</title><path d="([^"]+)"', drawing)
    return [[(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)] for path in paths]


def assert_no_line_crosses_a_box(nodes: list[Node]) -> None:
    drawing = picture(nodes)
    boxes = [(node.x, node.right, node.y, node.y + BOX) for node in nodes]
    for line in corners(drawing):
        for (x1, y1), (x2, y2) in pairwise(line):
            for left, right, top, bottom in boxes:
                across = max(x1, x2) > left + 1 and min(x1, x2) < right - 1
                assert not (across and max(y1, y2) > top + 1 and min(y1, y2) < bottom - 1), (line, nodes)


def test_no_line_runs_through_a_box_and_no_box_over_another(finished):
    whole = stages_report.read_pipeline(finished)
    nodes = stages_report.nodes_of(whole, {}, None)
    assert_no_line_crosses_a_box(nodes)
    lanes = {node.name: node.lane for node in nodes}
    assert [name for name in lanes if lanes[name] == MIDDLE] == ["data/base", "r1-zero", "dev1", "dev2", "dev3", "r1"]
    assert [name for name in lanes if lanes[name] == LEFT] == ["cold-start-data", "sft-data", "reward-models"]
    places = {node.name: node.row for node in nodes}
    assert len({(node.lane, node.row) for node in nodes}) == len(nodes)
    for label in LABELS[1:]:
        assert places[f"measure-{label.lower()}"] == places[label.lower()]
    assert places["table"] == places["measure-r1"] + 1


@pytest.mark.parametrize("seed", range(20))
def test_no_line_runs_through_a_box_in_any_graph_of_models_and_data(seed):
    rng = random.Random(seed)
    nodes: list[Node] = []
    for index in range(rng.randint(2, 12)):
        takes = rng.sample([node.name for node in nodes], min(len(nodes), rng.randint(0, 3)))
        nodes.append(Node(f"s{index}", lane=rng.choice((LEFT, MIDDLE)), inputs=dict.fromkeys(takes, "model")))
    assert_no_line_crosses_a_box(nodes)
    upright: dict[tuple[float, float, float], set[str]] = {}
    drawing = picture(nodes)
    names = re.findall(r"<title>(\S+) → ", drawing)
    for name, line in zip(names, corners(drawing)):
        for (x1, y1), (x2, y2) in pairwise(line):
            if x1 == x2 and y1 != y2:
                upright.setdefault((x1, min(y1, y2), max(y1, y2)), set()).add(name)
    for (x, low, high), owners in upright.items():
        for (other_x, other_low, other_high), others in upright.items():
            if x == other_x and low < other_high and other_low < high:
                assert owners == others or not LANES[LEFT][1] < x < LANES[MIDDLE][0]


def test_a_place_for_every_measurement():
    nodes = [
        Node("a", lane=MIDDLE),
        Node("m1", lane=RIGHT, inputs={"a": "model"}),
        Node("m2", lane=RIGHT, inputs={"a": "model"}),
        Node("m3", lane=RIGHT),
        Node("all", lane=RIGHT, inputs={"m1": "scorecard.json", "m2": "scorecard.json"}),
    ]
    place(nodes)
    assert [node.row for node in nodes] == [0, 0, 1, 2, 3]


def test_what_filters_dropped_stands_with_its_examples(page):
    part = page.html.split("What the filters dropped")[1].split("<h2>")[0]
    assert part.count("<pre>it is 41</pre>") == 2
    assert "안녕 hello" in part
    assert re.search(r'correct</th><td class="n">3,000</td><td><div class="bar" style="width:62.50%">', part)


def test_every_training_has_its_curves(page):
    part = page.html.split("Curves of every training")[1].split("<h2>")[0]
    sections = {re.search(r"<small>([^<]+)</small>", text)[1]: text for text in part.split('class="part training"')[1:]}  # type: ignore[index]
    assert list(sections) == [
        "r1-zero",
        "dev1",
        "dev2",
        "dev3",
        "reward-models: harmless",
        "reward-models: helpful",
        "r1",
    ]
    for name in ("r1-zero", "dev2", "r1"):
        for title in ("Reward", "Accuracy", "Language consistency", "Response length"):
            assert f"<h3>{title}<" in sections[name]
        assert "evaluation pass@1, step 20: 60.0 %" in sections[name]
        assert "evaluation language, step 20: 88.0 %" in sections[name]
        assert "preference <output>" in sections[name]
    assert all("<h3>Loss<" in sections[name] for name in ("dev1", "dev3", "reward-models: helpful"))


def test_the_alarm_is_told_as_it_was(small):
    assert "It watched preference and stayed silent." in written(small).text
    lines = (small / "r1/metrics.jsonl").read_text().splitlines(keepends=True)
    (small / "r1/metrics.jsonl").write_text("".join(lines[-4:]))
    assert re.search(r"It had \d values of preference to judge by, too few for its 13\.", written(small).text)
    (small / "r1/metrics.jsonl").write_text("".join(lines))
    write_json(small / "r1/status.json", {"state": "finished", "alarm": "the preference reward is being hacked <b>"})
    with (small / "r1/metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "hacking/reward_rise": 0.3}\n')
    text = written(small).text
    assert "hacking alarm at step 20 the preference reward is being hacked <b>" in text
    assert "stayed silent" not in text


def test_every_stages_answer_to_the_same_problem_stands_side_by_side(page):
    article = next(part for part in page.html.split("<article>") if "What is 1 + 1?" in part)
    order = [article.index(f"{label} thinks") for label in LABELS]
    assert order == sorted(order)
    assert "Gold answer: <b>2</b>" in article
    measured = cards()
    for label, side in zip(LABELS, article.split('<div class="side">')[1:]):
        row = measured[f"measure-{label.lower()}"]["reasoning"][1]
        assert ("✓ correct" in side) == row["correct"][0]
        assert f"{row['lengths'][0]} tokens" in side
    article = next(part for part in page.html.split("<article>") if "문장 1을 써라" in part)
    assert article.count("harmless</span>") == sum(card["general"][1]["passed"][0] for card in measured.values())


def test_time_per_stage_comes_from_the_manifests(page):
    part = page.text.split("Time per stage")[1]
    for index, entry in enumerate(entries()):
        minutes, seconds = divmod(round(61.5 + 100 * index), 60)
        assert re.search(rf"{entry['name']} .*?{minutes} min {seconds:02d} s", part)
    # 15 * 61.5 + 100 * (0 + … + 14) seconds; the last one of 1,461.5 began at 10:14
    assert "3 h 10 min in all, 38 min 22 s by the clock because stages ran side by side" in part
    assert "in all 38 min 22 s" in page.text.split("Time per stage")[0]
    assert "torch 2.13.0" in part


def test_the_page_loads_nothing(page):
    assert_harmless(page)
    assert not [attrs for _, attrs in page.tags if {"src", "href", "action", "data"} & attrs.keys()]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page.html)


def attacked(value):
    """The same JSON with an attack for every text and before every key that no reader needs."""
    if isinstance(value, dict):
        return {key: attacked(item) for key, item in value.items()} | {ATTACK: 0.5}
    if isinstance(value, list):
        return [attacked(item) for item in value]
    return ATTACK if isinstance(value, str) else value


def test_whatever_stages_wrote_stays_text(small):
    for entry in entries():
        here = small / entry["name"]
        manifest = json.loads((here / "manifest.json").read_text())
        inputs = manifest.pop("inputs")
        write_json(
            here / "manifest.json", attacked(manifest) | {"status": "failed", "inputs": inputs, "started": ATTACK}
        )
        for path in here.glob("*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            write_lines(path, [row | {f"rewards/{ATTACK}/mean": 0.5} for row in rows])
        if (here / "scorecard.json").exists():
            card = attacked(json.loads((here / "scorecard.json").read_text()))
            for row in card["general"]:
                row["judged"] = "helpfulness" if row["passed"][0] else "harmlessness"
            if entry["name"] != "measure-base":
                card["general"] = []
            write_json(here / "scorecard.json", card)
    write_json(small / "r1/status.json", {"alarm": ATTACK})
    strange = small / "<img src=x onerror=alert(4)>"
    write_json(strange / "manifest.json", {"stage": "x", "status": ATTACK, "error": ATTACK})
    told = json.loads((small / "pipeline.json").read_text())
    for stage in told["stages"]:
        stage["title"] = ATTACK
    told["stages"].append({"name": strange.name, "title": ATTACK, "inputs": {ATTACK: "r1"}})
    write_json(small / "pipeline.json", told | {"title": ATTACK, "seed": ATTACK})
    page = written(small)
    assert_harmless(page)
    assert page.text.count("alert(1)") > 100
    assert "alert(4)" in page.text


# --- what is missing or broken ----------------------------------------------------------------------------------------


def test_a_pipeline_cut_short_gives_a_page(small):
    kept = ("r1-zero", "cold-start-data", "dev1")
    told = json.loads((small / "pipeline.json").read_text())
    for stage in told["stages"]:
        if stage["name"] not in kept:
            stage["status"] = "waiting"
            for path in sorted((small / stage["name"]).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    write_json(small / "pipeline.json", told)
    manifest = json.loads((small / "dev1/manifest.json").read_text())
    write_json(small / "dev1/manifest.json", manifest | {"status": "failed", "error": "NaN came", "outputs": {}})
    page = written(small)
    assert "2 of 15 stages finished" in page.text
    assert "stage dev1 failed: NaN came" in page.text
    assert "No stage was measured yet" in page.text
    drawing = page.html.split('<svg class="picture"')[1].split("</svg>")[0]
    assert drawing.count("waiting</tspan>") == 12
    assert all(f">{entry['name']}<tspan>" in drawing for entry in entries())
    assert json.loads((small / "stages.json").read_text()) == []


def test_one_scorecard_that_cannot_be_read_is_a_note(small):
    (small / "measure-dev2/scorecard.json").write_text('{"label": "Dev2", "reas')
    page = written(small)
    assert "measure-dev2/scorecard.json cannot be read" in page.text
    assert [row["stage"] for row in json.loads((small / "stages.json").read_text())] == [
        "base",
        "R1-Zero",
        "Dev1",
        "Dev3",
        "R1",
    ]
    assert "points lack a measurement" in page.text


def test_a_scorecard_that_is_gone_is_a_note_and_so_is_the_base_without_one(small):
    (small / "measure-dev2/scorecard.json").unlink()
    page = written(small)
    assert "stage measure-dev2 is not in the table: measure-dev2/scorecard.json is missing" in page.text
    assert "wins against base" in page.text
    assert "wins and gains" not in page.text
    (small / "measure-base/scorecard.json").unlink()
    (small / "measure-base/manifest.json").unlink()
    page = written(small)
    assert "measure-base/manifest.json is missing, though the stage finished" in page.text
    assert "stage measure-base is not in the table: measure-base/scorecard.json is missing" in page.text
    assert "the first that is measured, is not in the table: wins and gains are against measure-r1-zero" in page.text
    assert "wins against R1-Zero" in page.text
    assert "wins against base" not in page.text


def test_two_stages_of_one_label_are_a_note(small):
    card = json.loads((small / "measure-dev1/scorecard.json").read_text())
    write_json(small / "measure-dev1/scorecard.json", card | {"label": "Base"})
    assert "stages measure-base and measure-dev1 are all labelled 'base'" in written(small).text


@pytest.mark.parametrize(
    ("part", "field", "value", "says"),
    [
        ("reasoning", "correct", 5, "shares lie between 0 and 1"),
        ("reasoning", "consistent", math.nan, "shares lie between 0 and 1"),
        ("reasoning", "lengths", math.nan, "lengths are 0 or more"),
        ("general", "passed", -1, "shares lie between 0 and 1"),
        ("general", "lengths", math.inf, "lengths are 0 or more"),
    ],
)
def test_numbers_that_cannot_be_are_a_note_that_names_the_stage(small, part, field, value, says):
    path = small / "measure-dev1/scorecard.json"
    card = json.loads(path.read_text())
    card[part][1][field] = [value] * 4
    write_json(path, card)
    page = written(small)
    assert f"stage measure-dev1 is not in the table: {path} is no scorecard: in '{part}'" in page.text
    assert f"has the {field} [" in page.text
    assert says in page.text
    assert "Dev1" not in [row["stage"] for row in json.loads((small / "stages.json").read_text())]


def test_without_pipeline_json_the_manifests_tell_the_graph(small):
    before = written(small).html.split('<svg class="picture"')[1].split("</svg>")[0]
    (small / "pipeline.json").unlink()
    (small / "dev1-superseded-1").mkdir()
    (small / "dev1-superseded-1/manifest.json").write_text((small / "dev1/manifest.json").read_text())
    page = written(small)
    assert "pipeline.json is missing" in page.text
    after = page.html.split('<svg class="picture"')[1].split("</svg>")[0]
    assert sorted(re.findall("<title>.*?</title>", before)) == sorted(re.findall("<title>.*?</title>", after))


@pytest.mark.parametrize(
    "name",
    ["pipeline.json", "r1/manifest.json", "measure-r1/scorecard.json", "r1/metrics.jsonl", "r1/status.json"],
)
def test_a_file_cut_off_anywhere_still_gives_a_page(small, name):
    data = (small / name).read_bytes()
    for size in (0, len(data) // 3, len(data) - 1):
        (small / name).write_bytes(data[:size])
        written(small)


@pytest.mark.parametrize("value", [None, "text", float("nan"), -1e308, [], [{}], {"x": [1]}])
def test_any_value_in_any_place_of_a_manifest_gives_a_page(small, value):
    for path in (small / "cold-start-data/manifest.json", small / "r1/manifest.json"):
        manifest = json.loads(path.read_text())
        write_json(path, dict.fromkeys(manifest, value))
    told = json.loads((small / "pipeline.json").read_text())
    told["stages"][0] = dict.fromkeys(told["stages"][0], value) | {"name": "r1-zero"}
    told["stages"][1] = dict.fromkeys(told["stages"][1], value)
    told["stages"][2] = value
    card = json.loads((small / "measure-r1/scorecard.json").read_text())
    card["shown_problems"], card["shown_requests"] = value, [dict.fromkeys(card["shown_requests"][0], value), value]
    write_json(small / "measure-r1/scorecard.json", card)
    for content in (told, dict.fromkeys(told, value)):
        write_json(small / "pipeline.json", content)
        written(small)


def test_the_command_says_what_is_wrong(folder, tmp_path, capsys):
    stages_report.main([str(folder)])
    out = capsys.readouterr().out
    assert all(label in out for label in LABELS)
    card = scorecard("R1")
    card["reasoning"].pop()
    write_json(folder / "measure-r1/scorecard.json", card)
    with pytest.raises(SystemExit):
        stages_report.main([str(folder)])
    assert "'measure-base' (60 problems) and 'measure-r1' (59 problems)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stages_report.main([str(tmp_path)])
    assert "is no pipeline" in capsys.readouterr().err


# --- as a stage of a pipeline -----------------------------------------------------------------------------------------


@declare(outputs=("scorecard.json",))
def measure(context: StageContext) -> StageResult:
    write_json(
        context.folder / "scorecard.json", scorecard(context.settings["label"], context.settings.get("problems", 60))
    )
    return StageResult()


def pipeline(folder: Path, **problems: int) -> Pipeline:
    order = ("R1", "base", "Dev1")  # the table's order is that of its inputs, not that in which they were measured
    stages = [
        Stage(name=f"measure-{label}", run=measure, settings={"label": label, "problems": problems.get(label, 60)})
        for label in order
    ]
    inputs = ["measure-base", "measure-Dev1", "measure-R1"]
    table_stage = Stage(name="table", run=stages_report.stage, inputs=inputs)
    return Pipeline([*stages, table_stage], folder, isolate=False, title="a small one")


def test_the_stage_writes_into_its_folder_and_beside_the_summary(tmp_path):
    manifests = pipeline(tmp_path / "run").run()
    rows = json.loads((tmp_path / "run/table/stages.json").read_text())
    assert [row["stage"] for row in rows] == ["base", "Dev1", "R1"]
    for name in ("stages.json", "report.html"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "run/table" / name).read_bytes()
    page = Page(tmp_path / "run/report.html")
    assert "3 of 3 stages finished" in page.text
    assert "table this page" in page.text
    assert "table writes this page –" in page.text
    assert "running" not in page.text
    assert manifests[-1].metrics["overall"] == pytest.approx(rows[-1]["overall"])
    assert set(manifests[-1].outputs) == {"stages.json", "report.html"}
    assert all(step.action == "done" for step in pipeline(tmp_path / "run").plan())


def test_the_stage_refuses_scorecards_of_different_problems(tmp_path):
    with pytest.raises(StageError, match=r"'measure-base' .60 problems. and 'measure-R1' .50 problems."):
        pipeline(tmp_path / "run", R1=50).run()
    assert "failed" in (tmp_path / "run/table/manifest.json").read_text()
    assert not (tmp_path / "run/stages.json").exists()
