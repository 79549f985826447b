"""The decoding loop: many completions at once on a plain transformers model, and nothing computed that is not needed.

A prompt runs once, without its last token, and its keys and values are copied to the rows of its completions; every row
then begins with the prompt's last token. Each row has a column of its own, so prompts need no padding, a row that ends
makes room, and waiting prompts move in while the others go on. A step asks no question of the GPU: the host looks every
few steps which rows have ended. On CUDA devices a step is compiled and replayed as a CUDA graph, one for each size of
the batch; on a CPU it runs as it is, on just the rows that live and the columns that are filled.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from grpo.attention import RowLengths, finished_mask
from grpo.compiling import compiled_for_any_size

logger = logging.getLogger(__name__)

STEPS_BETWEEN_LOOKS = 16
"""Steps on a GPU between two looks at which rows have ended; a row runs on for half as many on average."""
PREFILL_TOKENS = 32_768
"""Prompt tokens that one forward pass prefills at most."""

Choose = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""(logits [B, V], uniforms [B]) -> (tokens [B], their log-probs [B]), and maybe the tokens that were kept, [B, K]."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What N jobs gave, in their order: [N, max_new_tokens] each, and how many tokens each job has, [N]."""

    tokens: Tensor
    logprobs: Tensor
    lengths: list[int]
    kept: Tensor | None = None
    """[N, max_new_tokens, K] int32, the tokens that each was chosen from, -1 for none; None unless asked for."""


class RowCache(Cache):
    """Keys and values of rows that stand at different columns: allocated once, written in place."""

    def __init__(self, prefilled: DynamicCache, num_rows: int, num_columns: int, by_lengths: bool = False):
        super().__init__(layers=[])

        def room(keys: Tensor, values: Tensor) -> Tensor:
            return keys.new_zeros(num_rows, num_columns, keys.shape[1], keys.shape[3] + values.shape[3])

        self.rooms = [room(layer.keys, layer.values) for layer in prefilled.layers]
        """A layer each, [rows, columns, heads, size of a key + size of a value]: one write a token."""
        self.key_size = prefilled.layers[0].keys.shape[3]
        device = self.rooms[0].device
        self.row_numbers = torch.arange(num_rows, device=device)
        self.column_numbers = torch.arange(num_columns, device=device)
        self.columns = torch.zeros(num_rows, dtype=torch.long, device=device)
        """Where the next token of each row goes."""
        self.visible = self.column_numbers
        """As many columns as attention looks at, by their numbers."""
        self.by_lengths = by_lengths
        """Whether attention goes by the rows' lengths rather than by a mask."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token a row, [B, heads, 1, size], and give the first B rows up to the visible columns."""
        count, end = key_states.shape[0], self.visible.shape[0]
        room = self.rooms[layer_idx]
        room[self.row_numbers[:count], self.columns[:count]] = torch.cat([key_states, value_states], dim=-1)[:, :, 0]
        states = room[:count, :end].transpose(1, 2)
        return states[..., : self.key_size], states[..., self.key_size :]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are given with every call

    def fill(self, prefilled: DynamicCache, prompts: Tensor, rows: slice) -> None:
        """Copy prompt `prompts[i]` of a prefilled cache into the i-th of `rows`."""
        for room, layer in zip(self.rooms, prefilled.layers):
            states = torch.cat([layer.keys, layer.values], dim=-1)
            room[rows, : states.shape[2]] = states[prompts].transpose(1, 2)

    def move(self, sources: Tensor, rows: Tensor, end: int) -> None:
        """Move rows, up to column `end`."""
        for room in self.rooms:
            room[rows, :end] = room[sources, :end]
        self.columns[rows] = self.columns[sources]


