"""Judging a program by hidden tests: what happened, and how many tests passed.

Programs that read and print run once a test, each in a process of its own, and what they printed is compared here.
Functions are loaded once and called by an examiner in a second process (rewards.code.roles). Limits: `time_limit`
seconds of processor time for a run or a call, which a busy machine does not use up, and some three times that by
the clock, which a sleeper does; all tests of a program together SUITE_FACTOR times as much.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rewards.code import wire
from rewards.code.compare import TOLERANCE, same_output, same_value
from rewards.code.cpp_functions import arguments_text, result_of, with_main
from rewards.code.jail import Limits
from rewards.code.programs import complete_program
from rewards.code.rows import Case, Suite
from rewards.code.sandbox import Exit, Job, JobLost, Sandbox, SandboxError

SUITE_FACTOR = 20
EXAMINER_FACTOR = 5
"""The tests themselves take no time, unless a program's answers keep them busy."""
COMPILE_SECONDS = 20
COMPILE_BYTES = 2 << 30
EXAMINER_BYTES = 1 << 30
STACK_BYTES = 64 << 20
MAX_BINARY = 64 << 20
MAX_MESSAGES = 1 << 16
MAX_DETAIL = 300
COMPILE_OPTIONS = ("-std=gnu++17", "-O2", "-pipe")
EVERYTHING = "bits/stdc++.h"
MAX_HEADER = 512 << 20
MAX_ATTEMPTS = 3
"""A program whose sandbox was lost is judged again: a process may have been killed from outside."""


class CodeVerdictKind(StrEnum):
    """What can happen when a program is judged."""

    PASSED = "passed"
    WRONG_OUTPUT = "wrong_output"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    COMPILE_ERROR = "compile_error"
    NO_PROGRAM = "no_program"
    """The completion holds no program."""
    BAD_TESTS = "bad_tests"
    """The row's tests cannot be used."""


@dataclass(frozen=True)
class CodeVerdict:
    """The first failure, or none, with a sentence for people; and the tests that passed, of those that there are.

    After a failure further tests run only where all are asked for (`share`). A function that hung or ended its process
    is not called again: the tests after it count as failed.
    """

    kind: CodeVerdictKind
    detail: str = ""
    passed: int = 0
    total: int = 0

    @property
    def compiled(self) -> bool:
        """Whether there was a program, and one that compiles."""
        return self.kind not in (CodeVerdictKind.COMPILE_ERROR, CodeVerdictKind.NO_PROGRAM, CodeVerdictKind.BAD_TESTS)

    @property
    def share(self) -> float:
        """Of the tests, those that passed."""
        return self.passed / self.total if self.total else 0.0


class _Failure(Exception):  # noqa: N818 - the program's, not ours
    """A test that does not pass, or a program that gets nowhere."""

    def __init__(self, kind: CodeVerdictKind, detail: str = ""):
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


