"""Supervised fine-tuning on conversations, by TRL's SFTTrainer: cold start (Dev1), Dev3, distillation.

    python -m recipes sft --config recipes/micro/sft.yaml          (`make cold-start`, `make distill`)

Source: DeepSeek-R1, Nature version: cosine 5e-5 -> 5e-6, context 32,768, batch 128, 2-3 epochs; distillation 1e-4
(1.5B) to 6e-5 (32B). Rows hold a `prompt` and a `completion`, both conversations; the loss is on the latter. The run
folder is as GRPO's: config.yaml, metrics.jsonl, status.json, checkpoint-*/, model/. `--resume` goes on from the last
whole checkpoint and gives the weights, bit for bit, that an uninterrupted run gives.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset, load_dataset, load_from_disk
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerState,
)
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils import logging as transformers_logging

from grpo.checkpoints import latest_checkpoint
from grpo.config import GROUP_TIMEOUT, check_length
from grpo.cpu import use_cores
from grpo.loading import check_tokenizer, encode_prompt, load_policy, load_tokenizer
from recipes.chains import NothingKeptError
from recipes.launch import batches_each, check_ranks
from recipes.parser import reported
from recipes.rl import StopOnSignal, latest_step, open_run
from recipes.row_order import LikeLengths
from recipes.run_folder import RunFolder, RunRecorder, parse_or_resume

logger = logging.getLogger(__name__)

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(kw_only=True)
class SFTRecipe:
    """What an SFT recipe needs besides TRL's SFTConfig."""

    model_name_or_path: str
    dataset: str
    """Rows with `prompt` and `completion` (conversations): a folder of save_to_disk, .jsonl or .parquet."""
    global_batch_size: int | None = None
    """Rows an update over all processes, so that a recipe serves any number of GPUs. It decides
    gradient_accumulation_steps; per_device_train_batch_size is the rows of a forward pass."""
    cpu_threads: int | None = None
    """Threads of torch on a CPU; None takes the cores this process may use, at most 8."""
    resume: bool = False
    """Go on with the newest run of this output_dir from its last whole checkpoint."""


@dataclass
class SFTConfig(trl.SFTConfig):
    """TRL's, with defaults that follow the hardware, and the paper's schedule."""

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate. DeepSeek-R1: 5e-5."})
    lr_scheduler_type: str = field(
        default="cosine_with_min_lr", metadata={"help": "DeepSeek-R1: cosine to a tenth of the peak."}
    )
    lr_scheduler_kwargs: dict | str | None = field(
        default=None, metadata={"help": "None with cosine_with_min_lr: {'min_lr_rate': 0.1}, as DeepSeek-R1."}
    )
    bf16: bool | None = field(
        default=None,
        metadata={"help": "bfloat16 mixed precision. None: on where the GPU has it, off on a CPU (TRL: always on)."},
    )
    gradient_checkpointing: bool | None = field(
        default=None,
        metadata={"help": "Recompute activations in the backward pass. None: on with a GPU, off on a CPU (TRL: on)."},
    )
    packing: bool | None = field(
        default=None,
        metadata={
            "help": "Join rows to sequences of max_length. None: on with a GPU and a FlashAttention of "
            "model_init_kwargs, with which TRL keeps the rows apart; off elsewhere."
        },
    )
    completion_only_loss: bool | None = field(
        default=True, metadata={"help": "The loss is on the completion, not on the prompt."}
    )
    disable_dropout: bool = field(default=False, metadata={"help": "Set the model's dropout to 0."})
    ddp_timeout: int = field(default=GROUP_TIMEOUT, metadata={"help": "Seconds that processes wait for each other."})

    def __post_init__(self) -> None:
        cuda = torch.cuda.is_available() and not self.use_cpu
        if self.bf16 is None:
            self.bf16 = not self.fp16 and is_torch_bf16_gpu_available() and not self.use_cpu
        if self.gradient_checkpointing is None:
            self.gradient_checkpointing = cuda
        renamed = "activation_checkpointing"  # what later releases of transformers 5 call it
        if hasattr(self, renamed):
            if getattr(self, renamed) is None:
                setattr(self, renamed, self.gradient_checkpointing)
            self.gradient_checkpointing = None
        if self.packing is None:
            kwargs = self.model_init_kwargs if isinstance(self.model_init_kwargs, dict) else {}
            self.packing = cuda and "flash" in str(kwargs.get("attn_implementation"))
        if self.lr_scheduler_type == "cosine_with_min_lr" and self.lr_scheduler_kwargs is None:
            self.lr_scheduler_kwargs = {"min_lr_rate": 0.1}
        super().__post_init__()
        check_length(self)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False


