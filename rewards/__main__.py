"""Check one answer from the command line: `python -m rewards check --gold 1/2 --answer 0.5`. Exit code 0 if it is
correct, else 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rewards.checking import check
from rewards.tasks import TASKS
from rewards.verdicts import VerdictKind


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    verdict = check(gold=options.gold, answer=options.answer, task=options.task, numbers=options.numbers)
    reward = "none (the completion is masked)" if verdict.reward is None else verdict.reward
    print(f"{verdict.kind.value}: {verdict.detail}\nreward: {reward}")
    return 0 if verdict.kind is VerdictKind.CORRECT else 1


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m rewards", description=__doc__, allow_abbrev=False)
    command = result.add_subparsers(required=True, metavar="check").add_parser(
        "check", help="compare one answer with a gold answer"
    )
    command.add_argument("--gold", required=True, help="the gold answer; countdown: the target")
    command.add_argument("--answer", help="the model's answer; leave it out to see what no answer gives")
    command.add_argument("--task", help=f"one of {', '.join(TASKS)}; any other, or none, is mathematics")
    command.add_argument("--numbers", type=int, nargs="+", default=[], help="countdown's numbers")
    return result


if __name__ == "__main__":
    sys.exit(main())