def judge(
    program: str,
    suite: Suite,
    sandbox: Sandbox,
    first_failure_decides: bool = True,
    tolerance: float = TOLERANCE,
) -> CodeVerdict:
    """Run a program against hidden tests. Raises SandboxError when the sandbox fails, never for what the program does.

    first_failure_decides: stop there; else every test runs, for `share`.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            return _judge(program, suite, sandbox, first_failure_decides, tolerance)
        except JobLost as lost:
            reason = lost
        time.sleep(0.1 * (attempt + 1))
    raise SandboxError(f"the sandbox lost a program {MAX_ATTEMPTS} times in a row: {reason}")


def _judge(program: str, suite: Suite, sandbox: Sandbox, first_failure_decides: bool, tolerance: float) -> CodeVerdict:
    total = len(suite.cases or suite.calls or suite.snippets)
    try:
        if suite.language == "cpp":
            suite, source, same = _as_runs(program, suite) if suite.calls else (suite, program, same_output)
            with _compiled(source, sandbox) as binary:
                run = functools.partial(_run_binary, binary)
                return _judge_runs(run, suite, sandbox, first_failure_decides, same, tolerance)
        if suite.cases:
            run = functools.partial(_run_script, complete_program(program, suite.preamble, ""))
            return _judge_runs(run, suite, sandbox, first_failure_decides, same_output, tolerance)
        return _judge_functions(program, suite, sandbox, first_failure_decides, tolerance)
    except _Failure as failure:
        return CodeVerdict(failure.kind, failure.detail, 0, total)


# Programs that read and print


def _judge_runs(
    run: Callable[[Sandbox, Suite, Case], str],
    suite: Suite,
    sandbox: Sandbox,
    first_failure_decides: bool,
    same: Callable[[str, str, float], bool],
    tolerance: float,
) -> CodeVerdict:
    passed, first = 0, None
    end = time.monotonic() + SUITE_FACTOR * suite.time_limit
    for number, case in enumerate(suite.cases, 1):
        try:
            if time.monotonic() > end:
                raise _Failure(CodeVerdictKind.TIMEOUT, "all tests together took too long")
            printed = run(sandbox, suite, case)
            if not same(printed, case.output, tolerance):
                detail = f"printed {printed.strip()!r:.100}, expected {case.output.strip()!r:.100}"
                raise _Failure(CodeVerdictKind.WRONG_OUTPUT, detail)
            passed += 1
        except _Failure as failure:
            first = first or _Failure(failure.kind, f"test {number}: {failure.detail}")
            if first_failure_decides or failure.kind is CodeVerdictKind.COMPILE_ERROR or time.monotonic() > end:
                break
    kind, detail = (first.kind, first.detail) if first else (CodeVerdictKind.PASSED, "")
    return CodeVerdict(kind, detail, passed, len(suite.cases))


def _run_script(program: str, sandbox: Sandbox, suite: Suite, case: Case) -> str:
    """What a Python program prints. Raises _Failure."""
    with _standard_streams(case) as streams:
        order = {"role": "script", "program": program}
        with sandbox.start(order, _run_limits(suite, case), streams) as job:
            deadline = _deadline(suite.time_limit)
            with _losses(job):
                news = job.receive(deadline)
                if "compile_error" in news:
                    raise _Failure(CodeVerdictKind.COMPILE_ERROR, str(news["compile_error"])[:MAX_DETAIL])
            return _printed(job, deadline, streams, case)


def _run_binary(binary: int, sandbox: Sandbox, suite: Suite, case: Case) -> str:
    """What a compiled program prints. Raises _Failure."""
    with (
        _standard_streams(case) as streams,
        sandbox.start({"role": "binary"}, _run_limits(suite, case), [*streams, binary]) as job,
    ):
        return _printed(job, _deadline(suite.time_limit), streams, case)


def _printed(job: Job, deadline: float, streams: Sequence[int], case: Case) -> str:
    try:
        end = job.wait(deadline)
    except TimeoutError:
        raise _Failure(CodeVerdictKind.TIMEOUT, "did not end in time") from None
    if end.status:
        raise _of_exit(end, _content(streams[2], MAX_MESSAGES))
    size = os.fstat(streams[1]).st_size
    if size >= _room(case):
        raise _Failure(CodeVerdictKind.WRONG_OUTPUT, f"printed {size:,} bytes or more")
    return _content(streams[1], size)


def _of_exit(end: Exit, messages: str) -> _Failure:
    """What a process died of."""
    last = messages.strip().rpartition("\n")[2][:MAX_DETAIL]
    if end.status == -signal.SIGXCPU:
        return _Failure(CodeVerdictKind.TIMEOUT, f"used {end.cpu_seconds:.1f} s of processor time")
    if end.status == -signal.SIGXFSZ:
        return _Failure(CodeVerdictKind.WRONG_OUTPUT, "printed too much")
    if end.status == -signal.SIGKILL:  # not by us: the hard limit, or the system ran out of memory
        overrun = end.cpu_seconds >= 1
        return _Failure(CodeVerdictKind.TIMEOUT if overrun else CodeVerdictKind.MEMORY, "was killed")
    if "MemoryError" in last or "bad_alloc" in messages:
        return _Failure(CodeVerdictKind.MEMORY, last)
    ended = f"ended by signal {-end.status}" if end.status < 0 else f"ended with status {end.status}"
    return _Failure(CodeVerdictKind.RUNTIME_ERROR, f"{ended}: {last}" if last else ended)


@contextlib.contextmanager
def _standard_streams(case: Case) -> Iterator[list[int]]:
    """Files in memory for standard input, output and errors: no pipe that could fill up, no deadlock."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_memory_file(text)) for text in (case.input, "", "")]


