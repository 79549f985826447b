"""The code rewards: a program earns what its hidden tests say (DeepSeek-Coder-V2, arXiv:2406.11931, section 3.5.2: the
compiler's and the tests' feedback; DeepSeek-R1, arXiv:2501.12948, section 2.2.2: a compiler on predefined test cases).

Which tests come in which columns is in rewards.code.rows. None means that the reward does not apply: the row has no
tests, or tests that cannot be used; the verdict says which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rewards.code.compare import TOLERANCE
from rewards.code.judging import CodeVerdict, CodeVerdictKind, judge
from rewards.code.programs import extract_program
from rewards.code.rows import BadTests, suite_of
from rewards.code.sandbox import Sandbox, default_sandbox
from rewards.texts import with_prefill

COMPILE_STEP = 0.1
"""What `code_step_reward` gives for a program that compiles and passes nothing."""


def code_reward(prompts: Sequence, completions: Sequence, **columns: Any) -> list[float | None]:
    """1.0 for a program that passes all hidden tests, else 0.0.

    >>> tests = [{"input": "2", "output": "4"}]
    >>> code_reward(["Double it."], ["```python\\nprint(2 * int(input()))\\n```"], tests=[tests])
    [1.0]
    """
    verdicts = code_verdicts(prompts, completions, **columns)
    return _rewards(verdicts, lambda verdict: float(verdict.kind is CodeVerdictKind.PASSED))


def code_share_reward(prompts: Sequence, completions: Sequence, **columns: Any) -> list[float | None]:
    """The share of the hidden tests that pass. It also pays for what is right by chance; 0 or 1 is the safer choice."""
    verdicts = code_verdicts(prompts, completions, first_failure_decides=False, **columns)
    return _rewards(verdicts, lambda verdict: verdict.share)


def code_step_reward(prompts: Sequence, completions: Sequence, **columns: Any) -> list[float | None]:
    """0.0 for what does not compile, COMPILE_STEP for what does, and the rest by the share of tests that pass."""
    verdicts = code_verdicts(prompts, completions, first_failure_decides=False, **columns)
    return _rewards(verdicts, lambda verdict: verdict.compiled * (COMPILE_STEP + (1 - COMPILE_STEP) * verdict.share))


def _rewards(verdicts: Sequence[CodeVerdict | None], reward: Callable[[CodeVerdict], float]) -> list[float | None]:
    """None where the row, not the program, is why there is no verdict."""
    return [
        None if verdict is None or verdict.kind is CodeVerdictKind.BAD_TESTS else reward(verdict)
        for verdict in verdicts
    ]


def code_verdicts(
    prompts: Sequence,
    completions: Sequence,
    first_failure_decides: bool = True,
    tolerance: float = TOLERANCE,
    sandbox: Sandbox | None = None,
    **columns: Any,
) -> list[CodeVerdict | None]:
    """The verdicts behind the rewards, for counting and for reports; None where the row has no tests.

    Raises SandboxError where programs cannot be run, ValueError when a column has another length.
    """
    size = len(completions)
    columns = {name: column for name, column in columns.items() if _is_column(column)}
    for name, column in (("prompts", prompts), *columns.items()):
        if len(column) != size:
            raise ValueError(f"{size} completions need as many values in {name!r}, got {len(column)}")
    rows = [{name: column[index] for name, column in columns.items()} for index in range(size)]
    sandbox = sandbox or default_sandbox()

    def verdict(index: int) -> CodeVerdict | None:
        return _verdict(prompts[index], completions[index], rows[index], sandbox, first_failure_decides, tolerance)

    with ThreadPoolExecutor(max_workers=_cores(), thread_name_prefix="code-reward") as threads:
        return list(threads.map(verdict, range(size)))


def _verdict(
    prompt: Any, completion: Any, row: dict, sandbox: Sandbox, first_failure_decides: bool, tolerance: float
) -> CodeVerdict | None:
    try:
        suite = suite_of(row, prompt)
    except BadTests as error:
        return CodeVerdict(CodeVerdictKind.BAD_TESTS, str(error))
    if suite is None:
        return None
    program = extract_program(with_prefill(prompt, completion), suite.language)
    if program is None:
        return CodeVerdict(CodeVerdictKind.NO_PROGRAM, f"the completion holds no program in {suite.language}")
    return judge(program, suite, sandbox, first_failure_decides, tolerance)


def _is_column(value: object) -> bool:
    """TRL also hands over things that are no columns, such as `trainer_state`."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
