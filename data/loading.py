"""Problem sets from files, folders, the Hub and memory, brought into the project's schema (data.problems.Problem).

The layouts of GSM8K, MATH, AIME, DeepScaleR, Open-R1, DAPO, TRL and Countdown are recognised by their columns; any
other set needs a mapping `columns={"problem": theirs, "answer": theirs}`. A row without a readable gold answer never
reaches training: it is dropped, counted and logged. docs/data.md lists what is recognised and how it is read.
"""

from __future__ import annotations

import difflib
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.drops import collect_drops
from data.problems import LANGUAGES, Problem, content_hash
from data.sources import open_source, rows_of
from data.values import (
    guess_language,
    read_difficulty,
    read_gold,
    read_language,
    read_name,
    read_numbers,
    read_problem,
)

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

CANDIDATES: dict[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "extra_info.question", "prompt", "query"),
    "answer": (
        "answer",
        "final_answer",
        "expected_answer",
        "ground_truth",
        "reward_model.ground_truth",
        "gold_answer",
        "gold",
        "solution",
    ),
    "task": ("task",),
    "language": ("language", "lang"),
    "difficulty": ("difficulty", "level"),
    "numbers": ("numbers", "nums"),
}
"""Our column -> theirs, best first; a dot goes into a struct. Upper and lower case are the same."""

SCHEMA = tuple(item.name for item in fields(Problem))

RESERVED = (*SCHEMA, "prompt", "prompts", "completion", "completions", "completion_ids")
"""Names a source's own column cannot keep: our schema, and what a reward function is called with besides columns."""

GYM_PREFIX = "reasoning-gym:"
GYM_SIZE = 1000
"""Problems drawn from a reasoning-gym generator when no limit is given."""


