"""The answer checker: tables of (gold, answer, verdict), a brute-force Countdown, Python's own parser, and hostile
answers.
"""

import ast
import itertools
import operator
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import Case, VerdictKind, WorkerError, check, check_many
from rewards.checking import check_later
from rewards.exact import ExpressionError, evaluate_expression, read_number
from rewards.mathematics import judge
from rewards.tasks import TASKS

NUMBERS = [
    ("42", "42", "correct"),
    ("42", " 42. ", "correct"),
    ("42", "+42", "correct"),
    ("42", "042", "correct"),
    ("42", "42.0", "correct"),
    ("42", "$42$", "correct"),
    ("42", r"\(42\)", "correct"),
    ("42", "x = 42", "correct"),
    ("42", "4.2e1", "correct"),
    ("1234567", "1,234,567", "correct"),
    ("-12", "−12", "correct"),
    ("-12", "–12", "correct"),
    ("7/2", "3.5", "correct"),
    ("7/2", "14/4", "correct"),
    ("-7/2", r"-\frac{7}{2}", "correct"),
    ("-7/2", "7/-2", "correct"),
    ("1/3", "0.333333", "wrong"),
    ("42", "43", "wrong"),
    ("42", "-42", "wrong"),
    ("3", "12/4", "wrong"),  # the question, not its answer
    ("42", "40 + 2", "unparsable"),
    ("42", "41 or 42", "unparsable"),
    ("42", "42 apples", "unparsable"),
    ("42", "1,23", "unparsable"),
    ("42", "４２", "unparsable"),
    ("42", "1/0", "unparsable"),
    ("42", "", "unparsable"),
    ("42", None, "no_answer"),
    ("forty-two", "42", "unreadable_gold"),
    ("", None, "unreadable_gold"),
]


@pytest.mark.parametrize(("gold", "answer", "kind"), NUMBERS)
def test_numbers(gold, answer, kind):
    assert check(gold=gold, answer=answer, task="equations").kind == kind


COUNTDOWN = [  # numbers 3, 4, 5; target 17
    ("3*4+5", "correct"),
    ("5+4*3", "correct"),
    ("(3 × 4) + 5 = 17", "correct"),
    ("3·4−(−5)", "correct"),
    (r"$3 \times 4 + 5 = 17$", "correct"),
    (r"\left(3 \cdot 4\right) + 5", "correct"),
    ("3*4+5 = 18", "wrong"),
    ("3*4+5 = 17 = 17", "wrong"),
    ("3*4*5", "wrong"),
    ("3*4+5+0", "wrong"),  # a number that was not given
    ("4*4+5-4", "wrong"),  # one used three times
    ("12+5", "wrong"),
    ("34/(5-3)", "wrong"),
    ("17", "wrong"),
    ("3/(4-4)+5", "wrong"),
    ("3**4+5", "unparsable"),
    ("3^4+5", "unparsable"),
    ("3*4+5)", "unparsable"),
    ("(3*4+5", "unparsable"),
    ("3 4 5", "unparsable"),
    ("3.0*4+5", "unparsable"),
    ("--3*4+5", "unparsable"),
    ("+3*4+5", "unparsable"),
    ("", "unparsable"),
    ("()", "unparsable"),
    ("3*4+5;", "unparsable"),
    ("__import__('os').getpid()", "unparsable"),
    (None, "no_answer"),
]


@pytest.mark.parametrize(("answer", "kind"), COUNTDOWN)
def test_countdown(answer, kind):
    assert check(gold="17", answer=answer, task="countdown", numbers=[3, 4, 5]).kind == kind


def test_countdown_without_its_numbers_masks():
    assert check(gold="17", answer="3*4+5", task="countdown").kind is VerdictKind.UNREADABLE_GOLD
    assert check(gold="17", answer=None, task="countdown").reward is None


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def all_expressions(terms):
    """Every (text, value) that combines all of `terms` [(text, value)] by pairs: brute force, sharing nothing with the
    reader.
    """
    if len(terms) == 1:
        yield terms[0]
        return
    for i, j in itertools.permutations(range(len(terms)), 2):
        rest = [terms[k] for k in range(len(terms)) if k not in (i, j)]
        (left, a), (right, b) = terms[i], terms[j]
        for sign, operation in OPERATIONS.items():
            if sign == "/" and b == 0:
                continue
            yield from all_expressions([*rest, (f"({left} {sign} {right})", operation(a, b))])


