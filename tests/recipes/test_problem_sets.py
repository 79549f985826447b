"""What a recipe trains and measures on: the micro world, or a file of one's own."""

import json
import logging
import random
import time

import pytest
from datasets import Dataset

from data.drops import collected_drops
from data.templates import render_prompt
from recipes import cold_start, problem_sets
from recipes.chains import FilterConfig, chain_filters, run_filters
from recipes.cold_start import ColdStartConfig, external_chains
from recipes.gathering import SamplingSettings
from recipes.preference_sets import open_labels, open_pairs, read_labels, read_pairs, without_measured_on
from recipes.problem_sets import (
    ProblemConfig,
    drop_held_out,
    general_prompts,
    held_out_problems,
    training_problems,
    without_held_out,
)
from recipes.rejection import general_rows
from rewards.language import language_reward


def own_set(path, count: int = 20, **columns: str) -> str:
    """A JSONL file with the given names for the problem and the answer."""
    names = {"problem": "problem", "answer": "answer"} | columns
    rows = [{names["problem"]: f"What is {n} + {n}?", names["answer"]: str(2 * n)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# --- the micro world --------------------------------------------------------------------------------------------------


def test_micro_problems_come_by_split_with_prompts():
    config = ProblemConfig(train_size=120, validation_size=30, test_size=60, template="r1_zero_short")
    train, validation = training_problems(config)
    test = held_out_problems(config)
    assert (len(train), len(validation), len(test)) == (120, 30, 60)
    ids = [set(problems["id"]) for problems in (train, validation, test)]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    for problems in (train, validation, test):
        assert problems["prompt"][0] == render_prompt(problems["problem"][0], "r1_zero_short")


def test_tasks_and_languages_hold_for_every_split():
    config = ProblemConfig(tasks=["countdown"], languages=["ko"], train_size=20, validation_size=5, test_size=5)
    for problems in (*training_problems(config), held_out_problems(config)):
        assert set(problems["task"]) == {"countdown"}
        assert set(problems["language"]) == {"ko"}


def test_validation_and_test_are_optional():
    config = ProblemConfig(train_size=10, validation_size=0, test_size=0)
    assert training_problems(config)[1] is None
    assert held_out_problems(config) is None


def test_the_seed_draws_other_training_problems():
    sets = [set(training_problems(ProblemConfig(train_size=60, problem_seed=seed))[0]["id"]) for seed in (0, 0, 1)]
    assert sets[0] == sets[1] != sets[2]


def test_chat_prompts_are_conversations():
    train, _ = training_problems(ProblemConfig(train_size=2, template="chat", system_prompt="Answer in English."))
    assert [turn["role"] for turn in train["prompt"][0]] == ["system", "user"]
    assert train["prompt"][0][1]["content"] == train["problem"][0]


# --- one's own --------------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own_with_other_column_names(tmp_path):
    path = own_set(tmp_path / "mine.jsonl", problem="ask", answer="truth")
    config = ProblemConfig(dataset=path, columns={"problem": "ask", "answer": "truth"}, train_size=0)
    train, validation = training_problems(config)
    assert validation is None
    assert sorted(train["answer"][:], key=int) == [str(2 * n) for n in range(20)]
    row = train[0]
    half = int(row["answer"]) // 2
    assert row["problem"] == f"What is {half} + {half}?"
    assert row["prompt"] == render_prompt(row["problem"], "r1_zero")


def test_a_missing_answer_column_is_named_with_the_mapping_to_write(tmp_path):
    path = own_set(tmp_path / "mine.jsonl", answer="truth")
    with pytest.raises(ValueError, match="answer") as refused:
        training_problems(ProblemConfig(dataset=path))
    assert "truth" in str(refused.value)  # what there is
    assert "columns" in str(refused.value)  # what to write


def test_validation_is_taken_from_the_file_and_never_trained_on(tmp_path):
    config = ProblemConfig(dataset=own_set(tmp_path / "mine.jsonl"), validation_size=5, train_size=0)
    train, validation = training_problems(config)
    assert (len(train), len(validation)) == (15, 5)
    assert not set(train["id"]) & set(validation["id"])
    few, same = training_problems(ProblemConfig(dataset=config.dataset, validation_size=5, train_size=3))
    assert few["id"][:] == train["id"][:3]
    assert same["id"][:] == validation["id"][:]


def test_stages_that_train_on_another_order_keep_out_the_same_problems(tmp_path):
    """Dev3's chains must not come from what the alarm of the last stage watches."""
    path = own_set(tmp_path / "mine.jsonl")
    first, held = training_problems(ProblemConfig(dataset=path, validation_size=5))
    second, same = training_problems(ProblemConfig(dataset=path, validation_size=5, problem_seed=7))
    assert same["id"][:] == held["id"][:]
    assert first["id"][:] != second["id"][:]
    assert set(first["id"]) == set(second["id"])


def test_validation_must_leave_something_to_train_on(tmp_path):
    config = ProblemConfig(dataset=own_set(tmp_path / "mine.jsonl"), validation_size=20)
    with pytest.raises(ValueError, match="validation_size 20 leaves nothing of the 20 problems to train on"):
        training_problems(config)


def test_held_out_problems_of_ones_own(tmp_path):
    train = own_set(tmp_path / "train.jsonl")
    held_out = own_set(tmp_path / "held_out.jsonl", count=8)
    assert held_out_problems(ProblemConfig(dataset=train)) is None
    assert len(held_out_problems(ProblemConfig(dataset=train, eval_dataset=held_out))) == 8
    assert len(held_out_problems(ProblemConfig(dataset=train, eval_dataset=held_out, test_size=3))) == 3
    assert held_out_problems(ProblemConfig(dataset=train, eval_dataset=held_out, test_size=0)) is None


def test_the_micro_world_measures_what_was_trained_on_a_file(tmp_path):
    config = ProblemConfig(dataset=own_set(tmp_path / "train.jsonl"), eval_dataset="micro", test_size=12)
    assert held_out_problems(config)["id"][:] == held_out_problems(ProblemConfig(test_size=12))["id"][:]


def test_a_name_that_is_nowhere_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ValueError, OSError), match="nowhere"):
        training_problems(ProblemConfig(dataset=str(tmp_path / "nowhere.jsonl")))


