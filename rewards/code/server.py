"""The warm server: a small Python process, started before anything else can share its memory, that forks jailed ones.

It never sees a program, a test or an answer. A request says only what the new process may use; the process itself reads
its order from its own channel after the fork (rewards.code.roles), so that no program finds traces of another, or of
hidden tests, in the memory that it inherits. One request is one packet on the control socket, with file descriptors:

    {"limits": {…}, "scratch": false, "keep": null}   + [report, channel, further ones]

The server holds `report`. When the process has ended it sends one packet there, {"status": …, "cpu_seconds": …}, with
what the compiler made, if anything, as a file descriptor; a header it keeps for later compilations instead. When the
other end of `report` closes it kills the process: that is how a client cancels, and what happens when the client dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from rewards.code import roles, wire
from rewards.code.jail import HEADERS, Cage, JailError, Limits, die_with_parent

PRELOADED = (
    *("abc", "array", "ast", "base64", "bisect", "calendar", "cmath", "collections", "contextlib", "copy"),
    *("dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json"),
    *("locale", "math", "numbers", "operator", "pprint", "queue", "random", "re", "statistics", "string", "struct"),
    *("sys", "textwrap", "threading", "time", "traceback", "types", "typing", "unicodedata", "zlib"),
)
"""What programs import most; a fork then has it already."""
MAX_PACKET = 1 << 16
LEFT_OPEN = 32
"""Above the descriptors that a jailed process is given."""


@dataclass
class Child:
    """A jailed process, and the folder that its compiler writes in."""

    pid: int
    report: socket.socket
    scratch: Path | None
    keep: str | None
    """Where below the headers what the compiler makes shall stay."""


def main(control_fd: int, tier: str) -> None:
    """Serve until the client is gone. Ends in the first process of a new process namespace where the tier has one."""
    control = socket.socket(fileno=control_fd)
    client = os.pidfd_open(os.getppid())
    die_quietly()
    for name in PRELOADED:
        importlib.import_module(name)
    roles.warm_up()
    cage = Cage(tier=tier)
    try:
        cage.enter()
        os.environ.clear()
        os.environ.update(LANG="C.UTF-8", PATH="/usr/local/bin:/usr/bin:/bin", HOME="/")
        gc.collect()
        gc.freeze()  # what is loaded by now stays shared with the children
        control.send(json.dumps({"ready": True, "outside": cage.outside and str(cage.outside)}).encode())
        Server(cage, control, client).serve()
    except JailError as error:
        control.send(json.dumps({"error": str(error)}).encode())
    finally:
        cage.leave()


def die_quietly() -> None:
    """Interrupts are for the client; and let the kernel, when memory ends, begin here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


class Server:
    """Starts processes, reports their end, kills those that nobody waits for."""

    def __init__(self, cage: Cage, control: socket.socket, client: int):
        self.cage = cage
        self.control = control
        self.client = client
        self.started = 0
        self.children: dict[int, Child] = {}
        """By the descriptor that becomes readable when the process has ended."""

    def serve(self) -> None:
        while True:
            for fd in self._wait():
                if fd == self.client or (fd == self.control.fileno() and not self._take_request()):
                    return self._kill_all()
                if fd in self.children:
                    self._report(fd)
                self._kill_forsaken(fd)
            self._reap_orphans()

    def _wait(self) -> list[int]:
        poll = select.poll()
        for fd in (self.control.fileno(), self.client, *self.children):
            poll.register(fd, select.POLLIN)
        for child in self.children.values():
            poll.register(child.report, 0)  # hang-ups only
        return [fd for fd, _ in poll.poll()]

    def _take_request(self) -> bool:
        """Start what the next packet asks for. False when the client has closed."""
        packet, fds, _, _ = socket.recv_fds(self.control, MAX_PACKET, 8)
        if not packet:
            return False
        request = json.loads(packet)
        report, *handed = fds
        scratch = None
        if request["scratch"]:
            self.started += 1
            scratch = self.cage.scratch / str(self.started)
            scratch.mkdir()
        try:
            pid = os.fork()
        except OSError:  # no memory: the client sees its channel close
            fds_left = fds
        else:
            if pid == 0:
                become(self.cage, Limits(**request["limits"]), handed, scratch)
            self.children[os.pidfd_open(pid)] = Child(pid, socket.socket(fileno=report), scratch, request["keep"])
            fds_left = handed
        for fd in fds_left:
            os.close(fd)
        return True

    def _report(self, pidfd: int) -> None:
        child = self.children.pop(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        made = []
        if child.scratch:
            with contextlib.suppress(ProcessLookupError):  # what the compiler had started
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                if child.keep:
                    kept = self.cage.scratch / HEADERS / child.keep
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(child.scratch / roles.BINARY, kept)
                else:
                    made = [os.open(child.scratch / roles.BINARY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)]
            shutil.rmtree(child.scratch, ignore_errors=True)
        news = {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": usage.ru_utime + usage.ru_stime}
        with contextlib.suppress(OSError):  # nobody waits for it
            socket.send_fds(child.report, [json.dumps(news).encode()], made)
        child.report.close()
        for fd in made:
            os.close(fd)

    def _kill_forsaken(self, fd: int) -> None:
        """Kill the process whose client has closed `fd`; its end is then reported, to nobody."""
        for pidfd, child in self.children.items():
            if child.report.fileno() == fd:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [])
                return self._report(pidfd)

    def _kill_all(self) -> None:
        for pidfd in list(self.children):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self._report(pidfd)

    def _reap_orphans(self) -> None:
        """As the first process of its namespace the server inherits what a killed compiler had started."""
        if self.children:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def become(cage: Cage, limits: Limits, handed: list[int], scratch: Path | None) -> None:
    """In the child: keep the channel as descriptor 3 and what follows it, drop all others, read the order, follow it.
    Never returns.
    """
    try:
        die_with_parent()
        if scratch is not None:
            os.setpgid(0, 0)
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, LEFT_OPEN) for fd in handed]  # out of each other's way
        for place, fd in enumerate(kept):
            os.dup2(fd, roles.CHANNEL + place, inheritable=False)
        cage.keep_only(roles.CHANNEL + len(kept))
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        roles.follow_order(lambda **more: cage.lock(limits, scratch=scratch, **more), scratch)
    except BaseException as error:  # ours: a wall that cannot be closed
        with contextlib.suppress(OSError):
            wire.send_frame(roles.CHANNEL, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(70)
