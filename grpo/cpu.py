"""Settings that make small models fast on CPU cores, shared ones too.

Freed memory is kept (here), and an idle OpenMP thread spins for some microseconds before it sleeps (GOMP_SPINCOUNT in
recipes/__init__.py, since OpenMP reads it when torch loads): its default spins for long, which starves whoever shares
the cores, and not spinning at all pays for a wake-up in each of the thousands of small operations of a small model.
docs/cpu.md has measurements. Neither setting changes a number that is computed.
"""

from __future__ import annotations

import ctypes
import os
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def keep_freed_memory() -> None:
    """Let glibc keep what torch frees, instead of returning it and faulting it in again at the next tensor."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        largest = 2**31 - 1
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_MMAP_THRESHOLD, largest)
        mallopt(_M_TRIM_THRESHOLD, largest)


def use_cores(threads: int | None = None) -> None:
    """Give torch `threads` threads; None takes the cores this process may use, at most 8. For a process on its own CPU:
    several ranks share the cores by what their launcher set."""
    keep_freed_memory()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or min(8, available))
