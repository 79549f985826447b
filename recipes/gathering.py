"""Chains sampled from a model, and the folder of a data stage: what cold start and rejection sampling share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers.utils import logging as transformers_logging

from grpo.config import GROUP_TIMEOUT
from grpo.cpu import use_cores
from grpo.loading import check_context, check_tokenizer, encode_prompt, load_policy, load_tokenizer, stop_tokens
from grpo.rollouts import PromptStream
from grpo.sampling import Sampler, SamplingConfig
from recipes.chains import Chain, check_kept
from recipes.launch import num_launched
from recipes.progress import SamplingProgress
from recipes.run_folder import RunFolder
from rewards.texts import with_prefill


@dataclass(kw_only=True)
class SamplingSettings:
    """How chains are sampled. The paper's cold start and rejection sampling draw several responses a prompt."""

    samples: int = 4
    """Responses a prompt and model."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_completion_length: int = 512
    """Tokens; a longer response is dropped as unfinished."""
    max_sampling_rows: int = 256
    seed: int = 0
    cpu_threads: int | None = None
    """Threads of torch on a CPU; None takes the cores this process may use, at most 8."""
    model_init_kwargs: dict[str, Any] | None = None
    disable_dropout: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more responses a prompt, got {self.samples}")
        _ = self.sampling

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(max_new_tokens=self.max_completion_length, temperature=self.temperature, top_p=self.top_p)


def sample_chains(
    model_path: str, problems: Dataset, settings: SamplingSettings, source: str, stream: int = 0
) -> list[Chain]:
    """`samples` responses to every row's `prompt`, row by row; of several processes, each samples its share.

    A response depends on settings.seed, `stream` (another one gives other random numbers), its row and its number
    alone. Raises ValueError for a model or tokenizer that cannot be loaded, or prompts that leave no room.
    """
    tokenizer = load_tokenizer(model_path)
    check_tokenizer(tokenizer)
    model = load_policy(model_path, settings).to(_device())
    check_context(problems, tokenizer, model, settings.max_completion_length, f"the problem set for {source} chains")
    sampler = Sampler(model, stop_tokens(model, tokenizer), tokenizer.pad_token_id)
    draws = PromptStream(len(problems), settings.samples, settings.seed + 1_000_003 * stream, shuffle=False)
    seeds = [draw.seeds for draw in draws.draw(len(problems))]
    rank, ranks = _place()
    mine = list(range(rank, len(problems), ranks))
    rows = problems.select(mine)
    progress = SamplingProgress(f"{source} chains") if rank == 0 else None
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    groups = sampler.sample(
        prompts, [seeds[i] for i in mine], settings.sampling,
        settings.max_sampling_rows, progress,
    )  # fmt: skip
    chains = []
    for i, row, ids, group in zip(mine, rows, prompts, groups, strict=True):
        given = row["prompt"] if isinstance(row["prompt"], str) else tokenizer.decode(ids)
        for seed, completion in zip(seeds[i], group, strict=True):
            text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            chain = Chain(
                problem=row, text=with_prefill(row["prompt"], text), source=source, model=model_path, seed=seed,
                finished=not completion.truncated, prompt=given,
            )  # fmt: skip
            chains.append((i, chain))
    if ranks > 1:
        chains = sorted(gather_object(chains), key=lambda pair: pair[0])
    return [chain for _, chain in chains]


def prepare_process(settings: SamplingSettings) -> None:
    """Quiet libraries, and as many threads as there are cores to run them."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not torch.cuda.is_available() and num_launched() == 1:
        use_cores(settings.cpu_threads)


def is_main_process() -> bool:
    return _place()[0] == 0


def _place() -> tuple[int, int]:
    if num_launched() == 1:
        return 0, 1
    state = _group()
    return state.process_index, state.num_processes


def _group() -> PartialState:
    # Unless it is told of the CPU, each process without a GPU takes itself for the only one.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=GROUP_TIMEOUT))


def _device() -> torch.device | str:
    if num_launched() > 1:
        return _group().device
    return "cuda" if torch.cuda.is_available() else "cpu"


def write_stage(folder: str | Path, rows: Dataset, report: dict[str, Any], settings: Sequence[Any]) -> Path:
    """dataset/, filters.json and config.yaml of a data stage. An older dataset/ is replaced when the new one is whole.

    Returns the path of dataset/. Raises chains.NothingKeptError when the report says that nothing was kept: then
    filters.json says why, and there is no dataset/, an older one being kept as dataset.older/.
    """
    run = RunFolder(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_config(*settings)
    final, partial, older = (run.path / f"dataset{ending}" for ending in ("", ".partial", ".older"))
    shutil.rmtree(partial, ignore_errors=True)
    if report["kept"]:
        rows.save_to_disk(str(partial))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    elif final.exists():
        shutil.rmtree(older, ignore_errors=True)
        final.rename(older)
    (run.path / "filters.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    check_kept(report, "take a more able model, more samples or problems, or wider filters")
    return final
