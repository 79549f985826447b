"""An alarm against reward hacking: a learned reward that rises while held-out accuracy falls.

DeepSeek-R1 saw it when the preference reward ran for too long: the reward went up while the score on Codeforces went
down (v2, figure 6). Accuracy is judged by rules on problems that are never trained on, so it cannot be talked round.

The rule, at every evaluation of a run:

- accuracy has fallen: it lies below its best of the run by more than z standard errors of the difference. A standard
  error counts problems, not samples: the samples of one problem go up and down together. z makes up for the choice of
  the best: `false_alarms` is divided by the number of pairs of evaluations that the run will have (Bonferroni);
- and the reward has risen since: its mean over the last `window` log lines lies above that of the window that ended
  at the best evaluation (or of its first window, if it began later) by more than 2 standard errors.

A reward that rises with an accuracy that only wavers, the honest case, sets it off in at most `false_alarms` of runs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, variance
from typing import Any

from transformers import TrainerCallback, TrainerState

from grpo.checkpoints import is_whole
from recipes.run_folder import RunFolder

logger = logging.getLogger(__name__)

RISE_ERRORS = 2.0
"""Standard errors that the reward must have risen by."""
MESSAGE, STOPPED = "hacking/alarm", "hacking/stopped"
"""In the trainer's log history, which every checkpoint holds: what the alarm said, and whether that ended the run."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out accuracy at a step, a share of `num_problems` problems."""

    step: int
    accuracy: float
    num_problems: int

    @property
    def standard_error(self) -> float:
        """Of Wilson's centre: at 0 and 1 the plain one is 0, which no finite number of problems can promise."""
        centre = (self.accuracy * self.num_problems + 2) / (self.num_problems + 4)
        return math.sqrt(centre * (1 - centre) / self.num_problems)


@dataclass(frozen=True)
class Hacking:
    """What the alarm saw. Standard errors stand beside both differences."""

    best: Evaluation
    now: Evaluation
    fall: float
    fall_error: float
    threshold: float
    reward_before: float
    reward_now: float
    rise_error: float

    @property
    def rise(self) -> float:
        return self.reward_now - self.reward_before

    def describe(self, reward: str, accuracy: str) -> str:
        return (
            f"the {reward} reward is being hacked: it rose from {self.reward_before:.3f} to {self.reward_now:.3f} "
            f"({self.rise / max(self.rise_error, 1e-12):.1f} standard errors) while held-out {accuracy} fell from "
            f"{self.best.accuracy:.3f} at step {self.best.step} to {self.now.accuracy:.3f} at step {self.now.step} "
            f"({self.fall / self.fall_error:.1f} standard errors, alarm at {self.threshold:.1f}); take the checkpoint "
            f"of step {self.best.step}, or give {reward} less weight or fewer steps"
        )

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "hacking/reward_rise": self.rise,
            "hacking/reward_rise_se": self.rise_error,
            "hacking/accuracy_fall": self.fall,
            "hacking/accuracy_fall_se": self.fall_error,
        }


def find_hacking(
    rewards: Sequence[tuple[int, float]],
    evaluations: Sequence[Evaluation],
    num_evaluations: int | None = None,
    window: int = 10,
    false_alarms: float = 0.05,
) -> Hacking | None:
    """What the rule says after the last evaluation; None while there is nothing to say.

    rewards: (step, mean over the step's completions) in order. num_evaluations: how many the run will have in all;
    None: those so far. Raises ValueError for a window below 3 or false_alarms outside (0, 1).
    """
    if window < 3 or not 0 < false_alarms < 1:
        raise ValueError(f"window must be 3 log lines or more and false_alarms in (0, 1), got {window}, {false_alarms}")
    if len(evaluations) < 2:
        return None
    best, now = max(evaluations[:-1], key=lambda evaluation: evaluation.accuracy), evaluations[-1]
    total = max(num_evaluations or 0, len(evaluations))
    threshold = NormalDist().inv_cdf(1 - false_alarms / (total * (total - 1) / 2))
    fall, fall_error = best.accuracy - now.accuracy, math.hypot(best.standard_error, now.standard_error)
    if fall <= threshold * fall_error:
        return None
    until = [value for step, value in rewards if step <= now.step]
    at_best = sum(step <= best.step for step, _ in rewards)
    before = until[max(0, at_best - window) : at_best] if at_best >= window else until[:window]
    later = until[max(at_best, window) :][-window:]
    if len(before) < window or len(later) < 3:
        return None
    rise_error = math.sqrt(variance(before) / len(before) + variance(later) / len(later))
    rise = fmean(later) - fmean(before)
    if rise <= RISE_ERRORS * rise_error:
        return None
    return Hacking(best, now, fall, fall_error, threshold, fmean(before), fmean(later), rise_error)


