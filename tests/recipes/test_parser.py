"""Recipes to dataclasses: numbers are numbers, and every mistake is named before anything runs."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from grpo.config import GRPOConfig
from recipes.chains import FilterConfig
from recipes.cold_start import ColdStartConfig
from recipes.gathering import SamplingSettings
from recipes.measure import MeasureConfig
from recipes.parser import RecipeError, RecipeParser, load_yaml, parse, readable, reported
from recipes.pretrain import PretrainConfig
from recipes.problem_sets import ProblemConfig
from recipes.rejection import RejectionConfig
from recipes.reward_models import RewardModelsConfig, RewardTrainingConfig
from recipes.rl import RLConfig
from recipes.run_folder import RunFolder
from recipes.scorecard import ScorecardConfig
from recipes.sft import SFTConfig, SFTRecipe
from recipes.stage import checks, full_config, paths_in

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
STAGES = {
    "r1_zero.yaml": (RLConfig, ProblemConfig, GRPOConfig),
    "reasoning_rl.yaml": (RLConfig, ProblemConfig, GRPOConfig),
    "preference_rl.yaml": (RLConfig, ProblemConfig, GRPOConfig),
    "reward_models.yaml": (RewardModelsConfig, RewardTrainingConfig),
    "measure.yaml": (MeasureConfig, ProblemConfig),
    "base.yaml": (PretrainConfig,),
    "student.yaml": (PretrainConfig,),
    "cold_start.yaml": (ColdStartConfig, ProblemConfig, SamplingSettings, FilterConfig),
    "rejection.yaml": (RejectionConfig, ProblemConfig, SamplingSettings, FilterConfig),
    "sft.yaml": (SFTRecipe, SFTConfig),
    "scorecard.yaml": (ScorecardConfig, ProblemConfig),
    "distill.yaml": (SFTRecipe, SFTConfig),
}


@dataclass(kw_only=True)
class Settings:
    learning_rate: float = 1e-3
    steps: int = 10
    name: str = "r1"
    greedy: bool = True
    limit: float | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] | None = None
    deepspeed: dict | str | None = None
    tasks: list[str] | None = None


def read(tmp_path: Path, text: str, *flags: str) -> Settings:
    """The settings of a recipe with this text and these flags."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    return RecipeParser(Settings).parse_args_and_config(["--config", str(recipe), *flags])[0]


def refusal(tmp_path: Path, text: str, *flags: str) -> str:
    with pytest.raises(RecipeError) as refused:
        read(tmp_path, text, *flags)
    return str(refused.value)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", "+1e-5", ".1e-4", "1.e-5", "0.00001"])
def test_a_number_is_a_number_also_inside_a_mapping(tmp_path, number):
    """PyYAML alone reads 1e-5 as text."""
    settings = read(tmp_path, f"learning_rate: {number}\nrewards: {{a: {number}}}\noptions: {{deep: [{number}]}}")
    assert settings.learning_rate == 1e-5
    assert settings.rewards == {"a": 1e-5}
    assert settings.options == {"deep": [1e-5]}


@pytest.mark.parametrize("text", ["1e5x", "e5", "v1e-5", "'1e-5'", "1.2.3"])
def test_text_stays_text(tmp_path, text):
    assert read(tmp_path, f"name: {text}").name == text.strip("'")


def test_the_command_line_overrides_the_recipe(tmp_path):
    settings = read(tmp_path, "steps: 5\nname: base", "--steps", "7", "--learning_rate", "1e-4")
    assert (settings.steps, settings.name, settings.learning_rate) == (7, "base", 1e-4)


def test_a_whole_number_may_stand_for_a_float(tmp_path):
    assert read(tmp_path, "limit: 2").limit == 2


def test_mappings_are_json_on_the_command_line(tmp_path):
    settings = read(tmp_path, "rewards: {old: 1.0}", "--rewards", '{"accuracy": 1.0, "format": 1e-1}')
    assert settings.rewards == {"accuracy": 1.0, "format": 0.1}


