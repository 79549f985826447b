"""Number sequences: find the next term."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from data.tasks.base import pick

_STATEMENTS = {
    "en": (
        "What comes next: {s}, ...?",
        "Find the next number in the sequence {s}.",
        "Continue the sequence: {s}, ?",
        "Which number follows {s}?",
    ),
    "ko": (
        "수열 {s}, ... 의 다음 수는 무엇입니까?",
        "다음에 올 수를 구하세요: {s}, ?",
        "{s} 다음에 오는 수는 얼마입니까?",
    ),
}


@dataclass(frozen=True)
class Sequence:
    terms: tuple[int, ...]
    """The shown terms and, last, the one to find."""
    rule: str
    """step, ratio, alternate, second (differences grow evenly), sum (each term is the sum of the two before), affine
    (times a number, plus a number)."""
    numbers_of_rule: tuple[int, ...]

    @property
    def key(self) -> tuple:
        return self.terms


def _follow(first: int, changes: list[int]) -> tuple[int, ...]:
    terms = [first]
    for change in changes:
        terms.append(terms[-1] + change)
    return tuple(terms)


class SequenceTask:
    name = "sequences"

    def draw(self, rng: random.Random, difficulty: int) -> Sequence:
        if difficulty == 1:
            step = rng.choice([-1, 1]) * rng.randint(7, 99)
            return Sequence(_follow(rng.randint(10, 400), [step] * 5), "step", (step,))
        if difficulty == 2:
            if rng.random() < 0.5:
                ratio, first = rng.randint(2, 5), rng.randint(2, 40)
                return Sequence(tuple(first * ratio**i for i in range(5)), "ratio", (ratio,))
            a, b = rng.randint(2, 25), -rng.randint(1, 20)
            return Sequence(_follow(rng.randint(10, 120), [a, b, a, b, a, b]), "alternate", (a, b))
        if difficulty == 3:
            start, growth = rng.randint(1, 30), rng.choice((-1, 1)) * rng.randint(1, 12)
            return Sequence(_follow(rng.randint(1, 200), [start + growth * i for i in range(5)]), "second", (growth,))
        if difficulty == 4:
            terms = [rng.randint(1, 60), rng.randint(1, 60)]
            while len(terms) < 7:
                terms.append(terms[-1] + terms[-2])
            return Sequence(tuple(terms), "sum", ())
        ratio, constant = rng.randint(2, 3), rng.choice((-1, 1)) * rng.randint(1, 30)
        terms = [rng.randint(10, 40)]
        while len(terms) < 6:
            terms.append(terms[-1] * ratio + constant)
        return Sequence(tuple(terms), "affine", (ratio, constant))

    def state(self, instance: Sequence, language: str, rng: random.Random) -> str:
        return pick(rng, _STATEMENTS[language], s=", ".join(map(str, instance.terms[:-1])))

    def answer(self, instance: Sequence, language: str) -> str:
        return str(instance.terms[-1])

    final = answer

    def solve(self, instance: Sequence, language: str, style: str, rng: random.Random) -> list[str]:
        terms, korean = instance.terms, language == "ko"
        last, following = terms[-2], terms[-1]
        changes = [after - before for before, after in pairwise(terms)]
        if instance.rule == "ratio":
            rule = str(instance.numbers_of_rule[0])
            final = f"{last} * {rule} = {following}"
            found = f"각 항은 앞 항의 {rule} 배이다." if korean else f"Each term is {rule} times the one before."
        elif instance.rule == "affine":
            ratio, constant = instance.numbers_of_rule
            sign = "+" if constant > 0 else "-"
            final = f"{last} * {ratio} {sign} {abs(constant)} = {last * ratio} {sign} {abs(constant)} = {following}"
            rule = f"* {ratio} {sign} {abs(constant)}"
            shown = ", ".join(map(str, changes[:3]))
            found = (
                f"차이는 {shown} 이므로 규칙은 {rule} 이다."
                if korean
                else f"The differences are {shown}, so the rule is {rule}."
            )
        elif instance.rule == "sum":
            final = f"{terms[-3]} + {last} = {following}"
            checks = ", ".join(f"{a} + {b} = {c}" for a, b, c in zip(terms[:2], terms[1:3], terms[2:4]))
            found = (
                f"앞의 두 항을 더한다: {checks}." if korean else f"Each term is the sum of the two before: {checks}."
            )
        else:
            sign = "+" if changes[-1] >= 0 else "-"
            final = f"{last} {sign} {abs(changes[-1])} = {following}"
            shown = ", ".join(map(str, changes[:-1]))
            found = f"차이는 {shown} 이다." if korean else f"The differences are {shown}."
            if instance.rule in ("second", "alternate"):
                found += f" 다음 차이는 {changes[-1]} 이다." if korean else f" The next difference is {changes[-1]}."
        return [final] if style == "terse" else [found, final]
