"""Runs of the tiny trainer, one after the other, on as many processes as the launcher starts.

    torchrun --nproc_per_node 2 distributed_run.py runs.json results.json

runs.json: {name: settings of tiny_trainer, and "resume": a checkpoint}; results.json: {name: what `run` returns}, by
rank 0.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object
from tiny import digits, metrics_of, tiny_dataset, tiny_trainer
from transformers import TrainerCallback


def equal_for_odd_problems(prompts, completions, number, **columns):
    """Problems with an odd number give every completion the same reward, so that nothing is learned from them."""
    return [share if n % 2 == 0 else 1.0 for share, n in zip(digits(prompts, completions), number)]


class Recorder(TrainerCallback):
    """After every step: the weights, and how many packs with something to learn this rank had in it."""

    def __init__(self, trainer):
        self.weights, self.packs, self.trainer = [], [], trainer
        pack = trainer.pack

        def counted(groups):
            packs = pack(groups)
            self.packs.append(sum(bool(p.places) for p in packs))
            return packs

        trainer.pack = counted

    def on_step_end(self, args, state, control, **kwargs):
        self.weights.append([p.detach().flatten().tolist() for p in self.trainer.model.parameters()])


def run(resume=None, equal=False, **settings):
    """Train and evaluate; packs [rank][step], metrics and weights a step, evaluation."""
    reward = equal_for_odd_problems if equal else digits
    trainer = tiny_trainer(rewards=reward, eval_dataset=tiny_dataset(["1+1=", "22-9=", "5="]), **settings)
    recorder = Recorder(trainer)
    trainer.add_callback(recorder)
    trainer.train(resume_from_checkpoint=resume)
    evaluation = {key: value for key, value in trainer.evaluate().items() if key.startswith("eval_")}
    return {
        "world_size": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        "packs": gather_object([recorder.packs]),
        "metrics": metrics_of(trainer),
        "weights": recorder.weights,
        "evaluation": evaluation,
    }


def main(runs_path, results_path):
    runs = json.loads(Path(runs_path).read_text())
    results = {name: run(**settings) for name, settings in runs.items()}
    if torch.distributed.get_rank() == 0:
        Path(results_path).write_text(json.dumps(results))
    torch.distributed.barrier()  # a rank that leaves while another still talks to it can abort at exit
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
