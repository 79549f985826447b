"""Which problems a recipe trains and measures on: the micro world's by split, or a data set by Hub name or path; and,
for preference RL, the general prompts that come among them.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from data.decontaminate import decontaminate
from data.dialogues import DIALOGUES
from data.drops import EXAMPLES, collect_drops
from data.general import families_of, make_general_prompts
from data.general_sets import load_requests
from data.loading import load_problems, load_texts
from data.problems import LANGUAGES, make_problems
from data.sources import open_source
from data.templates import render_prompts
from grpo.config import RolloutPlan
from grpo.rollouts import PromptStream
from rewards.language import guess_language, label_language
from rewards.preference import HARMLESS_KINDS, first_step
from rewards.texts import message_text

logger = logging.getLogger(__name__)

VALIDATION_SEED = 0
"""Of the shuffle whose last problems are held out for validation."""
MEASURED_ON = "measured on"
"""The filter that drops what is measured on, in reports."""
GENERAL_KINDS = HARMLESS_KINDS
GENERAL_COLUMNS = ("problem", "history", "prompt", "kind", "family", "language", "check", "harmful", "reference", "id")
"""What a general prompt keeps of its row: no gold answer, so the accuracy reward does not apply."""


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
    decontaminate: bool | None = None
    """Drop training problems, and general data, that share ten words in a row with a problem that is measured on, as R1
    did. None: where that is of another set than the rows; True: also of the same set's held-out split; False: never."""
    decontaminate_against: dict[str, str] | None = None
    """More sets that will be measured on, besides eval_dataset: set -> split, or configuration/split."""
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

    general_dataset: dict[str, str] | str | None = None
    """General prompts for preference RL: `micro`, a file, a folder or a Hub name; or, of sets that do not say what kind
    their requests are, kind -> set: {"instruction": A, "harmful": B}. None: reasoning problems alone."""
    general_split: dict[str, str] | str = "train"
    """Their split; or kind -> split."""
    general_share: float = 0.25
    """Their share of the prompts of a rollout, once they come."""
    general_size: int = 1000
    """General prompts to draw of the micro world, or of each set that general_dataset names by its kind."""
    general_from_step: int | None = None
    """The update, counted from 0, from which general prompts come: with the rollout that begins nearest to it. None:
    all rollouts have them."""
    general_last_share: float | None = None
    """The same as a part of the run. R1: general prompts come in the last 400 of 1,700 steps."""


def training_problems(config: ProblemConfig) -> tuple[Dataset, Dataset | None]:
    """(training problems, validation problems or None), with prompts."""
    if config.dataset == "micro":
        train = without_held_out(_micro("train", config.train_size or 2000, config), "micro", config)
        validation = _micro("validation", config.validation_size, config) if config.validation_size else None
    else:
        problems = load_problems(
            config.dataset, columns=config.columns, split=config.dataset_split, name=config.dataset_config,
            guess=label_language,
        )  # fmt: skip
        if config.validation_size >= len(problems):
            raise ValueError(
                f"validation_size {config.validation_size} leaves nothing of the {len(problems)} problems to train on"
            )
        # The same problems for every problem_seed: stages of one pipeline train on other orders of the rest.
        problems = problems.shuffle(seed=VALIDATION_SEED)
        cut = len(problems) - config.validation_size
        validation = problems.select(range(cut, len(problems))) if config.validation_size else None
        rest = problems.select(range(cut))
        if config.problem_seed != VALIDATION_SEED:
            rest = rest.shuffle(seed=config.problem_seed)
        rest = without_held_out(rest, config.dataset, config)
        train = rest.select(range(min(len(rest), config.train_size or len(rest))))
    return _rendered(train, config), _rendered(validation, config) if validation is not None else None


def held_out_problems(config: ProblemConfig) -> Dataset | None:
    """The held-out problems that eval.json is about, with prompts; None when the recipe has none."""
    source = config.eval_dataset or ("micro" if config.dataset == "micro" else None)
    if config.test_size == 0 or source is None:
        return None
    if source == "micro":
        return _rendered(_micro("test", config.test_size, config), config)
    problems = load_problems(source, **_held_out_layout(config), guess=label_language)
    problems = problems.shuffle(seed=config.problem_seed)  # a set may be sorted, by difficulty for one
    return _rendered(problems.select(range(min(config.test_size, len(problems)))), config)