@pytest.mark.parametrize("numbers", [(3, 4, 5), (1, 1, 2), (6, 2, 10)])
def test_countdown_agrees_with_brute_force(numbers):
    target = Fraction(7)
    for text, value in all_expressions([(str(n), Fraction(n)) for n in numbers]):
        verdict = check(gold="7", answer=text, task="countdown", numbers=numbers)
        assert (verdict.kind == "correct") == (value == target), (text, value, verdict)
        assert evaluate_expression(text)[0] == value


def test_countdown_of_four_numbers_finds_each_solution():
    reachable = {}
    for text, value in all_expressions([(str(n), Fraction(n)) for n in (2, 3, 7, 8)]):
        reachable.setdefault(value, text)
    assert Fraction(24) in reachable
    for value, text in reachable.items():
        assert check(gold=str(value), answer=text, task="countdown", numbers=(2, 3, 7, 8)).kind == "correct"


TREES = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", " - ", " * ", " / "]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"(-({text}))"),
    ),
    max_leaves=8,
)


def value_by_python(node):
    """The value of a parsed expression, read by Python's own parser: precedence and associativity from an independent
    source.
    """
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp):
        return -value_by_python(node.operand)
    signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
    return OPERATIONS[signs[type(node.op)]](value_by_python(node.left), value_by_python(node.right))


@given(TREES)
def test_expressions_agree_with_pythons_parser(text):
    tree = ast.parse(text, mode="eval").body
    leaves = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    try:
        expected = value_by_python(tree)
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate_expression(text)
        return
    value, used = evaluate_expression(text)
    assert value == expected
    assert sorted(used) == sorted(leaves)


@given(st.text("0123456789+-*/() .,=×÷", max_size=30))
def test_what_python_cannot_parse_is_refused(text):
    try:
        evaluate_expression(text)
    except (ExpressionError, ZeroDivisionError):
        return
    plain = text.replace("×", "*").replace("÷", "/").strip().rstrip(".")
    without_leading_zeros = re.sub("[0-9]+", lambda digits: str(int(digits[0])), plain)
    ast.parse(without_leading_zeros, mode="eval")


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_numbers_are_read_exactly(top, bottom):
    assert read_number(f"{top}/{bottom}") == Fraction(top, bottom)
    assert read_number(f"{top:,}") == top
    assert read_number(f"{top}.{bottom}") == Fraction(f"{top}.{bottom}")
    assert read_number(str(top).replace("-", "−")) == top


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_only_equal_numbers_are_right(gold, answer):
    assert (check(gold=str(gold), answer=str(answer), task="arithmetic").kind == "correct") == (gold == answer)


LISTS = [
    ("Ann, Bob, Carl", "ann,bob,CARL", "correct"),
    ("Ann, Bob, Carl", "Ann > Bob > Carl", "correct"),
    ("Ann, Bob, Carl", "Ann → Bob → Carl.", "correct"),
    ("Ann, Bob, Carl", r"Ann \to Bob \rightarrow Carl", "correct"),
    ("Ann, Bob, Carl", "Ann\nBob\nCarl\n", "correct"),
    ("Ann, Bob, Carl", r"\text{Ann, Bob, Carl}", "correct"),
    ("Ann, Bob, Carl", "**Ann**, **Bob**, **Carl**", "correct"),
    ("김철수, 이영희", "김철수， 이영희", "correct"),
    ("Ann", "Ann.", "correct"),
    ("Ann, Bob, Carl", "Carl, Bob, Ann", "wrong"),
    ("Ann, Bob, Carl", "Carl < Bob < Ann", "wrong"),  # "<" is not a separator: it turns the order round
    ("Ann < Bob", "ann  <  bob", "correct"),
    ("Ann, Bob, Carl", "Ann, Bob", "wrong"),
    ("Ann, Bob, Carl", "Ann, Bob, Carl, Ann", "wrong"),
    ("Ann, Bob, Carl", "Ann Bob Carl", "wrong"),
    ("Ann", " , ", "unparsable"),
    ("Ann", None, "no_answer"),
    ("  ", "Ann", "unreadable_gold"),
]


@pytest.mark.parametrize(("gold", "answer", "kind"), LISTS)
def test_orderings(gold, answer, kind):
    assert check(gold=gold, answer=answer, task="ordering").kind == kind


