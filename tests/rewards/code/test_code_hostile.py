"""Hostile programs: none gets out, none passes, none breaks anything, and the right ones pass beside them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hostile_checks
import hostile_programs as hostile
import pytest

from rewards.code.jail import TIERS

ROOT = Path(__file__).parents[3]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
NOBODY = 65534


def test_there_are_enough():
    banks = (
        hostile.FUNCTIONS,
        hostile.SLOW_FUNCTIONS,
        hostile.SCRIPTS,
        hostile.SLOW_SCRIPTS,
        hostile.CPP,
        hostile.SLOW_CPP,
    )
    assert sum(map(len, banks)) >= 120


@pytest.mark.parametrize("tier", TIERS)
def test_python(tier, world, sandboxes):
    """As the user who runs the tests, with and without namespaces, with and without Landlock."""
    hostile_checks.check_functions(hostile.FUNCTIONS, world, sandboxes(tier))
    hostile_checks.check_scripts(hostile.SCRIPTS, world, sandboxes(tier))


@pytest.mark.slow
@pytest.mark.parametrize("tier", TIERS)
def test_python_that_does_not_end(tier, world, sandboxes):
    hostile_checks.check_functions(hostile.SLOW_FUNCTIONS, world, sandboxes(tier))
    hostile_checks.check_scripts(hostile.SLOW_SCRIPTS, world, sandboxes(tier))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("tier", TIERS)
def test_cpp(tier, world, sandboxes):
    hostile_checks.check_cpp(hostile.CPP, world, sandboxes(tier))
    hostile_checks.check_cpp(hostile.SLOW_CPP, world, sandboxes(tier))


def python_of_everybody():
    """A Python that an ordinary user can run; ours may lie in a private home."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        probe = [
            python,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); assert sys.version_info >= (3, 11); import rewards.code",
        ]
        with_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        try:
            if subprocess.run(probe, **with_user, capture_output=True, cwd="/").returncode == 0:
                return python
        except OSError:
            continue
    return None


def test_as_an_ordinary_user():
    if os.getuid() != 0:
        pytest.skip("the tests above ran as one")
    python = python_of_everybody()
    if python is None:
        pytest.skip("no Python here that an ordinary user can run, or the project lies where they cannot read it")
    done = subprocess.run(
        [python, "-B", str(Path(hostile_checks.__file__)), "full", "landlock"],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"user {NOBODY}, tier landlock" in done.stdout
    assert "held: landlock" in done.stdout
    assert "held: full" in done.stdout or "no tier full" in done.stdout
