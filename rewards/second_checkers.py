"""Other projects' checkers, to compare ours with: math-verify by itself, and TRL's accuracy_reward.

Each runs in a process of its own that is killed when one question takes too long, because either of them can hang on a
short answer, in code that no signal interrupts. Nothing but JSON comes back from it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Opinion = float | str | None
"""1.0 right, 0.0 wrong, None for a gold answer that it cannot read; TIMEOUT, or FAILED if it raised or died."""
TIMEOUT, FAILED = "timeout", "failed"
START_SECONDS = 120.0
"""For its imports: TRL takes seconds on an idle core."""
MEMORY_BYTES = 4 << 30
"""Of address space, beyond what its imports took."""


def available() -> list[str]:
    """The checkers whose packages are installed."""
    return [name for name in CHECKERS if importlib.util.find_spec(name.replace("-", "_"))]


class SecondChecker:
    """One checker's process: `ask`, then `reply`, by turns. It starts at the first question and ends with `close`."""

    def __init__(self, name: str, seconds: float = 5.0):
        self.name, self.seconds = name, seconds
        self._process: Any = None
        self._connection: Connection

    def ask(self, *, gold: str, text: str) -> None:
        """Raises RuntimeError if its process does not start."""
        if self._process is None:
            self._start()
        with contextlib.suppress(OSError):  # it has died since; `reply` finds that out
            self._connection.send_bytes(json.dumps([gold, text]).encode())

    def reply(self) -> Opinion:
        try:
            if self._connection.poll(self.seconds):
                return json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.close()
            return FAILED
        self.close()
        return TIMEOUT

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads or a GPU is unsafe
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, self.name, self.seconds), daemon=True)
        self._process.start()
        theirs.close()
        try:
            if self._connection.poll(START_SECONDS):
                self._connection.recv_bytes()
                return
        except EOFError:
            pass
        self.close()
        raise RuntimeError(f"the second checker {self.name} did not start; leave it out with --second none")


def _serve(connection: Connection, name: str, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    logging.disable()
    judge = CHECKERS[name]()
    _limit_memory()
    connection.send_bytes(b"ready")
    with contextlib.suppress(EOFError):
        while True:
            gold, text = json.loads(connection.recv_bytes())
            _limit_processor_time(seconds)
            try:
                opinion: Opinion = judge(gold, text)
            except Exception:  # either library may raise anything on a strange text
                opinion = FAILED
            connection.send_bytes(json.dumps(opinion).encode())


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_processor_time(seconds: float) -> None:
    """So that a process whose parent was killed ends too, whatever code it is in."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(usage.ru_utime + usage.ru_stime + 2 * seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _math_verify() -> Callable[[str, str], Opinion]:
    from math_verify import parse, verify

    def judge(gold: str, text: str) -> Opinion:
        golds = parse(_in_dollars(gold), parsing_timeout=None)
        if not golds:
            return None
        return float(verify(golds, parse(text, parsing_timeout=None), timeout_seconds=None))

    return judge


def _trl() -> Callable[[str, str], Opinion]:
    from trl.rewards import accuracy_reward

    def judge(gold: str, text: str) -> Opinion:
        return accuracy_reward([[{"role": "assistant", "content": text}]], [_in_dollars(gold)])[0]

    return judge


def _in_dollars(gold: str) -> str:
    """A gold answer as both read it best: without its derivation (GSM8K), as one formula."""
    gold = gold.rpartition("####")[2].strip()
    return gold if "$" in gold or "\\boxed" in gold else f"${gold}$"


CHECKERS: dict[str, Callable[[], Callable[[str, str], Opinion]]] = {"math-verify": _math_verify, "trl": _trl}
"""Name -> what imports it and gives its judge. The name with `_` for `-` is its package."""