def test_a_setting_that_takes_a_path_or_a_mapping_takes_both(tmp_path):
    assert read(tmp_path, "{}", "--deepspeed", "zero2.json").deepspeed == "zero2.json"
    assert read(tmp_path, "{}", "--deepspeed", '{"stage": 2}').deepspeed == {"stage": 2}


def test_lists_and_switches(tmp_path):
    settings = read(tmp_path, "{}", "--tasks", "arithmetic", "countdown", "--no_greedy")
    assert settings.tasks == ["arithmetic", "countdown"]
    assert settings.greedy is False


@pytest.mark.parametrize("flags", [["--config", "{}"], ["--config={}"], ["--steps", "3", "--config={}"]])
def test_the_recipe_may_be_given_either_way(tmp_path, flags):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: found", encoding="utf-8")
    (settings,) = RecipeParser(Settings).parse_args_and_config([flag.format(recipe) for flag in flags])
    assert settings.name == "found"


# --- recipes that extend others ---------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    """Files a/b.yaml of these texts, `a__b` standing for a/b; gives the folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_recipe_extends_others_relative_to_itself(tmp_path, monkeypatch):
    write(
        tmp_path,
        presets__a="steps: 1\nname: a\nrewards: {accuracy: 1.0, format: 1.0}\nlimit: 7",
        presets__b="extends: deep/c.yaml\nname: b",
        presets__deep__c="learning_rate: 1e-5\nname: c",
        model__own="extends: [../presets/a.yaml, ../presets/b.yaml]\nsteps: 3\nrewards: {accuracy: 0.5}",
    )
    monkeypatch.chdir(tmp_path / "presets")
    expected = {"steps": 3, "name": "b", "rewards": {"accuracy": 0.5}, "limit": 7, "learning_rate": 1e-5}
    assert load_yaml("../model/own.yaml") == expected  # a mapping is taken whole, as on the command line
    (settings,) = RecipeParser(Settings).parse_args_and_config(["--config", "../model/own.yaml", "--steps", "4"])
    assert (settings.steps, settings.name, settings.limit) == (4, "b", 7)


def test_several_recipes_are_laid_over_each_other(tmp_path):
    write(tmp_path, a="steps: 1\nname: a", b="name: b\nlimit: 2")
    flags = [f"--config={tmp_path}/a.yaml", "--steps", "5", "--config", f"{tmp_path}/b.yaml"]
    (settings,) = RecipeParser(Settings).parse_args_and_config(flags)
    assert (settings.steps, settings.name, settings.limit) == (5, "b", 2)


def test_a_recipe_that_is_reached_twice_never_undoes_what_extends_it(tmp_path):
    write(
        tmp_path, base="steps: 1\nname: base", a="extends: base.yaml\nsteps: 2", b="extends: base.yaml\nlimit: 3",
        top="extends: [a.yaml, b.yaml]",
    )  # fmt: skip
    assert load_yaml(tmp_path / "top.yaml") == {"steps": 2, "name": "base", "limit": 3}


def test_a_circle_and_a_missing_parent_are_named(tmp_path):
    write(tmp_path, a="extends: b.yaml", b="extends: [c.yaml]", c="extends: b.yaml", d="extends: gone.yaml")
    with pytest.raises(RecipeError, match=r"^b\.yaml -> c\.yaml -> b\.yaml: these recipes extend each other"):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*gone\.yaml: No such file.*\(d\.yaml extends it\)"):
        load_yaml(tmp_path / "d.yaml")
    write(tmp_path, e="extends: {a: b}")
    with pytest.raises(RecipeError, match=r"e\.yaml: extends expects a path or a list of paths, .* got \{'a': 'b'\}"):
        load_yaml(tmp_path / "e.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 1", r"unknown setting 'stepz' in .*/base\.yaml; did you mean"),
        ("steps: x", r"/base\.yaml: steps expects"),
    ],
)
def test_a_mistake_names_the_file_that_it_stands_in(tmp_path, text, message):
    write(tmp_path, base=text, top="extends: base.yaml\nname: top")
    with pytest.raises(RecipeError, match=message):
        RecipeParser(Settings).parse_args_and_config(["--config", str(tmp_path / "top.yaml")])


