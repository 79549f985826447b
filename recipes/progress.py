"""A run's progress in the terminal: a live panel where there is a terminal, one line a step in CI logs and files.

`ProgressDisplay` is a transformers callback. It only reads what the trainer logs (docs/metrics.md), and it never stops
a run: a metric that is missing is left out. As a context manager it gives the terminal back when an exception or Ctrl-C
ends the training:

    with ProgressDisplay() as display:
        display.attach(trainer)
        trainer.train()
"""

import atexit
import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from recipes.page_parts import TRAINER_EVAL_NAMES, number, short

FIELDS = (  # name, metric, format; the rewards by part stand after the reward
    ("reward", "reward", "{:.2f}"),
    ("length", "completions/mean_length", "{:.0f}"),
    ("zero-var", "frac_reward_zero_std", "{:.0%}"),
    ("entropy", "entropy", "{:.2f}"),
    ("speed", "tokens_per_second", "{:,.0f} tok/s"),
    ("step time", "step_time", "{:.1f} s/step"),
)
SELF_EXPLAINING = ("speed", "step time")  # their unit says what they are, so a line leaves out the name
RECENT_STEPS = 20  # the time left is computed from this many steps
MAX_EXCERPT = 600  # characters of a completion shown in the panel


class Field(NamedTuple):
    """One metric of one step, ready to show."""

    name: str
    text: str
    value: float


def fields(logs: dict[str, Any]) -> list[Field]:
    """The metrics in logs that are worth a look at every step, in order; a missing or non-finite one is left out."""
    parts = [(part_name(key), key, "{:.2f}") for key in logs if re.fullmatch(r"rewards/.+/mean", key)]
    values = [(name, form, number(logs.get(key))) for name, key, form in (FIELDS[0], *parts, *FIELDS[1:])]
    return [Field(name, form.format(value), value) for name, form, value in values if value is not None]


def part_name(key: str) -> str:
    """rewards/accuracy/mean -> accuracy; rewards/package.module:function/mean -> function."""
    return re.split(r"[:.]", key.removeprefix("rewards/").removesuffix("/mean"))[-1]


def eval_fields(logs: dict[str, Any]) -> list[str]:
    """The evaluation's metrics in logs: eval/mean_length 71.2 becomes "mean length 71.2"."""
    named = {TRAINER_EVAL_NAMES.get(key, key): number(value) for key, value in logs.items()}
    found = [(key.removeprefix("eval/"), value) for key, value in named.items() if key.startswith("eval/")]
    return [f"{name.replace('_', ' ')} {short(value)}" for name, value in found if value is not None]


def clock(seconds: float) -> str:
    """432 -> 7:12, 3723 -> 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: list[float], width: int = 32) -> str:
    """The history of a metric in at most `width` characters, from its lowest value to its highest.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    '▁▂▃▄▅▆▇█'
    """
    size = -(-len(values) // width) or 1
    chunks = [values[i : i + size] for i in range(0, len(values), size)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span) if span else 3] for mean in means)


def step_of(step: int, max_steps: int) -> str:
    return f"step {step:>{len(str(max_steps))}}/{max_steps}" if max_steps > 0 else f"step {step}"


def printable(text: str) -> str:
    """Model text without control characters: an escape sequence in a completion must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


