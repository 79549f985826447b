"""The reward models of preference RL: helpfulness from pairs, harmlessness from safety labels.

    python -m recipes reward_models --config recipes/micro/reward_models.yaml

Source: DeepSeek-R1 (arXiv:2501.12948v2): helpfulness from 66,000 preference pairs (the final summary decides),
harmlessness pointwise from 106,000 prompts with labels (the whole response decides), batch 256, learning rate 6e-6, one
epoch. Pairs go through TRL's RewardTrainer (Bradley-Terry), labels through transformers' Trainer (a binary classifier).

Writes helpful/ and harmless/ (plain Hugging Face folders with reward.json, which rewards.preference reads), data/ (what
each model was trained and measured on, every row with its origin) and metrics.json: what the models get right of
answers that were held out, of families that were held out too, and how much of a score is length. A model's folder
appears when it is finished; what is unfinished goes on from its checkpoint.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import copy
import json
import logging
import math
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    set_seed,
)
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils import logging as transformers_logging
from trl import RewardConfig, RewardTrainer

from data.drops import Drops
from data.general import FAMILIES_OF
from grpo.checkpoints import latest_checkpoint
from grpo.config import GROUP_TIMEOUT, check_length
from grpo.cpu import use_cores
from grpo.statistics import share_interval
from recipes.launch import batches_each, check_ranks
from recipes.parser import reported
from recipes.preference_sets import (
    LIKE_HELD_OUT,
    MADE,
    Label,
    Pair,
    as_dataset,
    made_pairs,
    open_labels,
    open_pairs,
    prompt_text,
    read_labels,
    read_pairs,
    split_off,
    without_measured_on,
)
from recipes.rl import StopOnSignal, latest_step, open_run
from recipes.row_order import like_lengths
from recipes.run_folder import RunFolder, RunRecorder, parse_or_resume
from rewards.preference import RewardInfo, RewardModel, encode_conversation, pad_token_id

logger = logging.getLogger(__name__)

READS = {"helpful": "final_summary", "harmless": "whole_response"}
SOURCES = {"helpful": "preferences", "harmless": "safety"}
"""Model -> the setting that says where its data is."""
DIFFERS_IN = {"helpful": "helpfulness", "harmless": "harmlessness"}


@dataclass(kw_only=True)
class RewardModelsConfig:
    """What the reward models start from and learn from."""

    model_name_or_path: str
    """A causal language model whose tokenizer has a chat template; its head is replaced by one score."""
    models: list[str] = field(default_factory=lambda: list(READS))
    preferences: str = "micro"
    """Preference pairs for the helpful model: `micro`, a file, a folder or a Hub name."""
    safety: str = "micro"
    """Safety labels for the harmless model, the same; with `harmless_from: pairs` pairs that differ in harmlessness."""
    preferences_split: str = "train"
    safety_split: str = "train"
    harmless_from: str = "labels"
    """What `safety` holds. "labels": pointwise, as in the paper. "pairs": pairs that differ in harmlessness."""
    micro_size: int = 5000
    """Micro world: pairs and labels to draw, the held-out ones included."""
    train_size: int | None = None
    """Rows to train on, of each kind; None takes all that are not held out."""
    balance_lengths: bool = False
    """Drop training pairs at random until the preferred answer is as often the shorter as the longer one, as the paper
    balances its pairs: a model that need not know better learns to pay for length."""
    made_share: float = 0.0
    """Helpful model: pairs to add, as a share of the training pairs, whose worse side is made of good answers: one to
    another prompt, the request itself, the answer three times. metrics.json says under "made" whether it needs them."""
    held_out_size: int = 600
    """Rows of each kind that are measured on and never trained on."""
    held_out_families: list[str] = field(default_factory=list)
    """Families that are never trained on: up to half of the held-out rows are theirs."""
    problem_seed: int = 0
    decontaminate_against: dict[str, str] | None = None
    """Sets that are measured on: set -> split, or configuration/split. Rows whose prompt shares ten words in a row with
    one of their problems are dropped. A set is not compared with itself."""
    min_gap: float | None = None
    """Pairs whose answers carry scores: only those further apart than this. R1: 1."""
    global_batch_size: int | None = None
    """Pairs or labels an update over all processes, so that a recipe serves any number of GPUs. It decides
    gradient_accumulation_steps; per_device_train_batch_size is the rows of a forward pass."""
    cpu_threads: int | None = None
    resume: bool = False
    """Go on with the newest run of this output_dir."""

    def __post_init__(self) -> None:
        if unknown := set(self.models) - set(READS):
            raise ValueError(f"models names {', '.join(sorted(unknown))}; expected some of {', '.join(READS)}")
        if self.harmless_from not in ("labels", "pairs"):
            raise ValueError(f"harmless_from must be 'labels' or 'pairs', got {self.harmless_from!r}")
        if not 0 <= self.made_share <= 3:
            raise ValueError(f"made_share must lie between 0 and 3 of the training pairs, got {self.made_share}")
        if self.held_out_size < 2:
            raise ValueError(
                f"held_out_size must be 2 or more: a model is never used unmeasured, got {self.held_out_size}"
            )


@dataclass
class RewardTrainingConfig(RewardConfig):
    """TRL's RewardConfig for both models, with defaults that fit a CPU too."""

    learning_rate: float = field(default=6e-6, metadata={"help": "DeepSeek-R1: 6e-6."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "DeepSeek-R1: 1."})
    bf16: bool | None = field(default=None, metadata={"help": "None: on where the GPU has it (TRL: always on)."})
    gradient_checkpointing: bool | None = field(default=False, metadata={"help": "TRL: on."})
    ddp_timeout: int = field(default=GROUP_TIMEOUT, metadata={"help": "Seconds that processes wait for each other."})

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = not self.fp16 and is_torch_bf16_gpu_available() and not self.use_cpu
        renamed = "activation_checkpointing"  # what later releases of transformers 5 call it
        if hasattr(self, renamed):
            if getattr(self, renamed) is None:
                setattr(self, renamed, self.gradient_checkpointing)
            self.gradient_checkpointing = None
        super().__post_init__()
        check_length(self)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False


