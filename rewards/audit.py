"""Audit a file of completions: what the accuracy reward says of each, where a second checker differs, what is slow.

A line is a JSON object with `completion` and `answer` (or `solution`), and if need be `prompt`, `task` and `numbers`; a
run's samples.jsonl is such a file, and there the rewards that the run recorded are compared too. A line that cannot be
read is listed by its number, and the others are scored all the same.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rewards.accuracy import accuracy_verdicts
from rewards.extraction import after_thinking, extract_answer
from rewards.second_checkers import SecondChecker
from rewards.tasks import TASKS, check_number
from rewards.texts import with_prefill

COLUMNS = {
    "answer": (str, int, float),
    "solution": (str, int, float),
    "task": (str,),
    "numbers": (list,),
}
"""What the accuracy reward reads, and the types that it may have."""
NO_GOLD = "no_gold"
"""In the place of a verdict, where the row has no gold answer; the reward is None there."""
INTERRUPTED = "interrupted"
RECORDED = "recorded"
"""The name under which a run's own rewards stand beside those of the second checkers."""


class LineError(ValueError):
    """A line that is no sample. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    prompt: str | list
    completion: str | list
    columns: dict[str, Any]
    recorded: float | None = None
    """The accuracy reward that the file itself states."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found out about one line."""

    line: int
    verdict: str
    detail: str
    reward: float | None
    seconds: float
    gold: str | None
    answer: str | None
    """The marked answer; None if there is none."""
    others: dict[str, float | str | None]
    """By second checker, where it can judge: 1.0 or 0.0, None for an unreadable gold answer, "timeout", "failed"."""

    def differs_from(self, name: str) -> bool:
        other = self.others.get(name)
        return isinstance(other, float) and self.reward is not None and other != self.reward


@dataclass
class Audit:
    findings: list[Finding] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    """Line -> why it could not be scored."""
    seconds: float = 0.0
    stopped: str = ""
    """Why the rest of the file was not read, if it was not."""

    @property
    def verdicts(self) -> dict[str, int]:
        return dict(Counter(finding.verdict for finding in self.findings).most_common())

    @property
    def names(self) -> list[str]:
        """The second checkers that judged at least one line."""
        return sorted({name for finding in self.findings for name in finding.others})

    def disagreements(self, name: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.differs_from(name)]

    def slowest(self, count: int) -> list[Finding]:
        return sorted(self.findings, key=lambda finding: -finding.seconds)[:count]

    def to_json(self) -> dict[str, Any]:
        return {
            "completions": len(self.findings),
            "seconds": self.seconds,
            "stopped": self.stopped,
            "verdicts": self.verdicts,
            "disagreements": {name: [found.line for found in self.disagreements(name)] for name in self.names},
            "errors": [{"line": line, "error": error} for line, error in self.errors.items()],
            "findings": [asdict(finding) for finding in self.findings],
        }


def audit_file(
    path: str | Path, second: Sequence[str] = (), on_progress: Callable[[int, int], None] = lambda read, count: None
) -> Audit:
    """Score every line, one after the other, so that each check has a time of its own. `second` names second checkers.

    `on_progress(bytes read, lines done)` is called after each line. Ctrl-C, or a process that cannot be started, ends
    it early, with what there is. Raises OSError for a file that cannot be read.
    """
    audit, started, read = Audit(), time.monotonic(), 0
    checkers = [SecondChecker(name) for name in second]
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    if line.strip():
                        audit.findings.append(judge(number, read_sample(line), checkers))
                except (LineError, TypeError) as error:  # TypeError: a completion that is neither text nor messages
                    audit.errors[number] = str(error)
                read += len(line)
                on_progress(read, number)
    except KeyboardInterrupt:
        audit.stopped = INTERRUPTED
    except RuntimeError as error:
        audit.stopped = str(error)
    finally:
        for checker in checkers:
            checker.close()
    audit.seconds = time.monotonic() - started
    return audit


