"""Problem sets of the micro world: their schema, and splits that no seed, size or language can make overlap."""

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import List, Value, concatenate_datasets

from data.corpus.solutions import draw_pretraining_instance
from data.problems import LANGUAGES, SPLITS, content_hash, make_problems, split_of
from data.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
RECIPE = yaml.safe_load((ROOT / "recipes/micro/r1_zero.yaml").read_text(encoding="utf-8"))
HELD_BACK = ("train", "validation", "test")


@pytest.fixture(scope="module")
def shipped():
    """The problem sets of the shipped recipe."""
    return {split: make_problems(split, RECIPE[f"{split}_size"], seed=0) for split in HELD_BACK}


def digest(rows) -> str:
    return hashlib.sha256(repr([sorted(row.items()) for row in rows]).encode()).hexdigest()[:16]


def content(row) -> str:
    """What a problem asks, read off its wording alone: the longest formula in it, with its task."""
    if row["task"] == "countdown":
        return f"{sorted(row['numbers'])} {row['answer']}"
    formulas = re.findall(r"[-\d(][-\dx+*/()=, ]*", row["problem"])
    return max(formulas, key=len).strip(" ,")


# --- the schema -------------------------------------------------------------------------------------------------------


def test_every_row_follows_the_schema():
    problems = make_problems("train", 240)
    text = Value("string")
    assert dict(problems.features) == {
        "problem": text, "answer": text, "task": text, "language": text, "difficulty": Value("int64"), "id": text,
        "numbers": List(Value("int64")),
    }  # fmt: skip
    for row in problems:
        assert row["problem"].strip() == row["problem"] != ""
        assert row["answer"]
        assert row["task"] in TASKS
        assert row["language"] in LANGUAGES
        assert row["difficulty"] in range(1, 6)
        assert bool(row["numbers"]) == (row["task"] == "countdown")
        assert re.fullmatch(rf"{row['task']}-[0-9a-f]{{16}}", row["id"])
        has_korean = any("가" <= letter <= "힣" for letter in row["problem"])
        assert has_korean == (row["language"] == "ko")


def test_sets_of_different_tasks_can_be_joined():
    sets = [make_problems("train", 2, tasks=[task]) for task in ("arithmetic", "countdown")]
    assert len(concatenate_datasets(sets)) == 4


