"""Lean 4, where the user has a toolchain: `lean --stdin --json` for each check, or a warm REPL.

One check is one text: the preamble, the theorem under a random name, the script indented under its `:= by`, and
`#print axioms`. The script is refused before Lean sees it if it could start a command or run a program
(rewards.proofs.lean_script). It has proved the theorem if Lean reports no error, and if the one message at the place of
our `#print axioms` names that theorem and nothing but allowed axioms: `sorryAx` and `Lean.ofReduceBool`
(`native_decide`) are none.

With Mathlib a fresh Lean spends most of its time on imports. The REPL (github.com/leanprover-community/repl) loads each
preamble once and starts every check from that environment, which Lean never changes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.proofs.backend import MAX_SCRIPT_LENGTH, ProofTask, ProofToolError
from rewards.proofs.coq_script import ScriptError
from rewards.proofs.lean_script import Statement, read_statement, refusal, skip_given, without_comments
from rewards.proofs.processes import OutputFloodError, Process, ProcessEndedError, SessionPool, cores, in_threads
from rewards.proofs.verdicts import PROVED, Position, ProofKind, ProofVerdict, unreadable_statement

STANDARD_AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
START_SECONDS = 300.0
"""For loading a preamble into a REPL: `import Mathlib` from a cold disk takes minutes."""
MAX_CHECKS = 200
"""Checks of one REPL before it is replaced; it keeps the environment of each."""
MAX_MESSAGE = 2_000
INDENT = 2
INSTALL = (
    "install elan (https://github.com/leanprover/elan), then `elan default leanprover/lean4:stable`; for Mathlib, "
    "`LeanBackend(project=FOLDER)` with a Lake project in which `lake exe cache get` and `lake build` have run"
)
_AXIOMS = re.compile(
    r"['`](?P<name>[^'`]+)['`] (?:does not depend on any axioms|depends on axioms: \[(?P<axioms>[^\]]*)\])"
)
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")


@dataclass(frozen=True)
class Message:
    """What Lean says about a place. `line` counts from 1 at the first line after the preamble, `column` from 0."""

    severity: str
    line: int
    column: int
    text: str

    @classmethod
    def read(cls, message: dict[str, Any], lines_before: int = 0) -> Message:
        place = message.get("pos") or {"line": 0, "column": 0}
        return cls(message["severity"], place["line"] - lines_before, place["column"], message["data"])


@dataclass(frozen=True)
class Check:
    """The text after the preamble, and where in it the script and `#print axioms` stand."""

    name: str
    text: str
    script_line: int
    axioms_line: int

    @classmethod
    def of(cls, statement: Statement, script: str) -> Check:
        name = f"r1lab_{secrets.token_hex(8)}"
        theorem = statement.theorem(name)
        body = "\n".join(" " * INDENT + line for line in script.split("\n"))
        script_line = theorem.count("\n") + 2
        axioms_line = script_line + body.count("\n") + 2
        text = f"{theorem}\n{body}\n\n#print axioms {statement.namespace}{name}\n"
        return cls(name, text, script_line, axioms_line)

    def offset(self, message: Message, script: str) -> int:
        """Where in the script a message points: 0 if at the theorem, the end if after the script."""
        line = message.line - self.script_line
        lines = script.split("\n")
        if line < 0:
            return 0
        if line >= len(lines):
            return len(script)
        return sum(len(text) + 1 for text in lines[:line]) + min(max(0, message.column - INDENT), len(lines[line]))


def judge(check: Check, script: str, messages: Iterable[Message], axioms: Collection[str]) -> ProofVerdict | None:
    """The verdict that Lean's messages give; None if they speak of the theorem itself, so that only the statement alone
    can tell whose fault it is.
    """
    messages = list(messages)
    errors = sorted((m for m in messages if m.severity == "error"), key=lambda m: (m.line, m.column))
    ours = [error for error in errors if error.line >= check.script_line]
    left = [error for error in errors if error.line < check.script_line and error.text.startswith("unsolved goals")]
    if len(errors) > len(ours) + len(left):
        return None
    if ours:
        offset = check.offset(ours[0], script)
        # Lean puts the error at a word, anywhere in a tactic; what stands before its line is whole.
        whole = script[: script.rfind("\n", 0, offset) + 1] if offset < len(script) else ""
        return _verdict(ProofKind.FAILED, ours[0].text, script, offset, whole, _goals(ours[0].text))
    if left:
        goals = _goals(left[0].text)
        return _verdict(ProofKind.INCOMPLETE, "goals are left", script, len(script), script, goals)
    return _judge_axioms(check, script, messages, axioms)


def _judge_axioms(check: Check, script: str, messages: list[Message], axioms: Collection[str]) -> ProofVerdict:
    said = [_AXIOMS.fullmatch(message.text.strip()) for message in messages if message.line == check.axioms_line]
    found = said[0] if len(said) == 1 else None
    if found is None or found["name"].rpartition(".")[2] != check.name:
        return _verdict(ProofKind.FAILED, "Lean does not say what the theorem rests on", script, len(script))
    used = {name.strip() for name in (found["axioms"] or "").split(",") if name.strip()}
    if foreign := used - set(axioms):
        detail = f"rests on axioms that are not allowed: {', '.join(sorted(foreign))}"
        return _verdict(ProofKind.CHEATING, detail, script, len(script))
    return ProofVerdict(PROVED.kind, PROVED.detail, valid_prefix=script)


def _verdict(kind: ProofKind, detail: str, script: str, offset: int, prefix: str = "", goals: str = "") -> ProofVerdict:
    return ProofVerdict(kind, detail[:MAX_MESSAGE], Position.at(script, offset), prefix, goals)


def _goals(text: str) -> str:
    """The goals in a message: from the line after the first on, if there is a turnstile."""
    first, _, rest = text.partition("\n")
    goals = rest if "⊢" not in first else text
    return goals.strip()[:MAX_MESSAGE] if "⊢" in goals else ""


class FreshLean:
    """A Lean process for each text. Stands in for a warm session, so that both are used alike."""

    usable = True

    def __init__(self, backend: LeanBackend):
        self.preamble: str | None = ""
        self._backend = backend

    def run(self, preamble: str, text: str, deadline: float) -> list[Message]:
        """What Lean says about `text` after `preamble`. Raises TimeoutError, OutputFloodError, or ProcessEndedError if
        it says nothing sensible.
        """
        before = f"{preamble.rstrip()}\n" if preamble.strip() else ""
        process = self._backend.start([*self._backend.command, "--stdin", "--json"])
        try:
            output = process.finish((before + text).encode(), deadline).decode(errors="replace")
        finally:
            process.end()
        try:
            messages = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
        except ValueError:  # cut off
            messages = []
        if not messages:  # even an accepted text says something, at `#print axioms`
            raise ProcessEndedError(output[-500:])
        return [Message.read(message, before.count("\n")) for message in messages if "severity" in message]

    def close(self) -> None:
        pass


class ReplLean:
    """A warm REPL. `preamble` is the one that its environment holds."""

    def __init__(self, backend: LeanBackend):
        self.preamble: str | None = None
        self._environment: int | None = None
        self._checks = 0
        self._process = backend.start(backend.repl or ())

    @property
    def usable(self) -> bool:
        return self._process.alive and self._checks < MAX_CHECKS

    def run(self, preamble: str, text: str, deadline: float) -> list[Message]:
        """As FreshLean.run; an error of the preamble stands at line 0."""
        self._checks += 1
        if self.preamble != preamble:
            self.preamble = None
            start = time.monotonic()
            reply = self._ask({"cmd": preamble}, start + START_SECONDS)
            errors = [Message("error", 0, 0, found.text) for found in _messages(reply) if found.severity == "error"]
            if errors:
                return errors
            self.preamble, self._environment = preamble, reply["env"]
            deadline += time.monotonic() - start
        return _messages(self._ask({"cmd": text, "env": self._environment}, deadline))

    def _ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        try:
            line = json.dumps(request).encode() + b"\n\n"
            reply, _ = self._process.exchange(line, _BLANK_LINE, deadline)
            found = json.loads(reply)
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError):
                raise ProcessEndedError("the REPL answered no JSON") from error
            raise
        if "env" not in found:
            self.close()
            raise ProcessEndedError(str(found.get("message", found))[:500])
        return found

    def close(self) -> None:
        self._process.end()


def _messages(reply: dict[str, Any]) -> list[Message]:
    return [Message.read(message) for message in reply.get("messages", [])]


class LeanBackend:
    """Checks with Lean 4.

    command: what runs Lean, by default `lean`, or `lake env lean` where `project`, the folder of a Lake project, is
    given. repl: what runs the REPL, such as ("lake", "env", "/…/repl"); then the processes stay warm. size: processes
    at once, by default one a core but no more than 8. timeout: wall seconds for a check; without a REPL that includes
    the imports. memory_bytes: what a process may allocate; mapped libraries do not count. axioms: those that a proof
    may rest on.
    """

    language = "lean"

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        project: str | None = None,
        repl: Sequence[str] | None = None,
        size: int | None = None,
        timeout: float = 60.0,
        memory_bytes: int = 8 << 30,
        axioms: Collection[str] = STANDARD_AXIOMS,
    ):
        if not timeout > 0:
            raise ValueError(f"timeout is in seconds and must be positive, got {timeout}")
        if size is not None and size < 1:
            raise ValueError(f"a backend needs 1 or more processes, got size={size}")
        self.command = tuple(command or (("lake", "env", "lean") if project else ("lean",)))
        self.project, self.repl, self.timeout, self.memory_bytes = project, repl, timeout, memory_bytes
        self.axioms = frozenset(axioms)
        self._readable: dict[tuple[str, str], str] = {}
        session: type[ReplLean] | type[FreshLean] = ReplLean if repl else FreshLean
        self._pool: SessionPool[Any] = SessionPool(lambda: session(self), size or min(8, cores()))

    def check(self, statement: str, script: str, preamble: str = "", timeout: float | None = None) -> ProofVerdict:
        """See ProofBackend. The script is the block after `by`; a copy of preamble and statement may precede it."""
        if len(script) > MAX_SCRIPT_LENGTH:
            return ProofVerdict(ProofKind.FAILED, f"the script has more than {MAX_SCRIPT_LENGTH} characters")
        try:
            stated = read_statement(statement)
        except ScriptError as error:
            return unreadable_statement(f"the statement, character {error.offset}: {error.message}")
        preamble = "\n".join(filter(None, [preamble.strip("\n"), stated.imports]))
        try:
            read = without_comments(skip_given(script, statement, preamble))
            if refused := refusal(read):
                raise refused
        except ScriptError as error:
            before = script[: script.rfind("\n", 0, error.offset) + 1]
            return _verdict(error.kind, error.message, script, error.offset, before)
        return self._run(stated, statement, script, read, preamble, timeout or self.timeout)

    def check_many(self, tasks: Sequence[ProofTask], timeout: float | None = None) -> list[ProofVerdict]:
        """See ProofBackend."""
        return in_threads(
            lambda task: self.check(task.statement, task.script, task.preamble, timeout), tasks, self._pool.size
        )

    def close(self) -> None:
        self._pool.close()

    def start(self, command: Sequence[str]) -> Process:
        """A process of the toolchain. Raises ProofToolError where there is none."""
        if shutil.which(command[0]) is None:
            raise ProofToolError(f"Lean proofs are checked by `{' '.join(command)}`, which is not there; {INSTALL}")
        kept = ("PATH", "HOME", "ELAN_HOME", "ELAN_TOOLCHAIN", "LEAN_PATH", "LEAN_SYSROOT", "LAKE_HOME", "LANG")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        return Process(
            command, environment=environment, data_bytes=self.memory_bytes, folder=self.project, threads=cores()
        )

    def _run(
        self, stated: Statement, statement: str, script: str, read: str, preamble: str, seconds: float
    ) -> ProofVerdict:
        if not read.strip():
            return _verdict(ProofKind.INCOMPLETE, "the script holds no tactic", script, 0)
        check = Check.of(stated, read)
        try:
            with self._pool.lend(preamble) as session:
                messages = session.run(preamble, check.text, time.monotonic() + seconds)
            verdict = judge(check, script, messages, self.axioms)
            fault = "Lean refuses the theorem with this proof"
            if verdict is None:
                fault = next(error.text for error in messages if error.severity == "error")
        except TimeoutError:
            return _verdict(ProofKind.TIMEOUT, f"the check took more than {seconds:g} s", script, 0)
        except OutputFloodError:
            return _verdict(ProofKind.FAILED, "the script prints without end", script, 0)
        except ProcessEndedError as ended:
            verdict, fault = None, f"Lean ended early: {ended}"
        if verdict is not None:
            return verdict
        problem = self._problem_of_statement(stated, preamble)
        return unreadable_statement(problem) if problem else _verdict(ProofKind.FAILED, fault, script, 0)

    def _problem_of_statement(self, stated: Statement, preamble: str) -> str:
        """What Lean says against the statement with `sorry` for its proof; "" if nothing. Remembered.

        Raises ProofToolError if Lean says nothing at all.
        """
        key = (stated.theorem("_"), preamble)
        if key not in self._readable:
            probe = Check.of(stated, "sorry")
            try:
                with self._pool.lend(preamble) as session:
                    messages = session.run(preamble, probe.text, time.monotonic() + START_SECONDS)
            except (ProcessEndedError, OutputFloodError, TimeoutError) as error:
                raise ProofToolError(
                    f"`{' '.join(self.repl or self.command)}` does not check even a statement alone: "
                    f"{error or type(error).__name__}; {INSTALL}"
                ) from error
            errors = [message.text[:MAX_MESSAGE] for message in messages if message.severity == "error"]
            self._readable[key] = errors[0] if errors else ""
        return self._readable[key]