def _held_out_layout(config: ProblemConfig) -> dict[str, Any]:
    """How eval_dataset is read: as `dataset` where it is the same set."""
    same = config.eval_dataset == config.dataset
    return {
        "columns": config.eval_columns or (config.columns if same else None),
        "split": config.eval_dataset_split,
        "name": config.eval_dataset_config or (config.dataset_config if same else None),
    }


def without_held_out(rows: Dataset, source: str, config: ProblemConfig, validation: Dataset | None = None) -> Dataset:
    """The rows of the training set `source` that share no run of ten words with a problem that is measured on; what
    went is logged. Whole sets count, whatever test_size takes of them, so that every stage drops the same rows.

    validation: the problems that are looked at during training, for rows that are not what these were split off from.
    Source: DeepSeek-R1, Nature version, drops training data by 10-gram overlap with its evaluation sets. Chains from
    elsewhere and general data go through here as well as problems: of rows without a column `problem` the user's turns
    in `prompt` count. Raises ValueError when no row is left, and for `decontaminate: true` without a set to compare
    with.
    """
    kept = drop_held_out(rows, source, config, validation)
    if not len(kept):
        raise ValueError(
            f"every one of the {len(rows):,} rows of {source} shares ten words in a row with what is measured on "
            "(eval_dataset, decontaminate_against); train on another set, or set decontaminate: false"
        )
    return kept


def drop_held_out(rows: Dataset, source: str, config: ProblemConfig, validation: Dataset | None = None) -> Dataset:
    """As without_held_out; nothing may be left."""
    against = _measured_on(source, config, validation)
    if not against:
        if config.decontaminate:
            raise ValueError(
                "decontaminate: true has nothing to compare the training problems with; set eval_dataset or "
                "decontaminate_against"
            )
        return rows
    texts = (
        rows if "problem" in rows.column_names else Dataset.from_dict({"problem": list(map(_asked, rows["prompt"]))})
    )
    _, report = decontaminate(texts, list(against.values()), names=list(against))
    if not report.matches:
        return rows
    logger.warning("%s: %s", source, report)
    examples = [match.ngram for match in report.matches[:EXAMPLES]]
    collect_drops(source, [{"name": MEASURED_ON, "dropped": len(report.matches), "examples": examples}])
    dropped = {match.row for match in report.matches}
    return rows.select([row for row in range(len(rows)) if row not in dropped])


