"""Cold-start data: long chains of thought for the first SFT, gathered as DeepSeek-R1 did and filtered by rule.

    python -m recipes cold_start --config recipes/micro/cold_start.yaml       (`make cold-start` goes on with SFT)

Source: arXiv:2501.12948v1 section 2.3.1: few-shot prompting with a long chain as an example, R1-Zero's own outputs in a
readable form, and here an optional set from elsewhere. Writes dataset/ (a row a chain, with its provenance),
filters.json (what each filter dropped) and config.yaml. A stage that was killed begins again: its seed gives the same
rows.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from data.corpus.solutions import worked_example
from data.drops import collected_drops
from data.problems import LANGUAGES, content_hash
from data.templates import render_prompt, render_prompts
from grpo.loading import encode_prompt, load_tokenizer
from recipes.chains import (
    Chain,
    FilterConfig,
    chain_filters,
    filter_table,
    run_filters,
    sft_rows,
    with_reading,
)
from recipes.gathering import SamplingSettings, is_main_process, prepare_process, sample_chains, write_stage
from recipes.problem_sets import ProblemConfig, training_problems, without_held_out
from rewards.language import label_language

logger = logging.getLogger(__name__)

EASY = 2
"""Difficulty of the micro world's examples at most: harder ones are too long for a short context."""


@dataclass(kw_only=True)
class ColdStartConfig:
    """Where the chains come from. Each of the three sources may be left out."""

    output_dir: str = "runs/cold-start/data"
    model_name_or_path: str | None = None
    """The base, prompted with examples; None for no few-shot chains."""
    shots: int = 1
    """Examples in a prompt at most; one that leaves no room is left out. 0 prompts directly."""
    examples: str | None = None
    """Examples for problems of another world than micro: a set of rows problem, reasoning, answer (data.chains)."""
    open_reasoning: bool = True
    """Let the few-shot prompt end with `<think>`, as its examples begin."""
    r1_zero_model: str | None = None
    """A model that was trained by R1-Zero; None for none of its chains."""
    r1_zero_template: str = "r1_zero_short"
    r1_zero_samples: int | None = None
    """Responses a prompt of R1-Zero; None for `samples`. It ends its texts, so they cost less than the base's."""
    external: str | None = None
    """A set of chains from elsewhere: a Hub name or path of rows problem, reasoning, answer (data.chains)."""
    external_size: int | None = None

    def __post_init__(self) -> None:
        if not (self.model_name_or_path or self.r1_zero_model or self.external):
            raise ValueError("no source of chains: set model_name_or_path, r1_zero_model or external")
        if self.shots < 0:
            raise ValueError(f"shots must be 0 (prompt directly) or more, got {self.shots}")


def main(config: ColdStartConfig, problems: ProblemConfig, sampling: SamplingSettings, filters: FilterConfig) -> None:
    prepare_process(sampling)
    rows, report = gather(config, problems, sampling, filters)
    if is_main_process():
        path = write_stage(config.output_dir, rows, report, (config, problems, sampling, filters))
        print(f"{len(rows):,} chains: {path}")


def gather(
    config: ColdStartConfig, problem_config: ProblemConfig, sampling: SamplingSettings, filters: FilterConfig
) -> tuple[Dataset, dict[str, Any]]:
    """The rows of the cold-start set, and the report of its filters, with counts for each source ("sources").

    No chain may pass the filters: then there are no rows, and the report says why.
    """
    problems, validation = training_problems(problem_config)
    chains: list[Chain] = []
    if config.model_name_or_path:
        prompts = few_shot_prompts(problems, config, problem_config.template, sampling)
        chains += sample_chains(config.model_name_or_path, prompts, sampling, "few-shot", stream=1)
    if config.r1_zero_model:
        prompts = render_prompts(problems, config.r1_zero_template)
        more = replace(sampling, samples=config.r1_zero_samples or sampling.samples)
        chains += sample_chains(config.r1_zero_model, prompts, more, "r1-zero", stream=2)
    with collected_drops() as read:
        if config.external:
            chains += external_chains(config.external, config.external_size, problem_config, validation)
    if not is_main_process():
        return sft_rows([], filters), {}
    kept, report = run_filters(chains, chain_filters(filters))
    if config.external:
        report = with_reading(report, read, "external")
    print(filter_table(report))
    return sft_rows(kept, filters, problem_config.system_prompt), report


