"""The stages of R1 as the pipeline sees them: what they read, and what their manifests say."""

import json
import re
from pathlib import Path

import pytest

from recipes import cold_start, r1_stages, rejection, reward_models, rl, scorecard, sft
from recipes.chains import Chain
from recipes.pipeline import Pipeline, Stage, StageError, load_pipeline, main, parse_call
from recipes.problem_sets import training_problems
from recipes.stage import PipelineError, StageContext, StageInput, declaration_of
from recipes.stages_report import write_report

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = (  # what the recipes of the micro world name, each made by a command of its own
    "r1-zero/model", "cold-start/data/dataset", "cold-start/sft/model", "reasoning-rl/model", "reward-models/helpful",
    "reward-models/harmless", "r1/sft-data/dataset",
)  # fmt: skip


# --- what a stage reads -----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working directory with the project's recipes and models, and no runs."""
    for name in ("recipes", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whole_r1() -> Pipeline:
    return load_pipeline("recipes/micro/distillation.yaml", {"output_dir": "runs/other"})


def test_models_that_other_commands_made_are_no_inputs(elsewhere):
    """`make r1-zero` or `make cold-start` makes what a recipe names for its own command; a stage takes its inputs."""
    before = {stage.name: whole_r1().files_of(stage) for stage in whole_r1().stages}
    for folder in DEFAULTS:
        (elsewhere / "runs" / folder).mkdir(parents=True)
    assert {stage.name: whole_r1().files_of(stage) for stage in whole_r1().stages} == before


def test_what_a_stage_reads_of_its_recipe_is_an_input(elsewhere):
    pipeline = whole_r1()
    files = {
        name: {str(path) for path in pipeline.files_of(stage).values()} for name, stage in pipeline.by_name.items()
    }
    assert files["r1-zero"] == {"recipes/micro/r1_zero.yaml", "data/base"}
    assert files["cold-start-data"] == {"recipes/micro/cold_start.yaml", "data/base"}
    assert files["dev1"] == {"recipes/micro/sft.yaml", "data/base"}
    assert files["r1"] == {"recipes/micro/preference_rl.yaml"}
    assert files["reward-models"] == {"recipes/micro/reward_models.yaml", "data/base"}
    assert files["distilled"] == {"recipes/micro/distill.yaml", "data/student"}


def test_one_flag_takes_another_base(elsewhere):
    """For the stages that start from it: others have a stage's model, or name their own."""
    pipeline = load_pipeline("recipes/micro/distillation.yaml", {"model": "mine/base"})
    named = {name: stage.settings.get("model_name_or_path") for name, stage in pipeline.by_name.items()}
    assert {name for name, model in named.items() if model == "mine/base"} == {
        "r1-zero", "cold-start-data", "dev1", "dev3", "reward-models", "measure-base",
    }  # fmt: skip
    assert {name for name, model in named.items() if model == "data/student"} == {
        "distilled", "student-zero", "measure-student",
    }  # fmt: skip
    changed = load_pipeline("recipes/micro/r1.yaml", {"model": "mine/base"}, {"dev1": {"model_name_or_path": "other"}})
    assert changed.by_name["dev1"].settings["model_name_or_path"] == "other"
    assert load_pipeline("recipes/micro/r1.yaml").by_name["dev3"].settings["model_name_or_path"] == "data/base"


@pytest.mark.parametrize("page", ["docs/pipeline.md", "recipes/pipeline.py"])
def test_the_commands_that_the_documentation_names_are_understood(elsewhere, page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("--config …", "--config recipes/micro/r1.yaml")
    calls = re.findall(r"^ *python -m recipes\.pipeline (.*?)(?:  .*)?$", text, re.M)
    assert len(calls) > 4
    for call in map(parse_call, map(str.split, calls)):
        pipeline = load_pipeline(call.config, call.top, call.stages)
        for name in (*call.only, *([call.start] if call.start else ())):
            assert name in pipeline.by_name
        for stage in pipeline.stages:
            pipeline._check(stage)


def test_the_graph_that_the_documentation_shows_can_be_run(elsewhere):
    text = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")
    Path("graph.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.S)[0], encoding="utf-8")
    pipeline = load_pipeline("graph.yaml")
    assert [step.action for step in pipeline.plan()] == ["run", "waits for r1-zero"]


def test_without_the_input_the_recipe_s_path_is_read(elsewhere):
    (elsewhere / "runs/reward-models/helpful").mkdir(parents=True)
    pipeline = whole_r1()
    stage = pipeline.by_name["r1"]
    stage.inputs = {"model": "dev3"}
    read = pipeline.files_of(stage)
    assert read["settings.config:rewards.preference.args.helpful"] == Path("runs/reward-models/helpful")


@pytest.mark.parametrize(
    ("function", "module", "recipe"),
    [
        (r1_stages.reinforcement, rl, "preference_rl"),
        (r1_stages.cold_start_data, cold_start, "cold_start"),
        (r1_stages.rejection_data, rejection, "rejection"),
        (r1_stages.fine_tuning, sft, "sft"),
        (r1_stages.preference_models, reward_models, "reward_models"),
        (scorecard.stage, scorecard, "scorecard"),
    ],
)
def test_a_setting_that_is_no_input_is_really_replaced(tmp_path, monkeypatch, function, module, recipe):
    """What `declare(replaced=…)` says is what the recipe is then given."""
    given = []

    def ends(*configs):
        given.extend(configs)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measured" if module is scorecard else "main", ends)
    outputs = ("model", "dataset", "helpful", "harmless")
    replaced = declaration_of(function).replaced
    context = StageContext(
        name="s", title="", folder=tmp_path / "s", settings={"config": str(ROOT / f"recipes/micro/{recipe}.yaml")},
        inputs={role: StageInput(role, tmp_path / "before", outputs) for role in replaced}, files={}, seed=0,
        resume=False,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        function(context)
    for settings in replaced.values():
        for name, *inner in (setting.split(".") for setting in settings):
            value = next(getattr(config, name) for config in given if hasattr(config, name))
            for key in inner:
                value = value[key]
            assert Path(value).parent == tmp_path / "before"


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "dev2",
            {"modle": "dev1"},
            r"'dev2' has an input as 'modle', and recipes\.r1_stages:reinforcement takes model",
        ),
        ("dev2", ["dev1"], r"has an input as 'dev1', .*; write inputs: \{model: dev1\}"),
        ("dev1", {"datset": "cold-start-data"}, "takes model, dataset"),
        ("measure-dev1", ["dev1"], r"recipes\.scorecard:stage takes model"),
    ],
)
def test_an_input_in_a_role_that_a_stage_does_not_have_is_an_error(name, inputs, message):
    """It would train or measure the base, and nobody would see it."""
    stage = next(one for one in load_pipeline(ROOT / "recipes/micro/r1.yaml").stages if one.name == name)
    with pytest.raises(PipelineError, match=message):
        Stage(name=name, run=stage.run, inputs=inputs)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("measure-r1.k=0", "k must be"),
        ("r1.hacking_alarm=preferense", "hacking_alarm compares the rewards"),
        ("cold-start-data.samples=0", "samples"),
        ("reward-models.harmless_from=foo", "harmless_from"),
        ("sft-data.reasoning_to_general=-1", "reasoning_to_general"),
    ],
)
def test_what_the_last_stage_would_refuse_is_refused_before_the_first(setting, message, tmp_path):
    recipe = str(ROOT / "recipes/micro/r1.yaml")
    with pytest.raises(PipelineError, match=f"stage '{setting.split('.')[0]}': .*{message}"):
        main(["--config", recipe, "--output_dir", str(tmp_path / "run"), "--dry-run", setting])


