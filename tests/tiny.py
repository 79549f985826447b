"""A tiny model, tokenizer and trainer, made in code: the same weights on every machine and in every process."""

import gc
import re

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from grpo.config import GRPOConfig
from grpo.trainer import GRPOTrainer

gc.freeze()  # every train() collects garbage: 0.3 s through all that the libraries made, and 0.01 s without

ALPHABET = "0123456789+-=? abu:"
TOKENS = ["<eos>", "<pad>", *ALPHABET]
EOS, PAD = 0, 1
CONTEXT = 64
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'][0] + ':' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
)
PROMPTS = ["1+2=", "7-3=?", "40+2=", "9=", "5+5+5=", "8-1-1="]


def tiny_tokenizer(eos="<eos>", pad="<pad>"):
    """One token a character of ALPHABET."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(seed=0, dtype=torch.float32, **changes):
    """A Qwen3 of 11,000 parameters. NumPy's legacy stream fills it, which never changes; torch's may between versions.

    The weights are large, so that probabilities differ between tokens and 1e-3 of the gradient is no rounding error.
    """
    settings = {
        "vocab_size": len(TOKENS), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True, "eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": None,
    }  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(**settings | changes)).to(dtype)
    random = np.random.RandomState(seed)
    for name, parameter in model.named_parameters():
        center = 1.0 if "norm" in name else 0.0
        values = center + 0.25 * random.standard_normal(parameter.shape)
        parameter.data.copy_(torch.from_numpy(values))
    return model.eval()


def digits(prompts, completions, **columns):
    """Share of digits, in eighths of a completion: a reward that siblings rarely share, without a model or a task."""
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    return [len(re.findall("[0-9]", text)) / 8 for text in texts]


def tiny_dataset(prompts=PROMPTS, **columns):
    return Dataset.from_dict({"prompt": list(prompts), "number": list(range(len(prompts))), **columns})


def tiny_config(folder, **settings):
    """Two prompts x four completions an update, of at most eight tokens; a metrics line a step; nothing saved."""
    defaults = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
        "logging_steps": 1, "max_steps": 3, "learning_rate": 1e-2, "num_generations": 4, "max_completion_length": 8,
        "per_device_train_batch_size": 8, "lr_scheduler_type": "constant", "max_tokens_per_pack": 64,
    }  # fmt: skip
    return GRPOConfig(**defaults | settings)


def tiny_trainer(folder, model=None, rewards=digits, dataset=None, eval_dataset=None, **settings):
    """A GRPOTrainer over the tiny model; settings are GRPOConfig's."""
    return GRPOTrainer(
        model=tiny_model() if model is None else model,
        reward_funcs=rewards,
        args=tiny_config(folder, **settings),
        train_dataset=tiny_dataset() if dataset is None else dataset,
        eval_dataset=eval_dataset,
        processing_class=tiny_tokenizer(),
    )


def metrics_of(trainer):
    """The lines of a run without its clocks."""
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return [{key: value for key, value in line.items() if not is_clock(key)} for line in lines]


def is_clock(key):
    return key.startswith("time/") or key in ("step_time", "tokens_per_second")