def main(recipe: RewardModelsConfig, args: RewardTrainingConfig) -> None:
    check_ranks(args.world_size)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    args.disable_tqdm = True
    if args.device.type == "cpu" and args.world_size == 1:
        use_cores(recipe.cpu_threads)
    if recipe.global_batch_size is not None:
        args.gradient_accumulation_steps = batches_each(
            recipe.global_batch_size, args.world_size, args.per_device_train_batch_size
        )
    run = RunFolder.latest(args.output_dir) if recipe.resume else open_run(args)
    if not recipe.resume and args.process_index == 0:
        run.write_config(recipe, args)
    metrics = train_reward_models(run.path, recipe, args)
    if args.process_index == 0:
        run.set_status("finished")
        print(summary(metrics), f"models: {run.path}", sep="\n")


def train_reward_models(folder: Path, recipe: RewardModelsConfig, args: RewardTrainingConfig) -> dict[str, Any]:
    """Train, measure and write the models into `folder`/helpful and /harmless; returns metrics.json's content.

    A model that is there is left alone, and a run that was cut off goes on from its last checkpoint. Raises ValueError
    for data that cannot teach (recipes.preference_sets) and for a model whose scores are no numbers after training;
    KeyboardInterrupt after a Ctrl-C, with a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, Any] = {}
    read = {
        part: read_rows(part, recipe, is_pairwise(part, recipe))
        for part in recipe.models
        if not (folder / part / "metrics.json").is_file()
    }
    if len(read) == len(recipe.models) and args.process_index == 0:
        check_families(recipe, {row.family for rows, *_ in read.values() for row in rows})
    for part in recipe.models:
        if part in read:
            train_one(folder, part, *read.pop(part), recipe, args)
        if args.process_index == 0:
            metrics[part] = json.loads((folder / part / "metrics.json").read_text(encoding="utf-8"))
    if args.process_index == 0:
        RunFolder(folder).write_json("metrics.json", metrics)
    return metrics


def train_one(
    folder: Path, part: str, rows: Sequence[Any], drops: Drops, reading: list[dict], recipe: RewardModelsConfig,
    args: RewardTrainingConfig,
) -> None:  # fmt: skip
    """One model, from its data, as read_rows gives it, to its finished folder."""
    pairwise = is_pairwise(part, recipe)
    rows = without_measured_on(rows, getattr(recipe, SOURCES[part]), recipe.decontaminate_against, drops)
    train: Sequence[Any]
    train, held_out = split_off(rows, recipe.held_out_size, recipe.held_out_families, recipe.problem_seed, drops)
    if pairwise and recipe.balance_lengths and train:
        train = balanced(train, drops, args.seed)
    train = cut(train, recipe.train_size, drops)
    check_sizes(part, train, held_out, recipe, drops)
    if part == "helpful":
        train = with_made(train, recipe.made_share, args.seed, drops)
    set_seed(args.seed)  # the new head is drawn
    tokenizer = AutoTokenizer.from_pretrained(recipe.model_name_or_path, padding_side="right")
    train, ids = short_enough(train, tokenizer, args.max_length, drops, part)
    if args.process_index == 0:
        save_data(folder, part, train, held_out)
    training = RunFolder(folder / "training" / part)
    training.path.mkdir(parents=True, exist_ok=True)
    trained = fully_trained(training.path)
    model = load_scorer(str(trained or recipe.model_name_or_path), tokenizer, pairwise)
    own_args = copy.copy(args)
    own_args.output_dir = str(training.path)
    build: Callable[..., Trainer] = pair_trainer if pairwise else label_trainer
    trainer = build(model, own_args, tokenizer, train, ids)
    if args.process_index == 0:
        print(f"{part}: {len(train)} {'pairs' if pairwise else 'labels'}, {len(held_out)} held out", flush=True)
    if trained is None:
        run_trainer(trainer, training, part)
    partial = folder / f"{part}.partial"
    if args.process_index == 0:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(partial))  # on every rank: where weights are sharded, all give their part
    if args.process_index == 0:
        data = filters_of(drops, reading) | {"train": len(train), "held_out": len(held_out)}
        finish(trainer, folder, part, recipe, pairwise, held_out, data)
    trainer.accelerator.wait_for_everyone()


def is_pairwise(part: str, recipe: RewardModelsConfig) -> bool:
    """Whether a model learns from pairs, and not from labels."""
    return part == "helpful" or recipe.harmless_from == "pairs"


def read_rows(part: str, recipe: RewardModelsConfig, pairwise: bool) -> tuple[Sequence[Any], Drops, list[dict]]:
    """The usable rows of one model's source, what was dropped of it, and what its reader had dropped before."""
    setting = SOURCES[part]
    source, split = getattr(recipe, setting), getattr(recipe, f"{setting}_split")
    seed = recipe.problem_seed if source == "micro" else None  # of rows that this run draws
    reads, label = READS[part], f"{setting} {source}"
    drawn = source, split, recipe.micro_size, recipe.problem_seed
    if pairwise:
        differs_in = DIFFERS_IN[part]
        raw, reading = open_pairs(*drawn, differs_in, recipe.min_gap)
        return *read_pairs(raw, reads, differs_in, label, source, seed), reading
    raw, reading = open_labels(*drawn)
    return *read_labels(raw, reads, label, source, seed), reading


