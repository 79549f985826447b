"""The stages of R1 as the pipeline sees them: what they read, and what their manifests say."""

from pathlib import Path

import pytest

from recipes import cold_start, r1_stages, rejection, reward_models, rl, scorecard, sft
from recipes.pipeline import Pipeline, load_pipeline
from recipes.stage import StageContext, StageInput, declaration_of

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
    files = {name: {str(path) for path in pipeline.files_of(stage).values()} for name, stage in pipeline.by_name.items()}
    assert files["r1-zero"] == {"recipes/micro/r1_zero.yaml", "data/base"}
    assert files["cold-start-data"] == {"recipes/micro/cold_start.yaml", "data/base"}
    assert files["dev1"] == {"recipes/micro/sft.yaml", "data/base"}
    assert files["r1"] == {"recipes/micro/preference_rl.yaml"}
    assert files["reward-models"] == {"recipes/micro/reward_models.yaml", "data/base"}
    assert files["distilled"] == {"recipes/micro/distill.yaml", "data/student"}


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
