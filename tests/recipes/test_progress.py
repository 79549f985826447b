"""The live display: the lines of a log, the panel of a terminal, and a terminal that is given back."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from transformers import Trainer, TrainingArguments

from recipes.progress import FIELDS, ProgressDisplay, clock, eval_fields, fields, part_name, printable, sparkline

ROOT = Path(__file__).parents[2]
LOGS = {
    "loss": 0.01,
    "reward": 0.844,
    "rewards/accuracy/mean": 0.414,
    "rewards/format/mean": 0.55,
    "completions/mean_length": 71.2,
    "frac_reward_zero_std": 0.121,
    "entropy": 1.018,
    "tokens_per_second": 1830.4,
    "step_time": 4.91,
    "epoch": 0.1,
}
LINE = (
    "step  12/100  reward 0.84  accuracy 0.41  format 0.55  length 71  zero-var 12%  entropy 1.02  1,830 tok/s"
    "  4.9 s/step  left 7:12"
)


def trainer_state(step: int = 12, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(is_world_process_zero=main, global_step=step, max_steps=100)


def on(display: ProgressDisplay, event: str, step: int = 12, main: bool = True, **given) -> None:
    getattr(display, f"on_{event}")(None, trainer_state(step, main), None, **given)


def plain() -> tuple[ProgressDisplay, io.StringIO]:
    file = io.StringIO()
    return ProgressDisplay(console=Console(file=file)), file


def terminal() -> tuple[ProgressDisplay, io.StringIO]:
    file = io.StringIO()
    return ProgressDisplay(console=Console(file=file, force_terminal=True, width=110, height=40)), file


def shown(display: ProgressDisplay) -> str:
    """The panel as text."""
    console = Console(file=io.StringIO(), width=110)
    console.print(display.panel())
    return console.file.getvalue()


def test_a_step_is_one_line():
    display, file = plain()
    on(display, "train_begin", 0)
    on(display, "log", 12, logs=LOGS)
    assert file.getvalue() == LINE + "\n"


def test_sampling_is_announced_before_the_first_step_ends():
    display, file = plain()
    on(display, "train_begin", 0)
    on(display, "step_begin", 0)
    assert file.getvalue() == "step   1/100: sampling …\n"
    on(display, "log", 1, logs=LOGS)
    on(display, "step_begin", 1)
    assert file.getvalue().count("sampling") == 1
    assert "sampling …" in shown(display)


def test_time_left_follows_the_recent_steps():
    display, file = plain()
    on(display, "train_begin", 0)
    for step in range(1, 31):
        on(display, "log", step, logs={"reward": 1.0, "step_time": 100.0 if step <= 10 else 6.0})
    assert file.getvalue().splitlines()[-1].endswith("left 7:00")  # 70 steps of 6 seconds; the slow ones are forgotten


@pytest.mark.parametrize("missing", [key for key in LOGS if key not in ("loss", "epoch")])
def test_a_missing_metric_is_left_out(missing):
    display, file = plain()
    on(display, "train_begin", 0)
    on(display, "log", logs={key: value for key, value in LOGS.items() if key != missing})
    kept = [field.text for field in fields(LOGS)]
    dropped = next(field.text for field in fields({missing: LOGS[missing]}))
    assert all((text in file.getvalue()) == (text != dropped) for text in kept)


@pytest.mark.parametrize(
    "logs",
    [
        None,
        {},
        {"train_runtime": 3.2},
        dict.fromkeys(LOGS),
        dict.fromkeys(LOGS, "text"),
        dict.fromkeys(LOGS, float("nan")),
    ],
)
def test_logs_without_a_metric_print_nothing(logs):
    for display, file in (plain(), terminal()):
        on(display, "log", logs=logs)
        assert file.getvalue() == ""
        assert "r1lab" in shown(display)


def test_only_the_main_process_speaks():
    display, file = plain()
    for event, given in (
        ("train_begin", {}),
        ("step_begin", {}),
        ("rollout", {}),
        ("log", {"logs": LOGS}),
        ("train_end", {}),
    ):
        on(display, event, main=False, **given)
    assert file.getvalue() == ""


def test_evaluations_have_a_line_of_their_own():
    display, file = plain()
    on(display, "train_begin", 0)
    on(display, "log", 20, logs={"eval/pass@1": 0.4375, "eval/mean_length": 71.23, "epoch": 1.0})
    assert file.getvalue() == "evaluation at step  20/100  pass@1 0.44  mean length 71.2\n"
    assert "pass@1 0.44" in shown(display)
    assert eval_fields({"eval_rewards/accuracy/mean": 0.5, "eval_greedy/accuracy": 0.25}) == [
        "pass@1 0.50",
        "greedy 0.25",
    ]


def test_the_panel_shows_progress_history_and_the_last_completion():
    display, _ = plain()
    on(display, "train_begin", 0)
    for step in range(1, 9):
        on(display, "log", step, logs=LOGS | {"reward": step / 8})
    display.show_sample("<think> 3 + 4 </think> [bold]<answer> 7 </answer>", reward=2.0)
    text = shown(display)
    for words in (
        "step   8/100",
        "elapsed 0:0",
        "left 7:32",
        "▁▂▃▄▅▆▇█",
        "1,830 tok/s",
        "(reward 2.00)",
        "[bold]<answer> 7",
    ):
        assert words in text
    assert all(name in text for name, _, _ in FIELDS)


def test_a_rollout_of_the_trainer_changes_phase_and_completion():
    display, _ = plain()
    group = SimpleNamespace(texts=["<answer> 42 </answer>", "other"], totals=[1.5, 0.0])
    on(display, "step_begin", 4)
    on(display, "rollout", 4, groups=[group])
    assert "updating …" in shown(display)
    assert "(reward 1.50)" in shown(display)
    assert "<answer> 42" in shown(display)


def test_a_completion_cannot_steer_the_terminal():
    display, _ = plain()
    display.show_sample("clear \x1b[2J the screen\x07\r\nnext line")
    assert not {"\x1b", "\x07", "\r"} & set(shown(display))
    assert printable("a\nb\x9b한글") == "a\nb�한글"


def test_a_terminal_gets_a_panel_and_is_given_back():
    display, file = terminal()
    with display:
        on(display, "train_begin", 0)
        on(display, "log", logs=LOGS)
        assert display.live is not None
        assert "\x1b[?25l" in file.getvalue()  # the cursor is hidden
    assert display.live is None
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")
    assert LINE not in file.getvalue()
    display.close()  # twice is fine


SCRIPT = """
import sys
from types import SimpleNamespace
from recipes.progress import ProgressDisplay
state = SimpleNamespace(is_world_process_zero=True, global_step=0, max_steps=9)
def train(display):
    display.on_train_begin(None, state, None)
    display.on_step_begin(None, state, None)
    raise {error}
