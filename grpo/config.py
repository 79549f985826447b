"""GRPOConfig: transformers' TrainingArguments plus what GRPO needs, under TRL's names.

A field that exists in TRL's GRPOConfig has its name, meaning and default; docs/trl.md lists the few that differ.
"""

from __future__ import annotations

import logging
import numbers
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from grpo.advantages import BASELINES
from grpo.loss import LossConfig
from grpo.sampling import SamplingConfig

logger = logging.getLogger(__name__)


GROUP_TIMEOUT = 86_400
"""Seconds that one process may wait for another before their group gives up (torch: 600 on GPUs; transformers: 1,800).
One that samples longer answers, or measures alone, keeps the others waiting for hours; launchers see one that died."""


def _accelerated(*kinds: str) -> bool:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return any(available[kind] for kind in kinds or available)


def check_length(args: TrainingArguments) -> None:
    """Raises ValueError for a run of no update, which would end at once and pass for a finished one."""
    if args.max_steps == 0:
        raise ValueError(
            "max_steps is 0, so nothing would be trained; set it to 1 or more, or to -1 to train for num_train_epochs"
        )
    if args.max_steps < 0 and not args.num_train_epochs > 0:
        raise ValueError(
            f"num_train_epochs must be above 0, got {args.num_train_epochs}: nothing would be trained; R1 uses 1 to 3 "
            "(or set max_steps)"
        )


WHOLE_NUMBERS = (
    "num_generations", "max_completion_length", "max_sampling_rows", "max_tokens_per_pack", "num_iterations", "top_k",
    "refill_prompts", "ref_model_sync_steps",
)  # fmt: skip
NUMBERS = (
    "temperature", "top_p", "min_p", "epsilon", "epsilon_high", "delta", "beta", "entropy_coef", "sapo_temperature_pos",
    "sapo_temperature_neg", "off_policy_mask_threshold", "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min", "vllm_gpu_memory_utilization", "ref_model_mixup_alpha", "eval_temperature",
    "eval_top_p",
)  # fmt: skip
SWITCHES = ("rollouts_ahead", "share_prompts", "skip_equal_groups", "keep_sampling_mask", "use_vllm", "sync_ref_model")


