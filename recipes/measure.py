"""Measure a model by DeepSeek-R1's evaluation protocol (grpo.evaluation), on the micro world or any data set.

python -m recipes.measure --model_name_or_path runs/r1-zero/model --template r1_zero_short       (`make eval`)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from grpo.cpu import use_cores
from grpo.evaluation import Judge, Protocol, evaluate_policy, evaluation_report
from grpo.loading import check_context, check_tokenizer, load_policy, load_tokenizer, stop_tokens
from grpo.sampling import Sampler
from recipes.problem_sets import ProblemConfig, held_out_problems
from recipes.progress import SamplingProgress
from rewards import accuracy_reward, answer_key, format_reward, lenient_accuracy

JUDGE = Judge(correct=accuracy_reward, lenient=lenient_accuracy, formatted=format_reward, answer_key=answer_key)


@dataclass(kw_only=True)
class MeasureConfig:
    """What is measured, and how: R1's temperature 0.6 and top-p 0.95."""

    model_name_or_path: str
    k: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_completion_length: int = 220
    greedy: bool = True
    eval_seed: int = 0
    max_sampling_rows: int = 256
    output: str | None = None
    """A file for the numbers (JSON). They are printed all the same."""
    samples_output: str | None = None
    """A file for every completion with its verdicts (JSON lines)."""
    disable_dropout: bool = False
    model_init_kwargs: dict[str, Any] | None = None

    @property
    def protocol(self) -> Protocol:
        return Protocol(
            k=self.k, temperature=self.temperature, top_p=self.top_p,
            max_completion_length=self.max_completion_length, greedy=self.greedy, seed=self.eval_seed,
        )  # fmt: skip


def measure(
    config: MeasureConfig, problems: Dataset, on_progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """The judged samples of one model."""
    tokenizer = load_tokenizer(config.model_name_or_path)
    check_tokenizer(tokenizer)
    if not torch.cuda.is_available():
        use_cores()
    model = load_policy(config.model_name_or_path, config).to("cuda" if torch.cuda.is_available() else "cpu")
    check_context(problems, tokenizer, model, config.max_completion_length, "the evaluation set")
    sampler = Sampler(model, stop_tokens(model, tokenizer), tokenizer.pad_token_id)
    return evaluate_policy(sampler, tokenizer, problems, JUDGE, config.protocol, config.max_sampling_rows, on_progress)


def table(report: dict[str, Any]) -> str:
    """eval.json as a text table: a line a model and slice, percent with 95 % intervals."""
    lines = [f"{'':24}{'pass@1':>16}{'lenient':>16}{'cons@k':>8}{'pass@k':>8}{'format':>8}{'greedy':>8}{'length':>8}"]
    slices = [("overall", report["overall"])]
    for title in ("tasks", "languages", "difficulties"):
        slices += [
            (f"{title[:-1] if title != 'difficulties' else 'difficulty'} {name}", value)
            for name, value in report[title].items()
        ]
    for name, sides in slices:
        for side, s in sides.items():
            k = s["k"]
            label = name if len(sides) == 1 else f"{name} {side}"
            lines.append(
                f"{label[:24]:24}{_with_interval(s['pass@1'], s['ci95']):>16}"
                f"{_with_interval(s['lenient_pass@1'], s['lenient_ci95']):>16}"
                f"{100 * s[f'cons@{k}']:8.1f}{100 * s[f'pass@{k}']:8.1f}{100 * s['format']:8.1f}"
                f"{'–' if s['greedy'] is None else format(100 * s['greedy'], '.1f'):>8}{s['mean_length']:8.0f}"
            )
    return "\n".join(lines)


def _with_interval(share: float, interval: list[float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.0f}–{100 * interval[1]:.0f}]"


def main(config: MeasureConfig, problem_config: ProblemConfig) -> None:
    problems = held_out_problems(problem_config)
    if problems is None:
        raise SystemExit("error: nothing to measure on: set eval_dataset to a Hub name or path, and test_size above 0")
    for path in filter(None, (config.output, config.samples_output)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # now, and not when the numbers are there
    samples = measure(config, problems, SamplingProgress())
    report = evaluation_report({"base": samples}, config.protocol, {"model": config.model_name_or_path})
    print(table(report))
    if config.output:
        Path(config.output).write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    if config.samples_output:
        with Path(config.samples_output).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


if __name__ == "__main__":
    from recipes.parser import parse, reported

    with reported():
        main(*parse(MeasureConfig, ProblemConfig))
