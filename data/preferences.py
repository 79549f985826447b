"""Preference pairs and safety labels from published sets, told by their columns, in the form of data.general's.

| set | columns | pair |
|---|---|---|
| UltraFeedback binarized, TRL | chosen, rejected; prompt, score_chosen, score_rejected if there are any | as given |
| UltraFeedback | instruction, completions with scores | best and worst, if more than MIN_GAP apart |
| HelpSteer2 | prompt, response, helpfulness (a row for each response) | best and worst of a prompt |
| HelpSteer2 preferences, HelpSteer3 | two responses, preference_strength or overall_preference | below 0 the first |
| PKU-SafeRLHF | response_0, response_1, better_response_id, safer_response_id | helpfulness, harmlessness |

A pair whose answers are equal, or of which neither is preferred, teaches nothing, or chance: it is dropped and counted.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.drops import Drops, log_drops
from data.problems import content_hash
from data.sources import SPLIT_ALIASES, SPLIT_WORDS, open_source, rows_of
from data.values import guess_language, read_flag, read_language

if TYPE_CHECKING:
    from datasets import Dataset

DIFFERENCES = ("helpfulness", "harmlessness")
MIN_GAP = 1.0
"""Scores of an answer and the other must be further apart: "retaining pairs where the score difference exceeds 1"
(DeepSeek-R1, Nature version, supplement). Of sets that score each answer on a scale, as UltraFeedback does."""

Turns = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    prompt: Turns
    chosen: str
    rejected: str
    differs_in: str
    language: str
    """What the row says; "" until it is guessed."""
    family: str
    kept_because: str
    """What says that chosen is the better one: scores, a strength, a label, or the set itself."""

    @property
    def id(self) -> str:
        return content_hash("pair", (self.differs_in, _plain(self.prompt), self.chosen, self.rejected))


class _Skip(Exception):  # noqa: N818  (no error: control flow)
    """A row gives no pair; the message is the filter's name."""


# --- Loading ----------------------------------------------------------------------------------------------------------


