"""The recipes of R1 as stages of a pipeline (recipes.pipeline): what each takes from the stages before it.

Every function here hands a stage's settings and inputs to the recipe of the same work, which also runs alone, and says
what came of it. The graph itself stands in YAML: recipes/micro/r1.yaml.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.drops import collected_drops
from grpo.checkpoints import latest_checkpoint
from grpo.config import GRPOConfig
from recipes import cold_start, rejection, reward_models, rl, sft
from recipes.chains import FilterConfig, NothingKeptError
from recipes.cold_start import ColdStartConfig
from recipes.gathering import SamplingSettings
from recipes.problem_sets import ProblemConfig
from recipes.rejection import RejectionConfig
from recipes.reward_models import RewardModelsConfig, RewardTrainingConfig
from recipes.rl import RLConfig
from recipes.sft import SFTConfig, SFTRecipe
from recipes.stage import StageContext, StageResult, checks, declare, full_config

RL = (RLConfig, ProblemConfig, GRPOConfig)
COLD_START = (ColdStartConfig, ProblemConfig, SamplingSettings, FilterConfig)
REJECTION = (RejectionConfig, ProblemConfig, SamplingSettings, FilterConfig)
SFT = (SFTRecipe, SFTConfig)
REWARD_MODELS = (RewardModelsConfig, RewardTrainingConfig)

MODEL = {"model": ("model_name_or_path",)}
"""The setting that the input `model` replaces, see `model_of`."""
PARTS = ("helpful", "harmless")
PREFERENCE = {"reward_models": tuple(f"rewards.preference.args.{part}" for part in PARTS)}


@declare(outputs=("model",), check=checks(*RL), replaced=MODEL | PREFERENCE)
def reinforcement(context: StageContext) -> StageResult:
    """GRPO from the input `model`, or the setting `model_name_or_path`; with the input `reward_models`, the reward
    `preference` is judged by those."""
    given = run_settings(context) | model_of(context)
    if "reward_models" in context.inputs:
        given["rewards"] = with_reward_models(context)
    with collected_drops() as read:
        rl.main(*context.parse(*RL, **given))
    if not context.is_main_process:  # which alone writes what is read below
        return StageResult()
    lines = json_lines(context.folder / "metrics.jsonl")
    # Evaluations and the alarm write lines too.
    last: dict[str, Any] = next((line for line in reversed(lines) if "reward" in line), {})
    shown = ("reward", "completions/mean_length", "entropy", "step")
    metrics = {name: last[name] for name in shown if name in last}
    alarm = run_status(context).get("alarm")
    notes = [alarm] if alarm else []
    return StageResult(metrics=metrics, filters=read, interrupted=interrupted(context), notes=notes)


def with_reward_models(context: StageContext) -> dict[str, Any]:
    """The recipe's rewards, `preference` with the models of the stage before."""
    rewards = dict(full_config(context.settings).get("rewards") or {})
    spec = rewards.get("preference", 1.0)
    spec = dict(spec) if isinstance(spec, dict) else {"weight": spec}
    models = {part: str(context.input("reward_models", part)) for part in PARTS}
    return rewards | {"preference": spec | {"args": {**(spec.get("args") or {}), **models}}}


@declare(outputs=("dataset",), check=checks(*COLD_START), replaced=MODEL | {"r1_zero": ("r1_zero_model",)})
def cold_start_data(context: StageContext) -> StageResult:
    """Chains of the base (the setting `model_name_or_path`, or the input `model`) and, as the input `r1_zero`, of
    R1-Zero."""
    given = {"output_dir": str(context.folder)} | model_of(context)
    if "r1_zero" in context.inputs:
        given["r1_zero_model"] = str(context.input("r1_zero"))
    return data_stage(context, cold_start.main, *context.parse(*COLD_START, **given))


@declare(outputs=("dataset",), check=checks(*REJECTION), replaced=MODEL)
def rejection_data(context: StageContext) -> StageResult:
    """Correct chains of the input `model`, blended with general rows."""
    given = {"output_dir": str(context.folder)} | model_of(context)
    return data_stage(context, rejection.main, *context.parse(*REJECTION, **given))