# --- what a manifest says of it ---------------------------------------------------------------------------------------

ROLES = {"prompt": "user", "completion": "assistant"}
SHORT = {"train_size": 6, "samples": 2, "max_completion_length": 8, "cpu_threads": 1}


def one_stage(folder: Path, function, **settings) -> Pipeline:
    return Pipeline([Stage(name="data", run=function, settings=settings)], folder, seed=5, isolate=False)


def answered(model_path, problems, settings, source, stream=0) -> list[Chain]:
    """In place of sample_chains: a right answer to each problem."""
    steps = "\n".join(f"{n} + 1 = {n + 1}" for n in range(1, 4))
    text = "<think> {} </think> <answer> {} </answer>"
    return [Chain(problem=row, text=text.format(steps, row["answer"]), source=source) for row in problems]


@pytest.mark.parametrize("function", [r1_stages.cold_start_data, r1_stages.rejection_data])
def test_a_data_stage_that_kept_nothing_shows_what_its_filters_dropped(tiny_model, tmp_path, function):
    """In its manifest and on the page, and there is no data set that could be trained on."""
    pipeline = one_stage(tmp_path, function, model_name_or_path=tiny_model, template="r1_zero_short", **SHORT)
    with pytest.raises(StageError, match=r"stage 'data' failed: of 12 rows none was kept: finished dropped \d"):
        pipeline.run()
    manifest = pipeline.manifest("data")
    assert (manifest.status, manifest.seen, manifest.kept, manifest.outputs) == ("failed", 12, 0, {})
    assert manifest.filters == json.loads((tmp_path / "data/filters.json").read_text(encoding="utf-8"))["filters"]
    assert sum(one["dropped"] for one in manifest.filters) == 12
    assert not (tmp_path / "data/dataset").exists()
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What the filters dropped" in page
    assert "kept 0 of 12, dropped 12" in page


