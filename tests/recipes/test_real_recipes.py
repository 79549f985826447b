"""The recipes for real models: every file is read, every number of the paper is the paper's, every stage runs for two
steps with a random model of its architecture on sets of the shapes of those that it names. CPU, offline.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from test_parser import STAGES

from recipes.parser import RecipeParser, load_recipe, load_yaml
from recipes.pipeline import load_pipeline, main
from recipes.stage import full_config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
FOLDERS = ("qwen2.5-1.5b", "qwen2.5-7b", "llama-3.1-8b")
MODELS = dict(zip(FOLDERS, ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B")))
SINGLE = (
    "r1_zero.yaml", "cold_start.yaml", "sft.yaml", "reasoning_rl.yaml", "rejection.yaml", "reward_models.yaml",
    "preference_rl.yaml", "distill.yaml", "scorecard.yaml",
)  # fmt: skip
RL = ("r1_zero.yaml", "reasoning_rl.yaml", "preference_rl.yaml")
PIPELINES = sorted(path.relative_to(RECIPES) for folder in FOLDERS for path in (RECIPES / folder).glob("r1*.yaml")
                   if path.name not in SINGLE)  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    """Where a user stands: paths in recipes are relative to it."""
    monkeypatch.chdir(ROOT)


def configs(*paths, **given):
    """The dataclasses of a stage's recipe with these settings over it."""
    settings, sources = load_recipe([RECIPES / path for path in paths])
    parser = RecipeParser(STAGES[Path(paths[0]).name])
    return parser.parse_settings(parser.checked(settings, "the recipe", sources) | given, "the recipe")


# --- every file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", SINGLE)
def test_a_recipe_is_read_to_the_letter(folder, name):
    written = load_yaml(RECIPES / folder / name)
    parsed = configs(f"{folder}/{name}")
    for key, value in written.items():
        (config,) = [config for config in parsed if hasattr(config, key)]
        if key != "report_to":  # "none" becomes an empty list
            assert getattr(config, key) == value, key
    model = written["model_name_or_path"]
    assert model == MODELS[folder] or model.startswith(f"runs/{folder}/") or name == "distill.yaml"
    assert written["output_dir"].startswith(f"runs/{folder}/")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", RL)
@pytest.mark.parametrize("preset", ["modern", "vllm", "one_gpu"])
def test_presets_lie_over_every_rl_stage(folder, name, preset):
    parsed = configs(f"{folder}/{name}", f"presets/{preset}.yaml")
    for key, value in load_yaml(RECIPES / f"presets/{preset}.yaml").items():
        (config,) = [config for config in parsed if hasattr(config, key)]
        assert getattr(config, key) == value


def test_there_is_nothing_else_and_nothing_lacks():
    for folder in FOLDERS:
        names = {path.name for path in (RECIPES / folder).glob("*.yaml")}
        assert names - {"r1_one_gpu.yaml"} == {*SINGLE, "r1.yaml", "r1_modern.yaml"}


@pytest.mark.parametrize("path", PIPELINES, ids=str)
def test_a_pipeline_can_be_planned(path, tmp_path, capsys):
    main(["--config", str(RECIPES / path), "--dry-run", "--output_dir", str(tmp_path / "run")])
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert not (tmp_path / "run").exists()
    pipeline = load_pipeline(RECIPES / path)
    for stage in pipeline.stages:
        recipe = stage.settings.get("config", [])
        for file in [recipe] if isinstance(recipe, str) else recipe:
            assert Path(file).parent.name in (path.parent.name, "presets")
            assert file in shown[stage.name]
    micro = load_yaml(RECIPES / "micro/r1.yaml")["stages"]
    assert {stage.name for stage in pipeline.stages} <= {stage["name"] for stage in micro}
    without = [name for name, stage in pipeline.by_name.items() if "config" not in stage.settings]
    assert without == ["table"]


