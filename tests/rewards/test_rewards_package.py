"""The package as a whole: light to import, honest docstrings, a command line."""

import doctest
import importlib
import pkgutil
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import rewards

ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in pkgutil.iter_modules(rewards.__path__) if module.name != "__main__"]


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_rewards_load_without_torch_or_sympy():
    heavy = {"torch", "transformers", "sympy", "math_verify", "numpy"}
    assert run("-c", f"import sys, rewards; sys.exit(bool({heavy} & set(sys.modules)))").returncode == 0


def test_rewards_load_in_half_a_second():
    """Processor time, so that a busy machine does not fail it; on an idle one it is the wall time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("-c", "import rewards")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5  # 0.15 s


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(f"rewards.{name}")).failed == 0


def test_everything_exported_exists():
    assert all(hasattr(rewards, name) for name in rewards.__all__)
    assert rewards.__all__ == sorted(
        rewards.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--gold", "42", "--answer", "42.0"], 0, "correct: the same number\nreward: 1.0"),
        (["--gold", "42", "--answer", "43"], 1, "wrong: 43 is not 42\nreward: 0.0"),
        (["--gold", "-3", "--answer=-3", "--task", "equations"], 0, "correct"),
        (["--gold", "17", "--answer", "3*4+5", "--task", "countdown", "--numbers", "3", "4", "5"], 0, "correct"),
        (
            ["--gold", "17", "--answer", "3*4", "--task", "countdown", "--numbers", "3", "4", "5"],
            1,
            "the numbers are [3, 4, 5]",
        ),
        (
            ["--gold", "", "--answer", "42"],
            1,
            "unreadable_gold: the gold answer is empty\nreward: none (the completion is masked)",
        ),
    ],
)
def test_command_line(arguments, code, says):
    done = run("-m", "rewards", "check", *arguments)
    assert (done.returncode, says in done.stdout) == (code, True), done


def test_command_line_without_arguments_explains_itself():
    done = run("-m", "rewards", "check")
    assert done.returncode == 2
    assert "--gold" in done.stderr
