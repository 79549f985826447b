"""Arithmetic expressions over + - * and parentheses, with integer values."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data.korean import particle
from data.tasks.base import pick

_PRECEDENCE = {"+": 1, "-": 1, "*": 2}

_STATEMENTS = {
    "en": ("Calculate {e}.", "What is {e}?", "Compute {e}.", "Find the value of {e}.", "Evaluate {e}."),
    "ko": ("{e_object} 계산하세요.", "{e}의 값은 얼마입니까?", "다음을 계산하세요: {e}", "{e_topic} 얼마입니까?"),
}


@dataclass(frozen=True)
class Arithmetic:
    """`tree` is an int or (operator, left, right)."""

    tree: tuple

    @property
    def key(self) -> str:
        return write(self.tree)


def write(tree: tuple | int, parent: int = 0, right: bool = False) -> str:
    """The expression with as few parentheses as its meaning allows; a negative number keeps its own, unless in front."""
    if isinstance(tree, int):
        return f"({tree})" if tree < 0 and right else str(tree)
    op, a, b = tree
    rank = _PRECEDENCE[op]
    text = f"{write(a, rank)} {op} {write(b, rank, right=True)}"
    needs = rank < parent or (right and rank == parent)
    return f"({text})" if needs else text


def value(tree: tuple | int) -> int:
    if isinstance(tree, int):
        return tree
    op, a, b = tree
    x, y = value(a), value(b)
    return x + y if op == "+" else x - y if op == "-" else x * y


def reduce_once(tree: tuple) -> tuple[tuple | int, tuple[int, str, int, int]]:
    """The tree with its next operation carried out, and that operation as (a, op, b, result). Deepest left first."""
    op, a, b = tree
    if isinstance(a, int) and isinstance(b, int):
        result = value(tree)
        return result, (a, op, b, result)
    # Products before sums on either side, as a person works: the left side first, unless only the right has work left.
    if not isinstance(a, int):
        reduced, step = reduce_once(a)
        return (op, reduced, b), step
    reduced, step = reduce_once(b)
    return (op, a, reduced), step


def split_product(a: int, b: int) -> str:
    """How a product is worked out by hand: 23 * 7 -> "140 + 21 = "; empty when it is in the times table."""
    if abs(a) < abs(b):
        a, b = b, a
    if b < 2 or a <= 12 or a % 10 == 0 or a > 99:
        return ""
    return f"{a // 10 * 10 * b} + {a % 10 * b} = "


class ArithmeticTask:
    name = "arithmetic"

    def draw(self, rng: random.Random, difficulty: int) -> Arithmetic:
        return Arithmetic(tree=getattr(self, f"_level_{difficulty}")(rng))

    def _level_1(self, rng: random.Random) -> tuple:
        return self._sum(rng, 3, 99)

    def _level_2(self, rng: random.Random) -> tuple:
        if rng.random() < 0.5:
            return self._sum(rng, 3, 999)
        return (rng.choice("+-"), ("*", rng.randint(11, 99), rng.randint(3, 9)), rng.randint(10, 99))

    def _level_3(self, rng: random.Random) -> tuple:
        product = ("*", rng.randint(11, 39), rng.randint(11, 39))
        term = rng.randint(10, 999)
        return (rng.choice("+-"), term, product) if rng.random() < 0.5 else (rng.choice("+-"), product, term)

    def _level_4(self, rng: random.Random) -> tuple:
        bracket = ("*", self._sum(rng, 2, 99), rng.randint(3, 9))
        tree = (rng.choice("+-"), bracket, ("*", rng.randint(11, 99), rng.randint(3, 9)))
        return (rng.choice("+-"), tree, rng.randint(10, 999))

    def _level_5(self, rng: random.Random) -> tuple:
        first = ("*", rng.randint(11, 99), rng.randint(11, 49))
        second = ("*", rng.randint(3, 19), self._sum(rng, 2, 50))
        tree = (rng.choice("+-"), first, second)
        return (rng.choice("+-"), tree, rng.randint(100, 999))

    @staticmethod
    def _sum(rng: random.Random, terms: int, largest: int) -> tuple:
        tree: tuple | int = rng.randint(2, largest)
        for _ in range(terms - 1):
            tree = (rng.choice("+-"), tree, rng.randint(2, largest))
        assert isinstance(tree, tuple)
        return tree

    def state(self, instance: Arithmetic, language: str, rng: random.Random) -> str:
        e = write(instance.tree)
        particles = {"e_object": particle(e, "을/를"), "e_topic": particle(e, "은/는")} if language == "ko" else {}
        return pick(rng, _STATEMENTS[language], e=e, **particles)

    def answer(self, instance: Arithmetic, language: str) -> str:
        return str(value(instance.tree))

    final = answer

    def solve(self, instance: Arithmetic, language: str, style: str, rng: random.Random) -> list[str]:
        steps = []
        tree: tuple | int = instance.tree
        while not isinstance(tree, int):
            tree, (a, op, b, result) = reduce_once(tree)
            inner = split_product(a, b) if op == "*" and style == "careful" else ""
            work = f"{a} {op} {write(b, right=True)} = {inner}{result}"
            if style == "terse" or isinstance(tree, int):
                steps.append(work)
            elif language == "ko":
                steps.append(f"{work} 이므로 {write(tree)} 이 된다.")
            else:
                steps.append(f"{work}, so we have {write(tree)}.")
        return steps