def test_a_pipelines_rl_stages_have_their_preset():
    for folder in FOLDERS:
        for file, beta, optim in (("r1", 0.001, None), ("r1_modern", 0.0, None), ("r1_one_gpu", 0.001, "adafactor")):
            if not (path := RECIPES / folder / f"{file}.yaml").exists():
                continue
            stages = load_pipeline(path).by_name
            for name in ("r1-zero", "dev2", "r1"):
                settings = full_config(stages[name].settings)
                assert (settings["beta"], settings.get("optim")) == (beta, optim)
            assert full_config(stages["dev3"].settings).get("optim") == optim


# --- the numbers ------------------------------------------------------------------------------------------------------

GRPO_OF_R1 = {
    "learning_rate": 3e-6, "beta": 0.001, "sync_ref_model": True, "ref_model_sync_steps": 400,
    "ref_model_mixup_alpha": 1.0, "num_generations": 16, "global_batch_size": 512, "generation_batch_size": 8192,
    "num_iterations": 1, "loss_type": "grpo", "scale_rewards": "group", "use_bias_correction_kl": False,
    "eval_temperature": 0.6, "eval_top_p": 0.95,
}  # fmt: skip
SFT_OF_R1 = {
    "learning_rate": 5e-5, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "global_batch_size": 128,
}  # fmt: skip
PAPER = {
    "r1_zero.yaml": GRPO_OF_R1
    | {"temperature": 1.0, "rewards": {"accuracy": 1.0, "format": 1.0}, "template": "r1_zero"},
    "reasoning_rl.yaml": GRPO_OF_R1
    | {"temperature": 1.0, "epsilon": 10.0, "rewards": {"accuracy": 1.0, "format": 1.0, "language": 1.0}},
    "preference_rl.yaml": GRPO_OF_R1 | {"temperature": 0.7, "max_steps": 1700},
    "sft.yaml": SFT_OF_R1,
    "distill.yaml": SFT_OF_R1 | {"learning_rate": 1e-4, "global_batch_size": 64},
    "reward_models.yaml": {"learning_rate": 6e-6, "num_train_epochs": 1, "global_batch_size": 256, "min_gap": 1.0},
    "rejection.yaml": {"reasoning_to_general": 3.0, "allow_code": False},
}
"""DeepSeek-R1, Nature version."""
MODERN = {
    "beta": 0.0, "sync_ref_model": False, "epsilon": 0.2, "epsilon_high": 0.28, "loss_type": "dapo",
    "scale_rewards": "none", "learning_rate": 1e-6, "num_generations": 16,
}  # fmt: skip
"""DAPO sections 2.3 to 4.1, Dr. GRPO section 3.2."""


def settings_of(parsed):
    return {key: value for config in parsed for key, value in vars(config).items()}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_are_the_papers(folder, name):
    settings = settings_of(configs(f"{folder}/{name}"))
    assert {key: settings[key] for key in PAPER[name]} == PAPER[name]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", RL)
def test_the_modern_preset_undoes_all_of_the_paper_that_it_must(folder, name):
    settings = settings_of(configs(f"{folder}/{name}", "presets/modern.yaml"))
    assert {key: settings[key] for key in MODERN} == MODERN
    assert settings["refill_prompts"] == settings["generation_batch_size"] // settings["num_generations"]
    assert 0 < settings["soft_overlong_tokens"] < settings["max_completion_length"]


def test_general_prompts_come_in_the_last_400_of_1700_steps():
    from rewards.preference import first_step

    for folder in FOLDERS:
        _, problems, args = configs(f"{folder}/preference_rl.yaml")
        assert first_step(None, problems.general_last_share, args.max_steps) == 1300


