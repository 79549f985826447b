"""VLLMSampler on two ranks over stand-ins for a server and for an engine that spans both: {mode}-{rank}.json.

torchrun --nproc_per_node 2 vllm_run.py
"""

import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from test_vllm import CONFIG, PROMPTS, SEEDS, Engine, logprobs_of
from tiny import EOS, tiny_dataset, tiny_model, tiny_tokenizer

from grpo.evaluation import Judge, Protocol, evaluate_policy
from grpo.vllm import VLLMSampler


class Spanning(Engine):
    """As VLLMGeneration with tensor parallelism: every rank gives as many prompts, computes all rows, keeps its own."""

    draws = ()

    def generate(self, prompts, images, num_generations):
        shares = gather_object([prompts])
        assert len({len(share) for share in shares}) == 1
        self.draws = torch.get_rng_state().tolist()[:64]
        start = self.accelerator.process_index * len(prompts)
        rows = super().generate([ids for share in shares for ids in share], images, num_generations)
        return tuple(part[start : start + len(prompts)] for part in rows)


def sample(mode, rank):
    sampler = VLLMSampler(Spanning(tiny_model(), mode), tiny_model(), [EOS], step=lambda: 0)
    assert sampler.collective
    sizes, differences = [], []
    for shares in (([(0, 4), (1, 4)], []), ([(0, 4)], [(1, 2), (2, 4)])):
        prompts = [PROMPTS[number] for number, _ in shares[rank]]
        seeds = [[seed + 100 * len(sizes) for seed in SEEDS[number][:count]] for number, count in shares[rank]]
        groups = sampler.sample(prompts, seeds, CONFIG)
        sizes.append([len(group) for group in groups])
        for prompt, group in zip(prompts, groups):
            for completion in group:
                expected = logprobs_of(sampler.policy, prompt, completion.token_ids, 1.0)
                differences += [abs(a - b) for a, b in zip(expected, completion.logprobs)]
    draws = list(sampler.generation.draws)
    # Held-out problems are the main process's; the others lend a hand.
    problems = tiny_dataset(["1+2=", "9="]).select(range(2) if rank == 0 else [])
    right = lambda prompts, completions, **columns: [1.0] * len(completions)  # noqa: E731
    judge = Judge(correct=right, lenient=right, formatted=right, answer_key=lambda text, row: text)
    protocol = Protocol(k=3, max_completion_length=6)
    measured = len(evaluate_policy(sampler, tiny_tokenizer(), problems, judge, protocol))
    return {"sizes": sizes, "differences": differences, "draws": draws, "measured": measured}


if __name__ == "__main__":
    number = Accelerator(cpu=True).process_index
    for kind in ("server", "colocate"):
        Path(f"{kind}-{number}.json").write_text(json.dumps(sample(kind, number)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
