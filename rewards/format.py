"""Format rewards: R1-Zero's tags, strict and graded, and R1's, reasoning and then a plain summary.

Source: DeepSeek-R1 (arXiv:2501.12948v1) section 2.2.2 and table 1 for R1-Zero, section 2.3.1 for R1. The paper does not
say how strict its check is. Ours asks for each tag exactly once, because a second `<answer>` would let a completion
give two answers, and for a reasoning that is not empty, because skipping it would be the cheapest way to comply.

A reasoning may talk about the tags. One that stands in code or in quotes is mentioned, not used, and counts as text:
inside closed ``` fences, in backticks or in quotation marks on one line, or directly between single quotes. The last
`</think>` ends the reasoning, as in `rewards.extraction`. In the answer every tag counts, mentioned or not: a quoted
second answer is a second answer. A `<think>` that the prompt ends with counts as the completion's beginning.

All checks are linear in the length: no pattern looks back, or scans past the next sign of its own kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.texts import THINK_OPEN, with_prefill

THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE = "</think>", "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
GRADE = 0.2
"""What `lenient_format_reward` gives for each of its five steps."""

_TAG = re.compile("</?(?:think|answer)>")
# A quotation mark behind a letter or digit closes, or means inches: it opens nothing.
_MENTION = re.compile(
    r"`[^`\n]+`"
    r'|(?<!\w)"[^"\n]*"'
    r"|“[^“”\n]*”|«[^«»\n]*»|「[^「」\n]*」|『[^『』\n]*』"
    r"|['‘]</?(?:think|answer)>['’]"
)


def format_reward(prompts: Sequence, completions: Sequence, **columns: object) -> list[float]:
    """1.0 for a completion in R1-Zero's format, else 0.0.

    >>> format_reward(["Q"] * 2, ["<think>why</think> <answer>42</answer>", "<think>why</think> 42"])
    [1.0, 0.0]
    """
    return [float(has_r1_format(with_prefill(*pair))) for pair in zip(prompts, completions, strict=True)]


def lenient_format_reward(prompts: Sequence, completions: Sequence, **columns: object) -> list[float]:
    """R1-Zero's format in steps of 0.2, for a base that would never hit all of it by chance; see `format_grade`.

    It also pays for half of the format: change to `format_reward` once most completions score 1.0.

    >>> lenient_format_reward(["Q"] * 2, ["<think>why</think> <answer>42</answer>", "<think>why</think> 42"])
    [1.0, 0.4]
    """
    return [format_grade(with_prefill(*pair)) for pair in zip(prompts, completions, strict=True)]


def think_format_reward(prompts: Sequence, completions: Sequence, **columns: object) -> list[float]:
    """1.0 for a completion in R1's format, reasoning in `<think>` and then a summary, else 0.0; see `has_think_format`.

    TRL's reward of this name also accepts an empty reasoning, an empty summary and several `</think>`.

    >>> think_format_reward(["Q"] * 2, ["<think>why</think> It is 42.", "<think>why</think><answer>42</answer>"])
    [1.0, 0.0]
    """
    return [float(has_think_format(with_prefill(*pair))) for pair in zip(prompts, completions, strict=True)]


def has_r1_format(text: str) -> bool:
    """Whether a text is `<think>…</think><answer>…</answer>`: each tag once and in order, neither part empty, only
    white space outside.

    >>> has_r1_format("<think>I close with `</think>`.</think><answer>42</answer>")
    True
    >>> has_r1_format("<think>why</think><answer>41 `<answer>42</answer>`</answer>")
    False
    """
    parts = _split_once(_hide_mentions_in_reasoning(text), TAGS)
    if parts is None:
        return False
    outside, reasoning, between, answer, after = parts
    return bool(reasoning and answer) and not (outside or between or after)


def format_grade(text: str) -> float:
    """0.2 for each of: `<think>` once and first; `</think>` once and ending a reasoning that is not empty; `<answer>`
    once and not in an open reasoning; `</answer>` once and ending an answer that is not empty; and, if all these hold,
    nothing outside the two parts. So 1.0 is exactly `has_r1_format`, and no text of tags alone comes past 0.4.

    >>> [format_grade(text) for text in ("42", "<answer>42</answer>", "<think></think><answer></answer>")]
    [0.0, 0.4, 0.4]
    """
    if has_r1_format(text):
        return 5 * GRADE
    text = _hide_mentions_in_reasoning(text)
    place = {tag: text.find(tag) if text.count(tag) == 1 else None for tag in TAGS}
    think_open, think_close, answer_open, answer_close = place.values()
    steps = (
        think_open is not None and not text[:think_open].strip(),
        _holds_text(text, think_open, THINK_OPEN, think_close),
        answer_open is not None and (THINK_OPEN not in text or 0 <= text.find(THINK_CLOSE) < answer_open),
        _holds_text(text, answer_open, ANSWER_OPEN, answer_close),
    )
    return round(GRADE * sum(steps), 1)


def has_think_format(text: str) -> bool:
    """Whether a text is `<think>reasoning</think>summary`: the two tags once and in order, neither part empty, nothing
    before it and no other tag in it, mentions apart.

    >>> has_think_format("<think>why</think>Write your reasons between `<think>` and `</think>`.")
    True
    """
    for candidate in (text, _hide_mentions(text)):
        parts = _split_once(candidate, (THINK_OPEN, THINK_CLOSE))
        if parts is not None:
            outside, reasoning, summary = parts
            if reasoning and summary and not outside and not _TAG.search(reasoning) and not _TAG.search(summary):
                return True
    return False


def reasoning_of(text: str) -> str:
    """What stands inside the think tags: up to the last `</think>`, or to the end while it is open; without think tags
    the whole text.

    >>> [reasoning_of(text) for text in ("<think>why</think>42", "<think>why, ", "why</think>42", "42")]
    ['why', 'why, ', 'why', '42']
    """
    reasoning, closed, after = text.rpartition(THINK_CLOSE)
    inside = reasoning if closed else after
    return inside.partition(THINK_OPEN)[2] if THINK_OPEN in inside else inside


def final_summary(text: str) -> str:
    """What a reader of the response gets, which is what helpfulness is judged on (DeepSeek-R1, section 2.3.4): the last
    `<answer>…</answer>` behind the reasoning, else all that follows the last `</think>`, else the whole text. "" while
    the reasoning is still open: such a response says nothing yet. Of an `<answer>` that never closes, what it holds.

    >>> [final_summary(text) for text in ("<think>why</think><answer> 42 </answer>", "why</think>It is 42.", "42")]
    ['42', 'It is 42.', '42']
    >>> final_summary("<think>so it is 42")
    ''
    """
    _, closed, after = text.rpartition(THINK_CLOSE)
    if not closed and THINK_OPEN in after:
        return ""
    end = after.rfind(ANSWER_CLOSE)
    start = after.rfind(ANSWER_OPEN, 0, end) if end >= 0 else after.rfind(ANSWER_OPEN)
    if start >= 0:
        after = after[start + len(ANSWER_OPEN) : end if end >= 0 else None]
    return after.strip()


def _split_once(text: str, tags: Sequence[str]) -> list[str] | None:
    """The stripped pieces between the tags, which must come once each and in this order; None if they do not."""
    if any(text.count(tag) != 1 for tag in tags):
        return None
    pieces = []
    for tag in tags:
        piece, found, text = text.partition(tag)
        if not found:
            return None
        pieces.append(piece.strip())
    return [*pieces, text.strip()]


def _holds_text(text: str, opening: int | None, tag: str, closing: int | None) -> bool:
    if opening is None or closing is None:
        return False
    content = text[opening + len(tag) : closing]
    return bool(content.strip()) and not _TAG.search(content)


def _hide_mentions_in_reasoning(text: str) -> str:
    reasoning, closed, after = text.rpartition(THINK_CLOSE)
    return _hide_mentions(reasoning) + closed + after


def _hide_mentions(text: str) -> str:
    """The text with the tags that stand in code or quotes replaced by a word. A ``` that is never closed is no code."""
    if not _TAG.search(text.lstrip().removeprefix(THINK_OPEN)):
        return text
    pieces = text.split("```")  # every second one is code, if another ``` follows it
    return "```".join(
        _TAG.sub("tag", piece) if number % 2 and number + 1 < len(pieces) else _MENTION.sub(_without_tags, piece)
        for number, piece in enumerate(pieces)
    )


def _without_tags(mention: re.Match[str]) -> str:
    return _TAG.sub("tag", mention[0])