def check_families(recipe: RewardModelsConfig, there: set[str]) -> None:
    """Warn of a held-out family that no model's data has: nothing of it can be held out. Those of the micro world are
    known where one of the sources is: each belongs to one model's data."""
    micro = "micro" in {getattr(recipe, SOURCES[part]) for part in recipe.models}
    known = there.union(*FAMILIES_OF.values()) if micro else there
    if unknown := [family for family in recipe.held_out_families if family not in known]:
        logger.warning(
            "held_out_families names %s, which no row is of, so nothing is held out for it; the families there are %s",
            ", ".join(unknown), ", ".join(sorted(there)[:30]),
        )  # fmt: skip


def cut(rows: Sequence[Any], size: int | None, drops: Drops) -> Sequence[Any]:
    """The first `size` rows, all for None."""
    for row in rows[len(rows) if size is None else size :]:
        drops.drop("beyond train_size", prompt_text(row))
    return rows[:size]


Ids = tuple[list[int], ...]
"""A row's token ids: of both sides of a pair, or of the one conversation of a label."""


def short_enough(
    rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, max_length: int | None, drops: Drops, part: str
) -> tuple[list[Any], list[Ids]]:
    """The rows that no side of which is longer than max_length tokens, and their ids. ValueError where none is left."""
    kept = []
    for row in rows:
        sides = (row.chosen, row.rejected) if isinstance(row, Pair) else (row.conversation,)
        ids = tuple(encode_conversation(tokenizer, side) for side in sides)
        longest = max(map(len, ids))
        if max_length is None or longest <= max_length:
            kept.append((row, ids))
        else:
            drops.drop("too long", f"{longest} tokens: {prompt_text(row)}")
    if not kept:
        raise ValueError(
            f"all {len(rows)} rows to train the {part} model on are longer than max_length ({max_length} tokens), such "
            f"as {drops.examples['too long'][0]!r}; raise max_length"
        )
    return [row for row, _ in kept], [ids for _, ids in kept]