@contextlib.contextmanager
def _memory_file(text: str = "") -> Iterator[int]:
    fd = os.memfd_create("r1lab", os.MFD_CLOEXEC)
    try:
        if text:
            _write_all(fd, text.encode("utf-8", "replace"))
            os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _content(fd: int, limit: int) -> str:
    return os.pread(fd, limit, 0).decode("utf-8", "replace")


def _room(case: Case) -> int:
    """Bytes that a program may print."""
    return 2 * len(case.output) + (1 << 20)


def _run_limits(suite: Suite, case: Case) -> Limits:
    return Limits(
        cpu_seconds=math.ceil(suite.time_limit),
        memory_bytes=suite.memory_mb << 20,
        file_bytes=_room(case),
        stack_bytes=STACK_BYTES,
    )


def _deadline(seconds: float) -> float:
    return time.monotonic() + _wall(seconds)


def _wall(seconds: float) -> float:
    """Seconds by the clock for what may use `seconds` of a processor, on a machine that is busy too."""
    return 3 * math.ceil(seconds) + 2


@contextlib.contextmanager
def _losses(job: Job) -> Iterator[None]:
    """What it means when a process of a program says nothing, or nonsense."""
    try:
        yield
    except TimeoutError:
        raise _Failure(CodeVerdictKind.TIMEOUT, "did not load in time") from None
    except (EOFError, OSError, wire.WireError):
        raise _died(job) from None


def _died(job: Job) -> _Failure:
    """Why a program's process no longer answers."""
    try:
        end = job.wait(time.monotonic() + 1)
    except TimeoutError:
        return _Failure(CodeVerdictKind.RUNTIME_ERROR, "closed the channel that its calls come by")
    if end.status == 0:
        return _Failure(CodeVerdictKind.RUNTIME_ERROR, "ended its process before all tests were through")
    return _of_exit(end, "")


# Functions


def _judge_functions(
    program: str, suite: Suite, sandbox: Sandbox, first_failure_decides: bool, tolerance: float
) -> CodeVerdict:
    end = time.monotonic() + SUITE_FACTOR * suite.time_limit
    program = complete_program(program, suite.preamble, suite.names[0])
    order = {"role": "functions", "program": program, "call_seconds": suite.time_limit}
    with sandbox.start(order, _function_limits(suite, SUITE_FACTOR, suite.memory_mb << 20)) as job:
        deadline = _deadline(suite.time_limit)
        with _losses(job):
            _read_loading(job.receive(deadline), "compile_error", CodeVerdictKind.COMPILE_ERROR)
            _read_loading(job.receive(deadline), "load_error", CodeVerdictKind.RUNTIME_ERROR)
        examination = _examination(suite, first_failure_decides, tolerance)
        limits = _function_limits(suite, EXAMINER_FACTOR, EXAMINER_BYTES)
        with sandbox.start(examination, limits, [job.channel_fd]) as examiner:
            job.let_go_of_channel()
            try:
                report = examiner.receive(end)
            except TimeoutError:
                raise _Failure(CodeVerdictKind.TIMEOUT, "all tests together took too long") from None
            except (EOFError, wire.WireError):
                raise _of_examiner(examiner) from None
        kind, detail = report["kind"], report["detail"]
        if kind == "died":
            failure = _died(job)
            kind, detail = failure.kind, failure.detail
    return CodeVerdict(CodeVerdictKind(kind), detail, report["passed"], report["total"])


def _read_loading(news: dict, key: str, kind: CodeVerdictKind) -> None:
    if key in news:
        text = str(news[key])[:MAX_DETAIL]
        raise _Failure(CodeVerdictKind.MEMORY if "MemoryError" in text else kind, text)


def _of_examiner(examiner: Job) -> _Failure:
    """Why the tests ended without a report: over their limit (a program's answers kept them busy), or by themselves."""
    try:
        end = examiner.wait(time.monotonic() + 1)
    except TimeoutError:
        return _Failure(CodeVerdictKind.BAD_TESTS, "the tests closed the channel that they report by")
    if end.status == -signal.SIGKILL:
        raise JobLost("the examiner was killed")
    if end.status == -signal.SIGXCPU:
        return _Failure(CodeVerdictKind.TIMEOUT, "the tests took too long")
    return _Failure(CodeVerdictKind.BAD_TESTS, f"the tests ended their process, with status {end.status}")


