"""Preference sets and safety labels in the columns of published ones, from small files written here."""

import csv
import json
import logging

import pytest
from datasets import Dataset

from data.general import make_preference_pairs, make_safety_labels
from data.preferences import load_preferences, load_safety_labels, read_preferences, read_safety_labels

COLUMNS = ["prompt", "chosen", "rejected", "differs_in", "family", "language", "id", "kept_because"]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def plain(pairs):
    """(last prompt turn, chosen, rejected, difference) of each pair."""
    return [
        (row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"], row["differs_in"])
        for row in pairs
    ]


def dropped(report):
    return {one["name"]: one["dropped"] for one in report["filters"]}


def binarized(prompt, chosen, rejected, high=9.0, low=2.0):
    """As in HuggingFaceH4/ultrafeedback_binarized."""
    return {
        "prompt": prompt,
        "prompt_id": "x",
        "chosen": [user(prompt), assistant(chosen)],
        "rejected": [user(prompt), assistant(rejected)],
        "messages": [user(prompt), assistant(chosen)],
        "score_chosen": high,
        "score_rejected": low,
    }


def test_ultrafeedback_binarized(tmp_path):
    rows = [
        binarized("What is 2+2?", "It is 4.", "It is 5."),
        binarized("사과가 뭐야?", "과일이에요.", "몰라요."),
        binarized("Say hi", "Hi!", " Hi! "),  # the same text
        binarized("Say ho", "Ho!", "No.", 7.0, 7.0),  # no preference
        binarized("Say hu", "Hu!", "No.", 3.0, 7.0),  # upside down
        binarized("Say ha", "Ha!", ""),
        binarized("What is 2+2?", "It is 4.", "It is 5."),  # again
    ]
    pairs, report = read_preferences(write(tmp_path / "pairs.jsonl", rows))
    assert pairs.column_names == COLUMNS
    assert plain(pairs) == [
        ("What is 2+2?", "It is 4.", "It is 5.", "helpfulness"),
        ("사과가 뭐야?", "과일이에요.", "몰라요.", "helpfulness"),
    ]
    assert pairs["language"] == ["en", "ko"]
    assert pairs[0]["prompt"] == [user("What is 2+2?")]
    assert pairs[0]["chosen"] == [assistant("It is 4.")]
    assert dropped(report) == {
        "with equal answers": 1,
        "without a preference": 1,
        "whose rejected answer has the better score": 1,
        "with an empty answer": 1,
        "seen before": 1,
    }
    assert (report["seen"], report["kept"]) == (7, 2)
    assert all(len(one["examples"]) == 1 for one in report["filters"])


def test_plain_texts_and_an_implicit_prompt(tmp_path):
    rows = [{"prompt": "Q?", "chosen": "good", "rejected": "bad"}]
    assert plain(load_preferences(write(tmp_path / "a.jsonl", rows))) == [("Q?", "good", "bad", "helpfulness")]
    turns = [user("a"), assistant("b"), user("Q?")]
    rows = [{"chosen": [*turns, assistant("good")], "rejected": [*turns, assistant("bad")]}]
    pairs = load_preferences(write(tmp_path / "b.jsonl", rows), differs_in="harmlessness")
    assert pairs[0]["prompt"] == turns
    assert plain(pairs) == [("Q?", "good", "bad", "harmlessness")]
    rows = [{"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]}]
    with pytest.raises(ValueError, match="different prompts"):
        load_preferences(Dataset.from_list(rows))


def completion(response, score, overall=None):
    return {"response": response, "model": "m", "fine-grained_score": score, "overall_score": overall or score}


def test_ultrafeedback_keeps_best_and_worst_that_are_more_than_one_apart(tmp_path):
    rows = [
        {
            "source": "s",
            "instruction": "Q1",
            "completions": [completion("b", 3.5), completion("a", 4.5), completion("d", 2.0), completion("c", 3.0)],
        },
        {"source": "s", "instruction": "Q2", "completions": [completion("a", 4.0), completion("b", 3.0)]},  # exactly 1
        {"source": "s", "instruction": "Q3", "completions": [completion("a", 4.1), completion("b", 3.0)]},
        # The overall score is known to be wrong at times: 10 for a text that was criticised as a 1.
        {"source": "s", "instruction": "Q4", "completions": [completion("a", 5.0, 5.0), completion("b", 1.0, 10.0)]},
        {"source": "s", "instruction": "Q5", "completions": [completion("a", 5.0)]},
        {"source": "s", "instruction": "Q6", "completions": [completion("a", 4.0), completion("b", 4.0)]},
    ]
    path = write(tmp_path / "raw.jsonl", rows)
    pairs, report = read_preferences(path)
    assert [row[:3] for row in plain(pairs)] == [("Q1", "a", "d"), ("Q3", "a", "b"), ("Q4", "a", "b")]
    assert dropped(report) == {
        "not more than 1 apart in score": 1,
        "with fewer than two scored answers": 1,
        "without a preference": 1,
    }
    assert len(load_preferences(path, min_gap=0.5)) == 4
    assert len(load_preferences(path, min_gap=3)) == 1


def test_ultrafeedback_ratings_stand_in_for_a_missing_score():
    def rated(response, *ratings):
        aspects = ("helpfulness", "honesty")
        return {
            "response": response,
            "annotations": {name: {"Rating": str(one)} for name, one in zip(aspects, ratings)},
        }

    rows = [{"instruction": "Q", "completions": [rated("bad", 1, "N/A"), rated("good", 4, 5)]}]
    assert plain(load_preferences(Dataset.from_list(rows))) == [("Q", "good", "bad", "helpfulness")]


def test_helpsteer2_groups_the_responses_to_a_prompt(tmp_path):
    def row(prompt, response, helpfulness):
        return {
            "prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": 4, "coherence": 4,
            "complexity": 1, "verbosity": 1,
        }  # fmt: skip

    turns = "Hello\n<extra_id_1>Assistant\nHi, what is it?\n<extra_id_1>User\nWrite a poem"
    rows = [row("Q1", "bad", 1), row("Q1", "good", 4), row("Q2", "a", 3), row("Q2", "b", 3), row(turns, "x", 0)]
    rows += [row(turns, "y", 2), row("Q3", "alone", 4)]
    pairs, report = read_preferences(write(tmp_path / "train.jsonl", rows))
    assert plain(pairs) == [("Q1", "good", "bad", "helpfulness"), ("Write a poem", "y", "x", "helpfulness")]
    assert pairs[1]["prompt"] == [user("Hello"), assistant("Hi, what is it?"), user("Write a poem")]
    assert dropped(report) == {"without a preference": 1, "with fewer than two scored answers": 1}
    assert report["seen"] == 4


def test_helpsteer2_preferences_of_one_split(tmp_path):
    rows = [
        {"split": split, "prompt": f"Q{number}", "response_1": "one", "response_2": "two", "preference_strength": by}
        for number, (split, by) in enumerate([("train", -2), ("train", 3), ("train", 0), ("val", 1)])
    ]
    path = write(tmp_path / "preference.jsonl", rows)
    pairs, report = read_preferences(path)
    assert [row[:3] for row in plain(pairs)] == [("Q0", "one", "two"), ("Q1", "two", "one")]
    assert dropped(report) == {"without a preference": 1, "of another split": 1}
    assert [row[0] for row in plain(load_preferences(path, split="validation"))] == ["Q3"]
    assert [row[0] for row in plain(load_preferences(path, min_gap=2))] == ["Q1"]


def test_helpsteer3(tmp_path):
    rows = [
        {"domain": "general", "language": "korean", "context": [user("a"), assistant("b"), user("Q")],
         "response1": "one", "response2": "two", "overall_preference": 2, "individual_preference": []},
        {"domain": "code", "language": "python", "context": [user("R")], "response1": "one", "response2": "two",
         "overall_preference": -1, "individual_preference": []},
    ]  # fmt: skip
    pairs = load_preferences(write(tmp_path / "x.jsonl", rows))
    assert [row[:3] for row in plain(pairs)] == [("Q", "two", "one"), ("R", "one", "two")]
    assert pairs["language"] == ["ko", "en"]
    assert [len(row["prompt"]) for row in pairs] == [3, 1]


def safe_rlhf(prompt, first, second, better, safer, safe=(True, False)):
    return {
        "prompt": prompt, "response_0": first, "response_1": second, "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1], "better_response_id": better, "safer_response_id": safer,
    }  # fmt: skip


SAFE_RLHF = [
    safe_rlhf("Q1", "I cannot", "Do it so", 1, 0),
    safe_rlhf("Q2", "Fine", "Fine too", 0, 1, (True, True)),
    safe_rlhf("Q3", "worse", "bad", 1, 1, (False, False)),
    safe_rlhf("Q4", "safe", "unsafe", 0, 1),  # the labels contradict each other
    safe_rlhf("Q5", "same", "same", 0, 0),
]


def test_pku_safe_rlhf_gives_pairs_of_both_kinds(tmp_path):
    path = write(tmp_path / "x.jsonl", SAFE_RLHF)
    pairs, report = read_preferences(path)
    assert plain(pairs) == [
        ("Q1", "Do it so", "I cannot", "helpfulness"),
        ("Q1", "I cannot", "Do it so", "harmlessness"),
        ("Q2", "Fine", "Fine too", "helpfulness"),
        ("Q3", "bad", "worse", "helpfulness"),
        ("Q4", "safe", "unsafe", "helpfulness"),
    ]
    assert report["seen"] == 10
    assert dropped(report) == {
        "whose answers are both safe or both unsafe": 2,
        "whose safer answer is labelled unsafe": 1,
        "with equal answers": 2,
    }
    harmless, report = read_preferences(path, differs_in="harmlessness")
    assert plain(harmless) == [("Q1", "I cannot", "Do it so", "harmlessness")]
    assert (report["seen"], report["kept"]) == (5, 1)


def test_pku_safe_rlhf_from_csv(tmp_path):
    """Numbers and truth values come as texts."""
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(SAFE_RLHF[0]))
        writer.writeheader()
        writer.writerows(SAFE_RLHF)
    assert plain(load_preferences(path)) == plain(load_preferences(Dataset.from_list(SAFE_RLHF)))
    assert load_safety_labels(path)["safe"] == load_safety_labels(Dataset.from_list(SAFE_RLHF))["safe"]


def test_our_own_pairs_come_back_as_they_are(tmp_path):
    ours = make_preference_pairs("train", 60)
    back = load_preferences(write(tmp_path / "ours.jsonl", list(ours)))
    for column in ("prompt", "chosen", "rejected", "differs_in", "family"):
        assert list(back[column]) == list(ours[column])
    ours.save_to_disk(str(tmp_path / "dataset"))
    harmless = load_preferences(tmp_path / "dataset", differs_in="harmlessness")
    assert set(harmless["differs_in"]) == {"harmlessness"}
    assert len(harmless) == 30
    assert harmless.remove_columns("kept_because").features == ours.features


def test_balanced_lengths():
    rows = [{"prompt": f"Q{n}", "chosen": "x" * (10 + n % 3), "rejected": "y" * 10} for n in range(30)]  # never shorter
    rows += [{"prompt": f"R{n}", "chosen": "z" * 8, "rejected": "y" * 10} for n in range(4)]
    pairs, report = read_preferences(Dataset.from_list(rows), balance_length=True)
    differences = [len(row[1]) - len(row[2]) for row in plain(pairs)]
    assert sum(one == 0 for one in differences) == 10
    assert sum(one == 2 for one in differences) == sum(one == -2 for one in differences) == 4
    assert sum(one == 1 for one in differences) == 0  # no pair is shorter by one
    assert dropped(report) == {"for equal lengths": 16}
    assert len(load_preferences(Dataset.from_list(rows), balance_length=True, limit=5)) == 5


def test_limit_and_log(tmp_path, caplog):
    rows = [binarized(f"Q{number}", "good", "good" if number == 1 else "bad") for number in range(10)]
    with caplog.at_level(logging.WARNING):
        pairs = load_preferences(write(tmp_path / "x.jsonl", rows), limit=3)
    assert [row[0] for row in plain(pairs)] == ["Q0", "Q2", "Q3"]
    assert "kept 3 of 4; dropped 1 with equal answers (such as: good)" in caplog.text


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [binarized("Q", "same", "same"), binarized("R", "a", "b", 1.0, 1.0)],
            "in all 2 pairs the two answers are equal",
        ),
        ([{"prompt": "Q", "response_0": "a", "response_1": "a", "better_response_id": 0}], "in all 1 pairs"),
        ([binarized("Q", "", "x")], "no pair left of 1"),
        ([{"prompt": "Q", "text": "A"}], "has the columns prompt, text, which .* Understood: chosen and rejected"),
        ([{"prompt": "Q", "response": "A", "is_safe": True}], "read it with load_safety_labels"),
    ],
)
def test_sets_that_teach_nothing_are_errors(rows, says):
    with pytest.raises(ValueError, match=says):
        load_preferences(Dataset.from_list(rows))


