"""Several processes (ranks): what their launchers leave to be done on a CPU, where mistakes are silent.

transformers forms a group of processes on a CPU only when it is told to use the CPU; otherwise every process trains
alone and takes itself for the first. And `accelerate launch` starts one process on a CPU, whatever its `num_processes`.
"""

from __future__ import annotations

import logging
import os

import torch

logger = logging.getLogger(__name__)

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the MPI launchers say how many processes they started."""


def num_launched() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return max(int(os.environ.get(name, 1)) for name in _COUNTS)


def prepare_ranks() -> None:
    """Let processes on a machine without GPUs form one group. Call it before any TrainingArguments are made."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if num_launched() > 1 and (accelerator is None or accelerator.type == "mps"):
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    if num_launched() == 1 and {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys():
        logger.warning(
            "one process runs, though accelerate launch was asked for more: on a CPU it starts one, whatever "
            "num_processes says; `--config_file recipes/accelerate/cpu_two_processes.yaml` starts two, and so does "
            "`torchrun --nproc_per_node 2`"
        )


def batches_each(batch_size: int, processes: int, rows_at_once: int = 1) -> int:
    """How many batches of `rows_at_once` each process goes through for an update of `batch_size` rows in all.

    >>> batches_each(128, processes=8, rows_at_once=4)
    4

    Raises ValueError where that is no whole number.
    """
    batches, rest = divmod(batch_size, processes * rows_at_once)
    if rest or batches < 1:
        raise ValueError(
            f"global_batch_size {batch_size} does not divide into {processes} process(es) with {rows_at_once} row(s) "
            f"at a time; set it to a multiple of {processes * rows_at_once}, or lower per_device_train_batch_size"
        )
    return batches


def check_ranks(world_size: int) -> None:
    """Raises ValueError when the processes that a launcher started did not become one group of `world_size`."""
    if world_size != num_launched():
        raise ValueError(
            f"the launcher started {num_launched()} processes and this one is in a group of {world_size}: each would "
            "train alone and write to the same folder; pass --use_cpu to train on CPUs, or start one process a GPU"
        )
