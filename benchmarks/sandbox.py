"""Checks a second of the code sandbox, by tier, beside plain `subprocess.run([python, file])` without any protection.

    python -m benchmarks.sandbox            a table, and benchmarks/results/sandbox.json and sandbox.txt
    python -m benchmarks.sandbox --checks 50 --out /tmp/somewhere

Each kind of check is one program with its hidden tests, judged by `code_verdicts` in one batch, as in training: a
script with one run, a function with four asserts (two processes: the program's and the examiner's), and a C++ program
that is compiled and run. Median of the repeats; beside it the processor time of a check, all processes together (the
server's start and, for C++, its header included), which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rewards.code import Sandbox, SandboxError, code_verdicts
from rewards.code.jail import TIERS

RESULTS = Path(__file__).parent / "results"
SCRIPT = "n = int(input())\nprint(2 * n)\n"
RUN = [{"input": "21", "output": "42"}]
FUNCTION = "def double(n):\n    return 2 * n\n"
ASSERTS = "def check(candidate):\n" + "".join(f"    assert candidate({n}) == {2 * n}\n" for n in range(4))
PLAIN = FUNCTION + ASSERTS + "check(double)\n"
CPP = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }\n"
CPP_ALL = "#include <bits/stdc++.h>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }\n"


def main() -> None:
    options = parse_options()
    cores = len(os.sched_getaffinity(0))
    rows = [plain(cores, options.checks, options.repeats)]
    for tier in TIERS:
        rows += of_tier(tier, options.checks, options.repeats)
    result = {
        "what": "checks a second",
        "cores": cores,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "user": "root" if os.getuid() == 0 else "an ordinary user",
        "load_before": os.getloadavg()[0],
        "rows": rows,
    }
    text = table(result)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sandbox.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "sandbox.txt").write_text(text + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=400, help="checks of a kind in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def plain(cores: int, checks: int, repeats: int) -> dict:
    """A new Python for each program, asserts beside it, as the simplest rewards do it: fast enough, and unsafe."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PLAIN)

        def run(_: int) -> None:
            subprocess.run([sys.executable, str(program)], check=True, timeout=60)

        def batch() -> None:
            with ThreadPoolExecutor(cores) as threads:
                list(threads.map(run, range(checks)))

        return {"tier": "none", "check": "function, subprocess.run", **rate(batch, checks, repeats)}


def of_tier(tier: str, checks: int, repeats: int) -> list[dict]:
    start = time.perf_counter()
    try:
        sandbox = Sandbox([tier])
        assert sandbox.tier == tier
    except SandboxError as error:
        return [{"tier": tier, "missing": str(error)}]
    rows: list[dict] = [{"tier": tier, "check": "start and probe", "seconds": time.perf_counter() - start}]
    kinds: list[tuple[str, str, int, dict]] = [
        ("script", SCRIPT, checks, {"tests": RUN}),
        ("function", FUNCTION, checks, {"test": ASSERTS, "entry_point": "double"}),
    ]
    if shutil.which("g++"):
        some = max(2, checks // 20)
        kinds.append(("C++, <iostream>", CPP, some, {"tests": RUN, "lang": "cpp"}))
        kinds.append(("C++, <bits/stdc++.h>", CPP_ALL, some, {"tests": RUN, "lang": "cpp"}))
    for name, program, count, row in kinds:
        columns = {key: [value] * count for key, value in row.items()}

        def batch(program: str = program, count: int = count, columns: dict = columns) -> None:
            found = code_verdicts(["?"] * count, [f"```\n{program}```"] * count, sandbox=sandbox, **columns)
            assert all(verdict and verdict.kind == "passed" for verdict in found), found

        sandbox.close()
        rows.append({"tier": tier, "check": name, **rate(batch, count, repeats, end=sandbox.close)})
    return rows


def rate(batch: Callable[[], None], checks: int, repeats: int, end: Callable[[], None] = lambda: None) -> dict:
    before = processor_seconds()
    batch()  # warm
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        batch()
        seconds.append(time.perf_counter() - start)
    end()  # processes that have ended are counted
    used = (processor_seconds() - before) / checks / (repeats + 1)
    return {
        "checks": checks,
        "per_second": checks / statistics.median(seconds),
        "processor_ms": 1000 * used,
        "seconds": seconds,
    }


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def table(result: dict) -> str:
    head = (
        "checks a second on {cores} cores, as {user}; Python {python}, Linux {kernel}; load before: {load_before:.1f}"
    )
    lines = [head.format(**result), f"{'walls':<12}{'check':<28}{'a second':>8}{'processor':>13}"]
    for row in result["rows"]:
        if "missing" in row:
            lines.append(f"{row['tier']:<12}{row['missing']}")
        elif "per_second" in row:
            lines.append(f"{row['tier']:<12}{row['check']:<28}{row['per_second']:>8.1f}{row['processor_ms']:>10.1f} ms")
        else:
            lines.append(f"{row['tier']:<12}{row['check']:<28}{row['seconds']:>8.2f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
