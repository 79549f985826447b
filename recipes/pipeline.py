"""Stages joined into one command that can be killed at any moment and called again.

    python -m recipes.pipeline --config recipes/micro/r1.yaml                                              (`make r1`)
    python -m recipes.pipeline --config recipes/micro/r1.yaml --dry-run           what would run, and why
    python -m recipes.pipeline --config recipes/micro/r1.yaml --from dev1         that stage and all that need it, anew
    python -m recipes.pipeline --config recipes/micro/r1.yaml --only r1-zero      that stage alone
    python -m recipes.pipeline --config recipes/micro/r1.yaml dev1.num_train_epochs=3 --seed 1  settings over the file's

A stage is done while its manifest says so and everything that decides its result is what it was: its settings, its
seed, its recipe's code version, and the content of every file that it read. docs/pipeline.md has the whole account.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from recipes.graph import Snapshot, Stage, in_order, near, shown
from recipes.isolation import (
    OUTCOME,
    POLL_SECONDS,
    STOPPED_BETWEEN,
    Ranks,
    Signals,
    StageProcess,
    Stopped,
    free_port,
    locked,
    request_of,
    run_stage,
    say,
)
from recipes.manifest import (
    MANIFEST,
    HashCache,
    Hashed,
    Manifest,
    ManifestError,
    checkout_commit,
    is_partial,
    machine,
    now,
    plain,
    write_json,
)
from recipes.stage import (
    DEFAULT_OUTPUTS,
    PipelineError,
    StageContext,
    StageError,
    StageInput,
    StageResult,
    checks,
    declaration_of,
    declare,
    dotted_path,
    full_config,
    load_function,
    paths_in,
)

__all__ = [
    "Pipeline",
    "PipelineError",
    "Stage",
    "StageContext",
    "StageError",
    "StageInput",
    "StageResult",
    "checks",
    "declare",
    "load_pipeline",
]

SUMMARY = "pipeline.json"
ENTRY_KEYS = ("name", "title", "recipe", "inputs", "files", "settings", "outputs", "code_version")
TOP_KEYS = ("output_dir", "model", "seed", "isolate", "jobs", "title", "stages", "more_stages")


# --- the pipeline -----------------------------------------------------------------------------------------------------


@dataclass
class Step:
    """What a call would do with a stage: "done", "run", "resume", "waits for" or "not asked for", and why."""

    stage: Stage
    action: str
    why: str = ""
    anew: bool = False
    """What the stage's folder holds is kept aside first."""


@dataclass
class Begun:
    """A stage that has begun and not ended."""

    stage: Stage
    label: str
    manifest: Manifest
    snapshot: Snapshot
    share: int = 0
    """Which share of the cores it has."""
    since: float = field(default_factory=time.time)


@dataclass
class AtWork:
    """What a call of `run` works with."""

    ranks: Ranks
    lock: int | None
    jobs: int
    signals: Signals | None
    """None where stages run in this process, which then gets the signals itself."""
    running: dict[StageProcess, Begun] = field(default_factory=dict)


def next_ready(waiting: Sequence[Stage], running: Iterable[Begun]) -> Stage | None:
    """The first that waits for none of the others."""
    open_names = {stage.name for stage in waiting} | {begun.stage.name for begun in running}
    return next((stage for stage in waiting if not open_names & set(stage.needs)), None)


