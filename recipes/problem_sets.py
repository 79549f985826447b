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
    dataset_config: str | None = None
    """A configuration of a Hub data set, such as GSM8K's "main"."""
    columns: dict[str, str] | None = None
    """Our column -> theirs, where theirs is not recognised: {"problem": "my_question", "answer": "my_gold"}."""
    eval_dataset: str | None = None
    """Held-out problems: `micro` or a data set; None takes `micro` where `dataset` is micro, and nothing elsewhere."""
    eval_dataset_split: str = "test"
    eval_dataset_config: str | None = None
    """None takes `dataset_config` and `columns` where eval_dataset is the same set as dataset, and none elsewhere."""
    eval_columns: dict[str, str] | None = None
    tasks: list[str] | None = None
    """Micro world: task families; None takes all."""
    languages: list[str] = field(default_factory=lambda: list(LANGUAGES))
    train_size: int | None = None
    """Training problems; None takes 2,000 of the micro world's, and all of a data set."""
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
        train = _micro("train", config.train_size or 2000, config)
        validation = _micro("validation", config.validation_size, config) if config.validation_size else None
    else:
        problems = load_problems(
            config.dataset, columns=config.columns, split=config.dataset_split, name=config.dataset_config
        )
        if config.validation_size >= len(problems):
            raise ValueError(
                f"validation_size {config.validation_size} leaves nothing of the {len(problems)} problems to train on"
            )
        problems = problems.shuffle(seed=config.problem_seed)
        cut = len(problems) - config.validation_size
        train = problems.select(range(min(cut, config.train_size or cut)))
        validation = problems.select(range(cut, len(problems))) if config.validation_size else None
    return _rendered(train, config), _rendered(validation, config) if validation is not None else None


def held_out_problems(config: ProblemConfig) -> Dataset | None:
    """The held-out problems that eval.json is about, with prompts; None when the recipe has none."""
    source = config.eval_dataset or ("micro" if config.dataset == "micro" else None)
    if config.test_size == 0 or source is None:
        return None
    if source == "micro":
        return _rendered(_micro("test", config.test_size, config), config)
    same = source == config.dataset
    problems = load_problems(
        source,
        columns=config.eval_columns or (config.columns if same else None),
        split=config.eval_dataset_split,
        name=config.eval_dataset_config or (config.dataset_config if same else None),
    )
    problems = problems.shuffle(seed=config.problem_seed)  # a set may be sorted, by difficulty for one
    return _rendered(problems.select(range(min(config.test_size, len(problems)))), config)


def _micro(split: str, size: int, config: ProblemConfig) -> Dataset:
    return make_problems(split, size, seed=config.problem_seed, tasks=config.tasks, languages=config.languages)


def _rendered(problems: Dataset, config: ProblemConfig) -> Dataset:
    return render_prompts(problems, config.template, system=config.system_prompt)
