"""One warm `coqtop`: a script takes milliseconds, because nothing is loaded anew.

A check goes back to the state after the preamble, states the theorem under a random name, runs the script's tactic
sentences one by one, and ends with `Qed`; then `Print Assumptions` says what the theorem rests on. Why that is sound in
a process that has seen other candidates:
- Only tactics reach Coq (rewards.proofs.coq_script), and tactics cannot touch the environment. The statement and `Qed`
  come from us; Coq's kernel checks the term at `Qed`, whatever the tactics did.
- `BackTo` takes everything back, lemmas of `abstract` included.
- A reply ends at a prompt that holds the theorem's random name, which no script can know and no tactic can print alone.
  Whether a sentence was accepted is read from the state number in that prompt, never from messages.
- After `Qed`, Coq has to answer a question that only we know, so that no reply is taken for another.
- Each line of `Print Assumptions` must be understood, or the proof does not count.

`Print Assumptions` walks through every lemma below a proof: 0.3 s below `lia`, 1 s below the real numbers. So accepted
theorems stay for a while, and one walk covers all of them (`CoqSession.complaints`).
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.proofs.backend import ProofToolError
from rewards.proofs.coq_script import Script, ScriptError, Sentence, Statement, sentences
from rewards.proofs.processes import OutputFloodError, Process, ProcessEndedError, resident_bytes
from rewards.proofs.verdicts import Position, ProofKind, ProofVerdict

START_SECONDS = 60.0
"""For starting coqtop, for a preamble and a statement, for `Print Assumptions`: what the data set is to blame for."""
MAX_CHECKS = 1_000
"""Checks that one process does before it is replaced."""
MAX_MESSAGE = 2_000
"""Characters of a message or a goal that a verdict keeps."""

STANDARD_AXIOMS = frozenset(
    {
        "classic",
        "Classical_Prop.classic",
        "proof_irrelevance",
        "ProofIrrelevance.proof_irrelevance",
        "propositional_extensionality",
        "PropExtensionality.propositional_extensionality",
        "functional_extensionality_dep",
        "FunctionalExtensionality.functional_extensionality_dep",
        "constructive_definite_description",
        "Description.constructive_definite_description",
        "constructive_indefinite_description",
        "IndefiniteDescription.constructive_indefinite_description",
        "relational_choice",
        "RelationalChoice.relational_choice",
        "Eq_rect_eq.eq_rect_eq",
        "Eqdep.Eq_rect_eq.eq_rect_eq",
        "JMeq_eq",
        "JMeq.JMeq_eq",
        "ClassicalDedekindReals.sig_forall_dec",
        "ClassicalDedekindReals.sig_not_dec",
    }
)
"""Axioms of Coq's standard library, in the spellings that `Print Assumptions` uses; they are consistent together."""

_PROMPT = r"<prompt>(%s) < (\d+) \|[^|<>]*\| \d+ < </prompt>"
_ANY_PROMPT = re.compile((_PROMPT % r"[^\s<>]+").encode())
_LOCATION = re.compile(r"(?:Toplevel input|File \"[^\"]*\", line \d+), characters (\d+)-\d+")


class StatementError(Exception):
    """The preamble or the statement is refused."""


@dataclass(frozen=True)
class Accepted:
    """A theorem that has passed `Qed`. It counts once it is known what it rests on."""

    name: str
    statement: Statement


@dataclass(frozen=True)
class _Reply:
    accepted: bool
    text: str

    @property
    def error(self) -> str:
        """Coq's message from "Error:" on."""
        before, found, after = self.text.partition("Error:")
        return (after if found else before).strip()[:MAX_MESSAGE]

    def error_offset(self, sentence: str) -> int:
        """Where in the sentence Coq puts the error, in characters; it counts bytes. Warnings may stand before it."""
        places = _LOCATION.findall(self.text.partition("Error:")[0])
        return len(sentence.encode()[: int(places[-1])].decode(errors="ignore")) if places else 0


