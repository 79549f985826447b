r"""Where the answer stands in a completion.

Strict (training): what follows the last `</think>`; in it the content of `<answer>…</answer>`, the tags of
DeepSeek-R1-Zero (arXiv:2501.12948v1, table 1); inside that the last `\boxed{}` if there is one, as the R1 evaluation
prompts ask for. Without answer tags a `\boxed{}` counts too, but only outside the reasoning: after `</think>`, or in a
completion that has no think tags at all (mathematics data sets and instruct models). A reasoning that is still open
holds no answer.

The last word counts: of several `<answer>` blocks or boxes the last. Boxes that only a comma, "and", "or" or a
"perhaps" joins are one answer, the list of their contents, so that a guess in each earns nothing.

On request (`phrases=True`) what follows the last "The answer is", "####" or "A:" counts where nothing is marked.

Lenient (evaluation only): the answer a text finally settles on, wherever it stands. A right value that the text states
midway and then leaves for another does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.exact import last_number, strip_delimiters
from rewards.tasks import TASKS

MAX_BOX_LENGTH = 4_000
"""Characters; a `\\boxed{` that is not closed within them is not read."""
LENIENT_WINDOW = 4_000
"""Characters at the end of a completion that lenient extraction reads."""

ANSWER_PHRASE = re.compile(r"(?:answer\W{0,4}(?:is\b|:)|정?답\s?(?:은|:|은:))[\s:*]*|<answer>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>")


MAX_JOINED = 20
"""Boxes that are read as one list; a longer list is wrong all the same."""
MAX_JOINT = 80
"""Characters between two boxes of one list."""

_JOINT = re.compile(
    r"(?:\s|\$|\\[()\[\],;:]|\\q?quad(?![A-Za-z])|\\(?:text|textbf|mathrm)\s*\{|[{}.,;/&*]|\b(?:and|or)\b)*",
    re.IGNORECASE,
)
_MAYBE = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|alternatively|either|might|could|may|option|otherwise|another|guess|vs|versus|others)\b"
    r"|\b(?:answer|choice|candidate|possibility|solution)\s+(?:[A-Z]|\d|two|second)\b"
    r"|^[^.!?\n]*\b(?:if|unless|case|depending|whether)\b[^.!?\n]*$",
    re.IGNORECASE,
)
"""Words between two boxes that leave it open which one is meant; a condition does within one sentence."""
_OPEN = re.compile(
    r"\b(?:if not|either|(?:can't|cannot|can not) (?:tell|decide|say)|torn|unsure|hesitate|between)\b",
    re.IGNORECASE,
)
"""Words before the first of two boxes in one sentence that leave it open."""
_CORRECTS = re.compile(
    r"\b(?:wait|no|not|sorry|actually|rather|instead|correct\w*|mistake|wrong|oops)\b", re.IGNORECASE
)
_PHRASE = re.compile(r"####|(?:\banswer\W{0,4}(?:is\b|=|:)|^\W{0,4}A:)[\s:*]*", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"\n|[.!?]\s+(?=[A-Z])|</|<\|")


def extract_answer(completion: str, phrases: bool = False) -> str | None:
    r"""The marked answer of a completion, or None. Strict, see the module's first lines; linear in the length.

    >>> extract_answer("<think>6*7</think><answer> 42 </answer>")
    '42'
    >>> extract_answer(r"<think>so \boxed{41}</think>Thus \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_answer(r"It is \boxed{41} or \boxed{42}."), extract_answer(r"\boxed{41}. No, wait, \boxed{42}")
    ('41, 42', '42')
    >>> extract_answer(r"<think>I guess \boxed{41}") is None
    True
    >>> extract_answer("The answer is 42."), extract_answer("The answer is 42.", phrases=True)
    (None, '42')
    """
    final = after_thinking(completion)
    if final is None:
        return None
    marked = _last_tagged(final)
    if marked is None:
        return boxed_answer(final) or (_after_phrase(final) if phrases else None)
    return boxed_answer(marked) or marked.strip() or None


def _after_phrase(text: str) -> str | None:
    """The rest of the sentence after the last phrase that announces an answer."""
    window = text[-LENIENT_WINDOW:]
    starts = [match.end() for match in _PHRASE.finditer(window)]
    if not starts:
        return None
    rest = window[starts[-1] :].lstrip()
    return strip_delimiters(_SENTENCE_END.split(rest, maxsplit=1)[0].strip("* ")) or None


def after_thinking(completion: str) -> str | None:
    """What follows the last `</think>`; the whole completion if it has no think tags; None if the reasoning is still
    open.
    """
    _, closed, after = completion.rpartition("</think>")
    if not closed and "<think>" in completion:
        return None
    return after.partition("<think>")[0]


def _last_tagged(text: str) -> str | None:
    """The content of the last complete `<answer>…</answer>`."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end] if start >= 0 else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` that is not empty, braces nested to any depth; None if that one is never
    closed.

    >>> last_boxed(r"\boxed{1} and \boxed{\{2, \sqrt{3}\}}, to be put into \boxed{}")
    '\\{2, \\sqrt{3}\\}'
    """
    end = len(text)
    while (start := text.rfind(r"\boxed", 0, end)) >= 0:
        content = _braced(text, start + len(r"\boxed"))
        if content != "":
            return content
        end = start
    return None


def boxed_answer(text: str) -> str | None:
    r"""What the last box says: its content, or, where boxes follow one another without a correction, their contents as
    one list. `\fbox{}` counts as a box, and so does `\boxed 42`.

    >>> boxed_answer(r"$\boxed{x=1}$ and $\boxed{y=2}$"), boxed_answer(r"\boxed{42}, that is \boxed{42}")
    ('x=1, y=2', '42')
    """
    if r"\fbox" in text:
        text = text.replace(r"\fbox", r"\boxed")
    last = last_boxed(text)
    if last is None:
        bare = list(_BARE_BOX.finditer(text[-LENIENT_WINDOW:]))
        return bare[-1][1].rstrip(".") or None if bare else None
    start, contents = text.rfind(r"\boxed"), [last]
    while (content := _braced(text, start + len(r"\boxed"))) == "":
        start = text.rfind(r"\boxed", 0, start)
    while len(contents) < MAX_JOINED:
        before = text.rfind(r"\boxed", max(0, start - MAX_BOX_LENGTH - MAX_JOINT), start)
        content = _braced(text, before + len(r"\boxed")) if before >= 0 else None
        if not content:
            break
        end = text.find(content, before + len(r"\boxed")) + len(content)
        between = text[end:start].lstrip().removeprefix("}")  # nested boxes do not follow one another
        lead = re.split(r"[.!?\n]", text[max(0, before - MAX_JOINT) : before])[-1]
        if end > start or not _joins(lead, between):
            break
        contents.append(content)
        start = before
    distinct = list(dict.fromkeys("".join(content.split()) for content in reversed(contents)))
    return last if len(distinct) == 1 else ", ".join(reversed(contents))


_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\,]{1,40})")


def _joins(lead: str, between: str) -> bool:
    """Whether what stands between two boxes, or before them in their sentence, makes them one answer: a comma, "and",
    "or", or a guess."""
    if len(between) > MAX_JOINT:
        return False
    if _JOINT.fullmatch(between):
        return True
    undecided = _MAYBE.search(between) or (_OPEN.search(lead) and not re.search(r"[.!?\n]", between))
    return bool(undecided) and not _CORRECTS.search(between)


def _braced(text: str, start: int) -> str | None:
    """The stripped content of the braces that open at `start`; an escaped brace is text. None if none open there or
    none close.
    """
    window = text[start : start + MAX_BOX_LENGTH]
    opening = len(window) - len(window.lstrip())
    if not window[opening:].startswith("{"):
        return None
    depth, position = 0, opening
    while position < len(window):
        character = window[position]
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return window[opening + 1 : position].strip()
        position += 2 if character == "\\" else 1
    return None


def extract_lenient(completion: str, task: str | None = None) -> str | None:
    r"""The answer a completion finally settles on, wherever it stands; for evaluation, not for training. Never raises.

    The strict answer if there is one. Else, in the last LENIENT_WINDOW characters (after the reasoning if anything
    stands there): the last `\boxed{}`; the text after the last "answer is", "answer:", "답은", "답:", "정답은" or
    "정답:"; the text after the last `=`; the last line. In that, a numeric task takes the last number, countdown the
    last expression (left of its `=`), ordering the last list.

    >>> extract_lenient("The answer is 41. No, wait: it is 42 apples.", "arithmetic")
    '42'
    >>> extract_lenient("First 4*5 = 20, then 4*5-3 = 17", "countdown")
    '4*5-3'
    """
    settle = TASKS[task].settle if task in TASKS else last_mathematics
    strict = extract_answer(completion)
    if strict is not None:
        return (settle(strict[-LENIENT_WINDOW:]) if task in TASKS else None) or strict
    for candidate in _candidates(completion, equals=task not in TASKS or TASKS[task].equals):
        if answer := settle(candidate):
            return answer
    return None


def _candidates(completion: str, equals: bool) -> Iterator[str]:
    """Texts that may hold the final answer, best first."""
    final = (completion.rpartition("</think>")[2].strip() or completion)[-LENIENT_WINDOW:]
    if boxed := last_boxed(final):
        yield boxed
    if phrases := list(ANSWER_PHRASE.finditer(final)):
        yield _TAG.sub("\n", final[phrases[-1].end() :]).strip()
    final = _TAG.sub("\n", final).strip()
    if equals and "=" in final:
        yield final.rpartition("=")[2].strip()
    yield final.rpartition("\n")[2].strip()
    yield final


_INLINE_LATEX = re.compile(r"\$([^$]+)\$|\\\(((?:[^\\]|\\[^)])*)\\\)|\\\[((?:[^\\]|\\[^\]])*)\\\]")
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|[가-힣]+")


def last_mathematics(text: str) -> str | None:
    """The last LaTeX formula of a text; else, if it is a sentence, its last number; else the text itself.

    >>> last_mathematics("It is $x$, or rather $2x$."), last_mathematics("about 7 metres"), last_mathematics("2x + 3.")
    ('2x', '7', '2x + 3')
    """
    formulas = [next(filter(None, match.groups()), "") for match in _INLINE_LATEX.finditer(text)]
    if formulas:
        return formulas[-1].strip() or None
    plain = strip_delimiters(text.replace("**", " "))
    if _PROSE_WORD.search(plain):
        return last_number(plain) or plain
    return plain or None
