"""The data stages from their settings to their folders. Models are random, so their chains are written here."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset, load_from_disk

from data.corpus.solutions import worked_example
from data.drops import log_drops
from data.problems import content_hash, make_problems, split_of
from data.tasks import TASKS
from data.templates import render_prompts
from grpo.loading import load_tokenizer
from recipes import cold_start, rejection
from recipes.chains import COLUMNS, Chain, NothingKeptError, sft_features
from recipes.cold_start import few_shot_prompts
from recipes.gathering import SamplingSettings, sample_chains, write_stage

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"train_size": 12, "samples": 2, "max_completion_length": 12, "cpu_threads": 1}


def flags(output, **changed):
    settings = {"output_dir": output} | SMALL | changed
    return [str(part) for name, value in settings.items() for part in (f"--{name}", value)]


def written(asked):
    """In place of sample_chains: of two responses to a prompt one is right, and notes who was asked for what."""

    def sample(model_path, problems, settings, source, stream=0):
        asked.append((source, model_path, problems["prompt"][0], stream, settings.samples))
        chains = []
        for number, row in enumerate(problems):
            right = row["answer"] if row["task"] != "countdown" else "1"
            steps = "\n".join(f"{n} + {number} = {n + number}" for n in range(1, 4))
            for seed, answer in enumerate((right, "-12345")):
                text = f"<think> {steps} </think> <answer> {answer} </answer>"
                chain = Chain(
                    problem=row, text=text, source=source, model=model_path, seed=seed, prompt=str(row["prompt"])
                )
                chains.append(chain)
        return chains

    return sample


def run(stage, argv):
    stage.main(*stage.settings(argv))


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_a_response_depends_on_its_seed_and_not_on_its_neighbours(tiny_model):
    problems = render_prompts(make_problems("train", 4), "r1_zero_short")
    settings = SamplingSettings(samples=2, max_completion_length=6, cpu_threads=1)

    def texts(problems, **changed):
        chains = sample_chains(tiny_model, problems, settings, "r1-zero", **changed)
        return [(chain.problem["id"], chain.seed, chain.text) for chain in chains]

    four = texts(problems)
    assert len(set(four)) == 8
    assert texts(problems.select([0, 1])) == four[:4]
    assert [text for *_, text in texts(problems, stream=1)] != [text for *_, text in four]


def test_the_reasoning_that_a_prompt_opens_is_part_of_the_chain(tiny_model):
    problems = render_prompts(make_problems("train", 1), "User: {problem}\nAssistant: <think>")
    settings = SamplingSettings(samples=1, max_completion_length=4, cpu_threads=1)
    (chain,) = sample_chains(tiny_model, problems, settings, "few-shot")
    assert chain.text.startswith("<think>")
    assert chain.prompt == problems["prompt"][0]
    assert not chain.finished


# --- few-shot prompts -------------------------------------------------------------------------------------------------


def test_examples_are_worked_out_right_and_come_from_no_held_out_problem():
    rng = random.Random(0)
    for split in ("train", "pretrain"):
        for _ in range(20):
            question, reasoning, answer = worked_example("arithmetic", 2, "en", rng, split)
            expression = re.search(r"[\d(][\d+*() -]*\d\)?", question)[0]
            assert split_of(content_hash("arithmetic", expression)) == split
            assert reasoning.endswith(f"= {answer}")
    with pytest.raises(ValueError, match="train or pretrain, got 'test'"):
        worked_example("arithmetic", 2, "en", rng, "test")


@pytest.mark.parametrize("task", TASKS)
def test_an_example_notices_a_slip(task):
    """The step before the notice is wrong, and the one behind it is the same step put right."""
    rng = random.Random(1)
    for _ in range(5):
        _, reasoning, _ = worked_example(task, 2, "en", rng)
        slips = [i for i, line in enumerate(reasoning.splitlines()) if re.search("Wait|No, let|Hmm", line)]
        assert len(slips) <= 1
        if slips:
            wrong, right = reasoning.splitlines()[slips[0] : slips[0] + 2]
            assert not wrong.startswith(right)
            assert wrong[:2] == right[:2]


def test_few_shot_prompts_show_as_many_examples_as_fit(tiny_model):
    problems = render_prompts(make_problems("train", 30), "r1_zero_short")
    tokenizer = load_tokenizer(tiny_model)
    config = SimpleNamespace(model_name_or_path=tiny_model, shots=2, examples=None, open_reasoning=True)
    sampling = SamplingSettings(max_completion_length=200, cpu_threads=1)
    prompts = few_shot_prompts(problems, config, "r1_zero_short", sampling)["prompt"]
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    shown = [prompt.count("</answer>\nUser:") for prompt in prompts]
    assert max(lengths) <= 512 - 200
    assert set(shown) == {0, 1, 2} or set(shown) == {1, 2}
    for row, prompt in zip(problems, prompts):
        assert prompt.endswith("Assistant: <think>")
        assert prompt.count(row["problem"].strip()) == 1
    config.shots = 0
    assert few_shot_prompts(problems, config, "r1_zero_short", sampling)["prompt"] == [
        f"{prompt} <think>" for prompt in problems["prompt"]
    ]


def test_problems_of_another_world_need_examples_of_their_own():
    row = {"task": "math", "problem": "1+1?", "difficulty": 0, "language": "en"}
    with pytest.raises(ValueError, match="few-shot prompting needs examples for problems of task 'math'"):
        cold_start.choose_examples(row, 1, random.Random(0), None)
    pool = [("1+1?", "one and one", "2"), ("2+2?", "two and two", "4")]
    assert cold_start.choose_examples(row, 2, random.Random(0), pool) == [pool[1]]


# --- cold start -------------------------------------------------------------------------------------------------------


def test_the_cold_start_set_has_its_provenance(tiny_model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cold_start, "sample_chains", written(asked))
    row = {"problem": "What is 2 + 2 + 2?", "reasoning": "2 + 2 = 4\n4 + 2 = 6\nso six it is", "answer": "6"}
    summaries = ("Two and two and two make $\\boxed{6}$.", "It is $\\boxed{7}$.", "It is $\\boxed{6}$, I think.")
    row["language"] = "en"
    external = [
        row | {"summary": "", "source_id": "#boxed", "reasoning": f"{row['reasoning']}: $\\boxed{{6}}$"},
        row | {"summary": "", "source_id": "#without an answer"},
        *(row | {"summary": summary, "source_id": f"#{n}"} for n, summary in enumerate(summaries)),
    ]
    dropped = {"name": "without a closed reasoning", "dropped": 2, "examples": ["Let me see", "Hm"]}

    def load_chains(source, limit, guess):
        log_drops(source, {"filters": [dropped], "kept": limit, "seen": limit + 2})
        return external[:limit]

    monkeypatch.setitem(sys.modules, "data.chains", SimpleNamespace(load_chains=load_chains))
    sources = {"model_name_or_path": tiny_model, "r1_zero_model": "zero", "external": "theirs", "external_size": 4}
    sources |= {"template": "r1_zero_short", "r1_zero_samples": 1}
    run(cold_start, flags(tmp_path / "data", **sources))

    rows = load_from_disk(str(tmp_path / "data/dataset"))
    assert rows.features == sft_features()
    assert rows.column_names == ["prompt", "completion", *COLUMNS]
    problems = {row["id"]: row for row in make_problems("train", 12)}
    countable = sum(row["task"] != "countdown" for row in problems.values())
    assert [(source, model) for source, model, *_ in asked] == [("few-shot", tiny_model), ("r1-zero", "zero")]
    assert asked[0][2].endswith("<think>")
    assert asked[1][2].endswith("Assistant:")
    assert asked[0][3] != asked[1][3]  # other random numbers
    assert [samples for *_, samples in asked] == [2, 1]
    counts = {source: sum(row["source"] == source for row in rows) for source in ("few-shot", "r1-zero", "external")}
    # Both models wrote the same here, so the second's are duplicates.
    assert counts == {"few-shot": countable, "r1-zero": 0, "external": 2}
    for row in rows:
        if row["source"] == "external":
            assert (row["model"], row["task"], row["prompt"][0]["content"]) == ("theirs", "math", "What is 2 + 2 + 2?")
            assert row["source_id"] in ("#boxed", "#0", "#1")
            assert (row["sampled_prompt"], row["raw_response"].count("</think>")) == ("", 1)
        else:
            problem = problems[row["problem_id"]]
            assert row["prompt"] == [{"role": "user", "content": problem["problem"]}]
            assert (row["task"], row["language"], row["seed"]) == (problem["task"], problem["language"], 0)
            assert row["model"] == tiny_model
            assert row["sampled_prompt"].endswith("\nAssistant: <think>")
            assert problem["problem"] in row["sampled_prompt"]
            assert row["raw_response"].endswith(f"</think> <answer> {problem['answer']} </answer>")
        assert row["kind"] == "reasoning"
        assert row["kept_because"]
    report = json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))
    assert report["filters"][0] == dropped | {"name": f"theirs: {dropped['name']}", "sources": {"external": 2}}
    assert report["sources"]["external"] == {"seen": 6, "kept": 2}
    assert report["seen"] == 2 * 2 * 12 + 6 == report["kept"] + sum(one["dropped"] for one in report["filters"])
    assert report["kept"] == len(rows)
    assert (tmp_path / "data/config.yaml").exists()


def test_a_model_that_writes_nothing_readable_ends_in_a_clear_error(tiny_model, tmp_path):
    with pytest.raises(NothingKeptError, match=r"none of 24 chains passed the filters \(finished dropped \d+.*samples"):
        run(cold_start, flags(tmp_path / "data", r1_zero_model=tiny_model))
    report = json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))
    assert (report["seen"], report["kept"]) == (24, 0)
    assert sum(len(one["examples"]) for one in report["filters"]) > 0
    assert not list((tmp_path / "data").glob("dataset*"))


def test_an_older_set_is_not_taken_for_that_of_a_call_that_kept_nothing(tiny_model, tmp_path):
    folder = tmp_path / "data"
    write_stage(folder, Dataset.from_list([{"x": 1}]), {"kept": 1}, ())
    with pytest.raises(NothingKeptError):
        run(cold_start, flags(folder, r1_zero_model=tiny_model))
    assert not (folder / "dataset").exists()
    assert load_from_disk(str(folder / "dataset.older"))["x"] == [1]


def test_without_a_source_there_is_nothing_to_gather(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cold_start.settings(flags(tmp_path))
    assert "no source of chains: set model_name_or_path, r1_zero_model or external" in capsys.readouterr().err


def test_an_older_set_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    rows = Dataset.from_list([{"x": 1}])
    write_stage(tmp_path, rows, {"kept": 1}, ())
    monkeypatch.setattr(Dataset, "save_to_disk", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write_stage(tmp_path, Dataset.from_list([{"x": 2}]), {"kept": 1}, ())
    assert load_from_disk(str(tmp_path / "dataset"))["x"] == [1]


# --- rejection sampling -----------------------------------------------------------------------------------------------


def general(split, size, *, seed=0):
    """General rows as data.general writes them."""
    row = dict.fromkeys(COLUMNS, "") | {"kind": "general", "language": "en", "source": "general", "seed": seed}
    turns = {"prompt": [{"role": "user", "content": "Hi"}]}
    answers = [[{"role": "assistant", "content": f"<answer>{split} {n}</answer>"}] for n in range(size)]
    return Dataset.from_list([row | turns | {"completion": answer} for answer in answers])


@pytest.fixture
def sampled(monkeypatch):
    asked = []
    monkeypatch.setattr(rejection, "sample_chains", written(asked))
    return asked


@pytest.mark.parametrize(("ratio", "expected"), [(3.0, lambda n: round(n / 3)), (0.5, lambda n: 2 * n)])
def test_reasoning_and_general_rows_are_blended_at_the_ratio(sampled, tmp_path, ratio, expected):
    settings = {"model_name_or_path": "dev2", "template": "chat", "general": "test_data_stages:general"}
    run(rejection, flags(tmp_path / "data", **settings, reasoning_to_general=ratio, train_size=30))
    rows = load_from_disk(str(tmp_path / "data/dataset"))
    kinds = [row["kind"] for row in rows]
    reasoning = sum(row["task"] != "countdown" for row in make_problems("train", 30))
    assert kinds.count("reasoning") == reasoning
    assert kinds.count("general") == expected(reasoning)
    assert kinds != sorted(kinds, reverse=True)  # shuffled
    assert rows.features == sft_features()
    assert {row["source"] for row in rows} == {"rejection", "general"}
    assert sampled[0][:2] == ("rejection", "dev2")
    assert [turn["role"] for turn in sampled[0][2]] == ["user"]
    report = json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))
    counted = {"seen": kinds.count("general"), "kept": kinds.count("general")}
    assert report["general"] == kinds.count("general")
    assert report["sources"] == {"rejection": {"seen": 60, "kept": reasoning}, "general": counted}
    assert report["kept"] == len(rows)
    assert report["seen"] == len(rows) + sum(one["dropped"] for one in report["filters"])
    assert next(one["dropped"] for one in report["filters"] if one["name"] == "correct") >= 30


def test_what_the_general_set_lost_is_in_the_report(sampled, tmp_path):
    """A set of another kind, of which rows cannot be read: they are counted, and the others fill the columns."""
    rows = [{"instruction": f"Say {n}", "output": f"{n}!"} for n in range(40)]
    rows += [{"instruction": f"Think {n}", "output": "<think>no</think>"} for n in range(40)]
    general_set = tmp_path / "alpaca.jsonl"
    general_set.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"model_name_or_path": "dev2", "template": "chat", "general": str(general_set)}
    run(rejection, flags(tmp_path / "data", **settings, reasoning_to_general=0.5, train_size=30))
    report = json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))
    lost = report["filters"][0]
    assert lost["name"] == f"{general_set}: with tags of their own"
    assert lost["dropped"] == lost["sources"]["general"] > 0
    assert lost["examples"] == ["<think>no</think>"] * 3
    assert report["sources"]["general"] == {"seen": report["general"] + lost["dropped"], "kept": report["general"]}
    assert report["seen"] == report["kept"] + sum(one["dropped"] for one in report["filters"])
    written = load_from_disk(str(tmp_path / "data/dataset"))
    assert {row["raw_response"] == "" for row in written if row["kind"] == "general"} == {True}
    assert {row["raw_response"] == "" for row in written if row["kind"] == "reasoning"} == {False}


def test_a_chat_prompt_is_kept_as_the_template_renders_it(tiny_model):
    problems = render_prompts(make_problems("train", 1), "chat")
    (chain,) = sample_chains(tiny_model, problems, SamplingSettings(samples=1, max_completion_length=4), "rejection")
    tokenizer = load_tokenizer(tiny_model)
    rendered = tokenizer.apply_chat_template(problems["prompt"][0], tokenize=False, add_generation_prompt=True)
    assert chain.prompt == rendered


@pytest.mark.slow
def test_processes_share_the_prompts_and_one_writes(tmp_path):
    """Of two processes comes what comes of one."""
    asked = flags("", model_name_or_path=ROOT / "data/student", template="r1_zero_short", general="micro")
    asked += ["--train_size", "24", "--max_completion_length", "100", "--tasks", "arithmetic"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name, processes in (("one", 1), ("two", 2)):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [*launch, str(ROOT / "recipes/rejection.py"), *asked, "--output_dir", str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("of them general") == 1
    one, two = (load_from_disk(str(tmp_path / name / "dataset")) for name in ("one", "two"))
    assert list(one) == list(two)


def test_general_rows_of_what_is_measured_on_are_dropped_and_counted(sampled, tmp_path):
    problem = "In a village live nine bakers, and each of them bakes forty loaves a day. How many loaves is that?"
    asked = [problem if n % 2 else f"Write a poem about the number {n}." for n in range(20)]
    rows = [{"prompt": text, "response": f"Well, {n}."} for n, text in enumerate(asked)]
    paths = {"measured": [{"problem": problem}], "general": rows}
    for name, content in paths.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    against = json.dumps({str(tmp_path / "measured.jsonl"): "test"})
    settings = {"model_name_or_path": "dev2", "template": "chat", "general": tmp_path / "general.jsonl"}
    settings |= {"decontaminate_against": against, "reasoning_to_general": 0.1}
    run(rejection, flags(tmp_path / "data", **settings))
    kept = [row for row in load_from_disk(str(tmp_path / "data/dataset")) if row["kind"] == "general"]
    assert {row["prompt"][-1]["content"] for row in kept} == set(asked) - {problem}
    report = json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))
    first = report["filters"][0]
    assert (first["name"], first["dropped"]) == (f"{tmp_path / 'general.jsonl'}: measured on", 10)
    assert report["sources"]["general"] == {"seen": 20, "kept": 10}


def test_a_general_set_that_is_too_small_is_taken_whole(tmp_path, caplog):
    general("train", 3).save_to_disk(str(tmp_path / "general"))
    rows = rejection.general_rows(str(tmp_path / "general"), 5, seed=0)
    assert len(rows) == 3
    assert "3 general rows where the blend asks for 5" in caplog.text


def test_general_rows_that_lack_a_column_or_do_not_exist_are_errors(tmp_path):
    general("train", 3).remove_columns("kept_because").save_to_disk(str(tmp_path / "general"))
    with pytest.raises(ValueError, match=r"lack the column\(s\) kept_because"):
        rejection.general_rows(str(tmp_path / "general"), 2, seed=0)
    with pytest.raises(ValueError, match="names no function that can be imported"):
        rejection.general_rows("test_data_stages:nothing", 2, seed=0)
    with pytest.raises(ValueError, match="no SFT data set at"):
        rejection.general_rows(str(tmp_path / "missing"), 2, seed=0)


def test_a_bad_general_set_is_found_before_anything_is_sampled(sampled, tmp_path):
    with pytest.raises(ValueError, match="no SFT data set at"):
        run(rejection, flags(tmp_path / "data", model_name_or_path="dev2", general=str(tmp_path / "missing")))
    assert sampled == []


def test_a_ratio_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="reasoning_to_general must be above 0, got 0"):
        rejection.RejectionConfig(model_name_or_path="dev2", reasoning_to_general=0)