def read_sample(line: bytes) -> Sample:
    """Raises LineError.

    >>> read_sample(b'{"completion": "42", "answer": "42"}').columns
    {'answer': '42'}
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8: byte {error.start + 1} of the line is {line[error.start]:#04x}") from error
    except (ValueError, RecursionError) as error:
        raise LineError(f"not JSON: {str(error) or 'nested too deeply'}") from error
    if not isinstance(row, dict):
        raise LineError(f'a line is a JSON object such as {{"completion": …, "answer": …}}, not a {type(row).__name__}')
    if "completion" not in row:
        raise LineError(f"there is no 'completion' among its keys {list(row)!r:.80}")
    columns = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    for name, value in columns.items():
        if not isinstance(value, COLUMNS[name]) or isinstance(value, bool):
            raise LineError(f"{name!r} cannot be a {type(value).__name__}: {value!r:.60}")
    if not all(isinstance(number, int) for number in columns.get("numbers", [])):
        raise LineError(f"'numbers' is a list of whole numbers, got {columns['numbers']!r:.60}")
    rewards = row.get("rewards")
    recorded = rewards.get("accuracy") if isinstance(rewards, dict) else None
    return Sample(
        prompt=row.get("prompt") or "",
        completion=row["completion"],
        columns=columns,
        recorded=float(recorded) if isinstance(recorded, int | float) else None,
    )


def judge(line: int, sample: Sample, checkers: Sequence[SecondChecker] = ()) -> Finding:
    """The accuracy reward's verdict on one sample, and what the second checkers say."""
    gold = sample.columns.get("answer", sample.columns.get("solution"))
    text = with_prefill(sample.prompt, sample.completion)
    answer = extract_answer(text)
    started = time.monotonic()
    verdict = None
    if gold is not None:
        columns: dict[str, Any] = {name: [value] for name, value in sample.columns.items()}
        verdict = accuracy_verdicts([sample.prompt], [sample.completion], **columns)[0]
    seconds = time.monotonic() - started
    others: dict[str, float | str | None] = {}
    if verdict is not None and is_mathematics(sample.columns.get("task")):
        asked = {checker.name: checker for checker in checkers}
        for checker in asked.values():
            checker.ask(gold=str(gold), text=for_others(text, answer))
        others = {name: checker.reply() for name, checker in asked.items()}
    if sample.recorded is not None:
        others[RECORDED] = sample.recorded
    return Finding(
        line=line,
        verdict=NO_GOLD if verdict is None else verdict.kind.value,
        detail="the row has no gold answer" if verdict is None else verdict.detail,
        reward=None if verdict is None else verdict.reward,
        seconds=seconds,
        gold=None if gold is None else str(gold),
        answer=answer,
        others=others,
    )


def is_mathematics(task: str | None) -> bool:
    """Whether another project's checker can say anything: an order of names or a Countdown expression means nothing to
    it.
    """
    return task not in TASKS or TASKS[task].check is check_number


def for_others(text: str, answer: str | None) -> str:
    r"""What a second checker reads: the part after the reasoning, the marked answer in a box, as both look for one.

    >>> for_others("<think>6*7</think><answer>42</answer>", "42")
    '\\boxed{42}'
    >>> for_others("<think>6*7</think>It is 42.", None)
    'It is 42.'
    """
    final = after_thinking(text) or text
    return final if answer is None or "\\boxed" in final else f"\\boxed{{{answer}}}"


def render(audit: Audit, examples: int = 10) -> str:
    """The audit as text: counts by verdict, disagreements, the slowest checks, lines that could not be read."""
    return "\n\n".join("\n".join(part) for part in _parts(audit, examples))


def _parts(audit: Audit, examples: int) -> Iterator[list[str]]:
    count = len(audit.findings)
    yield [f"{count:,} completions in {audit.seconds:.1f} s"]
    if audit.stopped:
        yield [f"the rest of the file was not read: {audit.stopped}"]
    if count:
        yield [f"{kind:16} {number:>9,}  {number / count:6.1%}" for kind, number in audit.verdicts.items()]
    for name in audit.names:
        yield _comparison(audit, name, examples)
    if count:
        yield [
            "slowest checks",
            *(f"  {found.seconds:.3f} s  {_line(found)}" for found in audit.slowest(examples)),
        ]
    if audit.errors:
        shown = list(audit.errors.items())[:examples]
        yield [
            f"{len(audit.errors):,} lines could not be scored",
            *(f"  line {line}: {error}" for line, error in shown),
            *_more(len(audit.errors), examples),
        ]


def _comparison(audit: Audit, name: str, examples: int) -> list[str]:
    judged = [found.others[name] for found in audit.findings if name in found.others]
    differing = audit.disagreements(name)
    lost = Counter(other for other in judged if isinstance(other, str))
    notes = "".join(f", {number:,} {what}" for what, number in lost.items())
    return [
        f"{name} differs on {len(differing):,} of {len(judged):,}{notes}",
        *(f"  {name} {found.others[name]:g}, ours {found.reward:g}  {_line(found)}" for found in differing[:examples]),
        *_more(len(differing), examples),
    ]


def _more(number: int, shown: int) -> list[str]:
    return [f"  … and {number - shown:,} more (--json lists all)"] if number > shown else []


def _line(found: Finding) -> str:
    what = f"line {found.line}: {found.verdict}, {_short(found.detail)}"
    return f"{what}; gold {_short(found.gold)}, answer {_short(found.answer)}"


def _short(text: str | None) -> str:
    """In quotes, so that nothing a model wrote reaches the terminal as a control sequence."""
    return "none" if text is None else repr(text if len(text) <= 80 else f"{text[:40]} … {text[-40:]}")