def save_data(folder: Path, part: str, train: Sequence[Any], held_out: Sequence[Any]) -> None:
    """data/<part>/train and data/<part>/held_out: what the model learns from and what it is measured on."""
    for name, rows in (("train", train), ("held_out", held_out)):
        RunFolder(folder).save_dataset(f"data/{part}/{name}", as_dataset(rows, DIFFERS_IN[part]))


def filters_of(drops: Drops, reading: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a stage reports of its filters: those of the source's reader first. `seen` is `kept` and all that was
    dropped."""
    report = drops.as_dict(kept=drops.seen - drops.counts.total())
    before = sum(one["dropped"] for one in reading)
    return report | {"filters": [*reading, *report["filters"]], "seen": before + report["seen"]}


def check_sizes(
    part: str, train: Sequence[Any], held_out: Sequence[Any], recipe: RewardModelsConfig, drops: Drops
) -> None:
    """Raises ValueError where nothing is left to train on or to measure with."""
    if not train:
        advice = "hold out fewer"
        if others := drops.counts[LIKE_HELD_OUT]:
            prompts = len({prompt_text(row) for row in held_out})
            advice = (
                f"the {others} others are of these families or have one of their {prompts} prompt(s): hold out fewer "
                "families, or take data with more prompts"
            )
        raise ValueError(
            f"the {part} model has nothing to train on: {len(held_out)} rows are held out (held_out_size "
            f"{recipe.held_out_size}, held_out_families {recipe.held_out_families}); {advice}"
        )
    if len(held_out) < 2 or (isinstance(held_out[0], Label) and len({row.safe for row in held_out}) < 2):
        raise ValueError(
            f"the {part} model cannot be measured on {len(held_out)} held-out rows, which must be 2 or more and, of "
            "labels, hold both; raise held_out_size or the size of the data"
        )


def balanced(pairs: Sequence[Pair], drops: Drops, seed: int) -> list[Pair]:
    """The pairs in their order, less some, at random, until of each gap in length (in characters, by powers of two) as
    many preferred answers are longer as shorter. By sign alone, a few much longer ones would still teach length.

    Raises ValueError where nothing is left.
    """
    gaps = [len(pair.chosen[-1]["content"]) - len(pair.rejected[-1]["content"]) for pair in pairs]
    rows: dict[tuple[int, bool], list[int]] = {}
    for row, gap in enumerate(gaps):
        if gap:
            rows.setdefault((gap.bit_length(), gap > 0), []).append(row)
    rng, left = random.Random(seed), set[int]()
    for (bits, longer), found in sorted(rows.items()):
        left |= set(rng.sample(found, max(0, len(found) - len(rows.get((bits, not longer), [])))))
    kept = []
    for row, pair in enumerate(pairs):
        if row not in left:
            kept.append(pair)
        else:
            drops.drop("length balance", {"chosen": pair.chosen[-1], "rejected": pair.rejected[-1]})
    if not kept:
        raise ValueError(
            f"balance_lengths leaves none of the {len(pairs)} pairs: of {sum(gap > 0 for gap in gaps)} whose preferred "
            f"answer is the longer one and {sum(gap < 0 for gap in gaps)} whose is the shorter one no two differ by "
            "about as much; set balance_lengths: false, or add others"
        )
    return kept


def with_made(pairs: Sequence[Pair], made_share: float, seed: int, drops: Drops | None = None) -> list[Pair]:
    """The pairs, and a share of them once more with a made answer, of each kind alike; `drops` has seen those too."""
    each = round(made_share * len(pairs) / len(MADE))
    rng = random.Random(seed)
    chosen = {how: [pairs[rng.randrange(len(pairs))] for _ in range(each)] for how in MADE}
    made = [pair for how in MADE for pair in made_pairs(chosen[how], how, seed)]
    if drops is not None:
        drops.seen += len(made)
    return [*pairs, *made]


def load_scorer(path: str, tokenizer: PreTrainedTokenizerBase, pairwise: bool) -> PreTrainedModel:
    """The base with a head of one output instead of its vocabulary, in float32."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    kind = {} if pairwise else {"problem_type": "multi_label_classification"}  # binary cross-entropy on one output
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype="float32", **kind)
    model.config.get_text_config().pad_token_id = pad_token_id(tokenizer)  # it reads the last token that is none
    return model


