"""A pool of processes that run math-verify, each killed and replaced when a check runs into its time-out.

Why processes: SymPy can run for hours on a ten-character answer (`9^{9^9}`), in C code that no thread or signal handler
interrupts, and `signal.alarm` works in the main thread only. Why plain subprocesses: a fork of a process that holds
torch, threads or a GPU is unsafe, and multiprocessing's spawn re-imports the main module. The pool works from any
thread and in any rank: `default_pool` makes one for each process, when the first answer needs it. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rewards.scoring import SetupError
from rewards.verdicts import Verdict, VerdictKind

SCRIPT = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0
"""A worker that has not finished its imports by then counts as failed (it takes about 0.6 s on an idle core)."""
MAX_FAILED_STARTS = 3
MAX_ATTEMPTS = 2
"""A check whose worker died (not by our time-out) is tried once more: it may have been killed from outside."""
NEVER_CACHED = frozenset({VerdictKind.TIMEOUT, VerdictKind.GOLD_TIMEOUT})
"""A machine that was busy for a second must not make an answer wrong for the rest of the run."""


class WorkerError(SetupError):
    """No checking process can be started."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What one check compares. `answer` None asks only whether the gold answer can be read."""

    gold: str
    answer: str | None
    how: str = "texts"
    """ "texts": LaTeX with `$…$`, compared by math-verify; "expressions": JSON of `expressions`, by SymPy."""


@dataclass
class _Job:
    pair: Pair
    attempts: int = 0


class _Worker:
    """One worker process and its present child: starting, then by turns idle and busy (`job` is set), then ended."""

    def __init__(self, timeout: float, memory_bytes: int):
        command = [sys.executable, "-P", str(SCRIPT), str(timeout), str(memory_bytes)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdout.fileno(), False)
        self.child: int | None = None
        self.started = False
        """Whether any child has ever been ready."""
        self.ready = False
        self.error = ""
        self.deadline = time.monotonic() + START_SECONDS
        self.job: _Job | None = None
        self.lost: _Job | None = None
        """The job of a child that died before it replied."""
        self.job_id = 0
        self.gold_read = False
        self.verdict: Verdict | None = None
        self._unread = b""

    @property
    def idle(self) -> bool:
        return self.ready and self.job is None

    def give(self, job: _Job, timeout: float) -> None:
        """Send a job; its time starts now. A worker that has died meanwhile shows up as ended output."""
        self.job, self.job_id, self.gold_read, self.verdict = job, self.job_id + 1, False, None
        job.attempts += 1
        self.deadline = time.monotonic() + timeout
        line = json.dumps({"id": self.job_id, **asdict(job.pair)})
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(line.encode() + b"\n")

    def read_news(self) -> bool:
        """Take in what the process has written. False if it has ended."""
        while chunk := self.stdout.read(1 << 16):  # b"" at the end, None if there is nothing yet
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._take_in(json.loads(line))
        if chunk is not None:
            self.child = None
        return chunk is None

    def _take_in(self, message: dict) -> None:
        if "error" in message:
            self.error = message["error"]
        elif "ready" in message:
            self.started, self.ready, self.child = True, True, message["pid"]
            if self.verdict is None:  # a new child knows nothing of the old one's job
                self.lost, self.job = self.job, None
        elif message["id"] == self.job_id and "gold_read" in message:
            self.gold_read = True
        elif message["id"] == self.job_id:
            self.verdict = Verdict(VerdictKind(message["kind"]), message["detail"])

    def stop_job(self) -> None:
        """Kill the child; the next one will report when it is ready."""
        self.job, self.ready, self.deadline = None, False, time.monotonic() + START_SECONDS
        self._kill_child()

    def end(self) -> None:
        """End both processes and free what they held. Harmless when they have ended already."""
        self.stdin.close()
        if self.child is None:
            self.process.kill()
        self._kill_child()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:  # a fork of ours that holds a copy of the pipe keeps it from seeing the end
            self.process.kill()
            self.process.wait()
        self.stdout.close()

    def _kill_child(self) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
        self.child = None


