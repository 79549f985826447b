"""General requests: splits by family and content, balanced shares, pairs and labels that differ in what they claim."""

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import List, Value
from tokenizers import Tokenizer

from data import general
from data.corpus import safety
from data.corpus.instructions import INSTRUCTION_KINDS, Check, passes
from data.corpus.safety import FAMILIES, draw_request, help_check
from data.corpus.vocabulary import OFF_TOPIC, PEOPLE, RUDE_REPLIES
from data.dialogues import DIALOGUES
from data.general import (
    FAMILIES_OF,
    HELD_OUT,
    KINDS,
    SPLITS,
    draw_general,
    families_of,
    make_general_prompts,
    make_general_sft,
    make_preference_pairs,
    make_safety_labels,
    split_of,
)

ROOT = Path(__file__).resolve().parents[2]
MAKERS = (make_general_prompts, make_general_sft, make_preference_pairs, make_safety_labels)
TURNS = List({"role": Value("string"), "content": Value("string")})


@pytest.fixture(scope="module")
def prompts():
    return {split: make_general_prompts(split, 1200) for split in SPLITS}


@pytest.fixture(scope="module")
def pairs():
    return {split: list(make_preference_pairs(split, 1200)) for split in ("train", "test")}


@pytest.fixture(scope="module")
def labels():
    return list(make_safety_labels("train", 1200))


def request(row) -> str:
    return row["problem"] if "problem" in row else row["prompt"][0]["content"]


def asked(row) -> str:
    """What is asked: of a dialogue about something said before, the request that it was said to."""
    about = row["family"] in ("dialogue_again", "dialogue_name")
    return row["history"][0]["content"] if about else row["problem"]


def said(turns) -> str:
    (turn,) = turns
    assert turn["role"] == "assistant"
    return turn["content"].removeprefix("<answer>").removesuffix("</answer>")


def holds(text, table) -> bool:
    """Whether one of the corpus's sentences stands in a text."""
    return any(sentence in text for row in table for sentence in row)


def best_threshold(lengths_and_classes) -> float:
    """How often the best rule "longer than x" or "shorter than x" tells the two classes apart."""
    size = len(lengths_and_classes)
    marks = sorted({length for length, _ in lengths_and_classes})
    right = [sum((length > mark) == good for length, good in lengths_and_classes) / size for mark in marks]
    return max(*right, *(1 - share for share in right))


# --- the tables -------------------------------------------------------------------------------------------------------


def test_columns():
    text, flag = Value("string"), Value("bool")
    assert dict(make_general_prompts("train", 12).features) == {
        "problem": text, "history": TURNS, "kind": text, "family": text, "language": text, "check": text,
        "harmful": flag, "reference": text, "id": text,
    }  # fmt: skip
    assert dict(make_general_sft("train", 12).features) == {
        "prompt": TURNS, "completion": TURNS, "kind": text, "language": text, "task": text, "problem_id": text,
        "source": text, "model": text, "seed": Value("int64"), "kept_because": text,
    }  # fmt: skip
    assert dict(make_preference_pairs("train", 12).features) == {
        "prompt": TURNS, "chosen": TURNS, "rejected": TURNS, "differs_in": text, "family": text, "language": text,
        "id": text,
    }  # fmt: skip
    assert dict(make_safety_labels("train", 12).features) == {
        "prompt": TURNS, "response": text, "safe": flag, "family": text, "language": text, "id": text,
    }  # fmt: skip


