"""The client of the warm server: starts it, probes what holds here, starts jailed processes, ends them.

The server is a plain subprocess, never a fork of this process, which may hold torch, threads, a GPU and secrets. At its
start the strongest tier of walls is chosen (rewards.code.jail.TIERS): one that builds them all, lets a good program
through and stops every attempt of a bad one. Where none does, SandboxError says why and what to do; a sandbox that
fails is an error, never a reward of 0. Linux only. Works from any thread; a forked process starts its own server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rewards.code import wire
from rewards.code.jail import TIERS, Limits
from rewards.scoring import SetupError

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
"""For the server's imports, and for a process to close its walls; both take milliseconds."""
MAX_NEWS = 1 << 16
"""Bytes of a frame that is read in this process."""
BOOTSTRAP = """
import sys, types
root, control, tier = sys.argv[1:]
for name, folder in (("rewards", root), ("rewards.code", root + "/code")):  # the packages without what they import
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [folder]
from rewards.code.server import main
main(int(control), tier)
"""
HELP = (
    "Code rewards run programs of the model, so they need Linux with Landlock (5.13 or later, switched on) or with "
    "user namespaces. In a container: Docker's default profile is enough on a host with Landlock; else allow "
    "namespaces (docker run --security-opt seccomp=unconfined), or train without the code reward."
)
PROBE = """
def double(number):
    return 2 * number

def escapes(secret):
    import os, socket
    done = []
    for name, attempt in {
        "read a file of its user": lambda: open(secret).read(),
        "read /etc/passwd": lambda: open("/etc/passwd").read(),
        "read /proc": lambda: open("/proc/1/environ", "rb").read(),
        "write a file": lambda: open(secret, "w"),
        "make a folder": lambda: os.mkdir(secret + "-folder"),
        "open a socket": lambda: socket.socket(),
        "fork": lambda: os.fork() or os._exit(0),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
    }.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    return done
"""


class SandboxError(SetupError):
    """Programs cannot be run safely here, or the sandbox itself failed."""


class JobLost(Exception):  # noqa: N818 - it says what happened
    """A jailed process ended before its walls were closed, or its server died: nobody's verdict. Try again."""


@dataclass(frozen=True)
class Exit:
    """How a jailed process ended: an exit status, or minus a signal."""

    status: int
    cpu_seconds: float
    made: int | None = None
    """A descriptor of the compiler's output, to be closed by whoever takes it."""


class Job:
    """A jailed process, from the closing of its walls to its end. A context: leaving it kills the process."""

    def __init__(self, report: socket.socket, channel: socket.socket):
        self._report = report
        self._channel = channel

    @property
    def channel_fd(self) -> int:
        return self._channel.fileno()

    def send(self, message: dict) -> None:
        wire.send_frame(self.channel_fd, message)

    def receive(self, deadline: float) -> dict:
        """The next frame. Raises EOFError, TimeoutError, WireError."""
        return wire.receive_frame(self.channel_fd, MAX_NEWS, deadline)

    def let_go_of_channel(self) -> None:
        """Close this side of the channel, which another process has taken over."""
        self._channel.close()

    def wait(self, deadline: float) -> Exit:
        """Its end. Raises TimeoutError (it runs on), and JobLost if the server is gone."""
        self._report.settimeout(max(0.001, deadline - time.monotonic()))
        packet, fds, _, _ = socket.recv_fds(self._report, 4096, 1)
        if not packet:
            raise JobLost("the sandbox's server died")
        return Exit(**json.loads(packet), made=fds[0] if fds else None)

    def end(self) -> None:
        """Kill it if it still runs."""
        with contextlib.suppress(OSError):  # a fork of ours may hold copies of these sockets: closing is not enough
            self._report.shutdown(socket.SHUT_RDWR)
        self._report.close()
        self._channel.close()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


