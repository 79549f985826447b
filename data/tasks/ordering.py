"""Ordering: put people in order from comparisons, or say who comes first or last."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data.korean import particle
from data.tasks.base import pick

NAMES = {
    "en": ("Mina", "Tom", "Anna", "Ben", "Sara", "Leo", "Emma", "Jack", "Lucy", "Noah", "Ella", "Max", "Nina", "Paul",
           "Rosa", "Sam"),
    "ko": ("미나", "철수", "안나", "민수", "지우", "도윤", "서연", "준호", "유나", "현우", "하은", "태오", "소라", "영호",
           "보라", "재민"),
}  # fmt: skip
"""The same sixteen people in each language, so that a problem is the same problem in both."""

_RELATIONS = {
    "en": (("taller", "shorter", "tallest", "shortest"), ("older", "younger", "oldest", "youngest"),
           ("faster", "slower", "fastest", "slowest"), ("heavier", "lighter", "heaviest", "lightest")),
    "ko": (("키가 크다", "키가 작다", "키가 큰", "키가 작은"), ("나이가 많다", "나이가 적다", "나이가 많은", "나이가 적은"),
           ("빠르다", "느리다", "빠른", "느린"), ("무겁다", "가볍다", "무거운", "가벼운")),
}  # fmt: skip


@dataclass(frozen=True)
class Ordering:
    people: tuple[int, ...]
    """Indexes into NAMES, from the most to the least."""
    clues: tuple[tuple[int, bool], ...]
    """(i, flipped): person i against person i + 1; flipped says it from the lesser side."""
    relation: int
    ask: str
    """"order", "first" or "last"."""

    @property
    def key(self) -> tuple:
        return self.people, self.clues, self.ask


class OrderingTask:
    name = "ordering"

    def draw(self, rng: random.Random, difficulty: int) -> Ordering:
        count = (3, 4, 5, 6, 7)[difficulty - 1]
        people = tuple(rng.sample(range(len(NAMES["en"])), count))
        order = rng.sample(range(count - 1), count - 1)
        clues = tuple((i, rng.random() < 0.5) for i in order)
        ask = rng.choice(("first", "last")) if rng.random() < (0.5 if difficulty == 1 else 0.15) else "order"
        return Ordering(people, clues, rng.randrange(4), ask)

    def state(self, instance: Ordering, language: str, rng: random.Random) -> str:
        _, _, most, least = _RELATIONS[language][instance.relation]
        clues = " ".join(self._clue(instance, clue, language) for clue in instance.clues)
        if language == "ko":
            ask = {
                "order": (f"가장 {most} 사람부터 차례로 쓰세요.", f"{most} 순서대로 이름을 쓰세요."),
                "first": (f"가장 {most} 사람은 누구입니까?",),
                "last": (f"가장 {least} 사람은 누구입니까?",),
            }
        else:
            ask = {
                "order": (f"List them from {most} to {least}.", f"Order the people from {most} to {least}."),
                "first": (f"Who is the {most}?",),
                "last": (f"Who is the {least}?",),
            }
        return f"{clues} {pick(rng, ask[instance.ask])}"

    @staticmethod
    def _clue(instance: Ordering, clue: tuple[int, bool], language: str) -> str:
        index, flipped = clue
        names = NAMES[language]
        a, b = names[instance.people[index]], names[instance.people[index + 1]]
        more, less, *_ = _RELATIONS[language][instance.relation]
        if flipped:
            a, b, more = b, a, less
        if language == "ko":
            return f"{particle(a, '은/는')} {b}보다 {more}."
        return f"{a} is {more} than {b}."

    def answer(self, instance: Ordering, language: str) -> str:
        names = [NAMES[language][person] for person in instance.people]
        return {"order": ", ".join(names), "first": names[0], "last": names[-1]}[instance.ask]

    final = answer

    def solve(self, instance: Ordering, language: str, style: str, rng: random.Random) -> list[str]:
        """Chain the comparisons from the top: A > B, B > C, so A > B > C."""
        names = [NAMES[language][person] for person in instance.people]
        pairs = [f"{names[i]} > {names[i + 1]}" for i in range(len(names) - 1)]
        chain = " > ".join(names)
        if style == "terse":
            return [chain]
        given = ", ".join(f"{names[i]} > {names[i + 1]}" for i, _ in instance.clues)
        if language == "ko":
            return [
                f"주어진 것: {given}.",
                f"{particle(names[0], '은/는')} 맨 위이다.",
                f"차례로 {', '.join(pairs)}.",
                f"따라서 {chain}.",
            ]
        return [f"Given: {given}.", f"Nobody is above {names[0]}.", f"In turn {', '.join(pairs)}.", f"So {chain}."]