def pair_trainer(
    model: PreTrainedModel, args: RewardTrainingConfig, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair],
    ids: Sequence[Ids],
) -> Trainer:  # fmt: skip
    """TRL's RewardTrainer over batches of pairs of like length."""
    order = like_lengths([max(map(len, pair)) for pair in ids], args.train_batch_size * args.world_size, args.seed)
    chosen, rejected = ([ids[row][side] for row in order] for side in (0, 1))
    args.train_sampling_strategy = "sequential"
    dataset = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})
    return RewardTrainer(model, args, train_dataset=dataset, processing_class=tokenizer)


def label_trainer(
    model: PreTrainedModel, args: RewardTrainingConfig, tokenizer: PreTrainedTokenizerBase, labels: Sequence[Label],
    ids: Sequence[Ids],
) -> Trainer:  # fmt: skip
    """transformers' Trainer with binary cross-entropy.

    In random order: refusals and agreements differ in length, so batches of like length would hold one label each.
    """
    safe = [[float(label.safe)] for label in labels]
    dataset = Dataset.from_dict({"input_ids": [conversation for (conversation,) in ids], "labels": safe})
    collator = DataCollatorWithPadding(tokenizer)
    return Trainer(model, args, train_dataset=dataset, processing_class=tokenizer, data_collator=collator)


class PrintedLog(TrainerCallback):
    """A line a log."""

    def __init__(self, part: str):
        self.part = part

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            shown = [f"{name} {float(logs[name]):.3f}" for name in ("loss", "accuracy", "margin") if name in logs]
            print(f"{self.part}: step {state.global_step}/{state.max_steps}", *shown, sep="  ", flush=True)


