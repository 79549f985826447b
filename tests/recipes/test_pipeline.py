"""The engine that joins stages: what runs, what does not, what a kill, a failure or a change costs."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import fake_stages
import pytest
import yaml
from fake_stages import UNITS

from recipes import pipeline as module
from recipes import stage as stage_module
from recipes.isolation import locked
from recipes.manifest import Manifest
from recipes.parser import RecipeError
from recipes.pipeline import (
    Pipeline,
    PipelineError,
    Stage,
    StageContext,
    StageError,
    StageInput,
    StageResult,
    Stopped,
    checks,
    load_pipeline,
    main,
    parse_call,
)

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@pytest.fixture(autouse=True)
def calls(tmp_path, monkeypatch):
    """What the fake stages logged since the last look."""
    path = tmp_path / "calls.log"
    monkeypatch.setenv("FAKE_LOG", str(path))
    for name in ("FAKE_BLOCK", "FAKE_MENDED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAKE_BLOCKED", str(tmp_path / "blocked"))
    seen = 0

    def look() -> list[str]:
        nonlocal seen
        lines = path.read_text().splitlines() if path.exists() else []
        new, seen = lines[seen:], len(lines)
        return new

    return look


def chain(folder: Path, texts: str = "abc", run=fake_stages.copy, **settings) -> Pipeline:
    """first -> second -> third, each adding its letter."""
    names = ["first", "second", "third"]
    stages = [
        Stage(name=name, run=run if name == "second" else fake_stages.copy, inputs=before, settings={"text": text})
        for name, text, before in zip(names, texts, ([], ["first"], ["second"]))
    ]
    return Pipeline(stages, folder, isolate=False, **settings)


def weights(folder: Path, name: str) -> str:
    return (folder / name / "model/weights.txt").read_text()


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def actions(pipeline: Pipeline, **choice) -> list[str]:
    return [step.action for step in pipeline.plan(**choice)]


# --- the graph --------------------------------------------------------------------------------------------------------


def stage(name: str, *inputs: str) -> Stage:
    return Stage(name=name, run=fake_stages.copy, inputs=inputs)


def test_stages_run_behind_what_they_need(tmp_path, calls):
    stages = [stage("r1", "sft", "rewards"), stage("sft", "zero"), stage("rewards"), stage("zero")]
    Pipeline(stages, tmp_path / "run", isolate=False).run()
    order = calls()
    assert sorted(order) == ["r1", "rewards", "sft", "zero"]
    assert order.index("zero") < order.index("sft") < order.index("r1") > order.index("rewards")
    assert weights(tmp_path / "run", "r1") == "+++"  # sft's is zero's "" and its own ""; then rewards', then r1's


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage("a", "b"), stage("b", "c"), stage("c", "a")], "wait for each other: (a -> c -> b -> a|.*)"),
        ([stage("free"), stage("a", "a")], "wait for each other: a -> a"),
        ([stage("cold-start"), stage("b", "cold-strat")], "'b' has the input 'cold-strat', which is no stage; did you"),
        ([stage("a"), stage("a")], "two stages are called 'a'"),
    ],
)
def test_a_graph_that_cannot_be_is_an_error_that_names_it(tmp_path, stages, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline(stages, tmp_path)


def test_a_cycle_is_named_along_its_arrows(tmp_path):
    """Each name needs the one before it, and the first stands at both ends."""
    stages = [stage("x", "c"), stage("a", "b"), stage("b", "c"), stage("c", "a")]
    with pytest.raises(PipelineError, match="wait for each other") as caught:
        Pipeline(stages, tmp_path)
    path = str(caught.value).split(": ")[1].split(" -> ")
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    needs = {"a": "b", "b": "c", "c": "a"}
    assert all(needs[after] == before for before, after in pairwise(path))


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "x-superseded-2", "sft-2", "a b"])
def test_a_name_that_makes_no_folder_is_an_error(name):
    with pytest.raises(PipelineError, match="stage name"):
        stage(name)


def test_inputs_may_be_named_by_their_role(tmp_path):
    """A stage's function need not know what its neighbours are called."""
    copies = Stage(name="sft", run=fake_stages.copy, inputs={"base": "zero"}, settings={"text": "!"})
    run = Pipeline([Stage(name="zero", run=fake_stages.copy, settings={"text": "z"}), copies], tmp_path, isolate=False)
    run.run()
    assert weights(tmp_path, "sft") == "z+!"
    context = StageContext("sft", "", tmp_path, {}, {"base": StageInput("zero", tmp_path, ("model",))}, {}, 0, False)
    assert context.input("base") == tmp_path / "model"
    with pytest.raises(
        PipelineError, match=r"needs a stage as its input 'data', and has base; write `inputs: \{data: NAME\}`"
    ):
        context.input("data")
    with pytest.raises(PipelineError, match="'zero' has no output 'dataset'; it has model"):
        context.input("base", "dataset")


# --- what is done stays done ------------------------------------------------------------------------------------------


def test_a_second_call_does_nothing(tmp_path, calls):
    chain(tmp_path / "run").run()
    assert calls() == ["first", "second", "third"]
    assert weights(tmp_path / "run", "third") == "a+b+c"
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("manifest.json")}
    chain(tmp_path / "run").run()
    assert calls() == []
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("manifest.json")} == before
    assert actions(chain(tmp_path / "run")) == ["done"] * 3


def test_what_another_commit_made_is_done_and_says_so(tmp_path, calls, monkeypatch):
    for commit in ("0123456789ab", "ba9876543210-dirty"):
        monkeypatch.setattr(module, "checkout_commit", lambda commit=commit: commit)
        chain(tmp_path / "run").run()
    assert calls() == ["first", "second", "third"]
    (step, *_) = chain(tmp_path / "run").plan()
    assert step.action == "done"
    assert step.why.endswith("at commit 0123456789ab, this is ba9876543210")


def test_a_folder_that_was_moved_is_still_done(tmp_path, calls):
    chain(tmp_path / "run").run()
    calls()
    (tmp_path / "run").rename(tmp_path / "moved")
    chain(tmp_path / "moved").run()
    assert calls() == []


def test_a_manifest_says_what_went_in_and_what_came_out(tmp_path):
    chain(tmp_path, seed=5).run()
    second = Manifest.read(tmp_path / "second")
    assert (second.status, second.error, second.seed, second.seeds) == ("finished", None, 5, {"stage": 5})
    assert (second.seen, second.kept, second.dropped) == (10, 8, 2)
    assert second.filters == [{"name": "too_long", "dropped": 2, "examples": ["aaa", "bbb"]}]
    assert second.metrics == {"accuracy": 0.5, "loss": None, "note": "text"}
    assert second.notes == ["a note"]
    assert second.settings == second.config == {"text": "b"}
    assert second.recipe == "fake_stages:copy"
    first = Manifest.read(tmp_path / "first")
    assert second.inputs["first/model"] == first.outputs["model"] | {"path": "first/model"}
    assert first.outputs["model"]["path"] == "model"
    assert list(first.outputs["model"]["files"]) == ["weights.txt"]
    assert second.machine["cores"] >= 1
    assert second.commit == "unknown" or len(second.commit) == 12
    assert second.started <= second.ended
    (attempt,) = second.attempts
    assert attempt["seconds"] == second.seconds > 0


