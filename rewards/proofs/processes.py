"""Processes of a proof assistant: bounded in memory, time and output, unable to write a file, ended with their group.

A proof assistant runs what a model wrote. The scripts are filtered first (rewards.proofs.coq_script, lean_script); this
is the second wall. A shell sets the limits and then becomes the assistant, because `preexec_fn` is unsafe in a process
with threads. Files: the size limit is 0, and the working folder is deleted once the process runs in it, so that nothing
can be made there and nothing is left.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

MAX_OUTPUT = 4 << 20
"""Bytes that a process may write in answer to one request."""
LONGEST_ANSWER = 512
"""Bytes that what ends an answer may have."""
CPU_GRACE = 1.0
"""Seconds of processor time beyond the deadline, after which the system ends a process whose owner is gone."""

# $1, $2: kilobytes of address space and of private data. A limit that the system does not know is left out.
LAUNCHER = """
ulimit -c 0; ulimit -f 0; ulimit -v "$1"; ulimit -d "$2"
trap '' XFSZ
shift 2
exec "$@"
"""


class ProcessEndedError(Exception):
    """The process has ended, by itself or by a signal from outside, before it answered."""


class OutputFloodError(Exception):
    """The process wrote more than MAX_OUTPUT."""


class Process:
    """A child in its own session, with its stdout and stderr in one stream. Used by one thread at a time."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        address_bytes: int | None = None,
        data_bytes: int | None = None,
        folder: str | None = None,
        threads: int = 1,
    ):
        limits = [str(size // 1024) if size else "unlimited" for size in (address_bytes, data_bytes)]
        self._scratch = tempfile.mkdtemp(prefix="r1lab-proof-") if folder is None else None
        try:
            self._popen = subprocess.Popen(
                ["/bin/sh", "-c", LAUNCHER, "sh", *limits, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd=folder or self._scratch,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError:
            self.leave_folder()
            raise
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._owner, self._threads, self._unread = os.getpid(), threads, b""
        self.alive = True

    @property
    def pid(self) -> int:
        return self._popen.pid

    def leave_folder(self) -> None:
        """Delete the scratch folder, which the process stands in."""
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def exchange(self, request: bytes, answer: re.Pattern[bytes], deadline: float) -> tuple[bytes, re.Match[bytes]]:
        """Write a request and read up to the first match of `answer`: what stands before it, and the match.

        Raises TimeoutError after `deadline` (time.monotonic), OutputFloodError or ProcessEndedError; the process is of
        no use then.
        """
        received, searched = self._unread, 0  # what came beyond the last answer is kept: it must not get lost unseen
        for chunk in self._transfer(request, deadline, close=False):
            received += chunk
            if match := answer.search(received, searched):
                self._unread = received[match.end() :]
                return received[: match.start()], match
            searched = max(0, len(received) - LONGEST_ANSWER)
        raise ProcessEndedError(received[-500:].decode(errors="replace"))

    def finish(self, request: bytes, deadline: float) -> bytes:
        """Write a request, end its input and read all that the process writes until it ends."""
        return b"".join(self._transfer(request, deadline, close=True))

    def _transfer(self, request: bytes, deadline: float, close: bool) -> Iterator[bytes]:
        """Write and read at once, until the process closes its output; whichever it waits for, neither blocks."""
        self._allow_cpu(deadline - time.monotonic())
        size = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while True:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError
                for key, _ in selector.select(remaining):
                    if key.fileobj is self._stdout:
                        chunk = self._stdout.read(1 << 16)
                        if not chunk:
                            return
                        size += len(chunk)
                        if size > MAX_OUTPUT:
                            raise OutputFloodError
                        yield chunk
                    else:
                        with contextlib.suppress(BrokenPipeError):  # its end shows on stdout
                            request = request[self._stdin.write(request) or 0 :] if request else b""
                        if not request:
                            selector.unregister(self._stdin)
                            if close:
                                self._stdin.close()

    def _allow_cpu(self, seconds: float) -> None:
        """Renew the limit of processor time: should our process be killed, its child does not loop for ever."""
        if not hasattr(resource, "prlimit"):
            return
        with contextlib.suppress(OSError, ValueError):
            limit = math.ceil(cpu_seconds(self.pid) + seconds * self._threads + CPU_GRACE)
            hard = resource.prlimit(self.pid, resource.RLIMIT_CPU)[1]
            resource.prlimit(self.pid, resource.RLIMIT_CPU, (limit, hard))

    def end(self) -> None:
        """Kill the whole group and free what it held. Harmless when it has ended already."""
        if os.getpid() != self._owner or not self.alive:
            return
        self.alive = False
        with contextlib.suppress(ProcessLookupError, PermissionError):  # a zombie's group still exists, no other has it
            os.killpg(self.pid, signal.SIGKILL)
        for stream in (self._stdin, self._stdout):
            stream.close()
        self._popen.wait()
        self.leave_folder()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used (Linux)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it is not known."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Session(Protocol):
    """A warm process that a pool lends. `preamble` is what it has loaded."""

    preamble: str | None

    @property
    def usable(self) -> bool: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=Session)
T = TypeVar("T")
R = TypeVar("R")


class SessionPool(Generic[S]):
    """Up to `size` warm sessions, each lent to one thread at a time, preferably with the right preamble loaded."""

    def __init__(self, start: Callable[[], S], size: int):
        self.size = size
        self._start = start
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[S] = []
        self._finalizer = weakref.finalize(self, _close_all, self._idle)  # also runs at interpreter exit

    @contextlib.contextmanager
    def lend(self, preamble: str) -> Iterator[S]:
        """A session for the body of a `with`. It comes back unless it is no longer usable or the body raised."""
        with self._free:
            session = self._take(preamble) or self._start()
            try:
                yield session
            except BaseException:
                session.close()
                raise
            if session.usable:
                with self._lock:
                    self._idle.append(session)
            else:
                session.close()

    def _take(self, preamble: str) -> S | None:
        with self._lock:
            fitting = [session for session in self._idle if session.preamble == preamble]
            chosen = next(iter(fitting or self._idle), None)
            if chosen is not None:
                self._idle.remove(chosen)
            return chosen

    def close(self) -> None:
        """End the sessions that are not lent."""
        with self._lock:
            _close_all(self._idle)
            self._idle.clear()


def _close_all(sessions: list) -> None:
    for session in sessions:
        session.close()


def in_threads(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """function(item) for each, equal items once, up to `threads` at a time; the results in order."""
    distinct = list(dict.fromkeys(items))
    if len(distinct) < 2:
        return [function(distinct[0])] * len(items) if items else []
    with ThreadPoolExecutor(min(threads, len(distinct)), thread_name_prefix="proofs") as executor:
        try:
            results = dict(zip(distinct, executor.map(function, distinct)))
        except BaseException:  # a missing tool, Ctrl-C: do not work off the rest first
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[item] for item in items]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