def run_trainer(trainer: Trainer, training: RunFolder, part: str) -> None:
    """Train to the end, from the last checkpoint if there is one. Raises KeyboardInterrupt where a Ctrl-C ended it."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    for added in (StopOnSignal(), PrintedLog(part)):
        trainer.add_callback(added)
    checkpoint = latest_checkpoint(training.path)
    if trainer.is_world_process_zero():
        trainer.add_callback(RunRecorder(training))
        training.forget_after(latest_step(training.path) or 0)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt


def fully_trained(training: Path) -> Path | None:
    """The checkpoint of the last step, if a run was cut off behind it: Trainer would add a step to that."""
    checkpoint = latest_checkpoint(training)
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return checkpoint if state.global_step >= state.max_steps else None


def finish(
    trainer: Trainer, folder: Path, part: str, recipe: RewardModelsConfig, pairwise: bool, held_out: Sequence[Any],
    data: dict[str, Any],
) -> None:  # fmt: skip
    """Measure the model saved beside its place as RL will use it, and move it there: it is there only if whole.

    Raises ValueError for scores that are no numbers, or all the same one; then its checkpoints are set aside, for none
    must go on from them.
    """
    partial = folder / f"{part}.partial"
    trainer.processing_class.save_pretrained(str(partial))
    scorer = RewardModel(partial, device=str(trainer.accelerator.device))
    try:
        measured = (measure_pairs if pairwise else measure_labels)(scorer, held_out, recipe.held_out_families)
        good = measured.pop("good_scores")
        if pairwise and np.ptp(good) < SAME_SCORE:  # normalised by their spread, they would be noise between 0 and 1
            raise NotANumberError(f"{good[0]:.4g} for every held-out good answer")
    except NotANumberError as error:
        shutil.rmtree(partial)
        aside = unused(folder / "training" / f"{part}-broken")
        (folder / "training" / part).rename(aside)
        raise ValueError(
            f"the {part} model scores {error} after training, so it was not written. Lower learning_rate (now "
            f"{trainer.args.learning_rate:g}; R1: 6e-6) or max_grad_norm and train it again; "
            f"what it logged is in {aside}"
        ) from error
    scale = "normalised" if pairwise else "probability"
    info = RewardInfo(part, READS[part], scale, float(np.mean(good)), float(np.std(good)), recipe.model_name_or_path)
    info.write(partial)
    content = {"data": data, "held_out": measured}
    (partial / "metrics.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    shutil.rmtree(folder / part, ignore_errors=True)
    partial.rename(folder / part)
    for checkpoint in (folder / "training" / part).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def unused(path: Path) -> Path:
    """The path, or with -2, -3, … behind it."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = Path(f"{path}-{number}"), number + 1
    return candidate


# --- measuring --------------------------------------------------------------------------------------------------------


SAME_SCORE = 1e-6
"""Scores that differ by less are the same."""


class NotANumberError(ValueError):
    """A score that is NaN or infinite."""


def checked_scores(scorer: RewardModel, conversations: Sequence[list[dict[str, str]]]) -> np.ndarray:
    """Raises NotANumberError."""
    scores = scorer.scores(conversations)
    for score, conversation in zip(scores, conversations):
        if not math.isfinite(score):
            raise NotANumberError(f"{score} for {conversation!r:.200}")
    return np.array(scores)


def measure_pairs(scorer: RewardModel, pairs: Sequence[Pair], held_out_families: Sequence[str]) -> dict[str, Any]:
    """How often the preferred answer scores higher (a tie counts half), overall and by part, with 95 % intervals.

    Under "length": the correlation of score and length in tokens over all answers, how often the longer answer is the
    preferred one, and the accuracy where it is and where it is not: a model that pays for length fails the last. Under
    "made": the accuracy against answers that are worse for certain (recipes.preference_sets.MADE).
    """
    chosen = checked_scores(scorer, [pair.chosen for pair in pairs])
    rejected = checked_scores(scorer, [pair.rejected for pair in pairs])
    right = (np.sign(chosen - rejected) + 1) / 2
    lengths = [
        np.array([num_tokens(scorer, side(pair)) for pair in pairs])
        for side in (lambda pair: pair.chosen, lambda pair: pair.rejected)
    ]
    longer = lengths[0] - lengths[1]
    good, made = {str(pair.chosen): score for pair, score in zip(pairs, chosen)}, {}
    for how in MADE:
        worse_pairs = made_pairs(pairs, how, seed=0)
        worse = checked_scores(scorer, [pair.rejected for pair in worse_pairs])
        better = np.array([good[str(pair.chosen)] for pair in worse_pairs])
        made[how] = share((np.sign(better - worse) + 1) / 2)
    return share(right) | by_part(pairs, right, held_out_families) | {
        "made": made,
        "margin": float((chosen - rejected).mean()),
        "length": {
            "correlation": correlation(np.concatenate([chosen, rejected]), np.concatenate(lengths)),
            "longer_is_chosen": float(((np.sign(longer) + 1) / 2).mean()),
            "accuracy_where_longer": share(right[longer > 0]),
            "accuracy_where_shorter": share(right[longer < 0]),
        },
        "good_scores": chosen,
    }  # fmt: skip


