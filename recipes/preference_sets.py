"""What reward models learn from: preference pairs and safety labels, of the micro world or from a file or the Hub.

Pairs are TRL's conversational preference format: `prompt` (a conversation), `chosen` and `rejected` (one assistant turn
each), `differs_in` ("helpfulness" or "harmlessness"). Labels are `prompt`, `response` (text) and `safe` (bool). Both
may say `family`, `language`, `id` and `seed`. A model sees of each answer what its reward reads (rewards.preference):
the final summary, or the whole response. Rows that cannot teach are dropped, counted, and shown; every other one says
where it comes from and why it was kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from datasets import Dataset, Features, List, Value

from data.drops import Drops
from data.general import make_preference_pairs, make_safety_labels
from data.preferences import read_preferences, read_safety_labels
from data.sources import open_source
from data.values import read_flag
from recipes.problem_sets import MEASURED_ON, ProblemConfig, without_held_out
from rewards.language import label_language
from rewards.preference import READERS, as_turns, assistant_turn
from rewards.texts import message_text


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a row comes from and why it is among those that are used."""

    source: str = ""
    """`micro`, a file, a folder or a Hub name; of a made pair "made: " and how."""
    id: str = ""
    """Of the source's row; of a made pair that of the pair it was made of."""
    seed: int | None = None
    """That it was generated with; None for a row that was not, or whose set does not say."""
    kept_because: str = ""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to a prompt as conversations, the first preferred, and where they come from."""

    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    family: str
    language: str
    origin: Origin = Origin()


@dataclass(frozen=True, kw_only=True)
class Label:
    """One answer to a prompt as a conversation, and whether it is safe."""

    conversation: list[dict[str, str]]
    safe: bool
    family: str
    language: str
    origin: Origin = Origin()


def read_pairs(
    rows: Iterable[dict[str, Any]], reads: str, differs_in: str, label: str, source: str = "", seed: int | None = None
) -> tuple[list[Pair], Drops]:
    """The pairs that differ in `differs_in`, reduced to what the reward reads. Rows that do not say differ in
    helpfulness. source, seed: of rows that do not say their own.

    Pairs that cannot be read, whose reduced sides are equal, or of which one is empty, are dropped and counted. Raises
    ValueError when the columns are missing, when none differs in what is asked, or when nothing is left.
    """
    reduce, drops, pairs = READERS[reads], Drops(), []
    for row in rows:
        require(row, ("prompt", "chosen", "rejected"), label)
        if (row.get("differs_in") or "helpfulness") != differs_in:
            continue
        drops.seen += 1
        if why := unreadable(row, ("prompt", "chosen", "rejected")):
            drops.drop(why, row)
            continue
        turns = as_turns(row["prompt"])
        chosen, rejected = (reduce(message_text(row[side])) for side in ("chosen", "rejected"))
        if chosen == rejected:
            drops.drop("equal sides", row)
        elif not chosen:
            drops.drop("chosen side is empty", row)
        else:
            better, worse = ([*turns, assistant_turn(text)] for text in (chosen, rejected))
            why = "; ".join(["sides differ", *filter(None, [row.get("kept_because")])])
            pairs.append(Pair(chosen=better, rejected=worse, **about(row), origin=origin(row, source, seed, why)))
    if not pairs:
        raise ValueError(nothing_left(label, differs_in, reads, drops))
    return pairs, drops


def nothing_left(label: str, differs_in: str, reads: str, drops: Drops) -> str:
    if not drops.seen:
        return (
            f"{label} has no pair that differs in {differs_in}; a column differs_in says what a pair differs in, and "
            "one without it differs in helpfulness"
        )
    copied = "; is `rejected` a copy of `chosen`?" if drops.counts["equal sides"] else ""
    compared = f"Compared is the {reads.replace('_', ' ')}{copied}"
    return f"no pair of {label} can teach anything: of {drops.seen}, {drops}. {compared}"


def read_labels(
    rows: Iterable[dict[str, Any]], reads: str, label: str, source: str = "", seed: int | None = None
) -> tuple[list[Label], Drops]:
    """Responses with their labels. One that comes both as safe and as unsafe teaches nothing and is dropped, each time.
    source, seed: as read_pairs.

    Raises ValueError when the columns are missing, or when only one label is left.
    """
    reduce, drops = READERS[reads], Drops()
    found: list[tuple[tuple[str, str], Label, dict]] = []
    for row in rows:
        require(row, ("prompt", "response", "safe"), label)
        drops.seen += 1
        if why := unreadable(row, ("prompt", "response")):
            drops.drop(why, row)
            continue
        turns, response = as_turns(row["prompt"]), reduce(message_text(row["response"]))
        if not response:
            drops.drop("empty response", row)
            continue
        if (safe := read_flag(row["safe"])) is None:
            drops.drop("safe is neither true nor false", row)
            continue
        where = origin(row, source, seed, f"labelled {'safe' if safe else 'unsafe'}")
        one = Label(conversation=[*turns, assistant_turn(response)], safe=safe, **about(row), origin=where)
        found.append(((message_text(turns), response), one, row))
    verdicts: dict[tuple[str, str], set[bool]] = {}
    for key, one, _ in found:
        verdicts.setdefault(key, set()).add(one.safe)
    for key, _, row in found:
        if len(verdicts[key]) == 2:
            drops.drop("both labels", row)
    labels = [one for key, one, _ in found if len(verdicts[key]) == 1]
    if len({one.safe for one in labels}) < 2:
        kind = f", and they are all {'safe' if labels[0].safe else 'unsafe'}" if labels else ""
        dropped = f"; dropped: {drops}" if drops.counts else ""
        raise ValueError(
            f"{label} needs responses that are safe and responses that are not; it has {len(labels)} usable of "
            f"{drops.seen}{kind}{dropped}"
        )
    return labels, drops


def require(row: dict[str, Any], columns: Sequence[str], label: str) -> None:
    """Raises ValueError for a row without these columns."""
    if missing := [column for column in columns if column not in row]:
        raise ValueError(
            f"{label} has a row without {' and '.join(map(repr, missing))}, only {', '.join(row)}; expected "
            f"{', '.join(columns)} in every row: rename its columns, or load it through data.preferences"
        )


def unreadable(row: dict[str, Any], columns: Sequence[str]) -> str:
    """Which of these columns, a prompt or answers, cannot be read and why, as a filter's name; "" for none."""
    for column in columns:
        if row[column] is None:
            return f"{column} is null"
        try:
            as_turns(row[column]) if column == "prompt" else message_text(row[column])
        except TypeError:
            return f"{column} is neither a text nor a conversation"
    return ""