class _Server:
    """The server's process and the control socket to it."""

    def __init__(self, tier: str):
        self.tier = tier
        self.outside: str | None = None
        self.prepared = False
        self.preparation = threading.Lock()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}  # the same order of sets for every run
        environment |= {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        with theirs, tempfile.TemporaryFile() as messages:
            command = [sys.executable, "-s", "-S", "-P", "-c", BOOTSTRAP]
            self.process = subprocess.Popen(
                [*command, str(Path(__file__).parents[1]), str(theirs.fileno()), tier],
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,
            )
            theirs.close()
            try:
                self._await_ready(messages)
            except BaseException:
                self.end()
                raise

    def _await_ready(self, messages: object) -> None:
        self.control.settimeout(START_SECONDS)
        try:
            packet = self.control.recv(4096)
        except TimeoutError:
            raise SandboxError(f"the sandbox's server was not ready after {START_SECONDS:g} s") from None
        if not packet:
            self.process.wait()
            messages.seek(0)  # type: ignore[attr-defined]
            text = messages.read().decode(errors="replace").strip()  # type: ignore[attr-defined]
            raise SandboxError(f"its server ended at once: {text.splitlines()[-1] if text else 'without a word'}")
        news = json.loads(packet)
        if "error" in news:
            raise SandboxError(news["error"])
        self.outside = news["outside"]
        self.control.settimeout(None)

    def alive(self) -> bool:
        """Whether its end of the control socket is open; it takes the system a moment to end a killed process."""
        poll = select.poll()
        poll.register(self.control, 0)
        return not poll.poll(0)

    def ask(self, request: dict, fds: list[int]) -> None:
        socket.send_fds(self.control, [json.dumps(request).encode()], fds)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self.control.close()
        try:
            self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.outside:
            shutil.rmtree(self.outside, ignore_errors=True)


def _end_server(holder: list[_Server], owner_pid: int) -> None:
    if os.getpid() == owner_pid:
        while holder:
            holder.pop().end()


class Sandbox:
    """Runs jailed processes.

    tiers: which kinds of walls may be used, strongest first, by default all of rewards.code.jail.TIERS. The first that
    passes the probe is taken, at the first use. Raises SandboxError where none does.
    """

    def __init__(self, tiers: Sequence[str] = tuple(TIERS)):
        unknown = [tier for tier in tiers if tier not in TIERS]
        if unknown or not tiers:
            raise ValueError(f"tiers are some of {', '.join(TIERS)}, got {list(tiers)}")
        self.tiers = tuple(tiers)
        self._lock = threading.Lock()
        self._servers: list[_Server] = []  # one or none
        self._chosen: str | None = None
        self._finalizer = weakref.finalize(self, _end_server, self._servers, os.getpid())
        _ALL.add(self)

    @property
    def tier(self) -> str:
        """The tier in use; starts the server where it does not run."""
        with self._lock:
            return self._running().tier

    def start(
        self, order: dict, limits: Limits, fds: Sequence[int] = (), scratch: bool = False, keep: str | None = None
    ) -> Job:
        """A new jailed process that follows `order` (rewards.code.roles) with the descriptors `fds`, its walls closed.

        scratch: it is the compiler, with a folder to write in; keep: as what header its output stays for the next ones.
        Raises JobLost when the process ended before its walls were closed, SandboxError when there is no server.
        """
        with self._lock:
            server = self._running()
        return _start(server, order, limits, fds, scratch, keep)

    @contextlib.contextmanager
    def preparing(self) -> Iterator[bool]:
        """Whether the caller, alone, is to prepare what all compilations of this server will use."""
        with self._lock:
            server = self._running()
        with server.preparation:
            yield not server.prepared
            server.prepared = True

    def close(self) -> None:
        """End the server and all that it runs. The sandbox can be used again."""
        with self._lock:
            self._end()

    def _running(self) -> _Server:
        if self._servers and not self._servers[0].alive():
            self._end()
        if not self._servers:
            self._servers.append(_Server(self._chosen) if self._chosen else self._choose())
        return self._servers[0]

    def _end(self) -> None:
        _end_server(self._servers, os.getpid())

    def _choose(self) -> _Server:
        """A server of the strongest tier that holds."""
        if sys.platform != "linux":
            raise SandboxError(f"this is {sys.platform}, not Linux. {HELP}")
        reasons = []
        for tier in self.tiers:
            try:
                server = _Server(tier)
            except SandboxError as error:
                reasons.append(f"{tier} ({TIERS[tier]}): {error}")
                continue
            try:
                _probe(server)
            except (SandboxError, JobLost) as error:
                server.end()
                reasons.append(f"{tier} ({TIERS[tier]}): {error}")
                continue
            self._chosen = tier
            without = f"; not available: {'; '.join(reasons)}" if reasons else ""
            logger.info("code sandbox: tier %s (%s)%s", tier, TIERS[tier], without)
            return server
        raise SandboxError(f"no sandbox holds here. {'; '.join(reasons)}. {HELP}")

    def _abandon(self) -> None:
        """In a forked child: the server is the parent's."""
        self._lock = threading.Lock()
        for server in self._servers:
            server.control.close()
            server.process.returncode = 0  # not ours to wait for
        self._servers = []
        self._finalizer = weakref.finalize(self, _end_server, self._servers, os.getpid())


def _start(
    server: _Server,
    order: dict,
    limits: Limits,
    fds: Sequence[int] = (),
    scratch: bool = False,
    keep: str | None = None,
) -> Job:
    report, report_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, channel_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    job = Job(report, channel)
    try:
        with report_theirs, channel_theirs:
            request = {"limits": asdict(limits), "scratch": scratch, "keep": keep}
            server.ask(request, [report_theirs.fileno(), channel_theirs.fileno(), *fds])
        job.send(order)
        news = job.receive(time.monotonic() + START_SECONDS)
        if "locked" not in news:
            raise JobLost(f"its walls could not be closed: {news}")
    except (OSError, EOFError, TimeoutError, wire.WireError) as error:
        job.end()
        raise JobLost(f"{type(error).__name__}: {error}") from error
    except BaseException:
        job.end()
        raise
    return job


def _probe(server: _Server) -> None:
    """A good program must come through, a bad one must not get anywhere. Raises SandboxError."""
    limits = Limits(cpu_seconds=10, memory_bytes=256 << 20, file_bytes=1 << 16)
    order = {"role": "functions", "program": PROBE, "call_seconds": 10}
    with tempfile.TemporaryDirectory() as folder, _start(server, order, limits) as job:
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        os.chmod(folder, 0o777)
        os.chmod(secret, 0o666)
        replies = list(_ask(job, [("double", [21]), ("escapes", [str(secret)])]))
    if replies[0] != {"value": 42}:
        raise SandboxError(f"a program that doubles 21 gave {replies[0]}")
    if replies[1] != {"value": []}:
        raise SandboxError(f"a program could do what it must not: {replies[1]}")


def _ask(job: Job, calls: list[tuple[str, list]]) -> Iterator[dict]:
    deadline = time.monotonic() + START_SECONDS
    try:
        job.receive(deadline)  # compiled
        job.receive(deadline)  # loaded
        for name, arguments in calls:
            job.send({"call": name, "args": {"tuple": arguments}, "kwargs": {"dict": []}})
            yield job.receive(deadline)
    except (OSError, EOFError, TimeoutError, wire.WireError) as error:
        raise SandboxError(f"its first program was lost: {type(error).__name__}: {error}") from error


_ALL: weakref.WeakSet[Sandbox] = weakref.WeakSet()
_default: Sandbox | None = None
_default_lock = threading.Lock()


def default_sandbox() -> Sandbox:
    """The sandbox of this process, made at the first call."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Sandbox()
        return _default


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for sandbox in list(_ALL):
        sandbox._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
