"""Prompts and completions as plain text, whether they are strings or lists of messages, as TRL allows both."""

from __future__ import annotations

from collections.abc import Sequence

THINK_OPEN = "<think>"


def message_text(messages: str | Sequence[dict]) -> str:
    """A string as it is; of a conversation, the text of its last message (TRL's completions hold one, the assistant's).

    A content that is a list of parts gives its text parts, joined; None (a tool call) gives "". Raises TypeError for
    anything else.

    >>> message_text("42"), message_text([{"role": "assistant", "content": "42"}])
    ('42', '42')
    """
    if isinstance(messages, str):
        return messages
    if isinstance(messages, Sequence) and messages and isinstance(messages[-1], dict):
        content = messages[-1].get("content")
        if isinstance(content, list):
            return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        if content is None or isinstance(content, str):
            return content or ""
    kind = type(messages).__name__
    raise TypeError(
        "a prompt or completion is a str or a list of messages {'role': …, 'content': …}, "
        f"got {kind}: {messages!r:.80}"
    )


def with_prefill(prompt: str | Sequence[dict], completion: str | Sequence[dict]) -> str:
    """The completion's text, with the `<think>` that the prompt ends with, if it does: such a completion begins inside
    it.

    A `<think>` that a chat template appends unseen cannot be known here; render the prompt to text to have it counted.

    >>> with_prefill("1+1? Assistant: <think>", "2</think><answer>2</answer>")
    '<think>2</think><answer>2</answer>'
    """
    prefilled = bool(prompt) and message_text(prompt).rstrip().endswith(THINK_OPEN)
    return (THINK_OPEN if prefilled else "") + message_text(completion)


def column_of(name: str, values: Sequence | None, completions: Sequence) -> Sequence:
    """A column that a reward may do without: None a completion where it is not there. Raises ValueError for another
    length than that of the completions."""
    if values is None:
        return [None] * len(completions)
    if len(values) != len(completions):
        raise ValueError(f"{len(completions)} completions need as many values in {name!r}, got {len(values)}")
    return values
