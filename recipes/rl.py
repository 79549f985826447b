"""R1-Zero and every other GRPO stage: a recipe's YAML in, a run folder out.

    python -m recipes.rl --config recipes/micro/r1_zero.yaml                       (`make r1-zero`)
    accelerate launch --config_file recipes/accelerate/two_gpus.yaml recipes/rl.py --config recipes/micro/r1_zero.yaml

Measures the model, trains it, measures it again on the same held-out problems, and writes report.html. Ctrl-C ends the
run at the end of the step with a checkpoint and a report; `--resume` goes on from there.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import contextlib
import json
import logging
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState
from transformers.utils import logging as transformers_logging

from grpo.checkpoints import is_disk_full, latest_checkpoint
from grpo.config import GRPOConfig, RolloutPlan
from grpo.cpu import use_cores
from grpo.evaluation import Protocol, evaluate_policy, evaluation_report
from grpo.trainer import GRPOTrainer
from recipes.hacking_alarm import HackingAlarm, advised_checkpoint, recall_alarm
from recipes.launch import batches_each, check_ranks
from recipes.measure import JUDGE, table
from recipes.parser import reported
from recipes.problem_sets import (
    ProblemConfig,
    as_drawn,
    first_general_rollout,
    held_out_problems,
    training_problems,
    with_general_prompts,
    with_kind,
)
from recipes.progress import ProgressDisplay
from recipes.report import write_report
from recipes.run_folder import RunFolder, RunRecorder, parse_or_resume, sample_row
from rewards import load_rewards
from rewards.preference import first_step

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RLConfig:
    """What a GRPO recipe needs besides its problems and GRPOConfig."""

    model_name_or_path: str
    rewards: dict[str, float | dict[str, Any]] = field(default_factory=lambda: {"accuracy": 1.0, "format": 1.0})
    """Reward -> weight, or a mapping of rewards.RewardSpec: built-in names, or package.module:function. R1-Zero weighs
    accuracy and format alike."""
    global_batch_size: int | None = None
    """Completions an update over all processes, so that a recipe serves any number of GPUs. It decides
    per_device_train_batch_size."""
    soft_overlong_tokens: int = 0
    """DAPO's soft overlong penalty (eq. 13): completions in the last this many tokens before the limit lose up to 1."""
    k: int = 16
    """Samples a held-out problem, before and after training."""
    cpu_threads: int | None = None
    """Threads of torch on a CPU; None takes the cores this process may use, at most 8."""
    show_samples: int = 6
    """Held-out problems whose completions the report shows before and after."""
    hacking_alarm: str | None = None
    """The reward that must not rise while held-out accuracy falls, such as `preference`; None: no alarm."""
    stop_on_hacking: bool = False
    """End the run when the alarm goes off, as finished: model/ is that of the best evaluation, which the alarm advises,
    and --resume trains no further unless this is set to false."""
    hacking_window: int = 10
    """Log lines over which the watched reward is averaged before it is compared, 3 or more."""
    resume: bool = False
    """Go on with the newest run of this output_dir from its last checkpoint."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be 1 or more samples a held-out problem, got {self.k}; R1 uses 4 to 64")
        if self.hacking_alarm is not None and not {self.hacking_alarm, "accuracy"} <= self.rewards.keys():
            raise ValueError(
                f"hacking_alarm compares the rewards {self.hacking_alarm!r} and 'accuracy', and `rewards` has "
                f"{', '.join(self.rewards)}; name one of these, or leave the alarm out"
            )
        if self.stop_on_hacking and self.hacking_alarm is None:
            raise ValueError("stop_on_hacking needs hacking_alarm: the reward to watch, such as preference")


def main(recipe: RLConfig, problems: ProblemConfig, args: GRPOConfig) -> None:
    prepare_process(recipe, args)
    if recipe.global_batch_size is not None:
        args.per_device_train_batch_size = batches_each(recipe.global_batch_size, args.world_size)
    limit = {"max_completion_length": args.max_completion_length, "soft_tokens": recipe.soft_overlong_tokens}
    overlong = {"soft_overlong": {"args": limit}} if recipe.soft_overlong_tokens else {}
    rewards, weights = load_rewards(overlong | recipe.rewards)
    if args.reward_weights is not None:
        raise ValueError("reward_weights is not a recipe's setting: write the weights in `rewards: {name: weight}`")
    args.reward_weights = weights
    check_alarm(recipe, problems, args)
    if recipe.hacking_alarm is not None and args.save_total_limit == 1:
        args.save_total_limit = 2  # the best and the last: with 1, Trainer deletes the last when it ends
    train, validation = training_problems(problems)
    if problems.general_dataset is not None:
        plan = args.plan_rollouts(args.world_size)
        check_start(recipe, problems, args, plan)
        train = with_general_prompts(train, problems, plan, args.max_steps, args.seed, validation)
        validation = None if validation is None else with_kind(validation)
        args.shuffle_dataset = False  # its order is that of the run
    test = held_out_problems(problems)
    run = RunFolder.latest(args.output_dir) if recipe.resume else open_run(args)
    checkpoint = latest_checkpoint(run.path) if recipe.resume else None
    args.output_dir = str(run.path)

    before = None if checkpoint is None else TrainerState.load_from_json(f"{checkpoint}/trainer_state.json")
    if before is not None:
        recall_alarm(run, before.log_history, recipe.stop_on_hacking)
    done = before is not None and (0 < args.max_steps <= before.global_step or run.alarm_stopped)
    trained = (advised_checkpoint(run.path, before) if before and run.alarm_stopped else None) or checkpoint
    trainer = GRPOTrainer(str(trained) if done else recipe.model_name_or_path, rewards, args, train, validation)
    if done:
        trainer.state = before
    main_process = trainer.accelerator.is_main_process
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(StopOnSignal())
    if recipe.hacking_alarm is not None and validation is not None:
        alarm = HackingAlarm(
            run, len(validation), recipe.hacking_alarm, stop=recipe.stop_on_hacking, window=recipe.hacking_window
        )
        trainer.add_callback(alarm)
    if main_process:
        trainer.add_callback(RunRecorder(run))
        run.check_space(sum(p.numel() for p in trainer.model.parameters()), args.save_total_limit or 3)
    if checkpoint is None and main_process:
        run.write_config(recipe, problems, args)
        if problems.general_dataset is not None:
            run.save_dataset("prompts", as_drawn(train, problems, args.plan_rollouts(args.world_size), args.seed))
    if main_process:  # all of it, where a run was killed before its first checkpoint and begins anew
        run.forget_after(0 if checkpoint is None else latest_step(run.path) or 0)

    with ProgressDisplay() as display, nothing_lost(trainer, run):
        if main_process:
            display.attach(trainer)
        measured = Measured(trainer, test, run, recipe, display)
        measured.before()
        state = train_to_the_end(trainer, run, checkpoint, done)
        measured.after(state)
    if main_process:
        print(measured.summary())
        print(f"report: {write_report(run.path)}")


def check_alarm(recipe: RLConfig, problems: ProblemConfig, args: GRPOConfig) -> None:
    """Raises ValueError for an alarm that would never look; warns of one that would see too little."""
    if recipe.hacking_alarm is None:
        return
    if recipe.hacking_window < 3:
        raise ValueError(f"hacking_window must be 3 log lines or more, got {recipe.hacking_window}")
    if problems.validation_size == 0 or args.eval_strategy == "no":
        raise ValueError(
            f"hacking_alarm looks at held-out accuracy during training: set validation_size (now "
            f"{problems.validation_size}) and eval_strategy: steps (now {args.eval_strategy!r}) with eval_steps"
        )
    if args.max_steps <= 0:
        return
    start = 0
    if problems.general_dataset is not None:  # the watched reward judges those, as a rule
        start = first_step(problems.general_from_step, problems.general_last_share, args.max_steps)
    lines = (args.max_steps - start) / max(args.logging_steps, 1)
    if lines < recipe.hacking_window + 3:
        logger.warning(
            "hacking_alarm will have %.0f log lines of %s to judge by and needs %d: lower hacking_window (now %d) "
            "or logging_steps, or train for longer",
            lines, recipe.hacking_alarm, recipe.hacking_window + 3, recipe.hacking_window,
        )  # fmt: skip


def check_start(recipe: RLConfig, problems: ProblemConfig, args: GRPOConfig, plan: RolloutPlan) -> None:
    """Raises ValueError where a reward for general prompts begins later than they come (until then they would only
    cost time), and where they would come early."""
    start = first_general_rollout(problems, plan, args.max_steps) * plan.num_updates
    if start and args.refill_prompts:
        raise ValueError(
            f"refill_prompts ({args.refill_prompts}) draws prompts that no plan counts, so general prompts would come "
            f"before step {start}; set refill_prompts: 0, or let them come from the first step on"
        )
    for name, spec in recipe.rewards.items():
        given = spec.get("args", {}) if isinstance(spec, dict) else {}
        begins = first_step(given.get("from_step"), given.get("last_share"), args.max_steps)
        if begins > start:
            rollout = -(-begins // plan.num_updates) * plan.num_updates
            raise ValueError(
                f"the reward {name!r} begins with step {begins} and general prompts come from step {start} on; set "
                f"general_from_step: {rollout}, or leave from_step and last_share out of its args: it judges no others"
            )


def prepare_process(recipe: RLConfig, args: GRPOConfig) -> None:
    """Quiet libraries, and as many threads as there are cores to run them. ValueError for ranks without a group."""
    check_ranks(args.world_size)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    args.disable_tqdm = True
    if args.device.type == "cpu" and args.world_size == 1:
        use_cores(recipe.cpu_threads)


def open_run(args: GRPOConfig) -> RunFolder:
    """A new folder, the same on every rank."""
    with args.main_process_first(local=False):
        path = RunFolder.new(args.output_dir).path if args.process_index == 0 else None
    if args.world_size > 1:
        from accelerate.utils import broadcast_object_list

        path = broadcast_object_list([path])[0]
    assert path is not None
    return RunFolder(path)


def train_to_the_end(trainer: GRPOTrainer, run: RunFolder, checkpoint: Path | None, done: bool) -> str:
    """Train and save the model: "finished", or "interrupted" by a first Ctrl-C. `done`: the checkpoint is that of the
    run's last step and needs no training, and Trainer would add a step to it."""
    if not done:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if run.alarm_stopped:
        take_advised(trainer, run, loaded=done)
    whole = trainer.state.global_step >= trainer.state.max_steps or run.alarm_stopped
    state = "finished" if whole else "interrupted"
    if trainer.accelerator.is_main_process:
        run.set_status(state, trainer.state.global_step, trainer.state.max_steps)
    try:
        trainer.save_model(str(run.path / "model"))
    except Exception as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(run.path / "model", ignore_errors=True)
        logger.error("the trained model was not saved: the disk is full; checkpoint-* has what was saved before")
    return state


