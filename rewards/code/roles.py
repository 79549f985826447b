"""What a jailed process does: run a script, serve a program's functions, examine them, compile, run a binary.

Each reads its order from its channel, closes the walls (`lock`), says so in a first frame, and only then touches what a
model wrote. A program and its hidden tests are never in one process: the examiner runs the tests against a `Remote`
that sends each call to the program's process and gets plain data back. So a program cannot read what is expected of it,
end the tests early (`os._exit(0)`), or answer with an object that equals everything.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from rewards.code import seccomp, wire
from rewards.code.compare import same_value
from rewards.code.jail import HEADERS

CHANNEL, FIRST_HANDED = 3, 4
"""Descriptors of a jailed process; what else it was given follows the channel."""
BINARY = "a.out"
"""What the compiler makes."""
MAX_DETAIL = 300
LANGUAGE_ERRORS = (NameError, ImportError, SyntaxError)
"""Raised by the tests themselves, these are their own fault."""

Lock = Callable[..., None]


def follow_order(lock: Lock, scratch: Path | None) -> None:
    """Read the order and do it, up to the end of the process."""
    order = wire.receive_frame(CHANNEL, wire.MAX_ORDER)
    match order.pop("role"):
        case "script":
            run_script(lock, **order)
        case "functions":
            serve_functions(lock, **order)
        case "examiner":
            examine(lock, **order)
        case "compiler":
            assert scratch is not None
            run_compiler(lock, scratch, **order)
        case "binary":
            run_binary(lock)


def warm_up() -> None:
    """Do once what the roles do: what Python imports late must be there before its files are out of sight."""
    tree, _ = judged("assert 'é'.encode('utf-8').decode('latin-1')")
    exec(compile(tree, "<tests>", "exec", dont_inherit=True), {"__judge__": lambda *_: None})
    wire.decode(wire.encode([1, {2.5: "x"}]))
    with open(os.devnull, encoding="utf-8", errors="surrogateescape") as empty:
        empty.read()
    traceback.format_exception_only(ValueError("x"))


# Programs in Python


def run_script(lock: Lock, program: str) -> NoReturn:
    """The program as `__main__`, with the three standard streams that were handed over."""
    for place in range(3):
        os.dup2(FIRST_HANDED + place, place)
    os.closerange(FIRST_HANDED, FIRST_HANDED + 3)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    code = _locked_and_compiled(lock, program)
    os.close(CHANNEL)
    os._exit(_run_as_main(code))


def _run_as_main(code: types.CodeType) -> int:
    """Run like `python program.py`; its exit status."""
    status = 0
    try:
        exec(code, _new_module("__main__"))
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does: wait for its threads
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        sys.stdout.flush()
    except BaseException:
        status = status or 120
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    return status & 0xFF


def serve_functions(lock: Lock, program: str, call_seconds: float) -> NoReturn:
    """Load the program, then answer calls: {"call": name, "args": …, "kwargs": …} -> value, raised or unsendable."""
    code = _locked_and_compiled(lock, program)
    namespace = _new_module("program")
    send, receive, limit = wire.send_frame, wire.receive_frame, resource.setrlimit
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)

    def start_clock() -> None:
        soft = math.ceil(time.process_time() + call_seconds)
        limit(resource.RLIMIT_CPU, (min(soft, hard), hard))

    start_clock()
    try:
        exec(code, namespace)
    except BaseException as error:
        send(CHANNEL, {"load_error": ": ".join(_described(error))})
        os._exit(0)
    send(CHANNEL, {"loaded": True})
    while True:
        try:
            request = receive(CHANNEL)
        except EOFError:
            os._exit(0)
        start_clock()
        send(CHANNEL, _answer(request, namespace))


def _answer(request: dict, namespace: dict[str, Any]) -> dict[str, object]:
    try:
        arguments: Any = wire.decode(request["args"])
        named: Any = wire.decode(request["kwargs"])
        value = _function(namespace, request["call"])(*arguments, **named)
    except BaseException as error:
        return {"raised": _described(error)}
    try:
        return {"value": wire.encode(value)}
    except BaseException as error:
        return {"unsendable": str(error)[:MAX_DETAIL]}


def _function(namespace: dict[str, Any], name: str) -> Callable:
    """A function by its name; `method` or `Class().method` of a fresh object, as LeetCode's tasks have it."""
    if name in namespace:
        return namespace[name]
    owner, _, method = name.rpartition("().")
    owner = owner or "Solution"
    if owner not in namespace:
        raise NameError(f"the program defines no {name}")
    return getattr(namespace[owner](), method)


def _described(error: BaseException) -> list[str]:
    try:
        return [type(error).__name__[:100], str(error)[:MAX_DETAIL]]
    except BaseException:  # a hostile __str__
        return ["Exception", ""]


