"""Loading: every published layout gives the same schema, whatever the file format, and no bad row passes in silence."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from data.loading import SCHEMA, load_problems, load_texts, problem_id
from data.problems import content_hash, make_problems
from data.sources import open_source
from data.values import (
    guess_language,
    last_boxed,
    read_difficulty,
    read_gold,
    read_language,
    read_numbers,
    read_problem,
)

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("R1LAB_SHARED_DATA", ROOT.parent / "shared" / "data"))

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no published sets here; set R1LAB_SHARED_DATA")

DAPO_PROMPT = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 2 + 2?\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- Layouts

LAYOUTS = {
    "GSM8K": (
        {"question": "How many?", "answer": "1 + 2 = <<1+2=3>>3\n#### 3"},
        {"problem": "How many?", "answer": "3", "source_answer": "1 + 2 = <<1+2=3>>3\n#### 3", "question": "How many?"},
    ),
    "GSM8K, thousands": ({"question": "Sum?", "answer": "So\n#### -1,234,000.50"}, {"answer": "-1234000.50"}),
    "MATH": (
        {
            "problem": "Find x.",
            "level": "Level 3",
            "type": "Algebra",
            "solution": r"1 or \boxed{2}? $\boxed{\frac{1}{\sqrt{2}}}$.",
        },
        {"problem": "Find x.", "answer": r"\frac{1}{\sqrt{2}}", "difficulty": 3, "type": "Algebra", "level": "Level 3"},
    ),
    "MATH-500": (
        {
            "problem": "P",
            "solution": r"\boxed{9}",
            "answer": "(3, 4)",
            "subject": "Geometry",
            "level": 5,
            "unique_id": "a/1",
        },
        {"answer": "(3, 4)", "difficulty": 5, "solution": r"\boxed{9}", "unique_id": "a/1"},
    ),
    "AIME": ({"id": 60, "problem": "P", "answer": "033", "question": "P"}, {"answer": "033", "source_id": 60}),
    "AIME, capitals": (
        {"ID": "2024-I-1", "Problem": "P", "Answer": 204},
        {"problem": "P", "answer": "204", "ID": "2024-I-1"},
    ),
    "DeepScaleR": (
        {"problem": "P", "answer": "-\\frac{2}{3}", "solution": "Long."},
        {"answer": "-\\frac{2}{3}", "solution": "Long."},
    ),
    "Open-R1": (
        {
            "problem": "P",
            "solution": "Work.\n\\boxed{7}",
            "answer": "7",
            "generations": ["a", "b"],
            "messages": [{"role": "user", "content": "P"}],
        },
        {"answer": "7", "generations": ["a", "b"]},
    ),
    "Open-R1, solution alone": ({"problem": "P", "solution": "Work.\nThus \\boxed{7}"}, {"answer": "7"}),
    "DAPO": (
        {"prompt": [{"role": "user", "content": DAPO_PROMPT}], "reward_model": {"ground_truth": "4", "style": "rule"}},
        {"problem": "What is 2 + 2?", "answer": "4", "reward_model": {"ground_truth": "4", "style": "rule"}},
    ),
    "verl's GSM8K": (
        {
            "prompt": [{"role": "user", "content": "Two and two? Let's think step by step."}],
            "reward_model": {"ground_truth": "4", "style": "rule"},
            "extra_info": {"question": "Two and two?", "answer": "...", "index": 0},
        },
        {"problem": "Two and two?", "answer": "4"},
    ),
    "Skywork": (
        {"prompt": [{"role": "user", "content": "P"}], "reward_model": {"ground_truth": '["\\\\frac{1}{2}"]'}},
        {"answer": r"\frac{1}{2}"},
    ),
    "TRL": (
        {"prompt": "What is 2+2?", "solution": "$4$"},
        {"problem": "What is 2+2?", "answer": "$4$", "solution": "$4$"},
    ),
    "TRL, conversation": (
        {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "What?"}], "answer": "4"},
        {"problem": "What?", "answer": "4"},
    ),
    "OlympiadBench": ({"question": "Q", "final_answer": ["2"]}, {"answer": "2"}),
    "Countdown": (
        {"target": 98, "nums": [44, 19, 35]},
        {"answer": "98", "numbers": [44, 19, 35], "task": "countdown", "nums": [44, 19, 35], "target": 98},
    ),
    "Korean": ({"question": "사과 3개와 $\\frac{1}{2}$개는 몇 개입니까?", "answer": "3.5"}, {"language": "ko"}),
    "own words": (
        {"problem": "Who?", "answer": "Mina, Jun", "task": "ordering", "language": "English"},
        {"task": "ordering", "language": "en"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_recognised(layout):
    row, expected = LAYOUTS[layout]
    [loaded] = load_problems(Dataset.from_list([row]))
    assert list(loaded)[: len(SCHEMA)] == list(SCHEMA)
    assert "prompt" not in loaded, "data.templates adds the prompt"
    assert {name: loaded[name] for name in expected} == expected


def test_types_do_not_depend_on_the_source():
    sets = [load_problems(Dataset.from_list([row])) for row, _ in LAYOUTS.values()]
    features = [{name: loaded.features[name] for name in SCHEMA} for loaded in sets]
    assert all(item == features[0] for item in features)
    assert features[0]["difficulty"].dtype == "int64"
    assert features[0]["numbers"].feature.dtype == "int64"


def test_a_countdown_row_has_the_generators_identity_and_wording():
    [row] = load_problems(Dataset.from_list([{"target": 98, "nums": [44, 19, 35]}]))
    assert row["id"] == "countdown-" + content_hash("countdown", ((19, 35, 44), 98))
    assert set(re.findall(r"\d+", row["problem"])) == {"44", "19", "35", "98"}
    [korean] = load_problems(Dataset.from_list([{"target": 98, "nums": [44, 19, 35]}]), language="ko")
    assert korean["id"] == row["id"]
    assert guess_language(korean["problem"]) == "ko"


def test_generated_problems_survive_a_file(tmp_path):
    made = make_problems("test", 24, seed=3)
    made.to_json(tmp_path / "made.jsonl", force_ascii=False)
    loaded = load_problems(tmp_path / "made.jsonl")
    assert [dict(row) for row in loaded] == [dict(row) for row in made]


def test_our_own_rows_keep_answers_that_would_be_read_otherwise_elsewhere():
    own = {"problem": "P", "task": "text", "language": "en", "difficulty": 1, "id": "x-1", "numbers": []}
    rows = [{**own, "answer": "proof"}, {**own, "id": "x-2", "answer": "\n####\n"}]
    assert load_problems(Dataset.from_list(rows))["answer"][:] == ["proof", "\n####\n"]
    assert load_problems(Dataset.from_list(rows))["id"][:] == ["x-1", "x-2"]
    with pytest.raises(ValueError, match="none of its 1 rows"):
        load_problems(Dataset.from_list([{**own, "answer": ""}]))
    scored_by_entry = Dataset.from_list([{**own, "answer": "", "gym_entry": "{}"}])
    assert load_problems(scored_by_entry)["answer"][:] == [""]


# --- Columns


def test_numbers_alone_are_no_countdown():
    rows = Dataset.from_list([{"numbers": [1, 2], "x": 1}])
    for load in (load_problems, load_texts):
        with pytest.raises(ValueError, match="no column for the problem"):
            load(rows)


def test_a_mapping_reads_any_layout_and_keeps_the_other_columns():
    rows = Dataset.from_list([{"q": "P", "meta": {"gold": "5"}, "hint": "h", "answer": "not this", "stars": 4}])
    columns = {"problem": "q", "answer": "meta.gold", "difficulty": "stars"}
    [row] = load_problems(rows, columns=columns, task="equations", language="fr")
    expected = {"problem": "P", "answer": "5", "difficulty": 4, "task": "equations", "language": "fr", "hint": "h"}
    assert row == row | expected | {"source_answer": "not this", "meta": {"gold": "5"}}


def test_reserved_names_stay_under_another_name():
    rows = Dataset.from_list(
        [{"problem": "P", "answer": "1", "completions": ["x"], "prompt": "Q", "source_prompt": "R"}]
    )
    [row] = load_problems(rows)
    assert row["source_completions"] == ["x"]
    assert row["source_prompt"] == "R"
    assert row["source_source_prompt"] == "Q"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"task_id": 1, "my_questions": "P", "my_gold": "1"},
            "columns={'problem': 'my_questions', 'answer': 'my_gold'}",
        ),
        ({"problem": "P", "expected_result": "1"}, "columns={'answer': 'expected_result'} (the nearest by name)"),
        ({"problem": "P", "zz": 1}, "columns={'answer': '<one of them>'}"),
        ({"problem": 17, "answer": "1"}, "no column for the problem among problem, answer"),
    ],
)
def test_a_missing_column_is_an_error_that_writes_the_mapping(row, expected):
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        load_problems(Dataset.from_list([row]))
    assert all(name in str(error.value) for name in row)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"answer": "golds"},
            "columns maps 'answer' to 'golds', which the given Dataset lacks; it has q, gold; did you mean 'gold'?",
        ),
        ({"q": "problem"}, "columns maps 'q', which is none of our columns"),
        ({"anwser": "gold"}, "did you mean 'answer'?"),
        ({"answer": "gold.inner"}, "which the given Dataset lacks"),
    ],
)
def test_a_wrong_mapping_names_what_is_there(columns, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_problems(Dataset.from_list([{"q": "P", "gold": "1"}]), columns=columns)


# --- Rows that cannot be used


def test_bad_rows_are_dropped_counted_and_logged(caplog):
    rows = [
        {"problem": "A", "answer": "1"},
        {"problem": "B", "answer": " "},
        {"problem": "C", "answer": None},
        {"problem": "D", "answer": "notfound"},
        {"problem": "E", "answer": r"so \boxed{ never closed"},
        {"problem": " ", "answer": "2"},
        {"problem": "A ", "answer": "1"},
        {"problem": "A", "answer": "9"},
        {"problem": "F", "answer": "3"},
    ]
    with caplog.at_level(logging.WARNING):
        loaded = load_problems(Dataset.from_list(rows))
    assert loaded["problem"][:] == ["A", "F"]
    assert "dropped 7 of 9 rows" in caplog.text
    assert "4 with an empty or unreadable gold answer (first: row 1: ' ')" in caplog.text
    assert "1 without a readable problem" in caplog.text
    assert "1 seen before (first" in caplog.text
    assert "1 seen before with another answer" in caplog.text


def test_good_rows_log_nothing(caplog):
    load_problems(Dataset.from_list([{"problem": "A", "answer": "1"}]))
    assert not caplog.records


def test_nothing_left_is_an_error():
    rows = Dataset.from_list([{"problem": "A", "solution": "A long proof.\nWithout a mark."}])
    with pytest.raises(ValueError, match=r"none of its 1 rows .* gold answer.*A long proof"):
        load_problems(rows)


def test_evaluation_texts_need_no_gold():
    rows = Dataset.from_list([{"problem": "A", "answer": ""}, {"problem": "B", "answer": "2"}])
    texts = load_texts(rows)
    assert texts.column_names == ["id", "problem"]
    assert texts["problem"][:] == ["A", "B"]
    assert texts["id"][1] == load_problems(rows)["id"][0]
    assert load_texts(Dataset.from_list([{"prompt": "def f():", "canonical_solution": "x"}]))["problem"][:] == [
        "def f():"
    ]


def test_limit_counts_good_rows():
    rows = Dataset.from_list([{"problem": f"P{i}", "answer": "" if i % 2 else "1"} for i in range(20)])
    assert load_problems(rows, limit=3)["problem"][:] == ["P0", "P2", "P4"]
    assert load_problems(rows, limit=99).num_rows == 10
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        load_problems(rows, limit=0)


def test_ids_go_by_content():
    first = load_problems(Dataset.from_list([{"problem": "What  is\n2 + 2?", "answer": "4"}]))["id"][0]
    second = load_problems(
        Dataset.from_list([{"x": 1, "question": "What is 2 + 2?", "answer": "It is\n#### 4"}]), task="t"
    )["id"][0]
    assert first == second == "7b8e510235fea60b", "changed ids break resumed runs and reports"
    assert problem_id("What is 2 + 3?", "math", "5") != first


# --- Values


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        ("72", "72"),
        ("a\n####   $1,000", "$1000"),
        ("#### 1,2", "1,2"),
        ("#### Heading\ntext 5", "#### Heading\ntext 5"),
        ("x #### 5\n\n", "5"),
        (r"\boxed{\text{(A) } x^{2^{3}}}", r"\text{(A) } x^{2^{3}}"),
        (r"\boxed {5}", "5"),
        (r"\fbox{6}", "6"),
        (r"\framebox{204} minutes", "204"),
        (r"the answer is $\boxed 12$.", "12"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", None),
        (r"\boxed{1", None),
        (r"\boxed", None),
        (r"\boxed{1} and \boxed{2", None),
        ("Proof", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (33.0, "33"),
        (0.5, "0.5"),
        (10**30, str(10**30)),
        (True, "True"),
        (["2"], "2"),
        (["2", "3"], None),
        ({"a": 1}, None),
        ([], None),
    ],
)
def test_gold_answers(value, gold):
    assert read_gold(value) == gold


def test_a_worked_text_without_a_mark_is_no_gold():
    assert read_gold("4", may_be_worked=True) == "4"
    assert read_gold("First.\nThen 4.", may_be_worked=True) is None
    assert read_gold("w" * 201, may_be_worked=True) is None
    assert read_gold("First.\nThen 4.") == "First.\nThen 4."


balanced = st.recursive(
    st.text("ab1 +\\,$", max_size=4).filter(lambda text: not text.endswith("\\")),
    lambda inner: st.tuples(inner, inner, inner).map(lambda parts: parts[0] + "{" + parts[1] + "}" + parts[2]),
    max_leaves=8,
)


@given(inside=balanced, before=st.text("ab{}$ ", max_size=8), after=st.text("ab} {$.", max_size=8))
def test_the_last_box_is_read_with_its_nested_braces(inside, before, after):
    text = r"\boxed{no} " + before + r"\boxed{" + inside.replace("\\", r"\frac ") + "}" + after
    assert last_boxed(text) == (inside.replace("\\", r"\frac ").strip() or None)


@given(
    st.one_of(
        st.text(),
        st.none(),
        st.floats(),
        st.lists(st.integers() | st.text()),
        st.dictionaries(st.text(), st.integers()),
    )
)
def test_no_value_of_any_type_raises(value):
    for read in (read_gold, read_problem, read_numbers, read_difficulty, read_language):
        read(value)


def test_problems_from_conversations():
    user = {"role": "user", "content": "Q"}
    assert read_problem([user, {"role": "assistant", "content": "A"}]) == "Q"
    assert read_problem([{"from": "human", "content": "Q"}]) == "Q"
    assert read_problem([user, {"role": "assistant", "content": "A"}, user]) is None, (
        "several turns are not one problem"
    )
    assert read_problem([{"role": "user", "content": [{"type": "image"}]}]) is None
    assert read_problem("Remember to put your answer") == "Remember to put your answer"


@pytest.mark.parametrize(
    ("value", "difficulty"),
    [("Level 3", 3), ("5", 5), (2, 2), (4.0, 4), ("hard", 5), ("Level ?", 0), (7, 0), (3.5, 0), (None, 0), ("9", 0)],
)
def test_difficulties(value, difficulty):
    assert read_difficulty(value) == difficulty


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is 안녕 in English, as a farewell?", "en"),
        (r"방정식 $\frac{x}{\sqrt{2}} = 3$ 을 푸세요.", "ko"),
        ("次の計算をしなさい。", "ja"),
        ("求下列方程的解", "zh"),
        ("2 + 2", "en"),
    ],
)
def test_language_by_script(text, language):
    assert guess_language(text) == language


def test_a_programming_language_is_no_language():
    assert [read_language(value) for value in ("python", "zh-CN", "Korean", "en", "cpp", 3)] == [
        None,
        "zh",
        "ko",
        "en",
        None,
        None,
    ]


# --- Files and folders

ROWS = [
    {"problem": 'P, "quoted"\nline', "answer": "007", "level": "Level 2"},
    {"problem": "뭐?", "answer": "None", "level": "Level 1"},
]


def save_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)


def save_gz(path: Path) -> None:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))


FORMATS = {
    "a.jsonl": lambda path: write_jsonl(path, ROWS),
    "b.json": lambda path: path.write_text(json.dumps(ROWS)),
    "c.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "lines.json": lambda path: write_jsonl(path, ROWS),
    "d.jsonl.gz": save_gz,
    "e.csv": save_csv,
    "f.parquet": lambda path: Dataset.from_list(ROWS).to_parquet(path),
    "on_disk": lambda path: Dataset.from_list(ROWS).save_to_disk(path),
    "on_disk_dict": lambda path: DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(path),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    FORMATS[name](tmp_path / name)
    expected = load_problems(Dataset.from_list(ROWS)).to_list()
    assert load_problems(tmp_path / name).to_list() == expected
    assert load_problems(str(tmp_path / name)).to_list() == expected
    assert [row["answer"] for row in expected] == ["007", "None"], "a gold answer is text and stays as written"


def test_json_may_mix_types_and_leave_columns_out(tmp_path):
    rows = [
        {"problem": "A", "answer": 5},
        {"problem": "B", "answer": "x", "note": "later", "tests": {"in": 1}},
        {"problem": "C", "answer": 0.5, "tests": "none"},
        {"problem": "D", "answer": 10**25},
    ]
    loaded = load_problems(write_jsonl(tmp_path / "mixed.jsonl", rows))
    assert loaded["answer"][:] == ["5", "x", "0.5", str(10**25)]
    assert loaded["note"][:] == [None, "later", None, None]
    assert loaded["tests"][:] == [None, '{"in": 1}', "none", None]


def test_a_folder_goes_by_the_split_in_its_file_names(tmp_path):
    for name, problem in [
        ("gsm_train.jsonl", "A"),
        ("gsm_test.jsonl", "B"),
        ("val-00000.jsonl", "C"),
        ("other.jsonl", "D"),
    ]:
        write_jsonl(tmp_path / name, [{"problem": problem, "answer": "1"}])
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / "dataset_infos.json").write_text("{}")
    for split, problem in [("train", "A"), ("test", "B"), ("validation", "C"), ("dev", "C")]:
        assert load_problems(tmp_path, split=split)["problem"][:] == [problem]
    with pytest.raises(
        ValueError, match=r"no file in .* is named for split 'extra'; its file names say test, train, validation"
    ):
        load_problems(tmp_path, split="extra")


def test_a_folder_without_split_names_is_read_whole(tmp_path):
    for number in range(3):
        write_jsonl(tmp_path / f"part{number}.jsonl", [{"problem": f"P{number}", "answer": "1"}])
    assert load_problems(tmp_path, split="test")["problem"][:] == ["P0", "P1", "P2"]


def test_a_folder_with_configurations_asks_for_one(tmp_path):
    for config in ("main", "socratic"):
        (tmp_path / config).mkdir()
        write_jsonl(tmp_path / config / "train.jsonl", [{"problem": config, "answer": "1"}])
    with pytest.raises(
        ValueError, match="matching files in main, socratic; give one of these folders as source or name="
    ):
        load_problems(tmp_path)
    assert load_problems(tmp_path, name="socratic")["problem"][:] == ["socratic"]


def test_a_dataset_dict_names_its_splits():
    splits = DatasetDict(easy=Dataset.from_list(ROWS))
    assert load_problems(splits, split="easy").num_rows == 2
    with pytest.raises(ValueError, match="has no split 'train'; it has easy"):
        load_problems(splits)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"problem": "P", "answer": "1"}\n{"problem": \n', r"a.jsonl:2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", r"a.jsonl:1: expected an object, got list"),
        ("a.json", b'[{"problem": "P"}, 3]', r"expected a list of objects"),
        ("a.jsonl", b"\n\n", "no rows in"),
        ("a.jsonl", b"\xff\xfe{", "as UTF-8 text"),
        ("a.jsonl.gz", b"plain", "as gzipped UTF-8 text"),
        ("a.csv", b"problem,answer\nP,1,000\n", r"a.csv:2: more or fewer fields than the header's 2"),
        ("a.parquet", b"nothing", "as parquet"),
        ("a.txt", b"text", "expected .jsonl, .json, .csv, .parquet"),
    ],
)
def test_an_unreadable_file_says_where_and_what(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        load_problems(tmp_path / name)


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*train.jsonl\?"):
        load_problems(str(tmp_path / "trian.jsonl"))
    for source in ("data/none.jsonl", "./none", "a/b/c", "~/none", Path("owner/name")):
        with pytest.raises(FileNotFoundError):
            load_problems(source)


def test_a_folder_without_data_and_a_mix_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data file in"):
        load_problems(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    save_csv(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"mixes .csv and .jsonl files"):
        load_problems(tmp_path)


@pytest.mark.parametrize(
    "error", [ConnectionError("offline"), ValueError("Config name is missing"), RuntimeError("scripts")]
)
def test_hub_errors_say_what_to_do(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises((ConnectionError, ValueError), match=r"local path|name= picks a configuration"):
        load_problems("owner/name")
    with pytest.raises(ValueError, match="cannot be a Hub name"):
        load_problems("my file")


def test_a_hub_set_is_asked_for_by_name_configuration_and_split(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or Dataset.from_list(ROWS)
    )
    rows, label = open_source("openai/gsm8k", split="test", name="main")
    assert asked == [(("openai/gsm8k", "main"), {"split": "test"})]
    assert (rows.num_rows, label) == (2, "openai/gsm8k")


def test_loading_imports_nothing_heavy():
    code = (
        "import sys, data.loading, data.decontaminate, data.gym, data.__main__; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'pyarrow', 'numpy', 'reasoning_gym')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- Published sets


@needs_shared
@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_gsm8k(split, rows, caplog):
    loaded = load_problems(SHARED / f"gsm8k_{split}.jsonl")
    assert loaded.num_rows == rows
    assert not caplog.records
    assert all(re.fullmatch(r"-?\d+", answer) for answer in loaded["answer"])
    lines = (SHARED / f"gsm8k_{split}.jsonl").read_text().splitlines()
    expected = [json.loads(line)["answer"].split("#### ")[1].replace(",", "") for line in lines]
    assert loaded["answer"][:] == expected
    assert load_problems(SHARED, split=split).num_rows == rows


@needs_shared
def test_aime():
    loaded = load_problems(SHARED / "aime24.jsonl")
    assert loaded.num_rows == 30
    assert all(0 <= int(answer) <= 999 for answer in loaded["answer"])


@needs_shared
def test_human_eval_has_no_gold_and_says_so():
    with pytest.raises(ValueError, match="no column for the gold answer among task_id, prompt"):
        load_problems(SHARED / "HumanEval.jsonl.gz")
    assert load_texts(SHARED / "HumanEval.jsonl.gz").num_rows == 164
