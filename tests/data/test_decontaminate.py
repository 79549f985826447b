"""Decontamination against a brute force that shares no code: words by a loop over characters, overlap by lists."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data.decontaminate import decontaminate, split_words, word_ngrams
from data.loading import load_problems

SHARED = Path(os.environ.get("R1LAB_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def as_set(texts: list[str], **columns) -> Dataset:
    return Dataset.from_dict({"id": [f"id{i}" for i in range(len(texts))], "problem": texts, **columns})


def slow_words(text: str) -> list[str]:
    """Words as the documentation describes them, a character at a time."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    signs = {"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{FRACTION SLASH}": "/"}
    words, word = [], ""
    for position, character in enumerate(text + " "):
        category = unicodedata.category(character)
        name = unicodedata.name(character, "")
        alone = category == "Sm" or (
            category in ("Lo", "Lm") and name.startswith(("CJK UNI", "CJK COM", "HIRA", "KATA"))
        )
        if character in "-*/":
            before = text[position - 1 : position] or " "
            after = text[position + 1 : position + 2] or " "
            alone = (before.isspace() and after.isspace()) or after == "(" or unicodedata.category(after) == "Nd"
        if category[0] in "LNM" and not alone:
            word += character
            continue
        words += [word] if word else []
        word = ""
        words += [signs.get(character, character)] if alone else []
    return words


def slow_overlap(first: str, second: str, n: int) -> bool:
    a, b = slow_words(first), slow_words(second)
    if len(a) < n or len(b) < n:
        return bool(a) and a == b
    return any(a[i : i + n] == b[j : j + n] for i in range(len(a) - n + 1) for j in range(len(b) - n + 1))


few_words = st.lists(st.sampled_from(["a", "A", "b.", "c", "+", "가", "(", "7"]), max_size=9).map(" ".join)
mixed_text = st.text(st.sampled_from("aB 3-*/(+.,\n$é漢ひカ가나²ﬁ×−_'"), max_size=30)


@given(text=st.one_of(mixed_text, st.text(st.characters(max_codepoint=0x2FF), max_size=30)))
@settings(max_examples=400)
def test_words_match_the_slow_reading(text):
    assert split_words(text) == slow_words(text)


@given(text=mixed_text)
def test_words_of_words_are_the_same_words(text):
    assert split_words(" ".join(split_words(text))) == split_words(text)