def share_of_cores(number: int, jobs: int) -> list[int]:
    """The cores of share `number` of `jobs` of one size; none, which is all, where nothing is shared or the system
    cannot give a process its cores."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // jobs)
    return [cores[(number * size + i) % len(cores)] for i in range(size)]


class Pipeline:
    """Stages and the folder where they live, a folder each.

    jobs: how many stages may run side by side, once all that they need has finished; each gets its share of the cores,
    the same whichever runs beside it, so that no number depends on that. Under a launcher, or without isolate, they run
    one after another.
    isolate: every stage in a fresh process. Its memory, compiled code, and the process-wide settings of accelerate and
    torch end with it; a crash or the kernel's out-of-memory killer ends a stage and not the pipeline; and a stage that
    is resumed starts as it would have without the kill. It costs the start of the libraries, seconds a stage.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        folder: str | Path,
        *,
        seed: int = 0,
        isolate: bool = True,
        jobs: int = 1,
        title: str = "",
        command: str = "python -m recipes.pipeline --config …",
    ):
        if jobs < 1:
            raise PipelineError(f"jobs, the number of stages side by side, must be 1 or more, got {jobs}")
        self.stages = in_order(stages)
        self.by_name = {stage.name: stage for stage in self.stages}
        self.folder, self.seed, self.isolate, self.title = Path(folder), seed, isolate, title
        self.jobs = jobs
        self.command = command
        self.hashes = HashCache(self.folder / "hashes.json")
        self._checked: set[str] = set()

    # what is there

    def folder_of(self, name: str) -> Path:
        return self.folder / name

    def manifest(self, name: str) -> Manifest | None:
        """The stage's manifest, None without a whole one."""
        try:
            return Manifest.read(self.folder_of(name))
        except ManifestError:
            return None

    def is_finished(self, name: str) -> bool:
        manifest = self.manifest(name)
        return manifest is not None and manifest.status == "finished" and not self._lost(name, manifest)

    def _lost(self, name: str, manifest: Manifest) -> list[str]:
        """Outputs that are not there, and files of those that are folders."""
        folder, expected = self.folder_of(name), list[Path]()
        for output, known in manifest.outputs.items():
            whole = folder / output
            expected += [whole / file for file in known.get("files", ())] if whole.is_dir() else [whole]
        return [path.relative_to(folder).as_posix() for path in expected if not path.exists()]

    # what to do

    def plan(self, start: str | None = None, only: Sequence[str] = ()) -> list[Step]:
        """What `run` would do, without doing it. A stage whose inputs will run has to wait to be told.

        Raises PipelineError as `run` does.
        """
        chosen = self._chosen(start, only)
        steps, pending = [], set()
        for stage in self.stages:
            waits = [name for name in stage.needs if name in pending]
            if stage.name not in chosen:
                step = Step(stage, "not asked for")
            elif start is not None and stage.name in self._behind(start):
                step = Step(stage, "waits for" if waits else "run", f"anew, as --from {start} asks", anew=True)
            elif waits:
                ready = self.is_finished(stage.name)
                step = Step(stage, "waits for", "runs again if they change" if ready else "has not finished yet")
            else:
                step = self._decide(stage)
            if step.action == "waits for":
                step.action += f" {', '.join(waits)}"
            if step.action not in ("done", "not asked for"):
                pending.add(stage.name)
            steps.append(step)
        return steps

    def _chosen(self, start: str | None, only: Sequence[str]) -> set[str]:
        """The stages that a call may run. Raises PipelineError for a name that is no stage, and for a stage outside of
        the choice that one inside needs and that has not finished."""
        for name in (*([start] if start is not None else ()), *only):
            if name not in self.by_name:
                raise PipelineError(f"there is no stage {name!r}{near(name, self.by_name)}")
        for stage in self.stages:
            self._check(stage)
        chosen = set(self.by_name) if start is None else self._behind(start)
        if only:
            chosen &= set(only)
        if not chosen:
            raise PipelineError(f"--from {start} and --only {' '.join(only)} leave no stage to run")
        for stage in self.stages:
            for name in stage.needs if stage.name in chosen else ():
                if name not in chosen and not self.is_finished(name):
                    manifest = self.manifest(name)
                    state = f"is {manifest.status}, not finished" if manifest else "has not run"
                    raise PipelineError(
                        f"stage {stage.name!r} needs {name!r}, which {state} in {self.folder}; run it first: "
                        f"{self.command} --only {name}"
                    )
        return chosen

    def _behind(self, start: str) -> set[str]:
        """The stage and all that need it, directly or not."""
        found = {start}
        for stage in self.stages:
            if found & set(stage.needs):
                found.add(stage.name)
        return found

    def _check(self, stage: Stage) -> None:
        """Settings that cannot be meant are found before the first stage runs, not after hours."""
        check = declaration_of(stage.run).check
        if stage.name in self._checked:
            return
        try:
            if check is not None:
                check(stage.settings)
            full_config(stage.settings)
        except ValueError as error:
            raise PipelineError(f"stage {stage.name!r}: {error}") from error
        self.seed_of(stage)
        if self.isolate:
            self._importable(stage)
        self._checked.add(stage.name)

    def _importable(self, stage: Stage) -> None:
        path = dotted_path(stage.run)
        try:
            found = load_function(path) if stage.run.__module__ != "__main__" else None
        except PipelineError:
            found = None
        if found is not stage.run:
            raise PipelineError(
                f"stage {stage.name!r}: {path} cannot be imported by the stage's own process; move the function to the "
                "top of a module, or run all stages in one process with isolate=False"
            )

    def _decide(self, stage: Stage) -> Step:
        """What to do with a stage whose inputs are finished."""
        folder = self.folder_of(stage.name)
        try:
            manifest = Manifest.read(folder)
        except ManifestError as error:
            return Step(stage, "run", f"{error}; it starts anew", anew=True)
        if manifest is None:
            # A kill while the first manifest was written leaves a part of it, which is nobody's work.
            strange = folder.is_dir() and any(not is_partial(path) for path in folder.iterdir())
            return Step(
                stage, "run", "its folder holds files without a manifest" if strange else "has not run", strange
            )
        changes = self.snapshot(stage).changes_since(manifest)
        if changes:
            half = "" if manifest.status == "finished" else f"was {self._state(manifest)} and starts anew; "
            return Step(stage, "run", half + "; ".join(changes), anew=True)
        if manifest.status != "finished":
            return Step(stage, "resume", f"was {self._state(manifest)}")
        if lost := self._lost(stage.name, manifest):
            return Step(stage, "run", f"its output {', '.join(lost)} is gone", anew=True)
        at = "" if manifest.commit == self.commit else f" at commit {manifest.commit}, this is {self.commit}"
        return Step(stage, "done", f"finished {manifest.ended}{at}")

    @cached_property
    def commit(self) -> str:
        return checkout_commit().removesuffix("-dirty")

    def _state(self, manifest: Manifest) -> str:
        if manifest.status == "running":
            return "killed"
        return (
            manifest.status
            if manifest.status == "interrupted"
            else f"{manifest.status} ({_first_line(manifest.error)})"
        )

    def snapshot(self, stage: Stage) -> Snapshot:
        """Everything that decides the stage's result. Raises PipelineError for a file that is not there."""
        inputs: dict[str, Hashed] = {}
        for role, name in stage.roles.items():
            manifest = self.manifest(name)
            for output in manifest.outputs if manifest else ():
                inputs[f"{role}/{output}"] = self._hash(stage, self.folder_of(name) / output)
        for name, path in self.files_of(stage).items():
            inputs[name] = self._hash(stage, path)
        return Snapshot(dotted_path(stage.run), str(stage.code_version), self.seed_of(stage), stage.settings, inputs)

    def _hash(self, stage: Stage, path: str | Path) -> Hashed:
        try:
            return self.hashes.hash_path(path)
        except OSError as error:
            raise PipelineError(f"stage {stage.name!r} reads {path}, which cannot be read: {error}") from error

    def files_of(self, stage: Stage) -> dict[str, Path]:
        """Files and folders from outside: declared by the stage or its function, or named by a setting that no input
        replaces."""
        declaration = declaration_of(stage.run)
        replaced = [setting for role in stage.roles for setting in declaration.replaced.get(role, ())]
        files = {f"settings.{key}": Path(path) for key, path in paths_in(stage.settings, replaced).items()}
        # What lies in the pipeline's folder is a stage's output, which its name among the inputs brings along.
        files = {key: path for key, path in files.items() if self.folder.resolve() not in path.resolve().parents}
        declared = declaration.files(stage.settings) if declaration.files else {}
        files |= {name: Path(path) for name, path in declared.items()}
        return files | {name: Path(path) for name, path in stage.files.items()}

    def seed_of(self, stage: Stage) -> int:
        seed = stage.settings.get("seed", self.seed)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise PipelineError(f"stage {stage.name!r}: seed must be a whole number from 0 to 2**32 - 1, got {seed!r}")
        return seed

    # doing it

    def run(self, start: str | None = None, only: Sequence[str] = ()) -> list[Manifest]:
        """Run what is not done, in order; the manifests of all stages that have one. Every rank of a launcher calls
        this; only the main one decides and writes, and gets the manifests.

        start: this stage and all that need it run anew. only: no other stage runs. Both take earlier stages as they
        are.
        Raises PipelineError before anything runs, StageError when a stage fails, Stopped after Ctrl-C or SIGTERM.
        """
        ranks = Ranks.launched()
        if ranks.size > 1 and not self.isolate:
            raise PipelineError(
                "several processes need isolate: true; a stage that waits on one rank for a rank that failed can only "
                "be ended from outside"
            )
        if ranks.rank > 0:
            self._follow(ranks)
            return []
        code = 1
        try:
            chosen = self._chosen(start, only)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PipelineError(f"output_dir {self.folder} cannot be made: {error.strerror or error}") from error
            with locked(self.folder) as lock:
                self._run_chosen(chosen, start, ranks, lock)
            code = 0
        except KeyboardInterrupt as stopped:
            code = 128 + getattr(stopped, "number", signal.SIGINT)
            raise
        finally:
            ranks.end(code)
            self.hashes.save()
        return [manifest for stage in self.stages if (manifest := self.manifest(stage.name))]

    def _run_chosen(self, chosen: set[str], start: str | None, ranks: Ranks, lock: int | None) -> None:
        if start is not None:
            # All of them at once: should this call be killed, the next one, without --from, still runs them anew.
            for name in chosen:
                self._set_aside(name)
        jobs = self.jobs if self.isolate and ranks.size == 1 else 1
        waiting, problem = list(self.stages), None
        with Signals() if self.isolate else contextlib.nullcontext() as signals:
            work = AtWork(ranks, lock, jobs, signals)
            while work.running or (waiting and problem is None):
                try:
                    may_start = problem is None and len(work.running) < jobs and not (signals and signals.passed)
                    if may_start and (ready := next_ready(waiting, work.running.values())) is not None:
                        waiting.remove(ready)
                        if ready.name in chosen:
                            self._start(ready, work)
                        else:
                            self._warn_if_stale(ready, chosen)
                    elif (ended := next((one for one in work.running if one.ended(ranks)), None)) is not None:
                        self._end_of(ended, work)
                    elif signals and not work.running:
                        raise Stopped(STOPPED_BETWEEN, signals.passed[-1])
                    else:
                        time.sleep(POLL_SECONDS)
                except (Exception, Stopped) as error:
                    if problem is not None:
                        self._say(f"error: {error}")
                    problem = problem or error
                    if names := ", ".join(begun.stage.name for begun in work.running.values()):
                        self._say(f"{_first_line(str(error))}; {names} still runs, and is waited for")
        if problem is not None:
            raise problem

    def _warn_if_stale(self, stage: Stage, chosen: set[str]) -> None:
        """An earlier stage that is taken as it is although it would run again."""
        needed = any(stage.name in other.needs for other in self.stages if other.name in chosen)
        if needed and all(self.is_finished(name) for name in stage.needs):
            step = self._decide(stage)
            if step.action != "done":
                self._say(f"warning: {stage.name} is taken as it is, and a whole run would run it again: {step.why}")

    def _warn_of_edits(self, stage: Stage, step: Step) -> None:
        manifest = self.manifest(stage.name)
        for output, known in manifest.outputs.items() if manifest and step.action == "done" else ():
            if self._hash(stage, self.folder_of(stage.name) / output).hash != known["hash"]:
                self._say(
                    f"warning: {stage.name}/{output} is not what the stage wrote; stages behind it take it as it is "
                    f"now (--from {stage.name} makes it anew)"
                )

    def _start(self, stage: Stage, work: AtWork) -> None:
        """Begin a stage, which then is among those that run: unless it is done, or ends here and now."""
        label = f"stage {self.stages.index(stage) + 1} of {len(self.stages)}, {stage.name}"
        step = self._decide(stage)
        self._say(f"{label}: {step.action}{f' ({step.why})' if step.why else ''}")
        self._warn_of_edits(stage, step)
        if step.action == "done":
            self._tell()
            return
        if step.anew:
            self._set_aside(stage.name)
        folder = self.folder_of(stage.name)
        folder.mkdir(parents=True, exist_ok=True)
        snapshot = self.snapshot(stage)
        manifest = Manifest.read(folder) if step.action == "resume" else None
        outcome = self._left_behind(folder) if manifest is not None and manifest.status == "running" else None
        share = min(set(range(work.jobs)) - {begun.share for begun in work.running.values()})
        cores = share_of_cores(share, work.jobs)
        manifest = self._begin(stage, snapshot, manifest, work.ranks, len(cores), again=outcome is None)
        begun = Begun(stage, label, manifest, snapshot, share)
        if outcome is not None:
            self._say(f"{label}: it had ended before the kill; its manifest is completed")
            self._finish(begun, outcome, float(outcome.get("seconds", 0.0)))
            return
        context = self._context(stage, resume=step.action == "resume")
        if work.signals is None:
            outcome = run_stage(stage.run, context)
            self._finish(begun, outcome, time.time() - begun.since)
            return
        port = free_port() if "MASTER_PORT" in os.environ else None
        request = request_of(dotted_path(stage.run), context)
        request |= {"processes": work.ranks.size, "port": port, "cores": cores}
        work.ranks.publish(request)
        process = StageProcess(request, work.lock, named=work.jobs > 1)
        work.running[process] = begun
        work.signals.reach(process)

    def _end_of(self, process: StageProcess, work: AtWork) -> None:
        assert work.signals is not None
        outcome = work.ranks.together(process.outcome(bool(work.signals.passed)))
        begun = work.running.pop(process)
        work.signals.running.remove(process)
        # By the stage's own clock: this process may have been busy with another one when it ended.
        ended = outcome.get("ended")
        seconds = (datetime.fromisoformat(ended).timestamp() if ended else time.time()) - begun.since
        self._finish(begun, outcome, seconds, work.signals.passed[-1] if work.signals.passed else None)

    def _finish(self, begun: Begun, outcome: dict[str, Any], seconds: float, stopped: int | None = None) -> None:
        """The end of a stage, written and told; raises what it means for the pipeline."""
        self._complete(begun.stage, begun.manifest, outcome, seconds)
        if begun.manifest.status == "finished":
            self._say(f"{begun.label}: finished in {_clock(begun.manifest.seconds)}")
            self._warn_of_changes_meanwhile(begun.stage, begun.snapshot)
        self._end(begun.stage, begun.manifest, stopped)
        self._tell()

    def _tell(self) -> None:
        self.write_summary()
        self.hashes.save()

    def _begin(
        self, stage: Stage, snapshot: Snapshot, manifest: Manifest | None, ranks: Ranks, cores: int, again: bool
    ) -> Manifest:
        """The manifest of a stage that starts or goes on, on the disk before the stage does anything."""
        commit = checkout_commit()
        if manifest is None:
            manifest = Manifest(stage=stage.name, started=now())
        manifest.title, manifest.status, manifest.error, manifest.traceback = stage.title, "running", None, None
        manifest.fingerprint = snapshot.fingerprint
        manifest.recipe, manifest.code_version = snapshot.recipe, snapshot.code_version
        manifest.seed, manifest.seeds = snapshot.seed, {"stage": snapshot.seed}
        manifest.settings, manifest.config = snapshot.settings, plain(full_config(snapshot.settings))
        manifest.inputs = {name: self._told(found) for name, found in snapshot.inputs.items()}
        manifest.commit, manifest.dirty = commit.removesuffix("-dirty"), commit.endswith("-dirty")
        here = machine() | ({"cores": cores} if cores else {})
        if (before := manifest.machine.get("cores", here["cores"])) != here["cores"]:
            self._say(
                f"warning: {stage.name} began on {before} cores and goes on with {here['cores']}; sums in another "
                "order change the last digits of its numbers"
            )
        manifest.machine, manifest.processes = here, ranks.size
        if again:
            manifest.attempts.append({"started": now(), "ended": None, "seconds": None, "status": "running"})
            (self.folder_of(stage.name) / OUTCOME).unlink(missing_ok=True)
        manifest.write(self.folder_of(stage.name))
        return manifest

    def _told(self, found: Hashed, base: Path | None = None) -> dict[str, Any]:
        """A hash for the manifest; paths inside the pipeline's folder are told from there, so that it can be moved."""
        path = Path(found.path)
        base = base or self.folder
        inside = path.relative_to(base) if base in path.parents else path
        return asdict(found) | {"path": inside.as_posix()}

    def _context(self, stage: Stage, resume: bool) -> StageContext:
        inputs = {}
        for role, name in stage.roles.items():
            earlier = self.manifest(name)
            assert earlier is not None
            inputs[role] = StageInput(name, self.folder_of(name), tuple(earlier.outputs), earlier.metrics)
        return StageContext(
            name=stage.name, title=stage.title, folder=self.folder_of(stage.name), settings=stage.settings,
            inputs=inputs, files=self.files_of(stage), seed=self.seed_of(stage), resume=resume,
        )  # fmt: skip

    def _left_behind(self, folder: Path) -> dict[str, Any] | None:
        """What the stage's function said at its end, where a kill came between that and its manifest. With several
        ranks one cannot speak for the others."""
        manifest = Manifest.read(folder)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # also one that somebody edited
            outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
            if manifest is not None and manifest.processes == 1 and outcome.get("status") == "returned":
                StageResult(**outcome.get("result") or {})
                return outcome
        return None

    def _complete(self, stage: Stage, manifest: Manifest, outcome: dict[str, Any], seconds: float) -> None:
        """The stage's last word into its manifest. A disk that is full leaves the manifest of its start."""
        folder = self.folder_of(stage.name)
        result = StageResult(**outcome["result"]) if outcome.get("result") else StageResult()
        manifest.status = {"returned": "finished"}.get(outcome["status"], outcome["status"])
        manifest.error, manifest.traceback = outcome.get("error"), outcome.get("traceback")
        manifest.seen, manifest.kept, manifest.filters = result.seen, result.kept, result.filters
        manifest.metrics, manifest.notes, manifest.seeds = result.metrics, result.notes, manifest.seeds | result.seeds
        if manifest.status == "finished" and result.kept == 0:
            manifest.status, manifest.error = "failed", _nothing_kept(result)
        if manifest.status == "finished":
            try:
                manifest.outputs = self._outputs(stage, result)
            except PipelineError as error:
                manifest.status, manifest.error = "failed", str(error)
        manifest.ended = now()
        manifest.attempts[-1] |= {
            "ended": outcome.get("ended") or manifest.ended, "seconds": seconds, "status": manifest.status,
            "error": manifest.error,
        }  # fmt: skip
        manifest.seconds = sum(attempt["seconds"] or 0.0 for attempt in manifest.attempts)
        try:
            manifest.write(folder)
            (folder / OUTCOME).unlink(missing_ok=True)
            self.write_summary()
        except OSError as error:
            if manifest.status == "finished":
                raise StageError(f"stage {stage.name!r} finished, but: {error.strerror or error}") from error
            self._say(f"warning: {error.strerror or error}")  # what made the stage fail is the message that counts

    def _outputs(self, stage: Stage, result: StageResult) -> dict[str, dict[str, Any]]:
        """The outputs by name, hashed. Raises PipelineError for one that the stage promised and did not write."""
        folder = self.folder_of(stage.name)
        named = stage.outputs if result.outputs is None else tuple(result.outputs)
        if named is None:
            named = tuple(name for name in DEFAULT_OUTPUTS if (folder / name).exists())
            if not named:
                raise PipelineError(
                    f"it wrote neither of {' and '.join(DEFAULT_OUTPUTS)} into {folder}; if it writes something else, "
                    "declare(outputs=…) says so"
                )
        for name in named:
            if not (folder / name).exists():
                raise PipelineError(f"it returned and did not write its output {name!r} into {folder}")
        return {name: self._told(self._hash(stage, folder / name), folder) for name in named}

    def _warn_of_changes_meanwhile(self, stage: Stage, begun: Snapshot) -> None:
        manifest = self.manifest(stage.name)
        if manifest is not None and (changes := self.snapshot(stage).changes_since(manifest)):
            self._say(f"warning: changed while {stage.name} ran, so the next call runs it again: {'; '.join(changes)}")

    def _end(self, stage: Stage, manifest: Manifest, stopped: int | None) -> None:
        """Raises what the stage's end means for the pipeline. stopped: the signal that it was passed, if any."""
        if manifest.status == "interrupted":
            raise Stopped(
                f"stopped in stage {stage.name!r}; the same command (without --from) goes on from there",
                stopped or signal.SIGINT,
            )
        if manifest.status == "failed":
            raise StageError(
                f"stage {stage.name!r} failed: {manifest.error}\n{self.folder_of(stage.name) / MANIFEST} has the "
                "details; stages that finished are kept, and the same command (without --from) tries this one again"
            )
        if stopped:
            raise Stopped(f"stopped after stage {stage.name!r}; the same command (without --from) goes on", stopped)

    def _set_aside(self, name: str) -> None:
        """Rename a stage's folder so that what it holds is kept; nothing is ever deleted."""
        folder = self.folder_of(name)
        if not folder.is_dir() or not any(folder.iterdir()):
            return
        aside = next(path for path in self._aside_names(name) if not path.exists())
        folder.rename(aside)
        self._say(f"{name}: what was there is kept as {aside.name}")

    def _aside_names(self, name: str) -> Iterator[Path]:
        number = 1
        while True:
            yield self.folder / f"{name}-superseded-{number}"
            number += 1

    def _follow(self, ranks: Ranks) -> None:
        """What the other ranks do: run what the main one says, until it says that it is over."""
        while True:
            request = ranks.receive()
            if "end" in request:
                ranks.hear()
                if request["end"]:
                    raise SystemExit(request["end"])
                return
            with Signals() as signals:
                process = StageProcess(request | {"rank": ranks.rank})
                signals.reach(process)
                while not process.ended(ranks):
                    time.sleep(POLL_SECONDS)
                outcome = process.outcome(bool(signals.passed))
            ranks.together(outcome)

    def _say(self, message: str) -> None:
        say(message)

    # telling

    def write_summary(self) -> None:
        """pipeline.json: a line a stage, and where each of them stands."""
        content: dict[str, Any] = {
            "title": self.title, "seed": self.seed, "updated": now(), "isolate": self.isolate, "jobs": self.jobs,
            "stages": [],
        }  # fmt: skip
        for stage in self.stages:
            manifest = self.manifest(stage.name) or Manifest(stage=stage.name, status="waiting")
            content["stages"].append(
                {"name": stage.name, "title": stage.title, "inputs": stage.roles, "folder": stage.name}
                | {
                    key: getattr(manifest, key)
                    for key in ("status", "error", "seconds", "seen", "kept", "dropped", "metrics", "fingerprint")
                }
                | {"superseded": len(list(self.folder.glob(f"{stage.name}-superseded-*")))}
            )
        write_json(self.folder / SUMMARY, content)

    def summary(self) -> str:
        """A table: stage, status, seconds, rows kept and dropped, its first four numbers."""
        rows = [("stage", "status", "time", "kept", "dropped", "metrics")]
        for stage in self.stages:
            manifest = self.manifest(stage.name)
            if manifest is None:
                rows.append((stage.name, "–", "–", "–", "–", ""))
                continue
            kept = "–" if manifest.kept is None else f"{manifest.kept:,}"
            dropped = f"{manifest.dropped:,}" if manifest.filters else "–"
            time_taken = _clock(manifest.seconds)
            rows.append((stage.name, manifest.status, time_taken, kept, dropped, _main_metrics(manifest.metrics)))
        return aligned(rows)

    def plan_table(self, start: str | None = None, only: Sequence[str] = ()) -> str:
        """What `run` would do: stage, inputs, what, why."""
        rows = [("stage", "inputs", "what", "why")]
        for step in self.plan(start, only):
            files = [str(path) for path in self.files_of(step.stage).values()]
            inputs = ", ".join(dict.fromkeys([*step.stage.needs, *files]))
            rows.append((step.stage.name, inputs or "–", step.action, step.why))
        return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    # A long cell moves the rest of its row alone.
    widths = [min(48, max(len(row[column]) for row in rows)) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows
    )


