"""Coq for the tests that need it, started once, and skipped where it is not installed."""

import os
import shutil
import time
from pathlib import Path

import pytest

from rewards.proofs import CoqBackend

PATIENCE = 20.0
"""Seconds for a script; a busy test machine does not reach it with an honest one."""


@pytest.fixture(scope="session")
def coq():
    if shutil.which("coqtop") is None:
        pytest.skip("Coq is not installed (Debian: apt-get install coq)")
    backend = CoqBackend(size=1, timeout=PATIENCE)
    yield backend
    backend.close()


@pytest.fixture
def is_running():
    """Whether a process lives; one that has ended and waits to be reaped does not. Waits for it to end, if told to."""

    def state(pid, within=0.0):
        end = time.monotonic() + within
        while True:
            try:
                alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except (FileNotFoundError, ProcessLookupError):
                return False
            if not alive or time.monotonic() >= end:
                return alive
            time.sleep(0.02)

    return state


@pytest.fixture
def children():
    """The processes that this one has started and that still live."""

    def pids():
        return {
            int(pid)
            for task in os.listdir("/proc/self/task")
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split()
        }

    return pids