@given(train=st.lists(few_words, max_size=6), evaluation=st.lists(few_words, max_size=4), n=st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_dropped_rows_match_brute_force(train, evaluation, n):
    rows = Dataset.from_dict({"problem": train}) if train else Dataset.from_dict({"problem": ["x y z"]}).select([])
    kept, report = decontaminate(rows, as_set(evaluation or [""]), n=n)
    expected = [text for text in train if not any(slow_overlap(text, other, n) for other in evaluation)]
    assert kept["problem"][:] == expected
    assert report.kept == len(expected)
    for match in report.matches:
        theirs = " ".join(slow_words(evaluation[match.evaluation_row]))
        assert f" {match.ngram} " in f" {' '.join(slow_words(train[match.row]))} "
        assert f" {match.ngram} " in f" {theirs} "


@given(
    train=st.lists(few_words, min_size=1, max_size=6),
    evaluation=st.lists(few_words, min_size=2, max_size=4),
    n=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_properties(train, evaluation, n):
    rows = as_set(train)
    kept, _ = decontaminate(rows, as_set(evaluation), n=n)
    again, nothing = decontaminate(kept, as_set(evaluation), n=n)
    assert not nothing.matches
    assert again["id"][:] == kept["id"][:]
    one_by_one, _ = decontaminate(rows, [as_set(evaluation[:1]), as_set(evaluation[1:])], n=n)
    assert one_by_one["id"][:] == kept["id"][:], "several sets are their union"
    with_words = [text for text in train if split_words(text)]
    assert decontaminate(rows, as_set(train), n=n)[1].kept == len(train) - len(with_words), "a set overlaps with itself"
    assert rows["problem"][:] == train, "the argument is not changed"


def test_words():
    words = split_words("What's 3+4, or 3-4? A well-known 10-gram: ½ of “X”.")
    assert " ".join(words) == "what s 3 + 4 or 3 - 4 a well known 10 gram 1 / 2 of x"
    assert split_words("½ of it") == split_words("1/2 of it")
    assert split_words("(3 + 4) * (5 - 2)") != split_words("(3 + 4) / (5 - 2)")
    assert split_words("(3+4)*(5-2)") != split_words("(3+4)/(5-2)")
    assert split_words("3 − 4 × 5 ÷ 6") == split_words("3 - 4 * 5 / 6")
    assert split_words("사과를 3개, 배를 2개") == ["사과를", "3개", "배를", "2개"]
    assert split_words("漢字とカナ") == list("漢字とカナ")
    assert split_words("Ｆｕｌｌ ＷＩＤＴＨ straße STRASSE") == ["full", "width", "strasse", "strasse"]
    assert split_words("हिन्दी में") == ["हिन्दी", "में"]
    assert split_words("... ?! $") == []


def test_short_texts_count_only_when_the_whole_is_equal():
    evaluation = as_set(["What is 3 + 4?"])
    train = as_set(["what IS 3 + 4", "What is 3 - 4?", "Tell me: what is 3 + 4?", "What is 3 + 4 + 5?", "", "?!"])
    kept, report = decontaminate(train, evaluation)
    assert [match.row for match in report.matches] == [0]
    assert kept.num_rows == 5


def test_exactly_n_words_in_a_row():
    eleven = "one two three four five six seven eight nine ten eleven"
    ten, nine = eleven.rpartition(" ")[0], eleven.rsplit(" ", 2)[0]
    train = as_set([f"zero {ten} x", f"{nine} end", f"pre {eleven}"])
    _, report = decontaminate(train, as_set([eleven]), n=10)
    assert [match.row for match in report.matches] == [0, 2]
    assert report.matches[0].ngram == ten
    assert len(list(word_ngrams(eleven, 10))) == 2


def test_korean_and_chinese_problems():
    korean = "철수는 사과를 세 개 샀고 영희는 배를 다섯 개 샀습니다. 모두 몇 개입니까?"
    chinese = "小明有三个苹果，小红有五个梨，一共有几个水果？"
    train = as_set([korean.replace("모두", "합하여 모두"), chinese.replace("，", " ")[2:], "철수는 배를 샀다", "小明"])
    kept, _ = decontaminate(train, as_set([korean, chinese]))
    assert kept["id"][:] == ["id2", "id3"]


def test_the_report_says_what_matched_where():
    train = Dataset.from_dict({"id": ["a", "b"], "problem": ["x", "p q r s"], "hint": ["u v w", None]})
    first = Dataset.from_dict({"problem": ["zz"], "hint": [""]})
    second = Dataset.from_dict({"id": ["e0", "e1"], "problem": ["k", "k u v w"], "hint": ["", ""]})
    kept, report = decontaminate(train, [first, second], n=3, columns=("problem", "hint"), names=["one", "two"])
    assert kept["id"][:] == ["b"]
    [match] = report.matches
    assert (match.id, match.row, match.column, match.ngram) == ("a", 0, "hint", "u v w")
    assert (match.evaluation, match.evaluation_id, match.evaluation_row) == ("two", "e1", 1)
    assert 'row 0 (a) ~ two row 1 (e1): "u v w"' in str(report)
    assert "3-gram overlap with one (1 rows), two (2 rows): 1 of 2 training rows dropped, 1 kept" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["dropped"] == 1


def test_a_shared_instruction_is_pointed_out():
    wrapped = [
        f"please reason step by step and put your final answer last {i} {'abcdefghijklmnopqrst'[i]}" for i in range(20)
    ]
    _, report = decontaminate(as_set(wrapped), as_set(["please reason step by step and put your final answer last z"]))
    assert len(report.matches) == 20
    assert "and 10 more" in str(report)
    assert "alone is behind 20 of them" in str(report)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n": 0}, "n must be 1 or more words, got 0"),
        ({"evaluation": []}, "needs an evaluation set"),
        ({"columns": ()}, "needs an evaluation set and a column"),
        ({"columns": ("question",)}, "the training set has no column 'question'; it has id, problem"),
        ({"columns": ("num",)}, "expected text"),
        ({"names": ["a", "b"]}, "names must be different and one for each of 1"),
    ],
)
def test_mistakes_are_named(arguments, expected):
    numbers = as_set(["a"], num=[3]) if arguments.get("columns") == ("num",) else as_set(["a"])
    with pytest.raises(ValueError, match=expected):
        decontaminate(numbers, **{"evaluation": numbers, **arguments})


def test_one_column_may_be_given_as_text():
    assert decontaminate(as_set(["a"]), as_set(["a"]), columns="problem")[1].columns == ("problem",)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no published sets here; set R1LAB_SHARED_DATA")
def test_gsm8k_train_against_test():
    train, test = (load_problems(SHARED / f"gsm8k_{split}.jsonl") for split in ("train", "test"))
    start = time.perf_counter()
    kept, report = decontaminate(train, test)
    seconds = time.perf_counter() - start
    assert seconds < 20, f"{seconds:.1f} s; 0.5 s on two slow cores when this was written"
    assert (report.train_rows, kept.num_rows) == (7473, 7462)
    theirs: dict[str, list[str]] = {text: slow_words(text) for text in test["problem"]}
    for match in report.matches:
        assert match.ngram.split() == slow_words(match.ngram)
        assert f" {match.ngram} " in f" {' '.join(theirs[test[match.evaluation_row]['problem']])} "
    runs = {tuple(words[i : i + 10]) for words in theirs.values() for i in range(max(len(words) - 9, 0))}
    dropped = {match.row for match in report.matches}
    for row, text in enumerate(train["problem"]):
        words = slow_words(text)
        assert (row in dropped) == any(tuple(words[i : i + 10]) in runs for i in range(max(len(words) - 9, 0)))
