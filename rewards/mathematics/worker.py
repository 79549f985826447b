"""A checking worker: reads one JSON job a line on stdin, compares with SymPy or math-verify, replies on stdout.

Started by `pool` as a plain script, so that it imports nothing of this project and none of torch. It imports
math-verify once and then forks a child, which does the work; when the child is killed it forks the next, in a few
milliseconds instead of the import's 0.6 s. Lines:

    <- {"ready": true, "pid": 4711}                     from each child, before its first job
    <- {"error": "…"}                                   math-verify cannot be imported; the end
    -> {"id": 3, "how": "texts", "gold": "$42$", "answer": "$41+1$"}    answer null: only read the gold answer
    <- {"id": 3, "gold_read": true}                     from here on the answer is at fault for a time-out
    <- {"id": 3, "kind": "correct", "detail": "…"}

The parent kills the child on time-out. Should the parent be gone, stdin ends, and an alarm ends a job that is still
running. A job whose `how` is "expressions" brings two of `expressions` as JSON, and asks whether they
are equal. math-verify's own time-outs are off: they need the main thread's signals and leave work running. Only its
LaTeX reader is used, never its expression reader, which hands digits and operators to `eval`.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any

ALARM_GRACE = 1.0
"""Seconds that a job may outlive the parent's time-out before the child ends itself."""
MAX_REPLY = 200
"""Characters of a detail; a reply stays below PIPE_BUF, so that a kill cannot cut it in two."""
STDIN_ENDED, NOT_STARTED, OUTGROWN = 0, 3, 4
"""How a child exits."""


def limit_resources(memory_bytes: int) -> None:
    """Bound memory, write no file and no core dump. A limit that the system does not know (RLIMIT_AS on macOS) is left
    out.
    """
    for name, limit in (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_DATA", memory_bytes),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
    ):
        try:
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(number, (limit, limit))
        except (AttributeError, ValueError, OSError):
            continue


DIGITS, TOLERANCE = 60, 1e-45
"""Two expressions count as equal if they agree to this relative precision at every point of `POINTS`."""
POINTS = ("0.7390851332151606416", "5.3247179572447460260", "13.5671432904097838730")


SAME_IN_SYMPY = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "floor", "factorial", "gcd", "lcm"),
)


def same_expression(left: list, right: list) -> Iterator[dict[str, object]]:
    """The replies to a job about two expressions. A time-out is the answer's fault: the parent has seen that the gold
    answer's value is finite.
    """
    yield {"gold_read": True}
    import sympy

    difference = build(left) - build(right)
    magnitude = build(left)
    names = sorted(difference.free_symbols | magnitude.free_symbols, key=str)
    for sample in range(len(POINTS) if names else 1):
        values = {
            name: sympy.Float(POINTS[(sample + n) % len(POINTS)], DIGITS) + sympy.Rational(n, 7)
            for n, name in enumerate(names)
        }
        distance = abs(sympy.N(difference.subs(values), DIGITS, maxn=400))
        scale = 1 + abs(sympy.N(magnitude.subs(values), DIGITS, maxn=400))
        if not (distance.is_number and scale.is_number) or not distance.is_finite:
            yield {"kind": "wrong", "detail": "SymPy finds no value"}
            return
        if distance > TOLERANCE * scale:
            yield {"kind": "wrong", "detail": "SymPy finds them different"}
            return
    yield {"kind": "correct", "detail": "SymPy finds them equal"}


def build(node: list) -> Any:
    """The SymPy expression of a nested list. Variables are positive: the parent has compared the other signs."""
    import sympy

    head = node[0]
    if head == "num":
        return sympy.Rational(node[1])
    if head == "sym":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
        return constants.get(node[1]) or sympy.Symbol(node[1], positive=True)
    if head == "fun":
        return function(node[1], [build(item) for item in node[2:]])
    if head == "root":
        degree, base = build(node[1]), build(node[2])
        return sympy.real_root(base, degree) if degree.is_odd and base.is_real else sympy.root(base, degree)
    first, *rest = [build(item) for item in node[1:]]
    if head == "neg":
        return -first
    if head == "pct":
        return first / 100
    if head == "pow" and first.is_negative and rest[0].is_Rational and rest[0].q % 2:
        return (-1) ** rest[0].p * (-first) ** rest[0]
    operations = {"add": sympy.Add, "mul": sympy.Mul, "pow": sympy.Pow, "div": lambda a, b: a / b}
    return operations[head](first, rest[0])


def function(name: str, arguments: list) -> Any:
    import sympy

    if name == "log":
        return sympy.log(arguments[0]) / sympy.log(arguments[1] if len(arguments) > 1 else 10)
    known = {
        "ln": sympy.log, "abs": sympy.Abs, "ceil": sympy.ceiling, "max": sympy.Max, "min": sympy.Min,
        "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "binom": sympy.binomial,
        **{same: getattr(sympy, same) for same in SAME_IN_SYMPY},
    }  # fmt: skip
    return known[name](*arguments) if name in known else sympy.Function(name)(*arguments)