def test_mistakes_are_named(tmp_path):
    rows = Dataset.from_list([{"prompt": "Q", "response": "a", "helpfulness": 1}])
    with pytest.raises(ValueError, match="no pairs of harmlessness"):
        load_preferences(rows, differs_in="harmlessness")
    with pytest.raises(ValueError, match="unknown difference 'safety'"):
        load_preferences(rows, differs_in="safety")
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        load_preferences(rows, limit=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_preferences(tmp_path / "nowhere.jsonl")


def test_every_pair_says_why_it_was_kept(tmp_path):
    """In the terms of its own set, so that a reader can look it up there."""
    graded = [{"prompt": "Q", "response": name, "helpfulness": score} for name, score in (("a", 4), ("b", 1))]
    strength = {"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": -2}
    raw = {"instruction": "Q", "completions": [completion("a", 4.5), completion("b", 2.0)]}
    for rows, expected in (
        ([binarized("Q", "a", "b", 4.0, 2.0)], ["scores 4 > 2"]),
        ([raw], ["scores 4.5 > 2"]),
        (graded, ["scores 4 > 1"]),
        ([strength], ["preference_strength -2"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}], ["chosen in its set"]),
        (SAFE_RLHF[:1], ["better_response_id 1, unsafe > safe", "safer_response_id 0, safe > unsafe"]),
    ):
        assert load_preferences(Dataset.from_list(rows))["kept_because"][:] == expected


