"""Our engine beside TRL's GRPOTrainer on the same work, in one run: the update pass, sampling, a whole step.

    python -m benchmarks.speed                                  (`make bench`; the shipped base on a CPU, 0.5B on a GPU)
    python -m benchmarks.speed --shape 1.5b --profile long --part update

Both get the same random model of a published shape (on a CPU the shipped base), the same prompts and completions, the
same dtype. TRL runs with its defaults (gradient checkpointing, micro-batches of 8, a dynamic cache), with the settings
that were fastest here (no checkpointing, micro-batches of 16, a static cache that is compiled), and where vLLM is
installed with vLLM colocated. With checkpointing our packs have no more tokens than TRL's micro-batch of 8. Times are
medians after a warm-up; GPUs and cores are shared, so read ratios. The last line is `ratios: update X sampling Y step
Z`: the update against TRL's without checkpointing, the others against its defaults.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import argparse
import gc
import importlib.util
import json
import math
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PrinterCallback, Qwen2Config

from grpo.config import GRPOConfig
from grpo.cpu import use_cores
from grpo.rollouts import Group
from grpo.sampling import Completion
from grpo.trainer import GRPOTrainer
from recipes.manifest import checkout_commit

SHAPES = {  # Qwen2.5's (arXiv:2412.15115, table 1; the models' config.json)
    "0.5b": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "intermediate_size": 4864},
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "intermediate_size": 8960},
}
PROFILES = {  # mean and largest completion in tokens; lognormal with sigma 0.6
    "short": (64, 128),
    "lognormal": (400, 1024),
    "long": (2500, 8192),
}
BASE = "data/base"
PROMPTS, GENERATIONS, PROMPT_TOKENS = 8, 8, 200
PARTS = ("update", "sampling", "step", "vllm")


@dataclass
class Row:
    """One line of the table."""

    part: str
    what: str
    seconds: float
    tokens: int
    peak_gib: float | None = None
    of_floor: float | None = None
    """The matrix products' time at the card's own rate, as a share of this row's."""
    error: str = ""
    samples: list[float] = field(default_factory=list)