if {managed}:
    with ProgressDisplay() as display:
        train(display)
train(ProgressDisplay())
"""


@pytest.mark.parametrize(("error", "managed"), [("KeyboardInterrupt", True), ("ValueError", False)])
def test_an_error_gives_the_terminal_back(error, managed):
    """On a real terminal; without the context manager the display closes at exit."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    code = SCRIPT.format(error=error, managed=managed)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    output = b""
    with (
        contextlib.suppress(OSError),
        open(ours, "rb", buffering=0) as file,
    ):  # Linux ends a closed terminal with an error
        while chunk := file.read(4096):
            output += chunk
    assert process.wait() != 0
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")
    assert b"step 1/9" in output
    assert error.encode() in output


class Square(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"loss": (self.weight * x).square().mean()}


def test_it_takes_the_place_of_the_trainers_own_display(tmp_path, capfd):
    args = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, logging_steps=1, use_cpu=True, report_to=[], save_strategy="no"
    )
    trainer = Trainer(model=Square(), args=args, train_dataset=[{"x": torch.ones(1)}] * 4)
    log = trainer.log
    trainer.log = lambda logs, *rest: log(
        logs | ({"reward": 0.5} if "loss" in logs else {}), *rest
    )  # as GRPOTrainer does
    display = ProgressDisplay()
    display.attach(trainer)
    trainer.train()
    out, err = capfd.readouterr()
    lines = [re.sub(r"left [\d:]+", "left", line) for line in out.splitlines()]
    assert lines == ["step 1/2: sampling …", "step 1/2  reward 0.50  left", "step 2/2  reward 0.50  left"]
    assert "it/s" not in err


def test_small_parts():
    assert [clock(x) for x in (0, 59.6, 432, 3723, -5)] == ["0:00", "1:00", "7:12", "1:02:03", "0:00"]
    assert sparkline([]) == ""
    assert sparkline([0.5, 0.5]) == "▄▄"
    assert len(sparkline([float(i) for i in range(1000)], width=30)) <= 30
    assert part_name("rewards/my.package:conciseness/mean") == "conciseness"
    assert part_name("rewards/accuracy/mean") == "accuracy"