def test_a_stage_reads_a_list_of_recipes_and_depends_on_all_files(tmp_path):
    write(tmp_path, base="steps: 1\nname: base", a="extends: base.yaml\nlimit: 2", b="limit: 3")
    files = [str(tmp_path / name) for name in ("a.yaml", "b.yaml", "base.yaml")]
    settings = {"config": files[:2], "name": "own"}
    assert full_config(settings) == {"steps": 1, "name": "own", "limit": 3}
    assert sorted(paths_in(settings).values()) == files
    write(tmp_path, base="stepz: 1")
    with pytest.raises(RecipeError, match=r"unknown setting 'stepz' in .*/base\.yaml"):
        checks(Settings)(settings)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_key_names_the_nearest(tmp_path):
    assert "unknown setting 'learning_rat' in" in refusal(tmp_path, "learning_rat: 1.0")
    assert "did you mean learning_rate?" in refusal(tmp_path, "learning_rat: 1.0")
    assert "did you mean steps?" in refusal(tmp_path, "{}", "--step", "3")
    assert "a flag begins with two dashes: --steps VALUE" in refusal(tmp_path, "{}", "steps=3")
    assert "see `--help`" in refusal(tmp_path, "zzzzzz: 1")


@pytest.mark.parametrize("text", ["rewards: {a: 1.0, a: 2.0}", "rewards: {b: 1.0}\nrewards: {a: 1.0}"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    """PyYAML alone keeps the last."""
    assert "stands twice" in refusal(tmp_path, text)


def test_rewards_may_have_settings_of_their_own(tmp_path):
    rewards = {"accuracy": {"where": {"kind": ["math", "gsm"]}, "clip": [0, 1]}, "format": 0.5}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model_name_or_path: x\nrewards: {json.dumps(rewards)}", encoding="utf-8")
    for flags in ([], ["--rewards", json.dumps(rewards)]):
        (settings,) = RecipeParser(RLConfig).parse_args_and_config(["--config", str(recipe), *flags])
        assert settings.rewards == rewards
    with pytest.raises(RecipeError, match="expected dict"):
        RecipeParser(RLConfig).parse_args_and_config(["--config", str(recipe), "--rewards", '{"accuracy": [1]}'])


def test_abbreviations_are_refused(tmp_path):
    """argparse would take --learn for --learning_rate."""
    assert "unknown setting 'learn'" in refusal(tmp_path, "{}", "--learn", "1.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate: fast", "learning_rate expects float, got 'fast' (str)"),
        ("learning_rate: '1e-5'", "learning_rate expects float, got '1e-5' (str)"),
        ("learning_rate: true", "learning_rate expects float, got True (bool)"),
        ("steps: 2.5", "steps expects int, got 2.5 (float)"),
        ("name: no", "name expects str, got False (bool)"),
        ("name: 12", "name expects str, got 12 (int)"),
        ("greedy: 1", "greedy expects bool, got 1 (int)"),
        ("limit: none", "limit expects float | nothing, got 'none' (str)"),
        ("rewards: accuracy", "rewards expects dict[str, float], got 'accuracy' (str)"),
        ("rewards: {accuracy: high}", "rewards expects dict[str, float], got {'accuracy': 'high'} (dict)"),
        ("tasks: arithmetic", "tasks expects list[str] | nothing, got 'arithmetic' (str)"),
        ("tasks: [1]", "tasks expects list[str] | nothing, got [1] (list)"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path, text, expected):
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--rewards", "accuracy"], "argument --rewards: expected a JSON object such as '{\"accuracy\": 1.0}'"),
        (["--rewards", "[1]"], "argument --rewards: expected dict[str, float] as a JSON object, got '[1]'"),
        (["--rewards", '{"a": "b"}'], "expected dict[str, float] as a JSON object"),
    ],
)
def test_a_flag_with_the_wrong_value_is_refused(tmp_path, flags, expected):
    assert expected in refusal(tmp_path, "{}", *flags)