def test_an_sft_whose_rows_are_all_too_long_shows_so(tiny_model, tmp_path):
    turns = {role: [{"role": name, "content": "one and two"}] for role, name in ROLES.items()}
    (tmp_path / "rows.jsonl").write_text(json.dumps(turns) + "\n", encoding="utf-8")
    settings = {"model_name_or_path": tiny_model, "dataset": str(tmp_path / "rows.jsonl"), "max_length": 4}
    pipeline = one_stage(tmp_path / "run", r1_stages.fine_tuning, use_cpu=True, cpu_threads=1, **settings)
    with pytest.raises(StageError, match="of 1 rows none was kept: max_length dropped 1; the first"):
        pipeline.run()
    assert [one["name"] for one in pipeline.manifest("data").filters] == ["max_length"]


def test_a_data_stage_s_numbers_and_seeds_are_in_its_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "sample_chains", answered)
    settings = {"model_name_or_path": "dev2", "problem_seed": 3, "tasks": ["arithmetic"], "general": "micro"}
    pipeline = one_stage(tmp_path, r1_stages.rejection_data, **settings, **SHORT)
    pipeline.run()
    manifest = pipeline.manifest("data")
    assert manifest.metrics == {"rows": 8, "rows/rejection": 6, "rows/general": 2}
    assert (manifest.kept, manifest.seen) == (8, 8)
    assert manifest.seeds == {"stage": 5, "seed": 5, "problem_seed": 3}


def test_what_loaders_drop_while_a_stage_trains_is_in_its_manifest(tmp_path, monkeypatch):
    """Its problems and general prompts are read inside of the recipe."""
    rows = [{"problem": f"{n}+1?", "answer": str(n + 1)} for n in range(4)] + [{"problem": "1+9?", "answer": ""}]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def reads(recipe, problems, args):
        training_problems(problems)
        (tmp_path / "run/data/model").mkdir()
        (tmp_path / "run/data/status.json").write_text('{"state": "finished"}')

    monkeypatch.setattr(rl, "main", reads)
    settings = {"model_name_or_path": "base", "dataset": str(tmp_path / "problems.jsonl"), "use_cpu": True}
    pipeline = one_stage(tmp_path / "run", r1_stages.reinforcement, **settings)
    pipeline.run()
    (dropped,) = pipeline.manifest("data").filters
    assert dropped["name"].endswith("problems.jsonl: with an empty or unreadable gold answer")
    assert dropped["dropped"] == 1