@declare(outputs=("model",), check=checks(*SFT), replaced=MODEL | {"dataset": ("dataset",)})
def fine_tuning(context: StageContext) -> StageResult:
    """SFT on the input `dataset`, from the setting `model_name_or_path` or the input `model`."""
    given = run_settings(context) | model_of(context)
    if "dataset" in context.inputs:
        given["dataset"] = str(context.input("dataset", "dataset"))
    try:
        sft.main(*context.parse(*SFT, **given))
    except NothingKeptError as nothing:
        return of_report(nothing.report)
    if not context.is_main_process:
        return StageResult()
    losses = [line["loss"] for line in json_lines(context.folder / "metrics.jsonl") if "loss" in line]
    metrics = {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
    return of_report(report_in(context.folder), metrics=metrics, interrupted=interrupted(context))


@declare(outputs=("helpful", "harmless", "data"), code_version="2", check=checks(*REWARD_MODELS), replaced=MODEL)
def preference_models(context: StageContext) -> StageResult:
    """Reward models from the setting `model_name_or_path` or the input `model`."""
    reward_models.main(*context.parse(*REWARD_MODELS, **run_settings(context), **model_of(context)))
    if not context.is_main_process:
        return StageResult()
    metrics = json.loads((context.folder / "metrics.json").read_text(encoding="utf-8"))
    flat = {
        f"{part}/{name}": value
        for part, measured in metrics.items()
        for name, value in measured.get("held_out", {}).items()
        if isinstance(value, (int, float))
    }
    filters = [
        found | {"name": f"{part}: {found['name']}"}
        for part, measured in metrics.items()
        for found in measured.get("data", {}).get("filters", ())
    ]
    seen, kept = (sum(measured["data"][name] for measured in metrics.values()) for name in ("seen", "kept"))
    return StageResult(metrics=flat, seen=seen, kept=kept, filters=filters, outputs=(*metrics, "data"))


# --- what they share --------------------------------------------------------------------------------------------------


def model_of(context: StageContext) -> dict[str, Any]:
    return {"model_name_or_path": str(context.input("model"))} if "model" in context.inputs else {}


def run_settings(context: StageContext) -> dict[str, Any]:
    """Where a run folder is the stage's own: resumed where it has something to resume from, else begun anew."""
    resume = context.resume and begun(context.folder)
    if context.resume and not resume and context.is_main_process:
        (context.folder / "config.yaml").unlink(missing_ok=True)  # it would be taken for another run's folder
    return {"output_dir": str(context.folder), "resume": resume}


def begun(folder: Path) -> bool:
    """Whether a run folder has its settings, and a checkpoint or a finished part."""
    parts = (folder / "helpful", folder / "training")  # of reward models, which look for their own checkpoints
    return (folder / "config.yaml").is_file() and (
        latest_checkpoint(folder) is not None or any(part.is_dir() for part in parts)
    )


def run_status(context: StageContext) -> dict[str, Any]:
    return json.loads((context.folder / "status.json").read_text(encoding="utf-8"))


def interrupted(context: StageContext) -> bool:
    return run_status(context)["state"] == "interrupted"


def data_stage(context: StageContext, main: Callable[..., None], *configs: Any) -> StageResult:
    """What came of a data stage: its filters, and how many rows it has of each source. One that kept no row says so in
    the same way, and the pipeline takes it for failed."""
    try:
        main(*configs)
    except NothingKeptError as nothing:
        return of_report(nothing.report)
    if not context.is_main_process:
        return StageResult()
    report = report_in(context.folder)
    counts = {f"rows/{source}": found["kept"] for source, found in report["sources"].items()}
    return of_report(report, metrics={"rows": report["kept"]} | counts)


def report_in(folder: Path) -> dict[str, Any]:
    """The report that a stage leaves in filters.json."""
    path = folder / "filters.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def of_report(report: Mapping[str, Any], **more: Any) -> StageResult:
    return StageResult(
        seen=report.get("seen"), kept=report.get("kept"), filters=report.get("filters", []), **more
    )  # fmt: skip


def json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
