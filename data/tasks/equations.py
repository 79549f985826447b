"""Linear equations in x, with integer solutions up to difficulty 4 and fractions at 5."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction

from data.korean import particle
from data.tasks.base import pick

_STATEMENTS = {
    "en": ("Solve for x: {e}", "Solve the equation {e}.", "Find x if {e}.", "What is x when {e}?"),
    "ko": ("방정식 {e_object} 푸세요.", "{e}일 때 x의 값을 구하세요.", "x를 구하세요: {e}"),
}


@dataclass(frozen=True)
class Equation:
    """outer * (a x + b) + e = c x + d; `outer` is 1 and `e` 0 where the level has no bracket."""

    a: int
    b: int
    c: int
    d: int
    outer: int = 1
    e: int = 0

    @property
    def key(self) -> tuple:
        return self.a, self.b, self.c, self.d, self.outer, self.e

    @property
    def solution(self) -> Fraction:
        return Fraction(self.d - self.e - self.outer * self.b, self.outer * self.a - self.c)


def linear(a: int, b: int) -> str:
    """a x + b as it is written: 1x is x, a zero term is left out."""
    x = "" if a == 0 else "x" if a == 1 else "-x" if a == -1 else f"{a}x"
    if not x:
        return str(b)
    return x if b == 0 else f"{x} {'+' if b > 0 else '-'} {abs(b)}"


class EquationTask:
    name = "equations"

    def draw(self, rng: random.Random, difficulty: int) -> Equation:
        x, a, b = rng.randint(-25, 40), rng.randint(2, 15), rng.choice([-1, 1]) * rng.randint(1, 99)
        if difficulty == 1:
            return Equation(a, b % 20, 0, a * x + b % 20)
        if difficulty == 2:
            return Equation(a, b, 0, a * x + b)
        c = rng.choice([n for n in range(2, 15) if n != a])
        if difficulty == 3:
            return Equation(a, b, c, (a - c) * x + b)
        outer, e = rng.randint(2, 9), rng.choice([-1, 1]) * rng.randint(1, 99)
        a, b = rng.randint(2, 9), b % 20 + 1
        if difficulty == 4:
            return Equation(a, b, 0, outer * (a * x + b) + e, outer, e)
        while True:
            equation = Equation(a, b, c, rng.randint(-99, 99), outer)
            if outer * a != c and equation.solution.denominator > 1:
                return equation
            a, c = rng.randint(2, 9), rng.randint(2, 14)

    def state(self, instance: Equation, language: str, rng: random.Random) -> str:
        e = self._written(instance)
        particles = {"e_object": particle(e, "을/를")} if language == "ko" else {}
        return pick(rng, _STATEMENTS[language], e=e, **particles)

    @staticmethod
    def _written(q: Equation) -> str:
        left = linear(q.a, q.b)
        if q.outer != 1:
            left = f"{q.outer}({left})" + ("" if q.e == 0 else f" {'+' if q.e > 0 else '-'} {abs(q.e)}")
        return f"{left} = {linear(q.c, q.d)}"

    def answer(self, instance: Equation, language: str) -> str:
        return str(instance.solution)

    final = answer

    def solve(self, instance: Equation, language: str, style: str, rng: random.Random) -> list[str]:
        q, steps = instance, []
        say = _english if language == "en" else _korean
        if q.outer != 1:
            if q.e:
                right = q.d - q.e
                steps.append(
                    say("move", f"{q.outer}({linear(q.a, q.b)}) = {right}", f"{q.d} {_minus(q.e)} = {right}", style)
                )
            a, b, d = q.outer * q.a, q.outer * q.b, q.d - q.e
            steps.append(say("expand", f"{linear(a, b)} = {linear(q.c, d)}", f"{q.outer} * {q.b} = {b}", style))
        else:
            a, b, d = q.a, q.b, q.d
        if q.c:
            work = f"{a} - {q.c} = {a - q.c}"
            steps.append(say("collect", f"{linear(a - q.c, b)} = {d}", work, style))
            a -= q.c
        if b:
            steps.append(say("move", f"{linear(a, 0)} = {d - b}", f"{d} {_minus(b)} = {d - b}", style))
        if a != 1:
            steps.append(say("divide", f"x = {Fraction(d - b, a)}", f"{d - b} / {a}", style))
        return steps


def _minus(number: int) -> str:
    return f"- {number}" if number >= 0 else f"+ {-number}"


def _english(what: str, result: str, work: str, style: str) -> str:
    if style == "terse":
        return result
    reason = {
        "move": "Move the constant",
        "expand": "Expand the bracket",
        "collect": "Collect the x terms",
        "divide": "Divide",
    }
    return f"{reason[what]}: {work}, so {result}."


def _korean(what: str, result: str, work: str, style: str) -> str:
    if style == "terse":
        return result
    reason = {"move": "상수를 옮기면", "expand": "괄호를 풀면", "collect": "x 항을 모으면", "divide": "양변을 나누면"}
    return f"{reason[what]} {work} 이므로 {result} 이다."