def measure_labels(scorer: RewardModel, labels: Sequence[Label], held_out_families: Sequence[str]) -> dict[str, Any]:
    """Accuracy at probability 0.5 and the area under the ROC curve, overall and by part, with 95 % intervals.

    "called_unsafe" is the share of safe responses that it rejects, "called_safe" that of unsafe ones that it passes.
    """
    scores = checked_scores(scorer, [label.conversation for label in labels])
    safe = np.array([label.safe for label in labels])
    right = ((scores > 0) == safe).astype(float)
    lengths = np.array([num_tokens(scorer, label.conversation) for label in labels])
    return share(right) | by_part(labels, right, held_out_families) | {
        "auc": auc(scores, safe),
        "auc_ci95": auc_interval(scores, safe),
        "called_unsafe": float((scores[safe] <= 0).mean()),
        "called_safe": float((scores[~safe] > 0).mean()),
        "length": {"correlation": correlation(scores, lengths), "correlation_with_safe": correlation(safe, lengths)},
        "good_scores": scores[safe],
    }  # fmt: skip


def num_tokens(scorer: RewardModel, conversation: Sequence[dict[str, str]]) -> int:
    """Of the answer."""
    return len(scorer.tokenizer(conversation[-1]["content"], add_special_tokens=False)["input_ids"])


def share(right: np.ndarray) -> dict[str, Any]:
    """A share of right answers with its 95 % interval; None without answers."""
    if not len(right):
        return {"accuracy": None, "ci95": None, "n": 0}
    return {"accuracy": float(right.mean()), "ci95": list(share_interval(right)), "n": len(right)}


def by_part(rows: Sequence[Pair | Label], right: np.ndarray, held_out_families: Sequence[str]) -> dict[str, Any]:
    """The share by family and language, and of the families that were never trained on beside the others."""
    strange = np.array([row.family in held_out_families for row in rows])
    return {
        "held_out_families": share(right[strange]),
        "known_families": share(right[~strange]),
        "by_family": grouped(right, [row.family for row in rows]),
        "by_language": grouped(right, [row.language for row in rows]),
    }


def grouped(right: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: share(right[[other == name for other in names]]) for name in sorted(set(names))}


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if np.std(first) == 0 or np.std(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores above a negative, a tie counting half (Mann-Whitney).

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def auc_interval(scores: np.ndarray, positive: np.ndarray, resamples: int = 1000) -> list[float]:
    """The 95 % interval of the area: the percentile bootstrap over positives and negatives by themselves."""
    rng = np.random.default_rng(0)
    sides = np.flatnonzero(positive), np.flatnonzero(~positive)
    areas = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(side, len(side)) for side in sides])
        areas.append(auc(scores[rows], positive[rows]))
    return [float(bound) for bound in np.quantile(areas, [0.025, 0.975])]


def summary(metrics: dict[str, Any]) -> str:
    """A line a model."""
    lines = []
    for part, found in metrics.items():
        held = found["held_out"]
        words = [f"{part}: held-out accuracy {_share(held)}", f"new families {_share(held['held_out_families'])}"]
        if "auc" in held:
            words.append(f"AUC {held['auc']:.3f}")
        words += [
            f"against {how} {100 * found['accuracy']:.0f} %"
            for how, found in held.get("made", {}).items()
            if found["n"]
        ]
        if held["length"]["correlation"] is not None:
            words.append(f"correlation with length {held['length']['correlation']:+.2f}")
        lines.append(", ".join(words))
    return "\n".join(lines)


def _share(found: dict[str, Any]) -> str:
    if not found["n"]:
        return "–"
    low, high = found["ci95"]
    return f"{100 * found['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {found['n']}"


def settings(argv: list[str]) -> tuple[RewardModelsConfig, RewardTrainingConfig]:
    return parse_or_resume(RewardModelsConfig, RewardTrainingConfig, args=argv)


if __name__ == "__main__":
    with reported():
        main(*settings(sys.argv[1:]))