def take_advised(trainer: GRPOTrainer, run: RunFolder, loaded: bool) -> None:
    """After the alarm ended a run: the weights of the best evaluation in place of the hacked ones, for model/ and for
    the last measurement. `loaded`: the trainer was made with them."""
    state = trainer.state
    best = advised_checkpoint(run.path, state)
    if best is None:
        logger.error(
            "the checkpoint of step %s, which the alarm advises, is not in %s: model/ holds the hacked weights of step "
            "%d, where the run stopped; don't go on from them", state.best_global_step, run.path, state.global_step,
        )  # fmt: skip
        return
    if not loaded:
        state.best_model_checkpoint = str(best)
        trainer._load_best_model()
    run.model_step = state.best_global_step
    run.alarm = f"{run.alarm}; model/ holds the weights of step {run.model_step}"
    logger.warning(
        "model/ holds the weights of step %d, which the alarm advises, and not those of step %d, where the run stopped",
        run.model_step, state.global_step,
    )  # fmt: skip


@contextlib.contextmanager
def nothing_lost(trainer: GRPOTrainer, run: RunFolder) -> Iterator[None]:
    """Whatever breaks a run off, its work so far is in a checkpoint, and its status and report say what happened."""
    try:
        yield
    except BaseException as error:
        save_what_there_is(trainer, run, error)
        raise
    finally:
        restore_signals()


