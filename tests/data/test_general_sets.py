"""Requests and answers of published sets, in the columns that data.general's own rows have."""

import logging

import pytest
from datasets import Dataset

from data.general import make_general_prompts, make_general_sft
from data.general_sets import load_answers, load_requests


def turns(*texts, roles=("user", "assistant"), keys=("role", "content")):
    return [{keys[0]: roles[n % 2], keys[1]: text} for n, text in enumerate(texts)]


def requests(rows, kind="instruction", **settings):
    return load_requests(Dataset.from_list(rows), kind, **settings)


def answers(rows, **settings):
    return load_answers(Dataset.from_list(rows), **settings)


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " Say hello. ", "chosen": turns("Say hello.", "Hello!")},  # UltraFeedback binarized
        {"prompt": "Say hello.", "response_0": "a", "is_response_0_safe": True},  # PKU-SafeRLHF
        {"instruction": "Say hello.", "output": "Hello!"},  # Alpaca
        {"messages": turns("Say hello.", "Hello!")},  # Tulu 3
        {"conversations": turns("Say hello.", "Hello!", roles=("human", "gpt"), keys=("from", "value"))},  # ShareGPT
        {"prompt": turns("Say hello.")},  # TRL
    ],
)
def test_a_request_is_found_by_its_column(row):
    (found,) = requests([row], "harmful")
    assert {key: found[key] for key in ("problem", "kind", "language")} == {
        "problem": "Say hello.", "kind": "harmful", "language": "en",
    }  # fmt: skip
    assert set(found) < set(make_general_prompts("train", 1).column_names)
    assert "answer" not in found  # else the accuracy reward would judge it


def test_requests_come_once_in_their_order_with_what_was_dropped(caplog):
    rows = [{"prompt": text} for text in ("one", "two", " one", "", "안녕하세요, 반갑습니다")]
    with caplog.at_level(logging.WARNING):
        found = requests(rows)
    assert found["problem"][:] == ["one", "two", "안녕하세요, 반갑습니다"]
    assert found["language"][:] == ["en", "en", "ko"]
    assert "kept 3 of 5; dropped 1 seen before" in caplog.text
    assert "1 without a request, or with several" in caplog.text
    assert requests(rows, limit=1)["problem"][:] == ["one"]
    assert len(set(found["id"])) == 3
    assert found["id"][0] == requests(rows[2:3])["id"][0]


def test_a_conversation_that_asks_twice_has_no_one_request():
    with pytest.raises(ValueError, match=r"no request left of 1 rows\. 1 without a request, or with several"):
        requests([{"messages": turns("a", "b", "c", "d")}])
    system = [{"role": "system", "content": "Be brief."}, *turns("What?", "That.")]
    assert requests([{"messages": system}])["problem"][:] == ["What?"]


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([{"prompt": "a"}], "rude", "unknown kind 'rude' of requests: expected one of instruction, harmful, benign"),
        ([{"text": "a"}], "harmful", "has the columns text, none of which holds its requests: expected one of prompt"),
    ],
)
def test_what_holds_no_requests_says_so(rows, kind, message):
    with pytest.raises(ValueError, match=message):
        requests(rows, kind)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns("Say hello.", "Hello!")},
        {"conversations": turns("Say hello.", "Hello!", roles=("human", "gpt"), keys=("from", "value"))},
        {"instruction": "Say hello.", "output": "Hello!"},
        {"prompt": turns("Say hello."), "completion": [{"role": "assistant", "content": "Hello!"}]},
    ],
)
def test_an_answer_becomes_an_sft_row(row):
    found = answers([row], seed=3)
    assert found.features == make_general_sft("train", 1).features
    assert found[0]["prompt"] == [{"role": "user", "content": "Say hello."}]
    assert found[0]["completion"] == [{"role": "assistant", "content": "<answer>Hello!</answer>"}]
    told = {key: found[0][key] for key in ("kind", "source", "language", "seed", "model")}
    assert told == {"kind": "general", "source": "general", "language": "en", "seed": 3, "model": "the given Dataset"}


def test_the_last_message_is_the_answer_and_the_others_its_prompt():
    (row,) = answers([{"messages": [{"role": "system", "content": "s"}, *turns("a", "b", "c", "d")]}])
    assert [turn["content"] for turn in row["prompt"]] == ["s", "a", "b", "c"]
    assert row["completion"][0]["content"] == "<answer>d</answer>"


def test_rows_are_chosen_by_a_column_and_drawn_by_the_seed():
    rows = [{"messages": turns(f"q{n}", f"a{n}"), "source": "abc"[n % 3]} for n in range(30)]
    found = answers(rows, where={"source": ["a", "c"]})
    assert set(found["task"]) == {"a", "c"}
    assert len(found) == 20
    drawn = [answers(rows, limit=5, seed=seed)["problem_id"][:] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


@pytest.mark.parametrize(
    ("rows", "where", "message"),
    [
        ([{"messages": turns("q", "a"), "source": "a"}], {"sourc": ["a"]}, "has no column 'sourc' to choose rows by"),
        ([{"messages": turns("q", "a"), "source": "a"}], {"source": ["b"]}, r"has source in \['b'\]; it has 'a'"),
        ([{"prompt": "q"}], None, "has the columns prompt, none of which holds its answers"),
        ([{"text": "q"}], None, "none of which holds its requests or conversations"),
        ([{"messages": turns("q")}], None, "no answer left of 1 rows. 1 without a request and its answer"),
        ([{"messages": turns("q", "<think>a</think>b")}], None, "1 with tags of their own"),
        ([{"messages": turns("q", "a", "b")}], None, "1 without a request and its answer"),
    ],
)
def test_what_holds_no_answers_says_so(rows, where, message):
    with pytest.raises(ValueError, match=message):
        answers(rows, where=where)
