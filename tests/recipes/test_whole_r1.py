"""The whole of R1 and its student, shortened: it ends in its table, and a kill in every stage changes nothing in it."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.manifest import Manifest
from recipes.pipeline import load_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
SHORT = "tests/recipes/short.yaml"
ROWS = ["base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1", "student", "student-Zero", "distilled"]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "recipes.pipeline", "--config", SHORT, "--output_dir", str(folder)]


def run(folder: Path) -> None:
    done = subprocess.run(command(folder), cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def finished(folder: Path) -> dict[str, Manifest]:
    found = {path.parent.name: Manifest.read(path.parent) for path in folder.glob("*/manifest.json")}
    return {name: manifest for name, manifest in found.items() if manifest and manifest.status == "finished"}


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("left-alone")
    run(folder)
    return folder


def test_it_ends_in_a_table_and_a_page(left_alone):
    rows = json.loads((left_alone / "stages.json").read_text(encoding="utf-8"))
    assert [row["stage"] for row in rows] == ROWS
    for row in rows:
        assert all(0 <= row[name] <= 1 for name in ("reasoning", "format", "helpfulness", "harmlessness", "overall"))
    page = (left_alone / "report.html").read_text(encoding="utf-8")
    assert all(f">{stage}<" in page for stage in ROWS)


def test_a_kill_in_every_stage_changes_nothing(left_alone, tmp_path):
    """kill -9 at a random moment of each stage, then the same command again: what is done is not done again, and the
    table is, number for number, that of the run which was left alone."""
    moments = random.Random(0)
    before: dict[str, Manifest] = {}
    killed = []
    for stage in (stage.name for stage in load_pipeline(ROOT / SHORT).stages):
        process = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 600
        while Manifest.read(tmp_path / stage) is None and process.poll() is None:
            assert time.monotonic() < deadline, f"{stage} has not begun"
            time.sleep(0.05)
        took = Manifest.read(left_alone / stage).seconds
        time.sleep(moments.uniform(0.0, took))
        killed.append(Manifest.read(tmp_path / stage).status == "running")
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        done = finished(tmp_path)
        assert {name: done[name].attempts for name in before} == {name: m.attempts for name, m in before.items()}
        before = done
    assert sum(killed) > len(killed) / 2  # the others were finished by the time
    run(tmp_path)
    done = finished(tmp_path)
    assert {name: done[name].attempts for name in before} == {name: m.attempts for name, m in before.items()}
    assert done.keys() == finished(left_alone).keys()
    table = (tmp_path / "stages.json").read_text(encoding="utf-8")
    assert json.loads(table) == json.loads((left_alone / "stages.json").read_text(encoding="utf-8"))
