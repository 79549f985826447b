"""`python -m data`: look at a problem set, clean one of evaluation problems, or write generated ones to a file.

    python -m data show SOURCE --limit 5
    python -m data decontaminate TRAIN --against EVAL [EVAL ...] --output clean.jsonl [--report report.json]
    python -m data problems --split test --tasks arithmetic countdown --count 20 [--output problems.jsonl]

A mistake in what was asked for ends with one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_SHOWN = 600
"""Characters of a value that `show` prints."""

OUTPUT_SUFFIXES = (".jsonl", ".parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    _quiet_datasets()
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (`head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        print(f"python -m data {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _quiet_datasets() -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data", description="Problem sets.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_show(commands)
    _add_decontaminate(commands)
    _add_problems(commands)
    return parser


def _add_show(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("show", help="print problems as the project reads them", allow_abbrev=False)
    command.add_argument("source", help="a file, a folder, a Hub name, or reasoning-gym:NAME")
    command.add_argument("--limit", type=int, default=5, help="problems to print (default 5)")
    _add_reading(command)
    command.set_defaults(run=run_show)


def _add_decontaminate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "decontaminate", help="drop training problems that overlap with evaluation sets", allow_abbrev=False
    )
    command.add_argument("train", help="the training set: a file, a folder or a Hub name")
    command.add_argument("--against", nargs="+", required=True, metavar="EVAL", help="evaluation sets, likewise")
    command.add_argument("--n", type=int, default=10, help="words in a row that count as overlap (default 10)")
    command.add_argument("--output", required=True, type=Path, help=f"the cleaned set ({' or '.join(OUTPUT_SUFFIXES)})")
    command.add_argument("--report", type=Path, help="what was dropped and why, as JSON")
    command.add_argument("--against-split", default="test", metavar="SPLIT", help="the evaluation sets' (default test)")
    command.add_argument(
        "--against-column", action="append", default=[], metavar="OURS=THEIRS", help="--column for the evaluation sets"
    )
    _add_reading(command)
    command.set_defaults(run=run_decontaminate)


def _add_problems(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("problems", help="write the project's generated problems", allow_abbrev=False)
    command.add_argument("--split", required=True, help="pretrain, train, validation or test")
    command.add_argument("--count", type=int, required=True, help="problems, over all tasks together")
    command.add_argument("--tasks", nargs="+", help="task names (default: all)")
    command.add_argument("--languages", nargs="+", help="language codes (default: all)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--output", type=Path, help="default: print one JSON object a line")
    command.set_defaults(run=run_problems)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--split", default="train", help="of a Hub set or a folder (default train)")
    command.add_argument("--name", help="configuration of a Hub set")
    command.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help='such as "answer=my_gold"; may be repeated'
    )


# --- Commands


def run_show(args: argparse.Namespace) -> None:
    from data.loading import load_problems

    columns = read_mapping(args.column)
    problems = load_problems(args.source, columns=columns, split=args.split, name=args.name, limit=args.limit)
    for number, row in enumerate(problems, start=1):
        print(f"--- {number}")
        for column, value in row.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            print(f"{column}: {text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + ' ...'}")


def run_decontaminate(args: argparse.Namespace) -> None:
    from data.decontaminate import decontaminate
    from data.loading import load_problems, load_texts

    _check_outputs(args.output, args.report, inputs=[args.train, *args.against])
    train = load_problems(args.train, columns=read_mapping(args.column), split=args.split, name=args.name)
    against_columns = read_mapping(args.against_column)
    sets = [load_texts(source, columns=against_columns, split=args.against_split) for source in args.against]
    kept, report = decontaminate(train, sets, n=args.n, names=args.against)
    write_problems(kept, args.output)
    if args.report:
        text = json.dumps(report.as_dict(), ensure_ascii=False, indent=2)
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(text + "\n", encoding="utf-8")
    print(report)


def run_problems(args: argparse.Namespace) -> None:
    from data.problems import make_problems

    if args.count < 1:
        raise ValueError(f"--count must be 1 or more, got {args.count}")
    if args.output:
        _check_outputs(args.output, None, inputs=[])
    languages = {"languages": args.languages} if args.languages else {}
    problems = make_problems(split=args.split, size=args.count, seed=args.seed, tasks=args.tasks, **languages)
    if args.output:
        write_problems(problems, args.output)
        print(f"{len(problems):,} problems in {args.output}")
    else:
        for row in problems:
            print(json.dumps(row, ensure_ascii=False))


def read_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """["answer=my_gold"] -> {"answer": "my_gold"}."""
    mapping = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise ValueError(f"expected OURS=THEIRS, such as answer=my_gold, got {pair!r}")
        mapping[ours] = theirs
    return mapping


def _check_outputs(output: Path, report: Path | None, inputs: Sequence[str]) -> None:
    """Before any work: the output has a suffix that we write, and overwrites no input."""
    if output.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"--output {output}: the file name must end in {' or '.join(OUTPUT_SUFFIXES)}")
    targets = [path.resolve() for path in (output, report) if path]
    if len(set(targets)) < len(targets):
        raise ValueError(f"--output and --report are the same file, {output}")
    for source in inputs:
        if Path(source).expanduser().resolve() in targets:
            raise ValueError(f"{source} is an input and would be overwritten; choose another name")


def write_problems(problems: Dataset, output: Path) -> None:
    """One JSON object a line, or parquet, by the suffix. Missing folders are made."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".parquet":
        problems.to_parquet(str(output))
        return
    with output.open("w", encoding="utf-8") as file:
        for row in problems:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
