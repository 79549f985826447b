"""Learned rewards for general prompts: helpfulness and harmlessness, each judged by a reward model, and both together.

Source: DeepSeek-R1 (arXiv:2501.12948v1) section 2.3.4: helpfulness is judged on the final summary only, so that the
reasoning is left alone; harmlessness on the whole response. The preference reward comes in the last 400 of 1,700 steps
(v2), because a learned reward gets hacked: recipes.hacking_alarm watches for that.

A reward model is a folder as `python -m recipes reward_models` writes it: a transformers sequence classifier with one
output, its tokenizer, and reward.json, which says what it reads and how its score becomes a value. Nothing is loaded
before the first completion that it judges; reward.json and the headers of the weights are read when the reward is made.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewards.format import final_summary
from rewards.language import question_of
from rewards.scoring import RewardError
from rewards.texts import message_text, with_prefill

logger = logging.getLogger(__name__)

HELPFUL_KINDS = ("instruction", "benign")
HARMLESS_KINDS = ("instruction", "benign", "harmful")
"""Values of the column `kind` that each model judges. What is helpful in a harmful request is no question for a model
that never saw one; reasoning has its rules."""

INFO_FILE = "reward.json"
SCALES = ("normalised", "probability")
AGAIN = "train the {} model again (python -m recipes reward_models), or name another folder"
MAX_TOKENS = 16_384
"""Tokens that a scoring batch holds, padding included."""

_TAG = re.compile("</?(?:think|answer)>")


# --- what is judged ---------------------------------------------------------------------------------------------------


def whole_response(text: str) -> str:
    """Reasoning and summary, without the tags, which say nothing about harm and which a model may never have seen.

    >>> whole_response("<think>They ask who I am.</think><answer>A small assistant.</answer>")
    'They ask who I am.\\nA small assistant.'
    """
    parts = (part.strip() for part in _TAG.split(text))
    return "\n".join(part for part in parts if part)


READERS: dict[str, Callable[[str], str]] = {"final_summary": final_summary, "whole_response": whole_response}


# --- the models -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardInfo:
    """reward.json: how a reward model is to be used."""

    judges: str
    """"helpful" or "harmless"."""
    reads: str
    """"final_summary" or "whole_response": READERS."""
    scale: str = "normalised"
    """"probability": the score is the logit of being safe. "normalised": its unit is found in `mean` and `std`."""
    mean: float = 0.0
    std: float = 1.0
    """Of the scores of good held-out answers."""
    base: str = ""

    def value(self, score: float) -> float:
        """A score as a value in 0..1; a normalised 0.5 is as good as the mean good answer of the held-out set.

        Bounded on both sides, so that no single answer is worth more than a right one, however high its score.

        >>> RewardInfo("helpful", "final_summary", mean=3.0, std=2.0).value(3.0)
        0.5
        """
        z = score if self.scale == "probability" else (score - self.mean) / max(self.std, 1e-6)
        return 1 / (1 + math.exp(-z)) if z > -700 else 0.0

    @classmethod
    def read(cls, folder: str | Path, part: str) -> RewardInfo:
        """Of a model's folder. Raises ValueError for a folder that is none, a file that cannot be used, or a model that
        judges something else."""
        path = Path(folder).expanduser()
        if not (path / INFO_FILE).is_file():
            what = "has no" if path.is_dir() else "does not exist, so there is no"
            raise ValueError(
                f"the {part} model {str(folder)!r} {what} {INFO_FILE}; give the folder {part}/ of a finished "
                "`python -m recipes reward_models` run"
            )
        try:
            content = json.loads((path / INFO_FILE).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not {"judges", "reads"} <= content.keys():
                raise ValueError(f"expected a mapping that says what it judges and reads, got {content!r:.80}")
            info = cls(**{name: content[name] for name in cls.__dataclass_fields__ if name in content})
            info.check_scale()
        except (OSError, ValueError) as error:
            raise ValueError(f"{path / INFO_FILE} cannot be used: {error}; {AGAIN.format(part)}") from error
        if info.judges != part or info.reads not in list(READERS):
            raise ValueError(
                f"{path / INFO_FILE} says that the model judges {info.judges!r} and reads {info.reads!r}; the {part} "
                f"reward needs one that judges {part!r} and reads one of {', '.join(READERS)}"
            )
        return info

    def check_scale(self) -> None:
        """Raises ValueError for numbers that would turn every score into the same value, or into none."""
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.scale == "normalised" and self.std <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")

    def write(self, folder: Path, **more: Any) -> None:
        (folder / INFO_FILE).write_text(json.dumps(asdict(self) | more, indent=1), encoding="utf-8")


def check_weights(folder: str | Path, part: str) -> None:
    """Raises ValueError for a model's folder without weights, or with some that are cut short: only the headers of the
    .safetensors files are read, so a run knows before its first step what it will need in its last ones."""
    from safetensors import SafetensorError, safe_open

    path = Path(folder).expanduser()
    file = path / "model.safetensors.index.json"
    try:
        shards = dict(json.loads(file.read_text(encoding="utf-8"))["weight_map"]) if file.is_file() else {}
        files = sorted({*path.glob("*.safetensors"), *(path / name for name in shards.values())})
        for file in files:
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be used: {error}; {AGAIN.format(part)}") from error
    if not files and not any(path.glob("*.bin")):
        raise ValueError(f"the {part} model {path} has no weights, such as model.safetensors; {AGAIN.format(part)}")


class RewardModel:
    """Scores conversations. torch and transformers load with it; `device` None takes the trainer's, else the best.

    Between two calls the weights wait in the host's memory: an update needs the device's, where two models of 8B would
    take 30 GB.
    """

    def __init__(self, folder: str | Path, device: str | None = None, max_tokens: int = MAX_TOKENS):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.folder, self.max_tokens = str(folder), max_tokens
        self.device = torch.device(device) if device else _trainer_device()
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
        if self.model.config.num_labels != 1:
            raise ValueError(f"the reward model {folder} gives {self.model.config.num_labels} scores; it must give one")
        self.model.eval().requires_grad_(False)
        config = self.model.config.get_text_config()
        if config.pad_token_id is None:
            config.pad_token_id = pad_token_id(self.tokenizer)
        self.pad = config.pad_token_id
        self.turn = threading.Lock()
        self.context = getattr(config, "max_position_embeddings", None)

    def scores(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
        """One score a conversation, in order; equal ones are computed once.

        One that is longer than the model's context loses its beginning: the score is read at the end.
        """
        import torch

        rows = [
            encode_conversation(self.tokenizer, conversation)[-(self.context or 0) :] for conversation in conversations
        ]
        found: dict[tuple[int, ...], float] = {}
        with self.on_device():
            for batch in token_batches(sorted({tuple(row) for row in rows}, key=len), self.max_tokens):
                width = len(batch[-1])
                # On the right, where no real token sees it and positions stay as they are.
                ids = torch.tensor([[*row, *[self.pad] * (width - len(row))] for row in batch], device=self.device)
                mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=self.device)
                with torch.inference_mode():
                    logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                found |= zip(batch, logits.flatten().float().tolist())
        return [found[tuple(row)] for row in rows]

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        with self.turn:  # rewards are computed in threads
            self.model.to(self.device)
            try:
                yield
            finally:
                self.model.to("cpu")


def encode_conversation(tokenizer: Any, conversation: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token ids of a whole conversation, the last turn's end included; training and scoring both read this.

    Raises ValueError for a tokenizer without a chat template.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template, so prompt and response cannot be told "
            "apart; set tokenizer.chat_template and save the tokenizer with the model"
        )
    return tokenizer.apply_chat_template(list(conversation), tokenize=True, return_dict=True)["input_ids"]


def pad_token_id(tokenizer: Any) -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def token_batches(rows: Sequence[tuple[int, ...]], max_tokens: int) -> list[list[tuple[int, ...]]]:
    """Rows, shortest first, in batches of at most max_tokens with their padding; a longer row is a batch of its own.

    >>> [len(batch) for batch in token_batches([(1,), (1, 2), (1, 2, 3), (1, 2, 3)], max_tokens=6)]
    [2, 2]
    """
    batches: list[list[tuple[int, ...]]] = []
    for row in rows:
        if batches and (len(batches[-1]) + 1) * len(row) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _trainer_device() -> Any:
    """Where the trainer computes, if one was made in this process; else the accelerator, else the CPU."""
    import torch
    from accelerate import PartialState

    if PartialState._shared_state:  # made without asking: PartialState() would form a group of processes
        return PartialState().device
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@functools.lru_cache(maxsize=4)
def load_reward_model(folder: str, device: str | None = None, max_tokens: int = MAX_TOKENS) -> RewardModel:
    """One copy a process, whichever rewards ask for it."""
    return RewardModel(folder, device, max_tokens)


# --- when -------------------------------------------------------------------------------------------------------------


def first_step(from_step: int | None, last_share: float | None, max_steps: int) -> int:
    """The first update, counted from 0, that general prompts and their reward take part in. R1: 1,300 of 1,700.

    Raises ValueError when both are given, one is out of range, or a share is asked of a run of unknown length.

    >>> first_step(None, 400 / 1700, 1700), first_step(90, None, 120), first_step(None, None, 120)
    (1300, 90, 0)
    """
    if from_step is not None and last_share is not None:
        raise ValueError(
            f"give from_step ({from_step}) or last_share ({last_share}), not both: each says when it begins"
        )
    if from_step is not None and from_step < 0:
        raise ValueError(f"from_step counts updates from 0 on, got {from_step}")
    if last_share is None:
        return from_step or 0
    if not 0 < last_share <= 1:
        raise ValueError(f"last_share is the last part of a run and lies in (0, 1], got {last_share}; R1: 400 of 1,700")
    if max_steps < 1:
        raise ValueError("last_share needs a run of known length: set max_steps, or from_step instead")
    return max_steps - round(last_share * max_steps)


# --- the rewards ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnedReward:
    """One reward model as a reward function: a value in 0..1 a completion of these kinds, None elsewhere."""

    part: str
    model: str
    info: RewardInfo
    kinds: tuple[str, ...]
    from_step: int | None = None
    last_share: float | None = None
    max_tokens: int = MAX_TOKENS
    device: str | None = None

    @property
    def __name__(self) -> str:
        return self.part

    def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        kind: Sequence[str | None] | None = None,
        problem: Sequence[str | None] | None = None,
        trainer_state: Any = None,
        **columns: object,
    ) -> list[float | None]:
        values: list[float | None] = [None] * len(completions)
        if kind is None or not self.is_on(trainer_state):
            return values
        asked: dict[int, list[dict[str, Any]]] = {}
        for row, (prompt, completion, one) in enumerate(zip(prompts, completions, kind, strict=True)):
            if one not in self.kinds:
                continue
            response = READERS[self.info.reads](with_prefill(prompt, completion))
            if not response:
                values[row] = 0.0  # said nothing
                continue
            asked[row] = [*as_turns(prompt, problem[row] if problem else None), assistant_turn(response)]
        if asked:
            scores = load_reward_model(self.model, self.device, self.max_tokens).scores(list(asked.values()))
            for (row, conversation), score in zip(asked.items(), scores, strict=True):
                values[row] = self.info.value(self.checked(score, conversation, row))
        return values

    def is_on(self, trainer_state: Any) -> bool:
        """Outside a training run always."""
        if trainer_state is None:
            return True
        return trainer_state.global_step >= first_step(self.from_step, self.last_share, trainer_state.max_steps)

    def checked(self, score: float, conversation: list[dict[str, Any]], row: int) -> float:
        """Raises RewardError for a score that is no number: it is the model's fault, so every sample would fare so."""
        if math.isfinite(score):
            return score
        raise RewardError(
            f"the {self.part} model {self.model} scores {score} for sample {row}; prompt "
            f"{message_text(conversation[:-1])!r:.100}, response {message_text(conversation)!r:.200}. Its weights are "
            "broken, as by too high a learning rate: train it again with a lower one (python -m recipes reward_models)"
        )


