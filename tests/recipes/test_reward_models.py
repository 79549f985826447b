"""Reward models on a rule that two random layers can learn: what says "yes" is good, whatever else it says."""

import doctest
import itertools
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from data.drops import Drops
from data.general import HELD_OUT
from recipes import preference_sets, r1_stages, reward_models
from recipes.manifest import HashCache
from recipes.parser import parse
from recipes.pipeline import Pipeline, Stage
from recipes.preference_sets import Label, Pair, open_labels, open_pairs, read_labels, read_pairs, split_off
from recipes.reward_models import PrintedLog, RewardModelsConfig, RewardTrainingConfig, auc, train_reward_models
from recipes.row_order import like_lengths
from rewards import load_reward
from rewards.preference import RewardInfo, encode_conversation

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/micro/reward_models.yaml"
FAMILIES = ["birds", "fish", "trees"]


def turn(text):
    return [{"role": "assistant", "content": text}]


def ask(text):
    return [{"role": "user", "content": text}]


def make_pairs(count=90, **changed):
    """Good answers say yes in their summary; the reasoning of both sides says the opposite."""
    rng = random.Random(0)
    rows = []
    for n in range(count):
        animal = rng.choice(["cat", "dog", "cow", "pig"])
        sides = {
            "chosen": turn(f"<think>no</think><answer>yes {animal}</answer>"),
            "rejected": turn(f"<think>yes</think><answer>no {animal}</answer>"),
        }
        about = {"differs_in": "helpfulness", "family": FAMILIES[n % 3], "language": "en", "id": str(n)}
        rows.append({"prompt": ask(f"{animal} {n}?"), **sides, **about, **changed})
    return rows


