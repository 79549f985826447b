"""The problem schema, and splits that are decided by what a problem asks, never by a seed.

Two generators with neighbouring seeds can draw the same problem, and "held out" then means nothing. Here a hash of a
problem's content (its numbers and structure; not its wording, not its language) says which split it belongs to. Every
text, prompt or test set that asks for a split gets problems of that split alone, whatever the seed and the size.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = {"pretrain": range(780), "train": range(780, 920), "validation": range(920, 950), "test": range(950, 1000)}
"""Which thousandths of all problems belong to which split: base pretraining text, RL prompts, validation, test."""

LANGUAGES = ("en", "ko")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with an exact answer. `numbers` is for Countdown alone, whose answer is an expression over them."""

    problem: str
    answer: str
    task: str
    language: str
    difficulty: int
    id: str
    numbers: tuple[int, ...] = ()


def content_hash(task: str, key: object) -> str:
    """A problem's identity: 16 hex digits over its task and content key (same in every language and wording)."""
    return hashlib.sha256(f"{task}|{key!r}".encode()).hexdigest()[:16]


def split_of(identity: str) -> str:
    """The split that a content hash falls into."""
    bucket = int(identity[:12], 16) % 1000
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: the splits are {', '.join(SPLITS)}")


def draw_instances(split: str, rng: random.Random, task_name: str, difficulty: int) -> Iterator:
    """Endless instances of one task and difficulty that fall into `split`, as (identity, instance)."""
    from data.tasks import TASKS

    task = TASKS[task_name]
    while True:
        instance = task.draw(rng, difficulty)
        identity = content_hash(task_name, instance.key)
        if split_of(identity) == split:
            yield identity, instance


def make_problems(
    split: str,
    size: int,
    *,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] = LANGUAGES,
    difficulties: Sequence[int] = (1, 2, 3, 4, 5),
) -> Dataset:
    """`size` different problems of one split, tasks, difficulties and languages in equal shares, shuffled.

    Raises ValueError for an unknown split, task, language or difficulty, for none at all, and when a task at some
    difficulty has not enough different problems in that split.
    """
    from data.tasks import TASKS

    check_split(split)
    if size < 1:
        raise ValueError(f"a problem set has 1 problem or more, got size {size}")
    tasks = list(tasks or TASKS)
    for what, given, known in (
        ("task", tasks, list(TASKS)),
        ("language", languages, list(LANGUAGES)),
        ("difficulty", difficulties, [1, 2, 3, 4, 5]),
    ):
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"unknown {what} {unknown[0]!r}: expected some of {known}")
        if not given:
            raise ValueError(f"no {what} to draw problems from: give some of {known}")
    rng = random.Random(f"problems-{split}-{seed}")
    cells = [(task, level, language) for task in tasks for level in difficulties for language in languages]
    rng.shuffle(cells)
    seen: set[str] = set()
    problems = []
    for index in range(size):
        task, level, language = cells[index % len(cells)]
        problems.append(_draw_new(split, rng, task, level, language, seen))
    rng.shuffle(problems)
    return problem_dataset(problems)


def problem_dataset(problems: Sequence[Problem]) -> Dataset:
    """A table with a column for each field of Problem, whose types do not depend on the rows."""
    from datasets import Dataset, Features, List, Value

    names = [field.name for field in fields(Problem)]
    kinds: dict[str, Any] = dict.fromkeys(names, Value("string"))
    features = Features({**kinds, "difficulty": Value("int64"), "numbers": List(Value("int64"))})
    rows = [asdict(problem) for problem in problems]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names}, features=features)


def _draw_new(split: str, rng: random.Random, task: str, level: int, language: str, seen: set[str]) -> Problem:
    """One problem whose content is not in `seen`; adds it there."""
    from data.tasks import TASKS

    for tries, (identity, instance) in enumerate(draw_instances(split, rng, task, level)):
        if identity not in seen:
            seen.add(identity)
            return Problem(
                problem=TASKS[task].state(instance, language, rng),
                answer=TASKS[task].answer(instance, language),
                task=task,
                language=language,
                difficulty=level,
                id=f"{task}-{identity}",
                numbers=tuple(getattr(instance, "numbers", ())) if task == "countdown" else (),
            )
        if tries > 2000:
            raise ValueError(
                f"the {split} split has no more different problems of task {task!r} at difficulty {level}; "
                "ask for fewer problems, or for more tasks and difficulties"
            )
    raise AssertionError("draw_instances is endless")
