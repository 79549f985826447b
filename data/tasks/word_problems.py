"""Word problems of one to four steps from templates: a changing amount, a comparison, a purchase, a journey."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data.korean import particle
from data.tasks.ordering import NAMES

ITEMS = {
    "en": ("apples", "eggs", "marbles", "cookies", "coins", "balls", "candies", "balloons"),
    "ko": ("사과", "달걀", "구슬", "과자", "동전", "공", "사탕", "풍선"),
}

_CHANGES: dict[str, dict[str, tuple[str, ...]]] = {
    "+": {
        "en": ("{who} buys {n} more {item}.", "{who} finds {n} {item}.", "A friend gives {who} {n} {item}."),
        "ko": ("{who_topic} {item} {n}개를 더 산다.", "{who_topic} {item} {n}개를 줍는다.", "친구가 {who}에게 {item} {n}개를 준다."),
    },
    "-": {
        "en": ("{who} gives away {n} {item}.", "{who} loses {n} {item}.", "{who} sells {n} {item}."),
        "ko": ("{who_topic} {item} {n}개를 나누어 준다.", "{who_topic} {item} {n}개를 잃어버린다.", "{who_topic} {item} {n}개를 판다."),
    },
    "*": {
        "en": ("Then {who} gets so many that there are {n} times as many.", "The number of {item} grows to {n} times as many."),
        "ko": ("{item} 수가 {n}배가 된다.", "그러자 {item}의 수가 {n}배로 늘어난다."),
    },
    "/": {
        "en": ("{who} shares them equally among {n} boxes and keeps one box.", "{who} splits them into {n} equal parts and keeps one."),
        "ko": ("{who_topic} {item_object} {n}상자에 똑같이 나누고 한 상자만 가진다.", "{who_topic} {n}등분하여 하나만 가진다."),
    },
}  # fmt: skip

_FRAMES = {
    "amount": {
        "en": "{who} has {a} {item}. {changes} How many {item} does {who} have now?",
        "ko": "{who_topic} {item} {a}개를 가지고 있다. {changes} 지금 {who}에게 {item} 몇 개가 있습니까?",
    },
    "compare": {
        "en": "{who} has {a} {item}. {other} has {b} more than {who}. How many {item} do they have together?",
        "ko": "{who_topic} {item} {a}개를 가지고 있다. {other_topic} {who}보다 {b}개 더 많다. 둘이 합쳐 {item} 몇 개입니까?",
    },
    "buy": {
        "en": "One ball costs {a} coins and one book costs {b} coins. {who} buys {c} balls and {d} books. How many coins does {who} pay?",
        "ko": "공은 하나에 {a}원이고 책은 하나에 {b}원이다. {who_topic} 공 {c}개와 책 {d}권을 산다. 모두 얼마입니까?",
    },
    "change": {
        "en": "One ball costs {a} coins and one book costs {b} coins. {who} buys {c} balls and {d} books and pays with {e} coins. "
        "How many coins come back?",
        "ko": "공은 하나에 {a}원이고 책은 하나에 {b}원이다. {who_topic} 공 {c}개와 책 {d}권을 사고 {e}원을 낸다. 거스름돈은 얼마입니까?",
    },
    "travel": {
        "en": "A train goes {a} km an hour for {b} hours and then {c} km more. How many km does it go in all?",
        "ko": "기차가 한 시간에 {a} km 씩 {b}시간 간 다음 {c} km 를 더 간다. 모두 몇 km 를 갑니까?",
    },
}  # fmt: skip


@dataclass(frozen=True)
class WordProblem:
    frame: str
    numbers: tuple[int, ...]
    """The numbers of the frame, in the order of its letters; for "amount" the start and then one a change."""
    operations: str
    """For "amount" the operation of each change; else empty."""

    @property
    def key(self) -> tuple:
        return self.frame, self.numbers, self.operations

    def work(self) -> list[tuple[int, str, int, int]]:
        """The steps as (a, operation, b, result)."""
        if self.frame == "amount":
            value, steps = self.numbers[0], []
            for op, n in zip(self.operations, self.numbers[1:]):
                steps.append(_step(value, op, n))
                value = steps[-1][3]
            return steps
        if self.frame == "compare":
            a, b = self.numbers
            return [_step(a, "+", b), _step(a, "+", a + b)]
        if self.frame == "travel":
            a, b, c = self.numbers
            return [_step(a, "*", b), _step(a * b, "+", c)]
        a, b, c, d, *paid = self.numbers
        steps = [_step(a, "*", c), _step(b, "*", d), _step(a * c, "+", b * d)]
        return [*steps, _step(paid[0], "-", a * c + b * d)] if paid else steps


def _step(a: int, op: str, b: int) -> tuple[int, str, int, int]:
    return a, op, b, a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b


class WordProblemTask:
    name = "word_problems"

    def draw(self, rng: random.Random, difficulty: int) -> WordProblem:
        frames = {
            1: ("amount",),
            2: ("amount", "compare", "travel"),
            3: ("amount", "buy"),
            4: ("amount", "change"),
            5: ("amount", "change"),
        }
        frame = rng.choice(frames[difficulty])
        if frame == "amount":
            return self._amount(rng, steps=min(difficulty, 4), large=difficulty == 5)
        top = 99 if difficulty == 5 else 40
        if frame == "compare":
            return WordProblem(frame, (rng.randint(20, 400), rng.randint(20, 300)), "")
        if frame == "travel":
            return WordProblem(frame, (rng.randint(40, 299), rng.randint(3, 9), rng.randint(20, 400)), "")
        a, b, c, d = rng.randint(6, top), rng.randint(6, top), rng.randint(3, 19), rng.randint(3, 19)
        if frame == "buy":
            return WordProblem(frame, (a, b, c, d), "")
        return WordProblem(frame, (a, b, c, d, a * c + b * d + rng.randint(1, 400)), "")

    @staticmethod
    def _amount(rng: random.Random, steps: int, large: bool) -> WordProblem:
        value = rng.randint(100, 900) if large else rng.randint(10, 200)
        numbers, operations = [value], ""
        while len(operations) < steps:
            op = rng.choice("++--*/")
            divisors = [k for k in range(2, 10) if value % k == 0]
            if (op == "*" and value > 200) or (op == "/" and not divisors) or (op == "-" and value < 3):
                continue
            n = {
                "+": lambda: rng.randint(2, 900 if large else 200),
                "-": lambda: rng.randint(1, value - 1),  # noqa: B023  # called at once
                "*": lambda: rng.randint(2, 9),
                "/": lambda: rng.choice(divisors),  # noqa: B023
            }[op]()
            value = _step(value, op, n)[3]
            numbers.append(n)
            operations += op
        return WordProblem("amount", tuple(numbers), operations)

    def state(self, instance: WordProblem, language: str, rng: random.Random) -> str:
        who, other = rng.sample(NAMES[language], 2)
        words: dict[str, str] = {"who": who, "other": other, "item": rng.choice(ITEMS[language])}
        if language == "ko":
            words |= {
                "who_topic": particle(who, "은/는"),
                "other_topic": particle(other, "은/는"),
                "item_object": particle(words["item"], "을/를"),
            }
        frame = _FRAMES[instance.frame][language]
        letters = dict(zip("abcde", instance.numbers))
        if instance.frame == "amount":
            changes = [
                rng.choice(_CHANGES[op][language]).format(n=n, **words)
                for op, n in zip(instance.operations, instance.numbers[1:])
            ]
            return frame.format(a=instance.numbers[0], changes=" ".join(changes), **words)
        return frame.format(**letters, **words)

    def answer(self, instance: WordProblem, language: str) -> str:
        return str(instance.work()[-1][3])

    final = answer

    def solve(self, instance: WordProblem, language: str, style: str, rng: random.Random) -> list[str]:
        from data.tasks.arithmetic import split_product

        steps = []
        for a, op, b, result in instance.work():
            if style == "terse":
                steps.append(f"{a} {op} {b} = {result}")
                continue
            inner = split_product(a, b) if op == "*" else ""
            steps.append(_REASONS[language][op].format(work=f"{a} {op} {b} = {inner}{result}"))
        return steps


_REASONS = {
    "en": {
        "+": "Add: {work}.",
        "-": "Take away: {work}.",
        "*": "Multiply: {work}.",
        "/": "Divide: {work}.",
    },
    "ko": {"+": "더하면 {work}.", "-": "빼면 {work}.", "*": "곱하면 {work}.", "/": "나누면 {work}."},
}
