"""A stage's row: what it is measured on, and who measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from data.general import make_general_prompts
from recipes import r1_stages, scorecard
from recipes.manifest import Manifest
from recipes.problem_sets import ProblemConfig
from recipes.scorecard import ScorecardConfig, checked_requests, general_requests, measured
from recipes.stage import StageContext, StageInput

ROOT = Path(__file__).resolve().parents[2]


def context(folder, rank: int, **settings) -> StageContext:
    return StageContext(
        name="measure", title="", folder=folder, settings=settings, inputs={}, files={}, seed=0, resume=False,
        rank=rank, processes=2,
    )  # fmt: skip


def small(model, **changed) -> dict:
    return {
        "model_name_or_path": model, "template": "chat", "test_size": 3, "k": 2, "max_completion_length": 8,
        "helpful_prompts": 4, "harmful_prompts": 4, "general_samples": 2, "general_max_length": 8,
    } | changed  # fmt: skip


def test_one_process_measures_and_the_others_read_nothing(tiny_model, tmp_path):
    """Under a launcher the file that holds the numbers is there only when the first process is done."""
    assert scorecard.stage(context(tmp_path, 1, **small(tiny_model))).metrics == {}
    assert not (tmp_path / "scorecard.json").exists()
    metrics = scorecard.stage(context(tmp_path, 0, **small(tiny_model))).metrics
    card = json.loads((tmp_path / "scorecard.json").read_text(encoding="utf-8"))
    assert (len(card["reasoning"]), len(card["general"])) == (3, 8)
    assert metrics.keys() >= {"reasoning", "format", "helpfulness", "harmlessness"}


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        (r1_stages.reinforcement, "rl"), (r1_stages.cold_start_data, "cold_start"),
        (r1_stages.rejection_data, "rejection"), (r1_stages.fine_tuning, "sft"),
        (r1_stages.preference_models, "reward_models"),
    ],
)  # fmt: skip
def test_what_the_first_process_writes_at_the_end_is_read_by_it_alone(tmp_path, monkeypatch, stage, module):
    monkeypatch.setattr(getattr(r1_stages, module), "main", lambda *configs: None)
    given = context(tmp_path, 1, model_name_or_path="data/base")
    given.inputs["dataset"] = StageInput("rows", tmp_path, ("dataset",))
    assert stage(given).metrics == {}


@pytest.fixture
def requests():
    return make_general_prompts("test", 6)


def test_requests_of_ones_own_are_read(requests, tmp_path):
    requests.save_to_disk(str(tmp_path / "mine"))
    found = general_requests(ScorecardConfig(requests=str(tmp_path / "mine")), ProblemConfig(template="chat"))
    assert found["problem"] == requests["problem"]


def test_requests_that_no_rule_can_judge_are_an_error(requests):
    with pytest.raises(ValueError, match=r"lack the column\(s\) check, harmful, they have problem"):
        checked_requests(requests.remove_columns(["check", "harmful"]), "mine")
    rows = [row | {"check": "", "harmful": False} for row in requests]
    with pytest.raises(ValueError, match=r"6 requests of mine are not harmful and have no rule"):
        checked_requests(Dataset.from_list(rows), "mine")


def test_nothing_to_measure_on_is_an_error(tiny_model):
    config = ScorecardConfig(model_name_or_path=tiny_model, helpful_prompts=0, harmful_prompts=0)
    with pytest.raises(ValueError, match="there is nothing to measure on"):
        measured(config, ProblemConfig(test_size=0, template="chat"))


@pytest.mark.slow
def test_a_launcher_of_two_processes_measures_once(tiny_model, tmp_path):
    settings = small(str(tiny_model), dataset="micro")
    stages = [{"name": "measure", "recipe": "recipes.scorecard:stage", "settings": settings}]
    pipeline = {"output_dir": str(tmp_path / "run"), "stages": stages}
    (tmp_path / "measured.yaml").write_text(json.dumps(pipeline))
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "recipes.pipeline"]
    command = [sys.executable, "-m", *launcher, "--config", str(tmp_path / "measured.yaml")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = Manifest.read(tmp_path / "run/measure")
    assert (manifest.status, manifest.processes) == ("finished", 2)
    assert manifest.metrics.keys() >= {"reasoning", "harmlessness"}