def _locked_and_compiled(lock: Lock, program: str) -> types.CodeType:
    lock()
    wire.send_frame(CHANNEL, {"locked": True})
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except BaseException as error:  # SyntaxError, ValueError (a null byte), RecursionError, MemoryError
        wire.send_frame(CHANNEL, {"compile_error": ": ".join(_described(error))})
        os._exit(0)
    wire.send_frame(CHANNEL, {"compiled": True})
    return code


def _new_module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    sys.argv = [f"{name}.py"]
    return module.__dict__


# The examiner


class CallFailed(Exception):  # noqa: N818 - read in a traceback: the call failed
    """The program raised, and what it raised is no built-in exception."""


class Stopped(BaseException):
    """Nothing more is to be learnt: the program is gone, or a test has failed and the first failure decides."""


class Remote:
    """Functions that live in the program's process."""

    def __init__(self, link: int, call_seconds: float):
        self.link = link
        self.call_seconds = call_seconds
        self.gone = ""
        """Why no further call can be answered: "timeout", "died" or "" while it can."""
        self.answers = 0
        self.raised: BaseException | None = None

    def function(self, name: str) -> Callable:
        def candidate(*args: object, **kwargs: object) -> object:
            return self.call(name, args, kwargs)

        candidate.__name__ = name
        return candidate

    def call(self, name: str, args: tuple, kwargs: dict) -> object:
        """What the function returns, as plain data. Raises what it raised, Stopped, or Unsendable for the arguments."""
        request = {"call": name, "args": wire.encode(args), "kwargs": wire.encode(kwargs)}
        if self.gone:
            raise Stopped
        try:
            wire.send_frame(self.link, request)
            reply = wire.receive_frame(self.link, deadline=time.monotonic() + self.call_seconds)
            value = wire.decode(reply["value"]) if "value" in reply else None
        except TimeoutError:
            self.gone = "timeout"
            raise Stopped from None
        except (EOFError, OSError, wire.WireError):
            self.gone = "died"
            raise Stopped from None
        if "value" not in reply:
            raise self._failure(reply)
        self.answers += 1
        return value

    def _failure(self, reply: dict) -> BaseException:
        kind, detail = "TypeError", f"the program returned {reply.get('unsendable', 'nothing that makes sense')}"
        with contextlib.suppress(TypeError, ValueError, KeyError):
            kind, detail = map(str, reply["raised"])
        known = getattr(builtins, kind, None)
        # StopIteration would quietly end `all(map(candidate, …))` in the tests, as true.
        if isinstance(known, type) and issubclass(known, Exception) and "Stop" not in kind:
            with contextlib.suppress(TypeError):  # UnicodeDecodeError wants five arguments
                self.raised = known(detail)
                return self.raised
        self.raised = CallFailed(f"{kind}: {detail}")
        return self.raised


class Exam:
    """Counts the tests that pass and remembers the first failure."""

    def __init__(self, remote: Remote, first_failure_decides: bool):
        self.remote = remote
        self.first_failure_decides = first_failure_decides
        self.source: list[str] = []
        """The lines of the snippet that runs."""
        self.passed = self.failed = 0
        self.kind = self.detail = ""

    def __call__(self, holds: object, line: int) -> None:
        """One test: an assert of the hidden tests was evaluated."""
        if holds:
            self.passed += 1
        else:
            self.fail("wrong_output", f"does not hold: {self._line(line)}")

    def fail(self, kind: str, detail: str) -> None:
        self.failed += 1
        if not self.kind:
            self.kind, self.detail = kind, detail[:MAX_DETAIL]
        if self.first_failure_decides:
            raise Stopped

    def raised(self, error: Exception, line: int) -> None:
        """A test raised: whose fault is it?"""
        what = self._line(line)
        described = f"{type(error).__name__}: {error} in {what}"
        if error is self.remote.raised:
            self.fail("memory" if isinstance(error, MemoryError) else "runtime_error", described)
        elif isinstance(error, AssertionError):
            self.fail("wrong_output", f"does not hold: {what}")
        elif isinstance(error, (*LANGUAGE_ERRORS, wire.Unsendable)) or not (self.remote.answers or self.remote.raised):
            self.fail("bad_tests", described)
        else:  # the test could not use what the program returned
            self.fail("wrong_output", described)

    def _line(self, number: int) -> str:
        return self.source[number - 1].strip() if 0 < number <= len(self.source) else "the tests"

    def report(self, expected: int) -> dict[str, object]:
        if self.remote.gone:
            self.failed += 1
            self.kind, self.detail = self.kind or self.remote.gone, self.detail or "a call did not return in time"
        if not self.kind and not self.passed:
            self.kind, self.detail = "bad_tests", "the tests assert nothing"
        total = max(expected, self.passed + self.failed)
        return {"passed": self.passed, "total": total, "kind": self.kind or "passed", "detail": self.detail}