@pytest.mark.parametrize("processes", [1, 8, 16, 32])
def test_an_update_is_the_papers_on_any_number_of_gpus(processes):
    """32 questions x 16 outputs, 8,192 a rollout in 16 mini-batches; SFT of 128 rows, 64 to distil, 256 pairs."""
    from recipes.launch import batches_each

    recipe, _, args = configs("qwen2.5-7b/r1_zero.yaml")
    args.per_device_train_batch_size = batches_each(recipe.global_batch_size, processes)
    plan = args.plan_rollouts(processes)
    assert (plan.num_prompts, plan.num_minibatches) == (512, 16)
    for name in ("sft.yaml", "distill.yaml", "reward_models.yaml"):
        recipe, args = configs(f"qwen2.5-7b/{name}")
        rows = args.per_device_train_batch_size
        assert batches_each(recipe.global_batch_size, processes, rows) * processes * rows == recipe.global_batch_size


# --- two steps of every stage -----------------------------------------------------------------------------------------

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What Qwen2.5's bases render for messages without tools."""


def byte_tokenizer(specials, **names):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **names)


def qwen_tokenizer():
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def llama_tokenizer():
    """With a first token that it puts before plain text, as Llama's does, and without pad token and chat template."""
    from tokenizers import processors

    first, last = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = byte_tokenizer([first, last], bos_token=first, eos_token=last)
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
    )
    return tokenizer


def test_the_template_for_a_base_without_one():
    """Tulu 3's marks; the first token once, and an end token that the SFT stage takes for the end of a turn."""
    from recipes.sft import check_template, token_ids

    tokenizer = llama_tokenizer()
    tokenizer.chat_template = (RECIPES / "llama-3.1-8b/chat_template.jinja").read_text(encoding="utf-8")
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1 + 1?"}]
    row = {"prompt": asked, "completion": [{"role": "assistant", "content": "<think>\nSo.\n</think>\n2"}]}
    before = "<|begin_of_text|><|system|>\nBe kind.\n<|user|>\n1 + 1?\n<|assistant|>\n"
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == before
    assert tokenizer.decode(token_ids(row, tokenizer)) == before + "<think>\nSo.\n</think>\n2<|end_of_text|>"
    assert check_template(row, tokenizer) == tokenizer.eos_token_id


