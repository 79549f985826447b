"""GRPOTrainer: group-relative policy optimisation on top of transformers' Trainer.

Checkpoints, schedules, trackers, clipping and the distributed wrappers are Trainer's. What is GRPO's reads top to
bottom in `training_step`: sample, score, compare, pack, update (DeepSeekMath, arXiv:2402.03300, algorithm 1).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import fsdp2_prepare_model, gather_object
from datasets import Dataset
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import add_fused_lm_head

from grpo.advantages import combine_rewards, group_advantages, teaches, token_advantages
from grpo.attention import follows_segments, use_packed_attention
from grpo.checkpoints import forgiving_disk, latest_checkpoint
from grpo.compiling import CompiledLayers
from grpo.config import GRPOConfig
from grpo.kept_tokens import add_kept_tokens_head
from grpo.loading import (
    check_context,
    check_tokenizer,
    encode_prompt,
    frozen_copy,
    load_policy,
    load_tokenizer,
    stop_tokens,
)
from grpo.loss import Divisors, grpo_loss
from grpo.metrics import mean, num_sampled_tokens, rollout_metrics, summary, update_metrics
from grpo.packing import Pack, PackLayout, empty_pack, pack_groups, trained_mask
from grpo.rollouts import Draw, Group, PromptStream, RolloutAhead, RolloutBuffer, RolloutClock, assign_ranks
from grpo.sampling import Sampler, SamplingConfig
from grpo.vllm import VLLMSampler, check_vllm, start_generation
from rewards import RewardFunction, StepRewards, reward_name, score_all, score_later

logger = logging.getLogger(__name__)

STATE_FILE = "rollouts-rank{rank}.json"
COPIED_MEMORY = 0.05
"""Share of a GPU's memory up to which weights are copied just to sample faster (grpo.weights)."""