def examine(
    lock: Lock,
    call_seconds: float,
    first_failure_decides: bool,
    names: list[str],
    setup: str,
    snippets: list[str],
    calls: list[dict],
    tolerance: float,
) -> NoReturn:
    """Run hidden tests: `snippets` of Python with asserts about the functions `names`, or `calls` with what they must
    give. The functions are remote, at the descriptor after the channel.
    """
    lock()
    wire.send_frame(CHANNEL, {"locked": True})
    remote = Remote(FIRST_HANDED, call_seconds)
    exam = Exam(remote, first_failure_decides)
    expected = len(calls)
    try:
        namespace = {"__name__": "tests", "__judge__": exam}
        if setup:
            exec(compile(setup, "<setup>", "exec", dont_inherit=True), namespace)
        namespace |= {name: remote.function(name) for name in names}
        trees = [judged(snippet) for snippet in snippets]
        expected += sum(count for _, count in trees)
        _run_snippets(exam, [tree for tree, _ in trees], snippets, namespace)
        _run_calls(exam, calls, tolerance)
    except Stopped:
        pass
    except BaseException as error:  # the tests' own: a program's come as Exceptions
        exam.kind, exam.detail = "bad_tests", f"{type(error).__name__}: {error}"[:MAX_DETAIL]
    wire.send_frame(CHANNEL, exam.report(expected))
    os._exit(0)


def _run_snippets(exam: Exam, trees: Iterable[ast.Module], sources: Iterable[str], namespace: dict[str, Any]) -> None:
    for tree, source in zip(trees, sources):
        exam.source = source.splitlines()
        try:
            exec(compile(tree, "<tests>", "exec", dont_inherit=True), namespace)
        except Exception as error:
            exam.raised(error, _line_of(error))


def _line_of(error: Exception) -> int:
    """The line of the tests that an exception came from."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "<tests>"]
    return lines[-1] if lines else 0


def _run_calls(exam: Exam, calls: list[dict], tolerance: float) -> None:
    exam.source = [f"{call['call']}{wire.decode(call['args'])!r:.100}" for call in calls]
    for number, call in enumerate(calls, 1):
        args, kwargs, wanted = (wire.decode(call[key]) for key in ("args", "kwargs", "expected"))
        try:
            got = exam.remote.call(call["call"], args, kwargs)  # type: ignore[arg-type]
        except Exception as error:
            exam.raised(error, number)
        else:
            exam(same_value(got, wanted, tolerance), number)


class _Judged(ast.NodeTransformer):
    """Turns each `assert test` into `try: __judge__(test, line)` / `except Exception as error: __judge__.raised(error,
    line)`, so that tests are counted and one that fails does not hide the others.
    """

    def __init__(self) -> None:
        self.count = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        if isinstance(node.test, ast.Constant):
            return node  # `assert True` tests nothing
        self.count += 1
        judge, line = ast.Name("__judge__", ast.Load()), ast.Constant(node.lineno)
        raised = ast.Call(
            ast.Attribute(judge, "raised", ast.Load()), [ast.Name("__error__", ast.Load()), line], keywords=[]
        )
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), "__error__", [ast.Expr(raised)])
        verdict = ast.Expr(ast.Call(judge, [node.test, line], keywords=[]))
        return ast.copy_location(ast.Try([verdict], [handler], [], []), node)


def judged(source: str) -> tuple[ast.Module, int]:
    """Tests with their asserts counted, and how many asserts they have (one in a loop counts once)."""
    transformer = _Judged()
    tree = transformer.visit(ast.parse(source))
    return ast.fix_missing_locations(tree), transformer.count


# C++


def run_compiler(lock: Lock, scratch: Path, command: list[str], source: str) -> NoReturn:
    """Compile a source; what was handed over takes the messages."""
    text = scratch / "program.cpp"
    text.write_text(source, encoding="utf-8", errors="replace")
    os.dup2(FIRST_HANDED, 1)
    os.dup2(FIRST_HANDED, 2)
    os.chdir(scratch)
    command = [*command, text.name, "-o", BINARY, f"-I{scratch.parent / HEADERS}"]
    _default_signals()
    lock()
    wire.send_frame(CHANNEL, {"locked": True})
    os.execve(command[0], command, {**os.environ, "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"})


def run_binary(lock: Lock) -> NoReturn:
    """The program that was handed over after the three standard streams."""
    for place in range(3):
        os.dup2(FIRST_HANDED + place, place)
    binary = FIRST_HANDED + 3
    _default_signals()
    lock(binary_fd=binary)
    wire.send_frame(CHANNEL, {"locked": True})
    nothing = (ctypes.c_char_p * 1)(None)
    arguments = (ctypes.c_char_p * 2)(b"program", None)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(seccomp.number("execveat"), binary, b"", arguments, nothing, 0x1000)  # AT_EMPTY_PATH
    os.write(2, f"execveat: {os.strerror(ctypes.get_errno())}\n".encode())
    os._exit(71)


def _default_signals() -> None:
    """Python ignores these, and a program that it starts would too."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
