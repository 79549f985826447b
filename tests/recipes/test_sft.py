"""The SFT stage: what carries the loss, what is dropped, where generation stops, and runs that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GenerationConfig

from data.corpus.solutions import worked_example
from data.problems import make_problems
from grpo.loading import load_policy, load_tokenizer, stop_tokens
from grpo.sampling import Sampler, SamplingConfig
from recipes import sft
from recipes.chains import Chain, FilterConfig, sft_rows
from recipes.row_order import LikeLengths
from recipes.sft import SFTConfig, check_template, drop_long_rows, load_rows, make_trainer, set_stop_token

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/micro/sft.yaml"
SMALL = {
    "config": RECIPE, "use_cpu": True, "cpu_threads": 1, "num_train_epochs": 2, "per_device_train_batch_size": 4,
    "save_steps": 2, "logging_steps": 1,
}  # fmt: skip


def example_rows(size):
    """Correct chains in R1's pattern, from the project's worked solutions."""
    rng = random.Random(0)
    problems = make_problems("train", size, tasks=["arithmetic", "equations"], difficulties=[1, 2])
    chains = []
    for row in problems:
        question, reasoning, answer = worked_example(row["task"], row["difficulty"], row["language"], rng)
        problem = row | {"problem": question, "answer": answer}
        text = f"<think>{reasoning}</think><answer>{answer}</answer>"
        chains.append(Chain(problem=problem, text=text, source="few-shot"))
    return sft_rows(chains, FilterConfig())


@pytest.fixture(scope="module")
def rows():
    return example_rows(16)


@pytest.fixture(scope="module")
def dataset(rows, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("sft") / "dataset")
    rows.save_to_disk(path)
    return path


def flags(model, dataset, output, *more, **changed):
    settings = SMALL | {"model_name_or_path": model, "dataset": dataset, "output_dir": output} | changed
    return [*more, *(str(part) for name, value in settings.items() for part in (f"--{name}", value))]


def run(argv):
    return sft.main(*sft.settings(argv))


def lines(path):
    """A run's metrics without what a clock measured."""
    text = (path / "metrics.jsonl").read_text(encoding="utf-8")
    return [{key: value for key, value in json.loads(line).items() if key != "elapsed"} for line in text.splitlines()]


def status(path):
    return json.loads((path / "status.json").read_text())


def assert_same_weights(one, other):
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path / "model").state_dict() for path in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_the_loss_is_on_the_response_and_its_end_and_on_nothing_else(tiny_model, rows, tmp_path):
    """Against the pieces of a conversation, each tokenized alone."""
    tokenizer = load_tokenizer(tiny_model)
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_length=512)
    trainer = make_trainer(load_policy(tiny_model, args), tokenizer, rows, args)
    user, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    assert len(trainer.train_dataset) == len(rows)
    for row, trained in zip(rows, trainer.train_dataset):
        question = tokenizer(row["prompt"][0]["content"])["input_ids"]
        response = tokenizer(row["completion"][0]["content"])["input_ids"]
        assert trained["input_ids"] == [user, *question, assistant, *response, tokenizer.eos_token_id]
        assert trained["labels"] == [-100] * (len(question) + 2) + [*response, tokenizer.eos_token_id]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    longest = max(len(trainer.train_dataset[i]["input_ids"]) for i in range(4))
    assert batch["labels"].shape == (4, longest)
    assert (batch["labels"] != -100).sum() == sum(
        len(tokenizer(row["completion"][0]["content"])["input_ids"]) + 1 for row in rows.select(range(4))
    )


