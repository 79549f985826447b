"""Chains of thought in the columns of published sets, from small files written here."""

import json
import logging

import pytest
from datasets import Dataset

from data import chains
from data.chains import load_chains, read_chains, split_response

COLUMNS = ["problem", "reasoning", "summary", "answer", "language", "source_id", "id", "has_gold"]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def think(reasoning, summary):
    return f"<think>\n{reasoning}\n</think>\n\n{summary}"


def dropped(report):
    return {one["name"]: one["dropped"] for one in report["filters"]}


def open_r1(problem, answer, generations, verified, complete=None, llama=None):
    return {
        "problem": problem, "solution": "By hand.", "answer": answer, "source": "olympiads", "uuid": f"u-{problem}",
        "is_reasoning_complete": complete or [True] * len(generations), "generations": generations,
        "correctness_math_verify": verified, "correctness_llama": llama,
        "messages": [{"role": "user", "content": problem}, {"role": "assistant", "content": generations[0]}],
    }  # fmt: skip


OPEN_R1 = [
    open_r1(
        "6*7?", "42", [think("a", r"\boxed{41}"), think("b", r"\boxed{42}"), think("c", "42")], [False, True, True]
    ),
    open_r1("1+1?", "2", [think("d", "2"), "<think> never ends"], [True, True], complete=[True, False]),
    open_r1("2+2?", "4", [think("e", "5")], [False]),
    open_r1("3+3?", "6", [think("f", "6"), think("g", "7")], [None, None], llama=[True, False]),
    open_r1("사과는 몇 개?", "3", ["<think></think> 3", think("세어 본다.", "3개")], [True, True]),
]


def test_open_r1_keeps_verified_generations(tmp_path):
    found, report = read_chains(write(tmp_path / "x.jsonl", OPEN_R1))
    assert found.column_names == COLUMNS
    assert [(row["problem"], row["reasoning"], row["summary"], row["answer"]) for row in found] == [
        ("6*7?", "b", r"\boxed{42}", "42"),
        ("1+1?", "d", "2", "2"),
        ("3+3?", "f", "6", "6"),
        ("사과는 몇 개?", "세어 본다.", "3개", "3"),
    ]
    assert found["language"] == ["en", "en", "en", "ko"]
    assert found["source_id"][0] == "u-6*7?"
    assert report["seen"] == 10
    assert dropped(report) == {
        "not verified as correct": 3,
        "beyond 1 of a problem": 1,
        "whose reasoning is not complete": 1,
        "with an empty reasoning": 1,
    }


def test_several_chains_of_a_problem(tmp_path):
    found = load_chains(write(tmp_path / "x.jsonl", OPEN_R1), per_problem=2)
    assert [row["reasoning"] for row in found if row["problem"] == "6*7?"] == ["b", "c"]
    assert len(set(found["id"])) == len(found) == 5


def test_open_r1_without_verdicts_takes_all(tmp_path):
    rows = [{"problem": "6*7?", "generations": [think("a", "42")]}]
    assert load_chains(Dataset.from_list(rows))["reasoning"] == ["a"]


def test_mixture_of_thoughts(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": "6*7?"},
                {"role": "assistant", "content": think("mul", r"\boxed{42}.")},
            ],
            "num_tokens": 5,
            "source": "x",
        },
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no thought"}], "source": "x"},
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": think("1", "2")},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": think("3", "4")},
            ],
            "source": "x",
        },
    ]
    found, report = read_chains(write(tmp_path / "x.jsonl", rows))
    assert found[0] | {"id": ""} == {
        "problem": "6*7?", "reasoning": "mul", "summary": r"\boxed{42}.", "answer": "42", "language": "en",
        "source_id": "0", "id": "", "has_gold": False,
    }  # fmt: skip
    assert len(found) == 1
    assert dropped(report) == {
        "without a closed reasoning": 1,
        "without a readable problem (or with several turns)": 1,
    }


def test_open_thoughts(tmp_path):
    response = (
        "<|begin_of_thought|>\n\nmul\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nIt is 42.\n\n<|end_of_solution|>"
    )
    turns = [{"from": "user", "value": "6*7?"}, {"from": "assistant", "value": response}]
    (row,) = load_chains(write(tmp_path / "x.jsonl", [{"system": "Think.", "conversations": turns}]))
    assert (row["problem"], row["reasoning"], row["summary"], row["answer"]) == ("6*7?", "mul", "It is 42.", "")
    # open-r1/OpenThoughts-114k-math has a human solution in messages, and a verdict.
    human = [{"role": "user", "content": "6*7?"}, {"role": "assistant", "content": "By hand."}]
    rows = [
        {"messages": human, "conversations": turns, "solution": "s", "correct": True},
        {
            "messages": human,
            "conversations": [{"from": "user", "value": "R"}, turns[1]],
            "solution": "s",
            "correct": False,
        },
    ]
    found, report = read_chains(Dataset.from_list(rows))
    assert found["reasoning"] == ["mul"]
    assert dropped(report) == {"not verified as correct": 1}


def test_reasoning_in_a_column_of_its_own(tmp_path):
    rows = [
        {
            "problem": "6*7?", "deepseek_reasoning": "mul", "deepseek_solution": r"\boxed{42}", "domain": "math",
            "ground_truth_solution": r"6 \cdot 7 = \boxed{42}", "source": "x",
        },
        {
            "problem": "1+1?", "deepseek_reasoning": "add", "deepseek_solution": "2", "domain": "math",
            "ground_truth_solution": None, "source": "x",
        },
    ]  # fmt: skip
    found = load_chains(write(tmp_path / "x.jsonl", rows))
    assert [(row["reasoning"], row["summary"], row["answer"]) for row in found] == [
        ("mul", r"\boxed{42}", "42"),
        ("add", "2", ""),
    ]
    rows = [{"question": "6*7?", "reasoning": think("mul", "So 42."), "answer": "42", "id": 7}]
    (row,) = load_chains(Dataset.from_list(rows), language="de")
    assert (row["reasoning"], row["answer"], row["source_id"], row["language"]) == ("mul", "42", "7", "de")


def test_our_own_chains_come_back_as_they_are(tmp_path):
    found = load_chains(write(tmp_path / "x.jsonl", OPEN_R1), per_problem=2)
    found.save_to_disk(str(tmp_path / "dataset"))
    assert list(load_chains(tmp_path / "dataset")) == list(found)


def test_limit_and_log(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = load_chains(write(tmp_path / "x.jsonl", OPEN_R1), limit=2)
    assert len(found) == 2
    assert "kept 2 of" in caplog.text
    assert "1 not verified as correct" in caplog.text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("a</think>b", ("a", "b")),
        ("<think>a</think><answer>b</answer>", ("a", "b")),
        ("<think>a </think> b </think> c", ("a </think> b", "c")),
        ("<think>a", None),
        ("a", None),
    ],
)
def test_split_response(text, parts):
    assert split_response(text) == parts


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"has the columns text, which .* Understood: Open-R1"):
        load_chains(Dataset.from_list([{"text": "a"}]))
    with pytest.raises(ValueError, match=r"no chain of thought left of 1\. 1 not verified as correct"):
        load_chains(Dataset.from_list([OPEN_R1[2]]))
    with pytest.raises(ValueError, match="per_problem must be 1 or more"):
        load_chains(Dataset.from_list(OPEN_R1), per_problem=0)


def test_doctests():
    import doctest

    assert doctest.testmod(chains).failed == 0
