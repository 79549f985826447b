"""manifest.json and the hashes in it: whole or not there, told by content, quick the second time."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes import manifest as module
from recipes.manifest import HashCache, Manifest, ManifestError, machine, plain, write_atomically, write_json

ROOT = Path(__file__).resolve().parents[2]


def tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def aged(folder: Path) -> Path:
    """As if written a minute ago: hashes of files that were just written are not kept."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - 60,) * 2)
    return folder


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_a_file_s_hash_is_blake2b(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"r1" * 1_000_000)
    expected = hashlib.blake2b(b"r1" * 1_000_000, digest_size=20).hexdigest()
    found = HashCache().hash_path(path)
    assert (found.hash, found.files) == (expected, {"weights": expected})


def test_a_folder_s_hash_is_that_of_its_names_and_contents(tmp_path):
    files = {"model/a.safetensors": b"1", "model/deep/b.json": b"2"}
    base = HashCache().hash_path(tree(tmp_path / "base", files)).hash
    assert HashCache().hash_path(tree(tmp_path / "other", dict(reversed(files.items())))).hash == base
    for number, changed in enumerate(
        [
            files | {"model/a.safetensors": b"x"},
            {"model/a2.safetensors": b"1", "model/deep/b.json": b"2"},
            files | {"model/c": b""},
            {"model/a.safetensors": b"1"},
            {"model/a.safetensors": b"2", "model/deep/b.json": b"1"},
        ]
    ):
        assert HashCache().hash_path(tree(tmp_path / str(number), changed)).hash != base


def test_links_are_followed_once(tmp_path):
    """Weights of the Hub's cache are links; a link to a folder above must not run around for ever."""
    real = tree(tmp_path / "real", {"weights": b"1"})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "weights").symlink_to(real / "weights")
    assert HashCache().hash_path(linked).hash == HashCache().hash_path(real).hash
    (linked / "around").symlink_to(linked)
    assert list(HashCache().hash_path(linked).files) == ["weights"]


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        HashCache().hash_path(tmp_path / "nowhere")
    assert HashCache().hash_path(tmp_path).files == {}


def test_the_caches_beside_a_data_set_do_not_count(tmp_path):
    """datasets writes cache-*.arrow into the folder of a set that is read, and may draw its fingerprint at random."""
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"prompt": str(i), "n": i} for i in range(5)])
    rows.save_to_disk(tmp_path / "set")
    before = HashCache().hash_path(tmp_path / "set")
    loaded = datasets.load_from_disk(str(tmp_path / "set"))
    loaded.filter(lambda row: row["n"] > 2)
    assert len(list((tmp_path / "set").glob("cache-*"))) == 1
    assert HashCache().hash_path(tmp_path / "set") == before
    rows._fingerprint = "another"
    rows.save_to_disk(tmp_path / "again")
    assert HashCache().hash_path(tmp_path / "again").hash == before.hash
    rows.select(range(4)).save_to_disk(tmp_path / "fewer")
    assert HashCache().hash_path(tmp_path / "fewer").hash != before.hash


def test_a_second_look_reads_only_what_changed(tmp_path, monkeypatch):
    folder = aged(tree(tmp_path / "model", {"a": b"1", "b": b"2"}))
    read = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda path: read.append(path.name) or digest(path))
    cache = HashCache(tmp_path / "hashes.json")
    first = cache.hash_path(folder)
    cache.save()
    again = HashCache(tmp_path / "hashes.json")
    assert again.hash_path(folder) == first
    assert sorted(read) == ["a", "b"]
    (folder / "b").write_bytes(b"3")
    assert again.hash_path(folder).hash != first.hash
    assert sorted(read) == ["a", "b", "b"]


def test_a_hash_of_a_file_that_may_still_change_is_not_kept(tmp_path):
    """Two writes within a tick of the clock leave the same size and time."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    stamp = path.stat()
    cache = HashCache()
    first = cache.hash_path(path).hash
    path.write_bytes(b"2")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert cache.hash_path(path).hash != first


def test_a_broken_cache_costs_time_only(tmp_path):
    path = tmp_path / "hashes.json"
    folder = aged(tree(tmp_path / "model", {"a": b"1"}))
    for text in ("{", "[]", '{"x": 1}'):
        path.write_text(text)
        cache = HashCache(path)
        assert cache.hash_path(folder).hash == HashCache().hash_path(folder).hash
    cache.save()
    assert list(json.loads(path.read_text())) == [str((folder / "a").resolve())]
    shutil.rmtree(folder)
    other = aged(tree(tmp_path / "other", {"b": b"1"}))
    cache.hash_path(other)
    cache.save()
    assert list(json.loads(path.read_text())) == [str((other / "b").resolve())]


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_manifest_reads_back_as_it_was(tmp_path):
    written = Manifest(
        stage="sft", metrics={"loss": 0.25}, filters=[{"name": "mixed", "dropped": 3, "examples": ["안"]}]
    )
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written
    assert written.dropped == 3
    assert Manifest.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "text", ["", '{"stage": "sft", "sta', "[]", '{"stage": "sft"}', '{"stage": "sft", "status": "?"}']
)
def test_half_a_manifest_is_said_to_be_one(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=r"manifest\.json is no (whole )?manifest"):
        Manifest.read(tmp_path)


def test_what_json_lacks_becomes_plain(tmp_path):
    import numpy
    import torch

    value = {"a": float("inf"), "b": numpy.float32(0.5), "c": torch.tensor(3), "d": Path("x"), 4: (True, None)}
    assert plain(value) == {"a": None, "b": 0.5, "c": 3, "d": "x", "4": [True, None]}
    write_json(tmp_path / "x.json", {"text": "a lone \ud800 surrogate", "loss": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"text": "a lone \ud800 surrogate", "loss": None}


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_a_clear_message(tmp_path, monkeypatch, where):
    path = tmp_path / "manifest.json"
    write_atomically(path, "old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        real_open = Path.open

        def open_full(self, mode="r", **kwargs):
            file = real_open(self, mode, **kwargs)
            return _FullFile(file) if "w" in mode else file

        monkeypatch.setattr(Path, "open", open_full)
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"the disk is full, so manifest\.json of .* was not written; free some space"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["manifest.json"]


class _FullFile:
    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_of_the_disk_keep_their_own_message(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "nowhere/manifest.json", "x")
    assert "disk is full" not in str(caught.value)


def test_a_kill_never_leaves_half_a_manifest(tmp_path):
    """A process that rewrites a large manifest without a pause is killed again and again."""
    code = (
        "import sys; from pathlib import Path; from recipes.manifest import Manifest\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    Manifest(stage='s', notes=[str(number) * 200] * 500).write(Path(sys.argv[1]))\n"
    )
    for pause in (0.0, 0.003, 0.007, 0.011):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
        deadline = time.monotonic() + 60
        before = (tmp_path / "manifest.json").stat().st_mtime_ns if (tmp_path / "manifest.json").exists() else 0
        while not (tmp_path / "manifest.json").exists() or (tmp_path / "manifest.json").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        read = Manifest.read(tmp_path)
        assert len(set(read.notes)) == 1
        assert len(read.notes) == 500


# --- where it ran -----------------------------------------------------------------------------------------------------


def test_the_machine_is_told_without_starting_cuda():
    found = machine()
    assert found["cores"] >= 1
    assert found["versions"]["python"] == sys.version.split()[0]
    import torch

    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert not torch.cuda.is_initialized()


def test_the_engine_loads_without_torch():
    """The process that waits for a stage of hours holds nothing that the stage could use."""
    code = "import sys, recipes.pipeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
