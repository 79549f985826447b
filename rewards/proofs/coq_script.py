r"""Reading Coq text: sentences, and which of them a proof script may hold.

A script is data until it has passed here. Comments become blanks (so Coq never sees one, and cannot read it otherwise
than we do), the rest is cut into sentences, and a sentence is allowed only if it is a tactic: no command of Coq's
starts with a lower-case letter, so nothing that declares, redefines, loads, prints, sets or saves gets through,
whatever it is called. Where our reading and Coq's could part (a quoted full stop, two dots, control characters), the
script is refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rewards.proofs.verdicts import ProofKind

NEVER = {
    "admit": "admits a goal",
    "give_up": "admits a goal",
    "native_compute": "starts a compiler",
    "native_cast_no_check": "starts a compiler",
    "psatz": "starts another program",
    "par": "starts other processes; write all:",
}
"""Tactics that are refused, and what they do."""
_PROOF_COMMAND = re.compile(r"(?:Unshelve|Guarded)\.|Proof\s+with\s")
"""Commands that look at the proof, bring its goals back, or say what `...` does."""

_BLANK = " \t\r\n"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COMMENT_PART = re.compile(r'"(?:[^"]|"")*"|\(\*|\*\)')
_STRING = re.compile(r'"((?:[^"]|"")*)"')
_TWO_WAYS = re.compile(r"[\n\r]|\(\*|\*\)|\.(?:\s|$)")
_OUTSIDE = re.compile(r'"|\(\*')
_BULLET = re.compile(r"-+|\++|\*+")
_SELECTOR = re.compile(r"(?:\d+(?:\s*[-,]\s*\d+)*|\[\s*[\w']+\s*\]|all|!)\s*:(?!=)\s*")
_STOP = re.compile(r'"|\.+(?=[ \t\r\n]|$)')
_WORD = re.compile(r"[^\W\d][\w']*")
_QUALIFIED = re.compile(r"(?:[A-Z][\w']*\.)+[a-z_][\w']*")
_PROOF_USING = re.compile(r"Proof(?:\s+using\b[^.]*)?\.")


@dataclass(frozen=True)
class Sentence:
    """One sentence without comments, and where it stands: `start` of its first character, `end` after its last."""

    text: str
    start: int
    end: int


class ScriptError(Exception):
    """A place in a text that cannot be read, or may not stand there."""

    def __init__(self, offset: int, message: str, kind: ProofKind = ProofKind.FAILED):
        super().__init__(message)
        self.offset, self.message, self.kind = offset, message, kind


def sentences(text: str, trusted: bool = False) -> Iterator[Sentence]:
    r"""The sentences of a Coq text, bullets and braces as sentences of their own. Raises ScriptError where it stops
    being readable. trusted: of the data set, so that what could be read in two ways is read as Coq does.

    >>> [sentence.text for sentence in sentences("split. - (* a. b *) auto. 2: { idtac. }")]
    ['split.', '-', 'auto.', '2: {', 'idtac.', '}']
    """
    text, unreadable = _without_comments(text, trusted)
    start = _skip_blank(text, 0)
    while start < len(text):
        end = _sentence_end(text, start, trusted)
        if end is None:
            raise unreadable or ScriptError(start, "the last sentence has no full stop")
        yield Sentence(text[start:end], start, end)
        start = _skip_blank(text, end)
    if unreadable:
        raise unreadable


def _without_comments(text: str, trusted: bool) -> tuple[str, ScriptError | None]:
    """The text with each comment replaced by as many blanks, up to the first place that cannot be read, and that place:
    an open comment or string, and in a candidate's text a control character or a string that could be misread.

    >>> _without_comments("a (* b (* c *) *) d", trusted=False)
    ('a                 d', None)
    """
    control = None if trusted else _CONTROL.search(text)
    error = ScriptError(control.start(), f"the character {control.group()!r} may not stand here") if control else None
    text = text[: control.start()] if control else text
    result, position = [], 0
    while found := _OUTSIDE.search(text, position):
        result.append(text[position : found.start()])
        try:
            if found.group() == '"':
                position = _string_end(text, found.start(), trusted)
                result.append(text[found.start() : position])
            else:
                position = _comment_end(text, found.start())
                result.append(re.sub(r"[^\n]", " ", text[found.start() : position]))
        except ScriptError as earlier:
            return "".join(result), earlier
    return "".join(result) + text[position:], error


def _string_end(text: str, start: int, trusted: bool) -> int:
    string = _STRING.match(text, start)
    if string is None:
        raise ScriptError(start, "a string is never closed")
    if not trusted and _TWO_WAYS.search(string.group(1)):
        raise ScriptError(start, "a string may not hold a line break, a comment or the end of a sentence")
    return string.end()


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for part in _COMMENT_PART.finditer(text, start):
        depth += {"(*": 1, "*)": -1}.get(part.group(), 0)
        if depth == 0:
            return part.end()
    raise ScriptError(start, "a comment is never closed")


def _skip_blank(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _sentence_end(text: str, start: int, trusted: bool) -> int | None:
    if bullet := _BULLET.match(text, start):
        return bullet.end()
    selector = _SELECTOR.match(text, start)
    body = selector.end() if selector else start
    if text.startswith("{", body):
        return body + 1
    if text[start] == "}":
        return start + 1
    position = start
    while found := _STOP.search(text, position):
        if found.group() == '"':
            position = _string_end(text, found.start(), trusted)
        elif len(found.group()) in (1, 3):
            return found.end()
        elif trusted:  # two stand in recursive notations
            position = found.end()
        else:
            raise ScriptError(found.start(), "a sentence ends with one full stop, or with three")
    return None


def refusal(sentence: Sentence) -> ScriptError | None:
    """Why a sentence may not stand in a script; None if it is a tactic.

    >>> refusal(Sentence("intros n.", 0, 9)) is None
    True
    >>> refusal(Sentence("Axiom a : False.", 0, 16)).message
    'the command Axiom is not a tactic'
    """
    text = sentence.text
    if _BULLET.fullmatch(text) or text == "}":
        return None
    selector = _SELECTOR.match(text)
    body = text[selector.end() :] if selector else text
    first = _WORD.match(body)
    word = first.group() if first else body[:1]
    tactic = body[:1] in "{([" or word == "_" or word[:1].islower() or _QUALIFIED.match(body)
    if not tactic and (selector or not _PROOF_COMMAND.match(body)):
        if first or word == "#":
            return ScriptError(sentence.start, f"the command {word} is not a tactic", ProofKind.CHEATING)
        return ScriptError(sentence.start, f"no tactic begins with {word!r}")
    for found in _WORD.finditer(_STRING.sub(lambda match: " " * len(match.group()), text)):
        name = found.group()
        if name in NEVER and (name != "par" or re.match(r"\s*:", text[found.end() :])):
            return ScriptError(sentence.start + found.start(), f"{name} {NEVER[name]}", ProofKind.CHEATING)
    return None


@dataclass(frozen=True)
class Statement:
    """What a theorem claims, without its name. `binders` stand before the colon."""

    binders: str
    proposition: str

    def theorem(self, name: str) -> str:
        return f"Theorem {name} {self.binders} : {self.proposition}."

    def definition(self, name: str) -> str:
        """The claim as a term. `: Type` has Coq read it as it reads the type of a theorem."""
        return f"Definition {name} {self.binders} : Type := {self.proposition}."


_HEADER = re.compile(r"(?:Theorem|Lemma|Fact|Remark|Corollary|Proposition|Property|Example)\s+[\w']+(?=[\s:({\[])")
_OPENING, _CLOSING = "([{", ")]}"


def read_statement(text: str) -> Statement:
    """A statement as data sets spell it: a proposition, or `Theorem name binders : proposition.`, perhaps with `Proof.`

    Raises ScriptError for anything else.

    >>> read_statement("Lemma l (n : nat) : n = n. Proof.")
    Statement(binders='(n : nat)', proposition='n = n')
    >>> read_statement("forall n, n = n").theorem("t")
    'Theorem t  : forall n, n = n.'
    """
    parts = [_one_line(sentence.text) for sentence in sentences(text.rstrip().removesuffix(".") + ".", True)]
    if parts[1:] == ["Proof."]:
        parts = parts[:1]
    if len(parts) != 1 or parts == ["."]:
        raise ScriptError(0, f"a statement is one sentence, got {len(parts)}")
    body = parts[0].removesuffix(".").strip()
    if body.startswith("Goal "):
        return Statement("", body.removeprefix("Goal ").strip())
    header = _HEADER.match(body)
    if header is None:
        return Statement("", body)
    rest = body[header.end() :]
    colon = _top_level_colon(rest)
    return Statement(rest[:colon].strip(), rest[colon + 1 :].strip())


def is_header(sentence: Sentence) -> bool:
    """Whether a sentence states a theorem."""
    return bool(_HEADER.match(sentence.text) or sentence.text.startswith("Goal "))


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", text)


def _top_level_colon(text: str) -> int:
    depth = 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == ":" and depth == 0:
            return position
    raise ScriptError(0, "a theorem needs a colon between its name and what it claims")


@dataclass(frozen=True)
class Script:
    """The tactic sentences of a script, and what stops it after them, if anything does."""

    tactics: tuple[Sentence, ...]
    stop: ScriptError | None


def read_script(script: str, statement: Statement, preamble: str = "") -> Script:
    """The tactics of a candidate's script.

    Models like to repeat what they were given: sentences of the preamble, the same statement, `Proof.` before the
    tactics and `Qed.` after them are passed over; the assistant never sees the candidate's copies.

    >>> read_script("Proof. auto. Qed.", Statement("", "True")).tactics
    (Sentence(text='auto.', start=7, end=12),)
    """
    given = {_spelling(sentence.text) for sentence in sentences(preamble, trusted=True)}
    tactics: list[Sentence] = []
    stage = 0  # 0: the preamble may be repeated, 1: the statement has been, 2: inside the proof, 3: after Qed
    try:
        for sentence in sentences(script):
            if stage == 3:
                raise ScriptError(sentence.start, "something follows the end of the proof", ProofKind.CHEATING)
            if stage == 0 and _spelling(sentence.text) in given:
                continue
            if stage == 0 and is_header(sentence):
                if _spelled(read_statement(sentence.text)) != _spelled(statement):
                    raise ScriptError(sentence.start, "the script states another theorem", ProofKind.CHEATING)
                stage = 1
            elif stage < 2 and _PROOF_USING.fullmatch(sentence.text):
                stage = 2
            elif sentence.text in ("Qed.", "Defined."):
                stage = 3
            elif error := refusal(sentence):
                raise error
            else:
                stage = 2
                tactics.append(sentence)
    except ScriptError as stop:
        return Script(tuple(tactics), stop)
    return Script(tuple(tactics), None)


def _spelling(text: str) -> str:
    return " ".join(text.split())


def _spelled(statement: Statement) -> tuple[str, str]:
    return _spelling(statement.binders), _spelling(statement.proposition)