class CoqSession:
    """`preamble` is the one it has loaded; None before the first and after a failure. Used by one thread at a time.

    All methods raise ProcessEndedError if coqtop has died, and close the session before they raise or return for time.
    """

    def __init__(self, command: str, memory_bytes: int):
        self.preamble: str | None = None
        self.checks = 0
        self._memory_bytes = memory_bytes
        self._state = 0
        self._talking_of = b""
        self._own_axioms: dict[Statement, frozenset[str]] = {}
        self.process = Process(
            [command, "-q", "-emacs", "-color", "no"], environment=_environment(), address_bytes=memory_bytes
        )
        try:
            self.process.exchange(b"", _ANY_PROMPT, time.monotonic() + START_SECONDS)
            self._ask("Set Silent.")
        except (ProcessEndedError, OutputFloodError, TimeoutError) as error:
            self.close()
            raise ProofToolError(
                f"{command} did not start: {error or type(error).__name__}; try `{command} -q` by hand. "
                f"It may use {memory_bytes >> 20} MiB (CoqBackend(memory_bytes=…))"
            ) from error
        except BaseException:
            self.close()
            raise
        self.process.leave_folder()
        self._empty = self._base = self._top = self._state

    @property
    def usable(self) -> bool:
        small = resident_bytes(self.process.pid) < self._memory_bytes / 2
        return self.process.alive and self.checks < MAX_CHECKS and small

    def close(self) -> None:
        self.process.end()

    def load(self, preamble: str) -> None:
        """Bring Coq to the state after `preamble`. Raises StatementError where it is refused."""
        if self.preamble == preamble:
            self._go_back(self._base)
        else:
            self.preamble = None
            self._own_axioms.clear()
            self._go_back(self._empty)
            for sentence in _sentences_of_preamble(preamble):
                reply = self._ask(sentence.text)
                if not reply.accepted:
                    raise StatementError(f"the preamble's sentence {sentence.text!r:.200}: {reply.error}")
            self._refuse_open_ends()
            for cache in ("Lia", "Nia", "Nra"):  # they would keep what candidates do in a file
                self._ask(f"Unset {cache} Cache.")
            self.preamble, self._base = preamble, self._state
        self._top = self._base

    def attempt(self, statement: Statement, script: str, read: Script, seconds: float) -> Accepted | ProofVerdict:
        """Run a script. An accepted theorem stays until the next `load`, a refused one is taken back."""
        self.checks += 1
        self._go_back(self._top)
        name = f"r1lab_{secrets.token_hex(8)}"
        opened = self._ask(statement.theorem(name))
        if not opened.accepted:
            raise StatementError(f"the statement: {opened.error}")
        deadline = time.monotonic() + seconds
        done = 0
        for sentence in read.tactics:
            try:
                reply = self._ask(sentence.text, deadline, inside=name)
            except TimeoutError:
                return _verdict(ProofKind.TIMEOUT, "the time ran out in this sentence", script, sentence.start, done)
            except OutputFloodError:
                return _verdict(ProofKind.FAILED, "the sentence prints without end", script, sentence.start, done)
            if not reply.accepted:
                offset = sentence.start + reply.error_offset(sentence.text)
                return _verdict(ProofKind.FAILED, reply.error, script, offset, done, self._goals(name))
            done = sentence.end
        if read.stop:
            stop = read.stop
            return _verdict(stop.kind, stop.message, script, stop.offset, done, self._goals(name))
        return self._end_proof(Accepted(name, statement), script, done, deadline)

    def _end_proof(self, theorem: Accepted, script: str, done: int, deadline: float) -> Accepted | ProofVerdict:
        try:
            reply = self._ask("Qed.", deadline)
        except TimeoutError:
            return _verdict(ProofKind.TIMEOUT, "the time ran out in the kernel's check", script, len(script), 0)
        if reply.accepted and not self._in_step():
            self.close()
            return _verdict(ProofKind.CHEATING, "the script hides sentences from the filter", script, len(script), 0)
        if reply.accepted:
            self._top = self._state
            return theorem
        if "incomplete proof" in reply.text:
            goals = self._goals(theorem.name)
            return _verdict(ProofKind.INCOMPLETE, "goals are left", script, len(script), done, goals)
        kind = ProofKind.CHEATING if re.search(r"given\s+up", reply.text) else ProofKind.FAILED
        return _verdict(kind, reply.error, script, len(script), 0)

    def complaints(self, theorems: Sequence[Accepted], axioms: frozenset[str]) -> dict[str, str]:
        """Why theorems do not count, by name: they rest on more than `axioms` and what their own statements rest on.

        One walk for all of them; where that finds too much, one for each.
        """
        try:
            together = self._rests_on([theorem.name for theorem in theorems])
            if all(together <= axioms or together <= axioms | self._own(theorem.statement) for theorem in theorems):
                return {}
        except ValueError:
            pass  # one of them is at fault; the walks below tell which
        found = {theorem.name: self._complaint(theorem, axioms) for theorem in theorems}
        return {name: complaint for name, complaint in found.items() if complaint}

    def _complaint(self, theorem: Accepted, axioms: frozenset[str]) -> str:
        try:
            foreign = self._rests_on([theorem.name]) - axioms
            if foreign:
                foreign -= self._own(theorem.statement)
        except ValueError as error:
            return str(error)
        return f"rests on axioms that are not allowed: {', '.join(sorted(foreign))}" if foreign else ""

    def _own(self, statement: Statement) -> frozenset[str]:
        """The axioms that a statement itself rests on. If they are the standard library's (a theorem about the real
        numbers), all of those: the library's lemmas about such things need them.
        """
        if statement not in self._own_axioms:
            name = f"r1lab_{secrets.token_hex(8)}"
            self._ask(statement.definition(name))
            own = self._rests_on([name])
            self._own_axioms[statement] = own | STANDARD_AXIOMS if own & STANDARD_AXIOMS else own
        return self._own_axioms[statement]

    def _rests_on(self, names: Sequence[str]) -> frozenset[str]:
        """The axioms below some constants. Raises ValueError where `assumptions` does."""
        name = names[0]
        if len(names) > 1:
            name = f"r1lab_{secrets.token_hex(8)}"
            self._ask(f"Definition {name} := {' '.join(f'let _ := @{each} in' for each in names)} tt.")
        return frozenset(assumptions(self._ask(f"Print Assumptions {name}.").text))

    def _in_step(self) -> bool:
        """Whether the replies read answer the sentences sent: no script can know the word that this one asks for. They
        would not, if Coq had found more sentences in a script than we did.
        """
        word = f"r1lab_{secrets.token_hex(8)}"
        return word in self._ask(f"Locate {word}.").text

    def _goals(self, name: str) -> str:
        """What is left to prove, or "" if that cannot be printed in a second."""
        try:
            return self._ask("Show.", time.monotonic() + 1.0, inside=name).text.strip()[:MAX_MESSAGE]
        except (TimeoutError, OutputFloodError):
            return ""

    def _refuse_open_ends(self) -> None:
        reply = self._ask("End r1lab_no_such_section.")
        if self._talking_of != b"Coq" or "nothing to end" not in reply.text:
            raise StatementError(f"the preamble leaves a section, a module or a proof open: {reply.error}")

    def _go_back(self, state: int) -> None:
        if self._state != state:
            self._ask(f"BackTo {state}.")
            if self._state != state:
                self.close()
                raise ProcessEndedError(f"coqtop did not go back to its state {state}")

    def _ask(self, sentence: str, deadline: float | None = None, inside: str | None = None) -> _Reply:
        """Coq's reply to one sentence. inside: the theorem whose prompt ends it; None where no candidate is talking."""
        prompt = _ANY_PROMPT if inside is None else re.compile((_PROMPT % re.escape(inside)).encode())
        line = re.sub(r"[\t\r\n]", " ", sentence)  # one line, so that Coq's character counts are ours
        try:
            text, match = self.process.exchange(
                line.encode() + b"\n", prompt, time.monotonic() + START_SECONDS if deadline is None else deadline
            )
        except BaseException:
            self.close()
            raise
        before, self._state, self._talking_of = self._state, int(match.group(2)), match.group(1)
        return _Reply(self._state != before, text.decode(errors="replace"))