@dataclass(frozen=True)
class PreferenceReward:
    """Weighted mean of the parts that apply to a completion; None where none does."""

    parts: tuple[LearnedReward, ...]
    weights: tuple[float, ...]
    __name__ = "preference"

    def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        by_part = [part(prompts, completions, **columns) for part in self.parts]
        for part, values in zip(self.parts, by_part):
            judged = [value for value in values if value is not None]
            if log_metric is not None and judged:
                log_metric(f"rewards/{part.part}/mean", sum(judged) / len(judged))
            if log_extra is not None and judged:
                log_extra(part.part, values)
        return [self._combined(values) for values in zip(*by_part)]

    def _combined(self, values: Sequence[float | None]) -> float | None:
        pairs = [(value, weight) for value, weight in zip(values, self.weights) if value is not None and weight]
        total = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / total if pairs else None


def helpful_reward(
    model: str,
    kinds: Sequence[str] = HELPFUL_KINDS,
    from_step: int | None = None,
    last_share: float | None = None,
    max_tokens: int = MAX_TOKENS,
    device: str | None = None,
) -> LearnedReward:
    """How helpful the final summary is, 0..1; 0 for a completion without one. Settings as of `preference_reward`."""
    return _learned("helpful", model, kinds, from_step, last_share, max_tokens, device)