def _asked(prompt: str | list[dict[str, str]]) -> str:
    """All that the user says in a prompt."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message_text([turn]) for turn in prompt if turn["role"] == "user")


def _measured_on(source: str, config: ProblemConfig, validation: Dataset | None) -> dict[str, Dataset]:
    """Name -> the problems of the sets that training rows of `source` are compared with."""
    if config.decontaminate is False:
        return {}
    same = config.decontaminate is True  # whether a held-out split of `source` itself counts
    found: dict[str, Dataset] = {}
    measured = config.eval_dataset
    if measured is not None and measured != "micro" and (same or measured != source):  # micro's are split by content
        found[measured] = load_texts(measured, **_held_out_layout(config))
    for name, split in (config.decontaminate_against or {}).items():
        if name not in found and (same or name != source):
            configuration, _, split = split.rpartition("/")
            found[name] = load_texts(name, split=split, name=configuration or None)
    if validation is not None and config.dataset != "micro":
        found[f"validation of {config.dataset}"] = validation
    return found


# --- general prompts --------------------------------------------------------------------------------------------------


def with_general_prompts(
    reasoning: Dataset,
    config: ProblemConfig,
    plan: RolloutPlan,
    max_steps: int,
    seed: int,
    validation: Dataset | None = None,
) -> Dataset:
    """The prompts of a whole run in the order in which it draws them, so train on it with shuffle_dataset false.

    Reasoning problems come in the order that the trainer itself would shuffle them into; from `first_general_rollout`
    on, general prompts take their share of every rollout; none of them is a `validation` problem. A row's `kind` is
    "reasoning" or one of GENERAL_KINDS.
    Raises ValueError for a share out of range or a run of unknown length.
    """
    if not 0 < config.general_share <= 1:
        raise ValueError(
            f"general_share must lie in (0, 1], got {config.general_share}; without general_dataset it is 0"
        )
    if max_steps < 1:
        raise ValueError("general_dataset needs a run of known length: set max_steps instead of num_train_epochs")
    general, reasoning = general_prompts(config, validation), with_kind(reasoning)
    order = prompt_order(
        len(reasoning), len(general), -(-max_steps // plan.num_updates), plan.num_prompts,
        first_rollout=first_general_rollout(config, plan, max_steps), general_share=config.general_share, seed=seed,
    )  # fmt: skip
    return concatenate_datasets([reasoning, general]).select(order)


def first_general_rollout(config: ProblemConfig, plan: RolloutPlan, max_steps: int) -> int:
    """The rollout that begins nearest to the step from which general prompts are asked for.

    >>> plan = RolloutPlan(num_prompts=512, num_minibatches=16, num_iterations=1)
    >>> first_general_rollout(ProblemConfig(general_from_step=1300), plan, max_steps=1700)
    81
    """
    return round(first_step(config.general_from_step, config.general_last_share, max_steps) / plan.num_updates)


def as_drawn(prompts: Dataset, config: ProblemConfig, plan: RolloutPlan, seed: int) -> Dataset:
    """What with_general_prompts laid out as a run folder keeps it, a row a draw: `rollout` (from 0), `kind`, `source`
    (the data set), `family` (of a reasoning problem its task), `language`, `id`, `seed` of the order, the request and
    its prompt. What a set does not say is None."""

    def column(*names: str) -> list[str | None]:
        found = [prompts[name][:] for name in names if name in prompts.column_names]
        return [next((value for value in values if value), None) for values in zip(*found)] or [None] * len(prompts)

    rows = {
        "rollout": [row // plan.num_prompts for row in range(len(prompts))],
        "kind": column("kind"),
        "source": [source_of(kind, config) for kind in column("kind")],
        "family": column("family", "task"),
        "language": column("language"),
        "id": column("id"),
        "seed": [seed] * len(prompts),
        "problem": column("problem"),
        "prompt": prompts["prompt"][:],
    }
    own = {"rollout": Value("int64"), "seed": Value("int64"), "prompt": prompts.features["prompt"]}
    return Dataset.from_dict(rows, features=Features({name: own.get(name, Value("string")) for name in rows}))


def source_of(kind: str | None, config: ProblemConfig) -> str:
    """The data set that gives the prompts of a kind."""
    if kind not in GENERAL_KINDS:
        return config.dataset
    general = config.general_dataset
    return str(general[kind] if isinstance(general, dict) else general)


def prompt_order(
    num_reasoning: int,
    num_general: int,
    num_rollouts: int,
    num_prompts: int,
    first_rollout: int = 0,
    general_share: float = 0.25,
    seed: int = 0,
) -> list[int]:
    """num_rollouts x num_prompts rows: below num_reasoning a reasoning problem, from there on a general prompt.

    Both kinds are gone through in a new order every epoch. Rollouts from first_rollout on hold the share of general
    prompts, rounded so that it is right over the run, at places of their own.

    >>> prompt_order(4, 2, num_rollouts=3, num_prompts=2, first_rollout=2, general_share=0.5)
    [1, 0, 2, 3, 2, 4]
    """
    reasoning = (draw.index for draw in PromptStream(num_reasoning, 0, seed).draw(num_rollouts * num_prompts))
    general = (draw.index for draw in PromptStream(num_general, 0, seed).draw(num_rollouts * num_prompts))
    order: list[int] = []
    for rollout in range(num_rollouts):
        later = max(0, rollout - first_rollout)
        count = round(general_share * num_prompts * (later + 1)) - round(general_share * num_prompts * later)
        count = count if rollout >= first_rollout else 0
        rows = [next(reasoning) for _ in range(num_prompts - count)]
        rows += [num_reasoning + next(general) for _ in range(count)]
        random.Random(f"{seed}-{rollout}").shuffle(rows)
        order += rows
    return order


def with_kind(problems: Dataset) -> Dataset:
    """Reasoning problems say so in `kind`, where their own columns do not use that name: `where: {kind: reasoning}`."""
    if "kind" in problems.column_names:
        return problems
    return problems.add_column("kind", ["reasoning"] * len(problems))


def general_prompts(config: ProblemConfig, validation: Dataset | None = None) -> Dataset:
    """The general prompts of a recipe: GENERAL_COLUMNS, as far as the source has them, without what is measured on.

    Raises ValueError for a source without `problem` or with a `kind` that no reward knows.
    """
    if config.general_dataset == "micro":
        rows = _micro_general(config)
    elif isinstance(config.general_dataset, dict):
        rows = _general_by_kind(config, config.general_dataset, validation)
    else:
        split = config.general_split
        if not isinstance(split, str):
            raise ValueError(f"general_split {split} has a split a kind, but general_dataset is one set; give one")
        rows, _ = open_source(config.general_dataset or "", split=split)
    label = f"general_dataset {config.general_dataset}"
    if missing := {"problem", "kind"} - set(rows.column_names):
        raise ValueError(
            f"{label} has no column {' and no '.join(map(repr, sorted(missing)))}, only "
            f"{', '.join(rows.column_names)}; a general prompt has the request in `problem` and one of "
            f"{', '.join(GENERAL_KINDS)} in `kind`"
        )
    if unknown := set(rows["kind"]) - set(GENERAL_KINDS):
        raise ValueError(f"{label} has the kind {min(unknown, key=str)!r}; expected {', '.join(GENERAL_KINDS)}")
    if not len(rows):
        raise ValueError(f"{label} holds no prompt")
    if isinstance(config.general_dataset, str):
        rows = without_held_out(rows, config.general_dataset, config, validation)
    rows = rows.select_columns([name for name in GENERAL_COLUMNS if name in rows.column_names and name != "prompt"])
    if "id" in rows.column_names and rows.features["id"] != Value("string"):
        rows = rows.cast_column("id", Value("string"))
    return _rendered(rows, config)


def _micro_general(config: ProblemConfig) -> Dataset:
    """Requests of the micro world's training families: half instructions, half requests that are or look harmful."""
    size, seed, languages = config.general_size, config.problem_seed, config.languages
    # Only a chat template has a place for the earlier turns of a dialogue.
    families = [one for one in families_of("train", "instruction") if config.template == "chat" or one not in DIALOGUES]
    parts = [
        make_general_prompts(
            "train", size - size // 2, seed=seed, kinds=("instruction",), languages=languages, families=families
        ),
        make_general_prompts("train", size // 2, seed=seed, kinds=("benign", "harmful"), languages=languages),
    ]
    rows = concatenate_datasets([part for part in parts if len(part)]).shuffle(seed=seed)
    # The language of an answer: that of a translation is not its request's.
    return rows.map(lambda row: {"language": guess_language(row["reference"]) or row["language"]})


def _general_by_kind(config: ProblemConfig, sets: dict[str, str], validation: Dataset | None) -> Dataset:
    """Up to general_size requests of each set, mixed."""
    splits = config.general_split
    if isinstance(splits, dict) and (missing := set(sets) - set(splits)):
        raise ValueError(f"general_split has no split for the kind {min(missing)!r} of general_dataset")
    parts = [
        load_requests(source, kind, split=splits if isinstance(splits, str) else splits[kind], guess=label_language)
        for kind, source in sets.items()
    ]
    parts = [without_held_out(part, source, config, validation) for part, source in zip(parts, sets.values())]
    parts = [part.shuffle(seed=config.problem_seed) for part in parts]
    parts = [part.select(range(min(config.general_size, len(part)))) for part in parts]
    return concatenate_datasets(parts).shuffle(seed=config.problem_seed)


def _micro(split: str, size: int, config: ProblemConfig) -> Dataset:
    return make_problems(split, size, seed=config.problem_seed, tasks=config.tasks, languages=config.languages)


def _rendered(problems: Dataset, config: ProblemConfig) -> Dataset:
    return render_prompts(problems, config.template, system=config.system_prompt)