def save_what_there_is(trainer: GRPOTrainer, run: RunFolder, error: BaseException) -> None:
    """A checkpoint of the last finished update, the status and a report. Several ranks cannot save when one of them
    fails; they have their last regular checkpoint."""
    step = trainer.state.global_step
    broken = isinstance(error, FloatingPointError)  # weights that are NaN are no work to keep
    if step and trainer.accelerator.num_processes == 1 and latest_step(run.path) != step and not broken:
        trainer._save_checkpoint(trainer.model, trial=None)
    if not trainer.accelerator.is_main_process:
        return
    state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    run.set_status(state, step, trainer.state.max_steps, f"{type(error).__name__}: {error}".rstrip(": "))
    if (saved := latest_step(run.path)) is not None:
        logger.error(
            "the run broke off after step %d; %s has its work up to step %d, and --resume goes on from there",
            step, run.path, saved,
        )  # fmt: skip
    with contextlib.suppress(OSError):  # the disk may be what is full
        write_report(run.path)


def latest_step(folder: Path) -> int | None:
    """The step of a run's newest checkpoint."""
    checkpoint = latest_checkpoint(folder)
    return None if checkpoint is None else int(checkpoint.name.split("-")[1])


def restore_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class StopOnSignal(TrainerCallback):
    """Ctrl-C or SIGTERM: finish the step, save a checkpoint, stop. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def on_train_begin(self, args, state, control, **kwargs):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def on_train_end(self, args, state, control, **kwargs):
        restore_signals()

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step, with a checkpoint and a report (once more to stop at once) …", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        if any(gather_object([self.asked])):  # a signal meets the ranks at different steps; they must stop at one
            control.should_save = control.should_training_stop = True


class Measured:
    """The held-out measurement on both sides of training: eval.json, and samples of the same problems."""

    def __init__(
        self, trainer: GRPOTrainer, test: Dataset | None, run: RunFolder, recipe: RLConfig, display: ProgressDisplay
    ):
        self.trainer, self.test, self.run, self.recipe, self.display = trainer, test, run, recipe, display
        self.samples: dict[str, list[dict[str, Any]]] = {}
        args = trainer.args
        self.protocol = Protocol(
            k=recipe.k, temperature=args.eval_temperature, top_p=args.eval_top_p,
            max_completion_length=args.max_completion_length,
        )  # fmt: skip

    def before(self) -> None:
        kept = self.run.path / "base_samples.json"
        if kept.exists():
            self.samples["base"] = json.loads(kept.read_text(encoding="utf-8"))["samples"]
            return
        self._measure("base", "before")
        if "base" in self.samples:
            self.run.write_json(kept.name, {"samples": self.samples["base"]})

    def after(self, state: str) -> None:
        if state == "finished" or self.trainer.state.global_step > 0:
            self._measure("trained", "after")

    def _measure(self, side: str, kind: str) -> None:
        main_process = self.trainer.accelerator.is_main_process
        together = getattr(self.trainer.sampler, "collective", False)  # it takes every rank to sample
        if self.test is None or not (main_process or together):
            self.trainer.accelerator.wait_for_everyone()
            return
        started, trainer = time.monotonic(), self.trainer
        self.display.show_phase(
            f"measuring the {side} model: {len(self.test)} held-out problems x {self.recipe.k} samples"
        )
        with trainer.compute_loss_context_manager():  # one precision before and after training
            samples = evaluate_policy(
                trainer.sampler,
                trainer.processing_class,
                self.test if main_process else self.test.select([]),
                JUDGE,
                self.protocol,
                trainer.args.max_sampling_rows,
            )
        if not main_process:
            trainer.accelerator.wait_for_everyone()
            return
        self.samples[side] = samples
        settings = {"model": self.recipe.model_name_or_path, f"{side}_seconds": time.monotonic() - started}
        self.run.write_json("eval.json", evaluation_report(self.samples, self.protocol, settings))
        self.run.append("samples.jsonl", self._shown(kind, samples))
        trainer.accelerator.wait_for_everyone()

    def _shown(self, kind: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert self.test is not None
        step = self.trainer.state.global_step
        rows = []
        for row, sample in list(zip(self.test, samples))[: self.recipe.show_samples]:
            judged = {"accuracy": float(sample["correct"][0]), "format": float(sample["formatted"][0])}
            rows.append(
                sample_row(kind, step, row, sample["texts"][0])
                | {
                    "reward": sum(judged.values()),
                    "rewards": judged,
                    "length": sample["lengths"][0],
                    "truncated": sample["truncated"][0],
                }
            )
        return rows

    def summary(self) -> str:
        if not self.samples:
            return "no held-out problems were measured (eval_dataset is not set)"
        report = evaluation_report(self.samples, self.protocol)
        lines = [table(report)]
        if "gain" in report:
            gain = report["gain"]
            strict = _points(gain["pass@1"], gain["ci95"])
            lenient = _points(gain["lenient_pass@1"], gain["lenient_ci95"])
            lines.append(f"gain in points: right answer in the right place {strict}, right answer anywhere {lenient}")
        return "\n".join(lines)


def _points(gain: float, interval: list[float]) -> str:
    return f"{100 * gain:+.1f} [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"


def settings(argv: list[str]) -> tuple[RLConfig, ProblemConfig, GRPOConfig]:
    return parse_or_resume(RLConfig, ProblemConfig, GRPOConfig, args=argv)


if __name__ == "__main__":
    with reported():
        main(*settings(sys.argv[1:]))