def _main_metrics(metrics: dict[str, Any], shown: int = 4) -> str:
    numbers = [(key, value) for key, value in metrics.items() if isinstance(value, int | float)]
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers[:shown]
    )


def _clock(seconds: float) -> str:
    """8.1 -> 8.1 s, 432 -> 7:12, 3723 -> 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _first_line(text: str | None) -> str:
    return shown((text or "no message").splitlines()[0])


def _nothing_kept(result: StageResult) -> str:
    seen = f"of {result.seen:,} rows " if result.seen is not None else ""
    dropped = ", ".join(f"{item['name']} dropped {item['dropped']:,}" for item in result.filters if item.get("dropped"))
    worst = max(result.filters, key=lambda item: item.get("dropped", 0), default={})
    example = next(iter(worst.get("examples", [])), None)
    first = f"; the first that {worst['name']} dropped: {shown(str(example))}" if example is not None else ""
    return f"{seen}none was kept: {dropped or 'no filter says why'}{first}; loosen that filter, or gather more"


# --- the file and the command line ------------------------------------------------------------------------------------


@dataclass
class Call:
    """What a command line asks for."""

    config: str
    start: str | None = None
    only: list[str] = field(default_factory=list)
    dry_run: bool = False
    top: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> dotted setting -> value."""


