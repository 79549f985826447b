"""The recipes for real models: every file is read, every number of the paper is the paper's, every stage runs for two
steps with a random model of its architecture on sets of the shapes of those that it names. CPU, offline.
"""

import dataclasses
import json
import re
import shutil
import textwrap
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from test_parser import STAGES

from recipes.parser import RecipeParser, _Loader, load_recipe, load_yaml
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
PIPELINES = sorted(path.relative_to(RECIPES) for folder in FOLDERS for path in (RECIPES / folder).glob("*.yaml")
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
        assert names - {"r1_one_gpu.yaml"} == {*SINGLE, "r1.yaml", "r1_modern.yaml", "distillation.yaml"}


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
    micro = load_pipeline(RECIPES / f"micro/{'distillation' if path.name == 'distillation.yaml' else 'r1'}.yaml")
    assert {stage.name for stage in pipeline.stages} <= {stage.name for stage in micro.stages}
    without = {name for name, stage in pipeline.by_name.items() if "config" not in stage.settings}
    assert without <= {"table", "table-with-student"}


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


HARDWARE = ("one_gpu", "eight_gpus", "eight_gpus_fsdp", "several_nodes")


@pytest.mark.parametrize("path", PIPELINES, ids=str)
def test_every_stage_is_built_for_every_machine(path):
    """Each pipeline (paper, modern, one GPU, distillation) by the processes of each launcher: all settings become
    configurations, and an update divides among the processes."""
    from accelerate.commands.config.config_args import load_config_from_file

    built = {stage.name: built_stage(stage) for stage in load_pipeline(RECIPES / path).stages if stage.settings}
    assert {"r1-zero", "cold-start-data", "dev1", "dev2", "sft-data", "dev3", "reward-models", "r1"} <= built.keys()
    for hardware in HARDWARE:
        processes = load_config_from_file(str(RECIPES / f"accelerate/{hardware}.yaml")).num_processes
        for parsed in built.values():
            check_batches(parsed, processes)


def built_stage(stage):
    recipe = stage.settings["config"]
    types = STAGES[Path(recipe if isinstance(recipe, str) else recipe[0]).name]
    return RecipeParser(types).parse_settings(full_config(stage.settings), stage.name)


def check_batches(parsed, processes):
    """global_batch_size among so many processes, as rl.main, sft.main and reward_models.main take it."""
    from recipes.launch import batches_each

    recipe, args = parsed[0], parsed[-1]
    if hasattr(args, "num_generations"):
        args.per_device_train_batch_size = batches_each(recipe.global_batch_size, processes)
        plan = args.plan_rollouts(processes)
        assert (plan.num_prompts, plan.num_minibatches) == (512, 16)
    elif hasattr(recipe, "global_batch_size"):
        assert batches_each(recipe.global_batch_size, processes, args.per_device_train_batch_size) >= 1


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", RL)
@pytest.mark.parametrize("preset", [(), ("modern",)], ids=["paper", "modern"])
def test_memory_and_sampler_lie_over_either_preset(folder, name, preset):
    """one_gpu and vllm over paper and modern; vLLM itself needs a GPU, its settings do not."""
    paths = [f"{folder}/{name}", *(f"presets/{part}.yaml" for part in (*preset, "one_gpu", "vllm"))]
    later = {"refill_prompts": 0} if name == "preference_rl.yaml" else {}
    *_, args = configs(*paths, **later)
    assert args.use_vllm
    assert args.vllm_mode == "colocate"
    *_, args = parsed = configs(*paths, **later, use_vllm=False)
    assert args.optim == "adafactor"
    assert args.beta == (0.0 if preset else 0.001)
    check_batches(parsed, 1)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_student_is_distilled_from_what_the_pipeline_writes(folder):
    """By default `sft --config distill.yaml` reads stage 3's rows of r1.yaml, as the stage `distilled` does."""
    pipeline = load_pipeline(RECIPES / folder / "distillation.yaml")
    assert pipeline.folder == load_pipeline(RECIPES / folder / "r1.yaml").folder  # so nothing runs twice
    distill = load_yaml(RECIPES / folder / "distill.yaml")
    assert Path(distill["dataset"]) == pipeline.folder_of("sft-data") / "dataset"
    assert pipeline.by_name["distilled"].roles == {"dataset": "sft-data"}
    for asked in ({}, {"model": "/models/another-base"}):  # which a base on the command line does not replace
        stages = load_pipeline(RECIPES / folder / "distillation.yaml", asked).by_name
        students = {full_config(stages[name].settings)["model_name_or_path"]
                    for name in ("distilled", "student-zero", "measure-student")}  # fmt: skip
        assert students == {distill["model_name_or_path"]}


# --- the numbers ------------------------------------------------------------------------------------------------------

SOURCE = re.compile(r"R1v[12]|DAPO|Dr\. GRPO|TRL|arXiv:|\bours\b")
"""What a comment names as the source of a number: a paper, a library, or us."""


def numbers_without_a_source(text):
    """Lines with a number in a value whose comment, behind it or on the line above, names none."""
    lines = text.split("\n")
    found = []

    def walk(node):
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
            line, end = node.end_mark.line, node.end_mark.column
            behind = lines[line][end:].partition("#")[2]
            above = lines[line - 1].strip() if line else ""
            if not SOURCE.search(behind + (above if above.startswith("#") else "")):
                found.append(lines[line])
        for child in node.value if isinstance(node, yaml.CollectionNode) else ():
            for part in child if isinstance(child, tuple) else (child,):
                walk(part)

    walk(yaml.compose(text, Loader=_Loader))
    return found


REAL = sorted(path.relative_to(RECIPES) for folder in (*FOLDERS, "stages", "presets")
              for path in (RECIPES / folder).glob("*.yaml"))  # fmt: skip


@pytest.mark.parametrize("path", REAL, ids=str)
def test_every_number_stands_beside_its_source(path):
    text = (RECIPES / path).read_text(encoding="utf-8")
    assert numbers_without_a_source(text) == []
    assert not re.search(r"# *R1: ", text)  # which version of the paper?


def test_a_number_without_a_source_is_found():
    text = """\
        a: 1                # ours
        b: 1e-5             # R1v2
        c: 3
        # Dr. GRPO says so
        d: 0
        e: {f: [2, x]}      # because
        g: "4"
        """
    assert [line.split()[0] for line in numbers_without_a_source(textwrap.dedent(text))] == ["c:", "e:"]


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
    # Under transformers' `constant` the warm-up is not looked at.
    "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20,
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
    from grpo.config import RolloutPlan
    from recipes.problem_sets import first_general_rollout
    from rewards.preference import first_step

    for folder in FOLDERS:
        _, problems, args = configs(f"{folder}/preference_rl.yaml")
        assert first_step(None, problems.general_last_share, args.max_steps) == 1300
        plan = RolloutPlan(num_prompts=512, num_minibatches=16, num_iterations=1)
        assert first_general_rollout(problems, plan, args.max_steps) * 16 == 1296  # 404 steps; from 1312 on, 388
    _, problems, args = configs("micro/preference_rl.yaml")
    assert first_general_rollout(problems, args.plan_rollouts(1), args.max_steps) == args.max_steps - 7 == 21


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


# --- the worked examples of the cold start ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples():
    return [json.loads(line) for line in (RECIPES / "stages/cold_start_examples.jsonl").read_text("utf-8").splitlines()]


def digits(number):
    return [int(digit) for digit in str(number)]


SOLVED = {  # each problem's answer, found by trying
    "A tank holds": 360 * Fraction(3, 4) * Fraction(3, 5) + 54,
    "Of all four-digit": Fraction(
        sum(sum(digits(n)) == 6 for n in range(1001, 10_000, 2)), sum(sum(digits(n)) == 6 for n in range(1000, 10_000))
    ),
    "Two real numbers": next(x**3 + (11 - x) ** 3 for x in range(11) if x**2 + (11 - x) ** 2 == 65),
    "A choir of": next(n for n in range(1, 300) if (n % 7, n % 9, n % 5) == (3, 4, 0)),
}
EQUATION = re.compile(r"(?<![\w^)] [-+*/] )(?<![\w^)])(\(?\d+(?: [-+*/] [(]?\d+[)]?)+) = (-?\d+)(?![\w^])")
"""Numbers alone on both sides: 8 * 7 * 6 / (3 * 2 * 1) = 56."""


def test_the_worked_examples_are_right_to_the_last_step(examples):
    from rewards import Case, VerdictKind, check_many

    assert [next(start for start in SOLVED if row["problem"].startswith(start)) for row in examples] == list(SOLVED)
    cases = [Case(gold=str(gold), answer=row["answer"], task="math") for gold, row in zip(SOLVED.values(), examples)]
    assert {verdict.kind for verdict in check_many(cases)} == {VerdictKind.CORRECT}
    for row in examples:
        steps = EQUATION.findall(row["reasoning"])
        assert len(steps) >= 10
        for left, right in steps:
            assert eval(left, {"__builtins__": {}}) == int(right), f"{left} = {right}"


def test_the_worked_examples_pass_rewards_and_filters(examples):
    """As they stand in a prompt, and by every filter that the chains written after them have to pass."""
    from recipes.chains import Chain, chain_filters, run_filters
    from rewards import accuracy_reward, format_reward

    problems, texts = [row["problem"] for row in examples], [row["reasoning"] for row in examples]
    shown = [f"<think> {text} </think>\n<answer> {row['answer']} </answer>" for text, row in zip(texts, examples)]
    assert format_reward(problems, shown) == [1.0] * 4
    assert (
        accuracy_reward(problems, shown, answer=[str(gold) for gold in SOLVED.values()], task=["math"] * 4) == [1.0] * 4
    )
    *_, filters = configs("qwen2.5-1.5b/cold_start.yaml")
    rows = [row | {"task": "math", "language": "en"} for row in examples]
    chains = [Chain(problem=row, text=text, source="few-shot") for row, text in zip(rows, shown, strict=True)]
    _, report = run_filters(chains, chain_filters(filters))
    assert {one["name"]: one["dropped"] for one in report["filters"] if one["dropped"]} == {}
    assert all(len(text.split()) > 200 and re.search(r"verify|check", text) for text in texts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_base_is_prompted_with_a_worked_example(folder, examples, random_models):
    """R1v1, section 2.3.1. One of the four, in the pattern that the base is to write in, then the problem."""
    from datasets import Dataset

    from recipes.cold_start import few_shot_prompts

    config, problems, sampling, _ = configs(f"{folder}/cold_start.yaml", model_name_or_path=random_models[folder])
    asked = Dataset.from_list([{"problem": f"What is {n} + {n}?", "prompt": ""} for n in range(20)])
    prompts = few_shot_prompts(asked, config, problems.template, sampling)["prompt"][:]
    seen = set()
    for n, prompt in enumerate(prompts):
        (row,) = [row for row in examples if row["problem"] in prompt]
        seen.add(row["problem"])
        assert f"Assistant: <think> {row['reasoning']} </think>\n<answer> {row['answer']} </answer>\n" in prompt
        assert prompt.endswith(f"User: What is {n} + {n}? Assistant: <think>")
    assert len(seen) == 4


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
                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192, pad_token_id=None,
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
        "HuggingFaceH4/aime_2024": (None, {"train": math[6:8]}),
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


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", [*RL, "cold_start.yaml", "rejection.yaml"])
def test_what_is_measured_on_is_not_trained_on(folder, name, small_hub):
    """MATH-500 and AIME of DeepScaleR's problems, six of which the small hub has in both; of GSM8K's, whose own test
    split is its makers' affair, AIME."""
    from recipes.problem_sets import training_problems

    (problems,) = [config for config in configs(f"{folder}/{name}", validation_size=2) if hasattr(config, "columns")]
    rows = hub_rows()["agentica-org/DeepScaleR-Preview-Dataset"][1]["train"]
    measured = {row["problem"] for row in (rows[6:8] if folder == "qwen2.5-1.5b" else [*rows[:4], *rows[6:8]])}
    train, validation = training_problems(problems)
    assert set(train["problem"]) == {row["problem"] for row in rows} - measured - set(validation["problem"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_reward_models_know_what_the_other_stages_measure_on(folder, small_hub):
    from recipes.problem_sets import _measured_on

    (problems,) = [config for config in configs(f"{folder}/preference_rl.yaml") if hasattr(config, "columns")]
    (models,) = [config for config in configs(f"{folder}/reward_models.yaml") if hasattr(config, "preferences")]
    alone = type(problems)(decontaminate_against=models.decontaminate_against)
    theirs, ours = (_measured_on("general", config, None) for config in (problems, alone))
    assert {name: rows["problem"][:] for name, rows in theirs.items()} == {
        name: rows["problem"][:] for name, rows in ours.items()
    }


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


STUDENT = ("distilled", "student-zero", "measure-student", "measure-student-zero", "measure-distilled")
SMALL |= dict(zip(STUDENT, (SMALL_SFT, SMALL_RL, *[SMALL["measure-base"]] * 3)))
TAKES_BASE = ("r1-zero", "cold-start-data", "dev1", "dev3", "measure-base", *STUDENT[:3])
TRAINING = ("r1-zero", "cold-start-data", "dev1", "dev2", "sft-data", "dev3", "reward-models", "r1")


def run_small(path, model, folder, only=(), more=None):
    """A pipeline on a random model, each stage with its own recipe, from what the stages before it made."""
    pipeline = load_pipeline(RECIPES / path)
    settings = {
        name: small | ({"model_name_or_path": model} if name in TAKES_BASE else {}) | (more or {}).get(name, {})
        for name, small in SMALL.items()
        if name in pipeline.by_name
    }
    pipeline = load_pipeline(RECIPES / path, {"output_dir": str(folder), "isolate": False}, settings)
    pipeline.run(only=only)
    names = only or list(pipeline.by_name)
    assert {name: pipeline.manifest(name).status for name in names} == dict.fromkeys(names, "finished")
    return pipeline


def check_preference_rl(run):
    """General prompts, and with them the reward models' judgement, in the second of two steps alone."""
    first, second = updates(run / "r1")
    assert first.get("rewards/preference/mean") is None
    assert second["rewards/preference/mean"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stage_runs_for_two_steps(folder, random_models, small_hub, right_chains, tmp_path):
    """The whole of R1 in the preset paper, and its student."""
    run = tmp_path / "run"
    run_small(f"{folder}/distillation.yaml", random_models[folder], run)
    table = json.loads((run / "table/stages.json").read_text())
    stages = ["base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1"]
    assert [row["stage"] for row in table] == stages
    assert all(row["reasoning"] is not None and row["harmlessness"] is None for row in table)
    table = json.loads((run / "table-with-student/stages.json").read_text())
    assert [row["stage"] for row in table] == [*stages, "student", "student-Zero", "distilled"]

    for name in ("r1-zero", "dev1", "dev2", "dev3", "r1", "distilled", "student-zero"):
        assert json.loads((run / name / "status.json").read_text())["step"] == 2
        assert (run / name / "model/model.safetensors").is_file()
    kinds = json.loads((run / "sft-data/filters.json").read_text())
    assert kinds["sources"]["rejection"]["kept"] == 12  # two a problem
    assert kinds["general"] == 4  # 3 : 1
    assert kinds["kept"] == 16
    assert {"helpful", "harmless"} <= {path.name for path in (run / "reward-models").iterdir()}
    check_preference_rl(run)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PIPELINES if path.stem in ("r1_modern", "r1_one_gpu")], ids=str)
def test_every_preset_trains_for_two_steps(path, random_models, small_hub, right_chains, tmp_path):
    """All that trains in r1_modern.yaml and r1_one_gpu.yaml: R1-Zero, Dev2's RL and preference RL are the preset's."""
    modern = {"r1-zero": {"refill_prompts": 4}, "dev2": {"refill_prompts": 4}}
    modern = {name: modern.get(name, {}) | {"soft_overlong_tokens": 2} for name in ("r1-zero", "dev2", "r1")}
    run = tmp_path / "run"
    more = modern if path.stem == "r1_modern" else {}
    run_small(path, random_models[path.parent.name], run, TRAINING, more)
    for name in ("r1-zero", "dev2", "r1"):
        first, second = updates(run / name)
        assert (first["step"], second["step"]) == (1, 2)
        assert ("kl" in second) == (path.stem != "r1_modern")
        written = load_yaml(run / name / "config.yaml")
        # It holds what differs from the defaults.
        assert (written.get("optim") == "adafactor") == (path.stem == "r1_one_gpu")
        assert written.get("loss_type", "dapo") == ("dapo" if path.stem == "r1_modern" else "grpo")
    check_preference_rl(run)


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
        "decontaminate": False, "learning_rate": 1e-3, "beta": 0.1,
        "rewards": json.dumps({"accuracy": 1.0, "soft_overlong": overlong}),
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
    measured = tmp_path / "measured.jsonl"
    measured.write_text(json.dumps({"problem": "What is the sum of all the digits of 2 to the power of 100?"}) + "\n")
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
        decontaminate_against=json.dumps({str(measured): "train"}),  # in place of sets of the Hub
    )
    for part in ("helpful", "harmless"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward_models" / part)
