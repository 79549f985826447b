"""One row of the table of stages: how a model reasons, in what form and language, how helpful and how harmless it is.

    python -m recipes scorecard --config recipes/micro/scorecard.yaml --model_name_or_path runs/r1/sft/model

Reasoning is measured by DeepSeek-R1's protocol (grpo.evaluation) on held-out problems. Helpfulness and harmlessness are
judged by the rules of the generators (rewards.general), on request families that no stage trains on, never by a reward
model. `scorecard.json` keeps every verdict by problem, so that stages can be compared pairwise (recipes.stages_report).
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets, load_from_disk

from data.general import make_general_prompts
from data.templates import render_prompts
from grpo.cpu import use_cores
from grpo.evaluation import Protocol, evaluate_policy
from grpo.loading import check_context, check_tokenizer, encode_prompt, load_policy, load_tokenizer, stop_tokens
from grpo.rollouts import PromptStream
from grpo.sampling import Sampler, SamplingConfig
from recipes.measure import JUDGE
from recipes.problem_sets import ProblemConfig, held_out_problems
from recipes.progress import SamplingProgress
from recipes.stage import StageContext, StageResult, checks, declare
from rewards.general import harmless_by_rule, helpful_by_rule
from rewards.language import language_reward

FILE = "scorecard.json"
RULES: dict[str, Callable[..., list[float | None]]] = {"helpfulness": helpful_by_rule, "harmlessness": harmless_by_rule}


@dataclass(kw_only=True)
class ScorecardConfig:
    """What is measured of one model. Its template is ProblemConfig's, for problems and requests alike."""

    model_name_or_path: str = ""
    label: str = ""
    """The stage's name in the table: base, R1-Zero, Dev1, …; empty takes the model's folder."""
    k: int = 8
    """Samples a problem, at R1's temperature 0.6 and top-p 0.95."""
    max_completion_length: int = 200
    requests: str | None = "micro"
    """Requests with a rule each: `micro`, a folder of save_to_disk with the columns of data.general, or none."""
    helpful_prompts: int = 1000
    harmful_prompts: int = 1000
    """Held-out requests that have a helpful answer, and that should be refused."""
    general_samples: int = 4
    general_max_length: int = 96
    """Tokens of an answer to a request."""
    eval_seed: int = 0
    """Every model is asked with the same random numbers."""
    shown: int = 24
    """Problems and requests whose first sample is kept to be read."""
    max_sampling_rows: int = 256
    cpu_threads: int | None = None
    disable_dropout: bool = False
    model_init_kwargs: dict[str, Any] | None = None
    output_dir: str = "runs/scorecard"

    def __post_init__(self) -> None:
        for name in ("k", "general_samples", "max_completion_length", "general_max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")

    @property
    def protocol(self) -> Protocol:
        return Protocol(k=self.k, max_completion_length=self.max_completion_length, greedy=False, seed=self.eval_seed)


def measured(config: ScorecardConfig, problem_config: ProblemConfig) -> dict[str, Any]:
    """The scorecard of one model: `reasoning` a dict a problem, `general` a dict a request, and what is shown.

    Raises ValueError when there is nothing to measure on.
    """
    problems = held_out_problems(problem_config)
    requests = general_requests(config, problem_config)
    if problems is None and requests is None:
        raise ValueError("there is nothing to measure on: set test_size above 0, eval_dataset, or requests")
    tokenizer = load_tokenizer(config.model_name_or_path)
    check_tokenizer(tokenizer)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        use_cores(config.cpu_threads)
    model = load_policy(config.model_name_or_path, config).to("cuda" if on_gpu else "cpu")
    sampler = Sampler(model, stop_tokens(model, tokenizer), tokenizer.pad_token_id)
    card: dict[str, Any] = {"label": config.label or Path(config.model_name_or_path).name, "k": config.k}
    if problems is not None:
        check_context(problems, tokenizer, model, config.max_completion_length, "the held-out problems")
        samples = evaluate_policy(
            sampler, tokenizer, problems, JUDGE, config.protocol, config.max_sampling_rows, SamplingProgress()
        )
        card["reasoning"] = [reasoning_row(row, sample) for row, sample in zip(problems, samples)]
        card["shown_problems"] = [
            {"problem": row["problem"], "answer": row.get("answer"), "text": sample["texts"][0]}
            | {"correct": bool(sample["correct"][0])}
            for row, sample in list(zip(problems, samples))[: config.shown]
        ]
    if requests is not None:
        check_context(requests, tokenizer, model, config.general_max_length, "the requests")
        texts, lengths = answers(sampler, tokenizer, requests, config)
        card["general"] = [general_row(row, *given) for row, given in zip(requests, zip(texts, lengths))]
        card["shown_requests"] = [
            {"problem": row["problem"], "kind": row["kind"], "text": given[0], "passed": judged["passed"][0]}
            for row, given, judged in list(zip(requests, texts, card["general"]))[: config.shown]
        ]
    return card


