"""Loading a policy and its tokenizer, and the checks that must fail before time is spent."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Raises ValueError where no tokenizer can be loaded from `path`."""
    _check_path(path)
    try:
        return AutoTokenizer.from_pretrained(path, padding_side="left")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no tokenizer could be loaded from {path!r}: {_first_line(error)}") from error


def load_policy(model: str | PreTrainedModel, args: Any) -> PreTrainedModel:
    """The model itself, or the one at a path or Hub name, in float32 unless `model_init_kwargs` says otherwise.

    Weights are kept in float32 and mixed precision casts them: RL's small updates vanish in bfloat16 weights.
    """
    if not isinstance(model, str):
        policy = model
    else:
        _check_path(model)
        try:
            policy = AutoModelForCausalLM.from_pretrained(
                model, **({"dtype": "float32"} | (args.model_init_kwargs or {}))
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"no model could be loaded from {model!r}: {_first_line(error)}") from error
    if args.disable_dropout:
        for module in policy.modules():
            if module.__class__.__name__ == "Dropout":
                module.p = 0.0
    return policy


def frozen_copy(policy: PreTrainedModel) -> PreTrainedModel:
    """The policy as it is now, for the KL: without dropout, and never trained."""
    return copy.deepcopy(policy).eval().requires_grad_(False)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError for a tokenizer whose completions could never end. Without a pad token it pads with the end."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the tokenizer has no end token (eos_token), so no completion could ever end; "
            "set tokenizer.eos_token to the token that ends a text, and save the tokenizer with the model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        logger.warning(
            "the tokenizer has no pad token; padding with its end token %r (padding is masked)", tokenizer.eos_token
        )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str | list[dict]) -> list[int]:
    """Token ids of a prompt: plain text as it is, a conversation through the tokenizer's chat template."""
    if isinstance(prompt, str):
        return tokenizer(prompt, add_special_tokens=True)["input_ids"]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]


def check_context(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_completion_length: int, what: str
) -> None:
    """Raises ValueError for a data set without rows or prompts, or with a prompt that leaves a completion no room."""
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"{what} has no `prompt` column, only {dataset.column_names}; data.templates.render_prompts makes one from "
            "`problem`"
        )
    if len(dataset) == 0:
        raise ValueError(f"{what} is empty")
    lengths = [len(encode_prompt(tokenizer, prompt)) for prompt in dataset["prompt"]]
    if not min(lengths):
        raise ValueError(f"{what}: row {lengths.index(0)} has an empty prompt; drop it")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] + max_completion_length > context:
        raise ValueError(
            f"{what}: row {longest} has a prompt of {lengths[longest]} tokens, and with max_completion_length "
            f"{max_completion_length} it exceeds the model's context of {context} tokens; "
            f"lower max_completion_length to {max(context - lengths[longest], 0)} or less, or drop long prompts "
            f"({sum(n + max_completion_length > context for n in lengths)} of {len(lengths)} rows are too long)"
        )


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: the tokenizer's and those of the generation settings."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    more = configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *(token for token in more if token is not None)})


def _check_path(path: str) -> None:
    """A local path that is meant as one must exist; otherwise transformers would look for it on the Hub."""
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not os.path.isdir(os.path.expanduser(path)):
        raise ValueError(
            f"the model path {path!r} does not exist; give a folder with config.json and weights, or a Hub name like "
            "Qwen/Qwen2.5-1.5B"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
