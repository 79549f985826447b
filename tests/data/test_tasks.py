"""The task families against solvers that know only the wording of a problem, and worked solutions step by step.

Nothing here uses a family's own arithmetic: formulas are read off the text and evaluated with fractions.
"""

import ast
import dataclasses
import itertools
import operator
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus.solutions import wrong_answer
from data.problems import LANGUAGES
from data.tasks import TASKS
from data.tasks.base import perturb_number
from rewards import check

ROOT = Path(__file__).resolve().parents[2]
CELLS = [(name, level) for name in TASKS for level in range(1, 6)]
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def instances(name: str, difficulty: int, count: int = 60):
    """(instance, language, question, gold answer, answer as a solution writes it), in both languages."""
    task, rng = TASKS[name], random.Random(f"{name}-{difficulty}")
    for _ in range(count):
        instance = task.draw(rng, difficulty)
        for language in LANGUAGES:
            question = task.state(instance, language, rng)
            yield instance, language, question, task.answer(instance, language), task.final(instance, language)


def evaluate(formula: str, x: Fraction | None = None) -> Fraction:
    """A formula over + - * / ( ) and x, exactly. 3x and 2(x + 1) are products."""
    tree = ast.parse(re.sub(r"(?<=\d)\s*(?=[x(])", "*", formula.strip()), mode="eval")

    def value(node) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATIONS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.USub)
            return -value(node.operand)
        if isinstance(node, ast.Name):
            assert node.id == "x"
            assert x is not None
            return x
        return Fraction(node.value)

    return value(tree.body)


def formulas(text: str, letters: str = "") -> list[str]:
    """The longest runs of digits, operators and the given letters, without the marks around them."""
    found = re.findall(rf"[-(\d{letters}][-\d+*/()= {letters}]*", text)
    return [formula.strip(" =") for formula in found if re.search(r"\d", formula)]


def integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


# --- solvers, from the wording alone ----------------------------------------------------------------------------------


def solve_arithmetic(question: str) -> set[str]:
    return {str(evaluate(max(formulas(question), key=len)))}


def solve_equation(question: str) -> set[str]:
    """left - right is linear in x: two of its values give the root, a third shows that it is linear."""
    left, right = max(formulas(question, "x"), key=len).split("=")
    at = [evaluate(left, Fraction(n)) - evaluate(right, Fraction(n)) for n in range(3)]
    slope = at[1] - at[0]
    assert slope != 0
    assert at[2] - at[1] == slope
    return {str(-at[0] / slope)}


def solve_sequence(question: str) -> set[str]:
    """What every rule that fits all shown terms says next."""
    shown = max((re.findall(r"-?\d+", run) for run in re.findall(r"-?\d+(?:, -?\d+)+", question)), key=len)
    terms = [int(term) for term in shown]
    changes = [b - a for a, b in itertools.pairwise(terms)]
    growth = [b - a for a, b in itertools.pairwise(changes)]
    found = set()
    if len(set(changes[::2])) == len(set(changes[1::2])) == 1 and len(changes) > 3:
        found.add(terms[-1] + changes[-2])
    if len(set(growth)) == 1:
        found.add(terms[-1] + changes[-1] + growth[-1])
    if all(c == a + b for a, b, c in zip(terms, terms[1:], terms[2:])):
        found.add(terms[-1] + terms[-2])
    for ratio in range(2, 6):
        constants = {b - ratio * a for a, b in itertools.pairwise(terms)}
        found |= {ratio * terms[-1] + constant for constant in constants if len(constants) == 1}
    return {str(term) for term in found}


MORE = ("taller", "older", "faster", "heavier", "크다", "많다", "빠르다", "무겁다")
LESS = ("shorter", "younger", "slower", "lighter", "작다", "적다", "느리다", "가볍다")
LAST = ("shortest", "youngest", "slowest", "lightest", "작은", "적은", "느린", "가벼운")


def solve_ordering(question: str) -> set[str]:
    """Every order that no comparison contradicts."""
    english = re.findall(r"(\w+) is (\w+) than (\w+)\.", question)
    korean = re.findall(r"(\w+?)[은는] (\w+)보다 (?:\w+가 |\w+이 )?(\w+)\.", question)
    comparisons = [(a, word, b) for a, word, b in english] + [(a, word, b) for a, b, word in korean]
    assert all(word in MORE + LESS for _, word, _ in comparisons)
    pairs = [(a, b) if word in MORE else (b, a) for a, word, b in comparisons]
    people = sorted({who for pair in pairs for who in pair})
    orders = [
        order
        for order in itertools.permutations(people)
        if all(order.index(above) < order.index(below) for above, below in pairs)
    ]
    ask = question.rpartition(". ")[2]
    if not ("누구" in ask or ask.startswith("Who")):
        return {", ".join(order) for order in orders}
    return {order[-1 if any(word in ask for word in LAST) else 0] for order in orders}


