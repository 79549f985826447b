"""Try rewards from the command line.

    python -m rewards check --gold 1/2 --answer 0.5                         one answer: the verdict, and why
    python -m rewards check --reward format --completion '<think>…'         one completion, by any reward
    python -m rewards list                                                  the built-in rewards
    python -m rewards audit runs/r1-zero/samples.jsonl                      a file of completions

Exit code of check: 0 for a positive reward, 1 for any other or none. Of audit: 0, 1 if a line could not be scored, 130
after Ctrl-C. Of both: 2 for what was asked wrongly or cannot run here.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rewards.audit import INTERRUPTED, audit_file, render
from rewards.checking import check
from rewards.combination import load_reward
from rewards.registry import BUILT_IN, load_attribute
from rewards.scoring import score_all
from rewards.second_checkers import CHECKERS, available
from rewards.steps import StepRewards
from rewards.tasks import TASKS
from rewards.verdicts import Verdict

MASKED = "none (the completion is masked)"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m rewards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = result.add_subparsers(required=True, metavar="check | list | audit")

    command = commands.add_parser(
        "check", allow_abbrev=False, help="what a reward says of one answer or completion, and why"
    )
    command.set_defaults(command=run_check)
    command.add_argument("--reward", default="accuracy", help=f"{', '.join(BUILT_IN)}, or package.module:function")
    text = command.add_mutually_exclusive_group()
    text.add_argument("--answer", help="the model's answer by itself (accuracy only)")
    text.add_argument("--completion", help="the model's whole completion; - reads it from standard input")
    command.add_argument("--gold", help="the gold answer: the column `answer`; countdown: the target")
    command.add_argument(
        "--prompt", default="", help="the prompt, if the reward reads it; an open <think> at its end counts"
    )
    command.add_argument("--task", help=f"one of {', '.join(TASKS)}; any other, or none, is mathematics")
    command.add_argument("--numbers", type=int, nargs="+", help="countdown's numbers")
    for flag, what in (("--column", "another column of the data set"), ("--arg", "an argument of the reward")):
        command.add_argument(
            flag,
            type=name_and_value,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"{what}, in JSON or text",
        )

    command = commands.add_parser("list", allow_abbrev=False, help="the built-in rewards, a line each")
    command.set_defaults(command=run_list)

    command = commands.add_parser(
        "audit", allow_abbrev=False, help="score a file of completions: verdicts, disagreements, the slowest"
    )
    command.set_defaults(command=run_audit)
    command.add_argument("file", help="JSON lines with completion, answer or solution, prompt, task, numbers")
    command.add_argument(
        "--second", choices=["all", *CHECKERS, "none"], default="all", help="checkers to compare with, if installed"
    )
    command.add_argument("--examples", type=_natural, default=10, help="lines shown of each kind")
    command.add_argument("--json", action="store_true", help="print everything, each line's verdict too, as JSON")
    return result


def name_and_value(text: str) -> tuple[str, Any]:
    """A value that is no JSON is a text.

    >>> name_and_value("numbers=[3, 4]"), name_and_value("kind=math")
    (('numbers', [3, 4]), ('kind', 'math'))
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value)
    return name, value


def run_check(options: argparse.Namespace) -> int:
    columns = {"answer": options.gold, "task": options.task, "numbers": options.numbers}
    columns = {name: value for name, value in columns.items() if value is not None} | dict(options.column)
    if options.completion is None:
        verdict = _judge_answer(options, columns)
        notes, reward = _described(verdict), verdict.reward
    else:
        completion = sys.stdin.read() if options.completion == "-" else options.completion
        notes, reward = _judge_completion(options, completion, {name: [value] for name, value in columns.items()})
    verdict_line, *others = notes
    print(verdict_line, f"reward: {MASKED if reward is None else round(reward, 4)}", *others, sep="\n")
    return 0 if reward is not None and reward > 0 else 1


def _judge_answer(options: argparse.Namespace, columns: dict[str, Any]) -> Verdict:
    if options.reward != "accuracy":
        load_reward(options.reward, dict(options.arg))  # an unknown name is said first
        raise ValueError(f"reward {options.reward!r} judges a whole completion; give it by --completion")
    gold = columns.get("answer", columns.get("solution"))
    if gold is None:
        raise ValueError("the accuracy reward compares with a gold answer; give it by --gold")
    return check(gold=str(gold), answer=options.answer, task=columns.get("task"), numbers=columns.get("numbers", []))


def _judge_completion(
    options: argparse.Namespace, completion: str, columns: dict[str, list]
) -> tuple[list[str], float | None]:
    """What there is to say, the verdict first, and the reward."""
    logged: dict[str, Any] = {}
    (score,) = score_all(
        [load_reward(options.reward, dict(options.arg))],
        [options.prompt],
        [completion],
        columns,
        log_metric=logged.__setitem__,
        log_extra=lambda name, values: logged.__setitem__(name, values[0]),
    )[0]
    reward = score.mean if isinstance(score, StepRewards) else score
    built_in = BUILT_IN.get(options.reward)
    if built_in and built_in.verdicts and not options.arg:
        verdicts = load_attribute(options.reward, built_in.verdicts)
        (verdict,) = verdicts([options.prompt], [completion], **_known(verdicts, columns))
        return ["the row has nothing to check against"] if verdict is None else _described(verdict), reward
    title = f"{options.reward}: {built_in.summary}" if built_in else options.reward
    return [title, *(f"{name}: {value}" for name, value in logged.items() if value)], reward


def _known(function: Callable, columns: dict[str, list]) -> dict[str, list]:
    """The columns that a function takes."""
    parameters = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: column for name, column in columns.items() if takes_all or name in parameters}


def _described(verdict: Any) -> list[str]:
    """The kind of a verdict with its sentence, then what else it knows."""
    rest = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}
    kind, detail = rest.pop("kind"), rest.pop("detail")
    return [f"{kind}: {detail}", *(f"{name}: {value}" for name, value in rest.items() if value not in ("", None))]


def run_list(options: argparse.Namespace) -> int:
    width = max(map(len, BUILT_IN))
    for name, built_in in BUILT_IN.items():
        args = f"; args: {built_in.args}" if built_in.args else ""
        print(f"{name:{width}}  {built_in.summary}{args}")
    print(
        "\none's own: package.module:function, f(prompts, completions, **columns) -> list[float | None], sync or async"
    )
    return 0


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"0 or more, got {text}")
    return number


def run_audit(options: argparse.Namespace) -> int:
    second = {"all": available(), "none": []}.get(options.second, [options.second])
    if missing := set(second) - set(available()):
        raise ValueError(f"{', '.join(missing)} is not installed; choose another --second, or none")
    with progress(options.file) as advance:
        audit = audit_file(options.file, second, advance)
    print(
        json.dumps(audit.to_json(), ensure_ascii=False, indent=1) if options.json else render(audit, options.examples)
    )
    if not audit.findings and not audit.errors and not audit.stopped:
        raise ValueError(f"{options.file} holds no completion; it needs a JSON object a line, with `completion`")
    if audit.stopped:
        return 130 if audit.stopped == INTERRUPTED else 2
    return 1 if audit.errors else 0


@contextlib.contextmanager
def progress(path: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error for (bytes read, lines done)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.fields[lines]:,} lines"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("audit", total=os.path.getsize(path), lines=0)
        yield lambda read, lines: bar.update(task, completed=read, lines=lines)


if __name__ == "__main__":
    sys.exit(main())