def load_pipeline(
    path: str | Path,
    top: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Pipeline:
    """The pipeline that a YAML file declares. top: output_dir, model, seed, isolate, jobs and title over the file's;
    overrides: stage -> dotted setting -> value. Raises PipelineError and RecipeError, which say where and what to
    change."""
    from recipes.parser import load_yaml

    content = load_yaml(path)
    changed = {key: content.pop(key) for key in list(content) if isinstance(key, str) and "." in key}
    _known(content, TOP_KEYS, str(path))
    content = content | dict(top or {})
    kinds = {"output_dir": str, "model": str, "seed": int, "isolate": bool, "jobs": int, "title": str}
    for key, kind in kinds.items():
        if key in content and (not isinstance(content[key], kind) or (kind is int and isinstance(content[key], bool))):
            raise PipelineError(f"{path}: {key} expects {kind.__name__}, got {content[key]!r}")
    if not content.get("output_dir"):
        raise PipelineError(f"{path} needs an output_dir: the folder that holds a folder for every stage")
    entries = content.get("stages")
    if not isinstance(entries, list) or not entries:
        raise PipelineError(f"{path} needs `stages:`, a list with at least one entry of name and recipe")
    more = content.get("more_stages", [])
    if not isinstance(more, list):
        raise PipelineError(f"{path}: more_stages expects a list of stages, as `stages:` is, got {more!r}")
    entries = entries + more
    stages = [_stage_of(entry, number, str(path)) for number, entry in enumerate(entries, 1)]
    by_name = {stage.name: stage for stage in in_order(stages)}
    if "model" in content:
        _start_from(content["model"], stages)
    dotted = [(*key.split(".", 1), value) for key, value in changed.items()]
    dotted += [(name, key, value) for name, settings in (overrides or {}).items() for key, value in settings.items()]
    for name, key, value in dotted:
        if name not in by_name:
            raise PipelineError(f"there is no stage {name!r} to set {key} of{near(name, by_name)}")
        _set(by_name[name].settings, key, value, name)
    given = {f"--{key}": value for key, value in (top or {}).items()}
    given |= {f"{name}.{key}": value for name, own in (overrides or {}).items() for key, value in own.items()}
    flags = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]
    return Pipeline(
        stages, content["output_dir"], seed=content.get("seed", 0), isolate=content.get("isolate", True),
        jobs=content.get("jobs", 1), title=content.get("title", ""),
        command=shlex.join(["python", "-m", "recipes.pipeline", "--config", str(path), *flags]),
    )  # fmt: skip