def test_the_pipeline_is_told_in_one_file_and_one_table(tmp_path):
    pipeline = chain(tmp_path)
    pipeline.run()
    told = json.loads((tmp_path / "pipeline.json").read_text())
    assert [line["name"] for line in told["stages"]] == ["first", "second", "third"]
    assert told["stages"][1] | {"seconds": 0, "fingerprint": ""} == {
        "name": "second", "title": "", "inputs": {"first": "first"}, "folder": "second", "status": "finished",
        "error": None, "seconds": 0, "seen": 10, "kept": 8, "dropped": 2, "fingerprint": "", "superseded": 0,
        "metrics": {"accuracy": 0.5, "loss": None, "note": "text"},
    }  # fmt: skip
    head, *rows = pipeline.summary().splitlines()
    assert head.split() == ["stage", "status", "time", "kept", "dropped", "metrics"]
    assert rows[1].split() == ["second", "finished", *rows[1].split()[2:4], "8", "2", "accuracy", "0.5"]


# --- what changed runs again ------------------------------------------------------------------------------------------


def test_a_changed_setting_runs_its_stage_and_what_follows(tmp_path, calls, capsys):
    chain(tmp_path / "run").run()
    calls()
    capsys.readouterr()
    chain(tmp_path / "run", texts="aXc").run()
    assert calls() == ["second", "third"]
    assert weights(tmp_path / "run", "third") == "a+X+c"
    said = capsys.readouterr().out
    assert "stage 1 of 3, first: done" in said
    assert "stage 2 of 3, second: run (setting text: b -> X)" in said
    assert "stage 3 of 3, third: run (input second/model changed: " in said
    assert "(weights.txt))" in said


def test_what_is_superseded_is_kept(tmp_path):
    chain(tmp_path).run()
    chain(tmp_path, texts="abX").run()
    chain(tmp_path, texts="abY").run()
    assert folders(tmp_path) == ["first", "second", "third", "third-superseded-1", "third-superseded-2"]
    assert [weights(tmp_path, name)[-1] for name in ("third-superseded-1", "third-superseded-2", "third")] == list(
        "cXY"
    )
    assert json.loads((tmp_path / "pipeline.json").read_text())["stages"][2]["superseded"] == 2


def test_an_output_that_comes_out_the_same_stops_there(tmp_path, calls):
    chain(tmp_path / "run", run=fake_stages.constant).run()
    calls()
    chain(tmp_path / "run", texts="aXc", run=fake_stages.constant).run()
    assert calls() == ["second"]
    chain(tmp_path / "run", texts="XXc", run=fake_stages.constant).run()
    assert calls() == ["first", "second"]


def test_the_seed_is_an_input_of_every_stage(tmp_path, calls):
    chain(tmp_path / "run", seed=0).run()
    calls()
    reasons = [step.why for step in chain(tmp_path / "run", seed=1).plan()]
    assert reasons[0] == "seed: 0 -> 1"
    chain(tmp_path / "run", seed=1).run()
    assert calls() == ["first", "second", "third"]


def test_a_stage_s_own_seed_wins(tmp_path):
    Pipeline([Stage(name="a", run=fake_stages.copy, settings={"seed": 3})], tmp_path, seed=9, isolate=False).run()
    assert Manifest.read(tmp_path / "a").seed == 3
    with pytest.raises(PipelineError, match=r"stage 'b': seed must be a whole number from 0 to 2\*\*32 - 1, got 'x'"):
        Pipeline([Stage(name="b", run=fake_stages.copy, settings={"seed": "x"})], tmp_path, isolate=False).run()


def noted(tmp_path: Path, **changed) -> Pipeline:
    settings = {"notes": str(tmp_path / "notes.txt")}
    return Pipeline(
        [Stage(name="a", run=fake_stages.with_notes, settings=settings, **changed)], tmp_path / "run", isolate=False
    )


def test_a_changed_code_version_runs_again(tmp_path, calls):
    (tmp_path / "notes.txt").write_text("one")
    noted(tmp_path).run()
    noted(tmp_path, code_version="2").run()
    assert calls() == ["a"]
    assert noted(tmp_path, code_version="3").plan()[0].why == "code version: 2 -> 3"
    noted(tmp_path, code_version="3").run()
    assert calls() == ["a"]


def test_a_changed_recipe_runs_again(tmp_path):
    chain(tmp_path).run()
    step = chain(tmp_path, run=fake_stages.constant).plan()[1]
    assert (step.action, step.why) == ("run", "recipe: fake_stages:copy -> fake_stages:constant")


def test_a_changed_file_from_outside_runs_again(tmp_path, calls):
    (tmp_path / "notes.txt").write_text("one")
    noted(tmp_path).run()
    os.utime(tmp_path / "notes.txt", (1, 1))  # touched, and the same
    noted(tmp_path).run()
    assert calls() == ["a"]
    (tmp_path / "notes.txt").write_text("two")
    why = noted(tmp_path).plan()[0].why
    assert "input notes changed: " in why
    assert "notes.txt" in why
    noted(tmp_path).run()
    assert calls() == ["a"]
    assert weights(tmp_path / "run", "a") == "two"
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(PipelineError, match=r"'a' reads .*notes\.txt, which cannot be read: .* is not there"):
        noted(tmp_path).run()
    assert weights(tmp_path / "run", "a") == "two"


def test_settings_that_are_paths_are_inputs(tmp_path, calls):
    """Also those in a recipe that a setting names; a folder that is written to is none, nor a word without a slash."""
    base, recipe = tmp_path / "base", tmp_path / "sft.yaml"
    base.mkdir()
    (base / "weights").write_text("1")
    (tmp_path / "out").mkdir()
    recipe.write_text(f"model_name_or_path: {base}\noutput_dir: {tmp_path / 'out'}\nkind: data\nk: 8\n")

    def one() -> Pipeline:
        settings = {"config": str(recipe), "k": 4}
        return Pipeline([Stage(name="a", run=fake_stages.copy, settings=settings)], tmp_path / "run", isolate=False)

    one().run()
    written = Manifest.read(tmp_path / "run/a")
    assert list(written.inputs) == ["settings.config", "settings.config:model_name_or_path"]
    assert written.config == {
        "model_name_or_path": str(base), "output_dir": str(tmp_path / "out"), "kind": "data", "k": 4,
    }  # fmt: skip
    (tmp_path / "out/x").write_text("x")
    assert actions(one()) == ["done"]
    (base / "weights").write_text("22")
    assert "settings.config:model_name_or_path changed" in one().plan()[0].why
    recipe.write_text(recipe.read_text() + "learning_rate: 1e-4\n")
    assert "settings.config changed" in one().plan()[0].why


