"""What a source's values mean: the question, the gold answer, the difficulty, the numbers, the language.

Each function takes a value of any type, as it stands in a row, and gives None (or the documented stand-in) for one that
it cannot read; data.loading counts those. Nothing here evaluates a text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

UNKNOWN_DIFFICULTY = 0
"""Difficulty of a problem whose source does not grade it (1 is easy, 5 is hard)."""

LONGEST_PLAIN_SOLUTION = 200
"""Characters. A `solution` without \\boxed{} or #### is a gold answer up to here, and a worked text beyond."""

NO_GOLD = {"", "notfound", "proof"}
"""Gold texts that stand for no gold answer (NuminaMath's words, which Open-R1's sets inherit)."""

PROMPT_WRAPPERS = (
    (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
        'Remember to put your answer on its own line after "Answer:".',
    ),
)
"""Instructions that DAPO-Math-17k puts around each problem. Our templates give their own, and 10-gram decontamination
would take the shared words for overlap."""


def read_problem(value: object) -> str | None:
    """The question: a text, or the one user message of a conversation. None for several turns, and for no text.

    >>> read_problem([{"role": "system", "content": "Be brief."}, {"role": "user", "content": " What is 2 + 3? "}])
    'What is 2 + 3?'
    """
    if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value):
        turns = [turn.get("content") for turn in value if turn.get("role", turn.get("from")) in ("user", "human")]
        value = turns[0] if len(turns) == 1 else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    for before, after in PROMPT_WRAPPERS:
        if text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            text = text[len(before) : -len(after)].strip()
    return text or None


def read_gold(value: object, may_be_worked: bool = False) -> str | None:
    r"""The gold answer in a value: the last \boxed{}, else what follows #### on the last line, else all of it; or None.

    may_be_worked: the text may be a worked solution; without a mark, one that is long or has several lines gives None.

    >>> read_gold("48 + 24 = 72 clips.\n#### 1,072"), read_gold(r"So $x = \boxed{\frac{1}{2}}$."), read_gold(7.0)
    ('1072', '\\frac{1}{2}', '7')
    """
    text = _gold_text(value)
    if text is None:
        return None
    if re.search(r"\\(boxed|fbox|framebox)\b", text):
        text = last_boxed(text) or ""
    elif marked := re.search(r"####[ \t]*([^\n]+)\Z", text):
        text = marked.group(1).strip()
        text = text.replace(",", "") if re.fullmatch(r"[-+]?\$?\d{1,3}(,\d{3})+(\.\d+)?%?", text) else text
    elif may_be_worked and (len(text) > LONGEST_PLAIN_SOLUTION or "\n" in text):
        return None
    return None if text.lower() in NO_GOLD else text


def _gold_text(value: object) -> str | None:
    """A value as text. A list gives its only item; with several, no one of them is known to be the answer."""
    if isinstance(value, str) and value.startswith('["') and value.endswith('"]'):
        value = _parse_json(value, otherwise=value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | float) else None


def _parse_json(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return otherwise


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{...} (or \fbox, \framebox) holds, braces nested; None if it is empty or never closes.

    >>> last_boxed(r"\boxed{1} then \boxed{\frac{a}{b}}"), last_boxed(r"\boxed 7$."), last_boxed(r"\boxed{\{1, 2\}}")
    ('\\frac{a}{b}', '7', '\\{1, 2\\}')
    """
    start = max((match.end() for match in re.finditer(r"\\(?:boxed|fbox|framebox)\b\s*", text)), default=None)
    if start is None:
        return None
    if not text.startswith("{", start):
        bare = re.match(r"[^\s${}]+", text[start:])
        return bare.group().rstrip(".,;") or None if bare else None
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[start + 1 : match.start()].strip() or None
    return None


def read_numbers(value: object) -> list[int]:
    """Countdown's numbers: a list of integers, or its text (as CSV has it); [] for anything else."""
    if isinstance(value, str):
        value = _parse_json(value, otherwise=None)
    if not isinstance(value, list) or not all(isinstance(item, int | float) and item == item // 1 for item in value):
        return []
    return [int(item) for item in value]


def read_difficulty(value: object) -> int:
    """1 (easy) to 5 (hard), from a number, "Level 3" (MATH) or a word; UNKNOWN_DIFFICULTY for anything else."""
    if isinstance(value, str):
        words = {"easy": 1, "medium": 3, "hard": 5}
        digits = re.fullmatch(r"(?:level\s*)?(\d)", value.strip().lower())
        value = int(digits.group(1)) if digits else words.get(value.strip().lower())
    if isinstance(value, int | float) and value in (1, 2, 3, 4, 5):
        return int(value)
    return UNKNOWN_DIFFICULTY


def read_name(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


# fmt: off
LANGUAGE_CODES = frozenset((
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu",
    "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "ta",
    "te", "th", "tr", "uk", "ur", "vi", "zh",
))
# fmt: on
LANGUAGE_NAMES = {"english": "en", "korean": "ko", "chinese": "zh", "japanese": "ja"}


def read_language(value: object) -> str | None:
    """A language code from a source's column ("en", "zh-CN", "English"); None for others, such as "python"."""
    text = (read_name(value) or "").lower()
    code = LANGUAGE_NAMES.get(text, re.split(r"[-_]", text)[0])
    return code if code in LANGUAGE_CODES else None


def read_flag(value: object) -> bool | None:
    """A truth value, also as 0 and 1 or from its text, as CSV has it."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int) and value in (0, 1) else None


def guess_language(text: str) -> str:
    """The language by its script: "ko", "ja", "zh", else "en". A character of those weighs as three Latin letters."""
    text = re.sub(r"\\[A-Za-z]+", "", text)
    latin = len(re.findall(r"[A-Za-z]", text))
    for language, script in (("ko", "[가-힣]"), ("ja", "[ぁ-ヿ]"), ("zh", "[一-鿿]")):
        count = len(re.findall(script, text))
        if language == "ja" and count:
            count += len(re.findall("[一-鿿]", text))
        if count and 3 * count >= latin:
            return language
    return "en"