def make_labels(count=90):
    return [
        {"prompt": row["prompt"], "response": f"{'yes' if n % 2 else 'no'} dog", "safe": bool(n % 2)}
        | {"family": row["family"], "language": "en"}
        for n, row in enumerate(make_pairs(count))
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def builder(model, folder):
    """Makes (recipe, args) over the two small files; any setting of either may change."""

    def make(**changed):
        settings = {
            "config": RECIPE, "model_name_or_path": model, "output_dir": folder / "run",
            "preferences": write(folder / "pairs.jsonl", make_pairs()),
            "safety": write(folder / "labels.jsonl", make_labels()),
            "held_out_size": 24, "num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 2e-2,
            "save_steps": 4, "logging_steps": 1, "warmup_steps": 0, "use_cpu": "true", "cpu_threads": 1,
            "balance_lengths": "false",
        } | changed  # fmt: skip
        families = settings.pop("held_out_families", ["trees"])
        flags = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        recipe, args = parse(RewardModelsConfig, RewardTrainingConfig, args=[*flags, "--held_out_families", *families])
        args.disable_tqdm = True
        return recipe, args

    return make


@pytest.fixture
def build(tiny_model, tmp_path):
    return builder(tiny_model, tmp_path)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """A run of both models that is through."""
    folder = tmp_path_factory.mktemp("finished")
    train_reward_models(folder / "run", *builder(tiny_model, folder)())
    return folder / "run"


def data_of(folder, part, side):
    return load_from_disk(str(folder / "data" / part / side))


def weights(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).state_dict()


# --- training ---------------------------------------------------------------------------------------------------------


def test_both_models_learn_their_rule_and_are_measured_on_what_they_never_saw(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for part in ("helpful", "harmless"):
        held = metrics[part]["held_out"]
        assert held["accuracy"] == 1.0
        assert held["n"] == 24
        assert held["held_out_families"] == {"accuracy": 1.0, "ci95": [0.025 ** (1 / 12), 1.0], "n": 12}
        assert set(held["by_family"]) == set(FAMILIES)
        assert set(held["by_language"]) == {"en"}
        assert not list((finished / "training" / part).glob("checkpoint-*"))
        assert not (finished / f"{part}.partial").exists()
    assert metrics["harmless"]["held_out"]["auc"] == 1.0


def test_what_was_written_is_what_the_rewards_read(finished):
    """Mean and std are those of the good held-out answers, counted again here with transformers alone."""
    folder = finished / "helpful"
    info = RewardInfo.read(folder, "helpful")
    pairs, _ = read_pairs(make_pairs(), "final_summary", "helpfulness", "pairs")
    _, held = split_off(pairs, 24, ["trees"], 0)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        scores = [model(**_inputs(tokenizer, pair.chosen)).logits.item() for pair in held]
    assert info.mean == pytest.approx(np.mean(scores), abs=1e-4)
    assert info.std == pytest.approx(np.std(scores), abs=1e-4)
    assert (info.reads, info.scale) == ("final_summary", "normalised")


def _inputs(tokenizer, conversation):
    text = tokenizer.apply_chat_template(conversation, tokenize=False)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False)


def test_harmlessness_may_come_from_pairs(build, tmp_path):
    path = write(tmp_path / "mixed.jsonl", make_pairs(differs_in="harmlessness"))
    metrics = train_reward_models(tmp_path / "run", *build(models="harmless", harmless_from="pairs", safety=path))
    assert metrics["harmless"]["held_out"]["accuracy"] == 1.0
    info = RewardInfo.read(tmp_path / "run/harmless", "harmless")
    assert (info.reads, info.scale) == ("whole_response", "normalised")


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(build, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_reward_models(whole, *build(models="helpful"))
    broken_off = PrintedLog.on_log

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(PrintedLog, "on_log", kill)
    with pytest.raises(KeyboardInterrupt):
        train_reward_models(cut, *build(models="helpful"))
    assert not (cut / "helpful").exists()
    monkeypatch.setattr(PrintedLog, "on_log", broken_off)
    train_reward_models(cut, *build(models="helpful"))
    for name, value in weights(whole / "helpful").items():
        torch.testing.assert_close(weights(cut / "helpful")[name], value, rtol=1e-5, atol=1e-6)
    steps = [json.loads(line)["step"] for line in (cut / "training/helpful/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_run_that_was_cut_off_behind_its_last_step_is_only_finished(build, tmp_path, monkeypatch):
    finish = reward_models.finish
    monkeypatch.setattr(reward_models, "finish", lambda *args: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        train_reward_models(tmp_path / "run", *build(models="helpful"))
    last = max((tmp_path / "run/training/helpful").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    expected = weights(last)
    monkeypatch.setattr(reward_models, "finish", finish)
    train_reward_models(tmp_path / "run", *build(models="helpful"))
    for name, value in weights(tmp_path / "run/helpful").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_a_finished_model_is_left_alone(build, finished, monkeypatch):
    monkeypatch.setattr(reward_models, "train_one", None)
    assert train_reward_models(finished, *build()) == json.loads((finished / "metrics.json").read_text())


def test_scores_that_are_no_numbers_write_no_model(build, tmp_path, monkeypatch):
    def spoil(trainer, training, part):
        with torch.no_grad():
            trainer.model.score.weight.fill_(float("nan"))

    monkeypatch.setattr(reward_models, "run_trainer", spoil)
    with pytest.raises(
        ValueError, match=r"the helpful model scores nan for .* Lower learning_rate \(now 0.02; R1: 6e-6"
    ):
        train_reward_models(tmp_path / "run", *build())
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["data", "training"]
    assert [path.name for path in (tmp_path / "run/training").iterdir()] == ["helpful-broken"]


def test_a_model_that_scores_everything_alike_is_not_written(build, tmp_path, monkeypatch):
    def flatten(trainer, training, part):
        with torch.no_grad():
            trainer.model.score.weight.zero_()

    monkeypatch.setattr(reward_models, "run_trainer", flatten)
    with pytest.raises(ValueError, match="the helpful model scores 0 for every held-out good answer after training"):
        train_reward_models(tmp_path / "run", *build())
    assert not (tmp_path / "run/helpful").exists()


def test_the_shipped_base_reads_its_score_at_the_last_real_token_on_either_side_of_padding():
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/base")
    model = reward_models.load_scorer(str(ROOT / "data/base"), tokenizer, pairwise=True).eval()
    conversations = [[*ask("Who are you?"), *turn("I am a small assistant.")], [*ask("Who?"), *turn("A.")]]
    texts = [tokenizer.apply_chat_template(conversation, tokenize=False) for conversation in conversations]
    with torch.no_grad():
        alone = [model(**_inputs(tokenizer, conversation)).logits.item() for conversation in conversations]
        for side in ("left", "right"):
            tokenizer.padding_side = side
            batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            assert model(**batch).logits.flatten().tolist() == pytest.approx(alone, abs=1e-4)
    assert alone[0] != alone[1]


def test_training_reads_the_tokens_that_trl_would(tiny_model):
    from trl.data_utils import _tokenize

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    conversation = [*ask("Who are you?"), *turn("I am a small assistant.")]
    assert encode_conversation(tokenizer, conversation) == _tokenize(tokenizer, conversation)["input_ids"]


# --- data -------------------------------------------------------------------------------------------------------------


def test_equal_pairs_are_dropped_counted_and_shown():
    rows = make_pairs(10)
    for row in rows[:4]:  # other reasoning, the same summary
        row["rejected"] = turn("<think>no, no</think>" + row["chosen"][0]["content"].partition("</think>")[2])
    pairs, drops = read_pairs(rows, "final_summary", "helpfulness", "pairs")
    assert len(pairs) == 6
    report = reward_models.filters_of(drops, [])
    assert (report["seen"], report["kept"]) == (10, 6)
    (dropped,) = report["filters"]
    assert (dropped["name"], dropped["dropped"], len(dropped["examples"])) == ("equal sides", 4, 3)
    assert len(read_pairs(rows, "whole_response", "helpfulness", "pairs")[0]) == 10  # their reasoning differs


def test_a_file_of_equal_pairs_is_an_error(build, tmp_path):
    rows = [row | {"rejected": row["chosen"]} for row in make_pairs(12)]
    path = write(tmp_path / "equal.jsonl", rows)
    with pytest.raises(
        ValueError, match=r"no pair of preferences .*equal.jsonl can teach anything: of 12, 12 equal sid"
    ):
        train_reward_models(tmp_path / "run", *build(preferences=path))
    assert not (tmp_path / "run/helpful").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": ask("Hi"), "chosen": turn("a")}], "has a row without 'rejected', only prompt, chosen"),
        (make_pairs(3, differs_in="harmlessness"), "has no pair that differs in helpfulness"),
        (make_pairs(3, rejected=None), r"of 3, 3 rejected is null \(such as: .*Compared is the final summary$"),
        (make_pairs(3, chosen=turn(" ")), r"of 3, 3 chosen side is empty .* Compared is the final summary$"),
        *(
            (make_pairs(3, **{column: value}), f"pairs can teach .* 3 {column} is neither a text nor a conversation")
            for column in ("prompt", "chosen", "rejected")
            for value in (7, {"role": "user"}, [], ["a"], [{"role": "user", "content": 7}])
        ),
        (make_pairs(3, prompt=[{"content": "Hi"}]), "3 prompt is neither a text nor a conversation"),
    ],
)
def test_pairs_that_cannot_be_read(rows, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(rows, "final_summary", "helpfulness", "pairs")


def test_one_row_that_cannot_be_read_is_dropped_counted_and_shown():
    rows = make_pairs(10)
    rows[3]["rejected"], rows[5]["prompt"] = None, 5
    pairs, drops = read_pairs(rows, "final_summary", "helpfulness", "pairs")
    assert (len(pairs), drops.seen) == (8, 10)
    assert drops.counts == {"rejected is null": 1, "prompt is neither a text nor a conversation": 1}
    assert " 3?" in drops.examples["rejected is null"][0]
    rows = make_labels(10)
    rows[3]["response"], rows[5]["prompt"], rows[7]["safe"] = ["a"], None, None
    labels, drops = read_labels(rows, "whole_response", "labels")
    assert (len(labels), drops.seen) == (7, 10)
    assert drops.counts == {
        "response is neither a text nor a conversation": 1, "prompt is null": 1, "safe is neither true nor false": 1
    }  # fmt: skip


def test_labels_that_contradict_each_other_are_dropped():
    rows = make_labels(8)
    rows[1] = rows[0] | {"safe": True}
    rows.append(rows[2] | {"response": " "})
    labels, drops = read_labels(rows, "whole_response", "labels")
    assert len(labels) == 6
    assert {one["name"]: one["dropped"] for one in reward_models.filters_of(drops, [])["filters"]} == {
        "both labels": 2, "empty response": 1
    }  # fmt: skip


def test_labels_of_one_kind_are_an_error():
    with pytest.raises(ValueError, match="it has 3 usable of 3, and they are all unsafe"):
        read_labels([row | {"safe": False} for row in make_labels(3)], "whole_response", "labels")


@pytest.mark.parametrize(
    ("safe", "why"), [("maybe", "4 safe is neither true nor false"), (0.5, "4 safe is neither true nor false")]
)
def test_labels_without_a_usable_one_say_what_was_dropped(safe, why):
    rows = [row | {"safe": safe} for row in make_labels(4)]
    with pytest.raises(ValueError, match=rf"it has 0 usable of 4; dropped: {why} \(such as"):
        read_labels(rows, "whole_response", "labels")
    both = [row | {"safe": side} for row in make_labels(4) for side in (True, False)]
    with pytest.raises(ValueError, match="it has 0 usable of 8; dropped: 8 both labels"):
        read_labels(both, "whole_response", "labels")


def test_nothing_held_out_is_trained_on():
    pairs, _ = read_pairs(make_pairs() * 2, "final_summary", "helpfulness", "pairs")  # every prompt twice
    train, held = split_off(pairs, 30, ["trees"], seed=1)
    texts = [{preference_sets.prompt_text(pair) for pair in side} for side in (train, held)]
    assert not texts[0] & texts[1]
    assert "trees" not in {pair.family for pair in train}
    assert sum(pair.family == "trees" for pair in held) == 15
    assert len(held) == 30


def test_too_much_held_out_is_an_error(build, tmp_path):
    with pytest.raises(ValueError, match=r"the helpful model has nothing to train on: .* rows are held out"):
        train_reward_models(tmp_path / "run", *build(held_out_size=300))


def test_one_prompt_for_all_rows_is_said(build, tmp_path):
    path = write(tmp_path / "one.jsonl", make_pairs(40, prompt=ask("Well?")))
    message = r"24 rows are held out .*; the 16 others are of these families or have one of their 1 prompt\(s\)"
    with pytest.raises(ValueError, match=message):
        train_reward_models(tmp_path / "run", *build(preferences=path, models="helpful"))


def test_a_held_out_family_that_is_not_there_is_said(build, tmp_path, caplog):
    recipe, args = build(held_out_families=["trees", "roses"], held_out_size=300)
    with pytest.raises(ValueError, match="nothing to train on"):
        train_reward_models(tmp_path / "run", recipe, args)
    assert "names roses, which no row is of" in caplog.text
    assert "the families there are birds, fish, trees" in caplog.text
    caplog.clear()
    reward_models.check_families(RewardModelsConfig(model_name_or_path="x", held_out_families=["polite"]), {"fruit"})
    assert not caplog.records  # of the micro world's other model


def test_micro_rows_are_of_families_that_may_be_trained_on():
    pairs, _ = read_pairs(
        open_pairs("micro", "train", 300, 0, "helpfulness")[0], "final_summary", "helpfulness", "micro"
    )
    assert len(pairs) > 290
    assert {pair.language for pair in pairs} == {"en", "ko"}
    labels, _ = read_labels(open_labels("micro", "train", 300, 0)[0], "whole_response", "micro")
    held_out = {family for families in HELD_OUT.values() for family in families}
    for row in (*pairs, *labels):
        assert row.family not in held_out


def test_sets_in_other_columns_are_read_too(tmp_path):
    """UltraFeedback's binarized form and PKU-SafeRLHF's, by data.preferences."""
    rows = [
        {
            "prompt": f"How safe is {n}?", "response_0": f"Very safe, {n}.", "response_1": f"Break {n}.",
            "is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 0, "safer_response_id": 0,
        }
        for n in range(4)
    ]  # fmt: skip
    path = tmp_path / "safe.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels, _ = read_labels(open_labels(str(path), "train", 0, 0)[0], "whole_response", "safe.jsonl")
    assert sorted(label.safe for label in labels) == [False] * 4 + [True] * 4


def test_labels_from_a_table_are_read_as_what_they_say(tmp_path):
    """CSV knows texts alone, and "False" is one that Python takes for true."""
    rows = [{"prompt": f"How {n}?", "response": f"So {n}.", "safe": "True" if n % 2 else "False"} for n in range(6)]
    rows.append({"prompt": "How?", "response": "So.", "safe": "perhaps"})
    labels, drops = read_labels(rows, "whole_response", "a table")
    assert [label.safe for label in labels] == [False, True] * 3
    assert [(found["name"], found["dropped"]) for found in reward_models.filters_of(drops, [])["filters"]] == [
        ("safe is neither true nor false", 1)
    ]


def test_scores_that_say_the_opposite_are_dropped_without_a_gap_too(tmp_path):
    path = tmp_path / "scored.jsonl"
    rows = [
        {"prompt": f"Well {n}?", "chosen": f"good {n}", "rejected": f"bad {n}", "score_chosen": n, "score_rejected": 2}
        for n in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    raw, reading = open_pairs(str(path), "train", 0, 0, "helpfulness")
    assert len(raw) == 2
    assert sum(found["dropped"] for found in reading) == 3


def test_scores_that_are_no_numbers_are_dropped(tmp_path):
    scores = [(math.nan, 1.0), (2.0, math.inf), (3.0, 1.0), (None, None)]
    for n, given in enumerate((scores, [("high", "low"), ("3", "1"), ("", "")])):
        path = tmp_path / f"{n}.jsonl"
        rows = [
            {
                "prompt": f"Well {n}?",
                "chosen": f"good {n}",
                "rejected": f"bad {n}",
                "score_chosen": a,
                "score_rejected": b,
            }
            for n, (a, b) in enumerate(given)
        ]
        raw, reading = open_pairs(write(path, rows), "train", 0, 0, "helpfulness")
        assert [row["kept_because"] for row in raw] == ["scores 3 > 1", "chosen in its set"]
        assert [(found["name"], found["dropped"]) for found in reading] == [
            ("whose scores are no finite numbers", len(given) - 2)
        ]


def test_what_is_balanced_away_is_drawn_from_all(tmp_path):
    """So that the first rows, of which train_size takes some, are balanced too."""
    pairs = make_pairs(200)
    pairs, _ = read_pairs(pairs, "final_summary", "helpfulness", "pairs")
    longer = [pair for pair in pairs if len(pair.chosen[-1]["content"]) > len(pair.rejected[-1]["content"])]
    shorter = [
        preference_sets.Pair(chosen=pair.rejected, rejected=pair.chosen, family="all", language="")
        for pair in longer[::4]
    ]
    mixed = random.Random(0).sample([*longer, *shorter], len(longer) + len(shorter))
    kept = reward_models.balanced(mixed, Drops(), seed=0)
    assert len(kept) == 2 * len(shorter)
    first = kept[: len(kept) // 2]
    long = sum(len(pair.chosen[-1]["content"]) > len(pair.rejected[-1]["content"]) for pair in first)
    assert abs(long / len(first) - 0.5) < 0.15


def test_made_answers_are_worse_for_certain():
    pairs, _ = read_pairs(make_pairs(30), "final_summary", "helpfulness", "pairs")
    for how, answer in (("echo", lambda pair: preference_sets.prompt_text(pair)), ("repeated", thrice)):
        made = preference_sets.made_pairs(pairs, how, seed=0)
        assert [pair.chosen for pair in made] == [pair.chosen for pair in pairs]
        assert [pair.rejected for pair in made] == [[*pair.chosen[:-1], *turn(answer(pair))] for pair in pairs]
    made = preference_sets.made_pairs(pairs, "off topic", seed=0)
    answers = {pair.chosen[-1]["content"]: set() for pair in pairs}
    for pair in pairs:
        answers[pair.chosen[-1]["content"]].add(pair.family)
    assert 10 < len(made) < 30  # "yes cat" to one prompt is "yes cat" to another
    for pair in made:
        said = pair.rejected[-1]["content"]
        assert said != pair.chosen[-1]["content"]
        assert answers[said] - {pair.family}
        assert pair.rejected[:-1] == pair.chosen[:-1]


def test_off_topic_pairs_are_made_of_one_family_too():
    """As published sets are; then it is another prompt's answer."""
    pairs, _ = read_pairs(make_pairs(50, family="ultrafeedback"), "final_summary", "helpfulness", "pairs")
    made = preference_sets.made_pairs(pairs, "off topic", seed=0)
    assert len(made) > 25
    for pair in made:
        assert pair.rejected[-1]["content"] != pair.chosen[-1]["content"]


def thrice(pair):
    return " ".join([pair.chosen[-1]["content"]] * 3)


def test_made_pairs_come_at_their_share():
    pairs, _ = read_pairs(make_pairs(60), "final_summary", "helpfulness", "pairs")
    assert reward_models.with_made(pairs, 0.0, seed=0) == pairs
    more = reward_models.with_made(pairs, 0.5, seed=0)
    assert more[:60] == pairs
    assert 80 < len(more) <= 90


def test_balanced_pairs_are_longer_and_shorter_by_as_much():
    """60 answers much longer and 40 a little shorter, as many of each, would still say that longer is better."""
    rng = random.Random(0)
    gaps = [600 + rng.randint(0, 200) for _ in range(60)] + [-rng.randint(16, 31) for _ in range(40)]
    gaps += [rng.randint(16, 31) for _ in range(25)] + [-700] * 9 + [0] * 7
    sides = [("a" * (900 + gap), "b" * 900) for gap in rng.sample(gaps, len(gaps))]
    pairs = [Pair(chosen=turn(a), rejected=turn(b), family="all", language="") for a, b in sides]
    drops = Drops()
    kept = reward_models.balanced(pairs, drops, seed=0)
    left = [len(pair.chosen[0]["content"]) - len(pair.rejected[0]["content"]) for pair in kept]
    assert [sum(gap > 500 for gap in left), sum(gap < -500 for gap in left)] == [9, 9]
    assert [sum(0 < gap < 500 for gap in left), sum(-500 < gap < 0 for gap in left)] == [25, 25]
    assert left.count(0) == 7
    assert reward_models.filters_of(drops, [])["filters"][0]["dropped"] == len(gaps) - len(kept)


def test_pairs_that_cannot_be_balanced_are_an_error(build, tmp_path):
    with pytest.raises(ValueError, match="none of the 48 pairs: of 48 whose preferred answer is the longer one and 0"):
        train_reward_models(tmp_path / "run", *build(balance_lengths="true"))


def test_batches_of_like_length_hold_every_row_once():
    lengths = [random.Random(n).randint(1, 50) for n in range(70)]
    order = like_lengths(lengths, batch_size=8, seed=0)
    assert sorted(order) == list(range(70))
    batches = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 64, 8)]
    ranges = sorted((min(batch), max(batch)) for batch in batches)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    assert [min(batch) for batch in batches] != sorted(min(batch) for batch in batches)  # the batches are shuffled


# --- the data that a run leaves ---------------------------------------------------------------------------------------


def test_what_was_trained_and_measured_on_is_there_with_its_origin(finished):
    """Beside the rows that the small files hold, read again here."""
    rows = {row["id"]: row for row in make_pairs()}
    train, held = (data_of(finished, "helpful", side) for side in ("train", "held_out"))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert (len(train), len(held)) == (metrics["helpful"]["data"]["train"], 24)
    assert "trees" not in set(train["family"])
    assert not {str(prompt) for prompt in train["prompt"]} & {str(prompt) for prompt in held["prompt"]}
    plain = [row for row in train if not row["source"].startswith("made: ")]
    for row in [*plain, *held]:
        given = rows[row["id"]]
        summary = given["chosen"][0]["content"].partition("<answer>")[2].removesuffix("</answer>")
        assert (row["prompt"], row["chosen"]) == (given["prompt"], turn(summary))  # what the model reads, no more
        assert (row["family"], row["language"], row["differs_in"]) == (given["family"], "en", "helpfulness")
        assert row["source"].endswith("pairs.jsonl")
        assert (row["seed"], row["kept_because"]) == (None, "sides differ")
    made = [row for row in train if row["source"] == "made: echo"]
    assert made
    for row in made:
        assert row["rejected"][0]["content"] == row["prompt"][0]["content"] == rows[row["id"]]["prompt"][0]["content"]
        assert (row["seed"], row["kept_because"]) == (0, "made worse: the request itself")
    assert {row["source"] for row in train if row not in plain} == {"made: echo", "made: off topic", "made: repeated"}


def test_labels_are_there_too(finished):
    for side in ("train", "held_out"):
        rows = data_of(finished, "harmless", side)
        assert set(rows["safe"]) == {True, False}
        for row in rows:
            assert row["kept_because"] == ("labelled safe" if row["safe"] else "labelled unsafe")
            assert row["response"] == ("yes dog" if row["safe"] else "no dog")
            assert row["source"].endswith("labels.jsonl")


def test_the_data_of_a_run_teaches_again(finished):
    path = finished / "data/helpful/train"
    raw, reading = open_pairs(str(path), "train", 0, 0, "helpfulness")
    again, drops = read_pairs(raw, "final_summary", "helpfulness", "it")
    assert (len(again), drops.counts.total(), reading) == (len(load_from_disk(str(path))), 0, [])
    labels, _ = open_labels(str(finished / "data/harmless/train"), "train", 0, 0)
    assert len(read_labels(labels, "whole_response", "it")[0]) == len(labels)


def test_generated_rows_say_their_seed_and_scores_say_why(tmp_path):
    recipe = RewardModelsConfig(model_name_or_path="x", micro_size=40, problem_seed=7)
    for part in ("helpful", "harmless"):
        rows, _, _ = reward_models.read_rows(part, recipe, part == "helpful")
        assert {(row.origin.source, row.origin.seed) for row in rows} == {("micro", 7)}
        assert all(row.origin.id for row in rows)
    scored = {"prompt": "Q", "score_chosen": 4.0, "score_rejected": 2.0, "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "scored.jsonl", [scored])
    (pair,), _, _ = reward_models.read_rows(
        "helpful", RewardModelsConfig(model_name_or_path="x", preferences=path), True
    )
    assert (pair.origin.source, pair.origin.seed) == (path, None)
    assert pair.origin.kept_because == "sides differ; scores 4 > 2"


def filters(data):
    return {one["name"]: one["dropped"] for one in data["filters"]}


@pytest.mark.parametrize("part", ["helpful", "harmless"])
def test_every_row_is_accounted_for(build, tmp_path, part):
    """seen = dropped + trained on + held out; rows that are too long are shown like all others."""
    pairs, labels = make_pairs(), make_labels()
    for n in (0, 1, 30, 31):
        pairs[n]["prompt"] = labels[n]["prompt"] = ask("long " * 100 + str(n))
    changed = {
        "preferences": write(tmp_path / "a.jsonl", pairs), "safety": write(tmp_path / "b.jsonl", labels),
        "max_length": 64, "train_size": 40, "models": part, "num_train_epochs": 1,
    }  # fmt: skip
    data = train_reward_models(tmp_path / "run", *build(**changed))[part]["data"]
    rows = {side: len(data_of(tmp_path / "run", part, side)) for side in ("train", "held_out")}
    assert rows == {"train": data["train"], "held_out": data["held_out"]}
    assert data["kept"] == sum(rows.values())
    assert data["seen"] == data["kept"] + sum(filters(data).values())
    found = {one["name"]: one for one in data["filters"]}
    assert found["family or prompt is held out"]["dropped"] == 18  # of 30 trees, 12 are held out
    assert found["beyond train_size"]["dropped"] == 60 - 12 - 40
    assert found["too long"]["dropped"] > 0
    assert all("tokens: long long" in example for example in found["too long"]["examples"])


def test_rows_that_are_all_too_long_are_an_error(build, tmp_path):
    with pytest.raises(
        ValueError, match=r"all \d+ rows to train the helpful model on are longer than max_length \(3 tok"
    ):
        train_reward_models(tmp_path / "run", *build(max_length=3))


SAFE_RLHF = [
    {
        "prompt": f"How safe is {n}?", "response_0": f"no, I will not {n}", "response_1": f"yes, break {n}",
        "is_response_0_safe": True, "is_response_1_safe": n == 0, "better_response_id": 1, "safer_response_id": 0,
    }
    for n in range(40)
]  # fmt: skip


def test_what_reading_labels_drops_is_reported(build, tmp_path):
    rows = [*SAFE_RLHF, SAFE_RLHF[3], SAFE_RLHF[4] | {"response_1": ""}]
    path = write(tmp_path / "safe.jsonl", rows)
    data = train_reward_models(tmp_path / "run", *build(models="harmless", safety=path, num_train_epochs=1))
    dropped = filters(data["harmless"]["data"])
    assert (dropped["seen before"], dropped["empty"]) == (3, 1)
    assert data["harmless"]["data"]["seen"] == 2 * len(rows)


def test_pairs_of_one_set_teach_harmlessness_beside_those_of_another(tmp_path):
    """PKU-SafeRLHF, whose better answer is often the more harmful one, beside UltraFeedback."""
    scored = {"prompt": "Q", "score_chosen": 4.0, "score_rejected": 2.0, "chosen": "a", "rejected": "b"}
    recipe = RewardModelsConfig(
        model_name_or_path="x", preferences=write(tmp_path / "ultra.jsonl", [scored]),
        safety=write(tmp_path / "safe.jsonl", SAFE_RLHF), harmless_from="pairs",
    )  # fmt: skip
    pairs, _, reading = reward_models.read_rows("harmless", recipe, pairwise=True)
    assert len(pairs) == 39
    assert all(pair.chosen[-1]["content"].startswith("no, I will not") for pair in pairs)
    assert {pair.origin.kept_because for pair in pairs} == {"sides differ; safer_response_id 0, safe > unsafe"}
    assert [(one["name"], one["dropped"]) for one in reading] == [("whose answers are both safe or both unsafe", 1)]
    (pair,), _, _ = reward_models.read_rows("helpful", recipe, pairwise=True)
    assert pair.chosen[-1]["content"] == "a"


def test_the_micro_worlds_pairs_teach_harmlessness_too():
    recipe = RewardModelsConfig(model_name_or_path="x", harmless_from="pairs", micro_size=60, preferences="nowhere")
    pairs, _, _ = reward_models.read_rows("harmless", recipe, pairwise=True)
    assert len(pairs) > 50


@pytest.mark.parametrize("min_gap", [None, 1.0])
@pytest.mark.parametrize("scores", [{}, {"score_chosen": 4.0, "score_rejected": 2.0}])
def test_pairs_that_say_nothing_of_harm_are_refused(tmp_path, min_gap, scores):
    path = write(tmp_path / "ultra.jsonl", [{"prompt": "Q", "chosen": "a", "rejected": "b"} | scores])
    with pytest.raises(
        ValueError, match=r"do not say what they differ in .* harmlessness cannot be learned from pairs"
    ):
        open_pairs(path, "train", 0, 0, "harmlessness", min_gap)


def test_pairs_without_a_difference_are_of_helpfulness(tmp_path):
    rows = make_pairs(4, differs_in=None) + make_pairs(4, differs_in="harmlessness")
    path = write(tmp_path / "mixed.jsonl", rows)
    for min_gap in (None, 0.0):
        raw, _ = open_pairs(path, "train", 0, 0, "harmlessness", min_gap)
        assert len(read_pairs(raw, "whole_response", "harmlessness", "it")[0]) == 4


def test_the_stage_says_what_it_saw_and_kept_and_is_done_when_called_again(tiny_model, tmp_path):
    settings = {
        "config": str(RECIPE), "model_name_or_path": tiny_model, "micro_size": 150, "train_size": 30,
        "held_out_size": 20, "use_cpu": True, "cpu_threads": 1,
    }  # fmt: skip
    stage = Stage(name="reward-models", run=r1_stages.preference_models, settings=settings)
    pipeline = Pipeline([stage], tmp_path, isolate=False)
    (manifest,) = pipeline.run()
    assert manifest.status == "finished"
    sides = [(part, side) for part in ("helpful", "harmless") for side in ("train", "held_out")]
    assert manifest.kept == sum(len(data_of(tmp_path / "reward-models", *side)) for side in sides)
    assert manifest.seen == manifest.kept + manifest.dropped
    assert any(one["name"] == "harmless: beyond train_size" and one["examples"] for one in manifest.filters)
    assert set(manifest.outputs) == {"helpful", "harmless", "data"}
    assert [step.action for step in Pipeline([stage], tmp_path, isolate=False).plan()] == ["done"]


def test_a_stage_of_one_model_has_that_one_alone(tiny_model, tmp_path):
    settings = {
        "config": str(RECIPE), "model_name_or_path": tiny_model, "micro_size": 150, "train_size": 30,
        "held_out_size": 20, "use_cpu": True, "cpu_threads": 1, "models": ["harmless"],
    }  # fmt: skip
    stage = Stage(name="reward-models", run=r1_stages.preference_models, settings=settings)
    (manifest,) = Pipeline([stage], tmp_path, isolate=False).run()
    assert set(manifest.outputs) == {"harmless", "data"}


def test_the_same_data_has_the_same_hash(tmp_path):
    """A stage that was cut off writes it again, and nothing that reads it may take that for a change."""
    hashes = []
    for name in ("a", "b"):
        pairs, _ = read_pairs(make_pairs(20), "final_summary", "helpfulness", "pairs", source="x")
        reward_models.save_data(tmp_path / name, "helpful", pairs[5:], pairs[:5])
        reward_models.save_data(tmp_path / name, "helpful", pairs[5:], pairs[:5])
        hashes.append(HashCache().hash_path(tmp_path / name / "data").hash)
    assert hashes[0] == hashes[1]


# --- measuring --------------------------------------------------------------------------------------------------------


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4  # many ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))
    low, high = reward_models.auc_interval(scores, positive, resamples=200)
    assert low < auc(scores, positive) < high


def test_docstring_examples_run():
    assert doctest.testmod(reward_models).failed == 0


class ByLength:
    """Stands for a model that pays for words."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def scores(self, conversations):
        return [float(len(one[-1]["content"].split())) for one in conversations]


def test_a_model_that_pays_for_length_is_seen(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sides = [("yes " * 9, "no"), ("yes " * 5, "no no"), ("yes", "no no no no"), ("yes yes", "no no")]
    pairs = [
        Pair(chosen=[*ask("?"), *turn(a)], rejected=[*ask("?"), *turn(b)], family=family, language="en")
        for (a, b), family in zip(sides, "abab")
    ]
    found = reward_models.measure_pairs(ByLength(tokenizer), pairs, ["b"])
    assert found["accuracy"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found["held_out_families"]["accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert found["length"]["correlation"] > 0.95
    assert found["made"]["repeated"]["accuracy"] == 0.0  # three times as long
    assert found["made"]["echo"] == {
        "accuracy": 0.875,
        "ci95": found["made"]["echo"]["ci95"],
        "n": 4,
    }  # one word, as is "?"
    assert found["length"]["accuracy_where_longer"]["accuracy"] == 1.0
    assert found["length"]["accuracy_where_shorter"]["accuracy"] == 0.0
    labels = [
        Label(conversation=[*ask("?"), *turn("yes " * n)], safe=n > 2, family="a", language="en") for n in range(1, 6)
    ]
    found = reward_models.measure_labels(ByLength(tokenizer), labels, [])
    assert (found["auc"], found["accuracy"]) == (1.0, 0.6)  # every score is above 0
    assert (found["called_unsafe"], found["called_safe"]) == (0.0, 1.0)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": ["kind"]}, "models names kind; expected some of helpful, harmless"),
        ({"harmless_from": "prompts"}, "must be 'labels' or 'pairs'"),
        ({"made_share": -0.1}, "made_share must lie between 0 and 3"),
        ({"held_out_size": 1}, "a model is never used unmeasured"),
    ],
)
def test_settings_that_cannot_work(changed, message):
    with pytest.raises(ValueError, match=message):
        RewardModelsConfig(model_name_or_path="x", **changed)


@pytest.mark.parametrize("none", [{"max_steps": 0}, {"num_train_epochs": 0}])
def test_a_run_of_no_step_is_refused(build, capsys, none):
    with pytest.raises(SystemExit):
        build(**none)
    assert "nothing would be trained" in capsys.readouterr().err


def test_the_command_writes_a_run_folder_and_resumes(build, tmp_path, capsys):
    recipe, args = build(models="helpful")
    reward_models.main(recipe, args)
    assert "helpful: held-out accuracy 100.0 % [85.8, 100.0] of 24" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run/helpful")
    recipe, args = reward_models.settings(["--config", str(RECIPE), "--output_dir", str(tmp_path / "run"), "--resume"])
    assert (recipe.models, recipe.held_out_size, args.learning_rate) == (["helpful"], 24, 2e-2)
    reward_models.main(recipe, args)
    assert (tmp_path / "run/helpful/reward.json").is_file()


def test_the_models_of_a_run_stand_in_a_reward(finished):
    reward = load_reward("preference", {part: str(finished / part) for part in ("helpful", "harmless")})
    good, bad = reward(
        [ask("dog 3?")] * 2, [turn("<answer>yes dog</answer>"), turn("<answer>no dog</answer>")], kind=["benign"] * 2
    )
    assert bad < 0.3 < good <= 1


def test_pairs_may_have_to_be_apart_in_score(tmp_path):
    """UltraFeedback's binarized columns, whose sides repeat the prompt."""
    path = tmp_path / "pairs.jsonl"
    rows = []
    for n, gap in enumerate((0.5, 1.0, 1.5, 3.0)):
        sides = {"chosen": f"good {n}", "rejected": f"bad {n}"}
        turns = {
            side: [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": text}]
            for side, text in sides.items()
        }
        rows.append({"prompt": "Well?", "score_chosen": 5.0 + gap, "score_rejected": 5.0} | turns)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for min_gap, kept in ((None, [0, 1, 2, 3]), (1.0, [2, 3])):
        raw, reading = open_pairs(str(path), "train", 0, 0, "helpfulness", min_gap)
        assert sum(found["dropped"] for found in reading) == 4 - len(kept)
        pairs, _ = read_pairs(raw, "final_summary", "helpfulness", "the set")
        assert [pair.chosen[-1]["content"] for pair in pairs] == [f"good {n}" for n in kept]
        assert all(pair.chosen[:-1] == [{"role": "user", "content": "Well?"}] for pair in pairs)