def test_a_path_that_is_a_key_is_an_input(tmp_path):
    """As in `decontaminate_against: {path: split}`."""
    held_out = tmp_path / "aime.jsonl"
    held_out.write_text("1")

    def one() -> Pipeline:
        settings = {"decontaminate_against": {str(held_out): "train"}}
        return Pipeline([Stage(name="a", run=fake_stages.copy, settings=settings)], tmp_path / "run", isolate=False)

    one().run()
    assert actions(one()) == ["done"]
    held_out.write_text("22")
    assert f"settings.decontaminate_against.{held_out} changed" in one().plan()[0].why


def test_a_path_that_another_setting_stands_over_is_no_input(tmp_path):
    """The last of several recipes wins, and an entry's own setting over all of them."""
    for name in ("first", "second", "own", "kept"):
        (tmp_path / name).mkdir()
    recipes = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    recipes[0].write_text(f"base: {tmp_path / 'first'}\ndata: {tmp_path / 'first'}\nkept: {tmp_path / 'kept'}\n")
    recipes[1].write_text(f"base: {tmp_path / 'second'}\n")
    settings = {"config": [str(path) for path in recipes], "data": str(tmp_path / "own")}
    assert {key: Path(path).name for key, path in stage_module.paths_in(settings).items()} == {
        "config.0": "a.yaml", "config.1": "b.yaml", "data": "own", "config:base": "second", "config:kept": "kept",
    }  # fmt: skip
    assert "config:base" not in stage_module.paths_in(settings, ["base", "data"])
    assert "data" not in stage_module.paths_in(settings, ["base", "data"])


def test_a_long_text_is_no_path(tmp_path):
    settings = {"template": "</think>\n" * 2000, "odd": "a/\0", "list": [{"deep": "/"}]}
    assert stage_module.paths_in(settings) == {"list.0.deep": "/"}


def test_a_file_lost_from_an_output_is_an_output_lost(tmp_path, calls):
    chain(tmp_path / "run").run()
    calls()
    (tmp_path / "run/second/model/weights.txt").unlink()
    assert chain(tmp_path / "run").plan()[1].why == "its output model/weights.txt is gone"
    chain(tmp_path / "run").run()
    assert calls() == ["second"]


def test_a_lost_output_is_made_again(tmp_path, calls):
    chain(tmp_path / "run").run()
    calls()
    (tmp_path / "run/second/model/weights.txt").unlink()
    (tmp_path / "run/second/model").rmdir()
    assert [(step.action, step.why) for step in chain(tmp_path / "run").plan()[1:]] == [
        ("run", "its output model is gone"), ("waits for second", "runs again if they change"),
    ]  # fmt: skip
    chain(tmp_path / "run").run()
    assert calls() == ["second"]  # it came out the same, so the third is still right


def test_an_output_that_was_edited_is_taken_as_it_is(tmp_path, calls, capsys):
    chain(tmp_path / "run").run()
    calls()
    (tmp_path / "run/second/model/weights.txt").write_text("edited")
    chain(tmp_path / "run").run()
    assert calls() == ["third"]
    assert weights(tmp_path / "run", "third") == "edited+c"
    assert "warning: second/model is not what the stage wrote" in capsys.readouterr().out


def test_a_file_that_changes_while_its_stage_runs_is_said(tmp_path, capsys, monkeypatch):
    def changes(context):
        (tmp_path / "notes.txt").write_text("meanwhile")
        return fake_stages.constant(context)

    pipeline = Pipeline(
        [Stage(name="a", run=changes, files={"notes": tmp_path / "notes.txt"})], tmp_path / "run", isolate=False
    )
    (tmp_path / "notes.txt").write_text("before")
    pipeline.run()
    assert (
        "warning: changed while a ran, so the next call runs it again: input notes changed" in capsys.readouterr().out
    )
    assert actions(pipeline) == ["run"]


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_from_runs_a_stage_and_what_needs_it_anew(tmp_path, calls):
    side = Stage(name="side", run=fake_stages.copy, inputs=["first"])
    pipeline = chain(tmp_path / "run")
    pipeline = Pipeline([*pipeline.stages, side], tmp_path / "run", isolate=False)
    pipeline.run()
    calls()
    assert actions(pipeline, start="second") == ["not asked for", "run", "waits for second", "not asked for"]
    pipeline.run(start="second")
    assert calls() == ["second", "third"]
    assert {"second-superseded-1", "third-superseded-1"} < set(folders(tmp_path / "run"))
    assert "side-superseded-1" not in folders(tmp_path / "run")


def test_from_is_not_forgotten_by_a_failure(tmp_path, calls, monkeypatch):
    """Were only the failed stage set aside, the call that mends it would leave the old third one standing."""
    monkeypatch.setenv("FAKE_MENDED", "1")
    chain(tmp_path / "run", run=fake_stages.fails).run()
    monkeypatch.delenv("FAKE_MENDED")
    with pytest.raises(StageError):
        chain(tmp_path / "run", run=fake_stages.fails).run(start="second")
    calls()
    monkeypatch.setenv("FAKE_MENDED", "1")
    chain(tmp_path / "run", run=fake_stages.fails).run()
    assert calls() == ["second", "third"]


def test_only_runs_no_other_stage(tmp_path, calls, capsys):
    pipeline = chain(tmp_path / "run", command="python -m recipes.pipeline --config r1.yaml")
    with pytest.raises(PipelineError, match=r"'second' needs 'first', which has not run in .*run; run it first: python "
                       r"-m recipes\.pipeline --config r1\.yaml --only first"):  # fmt: skip
        pipeline.run(only=["second"])
    assert not (tmp_path / "run").exists()
    pipeline.run(only=["first"])
    pipeline.run(only=["second"])
    pipeline.run(only=["second"])
    assert calls() == ["first", "second"]
    changed = chain(tmp_path / "run", texts="Xbc")
    capsys.readouterr()
    changed.run(only=["third"])
    assert calls() == ["third"]
    assert "warning: first is taken as it is" not in capsys.readouterr().out  # the third does not read it
    changed.run(only=["second"])
    assert calls() == []
    assert "warning: first is taken as it is, and a whole run would run it again: setting text: a -> X" in (
        capsys.readouterr().out
    )
    changed.run(start="second", only=["second"])
    assert calls() == ["second"]