def test_rows_depend_on_the_seed_alone():
    code = """
import hashlib
from data import general
for name in ("make_general_prompts", "make_general_sft", "make_preference_pairs", "make_safety_labels"):
    rows = list(getattr(general, name)("train", 60, seed=3))
    print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    digests = [hashlib.sha256(repr(list(make("train", 60, seed=3))).encode()).hexdigest() for make in MAKERS]
    assert other.stdout.split() == digests, other.stderr
    assert all(list(make("train", 60, seed=3)) != list(make("train", 60, seed=4)) for make in MAKERS)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [599, 600])
def test_requests_differ_and_languages_have_equal_shares(make, size):
    rows = list(make("test", size))
    assert len({request(row) for row in rows}) == len(rows) == size
    shares = Counter(row["language"] for row in rows)
    assert abs(shares["en"] - shares["ko"]) <= 1
    for row in rows:
        assert any("가" <= letter <= "힣" for letter in request(row)) == (row["language"] == "ko")


def test_kinds_and_families_have_equal_shares(prompts):
    assert Counter(prompts["test"]["kind"]) == dict.fromkeys(KINDS, 400)
    for kind in KINDS:
        shares = Counter(row["family"] for row in prompts["test"] if row["kind"] == kind)
        assert set(shares) == set(HELD_OUT[kind])
        assert max(shares.values()) - min(shares.values()) <= 2


def test_rows_are_shuffled(prompts):
    kinds = prompts["test"]["kind"]
    neighbours = sum(one == other for one, other in itertools.pairwise(kinds))
    assert 0.25 < neighbours / len(kinds) < 0.42  # a third by chance


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "pretrain"}, "unknown split 'pretrain'"),
        ({"size": 0}, "got size 0"),
        ({"languages": ["fr"]}, "unknown language 'fr'"),
        ({"languages": []}, "no language"),
        ({"languages": "en"}, "give a list"),
        ({"families": ["arson"]}, "unknown family 'arson'"),
        ({"families": ["poison"]}, "'poison' is held out for the test split"),
        ({"families": ["introduction"], "split": "validation"}, "no more than . different requests"),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_mistakes_are_named(make, arguments, says):
    with pytest.raises(ValueError, match=says):
        make(**{"split": "train", "size": 40, **arguments})


def test_more_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown kind 'chat'"):
        make_general_prompts("train", 10, kinds=["chat"])
    with pytest.raises(ValueError, match="none of the families"):
        make_general_prompts("train", 10, kinds=["harmful"], families=["list"])
    with pytest.raises(ValueError, match="unknown difference 'length'"):
        make_preference_pairs("train", 10, differs_in=["length"])
    with pytest.raises(ValueError, match=r"has \{response\} where"):
        make_general_sft("train", 10, template="<answer>")


# --- splits -----------------------------------------------------------------------------------------------------------


def test_held_out_families_are_never_trained_on(prompts):
    assert len(HELD_OUT["harmful"]) >= len(FAMILIES) / 4
    assert HELD_OUT["harmful"] == HELD_OUT["benign"]
    for split in ("train", "validation"):
        assert not {(row["kind"], row["family"]) for row in prompts[split]} & {
            (kind, family) for kind in KINDS for family in HELD_OUT[kind]
        }
        for make in MAKERS[1:]:
            families = {row.get("family") or row["task"] for row in make(split, 120)}
            assert not families & {*HELD_OUT["harmful"], *HELD_OUT["instruction"]}


def test_every_rule_of_a_held_out_instruction_has_a_trained_sibling(prompts):
    rules = {split: {Check.from_json(text).rule for text in prompts[split]["check"] if text} for split in SPLITS}
    assert rules["test"] == {"items", "exact", "contains", "covers"}
    assert rules["test"] <= rules["train"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_is_in_two_splits(kind):
    """Also where test asks for the families of train."""
    families = families_of("train", kind)
    sizes = {"train": 2000, "validation": 150, "test": 150}
    if kind == "instruction":  # the two that have few wordings fill no share of their own
        families = [one for one in families if one != "introduction"]
    texts = {
        split: {asked(row) for row in make_general_prompts(split, size, seed=seed, kinds=[kind], families=families)}
        for seed, (split, size) in enumerate(sizes.items())
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]


def test_another_wording_or_language_of_a_question_is_in_the_same_split():
    places: dict[tuple, set] = {}
    rng = random.Random(0)
    for _ in range(3000):
        one = draw_general(rng, "harmful", "theft", rng.choice(["en", "ko"]))
        match = re.search(r"steal (Tom|Lucy|Mia|Ben)'s (\w+)", one.text) or re.search(
            r"(톰|루시|미아|벤)의 (\S+?)[을를] 훔치", one.text
        )
        if match:
            who = {"톰": "Tom", "루시": "Lucy", "미아": "Mia", "벤": "Ben"}.get(match[1], match[1])
            thing = next((word.en for word in general.safety.BELONGINGS if match[2] in (word.en, word.ko)), match[2])
            places.setdefault((who, thing), set()).add(split_of(one))
    assert len(places) > 20
    assert all(len(splits) == 1 for splits in places.values())
    sorts: dict[str, set] = {}
    for _ in range(4000):
        one = draw_general(rng, "instruction", "true_or_false", "en")
        claim = re.split(r"[?:.] ", one.text, maxsplit=1)[1]
        sorts.setdefault(claim, set()).add(split_of(one))
    assert all(len(splits) == 1 for splits in sorts.values())


def test_shares_of_the_splits():
    rng = random.Random(1)
    found = Counter(split_of(draw_general(rng, "instruction", "sort_words", "en")) for _ in range(3000))
    assert abs(found["train"] / 3000 - 0.8) < 0.03
    assert abs(found["test"] / 3000 - 0.1) < 0.03


def test_there_are_enough_test_prompts():
    assert len(make_general_prompts("test", 4000)) == 4000


def test_families_are_all_there():
    assert set(FAMILIES_OF["instruction"]) == set(INSTRUCTION_KINDS) | set(DIALOGUES)
    for kind in KINDS:
        assert set(families_of("train", kind)) | set(HELD_OUT[kind]) == set(FAMILIES_OF[kind])


def test_dialogues_are_about_what_was_said_before():
    rows = [row for row in make_general_sft("train", 900) if row["task"] in DIALOGUES]
    assert {row["task"] for row in rows} == set(DIALOGUES)
    for row in rows:
        first, answered, last = row["prompt"]
        assert [turn["role"] for turn in row["prompt"]] == ["user", "assistant", "user"]
        assert "<answer>" not in answered["content"]  # as R1 leaves the reasoning of earlier turns out
        good = said(row["completion"])
        if row["task"] == "dialogue_again":
            assert good == answered["content"]
        elif row["task"] == "dialogue_name":
            (name,) = [one for pair in PEOPLE for one in pair if re.search(rf"(?<!\w){one}", good)]
            assert name in first["content"]
            assert name not in last["content"]
        else:
            assert first["content"] != last["content"]


def test_no_dialogue_is_about_a_held_out_instruction():
    rng = random.Random(0)
    found = {draw_general(rng, "instruction", family, "en").about for family in DIALOGUES for _ in range(200)}
    assert found == set(INSTRUCTION_KINDS) - set(HELD_OUT["instruction"])


def test_a_dialogue_is_in_the_split_of_its_question():
    """So that a claim judged in the train split is not asked about again in the test split, behind something else."""
    rng, places = random.Random(3), {}
    for family in ("true_or_false", "dialogue_next"):
        for _ in range(4000):
            one = draw_general(rng, "instruction", family, "en")
            if (one.about or one.family) == "true_or_false":
                places.setdefault(one.content, {}).setdefault(family, set()).add(split_of(one))
    both = [splits for splits in places.values() if len(splits) == 2]
    assert len(both) > 30
    assert all(
        splits["true_or_false"] == splits["dialogue_next"] and len(splits["dialogue_next"]) == 1 for splits in both
    )


# --- answers ----------------------------------------------------------------------------------------------------------


def test_references_pass_their_rule(prompts):
    for rows in prompts.values():
        for row in rows:
            assert row["harmful"] == (row["kind"] == "harmful") == (row["check"] == "")
            if row["harmful"]:
                assert safety.refuses(row["reference"])
            else:
                assert passes(Check.from_json(row["check"]), row["reference"])


def test_sft_rows_answer_well_in_answer_tags():
    rows = make_general_sft("train", 300, seed=5)
    checks = {row["id"]: row for row in make_general_prompts("train", 300, seed=5)}
    assert set(rows["kind"]) == set(rows["source"]) == {"general"}
    assert set(rows["seed"]) == {5}
    assert set(rows["model"]) == {""}
    assert not set(rows["problem_id"]) <= set(checks)  # another draw than the prompts of the same seed
    for row in rows:
        content = row["completion"][0]["content"]
        assert content.startswith("<answer>")
        assert content.endswith("</answer>")
        assert row["task"] in FAMILIES_OF["instruction"] or row["task"] in FAMILIES
        if row["kept_because"].startswith("refuses"):
            assert safety.refuses(content)


@pytest.mark.parametrize("split", ["train", "test"])
def test_helpfulness_pairs_differ_in_helpfulness_alone(pairs, split):
    seen = Counter()
    for row in pairs[split]:
        if row["differs_in"] != "helpfulness":
            continue
        chosen, rejected = said(row["chosen"]), said(row["rejected"])
        assert row["chosen"][0]["content"] == chosen  # the final summary, no tags
        for text in (chosen, rejected):
            assert not holds(text, RUDE_REPLIES)
            assert not holds(text, safety.AGREEMENTS)
        assert not safety.refuses(chosen)
        seen["refusal"] += safety.refuses(rejected)
        seen["off topic"] += holds(rejected, OFF_TOPIC)
        seen["other"] += not safety.refuses(rejected) and not holds(rejected, OFF_TOPIC)
    assert min(seen.values()) > 0.04 * sum(seen.values()), seen
    assert seen["refusal"] > 0.1 * sum(seen.values())


def test_chosen_passes_and_rejected_fails_by_the_rule_of_the_request():
    """By the generator's rule, found again by the request's text."""
    checks = {}
    for split in ("train", "test"):
        rows = make_preference_pairs(split, 300, differs_in=["helpfulness"])
        rng = random.Random(11)
        wanted = {
            request(row): row for row in rows if row["family"] in ("polite", "translate", "theft", "scam", "fact")
        }
        for _ in range(6000):
            family = rng.choice(["polite", "translate", "theft", "scam", "fact"])
            kind = "benign" if family in FAMILIES else "instruction"
            one = draw_general(rng, kind, family, rng.choice(["en", "ko"]))
            if one.text in wanted and one.check:
                row = wanted.pop(one.text)
                checks[one.text] = (one.check, said(row["chosen"]), said(row["rejected"]))
    assert len(checks) > 30
    for check, chosen, rejected in checks.values():
        assert passes(check, chosen)
        assert not passes(check, rejected)


@pytest.mark.parametrize("split", ["train", "test"])
def test_harmlessness_pairs_refuse_and_agree(pairs, split):
    seen = Counter()
    for row in pairs[split]:
        if row["differs_in"] != "harmlessness":
            continue
        chosen, rejected = said(row["chosen"]), said(row["rejected"])
        assert row["chosen"][0]["content"] == f"<answer>{chosen}</answer>"  # the whole response
        assert safety.refuses(chosen)
        assert not holds(chosen, safety.AGREEMENTS)
        assert not holds(chosen, RUDE_REPLIES)
        agrees, rude = holds(rejected, safety.AGREEMENTS), holds(rejected, RUDE_REPLIES)
        assert agrees or rude
        seen["polite agreement"] += agrees and holds(rejected, safety.HELP_OPENERS)
        seen["agreement behind a refusal"] += agrees and safety.refuses(rejected)
        seen["rude refusal"] += rude and safety.refuses(rejected)
        seen["plain"] += agrees and not safety.refuses(rejected)
    assert min(seen.values()) > 0.05 * sum(seen.values()), seen


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("difference", ["helpfulness", "harmlessness"])
def test_length_does_not_tell_the_chosen_answer(pairs, split, language, difference):
    rows = [row for row in pairs[split] if (row["language"], row["differs_in"]) == (language, difference)]
    assert len(rows) == 300
    lengths = [(len(said(row["chosen"])), len(said(row["rejected"]))) for row in rows]
    longer = sum(one > other for one, other in lengths) / len(rows)
    shorter = sum(one < other for one, other in lengths) / len(rows)
    assert abs(longer - shorter) < 0.05
    words = [(len(said(row["chosen"]).split()), len(said(row["rejected"]).split())) for row in rows]
    assert abs(sum((one > other) - (one < other) for one, other in words)) < 0.12 * len(rows)
    assert best_threshold([(one - other, True) for one, other in lengths] + [(o - c, False) for c, o in lengths]) < 0.56


@pytest.mark.parametrize("language", ["en", "ko"])
def test_length_may_be_measured_otherwise(language):
    """By the tokens of the model that will read the pairs: characters that are even need not be even in these."""
    tokenizer = Tokenizer.from_file(str(ROOT / "data/base/tokenizer.json"))

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    for split in ("train", "test"):
        pairs = make_preference_pairs(split, 200, languages=[language], length=tokens)
        sizes = [(tokens(said(row["chosen"])), tokens(said(row["rejected"]))) for row in pairs]
        assert abs(sum((one > other) - (one < other) for one, other in sizes)) <= 0.05 * len(sizes)
    labels = make_safety_labels("train", 300, languages=[language], length=tokens)
    assert best_threshold([(tokens(row["response"]), row["safe"]) for row in labels]) < 0.56


def test_neither_length_nor_kind_tells_a_safe_response(labels):
    for language in ("en", "ko"):
        rows = [row for row in labels if row["language"] == language]
        assert best_threshold([(len(row["response"]), row["safe"]) for row in rows]) < 0.56
        assert abs(sum(row["safe"] for row in rows) / len(rows) - 0.5) < 0.03
    for family in FAMILIES[:5]:
        rows = [row for row in labels if row["family"] == family]
        if rows:
            assert 0.4 < sum(row["safe"] for row in rows) / len(rows) < 0.6


def test_safety_labels_follow_what_is_said(labels):
    asked = {}
    rng = random.Random(2)
    for _ in range(15_000):
        one = draw_request(rng)
        asked[one.request] = one.harmful
    known = Counter()
    for row in labels:
        text = row["response"]
        assert text.startswith("<answer>")
        if row["safe"]:
            assert not holds(text, RUDE_REPLIES)
            assert not holds(text, safety.AGREEMENTS)
        else:
            assert holds(text, RUDE_REPLIES) or holds(text, safety.AGREEMENTS)
        if asked.get(request(row)) is True and row["safe"]:
            assert safety.refuses(text)
            known["harmful"] += 1
        if asked.get(request(row)) is False and row["safe"]:
            known["benign"] += 1
            known["over-refusal"] += safety.refuses(text)
    assert min(known.values()) > 4, known


# --- the rule for benign requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_help_passes_its_rule_and_no_other_help_does(language):
    """Every help against every request of all families."""
    side = ("en", "ko").index(language)
    rng = random.Random(3)
    helps = {text[side] for name in FAMILIES for _, text in safety.family_of(name).benign}
    # Two helps for meeting somebody say nearly the same: the one who meets the other's is helped as well.
    alike = {
        text[side]
        for family, act in (
            ("bullying", "make friends at the {place.en}"),
            ("privacy", "write a letter to {victim.en}"),
        )
        for asked, text in safety.family_of(family).benign
        if asked.en == act
    }
    assert len(alike) == 2
    for family in FAMILIES:
        for _ in range(60):
            one = draw_request(rng, family, language, harmful=False)
            check = help_check(one)
            assert passes(check, one.good)
            for text in helps - {one.help}:
                if not {text, one.help} <= alike:
                    assert not passes(check, text), (one.request, text)
            assert not passes(check, " ".join(text[side] for _, text in safety.family_of(family).benign))
            assert not passes(check, one.request)


def test_a_harmful_request_has_no_help():
    with pytest.raises(ValueError, match="has no help"):
        help_check(draw_request(random.Random(0), "theft", "en", harmful=True))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"rule": "nice", "expected": []}', '{"rule": "exact"}', "{'rule': 'exact'}"]
)
def test_a_text_that_is_no_check_is_an_error(text):
    with pytest.raises(ValueError, match=r"check|rule"):
        Check.from_json(text)


def test_checks_survive_json():
    rng = random.Random(4)
    for kind in ("instruction", "benign"):
        for family in FAMILIES_OF[kind]:
            check = draw_general(rng, kind, family, "ko").check
            assert Check.from_json(check.to_json()) == check


def test_doctests():
    import doctest

    assert doctest.testmod(general).failed == 0
