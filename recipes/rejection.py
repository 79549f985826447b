"""The SFT data of R1's third stage: correct chains of the RL checkpoint, blended with general data.

    python -m recipes rejection --config recipes/micro/rejection.yaml

Source: DeepSeek-R1 (arXiv:2501.12948v1) section 2.3.3: several responses a prompt, only correct ones kept, chains with
mixed language, long paragraphs and code blocks dropped, ~600k of them; with ~200k samples of general data, so 3:1.
Writes dataset/ (reasoning and general rows, shuffled, each with its provenance), filters.json and config.yaml. A stage
that was killed begins again: its seed gives the same rows.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from data.drops import collected_drops
from data.general_sets import load_answers
from data.sources import open_source
from recipes.chains import (
    SAMPLING,
    FilterConfig,
    chain_filters,
    filter_table,
    run_filters,
    sft_features,
    sft_rows,
    with_reading,
)
from recipes.gathering import SamplingSettings, is_main_process, prepare_process, sample_chains, write_stage
from recipes.problem_sets import ProblemConfig, drop_held_out, training_problems
from recipes.sft import load_rows
from rewards.language import label_language

logger = logging.getLogger(__name__)

MICRO_GENERAL = "data.general:make_general_sft"


@dataclass(kw_only=True)
class RejectionConfig:
    """What is sampled from, and what is blended in."""

    model_name_or_path: str
    output_dir: str = "runs/rejection"
    general: str | None = None
    """General rows: SFT rows at a path (docs/stages.md lists the columns), `package.module:function` that is called
    with (split, size, seed=…), `micro` for the generated ones, or a file, folder or Hub name of another set with
    requests and their answers (data.general_sets); None for reasoning rows alone."""
    general_where: dict[str, list[str]] | None = None
    """Of such a set only the rows with one of these values in that column: {"source": ["no_robots", …]}."""
    reasoning_to_general: float = 3.0
    """Reasoning rows a general row. R1: about 600,000 to 200,000."""

    def __post_init__(self) -> None:
        if not self.reasoning_to_general > 0:
            raise ValueError(
                f"reasoning_to_general must be above 0, got {self.reasoning_to_general}; R1 has 3, and general: null "
                "leaves general rows out"
            )


def main(config: RejectionConfig, problems: ProblemConfig, sampling: SamplingSettings, filters: FilterConfig) -> None:
    prepare_process(sampling)
    rows, report = gather(config, problems, sampling, filters)
    if is_main_process():
        path = write_stage(config.output_dir, rows, report, (config, problems, sampling, filters))
        print(f"{len(rows):,} rows, {report['general']:,} of them general: {path}")


def gather(
    config: RejectionConfig, problem_config: ProblemConfig, sampling: SamplingSettings, filters: FilterConfig
) -> tuple[Dataset, dict[str, Any]]:
    """The rows of the SFT set, and the report of the filters, whose counts hold the general rows too ("general").

    No chain may pass the filters: then there are no rows, and the report says why.
    """
    if config.general is not None:
        general_rows(
            config.general, 1, sampling.seed, config.general_where
        )  # whatever is wrong with it, before time is spent
    problems, validation = training_problems(problem_config)
    chains = sample_chains(config.model_name_or_path, problems, sampling, "rejection", stream=3)
    if not is_main_process():
        return sft_rows([], filters), {}
    kept, report = run_filters(chains, chain_filters(filters))
    print(filter_table(report))
    reasoning = sft_rows(kept, filters, problem_config.system_prompt)
    if config.general is None or not kept:
        return reasoning, with_general(report, 0)
    wanted = max(1, round(len(reasoning) / config.reasoning_to_general))
    with collected_drops() as read:
        general = general_rows(config.general, wanted, sampling.seed, config.general_where)
        general = drop_held_out(general, config.general, problem_config, validation)
    report = with_reading(with_general(report, len(general)), read, "general")
    return blend(reasoning, general, sampling.seed), report


def with_general(report: dict[str, Any], number: int) -> dict[str, Any]:
    """The filters' report with that many general rows among those that came and stayed."""
    counts = {"seen": number, "kept": number}
    whole = {name: report[name] + count for name, count in counts.items()}
    return report | whole | {"general": number, "sources": report["sources"] | {"general": counts}}


def general_rows(source: str, size: int, seed: int, where: dict[str, list[str]] | None = None) -> Dataset:
    """`size` general rows, or all there are if a set has fewer. ValueError for a source that is none, or whose rows
    lack a column."""
    source = MICRO_GENERAL if source == "micro" else source
    if ":" in source:
        rows = _function(source)("train", size, seed=seed)
    elif _holds_sft_rows(source):
        rows = load_rows(source).shuffle(seed=seed)
    else:
        rows = load_answers(source, where=where, limit=size, seed=seed, guess=label_language)
    if len(rows) == 0:
        raise ValueError(f"{source} gave no general rows; general: null leaves them out")
    if len(rows) < size:
        logger.warning("%s has %d general rows where the blend asks for %d: it takes all", source, len(rows), size)
    rows = rows.select(range(min(size, len(rows))))
    features = sft_features()
    for name in SAMPLING:
        if name not in rows.column_names:
            rows = rows.add_column(name, [""] * len(rows))
    if missing := set(features) - set(rows.column_names):
        raise ValueError(
            f"the general rows of {source} lack the column(s) {', '.join(sorted(missing))}; SFT rows have "
            f"{', '.join(features)}"
        )
    return rows.select_columns(list(features)).cast(features)


def _holds_sft_rows(source: str) -> bool:
    """Whether a path holds rows as data stages write them, or is meant as one and does not exist."""
    if not Path(source).exists():
        return source.startswith((".", "/", "~")) or source.count("/") > 1
    try:
        return {"prompt", "completion", "kind"} <= set(open_source(source, split="train")[0].column_names)
    except IndexError:  # what datasets makes of a set that was saved without rows
        return True


def _function(name: str) -> Callable[..., Dataset]:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"general: {name!r} names no function that can be imported: {error}") from error


def blend(reasoning: Dataset, general: Dataset, seed: int) -> Dataset:
    """Both, shuffled, so that every part of an epoch has its share of either."""
    return concatenate_datasets([reasoning, general]).shuffle(seed=seed).flatten_indices()


def settings(argv: list[str]) -> tuple:
    from recipes.parser import parse

    return parse(RejectionConfig, ProblemConfig, SamplingSettings, FilterConfig, args=argv)


if __name__ == "__main__":
    from recipes.parser import reported

    with reported():
        main(*settings(sys.argv[1:]))
