"""A stage in a process of its own, on one rank or several, and one pipeline a folder.

The pipeline's process starts a fresh one for a stage, hands it the request through stdin, passes Ctrl-C and SIGTERM on,
and reads its last word from outcome.json. The stage ends when the pipeline does, because its stdin then ends.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grpo.checkpoints import is_disk_full
from recipes.manifest import now, plain, write_json
from recipes.stage import PipelineError, StageContext, StageInput, StageResult, load_function

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OUTCOME = "outcome.json"
"""What a stage's function said at its end, until the manifest has it."""
POLL_SECONDS = 0.1
BAR_SECONDS = 10.0
"""How often a progress bar becomes a line."""
GRACE_SECONDS = 10.0
"""How long ranks wait for each other, and for a lock, once something has gone wrong."""

# --- running one ------------------------------------------------------------------------------------------------------


def run_stage(function: Callable | str, context: StageContext) -> dict[str, Any]:
    """Call a stage, or load and call it, and say how it ended: {"status": "returned" | "interrupted" | "failed",
    "error", "traceback", "result", "seconds", "ended"}. The main process also leaves that in outcome.json, so that a
    kill between a stage's end and its manifest costs nothing."""
    outcome: dict[str, Any] = {"status": "failed", "error": None, "traceback": None, "result": None}
    began = time.monotonic()
    try:
        function = load_function(function) if isinstance(function, str) else function
        _seed(context.seed)
        result = function(context)
        if not isinstance(result, StageResult):
            raise TypeError(f"a stage returns a StageResult, this one returned {type(result).__name__}")
        result.seeds = context.seeds | result.seeds
        outcome |= {"status": "interrupted" if result.interrupted else "returned", "result": plain(asdict(result))}
    except KeyboardInterrupt:
        outcome |= {"status": "interrupted", "error": "stopped by Ctrl-C"}
    except SystemExit as error:
        if error.code in (130, 143):
            outcome |= {"status": "interrupted", "error": f"it ended with exit status {error.code}"}
        else:
            outcome |= {"error": f"it ended with exit status {error.code}; what it printed says why"}
    except Exception as error:
        full = "the disk is full; free some space and run the same command again. " if is_disk_full(error) else ""
        outcome |= {"error": f"{full}{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    outcome |= {"seconds": time.monotonic() - began, "ended": now()}
    name = outcome_name(context.rank)
    try:
        context.folder.mkdir(parents=True, exist_ok=True)
        write_json(context.folder / name, outcome)
    except OSError as error:
        print(f"stage {context.name!r}: {error.strerror or error}", file=sys.stderr, flush=True)
    return outcome


def outcome_name(rank: int) -> str:
    return f"outcome-rank{rank}.json" if rank else OUTCOME


def _seed(seed: int) -> None:
    """Python's random numbers, and those of the libraries that the stage's module has loaded."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def request_of(recipe: str, context: StageContext) -> dict[str, Any]:
    """The context as JSON for a process of its own; `run_requested` reads it."""
    inputs = {role: plain(asdict(item)) | {"folder": str(item.folder)} for role, item in context.inputs.items()}
    files = {name: str(path) for name, path in context.files.items()}
    return plain(asdict(context)) | {
        "recipe": recipe, "folder": str(context.folder), "inputs": inputs, "files": files,
    }  # fmt: skip


def context_of(request: dict[str, Any]) -> StageContext:
    inputs = {
        role: StageInput(item["name"], Path(item["folder"]), tuple(item["outputs"]), item["metrics"])
        for role, item in request["inputs"].items()
    }
    known = {key: request[key] for key in ("name", "title", "settings", "seed", "resume", "rank", "processes")}
    files = {name: Path(path) for name, path in request["files"].items()}
    return StageContext(folder=Path(request["folder"]), inputs=inputs, files=files, **known)


def run_requested() -> None:
    """A stage in a process of its own: the request is the first line of stdin, whose end says the pipeline is gone.

    Exit status 0 when the stage returned, 130 when it was interrupted, 1 when it failed.
    """
    request = json.loads(sys.stdin.buffer.readline())
    _end_with_the_pipeline()
    if request.get("cores"):  # torch is not loaded yet; what this process starts inherits them
        os.sched_setaffinity(0, request["cores"])
    outcome = run_stage(request["recipe"], context_of(request))
    if outcome["traceback"] and os.environ.get("R1LAB_DEBUG"):
        print(outcome["traceback"], file=sys.stderr, flush=True)
    raise SystemExit({"returned": 0, "interrupted": 130}.get(outcome["status"], 1))


def _end_with_the_pipeline() -> None:
    """A pipeline that is killed cannot end its stage; a stage that went on would write beside the next call's."""

    def watch() -> None:
        os.read(descriptor, 1)
        os._exit(137)

    # Not sys.stdin itself: whoever forks or closes it would end the stage. A stage has nothing to read there.
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=watch, daemon=True).start()