CHANGES = (
    ("times as many", operator.mul), ("배가 된다", operator.mul), ("배로 늘어난다", operator.mul),
    ("boxes", operator.truediv), ("equal parts", operator.truediv), ("상자에", operator.truediv),
    ("등분", operator.truediv), ("gives away", operator.sub), ("loses", operator.sub), ("sells", operator.sub),
    ("나누어 준다", operator.sub), ("잃어버린다", operator.sub), ("판다", operator.sub), ("buys", operator.add),
    ("finds", operator.add), ("A friend gives", operator.add), ("더 산다", operator.add), ("줍는다", operator.add),
    ("친구가", operator.add),
)  # fmt: skip
"""What a sentence does to an amount: the first phrase that it contains decides."""


def solve_word_problem(question: str) -> set[str]:
    numbers = [Fraction(number) for number in integers(question)]
    if "km" in question:
        speed, hours, more = numbers
        return {str(speed * hours + more)}
    if "more than" in question or "더 많다" in question:
        first, more = numbers
        return {str(first + first + more)}
    if "costs" in question or "하나에" in question:
        ball, book, balls, books, *paid = numbers
        cost = ball * balls + book * books
        return {str(paid[0] - cost if paid else cost)}
    start, *sentences = [sentence for sentence in question.split(". ") if integers(sentence)]
    amount = Fraction(integers(start)[0])
    for sentence in sentences:
        operation = next(operation for phrase, operation in CHANGES if phrase in sentence)
        amount = operation(amount, Fraction(integers(sentence)[0]))
        assert amount.denominator == 1
        assert amount > 0
    return {str(amount)}


def solve_countdown(question: str) -> set[str]:
    """The target: the only number that stands apart from the list."""
    given = max((run for run in re.findall(r"\d+(?:, \d+)+", question)), key=len)
    return set(re.findall(r"\d+", question.replace(given, "")))


SOLVERS = {
    "arithmetic": solve_arithmetic,
    "countdown": solve_countdown,
    "word_problems": solve_word_problem,
    "equations": solve_equation,
    "sequences": solve_sequence,
    "ordering": solve_ordering,
}


@pytest.mark.parametrize(("name", "difficulty"), CELLS)
def test_the_gold_answer_is_the_only_one_that_fits_the_question(name, difficulty):
    count = 15 if (name, difficulty) == ("ordering", 5) else 60
    for _, _, question, gold, _ in instances(name, difficulty, count):
        assert SOLVERS[name](question) == {gold}, question


@pytest.mark.parametrize(("name", "difficulty"), CELLS)
def test_the_checker_accepts_the_final_answer(name, difficulty):
    for instance, _, question, gold, final in instances(name, difficulty):
        numbers = instance.numbers if name == "countdown" else ()
        assert check(gold=gold, answer=final, task=name, numbers=numbers).reward == 1.0, question


@pytest.mark.parametrize("difficulty", range(1, 6))
def test_countdown_uses_every_number_once_and_hits_the_target(difficulty):
    for instance, _, question, gold, final in instances("countdown", difficulty):
        listed = max(re.findall(r"\d+(?:, \d+)+", question), key=len)
        assert sorted(integers(final)) == sorted(integers(listed)) == sorted(instance.numbers)
        assert evaluate(final) == int(gold)
        assert len(instance.numbers) == (3, 3, 4, 5, 6)[difficulty - 1]


def test_equations_have_fractions_at_difficulty_5_alone():
    for difficulty in range(1, 6):
        for *_, gold, _ in instances("equations", difficulty):
            assert ("/" in gold) == (difficulty == 5)


# --- worked solutions -------------------------------------------------------------------------------------------------


def worked(name: str, difficulty: int):
    """(instance, language, style, gold answer, steps) in every language and style."""
    for seed, (instance, language, _, gold, _) in enumerate(instances(name, difficulty, 40)):
        for style in ("terse", "careful"):
            yield instance, language, style, gold, TASKS[name].solve(instance, language, style, random.Random(seed))


def chains(step: str) -> list[list[Fraction]]:
    """The values along each chain of equations without x: "23 * 7 = 140 + 21 = 161" has three."""
    return [[evaluate(side) for side in formula.split("=")] for formula in formulas(step) if "=" in formula]


@pytest.mark.parametrize("difficulty", range(1, 6))
@pytest.mark.parametrize("name", ["arithmetic", "countdown", "word_problems", "sequences"])
def test_every_step_of_a_worked_solution_is_true(name, difficulty):
    for _, _, _, gold, steps in worked(name, difficulty):
        found = [chain for step in steps for chain in chains(step)]
        assert found
        for chain in found:
            assert len(set(chain)) == 1, steps
        assert found[-1][-1] == int(gold)


