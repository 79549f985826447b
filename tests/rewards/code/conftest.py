"""Sandboxes for the tests, one a tier, started once."""

import pytest
from hostile_checks import make_world

from rewards.code import Sandbox, SandboxError


@pytest.fixture(scope="session")
def sandboxes():
    """A sandbox by tier; skips where this machine has not got it."""
    made = {}

    def get(tier):
        if tier not in made:
            made[tier] = Sandbox([tier])
        try:
            assert made[tier].tier == tier
        except SandboxError as error:
            pytest.skip(f"no tier {tier} here: {error}")
        return made[tier]

    yield get
    for sandbox in made.values():
        sandbox.close()


@pytest.fixture(scope="session")
def sandbox():
    """The strongest that this machine has."""
    strongest = Sandbox()
    yield strongest
    strongest.close()


@pytest.fixture
def world():
    with make_world() as world:
        yield world