# --- one pipeline a folder --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """The folder's lock, held until this process and the stage it started are gone. Raises PipelineError when another
    pipeline holds it; one that was just killed gets a moment to be gone."""
    if fcntl is None:
        yield None
        return
    descriptor = os.open(folder / "pipeline.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + GRACE_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise PipelineError(
                    f"another pipeline is at work in {folder} (process {holder}); wait for it, or give this one "
                    "another --output_dir"
                )
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError):  # only for that message
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


# --- a stage in a process of its own ----------------------------------------------------------------------------------


def say(message: str) -> None:
    """A line in one piece. Who listened may be gone, or not know a letter; neither is a reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(f"{message}\n".encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


class StageProcess:
    """A stage in a fresh process, which this starts.

    lock: a descriptor that the process keeps open, so that the folder stays locked until it is gone. named: its output
    is read and passed on line by line, with its name in front, where several stages talk at once.
    """

    def __init__(self, request: dict[str, Any], lock: int | None = None, named: bool = False):
        self.rank: int = request["rank"]
        self.told = Path(request["folder"]) / outcome_name(self.rank)
        self.told.unlink(missing_ok=True)
        self.elsewhere: str | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from recipes.isolation import run_requested; run_requested()"],
            env=_stage_environment(request.get("port")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if named else None,
            stderr=subprocess.STDOUT if named else None,
            pass_fds=() if lock is None else (lock,),
            # A group of its own: Ctrl-C in the terminal reaches the pipeline alone, which passes it on, once.
            process_group=0 if os.name == "posix" else None,
        )
        self.reader = None
        if named:
            self.reader = threading.Thread(target=self._pass_on, args=(request["name"],), daemon=True)
            self.reader.start()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status says so
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def _pass_on(self, name: str) -> None:
        assert self.process.stdout is not None
        last_bar = float("-inf")
        for line in io.TextIOWrapper(self.process.stdout, encoding="utf-8", errors="backslashreplace", newline=""):
            if line.endswith("\r"):  # a progress bar, which draws itself anew many times a second
                if time.monotonic() - last_bar < BAR_SECONDS:
                    continue
                last_bar = time.monotonic()
            if line.strip():
                say(f"{name}: {line.rstrip()}")

    def ended(self, ranks: Ranks) -> bool:
        """Whether it is over, here or because its rank failed elsewhere, which ends it here too."""
        if self.process.poll() is None and self.elsewhere is None:
            self.elsewhere = ranks.failure()
        return self.process.poll() is not None or self.elsewhere is not None

    def close(self) -> None:
        """End whatever still runs of it."""
        if self.process.poll() is None:
            _kill_group(self.process)
        if self.reader is not None:
            self.reader.join(1.0)  # a process that it left behind may hold the pipe open
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def outcome(self, asked_to_stop: bool) -> dict[str, Any]:
        """How it ended, as of run_stage. It is over."""
        self.close()
        if self.elsewhere is not None:
            found: dict[str, Any] = {"status": "failed", "error": self.elsewhere}
        else:
            found = _outcome_of(self.told, self.process.returncode, asked_to_stop)
        if self.rank > 0:
            self.told.unlink(missing_ok=True)
        return found

    def send(self, number: int) -> None:
        """A signal; SIGKILL goes to all that the stage started."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL and os.name == "posix":
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)


def _stage_environment(port: int | None) -> dict[str, str]:
    environment = {"PYTHONUNBUFFERED": "1"} | os.environ  # what a stage prints is seen when it prints it
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    if port is not None:
        # The launcher's own meeting place is in use by the pipeline's ranks; their stages meet beside it.
        environment |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    return environment


def _outcome_of(path: Path, status: int, asked_to_stop: bool) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    if asked_to_stop:
        return {"status": "interrupted", "error": "stopped before it could say how far it was"}
    if status < 0:
        memory = "; the kernel does that when memory runs out" if status == -signal.SIGKILL else ""
        said = f"its process was killed by {signal.Signals(-status).name}{memory}"
    else:
        said = f"its process ended with exit status {status} and left no message but what it printed"
    return {"status": "failed", "error": said}


STOPPED_BETWEEN = "stopped between two stages; the same command (without --from) goes on"


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, obeyed between two stages or by those that run."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


class Signals:
    """Ctrl-C and SIGTERM go to the stages that run, which end with a checkpoint; a third one ends them at once. The
    pipeline looks at `passed` between two stages; where none runs, a second signal does not wait for that.

    As a context manager, it also ends what still runs when an error passes through.
    """

    def __init__(self) -> None:
        self.passed: list[int] = []
        self.running: list[StageProcess] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._forward) for number in numbers}
        return self

    def reach(self, stage: StageProcess) -> None:
        """From now on a signal goes to this one too; so does one that came while it started."""
        self.running.append(stage)
        if self.passed:
            stage.send(self.passed[-1])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for stage in self.running:
            stage.close()

    def _forward(self, number: int, frame: object) -> None:
        self.passed.append(number)
        if not self.running and len(self.passed) > 1:
            raise Stopped(STOPPED_BETWEEN, number)
        for stage in self.running:
            stage.send(number if len(self.passed) < 3 else signal.SIGKILL)


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


# --- several ranks ----------------------------------------------------------------------------------------------------


class Ranks:
    """The pipeline's processes under a launcher, and what they tell each other through the launcher's own store.

    Each of them starts the stage's process of its rank; those form the group that trains. So the pipeline itself is in
    no group, holds no GPU, and waits for a stage of hours without a collective that runs into its time-out.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None):
        self.rank, self.size, self.store = rank, size, store
        self.round = 0

    @classmethod
    def launched(cls) -> Ranks:
        """Raises PipelineError for a launcher that does not set torchrun's variables."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise PipelineError(
                f"WORLD_SIZE is {size} and {', '.join(missing)} is not set; start the pipeline with torchrun or "
                "accelerate launch"
            )
        import torch.distributed as dist

        store, rank, size = next(dist.rendezvous("env://"))
        return cls(rank, size, dist.PrefixStore("r1lab/pipeline", store))

    def publish(self, message: dict[str, Any]) -> None:
        """From the main rank to all others."""
        self.round += 1
        if self.size > 1:
            self.store.set(f"round {self.round}", json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """What the main rank published next; waits for as long as it takes."""
        self.round += 1
        key = f"round {self.round}"
        while not self.store.check([key]):
            time.sleep(POLL_SECONDS)
        return json.loads(self.store.get(key))

    def failure(self) -> str | None:
        """What a rank said that failed in this round."""
        key = f"failed {self.round}"
        return self.store.get(key).decode() if self.size > 1 and self.store.check([key]) else None

    def together(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """This rank's outcome, once all have theirs; failed for all when it failed on one."""
        if self.size == 1:
            return outcome
        if outcome["status"] == "failed" and self.failure() is None:
            self.store.set(f"failed {self.round}", f"rank {self.rank}: {outcome['error']}")
        self.store.set(f"ended {self.round}/{self.rank}", outcome["status"])
        deadline = float("inf")
        while not self.store.check([f"ended {self.round}/{rank}" for rank in range(self.size)]):
            if self.failure() is not None:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        if (said := self.failure()) is not None:
            return outcome | {"status": "failed", "error": said}
        statuses = {self.store.get(f"ended {self.round}/{rank}").decode() for rank in range(self.size)}
        return outcome | ({"status": "interrupted"} if "interrupted" in statuses else {})

    def end(self, code: int) -> None:
        """The main rank's last word. The store may live in this process, so it waits until the others have heard."""
        if self.size == 1 or self.rank > 0:
            return
        self.publish({"end": code})
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and not self.store.check([f"heard/{rank}" for rank in range(1, self.size)]):
            time.sleep(POLL_SECONDS)

    def hear(self) -> None:
        self.store.set(f"heard/{self.rank}", "yes")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