@pytest.mark.parametrize("difficulty", range(1, 6))
def test_arithmetic_carries_its_value_from_step_to_step(difficulty):
    for *_, gold, steps in worked("arithmetic", difficulty):
        for step in steps:
            rest = re.search(r"(?:so we have|이므로) ([-\d+*() ]+)", step)
            assert rest is None or evaluate(rest.group(1)) == int(gold)


@pytest.mark.parametrize("difficulty", range(1, 6))
def test_every_step_of_an_equation_has_the_same_solution(difficulty):
    for _, _, _, gold, steps in worked("equations", difficulty):
        x = Fraction(gold)
        for step in steps:
            (equation,) = [formula for formula in formulas(step, "x") if "x" in formula]
            left, right = equation.split("=")
            assert evaluate(left, x) == evaluate(right, x), steps
            for chain in chains(step.replace(equation, "")):
                assert len(set(chain)) == 1, steps
        assert steps[-1].rstrip(".").removesuffix(" 이다").endswith(f"x = {gold}")


@pytest.mark.parametrize("difficulty", range(1, 6))
def test_countdown_attempts_judge_themselves_rightly(difficulty):
    for _, _, style, gold, steps in worked("countdown", difficulty):
        for step in steps:
            reached = chains(step)[-1][-1] == int(gold)
            verdict = step.rpartition(": ")[2]
            assert (verdict in ("yes.", "맞다.")) == (reached and style == "careful")
            assert (verdict in ("no.", "아니다.")) == (not reached)


@pytest.mark.parametrize("difficulty", range(1, 5))
def test_ordering_chains_follow_the_order(difficulty):
    for instance, language, _, _, steps in worked("ordering", difficulty):
        full = dataclasses.replace(instance, ask="order")
        (order,) = solve_ordering(TASKS["ordering"].state(full, language, random.Random(0)))
        names = order.split(", ")
        for step in steps:
            for chain in re.findall(r"\w+(?: > \w+)+", step):
                places = [names.index(name) for name in chain.split(" > ")]
                assert places == sorted(places)
        assert " > ".join(names) in steps[-1]


@pytest.mark.parametrize(("name", "difficulty"), CELLS)
def test_solutions_in_two_languages_have_the_same_steps(name, difficulty):
    """So that a solution can change its language half-way (data.corpus.solutions)."""
    task, rng = TASKS[name], random.Random(2)
    for seed in range(15):
        instance = task.draw(rng, difficulty)
        english, korean = (task.solve(instance, code, "careful", random.Random(seed)) for code in LANGUAGES)
        assert [integers(step) for step in english] == [integers(step) for step in korean]
        assert len(english) == len(korean)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    text=st.from_regex(r"[a-zA-Z가-힣 +*/=().-]{0,8}[0-9]{1,6}[a-zA-Z가-힣 .,)]{0,8}", fullmatch=True),
    seed=st.integers(),
)
def test_a_slip_changes_the_last_number_and_nothing_else(text, seed):
    slipped = perturb_number(text, random.Random(seed))
    before, after = re.findall(r"\d+", text), re.findall(r"\d+", slipped)
    assert after[:-1] == before[:-1]
    assert int(after[-1]) != int(before[-1])
    assert re.sub(r"\d+", "", slipped) == re.sub(r"\d+", "", text)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Nd"]), max_size=20))
def test_a_text_without_numbers_has_nothing_to_slip_on(text):
    assert perturb_number(text, random.Random(0)) == text


@pytest.mark.parametrize("name", TASKS)
def test_wrong_answers_are_wrong(name):
    """All but a single name, which is guessed and can be right by chance: fewer than one in ten are."""
    rng, guesses = random.Random(name), []
    for difficulty in range(1, 6):
        for instance, _, question, gold, final in instances(name, difficulty):
            numbers = instance.numbers if name == "countdown" else ()
            verdict = check(gold=gold, answer=wrong_answer(final, rng), task=name, numbers=numbers)
            if final.isalpha():
                guesses.append(verdict.reward)
            else:
                assert verdict.reward == 0.0, question
    assert sum(guesses) <= len(guesses) / 10


# --- the page about them ----------------------------------------------------------------------------------------------


def documented() -> list[tuple[str, int, str, str]]:
    """The examples of docs/problems.md: (task, difficulty, question, answer)."""
    examples, task = [], ""
    for line in (ROOT / "docs/problems.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("#"):
            task = line.strip("# `")
        elif len(cells) == 4 and task in TASKS and cells[0].isdigit():
            examples.append((task, int(cells[0]), cells[2], cells[3]))
        elif len(cells) == 4 and cells[0].strip("`") in TASKS:
            examples.append((cells[0].strip("`"), int(cells[1]), cells[2], cells[3]))
    return examples


def test_the_examples_in_the_docs_are_there_and_right():
    examples = documented()
    assert {(task, level) for task, level, *_ in examples} == set(CELLS)
    assert len(examples) == len(CELLS) + len(TASKS)  # and one each in Korean
    for task, _, question, answer in examples:
        assert SOLVERS[task](question) == {answer}, question