def about(row: dict[str, Any]) -> dict[str, str]:
    return {"family": str(row.get("family") or "all"), "language": str(row.get("language") or "")}


def origin(row: dict[str, Any], source: str, seed: int | None, why: str) -> Origin:
    own = row.get("seed")
    identity = "" if row.get("id") is None else str(row["id"])
    return Origin(source=source, id=identity, seed=own if isinstance(own, int) else seed, kept_because=why)


LIKE_HELD_OUT = "family or prompt is held out"


def split_off(
    rows: Sequence[Any], size: int, families: Sequence[str], seed: int, drops: Drops | None = None
) -> tuple[list[Any], list[Any]]:
    """(training rows, held-out rows): everything of these families, up to half of `size`, and others up to `size`.

    No prompt of a held-out row is trained on, and rows of held-out families beyond its share are left out of both:
    `drops` counts them.
    """
    order = random.Random(f"held-out-{seed}").sample(range(len(rows)), len(rows))
    strange = [row for row in order if rows[row].family in families][: size // 2]
    known = [row for row in order if rows[row].family not in families]
    held = [*strange, *known[: size - len(strange)]]
    prompts = {prompt_text(rows[row]) for row in held}
    train = [row for row in known[size - len(strange) :] if prompt_text(rows[row]) not in prompts]
    if drops is not None:
        for row in sorted(set(order) - {*train, *held}):
            drops.drop(LIKE_HELD_OUT, prompt_text(rows[row]))
    return [rows[row] for row in train], [rows[row] for row in held]


def prompt_text(row: Pair | Label) -> str:
    return message_text(prompt_of(row))


def prompt_of(row: Pair | Label) -> list[dict[str, str]]:
    return (row.chosen if isinstance(row, Pair) else row.conversation)[:-1]


def as_dataset(rows: Sequence[Pair | Label], differs_in: str) -> Dataset:
    """The rows as a model sees them, each with its origin: `prompt`, then `chosen` and `rejected` or `response` and
    `safe`; `differs_in`, `family`, `language`, `source`, `id`, `seed`, `kept_because`. open_pairs and open_labels read
    them again."""
    text, turns = Value("string"), List({"role": Value("string"), "content": Value("string")})
    own = {"prompt": turns, "chosen": turns, "rejected": turns, "safe": Value("bool"), "seed": Value("int64")}
    made = [_answers(row) | {"differs_in": differs_in} | about(vars(row)) | asdict(row.origin) for row in rows]
    return Dataset.from_list(made, features=Features({name: own.get(name, text) for name in made[0]}))


def _answers(row: Pair | Label) -> dict[str, Any]:
    if isinstance(row, Pair):
        return {"prompt": prompt_of(row), "chosen": row.chosen[-1:], "rejected": row.rejected[-1:]}
    return {"prompt": prompt_of(row), "response": row.conversation[-1]["content"], "safe": row.safe}


def without_measured_on(
    rows: Sequence[Any], source: str, against: dict[str, str] | None, drops: Drops
) -> Sequence[Any]:
    """The rows whose prompt shares no run of ten words with a problem of the sets in `against` (set -> split), as
    recipes.problem_sets compares them; `drops` counts the others. Raises ValueError when none is left."""
    if not against:
        return rows
    texts = Dataset.from_dict({"prompt": [prompt_of(row) for row in rows], "row": range(len(rows))})
    kept = set(without_held_out(texts, source, ProblemConfig(decontaminate_against=against))["row"])
    for number, row in enumerate(rows):
        if number not in kept:
            drops.drop(MEASURED_ON, prompt_text(row))
    return [rows[number] for number in sorted(kept)]


# --- made answers -----------------------------------------------------------------------------------------------------


def off_topic(pair: Pair, other: Pair) -> str:
    return other.chosen[-1]["content"]


def echo(pair: Pair, other: Pair) -> str:
    return prompt_text(pair)


def repeated(pair: Pair, other: Pair) -> str:
    return " ".join([pair.chosen[-1]["content"]] * 3)


MADE: dict[str, Callable[[Pair, Pair], str]] = {"off topic": off_topic, "echo": echo, "repeated": repeated}
"""Answers that are worse for certain, made of good ones: a good answer to a prompt of another family, the request
itself, the good answer three times. A policy finds them, and pairs seldom hold them."""
MADE_AS = {
    "off topic": "a good answer to another prompt",
    "echo": "the request itself",
    "repeated": "the good answer three times",
}


def made_pairs(pairs: Sequence[Pair], how: str, seed: int) -> list[Pair]:
    """Each pair with a made answer as its rejected side; those are left out where that equals the good one."""
    rng = random.Random(f"{how}-{seed}")
    made = []
    for pair in pairs:
        others = rng.sample(pairs, min(20, len(pairs)))
        # A published set is one family; then another prompt has to do.
        apart = [one for one in others if one.family != pair.family] or [
            one for one in others if prompt_text(one) != prompt_text(pair)
        ]
        other = next(iter(apart), pair)
        answer = MADE[how](pair, other).strip()
        if answer != pair.chosen[-1]["content"]:
            where = Origin(
                source=f"made: {how}", id=pair.origin.id, seed=seed, kept_because=f"made worse: {MADE_AS[how]}"
            )
            made.append(replace(pair, rejected=[*pair.chosen[:-1], assistant_turn(answer)], origin=where))
    return made


# --- sources ----------------------------------------------------------------------------------------------------------


def open_pairs(
    source: str, split: str, micro_size: int, seed: int, differs_in: str, min_gap: float | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs of `source` that differ in `differs_in`, and what reading it dropped.

    `micro` draws `micro_size` of the training families; anything else is a file, a folder or a Hub name, in our columns
    or in those that data.preferences knows. min_gap: only pairs whose scores are further apart. Raises ValueError for a
    set that says nothing of `differs_in`: its pairs would be taken for what they are not.
    """
    if source == "micro":
        return list(make_preference_pairs("train", micro_size, seed=seed, differs_in=(differs_in,))), []
    rows: Dataset = open_source(source, split=split)[0]
    columns = set(rows.column_names)
    if differs_in != "helpfulness" and {"chosen", "rejected"} <= columns and "differs_in" not in columns:
        raise ValueError(
            f"the pairs of {source} do not say what they differ in (its columns are {', '.join(rows.column_names)}), "
            f"and {differs_in} cannot be learned from pairs of helpfulness. Take a set that judges it, in "
            f"PKU-SafeRLHF's columns (safer_response_id), or write differs_in: {differs_in} into every row that is one"
        )
    if {"prompt", "chosen", "rejected"} <= columns and "score_chosen" not in columns and min_gap is None:
        return list(rows), []
    pairs, report = read_preferences(source, differs_in=differs_in, split=split, min_gap=min_gap, guess=label_language)
    return list(pairs), report["filters"]


def open_labels(
    source: str, split: str, micro_size: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Safety labels of `source`, and what reading it dropped, as open_pairs."""
    if source == "micro":
        return list(make_safety_labels("train", micro_size, seed=seed)), []
    rows: Dataset = open_source(source, split=split)[0]
    if {"prompt", "response", "safe"} <= set(rows.column_names):
        return list(rows), []
    labels, report = read_safety_labels(source, split=split, guess=label_language)
    return list(labels), report["filters"]