def general_requests(config: ScorecardConfig, problem_config: ProblemConfig) -> Dataset | None:
    """Held-out requests with prompts: those with a helpful answer, then those to refuse; None for none."""
    if not config.requests:
        return None
    if config.requests == "micro":
        if not config.helpful_prompts + config.harmful_prompts:
            return None
        parts = [
            make_general_prompts("test", size, seed=config.eval_seed, kinds=kinds, languages=problem_config.languages)
            for size, kinds in (
                (config.helpful_prompts, ("instruction", "benign")),
                (config.harmful_prompts, ("harmful",)),
            )
            if size
        ]
        requests = concatenate_datasets(parts).shuffle(seed=config.eval_seed)
    else:
        requests = checked_requests(load_from_disk(config.requests), config.requests)
    return render_prompts(requests, problem_config.template, system=problem_config.system_prompt)


def checked_requests(requests: Dataset, source: str) -> Dataset:
    """Raises ValueError for requests that no rule could judge, before anything is sampled."""
    if missing := {"problem", "kind", "family", "language", "check", "harmful", "id"} - set(requests.column_names):
        raise ValueError(
            f"the requests of {source} lack the column(s) {', '.join(sorted(missing))}, they have "
            f"{', '.join(requests.column_names)}; data.general.make_general_prompts says what each holds"
        )
    if without := [row["problem"] for row in requests if not row["harmful"] and not row["check"]]:
        raise ValueError(
            f"{len(without)} requests of {source} are not harmful and have no rule in `check`, so no answer to them "
            f"could be right; the first: {without[0]!r:.200}"
        )
    return requests


def answers(
    sampler: Sampler, tokenizer: Any, requests: Dataset, config: ScorecardConfig
) -> tuple[list[list[str]], list[list[int]]]:
    """`general_samples` answers to each request: their texts, and their lengths in tokens."""
    prompts = [encode_prompt(tokenizer, prompt) for prompt in requests["prompt"]]
    draws = PromptStream(len(prompts), config.general_samples, config.eval_seed, shuffle=False).draw(len(prompts))
    protocol = config.protocol
    sampling = SamplingConfig(
        max_new_tokens=config.general_max_length, temperature=protocol.temperature, top_p=protocol.top_p
    )
    seeds = [draw.seeds for draw in draws]
    groups = sampler.sample(prompts, seeds, sampling, config.max_sampling_rows, SamplingProgress())
    texts = [[tokenizer.decode(c.token_ids, skip_special_tokens=True) for c in group] for group in groups]
    return texts, [[len(c.token_ids) for c in group] for group in groups]


def reasoning_row(row: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    texts = sample["texts"]
    columns = {name: [row.get(name)] * len(texts) for name in ("language", "problem")}
    shares = language_reward([row["prompt"]] * len(texts), texts, **columns)
    return {key: sample[key] for key in ("id", "task", "language", "correct", "formatted", "lengths")} | {
        "consistent": shares
    }


def general_row(row: dict[str, Any], texts: Sequence[str], lengths: Sequence[int]) -> dict[str, Any]:
    """A request's verdicts: on its helpfulness where it has a helpful answer, else on its harmlessness."""
    what = "harmlessness" if row["harmful"] else "helpfulness"
    columns = {name: [row[name]] * len(texts) for name in ("check", "kind", "harmful", "problem")}
    passed = RULES[what]([row["prompt"]] * len(texts), list(texts), **columns)
    return {key: row[key] for key in ("id", "kind", "family", "language")} | {
        "judged": what,
        "passed": [bool(verdict) for verdict in passed],
        "lengths": list(lengths),
    }


@declare(outputs=(FILE,), check=checks(ScorecardConfig, ProblemConfig), replaced={"model": ("model_name_or_path",)})
def stage(context: StageContext) -> StageResult:
    """Measures the input `model`, or the setting `model_name_or_path`."""
    given = {"model_name_or_path": str(context.input("model"))} if "model" in context.inputs else {}
    config, problems = context.parse(ScorecardConfig, ProblemConfig, output_dir=str(context.folder), **given)
    if not context.is_main_process:  # one process measures, and the others wait for the stage's end
        return StageResult()
    write(measured(config, problems), context.folder)
    return StageResult(metrics=headline(json.loads((context.folder / FILE).read_text(encoding="utf-8"))))


def headline(card: dict[str, Any]) -> dict[str, float]:
    """The numbers that say most, as shares: means over problems."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    numbers = {}
    for name, field in (("reasoning", "correct"), ("format", "formatted"), ("language_consistency", "consistent")):
        values = [
            mean(known) for row in card.get("reasoning", ()) if (known := [v for v in row[field] if v is not None])
        ]
        if values:
            numbers[name] = mean(values)
    for name in RULES:
        if values := [mean(row["passed"]) for row in card.get("general", ()) if row["judged"] == name]:
            numbers[name] = mean(values)
    return numbers


def write(card: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(card, ensure_ascii=False), encoding="utf-8")
    partial.replace(folder / FILE)


def main(config: ScorecardConfig, problem_config: ProblemConfig) -> None:
    if not config.model_name_or_path:
        raise SystemExit("error: which model? set model_name_or_path to a folder or a Hub name")
    started = time.monotonic()
    card = measured(config, problem_config)
    write(card, Path(config.output_dir))
    for name, value in headline(card).items():
        print(f"{name:22}{100 * value:6.1f} %")
    print(f"{config.output_dir}/{FILE}, {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    from recipes.parser import parse, reported

    with reported():
        main(*parse(ScorecardConfig, ProblemConfig))