def test_tasks_difficulties_and_languages_have_equal_shares(shipped):
    for problems, share in ((shipped["test"], {4}), (shipped["validation"], {1}), (shipped["train"], {66, 67})):
        cells = list(zip(problems["task"], problems["difficulty"], problems["language"]))
        assert {cells.count(cell) for cell in set(cells)} == share
        assert len(set(cells)) == 6 * 5 * 2


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_a_seed_names_one_set_in_every_process():
    code = (
        "from data.problems import make_problems; import hashlib;"
        "rows = make_problems('validation', 30, seed=7);"
        "print(hashlib.sha256(repr([sorted(r.items()) for r in rows]).encode()).hexdigest()[:16])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "99"}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(make_problems("validation", 30, seed=7))


def test_seeds_give_different_sets():
    """Not `seed + index`: there, neighbouring seeds share all but one item."""
    first, second = (set(make_problems("train", 300, seed=seed)["id"]) for seed in (42, 43))
    assert len(first & second) < 30


def test_a_set_has_no_problem_twice(shipped):
    for problems in shipped.values():
        assert len(set(problems["id"])) == len(problems)


def test_the_shipped_test_set_is_the_one_that_results_were_measured_on(shipped):
    """A change that moves this makes every published number incomparable with the next: say so where you change it."""
    assert digest(shipped["test"]) == "ec58a254ee99bbd9"


# --- splits -----------------------------------------------------------------------------------------------------------


def test_splits_cover_every_problem_once():
    buckets = [bucket for split in SPLITS.values() for bucket in split]
    assert sorted(buckets) == list(range(1000))


def test_split_follows_from_the_content_alone():
    """Computed here a second time: sha256 over task and content, the first twelve hex digits modulo 1000."""
    for name, task in TASKS.items():
        rng = random.Random(3)
        for difficulty in range(1, 6):
            key = task.draw(rng, difficulty).key
            bucket = int(hashlib.sha256(f"{name}|{key!r}".encode()).hexdigest()[:12], 16) % 1000
            first = {"pretrain": 0, "train": 780, "validation": 920, "test": 950}
            expected = max((split for split in first if first[split] <= bucket), key=first.get)
            assert split_of(content_hash(name, key)) == expected


def test_shipped_sets_share_no_problem(shipped):
    assert [len(shipped[split]) for split in HELD_BACK] == [4000, 60, 240]
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert set(shipped[first]["id"]).isdisjoint(shipped[second]["id"])


@pytest.mark.parametrize(("seed", "size"), [(0, 400), (1, 400), (43, 150)])
def test_splits_share_no_problem_whatever_the_seed_and_size(shipped, seed, size):
    other = make_problems("train", size, seed=seed)
    assert set(other["id"]).isdisjoint([*shipped["test"]["id"], *shipped["validation"]["id"]])
    held_out = make_problems("test", size // 2, seed=seed + 1)
    assert set(held_out["id"]).isdisjoint(shipped["train"]["id"])


def test_korean_test_problems_are_no_translations_of_english_training_problems():
    """By what the problems say, not by their ids. Ordering and word problems are left out: they say more in words."""
    tasks = ["arithmetic", "countdown", "equations", "sequences"]
    train = make_problems("train", 1500, tasks=tasks, languages=["en"])
    test = make_problems("test", 500, tasks=tasks, languages=["ko"])
    assert {content(row) for row in train}.isdisjoint(content(row) for row in test)


@pytest.mark.parametrize("name", TASKS)
def test_a_problem_is_the_same_problem_in_both_languages(name):
    """The same numbers in the same order, and for names their places in the two lists; so one key fits both."""
    from data.tasks.ordering import NAMES

    task, rng = TASKS[name], random.Random(5)
    for difficulty in range(1, 6):
        instance = task.draw(rng, difficulty)
        numbers, people = [], []
        for language in LANGUAGES:
            text = task.state(instance, language, rng)
            numbers.append(sorted(re.findall(r"\d+", text)))
            found = sorted(NAMES[language], key=lambda who, text=text: text.find(who) % 10_000)
            people.append([NAMES[language].index(who) for who in found if who in text])
        assert numbers[0] == numbers[1]
        if name == "ordering":
            assert set(people[0]) == set(people[1]) == set(instance.people)


def test_pretraining_never_draws_from_a_held_back_split():
    rng = random.Random(11)
    for _ in range(5000):
        task, instance = draw_pretraining_instance(rng)
        bucket = int(hashlib.sha256(f"{task.name}|{instance.key!r}".encode()).hexdigest()[:12], 16) % 1000
        assert bucket < 780


def test_no_pretraining_problem_is_in_a_shipped_set(shipped):
    held_back = {row_id for problems in shipped.values() for row_id in problems["id"]}
    rng = random.Random("another seed")
    drawn = (draw_pretraining_instance(rng) for _ in range(5000))
    assert held_back.isdisjoint(f"{task.name}-{content_hash(task.name, instance.key)}" for task, instance in drawn)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev': the splits are pretrain, train, validation, test"),
        ({"tasks": ["geometry"]}, "unknown task 'geometry': expected some of .*'arithmetic'"),
        ({"languages": ["en", "fr"]}, "unknown language 'fr': expected some of .*'en', 'ko'"),
        ({"difficulties": [6]}, r"unknown difficulty 6: expected some of \[1, 2, 3, 4, 5\]"),
        ({"languages": []}, "no language to draw problems from"),
        ({"difficulties": []}, "no difficulty to draw problems from"),
        ({"size": 0}, "1 problem or more, got size 0"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_problems(**{"split": "train", "size": 4} | settings)


def test_a_split_that_has_no_more_problems_says_so():
    """18,480 one-step equations exist, so about 550 are in the validation split."""
    with pytest.raises(ValueError, match=r"validation split has no more different .* task 'equations'.*fewer"):
        make_problems("validation", 800, tasks=["equations"], difficulties=[1])


def test_problems_load_without_torch():
    code = "import sys, data.problems, data.tasks, data.templates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