class _State:
    """What a step reads and writes, a row of the batch or a job each. The tensors stay where they are, as CUDA graphs
    need them to."""

    def __init__(self, num_rows: int, num_jobs: int, max_new_tokens: int, device: torch.device, num_kept: int = 0):
        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.tokens = zeros(num_rows)
        """The token that each row reads next."""
        self.owners = zeros(num_rows)
        """The job that each row works on."""
        self.generated = zeros(num_rows)
        """Tokens that each row has generated."""
        self.ended = torch.ones(num_rows, dtype=torch.bool, device=device)
        self.uniforms = zeros(num_jobs, max_new_tokens, dtype=torch.float64)
        # One column more, which takes what rows write that have ended.
        self.out_tokens = zeros(num_jobs, max_new_tokens + 1)
        self.out_logprobs = zeros(num_jobs, max_new_tokens + 1, dtype=torch.float32)
        self.out_kept = zeros(num_jobs, max_new_tokens + 1, num_kept, dtype=torch.int32) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(jobs, new tokens of each)"""
        return self.uniforms.shape[0], self.uniforms.shape[1]

    def move(self, sources: Tensor, rows: Tensor) -> None:
        for column in (self.tokens, self.owners, self.generated, self.ended):
            column[rows] = column[sources]


class Decoder:
    """Decodes up to `num_rows` completions at once, each with room for `num_columns` tokens, its prompt included.

    compiled: compile the forward pass. by_lengths: the model attends through `packed_attention` in a precision that
    FlashAttention takes, so a step needs no mask. The rows are as many as fit into half of the free memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stop_token_ids: Sequence[int],
        choose: Choose,
        num_rows: int,
        num_columns: int,
        compiled: bool = False,
        by_lengths: bool = False,
        num_kept: int = 0,
    ):
        self.model = model
        self.by_lengths = by_lengths
        self.num_kept = num_kept
        """Most tokens that one is chosen from, as `choose` says then; 0: it does not."""
        self.device = next(model.parameters()).device
        self.on_gpu = self.device.type == "cuda"
        self.stops = torch.tensor(list(stop_token_ids), device=self.device)
        self.num_rows, self.num_columns = num_rows, num_columns
        self.num_asked = num_rows
        """Rows that were asked for; `num_rows` is lower where the memory does not hold as many."""
        self.next_logits = compiled_once(next_logits) if compiled else next_logits
        self.choose = choose
        self.cache: RowCache | None = None
        self.state = _State(num_rows, 0, 1, self.device)
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self.graph_memory = torch.cuda.graph_pool_handle() if self.on_gpu else None

    @torch.no_grad()
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        jobs: Sequence[int],
        uniforms: Tensor,
        on_progress: Callable[[int], None] | None = None,
    ) -> Decoded:
        """One completion a job: jobs [N] are the numbers of their prompts, uniforms [N, max_new_tokens] in [0, 1) their
        randomness. `on_progress(done)` counts jobs as they end."""
        count = len(uniforms)
        if count > self.state.shape[0] or uniforms.shape[1] != self.state.shape[1]:
            self.state = _State(self.num_rows, bucket(count), uniforms.shape[1], self.device, self.num_kept)
            self.graphs.clear()
        if self.cache is None:
            self.cache = self._make_cache(prompts)
        self.state.uniforms[:count].copy_(uniforms)
        self.state.ended.fill_(True)
        run = _Run(self, prompts, jobs)
        while run.admit() or run.live:
            run.advance()
            if run.retire() and on_progress:
                on_progress(len(jobs) - len(run.waiting) - len(run.live))
        state = self.state
        kept = state.out_kept[:, :-1].cpu() if self.num_kept else None
        tokens, logprobs = state.out_tokens[:count, :-1].cpu(), state.out_logprobs[:count, :-1].cpu()
        return Decoded(tokens, logprobs, run.lengths, kept)

    def _make_cache(self, prompts: Sequence[Sequence[int]]) -> RowCache:
        """As many rows as were asked for, or as the free memory of the GPU holds."""
        sample = self.prefill([min(prompts, key=len)])
        if self.on_gpu:
            column = sum(layer.keys[:, :, :1].nbytes + layer.values[:, :, :1].nbytes for layer in sample.layers)
            free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
            free -= torch.cuda.memory_allocated(self.device)
            fitting = max(1, free // 2 // (column * self.num_columns))
            if fitting < self.num_rows:
                logger.warning(
                    "%d completions of up to %d tokens do not fit into the free memory; %d decode at once",
                    self.num_rows, self.num_columns, fitting,
                )  # fmt: skip
                self.num_rows = fitting
        return RowCache(sample, self.num_rows, self.num_columns, self.by_lengths)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> DynamicCache:
        """Keys and values of prompts without their last token, padded on the right, where no real token looks."""
        width = max(1, *(len(ids) - 1 for ids in prompts))
        padded = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, ids in enumerate(prompts):
            kept = list(ids[:-1] or ids)  # of a prompt of one token, the first step writes the column again
            padded[row, : len(kept)] = torch.tensor(kept)
        cache = DynamicCache()
        self.model(input_ids=padded.to(self.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    @property
    def memory_share(self) -> float:
        """Share of the GPU's memory that the cache takes; 0 on a CPU."""
        if not self.on_gpu or self.cache is None:
            return 0.0
        total = torch.cuda.get_device_properties(self.device).total_memory
        return sum(room.nbytes for room in self.cache.rooms) / total

    def step(self, count: int, end: int) -> None:
        """One token for the first `count` rows, which all stand below column `end`."""
        state, cache = self.state, self.cache
        assert cache is not None
        tokens, owners, generated, ended, columns = (
            column[:count] for column in (state.tokens, state.owners, state.generated, state.ended, cache.columns)
        )
        max_new_tokens = state.uniforms.shape[1]
        cache.visible = cache.column_numbers[:end]
        logits = self.next_logits(self.model, tokens, columns, cache)
        chosen, logprobs, *kept = self.choose(logits, state.uniforms[owners, generated.clamp(max=max_new_tokens - 1)])
        place = generated.masked_fill(ended, max_new_tokens)
        state.out_tokens[owners, place] = chosen
        state.out_logprobs[owners, place] = logprobs
        if kept:
            state.out_kept[owners, place, : kept[0].shape[1]] = kept[0]
        going = (~ended).long()
        generated += going
        columns += going
        ended |= torch.isin(chosen, self.stops) | (generated >= max_new_tokens)
        tokens.copy_(chosen)

    def visible_columns(self, end: int) -> int:
        """A size of graph that reaches column `end`; one for all where attention goes by the rows' lengths."""
        assert self.cache is not None
        return self.num_columns if self.cache.by_lengths else min(bucket(end), self.num_columns)

    def replay(self, count: int, end: int, steps: int) -> None:
        """`steps` steps from the CUDA graph of this size; recorded at its first use."""
        if (count, end) not in self.graphs:
            self.graphs[count, end] = self._record(count, end)
        for _ in range(steps):
            self.graphs[count, end].replay()

    def _record(self, count: int, end: int) -> torch.cuda.CUDAGraph:
        """Recording runs a step or two for real, whose traces in the state are wiped out afterwards."""
        state, cache = self.state, self.cache
        assert cache is not None
        kept = [column.clone() for column in (state.tokens, state.generated, state.ended, cache.columns)]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self.step(count, end)  # compiles, and makes the libraries' work spaces, before the recording
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self.graph_memory, capture_error_mode="thread_local"
        ):  # one at a time runs, so they can share
            self.step(count, end)
        for column, values in zip((state.tokens, state.generated, state.ended, cache.columns), kept):
            column.copy_(values)
        return graph


def next_logits(model: PreTrainedModel, tokens: Tensor, columns: Tensor, cache: RowCache) -> Tensor:
    """Logits [B, V] after one more token a row, [B], at its column, [B]."""
    if cache.by_lengths:
        rows = RowLengths.of(columns, model.config.get_text_config().num_attention_heads, *cache.rooms[0].shape[1:3])
        sight = {"attention_mask": finished_mask(tokens.device), "row_lengths": rows}
    else:
        sight = {"attention_mask": (cache.visible <= columns[:, None])[:, None, None]}
    output = model(
        input_ids=tokens[:, None], position_ids=columns[:, None], past_key_values=cache, use_cache=True, **sight
    )
    return output.logits[:, -1]


compiled_once = functools.cache(compiled_for_any_size)
"""Whichever decoder calls it."""


class _Run:
    """One call of `decode`: which jobs wait, and which rows live."""

    def __init__(self, decoder: Decoder, prompts: Sequence[Sequence[int]], jobs: Sequence[int]):
        self.decoder, self.prompts, self.jobs = decoder, prompts, jobs
        self.waiting = deque(range(len(jobs)))
        self.live: list[int] = []
        """The jobs of rows 0, 1, …"""
        self.columns: list[int] = []
        """Where these rows stand, or would if they had not ended since the last look."""
        self.lengths = [0] * len(jobs)

    def admit(self) -> bool:
        """Let jobs move in where a fourth of the rows is free, or none lives. True if any did."""
        free = self.decoder.num_rows - len(self.live)
        if not self.waiting or (self.live and free < max(1, self.decoder.num_rows // 4)):
            return False
        by_prompt: dict[int, list[int]] = {}
        for _ in range(min(free, len(self.waiting))):
            job = self.waiting.popleft()
            by_prompt.setdefault(self.jobs[job], []).append(job)
        widest = max(len(self.prompts[number]) for number in by_prompt)
        numbers, at_once = list(by_prompt), max(1, PREFILL_TOKENS // widest)
        for start in range(0, len(numbers), at_once):
            self._move_in({number: by_prompt[number] for number in numbers[start : start + at_once]})
        return True

    def _move_in(self, by_prompt: dict[int, list[int]]) -> None:
        decoder, state = self.decoder, self.decoder.state
        prompts = [self.prompts[number] for number in by_prompt]
        prefilled = decoder.prefill(prompts)
        sources = [i for i, jobs in enumerate(by_prompt.values()) for _ in jobs]
        rows = slice(len(self.live), len(self.live) + len(sources))
        self.live += [job for jobs in by_prompt.values() for job in jobs]
        self.columns += [len(prompts[i]) - 1 for i in sources]
        cache = decoder.cache
        assert cache is not None
        cache.fill(prefilled, self._tensor(sources), rows)
        cache.columns[rows] = self._tensor(self.columns[rows])
        state.tokens[rows] = self._tensor([prompts[i][-1] for i in sources])
        state.owners[rows] = self._tensor(self.live[rows])
        state.generated[rows] = 0
        state.ended[rows] = False

    def advance(self) -> None:
        """One step on a CPU; on a GPU as many as pass between two looks."""
        decoder = self.decoder
        if decoder.on_gpu:
            steps = STEPS_BETWEEN_LOOKS
            rows = min(bucket(len(self.live)), decoder.num_rows)
            decoder.replay(rows, decoder.visible_columns(max(self.columns) + steps), steps)
        else:
            steps = 1
            decoder.step(len(self.live), max(self.columns) + 1)
        self.columns = [column + steps for column in self.columns]

    def retire(self) -> bool:
        """Note the length of what has ended, and move the last rows into its place. True if anything has."""
        state, count = self.decoder.state, len(self.live)
        ended = state.ended[:count].tolist()
        if not any(ended):
            return False
        generated = state.generated[:count].tolist()
        for row in range(count):
            if ended[row]:
                self.lengths[self.live[row]] = generated[row]
        left = ended.count(False)
        holes = [row for row in range(left) if ended[row]]
        movers = [row for row in range(left, count) if not ended[row]]
        if holes:
            sources, rows = self._tensor(movers), self._tensor(holes)
            state.move(sources, rows)
            assert self.decoder.cache is not None
            self.decoder.cache.move(sources, rows, min(max(self.columns), self.decoder.num_columns))
        state.ended[left:count] = True
        for hole, mover in zip(holes, movers):
            self.live[hole], self.columns[hole] = self.live[mover], self.columns[mover]
        del self.live[left:], self.columns[left:]
        return True

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self.decoder.device)


def bucket(size: int) -> int:
    """The next size of the form 2^n or 3 * 2^n: few graphs, and at most half as much again in each.

    >>> [bucket(n) for n in (1, 3, 5, 9, 13, 33, 49, 200)]
    [1, 3, 6, 12, 16, 48, 64, 256]
    """
    power = 1 << max(0, size - 1).bit_length()
    return power * 3 // 4 if power >= 4 and size <= power * 3 // 4 else power
