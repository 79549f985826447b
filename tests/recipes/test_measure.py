"""The measuring recipe: its table, its files, and numbers that a second count confirms."""

import json
import re

import pytest

from grpo.evaluation import evaluation_report
from recipes import measure
from recipes.measure import MeasureConfig, table
from recipes.parser import parse
from recipes.problem_sets import ProblemConfig
from rewards import check, extract_answer, has_r1_format

SMALL = {"test_size": 6, "k": 3, "max_completion_length": 12, "template": "r1_zero_short"}


@pytest.fixture
def run(tiny_model, capsys):
    """Measures the tiny model and gives what was printed."""

    def go(**changed) -> str:
        settings = {"model_name_or_path": tiny_model} | SMALL | changed
        args = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        measure.main(*parse(MeasureConfig, ProblemConfig, args=args))
        return capsys.readouterr().out

    return go


def rows(text: str) -> dict[str, list[float]]:
    """Label -> the numbers of its line, without the intervals."""
    found = {}
    for line in text.splitlines()[1:]:
        label, rest = line[:24].strip(), re.sub(r"\[.*?\]", "", line[24:])
        found[label] = [float(number) for number in rest.split()]
    return found


def test_the_table_has_a_line_for_every_slice(run):
    printed = rows(run(test_size=12))
    assert next(iter(printed)) == "overall"
    assert any(label.startswith("task ") for label in printed)
    assert any(label.startswith("difficulty ") for label in printed)
    assert {"language en", "language ko"} & set(printed)
    assert all(len(numbers) == 7 for numbers in printed.values())


def test_the_files_hold_what_was_printed_and_every_sample(run, tmp_path):
    printed = rows(run(output=tmp_path / "new/eval.json", samples_output=tmp_path / "samples.jsonl"))
    report = json.loads((tmp_path / "new/eval.json").read_text(encoding="utf-8"))
    overall = report["overall"]["base"]
    assert printed["overall"][0] == round(100 * overall["pass@1"], 1)
    assert (overall["num_problems"], overall["k"]) == (6, 3)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(samples) == 6
    for sample in samples:
        assert len(sample["texts"]) == len(sample["correct"]) == len(sample["lengths"]) == 3
        assert isinstance(sample["greedy_text"], str)


def test_samples_follow_from_the_seed(run, tmp_path):
    texts = []
    for number, seed in enumerate((0, 0, 1)):
        run(samples_output=tmp_path / f"{number}.jsonl", eval_seed=seed)
        texts.append((tmp_path / f"{number}.jsonl").read_text(encoding="utf-8"))
    assert texts[0] == texts[1] != texts[2]


def test_the_judge_agrees_with_a_count_by_hand():
    """What the table counts is decided by rewards; here it is decided again from the texts."""
    row = {"problem": "1 + 1", "answer": "2", "task": "arithmetic", "numbers": []}
    texts = [
        " <think> 1 + 1 = 2 </think> <answer> 2 </answer>",
        " <think> 1 + 1 = 3 </think> <answer> 3 </answer>",
        " The answer is 2.",
        " <answer> 2 </answer>",
        "",
    ]
    columns = {name: [value] * len(texts) for name, value in row.items()}
    right = [
        (answer := extract_answer(text)) is not None and check(gold="2", answer=answer, task="arithmetic").reward == 1.0
        for text in texts
    ]
    judge = measure.JUDGE
    assert [score == 1.0 for score in judge.correct([""] * 5, texts, **columns)] == right
    assert [score == 1.0 for score in judge.formatted([""] * 5, texts, **columns)] == [has_r1_format(t) for t in texts]
    assert judge.lenient([""] * 5, texts, **columns)[2] == 1.0
    assert [judge.answer_key(text, row) for text in texts[:2]] == ["2", "3"]


def test_the_table_shows_percent_of_what_was_judged():
    """Three problems of two samples: 3 of 6 right, 2 of 3 problems ever right, by hand."""
    base = {"id": "a", "task": "arithmetic", "difficulty": 1, "language": "en", "truncated": [False] * 2}
    samples = [
        base | {"correct": c, "lenient": [True, True], "formatted": f, "answers": ["1", "1"], "lengths": [10, 20],
                "greedy_correct": g, "texts": ["", ""]}
        for c, f, g in (([True, True], [True, True], True), ([True, False], [True, False], False),
                        ([False, False], [False, False], False))
    ]  # fmt: skip
    printed = rows(table(evaluation_report({"base": samples}, MeasureConfig(model_name_or_path="x", k=2).protocol)))
    assert printed["overall"][0] == 50.0
    assert printed["overall"][1] == 100.0
    assert printed["overall"][3] == 66.7
    assert printed["overall"][4:] == [50.0, 33.3, 15.0]
    assert printed["task arithmetic"] == printed["overall"]


def test_greedy_can_be_left_out(run):
    assert "–" in run(greedy="false").splitlines()[1]


def test_a_data_set_of_ones_own(run, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{n} + 1", "answer": str(n + 1)}) + "\n" for n in range(5)))
    run(dataset=path, eval_dataset=path, output=tmp_path / "eval.json", test_size=4)
    report = json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert report["overall"]["base"]["num_problems"] == 4


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"test_size": 0}, SystemExit, "nothing to measure on: set eval_dataset"),
        ({"model_name_or_path": "./missing"}, ValueError, "model path './missing' does not exist"),
        ({"max_completion_length": 600}, ValueError, "exceeds the model's context"),
        ({"k": 0}, ValueError, "k must be 1 or more"),
    ],
)
def test_mistakes_are_named(run, changed, error, message):
    with pytest.raises(error, match=re.escape(message)):
        run(**changed)
