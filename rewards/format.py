"""The format reward of R1-Zero: reasoning inside `<think>` tags, then the answer inside `<answer>` tags, and nothing
else.

Source: DeepSeek-R1 (arXiv:2501.12948v1) section 2.2.2 and table 1. The paper does not say how strict its check is; ours
asks for each tag exactly once, because a second `<answer>` would let a completion give two answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.texts import with_prefill

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(prompts: Sequence, completions: Sequence, **columns: object) -> list[float]:
    """1.0 for a completion in R1-Zero's format, else 0.0. A prompt that ends with an open `<think>` counts as its
    beginning.

    >>> format_reward(["Q"] * 2, ["<think>why</think> <answer>42</answer>", "<think>why</think> 42"])
    [1.0, 0.0]
    """
    return [float(has_r1_format(with_prefill(*pair))) for pair in zip(prompts, completions, strict=True)]


def has_r1_format(text: str) -> bool:
    """Whether a text is `<think>…</think><answer>…</answer>`: each tag once and in order, neither part empty, only
    white space outside.

    Linear in the length: each tag is counted and split off once, no regular expression looks back.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    parts, rest = [], text
    for tag in TAGS:
        before, found, rest = rest.partition(tag)
        if not found:
            return False
        parts.append(before.strip())
    outside, reasoning, between, answer = parts
    return not outside and bool(reasoning) and not between and bool(answer) and not rest.strip()
