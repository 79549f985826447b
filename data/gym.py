"""reasoning-gym's generators as problem sets, and its scorers where they are safe: the extra `reasoning-gym`.

Source: https://github.com/open-thought/reasoning-gym, read and tried at version 0.1.25. Three traps shape this module:
- Item i of seed s is drawn from Random(s + i), so neighbouring seeds share all items but one. Seeds are spread by a
  hash here, and the split is decided by content (data.problems.split_of).
- Some scorers run the model's text as Python (`eval`, or sympy's `parse_expr`, which calls it). Those are never called.
- Some accept any text (game_of_life_halting compares bool(answer) with bool("False")) or can be made to hang.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data.problems import Problem, content_hash, split_of
from data.values import UNKNOWN_DIFFICULTY

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

SPLITS = {"train": {"pretrain", "train"}, "validation": {"validation"}, "test": {"test"}}
"""Our split -> the content splits it draws from. No base is pretrained on these texts, so train has that share too."""

RUNS_TEXT = {"eval", "exec", "compile", "parse_expr", "sympify"}
"""A scorer whose module calls one of these by name may run the model's text."""

REVIEWED = {"bitwise_arithmetic", "basic_arithmetic", "number_sorting", "codeio", "propositional_logic"}
"""Read by hand: these call one of RUNS_TEXT on their own text alone (propositional_logic: a parser of that name)."""

UNUSABLE = {
    "game_of_life_halting": "accepts every answer",
    "coin_flip": 'hangs on an answer such as "1e999999999"',
}
"""Tasks whose own scorer is harmless but useless, and why."""

AS_COUNTDOWN = {"countdown": None, "puzzle24": 24}
"""Tasks that ask for an expression over all given numbers -> their target, if it is always the same. Their rows become
task "countdown", which the project's own checker scores exactly."""

MAX_ANSWER_LENGTH = 10_000
"""Characters; a longer answer scores 0 unread."""

MAX_DRAWS = 100
"""Draws for each problem asked for before a generator counts as exhausted. The test split takes 20 on average."""

DRAWS_PER_GENERATOR = 256
"""At least so many. Some generators prepare all their items at once (acre) or refuse a large size (word_ladder)."""


def load_gym(task_name: str, size: int, seed: int = 0, *, split: str = "train", **config: Any) -> Dataset:
    """`size` different problems of one reasoning-gym generator, in the project's schema plus the column `gym_entry`.

    config: the generator's own settings (`max_terms=3`). gym_entry: JSON of the generator's entry and settings, which
    score_gym needs. `task` is "reasoning-gym:<task_name>", or "countdown" (see AS_COUNTDOWN). `answer` is "" where the
    generator gives no gold answer (rush_hour and a few others), and only score_gym can score.

    The same arguments give the same problems; sets of different splits share none, whatever the seeds. Raises
    ImportError without reasoning-gym, ValueError for an unknown task, setting or split or an exhausted generator.
    """
    if size < 1:
        raise ValueError(f"size must be 1 or more, got {size}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} for reasoning-gym: expected one of {', '.join(SPLITS)}")
    if task_name not in AS_COUNTDOWN and (reason := _why_text_only(task_name)):
        logger.warning("reasoning-gym's scorer of %s %s: score_gym compares texts instead", task_name, reason)
    problems: dict[str, tuple[Problem, str]] = {}
    for entry in _draw(task_name, size, seed, config):
        problem = _to_problem(task_name, entry)
        if split_of(problem.id.rpartition("-")[2]) in SPLITS[split] and problem.id not in problems:
            problems[problem.id] = problem, _dump({**entry, "config": config})
        if len(problems) == size:
            return _to_dataset(list(problems.values()))
    raise ValueError(
        f"reasoning-gym's {task_name} gave {len(problems)} different problems for the {split} split, fewer than "
        f"the {size} asked for, in {MAX_DRAWS} draws for each; ask for fewer, or widen its settings"
    )


def score_gym(answer: str | None, entry: str | Mapping[str, Any]) -> float:
    """reasoning-gym's score of an answer, from 0 to 1. entry: a row's `gym_entry`.

    Many scorers give part of a point for an answer that is nearly right or well formed. Where the scorer would run the
    answer as Python or is useless, the answer's text is compared with the known answers instead (white space aside).
    The scorer is foreign code on the model's text: call this where it can be killed. 0 for what it cannot read.
    """
    entry = _load(entry) if isinstance(entry, str) else entry
    if not answer or len(answer) > MAX_ANSWER_LENGTH:
        return 0.0
    task_name = entry["metadata"]["source_dataset"]
    if _why_text_only(task_name):
        return float(" ".join(answer.split()) in _known_answers(entry))
    scorer = _scorer(task_name, _dump(entry.get("config", {})))
    try:
        score = float(scorer.score_answer(answer, entry))
    except Exception as error:  # foreign parsers raise anything on a model's text, and the model caused it: 0
        logger.debug("reasoning-gym's scorer of %s raised %r", task_name, error)
        return 0.0
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


