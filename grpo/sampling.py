"""Sampling completions: how a token is chosen, and completions with their log-probs for groups of prompts.

Plain transformers models, no server. Randomness belongs to the row, not to the batch: each completion draws from its
own stream of uniforms, so the same seed gives the same text whatever is sampled beside it, on one process or on many.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from grpo.attention import attends_by_lengths, cannot_share_prompts
from grpo.decoding import Decoder, bucket, compiled_once
from grpo.weights import WeightsCopy


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen. temperature 0 is greedy; top_k 0, top_p 1 and min_p None leave every token in."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    keep_mask: bool = False
    """Record which tokens were left in, at most top_k of them. It costs 4 x top_k bytes a sampled token, on the device
    while a rollout is sampled and in memory until it is used up: at top_k 64 a million tokens take 0.26 GB."""

    def __post_init__(self) -> None:
        if self.keep_mask and (self.top_k < 1 or self.temperature == 0):
            raise ValueError(
                "keep_sampling_mask needs top_k, which bounds what is stored of each token, and a temperature above 0; "
                f"got top_k {self.top_k} and temperature {self.temperature}"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_completion_length must be 1 or more, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}; 1 keeps every token")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, got {self.top_k}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1], got {self.min_p}")


@dataclass(frozen=True)
class Completion:
    """One sampled completion. `token_ids` ends with the stop token unless `truncated`."""

    token_ids: list[int]
    logprobs: list[float]
    """Log-prob in nats of each token under the distribution of the policy at `temperature`, before top-p and its kin
    cut it: what the trainer recomputes. With kept_ids: among those, which the trainer recomputes then."""
    truncated: bool
    """True when the length limit ended it, not a stop token."""
    kept_ids: Tensor | None = field(default=None, compare=False)
    """[T, top_k] int32, the tokens that sampling left in at each place, -1 in the room of the others; None unless asked
    for (SamplingConfig.keep_mask)."""


NUCLEUS_TOKENS = 64
"""Most probable tokens among which a CPU looks for the nucleus (top-p) before it sorts the vocabulary."""


def filter_logits(logits: Tensor, config: SamplingConfig) -> Tensor:
    """logits [B, V] -> [B, V], -inf where top-k, top-p (Holtzman et al. 2020) or min-p (2407.01082) drop a token."""
    if config.top_k and config.top_k < logits.shape[-1]:
        kth = logits.topk(config.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if config.min_p:
        floor = logits.max(dim=-1, keepdim=True).values + torch.tensor(config.min_p).log().item()
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if config.top_p < 1:
        logits = _nucleus(logits, config.top_p)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    probs = logits.softmax(dim=-1)
    size = probs.shape[-1]
    # On a CPU sorting the vocabulary would be a sixth of all sampling, and the nucleus is nearly always smaller.
    few = not probs.is_cuda and size > NUCLEUS_TOKENS
    ordered, index = probs.topk(NUCLEUS_TOKENS, dim=-1) if few else probs.sort(dim=-1, descending=True)
    if few and bool((ordered.sum(dim=-1) < top_p).any()):
        ordered, index = probs.sort(dim=-1, descending=True)
    # A token stays while the mass of those before it is below top_p, so the first always stays.
    keep = ordered.cumsum(dim=-1) - ordered < top_p
    return logits.masked_fill(~torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, keep), -torch.inf)


def choose_tokens(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Next tokens and their log-probs: logits [B, V], uniforms [B] in [0, 1) -> ([B], [B]).

    Inverse-CDF sampling: one uniform decides one token, whatever the batch around it.
    """
    logits = logits.float()
    if config.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, logits.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
    logits = logits / config.temperature
    logprobs = logits.log_softmax(dim=-1)
    tokens = _inverse_cdf(filter_logits(logits, config).softmax(dim=-1), uniforms)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def choose_kept_tokens(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """As choose_tokens: next tokens [B], their log-probs among the tokens kept [B], and those, [B, top_k] or V if less.

    Where tokens share the k-th place, exactly k are kept here.
    """
    filtered = filter_logits(logits.float() / config.temperature, config)
    left, ids = filtered.topk(min(config.top_k, filtered.shape[-1]), dim=-1)
    filtered = torch.full_like(filtered, -torch.inf).scatter(-1, ids, left)
    tokens = _inverse_cdf(filtered.softmax(dim=-1), uniforms)
    logprobs = filtered.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
    return tokens, logprobs, ids.masked_fill(left == -torch.inf, -1).int()


CDF_BLOCK = 4096
"""Tokens whose probabilities are summed up one by one; a larger vocabulary is cut into blocks of about its root."""


def _inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """probs [B, V], uniforms [B] -> [B], the first token at which the cumulative probability exceeds the uniform.

    First the block, then the token in it, as a running sum over a large vocabulary would cost more than all else here.
    """
    size = probs.shape[-1]
    width = size if size <= CDF_BLOCK else 512
    blocks = pad(probs, (0, -size % width)).unflatten(-1, (-1, width))  # [B, blocks, width]
    target = uniforms[:, None]
    block, target = _first_beyond(blocks.sum(dim=-1, dtype=torch.float64), target)
    within = blocks.gather(1, block[:, :, None].expand(-1, 1, width))[:, 0].double()
    token, _ = _first_beyond(within, target)
    return (block * width + token)[:, 0]


def _first_beyond(weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """weights [B, N] float64, share [B, 1] in [0, 1) -> index [B, 1] where their running sum first exceeds that share
    of the total, never one of weight zero; and the share of that weight which is left over, again in [0, 1)."""
    sums = weights.cumsum(dim=-1)
    target = share * sums[:, -1:]
    last = (sums < sums[:, -1:]).sum(dim=-1, keepdim=True)  # rounding must not carry past the last weight
    index = torch.minimum(torch.searchsorted(sums, target, right=True), last)
    weight = weights.gather(-1, index)
    left = (target - (sums.gather(-1, index) - weight)) / weight
    return index, left.clamp(0.0, 1 - 2**-53)


def row_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """[len(seeds), count] uniforms in [0, 1), a stream a row by its seed (made on the CPU: same on every device)."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


KEPT_MEMORY = 0.05
"""Share of a GPU's memory that a decoder's cache may hold between two calls; a larger one is given back."""


class Sampler:
    """Samples completions from a transformers causal language model.

    dtype: sample from a copy of the weights in this dtype, which follows the model's at every call; None samples from
    the model itself. bare, device: see grpo.weights.WeightsCopy. compiled: compile what a step does (None: on a GPU).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stop_token_ids: Sequence[int],
        pad_token_id: int,
        dtype: torch.dtype | None = None,
        compiled: bool | None = None,
        bare: PreTrainedModel | None = None,
        device: torch.device | None = None,
    ):
        self.policy = model
        self.copy = None if dtype is None else WeightsCopy(model, dtype, bare, device)
        self.collective = bare is not None
        """Whether every rank has to call `sample`, or `refresh`, together."""
        self.model = model if self.copy is None else self.copy.model
        self.stop_token_ids = list(stop_token_ids)
        self.pad_token_id = pad_token_id
        self.compiled = next(model.parameters()).is_cuda if compiled is None else compiled
        self.reason = cannot_share_prompts(self.model)
        """Why completions decode in padded batches, one after the other; None if they need not."""
        self.by_lengths = self.reason is None and attends_by_lengths(self.model)
        self._decoder: tuple[SamplingConfig, Decoder] | None = None
        self._lock = threading.Lock()

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

        `max_rows` bounds how many completions decode at once. `on_progress(done, total)` counts completions.
        refresh=False: from the copy of the weights as it is. Calls from several threads take turns.
        """
        with self._lock:
            if refresh:
                self.refresh()
            if not any(seeds):
                return [[] for _ in seeds]
            sample = self._sample_padded if self.reason else self._sample_rows
            with evaluating(self.model):
                return sample(prompt_ids, seeds, config, max_rows, on_progress)

    def refresh(self) -> None:
        """Let the copy of the weights, if there is one, follow the policy."""
        if self.copy is not None:
            self.copy.refresh()

    def release(self) -> None:
        """Give back the memory that the next call could have used again."""
        self._decoder = None

    def _sample_rows(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        config: SamplingConfig,
        max_rows: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> list[list[Completion]]:
        counts = [len(row) for row in seeds]
        uniforms = row_uniforms([seed for row in seeds for seed in row], config.max_new_tokens)
        jobs = [number for number, count in enumerate(counts) for _ in range(count)]
        columns = max(len(ids) for ids in prompt_ids) + config.max_new_tokens
        decoder = self._decoder_for(config, min(len(jobs), max_rows), columns)
        progress = None if on_progress is None else lambda done: on_progress(done, len(jobs))
        decoded = decoder.decode(prompt_ids, jobs, uniforms, progress)
        stops = set(self.stop_token_ids)
        stopped = [int(decoded.tokens[i, n - 1]) in stops for i, n in enumerate(decoded.lengths)]
        groups = _collect(decoded.tokens, decoded.logprobs, decoded.lengths, stopped, counts, decoded.kept)
        if decoder.memory_share > KEPT_MEMORY:
            self.release()
        return groups

    def _decoder_for(self, config: SamplingConfig, rows: int, columns: int) -> Decoder:
        """The last call's decoder where it serves this one too."""
        if self._decoder is not None:
            kept, decoder = self._decoder
            if kept == config and decoder.num_asked >= rows and columns <= decoder.num_columns <= 2 * columns:
                return decoder
            self._decoder = None  # before the next one takes its memory
        function = choose_kept_tokens if config.keep_mask else choose_tokens
        decoder = Decoder(
            self.model,
            self.stop_token_ids,
            functools.partial(compiled_once(function) if self.compiled else function, config=config),
            rows,
            bucket(columns),
            compiled=self.compiled,
            by_lengths=self.by_lengths,
            num_kept=min(config.top_k, self.model.config.get_text_config().vocab_size) if config.keep_mask else 0,
        )
        self._decoder = config, decoder
        return decoder

    def _sample_padded(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        config: SamplingConfig,
        max_rows: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> list[list[Completion]]:
        """For models whose cache is not plain keys and values (sliding windows, linear attention)."""
        groups: list[list[Completion]] = []
        total = sum(len(row) for row in seeds)
        for start, end in _batches([len(row) for row in seeds], max_rows):
            groups += self._sample_batch(prompt_ids[start:end], seeds[start:end], config)
            if on_progress:
                on_progress(sum(len(group) for group in groups), total)
        return groups

    def _sample_batch(
        self, prompt_ids: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], config: SamplingConfig
    ) -> list[list[Completion]]:
        device = next(self.model.parameters()).device
        counts = torch.tensor([len(row) for row in seeds])
        uniforms = row_uniforms([seed for row in seeds for seed in row], config.max_new_tokens).to(device)
        logits, cache, attention, positions = self._prefill(prompt_ids, counts, device)
        stops = torch.tensor(self.stop_token_ids, device=device)

        batch_size = len(uniforms)
        tokens = torch.full((batch_size, config.max_new_tokens), self.pad_token_id, device=device)
        logprobs = torch.zeros((batch_size, config.max_new_tokens), device=device)
        num_kept = config.top_k if config.keep_mask else 0
        kept = torch.full((batch_size, config.max_new_tokens, num_kept), -1, dtype=torch.int32, device=device)
        lengths = torch.full((batch_size,), config.max_new_tokens, device=device)
        stopped = torch.zeros(batch_size, dtype=torch.bool, device=device)
        live = torch.arange(batch_size, device=device)
        for step in range(config.max_new_tokens):
            choose = choose_kept_tokens if config.keep_mask else choose_tokens
            next_tokens, next_logprobs, *left = choose(logits, uniforms[live, step], config)
            if left:
                kept[live, step, : left[0].shape[1]] = left[0]
            tokens[live, step] = next_tokens
            logprobs[live, step] = next_logprobs.to(logprobs.dtype)
            ended = torch.isin(next_tokens, stops)
            if ended.any():
                lengths[live[ended]] = step + 1
                stopped[live[ended]] = True
                keep = (~ended).nonzero()[:, 0]
                if len(keep) == 0:
                    break
                live, next_tokens, positions, attention = (
                    live[keep],
                    next_tokens[keep],
                    positions[keep],
                    attention[keep],
                )
                cache.batch_select_indices(keep)
            if step + 1 == config.max_new_tokens:
                break
            positions = positions + 1
            attention = torch.cat([attention, attention.new_ones(len(live), 1)], dim=1)
            output = self.model(
                input_ids=next_tokens[:, None],
                attention_mask=attention,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            logits = output.logits[:, -1]
        masks = kept.cpu() if num_kept else None
        return _collect(tokens.cpu(), logprobs.cpu(), lengths.tolist(), stopped.tolist(), counts.tolist(), masks)

    def _prefill(
        self, prompt_ids: Sequence[Sequence[int]], counts: Tensor, device: torch.device
    ) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Run each prompt once, repeat its cache for its group: logits [B, V], cache, mask [B, T], positions [B]."""
        longest = max(len(ids) for ids in prompt_ids)
        padded = torch.full((len(prompt_ids), longest), self.pad_token_id)
        mask = torch.zeros((len(prompt_ids), longest), dtype=torch.long)
        for row, ids in enumerate(prompt_ids):
            padded[row, longest - len(ids) :] = torch.tensor(ids)
            mask[row, longest - len(ids) :] = 1
        padded, mask = padded.to(device), mask.to(device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(
            input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        repeat = torch.arange(len(prompt_ids), device=device).repeat_interleave(counts.to(device))
        cache = output.past_key_values
        cache.batch_select_indices(repeat)
        return output.logits[:, -1][repeat], cache, mask[repeat], positions[repeat, -1]


def _collect(
    tokens: Tensor,
    logprobs: Tensor,
    lengths: list[int],
    stopped: list[bool],
    counts: list[int],
    kept: Tensor | None = None,
) -> list[list[Completion]]:
    rows = [
        Completion(
            tokens[i, :n].tolist(),
            logprobs[i, :n].tolist(),
            truncated=not stopped[i],
            kept_ids=None if kept is None else kept[i, :n].clone(),
        )
        for i, n in enumerate(lengths)
    ]
    groups, start = [], 0
    for count in counts:
        groups.append(rows[start : start + count])
        start += count
    return groups


def _batches(sizes: Sequence[int], max_rows: int) -> Iterator[tuple[int, int]]:
    """Runs of whole groups, as many as fit in `max_rows` completions (at least one group)."""
    start, rows = 0, 0
    for index, size in enumerate(sizes):
        if index > start and rows + size > max_rows:
            yield start, index
            start, rows = index, 0
        rows += size
    if start < len(sizes):
        yield start, len(sizes)


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off; gradient checkpointing too, which acts in training mode alone."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
