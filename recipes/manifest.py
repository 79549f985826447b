"""What a stage of the pipeline read, did and wrote, in one file that a kill cannot cut short: manifest.json.

Files are told apart by their content: BLAKE2b of every file, and of a folder the hash over its files' names and hashes.
A hash is kept with the file's size and time of change (`HashCache`), so that a second call reads only what changed; a
file that is changed in place while both stay the same is taken for unchanged, as by make, rsync and git.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import time
import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from grpo.checkpoints import is_disk_full
from recipes.hints import fits, readable

MANIFEST = "manifest.json"
STATUSES = ("running", "finished", "interrupted", "failed")
PASSED_OVER = ("cache-*.arrow", "tmp*.arrow", "training_args.bin", "*.lock", "*.partial", "__pycache__", ".cache")
"""Names in a folder that say nothing of what it holds: caches that `datasets` puts beside a set that is being read,
locks, and Trainer's pickled arguments, which hold paths and differ between runs that wrote the same weights."""
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets")
RACY_SECONDS = 0.1
"""A file that changed this shortly before it was read may change again within a tick of the clock: no hash is kept."""


class ManifestError(ValueError):
    """A manifest that cannot be read. The message says which and what to do."""


# --- writing ----------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step that survives a kill and a power cut: a reader finds the old text or the new.

    Raises OSError; when the disk is full, with a message that says what to do, and the old file is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _drop(partial)
        if is_disk_full(error):
            raise OSError(
                error.errno,
                f"the disk is full, so {path.name} of {path.parent} was not written; free some space and run the same "
                "command again: what was finished before stays",
            ) from error
        raise


