"""The folders are the data flow: imports point one way, data <- rewards <- grpo <- recipes; the first two are light."""

import ast
import importlib.metadata
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "data": set(),
    "rewards": {"data"},
    "grpo": {"data", "rewards"},
    "recipes": {"data", "rewards", "grpo"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
PROTOCOL = {"RewardError", "RewardFunction", "StepRewards", "reward_name", "score_all", "score_later"}
"""What grpo may take from rewards: how a reward is called and what it returns, and no reward."""
HEAVY = {"torch", "transformers", "trl", "accelerate"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    """(module, name) of every import in a file, also inside functions; name is None for `import module`."""
    found = set()
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: -node.level]) + "." if node.level else ""
            found |= {(above + (node.module or ""), alias.name) for alias in node.names}
    return found


def imported_packages(package):
    return {module.split(".")[0] for path in modules(package) for module, _ in imports(path)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for path in modules(package):
        ours = {module.split(".")[0] for module, _ in imports(path)} & OURS - {package}
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[package]}"


def test_the_walk_sees_imports():
    """Else the test above would pass on an empty walk."""
    assert imported_packages("recipes") >= {"data", "rewards", "grpo"}
    assert ("rewards", "score_all") in imports(ROOT / "grpo" / "trainer.py")
    assert "torch" in imported_packages("grpo")


def test_grpo_names_no_reward_and_no_dataset():
    for path in modules("grpo"):
        for module, name in imports(path):
            if module.split(".")[0] == "rewards":
                assert name in PROTOCOL, f"{path.name} imports {name} of {module}; a recipe hands rewards in"
            assert module.split(".")[0] != "data", f"{path.name} imports {module}; a recipe hands problems in"


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_data_and_rewards_load_fast_and_without_torch():
    start = time.monotonic()
    python("pass")
    bare = time.monotonic() - start
    start = time.monotonic()
    loaded = python(f"import sys, data, rewards; print(*sorted({HEAVY} & set(sys.modules)))")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []
    assert time.monotonic() - start - bare < 1.5  # 0.1 s on an idle core


def test_no_module_of_data_or_rewards_brings_torch_along():
    """Not through another package either."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("data", "rewards")
        for path in modules(package)
        if not path.name.startswith("__")
    ]
    loaded = python(f"import sys, {', '.join(names)}; print(*sorted({HEAVY} & set(sys.modules)))")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []


def test_pyproject_lists_every_package_and_its_files():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for package in MAY_IMPORT for path in modules(package)}
    assert sorted(setuptools["packages"]) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)
    globs = [(package, glob) for package, globs in setuptools["package-data"].items() for glob in globs]
    shipped = {path for package, glob in globs for path in (ROOT / package.replace(".", "/")).glob(glob)}
    others = {
        path
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert sorted(others - shipped) == [], "files of a package that an installed copy would lack"


def test_no_folder_hides_the_datasets_library():
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name != "runs" and path.name[0] != "."]
    inside = [path for folder in folders for path in folder.rglob("datasets") if path.is_dir()]
    assert [path for path in folders + inside if path.name == "datasets"] == []


def test_no_recipe_hides_an_installed_package():
    """`python recipes/rl.py` puts recipes/ first on the path, so recipes/trl.py would be imported as trl."""
    installed = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names}
    assert {"torch", "trl", "json"} <= installed
    files = {path.stem for path in (ROOT / "recipes").glob("*.py") if not path.name.startswith("__")}
    packages = {path.parent.name for path in (ROOT / "recipes").glob("*/__init__.py")}  # a folder of YAML hides nothing
    assert files >= {"rl", "report"}
    assert (files | packages) & installed == set()
