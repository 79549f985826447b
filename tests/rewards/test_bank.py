"""The bank of cases with certain verdicts, and public data sets respelled, through the accuracy reward.

At least 99 % right, and at most 1 false accept in 500 wrong cases: a false accept is what training would find and
exploit. What fails is printed.
"""

import json
from pathlib import Path

import pytest
from bank import BankCase, about_answers, cases, in_box

from rewards import accuracy_reward, accuracy_verdicts, default_pool

DATA = Path(__file__).parents[3] / "shared" / "data"
CASES = cases()
KINDS = sorted({case.kind for case in CASES})
PATIENCE = 5.0
"""Seconds for one check: the bank asks whether verdicts are right; a busy machine must not change them."""


@pytest.fixture(scope="module", autouse=True)
def patient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_pool(), "timeout", PATIENCE)
        yield


def judge(bank):
    """The bank's cases, each with its verdict."""
    columns = ([case.prompt for case in bank], [case.completion for case in bank])
    return list(zip(bank, accuracy_verdicts(*columns, answer=[case.gold for case in bank]), strict=True))


def is_right(case, verdict):
    if case.verdict in ("no_answer", "unreadable_gold"):
        return verdict.kind == case.verdict
    return verdict.reward == case.reward


def report(judged):
    """The wrongly judged cases, one a line."""
    return "".join(
        f"\n  {case}\n    is {case.verdict}, judged {verdict.kind.value}: {verdict.detail}"
        for case, verdict in judged
        if not is_right(case, verdict)
    )


@pytest.fixture(scope="module")
def judged(patient):
    return judge(CASES)


def test_the_bank_is_what_it_claims():
    """Enough cases, somewhat more right than wrong ones, and every kind of answer both right and wrong."""
    assert len(CASES) >= 800
    assert 0.5 < sum(case.verdict == "correct" for case in CASES) / len(CASES) < 0.65
    for kind in KINDS:
        assert {"correct", "wrong"} <= {case.verdict for case in CASES if case.kind == kind}, kind


def test_the_bank_is_the_same_on_every_call():
    assert cases() == CASES


def test_at_least_99_percent_are_right(judged):
    right = sum(is_right(case, verdict) for case, verdict in judged)
    failures = report(judged)
    print(f"\n{right} of {len(judged)} right ({right / len(judged):.2%}){failures}")
    assert right / len(judged) >= 0.99, failures


def test_at_most_one_false_accept_in_500(judged):
    wrong = [(case, verdict) for case, verdict in judged if case.reward == 0.0]
    accepted = [(case, verdict) for case, verdict in wrong if verdict.reward == 1.0]
    print(f"\n{len(accepted)} of {len(wrong)} wrong answers accepted{report(accepted)}")
    assert len(accepted) <= len(wrong) / 500, report(accepted)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_is_left_behind(judged, kind):
    """99 % overall could hide a whole kind of answers that is misjudged."""
    of_kind = [(case, verdict) for case, verdict in judged if case.kind == kind]
    right = sum(is_right(case, verdict) for case, verdict in of_kind)
    assert right / len(of_kind) >= 0.95, report(of_kind)


def test_a_box_and_the_tags_mean_the_same(judged):
    """The same answer in `\\boxed{}` instead of `<answer>` gets the same reward."""
    in_tags = [(case, verdict) for case, verdict in judged if case.answer is not None and balanced(case.answer)]
    boxed = accuracy_reward(
        [""] * len(in_tags), [in_box(case.answer) for case, _ in in_tags], answer=[case.gold for case, _ in in_tags]
    )
    differing = [
        (str(case), verdict.reward, reward)
        for (case, verdict), reward in zip(in_tags, boxed, strict=True)
        if verdict.reward != reward
    ]
    assert differing == []


def balanced(answer):
    return answer.replace(r"\{", "").count("{") == answer.replace(r"\}", "").count("}") and r"\boxed" not in answer


def rows(name, every=1):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][::every]


def respelled(gold, number, noun):
    """An integer answer in the spellings that models use, and in wrong ones."""
    n = int(number.replace(",", ""))
    correct = [
        f"{n}", f"{n:,}", f"${n}$", rf"\${n:,}", f"{n}.0", f"{n}.00", f"{n} {noun}", rf"{n}\text{{ {noun}}}",
        rf"\boxed{{{n}}}", f"{n}.",
        rf"x = {n}", rf"The total is $\boxed{{{n}}}$.",
    ]  # fmt: skip
    wrong = [
        str(n + 1),
        str(n - 1),
        str(-n or 7),
        f"{n}1",
        f"{n}.5",
        f"{n} or {n + 1}",
        f"{n}, {n + 2}",
        f"{n} million",
        rf"\boxed{{{n + 10}}}",
    ]
    return list(about_answers("public", gold, correct, wrong))


def test_gsm8k():
    """Golds as published: a solution that ends in `#### 1,234`."""
    bank = []
    for row in rows("gsm8k_test.jsonl", every=8):
        bank += respelled(row["answer"], row["answer"].rpartition("####")[2].strip(), "apples")
    judged = judge(bank)
    assert len(judged) > 3000
    assert report(judged) == ""


def test_gsm8k_solutions_as_completions():
    """A published solution as the reasoning: its own answer is right where it is marked, another one wrong."""
    bank = []
    for row in rows("gsm8k_test.jsonl", every=4):
        steps, _, number = row["answer"].rpartition("####")
        thought, number = f"<think>\n{steps.strip()}\n</think>\n", number.strip().replace(",", "")
        for completion, verdict in (
            (f"{thought}<answer>{number}</answer>", "correct"),
            (rf"{thought}The answer is $\boxed{{{number}}}$.", "correct"),
            (f"{thought}The answer is {number}.", "no_answer"),
            (f"{thought}<answer>{int(number) + 3}</answer>", "wrong"),
            (f"<think>\n{row['answer']}", "no_answer"),
        ):
            bank.append(BankCase(kind="public", gold=row["answer"], completion=completion, verdict=verdict))
    assert report(judge(bank)) == ""


def test_aime():
    """Golds of three digits, with leading zeros."""
    bank = []
    for row in rows("aime24.jsonl"):
        gold = row["answer"]
        correct = [gold, str(int(gold)), f"${gold}$", rf"\textbf{{({gold})}}", rf"\boxed{{{gold}}}", f"{int(gold)}."]
        wrong = [str(int(gold) + 1), f"{int(gold)}0", f"-{gold}", rf"\boxed{{{int(gold) - 1:03}}}", f"0.{gold}"]
        bank += about_answers("public", gold, dict.fromkeys(correct), wrong)
    assert report(judge(bank)) == ""