def is_partial(path: Path) -> bool:
    """Whether a file is what write_atomically had written so far when it was killed."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def _sync_folder(folder: Path) -> None:
    """The new name itself reaches the disk; Windows cannot open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(plain(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value in JSON's own types: a number that is not finite becomes None, a scalar of numpy or torch its number,
    anything else that JSON lacks its text.

    >>> plain({"loss": float("nan"), "tags": ("a", 1)})
    {'loss': None, 'tags': ['a', 1]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({item.name: getattr(value, item.name) for item in dataclasses.fields(value)})
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    try:
        return plain(value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):  # no scalar of numpy or torch
        return str(value)


# --- hashes -----------------------------------------------------------------------------------------------------------


@dataclass
class Hashed:
    """A file or folder by content. `files`: relative path -> hash; of a single file its name -> hash."""

    path: str
    hash: str
    files: dict[str, str] = field(default_factory=dict)


class HashCache:
    """Hashes of files, kept in a JSON file by (path, size, time of change). `path` None keeps them in memory."""

    def __init__(self, path: Path | None = None):
        self.path = path
        self.known: dict[str, list[Any]] = _cached(path)
        self.changed = False

    def hash_path(self, path: str | Path) -> Hashed:
        """A file's or folder's hash. Raises FileNotFoundError. Large files are read side by side."""
        path = Path(path)
        files = {path.name: path} if path.is_file() else dict(_files_of(path))
        if not files and not path.is_dir():
            raise FileNotFoundError(f"{path} is not there")
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            hashes = dict(zip(files, pool.map(self._hash_file, files.values())))
        return Hashed(str(path), hashes[path.name] if path.is_file() else _hash_of_folder(hashes), hashes)

    def _hash_file(self, path: Path) -> str:
        stat, key, began = path.stat(), str(path.resolve()), time.time()
        known = self.known.get(key)
        if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known[2]
        found = _digest(path)
        if began - stat.st_mtime > RACY_SECONDS:
            self.known[key] = [stat.st_size, stat.st_mtime_ns, found]
            self.changed = True
        return found

    def save(self) -> None:
        """Hashes of files that are gone are forgotten. Never fails: without the cache, files are read again."""
        if self.path is None or not self.changed:
            return
        self.known = {key: value for key, value in self.known.items() if os.path.exists(key)}
        try:
            write_json(self.path, self.known)
        except OSError:
            return
        self.changed = False


def _cached(path: Path | None) -> dict[str, list[Any]]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, list) and len(value) == 3}


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder by its relative path, sorted; links are followed, once around."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _passed_over(name))
        for name in sorted(names):
            path = Path(root, name)
            if not _passed_over(name) and path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _passed_over(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in PASSED_OVER)


def _new_hash() -> Any:
    return hashlib.blake2b(digest_size=20)


def _digest(path: Path) -> str:
    if path.name == "state.json" and (path.parent / "dataset_info.json").is_file():
        return _dataset_state_digest(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_hash).hexdigest()


def _dataset_state_digest(path: Path) -> str:
    """A saved data set's state without the fingerprint, which is drawn at random for some ways to the same rows."""
    content = path.read_bytes()
    try:
        state = json.loads(content)
        state.pop("_fingerprint", None)
        content = json.dumps(state, sort_keys=True).encode()
    except (ValueError, AttributeError):
        pass
    return hash_bytes(content)


def hash_bytes(content: bytes) -> str:
    hasher = _new_hash()
    hasher.update(content)
    return hasher.hexdigest()


def _hash_of_folder(hashes: dict[str, str]) -> str:
    return hash_bytes("".join(f"{name}\0{found}\n" for name, found in sorted(hashes.items())).encode())


# --- where it ran -----------------------------------------------------------------------------------------------------


def checkout_commit() -> str:
    """The checkout's commit, marked when the working tree differs from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.check_output(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, stderr=subprocess.DEVNULL, text=True
        )
        dirty = subprocess.check_output(
            ["git", "status", "--porcelain", "-uno"], cwd=here, stderr=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.strip() + ("-dirty" if dirty.strip() else "")


def machine() -> dict[str, Any]:
    """Cores this process may use, GPUs, versions. Never starts CUDA: the pipeline's process stays off the GPUs."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    return {
        "cores": cores,
        "processor": platform.processor() or platform.machine(),
        "gpus": list(_gpus()),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


@functools.lru_cache(maxsize=1)
def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in found.splitlines() if line.strip())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# --- the manifest -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Manifest:
    """A stage's manifest.json."""

    stage: str
    title: str = ""
    status: str = "running"
    """running (also: killed while it ran), finished, interrupted, or failed."""
    error: str | None = None
    traceback: str | None = None
    fingerprint: str = ""
    """Of everything below that decides the result: recipe, code_version, seed, settings, the inputs' hashes."""
    recipe: str = ""
    code_version: str = ""
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> {"path", "hash", "files": {relative path: hash}}."""
    config: dict[str, Any] = field(default_factory=dict)
    """The full configuration: the recipe that `settings` names, with the settings over it."""
    commit: str = "unknown"
    dirty: bool = False
    """Whether the checkout's tracked files differed from the commit."""
    seeds: dict[str, int] = field(default_factory=dict)
    started: str = ""
    ended: str | None = None
    seconds: float = 0.0
    """Of all attempts that ended by themselves; what a killed one took is not known."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    seen: int | None = None
    kept: int | None = None
    filters: list[dict[str, Any]] = field(default_factory=list)
    """[{"name", "dropped", "examples"}], in the order in which they were applied."""
    metrics: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As `inputs`; paths are relative to the stage's folder."""
    notes: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        return sum(int(item.get("dropped", 0)) for item in self.filters)

    def write(self, folder: Path) -> None:
        """Raises OSError, see write_atomically."""
        write_json(folder / MANIFEST, self)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest in a folder; None when there is none. Raises ManifestError for one that cannot be read."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ManifestError(f"{path} is no whole manifest ({error})") from error
        if not isinstance(content, dict) or "stage" not in content or content.get("status") not in STATUSES:
            raise ManifestError(
                f"{path} is no manifest of a stage: it must hold a stage and one of {STATUSES} as status"
            )
        hints = typing.get_type_hints(cls)
        for key in hints.keys() & content.keys():
            if not fits(content[key], hints[key]):
                raise ManifestError(f"{path}: {key} expects {readable(hints[key])}, got {content[key]!r}")
        return cls(**{key: value for key, value in content.items() if key in hints})
