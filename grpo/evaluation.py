"""The evaluation protocol of DeepSeek-R1: k samples a problem at temperature 0.6 and top-p 0.95 (arXiv:2501.12948v1,
section 3; README of DeepSeek-R1), greedy beside it.

pass@1 is the mean over the k samples, cons@k the majority vote, pass@k the chance that any of k is right; each with a
95 % interval over problems. What counts as right, as formatted and as the same answer is handed in (`Judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from grpo.loading import encode_prompt
from grpo.rollouts import PromptStream
from grpo.sampling import Completion, Sampler, SamplingConfig
from grpo.statistics import paired_gain_ci, summarize, summarize_by
from grpo.vllm import VLLMSampler

Reward = Callable[..., Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What completions are judged by. The rewards follow TRL's protocol."""

    correct: Reward
    """The right answer in the right place."""
    lenient: Reward
    """The right answer anywhere."""
    formatted: Reward
    answer_key: Callable[[str, dict[str, Any]], str | None]
    """(completion, row) -> what a vote counts: equal answers have equal keys; None for no answer."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """R1's settings. `k` samples a problem; R1 uses 4 to 64, by the size of the set."""

    k: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_completion_length: int = 512
    greedy: bool = True
    seed: int = 0

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(max_new_tokens=self.max_completion_length, temperature=self.temperature, top_p=self.top_p)


def evaluate_policy(
    sampler: Sampler | VLLMSampler,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    judge: Judge,
    protocol: Protocol,
    max_rows: int = 512,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Every problem with its k judged samples: the dicts of grpo.statistics.summarize, and `texts` and `greedy_text`.

    The same seed asks every policy with the same random numbers. Raises ValueError for k below 1.
    """
    if protocol.k < 1:
        raise ValueError(f"k must be 1 or more samples a problem, got {protocol.k}")
    rows = list(problems)
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    draws = PromptStream(len(rows), protocol.k, protocol.seed, shuffle=False).draw(len(rows))
    groups = sampler.sample(prompts, [draw.seeds for draw in draws], protocol.sampling, max_rows, on_progress)
    samples = [_judged(row, group, tokenizer, judge) for row, group in zip(rows, groups)]
    if protocol.greedy:
        config = SamplingConfig(max_new_tokens=protocol.max_completion_length, temperature=0)
        greedy = sampler.sample(prompts, [[0]] * len(rows), config, max_rows)
        for sample, row, group in zip(samples, rows, greedy):
            (text,) = _decode(tokenizer, group)
            sample["greedy_correct"] = _scores(judge.correct, row, [text])[0]
            sample["greedy_text"] = text
    return samples


def _judged(row: dict[str, Any], group: Sequence[Completion], tokenizer: Any, judge: Judge) -> dict[str, Any]:
    texts = _decode(tokenizer, group)
    return {
        **{key: row.get(key) for key in ("id", "task", "difficulty", "language")},
        "correct": _scores(judge.correct, row, texts),
        "lenient": _scores(judge.lenient, row, texts),
        "formatted": _scores(judge.formatted, row, texts),
        "answers": [judge.answer_key(text, row) for text in texts],
        "lengths": [len(completion.token_ids) for completion in group],
        "truncated": [completion.truncated for completion in group],
        "greedy_correct": None,
        "texts": texts,
    }


def _decode(tokenizer: Any, group: Sequence[Completion]) -> list[str]:
    return [tokenizer.decode(completion.token_ids, skip_special_tokens=True) for completion in group]


def _scores(reward: Reward, row: dict[str, Any], texts: Sequence[str]) -> list[bool]:
    columns = {key: [value] * len(texts) for key, value in row.items() if key not in ("prompt", "completion")}
    completions: list = list(texts)
    if isinstance(row["prompt"], list):
        completions = [[{"role": "assistant", "content": text}] for text in texts]
    return [score == 1.0 for score in reward([row["prompt"]] * len(texts), completions, **columns)]


def evaluation_report(
    samples: dict[str, list[dict[str, Any]]], protocol: Protocol, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """eval.json: {"base": samples, "trained": samples} -> overall, by task, difficulty and language; and the gain.

    Either side may be missing. "gain" compares the same problems pairwise.
    """
    report: dict[str, Any] = {"overall": {name: summarize(problems) for name, problems in samples.items()}}
    for title, column in (("tasks", "task"), ("difficulties", "difficulty"), ("languages", "language")):
        split: dict[str, dict[str, Any]] = {}
        for name, problems in samples.items():
            for value, summary in summarize_by(problems, column).items():
                split.setdefault(str(value), {})[name] = summary
        report[title] = split
    if {"base", "trained"} <= samples.keys():
        report["gain"] = gain(samples["base"], samples["trained"])
    report["protocol"] = {
        "k": protocol.k, "temperature": protocol.temperature, "top_p": protocol.top_p,
        "max_completion_length": protocol.max_completion_length, "seed": protocol.seed,
    } | (settings or {})  # fmt: skip
    return report


def gain(base: list[dict[str, Any]], trained: list[dict[str, Any]]) -> dict[str, Any]:
    """trained - base on the same problems, with paired 95 % intervals: strict and lenient pass@1.

    Raises ValueError when the problems differ.
    """
    ids = [[problem.get("id") for problem in side] for side in (base, trained)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"a gain compares the same problems in the same order, got {len(base)} and {len(trained)} with other ids; "
            "evaluate both models on one data set"
        )
    gains: dict[str, Any] = {}
    for field, name, interval in (("correct", "pass@1", "ci95"), ("lenient", "lenient_pass@1", "lenient_ci95")):
        before = [sum(p[field]) / len(p[field]) for p in base]
        after = [sum(p[field]) / len(p[field]) for p in trained]
        gains[name] = sum(after) / len(after) - sum(before) / len(before)
        gains[interval] = list(paired_gain_ci(before, after))
    return gains