def _sentences_of_preamble(preamble: str) -> Sequence[Sentence]:
    try:
        return list(sentences(preamble, trusted=True))
    except ScriptError as error:
        raise StatementError(f"the preamble, character {error.offset}: {error.message}") from error


def _verdict(kind: ProofKind, detail: str, script: str, offset: int, done: int, goals: str = "") -> ProofVerdict:
    return ProofVerdict(kind, detail, Position.at(script, offset), script[:done], goals)


def assumptions(output: str) -> list[str]:
    r"""The axioms in what `Print Assumptions` printed. Raises ValueError for any line that is not understood, such as
    "foo is assumed to be guarded.".

    >>> assumptions("Axioms:\nclassic : forall P : Prop, P \\/ ~ P\nfoo\n  : nat -> False\n")
    ['classic', 'foo']
    >>> assumptions("Closed under the global context\n")
    []
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    if lines == ["Closed under the global context"]:
        return []
    if len(lines) < 2 or lines[0] != "Axioms:":
        raise ValueError(f"Print Assumptions printed something else: {output.strip()!r:.200}")
    names = []
    for line in lines[1:]:
        found = re.fullmatch(r"([\w'.]+)(?: : .*)?", line)
        if found:
            names.append(found.group(1))
        elif not (names and line.startswith(" ")):
            raise ValueError(f"the proof rests on more than axioms: {line.strip()!r:.200}")
    return names


def _environment() -> dict[str, str]:
    """No PATH, so that no tactic finds another program; where Coq's libraries are, if the user says so."""
    kept = {name: os.environ[name] for name in ("COQPATH", "COQLIB", "COQCORELIB", "OCAMLPATH") if name in os.environ}
    return {"PATH": "/nonexistent", "HOME": "/nonexistent", "LANG": "C.UTF-8", "TMPDIR": tempfile.gettempdir(), **kept}