def test_from_needs_what_comes_before(tmp_path):
    with pytest.raises(PipelineError, match="'second' needs 'first', which has not run"):
        chain(tmp_path).run(start="second")
    with pytest.raises(PipelineError, match="there is no stage 'thrid'; did you mean 'third'"):
        chain(tmp_path).run(only=["thrid"])
    with pytest.raises(PipelineError, match="leave no stage to run"):
        chain(tmp_path).run(start="third", only=["first"])


def test_a_dry_run_writes_nothing(tmp_path, calls):
    pipeline = chain(tmp_path / "run")
    table = pipeline.plan_table().splitlines()
    assert [" ".join(line.split()) for line in table] == [
        "stage inputs what why", "first – run has not run", "second first waits for first has not finished yet",
        "third second waits for second has not finished yet",
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()
    pipeline.run()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    chain(tmp_path / "run", texts="Xbc").plan_table()
    chain(tmp_path / "run").plan_table(start="first")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    assert calls() == ["first", "second", "third"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolate", [False, True])
def test_a_stage_that_fails_costs_nothing_that_was_done(tmp_path, calls, monkeypatch, isolate):
    def pipeline():
        stages = chain(tmp_path / "run", run=fake_stages.fails).stages
        return Pipeline(stages, tmp_path / "run", isolate=isolate)

    with pytest.raises(
        StageError, match=r"stage 'second' failed: ValueError: the reward model scores NaN\n.*tries this"
    ):
        pipeline().run()
    assert calls() == ["first", "second"]
    failed = Manifest.read(tmp_path / "run/second")
    assert (failed.status, failed.error) == ("failed", "ValueError: the reward model scores NaN")
    assert 'raise ValueError("the reward model scores NaN")' in failed.traceback
    assert [line["status"] for line in json.loads((tmp_path / "run/pipeline.json").read_text())["stages"]] == [
        "finished", "failed", "waiting",
    ]  # fmt: skip
    (step,) = [step for step in pipeline().plan() if step.stage.name == "second"]
    assert (step.action, step.why) == ("resume", "was failed (ValueError: the reward model scores NaN)")
    monkeypatch.setenv("FAKE_MENDED", "1")
    pipeline().run()
    assert calls() == ["second", "third"]
    assert weights(tmp_path / "run", "second") == "mended"
    mended = Manifest.read(tmp_path / "run/second")
    assert (mended.status, mended.error, mended.traceback) == ("finished", None, None)
    assert [attempt["status"] for attempt in mended.attempts] == ["failed", "finished"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (fake_stages.keeps_nothing, "of 7 rows none was kept: wrong dropped 1, mixed dropped 6; the first that mixed "
                                    "dropped: 안녕 hello; loosen that filter"),
        (fake_stages.writes_nothing, "it wrote neither of model and dataset into"),
        (fake_stages.forgets_to_return, "a stage returns a StageResult, this one returned NoneType"),
        (fake_stages.disk_is_full, "the disk is full; free some space and run the same command again. OSError"),
    ],
)  # fmt: skip
def test_a_stage_that_did_not_do_its_work_is_said(tmp_path, run, message):
    with pytest.raises(StageError, match=message):
        Pipeline([Stage(name="a", run=run)], tmp_path, isolate=False).run()
    assert Manifest.read(tmp_path / "a").status == "failed"
    assert message[:30] in Manifest.read(tmp_path / "a").error


def test_a_promised_output_that_is_missing_is_a_failure(tmp_path):
    with pytest.raises(StageError, match="did not write its output 'dataset'"):
        Pipeline([Stage(name="a", run=fake_stages.copy, outputs=("model", "dataset"))], tmp_path, isolate=False).run()


def test_exit_statuses_of_a_stage_are_understood(tmp_path):
    def wrong(context):
        raise SystemExit(2)

    def stopped(context):
        raise SystemExit(130)

    with pytest.raises(StageError, match="it ended with exit status 2; what it printed says why"):
        Pipeline([Stage(name="a", run=wrong)], tmp_path, isolate=False).run()
    with pytest.raises(Stopped):
        Pipeline([Stage(name="b", run=stopped)], tmp_path, isolate=False).run()


@pytest.mark.parametrize(
    ("how", "message"), [("kill", "SIGKILL; the kernel does that when memory runs"), ("segv", "SIGSEGV")]
)
def test_a_stage_that_crashes_leaves_the_pipeline_standing(tmp_path, how, message):
    pipeline = Pipeline([Stage(name="a", run=fake_stages.dies, settings={"how": how})], tmp_path)
    with pytest.raises(StageError, match=f"stage 'a' failed: its process was killed by {message}"):
        pipeline.run()
    assert actions(pipeline) == ["resume"]


def test_a_full_disk_is_a_clear_message_and_loses_nothing(tmp_path, calls, monkeypatch):
    """The manifest of the stage's end cannot be written; what it made is there, and the next call only completes it."""
    pipeline = chain(tmp_path / "run")
    write = Manifest.write

    def full(self, folder):
        if self.stage == "second" and self.status == "finished":
            raise OSError(28, "the disk is full, so manifest.json was not written")
        write(self, folder)

    monkeypatch.setattr(Manifest, "write", full)
    with pytest.raises(StageError, match="stage 'second' finished, but: the disk is full"):
        pipeline.run()
    assert calls() == ["first", "second"]
    assert Manifest.read(tmp_path / "run/second").status == "running"
    monkeypatch.undo()
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls.log"))
    chain(tmp_path / "run").run()
    assert calls() == ["third"]
    assert weights(tmp_path / "run", "third") == "a+b+c"


@pytest.mark.parametrize("text", ["", '{"stage": "second", "status": "fini'])
def test_half_a_manifest_starts_its_stage_anew(tmp_path, calls, capsys, text):
    chain(tmp_path / "run").run()
    calls()
    (tmp_path / "run/second/manifest.json").write_text(text)
    chain(tmp_path / "run").run()
    assert calls() == ["second"]
    assert "manifest.json is no whole manifest" in capsys.readouterr().out
    assert weights(tmp_path / "run", "second-superseded-1") == "a+b"


@pytest.mark.parametrize(
    "changed", [{"outputs": None}, {"outputs": {"model": 3}}, {"attempts": None}, {"seconds": "x"}, {"error": 5}]
)
def test_an_edited_manifest_starts_its_stage_anew(tmp_path, calls, capsys, changed):
    chain(tmp_path / "run").run()
    calls()
    path = tmp_path / "run/second/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    chain(tmp_path / "run").run()
    assert calls() == ["second"]
    assert re.search(r"manifest\.json: \w+ expects .*; it starts anew", capsys.readouterr().out)


RETURNED = '{"status": "returned", "result": '


@pytest.mark.parametrize("text", ["[]", RETURNED + '{"foo": 1}}', RETURNED + "[1]}"])
def test_an_edited_outcome_of_a_killed_stage_is_passed_over(tmp_path, calls, text):
    chain(tmp_path / "run").run()
    calls()
    path = tmp_path / "run/second/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    (tmp_path / "run/second/outcome.json").write_text(text)
    chain(tmp_path / "run").run()
    assert "second" in calls()[0]
    assert actions(chain(tmp_path / "run")) == ["done"] * 3


def test_a_part_of_a_first_manifest_is_nobody_s_work(tmp_path, calls):
    (tmp_path / "run/first").mkdir(parents=True)
    (tmp_path / "run/first/.manifest.json.123.partial").write_text('{"stage": "fir')
    chain(tmp_path / "run").run()
    assert folders(tmp_path / "run") == ["first", "second", "third"]
    assert calls() == ["first", "second", "third"]


def test_files_of_nobody_are_kept(tmp_path, calls):
    (tmp_path / "run/first").mkdir(parents=True)
    (tmp_path / "run/first/thesis.txt").write_text("mine")
    chain(tmp_path / "run").run()
    assert (tmp_path / "run/first-superseded-1/thesis.txt").read_text() == "mine"


def test_a_changed_input_starts_a_half_done_stage_anew(tmp_path, calls, capsys, monkeypatch):
    stages = [Stage(name="a", run=fake_stages.fails, files={"notes": tmp_path / "notes"})]
    (tmp_path / "notes").write_text("one")
    pipeline = Pipeline(stages, tmp_path / "run", isolate=False)
    with pytest.raises(StageError):
        pipeline.run()
    (tmp_path / "notes").write_text("two!")
    monkeypatch.setenv("FAKE_MENDED", "1")
    capsys.readouterr()
    pipeline.run()
    assert weights(tmp_path / "run", "a") == "from nothing"
    assert (tmp_path / "run/a-superseded-1/half").exists()
    said = capsys.readouterr().out
    assert "a: run (was failed (ValueError: the reward model scores NaN) and starts anew; input notes changed" in said


def test_two_pipelines_in_one_folder_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.isolation.GRACE_SECONDS", 0.2)
    tmp_path.joinpath("run").mkdir()
    with (
        locked(tmp_path / "run"),
        pytest.raises(PipelineError, match=rf"another pipeline .* \(process {os.getpid()}\)"),
    ):
        chain(tmp_path / "run").run()
    chain(tmp_path / "run").run()


def test_settings_are_checked_before_anything_runs(tmp_path, calls):
    stages = [stage("a"), Stage(name="b", run=fake_stages.even, inputs=["a"], settings={"k": 3})]
    with pytest.raises(PipelineError, match="stage 'b': k must be even, got 3"):
        Pipeline(stages, tmp_path, isolate=False).run()
    missing = [stage("a"), Stage(name="b", run=fake_stages.copy, settings={"config": "nowhere/x.yaml"})]
    with pytest.raises(PipelineError, match=r"stage 'b': cannot read the recipe nowhere/x\.yaml"):
        Pipeline(missing, tmp_path, isolate=False).run()
    assert calls() == []


def test_a_function_that_no_other_process_can_import_is_said(tmp_path):
    with pytest.raises(PipelineError, match=r"'a': test_pipeline:.*<lambda> cannot be imported .* isolate=False"):
        Pipeline([Stage(name="a", run=lambda context: StageResult())], tmp_path).run()


# --- a stage's recipe -------------------------------------------------------------------------------------------------


def test_a_stage_s_settings_become_dataclasses(tmp_path):
    from recipes.measure import MeasureConfig

    recipe = tmp_path / "measure.yaml"
    recipe.write_text("model_name_or_path: data/base\nk: 4\ntemperature: 6e-1\n")
    context = StageContext("m", "", tmp_path, {"config": str(recipe), "k": 8}, {}, {}, 3, False)
    (config,) = context.parse(MeasureConfig, model_name_or_path="runs/x/model")
    assert (config.model_name_or_path, config.k, config.temperature) == ("runs/x/model", 8, 0.6)
    checks(MeasureConfig)(context.settings)
    with pytest.raises(RecipeError, match=r"unknown setting 'kk' in .*; did you mean k\?"):
        checks(MeasureConfig)(context.settings | {"kk": 8})
    with pytest.raises(RecipeError, match="k expects int, got 'x'"):
        context.parse(MeasureConfig, k="x")


def test_a_stage_s_seed_reaches_its_dataclasses(tmp_path):
    from recipes.pretrain import PretrainConfig

    context = StageContext("base", "", tmp_path, {}, {}, {}, 3, False)
    assert context.parse(PretrainConfig, output_dir="x")[0].seed == 3


# --- the file and the command line ------------------------------------------------------------------------------------


def written(tmp_path: Path, *stages: dict, **top) -> Path:
    path = tmp_path / "r1.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "stages": list(stages), **top}))
    return path


def entry(name: str, recipe: str = "copy", **rest) -> dict:
    return {"name": name, "recipe": f"fake_stages:{recipe}", **rest}


def test_the_graph_is_data(tmp_path, calls, capsys):
    path = written(
        tmp_path, entry("b", inputs=["a"], settings={"text": "B"}),
        entry("a", title="the first", settings={"text": "A"}), seed=4, isolate=False, title="R1",
    )  # fmt: skip
    main(["--config", str(path)])
    assert calls() == ["a", "b"]
    assert weights(tmp_path / "run", "b") == "A+B"
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(tmp_path / "run/pipeline.json")
    told = json.loads((tmp_path / "run/pipeline.json").read_text())
    assert (told["title"], told["seed"], told["stages"][0]["title"]) == ("R1", 4, "the first")
    main(["--config", str(path), "b.text=C", "--dry-run"])
    assert "setting text: B -> C" in capsys.readouterr().out
    main(["--config", str(path), "--output_dir", str(tmp_path / "other"), "--only", "a", "a.text=Z"])
    assert calls() == ["a"]
    assert weights(tmp_path / "other", "a") == "Z"


def test_a_file_that_extends_another_goes_on_in_its_folder(tmp_path, calls):
    """As recipes/micro/distillation.yaml goes on where r1.yaml ended: what is done is not done again."""
    first = written(tmp_path, entry("a", settings={"text": "A"}), isolate=False)
    more = tmp_path / "more.yaml"
    longer = {"extends": first.name, "more_stages": [entry("b", inputs=["a"], settings={"text": "B"})]}
    more.write_text(yaml.safe_dump(longer))
    main(["--config", str(first)])
    assert calls() == ["a"]
    main(["--config", str(more)])
    assert calls() == ["b"]
    main(["--config", str(first)])
    assert calls() == []
    assert weights(tmp_path / "run", "b") == "A+B"


@pytest.mark.parametrize(
    ("stages", "top", "message"),
    [
        ([entry("a", recipe="copi")], {}, r"entry 1 of stages \(a\): recipe 'fake_stages:copi': .* did you mean copy"),
        ([{"name": "a", "recipe": "recipes.nowhere:stage"}], {}, "there is no module 'recipes.nowhere'"),
        ([{"name": "a", "recipe": "copy"}], {}, "a recipe is written package.module:function, got 'copy'"),
        ([{"name": "a"}], {}, r"entry 1 of stages \(a\) needs a recipe, got None"),
        ([{"recipe": "fake_stages:copy"}], {}, r"\(without a name\) needs a name"),
        (["a"], {}, "must be a mapping with name and recipe, got 'a'"),
        ([entry("a"), entry("a")], {}, "two stages are called 'a'"),
        ([entry("a", inputs=["b"])], {}, "'a' has the input 'b', which is no stage"),
        ([entry("a", inputs=[3])], {}, r"inputs holds names or paths, which are text, got \[3\]"),
        ([entry("a", inputs={"model": ["a"]})], {}, "inputs holds names or paths, which are text, got"),
        ([entry("a", files={"x": None})], {}, "files holds names or paths, which are text, got"),
        ([entry("a", outputs=[3])], {}, "outputs holds names or paths, which are text, got"),
        ([entry("a", outputs=["../b"])], {}, r"an output lies in the stage's own folder, got '\.\./b'"),
        ([entry("a") | {"recipe": ".:copy"}], {}, "a recipe is written package.module:function, got '.:copy'"),
        ([entry("a")], {"output_dir": ""}, "needs an output_dir"),
        ([entry("a", inputs="b")], {}, r"inputs expects a list of stages or a mapping role: stage, got 'b'"),
        ([entry("a", settigns={})], {}, "unknown key 'settigns' in .*, entry 1 of stages; did you mean 'settings'"),
        ([entry("a", settings=[1])], {}, r"settings expects dict, got \[1\]"),
        ([entry("a")], {"sede": 1}, "unknown key 'sede' in .*; did you mean 'seed'"),
        ([entry("a")], {"seed": "x"}, "seed expects int, got 'x'"),
        ([entry("a")], {"isolate": 1}, "isolate expects bool, got 1"),
        ([], {}, "needs `stages:`"),
        ([entry("a")], {"more_stages": entry("b")}, "more_stages expects a list of stages, as `stages:` is, got {"),
        ([entry("a")], {"more_stages": [entry("a")]}, "two stages are called 'a'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_said(tmp_path, stages, top, message):
    with pytest.raises(PipelineError, match=message):
        load_pipeline(written(tmp_path, *stages, **top))


def test_a_recipe_that_lacks_a_package_names_the_package(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PipelineError, match="needs the package 'surely_not_installed', which is not installed"):
        load_pipeline(written(tmp_path, {"name": "a", "recipe": "needs_something:stage"}))


def test_the_command_line_sets_what_the_file_said(tmp_path):
    call = parse_call(
        ["--config", "x.yaml", "--only", "a", "b", "a.lr=1e-4", "--b.langs", "[en, ko]", "--b.deep.k=3", "--seed", "2",
         "--isolate", "false", "a.on=true", "--from", "a"]
    )  # fmt: skip
    assert (call.config, call.only, call.start, call.dry_run) == ("x.yaml", ["a", "b"], "a", False)
    assert call.top == {"seed": 2, "isolate": False}
    assert call.stages == {"a": {"lr": 1e-4, "on": True}, "b": {"langs": ["en", "ko"], "deep.k": 3}}
    path = written(tmp_path, entry("a", settings={"lr": 1}), entry("b", settings={"deep": {"j": 1}}))
    pipeline = load_pipeline(path, call.top, call.stages)
    assert pipeline.by_name["b"].settings == {"deep": {"j": 1, "k": 3}, "langs": ["en", "ko"]}
    assert (pipeline.seed, pipeline.isolate) == (2, False)
    again = parse_call(shlex.split(pipeline.command)[3:])  # what an error advises does the same
    assert (again.config, again.top, again.stages["a"]) == (str(path), call.top, call.stages["a"])


def test_a_file_extends_another_and_sets_its_stages_settings(tmp_path):
    path = written(tmp_path, entry("a", settings={"lr": 1, "deep": {"j": 1}}), entry("b"))
    own = tmp_path / "own/pipeline.yaml"
    own.parent.mkdir()
    own.write_text(f"extends: ../{path.name}\nseed: 3\na.lr: 2\na.deep.k: [1]\nb.x: true\n", encoding="utf-8")
    pipeline = load_pipeline(own, None, {"b": {"x": False}})  # the command line has the last word
    assert pipeline.by_name["a"].settings == {"lr": 2, "deep": {"j": 1, "k": [1]}}
    assert pipeline.by_name["b"].settings == {"x": False}
    assert pipeline.seed == 3
    own.write_text(f"extends: ../{path.name}\nc.lr: 2\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="there is no stage 'c' to set lr of"):
        load_pipeline(own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--form", "a"], "'--form' is no flag and no setting of a stage.*did you mean 'from'"),
        (["a.k"], "'a.k' is no flag and no setting of a stage, which is written stage.key=value"),
        (["--a.k"], "--a.k needs a value behind it"),
        (["--a.k", "{"], "is not a value that YAML can read"),
        (["--only"], "expected at least one argument"),
        (["b.k=1"], "there is no stage 'b' to set k of"),
        (["a.text.k=1"], "a.text.k: text holds no settings of its own, it is 'x'"),
        (["--from", "b"], "there is no stage 'b'"),
        (["--config", "other.yaml"], "a pipeline is one file, got .*, other.yaml; one may say extends"),
        (["--seed", "-1"], r"seed must be a whole number from 0 to 2\*\*32 - 1, got -1"),
        (["a.seed=99999999999"], r"stage 'a': seed must be a whole number from 0 to 2\*\*32 - 1, got 99999999999"),
        (["--output_dir", __file__], "output_dir .* cannot be made: File exists"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_said(tmp_path, arguments, message):
    path = written(tmp_path, entry("a", settings={"text": "x"}), isolate=False)
    with pytest.raises(ValueError, match=message):
        main(["--config", str(path), *arguments])
    assert not (tmp_path / "run").exists()


# --- in a process of its own, and killed ------------------------------------------------------------------------------


def environment(**changed: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "MASTER_", "WORLD_"))}
    return kept | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/recipes'}", "CUDA_VISIBLE_DEVICES": ""} | changed


def drive(folder: Path, isolate: str, **changed: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tests/recipes/fake_stages.py"), str(folder), isolate]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**changed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


MOMENTS = [
    "before _begin counted",  # between two stages: the folder is there, and no manifest
    "after _begin counted",  # its manifest says running, and nothing has been done
    "0 begins",
    "1 worked",  # done and not yet saved: the only thing that may be done again
    "2 saved",
    "wrote",  # all is done, and its function has not returned
    "before _outputs counted",  # it has returned, and its manifest does not say so yet
    "before _context last",
]
IN_ONE_PROCESS = [
    pytest.param(moment, "same", marks=() if moment in MOMENTS[3::3] else pytest.mark.slow) for moment in MOMENTS
]


@pytest.mark.parametrize(("moment", "isolate"), [*((moment, "isolate") for moment in MOMENTS), *IN_ONE_PROCESS])
def test_a_kill_at_any_moment_costs_nothing_that_was_done(tmp_path, calls, moment, isolate):
    blocked = tmp_path / "blocked"
    process = drive(tmp_path / "run", isolate, FAKE_BLOCK=moment)
    try:
        wait_for(blocked, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    second = drive(tmp_path / "run", isolate)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    done = calls()
    twice = ["unit 1"] if moment == "1 worked" else []
    assert [line for line in done if line.startswith("unit")] == sorted(twice + [f"unit {n}" for n in range(UNITS)])
    assert done.count("first") == 1
    assert done.count("first resumed") == 0
    assert done.count("counted called") == (2 if moment[0].isdigit() or moment == "wrote" else 1)
    assert [line for line in done if line.startswith("last")] == ["last resumed" if "last" in moment else "last"]
    assert weights(tmp_path / "run", "last") == "[7, 8, 9, 10]+z"
    assert folders(tmp_path / "run") == ["counted", "first", "last"]
    manifest = Manifest.read(tmp_path / "run/counted")
    assert (manifest.status, manifest.metrics) == ("finished", {"units": UNITS})
    assert not (tmp_path / "run/counted/outcome.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("isolate", ["isolate", "same"])
def test_kills_at_random_moments_end_in_the_same_place(tmp_path, calls, isolate):
    """Each call lives a little longer than the one before, until one gets through."""
    draw, kills = random.Random(0), 0
    while True:
        process = drive(tmp_path / "run", isolate, FAKE_PAUSE="0.2")
        try:
            output, _ = process.communicate(timeout=0.15 + 0.05 * kills + 0.2 * draw.random())
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert process.returncode == 0, output
    assert kills >= 2
    done = calls()
    assert len([line for line in done if line.startswith("unit")]) <= UNITS + kills
    assert weights(tmp_path / "run", "last") == "[7, 8, 9, 10]+z"
    assert folders(tmp_path / "run") == ["counted", "first", "last"]
    assert {Manifest.read(tmp_path / "run" / name).status for name in folders(tmp_path / "run")} == {"finished"}


def test_a_stage_ends_with_its_pipeline(tmp_path):
    process = drive(tmp_path / "run", "isolate", FAKE_BLOCK="1 begins")
    wait_for(tmp_path / "blocked", process)
    child = int((tmp_path / "blocked").read_text())
    assert child != process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] not in "ZX"
    if Path("/proc/self").exists():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def launch(tmp_path: Path, path: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "recipes.pipeline", "--config", str(path), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_ctrl_c_ends_a_stage_with_its_checkpoint(tmp_path):
    path = written(tmp_path, entry("a", "stops_when_asked"), entry("b", inputs=["a"], settings={"text": "b"}))
    process = launch(tmp_path, path)
    wait_for(tmp_path / "blocked", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped in stage 'a'; the same command (without --from) goes on from there" in output
    assert Manifest.read(tmp_path / "run/a").status == "interrupted"
    assert not (tmp_path / "run/b").exists()
    pipeline = load_pipeline(path)
    step = pipeline.plan()[0]
    assert (step.action, step.why) == ("resume", "was interrupted")
    pipeline.run()
    assert weights(tmp_path / "run", "b") == "step 3+b"
    assert [attempt["status"] for attempt in Manifest.read(tmp_path / "run/a").attempts] == ["interrupted", "finished"]


@pytest.mark.parametrize(
    ("name", "isolate", "number"),
    [
        ("stops_when_asked", "isolate", signal.SIGTERM),
        ("sleeps", "isolate", signal.SIGINT),
        ("sleeps", "isolate", signal.SIGTERM),
        ("sleeps", "same", signal.SIGINT),
    ],
)
def test_a_signal_interrupts_every_stage(tmp_path, name, isolate, number):
    """Whether it saves a checkpoint, lets Ctrl-C pass, or is ended by the signal."""
    process = drive(tmp_path / "run", isolate, FAKE_STAGE=name)
    wait_for(tmp_path / "blocked", process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert Manifest.read(tmp_path / "run/alone").status == "interrupted"
    assert "Traceback" not in output


def test_a_stage_that_finishes_all_the_same_is_finished(tmp_path):
    """And the pipeline stops behind it, as it was asked to."""
    process = drive(tmp_path / "run", "isolate", FAKE_STAGE="finishes_anyway")
    wait_for(tmp_path / "blocked", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert Manifest.read(tmp_path / "run/alone").status == "finished"
    assert folders(tmp_path / "run") == ["alone"]


# --- stages side by side ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not give a process its cores")
def test_stages_run_side_by_side_each_on_its_share_of_the_cores(tmp_path, calls, capfd):
    names = ["a", "b", "c", "d"]
    stages = [
        Stage(name=name, run=fake_stages.meets, settings={"others": pair}, inputs=inputs)
        for name, pair, inputs in zip(names, ("ab", "ab", "cd", "cd"), ([], [], ["a"], []))
    ]
    Pipeline(stages, tmp_path / "run", jobs=2).run()
    found = {name: Manifest.read(tmp_path / "run" / name).metrics for name in names}
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // 2)
    assert {metrics["cores"] for metrics in found.values()} == {share}
    starts = {cores[0], cores[share % len(cores)]}
    assert {found["a"]["first core"], found["b"]["first core"]} == starts
    assert {found["c"]["first core"], found["d"]["first core"]} == starts
    assert "a: hello from a\n" in capfd.readouterr().out
    assert json.loads((tmp_path / "run/pipeline.json").read_text())["jobs"] == 2
    assert {Manifest.read(tmp_path / "run" / name).machine["cores"] for name in names} == {share}


def test_a_failure_lets_the_stage_beside_it_finish_and_begins_no_other(tmp_path, calls, capsys):
    stages = [
        Stage(name="bad", run=fake_stages.fails),
        Stage(name="good", run=fake_stages.outlives, settings={"other": "bad"}),
        Stage(name="later", run=fake_stages.copy),
    ]
    with pytest.raises(StageError, match="stage 'bad' failed"):
        Pipeline(stages, tmp_path / "run", jobs=2).run()
    assert Manifest.read(tmp_path / "run/good").status == "finished"
    assert folders(tmp_path / "run") == ["bad", "good"]
    assert "good still runs, and is waited for" in capsys.readouterr().out


def test_a_signal_reaches_all_stages_side_by_side(tmp_path):
    stages = [entry(name, "stops_when_asked") for name in "ab"] + [entry("c")]
    process = launch(tmp_path, written(tmp_path, *stages, jobs=2))
    for name in "ab":
        while Manifest.read(tmp_path / "run" / name) is None:
            time.sleep(0.02)
    wait_for(tmp_path / "blocked", process)
    time.sleep(1)  # until the other one listens; a signal before ends it all the same
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert {name: Manifest.read(tmp_path / "run" / name).status for name in "ab"} == dict.fromkeys("ab", "interrupted")
    assert not (tmp_path / "run/c").exists()


def test_a_kill_of_two_stages_loses_neither(tmp_path, calls):
    path = written(
        tmp_path, entry("a", "meets", settings={"others": ["a", "never"]}),
        entry("b", "meets", settings={"others": ["b", "never"]}), jobs=2,
    )  # fmt: skip
    process = launch(tmp_path, path)
    seen = []
    while len(seen) < 2:
        assert process.poll() is None
        seen += calls()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    pipeline = load_pipeline(path)
    with locked(tmp_path / "run"):  # once the two are gone
        assert [step.action for step in pipeline.plan()] == ["resume", "resume"]


def test_an_error_of_the_engine_s_own_costs_the_stage_beside_it_nothing(tmp_path, calls, monkeypatch):
    stages = [
        Stage(name="a", run=fake_stages.meets, settings={"others": ["a"]}), Stage(name="b", run=fake_stages.copy),
    ]  # fmt: skip
    begin = Pipeline._begin

    def full(self, stage, *rest, **named):
        if stage.name == "b":
            raise OSError(28, "No space left on device")
        return begin(self, stage, *rest, **named)

    monkeypatch.setattr(Pipeline, "_begin", full)
    with pytest.raises(OSError, match="No space left"):
        Pipeline(stages, tmp_path / "run", jobs=2).run()
    assert Manifest.read(tmp_path / "run/a").status == "finished"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stage_waits_for_what_lies_behind_those_that_are_not_asked_for(tmp_path, calls, capsys, jobs):
    """third is built on second as it is, which is said, and not before first is there anew."""

    def pipeline(texts):
        return Pipeline(chain(tmp_path / "run", texts=texts).stages, tmp_path / "run", jobs=jobs)

    pipeline("abc").run()
    capsys.readouterr()
    pipeline("Xbc").run(start="first", only=["first", "third"])
    assert calls()[3:] == ["first", "third"]
    assert "warning: second is taken as it is" in capsys.readouterr().out


def test_odd_output_ends_no_stage(tmp_path, calls):
    """Letters that the terminal does not know, half a line at the end, a progress bar."""
    path = written(tmp_path, entry("a", "talks"), jobs=2)
    command = [sys.executable, "-m", "recipes.pipeline", "--config", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("a: \\uc548\\ub155") == 1
    assert "a: half a line" in lines
    assert [line for line in lines if "of 1000" in line] == ["a: 0 of 1000", "a: 999 of 1000"]


@pytest.mark.skipif(CORES < 2, reason="one core has no halves")
def test_going_on_with_other_cores_is_said(tmp_path, calls, monkeypatch, capsys):
    stages = [Stage(name="bad", run=fake_stages.fails)]
    with pytest.raises(StageError):
        Pipeline(stages, tmp_path / "run", jobs=2).run()
    monkeypatch.setenv("FAKE_MENDED", "1")
    Pipeline(stages, tmp_path / "run").run()
    assert f"bad began on {CORES // 2} cores and goes on with {CORES}" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", [0, -1])
def test_a_number_of_jobs_that_cannot_be_is_said(tmp_path, jobs):
    with pytest.raises(PipelineError, match=f"jobs, .* must be 1 or more, got {jobs}"):
        load_pipeline(written(tmp_path, entry("a"), jobs=jobs))


def test_without_processes_of_their_own_stages_run_one_after_another(tmp_path, calls):
    Pipeline([stage("a"), stage("b")], tmp_path / "run", isolate=False, jobs=2).run()
    assert calls() == ["a", "b"]


# --- several ranks ----------------------------------------------------------------------------------------------------


def torchrun(path: Path, *arguments: str) -> subprocess.CompletedProcess:
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "recipes.pipeline"]
    command = [sys.executable, "-m", *launcher, "--config", str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_two_ranks_run_a_stage_together_and_one_writes(tmp_path, calls):
    path = written(
        tmp_path, entry("a", settings={"text": "a"}), entry("b", "together", inputs=["a"]), entry("c", "together")
    )
    done = torchrun(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(line for line in calls() if "rank" in line) == sorted(
        f"{name} rank {rank} of 2" for name in "bc" for rank in (0, 1)
    )
    assert weights(tmp_path / "run", "b") == weights(tmp_path / "run", "c") == "3.0"  # 1 of rank 0 and 2 of rank 1
    assert Manifest.read(tmp_path / "run/b").processes == 2
    assert done.stdout.count("stage 2 of 3, b: run") == 1
    assert torchrun(path).returncode == 0
    assert calls() == []


@pytest.mark.slow
def test_a_rank_that_fails_ends_all_with_its_message(tmp_path):
    """Rank 0 would wait for it in a collective for half an hour."""
    path = written(tmp_path, entry("a", "together", settings={"fail": True}), entry("b", inputs=["a"]))
    began = time.monotonic()
    done = torchrun(path)
    assert done.returncode != 0
    assert "stage 'a' failed: rank 1: ValueError: no answer key on this rank" in done.stderr
    assert time.monotonic() - began < 120
    failed = Manifest.read(tmp_path / "run/a")
    assert (failed.status, failed.error) == ("failed", "rank 1: ValueError: no answer key on this rank")
    assert not (tmp_path / "run/b").exists()


def test_several_ranks_need_isolation(tmp_path, monkeypatch):
    monkeypatch.setattr(module.Ranks, "launched", classmethod(lambda cls: cls(0, 2, None)))
    with pytest.raises(PipelineError, match="several processes need isolate: true"):
        chain(tmp_path).run()


def test_a_launcher_that_says_too_little_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(PipelineError, match=r"WORLD_SIZE is 2 and RANK.* is not set; start the pipeline with torchrun"):
        chain(tmp_path).run()
