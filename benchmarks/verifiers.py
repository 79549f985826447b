r"""Checkers of mathematical answers side by side: ours, math-verify alone, TRL's `accuracy_reward`.

    python -m benchmarks.verifiers                 everything, about 20 minutes on 2 cores
    python -m benchmarks.verifiers --only bank     one part: bank, hostile, throughput or step

- bank: tests/rewards/bank, cases with certain verdicts. Every checker gets an answer in the form it reads best: ours in
  its tags, the others as `$\boxed{…}$` after the reasoning, and LaTeX golds in dollars. The cases about where an answer
  stands (R1's tags, open reasoning, hedges between boxes) are counted in the first column only.
- hostile: tests/rewards/bank/hostile.py, each answer alone; a checker that does not answer is killed after KILL_SECONDS
  and started anew.
- throughput: distinct (gold, answer) pairs in whole completions, so that no cache helps; a fresh process for every
  repeat, warmed up on other pairs. Ours uses two worker processes, the others run as their documentation shows.
- step: how long 512 completions (32 problems, 16 each) keep a training step waiting, without and with four answers that
  never end, and what remains of it when the rewards are computed while something else is waited for.

The results go to benchmarks/results/verifiers.json and .txt.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import platform
import queue
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "rewards"))

from bank import BankCase, cases, derived, hostile  # noqa: E402

from rewards.texts import message_text  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k_test.jsonl"
KILL_SECONDS = 5.0
SLOW_SECONDS = 1.0
MEMORY_BYTES = 6 << 30
REPEATS = 3
THOUGHT = "<think>\n{}\n</think>\n\n"


@dataclass(frozen=True)
class Row:
    """One thing to check, as text."""

    gold: str
    completion: str
    prompt: str = ""


# The three checkers: rows to whether each was accepted.

Judge = Callable[[Sequence[Row]], list[bool]]


def load_ours() -> Judge:
    from rewards import accuracy_reward

    def judge(rows: Sequence[Row]) -> list[bool]:
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        return [reward == 1.0 for reward in accuracy_reward(prompts, completions, answer=[row.gold for row in rows])]

    return judge


def load_math_verify() -> Judge:
    from math_verify import parse, verify

    return lambda rows: [
        bool(verify(parse(in_dollars(row.gold)), parse(row.completion.rpartition("</think>")[2]))) for row in rows
    ]


def load_trl() -> Judge:
    from trl.rewards import accuracy_reward

    def judge(rows: Sequence[Row]) -> list[bool]:
        completions = [[{"role": "assistant", "content": row.completion}] for row in rows]
        return [reward == 1.0 for reward in accuracy_reward(completions, [in_dollars(row.gold) for row in rows])]

    return judge


LOADERS = {"ours": load_ours, "math-verify": load_math_verify, "TRL": load_trl}


def in_dollars(gold: str) -> str:
    """math-verify reads bare LaTeX poorly."""
    return gold if any(mark in gold for mark in ("$", r"\(", r"\[", r"\boxed", "####")) else f"${gold}$"


def row_for(name: str, case: BankCase) -> Row:
    """A case of the bank in the form that a checker reads best."""
    prompt, completion = message_text(case.prompt), message_text(case.completion)
    if name != "ours" and case.answer is not None:
        formula = any(mark in case.answer for mark in ("$", r"\(", r"\[", r"\boxed"))
        answer = case.answer if formula else rf"$\boxed{{{case.answer}}}$"
        completion = f"The final answer is {answer}."
    return Row(str(case.gold), completion, prompt)


# A checker in a process of its own


def serve(name: str) -> None:
    """Read a row a line, write its result a line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    judge = LOADERS[name]()
    judge([Row("q + 1", r"<think>.</think>\boxed{1 + q}"), Row("1", r"<think>.</think>\boxed{1}")])  # late imports
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        try:
            accepted, error = judge([Row(**json.loads(line))])[0], ""
        except Exception as exception:  # a checker that raises in training ends the run: that is what is counted
            accepted, error = False, type(exception).__name__
        reply = {"accepted": accepted, "error": error, "seconds": time.perf_counter() - start}
        print(json.dumps(reply), file=replies, flush=True)


