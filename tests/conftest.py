"""What all tests share: no network, one thread, and the tiny model of tiny.py for those that ask for it."""

import gc
import os

import pytest
from hypothesis import settings

# The same examples every time, and no clock: shared machines stall.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

# Before torch loads. Matrices this small are slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_finish(session):
    """All that is loaded lives to the end: a garbage collection that walks it costs half a second, in any test."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tokenizer():
    from tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture
def make_trainer(tmp_path):
    """tiny.tiny_trainer with a run folder of its own: make_trainer(model=…, rewards=…, any setting of GRPOConfig)."""
    from tiny import tiny_trainer

    return lambda folder="run", **settings: tiny_trainer(tmp_path / folder, **settings)