def _function_limits(suite: Suite, factor: int, memory_bytes: int) -> Limits:
    return Limits(
        cpu_seconds=math.ceil(factor * suite.time_limit),
        memory_bytes=memory_bytes,
        file_bytes=0,
        stack_bytes=STACK_BYTES,
    )


def _examination(suite: Suite, first_failure_decides: bool, tolerance: float) -> dict:
    return {
        "role": "examiner",
        "call_seconds": _wall(suite.time_limit),
        "first_failure_decides": first_failure_decides,
        "names": list(suite.names),
        "setup": suite.setup,
        "snippets": list(suite.snippets),
        "calls": [
            {
                "call": suite.names[0],
                "args": wire.encode(call.args),
                "kwargs": wire.encode(dict(call.kwargs or {})),
                "expected": wire.encode(call.expected),
            }
            for call in suite.calls
        ],
        "tolerance": tolerance,
    }


# C++


def _as_runs(program: str, suite: Suite) -> tuple[Suite, str, Callable[[str, str, float], bool]]:
    """Calls of a function in C++ as runs of a program around it: the runs, its source, and how results compare."""
    cases = tuple(Case(arguments_text(call.args), json.dumps(call.expected)) for call in suite.calls)
    source = with_main(program, suite.names[0])
    return replace(suite, calls=(), cases=cases), source, _same_result


def _same_result(printed: str, expected: str, tolerance: float) -> bool:
    try:
        return same_value(result_of(printed), json.loads(expected), tolerance)
    except ValueError:
        return False


@contextlib.contextmanager
def _compiled(source: str, sandbox: Sandbox) -> Iterator[int]:
    """A descriptor of the program that g++ makes of a source, to be executed. Raises _Failure for what g++ refuses."""
    if EVERYTHING in source:  # 1.5 s a program, 0.3 s once it was read: 4 s, so it waits for the first that asks
        with sandbox.preparing() as first:
            if first:
                with contextlib.suppress(_Failure):
                    _compile(f"#include <{EVERYTHING}>", "c++-header", sandbox, MAX_HEADER, keep=f"{EVERYTHING}.gch")
    end, said = _compile(source, "c++", sandbox, MAX_BINARY)
    if end.status or end.made is None:
        if end.made is not None:
            os.close(end.made)
        errors = [line for line in said.splitlines() if "error" in line] or said.splitlines() or ["g++ gave up"]
        raise _Failure(CodeVerdictKind.COMPILE_ERROR, errors[0][:MAX_DETAIL])
    executable = _executable(end.made)
    try:
        yield executable
    finally:
        os.close(executable)


def _compile(source: str, kind: str, sandbox: Sandbox, room: int, keep: str | None = None) -> tuple[Exit, str]:
    """How the compiler ended, and what it said. Raises _Failure when it did not end."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise SandboxError("programs in C++ are compiled by g++, which is not installed; on Debian: apt install g++")
    limits = Limits(cpu_seconds=COMPILE_SECONDS, memory_bytes=COMPILE_BYTES, file_bytes=room, stack_bytes=STACK_BYTES)
    order = {"role": "compiler", "command": [compiler, *COMPILE_OPTIONS, "-x", kind], "source": source}
    with _memory_file() as messages:
        with sandbox.start(order, limits, [messages], scratch=True, keep=keep) as job:
            try:
                end = job.wait(time.monotonic() + _wall(COMPILE_SECONDS))
            except TimeoutError:
                raise _Failure(CodeVerdictKind.COMPILE_ERROR, "compiling took too long") from None
        return end, _content(messages, MAX_MESSAGES)


def _executable(made: int) -> int:
    """A copy in memory of the compiler's output: the file itself lies where nobody may execute."""
    try:
        fd = os.memfd_create("program", os.MFD_CLOEXEC | 0x10)  # MFD_EXEC, since Linux 6.3
    except OSError:
        fd = os.memfd_create("program", os.MFD_CLOEXEC)
    try:
        with os.fdopen(made, "rb") as binary:
            while chunk := binary.read(1 << 20):
                _write_all(fd, chunk)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # a file open for writing cannot be executed
    finally:
        os.close(fd)