class Server:
    """A checker in a process of its own, so that it can be killed."""

    def __init__(self, name: str):
        self.name = name
        command = [sys.executable, "-m", "benchmarks.verifiers", "--serve", name]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # the process has ended

    def ready(self) -> Server:
        if not self.lines.get(timeout=120):
            raise RuntimeError(
                f"{self.name} did not start; python -m benchmarks.verifiers --serve {self.name} says why"
            )
        return self

    def judge(self, row: Row) -> dict[str, Any]:
        """{"accepted", "error", "seconds"}; after the errors "killed" and "died" the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asdict(row)) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=KILL_SECONDS)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self.end()
            return {"accepted": False, "error": "killed", "seconds": KILL_SECONDS}
        return json.loads(line) if line else {"accepted": False, "error": "died", "seconds": 0.0}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def judge_all(name: str, rows: Sequence[Row], title: str) -> list[dict[str, Any]]:
    """The results of all rows, one after the other, with progress on stderr."""
    server, spare = Server(name).ready(), Server(name)
    results: list[dict[str, Any]] = []
    start = time.monotonic()
    for number, row in enumerate(rows, 1):
        results.append(server.judge(row))
        if results[-1]["error"] in ("killed", "died"):
            server, spare = spare.ready(), Server(name)
        if number % 50 == 0 or number == len(rows):
            print(f"{title}, {name}: {number}/{len(rows)}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    server.end()
    spare.end()
    return results


def for_each_checker(measure: Callable[[str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Two checkers at a time, each in one process."""
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        return dict(zip(LOADERS, executor.map(measure, LOADERS), strict=True))


# Accuracy


def measure_bank(name: str) -> dict[str, Any]:
    bank = [case for case in cases() if case.verdict != "unreadable_gold"]
    results = judge_all(name, [row_for(name, case) for case in bank], "bank")
    judged = [
        (case, result["accepted"] == (case.verdict == "correct")) for case, result in zip(bank, results, strict=True)
    ]
    answers = [(case, right) for case, right in judged if case.kind != "extraction"]

    def count(of: list[tuple[BankCase, bool]]) -> dict[str, int]:
        return {
            "cases": len(of),
            "right": sum(right for _, right in of),
            "wrong_answers": sum(case.verdict != "correct" for case, _ in of),
            "false_accepts": sum(case.verdict != "correct" and not right for case, right in of),
            "right_answers": sum(case.verdict == "correct" for case, _ in of),
            "false_rejects": sum(case.verdict == "correct" and not right for case, right in of),
        }

    return {
        "all": count(judged),
        "answers": count(answers),
        "right_by_kind": {
            kind: [
                sum(right for case, right in judged if case.kind == kind),
                sum(case.kind == kind for case, _ in judged),
            ]
            for kind in sorted({case.kind for case, _ in judged})
        },
        "misjudged": [str(case) for case, right in judged if not right],
    }