@dataclass
class GRPOConfig(TrainingArguments):
    """Settings of GRPOTrainer. One optimizer update uses

        per_device_train_batch_size x ranks x gradient_accumulation_steps

    completions, as in TRL; here gradient_accumulation_steps is folded into per_device_train_batch_size when the config
    is made, and memory is bounded by `max_tokens_per_pack` instead. Raises ValueError for settings that cannot train.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate of AdamW."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of metrics."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Kept False: reward functions read the other columns."}
    )
    bf16: bool | None = field(
        default=None,
        metadata={"help": "bfloat16 mixed precision. None: on where the GPU has it, off on a CPU (TRL: always on)."},
    )
    gradient_checkpointing: bool | None = field(
        default=None,
        metadata={"help": "Recompute activations in the backward pass. None: on with a GPU, off on a CPU (TRL: on)."},
    )
    ddp_broadcast_buffers: bool | None = field(
        default=None, metadata={"help": "None: off, as a broadcast goes with a forward pass (TRL: on)."}
    )
    ddp_timeout: int = field(
        default=GROUP_TIMEOUT, metadata={"help": "Seconds that processes wait for each other (TRL: 1,800)."}
    )
    lr_scheduler_kwargs: dict | str | None = field(
        default=None, metadata={"help": "More parameters of the schedule, e.g. {'num_cycles': 1}."}
    )

    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Keywords for AutoModelForCausalLM.from_pretrained when `model` is a path."}
    )
    cast_lm_head_to_fp32: bool = field(
        default=False, metadata={"help": "Project to logits in float32, whatever the layers compute in (ScaleRL)."}
    )
    disable_dropout: bool = field(default=False, metadata={"help": "Set every dropout of the policy to 0."})

    num_generations: int = field(default=8, metadata={"help": "G: completions a prompt, compared with each other."})
    num_generations_eval: int | None = field(
        default=None, metadata={"help": "Completions a prompt during evaluation; None takes num_generations."}
    )
    max_completion_length: int = field(default=512, metadata={"help": "Longest completion, in tokens."})
    generation_batch_size: int | None = field(
        default=None, metadata={"help": "Completions a rollout, over all ranks. None: what one update uses."}
    )
    steps_per_generation: int | None = field(
        default=None,
        metadata={
            "help": "TRL: micro-batches a rollout serves; None is gradient_accumulation_steps, one update a rollout."
        },
    )
    shuffle_dataset: bool = field(default=True, metadata={"help": "Draw the prompts in a new order every epoch."})
    max_sampling_rows: int = field(default=512, metadata={"help": "Completions that decode at once on one device."})

    rollouts_ahead: bool = field(
        default=False,
        metadata={
            "help": "Sample the next rollout while this one trains: one rollout off-policy, with ratios to the policy "
            "that sampled. Takes a copy of the weights."
        },
    )
    refill_prompts: int = field(
        default=0,
        metadata={
            "help": "Prompts that a rollout samples more at most, in place of groups that teach nothing (DAPO's "
            "dynamic sampling)."
        },
    )

    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature; log-probs are divided by it too."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 keeps every token."})
    top_k: int = field(default=0, metadata={"help": "Keep the k likeliest tokens; 0 keeps all."})
    min_p: float | None = field(default=None, metadata={"help": "Keep tokens above this share of the likeliest one."})

    keep_sampling_mask: bool = field(
        default=False,
        metadata={
            "help": "Compute ratios among the tokens that top_k, top_p and min_p kept (DeepSeek-V3.2). Needs top_k, "
            "and 4 x top_k bytes a sampled token."
        },
    )

    use_vllm: bool = field(default=False, metadata={"help": "Sample with vLLM: docs/engine.md."})
    vllm_mode: str = field(
        default="colocate",
        metadata={"help": "'colocate': in the trainer's processes, on their GPUs. 'server': a running `vllm serve`."},
    )
    vllm_model_impl: str = field(
        default="vllm", metadata={"help": "'vllm' or 'transformers': whose code of the model vLLM runs."}
    )
    vllm_enable_sleep_mode: bool = field(
        default=False, metadata={"help": "Colocated: free vLLM's memory between rollouts, at the price of waking it."}
    )
    vllm_server_base_url: str | None = field(
        default=None, metadata={"help": "The server's URL, e.g. http://localhost:8000; None: host and port."}
    )
    vllm_server_host: str = field(default="0.0.0.0", metadata={"help": "Host of the server."})
    vllm_server_port: int = field(default=8000, metadata={"help": "Port of the server."})
    vllm_server_timeout: float = field(default=240.0, metadata={"help": "Seconds to wait for the server to be up."})
    vllm_group_port: int = field(default=51216, metadata={"help": "Port over which the server gets the weights."})
    vllm_gpu_memory_utilization: float = field(
        default=0.3, metadata={"help": "Colocated: share of a GPU's memory that vLLM takes."}
    )
    vllm_max_model_length: int | None = field(
        default=None,
        metadata={"help": "Colocated: tokens of prompt and completion. None: what the data needs (TRL: the model's)."},
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "Colocated: GPUs that one engine spans."})

    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "One weight a reward function, in their order; None weighs each 1."}
    )
    on_reward_error: str = field(
        default="stop",
        metadata={
            "help": "What a completion does whose reward function raised: 'stop' the run with an error that "
            "names it, or 'mask' it and go on."
        },
    )
    scale_rewards: str = field(
        default="group", metadata={"help": "Divide advantages by the std of the 'group', of the 'batch', or by 'none'."}
    )
    advantage_baseline: str = field(
        default="group",
        metadata={"help": "Rewards are compared with the mean of the 'group', or of their siblings: 'leave_one_out'."},
    )
    loss_type: str = field(
        default="dapo", metadata={"help": "'grpo', 'dr_grpo', 'dapo', 'bnpo', 'cispo' or 'sapo': docs/losses.md."}
    )
    epsilon: float = field(default=0.2, metadata={"help": "The ratio is clipped below at 1 - epsilon."})
    epsilon_high: float | None = field(default=None, metadata={"help": "Clipped above at 1 + this; None: epsilon."})
    delta: float | None = field(default=None, metadata={"help": "Largest ratio for a negative advantage."})
    sapo_temperature_pos: float = field(default=1.0, metadata={"help": "SAPO's temperature, positive advantages."})
    sapo_temperature_neg: float = field(default=1.05, metadata={"help": "SAPO's temperature, negative advantages."})
    off_policy_mask_threshold: float | None = field(
        default=None,
        metadata={"help": "Leave out completions of negative advantage whose mean log(old / policy) exceeds this."},
    )
    vllm_importance_sampling_correction: bool | None = field(
        default=None,
        metadata={
            "help": "Weigh tokens by trainer / sampler, with any sampler. None: on with use_vllm (TRL: on, and with "
            "vLLM alone)."
        },
    )
    vllm_importance_sampling_mode: str = field(
        default="sequence_mask",
        metadata={"help": "'token_truncate', 'token_mask', 'sequence_truncate' or 'sequence_mask': docs/losses.md."},
    )
    vllm_importance_sampling_clip_max: float | None = field(
        default=3.0, metadata={"help": "Upper bound of that weight; None: none."}
    )
    vllm_importance_sampling_clip_min: float | None = field(
        default=None, metadata={"help": "Lower bound of that weight; None: none."}
    )
    entropy_coef: float = field(
        default=0.0, metadata={"help": "Weight of the entropy bonus, the mean entropy of a token; 0 leaves it out."}
    )
    importance_sampling_level: str = field(default="token", metadata={"help": "'token' (GRPO) or 'sequence' (GSPO)."})
    num_iterations: int = field(default=1, metadata={"help": "Passes over each rollout (mu of DeepSeekMath)."})
    mask_truncated_completions: bool = field(
        default=False, metadata={"help": "Leave completions that hit the length limit out of the loss (DAPO)."}
    )

    beta: float = field(default=0.0, metadata={"help": "Weight of the KL to the reference; 0 loads no reference."})
    use_bias_correction_kl: bool = field(
        default=False, metadata={"help": "Multiply the KL by the ratio (DeepSeek-V3.2). R1's KL does not (TRL: True)."}
    )
    sync_ref_model: bool = field(default=False, metadata={"help": "Refresh the reference from the policy."})
    ref_model_sync_steps: int = field(default=512, metadata={"help": "Steps between refreshes (R1: 400)."})
    ref_model_mixup_alpha: float = field(
        default=0.6, metadata={"help": "Share of the policy in the refreshed reference; 1 replaces it, as R1 does."}
    )

    max_tokens_per_pack: int = field(
        default=16_384, metadata={"help": "Tokens a forward pass holds at most: the setting that bounds memory."}
    )
    share_prompts: bool = field(
        default=True, metadata={"help": "Compute each prompt once for its group; off where a model cannot."}
    )
    compile_layers: bool | None = field(
        default=None,
        metadata={"help": "Compile the decoder layers and the sampler's forward pass. None: on with a CUDA GPU."},
    )
    skip_equal_groups: bool = field(
        default=True,
        metadata={
            "help": "Leave groups whose rewards are all equal out of the update while beta and entropy_coef are 0: "
            "they have no gradient."
        },
    )
    eval_temperature: float = field(default=0.6, metadata={"help": "DeepSeek-R1's evaluation temperature."})
    eval_top_p: float = field(default=0.95, metadata={"help": "DeepSeek-R1's evaluation top-p."})

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = not self.fp16 and is_torch_bf16_gpu_available() and not self.use_cpu
        if self.gradient_checkpointing is None:
            self.gradient_checkpointing = _accelerated() and not self.use_cpu
        if self.compile_layers is None:
            self.compile_layers = _accelerated("cuda") and not self.use_cpu
        renamed = "activation_checkpointing"  # what later releases of transformers 5 call it
        if hasattr(self, renamed):
            if getattr(self, renamed) is None:
                setattr(self, renamed, self.gradient_checkpointing)
            self.gradient_checkpointing = None
        if self.ddp_broadcast_buffers is None:
            # A broadcast goes with a forward pass, and ranks may make different numbers of those.
            self.ddp_broadcast_buffers = False
        if self.vllm_importance_sampling_correction is None:
            self.vllm_importance_sampling_correction = self.use_vllm
        if isinstance(self.scale_rewards, bool):  # as in TRL
            self.scale_rewards = "group" if self.scale_rewards else "none"
        super().__post_init__()
        self._check()
        self._fold_accumulation()

    def _check_types(self) -> None:
        """YAML and the command line are checked as they are read; this is for those who write Python."""
        for name in WHOLE_NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real) or value != value):
                raise ValueError(f"{name} must be a number, got {value!r}")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")

    def _check(self) -> None:
        self._check_types()
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations must be 2 or more, got {self.num_generations}: GRPO compares the completions of one "
                "prompt, and a single one has nothing to be compared with; DeepSeek-R1 uses 16"
            )
        if self.scale_rewards not in ("group", "batch", "none"):
            raise ValueError(f"scale_rewards must be 'group', 'batch' or 'none', got {self.scale_rewards!r}")
        if self.advantage_baseline not in BASELINES:
            raise ValueError(f"advantage_baseline must be 'group' or 'leave_one_out', got {self.advantage_baseline!r}")
        if self.vllm_mode not in ("colocate", "server"):
            raise ValueError(f"vllm_mode must be 'colocate' or 'server', got {self.vllm_mode!r}")
        if not 0 < self.vllm_gpu_memory_utilization <= 1:
            raise ValueError(
                f"vllm_gpu_memory_utilization must lie in (0, 1], got {self.vllm_gpu_memory_utilization}; TRL uses 0.3"
            )
        if self.on_reward_error not in ("stop", "mask"):
            raise ValueError(f"on_reward_error must be 'stop' or 'mask', got {self.on_reward_error!r}")
        for name, least in {
            "num_iterations": 1,
            "max_tokens_per_pack": 1,
            "ref_model_sync_steps": 1,
            "max_sampling_rows": 1,
            "vllm_tensor_parallel_size": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if self.refill_prompts < 0:
            raise ValueError(f"refill_prompts must be 0 (off) or more prompts a rollout, got {self.refill_prompts}")
        if self.rollouts_ahead and self.vllm_importance_sampling_correction:
            raise ValueError(
                "rollouts_ahead takes its ratios to the sampler's own log-probs, so there is nothing left for "
                "vllm_importance_sampling_correction to correct; leave it out"
            )
        if self.rollouts_ahead and self.use_vllm:
            raise ValueError(
                "rollouts_ahead samples from a copy of the weights in this process, and use_vllm with vLLM's; set one"
            )
        if self.generation_batch_size is not None and self.steps_per_generation is not None:
            raise ValueError(
                "give generation_batch_size or steps_per_generation, not both: each follows from the other"
            )
        if not 0 < self.ref_model_mixup_alpha <= 1:
            raise ValueError(f"ref_model_mixup_alpha must lie in (0, 1], got {self.ref_model_mixup_alpha}")
        if self.sync_ref_model and self.beta == 0:
            raise ValueError(
                "sync_ref_model refreshes the reference of the KL, and with beta 0 there is none; set beta (R1: 0.001)"
            )
        if self.keep_sampling_mask and self.use_vllm:
            raise ValueError("keep_sampling_mask needs our own sampler: vLLM does not tell which tokens it kept")
        check_length(self)
        if self.temperature == 0:
            raise ValueError(
                "temperature 0 samples the same completion G times, so no group can teach; DeepSeek-R1 trains at 1.0"
            )
        _ = self.loss_config, self.sampling_config, self.eval_sampling_config  # their own checks, before time is spent

    def _fold_accumulation(self) -> None:
        """One training_step is one update, so Trainer's own accumulation becomes 1. The same config folds only once."""
        accumulation: int = self.gradient_accumulation_steps  # type: ignore[has-type]
        if self.steps_per_generation is not None:
            if self.steps_per_generation < accumulation:
                raise ValueError(
                    f"steps_per_generation ({self.steps_per_generation}) must be gradient_accumulation_steps "
                    f"({accumulation}) or a multiple of it: a rollout serves whole updates"
                )
            self.steps_per_generation = round(self.steps_per_generation / accumulation)
        self.per_device_train_batch_size *= accumulation
        self.gradient_accumulation_steps = 1

    def plan_rollouts(self, num_ranks: int) -> RolloutPlan:
        """How many prompts a rollout has and how many updates it serves; a remainder is rounded, with a note."""
        per_update = self.per_device_train_batch_size * num_ranks
        wanted = self.generation_batch_size or per_update * (self.steps_per_generation or 1)
        num_prompts = max(1, round(wanted / self.num_generations))
        updates = max(1, round(num_prompts * self.num_generations / per_update))
        updates = min(updates, num_prompts)
        if num_prompts * self.num_generations != wanted or updates * per_update != wanted:
            logger.warning(
                "%d completions a rollout do not divide into groups of %d and updates of %d; rounded to %d prompts and "
                "%d update(s)",
                wanted, self.num_generations, per_update, num_prompts, updates,
            )  # fmt: skip
        return RolloutPlan(num_prompts=num_prompts, num_minibatches=updates, num_iterations=self.num_iterations)

    @property
    def loss_config(self) -> LossConfig:
        return LossConfig(
            loss_type=self.loss_type,
            epsilon=self.epsilon,
            epsilon_high=self.epsilon_high,
            delta=self.delta,
            beta=self.beta,
            use_bias_correction_kl=self.use_bias_correction_kl,
            sapo_temperature_pos=self.sapo_temperature_pos,
            sapo_temperature_neg=self.sapo_temperature_neg,
            off_policy_mask_threshold=self.off_policy_mask_threshold,
            entropy_coef=self.entropy_coef,
            vllm_importance_sampling_correction=self.vllm_importance_sampling_correction,
            vllm_importance_sampling_mode=self.vllm_importance_sampling_mode,
            vllm_importance_sampling_clip_max=self.vllm_importance_sampling_clip_max,
            vllm_importance_sampling_clip_min=self.vllm_importance_sampling_clip_min,
            importance_sampling_level=self.importance_sampling_level,
            max_completion_length=self.max_completion_length,
        )

    @property
    def sampling_config(self) -> SamplingConfig:
        return SamplingConfig(
            max_new_tokens=self.max_completion_length,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            keep_mask=self.keep_sampling_mask,
        )

    @property
    def eval_sampling_config(self) -> SamplingConfig:
        return SamplingConfig(
            max_new_tokens=self.max_completion_length, temperature=self.eval_temperature, top_p=self.eval_top_p
        )


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """One rollout: `num_prompts` groups over all ranks, cut into `num_minibatches` updates, gone through
    `num_iterations` times. DeepSeek-R1 samples 8,192 completions and cuts them into 16 mini-batches, once through."""

    num_prompts: int
    num_minibatches: int
    num_iterations: int

    @property
    def num_updates(self) -> int:
        return self.num_minibatches * self.num_iterations