def _start_from(model: str, stages: Iterable[Stage]) -> None:
    """The model of every stage that takes one as its input `model`, has none there, and names none itself."""
    for stage in stages:
        settings = () if "model" in stage.roles else declaration_of(stage.run).replaced.get("model", ())
        for name in settings:
            stage.settings.setdefault(name, model)


def _stage_of(entry: Any, number: int, source: str) -> Stage:
    where = f"{source}, entry {number} of stages"
    if not isinstance(entry, dict):
        raise PipelineError(f"{where} must be a mapping with name and recipe, got {entry!r}")
    _known(entry, ENTRY_KEYS, where)
    for key in ("name", "recipe"):
        if not isinstance(entry.get(key), str):
            raise PipelineError(
                f"{where} ({entry.get('name', 'without a name')}) needs a {key}, got {entry.get(key)!r}"
            )
    kinds = {"title": str, "inputs": list | dict, "files": list | dict, "settings": dict, "outputs": list}
    for key, kind in kinds.items():
        if entry.get(key) is not None and not isinstance(entry[key], kind):
            wanted = {"inputs": "a list of stages or a mapping role: stage", "files": "a list of paths or name: path"}
            raise PipelineError(
                f"{where} ({entry['name']}): {key} expects {wanted.get(key, getattr(kind, '__name__', kind))}, got "
                f"{entry[key]!r}"
            )
        items = list(entry[key].values()) if isinstance(entry.get(key), dict) else entry.get(key)
        if key in ("inputs", "files", "outputs") and not all(isinstance(item, str) for item in items or ()):
            raise PipelineError(f"{where} ({entry['name']}): {key} holds names or paths, which are text, got {items!r}")
    for name in entry.get("outputs") or ():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise PipelineError(f"{where} ({entry['name']}): an output lies in the stage's own folder, got {name!r}")
    files = entry.get("files") or {}
    outputs, version = entry.get("outputs"), entry.get("code_version")
    try:
        function = load_function(entry["recipe"])
    except PipelineError as error:
        raise PipelineError(f"{where} ({entry['name']}): {error}") from error
    return Stage(
        name=entry["name"], run=function, title=entry.get("title") or "", inputs=entry.get("inputs") or (),
        settings=entry.get("settings") or {}, outputs=None if outputs is None else tuple(outputs),
        files=files if isinstance(files, dict) else {str(path): path for path in files},
        code_version=None if version is None else str(version),
    )  # fmt: skip


