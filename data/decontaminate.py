"""Drop training problems that share a run of words with an evaluation set.

Source: DeepSeek-R1 (Nature article, supplement) drops training data with a 10-gram overlap with evaluation sets. The
paper leaves open what a word is: `split_words` decides it. A text too short to hold an n-gram is compared whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_SIZE = 1000
"""Training rows in memory at a time."""

EXAMPLES = 10
"""Dropped rows that a printed report shows."""


# --- Words


def split_words(text: str) -> list[str]:
    """The words of a text, after Unicode NFKC and case folding.

    A word is a run of letters, digits and combining marks. Chinese and Japanese, written without spaces, give a word
    for each character; Korean gives one for each space-separated word. A mathematical sign (+ = < ×) is a word, and so
    is - * / between spaces or right before a digit or bracket, for "3 + 4" is not "3 - 4". All else only separates.

    >>> split_words("Is 3 - 4 = -1? The well-known 김 씨는 三つ")
    ['is', '3', '-', '4', '=', '-', '1', 'the', 'well', 'known', '김', '씨는', '三', 'つ']
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _OPERATOR.sub(lambda match: _OPERATOR_SIGNS[match.group()], text)
    return text.translate(_SPACING).split()


_OPERATOR = re.compile(r"(?<!\S)[-*/](?!\S)|[-*/](?=[\d(])")
_OPERATOR_SIGNS = {"-": "\N{MINUS SIGN}", "*": "\N{MULTIPLICATION SIGN}", "/": "\N{DIVISION SIGN}"}
_UNSPACED = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Hiragana, katakana and Han."""


class _Spacing(dict[int, str]):
    """What str.translate puts for a character: itself, itself between spaces, or a space. Filled as characters come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Sm" or (category[0] in "LNM" and _UNSPACED.match(character)):
            spaced = f" {character} "
        else:
            spaced = character if category[0] in "LNM" else " "
        self[code] = spaced
        return spaced


_SPACING = _Spacing({ord(sign): f" {operator} " for operator, sign in _OPERATOR_SIGNS.items()})
_SPACING[ord("\N{FRACTION SLASH}")] = " / "  # what NFKC puts into ½


def word_ngrams(text: str, n: int) -> Iterator[str]:
    """Every run of n words, joined by spaces; of a text with fewer words, the whole; of one without words, nothing."""
    words = split_words(text)
    if words:
        for start in range(max(len(words) - n, 0) + 1):
            yield " ".join(words[start : start + n])


# --- Overlap


