"""Countdown: reach a target with every given number exactly once, by + - * / (TinyZero's task, after the TV game)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data.korean import particle
from data.tasks.base import pick

_SHAPES = {1: (3, 25), 2: (3, 60), 3: (4, 30), 4: (5, 25), 5: (6, 20)}
"""Difficulty -> how many numbers, and the largest."""

_STATEMENTS = {
    "en": (
        "Using the numbers {n}, make {t}. Use each number once.",
        "Make {t} from the numbers {n}, each used exactly once, with + - * /.",
        "Combine {n} to get {t}. Every number must be used once.",
    ),
    "ko": (
        "숫자 {n_object} 한 번씩 사용하여 {t_object} 만드세요.",
        "{n_object} 각각 한 번씩 쓰고 + - * / 로 {t_object} 만드세요.",
    ),
}

Item = tuple[int, str, int]
"""A value on the table, the expression that made it, and that expression's precedence (3 for a plain number)."""

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Countdown:
    numbers: tuple[int, ...]
    target: int
    moves: tuple[tuple[int, int, str], ...]
    """One solution: which two values of the table (by position) are joined by which operation, in turn."""

    @property
    def key(self) -> tuple:
        return tuple(sorted(self.numbers)), self.target


def join(first: Item, op: str, second: Item) -> Item | None:
    """The result of one move, or None where it leaves the positive integers."""
    (a, left, rank_a), (b, right, rank_b) = first, second
    if (op == "-" and a <= b) or (op == "/" and (b == 0 or a % b)):
        return None
    result = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b
    rank = _PRECEDENCE[op]
    left = f"({left})" if rank_a < rank else left
    right = f"({right})" if rank_b < rank or (rank_b == rank and op in "-/") else right
    return result, f"{left} {op} {right}", rank


def random_move(table: list[Item], rng: random.Random) -> tuple[int, int, str, Item]:
    """A legal move whose result stays small enough to work with."""
    while True:
        i, j = rng.sample(range(len(table)), 2)
        op = rng.choice("++--**/")
        made = join(table[i], op, table[j])
        if made and made[0] <= 400 and not (op in "*/" and table[j][0] == 1):
            return i, j, op, made


def play(table: list[Item], i: int, j: int, made: Item) -> list[Item]:
    return [made, *(item for position, item in enumerate(table) if position not in (i, j))]


class CountdownTask:
    name = "countdown"

    def draw(self, rng: random.Random, difficulty: int) -> Countdown:
        count, largest = _SHAPES[difficulty]
        while True:
            numbers = tuple(rng.randint(1, largest) for _ in range(count))
            table: list[Item] = [(n, str(n), 3) for n in numbers]
            moves = []
            while len(table) > 1:
                i, j, op, made = random_move(table, rng)
                moves.append((i, j, op))
                table = play(table, i, j, made)
            if 5 <= table[0][0] <= 200:
                return Countdown(numbers, table[0][0], tuple(moves))

    def state(self, instance: Countdown, language: str, rng: random.Random) -> str:
        n, t = ", ".join(map(str, instance.numbers)), str(instance.target)
        particles = {"n_object": particle(n, "을/를"), "t_object": particle(t, "을/를")} if language == "ko" else {}
        return pick(rng, _STATEMENTS[language], n=n, t=t, **particles)

    def answer(self, instance: Countdown, language: str) -> str:
        return str(instance.target)

    def final(self, instance: Countdown, language: str) -> str:
        table: list[Item] = [(n, str(n), 3) for n in instance.numbers]
        for i, j, op in instance.moves:
            made = join(table[i], op, table[j])
            assert made is not None
            table = play(table, i, j, made)
        return table[0][1]

    def solve(self, instance: Countdown, language: str, style: str, rng: random.Random) -> list[str]:
        """Failed attempts first ("careful" only), then the one that works: trial and error, written down."""
        attempts = rng.choice((0, 0, 1, 1, 2, 3)) if style == "careful" else 0
        steps = [self._attempt(instance, language, rng) for _ in range(attempts)]
        return [*steps, self._success(instance, language, style)]

    @staticmethod
    def _attempt(instance: Countdown, language: str, rng: random.Random) -> str:
        table: list[Item] = [(n, str(n), 3) for n in instance.numbers]
        parts = []
        while len(table) > 1:
            i, j, op, made = random_move(table, rng)
            parts.append(f"{table[i][0]} {op} {table[j][0]} = {made[0]}")
            table = play(table, i, j, made)
        reached = table[0][0] == instance.target
        end = {"en": ("no", "yes"), "ko": ("아니다", "맞다")}[language][reached]
        return f"{', '.join(parts)}: {end}."

    @staticmethod
    def _success(instance: Countdown, language: str, style: str) -> str:
        table: list[Item] = [(n, str(n), 3) for n in instance.numbers]
        parts = []
        for i, j, op in instance.moves:
            made = join(table[i], op, table[j])
            assert made is not None
            parts.append(f"{table[i][0]} {op} {table[j][0]} = {made[0]}")
            table = play(table, i, j, made)
        return ", ".join(parts) + ("" if style == "terse" else {"en": ": yes.", "ko": ": 맞다."}[language])