def recall_alarm(run: RunFolder, history: Sequence[dict[str, Any]], stop: bool) -> None:
    """Tell a run that resumes what its alarm had said before; of an alarm that ended it, whether it stays ended, which
    `stop` (stop_on_hacking, now) decides."""
    said = next((line for line in reversed(history) if MESSAGE in line), None)
    if said is None:
        return
    run.alarm = said[MESSAGE]
    run.alarm_stopped = stop and said[STOPPED]
    if run.alarm_stopped:
        logger.warning("the alarm ended this run at step %d and it trains no further: %s", said["step"], run.alarm)
    elif said[STOPPED]:
        logger.warning("the alarm ended this run at step %d; stop_on_hacking is off, so it goes on", said["step"])


def advised_checkpoint(output_dir: str | Path, state: TrainerState) -> Path | None:
    """The checkpoint of the best evaluation so far; None where there is none, as when the disk was full."""
    folder = Path(output_dir) / f"checkpoint-{state.best_global_step}"
    return folder if is_whole(folder) else None


class HackingAlarm(TrainerCallback):
    """Looks at the logged history at every evaluation; so a run that resumes knows what happened before.

    The best evaluation so far has a checkpoint, out of turn if need be, and that outlives those that follow it: it is
    what the alarm will advise. What the alarm says goes into the history, and so into every checkpoint from there on.

    reward, accuracy: names of reward functions; the first as training logs it, the second as evaluations do.
    """

    def __init__(
        self, run: RunFolder, num_problems: int, reward: str, accuracy: str = "accuracy", stop: bool = False,
        window: int = 10, false_alarms: float = 0.05,
    ):  # fmt: skip
        self.run, self.num_problems, self.reward, self.accuracy = run, num_problems, reward, accuracy
        self.stop, self.window, self.false_alarms = stop, window, false_alarms

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rewards, evaluations = self.series(state.log_history)
        keep_best(args, state, control, evaluations)
        planned = round(state.max_steps / state.eval_steps) if args.eval_strategy == "steps" else None
        hacking = find_hacking(rewards, evaluations, planned, self.window, self.false_alarms)
        if hacking is None:
            return
        message = hacking.describe(self.reward, self.accuracy)
        self.run.alarm = message
        state.log_history.append({"step": state.global_step, MESSAGE: message, STOPPED: self.stop})
        if state.is_world_process_zero:
            logger.warning("%s%s", message, "; the run stops here" if self.stop else "")
            line = {"step": state.global_step, "elapsed": self.run.last_elapsed(), **hacking.metrics}
            self.run.append("metrics.jsonl", [line])
        if self.stop:
            self.run.alarm_stopped = True
            control.should_save = control.should_training_stop = True

    def series(self, history: Sequence[dict[str, Any]]) -> tuple[list[tuple[int, float]], list[Evaluation]]:
        """The reward by log line and the accuracy by evaluation, from what Trainer keeps of its logs."""
        logged, evaluated = f"rewards/{self.reward}/mean", f"eval_rewards/{self.accuracy}/mean"
        rewards = [(line["step"], line[logged]) for line in history if logged in line]
        evaluations = {
            line["step"]: Evaluation(line["step"], line[evaluated], self.num_problems)
            for line in history
            if evaluated in line
        }
        return rewards, list(evaluations.values())


def keep_best(args: Any, state: Any, control: Any, evaluations: Sequence[Evaluation]) -> None:
    """Save the model that was just evaluated if it is the best so far, and spare the best one's checkpoint."""
    if not evaluations:
        return
    best = max(evaluations, key=lambda evaluation: evaluation.accuracy).step
    if best == state.global_step:
        control.should_save = True
    state.best_global_step = best
    state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{best}")  # what Trainer's rotation spares
