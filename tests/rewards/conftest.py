"""Worker pools for the tests that need math-verify, started once: importing it takes longer than most of these
tests.
"""

import pytest

from rewards import WorkerPool

PATIENCE = 5.0
"""Seconds for one check: a busy test machine does not reach it with an honest answer."""


@pytest.fixture(scope="session")
def pool():
    workers = WorkerPool(size=2, timeout=PATIENCE)
    yield workers
    workers.close()


@pytest.fixture(scope="session")
def shared_single():
    workers = WorkerPool(size=1, timeout=PATIENCE)
    yield workers
    workers.close()


@pytest.fixture
def single(shared_single):
    """One warm worker, with an empty cache and the patient time-out, whatever the test before did to it."""
    shared_single.timeout = PATIENCE
    shared_single._cache.clear()
    return shared_single