def _known_answers(entry: Mapping[str, Any]) -> set[str]:
    answers = [entry["answer"], *entry["metadata"].get("valid_answers", [])]
    return {" ".join(answer.split()) for answer in answers if answer}


# --- Generators


def _import_gym() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(
            "reasoning-gym is not installed; it is an optional extra: pip install -e '.[reasoning-gym]'"
        ) from error
    return reasoning_gym


def _generator_class(task_name: str) -> tuple[type, type]:
    """The generator's class and its config's class."""
    _import_gym()
    from reasoning_gym.factory import DATASETS

    if task_name not in DATASETS or task_name == "composite":
        near = difflib.get_close_matches(task_name, DATASETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(sorted(DATASETS))}"
        raise ValueError(f"reasoning-gym has no task {task_name!r}{hint}")
    return DATASETS[task_name]


def _create(task_name: str, size: int, seed: int, config: Mapping[str, Any]) -> Any:
    _, config_class = _generator_class(task_name)
    known = [item.name for item in fields(config_class) if item.name not in ("size", "seed")]
    if unknown := [key for key in config if key not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"reasoning-gym's {task_name} has no setting {unknown[0]!r}; it has {', '.join(known)}{hint}")
    try:
        return _import_gym().create_dataset(task_name, size=size, seed=seed, **config)
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"reasoning-gym's {task_name} refuses its settings {dict(config)}: {error}") from error


def _draw(task_name: str, size: int, seed: int, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """At least `size * MAX_DRAWS` entries, in batches whose starts no neighbouring seed shares."""
    batch_size = max(size, DRAWS_PER_GENERATOR)
    for batch in range(-(-size * MAX_DRAWS // batch_size)):
        digest = hashlib.sha256(f"{task_name}|{seed}|{batch}".encode()).digest()
        start = int.from_bytes(digest[:4]) >> 1  # numpy, which some generators seed, takes 32 bits
        generator = _create(task_name, batch_size, start, config)
        for index in range(batch_size):
            yield generator[index]


def _to_problem(task_name: str, entry: Mapping[str, Any]) -> Problem:
    question, answer = entry["question"].strip(), entry["answer"] or ""
    numbers: tuple[int, ...] = ()
    task, key = f"reasoning-gym:{task_name}", content_hash(f"reasoning-gym:{task_name}", question)
    if task_name in AS_COUNTDOWN:
        metadata = entry["metadata"]
        target = AS_COUNTDOWN[task_name] or metadata["target"]
        task, answer, numbers = "countdown", str(target), tuple(metadata["numbers"])
        key = content_hash("countdown", (tuple(sorted(numbers)), target))
    return Problem(
        problem=question,
        answer=answer,
        task=task,
        language="en",
        difficulty=UNKNOWN_DIFFICULTY,
        id=f"{task.removeprefix('reasoning-gym:')}-{key}",
        numbers=numbers,
    )


def _to_dataset(rows: list[tuple[Problem, str]]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    kinds: dict[str, Any] = dict.fromkeys([*(item.name for item in fields(Problem)), "gym_entry"], Value("string"))
    features = Features({**kinds, "difficulty": Value("int64"), "numbers": List(Value("int64"))})
    return Dataset.from_list([{**asdict(problem), "gym_entry": entry} for problem, entry in rows], features=features)


# --- Scorers


@lru_cache(maxsize=64)
def _scorer(task_name: str, config: str) -> Any:
    """A generator with the settings that made the entry: some scorers read them (tolerances, board formats)."""
    return _create(task_name, 1, 0, _load(config))


@lru_cache(maxsize=256)
def _why_text_only(task_name: str) -> str | None:
    """Why the task's own scorer must not be called, or None. Read from its code, so later versions are covered too."""
    if task_name in UNUSABLE:
        return UNUSABLE[task_name]
    generator_class, _ = _generator_class(task_name)
    if task_name in REVIEWED:
        return None
    tree = ast.parse(inspect.getsource(inspect.getmodule(generator_class)))  # type: ignore[arg-type]
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {func.id for func in called if isinstance(func, ast.Name)}
    methods = {func.attr for func in called if isinstance(func, ast.Attribute)} - {"compile"}  # re.compile is harmless
    found = sorted((names | methods) & RUNS_TEXT)
    return f"may run the answer as Python ({found[0]})" if found else None


# --- Entries as JSON, with tuples and with keys that are no text, which some scorers compare


def _dump(value: Any) -> str:
    return json.dumps(_encode(value), ensure_ascii=False, sort_keys=True)


def _load(text: str) -> Any:
    return _decode(json.loads(text))


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"__tuple__": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("__") for key in value):
            return {key: _encode(item) for key, item in value.items()}
        return {"__items__": [[_encode(key), _encode(item)] for key, item in value.items()]}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__tuple__"}:
        return tuple(_decode(item) for item in value["__tuple__"])
    if value.keys() == {"__items__"}:
        return {_decode(key): _decode(item) for key, item in value["__items__"]}
    return {key: _decode(item) for key, item in value.items()}