def harmless_reward(
    model: str,
    kinds: Sequence[str] = HARMLESS_KINDS,
    from_step: int | None = None,
    last_share: float | None = None,
    max_tokens: int = MAX_TOKENS,
    device: str | None = None,
) -> LearnedReward:
    """The probability that the whole response is harmless. Settings as of `preference_reward`."""
    return _learned("harmless", model, kinds, from_step, last_share, max_tokens, device)


def preference_reward(
    helpful: str,
    harmless: str,
    helpful_weight: float = 1.0,
    harmless_weight: float = 1.0,
    helpful_kinds: Sequence[str] = HELPFUL_KINDS,
    harmless_kinds: Sequence[str] = HARMLESS_KINDS,
    from_step: int | None = None,
    last_share: float | None = None,
    max_tokens: int = MAX_TOKENS,
    device: str | None = None,
) -> PreferenceReward:
    """Helpfulness and harmlessness together, 0..1; its two parts become metrics of their own.

    helpful, harmless: the folders of the two models.
    from_step, last_share: it is None for every completion before that update, or the last part of the run (R1: 400 of
        1,700 steps). General prompts that nothing judges yet teach nothing: `general_last_share` of a recipe keeps them
        out until then.
    device: None takes the trainer's.

    Raises ValueError for a folder that holds no such model or not all of it, weights that cannot be averaged, or a bad
    start.
    """
    weights = (helpful_weight, harmless_weight)
    if min(weights) < 0 or not math.isfinite(sum(weights)) or sum(weights) == 0:
        raise ValueError(f"helpful_weight and harmless_weight are averaged: 0 or more, not both 0, got {weights}")
    when = (from_step, last_share, max_tokens, device)
    parts = (helpful_reward(helpful, helpful_kinds, *when), harmless_reward(harmless, harmless_kinds, *when))
    return PreferenceReward(parts, weights)


def _learned(
    part: str,
    model: str,
    kinds: Sequence[str],
    from_step: int | None,
    last_share: float | None,
    max_tokens: int,
    device: str | None,
) -> LearnedReward:
    first_step(from_step, last_share, max_steps=1)  # its checks
    info = RewardInfo.read(model, part)
    check_weights(model, part)
    return LearnedReward(
        part, str(Path(model).expanduser()), info, tuple(kinds), from_step, last_share, max_tokens, device
    )


def as_turns(prompt: str | Sequence[dict], problem: str | None = None) -> list[dict[str, Any]]:
    """A prompt as a conversation; of one that a plain-text template rendered, the question in it. Raises TypeError for
    anything else.

    >>> as_turns("User: Who are you?\\nReason in <think> </think>, then answer in <answer> </answer>.\\nAssistant:")
    [{'role': 'user', 'content': 'Who are you?'}]
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": problem or question_of(prompt)}]
    message_text(prompt)  # its check
    if strange := [turn for turn in prompt if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str)]:
        raise TypeError(f"a turn of a conversation is {{'role': …, 'content': …}}, got {strange[0]!r:.80}")
    return list(prompt)


def assistant_turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