def load_problems(
    source: str | Path | Dataset,
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    task: str | None = None,
    language: str | None = None,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """The problems of `source`, one row each: the columns of data.problems.Problem, then the source's other columns.

    source: a file (.jsonl, .json, .csv, each also .gz; .parquet), a folder of such files, a `save_to_disk` folder, a
        name on the Hub, "reasoning-gym:NAME", or a Dataset.
    columns: ours -> theirs, for what is not recognised; "reward_model.ground_truth" goes into a struct.
    split, name: which split and configuration of a Hub set, a DatasetDict or a folder. One file has one split.
    limit: the first so many good rows. task, language: set for every row, over what the source says.
    guess: tells the language of a problem whose row does not; by default its script does.

    A source column whose name is taken (`answer`, `id`, `prompt`, ...) stays as `source_<name>` unless it holds the
    same. Raises FileNotFoundError, ConnectionError (Hub out of reach) or ValueError (columns, split, no row left).
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, got {limit}; leave it out for all rows")
    if isinstance(source, str) and source.startswith(GYM_PREFIX):
        if columns or name or task or language:
            raise ValueError(f"{source} comes in the project's schema: columns, name, task and language do not apply")
        return _load_gym(source, split, limit)
    rows, label = open_source(source, split=split, name=name)
    paths = match_columns(rows, columns or {}, required=("problem", "answer"), label=label)
    own_schema = not columns and set(SCHEMA) <= set(rows.column_names)
    needs_answer = not (own_schema and "gym_entry" in rows.column_names)
    reader = _RowReader(paths=paths, own_schema=own_schema, needs_answer=needs_answer, guess=guess)
    reader.read(rows, limit=limit, task=task, language=language)
    reader.report(label)
    return _with_source_columns(rows, reader.positions, reader.problems)


def load_texts(
    source: str | Path | Dataset,
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "test",
    name: str | None = None,
) -> Dataset:
    """Only `id` and `problem` of each row, gold answer or not: what an evaluation set is decontaminated against.

    Sources and errors as for load_problems; a set that load_problems would thin out for want of gold stays whole.
    """
    if isinstance(source, str) and source.startswith(GYM_PREFIX):
        return _load_gym(source, split, None).select_columns(["id", "problem"])
    rows, label = open_source(source, split=split, name=name)
    paths = match_columns(rows, columns or {}, required=("problem",), label=label)
    own_schema = not columns and set(SCHEMA) <= set(rows.column_names)
    reader = _RowReader(paths=paths, own_schema=own_schema, needs_answer=False)
    reader.read(rows)
    reader.report(label)
    return _problem_dataset(reader.problems).select_columns(["id", "problem"])


def _load_gym(source: str, split: str, limit: int | None) -> Dataset:
    from data.gym import load_gym

    return load_gym(source.removeprefix(GYM_PREFIX), limit or GYM_SIZE, split=split)


# --- Which column is which


def match_columns(
    rows: Dataset, columns: Mapping[str, str], *, required: Sequence[str], label: str = "the set"
) -> dict[str, str]:
    """Our column -> the path of theirs, from the user's mapping first and CANDIDATES next.

    A set with numbers and a `target` is Countdown: the target is its gold, and the problem may be left to us to state.
    Raises ValueError for a mapping that names no column, and for a required column that is not found.
    """
    _check_mapping(rows, columns, label)
    paths = dict(columns)
    for ours in CANDIDATES:
        if ours not in paths and (found := _find(rows.features, ours)):
            paths[ours] = found
    target = _find_name(rows.features, "target")
    if "numbers" in paths and target and "answer" not in columns:
        paths["answer"] = target
    is_countdown = target is not None and "numbers" in paths and paths.get("answer") == target
    missing = [ours for ours in required if ours not in paths and not (ours == "problem" and is_countdown)]
    if missing:
        raise ValueError(_missing_columns(rows, missing, set(paths.values()), label))
    return paths


def _check_mapping(rows: Dataset, columns: Mapping[str, str], label: str) -> None:
    for ours, theirs in columns.items():
        if ours not in CANDIDATES:
            near = difflib.get_close_matches(ours, CANDIDATES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"columns maps {ours!r}, which is none of our columns ({', '.join(CANDIDATES)}): "
                f"{hint}write {{ours: theirs}}"
            )
        if _feature_at(rows.features, theirs) is None:
            near = difflib.get_close_matches(theirs, rows.column_names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"columns maps {ours!r} to {theirs!r}, which {label} lacks; it has {', '.join(rows.column_names)}{hint}"
            )


def _find(features: Features, ours: str) -> str | None:
    """The path of the first candidate that exists and has a type from which `ours` can be read."""
    for candidate in CANDIDATES[ours]:
        path = _find_name(features, candidate)
        if path is not None and _is_readable(_feature_at(features, path), ours):
            return path
    return None


def _find_name(features: Features, path: str) -> str | None:
    """`path` as the set spells it (upper or lower case), or None."""
    head, dot, rest = path.partition(".")
    spelled = {name.lower(): name for name in reversed(list(features))}
    if head not in spelled:
        return None
    found = (head if head in features else spelled[head]) + dot + rest
    return found if _feature_at(features, found) is not None else None


def _feature_at(features: Any, path: str) -> Any:
    if path in features:
        return features[path]
    for part in path.split("."):
        if not isinstance(features, Mapping) or part not in features:
            return None
        features = features[part]
    return features


def _is_readable(feature: Any, ours: str) -> bool:
    from datasets import Value

    inner = getattr(feature, "feature", None)  # of a list
    is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    if ours == "problem":
        return is_text or (isinstance(inner, Mapping) and "content" in inner)
    if ours == "answer":
        return any(isinstance(item, Value) and item.dtype != "null" for item in (feature, inner))
    if ours == "numbers":
        return is_text or isinstance(inner, Value)
    return isinstance(feature, Value)


def _missing_columns(rows: Dataset, missing: Sequence[str], taken: set[str], label: str) -> str:
    free = [name for name in rows.column_names if name not in taken]
    guesses = {ours: _nearest_column(ours, free) for ours in missing}
    mapping = ", ".join(f"{ours!r}: {guess or '<one of them>'!r}" for ours, guess in guesses.items())
    wanted = " and ".join({"problem": "the problem", "answer": "the gold answer"}[ours] for ours in missing)
    guessed = " (the nearest by name)" if all(guesses.values()) else ""
    return f"{label}: no column for {wanted} among {', '.join(rows.column_names)}. Pass columns={{{mapping}}}{guessed}"


def _nearest_column(ours: str, names: Sequence[str]) -> str | None:
    """A column whose name looks like one of ours: by a part of it, else by spelling."""
    parts = {
        "problem": ("problem", "question", "prompt", "query", "instruction", "input", "text"),
        "answer": ("answer", "solution", "truth", "gold", "target", "label", "result", "output", "response"),
    }[ours]
    for part in parts:
        if found := next((name for name in names if part in name.lower()), None):
            return found
    near = difflib.get_close_matches(ours, names, n=1, cutoff=0.4)
    return near[0] if near else None


# --- Reading rows


@dataclass(kw_only=True)
class _RowReader:
    """Turns rows into problems, and remembers which row each came from and why others were dropped."""

    paths: Mapping[str, str]
    own_schema: bool = False
    """The rows come from us: their ids and answers stay as they are."""
    needs_answer: bool = True
    guess: Callable[[str], str] = guess_language
    problems: list[Problem] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    """Gold answer by id, of the problems kept."""
    num_read: int = 0

    def read(
        self, rows: Dataset, *, limit: int | None = None, task: str | None = None, language: str | None = None
    ) -> None:
        for position, row in enumerate(_iterate(rows, [*self.paths.values(), *(["id"] if self.own_schema else [])])):
            if limit is not None and len(self.problems) == limit:
                break
            self.num_read += 1
            self._take(position, row, task, language)

    def _take(self, position: int, row: Mapping[str, Any], task: str | None, language: str | None) -> None:
        values = {ours: _value_at(row, path) for ours, path in self.paths.items()}
        answer = self._gold(values.get("answer"))
        if answer is None and self.needs_answer:
            self._drop("with an empty or unreadable gold answer", position, values.get("answer"))
            return
        numbers = read_numbers(values.get("numbers"))
        task = task or read_name(values.get("task")) or ("countdown" if self._is_countdown and numbers else "math")
        text = self._problem_text(values, numbers, language)
        if text is None:
            self._drop("without a readable problem (or with several turns)", position, values.get("problem"))
            return
        problem = Problem(
            problem=text,
            answer=answer or "",
            task=task,
            language=language or read_language(values.get("language")) or self.guess(text),
            difficulty=read_difficulty(values.get("difficulty")),
            id=(read_name(row.get("id")) if self.own_schema else None) or problem_id(text, task, answer or "", numbers),
            numbers=tuple(numbers),
        )
        self._keep(position, problem)

    def _gold(self, value: object) -> str | None:
        if self.own_schema and isinstance(value, str):
            return value or None
        return read_gold(value, may_be_worked="solution" in self.paths.get("answer", "").lower())

    @property
    def _is_countdown(self) -> bool:
        return self.paths.get("answer", "").lower() == "target" and "numbers" in self.paths

    def _problem_text(self, values: Mapping[str, Any], numbers: list[int], language: str | None) -> str | None:
        if "problem" in self.paths:
            return read_problem(values["problem"])
        return state_countdown(numbers, read_gold(values["answer"]) or "", language or "en") if numbers else None

    def _keep(self, position: int, problem: Problem) -> None:
        if problem.id in self.answers:
            same = self.answers[problem.id] == problem.answer
            self._drop("seen before" if same else "seen before with another answer", position, problem.problem)
            return
        self.answers[problem.id] = problem.answer
        self.problems.append(problem)
        self.positions.append(position)

    def _drop(self, reason: str, position: int, value: object) -> None:
        self.dropped[reason] += 1
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        self.examples.setdefault(reason, f"row {position}: {shown}")

    def report(self, label: str) -> None:
        """Log what was dropped. Raises ValueError when nothing is left."""
        reasons = "; ".join(
            f"{count} {reason} (first: {self.examples[reason]})" for reason, count in self.dropped.items()
        )
        if not self.problems:
            raise ValueError(
                f"{label}: none of its {self.num_read} rows is a problem with a gold answer. {reasons or 'It is empty'}"
            )
        examples = self.examples
        collect_drops(label, [{"name": r, "dropped": n, "examples": [examples[r]]} for r, n in self.dropped.items()])
        if reasons:
            logger.warning("%s: dropped %d of %d rows: %s", label, self.dropped.total(), self.num_read, reasons)


def _iterate(rows: Dataset, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows with only the columns that `paths` start in."""
    names = {path if path in rows.column_names else path.split(".")[0] for path in paths}
    return rows_of(rows.select_columns(sorted(names)))


def _value_at(row: Mapping[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def problem_id(text: str, task: str, answer: str, numbers: Sequence[int] = ()) -> str:
    """A hash of what the problem asks, so the same problem has the same id in every set and run.

    Countdown goes by its numbers and target, as the generator's ids do; others by their words, white space aside.
    """
    if task == "countdown" and numbers and re.fullmatch(r"-?\d+", answer):
        return f"countdown-{content_hash('countdown', (tuple(sorted(numbers)), int(answer)))}"
    return content_hash("text", " ".join(text.split()))


def state_countdown(numbers: Sequence[int], target: str, language: str) -> str | None:
    """A Countdown problem in the words of data.tasks.countdown; None when the target is no integer."""
    from data.tasks.countdown import Countdown, CountdownTask

    if not re.fullmatch(r"-?\d+", target):
        return None
    instance = Countdown(tuple(numbers), int(target), ())
    rng = random.Random(f"{sorted(numbers)}-{target}")
    return CountdownTask().state(instance, language if language in LANGUAGES else "en", rng)


# --- Putting the columns together


def _problem_dataset(problems: Sequence[Problem]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    kinds: dict[str, Any] = dict.fromkeys(SCHEMA, Value("string"))
    features = Features({**kinds, "difficulty": Value("int64"), "numbers": List(Value("int64"))})
    rows = [asdict(problem) for problem in problems]
    return Dataset.from_dict({column: [row[column] for row in rows] for column in SCHEMA}, features=features)


def _with_source_columns(rows: Dataset, positions: Sequence[int], problems: Sequence[Problem]) -> Dataset:
    """Our columns, then the source's. A reserved name becomes `source_<name>`, or goes if it holds the same as ours."""
    from datasets import concatenate_datasets

    ours = _problem_dataset(problems)
    theirs = rows.with_format(None) if len(positions) == len(rows) else rows.with_format(None).select(positions)
    for column in [name for name in theirs.column_names if name in RESERVED]:
        same_as = ours["problem" if column == "prompt" else column][:] if column in (*SCHEMA, "prompt") else None
        if same_as is not None and list(theirs[column]) == same_as:
            theirs = theirs.remove_columns(column)
            continue
        new = f"source_{column}"
        while new in theirs.column_names:
            new = f"source_{new}"
        theirs = theirs.rename_column(column, new)
    return concatenate_datasets([ours, theirs], axis=1) if theirs.column_names else ours