# --- the language of sets that do not say it --------------------------------------------------------------------------

ASKED = {
    "fr": "Marie a {} pommes et elle en achète encore cinq au marché. Combien de pommes a-t-elle maintenant ?",
    "es": "Ana tiene {} manzanas y compra cinco más en el mercado. ¿Cuántas manzanas tiene ahora en total?",
    "de": "Anna hat {} Äpfel und kauft noch fünf weitere auf dem Markt. Wie viele Äpfel hat sie jetzt?",
    "ru": "У Анны было {} яблок, и она купила ещё пять на рынке. Сколько яблок у неё теперь?",
    "ko": "안나는 사과 {} 개를 가지고 있고 시장에서 다섯 개를 더 산다. 사과는 모두 몇 개인가?",
    "en": "Anna has {} apples and buys five more of them at the market. How many apples does she have now?",
}


def written(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("language", ASKED)
def test_a_set_that_tells_no_language_is_labelled_with_that_of_its_texts(language, tmp_path):
    texts = [ASKED[language].format(n) for n in range(2, 8)]
    problems = written(tmp_path / "problems.jsonl", [{"problem": text, "answer": "7"} for text in texts])
    config = ProblemConfig(dataset=problems, eval_dataset=problems, validation_size=2)
    for rows in (*training_problems(config), held_out_problems(config)):
        assert set(rows["language"]) == {language}
    told = written(tmp_path / "told.jsonl", [{"problem": text, "answer": "7", "language": "it"} for text in texts])
    assert set(training_problems(ProblemConfig(dataset=told))[0]["language"]) == {"it"}  # its word counts

    answers = [{"prompt": text, "response": f"{n}"} for n, text in enumerate(texts)]
    general = written(tmp_path / "general.jsonl", answers)
    assert set(general_rows(general, 3, seed=0)["language"]) == {language}
    config = ProblemConfig(general_dataset={"instruction": general})
    assert set(general_prompts(config)["language"]) == {language}

    sides = {"response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 0}
    judged = [{"prompt": text, "is_response_0_safe": True, "is_response_1_safe": False} | sides for text in texts]
    safety = written(tmp_path / "safety.jsonl", judged)
    for rows, _ in (open_pairs(safety, "train", 0, 0, "helpfulness"), open_labels(safety, "train", 0, 0)):
        assert {row["language"] for row in rows} == {language}


def test_a_french_chain_of_a_french_problem_is_kept_and_rewarded(tmp_path):
    row = {
        "problem": ASKED["fr"].format(2),
        "reasoning": "Elle avait deux pommes au début.\nElle en achète cinq, donc elle a maintenant sept pommes.",
        "summary": "Elle a $\\boxed{7}$ pommes.",
        "answer": "7",
    }
    (chain,) = external_chains(written(tmp_path / "chains.jsonl", [row]))
    kept, report = run_filters([chain], chain_filters(FilterConfig()))
    assert kept == [chain], report
    problems, _ = training_problems(ProblemConfig(dataset=written(tmp_path / "problems.jsonl", [row])))
    thoughts = [row["reasoning"], "She had two apples in the beginning and buys five, so she now has seven apples."]
    rewards = language_reward(
        ["?"] * 2, [f"<think>{thought}</think>" for thought in thoughts], language=problems["language"][:] * 2
    )
    assert rewards == [1.0, 0.0]


# --- problems that are measured on are not trained on -----------------------------------------------------------------

STORY = (
    "In the village of number {} there live {} bakers, and each of them bakes {} loaves a day. How many loaves is that?"
)


def stories(path, numbers) -> str:
    """A set with a story for each number, all with words of their own in every run of ten."""
    rows = [{"problem": STORY.format(*[f"n{n}"] * 3), "answer": str(n)} for n in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def overlapping(tmp_path) -> dict[str, str]:
    """30 problems to train on, of which other sets hold 6 and 4."""
    names = {"dataset": range(30), "eval_dataset": range(24, 40), "aime": range(4)}
    return {name: stories(tmp_path / f"{name}.jsonl", numbers) for name, numbers in names.items()}


def answers(problems) -> set[int]:
    return {int(answer) for answer in problems["answer"]}


def test_problems_of_the_held_out_set_are_dropped_and_counted(overlapping, caplog):
    config = ProblemConfig(dataset=overlapping["dataset"], eval_dataset=overlapping["eval_dataset"], test_size=2)
    with caplog.at_level(logging.WARNING):
        train, _ = training_problems(config)
    assert answers(train) == set(range(24))  # those of the whole set, though test_size takes two
    assert "10-gram overlap" in caplog.text
    assert "6 of 30 training rows dropped, 24 kept" in caplog.text
    config.test_size = 0  # as in a pipeline, which measures in stages of their own
    assert answers(training_problems(config)[0]) == set(range(24))
    config.decontaminate = False
    assert answers(training_problems(config)[0]) == set(range(30))


def test_more_sets_to_keep_out_and_the_size_is_of_what_is_left(overlapping):
    config = ProblemConfig(
        dataset=overlapping["dataset"], eval_dataset=overlapping["eval_dataset"],
        decontaminate_against={overlapping["aime"]: "test"}, train_size=15,
    )  # fmt: skip
    train, _ = training_problems(config)
    assert len(train) == 15
    assert answers(train) <= set(range(4, 24))


def test_the_same_sets_own_held_out_split_counts_when_asked_for(tmp_path):
    """By default its makers are believed: GSM8K's questions share sentences, not solutions."""
    (tmp_path / "set").mkdir()
    stories(tmp_path / "set/train.jsonl", range(10))
    stories(tmp_path / "set/test.jsonl", range(8, 12))
    config = ProblemConfig(dataset=str(tmp_path / "set"), eval_dataset=str(tmp_path / "set"))
    assert answers(training_problems(config)[0]) == set(range(10))
    config.decontaminate = True
    assert answers(training_problems(config)[0]) == set(range(8))


def test_validation_problems_are_the_same_whatever_is_dropped(overlapping):
    """Stages that are measured on other sets hold out the same problems."""
    config = ProblemConfig(dataset=overlapping["dataset"], validation_size=5)
    held = training_problems(config)[1]
    config.eval_dataset = overlapping["eval_dataset"]
    train, same = training_problems(config)
    assert same["id"][:] == held["id"][:]
    assert not answers(train) & (answers(held) | set(range(24, 40)))


def test_chains_from_elsewhere_and_a_stages_manifest_know_what_was_dropped(overlapping, tmp_path):
    rows = [
        {
            "problem": STORY.format(*[f"n{n}"] * 3),
            "generations": [f"<think>{n} so {n}.</think>It is {n}."],
            "answer": str(n),
        }
        for n in (2, 50)
    ]
    path = tmp_path / "chains.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = ProblemConfig(dataset=overlapping["dataset"], eval_dataset=overlapping["aime"])
    with collected_drops() as found:
        chains = external_chains(str(path), problems=config)
    assert [chain.problem["answer"] for chain in chains] == ["50"]
    (one,) = found
    assert (one["name"], one["dropped"]) == (f"{path}: measured on", 1)
    assert "n2" in one["examples"][0]
    assert len(external_chains(str(path))) == 2


def test_chains_from_elsewhere_do_not_hold_the_validation_problems(tmp_path, monkeypatch):
    """What an alarm watches in a later stage would otherwise be what Dev1 was fine-tuned on."""
    dataset = stories(tmp_path / "dataset.jsonl", range(30))
    problems = ProblemConfig(dataset=dataset, validation_size=5)
    held = training_problems(problems)[1]
    rows = [
        {"problem": row["problem"], "reasoning": f"{row['answer']} bakers, so it is this.", "answer": row["answer"]}
        for row in [*held, {"problem": STORY.format("n77", "n77", "n77"), "answer": "77"}]
    ]
    chains = written(tmp_path / "chains.jsonl", rows)
    config = ColdStartConfig(external=chains)
    seen = []
    monkeypatch.setattr(cold_start, "run_filters", lambda found, filters: seen.extend(found) or run_filters([], []))
    _, report = cold_start.gather(config, problems, SamplingSettings(), FilterConfig())
    assert [chain.problem["answer"] for chain in seen] == ["77"]
    (one,) = report["filters"]
    assert (one["name"], one["dropped"], one["sources"]) == (f"{chains}: measured on", 5, {"external": 5})
    problems.decontaminate = False
    assert len(external_chains(chains, None, problems, held)) == 6


PLAIN = "Write a short poem about the sea and number {} please."


def general_sets(tmp_path) -> dict[str, str]:
    """Requests, answers, pairs and labels, among whose prompts are the stories 3 and 30, word for word."""
    texts = [(STORY.format(*[f"n{n}"] * 3) if n in (3, 30) else PLAIN.format(n)) for n in range(28, 34)]
    texts += [STORY.format("n3", "n3", "n3")]
    earlier = [{"role": "user", "content": texts[2]}, {"role": "assistant", "content": "So many."}]
    turns = [[{"role": "user", "content": text}] for text in texts] + [[*earlier, {"role": "user", "content": "Why?"}]]
    sets = {
        "answers": [
            {"messages": [*asked, {"role": "assistant", "content": f"So {n}."}]} for n, asked in enumerate(turns)
        ],
        "requests": [{"prompt": text} for text in texts],
        "kinds": [{"problem": text, "kind": "instruction"} for text in texts],
        "pairs": [{"prompt": asked, "chosen": f"yes {n}", "rejected": "no"} for n, asked in enumerate(turns)],
        "labels": [{"prompt": asked, "response": f"{n}", "safe": n % 2 == 0} for n, asked in enumerate(turns)],
    }
    return {name: written(tmp_path / f"{name}.jsonl", rows) for name, rows in sets.items()}


def test_general_data_does_not_hold_what_is_measured_on(overlapping, tmp_path):
    """The set that is measured on has story 30, its neighbour story 3: word for word in every general set."""
    sets = general_sets(tmp_path)
    against = {"eval_dataset": overlapping["eval_dataset"], "decontaminate_against": {overlapping["aime"]: "test"}}
    config = ProblemConfig(dataset=overlapping["dataset"], **against)
    answers = general_rows(sets["answers"], 20, seed=0)
    with collected_drops() as found:
        kept = drop_held_out(answers, sets["answers"], config)
    assert (len(answers), len(kept)) == (8, 5)  # an earlier turn counts too
    assert not [turns for turns in kept["prompt"] if "village" in turns[0]["content"]]
    assert [(one["name"], one["dropped"]) for one in found] == [(f"{sets['answers']}: measured on", 3)]

    for general in (sets["kinds"], {"instruction": sets["requests"]}):
        config = ProblemConfig(dataset=overlapping["dataset"], general_dataset=general, **against)
        with collected_drops() as found:
            prompts = general_prompts(config)
        assert sorted(prompts["problem"]) == [PLAIN.format(n) for n in (28, 29, 31, 32, 33)]
        assert [one["dropped"] for one in found] == [2]
        config.decontaminate = False
        assert len(general_prompts(config)) == 7
    validation = Dataset.from_dict({"problem": [PLAIN.format(31)]})
    config.decontaminate = None
    assert len(general_prompts(config, validation)) == 4


def test_reward_models_do_not_learn_from_what_is_measured_on(overlapping, tmp_path):
    sets = general_sets(tmp_path)
    against = {overlapping["eval_dataset"]: "test", overlapping["aime"]: "test"}
    pairs, drops = read_pairs(open_pairs(sets["pairs"], "train", 0, 0, "helpfulness")[0], "final_summary",
                              "helpfulness", "pairs")  # fmt: skip
    kept = without_measured_on(pairs, sets["pairs"], against, drops)
    assert [pair.chosen[-1]["content"] for pair in kept] == [f"yes {n}" for n in (0, 1, 3, 4, 5)]
    assert drops.counts == {"measured on": 3}
    labels, drops = read_labels(open_labels(sets["labels"], "train", 0, 0)[0], "whole_response", "labels")
    assert len(without_measured_on(labels, sets["labels"], against, drops)) == 5
    assert drops.counts == {"measured on": 3}
    assert without_measured_on(labels, sets["labels"], None, drops) is labels


def test_a_micro_world_without_other_sets_compares_nothing(monkeypatch):
    """Its seeds give what they gave: no row of it goes, and no time is spent on looking for one."""
    monkeypatch.setattr(problem_sets, "decontaminate", None)
    config = ProblemConfig(general_dataset="micro", general_size=20, train_size=20, validation_size=5)
    validation = training_problems(config)[1]
    assert len(general_prompts(config, validation)) == 20
    rows = general_rows("micro", 10, seed=0)
    assert drop_held_out(rows, "micro", config, validation) is rows


def test_a_set_of_several_configurations_is_named_with_one(monkeypatch):
    opened = []
    monkeypatch.setattr(problem_sets, "load_texts", lambda *args, **given: opened.append((args, given)))
    problem_sets._measured_on("x", ProblemConfig(decontaminate_against={"gsm8k": "main/test", "aime": "train"}), None)
    assert opened == [(("gsm8k",), {"split": "test", "name": "main"}), (("aime",), {"split": "train", "name": None})]


def test_decontamination_that_leaves_nothing_or_has_nothing_to_compare_with_says_so(overlapping):
    config = ProblemConfig(dataset=overlapping["aime"], eval_dataset=overlapping["dataset"])
    with pytest.raises(ValueError, match=r"every one of the 4 rows of .*decontaminate: false"):
        training_problems(config)
    with pytest.raises(ValueError, match="decontaminate: true has nothing to compare"):
        training_problems(ProblemConfig(dataset=overlapping["dataset"], decontaminate=True))


def test_forty_thousand_problems_take_seconds(tmp_path):
    """DeepScaleR's number of problems, of 50 words each, against as many as MATH-500 has."""
    draw = random.Random(0)
    texts = [" ".join(f"word{draw.randrange(5000)}" for _ in range(50)) for _ in range(40_000)]
    path = tmp_path / "measured.jsonl"
    rows = [{"problem": f"Solve this. {text}"} for text in texts[:500]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = ProblemConfig(dataset="rows", eval_dataset=str(path))
    began = time.process_time()
    kept = without_held_out(Dataset.from_dict({"problem": texts}), "rows", config)
    assert time.process_time() - began < 20  # 3 on two cores of 2026
    assert kept["problem"][:] == texts[500:]
