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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
SHORT = "tests/recipes/short.yaml"
ROWS = ["base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1", "student", "student-Zero", "distilled"]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "recipes.pipeline", "--config", SHORT, "--output_dir", str(folder)]


def run(folder: Path) -> None:
    done = subprocess.run(command(folder), cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def manifests(folder: Path) -> dict[str, Manifest]:
    found = {path.parent.name: Manifest.read(path.parent) for path in folder.glob("*/manifest.json")}
    return {name: manifest for name, manifest in found.items() if manifest}


def finished(folder: Path) -> dict[str, list]:
    """The attempts of the stages that are done."""
    return {name: found.attempts for name, found in manifests(folder).items() if found.status == "finished"}


def killed_once_more(folder: Path, took: dict[str, float], killed: set[str], moments: random.Random) -> bool:
    """Call the pipeline, and kill it at a random moment of the first stage that it begins or goes on with and that was
    not killed before; False when it ended first. All that ran then is among `killed`."""
    before = {name: len(found.attempts) for name, found in manifests(folder).items()}
    process = subprocess.Popen(command(folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        now = manifests(folder)
        new = [name for name in now if name not in killed and len(now[name].attempts) > before.get(name, 0)]
        if new:
            time.sleep(moments.uniform(0.0, took[new[0]]))
            killed |= {name for name, found in manifests(folder).items() if found.status == "running"}
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.05)
    assert process.returncode == 0
    return False


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
    took = {name: found.seconds for name, found in manifests(left_alone).items()}
    moments, killed, done = random.Random(0), set(), {}
    while killed_once_more(tmp_path, took, killed, moments):
        now = finished(tmp_path)
        assert {name: now[name] for name in done} == done
        done = now
    run(tmp_path)
    now = finished(tmp_path)
    assert {name: now[name] for name in done} == done
    assert now.keys() == finished(left_alone).keys()
    assert len(killed) > 0.7 * len(now)  # the others had finished by the time
    table = (tmp_path / "stages.json").read_text(encoding="utf-8")
    assert json.loads(table) == json.loads((left_alone / "stages.json").read_text(encoding="utf-8"))
