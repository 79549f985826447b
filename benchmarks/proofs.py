"""How many proofs a second Coq checks: warm processes, a new process for each accepted proof, and coqc on two files.

    python -m benchmarks.proofs                        prints a table
    python -m benchmarks.proofs --json FILE            and keeps the figures

A set has eight scripts for each statement, every second one wrong; all differ, so that no check is saved. "fresh"
repeats each accepted proof in a new process; "two files" is the usual scheme: coqc on the candidate's file, then on a
trusted one that restates the theorem and prints its assumptions. Each figure is the best of `--repeats` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rewards.proofs import CoqBackend, ProofKind, ProofTask

GROUP = 8
"""Scripts for one statement, as in GRPO."""


def logic(number: int) -> tuple[str, str, str, str]:
    statement = f"forall P Q : Prop, P /\\ Q -> Q /\\ ({number} = {number} -> P)"
    right = "intros P Q [p q]. split.\n- exact q.\n- intros _. exact p."
    return "", statement, right, right.replace("exact q", "exact p")


def induction(number: int) -> tuple[str, str, str, str]:
    right = "intros n. induction n as [| n IH].\n- reflexivity.\n- simpl. rewrite IH. reflexivity."
    return "", f"forall n : nat, n + S {number} = S (n + {number})", right, right.replace("rewrite IH", "rewrite HI")


def arithmetic(number: int) -> tuple[str, str, str, str]:
    statement = f"forall n m : nat, n + {number} < m -> 2 * n + {number} < 2 * m"
    return "From Coq Require Import Arith Lia List.", statement, "intros. lia.", "intros. ring."


def reals(number: int) -> tuple[str, str, str, str]:
    preamble = "From Coq Require Import Reals Lra. Open Scope R_scope."
    return preamble, f"forall x y : R, x < y -> x + {number} < y + {number}", "intros. lra.", "intros. ring."


SETS: dict[str, Callable[[int], tuple[str, str, str, str]]] = {
    "logic": logic,
    "induction": induction,
    "arithmetic by lia": arithmetic,
    "real numbers by lra": reals,
}
"""Each gives the preamble, statement, right and wrong script with a number."""


def tasks_of(name: str, count: int) -> list[ProofTask]:
    """Every second script is wrong; a comment makes all different."""
    tasks = []
    for index in range(count):
        preamble, statement, *scripts = SETS[name](index // GROUP)
        script = f"{scripts[index % 2]} (* {index} *)"
        tasks.append(ProofTask(statement=statement, script=script, preamble=preamble))
    return tasks


def checks_per_second(check: Callable[[Sequence[ProofTask]], list[bool]], tasks: Sequence[ProofTask]) -> float:
    """The rate of `check`, which has to find every second script right."""
    start = time.perf_counter()
    found = check(tasks)
    rate = len(tasks) / (time.perf_counter() - start)
    if found != [index % 2 == 0 for index in range(len(found))]:
        raise RuntimeError(f"wrong verdicts: {found}")
    return rate


def by_backend(backend: CoqBackend) -> Callable[[Sequence[ProofTask]], list[bool]]:
    return lambda tasks: [verdict.kind is ProofKind.PROVED for verdict in backend.check_many(tasks)]


def by_two_files(tasks: Sequence[ProofTask]) -> list[bool]:
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return list(executor.map(two_files, tasks))


def two_files(task: ProofTask) -> bool:
    theorem = f"Theorem given : {task.statement}.\nProof.\n"
    candidate = f"{task.preamble}\n{theorem}{task.script}\nQed.\n"
    check = f"Require candidate.\n{task.preamble}\n{theorem}exact candidate.given.\nQed.\nPrint Assumptions given.\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("candidate.v", candidate), ("check.v", check)):
            Path(folder, name).write_text(text)
            done = subprocess.run(["coqc", "-q", name], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return False
    return "Closed under the global context" in done.stdout or "Axioms:" in done.stdout


def time_out_overhead(backend: CoqBackend) -> float:
    """Seconds that a time-out costs beyond its limit: the process is replaced."""
    start = time.perf_counter()
    backend.check("True", "let rec loop := idtac; loop in loop.", timeout=0.5)
    backend.check("True", "exact I.")
    return time.perf_counter() - start - 0.5


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=200, help="scripts of a set")
    parser.add_argument("--slow-checks", type=int, default=12, help="scripts for the schemes that start processes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    version = subprocess.run(["coqtop", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    warm, fresh = CoqBackend(timeout=60), CoqBackend(timeout=60, fresh=True)
    print(f"{version}; {os.cpu_count()} cores, {cpu_model()}, load {os.getloadavg()[0]:.1f}")
    print(f"{'checks a second':22}{'warm':>10}{'fresh':>10}{'two files':>10}", flush=True)
    figures: dict[str, dict[str, float]] = {}
    for name in SETS:
        many, few = tasks_of(name, options.checks), tasks_of(name, options.slow_checks)
        warm.check_many(few)  # the libraries load before the clock runs
        figures[name] = {
            "warm": max(checks_per_second(by_backend(warm), many) for _ in range(options.repeats)),
            "fresh": max(checks_per_second(by_backend(fresh), few) for _ in range(options.repeats)),
            "two files": max(checks_per_second(by_two_files, few) for _ in range(options.repeats)),
        }
        print(f"{name:22}" + "".join(f"{figure:10.1f}" for figure in figures[name].values()), flush=True)
    overhead = time_out_overhead(warm)
    print(f"a time-out costs {1000 * overhead:.0f} ms beyond its limit")
    for backend in (warm, fresh):
        backend.close()
    if options.json:
        machine = {"coq": version, "cores": os.cpu_count(), "cpu": cpu_model(), "load": os.getloadavg()}
        result = {**machine, "checks_per_second": figures, "time_out_overhead_seconds": overhead}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
