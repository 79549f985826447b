"""General requests and their answers from published sets, told by their columns, in the form of data.general's.

| set | columns | gives |
|---|---|---|
| Tulu 3 SFT mixture, No Robots, UltraChat, Open-Orca style | messages or conversations | requests, answers |
| UltraFeedback, PKU-SafeRLHF, BeaverTails, HelpSteer | prompt or instruction | requests |
| Alpaca, Dolly, TRL's prompt-completion | instruction or prompt; output, response, completion | requests, answers |

`load_requests` is what preference RL draws its general prompts from, `load_answers` what rejection sampling blends in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.drops import Drops, log_drops
from data.general import KINDS, RESPONSE, make_dataset
from data.problems import content_hash
from data.sources import open_source, rows_of
from data.values import guess_language, read_language

if TYPE_CHECKING:
    from datasets import Dataset

TURN_COLUMNS = ("messages", "conversations")
REQUEST_COLUMNS = ("prompt", "instruction", "problem", "question")
ANSWER_COLUMNS = ("completion", "response", "output", "answer")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
Turns = list[dict[str, str]]


def load_requests(
    source: str | Path | Dataset,
    kind: str,
    *,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """The requests of a set, each once: problem, kind, family ("" or the set's own `source`), language, id.

    kind: "instruction", "harmful" or "benign", set for every row: a set has one kind of request. source, split, name,
    guess: as data.loading.load_problems takes them. A conversation gives its first message; one that asks more than
    once is dropped, as are empty requests and repetitions, with a count in the log.

    Raises FileNotFoundError, ConnectionError (Hub out of reach), or ValueError: an unknown kind, columns of no layout,
    or no request left.
    """
    from datasets import Dataset

    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of requests: expected one of {', '.join(KINDS)}")
    rows, label = open_source(source, split=split, name=name)
    column = _column(rows.column_names, (*REQUEST_COLUMNS, *TURN_COLUMNS), label, "requests")
    drops, kept = Drops(), dict[str, dict[str, str]]()
    for row in rows_of(rows):
        if len(kept) == limit:
            break
        drops.seen += 1
        asked = [turn for turn in _turns(row[column], "user") if turn["role"] != "system"]
        if [turn["role"] for turn in asked].count("user") != 1 or asked[0]["role"] != "user":
            drops.drop("without a request, or with several", row[column])
            continue
        text = asked[0]["content"]
        identity = content_hash("request", text)
        if identity in kept:
            drops.drop("seen before", text)
            continue
        language = read_language(row.get("language")) or guess(text)
        kept[identity] = {
            "problem": text, "kind": kind, "family": _family(row), "language": language, "id": identity,
        }  # fmt: skip
    report = _checked(label, drops, len(kept), "request")
    log_drops(source, report)
    return Dataset.from_list(list(kept.values()))


def load_answers(
    source: str | Path | Dataset,
    *,
    where: Mapping[str, Sequence[str]] | None = None,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    template: str = RESPONSE,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """General SFT rows, in random order: the columns of data.general.make_general_sft, `task` being the set's `source`.

    The last message of a conversation is the completion, inside `template`; those before it are the prompt. where:
    column -> values; only rows that have one of them are read. limit: so many rows. guess: tells the language of a
    request whose row does not. Dropped and counted: conversations
    that do not end with an answer, empty ones, those that hold <think> or <answer> themselves, repetitions.

    Raises FileNotFoundError, ConnectionError (Hub out of reach), or ValueError: columns of no layout, a `where` that
    names no column or leaves nothing, or no row left.
    """
    rows, label = open_source(source, split=split, name=name)
    rows = _where(rows, where or {}, label).shuffle(seed=seed)
    read = _conversation_reader(rows.column_names, label)
    drops, kept = Drops(), dict[str, dict[str, Any]]()
    for row in rows_of(rows):
        if len(kept) == limit:
            break
        drops.seen += 1
        turns = read(row)
        if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] != "user":
            drops.drop("without a request and its answer", row)
            continue
        *prompt, answer = turns
        text = "\n".join(turn["content"] for turn in prompt)
        identity = content_hash("general", (text, answer["content"]))
        if any(tag in turn["content"] for turn in turns for tag in TAGS):
            drops.drop("with tags of their own", answer["content"])
        elif identity in kept:
            drops.drop("seen before", text)
        else:
            kept[identity] = {
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": template.replace("{response}", answer["content"])}],
                "kind": "general",
                "language": read_language(row.get("language")) or guess(prompt[-1]["content"]),
                "task": _family(row),
                "problem_id": identity,
                "source": "general",
                "model": label,
                "seed": seed,
                "kept_because": "stands in the set",
            }
    log_drops(source, _checked(label, drops, len(kept), "answer"))
    columns = "prompt completion kind language task problem_id source model seed kept_because"
    return make_dataset(list(kept.values()), columns)


# --- Layouts ----------------------------------------------------------------------------------------------------------


def _column(names: Sequence[str], candidates: Sequence[str], label: str, what: str) -> str:
    found = next((name for name in candidates if name in names), None)
    if found is None:
        raise ValueError(
            f"{label} has the columns {', '.join(names)}, none of which holds its {what}: expected one of "
            f"{', '.join(candidates)}. Rename a column (Dataset.rename_columns)"
        )
    return found


def _conversation_reader(names: Sequence[str], label: str) -> Any:
    """row -> its conversation, the answer last; [] for one that cannot be read."""
    turns = next((name for name in TURN_COLUMNS if name in names), None)
    if turns is not None:
        return lambda row: _turns(row[turns], "user")
    request = _column(names, REQUEST_COLUMNS, label, "requests or conversations (messages)")
    answer = _column(names, ANSWER_COLUMNS, label, "answers")

    def both(row: Mapping[str, Any]) -> Turns:
        asked, answered = _turns(row[request], "user"), _turns(row[answer], "assistant")
        return [*asked, *answered] if asked and answered else []

    return both


def _turns(value: object, role: str) -> Turns:
    """A conversation from messages, or from a text, which is one turn of `role`; [] for what cannot be read."""
    if isinstance(value, str):
        return [{"role": role, "content": value.strip()}] if value.strip() else []
    turns: Turns = []
    for turn in value if isinstance(value, list) else []:
        who = _ROLES.get(str(turn.get("role") or turn.get("from")).lower()) if isinstance(turn, Mapping) else None
        content = (turn.get("content") or turn.get("value")) if who else None
        if who is None or not isinstance(content, str) or not content.strip():
            return []
        turns.append({"role": who, "content": content.strip()})
    return turns


def _where(rows: Dataset, where: Mapping[str, Sequence[str]], label: str) -> Dataset:
    for column, values in where.items():
        if column not in rows.column_names:
            raise ValueError(f"{label} has no column {column!r} to choose rows by, only {', '.join(rows.column_names)}")
        found = rows[column][:]
        kept = [index for index, value in enumerate(found) if value in values]
        if not kept:
            shown = ", ".join(map(repr, sorted({str(value) for value in found})[:20]))
            raise ValueError(f"no row of {label} has {column} in {list(values)}; it has {shown}")
        rows = rows.select(kept)
    return rows


def _family(row: Mapping[str, Any]) -> str:
    return str(row.get("source") or "")


def _checked(label: str, drops: Drops, kept: int, what: str) -> dict[str, Any]:
    if not kept:
        raise ValueError(f"{label}: no {what} left of {drops.seen} rows. {drops or 'It is empty'}")
    return drops.as_dict(kept)