class ProgressDisplay(TrainerCallback):
    """Shows steps, metrics and the time left. max_steps: when it is known before the trainer tells."""

    def __init__(self, max_steps: int = 0, console: Console | None = None):
        self.max_steps = max_steps
        self.console = console or Console()
        self.finished = 0
        self.phase = "starting"
        self.latest: list[Field] = []
        self.history: dict[str, list[float]] = {}
        self.evaluation = ""
        self.excerpt = Text()
        self.step_times: deque[float] = deque(maxlen=RECENT_STEPS)
        self.started = self.step_began = time.monotonic()
        self.live: Live | None = None

    def attach(self, trainer: Any) -> None:
        """Take the place of the trainer's own progress bar and printer."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def start(self) -> None:
        """Open the panel if there is a terminal; a second call does nothing."""
        if self.live is None and self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(get_renderable=self.panel, console=self.console, refresh_per_second=4)
            self.live.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Give the terminal back; the last panel stays on the screen. Safe to call at any time, and twice."""
        live, self.live = self.live, None
        if live is not None:
            live.stop()
            atexit.unregister(self.close)

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def show_phase(self, phase: str) -> None:
        """Say what is going on now, such as "sampling" or "evaluating the base". Call it on the main process only."""
        self.start()
        self.phase = phase
        self.write(f"{phase} …")

    def show_sample(self, completion: str, reward: float | None = None) -> None:
        """Put a completion into the panel."""
        text = printable(completion).strip()
        score = "" if reward is None else f" (reward {reward:.2f})"
        self.excerpt = Text(f"last completion{score}\n", style="dim")
        self.excerpt.append(text[:MAX_EXCERPT] + (" …" if len(text) > MAX_EXCERPT else ""), style="not dim")

    def write(self, line: str) -> None:
        """Print a line unless the panel shows it anyway."""
        if self.live is None:
            print(line, file=self.console.file, flush=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.max_steps = state.max_steps if state.max_steps > 0 else self.max_steps
            self.started = time.monotonic()
            self.start()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step begins with sampling, which can take minutes: say so; in a log only before the first line."""
        if state.is_world_process_zero:
            self.finished, self.phase, self.step_began = state.global_step, "sampling", time.monotonic()
            if not self.step_times:
                self.write(f"{step_of(state.global_step + 1, self.max_steps)}: sampling …")

    def on_rollout(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        groups: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        """GRPOTrainer's own event: completions are sampled and scored. The panel shows the last group's first one."""
        if state.is_world_process_zero:
            self.phase = "updating"
            for group in groups[-1:]:
                self.show_sample(group.texts[0], group.totals[0])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        step = int(number(logs.get("step")) or state.global_step)
        if words := eval_fields(logs):
            self.evaluation = "  ".join([f"evaluation at {step_of(step, self.max_steps)}", *words])
            self.write(self.evaluation)
        if found := fields(logs):
            self.record(step, found)
            words = [field.text if field.name in SELF_EXPLAINING else f"{field.name} {field.text}" for field in found]
            self.write("  ".join([step_of(step, self.max_steps), *words, *self.left()]))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.phase = ""
        self.close()

    def record(self, step: int, found: list[Field]) -> None:
        """Keep a finished step. The panel's thread reads while we write, so a field's history is there before it."""
        for field in found:
            self.history.setdefault(field.name, []).append(field.value)
        measured = time.monotonic() - self.step_began
        self.step_times.append(next((field.value for field in found if field.name == "step time"), measured))
        self.finished, self.latest, self.phase = step, found, ""

    def left(self) -> list[str]:
        """["left 7:12"], or [] while nothing is known."""
        steps = self.max_steps - self.finished
        mean = sum(self.step_times) / max(1, len(self.step_times))
        return [f"left {clock(mean * steps)}"] if self.step_times and steps >= 0 else []

    def panel(self) -> Panel:
        """What the terminal shows now; rich asks four times a second, so that the clock moves while a step runs."""
        step = step_of(min(self.finished + 1, self.max_steps or self.finished + 1), self.max_steps)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            step if self.phase else step_of(self.finished, self.max_steps),
            ProgressBar(total=max(1, self.max_steps), completed=self.finished, width=24),
            "  ".join([f"elapsed {clock(time.monotonic() - self.started)}", *self.left()]),
            Text(f"{self.phase} …" if self.phase else "", style="cyan"),
        )
        metrics = Table.grid(padding=(0, 2))
        for field in self.latest:
            metrics.add_row(Text(field.name, "dim"), field.text, Text(sparkline(self.history[field.name]), "blue"))
        texts = [text for text in (Text(self.evaluation), self.excerpt) if text.plain]
        return Panel(Group(head, "", metrics, *texts), title="r1lab", title_align="left")


class SamplingProgress:
    """Counts completions while they are sampled: in one line of a terminal, every second; elsewhere a line every 10."""

    def __init__(self, what: str = "completions"):
        self.what = what
        self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        terminal = sys.stderr.isatty()
        if done < total and time.monotonic() - self.last < (1.0 if terminal else 10.0):
            return
        self.last = time.monotonic()
        start, end = ("\r", "" if done < total else "\n") if terminal else ("", "\n")
        print(f"{start}{self.what}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)