MATHEMATICS = [
    (r"\frac{1}{2}", "0.5", "correct"),
    (r"\frac{1}{2}", r"\dfrac{1}{2}", "correct"),
    (r"$\frac{1}{2}$", r"\frac12", "correct"),
    (r"x = \frac{1}{2}", "1/2", "correct"),
    ("42", "6 * 7", "wrong"),  # the question, not its answer
    ("42", "6 * 7 = 42", "correct"),
    ("42", "42 apples", "correct"),
    ("42", "The total is $42$", "correct"),
    ("10", "$10", "correct"),
    (r"10\text{ cm}", "10 cm", "correct"),
    (r"3\sqrt{2}", r"\sqrt{18}", "correct"),
    ("2\\pi", "2*pi", "correct"),
    ("x^2-1", "(x-1)(x+1)", "correct"),
    ("1, 2", "x = 2 or x = 1", "correct"),
    (r"(-\infty, 3) \cup (4, \infty)", "(-∞,3)∪(4,∞)", "correct"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", "correct"),
    (r"[2, \infty)", r"x \ge 2", "correct"),
    (r"\text{Monday}", "monday.", "correct"),
    (r"\text{(A)}", "A", "correct"),
    ("50\\%", "0.5", "correct"),
    ("1,234", "1234", "correct"),
    ("073", r"\textbf{(073)}", "correct"),
    (r"\frac{1}{3}", "0.333333", "correct"),
    ("6 * 7 = 42\n#### 42", "42", "correct"),  # GSM8K's gold
    (r"So it is $\boxed{42}$.", "42", "correct"),  # MATH's gold
    (r"\frac{1}{2}", r"\frac{1}{3}", "wrong"),
    (r"\frac{1}{3}", "0.33", "wrong"),
    ("x+1", "x+2", "wrong"),
    ("(1, 2)", "(2, 1)", "wrong"),
    ("A", "B", "wrong"),
    (r"\text{Monday}", "Tuesday", "wrong"),
    # accepted by math-verify 0.9, each of them
    ("42", "41 = 42", "wrong"),
    ("42", "x = 41 = 42", "wrong"),
    ("42", "40 + 1 = 42", "wrong"),
    ("42", r"42\text{ million}", "wrong"),
    ("42", "42 million", "wrong"),
    ("42", "42_5", "wrong"),
    ("204_5", "204_6", "wrong"),
    ("204_5", "204_{5}", "correct"),
    ("204_5", "54", "wrong"),
    # rejected by math-verify 0.9, each of them
    ("42", "42.", "correct"),
    ("42", "{42}", "correct"),
    ("42", "4.2e1", "correct"),
    # several answers are not one right answer
    ("42", "41 or 42", "wrong"),
    ("42", "$41$ or $42$", "wrong"),
    ("42", "41, 42", "wrong"),
    ("42", r"\frac{42}{", "unparsable"),
    ("42", "", "unparsable"),
    ("42", None, "no_answer"),
    ("x+1", None, "no_answer"),
    (r"\frac{1}{", "42", "unreadable_gold"),
    (r"\frac{1}{", None, "unreadable_gold"),
    ("", "42", "unreadable_gold"),
]


def test_mathematics(pool):
    verdicts = check_many([Case(gold=gold, answer=answer) for gold, answer, _ in MATHEMATICS], pool)
    found = [
        (gold, answer, verdict.kind.value) for (gold, answer, _), verdict in zip(MATHEMATICS, verdicts, strict=True)
    ]
    assert found == MATHEMATICS


def test_gold_and_answer_are_told_apart(pool):
    """An equation as the gold answer accepts its right side; a value as the gold answer is no reason to accept another
    equation.
    """
    asked = [Case(gold="y = x + 1", answer="x + 1"), Case(gold="x + 1", answer="2y = x + 1")]
    assert [verdict.kind.value for verdict in check_many(asked[:1], pool)] == ["correct"]
    with pytest.raises(TypeError):
        check("42", "42")  # by keyword only


def test_a_mixed_batch_keeps_its_order(pool):
    cases = [
        Case(gold="x+1", answer="1+x"),
        Case(gold="17", answer="3*4+5", task="countdown", numbers=(3, 4, 5)),
        Case(gold="x+1", answer="x-1"),
        Case(gold="Ann, Bob", answer="Bob, Ann", task="ordering"),
        Case(gold="42", answer=None),
        Case(gold="x+1", answer="1+x"),
    ]
    assert [verdict.reward for verdict in check_many(cases, pool)] == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_checks_in_the_background(pool):
    """The caller goes on; the verdicts are those of check_many, and a worker's failure comes out at `result`."""
    cases = [Case(gold=r"\sin 2x", answer=r"2\sin x\cos x"), Case(gold="42", answer="41")]
    futures = [check_later(cases, pool) for _ in range(3)]
    assert [[verdict.reward for verdict in future.result(timeout=30)] for future in futures] == [[1.0, 0.0]] * 3

    class Broken:
        def verify_many(self, pairs):
            raise WorkerError("no process can be started")

    future = check_later([Case(gold=r"\sin 2x", answer=r"2\sin x\cos(x)")], Broken())
    with pytest.raises(WorkerError, match="no process"):
        future.result(timeout=30)


def test_rewards_of_the_seven_kinds():
    from rewards import Verdict

    rewards = {kind.value: Verdict(kind).reward for kind in VerdictKind}
    assert rewards == {
        "correct": 1.0, "wrong": 0.0, "no_answer": 0.0, "unparsable": 0.0, "timeout": 0.0,
        "unreadable_gold": None, "gold_timeout": None,
    }  # fmt: skip


CHEAP_HOSTILE = [
    "9**9**9",
    "9^9^9",
    "(" * 100_000 + "42" + ")" * 100_000,
    "(" * 90 + "43" + ")" * 90,
    "-" * 151 + "42",
    "9" * 1_000_000,
    "4" + "2" * 150,
    "1e999999999",
    "42" + "\x00",
    "\ud800",
    "{" * 1_000_000,
    "}{" * 50_000,
    "1/" * 90 + "0",
    "1,000" * 50_000,
    "10!" + "!" * 1_000,
    "__import__('os').system('true')",
]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_exact_tasks_shrug_off_hostile_answers(task):
    start = time.process_time()
    for answer in CHEAP_HOSTILE:
        assert check(gold="42", answer=answer, task=task, numbers=(6, 7)).reward == 0.0
    assert time.process_time() - start < 1.0


BOMBS = [
    "9^{9^9}",
    "9**9**9",
    r"9^{9^{9^{9}}} - 9^{9^{9^{9}}} + 42",
    r"((((10!)!)!)!)!",
    r"\binom{1000000}{500000}",
    r"\sum_{i=1}^{10^9} i^{i}",
    "{" * 900 + "42" + "}" * 900,
]


def test_no_bomb_goes_off(pool, monkeypatch, tmp_path):
    """None is accepted. Those that the exact stages refuse cost nothing; those that reach math-verify, because our
    reader does not know the gold answer, end within their time-out, and the next answer is checked.
    """
    marker = tmp_path / "executed"
    call = f"__import__('os').system('touch {marker}')"
    code = [call, rf"\text{{{call}}}", rf"\{{\text{{{call}}}, 1\}}", rf"\operatorname{{{call}}}"]
    cases = [Case(gold="42", answer=answer) for answer in BOMBS + CHEAP_HOSTILE + code]
    monkeypatch.setattr(pool, "timeout", 0.5)
    start = time.process_time()
    assert {judge(gold="42", answer=case.answer).reward for case in cases} == {0.0}
    assert time.process_time() - start < 1.0
    cases += [Case(gold=r"\int_0^{42} x\,dx", answer=answer) for answer in BOMBS + code]
    start = time.monotonic()
    verdicts = check_many(cases, pool)
    assert time.monotonic() - start < 25  # 2 s on idle cores
    # On a machine that stalls, the gold answer alone takes the half second.
    assert {VerdictKind.TIMEOUT, VerdictKind.GOLD_TIMEOUT} & {verdict.kind for verdict in verdicts}
    assert [case.answer for case, verdict in zip(cases, verdicts, strict=True) if verdict.reward != 0.0] == []
    assert not marker.exists()
    assert check_many([Case(gold="q+1", answer="1+q")], pool)[0].reward == 1.0


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from([*TASKS]))
def test_exact_checks_never_raise(gold, answer, task):
    verdict = check(gold=gold, answer=answer, task=task, numbers=(1, 2))
    assert verdict.reward in (0.0, 1.0, None)


@given(st.lists(st.text("abc ABC가나-'", min_size=1, max_size=8), min_size=1, max_size=4).map(", ".join))
def test_the_gold_list_itself_is_never_wrong(text):
    verdict = check(gold=text, answer=text.upper() + " ", task="ordering")
    assert verdict.kind in (VerdictKind.CORRECT, VerdictKind.UNREADABLE_GOLD)
