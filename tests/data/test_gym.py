"""reasoning-gym as a source: schema, splits by content, and scorers that never run the model's text."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.gym import _decode, _encode, _why_text_only, load_gym, score_gym
from data.loading import SCHEMA, load_problems, load_texts
from data.problems import split_of

ROOT = Path(__file__).resolve().parents[2]


def test_without_reasoning_gym_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from data.loading import load_problems\n"
        "try: load_problems('reasoning-gym:chain_sum')\n"
        "except ImportError as error: sys.exit('[reasoning-gym]' not in str(error))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_entries_keep_tuples_and_keys_through_json():
    value = {"a": (1, [2, (3,)]), "b": {1: "x", (2, 3): None}, "c": {"__tuple__": "text"}}
    assert _decode(json.loads(json.dumps(_encode(value)))) == value


@pytest.fixture(scope="module", autouse=False)
def gym():
    return pytest.importorskip("reasoning_gym")


def test_problems_come_in_the_schema(gym):
    problems = load_gym("chain_sum", 8, seed=1, max_terms=3)
    assert problems.column_names == [*SCHEMA, "gym_entry"]
    assert problems.num_rows == 8
    for row in problems:
        assert row["task"] == "reasoning-gym:chain_sum"
        assert score_gym(row["answer"], row["gym_entry"]) == 1.0
        assert score_gym(str(int(row["answer"]) + 1), row["gym_entry"]) < 1.0
        assert len(json.loads(row["gym_entry"])["metadata"]["expression"].split()) <= 5
    assert load_gym("chain_sum", 8, seed=1, max_terms=3).to_list() == problems.to_list()


def test_neighbouring_seeds_and_splits_share_nothing(gym):
    ids = {seed: set(load_gym("chain_sum", 40, seed=seed)["id"]) for seed in (42, 43)}
    assert len(ids[42] & ids[43]) < 4, "the library's own neighbouring seeds would share 39 of 40"
    for split in ("train", "validation", "test"):
        made = set(load_gym("chain_sum", 15, seed=7, split=split)["id"])
        wanted = {"train", "pretrain"} if split == "train" else {split}
        assert {split_of(item.rpartition("-")[2]) for item in made} <= wanted
        assert not (split != "train" and made & (ids[42] | ids[43]))


def test_problems_survive_a_file(gym, tmp_path):
    for task_name in ("rush_hour", "spiral_matrix"):
        made = load_gym(task_name, 3)
        made.to_json(tmp_path / f"{task_name}.jsonl", force_ascii=False)
        assert load_problems(tmp_path / f"{task_name}.jsonl").to_list() == made.to_list()


def test_it_is_a_source_by_name(gym):
    problems = load_problems("reasoning-gym:basic_arithmetic", limit=5, split="test")
    assert problems.num_rows == 5
    with pytest.raises(ValueError, match="do not apply"):
        load_problems("reasoning-gym:basic_arithmetic", columns={"answer": "x"})
    assert load_texts("reasoning-gym:basic_arithmetic", split="test").column_names == ["id", "problem"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"task_name": "chain_sums"}, "did you mean 'chain_sum'"),
        ({"max_term": 3}, "has no setting 'max_term'; .*did you mean 'max_terms'"),
        ({"min_terms": 0}, "refuses its settings"),
        ({"size": 0}, "size must be 1 or more"),
        ({"split": "pretrain"}, "unknown split 'pretrain'"),
        ({"min_terms": 2, "max_terms": 2, "max_digits": 1, "size": 400}, "fewer than the 400 asked for"),
    ],
)
def test_mistakes_are_named(gym, arguments, expected):
    with pytest.raises(ValueError, match=expected):
        load_gym(**{"task_name": "chain_sum", "size": 3, **arguments})


@pytest.mark.parametrize("task_name", ["countdown", "puzzle24"])
def test_countdown_goes_to_the_projects_own_checker(gym, task_name):
    for row in load_gym(task_name, 3, seed=2):
        assert row["task"] == "countdown"
        assert row["numbers"]
        assert row["answer"] in ("24",) if task_name == "puzzle24" else row["answer"] in row["problem"]


HOSTILE = "__import__('pathlib').Path({path!r}).write_text('ran') or [[0]]"


@pytest.mark.parametrize(
    "task_name",
    [
        *("binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "polynomial_multiplication"),
        *("simple_integration", "intermediate_integration", "countdown", "puzzle24"),
    ],
)
def test_no_answer_is_run(gym, task_name, tmp_path):
    mark = tmp_path / "mark"
    attack = HOSTILE.format(path=str(mark))
    [row] = load_gym(task_name, 1, seed=3)
    assert score_gym(attack, row["gym_entry"]) == 0.0
    assert not mark.exists()
    entry = _decode(json.loads(row["gym_entry"]))
    if task_name in ("binary_matrix", "string_insertion", "countdown"):
        gym.create_dataset(task_name, size=1, seed=0).score_answer(attack, entry)
        assert mark.exists(), "the library's own scorer no longer runs the answer: its answers could be scored by it"


def test_scorers_that_are_useless_compare_texts(gym):
    [row] = load_gym("game_of_life_halting", 1, seed=1)
    wrong = str(row["answer"] == "False")
    assert (score_gym(row["answer"], row["gym_entry"]), score_gym(wrong, row["gym_entry"])) == (1.0, 0.0)
    [row] = load_gym("coin_flip", 1, seed=1)
    start = time.perf_counter()
    assert score_gym("1e999999999", row["gym_entry"]) == 0.0
    assert time.perf_counter() - start < 1


def test_other_right_answers_count(gym):
    """n_queens with several solutions, and rush_hour, whose entries carry no gold answer at all."""
    [row] = load_gym("n_queens", 1, seed=5, n=6, min_remove=6, max_remove=6)
    others = _decode(json.loads(row["gym_entry"]))["metadata"]["valid_answers"]
    assert len(others) > 1
    assert all(score_gym(other, row["gym_entry"]) == 1.0 for other in others)
    [row] = load_gym("rush_hour", 1, seed=5)
    assert row["answer"] == ""
    assert score_gym("", row["gym_entry"]) == 0.0


def test_scores_stay_in_range_for_any_text(gym):
    for task_name in ("prime_factorization", "group_anagrams", "sudoku", "complex_arithmetic", "time_intervals"):
        [row] = load_gym(task_name, 1, seed=4)
        for answer in (None, "", "nan", "[" * 5000, "9" * 10_001, "{}", "-1", "1:2", "\x00", row["answer"]):
            assert 0.0 <= score_gym(answer, row["gym_entry"]) <= 1.0


@pytest.mark.slow
def test_every_generator_works_and_scores_its_own_answer(gym):
    from reasoning_gym.factory import DATASETS

    for task_name in sorted(set(DATASETS) - {"composite", "countdown", "puzzle24"}):
        for row in load_gym(task_name, 3, seed=1):
            assert not row["answer"] or score_gym(row["answer"], row["gym_entry"]) == 1.0, task_name
            assert _why_text_only(task_name) is None or score_gym("no", row["gym_entry"]) == 0.0