class GRPOTrainer(Trainer):
    """Trains a policy by GRPO; the constructor and the settings are those a TRL user knows.

    `model` is a transformers causal language model or the path or Hub name of one. Each of `reward_funcs` is called as
    `f(prompts, completions, completion_ids=…, **columns)`, sync or async, and returns a float or None a completion, or
    StepRewards, which give its tokens advantages of their own;
    `trainer_state`, `log_metric(name, value)` and `log_extra(column, values)` are among its keywords, as in TRL. Where
    a step needs log-probs, the rewards run in another thread meanwhile. The data sets have a `prompt` column (text, or
    a conversation for the chat template); their other columns go to the rewards. A callback may define
    `on_rollout(args, state, control, groups=…)` to see what was sampled.

    Raises ValueError, before any sampling, for a tokenizer without an end token, a prompt that leaves no room for a
    completion, a data set without `prompt`, or reward weights that do not match the functions.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: RewardFunction | Sequence[RewardFunction],
        args: GRPOConfig,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple = (None, None),
        peft_config: Any = None,
    ):
        if args.use_vllm:
            check_vllm(args, model)
        tokenizer = processing_class or load_tokenizer(model if isinstance(model, str) else model.name_or_path)
        check_tokenizer(tokenizer)
        policy = load_policy(model, args)
        self.reward_funcs = list(reward_funcs) if isinstance(reward_funcs, Sequence) else [reward_funcs]
        self.reward_names = [reward_name(func) for func in self.reward_funcs]
        self.reward_weights = args.reward_weights or [1.0] * len(self.reward_funcs)
        if len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"reward_weights has {len(self.reward_weights)} numbers for {len(self.reward_funcs)} reward functions "
                f"({', '.join(self.reward_names)}); give one a function"
            )
        for dataset, what in ((train_dataset, "train_dataset"), (eval_dataset, "eval_dataset")):
            if dataset is not None:
                check_context(dataset, tokenizer, policy, args.max_completion_length, what)

        reason = use_packed_attention(policy)
        if reason is not None and args.share_prompts:
            logger.warning("every completion is computed with a copy of its prompt: %s", reason)
        segments = reason is None and args.share_prompts and follows_segments(policy)
        # Log-probs are computed inside the model's own forward, so DDP, FSDP and PEFT wrap them like any output.
        head: dict[str, Any] = {"temperature": args.temperature, "cast_lm_head_to_fp32": args.cast_lm_head_to_fp32}
        add_fused_lm_head(policy, outputs=("log_probs", "entropy"), **head)
        if args.keep_sampling_mask:
            add_kept_tokens_head(policy, **head)
        self.reference = frozen_copy(policy) if args.beta > 0 and peft_config is None else None
        if self.reference is not None:
            add_fused_lm_head(self.reference, **head)
            if args.keep_sampling_mask:
                add_kept_tokens_head(self.reference, **head)
        if peft_config is not None:
            from peft import get_peft_model

            policy = get_peft_model(policy, peft_config)

        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._logged: dict[str, list[float]] = defaultdict(list)
        self.num_tokens = 0
        super().__init__(
            model=policy,
            args=args,
            data_collator=lambda rows: rows,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.loss_config = args.loss_config
        self.layout = PackLayout.for_device(self.accelerator.device, args.share_prompts and reason is None, segments)
        self.max_tokens_per_pack = args.max_tokens_per_pack
        self.sharded = self.is_fsdp_enabled or is_deepspeed_zero3_enabled()
        if is_deepspeed_zero3_enabled() and not args.use_vllm:
            raise ValueError(
                "sampling gathers the sharded weights of FSDP2 and not those of DeepSpeed ZeRO-3: take ZeRO stage 2, "
                "FSDP2 or use_vllm"
            )
        self._bare = copy.deepcopy(policy) if self.sharded else None
        self._sampler: Sampler | None = None
        self._vllm_sampler: VLLMSampler | None = None
        compiled = [model for model in (policy, self.reference) if model is not None and args.compile_layers]
        self.compiled_layers = [CompiledLayers(model) for model in compiled]
        if self.reference is not None:
            self.reference = self.prepared_reference()
        if args.sync_ref_model:
            if self.reference is None:
                raise ValueError(
                    "sync_ref_model needs a full reference model, and with a peft_config the base is the reference"
                )
            self.add_callback(SyncRefModelCallback(self.reference, self.accelerator))
        if train_dataset is not None:
            self.plan = args.plan_rollouts(self.accelerator.num_processes)
            self.stream = PromptStream(len(train_dataset), args.num_generations, args.seed, args.shuffle_dataset)
            self.buffer = RolloutBuffer(self.plan, self.next_rollout)
            self.ahead: RolloutAhead | None = None
        if args.use_vllm:
            _ = self.sampler  # its engine starts here, where all ranks are

    def prepared_reference(self) -> Any:
        """The reference where the policy computes; under FSDP2 sharded as the policy is: `prepare_model` would leave it
        whole and on the CPU."""
        if not self.accelerator.is_fsdp2:
            return self.accelerator.prepare_model(self.reference, evaluation_mode=True)
        reference = fsdp2_prepare_model(self.accelerator, self.reference)
        reference.set_reshard_after_forward(True)  # no backward pass comes that would shard its head again
        return reference

    # ------------------------------------------------------------------ one step

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One GRPO update: sample, score, compare, pack, update. Returns the update's loss, detached."""
        started = time.perf_counter()
        model.train()
        groups = self.buffer.next()  # sampled, scored and compared now, or left over from the last sampling
        loss, statistics = self.update(model, groups)
        self.record_update(statistics, time.perf_counter() - started)
        self.buffer.advance()  # last, so that a run that resumes repeats an update that broke off
        return loss

    def update(self, model: Any, groups: Sequence[Group]) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of one update; returns its loss, detached, and its statistics (grpo.loss.mean_statistics).

        Packs that do not fit into a GPU's memory are made half as large, once, and stay so.
        """
        try:
            return self.accumulate_gradients(model, groups)
        except torch.OutOfMemoryError as error:
            before, self.max_tokens_per_pack = self.max_tokens_per_pack, max(1, self.max_tokens_per_pack // 2)
            advice = f"a pack of up to {before} tokens does not fit into the GPU's memory: lower max_tokens_per_pack"
            if self.args.rollouts_ahead:
                advice = f"beside the rollout ahead (max_sampling_rows) {advice}"
            # Other ranks are in the middle of their packs, and gradients may have met already.
            if self.accelerator.num_processes > 1 or before < self.args.max_tokens_per_pack:
                raise torch.OutOfMemoryError(f"{advice} to {self.max_tokens_per_pack}") from error
            logger.warning("%s; going on with %d", advice, self.max_tokens_per_pack)
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return self.accumulate_gradients(model, groups)

    def accumulate_gradients(self, model: Any, groups: Sequence[Group]) -> tuple[Tensor, dict[str, Tensor]]:
        divisors = self.count(groups)
        packs = self.pack([group for group in groups if self.learns_from(group)])
        loss = torch.zeros((), device=self.accelerator.device)
        statistics: dict[str, Tensor] = {}
        for pack, sync in self.with_last_synced(model, packs):
            with sync, self.layers_compiled():
                with self.compute_loss_context_manager():
                    output = model(**pack.model_inputs, fused_lm_head=True)
                logprobs = pack.by_completion(output.log_probs.float())
                entropy = pack.by_completion(output.entropy.float())
                pack_loss, sums = grpo_loss(logprobs, pack.loss_inputs, divisors, self.loss_config, entropy)
                # Wrappers average gradients over ranks; the divisors already count every rank.
                pack_loss = pack_loss * self.accelerator.num_processes
                self.accelerator.backward(pack_loss)
            loss += pack_loss.detach()
            sums["entropy_sum"] = (entropy.detach() * pack.loss_inputs.mask).sum()
            statistics = {name: statistics.get(name, 0) + value for name, value in sums.items()}
        return loss, statistics | self.token_sums(groups, packs)

    def token_sums(self, groups: Sequence[Group], packs: Sequence[Pack]) -> dict[str, Tensor]:
        """Tokens of prompts and completions: one row a completion, those that groups left out save, those computed."""
        rows = [
            (group, len(group.prompt_ids) + len(completion.token_ids) - 1)
            for group in groups
            for completion in group.completions
        ]
        sums = {
            "padded_tokens": sum(length for _, length in rows),
            "skipped_tokens": sum(length for group, length in rows if not self.learns_from(group)),
            "computed_tokens": sum(pack.num_tokens for pack in packs),
        }
        return {name: torch.tensor(float(count), device=self.accelerator.device) for name, count in sums.items()}

    def next_rollout(self) -> list[Group]:
        """`make_rollout`; where that breaks off, its prompts stay the next ones."""
        place = self.stream.state_dict() if self.ahead is None else self.ahead.place
        try:
            return self.make_rollout()
        except BaseException:
            self.ahead = None
            self.stream.load_state_dict(place)
            raise

    def make_rollout(self) -> list[Group]:
        """This rank's groups of the next rollout: sampled, scored, compared, with the log-probs that the loss needs."""
        clock = RolloutClock()
        if self.ahead is None:
            groups = self.sample_and_judge(self.plan.num_prompts, clock)
        else:
            started = time.perf_counter()
            groups = self.ahead.wait()
            clock.waiting_seconds += time.perf_counter() - started
            clock.sampling_seconds += self.ahead.seconds
            for name, values in self.ahead.logged.items():
                self._logged[name] += values
            self.ahead = None
            self.judge(groups, None, clock)
        everything = self.refilled(groups, clock)
        self.check_rewards(everything)
        groups = self.most_instructive(everything)
        self.record_rollout(everything, clock)
        self._call_on_rollout(everything)
        groups = self.balanced(groups)
        if self.args.rollouts_ahead and self.state.global_step + self.plan.num_updates < self.state.max_steps:
            self.ahead = self.begin_ahead()
        return groups

    def sample_and_judge(self, num_prompts: int, clock: RolloutClock) -> list[Group]:
        """This rank's share of so many new groups, over all ranks."""
        draws = self.my_draws(num_prompts)
        started = time.perf_counter()
        groups = numbered(self.sample(self.train_dataset, draws, self.args.sampling_config), draws)
        seconds = time.perf_counter() - started
        clock.waiting_seconds += seconds
        clock.sampling_seconds += seconds
        if self.args.rollouts_ahead:
            keep_sampling_logprobs(groups)
        needs_passes = self.plan.num_updates > 1 or self.loss_config.beta > 0  # of log-probs, which rewards run beside
        self.judge(groups, self.begin_scoring(groups, self._logged, background=needs_passes), clock)
        return groups

    def my_draws(self, num_prompts: int) -> list[Draw]:
        return self.stream.draw(num_prompts)[self.accelerator.process_index :: self.accelerator.num_processes]

    def judge(self, groups: Sequence[Group], scores: Callable[[], list] | None, clock: RolloutClock) -> None:
        """The log-probs that the loss needs, then the rewards, which are computed meanwhile (None: both are there, of a
        rollout ahead). Raises FloatingPointError for a policy whose log-probs are no numbers."""
        if self._sampler is not None and any(
            math.isnan(logprob) for group in groups for c in group.completions for logprob in c.logprobs
        ):
            raise FloatingPointError(
                "the policy's log-probs are NaN, and so are its weights: resume from an older checkpoint with a lower "
                "learning_rate or max_grad_norm"
            )
        if self.plan.num_updates > 1 and scores is not None and not self.args.rollouts_ahead:
            self.keep_logprobs(self.model_wrapped, groups, "old_logprobs")
        if self.loss_config.beta > 0:
            self.keep_reference_logprobs(groups)
        if scores is not None:
            started = time.perf_counter()
            self.keep_scores(groups, scores())
            clock.scoring_seconds += time.perf_counter() - started
        self.compare(groups)

    def refilled(self, groups: list[Group], clock: RolloutClock) -> list[Group]:
        """DAPO's dynamic sampling (arXiv:2503.14476, section 3.2): while groups that teach nothing leave the rollout
        short, as many prompts more as should fill it, up to `refill_prompts` in all."""
        budget = self.args.refill_prompts
        while budget:
            teaching, sampled = self.total([sum(group.teaches for group in groups), len(groups)])
            missing = self.plan.num_prompts - teaching
            if missing <= 0:
                break
            expected = missing * sampled / max(teaching, 1)
            count = min(budget, self.plan.num_prompts, math.ceil(expected))
            budget -= count
            clock.refilled += count
            groups = groups + self.sample_and_judge(count, clock)
        return groups

    def most_instructive(self, groups: list[Group]) -> list[Group]:
        """Of more groups than a rollout has, over all ranks: those that teach, in their order, then the others."""
        everyone = sorted(gather_object([(not group.teaches, group.number) for group in groups]))
        if len(everyone) == self.plan.num_prompts:
            return groups
        kept = {number for _, number in everyone[: self.plan.num_prompts]}
        groups = [group for group in groups if group.number in kept]
        self.compare(groups)  # a batch's std is that of the batch
        return groups

    def balanced(self, groups: list[Group]) -> list[Group]:
        """The groups that this rank trains on: mini-batches by the order of prompts, each even in tokens over ranks."""
        me, ranks = self.accelerator.process_index, self.accelerator.num_processes
        order = sorted(gather_object([(group.number, self.cost(group), me) for group in groups]))
        places: dict[int, tuple[int, int]] = {}
        for part in range(self.plan.num_minibatches):
            numbers, costs, homes = zip(*order[part :: self.plan.num_minibatches])
            places |= {n: (part, rank) for n, rank in zip(numbers, assign_ranks(costs, homes, ranks))}
        for group in groups:
            group.part = places[group.number][0]
        if ranks == 1:
            return groups
        leaving = [dataclasses.replace(group, extra={}) for group in groups if places[group.number][1] != me]
        arriving = [group for group in gather_object(leaving) if places[group.number][1] == me]
        staying = [group for group in groups if places[group.number][1] == me]
        return sorted(staying + arriving, key=lambda group: group.number)

    def cost(self, group: Group) -> int:
        """Tokens that the update computes for it."""
        if not self.learns_from(group):
            return 0
        prompts = len(group.prompt_ids) * (1 if self.layout.share_prompts else len(group.completions))
        return prompts + sum(len(completion.token_ids) for completion in group.completions)

    def begin_ahead(self) -> RolloutAhead:
        """Sample and score the next rollout in the background, with the weights as they are now."""
        place = self.stream.state_dict()
        draws = self.my_draws(self.plan.num_prompts)
        self.sampler.refresh()
        state = copy.copy(self.state)  # as rewards shall see it, whenever the thread comes to them
        state.global_step += self.plan.num_updates

        def sample() -> list[Group]:
            groups = self.sample(self.train_dataset, draws, self.args.sampling_config, refresh=False)
            return keep_sampling_logprobs(numbered(groups, draws))

        def score(groups: list[Group], logged: dict[str, list[float]]) -> None:
            self.keep_scores(groups, self.begin_scoring(groups, logged, state=state)())

        return RolloutAhead(place, sample, score, self.accelerator.device)

    def total(self, counts: Sequence[int]) -> list[int]:
        """Sums over all ranks."""
        return self.accelerator.reduce(torch.tensor(counts, device=self.accelerator.device), "sum").tolist()

    def sample(
        self, dataset: Dataset, draws: Sequence[Draw], config: SamplingConfig, refresh: bool = True
    ) -> list[Group]:
        """Completions for these draws, decoded. refresh=False: with the weights as they were at `sampler.refresh()`."""
        rows = [dataset[draw.index] for draw in draws]
        prompts = [self.prompt_ids(row["prompt"]) for row in rows]
        seeds, most = [draw.seeds for draw in draws], self.args.max_sampling_rows
        completions = self.sampler.sample(prompts, seeds, config, most, refresh=refresh)
        tokenizer = self.processing_class
        return [
            Group(row, prompt, group, [tokenizer.decode(c.token_ids, skip_special_tokens=True) for c in group])
            for row, prompt, group in zip(rows, prompts, completions)
        ]

    def score(self, groups: Sequence[Group]) -> None:
        """Call every reward function once for all completions, and keep what each gave."""
        self.keep_scores(groups, self.begin_scoring(groups, self._logged)())

    def begin_scoring(
        self,
        groups: Sequence[Group],
        logged: dict[str, list[float]],
        background: bool = False,
        state: TrainerState | None = None,
    ) -> Callable[[], list]:
        """A call that gives every reward function's values for all completions of these groups, in order. They are
        computed from now on in the background, or else by that call. `logged` takes what they hand to log_metric.
        """
        flat = [(group, i) for group in groups for i in range(len(group.texts))]
        prompts = [group.row["prompt"] for group, _ in flat]
        completions = [
            _as_message(group.texts[i]) if isinstance(group.row["prompt"], list) else group.texts[i]
            for group, i in flat
        ]
        columns = {
            key: [group.row[key] for group, _ in flat]
            for key in (flat[0][0].row if flat else ())
            if key not in ("prompt", "completion")
        }
        columns["completion_ids"] = [group.completions[i].token_ids for group, i in flat]
        batch = (self.reward_funcs, prompts, completions, columns, self.args.on_reward_error)
        shared: dict[str, Any] = {
            "trainer_state": state or self.state,
            "log_metric": lambda name, value: logged[name].append(float(value)),
            "log_extra": lambda column, values: _store(groups, "extra", column, values),
        }
        if background:
            return score_later(*batch, **shared).result
        return functools.partial(score_all, *batch, **shared)

    def keep_scores(self, groups: Sequence[Group], scores: Sequence[Sequence[float | StepRewards | None]]) -> None:
        for name, values in zip(self.reward_names, scores):
            _store(groups, "rewards", name, [v.mean if isinstance(v, StepRewards) else v for v in values])
            _store(groups, "steps", name, [v if isinstance(v, StepRewards) else None for v in values])

    def compare(self, groups: Sequence[Group]) -> None:
        """Turn rewards into advantages. All ranks' rewards are seen, as `scale_rewards: batch` needs them.

        Completions are compared by the rewards of whole completions, and steps with the steps of their group.
        """
        names = self.reward_names
        local = [[group.rewards[name] for name in names] + [group.outcomes(name) for name in names] for group in groups]
        everyone = gather_object([(self.accelerator.process_index, local)])
        rows = [(rank, values) for rank, share in everyone for values in share]
        parts = torch.tensor(
            [[[math.nan if r is None else r for r in part] for part in values] for _, values in rows],
            dtype=torch.float64,
        ).transpose(0, 1)  # [2 x functions, prompts, completions]
        rewards, outcomes = parts.chunk(2)
        totals, live = combine_rewards(rewards, self.reward_weights)
        compared, judged = combine_rewards(outcomes, self.reward_weights)
        baseline = self.args.advantage_baseline
        advantages = group_advantages(compared, self.args.scale_rewards, judged, baseline=baseline)
        learns = teaches(compared, judged)
        mine = [i for i, (rank, _) in enumerate(rows) if rank == self.accelerator.process_index]
        for group, i in zip(groups, mine):
            group.totals, group.live = totals[i].tolist(), live[i].tolist()
            group.advantages, group.teaches = advantages[i].tolist(), bool(learns[i])
            steps, lengths = [group.steps[name] for name in names], [len(c.token_ids) for c in group.completions]
            tokens = token_advantages(group.advantages, steps, self.reward_weights, lengths, self.args.scale_rewards)
            group.token_advantages = tokens
            group.teaches |= any(a for row in tokens or () for a in row)

    def check_rewards(self, groups: Sequence[Group]) -> None:
        """Raises ValueError where no reward applied to any completion of the first rollout."""
        live, completions = self.total([sum(map(sum, (g.live for g in groups))), sum(len(g.live) for g in groups)])
        if not live and self.state.global_step == 0:
            raise ValueError(
                f"no reward ({', '.join(self.reward_names)}) applied to any of the {completions} completions of the "
                "first rollout, so nothing can be learned. A reward gives None where its columns are missing, its gold "
                "answer is unreadable or its `where` does not match, or where it raised and on_reward_error is 'mask' "
                f"(the log has the error); the data set's columns are {', '.join(self.train_dataset.column_names)}"
            )

    def keep_reference_logprobs(self, groups: Sequence[Group]) -> None:
        """Log-probs under the reference: a frozen copy, or with PEFT the base below the adapter."""
        if self.reference is not None:
            self.keep_logprobs(self.reference, groups, "ref_logprobs")
        else:
            with self.accelerator.unwrap_model(self.model).disable_adapter():
                self.keep_logprobs(self.model_wrapped, groups, "ref_logprobs")

    @torch.no_grad()
    def keep_logprobs(self, model: Any, groups: Sequence[Group], name: str) -> None:
        """Store each completion's token log-probs under `model` as `name` of its group."""
        for group in groups:
            setattr(group, name, [[] for _ in group.completions])
        for pack in self.pack_all(groups):
            with self.layers_compiled(), self.compute_loss_context_manager():
                logprobs = model(**pack.model_inputs, fused_lm_head=True).log_probs.float()
            for (g, c), row, scored in zip(pack.places, pack.by_completion(logprobs), pack.scored):
                getattr(groups[g], name)[c] = row[scored].tolist()

    @contextlib.contextmanager
    def layers_compiled(self) -> Iterator[None]:
        """Around passes over packs, backward passes too: checkpointing calls the layers once more there."""
        with contextlib.ExitStack() as stack:
            for layers in self.compiled_layers:
                stack.enter_context(layers.in_use())
            yield

    def pack_all(self, groups: Sequence[Group]) -> list[Pack]:
        """Every completion, for its log-probs."""
        pad, device = self.processing_class.pad_token_id, self.accelerator.device
        bare = [
            Group(
                g.row, g.prompt_ids, g.completions, g.texts, live=[True] * len(g.texts), advantages=[0.0] * len(g.texts)
            )
            for g in groups
        ]
        return self.padded(pack_groups(bare, self.max_tokens_per_pack, pad, device, layout=self.layout))

    def pack(self, groups: Sequence[Group]) -> list[Pack]:
        """The update's packs on the device."""
        pad, device = self.processing_class.pad_token_id, self.accelerator.device
        masked = self.args.mask_truncated_completions
        correction = bool(self.loss_config.vllm_importance_sampling_correction)
        packs = pack_groups(groups, self.max_tokens_per_pack, pad, device, masked, self.layout, correction)
        return self.padded(packs)

    def padded(self, packs: list[Pack]) -> list[Pack]:
        """With an empty pack where a rank has none; with sharded weights, which ranks gather together in every forward
        pass, as many as the rank with the most."""
        count = max(1, len(packs))
        if self.sharded:
            count = max(gather_object([count]))
        pad, device = self.processing_class.pad_token_id, self.accelerator.device
        return packs + [empty_pack(pad, device, self.layout) for _ in range(count - len(packs))]

    def learns_from(self, group: Group) -> bool:
        """False for a group without any gradient: equal rewards, and neither a KL nor an entropy bonus."""
        others = self.loss_config.beta > 0 or self.loss_config.entropy_coef != 0
        return group.teaches or others or not self.args.skip_equal_groups

    def count(self, groups: Sequence[Group]) -> Divisors:
        """What this update counts over all ranks. Groups that are left out of the packs count all the same."""
        masked = self.args.mask_truncated_completions
        update = torch.tensor(
            [sum(len(g.completions) for g in groups), _num_tokens(groups, masked)], device=self.accelerator.device
        )
        rollout = torch.tensor([_num_tokens(self.buffer.groups, masked)], device=self.accelerator.device)
        num_rows, num_tokens, rollout_tokens = self.accelerator.reduce(torch.cat([update, rollout]), "sum").tolist()
        return Divisors(
            num_rows=num_rows,
            num_tokens=num_tokens,
            rollout_tokens_per_update=rollout_tokens / self.plan.num_minibatches,
        )

    def with_last_synced(
        self, model: Any, packs: Sequence[Pack]
    ) -> Iterator[tuple[Pack, contextlib.AbstractContextManager]]:
        """Each pack with the context its backward runs in: gradients meet across ranks once, on the last pack."""
        state = self.accelerator.gradient_state
        for number, pack in enumerate(packs, start=1):
            last = number == len(packs)
            state._set_sync_gradients(last)  # DeepSpeed's backward steps where this is set
            yield pack, contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    # ------------------------------------------------------------------ what Trainer asks

    @property
    def sampler(self) -> Sampler | VLLMSampler:
        """Over the bare model, so that sampling never meets a wrapper; under mixed precision over a copy of it. With
        `use_vllm` an engine that gets its weights."""
        model = self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False)
        if self.args.use_vllm:
            return self._over_vllm(model)
        if self._sampler is None or self._sampler.policy is not model:
            self._sampler = Sampler(
                model,
                stop_tokens(model, self.processing_class),
                self.processing_class.pad_token_id,
                dtype=self.copied_dtype(model),
                compiled=self.args.compile_layers,
                bare=self._bare,
                device=self.accelerator.device,
            )
        return self._sampler

    def copied_dtype(self, model: PreTrainedModel) -> torch.dtype | None:
        """The dtype of the copy of the weights that is sampled from; None for the model itself."""
        on_gpu = self.accelerator.device.type == "cuda"
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        dtype = mixed if mixed is not None and on_gpu else model.dtype
        if dtype != model.dtype or self._bare is not None or self.args.rollouts_ahead:
            return dtype
        if not on_gpu:
            return None
        copied = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
        total = torch.cuda.get_device_properties(self.accelerator.device).total_memory
        return dtype if copied <= COPIED_MEMORY * total else None

    def _over_vllm(self, model: PreTrainedModel) -> VLLMSampler:
        tokenizer = self.processing_class
        if self._vllm_sampler is None:
            datasets = [self.train_dataset, self.eval_dataset]
            generation = start_generation(self.args, model, self.accelerator, tokenizer, datasets)
            self._vllm_sampler = VLLMSampler(
                generation, model, stop_tokens(model, tokenizer), lambda: self.state.global_step, self.sharded
            )
        self._vllm_sampler.policy = model
        return self._vllm_sampler

    def prompt_ids(self, prompt: str | list[dict]) -> list[int]:
        return encode_prompt(self.processing_class, prompt)

    def get_train_dataloader(self) -> DataLoader:
        """One item an update; what it trains on comes from the rollout buffer, which keeps its place in the data."""
        rollouts = max(1, math.ceil(len(self.train_dataset) / self.plan.num_prompts))
        updates: Any = range(rollouts * self.plan.num_updates)
        # A generator of its own: starting an epoch would draw from the global one, which dropout uses.
        return DataLoader(updates, collate_fn=lambda update: {"update": update}, generator=torch.Generator())

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> Any:
        """As Trainer's; True takes the newest whole checkpoint. One also restores the place in the prompts, the rollout
        in use and the reference."""
        self.args.ignore_data_skip = True  # the prompt stream knows its own place
        folder = latest_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if resume_from_checkpoint and folder is None:
            raise ValueError(f"{self.args.output_dir} holds no whole checkpoint to resume from; start without resuming")
        if folder:
            self.load_rollout_state(str(folder))
        return super().train(resume_from_checkpoint=str(folder) if folder else None, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Trainer's checkpoint plus the rollout state; a full disk costs the checkpoint, not the run."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with forgiving_disk(folder):
            self.save_rollout_state(folder)
            # Last, because trainer_state.json, which it ends with, marks a checkpoint as whole.
            super()._save_checkpoint(model, trial)

    def save_rollout_state(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A rollout ahead that broke costs this checkpoint nothing: its error comes up at its own step.
        broken = self.ahead is not None and self.ahead.failed()
        state = {
            "stream": self.ahead.place if self.ahead is not None and broken else self.stream.state_dict(),
            "buffer": self.buffer.state_dict(),
            "ahead": None if self.ahead is None or broken else self.ahead.state_dict(),
            "num_tokens": self.num_tokens,
            "metrics": {"sums": self._sums, "counts": self._counts},
        }
        (folder / STATE_FILE.format(rank=self.accelerator.process_index)).write_text(json.dumps(state))
        if self.args.sync_ref_model:
            # Sharded weights are gathered, for which it takes every rank.
            weights = self.accelerator.get_state_dict(self.reference) if self.accelerator.is_fsdp2 else None
            if self.accelerator.is_main_process:
                self.accelerator.unwrap_model(self.reference).save_pretrained(folder / "reference", state_dict=weights)

    def load_rollout_state(self, folder: str) -> None:
        """Raises ValueError when the checkpoint is not of this run's shape: ranks, data, batch settings."""
        path = Path(folder) / STATE_FILE.format(rank=self.accelerator.process_index)
        ranks = len(list(Path(folder).glob(STATE_FILE.format(rank="*"))))
        if ranks != self.accelerator.num_processes:
            raise ValueError(
                f"{folder} was written by {ranks} rank(s) and this run has {self.accelerator.num_processes}; "
                "resume with as many processes as the run that was cut off"
            )
        state = json.loads(path.read_text())
        self.stream.load_state_dict(state["stream"])
        self.buffer.load_state_dict(state["buffer"])
        self.ahead = RolloutAhead.from_state(state["ahead"]) if state.get("ahead") else None
        self.num_tokens = state["num_tokens"]
        self._sums = defaultdict(float, state["metrics"]["sums"])
        self._counts = defaultdict(int, state["metrics"]["counts"])
        if self.args.sync_ref_model:
            saved = load_policy(str(Path(folder) / "reference"), self.args)
            whole = StateDictOptions(full_state_dict=True)
            set_model_state_dict(self.accelerator.unwrap_model(self.reference), saved.state_dict(), options=whole)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean rewards on the evaluation set: `num_generations_eval` samples a prompt at R1's evaluation settings, and
        greedy. Keys: eval_rewards/<name>/mean, eval_greedy/<name>, eval_completions/mean_length."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if self.ahead is not None:
            self.ahead.failed()  # waits: it samples from the copy of the weights, which evaluation refreshes
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        k = self.args.num_generations_eval or self.args.num_generations
        stream = PromptStream(len(dataset), k, self.args.seed, shuffle=False)
        draws = stream.draw(len(dataset))[rank::ranks]
        greedy = SamplingConfig(max_new_tokens=self.args.max_completion_length, temperature=0)
        metrics = {}
        for kind, config, picked in (
            ("sampled", self.args.eval_sampling_config, draws),
            ("greedy", greedy, [Draw(draw.index, draw.seeds[:1]) for draw in draws]),
        ):
            groups = self.sample(dataset, picked, config)
            self.score(groups)
            lengths = gather_object([len(c.token_ids) for g in groups for c in g.completions])
            for name in self.reward_names:
                values = [v for v in gather_object([v for g in groups for v in g.rewards[name]]) if v is not None]
                key = f"rewards/{name}/mean" if kind == "sampled" else f"greedy/{name}"
                if values:  # a reward that judged none of these problems has no mean
                    metrics[f"{metric_key_prefix}_{key}"] = sum(values) / len(values)
            logged = self.take_logged()
            if kind == "sampled":
                metrics |= {f"{metric_key_prefix}_{name}": value for name, value in logged.items()}
                metrics[f"{metric_key_prefix}_completions/mean_length"] = sum(lengths) / max(len(lengths), 1)
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ------------------------------------------------------------------ what a run shows

    def record_rollout(self, groups: Sequence[Group], clock: RolloutClock) -> None:
        """Metrics of all that was sampled for a rollout, over all ranks, under TRL's names (docs/metrics.md)."""
        everyone = gather_object([summary(group) for group in groups])
        self.num_tokens += num_sampled_tokens(everyone)
        metrics = rollout_metrics(everyone, self.reward_names, clock) | {"num_tokens": self.num_tokens}
        if self.args.refill_prompts:
            metrics["refill/prompts"] = clock.refilled
        self.keep(metrics | self.take_logged())

    def take_logged(self) -> dict[str, float]:
        """What reward functions handed to `log_metric` since the last call: means over all ranks."""
        values: dict[str, list[float]] = defaultdict(list)
        for rank in gather_object([dict(self._logged)]):
            for name, logged in rank.items():
                values[name] += logged
        self._logged.clear()
        return {name: mean(values[name]) for name in sorted(values)}

    def record_update(self, statistics: dict[str, Tensor], seconds: float) -> None:
        """Metrics of an update, summed over packs and ranks before they are divided."""
        names = sorted(statistics)
        sums = self.accelerator.reduce(torch.stack([statistics[name].double() for name in names]), "sum").tolist()
        self.keep(update_metrics(dict(zip(names, sums))) | {"step_time": seconds, "time/update": seconds})

    def keep(self, metrics: dict[str, float]) -> None:
        """Hold metrics until the next log line, which shows their means."""
        for name, value in metrics.items():
            self._sums[name] += value
            self._counts[name] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log line with the metrics kept since the last one."""
        if self.train_dataset is not None:
            self.state.epoch = self.stream.epoch  # Trainer counts its own items, from 0 again after a resume
        if "loss" in logs:
            logs = logs | {name: self._sums[name] / self._counts[name] for name in self._sums}
            if "num_tokens" in logs:
                logs["num_tokens"] = self.num_tokens
            if "time/sample" in logs:
                logs["time/update"] -= (
                    (logs["time/sample"] + logs["time/score"])
                    * self._counts["time/sample"]
                    / self._counts["time/update"]
                )
            self._sums.clear()
            self._counts.clear()
        super().log(logs, start_time)

    def _call_on_rollout(self, groups: list[Group]) -> None:
        for callback in self.callback_handler.callbacks:
            if on_rollout := getattr(callback, "on_rollout", None):
                on_rollout(self.args, self.state, self.control, groups=groups)


def keep_sampling_logprobs(groups: list[Group]) -> list[Group]:
    """The policy that sampled will be gone, but it left its log-probs."""
    for group in groups:
        group.old_logprobs = [completion.logprobs for completion in group.completions]
    return groups


def numbered(groups: list[Group], draws: Sequence[Draw]) -> list[Group]:
    for group, draw in zip(groups, draws):
        group.number = draw.number
    return groups


def _as_message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _store(groups: Sequence[Group], field: str, name: str, values: Sequence) -> None:
    """Store one value a completion, over all groups in order, as `name` in this mapping of each group."""
    rest = iter(values)
    for group in groups:
        getattr(group, field)[name] = [next(rest) for _ in group.texts]


def _num_tokens(groups: Sequence[Group], mask_truncated: bool) -> int:
    """Trained tokens of these groups, of those that teach nothing too."""
    return sum(
        len(completion.token_ids)
        for group in groups
        for completion, trained in zip(group.completions, trained_mask(group, mask_truncated))
        if trained
    )