def _known(mapping: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in keys:
            raise PipelineError(f"unknown key {key!r} in {where}{near(str(key), keys)}")


def _set(settings: dict[str, Any], key: str, value: Any, stage: str) -> None:
    *outer, last = key.split(".")
    for part in outer:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise PipelineError(f"{stage}.{key}: {part} holds no settings of its own, it is {settings!r}")
    settings[last] = value


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PipelineError(message)


def parse_call(argv: Sequence[str]) -> Call:
    """A command line. `stage.key=value`, `--stage.key value` and `--stage.key=value` set a stage's setting, as YAML
    reads the value. Raises PipelineError and RecipeError."""
    from recipes.parser import read_value

    parser = _Arguments(
        prog="python -m recipes.pipeline", allow_abbrev=False, description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--config", required=True, action="append", help="the YAML file that declares the stages; `extends` joins two"
    )
    parser.add_argument("--from", dest="start", metavar="STAGE", help="run this stage and all that need it anew")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="STAGE", help="run no other stage")
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="show what would run, and why")
    kinds = {
        "output_dir": "folder", "model": "path", "seed": "number", "isolate": "true or false", "jobs": "number",
        "title": "text",
    }  # fmt: skip
    for name, what in kinds.items():
        parser.add_argument(f"--{name}", metavar=what.upper(), help=f"{name} over the file's")
    known, rest = parser.parse_known_args(list(argv))
    if len(known.config) > 1:
        raise PipelineError(f"a pipeline is one file, got {', '.join(known.config)}; one may say extends: the other")
    only = [name for name in known.only if "=" not in name]  # `--only a b.k=8`: the setting is none of its names
    rest = [item for item in known.only if "=" in item] + rest
    texts = {key: value for key in ("output_dir", "model", "title") if (value := getattr(known, key)) is not None}
    top = texts | {
        name: read_value(getattr(known, name))
        for name in ("seed", "isolate", "jobs")
        if getattr(known, name) is not None
    }
    call = Call(known.config[0], known.start, only, known.dry_run, top)
    while rest:
        item = rest.pop(0)
        name, equals, value = item.partition("=")
        stage, dot, key = name.removeprefix("--").partition(".")
        if not dot or not key or not (equals or item.startswith("--")):
            flags = ("config", "from", "only", "dry-run", "output_dir", "model", "seed", "isolate", "jobs", "title")
            raise PipelineError(
                f"{item!r} is no flag and no setting of a stage, which is written stage.key=value{near(stage, flags)}"
            )
        if not equals:
            if not rest:
                raise PipelineError(f"{item} needs a value behind it")
            value = rest.pop(0)
        call.stages.setdefault(stage, {})[key] = read_value(value)
    return call


def main(argv: Sequence[str]) -> None:
    call = parse_call(argv)
    pipeline = load_pipeline(call.config, call.top, call.stages)
    if int(os.environ.get("RANK", 0)) > 0 and call.dry_run:
        return
    if call.dry_run:
        say(pipeline.plan_table(call.start, call.only))
        return
    try:
        manifests = pipeline.run(call.start, call.only)
    except (StageError, KeyboardInterrupt) as error:
        say(f"\n{pipeline.summary()}\n")
        stopped = isinstance(error, KeyboardInterrupt)
        print(str(error) or "stopped" if stopped else f"error: {error}", file=sys.stderr)
        raise SystemExit(128 + getattr(error, "number", signal.SIGINT) if stopped else 1) from None
    if manifests:
        say(f"\n{pipeline.summary()}\n{pipeline.folder / SUMMARY}")


if __name__ == "__main__":
    from recipes.parser import reported

    with reported():
        main(sys.argv[1:])
