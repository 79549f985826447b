"""Coq as a backend: scripts are handed to warm `coqtop` processes in small batches.

A batch has one preamble, which loads once, and one `Print Assumptions` for all the theorems that were accepted in it
(rewards.proofs.coq_session says why a warm process is sound). A script that runs out of time takes its process along,
and with it what the batch had accepted so far: those are run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence

from rewards.proofs.backend import MAX_SCRIPT_LENGTH, ProofTask, ProofToolError
from rewards.proofs.coq_script import ScriptError, read_script, read_statement
from rewards.proofs.coq_session import Accepted, CoqSession, StatementError
from rewards.proofs.processes import OutputFloodError, ProcessEndedError, SessionPool, cores, in_threads
from rewards.proofs.verdicts import PROVED, Position, ProofKind, ProofVerdict, unreadable_statement

BATCH = 32
"""Scripts between two looks at what the accepted ones rest on."""
MAX_DEATHS = 2
"""A script under which Coq died (not by our time-out) is tried once more: Coq may have been killed from outside."""
INSTALL = "Debian and Ubuntu: apt-get install coq; macOS: brew install coq; else: opam install coq"


class CoqBackend:
    """Checks with Coq (written for 8.16, Debian 12's), in up to `size` warm processes.

    command: coqtop's name or path. size: processes, by default one a core but no more than 8. timeout: wall seconds
    for a script. memory_bytes: address space of a process. axioms: names that `Print Assumptions` may list, besides
    those of the statement itself; rewards.proofs.coq_session.STANDARD_AXIOMS has the standard library's. fresh: repeat
    each accepted proof in a new process.
    """

    language = "coq"

    def __init__(
        self,
        command: str = "coqtop",
        *,
        size: int | None = None,
        timeout: float = 10.0,
        memory_bytes: int = 2 << 30,
        axioms: Collection[str] = (),
        fresh: bool = False,
    ):
        if not timeout > 0:
            raise ValueError(f"timeout is in seconds and must be positive, got {timeout}")
        if size is not None and size < 1:
            raise ValueError(f"a backend needs 1 or more processes, got size={size}")
        self.command, self.timeout, self.memory_bytes, self.fresh = command, timeout, memory_bytes, fresh
        self.axioms = frozenset(axioms)
        self._pool: SessionPool[CoqSession] = SessionPool(self._start, size or min(8, cores()))

    def check(self, statement: str, script: str, preamble: str = "", timeout: float | None = None) -> ProofVerdict:
        """See ProofBackend. The script is tactic sentences; `Proof.`, `Qed.` and exact copies of the preamble and the
        statement may stand around them.
        """
        return self.check_many([ProofTask(statement=statement, script=script, preamble=preamble)], timeout)[0]

    def check_many(self, tasks: Sequence[ProofTask], timeout: float | None = None) -> list[ProofVerdict]:
        """See ProofBackend."""
        seconds = self.timeout if timeout is None else timeout
        verdicts: dict[ProofTask, ProofVerdict] = {}
        for found in in_threads(lambda batch: self._work_off(batch, seconds), self._batches(tasks), self._pool.size):
            verdicts |= found
        return [verdicts[task] for task in tasks]

    def close(self) -> None:
        """See ProofBackend."""
        self._pool.close()

    def _batches(self, tasks: Sequence[ProofTask]) -> list[tuple[ProofTask, ...]]:
        """Distinct tasks in batches of one preamble each, of BATCH or fewer where some process would be idle."""
        by_preamble: dict[str, list[ProofTask]] = {}
        for task in dict.fromkeys(tasks):
            by_preamble.setdefault(task.preamble, []).append(task)
        return [batch for group in by_preamble.values() for batch in _cut(group, self._pool.size)]

    def _work_off(self, batch: Sequence[ProofTask], seconds: float) -> dict[ProofTask, ProofVerdict]:
        verdicts: dict[ProofTask, ProofVerdict] = {}
        deaths: dict[ProofTask, int] = {}
        while todo := [task for task in batch if task not in verdicts]:
            try:
                with self._pool.lend(todo[0].preamble) as session:
                    verdicts |= self._check_in(session, todo, seconds, deaths)
            except ProcessEndedError:
                verdicts |= {task: _died(task) for task, count in deaths.items() if count == MAX_DEATHS}
        if self.fresh:
            verdicts |= {task: self._check_anew(task, seconds) for task in batch if verdicts[task].reward == 1.0}
        return verdicts

    def _check_in(
        self, session: CoqSession, tasks: Sequence[ProofTask], seconds: float, deaths: dict[ProofTask, int]
    ) -> dict[ProofTask, ProofVerdict]:
        """The verdicts of the tasks up to the first that ends the process, less those that this leaves open."""
        verdicts: dict[ProofTask, ProofVerdict] = {}
        accepted: dict[ProofTask, Accepted] = {}
        try:
            session.load(tasks[0].preamble)
        except (StatementError, TimeoutError, OutputFloodError) as error:
            return {task: unreadable_statement(str(error) or "the preamble takes too long") for task in tasks}
        for task in tasks:
            deaths[task] = deaths.get(task, 0) + 1
            found = _attempt(session, task, seconds)
            deaths[task] -= 1
            if isinstance(found, ProofVerdict):
                verdicts[task] = found
            else:
                accepted[task] = found
            if not session.process.alive:
                return verdicts
        return verdicts | self._settle(session, accepted)

    def _settle(self, session: CoqSession, accepted: dict[ProofTask, Accepted]) -> dict[ProofTask, ProofVerdict]:
        """What accepted theorems come to, once it is known what they rest on."""
        if not accepted:
            return {}
        try:
            complaints = session.complaints(list(accepted.values()), self.axioms)
        except (TimeoutError, OutputFloodError):
            complaints = {theorem.name: "what the proof rests on cannot be printed" for theorem in accepted.values()}
        return {
            task: _cheat(task, complaints[theorem.name]) if theorem.name in complaints else _proved(task)
            for task, theorem in accepted.items()
        }

    def _check_anew(self, task: ProofTask, seconds: float) -> ProofVerdict:
        session = self._start()
        try:
            return self._check_in(session, [task], seconds, {})[task]
        except ProcessEndedError:
            return _died(task)
        finally:
            session.close()

    def _start(self) -> CoqSession:
        found = shutil.which(self.command)
        if found is None:
            raise ProofToolError(f"Coq proofs are checked by `{self.command}`, which is not on the PATH. {INSTALL}")
        return CoqSession(found, self.memory_bytes)


def _cut(tasks: Sequence[ProofTask], processes: int) -> Iterator[tuple[ProofTask, ...]]:
    size = max(1, min(BATCH, -(-len(tasks) // processes)))
    for start in range(0, len(tasks), size):
        yield tuple(tasks[start : start + size])


def _attempt(session: CoqSession, task: ProofTask, seconds: float) -> Accepted | ProofVerdict:
    if len(task.script) > MAX_SCRIPT_LENGTH:
        detail = f"the script has {len(task.script)} characters, {MAX_SCRIPT_LENGTH} are read at most"
        return ProofVerdict(ProofKind.FAILED, detail, Position.at(task.script, MAX_SCRIPT_LENGTH))
    try:
        statement = read_statement(task.statement)
        return session.attempt(statement, task.script, read_script(task.script, statement, task.preamble), seconds)
    except ScriptError as error:
        return unreadable_statement(f"the statement, character {error.offset}: {error.message}")
    except StatementError as error:
        return unreadable_statement(str(error))
    except (TimeoutError, OutputFloodError):
        return unreadable_statement("the statement takes too long")


def _proved(task: ProofTask) -> ProofVerdict:
    return ProofVerdict(PROVED.kind, PROVED.detail, valid_prefix=task.script)


def _cheat(task: ProofTask, detail: str) -> ProofVerdict:
    return ProofVerdict(ProofKind.CHEATING, detail, Position.at(task.script, len(task.script)))


def _died(task: ProofTask) -> ProofVerdict:
    return ProofVerdict(ProofKind.FAILED, "Coq died on this script, twice", Position.at(task.script, 0))