def main(recipe: SFTRecipe, args: SFTConfig) -> Path:
    """Train, and give the run folder."""
    check_ranks(args.world_size)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    args.disable_tqdm = True
    if args.device.type == "cpu" and args.world_size == 1:
        use_cores(recipe.cpu_threads)
    if recipe.global_batch_size is not None:
        args.gradient_accumulation_steps = batches_each(
            recipe.global_batch_size, args.world_size, args.per_device_train_batch_size
        )
    rows = load_rows(recipe.dataset)
    tokenizer = sft_tokenizer(recipe.model_name_or_path, args)
    model = load_policy(recipe.model_name_or_path, args)
    turn_end = check_template(rows[0], tokenizer)
    if (thinking := next((row for row in rows if "</think>" in row["completion"][-1]["content"]), None)) is not None:
        check_template(thinking, tokenizer)
    rows, report = drop_long_rows(rows, tokenizer, length_limit(model, args))
    set_stop_token(model, tokenizer, turn_end)

    run = RunFolder.latest(args.output_dir) if recipe.resume else open_run(args)
    checkpoint = latest_checkpoint(run.path) if recipe.resume else None
    args.output_dir = str(run.path)
    trainer = make_trainer(model, tokenizer, rows, args)
    if trainer.accelerator.is_main_process:
        trainer.add_callback(RunRecorder(run))
        trainer.add_callback(ProgressPrinter(len(rows)))
        run.check_space(sum(p.numel() for p in model.parameters()), args.save_total_limit or 3)
        if not recipe.resume:
            run.write_config(recipe, args)
        run.write_json("filters.json", report)
        run.forget_after(latest_step(run.path) or 0)
    try:
        train_to_the_end(trainer, checkpoint)
    except BaseException as error:
        if trainer.accelerator.is_main_process:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            run.set_status(
                state, trainer.state.global_step, trainer.state.max_steps, f"{type(error).__name__}: {error}"
            )
        raise
    trainer.save_model(str(run.path / "model"))
    if trainer.accelerator.is_main_process:
        done, planned = trainer.state.global_step, trainer.state.max_steps
        run.set_status("finished" if done >= planned else "interrupted", done, planned)
        print(f"model: {run.path / 'model'}")
    return run.path


class Trainer(trl.SFTTrainer):
    """TRL's, whose batches of like length are the same ones in a run that resumes."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in rows["input_ids"]]
        return LikeLengths(lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)


def make_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, args: SFTConfig
) -> trl.SFTTrainer:
    """TRL's trainer on these rows: their tokens through the chat template, labels on the completion's alone."""
    columns = [name for name in rows.column_names if name not in ("prompt", "completion")]
    trainer = Trainer(model=model, args=args, train_dataset=rows.remove_columns(columns), processing_class=tokenizer)
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(StopOnSignal())
    return trainer


def train_to_the_end(trainer: trl.SFTTrainer, checkpoint: Path | None) -> None:
    """Train from the beginning, or from a checkpoint on. One of the last step needs no training, and Trainer would add
    a step to it."""
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        max_steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]
        if max_steps <= state.global_step:
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = state
            return
        # TRL's count of tokens, which its checkpoints do not hold.
        trainer._total_train_tokens = next(
            (log["num_tokens"] for log in state.log_history[::-1] if "num_tokens" in log), 0
        )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


# --- rows and their tokens --------------------------------------------------------------------------------------------


def load_rows(source: str) -> Dataset:
    """The rows of a data set. ValueError when it is missing, empty or lacks prompt and completion."""
    path = Path(source)
    if (path / "dataset_info.json").is_file():
        try:
            rows = load_from_disk(source)
        except IndexError:  # what datasets makes of a set that was saved without rows
            rows = Dataset.from_list([{"prompt": [], "completion": []}]).select([])
    elif path.suffix in FORMATS and path.is_file():
        rows = load_dataset(FORMATS[path.suffix], data_files=source, split="train")
    else:
        raise ValueError(
            f"there is no SFT data set at {source!r}: give a folder of datasets' save_to_disk (a data stage writes "
            f"dataset/) or a file with the ending {', '.join(FORMATS)}"
        )
    missing = {"prompt", "completion"} - set(rows.column_names)
    if missing:
        raise ValueError(
            f"{source} lacks the column(s) {', '.join(sorted(missing))}, it has {rows.column_names}; an SFT row is a "
            "conversation `prompt` and a `completion` with one assistant message"
        )
    if len(rows) and not all(isinstance(rows[0][name], list) and rows[0][name] for name in ("prompt", "completion")):
        raise ValueError(
            f"the rows of {source} hold {rows[0]['prompt']!r:.80} and {rows[0]['completion']!r:.80}; prompt and "
            'completion are conversations: [{"role": "user", "content": …}] and [{"role": "assistant", "content": …}]'
        )
    if len(rows) == 0:
        raise ValueError(f"{source} has no rows; see what its filters dropped in filters.json beside it")
    return rows


def sft_tokenizer(path: str, args: SFTConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the template of `chat_template_path` where that is a file. ValueError without any."""
    tokenizer = load_tokenizer(path)
    check_tokenizer(tokenizer)
    given = args.chat_template_path
    if given is not None:
        if not given.endswith((".jinja", ".j2")):
            tokenizer.chat_template = load_tokenizer(given).chat_template
        elif Path(given).is_file():
            tokenizer.chat_template = Path(given).read_text(encoding="utf-8")
        else:
            raise ValueError(f"there is no chat template at {given!r} (chat_template_path)")
        args.chat_template_path = None  # TRL would also copy the other tokenizer's tokens
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {path} has no chat template, and conversations need one; set chat_template_path to a "
            ".jinja file, or to a model whose template uses tokens that this tokenizer knows"
        )
    return tokenizer


