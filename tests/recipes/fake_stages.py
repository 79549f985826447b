"""Small stages for the tests of the pipeline, and a command that runs them in a process that can be killed.

FAKE_LOG names a file that gets a line for every call and every piece of work; as a setting it would be an input.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recipes.pipeline import Pipeline, Stage, StageContext, StageResult, Stopped, declare

UNITS = 4


def log(line: str) -> None:
    if path := os.environ.get("FAKE_LOG"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def block(moment: str) -> None:
    """Wait to be killed, if this is the moment that FAKE_BLOCK names."""
    if os.environ.get("FAKE_BLOCK") == moment:
        Path(os.environ["FAKE_BLOCKED"]).write_text(str(os.getpid()))
        time.sleep(120)


def wrote(context: StageContext, text: str) -> None:
    (context.folder / "model").mkdir(exist_ok=True)
    (context.folder / "model/weights.txt").write_text(text)


def copy(context: StageContext) -> StageResult:
    """Its setting `text` and the models of its inputs, one after the other."""
    log(f"{context.name}{' resumed' if context.resume else ''}")
    read = [context.input(role).joinpath("weights.txt").read_text() for role in context.inputs]
    wrote(context, "+".join([*read, str(context.settings.get("text", ""))]))
    return StageResult(
        metrics={"accuracy": 0.5, "loss": float("nan"), "note": "text"}, seen=10, kept=8,
        filters=[{"name": "too_long", "dropped": 2, "examples": ["aaa", "bbb"]}], notes=["a note"],
    )  # fmt: skip


def constant(context: StageContext) -> StageResult:
    """The same model whatever its settings say."""
    log(context.name)
    wrote(context, "constant")
    return StageResult()


@declare(outputs=("model",), code_version="2", files=lambda settings: {"notes": settings["notes"]})
def with_notes(context: StageContext) -> StageResult:
    log(context.name)
    wrote(context, context.files["notes"].read_text())
    return StageResult()


def fails(context: StageContext) -> StageResult:
    log(context.name)
    (context.folder / "half").write_text("half a result")
    if not os.environ.get("FAKE_MENDED"):
        raise ValueError("the reward model scores NaN")
    wrote(context, "mended" if context.resume and (context.folder / "half").exists() else "from nothing")
    return StageResult()


def disk_is_full(context: StageContext) -> StageResult:
    raise OSError(28, "No space left on device")


def keeps_nothing(context: StageContext) -> StageResult:
    wrote(context, "")
    filters = [
        {"name": "wrong", "dropped": 1, "examples": []},
        {"name": "mixed", "dropped": 6, "examples": ["안녕 hello"]},
    ]
    return StageResult(seen=7, kept=0, filters=filters)


def writes_nothing(context: StageContext) -> StageResult:
    return StageResult()


def forgets_to_return(context: StageContext) -> None:
    wrote(context, "x")


def dies(context: StageContext) -> StageResult:
    os.kill(os.getpid(), signal.SIGSEGV if context.settings.get("how") == "segv" else signal.SIGKILL)
    raise AssertionError


def _no_odd_k(settings: dict) -> None:
    if settings.get("k", 0) % 2:
        raise ValueError(f"k must be even, got {settings['k']}")


@declare(check=_no_odd_k)
def even(context: StageContext) -> StageResult:
    return copy(context)


def count(context: StageContext) -> StageResult:
    """UNITS pieces of work, with a checkpoint after each."""
    log(f"{context.name} called")
    saved = context.folder / "checkpoint.json"
    done = json.loads(saved.read_text()) if context.resume and saved.exists() else []
    for unit in range(len(done), UNITS):
        block(f"{unit} begins")
        time.sleep(float(os.environ.get("FAKE_PAUSE", 0)))
        log(f"unit {unit}")
        block(f"{unit} worked")
        done.append(context.seed + unit)
        partial = saved.with_suffix(".partial")
        partial.write_text(json.dumps(done))
        partial.replace(saved)
        block(f"{unit} saved")
    wrote(context, str(done))
    block("wrote")
    return StageResult(metrics={"units": len(done)})


def stops_when_asked(context: StageContext) -> StageResult:
    """As recipes.rl: the first signal ends the stage at the end of a step, with a checkpoint."""
    asked = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(number))
    if context.resume:
        wrote(context, (context.folder / "checkpoint").read_text())
        return StageResult()
    Path(os.environ["FAKE_BLOCKED"]).write_text("ready")
    while not asked:
        time.sleep(0.02)
    (context.folder / "checkpoint").write_text("step 3")
    return StageResult(interrupted=True)


def finishes_anyway(context: StageContext) -> StageResult:
    """A signal comes, and the stage has only its last step left."""
    asked = []
    signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    Path(os.environ["FAKE_BLOCKED"]).write_text("ready")
    while not asked:
        time.sleep(0.02)
    wrote(context, "all of it")
    return StageResult()


def sleeps(context: StageContext) -> StageResult:
    Path(os.environ["FAKE_BLOCKED"]).write_text("ready")
    time.sleep(120)
    return StageResult()


def meets(context: StageContext) -> StageResult:
    """It ends once the stages of its setting `others` have begun too: never, if they do not run beside it."""
    log(f"{context.name} came")
    print(f"hello from {context.name}")
    wanted = {f"{name} came" for name in context.settings["others"]}
    _until(lambda: wanted <= set(Path(os.environ["FAKE_LOG"]).read_text().splitlines()))
    wrote(context, "met")
    return StageResult(metrics={"first core": min(os.sched_getaffinity(0)), "cores": len(os.sched_getaffinity(0))})


def talks(context: StageContext) -> StageResult:
    os.write(1, "안녕\n".encode())
    for done in range(1000):
        os.write(1, f"{done} of 1000\r".encode())
    os.write(1, b"\nhalf a line")
    wrote(context, "said")
    return StageResult()


def outlives(context: StageContext) -> StageResult:
    """It ends once the stage of its setting `other` has failed."""
    log(f"{context.name} came")
    manifest = context.folder.parent / context.settings["other"] / "manifest.json"
    _until(lambda: manifest.exists() and json.loads(manifest.read_text())["status"] == "failed")
    wrote(context, "outlived")
    return StageResult()


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def together(context: StageContext) -> StageResult:
    """Ranks that add up their numbers; rank 1 fails when told to, while rank 0 waits for it."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    if context.rank == 1 and context.settings.get("fail"):
        raise ValueError("no answer key on this rank")
    total = torch.tensor([float(context.rank + 1)])
    dist.all_reduce(total)
    log(f"{context.name} rank {context.rank} of {context.processes}")
    if context.is_main_process:
        wrote(context, str(total.item()))
    dist.barrier()
    dist.destroy_process_group()
    return StageResult(metrics={"total": total.item()})