# --- few-shot prompting -----------------------------------------------------------------------------------------------

Example = tuple[str, str, str]
"""(problem, reasoning, answer)"""


def few_shot_prompts(problems: Dataset, config: ColdStartConfig, template: str, sampling: SamplingSettings) -> Dataset:
    """The problems with prompts that show worked examples first, of the same kind and language in the micro world.

    Raises ValueError where examples are asked for and the problems are not the micro world's and bring none.
    """
    assert config.model_name_or_path is not None
    tokenizer = load_tokenizer(config.model_name_or_path)
    limit = tokenizer.model_max_length - sampling.max_completion_length
    pool = _load_examples(config.examples) if config.examples and config.shots else None
    prompts = []
    for number, row in enumerate(problems):
        rng = random.Random(f"few-shot-{sampling.seed}-{number}")
        examples = choose_examples(row, config.shots, rng, pool)
        prompts.append(few_shot_prompt(row["problem"], examples, template, config.open_reasoning, tokenizer, limit))
    return problems.remove_columns("prompt").add_column("prompt", prompts)


def choose_examples(row: dict[str, Any], shots: int, rng: random.Random, pool: Sequence[Example] | None) -> list:
    """Examples for one problem, none of which is the problem itself."""
    if shots == 0:
        return []
    if pool is not None:
        others = [example for example in pool if example[0] != row["problem"]]
        return rng.sample(others, min(shots, len(others)))
    from data.tasks import TASKS

    if row["task"] not in TASKS:
        raise ValueError(
            f"few-shot prompting needs examples for problems of task {row['task']!r}: set `examples` to a set of rows "
            "problem, reasoning, answer, or `shots: 0`"
        )
    level = min(row["difficulty"] or EASY, EASY)
    language = row["language"] if row["language"] in LANGUAGES else "en"
    examples = [worked_example(row["task"], level, language, rng) for _ in range(shots)]
    return [example for example in examples if example[0] != row["problem"]]


def few_shot_prompt(
    problem: str,
    examples: Sequence[Example],
    template: str,
    open_reasoning: bool,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> str:
    """Examples and problem under a plain-text template; examples are left out until it has at most `limit` tokens."""
    end = " <think>" if open_reasoning else ""
    for first in range(len(examples) + 1):
        shown = [
            f"{render_prompt(question, template)} <think> {reasoning} </think>\n<answer> {answer} </answer>\n"
            for question, reasoning, answer in examples[first:]
        ]
        prompt = "".join(shown) + render_prompt(problem, template) + end
        if len(encode_prompt(tokenizer, prompt)) <= limit:
            break
    return prompt


def _load_examples(source: str) -> list[Example]:
    from data.chains import load_chains

    return [(row["problem"], row["reasoning"], row["answer"]) for row in load_chains(source)]


# --- chains from elsewhere --------------------------------------------------------------------------------------------


def external_chains(
    source: str, size: int | None = None, problems: ProblemConfig | None = None, validation: Dataset | None = None
) -> list[Chain]:
    """Chains of another data set, as if a model had written them: they pass the same filters. Its answer is the gold
    one. What the chain itself answers stands in its summary, or in the reasoning's last box where the set keeps none.
    Chains of problems that `problems` measures on are dropped, as its own training problems are, and so are those of
    its `validation` problems.
    """
    from data.chains import load_chains
    from data.values import last_boxed

    rows = load_chains(source, limit=size, guess=label_language)
    if problems is not None:
        rows = without_held_out(rows, source, problems, validation)
    chains = []
    for row in rows:
        identity = f"external-{content_hash('external', row['problem'])}"
        final = row.get("summary") or f"<answer>{last_boxed(row['reasoning']) or ''}</answer>"
        chains.append(
            Chain(
                problem={"task": "math", "numbers": []} | row | {"id": identity},
                text=f"<think>\n{row['reasoning']}\n</think>\n{final}",
                source="external",
                model=source,
            )
        )
    return chains


def settings(argv: list[str]) -> tuple:
    from recipes.parser import parse

    return parse(ColdStartConfig, ProblemConfig, SamplingSettings, FilterConfig, args=argv)


if __name__ == "__main__":
    from recipes.parser import reported

    with reported():
        main(*settings(sys.argv[1:]))