def test_the_loss_is_the_mean_over_the_response_of_plain_transformers(tiny_model, rows, tmp_path):
    """TRL computes it through a fused head; here once more from the logits."""
    tokenizer = load_tokenizer(tiny_model)
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_length=512)
    trainer = make_trainer(load_policy(tiny_model, args), tokenizer, rows, args)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    total, count = 0.0, 0
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    for row in rows.select(range(3)):
        prompt = tokenizer(f"<|user|>{row['prompt'][0]['content']}<|assistant|>")["input_ids"]
        response = [*tokenizer(row["completion"][0]["content"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = plain(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        for place, token in enumerate(response, start=len(prompt)):
            total, count = total - logprobs[place - 1, token].item(), count + 1
    assert loss.item() == pytest.approx(total / count, rel=1e-4)


def test_a_row_that_is_too_long_is_dropped_and_counted_not_cut(tiny_model, rows, caplog):
    tokenizer = load_tokenizer(tiny_model)
    lengths = [
        3 + sum(len(tokenizer(row[side][0]["content"])["input_ids"]) for side in ("prompt", "completion"))
        for row in rows
    ]
    limit = sorted(lengths)[len(lengths) // 2]
    kept, report = drop_long_rows(rows, tokenizer, limit)
    expected = [i for i, length in enumerate(lengths) if length <= limit]
    assert 0 < len(expected) < len(rows)
    assert kept["completion"] == rows.select(expected)["completion"]
    (one,) = report["filters"]
    assert (one["name"], one["dropped"]) == ("max_length", len(rows) - len(expected))
    assert (report["kept"], report["seen"]) == (len(expected), len(rows))
    assert f"{max(lengths)} tokens" in caplog.text
    with pytest.raises(ValueError, match=f"all 16 rows are longer than max_length 9 .the shortest has {min(lengths)} "):
        drop_long_rows(rows, tokenizer, 9)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_generation_stops_where_the_template_ends_a_turn(tiny_model, rows):
    tokenizer = load_tokenizer(tiny_model)
    assert check_template(rows[0], tokenizer) == tokenizer.eos_token_id
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    end = check_template(rows[0], tokenizer)
    assert end == tokenizer.convert_tokens_to_ids("<|im_end|>") != tokenizer.eos_token_id
    model = load_policy(tiny_model, SFTConfig(output_dir="unused", use_cpu=True))
    set_stop_token(model, tokenizer, end)
    assert stop_tokens(model, tokenizer) == sorted({tokenizer.eos_token_id, end})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML.replace("m['content']", "m['content'].split('</think>')[-1]"), "changes the response it renders"),
        (
            CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n{% endif"),
            "sampling would differ from training",
        ),
        (CHATML.replace("<|im_end|>", ""), "no special token ends an assistant's turn"),
    ],
)
def test_templates_that_would_teach_something_else_are_errors(tiny_model, rows, template, message):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=message):
        check_template(rows[0], tokenizer)


def test_a_template_is_tried_on_a_chain_too(tiny_model, tmp_path):
    """The first row of a blended set may be a general one, which has no reasoning to lose."""
    row = {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello!"}]}
    chain, end = example_rows(1)[0], load_tokenizer(tiny_model).eos_token
    Dataset.from_list([row, {name: chain[name] for name in row}]).save_to_disk(str(tmp_path / "blend"))
    (tmp_path / "strips.jinja").write_text(
        CHATML.replace("m['content']", "m['content'].split('</think>')[-1]").replace("<|im_end|>", end)
    )
    argv = flags(tiny_model, tmp_path / "blend", tmp_path / "run", chat_template_path=tmp_path / "strips.jinja")
    with pytest.raises(ValueError, match="changes the response it renders"):
        run(argv)


def test_a_tokenizer_without_a_template_takes_one_from_a_file(tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink(missing_ok=True)
    args = SFTConfig(output_dir="unused", use_cpu=True)
    with pytest.raises(ValueError, match="has no chat template, and conversations need one; set chat_template_path"):
        sft.sft_tokenizer(str(tmp_path / "bare"), args)
    (tmp_path / "chatml.jinja").write_text(CHATML)
    args.chat_template_path = str(tmp_path / "chatml.jinja")
    assert sft.sft_tokenizer(str(tmp_path / "bare"), args).chat_template == CHATML


# --- input ------------------------------------------------------------------------------------------------------------


def test_rows_come_from_a_folder_or_a_file(rows, dataset, tmp_path):
    rows.to_json(tmp_path / "rows.jsonl")
    assert load_rows(str(tmp_path / "rows.jsonl"))["completion"] == load_rows(dataset)["completion"]


def test_sets_that_cannot_be_trained_on_are_errors(rows, tmp_path):
    with pytest.raises(ValueError, match="no SFT data set at"):
        load_rows(str(tmp_path / "missing"))
    rows.remove_columns("completion").save_to_disk(str(tmp_path / "half"))
    with pytest.raises(ValueError, match=r"lacks the column\(s\) completion"):
        load_rows(str(tmp_path / "half"))
    Dataset.from_list([{"prompt": "2 + 2?", "completion": "4"}]).save_to_disk(str(tmp_path / "texts"))
    with pytest.raises(ValueError, match=r"hold '2 \+ 2\?' and '4'; prompt and completion are conversations"):
        load_rows(str(tmp_path / "texts"))
    rows.select([]).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has no rows"):
        load_rows(str(tmp_path / "none"))


def test_a_length_beyond_the_context_is_an_error(tiny_model, dataset, tmp_path):
    with pytest.raises(ValueError, match="max_length 600 exceeds the model's context of 512 tokens"):
        run(flags(tiny_model, dataset, tmp_path / "run", max_length=600))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_train_epochs": 0}, "num_train_epochs must be above 0, got 0"),
        ({"num_train_epochs": -1}, "num_train_epochs must be above 0, got -1"),
        ({"max_steps": 0}, "max_steps is 0, so nothing would be trained"),
    ],
)
def test_a_run_of_no_step_is_refused_before_anything_is_written(
    tiny_model, dataset, tmp_path, capsys, changed, message
):
    with pytest.raises(SystemExit):
        run(flags(tiny_model, dataset, tmp_path / "run", **changed))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_model, dataset, tmp_path_factory):
    return run(flags(tiny_model, dataset, tmp_path_factory.mktemp("runs") / "run"))


def test_a_run_is_a_folder_as_every_other(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "metrics.jsonl", "status.json", "filters.json", "model", "checkpoint-6", "checkpoint-8",
        "README.md",
    }  # fmt: skip
    assert status(finished) == {"state": "finished", "step": 8, "max_steps": 8, "error": None}
    metrics = lines(finished)
    assert [line["step"] for line in metrics] == list(range(1, 9))
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    peak = max(line["learning_rate"] for line in metrics)
    assert metrics[-1]["learning_rate"] >= 0.1 * peak  # R1's cosine ends at a tenth


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a machine without a GPU, where no use_cpu is asked for")
def test_a_run_on_a_cpu_warns_of_no_pinned_memory(tiny_model, dataset, tmp_path, recwarn):
    run(flags(tiny_model, dataset, tmp_path / "run", max_steps=1, use_cpu=False))
    assert not [str(one.message) for one in recwarn if "pin_memory" in str(one.message)]


def test_the_model_is_plain_and_stops_where_training_ended(finished, tiny_model):
    tokenizer = load_tokenizer(str(finished / "model"))
    assert tokenizer.chat_template == load_tokenizer(tiny_model).chat_template
    model = load_policy(str(finished / "model"), SFTConfig(output_dir="unused", use_cpu=True))
    assert stop_tokens(model, tokenizer) == [tokenizer.eos_token_id]
    assert GenerationConfig.from_pretrained(finished / "model").eos_token_id == tokenizer.eos_token_id
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert before.keys() == model.state_dict().keys()


def test_a_run_that_breaks_off_resumes_to_the_same_weights(finished, tiny_model, dataset, tmp_path, monkeypatch):
    class Breaks(sft.ProgressPrinter):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise RuntimeError("the power went")

    argv = flags(tiny_model, dataset, tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(sft, "ProgressPrinter", Breaks)
        with pytest.raises(RuntimeError, match="the power went"):
            run(argv)
    assert status(tmp_path / "run")["state"] == "failed"
    cut = tmp_path / "run/checkpoint-6"  # what a kill leaves that came while a checkpoint was written
    cut.mkdir()
    (cut / "model.safetensors").write_bytes(b"half")
    assert run([*argv, "--resume"]) == tmp_path / "run"
    assert status(tmp_path / "run")["state"] == "finished"
    assert lines(tmp_path / "run") == lines(finished)
    assert_same_weights(tmp_path / "run", finished)


def test_half_an_epoch_that_is_done_gets_no_step_more(tiny_model, tmp_path, monkeypatch):
    example_rows(22).save_to_disk(str(tmp_path / "rows"))
    changed = {"max_steps": -1, "num_train_epochs": 1.5, "save_steps": 1, "per_device_train_batch_size": 4}
    argv = flags(tiny_model, tmp_path / "rows", tmp_path / "run", **changed)
    path = run(argv)
    (path / "model").rename(tmp_path / "model")
    run([*argv, "--resume"])
    assert status(path) == {"state": "finished", "step": 9, "max_steps": 9, "error": None}
    assert_same_weights(path, tmp_path)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_a_run_resumes_in_the_middle_of_a_later_epoch(tiny_model, tmp_path, monkeypatch, strategy):
    """Where the order of rows is another one than in the first."""
    example_rows(22).save_to_disk(str(tmp_path / "rows"))
    changed = {"train_sampling_strategy": strategy, "max_steps": -1, "num_train_epochs": 3, "save_steps": 1}
    changed |= {"per_device_train_batch_size": 4, "save_total_limit": 2}
    whole = run(flags(tiny_model, tmp_path / "rows", tmp_path / "whole", **changed))

    class Breaks(sft.ProgressPrinter):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 9:  # of 6 steps an epoch
                raise RuntimeError("the power went")

    argv = flags(tiny_model, tmp_path / "rows", tmp_path / "run", **changed)
    with monkeypatch.context() as patched:
        patched.setattr(sft, "ProgressPrinter", Breaks)
        with pytest.raises(RuntimeError, match="the power went"):
            run(argv)
    run([*argv, "--resume"])
    assert lines(tmp_path / "run") == lines(whole)
    assert_same_weights(tmp_path / "run", whole)


def test_every_epoch_has_another_order_which_its_number_decides():
    order = LikeLengths([random.Random(n).randint(1, 50) for n in range(40)], 4, seed=3)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    order.set_epoch(0)
    assert list(order) == first


def test_resuming_a_finished_run_changes_nothing(finished, tiny_model, dataset, tmp_path):
    argv = flags(tiny_model, dataset, tmp_path / "run", max_steps=3)
    first = run(argv)
    before = lines(first), AutoModelForCausalLM.from_pretrained(first / "model").state_dict()
    run([*argv, "--resume"])
    after = AutoModelForCausalLM.from_pretrained(first / "model").state_dict()
    assert lines(first) == before[0]
    assert all(torch.equal(before[1][name], after[name]) for name in after)


@pytest.mark.slow
def test_a_kill_9_costs_nothing_but_time(finished, tiny_model, dataset, tmp_path):
    """The same command, killed at several moments of its life, ends in the weights of a run that was left alone."""
    argv = [sys.executable, "-m", "recipes.sft", *flags(tiny_model, dataset, tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for step in (1, 3, 6):
        resume = ["--resume"] if (tmp_path / "run/config.yaml").exists() else []
        process = subprocess.Popen(argv + resume, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        metrics = tmp_path / "run/metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= step):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "run/model").exists()
    subprocess.run([*argv, "--resume"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert_same_weights(tmp_path / "run", finished)
    assert lines(tmp_path / "run") == lines(finished)


@pytest.mark.slow
def test_the_base_learns_the_pattern_from_a_few_rows(tmp_path):
    """On problems that it was not trained on. The base itself has no idea of the chat template."""
    from rewards import has_r1_format

    example_rows(160).save_to_disk(str(tmp_path / "dataset"))
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "save_steps": 1000, "learning_rate": 5e-4}
    trained = run(flags(ROOT / "data/base", tmp_path / "dataset", tmp_path / "run", **settings))
    held_out = make_problems("test", 24, tasks=["arithmetic", "equations"], difficulties=[1, 2])

    def share(path):
        tokenizer = load_tokenizer(str(path))
        model = load_policy(str(path), SFTConfig(output_dir="unused", use_cpu=True))
        prompts = [tokenizer(f"<|user|>{row['problem']}<|assistant|>")["input_ids"] for row in held_out]
        sampler = Sampler(model, stop_tokens(model, tokenizer), tokenizer.pad_token_id)
        sampling = SamplingConfig(max_new_tokens=160, temperature=0.6, top_p=0.95)
        groups = sampler.sample(prompts, [[n, n + 100] for n in range(len(prompts))], sampling)
        texts = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for group in groups for one in group]
        return sum(map(has_r1_format, texts)) / len(texts)

    assert share(ROOT / "data/base") < 0.2
    assert share(trained / "model") > 0.9


def test_a_row_is_a_conversation(tiny_model):
    """The micro base's role tokens are single tokens, and the tags are text that every tokenizer can write."""
    tokenizer = load_tokenizer(tiny_model)
    row = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": "1+1?"}], "completion": [{"role": "assistant", "content": "<think>"}]}]
    )[0]
    ids = sft.token_ids(row, tokenizer)
    assert tokenizer.decode(ids) == "<|user|>1+1?<|assistant|><think><|endoftext|>"
    special = [index for index in ids if index in tokenizer.all_special_ids]
    assert tokenizer.convert_ids_to_tokens(special) == ["<|user|>", "<|assistant|>", "<|endoftext|>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "1+1?<think>"  # the tags stay in what is sampled


def test_the_global_batch_size_decides_how_many_batches_an_update_takes(tiny_model, tmp_path):
    """Twelve rows, two a forward pass: updates of four are three, those of twelve are one."""
    example_rows(12).save_to_disk(str(tmp_path / "dataset"))
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no"}
    for size, steps in ((4, 3), (12, 1)):
        trained = run(
            flags(tiny_model, tmp_path / "dataset", tmp_path / f"run-{size}", **settings, global_batch_size=size)
        )
        assert json.loads((trained / "status.json").read_text())["step"] == steps
