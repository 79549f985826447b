"""Long chains of thought from published sets, told by their columns: a problem, its reasoning, a summary, an answer.

| set | columns | chain |
|---|---|---|
| OpenR1-Math-220k | problem, answer, generations, correctness_math_verify | the verified, complete generations |
| Mixture-of-Thoughts, OpenR1 `messages` | messages | the assistant's `<think>…</think>` |
| OpenThoughts | conversations | `<think>` or `<|begin_of_thought|>` |
| OpenThoughts metadata, others | a problem, a reasoning and a solution in columns of their own | as given |

Nothing here judges a chain beyond what its set says of it; the filters of the cold start do that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.drops import Drops, log_drops
from data.problems import content_hash
from data.sources import open_source, rows_of
from data.values import guess_language, last_boxed, read_gold, read_language, read_name, read_problem

if TYPE_CHECKING:
    from datasets import Dataset

REASONING_COLUMNS = ("reasoning", "deepseek_reasoning", "reasoning_content", "thinking", "thought")
PROBLEM_COLUMNS = ("problem", "question", "instruction", "prompt", "query")
SUMMARY_COLUMNS = ("summary", "deepseek_solution", "response", "content", "output")
ANSWER_COLUMNS = ("answer", "final_answer", "expected_answer", "ground_truth", "ground_truth_solution")
ID_COLUMNS = ("source_id", "uuid", "problem_id", "id")
CORRECT_COLUMNS = ("correctness_math_verify", "correctness_llama")
"""Of OpenR1: the second verdict counts for generations that the first does not know."""

NOT_VERIFIED = "not verified as correct"

_WRAPPERS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_SOLUTION_TAGS = re.compile(r"<\|(?:begin|end)_of_solution\|>|</?answer>")


@dataclass(frozen=True, kw_only=True)
class Chain:
    problem: str
    reasoning: str
    """Without tags."""
    summary: str
    """What follows the reasoning, without tags; "" if the set keeps none."""
    answer: str
    """The set's gold answer, else the last box of the summary, else ""."""
    language: str
    source_id: str
    """The set's own name for the problem, or its row number."""
    id: str
    """A hash of problem and reasoning."""
    has_gold: bool = True
    """Whether `answer` is the set's own, by which the chain can be checked."""


