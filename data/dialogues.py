"""Dialogues of two requests each, of which the last is to be answered: it asks for something said before, or changes
the subject.

The instructions inside are those that may be trained on; which split a dialogue belongs to is decided by them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.corpus.instructions import Check, Instruction, draw_instruction
from data.corpus.vocabulary import LANGUAGES


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """Earlier turns, and the request that ends them with its rule, a good answer and wrong ones."""

    history: tuple[tuple[str, str], ...]
    """Request and answer, pair by pair."""
    request: str
    good: str
    wrong: tuple[str, ...]
    check: Check
    asked: Instruction
    """The instruction that the dialogue is about."""


_AGAIN = (
    ("Say that again, please.", "Please repeat your answer.", "Once more, please.", "What did you say?"),
    ("다시 말해 주세요.", "대답을 한 번 더 해 주세요.", "한 번 더 부탁해요.", "뭐라고 했어요?"),
)
_NAME = (
    ("What is my name?", "Do you remember my name?", "What did I say my name was?"),
    ("제 이름이 뭐예요?", "제 이름을 기억해요?", "제 이름이 뭐라고 했지요?"),
)
_NAMED = (("Your name is {name}.", "You are {name}."), ("{name} 씨예요.", "이름은 {name} 씨예요."))


def _again(rng: random.Random, side: int, first: Instruction, second: Instruction) -> Dialogue:
    """The answer is wanted once more, word by word."""
    expected = first.good.rpartition(":")[2].strip().rstrip(".")  # what the rule reads of an answer
    return Dialogue(
        history=((first.request, first.good),), request=rng.choice(_AGAIN[side]), good=first.good,
        wrong=(first.bad, second.good, first.request), check=Check("exact", (expected,)), asked=first,
    )  # fmt: skip


def _name(rng: random.Random, side: int, first: Instruction, second: Instruction) -> Dialogue:
    """The name of who said hello."""
    (name,), others = first.check.expected, first.check.forbidden
    good, *wrong = (rng.choice(_NAMED[side]).format(name=one) for one in (name, *rng.sample(others, 3)))
    check = Check("contains", (name,), forbidden=others, most_words=10)
    return Dialogue(
        history=((first.request, first.good),), request=rng.choice(_NAME[side]), good=good, wrong=tuple(wrong),
        check=check, asked=first,
    )  # fmt: skip


def _next(rng: random.Random, side: int, first: Instruction, second: Instruction) -> Dialogue:
    """Another request, which has nothing to do with the one before."""
    return Dialogue(
        history=((second.request, second.good),), request=first.request, good=first.good,
        wrong=(*first.wrong, second.good), check=first.check, asked=first,
    )  # fmt: skip


_FAMILIES: dict[str, Callable[[random.Random, int, Instruction, Instruction], Dialogue]] = {
    "dialogue_again": _again,
    "dialogue_name": _name,
    "dialogue_next": _next,
}
DIALOGUES = tuple(_FAMILIES)


def draw_dialogue(rng: random.Random, family: str, language: str, instructions: Sequence[str]) -> Dialogue:
    """A dialogue of one of DIALOGUES about one of these kinds of instructions."""
    asked = "greeting" if family == "dialogue_name" else rng.choice(instructions)
    first, second = (draw_instruction(rng, kind, language) for kind in (asked, rng.choice(instructions)))
    return _FAMILIES[family](rng, LANGUAGES.index(language), first, second)