def token_ids(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a whole row, as TRL makes them."""
    return tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]


def check_template(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant's turn, once the chat template renders a row as it must be trained on.

    Raises ValueError for a template that drops part of the response (some drop the reasoning), one whose prompt alone
    differs from the prompt before a response, and one that ends a turn with no token of its own: then no model could
    learn to stop.
    """
    content = row["completion"][-1]["content"]
    advice = "set chat_template_path to a .jinja file that is made for training"
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    if content.strip() not in text:
        raise ValueError(f"the chat template changes the response it renders ({text[-200:]!r}); {advice}")
    ids, prompt = token_ids(row, tokenizer), encode_prompt(tokenizer, row["prompt"])
    if ids[: len(prompt)] != prompt:
        raise ValueError(
            f"the chat template renders a prompt alone ({tokenizer.decode(prompt)[-80:]!r}) otherwise than before its "
            f"response ({tokenizer.decode(ids[: len(prompt)])[-80:]!r}): sampling would differ from training; {advice}"
        )
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    behind = text[text.rindex(content.strip()) + len(content.strip()) :]
    ends = [index for index in tokenizer(behind, add_special_tokens=False)["input_ids"] if index in special]
    if not ends:
        raise ValueError(
            f"no special token ends an assistant's turn in the chat template (behind it: {behind!r}); {advice}"
        )
    return ends[0]


def length_limit(model: PreTrainedModel, args: SFTConfig) -> int:
    """max_length, which must fit in the model's context; that context where it is not set."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and args.max_length is not None and args.max_length > context:
        raise ValueError(f"max_length {args.max_length} exceeds the model's context of {context} tokens; lower it")
    return args.max_length or context or sys.maxsize


def drop_long_rows(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[Dataset, dict[str, Any]]:
    """The rows of at most `max_length` tokens, and a report as a data stage's: TRL would cut the others without a word,
    and a chain without its end teaches not to answer. NothingKeptError when none is left."""
    lengths = [len(token_ids(row, tokenizer)) for row in rows]
    kept = [index for index, length in enumerate(lengths) if length <= max_length]
    long = [index for index, length in enumerate(lengths) if length > max_length]
    examples = [f"{lengths[i]} tokens: {rows[i]['completion'][-1]['content'][:300]} …" for i in long[:3]]
    report = {
        "filters": [{"name": "max_length", "dropped": len(long), "examples": examples}],
        "kept": len(kept),
        "seen": len(rows),
    }
    if not kept:
        raise NothingKeptError(
            f"all {len(rows)} rows are longer than max_length {max_length} (the shortest has {min(lengths)} tokens); "
            "raise max_length or shorten the chains",
            report,
        )
    if long:
        logger.warning(
            "%d of %d rows are longer than max_length %d and are left out (the longest has %d tokens)",
            len(long), len(rows), max_length, max(lengths),
        )  # fmt: skip
    return rows.select(kept), report


def set_stop_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, turn_end: int) -> None:
    """Let generation end at the end of a turn as well as at the end of a text."""
    known = model.generation_config.eos_token_id
    known = known if isinstance(known, list) else [] if known is None else [known]
    stops = sorted({*known, tokenizer.eos_token_id, turn_end})
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]


class ProgressPrinter(TrainerCallback):
    """A line each time the trainer logs."""

    def __init__(self, num_rows: int):
        self.num_rows = num_rows

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first = time.monotonic(), state.global_step
        print(f"{self.num_rows:,} rows, {state.max_steps:,} steps", flush=True)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "loss" not in logs:
            return
        done = state.global_step - self.first
        left = (time.monotonic() - self.started) / max(done, 1) * (state.max_steps - state.global_step)
        print(
            f"step {state.global_step:5d}/{state.max_steps}  loss {logs['loss']:.4f}  "
            f"token accuracy {logs.get('mean_token_accuracy', float('nan')):.3f}  "
            f"lr {logs['learning_rate']:.2e}  left {left:.0f} s",
            flush=True,
        )


def settings(argv: list[str]) -> tuple[SFTRecipe, SFTConfig]:
    return parse_or_resume(SFTRecipe, SFTConfig, args=argv)


def command(argv: Sequence[str]) -> None:
    with reported():
        main(*settings(list(argv)))


if __name__ == "__main__":
    command(sys.argv[1:])