def measure_hostile(name: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    attacks = hostile.attacks(folder / "canary")
    rows = [Row(attack.gold, completion_for(name, attack.completion), attack.prompt) for attack in attacks]
    results = judge_all(name, rows, "hostile")
    code_ran = (folder / "canary").exists()
    shutil.rmtree(folder)
    attacks = hostile.attacks(Path("canary"))  # the same ones, without this machine's path
    accepted = [attack for attack, result in zip(attacks, results, strict=True) if result["accepted"]]
    return {
        "cases": len(attacks),
        "accepted": len(accepted),
        "accepted_though_marked": sum(attack.kind != "gold not marked" for attack in accepted),
        "over_1_s": sum(result["seconds"] > SLOW_SECONDS for result in results),
        "killed": sum(result["error"] == "killed" for result in results),
        "raised_or_died": sum(result["error"] not in ("", "killed") for result in results),
        "code_ran": code_ran,
        "slowest_seconds": max(result["seconds"] for result in results),
        "accepted_ones": [str(attack) for attack in accepted],
        "slow_ones": [
            str(attack) for attack, result in zip(attacks, results, strict=True) if result["seconds"] > SLOW_SECONDS
        ],
    }


def completion_for(name: str, completion: str) -> str:
    r"""`<answer>…</answer>` as `$\boxed{…}$` for checkers that do not know the tags, as `$…$` where that breaks."""
    before, opened, rest = completion.partition("<answer>")
    answer, closed, after = rest.rpartition("</answer>")
    if name == "ours" or not (opened and closed):
        return completion
    balanced = answer.replace(r"\{", "").count("{") == answer.replace(r"\}", "").count("}")
    return rf"{before}$\boxed{{{answer}}}${after}" if balanced else f"{before}${answer}${after}"


# Speed


def gsm8k_like(count: int, seed: int = 0) -> list[Row]:
    """Published solutions where they are at hand, else generated ones; numbers as answers, 2 of 3 right."""
    rng, rows = random.Random(seed), []
    solutions = list(published_solutions()) or [made_solution(rng) for _ in range(1_000)]
    rng.shuffle(solutions)
    for index in range(count):
        steps, number = solutions[index % len(solutions)]
        turn = index // len(solutions)  # a second turn writes other answers
        answer = (f"{number:,}", f"{number}.00", f"{number + rng.randint(1, 99)}")[(index + turn) % 3]
        gold = f"{steps}\n#### {number}"
        rows.append(Row(gold, THOUGHT.format(steps) + rf"The answer is $\boxed{{{answer}}}$."))
    return rows


def published_solutions() -> Iterator[tuple[str, int]]:
    if GSM8K.exists():
        for line in GSM8K.read_text(encoding="utf-8").splitlines():
            steps, _, number = json.loads(line)["answer"].rpartition("\n#### ")
            yield steps, int(number.replace(",", ""))


def made_solution(rng: random.Random) -> tuple[str, int]:
    total, steps = rng.randint(2, 500), []
    for _ in range(rng.randint(2, 6)):
        more = rng.randint(2, 900)
        steps.append(
            f"Adding the next {more} boxes gives {total}+{more}=<<{total}+{more}={total + more}>>{total + more} boxes."
        )
        total += more
    return "\n".join(steps), total


MATH_LIKE = {
    derived.integers: 40, derived.fractions: 16, derived.radicals: 8, derived.polynomials: 8,
    derived.multiples_of_pi: 5, derived.tuples: 5, derived.intervals: 4, derived.linear_forms: 4, derived.sets: 3,
    derived.lines: 3, derived.complex_numbers: 2, derived.matrices: 2,
}  # fmt: skip
"""Percent of each family: most answers of MATH are integers and fractions."""
REASONING = "\n\n".join(
    f"Step {n}: write $a_{{{n}}} = \\frac{{{n}}}{{{n + 1}}} a_{{{n - 1}}} + {n}$, expand, and compare both sides."
    for n in range(1, 13)
)


def math_like(count: int, seed: int = 0) -> list[Row]:
    """Random answers of the kinds that MATH has, in a completion of 1,000 characters; 6 of 10 right."""
    rng, seen = random.Random(seed), set()
    rows: list[Row] = []
    families, weights = list(MATH_LIKE), list(MATH_LIKE.values())
    while len(rows) < count:
        gold, correct, wrong = rng.choices(families, weights)[0](rng)
        answer = rng.choice(correct if rng.random() < 0.6 else wrong)
        if "$" not in answer and (gold, answer) not in seen:
            seen.add((gold, answer))
            rows.append(
                Row(f"${gold}$", THOUGHT.format(REASONING) + rf"Therefore, the answer is $\boxed{{{answer}}}$.")
            )
    return rows


BOMBS = ["9^{9^{9^9}}", r"\binom{10^9}{10^8}", r"\sum_{i=1}^{10^9} i^i", r"\int_0^1 e^{e^{e^{x}}} \, dx"]


def step_batch(bombs: bool) -> list[Row]:
    """32 problems, half of each kind, 16 completions each: a few different answers, repeated as groups repeat them."""
    rng, rows = random.Random(7), []
    for problem in range(32):
        if problem % 2:
            steps, number = made_solution(rng)
            gold, correct, wrong = (
                f"{steps}\n#### {number}",
                [f"{number}", f"{number:,}"],
                [str(number + k) for k in (-9, 1, 10, 500)],
            )
        else:
            gold, correct, wrong = rng.choices(list(MATH_LIKE), list(MATH_LIKE.values()))[0](rng)
        for _ in range(16):
            answer = rng.choice(correct if rng.random() < 0.5 else wrong)
            rows.append(Row(in_dollars(gold), THOUGHT.format(REASONING) + rf"So it is \boxed{{{answer.strip('$')}}}."))
    for index, bomb in enumerate(BOMBS if bombs else ()):
        rows[100 * index] = Row(rows[100 * index].gold, rf"<think>.</think>\boxed{{{bomb}}}")
    return rows


WORKLOADS: dict[str, Callable[[], list[Row]]] = {
    "GSM8K-like": lambda: gsm8k_like(1_000),
    "MATH-like": lambda: math_like(300),
    "step": lambda: step_batch(bombs=False),
    "step with 4 bombs": lambda: step_batch(bombs=True),
}


def time_workload(name: str, workload: str) -> float:
    """Seconds for all rows in one call, in this process, which has checked other rows before."""
    judge, rows = LOADERS[name](), WORKLOADS[workload]()
    judge([*gsm8k_like(20, seed=1), *math_like(60, seed=1)])
    start = time.perf_counter()
    judge(rows)
    return time.perf_counter() - start


def time_overlap() -> dict[str, float]:
    """The step's rewards on a thread, while this one waits, as for a GPU, for as long as they take alone."""
    judge, rows = LOADERS["ours"](), step_batch(bombs=False)
    judge([*gsm8k_like(20, seed=1), *math_like(60, seed=1)])
    alone = time_workload_in_fresh_process("ours", "step")
    start = time.perf_counter()
    thread = threading.Thread(target=judge, args=(rows,))
    thread.start()
    time.sleep(alone)
    thread.join()
    return {"alone": alone, "wait": alone, "together": time.perf_counter() - start}


def time_workload_in_fresh_process(name: str, workload: str) -> float:
    command = [sys.executable, "-m", "benchmarks.verifiers", "--time", name, workload]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{name} on {workload} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def measure_speed(workloads: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of every checker and workload, the checkers in turns so that a busy machine hits all alike."""
    seconds: dict[str, dict[str, list[float]]] = {workload: {name: [] for name in LOADERS} for workload in workloads}
    for workload in workloads:
        for repeat in range(repeats):
            for name in LOADERS:
                seconds[workload][name].append(time_workload_in_fresh_process(name, workload))
                print(
                    f"{workload}, {name}, repeat {repeat + 1}/{repeats}: {seconds[workload][name][-1]:.2f} s",
                    file=sys.stderr,
                )
    return {
        workload: {
            "checks": len(WORKLOADS[workload]()),
            **{name: {"seconds": times, "median": statistics.median(times)} for name, times in by_name.items()},
        }
        for workload, by_name in seconds.items()
    }


# Report


def about_machine() -> dict[str, Any]:
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    packages = ("math-verify", "latex2sympy2-extended", "sympy", "trl")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def as_text(results: dict[str, Any]) -> str:
    """The results for people."""
    parts = [", ".join(f"{key} {value}" for key, value in results["machine"].items())]
    if "bank" in results:
        rows = [
            [
                name,
                *of(found["all"], "right", "cases"),
                *of(found["answers"], "right", "cases"),
                *of(found["all"], "false_accepts", "wrong_answers"),
                *of(found["all"], "false_rejects", "right_answers"),
            ]
            for name, found in results["bank"].items()
        ]
        header = ["bank", "right", "", "right, answers only", "", "false accepts", "", "false rejects", ""]
        parts.append(table(header, rows))
    if "hostile" in results:
        columns = ["accepted", "accepted_though_marked", "over_1_s", "killed", "raised_or_died", "code_ran"]
        header = [
            "hostile",
            "cases",
            "accepted",
            "of these marked",
            "over 1 s",
            "killed at 5 s",
            "raised or died",
            "ran code",
        ]
        rows = [[name, found["cases"], *(found[c] for c in columns)] for name, found in results["hostile"].items()]
        parts.append(table(header, rows))
    if "throughput" in results:
        header = ["throughput, checks/s", *LOADERS, *(f"ours / {name}" for name in LOADERS if name != "ours")]
        parts.append(
            table(header, [speed_row(name, found, per_second=True) for name, found in results["throughput"].items()])
        )
    if "step" in results:
        header = ["512 completions, s", *LOADERS, *(f"{name} / ours" for name in LOADERS if name != "ours")]
        workloads = {workload: found for workload, found in results["step"].items() if workload != "overlap"}
        parts.append(table(header, [speed_row(name, found, per_second=False) for name, found in workloads.items()]))
        overlap = results["step"]["overlap"]
        parts.append("in the background: a wait of {wait:.2f} s, with the rewards {together:.2f} s".format(**overlap))
    return "\n\n".join(parts) + "\n"


def of(found: dict[str, int], part: str, whole: str) -> list[str]:
    return [f"{found[part]} of {found[whole]}", f"{found[part] / found[whole]:.1%}"]


def speed_row(workload: str, found: dict[str, Any], per_second: bool) -> list[str]:
    medians = {name: found[name]["median"] for name in LOADERS}
    ratios = [f"{medians[name] / medians['ours']:.1f}" for name in LOADERS if name != "ours"]
    values = [f"{found['checks'] / median:,.0f}" if per_second else f"{median:.2f}" for median in medians.values()]
    return [workload, *values, *ratios]


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        line[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        for line in lines
    )


PARTS: dict[str, Callable[[int], Any]] = {
    "bank": lambda repeats: for_each_checker(measure_bank),
    "hostile": lambda repeats: for_each_checker(measure_hostile),
    "throughput": lambda repeats: measure_speed(["GSM8K-like", "MATH-like"], repeats),
    "step": lambda repeats: {**measure_speed(["step", "step with 4 bombs"], repeats), "overlap": time_overlap()},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verifiers", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", default=list(PARTS), help="the parts to measure; the rest keeps its results"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of every timing; the median counts")
    parser.add_argument("--serve", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--time", nargs=2, metavar=("CHECKER", "WORKLOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
    elif options.time:
        print(time_workload(*options.time))
    else:
        measure(options.only, options.repeats)


def measure(parts: Sequence[str], repeats: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "verifiers.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = about_machine()
    for part in parts:
        results[part] = PARTS[part](repeats)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = as_text(results)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