@dataclass(frozen=True, kw_only=True)
class Match:
    """Why one training row was dropped: the first run of words in it that an evaluation set has too."""

    id: str
    row: int
    column: str
    ngram: str
    evaluation: str
    """Name of the evaluation set."""
    evaluation_id: str
    evaluation_row: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What decontamination did. `str(report)` is for people, `report.as_dict()` for JSON."""

    n: int
    columns: tuple[str, ...]
    train_rows: int
    evaluation_rows: dict[str, int]
    """Rows of each evaluation set by its name."""
    matches: tuple[Match, ...]
    """One for each dropped row, in the order of the training set."""

    @property
    def kept(self) -> int:
        return self.train_rows - len(self.matches)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.kept, "dropped": len(self.matches)}

    def __str__(self) -> str:
        sets = ", ".join(f"{name} ({rows:,} rows)" for name, rows in self.evaluation_rows.items())
        counts = f"{len(self.matches):,} of {self.train_rows:,} training rows dropped, {self.kept:,} kept"
        lines = [f"{self.n}-gram overlap with {sets}: {counts}"]
        for match in self.matches[:EXAMPLES]:
            there = f"{match.evaluation} row {match.evaluation_row} ({match.evaluation_id})"
            lines.append(f'  row {match.row} ({match.id}) ~ {there}: "{match.ngram}"')
        if len(self.matches) > EXAMPLES:
            lines.append(f"  ... and {len(self.matches) - EXAMPLES:,} more")
        return "\n".join([*lines, *self._boilerplate()])

    def _boilerplate(self) -> list[str]:
        """A warning when one run of words is behind most drops: a shared instruction, rather than a shared problem."""
        [(ngram, count)] = Counter(match.ngram for match in self.matches).most_common(1) or [("", 0)]
        if count < EXAMPLES or 2 * count < len(self.matches):
            return []
        why = "an instruction that both sets repeat? Take it out of the texts"
        return [f'  "{ngram}" alone is behind {count:,} of them: {why}']


def decontaminate(
    train: Dataset,
    evaluation: Dataset | Sequence[Dataset],
    *,
    n: int = 10,
    columns: Sequence[str] = ("problem",),
    names: Sequence[str] | None = None,
) -> tuple[Dataset, Report]:
    """`train` without the rows that share a run of n words with an evaluation set, and a report of what went.

    The texts of all `columns` count, on both sides. names: what the report calls the evaluation sets. Memory grows with
    the words of the evaluation sets; `train` is streamed, and neither is changed. Raises ValueError for n < 1, a
    missing column, no evaluation set, or names that do not fit.
    """
    from datasets import Dataset

    sets = [evaluation] if isinstance(evaluation, Dataset) else list(evaluation)
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    names = [f"evaluation set {index}" for index in range(len(sets))] if names is None else list(names)
    _check(train, sets, n, columns, names)
    places = _index(sets, n, columns)
    matches, kept = [], []
    for row, texts in enumerate(_rows(train, columns)):
        found = _first_overlap(texts, n, places)
        if found is None:
            kept.append(row)
        else:
            column, ngram, (set_index, set_row) = found
            match = Match(
                id=_row_id(train, row),
                row=row,
                column=columns[column],
                ngram=ngram,
                evaluation=names[set_index],
                evaluation_id=_row_id(sets[set_index], set_row),
                evaluation_row=set_row,
            )
            matches.append(match)
    sizes = {name: len(rows) for name, rows in zip(names, sets)}
    report = Report(n=n, columns=columns, train_rows=len(train), evaluation_rows=sizes, matches=tuple(matches))
    return (train.select(kept) if matches else train), report


Place = tuple[int, int]
"""Evaluation set and row, by position."""


def _check(train: Dataset, sets: Sequence[Dataset], n: int, columns: Sequence[str], names: Sequence[str]) -> None:
    if n < 1:
        raise ValueError(f"n must be 1 or more words, got {n}; DeepSeek-R1 uses 10")
    if not sets or not columns:
        raise ValueError("decontamination needs an evaluation set and a column to compare")
    if len(set(names)) != len(sets):
        raise ValueError(f"names must be different and one for each of {len(sets)} evaluation sets, got {list(names)}")
    for what, rows in [("the training set", train), *zip(names, sets)]:
        for column in columns:
            if column not in rows.column_names:
                raise ValueError(f"{what} has no column {column!r}; it has {', '.join(rows.column_names)}")


def _index(sets: Sequence[Dataset], n: int, columns: Sequence[str]) -> dict[str, Place]:
    """Each run of words in the evaluation sets, and the first place that has it."""
    places: dict[str, Place] = {}
    for set_index, rows in enumerate(sets):
        for row, texts in enumerate(_rows(rows, columns)):
            for text in texts:
                for ngram in word_ngrams(text, n):
                    places.setdefault(ngram, (set_index, row))
    return places


def _first_overlap(texts: Sequence[str], n: int, places: dict[str, Place]) -> tuple[int, str, Place] | None:
    for column, text in enumerate(texts):
        for ngram in word_ngrams(text, n):
            if ngram in places:
                return column, ngram, places[ngram]
    return None


def _rows(rows: Dataset, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts of each row; a missing one is empty. Raises ValueError for what is no text."""
    for batch in rows.select_columns(list(columns)).with_format(None).iter(batch_size=BATCH_SIZE):
        for texts in zip(*(batch[column] for column in columns)):
            for column, text in zip(columns, texts):
                if text is not None and not isinstance(text, str):
                    raise ValueError(
                        f"column {column!r} holds a {type(text).__name__}, expected text; load the set first"
                    )
            yield tuple(text or "" for text in texts)


def _row_id(rows: Dataset, row: int) -> str:
    return str(rows[row]["id"]) if "id" in rows.column_names else str(row)