def _end_all(workers: list[_Worker], owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked child holds copies of these objects, but the processes are its parent's
        for worker in workers:
            worker.end()


class WorkerPool:
    """Checks pairs of answers in up to `size` processes.

    size: processes, by default one a core but no more than 4; they start when there is work for them, about 60 MB each.
    timeout: wall seconds for one check; imports are not charged to it. memory_bytes: what one process may allocate.
    cache_size: verdicts kept by (gold, answer), the least recently used go first.
    """

    def __init__(
        self, size: int | None = None, timeout: float = 1.0, memory_bytes: int = 1 << 30, cache_size: int = 20_000
    ):
        if size is not None and size < 1:
            raise ValueError(f"a worker pool needs 1 or more workers, got size={size}")
        if not timeout > 0:
            raise ValueError(f"timeout is in seconds and must be positive, got {timeout}")
        self.size = size or min(4, _cores())
        self.timeout = timeout
        self.memory_bytes = memory_bytes
        self.cache_size = cache_size
        self._cache: OrderedDict[Pair, Verdict] = OrderedDict()
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._lock = threading.Lock()  # one batch at a time; other threads wait for theirs
        self._finalizer = weakref.finalize(self, _end_all, self._workers, os.getpid())  # also runs at interpreter exit

    def verify_many(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict a pair, in order; equal pairs are checked once. Raises WorkerError if no process can be
        started.
        """
        with self._lock:
            verdicts = {pair: self._cache[pair] for pair in pairs if pair in self._cache}
            verdicts |= self._work_off(deque(_Job(pair) for pair in dict.fromkeys(pairs) if pair not in verdicts))
            self._remember(verdicts)
        return [verdicts[pair] for pair in pairs]

    def pids(self) -> list[int]:
        """Ids of the processes that do the checks."""
        return [worker.child for worker in self._workers if worker.child and worker.process.poll() is None]

    def close(self) -> None:
        """End all processes. The pool can be used again, with fresh ones."""
        with self._lock:
            _end_all(self._workers, os.getpid())
            self._workers.clear()

    def _remember(self, verdicts: dict[Pair, Verdict]) -> None:
        for pair, verdict in verdicts.items():
            if verdict.kind not in NEVER_CACHED:
                self._cache[pair] = verdict
                self._cache.move_to_end(pair)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)

    def _work_off(self, queue: deque[_Job]) -> dict[Pair, Verdict]:
        """Hand out jobs, collect verdicts, replace what dies or overruns, until nothing is left to do."""
        verdicts: dict[Pair, Verdict] = {}
        try:
            while queue or any(worker.job for worker in self._workers):
                self._hire(len(queue))
                self._hand_out(queue)
                # What was written by this moment is read below, before any deadline is looked at.
                before = time.monotonic()
                for worker in self._wait_for_news():
                    alive = worker.read_news()
                    self._collect(worker, queue, verdicts)
                    if not alive:
                        self._bury(worker, queue, verdicts)
                for worker in [worker for worker in self._workers if not worker.idle and worker.deadline < before]:
                    self._stop_overdue(worker, queue, verdicts)
        finally:
            for worker in [worker for worker in self._workers if worker.job]:  # only after an exception, such as Ctrl-C
                self._dismiss(worker)
        return verdicts

    def _hire(self, waiting: int) -> None:
        """Have a worker for each check, running or waiting, up to `size`, none of which has ended while it was idle."""
        for worker in [worker for worker in self._workers if worker.idle and not worker.read_news()]:
            self._dismiss(worker)
        wanted = min(self.size, waiting + sum(worker.job is not None for worker in self._workers))
        while len(self._workers) < wanted:
            self._workers.append(_Worker(self.timeout, self.memory_bytes))

    def _hand_out(self, queue: deque[_Job]) -> None:
        for worker in self._workers:
            if worker.idle and queue:
                worker.give(queue.popleft(), self.timeout)

    def _wait_for_news(self) -> list[_Worker]:
        """The workers that wrote something or ended, as soon as there are any, or none after the next deadline."""
        deadlines = [worker.deadline for worker in self._workers if not worker.idle]
        patience = max(0.0, min(deadlines) - time.monotonic()) + 0.001 if deadlines else 0.0
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            return [key.data for key, _ in selector.select(patience)]

    def _collect(self, worker: _Worker, queue: deque[_Job], verdicts: dict[Pair, Verdict]) -> None:
        if worker.ready:
            self._failed_starts = 0
        if worker.job and worker.verdict:
            verdicts[worker.job.pair] = worker.verdict
            worker.job = None
        if worker.lost:
            self._try_again(worker.lost, worker.gold_read, queue, verdicts)
            worker.lost = None

    def _bury(self, worker: _Worker, queue: deque[_Job], verdicts: dict[Pair, Verdict]) -> None:
        """The process has ended by itself or was killed from outside."""
        self._dismiss(worker)
        if not worker.started:
            self._count_failed_start(worker)
        if worker.job:
            self._try_again(worker.job, worker.gold_read, queue, verdicts)

    def _try_again(self, job: _Job, gold_read: bool, queue: deque[_Job], verdicts: dict[Pair, Verdict]) -> None:
        if job.attempts < MAX_ATTEMPTS:
            queue.appendleft(job)
        elif gold_read:
            verdicts[job.pair] = Verdict(VerdictKind.UNPARSABLE, "the checking process died on this answer, twice")
        else:
            verdicts[job.pair] = Verdict(
                VerdictKind.UNREADABLE_GOLD, "the checking process died on this gold answer, twice"
            )

    def _count_failed_start(self, worker: _Worker) -> None:
        self._failed_starts += 1
        if worker.error:
            raise WorkerError(
                "mathematical answers are compared by math-verify, "
                f"which {sys.executable} cannot import: {worker.error}; run: pip install math-verify"
            )
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise WorkerError(
                f"{self._failed_starts} checking processes in a row ended before they were ready "
                f"(exit code {worker.process.returncode}); run this to see why: "
                f"{sys.executable} -P {SCRIPT} 1 {self.memory_bytes} < {os.devnull}"
            )

    def _stop_overdue(self, worker: _Worker, queue: deque[_Job], verdicts: dict[Pair, Verdict]) -> None:
        if worker.job is None:
            self._dismiss(worker)
            self._count_failed_start(worker)
            return
        overdue = [worker.job]
        if worker.gold_read:
            verdict = Verdict(VerdictKind.TIMEOUT, f"comparing took more than {self.timeout:g} s")
        else:  # no other answer waits in vain for the same gold answer
            verdict = Verdict(VerdictKind.GOLD_TIMEOUT, f"reading the gold answer took more than {self.timeout:g} s")
            overdue += [job for job in queue if job.pair.gold == worker.job.pair.gold]
        for job in overdue:
            verdicts[job.pair] = verdict
        for job in overdue[1:]:
            queue.remove(job)
        worker.stop_job()

    def _dismiss(self, worker: _Worker) -> None:
        worker.end()
        self._workers.remove(worker)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_default_pool: WorkerPool | None = None
_default_pool_lock = threading.Lock()


def default_pool() -> WorkerPool:
    """The pool of this process, made at the first call. A forked child makes its own: a pipe serves one parent only."""
    global _default_pool
    with _default_pool_lock:
        if _default_pool is None:
            _default_pool = WorkerPool()
        return _default_pool


def _forget_default_pool() -> None:
    global _default_pool, _default_pool_lock
    _default_pool, _default_pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_default_pool)