def drive(folder: str, isolate: bool) -> None:
    """first -> counted -> last, or FAKE_STAGE alone; FAKE_BLOCK may also name a moment of the engine's own work."""
    for name in ("_outputs", "write_summary", "_begin", "_context"):
        _blocking(name)
    stages = [
        Stage(name="first", run=copy, settings={"text": "a"}),
        Stage(name="counted", run=count, inputs=["first"]),
        Stage(name="last", run=copy, inputs=["counted"], settings={"text": "z"}),
    ]
    if name := os.environ.get("FAKE_STAGE"):
        stages = [Stage(name="alone", run=globals()[name]), Stage(name="behind", run=copy, inputs=["alone"])]
    try:
        Pipeline(stages, folder, seed=7, isolate=isolate).run()
    except Stopped as stopped:
        sys.exit(128 + stopped.number)


def _blocking(name: str) -> None:
    original = getattr(Pipeline, name)

    def method(self: Pipeline, *args, **kwargs):
        stage = getattr(args[0], "name", "") if args else ""
        block(f"before {name} {stage}".strip())
        result = original(self, *args, **kwargs)
        block(f"after {name} {stage}".strip())
        return result

    setattr(Pipeline, name, method)


if __name__ == "__main__":
    # Under its own name, or the stages' own processes could not import it.
    import fake_stages

    fake_stages.drive(sys.argv[1], sys.argv[2] == "isolate")
