"""A run that is resumed goes on with its own settings, not with those of the recipe as it reads today."""

import pytest
import yaml

from recipes.rl import settings

RECIPE = "recipes/micro/r1_zero.yaml"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    own = {
        "model_name_or_path": "data/base",
        "output_dir": str(folder),
        "seed": 7,
        "max_steps": 40,
        "learning_rate": 3e-05,
        "test_size": 12,
        "provenance": {"commit": "abc"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(own))
    return folder


def test_resume_takes_the_settings_of_the_run(run):
    recipe, problems, args = settings(["--config", RECIPE, "--output_dir", str(run), "--resume"])
    assert (args.seed, args.max_steps, args.learning_rate, problems.test_size) == (7, 40, 3e-5, 12)
    assert recipe.resume
    assert args.output_dir == str(run)


def test_a_flag_still_overrides_what_is_resumed(run):
    _, _, args = settings(["--config", RECIPE, "--output_dir", str(run), "--resume", "--max_steps", "60"])
    assert (args.seed, args.max_steps) == (7, 60)


def test_a_new_run_takes_the_recipe(run):
    _, _, args = settings(["--config", RECIPE, "--output_dir", str(run)])
    assert args.seed == 0


def test_resume_without_a_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        settings(["--config", RECIPE, "--output_dir", str(tmp_path / "none"), "--resume"])
