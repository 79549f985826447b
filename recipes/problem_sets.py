"""Which problems a recipe trains and measures on: the micro world's by split, or a data set by Hub name or path."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset

from data.loading import load_problems
from data.problems import LANGUAGES, make_problems
from data.templates import render_prompts


@dataclass(kw_only=True)
class ProblemConfig:
    """Problem sets of a recipe. `micro` generates them; anything else is a Hub name, a file or a folder."""

    dataset: str = "micro"
    dataset_split: str = "train"
    dataset_name: str | None = None
    """A configuration of a Hub data set, such as GSM8K's "main"."""
    columns: dict[str, str] | None = None
    """Our column -> theirs, where theirs is not recognised: {"problem": "my_question", "answer": "my_gold"}."""
    eval_dataset: str | None = None
    """Held-out problems: `micro` or a data set; None takes `micro` where `dataset` is micro, and nothing elsewhere."""
    eval_dataset_split: str = "test"
    tasks: list[str] | None = None
    """Micro world: task families; None takes all."""
    languages: list[str] = field(default_factory=lambda: list(LANGUAGES))
    train_size: int = 2000
    validation_size: int = 0
    """Problems that are looked at during training; 0 for none. For a data set, taken from its end."""
    test_size: int = 240
    template: str = "r1_zero"
    """"r1_zero", "r1_zero_short", "chat", or a text with {problem}."""
    system_prompt: str | None = None
    problem_seed: int = 0


def training_problems(config: ProblemConfig) -> tuple[Dataset, Dataset | None]:
    """(training problems, validation problems or None), with prompts."""
    if config.dataset == "micro":
        train = _micro("train", config.train_size, config)
        validation = _micro("validation", config.validation_size, config) if config.validation_size else None
    else:
        problems = load_problems(
            config.dataset, columns=config.columns, split=config.dataset_split, name=config.dataset_name
        )
        if config.validation_size >= len(problems):
            raise ValueError(
                f"validation_size {config.validation_size} leaves nothing of the {len(problems)} problems to train on"
            )
        problems = problems.shuffle(seed=config.problem_seed)
        cut = len(problems) - config.validation_size
        train = problems.select(range(min(cut, config.train_size) if config.train_size else cut))
        validation = problems.select(range(cut, len(problems))) if config.validation_size else None
    return _rendered(train, config), _rendered(validation, config) if validation is not None else None


def held_out_problems(config: ProblemConfig) -> Dataset | None:
    """The held-out problems that eval.json is about, with prompts; None when the recipe has none."""
    source = config.eval_dataset or ("micro" if config.dataset == "micro" else None)
    if config.test_size == 0 or source is None:
        return None
    if source == "micro":
        return _rendered(_micro("test", config.test_size, config), config)
    problems = load_problems(
        source,
        columns=config.columns,
        split=config.eval_dataset_split,
        name=config.dataset_name,
        limit=config.test_size,
    )
    return _rendered(problems, config)


def _micro(split: str, size: int, config: ProblemConfig) -> Dataset:
    return make_problems(split, size, seed=config.problem_seed, tasks=config.tasks, languages=config.languages)


def _rendered(problems: Dataset, config: ProblemConfig) -> Dataset:
    return render_prompts(problems, config.template, system=config.system_prompt)