def load_chains(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    name: str | None = None,
    per_problem: int = 1,
    limit: int | None = None,
    language: str | None = None,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """The chains of a set, a row each: problem, reasoning, summary, answer, language, source_id, id, has_gold. What was
    dropped is logged; `read_chains` returns it.

    source, split, name: as data.loading.load_problems takes them. per_problem: so many verified generations of one row
    at most. limit: so many chains. language: set for every row; else the set's column, else what `guess` makes of the
    problem, by default by its script.

    Raises FileNotFoundError, ConnectionError (Hub out of reach), or ValueError: columns of no layout, or no chain left.
    """
    chains, report = read_chains(
        source, split=split, name=name, per_problem=per_problem, limit=limit, language=language, guess=guess
    )
    log_drops(source, report)
    return chains


def read_chains(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    name: str | None = None,
    per_problem: int = 1,
    limit: int | None = None,
    language: str | None = None,
    guess: Callable[[str], str] = guess_language,
) -> tuple[Dataset, dict[str, Any]]:
    """As load_chains, with what each filter dropped: {"filters": [{"name", "dropped", "examples"}], "kept", "seen"}."""
    from datasets import Dataset

    for what, number in (("per_problem", per_problem), ("limit", limit)):
        if number is not None and number < 1:
            raise ValueError(f"{what} must be 1 or more, got {number}")
    rows, label = open_source(source, split=split, name=name)
    read = _reader(rows.column_names, label)
    drops, kept = Drops(), dict[str, Chain]()
    for position, row in enumerate(rows_of(rows)):
        found = 0
        for problem, text in read(row):
            drops.seen += 1
            chain = _chain(problem, text, row, position, language, guess)
            if isinstance(chain, str):
                drops.drop(chain, text.text if text.text else row)
            elif chain.id in kept:
                drops.drop("seen before", chain.problem)
            elif found == per_problem:
                drops.drop(f"beyond {per_problem} of a problem", chain.problem)
            else:
                kept[chain.id] = chain
                found += 1
            if len(kept) == limit:
                break
        if len(kept) == limit:
            break
    if not kept:
        raise ValueError(f"{label}: no chain of thought left of {drops.seen}. {drops or 'It is empty'}")
    columns = [field.name for field in fields(Chain)]
    table = [asdict(chain) for chain in kept.values()]
    return Dataset.from_dict({name: [row[name] for row in table] for name in columns}), drops.as_dict(len(kept))


@dataclass(frozen=True)
class _Response:
    """A response as a set has it: with its reasoning in tags, or in two parts; and why the set itself rules it out."""

    text: str = ""
    parts: tuple[str, str] | None = None
    fault: str = ""


def split_response(text: str) -> tuple[str, str] | None:
    """(reasoning, summary) of a response whose reasoning stands in `<think>` or `<|begin_of_thought|>`, tags taken off;
    an opening tag may be missing. None if the reasoning is not closed.

    >>> split_response("<think>\\n6 * 7\\n</think>\\n\\nIt is 42.")
    ('6 * 7', 'It is 42.')
    >>> split_response("<|begin_of_thought|>a<|end_of_thought|> <|begin_of_solution|>b<|end_of_solution|>")
    ('a', 'b')
    """
    for opening, closing in _WRAPPERS:
        reasoning, closed, summary = text.rpartition(closing)
        if closed:
            _, opened, inside = reasoning.partition(opening)
            return (inside if opened else reasoning).strip(), _SOLUTION_TAGS.sub("", summary).strip()
    return None


def _chain(
    problem: str | None,
    response: _Response,
    row: Mapping[str, Any],
    position: int,
    language: str | None,
    guess: Callable[[str], str],
) -> Chain | str:
    """The chain, or the name of the filter that drops it."""
    if response.fault:
        return response.fault
    parts = response.parts or split_response(response.text)
    if problem is None:
        return "without a readable problem (or with several turns)"
    if parts is None:
        return "without a closed reasoning"
    reasoning, summary = parts
    if not reasoning:
        return "with an empty reasoning"
    gold = next((gold for name in ANSWER_COLUMNS if (gold := read_gold(row.get(name), may_be_worked=True))), None)
    given = next((row[name] for name in ID_COLUMNS if row.get(name) not in (None, "")), position)
    return Chain(
        problem=problem,
        reasoning=reasoning,
        summary=summary,
        answer=gold or last_boxed(summary) or "",
        language=language or read_language(row.get("language")) or guess(problem),
        source_id=str(given),
        id=content_hash("chain", (problem, reasoning)),
        has_gold=bool(gold),
    )


# --- Layouts ----------------------------------------------------------------------------------------------------------

_Read = Callable[[Mapping[str, Any]], Iterator[tuple[str | None, _Response]]]


def _reader(names: list[str], label: str) -> _Read:
    have = set(names)
    if {"problem", "generations"} <= have:
        return _read_generations
    problem = next((name for name in PROBLEM_COLUMNS if name in have), None)
    reasoning = next((name for name in REASONING_COLUMNS if name in have), None)
    if problem and reasoning:
        summary = next((name for name in (*SUMMARY_COLUMNS, "solution", "answer") if name in have), None)
        return lambda row: _read_parts(row, problem, reasoning, summary)
    if turns := [name for name in ("conversations", "messages") if name in have]:
        return lambda row: _read_turns([row[name] for name in turns], row.get("correct"))
    raise ValueError(
        f"{label} has the columns {', '.join(names)}, which are those of no known layout. Understood: Open-R1 "
        "(problem, generations; answer, correctness_math_verify), Mixture-of-Thoughts (messages), OpenThoughts "
        f"(conversations), or a problem ({', '.join(PROBLEM_COLUMNS)}) beside its reasoning "
        f"({', '.join(REASONING_COLUMNS)}). Rename the columns (Dataset.rename_columns) to one of these"
    )


def _read_generations(row: Mapping[str, Any]) -> Iterator[tuple[str | None, _Response]]:
    """Verified generations only, where the set has verdicts; without any, all of them."""
    verdicts = [row.get(name) or [] for name in CORRECT_COLUMNS]
    complete = row.get("is_reasoning_complete") or []
    for index, text in enumerate(row["generations"] or []):
        judged = [column[index] for column in verdicts if index < len(column) and column[index] is not None]
        fault = ""
        if any(verdicts) and not (judged and judged[0]):
            fault = NOT_VERIFIED
        elif index < len(complete) and complete[index] is False:
            fault = "whose reasoning is not complete"
        yield read_problem(row["problem"]), _Response(text or "", fault=fault)


def _read_turns(conversations: list[Any], correct: object) -> Iterator[tuple[str | None, _Response]]:
    """A question and its answer, a system message aside; of several conversations, the first with a reasoning."""
    found = [exchange for turns in conversations if (exchange := _exchange(turns))]
    problem, answer = next((one for one in found if split_response(one[1])), found[0] if found else (None, ""))
    yield problem and read_problem(problem), _Response(answer, fault=NOT_VERIFIED if correct is False else "")


def _exchange(turns: Any) -> tuple[str, str] | None:
    """The question and the answer of a conversation that is no longer than that."""
    spoken = [
        (str(turn.get("role") or turn.get("from")).lower(), turn.get("content") or turn.get("value") or "")
        for turn in turns or []
        if isinstance(turn, Mapping)
    ]
    spoken = [(role, text) for role, text in spoken if role != "system"]
    if [role in ("user", "human") for role, _ in spoken] != [True, False]:
        return None
    return spoken[0][1], spoken[1][1]


def _read_parts(
    row: Mapping[str, Any], problem: str, reasoning: str, summary: str | None
) -> Iterator[tuple[str | None, _Response]]:
    thought = read_name(row[reasoning]) or ""
    inside, after = split_response(thought) or (thought, "")
    said = after or (read_name(row[summary]) if summary else None) or ""
    yield read_problem(row[problem]), _Response(thought, (inside, _SOLUTION_TAGS.sub("", said).strip()))