def load_preferences(
    source: str | Path | Dataset,
    *,
    differs_in: str | None = None,
    min_gap: float | None = None,
    balance_length: bool = False,
    length: Callable[[str], int] = len,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """The pairs of a set: prompt, chosen, rejected (conversations), differs_in, family, language, id, and kept_because:
    what says that chosen is the better one. What was dropped is logged; `read_preferences` returns it.

    source, split, name, guess: as data.loading.load_problems takes them. differs_in: only pairs of "helpfulness" or of
    "harmlessness"; a set without such pairs is an error. Of a set with chosen and rejected that has neither scores nor
    a column differs_in, it names the difference, by default helpfulness; scores judge helpfulness. min_gap: scores must
    be further apart than this, by default MIN_GAP for UltraFeedback's raw scores and 0 elsewhere. balance_length: as
    many pairs in which chosen is longer as in which it is shorter, at about the same difference; the surplus is
    dropped. length measures an answer, by default in characters. limit: so many pairs. family names the recognised
    layout.

    Raises FileNotFoundError, ConnectionError (Hub out of reach), or ValueError: columns of no layout, or no pair left,
    as when the answers of all pairs are equal.
    """
    pairs, report = read_preferences(
        source,
        differs_in=differs_in,
        min_gap=min_gap,
        balance_length=balance_length,
        length=length,
        split=split,
        name=name,
        limit=limit,
        guess=guess,
    )
    log_drops(source, report)
    return pairs


def read_preferences(
    source: str | Path | Dataset,
    *,
    differs_in: str | None = None,
    min_gap: float | None = None,
    balance_length: bool = False,
    length: Callable[[str], int] = len,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    guess: Callable[[str], str] = guess_language,
) -> tuple[Dataset, dict[str, Any]]:
    """As load_preferences, with what each filter dropped: {"filters": [{"name", "dropped", "examples"}], "kept",
    "seen"}.

    `seen` counts pairs, of which a row of PKU-SafeRLHF holds two.
    """
    if differs_in not in (None, *DIFFERENCES):
        raise ValueError(
            f"unknown difference {differs_in!r}: expected one of {', '.join(DIFFERENCES)}, or None for all"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, got {limit}; leave it out for all pairs")
    rows, label = open_source(source, split=split, name=name)
    layout = _layout(rows.column_names, PAIR_LAYOUTS, label)
    drops = Drops()
    pairs = _different(layout.read(rows, _Asked(differs_in, min_gap, SPLIT_ALIASES.get(split, split)), drops), drops)
    kept: list[Pair] = []
    for pair in pairs:
        kept.append(pair if pair.language else replace(pair, language=guess(pair.prompt[-1]["content"])))
        if len(kept) == limit and not balance_length:
            break
    if balance_length:
        kept = _balanced(kept, length, drops)[:limit]
    if not kept:
        raise ValueError(_nothing_left(label, layout.name, differs_in, drops))
    return _pair_dataset(kept), drops.as_dict(len(kept))


def load_safety_labels(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    guess: Callable[[str], str] = guess_language,
) -> Dataset:
    """Single responses with a verdict: prompt (a conversation), response (a text), safe, family, language, id.

    From PKU-SafeRLHF's columns (two responses a row), BeaverTails' (prompt, response, is_safe), or our own. A response
    that came before, and an empty or unlabelled one, is dropped; the log says so, and `read_safety_labels` returns it.
    Errors as load_preferences.
    """
    labels, report = read_safety_labels(source, split=split, name=name, limit=limit, guess=guess)
    log_drops(source, report)
    return labels


def read_safety_labels(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    name: str | None = None,
    limit: int | None = None,
    guess: Callable[[str], str] = guess_language,
) -> tuple[Dataset, dict[str, Any]]:
    """As load_safety_labels, with what each filter dropped, as read_preferences. `seen` counts responses, of which a
    row of PKU-SafeRLHF holds two."""
    from datasets import Dataset, Features, Value

    rows, label = open_source(source, split=split, name=name)
    layout = _layout(rows.column_names, LABEL_LAYOUTS, label)
    drops = Drops()
    seen: dict[str, bool] = {}
    kept: list[dict[str, Any]] = []
    for row in rows_of(rows):
        for response, label_given in layout.read(row):
            if limit is not None and len(kept) == limit:
                break
            drops.seen += 1
            prompt, text = _turns(row.get("prompt")), _text(response)
            if not prompt or not text:
                drops.drop("empty", row)
                continue
            safe = read_flag(label_given)
            if safe is None:
                drops.drop("without a label", row)
                continue
            identity = content_hash("label", (_plain(prompt), text))
            if identity in seen:
                drops.drop("seen before" if seen[identity] == safe else "seen before with another label", text)
                continue
            seen[identity] = safe
            language = read_language(row.get("language")) or guess(prompt[-1]["content"])
            kept.append(
                {
                    "prompt": prompt,
                    "response": text,
                    "safe": safe,
                    "family": layout.name,
                    "language": language,
                    "id": identity,
                }
            )
    if not kept:
        raise ValueError(f"{label}: none of its {drops.seen} responses has a safety label. {drops}")
    types = {"prompt": _turns_type(), "safe": Value("bool")}
    columns = ("prompt", "response", "safe", "family", "language", "id")
    features = Features({column: types.get(column, Value("string")) for column in columns})
    labels = Dataset.from_dict({column: [row[column] for row in kept] for column in columns}, features=features)
    return labels, drops.as_dict(len(kept))


def _nothing_left(label: str, layout: str, differs_in: str | None, drops: Drops) -> str:
    if not drops.seen:
        return (
            f"{label}: no pairs of {differs_in or 'any difference'} in it (its columns are those of {layout}); take a "
            "set that says what its pairs differ in, as PKU-SafeRLHF's columns and a column differs_in do"
        )
    equal = sum(drops.counts[name] for name in (SAME_TEXT, NO_PREFERENCE))
    if equal == drops.seen:
        return (
            f"{label}: in all {drops.seen} pairs the two answers are equal or neither is preferred, so there is "
            f"nothing to learn. {drops}. Check that the columns for chosen and rejected (or the scores) are the right "
            "ones"
        )
    return f"{label}: no pair left of {drops.seen} ({layout}). {drops}"


SAME_TEXT, NO_PREFERENCE = "with equal answers", "without a preference"


def _different(pairs: Iterator[Pair], drops: Drops) -> Iterator[Pair]:
    seen: set[str] = set()
    for pair in pairs:
        if " ".join(pair.chosen.split()) == " ".join(pair.rejected.split()):
            drops.drop(SAME_TEXT, pair.chosen)
        elif pair.id in seen:
            drops.drop("seen before", _plain(pair.prompt))
        else:
            seen.add(pair.id)
            yield pair


def _balanced(pairs: Sequence[Pair], length: Callable[[str], int], drops: Drops) -> list[Pair]:
    """Of each difference, language and power of two of the gap in length, as many longer chosen as shorter ones.

    The first ones stay, so that the same pairs are kept in every run.
    """
    gaps = [length(pair.chosen) - length(pair.rejected) for pair in pairs]
    places = [(pair.differs_in, pair.language, gap.bit_length()) for pair, gap in zip(pairs, gaps, strict=True)]
    counts = Counter((place, gap > 0) for place, gap in zip(places, gaps, strict=True) if gap)
    left = {(place, side): min(counts[place, True], counts[place, False]) for place, side in counts}
    kept = []
    for pair, place, gap in zip(pairs, places, gaps, strict=True):
        if gap:
            if not left[place, gap > 0]:
                drops.drop("for equal lengths", pair.chosen)
                continue
            left[place, gap > 0] -= 1
        kept.append(pair)
    return kept


def _turns_type() -> Any:
    from datasets import List, Value

    return List({"role": Value("string"), "content": Value("string")})


def _pair_dataset(pairs: Sequence[Pair]) -> Dataset:
    from datasets import Dataset, Features, Value

    columns = {
        "prompt": [pair.prompt for pair in pairs],
        "chosen": [[{"role": "assistant", "content": pair.chosen}] for pair in pairs],
        "rejected": [[{"role": "assistant", "content": pair.rejected}] for pair in pairs],
        "differs_in": [pair.differs_in for pair in pairs],
        "family": [pair.family for pair in pairs],
        "language": [pair.language for pair in pairs],
        "id": [pair.id for pair in pairs],
        "kept_because": [pair.kept_because for pair in pairs],
    }
    types = dict.fromkeys(("prompt", "chosen", "rejected"), _turns_type())
    return Dataset.from_dict(columns, features=Features({name: types.get(name, Value("string")) for name in columns}))


# --- Layouts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What the caller wants of a set."""

    differs_in: str | None
    min_gap: float | None
    split: str

    def wants(self, difference: str) -> bool:
        return self.differs_in in (None, difference)

    def check_gap(self, better: float, worse: float, default: float = 0.0) -> None:
        least = default if self.min_gap is None else self.min_gap
        if better == worse:
            raise _Skip(NO_PREFERENCE)
        if better - worse <= least:
            raise _Skip(f"not more than {least:g} apart in score")


@dataclass(frozen=True)
class _Layout:
    name: str
    columns: tuple[str, ...]
    """All of them must be there."""
    read: Callable[..., Any]


def _layout(names: Sequence[str], layouts: Sequence[_Layout], label: str) -> _Layout:
    """The first layout whose columns are all there."""
    found = next((layout for layout in layouts if set(layout.columns) <= set(names)), None)
    if found is None:
        understood = "; ".join(f"{layout.name} ({', '.join(layout.columns)})" for layout in layouts)
        other = LABEL_LAYOUTS if layouts is PAIR_LAYOUTS else PAIR_LAYOUTS
        elsewhere = next((layout for layout in other if set(layout.columns) <= set(names)), None)
        function = "load_safety_labels" if layouts is PAIR_LAYOUTS else "load_preferences"
        hint = f" These are the columns of {elsewhere.name}: read it with {function}." if elsewhere else ""
        raise ValueError(
            f"{label} has the columns {', '.join(names)}, which are those of no known layout. Understood: {understood}."
            f"{hint} Rename the columns (Dataset.rename_columns) to one of these"
        )
    return found


_ReadRow = Callable[[Mapping[str, Any], _Asked], list[tuple[str, Callable[[], Pair]]]]
"""Gives for each pair that a row may hold its difference, and a function that makes it or raises _Skip."""


def _row_by_row(read: _ReadRow) -> Callable[..., Iterator[Pair]]:
    """A reader of a whole set from one of a row."""

    def read_all(rows: Dataset, asked: _Asked, drops: Drops) -> Iterator[Pair]:
        for row in rows_of(rows):
            for difference, make in read(row, asked):
                if not asked.wants(difference):
                    continue
                drops.seen += 1
                try:
                    pair = make()
                except _Skip as skip:
                    drops.drop(str(skip), row)
                    continue
                yield pair

    return read_all


def _pair(
    row: Mapping[str, Any],
    prompt: object,
    chosen: object,
    rejected: object,
    family: str,
    kept_because: str,
    differs_in: str = "helpfulness",
) -> Pair:
    turns, good, bad = _turns(prompt), _text(chosen), _text(rejected)
    if not turns:
        raise _Skip("without a readable prompt")
    if not good or not bad:
        raise _Skip("with an empty answer")
    return Pair(
        prompt=turns, chosen=good, rejected=bad, differs_in=differs_in, family=family, kept_because=kept_because,
        language=read_language(row.get("language")) or "",
    )  # fmt: skip


def _apart(better: float, worse: float) -> str:
    return f"scores {better:g} > {worse:g}"


def _read_binarized(row: Mapping[str, Any], asked: _Asked) -> list[tuple[str, Callable[[], Pair]]]:
    """What the pairs differ in stands in the set, if it is ours. Scores are of helpfulness, and a row that leaves its
    differs_in empty says nothing else; of a set without either the caller knows it."""
    ours = row.get("differs_in") in DIFFERENCES
    scores = [row.get("score_chosen"), row.get("score_rejected")]
    better, worse = map(_score, scores)
    untold = better is None and worse is None and "differs_in" not in row
    difference = str(row["differs_in"]) if ours else (asked.differs_in if untold else None) or "helpfulness"
    family = str(row["family"]) if ours and row.get("family") else "chosen and rejected"

    def pair() -> Pair:
        chosen, rejected = _turns(row["chosen"], "assistant"), _turns(row["rejected"], "assistant")
        if not chosen or not rejected or {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
            raise _Skip("with an empty answer")
        if chosen[:-1] != rejected[:-1]:
            raise _Skip("whose answers have different prompts")
        if any(_score(given) is None for given in scores if given not in (None, "")):
            raise _Skip("whose scores are no finite numbers")
        why = str(row.get("kept_because") or "chosen in its set")
        if better is not None and worse is not None:
            if better < worse:
                raise _Skip("whose rejected answer has the better score")
            asked.check_gap(better, worse)
            why = _apart(better, worse)
        prompt = chosen[:-1] or row.get("prompt")
        return _pair(row, prompt, chosen[-1]["content"], rejected[-1]["content"], family, why, difference)

    return [(difference, pair)]


def _read_ultrafeedback(row: Mapping[str, Any], asked: _Asked) -> list[tuple[str, Callable[[], Pair]]]:
    def pair() -> Pair:
        scored = [
            (score, one.get("response")) for one in row["completions"] or () if (score := _rating(one)) is not None
        ]
        if len(scored) < 2:
            raise _Skip("with fewer than two scored answers")
        best, worst = max(scored, key=lambda one: one[0]), min(scored, key=lambda one: one[0])
        asked.check_gap(best[0], worst[0], MIN_GAP)
        return _pair(row, row["instruction"], best[1], worst[1], "UltraFeedback", _apart(best[0], worst[0]))

    return [("helpfulness", pair)]


def _rating(completion: Mapping[str, Any]) -> float | None:
    """The mean of the four aspects (1 to 5), else the overall score: of that the set is known to hold 10 for a 1."""
    for name in ("fine-grained_score", "fine_grained_score", "overall_score", "score"):
        if (score := _score(completion.get(name))) is not None:
            return score
    ratings = [_score(one.get("Rating")) for one in (completion.get("annotations") or {}).values() if one]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known else None


def _read_graded(rows: Dataset, asked: _Asked, drops: Drops) -> Iterator[Pair]:
    """HelpSteer2: the responses to a prompt stand in rows of their own."""
    if not asked.wants("helpfulness"):
        return
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows_of(rows):
        groups.setdefault(json.dumps(row["prompt"], ensure_ascii=False), []).append(row)
    for group in groups.values():
        drops.seen += 1
        scored = [(score, row) for row in group if (score := _score(row["helpfulness"])) is not None]
        try:
            if len(scored) < 2:
                raise _Skip("with fewer than two scored answers")
            best, worst = max(scored, key=lambda one: one[0]), min(scored, key=lambda one: one[0])
            asked.check_gap(best[0], worst[0])
            why = _apart(best[0], worst[0])
            pair = _pair(best[1], best[1]["prompt"], best[1]["response"], worst[1]["response"], "HelpSteer2", why)
        except _Skip as skip:
            drops.drop(str(skip), group[0])
            continue
        yield pair


def _read_strength(family: str, prompt: str, first: str, second: str, strength: str) -> _ReadRow:
    """Two responses and by how much the second is the better one, negative where the first is."""

    def read(row: Mapping[str, Any], asked: _Asked) -> list[tuple[str, Callable[[], Pair]]]:
        def pair() -> Pair:
            if row.get("split") in SPLIT_WORDS and SPLIT_ALIASES.get(row["split"], row["split"]) != asked.split:
                raise _Skip("of another split")  # HelpSteer2 has one file for all
            by = _score(row[strength])
            if by is None:
                raise _Skip(NO_PREFERENCE)
            asked.check_gap(abs(by), 0.0)
            chosen, rejected = (row[first], row[second]) if by < 0 else (row[second], row[first])
            return _pair(row, row[prompt], chosen, rejected, family, f"{strength} {by:g}")

        return [("helpfulness", pair)]

    return read


def _read_safe_rlhf(row: Mapping[str, Any], asked: _Asked) -> list[tuple[str, Callable[[], Pair]]]:
    return [
        (difference, functools.partial(_safe_rlhf_pair, row, column, difference))
        for column, difference in (("better_response_id", "helpfulness"), ("safer_response_id", "harmlessness"))
        if column in row
    ]


def _safe_rlhf_pair(row: Mapping[str, Any], column: str, difference: str) -> Pair:
    """Of responses that are both safe, or both unsafe, the safer one is no answer to imitate: no pair."""
    preferred = _score(row[column])
    if preferred not in (0, 1):
        raise _Skip(NO_PREFERENCE)
    chosen = int(preferred)
    safe = [read_flag(row.get(f"is_response_{n}_safe")) for n in (0, 1)]
    if difference == "harmlessness" and None not in safe:
        if safe[0] == safe[1]:
            raise _Skip("whose answers are both safe or both unsafe")
        if not safe[chosen]:
            raise _Skip("whose safer answer is labelled unsafe")
    answers = row[f"response_{chosen}"], row[f"response_{1 - chosen}"]
    why = f"{column} {chosen}" + ("" if None in safe else f", {_verdict(safe[chosen])} > {_verdict(safe[1 - chosen])}")
    return _pair(row, row["prompt"], *answers, "PKU-SafeRLHF", why, difference)


def _verdict(safe: bool | None) -> str:
    return "safe" if safe else "unsafe"


_STRENGTHS = (  # family, prompt, first, second, strength
    ("HelpSteer2 preferences", "prompt", "response_1", "response_2", "preference_strength"),
    ("HelpSteer3", "context", "response1", "response2", "overall_preference"),
)

PAIR_LAYOUTS = (
    _Layout("chosen and rejected", ("chosen", "rejected"), _row_by_row(_read_binarized)),
    _Layout("UltraFeedback", ("instruction", "completions"), _row_by_row(_read_ultrafeedback)),
    *(
        _Layout("PKU-SafeRLHF", ("prompt", "response_0", "response_1", column), _row_by_row(_read_safe_rlhf))
        for column in ("better_response_id", "safer_response_id")
    ),
    *(_Layout(family, tuple(names), _row_by_row(_read_strength(family, *names))) for family, *names in _STRENGTHS),
    _Layout("HelpSteer2", ("prompt", "response", "helpfulness"), _read_graded),
)


def _labels_of_two(row: Mapping[str, Any]) -> list[tuple[object, object]]:
    return [(row[f"response_{n}"], row[f"is_response_{n}_safe"]) for n in (0, 1)]


def _label_of_one(column: str) -> Callable[[Mapping[str, Any]], list[tuple[object, object]]]:
    return lambda row: [(row["response"], row[column])]


LABEL_LAYOUTS = (
    _Layout(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        _labels_of_two,
    ),
    _Layout("BeaverTails", ("prompt", "response", "is_safe"), _label_of_one("is_safe")),
    _Layout("single responses", ("prompt", "response", "safe"), _label_of_one("safe")),
)


# --- Values -----------------------------------------------------------------------------------------------------------

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def _turns(value: object, role: str = "user") -> Turns:
    """A conversation from messages or from a text, which is one turn of `role`; [] for what cannot be read.

    HelpSteer2 writes earlier turns into the prompt, behind <extra_id_1>.
    """
    if isinstance(value, str):
        if role == "user" and _NEXT_TURN.search(value):
            first, *rest = _NEXT_TURN.split(value)
            parts = [("user", first), *zip((name.lower() for name in rest[::2]), rest[1::2], strict=True)]
            return [{"role": name, "content": text.strip()} for name, text in parts if text.strip()]
        return [{"role": role, "content": value.strip()}] if value.strip() else []
    if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        return []
    turns = []
    for turn in value:
        who = _ROLES.get(str(turn.get("role") or turn.get("from")).lower())
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if who is None or not isinstance(content, str):
            return []
        turns.append({"role": who, "content": content.strip()})
    return turns


_NEXT_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")


def _text(value: object) -> str:
    """An answer: a text, or the last message of a conversation."""
    turns = _turns(value, "assistant")
    return turns[-1]["content"] if turns else ""


def _plain(turns: Turns) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _score(value: object) -> float | None:
    """A finite number, also from its text, as CSV and UltraFeedback's ratings have it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value)
    except ValueError:
        return None
    return score if math.isfinite(score) else None