@pytest.mark.parametrize("flags", [["--config"], ["--config="], ["--config", "--steps", "3"]])
def test_config_without_a_path_is_refused(flags):
    with pytest.raises(RecipeError, match="--config needs the path of a YAML file behind it"):
        RecipeParser(Settings).parse_args_and_config(flags)


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*missing\.yaml: No such file"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_yaml(tmp_path)
    for text, message in (("- a\n- b", "holds list"), ("", "holds NoneType"), ("a: [1", "is not valid YAML")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_yaml(tmp_path / "bad.yaml")


def test_a_recipe_is_data_and_runs_no_code(tmp_path):
    assert "is not valid YAML" in refusal(tmp_path, "name: !!python/object/apply:os.getcwd []")


def test_a_missing_setting_is_named():
    with pytest.raises(RecipeError, match="--model_name_or_path"):
        RecipeParser((RLConfig, ProblemConfig)).parse_args_and_config([])


def test_types_read_as_a_person_writes_them():
    assert readable(float | None) == "float | nothing"
    assert readable(dict[str, float]) == "dict[str, float]"


# --- as a command -----------------------------------------------------------------------------------------------------


def test_a_mistake_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(Settings, args=["--steps", "many"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: argument --steps: invalid int value: 'many'\n"


def test_help_lists_the_settings(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*STAGES["r1_zero.yaml"], args=["--help"])
    assert stopped.value.code == 0
    assert {"--num_generations", "--rewards", "--template"} <= set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("wrong size"), 2), (OSError(28, "No space left on device"), 2), (KeyboardInterrupt(), 130)],
)
def test_errors_that_the_user_can_mend_have_no_traceback(error, status, capsys, monkeypatch):
    monkeypatch.delenv("R1LAB_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stopped, reported():
        raise error
    assert stopped.value.code == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {error}\n" if status == 2 else "stopped\n")
    assert "Traceback" not in shown


def test_other_errors_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError), reported():
        _ = 1 / 0
    monkeypatch.setenv("R1LAB_DEBUG", "1")
    with pytest.raises(ValueError, match="shown"), reported():
        raise ValueError("shown")


# --- the shipped recipes ----------------------------------------------------------------------------------------------


PIPELINES = {"r1.yaml", "distillation.yaml"}
MICRO = sorted(path for path in (RECIPES / "micro").glob("*.yaml") if path.name not in PIPELINES)


@pytest.mark.parametrize("recipe", MICRO, ids=lambda path: path.name)
def test_every_shipped_recipe_is_read_to_the_letter(recipe):
    written = load_yaml(recipe)
    parsed = RecipeParser(STAGES[recipe.name]).parse_args_and_config(["--config", str(recipe)])
    for key, value in written.items():
        (config,) = [config for config in parsed if hasattr(config, key)]
        if key != "report_to":  # "none" becomes an empty list
            assert getattr(config, key) == value, key


def test_the_config_of_a_run_is_a_recipe(tmp_path):
    """What it says of where the run came from sets nothing."""
    flags = ["--config", str(RECIPES / "micro/r1_zero.yaml"), "--learning_rate", "1e-5", "--tasks", "countdown"]
    flags += ["--output_dir", str(tmp_path), "--run_name", "1e-4", "--lr_scheduler_type", "cosine"]
    flags += ["--rewards", '{"accuracy": 0.5}']
    first = RecipeParser(STAGES["r1_zero.yaml"]).parse_args_and_config(flags)
    RunFolder(tmp_path).write_config(*first)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["provenance"]["commit"]
    assert written["learning_rate"] == 1e-5
    second = RecipeParser(STAGES["r1_zero.yaml"]).parse_args_and_config(["--config", str(tmp_path / "config.yaml")])
    assert first[:2] == second[:2]
    kept = set(GRPOConfig.__dataclass_fields__) - {"accelerator_config", "distributed_state"}
    assert {key: getattr(first[2], key) for key in kept} == {key: getattr(second[2], key) for key in kept}