def judge(gold: str, answer: str | None) -> Iterator[dict[str, object]]:
    """The replies to one job: `gold_read` once the gold answer has been read, then a kind of rewards.verdicts with its
    detail.
    """
    from math_verify import verify

    golds = read(gold)
    if not golds:
        yield {"kind": "unreadable_gold", "detail": f"math-verify cannot read the gold answer {gold}"}
        return
    yield {"gold_read": True}
    if answer is None:
        yield {"kind": "no_answer", "detail": "the completion marks no answer"}
        return
    answers = read(answer)
    if not answers:
        yield {"kind": "unparsable", "detail": f"math-verify cannot read the answer {answer}"}
    elif any(states_falsehood(expression) for expression in answers):
        yield {"kind": "wrong", "detail": "the answer is an equation that does not hold"}
    elif verify(list(golds), list(answers), allow_set_relation_comp=True, timeout_seconds=None):
        yield {"kind": "correct", "detail": "math-verify finds them equal"}
    else:
        yield {"kind": "wrong", "detail": "math-verify finds them different"}


@functools.lru_cache(maxsize=256)
def read(text: str) -> tuple:
    """The SymPy expressions that math-verify reads in a text with `$…$`; empty if there are none."""
    from math_verify import LatexExtractionConfig, parse

    found = parse(text, extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    return tuple(expression for expression in found if not isinstance(expression, str))


def states_falsehood(expression: object) -> bool:
    """Whether an answer such as `41 = 42` equates unequal numbers: math-verify looks at its right end only."""
    from sympy import And, Eq

    if isinstance(expression, And):
        return any(states_falsehood(part) for part in expression.args)
    if not isinstance(expression, Eq) or expression.free_symbols:
        return False
    return abs(complex(expression.lhs.evalf()) - complex(expression.rhs.evalf())) > 1e-6


def warm_up() -> None:
    """Do one comparison that makes SymPy import what it imports late, so that no job is charged for it."""
    list(judge("$1 < x < 2$", "$(1, 2)$"))
    list(same_expression(["fun", "ln", ["num", "2"]], ["fun", "sin", ["sym", "x"]]))


def serve(replies: IO[str], alarm_seconds: float, memory_bytes: int) -> int:
    """Answer jobs until stdin ends, or until half of the memory limit has been used. Returns the exit code."""
    for line in sys.stdin:
        try:
            job = json.loads(line)
        except json.JSONDecodeError:
            continue  # the rest of a line that a killed child had begun to read; the parent sends that job again
        signal.setitimer(signal.ITIMER_REAL, alarm_seconds)
        answer_job(job, replies)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if memory_used() > memory_bytes / 2:
            return OUTGROWN
    return STDIN_ENDED


def answer_job(job: dict, replies: IO[str]) -> None:
    fault = "unreadable_gold"
    try:
        if job.get("how") == "expressions":
            replies_to_job = same_expression(json.loads(job["gold"]), json.loads(job["answer"]))
        else:
            replies_to_job = judge(job["gold"], job["answer"])
        for reply in replies_to_job:
            send(replies, id=job["id"], **reply)
            fault = "unparsable"
    except Exception as error:  # SymPy may raise anything on a strange text, and each means that it was not understood
        send(replies, id=job["id"], kind=fault, detail=f"math-verify raised {type(error).__name__}")


def memory_used() -> int:
    """Peak resident memory in bytes (the system counts kilobytes on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def send(replies: IO[str], **message: object) -> None:
    if "detail" in message:
        message["detail"] = str(message["detail"])[:MAX_REPLY]
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def start_child(replies: IO[str], time_limit: float, memory_bytes: int) -> int:
    """Fork a child that serves; returns its process id. The child never returns."""
    child = os.fork()
    if child:
        return child
    code = NOT_STARTED
    try:
        limit_resources(memory_bytes)
        send(replies, ready=True, pid=os.getpid())
        code = serve(replies, time_limit + ALARM_GRACE, memory_bytes)
    finally:
        os._exit(code)


def parent_is_gone() -> bool:
    """Whether the other end of stdin is closed and nothing is left to read."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))


def main(time_limit: float, memory_bytes: int) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not write between the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent that ignores these hands that down
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        warm_up()
    except ImportError as error:
        send(replies, error=str(error))
        return
    gc.freeze()  # what is loaded by now stays shared between the children
    while not parent_is_gone():
        status = os.waitpid(start_child(replies, time_limit, memory_bytes), 0)[1]
        if os.waitstatus_to_exitcode(status) in (STDIN_ENDED, NOT_STARTED):
            return


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