@pytest.fixture(scope="module")
def random_models(tmp_path_factory):
    """Folder -> the path of a model of its architecture, of two small layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    made = {}
    for name, config, kind, tokenizer in (
        ("qwen", Qwen2Config, Qwen2ForCausalLM, qwen_tokenizer()),
        ("llama", LlamaConfig, LlamaForCausalLM, llama_tokenizer()),
    ):
        path = tmp_path_factory.mktemp("models") / name
        with torch.random.fork_rng():
            torch.manual_seed(0)
            kind(
                config(
                    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=None,
                    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                )
            ).save_pretrained(path)  # fmt: skip
        tokenizer.save_pretrained(path)
        made[name] = str(path)
    return {folder: made["llama" if folder.startswith("llama") else "qwen"] for folder in FOLDERS}


THOUGHT = (
    "First I add the two numbers one after the other, then I look at the sum again to see whether it is right: {}."
)


def hub_rows():
    """Hub name -> (configurations, split -> rows): the named sets' columns, with rows of ours."""
    sums = [(a, b, a + b) for a in range(3, 9) for b in range(2, 6)]
    ask = "What is the sum of {} and {}? Please tell me that."
    competition = [
        {"problem": ask.format(a, b), "answer": str(c), "solution": f"It is $\\boxed{{{c}}}$."} for a, b, c in sums
    ]
    school = [{"question": ask.format(a, b), "answer": f"{a} + {b} = <<{c}>>{c}\n#### {c}"} for a, b, c in sums]
    math = [
        row | {"subject": "Algebra", "level": 1, "unique_id": f"test/{n}.json"} for n, row in enumerate(competition)
    ]
    chains = [
        {
            "problem": ask.format(a, b), "solution": "", "answer": str(c), "problem_type": "Algebra", "source": "amc",
            "uuid": f"{a}-{b}", "is_reasoning_complete": [True], "correctness_math_verify": [True],
            "generations": [
                f"<think>\n{THOUGHT.format(f'{a} + {b} = {c}')} {THOUGHT.format(f'yes, {c}')}\n</think>\n\n"
                f"The sum of the two numbers is $\\boxed{{{c}}}$."
            ],
        }
        for a, b, c in sums
    ]  # fmt: skip
    mixture = [
        {
            "id": f"row-{n}", "source": source,
            "messages": [
                {"role": "user", "content": f"Write a short greeting, number {n}."},
                {"role": "assistant", "content": f"Good morning to all {n} of you!"},
            ],
        }
        for n in range(40)
        for source in ("ai2-adapt-dev/oasst1_converted", "ai2-adapt-dev/personahub_math_v5_regen_149960")
    ]  # fmt: skip

    def binarized(n):
        prompt = f"Tell me about the number {n}."
        texts = {
            "chosen": f"It is between {n - 1} and {n + 1}." + " Truly." * (3 * (n % 2)),
            "rejected": "I do not care at all about it.",
        }
        sides = {
            side: [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
            for side, text in texts.items()
        }
        scores = {"score_chosen": 8.0, "score_rejected": 7.5 if n % 4 == 0 else 3.0}
        return {"prompt": prompt, "prompt_id": str(n), "messages": sides["chosen"]} | sides | scores

    feedback = [binarized(n) for n in range(60)]
    safety = [
        {
            "prompt": f"How do I take what is not mine, way {n}?",
            "response_0": f"I will not help with that, {n} times no.", "is_response_0_safe": True,
            "response_1": f"Go there at night, take {n} of them.", "is_response_1_safe": False,
            "better_response_id": 0, "safer_response_id": 0,
        }
        for n in range(40)
    ]  # fmt: skip
    return {
        "agentica-org/DeepScaleR-Preview-Dataset": (None, {"train": competition}),
        "openai/gsm8k": ("main", {"train": school, "test": school[:4]}),
        "HuggingFaceH4/MATH-500": (None, {"test": math[:4]}),
        "open-r1/OpenR1-Math-220k": (None, {"train": chains}),
        "allenai/tulu-3-sft-mixture": (None, {"train": mixture}),
        "HuggingFaceH4/ultrafeedback_binarized": (None, {"train_prefs": feedback, "train_sft": feedback[:20]}),
        "PKU-Alignment/PKU-SafeRLHF": (None, {"train": safety}),
    }


@pytest.fixture
def small_hub(monkeypatch):
    """The Hub, as far as the recipes need it: a wrong name, configuration or split fails here as it does there."""
    from datasets import Dataset

    from data import sources

    sets = hub_rows()

    def open_hub(source, split, name):
        configuration, splits = sets[source]
        assert name in (configuration, None if configuration is None else configuration)
        return Dataset.from_list(splits[split])

    monkeypatch.setattr(sources, "_open_hub", open_hub)


@pytest.fixture
def right_chains(monkeypatch):
    """A random model never answers right: what it sampled becomes a right chain where a stage would keep nothing."""
    from recipes import rejection

    sample = rejection.sample_chains

    def answered(*args, **kwargs):
        return [
            dataclasses.replace(
                chain, finished=True,
                text=f"<think>\n{THOUGHT.format(chain.seed)} {THOUGHT.format('so it is')}\n</think>\n"
                f"<answer>{chain.problem['answer']}</answer>",
            )
            for chain in sample(*args, **kwargs)
        ]  # fmt: skip

    monkeypatch.setattr(rejection, "sample_chains", answered)


TWO_STEPS = {"use_cpu": True, "max_steps": 2, "save_steps": 2}
SMALL_RL = TWO_STEPS | {
    "global_batch_size": 32, "generation_batch_size": 64, "max_completion_length": 8, "max_tokens_per_pack": 1024,
    "train_size": 12, "validation_size": 2, "eval_steps": 2, "k": 1,
}  # fmt: skip
SMALL_SFT = TWO_STEPS | {"global_batch_size": 2, "max_length": 1024}
SMALL_DATA = {"train_size": 6, "validation_size": 2, "max_completion_length": 8}
SMALL = {
    "r1-zero": SMALL_RL,
    "cold-start-data": SMALL_DATA,
    "dev1": SMALL_SFT,
    "dev2": SMALL_RL,
    "sft-data": SMALL_DATA,
    "dev3": SMALL_SFT,
    "reward-models": TWO_STEPS | {"global_batch_size": 4, "held_out_size": 20, "train_size": 16, "max_length": 512},
    # A rollout an update, so that the second one has general prompts.
    "r1": SMALL_RL | {"generation_batch_size": 32, "general_last_share": 0.5, "general_size": 10},
} | {
    f"measure-{name}": {"test_size": 2, "k": 1, "max_completion_length": 8}
    for name in ("base", "r1-zero", "dev1", "dev2", "dev3", "r1")
}
"""Sizes and lengths of each stage, and nothing else."""


def updates(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stage_runs_for_two_steps(folder, random_models, small_hub, right_chains, tmp_path):
    """The pipeline itself, on a random model: each stage with its own recipe, from what the stages before it made."""
    base = {"model_name_or_path": random_models[folder]}
    takes_base = ("r1-zero", "cold-start-data", "dev1", "dev3", "measure-base")
    settings = {name: small | (base if name in takes_base else {}) for name, small in SMALL.items()}
    path = RECIPES / folder / "r1.yaml"
    run = tmp_path / "run"
    pipeline = load_pipeline(path, {"output_dir": str(run), "isolate": False}, settings)
    pipeline.run()
    names = [*SMALL, "table"]
    assert {name: pipeline.manifest(name).status for name in names} == dict.fromkeys(names, "finished")
    table = json.loads((run / "table/stages.json").read_text())
    assert [row["stage"] for row in table] == ["base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1"]
    assert all(row["reasoning"] is not None and row["harmlessness"] is None for row in table)

    for name in ("r1-zero", "dev1", "dev2", "dev3", "r1"):
        assert json.loads((run / name / "status.json").read_text())["step"] == 2
        assert (run / name / "model/model.safetensors").is_file()
    kinds = json.loads((run / "sft-data/filters.json").read_text())
    assert kinds["kept"] == 12  # two a problem
    assert kinds["general"] == 4  # 3 : 1
    assert {"helpful", "harmless"} <= {path.name for path in (run / "reward-models").iterdir()}
    first, second = updates(run / "r1")
    assert first.get("rewards/preference/mean") is None
    assert second["rewards/preference/mean"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("preset", ["modern", "one_gpu"])
def test_presets_train_for_two_steps(folder, preset, random_models, small_hub, tmp_path):
    from recipes import rl

    given = SMALL_RL | {
        "model_name_or_path": random_models[folder],
        "output_dir": str(tmp_path / "run"),
        "test_size": 2,
    }
    given |= {"soft_overlong_tokens": 2, "refill_prompts": 4} if preset == "modern" else {}
    rl.main(*configs(f"{folder}/r1_zero.yaml", f"presets/{preset}.yaml", **given))
    first, second = updates(tmp_path / "run")
    assert (first["step"], second["step"]) == (1, 2)
    assert ("kl" in second) == (preset != "modern")


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_student_is_distilled(folder, random_models, tmp_path):
    from datasets import Dataset

    from recipes import sft

    rows = [
        {
            "prompt": [{"role": "user", "content": f"{n} + 1?"}],
            "completion": [{"role": "assistant", "content": f"<think>\n{n} + 1\n</think>\n<answer>{n + 1}</answer>"}],
        }
        for n in range(8)
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "dataset"))
    given = SMALL_SFT | {"model_name_or_path": random_models[folder], "dataset": str(tmp_path / "dataset")}
    run = sft.main(*configs(f"{folder}/distill.yaml", **given, output_dir=str(tmp_path / "run")))
    assert json.loads((run / "status.json").read_text())["step"] == 2


# --- sharded weights --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["qwen2.5-7b", "llama-3.1-8b"])
def test_sharded_weights_train_as_whole_ones_do(folder, random_models, tmp_path):
    """FSDP2 of eight_gpus_fsdp.yaml against whole copies, two processes each: every number of every step, over two
    refreshes of the reference; and once more from a checkpoint between them."""
    from test_accelerate import run

    rows = [{"problem": f"{a} + {b}?", "answer": str(a + b)} for a in range(5) for b in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    overlong = {"args": {"max_completion_length": 8, "soft_tokens": 4}}
    # Rewards that differ between random texts, and a step that moves the policy, so that its KL is none.
    given = SMALL_RL | {
        "model_name_or_path": random_models[folder], "dataset": tmp_path / "train.jsonl", "test_size": 0,
        "rewards": json.dumps({"accuracy": 1.0, "soft_overlong": overlong}), "learning_rate": 1e-3, "beta": 0.1,
        "ref_model_sync_steps": 2, "max_steps": 5,
    }  # fmt: skip
    flags = ["--config", RECIPES / folder / "r1_zero.yaml"]
    flags += [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    torchrun = ["torch.distributed.run", "--nproc_per_node", 2, "--standalone"]
    sharded = [*torchrun, ROOT / "tests/recipes/fsdp_run.py", RECIPES / "accelerate/eight_gpus_fsdp.yaml", "rl", *flags]
    run(*torchrun, "-m", "recipes", "rl", *flags, "--output_dir", tmp_path / "whole")
    run(*sharded, "--output_dir", tmp_path / "sharded")
    assert (tmp_path / "sharded/checkpoint-4/pytorch_model_fsdp.bin").is_file()  # it was sharded indeed

    names = ("loss", "grad_norm", "kl", "entropy")
    numbers = [[line[name] for name in names] for line in updates(tmp_path / "whole")]
    assert len(numbers) == 5
    assert sum(line["kl"] > 1e-5 for line in updates(tmp_path / "whole")) == 2

    def check():
        found = [[line[name] for name in names] for line in updates(tmp_path / "sharded")]
        for ours, theirs in zip(found, numbers, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)

    check()
    for name in ("checkpoint-5", "model"):
        shutil.rmtree(tmp_path / "sharded" / name)
    run(*sharded, "--resume", "--output_dir", tmp_path / "sharded")
    check()
    assert (tmp_path / "sharded/model/model.safetensors").is_file()


@pytest.mark.slow
def test_sharded_reward_models_and_sft_write_whole_models(random_models, tmp_path):
    from test_accelerate import run
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    model = random_models["qwen2.5-7b"]
    sets = hub_rows()
    rows = {"pairs": sets["HuggingFaceH4/ultrafeedback_binarized"][1]["train_prefs"]}
    rows["labels"] = sets["PKU-Alignment/PKU-SafeRLHF"][1]["train"]
    talk = [{"role": "user", "content": "1 + 1?"}], [{"role": "assistant", "content": "It is 2."}]
    rows["sft"] = [{"prompt": talk[0], "completion": talk[1]}] * 8
    for name, content in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    torchrun = ["torch.distributed.run", "--nproc_per_node", 2, "--standalone"]
    sharded = [*torchrun, ROOT / "tests/recipes/fsdp_run.py", RECIPES / "accelerate/eight_gpus_fsdp.yaml"]

    def train(stage, recipe, **given):
        flags = ["--config", RECIPES / "qwen2.5-7b" / recipe]
        given |= {"model_name_or_path": model, "output_dir": tmp_path / stage}
        run(*sharded, stage, *flags, *(str(part) for name, value in given.items() for part in (f"--{name}", value)))

    train("sft", "sft.yaml", **SMALL_SFT, dataset=tmp_path / "sft.jsonl")
    AutoModelForCausalLM.from_pretrained(tmp_path / "sft/model")
    small = SMALL["reward-models"] | {"per_device_train_batch_size": 1}
    train(
        "reward_models",
        "reward_models.yaml",
        **small,
        preferences=tmp_path / "pairs.jsonl",
        safety=tmp_path / "labels.jsonl",
    )
    for part in ("helpful", "harmless"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward_models" / part)