@pytest.mark.parametrize(
    "rows",
    [
        [binarized("Q", "good", "bad")],  # scores are of helpfulness
        [{"instruction": "Q", "completions": [completion("a", 4.5), completion("b", 2.0)]}],
        [{"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": 1}],
        [{"prompt": "Q", "response_0": "a", "response_1": "b", "better_response_id": 0}],
        [{"prompt": "Q", "chosen": "a", "rejected": "b", "differs_in": None}],
    ],
)
def test_pairs_that_say_nothing_of_harm_never_become_pairs_of_harmlessness(rows):
    with pytest.raises(ValueError, match=r"no pairs of harmlessness in it .*; take a set that says what its pairs"):
        load_preferences(Dataset.from_list(rows), differs_in="harmlessness")


# --- safety labels ----------------------------------------------------------------------------------------------------


def test_safety_labels_of_both_responses(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        labels = load_safety_labels(write(tmp_path / "x.jsonl", SAFE_RLHF))
    assert labels.column_names == ["prompt", "response", "safe", "family", "language", "id"]
    found = [(row["prompt"][0]["content"], row["response"], row["safe"]) for row in labels]
    assert found[:4] == [
        ("Q1", "I cannot", True),
        ("Q1", "Do it so", False),
        ("Q2", "Fine", True),
        ("Q2", "Fine too", True),
    ]
    assert len(found) == 9  # "same" once, with its first label
    assert "1 seen before with another label" in caplog.text
    assert len(load_safety_labels(Dataset.from_list(SAFE_RLHF), limit=3)) == 3
    again, report = read_safety_labels(Dataset.from_list(SAFE_RLHF))
    assert again["response"][:] == labels["response"][:]
    assert (report["seen"], report["kept"]) == (10, 9)
    assert report["filters"] == [{"name": "seen before with another label", "dropped": 1, "examples": ["same"]}]


def test_safety_labels_of_single_responses():
    rows = [{"prompt": "Q", "response": "A", "category": {"x": True}, "is_safe": False}]
    labels = load_safety_labels(Dataset.from_list(rows))
    assert (labels[0]["safe"], labels[0]["family"]) == (False, "BeaverTails")
    ours = make_safety_labels("train", 30)
    back = load_safety_labels(ours)
    assert list(back["response"]) == list(ours["response"])
    assert back["safe"] == ours["safe"]
    assert back.features == ours.features


def test_labels_that_are_missing_are_errors():
    with pytest.raises(ValueError, match="none of its 1 responses has a safety label"):
        load_safety_labels(Dataset.from_list([{"prompt": "Q", "response": "A", "is_safe": None}]))
    with pytest.raises(ValueError, match="read it with load_preferences"):
        load_safety_labels(Dataset.from_list([{"prompt": "Q", "chosen": "A", "rejected": "B"}]))


def test_doctests():
    import doctest

    from data import drops, preferences

    assert doctest.testmod(preferences).failed == doctest.testmod(drops).failed == 0