class Bench:
    """Makes the work of one shape and profile, and times either side at it."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
        self.on_gpu = self.device.type == "cuda"
        self.shape = options.shape or ("0.5b" if self.on_gpu else "base")
        self.tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="left")
        self.folder = tempfile.mkdtemp()
        generator = torch.Generator().manual_seed(0)
        mean, longest = PROFILES[options.profile]
        if not self.on_gpu:
            longest = min(longest, 200)
            mean = min(mean, 60)
        vocabulary = self.config().vocab_size
        prompt_tokens = PROMPT_TOKENS if self.on_gpu else 50
        sigma = 0.6
        noise = torch.randn(PROMPTS * GENERATIONS, generator=generator) * sigma
        lengths = (noise + math.log(mean) - sigma**2 / 2).exp().round().clamp(8, longest).long().tolist()

        def ids(count: int) -> list[int]:
            return torch.randint(10, vocabulary, (count,), generator=generator).tolist()

        self.prompts = [ids(prompt_tokens) for _ in range(PROMPTS)]
        self.completions = [[ids(n) for n in lengths[p * GENERATIONS : (p + 1) * GENERATIONS]] for p in range(PROMPTS)]
        self.num_tokens, self.longest = sum(lengths), max(lengths)
        self.rows: list[Row] = []
        self.floor: float | None = None
        self.has_vllm = self.on_gpu and importlib.util.find_spec("vllm") is not None

    def config(self) -> Any:
        if self.shape == "base":
            return transformers.AutoConfig.from_pretrained(BASE)
        return Qwen2Config(
            vocab_size=151_936, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=32_768,
            use_sliding_window=False, bos_token_id=None, eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id, **SHAPES[self.shape],
        )  # fmt: skip

    def model(self) -> PreTrainedModel:
        """A fresh one, the same every time."""
        torch.manual_seed(0)
        if self.shape == "base":
            return AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(self.config(), dtype=torch.bfloat16)
        model.name_or_path = self.folder
        return model

    def save_model(self) -> None:
        """Where vLLM finds it."""
        self.model().save_pretrained(self.folder)
        self.tokenizer.save_pretrained(self.folder)

    def dataset(self) -> Dataset:
        """Prompts that the tokenizer turns into as many tokens as the work has."""
        count = len(self.prompts[0])
        text = self.tokenizer.decode(self.tokenizer("1+2=3 " * count)["input_ids"][:count])
        return Dataset.from_dict({"prompt": [text] * 64})

    # ------------------------------------------------------------------ the two sides

    def shared_settings(self) -> dict[str, Any]:
        return {
            "output_dir": self.folder, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
            "use_cpu": not self.on_gpu, "bf16": self.on_gpu, "num_generations": GENERATIONS, "logging_steps": 1,
            "max_completion_length": self.sampled_tokens, "learning_rate": 1e-6, "loss_type": "dapo",
            "temperature": 1.0, "top_p": 1.0, "top_k": 0,
        }  # fmt: skip

    @property
    def sampled_tokens(self) -> int:
        return self.options.tokens or (256 if self.on_gpu else 100)

    def ours(self, **settings: Any) -> GRPOTrainer:
        args = GRPOConfig(
            **self.shared_settings()
            | {"per_device_train_batch_size": PROMPTS * GENERATIONS, "gradient_checkpointing": False}
            | ({} if self.on_gpu else {"max_tokens_per_pack": 1024})
            | settings
        )
        trainer = GRPOTrainer(self.model(), some_rewards, args, self.dataset(), processing_class=self.tokenizer)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def theirs(self, best: bool, **settings: Any) -> Any:
        micro = 16 if best else 8
        args = trl.GRPOConfig(
            **self.shared_settings()
            | {
                "per_device_train_batch_size": micro,
                "gradient_accumulation_steps": PROMPTS * GENERATIONS // micro,
                "gradient_checkpointing": self.on_gpu and not best,
            }
            | ({"cache_implementation": "static"} if best and self.on_gpu else {})
            | settings
        )
        trainer = trl.GRPOTrainer(self.model(), some_rewards, args, self.dataset(), processing_class=self.tokenizer)
        trainer.remove_callback(PrinterCallback)
        return trainer

    # ------------------------------------------------------------------ the parts

    def update(self) -> None:
        """Forward and backward over completions that are there; all groups alive, and half of them dead."""
        for checkpointing in (False, True) if self.on_gpu else (False,):
            with_ = ", checkpointing" if checkpointing else ""
            for dead in (0, PROMPTS // 2):
                alive = f"{PROMPTS - dead}/{PROMPTS} groups alive"
                self.time("update", f"ours{with_}, {alive}", partial(self.our_update, dead, checkpointing))
        for name, settings in self.their_updates():
            self.time("update", name, partial(self.their_update, **settings))

    def their_updates(self) -> list[tuple[str, dict[str, Any]]]:
        settings = [("TRL, micro-batches of 8", {"micro": 8, "checkpointing": False})]
        if self.on_gpu:
            settings += [
                ("TRL, micro-batches of 16", {"micro": 16, "checkpointing": False}),
                ("TRL, micro-batches of 8, checkpointing", {"micro": 8, "checkpointing": True}),
            ]
        return settings

    def our_update(self, dead: int, checkpointing: bool) -> Callable[[], int]:
        tokens = {"max_tokens_per_pack": 8 * (PROMPT_TOKENS + self.longest)} if checkpointing else {}
        trainer = self.ours(gradient_checkpointing=checkpointing, **tokens)
        trainer.model.train()
        groups = [
            Group(
                row={}, prompt_ids=prompt, texts=[""] * GENERATIONS, live=[True] * GENERATIONS,
                completions=[Completion(ids, [0.0] * len(ids), False) for ids in completions],
                advantages=[(-1.0) ** c for c in range(GENERATIONS)], teaches=number >= dead,
            )
            for number, (prompt, completions) in enumerate(zip(self.prompts, self.completions))
        ]  # fmt: skip
        trainer.buffer.groups = groups
        if checkpointing:
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})

        def run() -> int:
            trainer.update(trainer.model, groups)
            trainer.model.zero_grad(set_to_none=True)
            return self.num_tokens

        return run

    def their_update(self, micro: int, checkpointing: bool) -> Callable[[], int]:
        trainer = self.theirs(best=not checkpointing)
        trainer.current_gradient_accumulation_steps = PROMPTS * GENERATIONS // micro
        trainer.model.train()
        if checkpointing:
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
        flat = [ids for group in self.completions for ids in group]
        padded = torch.zeros(len(flat), self.longest, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, ids in enumerate(flat):
            padded[row, : len(ids)], mask[row, : len(ids)] = torch.tensor(ids), 1
        prompts = torch.tensor([prompt for prompt in self.prompts for _ in range(GENERATIONS)])
        inputs = {
            "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": padded,
            "completion_mask": mask, "advantages": torch.tensor([(-1.0) ** row for row in range(len(flat))]),
        }  # fmt: skip
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        total = torch.tensor(self.num_tokens, device=self.device)

        def run() -> int:
            for start in range(0, len(flat), micro):
                batch = {name: value[start : start + micro] for name, value in inputs.items()}
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(trainer.model, batch | {"num_items_in_batch": total})
                trainer.accelerator.backward(loss)
            trainer.model.zero_grad(set_to_none=True)
            return self.num_tokens

        return run

    def sampling(self) -> None:
        """64 completions of a fixed length, and on a GPU 256."""
        for count in (64, 256) if self.on_gpu else (64,):
            self.time("sampling", f"ours, {count} rows", partial(self.our_sampling, count))
            for best in (False, True) if self.on_gpu and count == 64 else (False,):
                name = "best" if best else "defaults"
                self.time("sampling", f"TRL {name}, {count} rows", partial(self.their_sampling, count, best))

    def vllm(self) -> None:
        """Sampling and whole steps with vLLM colocated, on either side."""
        if not self.has_vllm:
            print("  vllm: not installed", flush=True)
            return
        self.save_model()
        settings = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.2}
        for count in (64, 256):
            self.time("sampling", f"TRL with vLLM, {count} rows", partial(self.their_sampling, count, True, **settings))
        self.steps("TRL with vLLM", lambda **s: self.theirs(True, **settings | s))
        self.steps("ours with vLLM", lambda **s: self.ours(**settings | s))

    def our_sampling(self, count: int) -> Callable[[], int]:
        trainer = self.ours()
        sampler, config = trainer.sampler, trainer.args.sampling_config
        prompts = (self.prompts * (count // GENERATIONS))[: count // GENERATIONS]
        seeds = [[1000 * p + c for c in range(GENERATIONS)] for p in range(len(prompts))]

        def run() -> int:
            groups = sampler.sample(prompts, seeds, config)
            return sum(len(completion.token_ids) for group in groups for completion in group)

        return run

    def their_sampling(self, count: int, best: bool, **settings: Any) -> Callable[[], int]:
        trainer = self.theirs(best, **settings)
        prompts = [self.prompts[p % PROMPTS] for p in range(count // GENERATIONS) for _ in range(GENERATIONS)]

        def run() -> int:
            trainer.model.train()
            completions, _ = trainer._generate_single_turn(prompts, None, {}, GENERATIONS)[:2]
            return sum(len(ids) for ids in completions)

        return run

    def step(self) -> None:
        """Whole training steps: sample, score, update, optimizer."""
        for name, make in (
            ("ours", lambda **s: self.ours(**s)),
            ("TRL defaults", lambda **s: self.theirs(False, **s)),
            *((("TRL best", lambda **s: self.theirs(True, **s)),) if self.on_gpu else ()),
        ):
            self.steps(name, make)

    def steps(self, name: str, make: Callable[..., Any]) -> None:
        def run() -> tuple[list[float], int]:
            clock = StepClock()
            trainer = make(max_steps=self.options.repeats + 2)
            trainer.add_callback(clock)
            trainer.train()
            lines = [line for line in trainer.state.log_history if "completions/mean_length" in line][2:]
            tokens = statistics.median(line["completions/mean_length"] for line in lines) * PROMPTS * GENERATIONS
            return clock.seconds[2:], round(tokens)

        self.measure("step", name, run)

    # ------------------------------------------------------------------ clocks and tables

    def time(self, part: str, what: str, make: Callable[[], Callable[[], int]]) -> None:
        def run() -> tuple[list[float], int]:
            once = make()
            tokens = once()  # compiles, and fills caches
            once()
            if self.on_gpu:
                torch.cuda.reset_peak_memory_stats()
            seconds = []
            for _ in range(self.options.repeats):
                self.wait()
                started = time.perf_counter()
                tokens = once()
                self.wait()
                seconds.append(time.perf_counter() - started)
            return seconds, tokens

        self.measure(part, what, run)

    def measure(self, part: str, what: str, run: Callable[[], tuple[list[float], int]]) -> None:
        print(f"  {part}: {what} …", flush=True)
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds, tokens = run()
            row = Row(part, what, statistics.median(seconds), tokens, samples=[round(s, 4) for s in seconds])
        except torch.OutOfMemoryError:
            row = Row(part, what, math.nan, 0, error="out of memory")
        except Exception as error:  # of theirs or of vLLM: the other rows are worth having
            row = Row(part, what, math.nan, 0, error=f"{type(error).__name__}: {error}"[:200])
        if self.on_gpu:
            row.peak_gib = torch.cuda.max_memory_allocated() / 2**30
        if part == "update" and self.floor is not None and "4/8" not in what:
            row.of_floor = self.floor / row.seconds
        self.rows.append(row)
        print(f"    {row.seconds * 1000:.0f} ms, {row.tokens / row.seconds:,.0f} tokens/s {row.error}", flush=True)
        self.write()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def measure_floor(self) -> float | None:
        """Seconds that the update's matrix products take at the card's own rate: 6 x parameters x tokens."""
        if not self.on_gpu:
            return None
        a = torch.randn(8192, 8192, device=self.device, dtype=torch.bfloat16)
        for _ in range(3):
            a @ a
        self.wait()
        started = time.perf_counter()
        for _ in range(10):
            a @ a
        self.wait()
        rate = 10 * 2 * 8192**3 / (time.perf_counter() - started)
        model = self.model()
        parameters = sum(p.numel() for p in model.parameters())
        embedding = model.get_input_embeddings().weight.numel()
        tokens = self.num_tokens + sum(len(prompt) - 1 for prompt in self.prompts)
        return 6 * ((parameters - embedding) * tokens + embedding * self.num_tokens) / rate

    def table(self) -> str:
        by_name = {(row.part, row.what): row for row in self.rows}
        lines = [
            f"{'part':9} {'what':46} {'median ms':>10} {'tokens/s':>10} {'peak GiB':>9} {'x TRL':>6} {'of floor':>8}"
        ]
        for row in self.rows:
            rows = row.what.rpartition(", ")[2]
            baselines = {
                "update": "TRL, micro-batches of 8",
                "sampling": f"TRL defaults, {rows}",
                "step": "TRL defaults",
            }
            base = by_name.get((row.part, baselines[row.part]))
            ratio = base.seconds / row.seconds if base else math.nan
            peak = "" if row.peak_gib is None else f"{row.peak_gib:.1f}"
            of_floor = "" if row.of_floor is None else f"{row.of_floor:.0%}"
            lines.append(
                f"{row.part:9} {row.what:46} {row.seconds * 1000:10.0f} {row.tokens / row.seconds:10,.0f} "
                f"{peak:>9} {ratio:6.2f} {of_floor:>8} {row.error}".rstrip()
            )
        return "\n".join(lines)

    def text(self) -> str:
        heading = (
            f"{self.shape} shape, {self.options.profile} completions "
            f"({self.num_tokens} tokens, longest {self.longest}), {PROMPTS} x {GENERATIONS}, "
            f"sampling {self.sampled_tokens} tokens a row\n"
            f"{hardware(self.device)}, torch {torch.__version__}, transformers {transformers.__version__}, "
            f"trl {trl.__version__}, commit {checkout_commit()}"
        )
        if self.floor is not None:
            heading += f"\nthe update's matrix products alone would take {self.floor * 1000:.0f} ms at this card's rate"
        return f"{heading}\n\n{self.table()}\n\n{self.ratios()}"

    def write(self) -> None:
        """After every row, so that a run that is cut off keeps those it has."""
        name = f"speed-{self.shape}-{self.options.profile}-{self.device.type}"
        if set(self.options.part) != set(PARTS):
            name += "-" + "-".join(self.options.part)
        self.options.out.mkdir(parents=True, exist_ok=True)
        (self.options.out / f"{name}.txt").write_text(self.text() + "\n", encoding="utf-8")
        record = {"heading": self.text().partition("\n\n")[0], "floor_seconds": self.floor}
        record["rows"] = [row.__dict__ for row in self.rows]
        (self.options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def ratios(self) -> str:
        by_name = {(row.part, row.what): row.seconds for row in self.rows}
        pairs = {
            "update": (f"ours, {PROMPTS}/{PROMPTS} groups alive", "TRL, micro-batches of 8"),
            "sampling": ("ours, 64 rows", "TRL defaults, 64 rows"),
            "step": ("ours", "TRL defaults"),
        }
        values = {
            part: by_name[part, theirs] / by_name[part, ours]
            for part, (ours, theirs) in pairs.items()
            if {(part, ours), (part, theirs)} <= by_name.keys()
        }
        return "ratios: " + " ".join(f"{part} {value:.2f}" for part, value in values.items())


class StepClock(transformers.TrainerCallback):
    """Seconds from the start of a step to its end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.wait()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.wait()
        self.seconds.append(time.perf_counter() - self.started)

    def wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def some_rewards(prompts: list, completions: list, **columns: Any) -> list[float]:
    """Different for siblings, so that every group is alive."""
    return [float(number % 2) for number in range(len(completions))]


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "base"], help="default: 0.5b on a GPU, the shipped base on a CPU")
    parser.add_argument("--profile", choices=PROFILES, default="lognormal", help="lengths of the update's completions")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each row, after the warm-up")
    parser.add_argument("--tokens", type=int, help="new tokens a row in sampling and steps")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, also where there is a GPU")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    bench = Bench(options)
    if not bench.on_gpu:
        use_cores()
    bench.floor = bench.measure_floor()
    for part in options.part:
        getattr(bench, part)()
    print(f"\n{bench.text()}")


if __name__ == "__main__":
    main()
