"""Pretrain the micro base from nothing: generate text, train a tokenizer on it, train a small Qwen3 on both.

    python -m recipes.pretrain --config recipes/micro/base.yaml        (`make base`)

Text is generated and tokenized by worker processes while the model trains; shards arrive in order, so a seed names one
run. Needs minutes on a GPU and many hours on a CPU.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from data.corpus import documents
from data.templates import CHAT_TEMPLATE
from grpo.loading import load_tokenizer

SPECIAL_TOKENS = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>"]


@dataclass(kw_only=True)
class PretrainConfig:
    """The recipe of a base model. Lengths in tokens, batches in rows of `context_length` tokens."""

    output_dir: str = "data/base"
    seed: int = 0
    tokenizer: str | None = None
    """A tokenizer that is there, such as that of a base whose student this is; None trains one."""
    vocab_size: int = 2048
    tokenizer_documents: int = 100_000
    context_length: int = 512
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rows_per_step: int = 512
    max_steps: int = 3000
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    decay_share: float = 0.4
    """Share of the steps, at the end, over which the learning rate falls linearly to zero (a WSD schedule)."""
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    workers: int = 0
    """Processes that generate text; 0 takes one a CPU core but one."""


def train_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token of its own (the first takes the space before it)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sample = itertools.islice(documents(config.seed, shard=-1), config.tokenizer_documents)
    tokenizer.train_from_iterator(sample, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        model_max_length=config.context_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def fill_rows(texts: Iterator[str], tokenizer: Tokenizer, rows: int, length: int, end: int) -> np.ndarray:
    """[rows, length] token ids. Every row begins with a document; the last document of a row is cut at its end."""
    filled = np.full((rows, length), end, dtype=np.uint16)
    row, used = 0, 0
    while row < rows:
        for encoding in tokenizer.encode_batch(list(itertools.islice(texts, 1000)), add_special_tokens=False):
            ids = [*encoding.ids, end]
            kept = min(len(ids), length - used)
            filled[row, used : used + kept] = ids[:kept]
            used += kept
            if used == length:
                row, used = row + 1, 0
                if row == rows:
                    break
    return filled


class ShardMaker:
    """Makes shard number i in a worker process."""

    def __init__(self, config: PretrainConfig, tokenizer_json: str, rows: int):
        self.config, self.tokenizer_json, self.rows = config, tokenizer_json, rows

    def __call__(self, shard: int) -> np.ndarray:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        end = tokenizer.token_to_id(SPECIAL_TOKENS[0])
        assert end is not None
        return fill_rows(documents(self.config.seed, shard), tokenizer, self.rows, self.config.context_length, end)


def batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """One [rows_per_step, context_length] batch of token ids a step, in an order that the seed decides."""
    workers = config.workers or max(1, (os.cpu_count() or 2) - 1)
    make = ShardMaker(config, tokenizer.backend_tokenizer.to_str(), config.rows_per_step)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        # A window of pending shards, not imap over all: imap would fill the memory when text outruns training.
        shards = iter(range(config.max_steps))
        pending = [pool.apply_async(make, (shard,)) for shard in itertools.islice(shards, workers * 4)]
        while pending:
            rows = pending.pop(0).get()
            pending += [pool.apply_async(make, (shard,)) for shard in itertools.islice(shards, 1)]
            yield torch.from_numpy(rows.astype(np.int64))


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Warm-up, plateau, linear decay to zero, as a factor of the peak."""
    decay_steps = max(config.decay_share * config.max_steps, 1)
    return min((step + 1) / max(config.warmup_steps, 1), 1.0, (config.max_steps - step) / decay_steps)


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(config.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.context_length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    )


def build_optimizers(model: torch.nn.Module, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms (Jordan et al. 2024)."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> list[tuple[int, float]]:
    """Train in place; returns (step, loss in nats a token) every 100 steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizers = build_optimizers(model, config)
    curve, started = [], time.time()

    def compute_loss(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())

    if device.type == "cuda":
        compute_loss = torch.compile(compute_loss)
    for step, rows in enumerate(batches(config, tokenizer)):
        rows = rows.to(device, non_blocking=True)
        loss = compute_loss(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate(config, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == config.max_steps - 1:
            curve.append((step, loss.item()))
            rate = (step + 1) * rows.numel() / (time.time() - started)
            left = (time.time() - started) / (step + 1) * (config.max_steps - step - 1)
            print(
                f"step {step:5d}/{config.max_steps}  loss {loss.item():.4f}  {rate:,.0f} tokens/s  left {left:.0f} s",
                flush=True,
            )
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower learning_rate")
    return curve


def main(config: PretrainConfig) -> None:
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer else train_tokenizer(config)
    model = build_model(config, tokenizer)
    num_tokens = config.max_steps * config.rows_per_step * config.context_length
    print(
        f"{model.num_parameters():,} parameters, {num_tokens:,} tokens",
        flush=True,
    )
    train(model, tokenizer, config)
    output = Path(config.output_dir)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"saved to {output}", flush=True)


if __name__ == "__main__":
    from recipes.parser import parse

    main(*parse(PretrainConfig))
