"""The reward function: where a proof stands in a completion, which rows it applies to, what a missing tool means."""

import doctest
import importlib
import pkgutil

import pytest

import rewards.proofs
from rewards.proofs import ProofKind, ProofToolError, ProofVerdict, extract_proof, proof_reward, proof_verdicts
from rewards.proofs.reward import BACKENDS, language_of

MODULES = [module.name for module in pkgutil.iter_modules(rewards.proofs.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(f"rewards.proofs.{name}")).failed == 0


@pytest.mark.parametrize(
    ("completion", "proof"),
    [
        ("<think>a</think>```coq\nauto.\n```", "auto.\n"),
        ("<think>a</think> So ```coq auto.```", None),
        ("<think>a</think>\n```coq\nauto.\n```", "auto.\n"),
        ("<think>a</think>\n```Coq\nauto.\n```\n```coq\ntauto.\n```", "tauto.\n"),
        ("<think>a</think>\n```coq\nauto.\n```\n```python\nprint()\n```", "auto.\n"),
        ("<think>a</think>\n```\nauto.\n```", "auto.\n"),
        ("<think>\n```coq\nauto.\n```\n", None),
        ("<think>\n```coq\nauto.\n```\n</think> It follows.", None),
        ("<think>a</think><answer>auto.</answer>", "auto."),
        ("<think>a</think><answer>\n```lean4\n  simp\n```\n</answer>", "  simp\n"),
        ("<think>a</think><answer>auto.</answer><answer>tauto.</answer>", "tauto."),
        ("```coq\nauto.\n```", "auto.\n"),
        ("```coq\nauto.\n", None),
        ("auto.", None),
        ("", None),
    ],
)
def test_where_the_proof_stands(completion, proof):
    assert extract_proof(completion) == proof
    assert extract_proof([{"role": "assistant", "content": completion}]) == proof


def test_a_prompt_that_ends_inside_a_block_is_continued():
    prompt = "```coq\nLemma a : True.\n```\nNow prove:\n```lean4\ntheorem t : True := by\n"
    assert extract_proof("  trivial\n```\nand so on\n```\n", prompt) == "  trivial\n"
    assert extract_proof("  trivial", prompt) == "  trivial"
    assert extract_proof("```coq\nauto.\n```", prompt + "  simp\n```\n") == "auto.\n"


def test_a_prefilled_think_is_understood():
    assert extract_proof("```coq\nauto.\n```", "Prove it. <think>") is None
    assert extract_proof("hm</think>\n```coq\nauto.\n```", "Prove it. <think>") == "auto.\n"


def test_languages():
    assert language_of("import Mathlib\ntheorem t : True") == "lean"
    assert language_of("lemma t : True") == "lean"
    assert language_of("Lemma t : True.") == "coq"
    assert language_of("theorem t : True", "Rocq") == "coq"
    with pytest.raises(ValueError, match="coq, rocq, lean, lean4, got 'agda'"):
        language_of("t", "agda")


class Recorder:
    """A backend that answers by a table."""

    language = "coq"

    def __init__(self, kinds):
        self.kinds, self.tasks = kinds, []

    def check_many(self, tasks, timeout=None):
        self.tasks += tasks
        return [ProofVerdict(self.kinds[task.script]) for task in tasks]


def test_rows_go_to_their_backend_and_come_back_in_order():
    coq = Recorder({"a": ProofKind.PROVED, "b": ProofKind.FAILED})
    lean = Recorder({"a": ProofKind.UNREADABLE_STATEMENT, "b": ProofKind.PROVED})
    answers = [f"<answer>{letter}</answer>" for letter in "abab"] + ["none", "<answer>a</answer>"]
    verdicts = proof_verdicts(
        [""] * 6,
        answers,
        statement=["S", "S", "theorem s", "theorem s", "S", None],
        preamble=["P", None, "", "Q", "", ""],
        backends={"coq": coq, "lean": lean},
    )
    assert [verdict and verdict.kind.value for verdict in verdicts] == [
        "proved", "failed", "unreadable_statement", "proved", "no_proof", None,
    ]  # fmt: skip
    assert [verdict and verdict.reward for verdict in verdicts] == [1.0, 0.0, None, 1.0, 0.0, None]
    assert [task.preamble for task in coq.tasks + lean.tasks] == ["P", "", "", "Q"]


def test_rows_without_a_statement_need_no_tool(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert (
        proof_reward(["", ""], ["<answer>auto.</answer>", "x"], statement=[None, None], task=["math"] * 2) == [None] * 2
    )
    assert proof_reward([""], ["no proof"], statement=["True"]) == [0.0]


@pytest.mark.parametrize(("statement", "says"), [("True", "apt-get install coq"), ("theorem t : True", "elan")])
def test_a_missing_tool_is_an_error_not_a_reward(monkeypatch, statement, says):
    monkeypatch.setenv("PATH", "/nonexistent")
    backends = {language: start() for language, start in BACKENDS.items()}
    with pytest.raises(ProofToolError, match=says):
        proof_verdicts([""], ["<answer>auto.</answer>"], statement=[statement], backends=backends)


def test_missing_and_uneven_columns_are_named():
    with pytest.raises(ValueError, match="column `statement`"):
        proof_reward([""], ["x"])
    with pytest.raises(ValueError, match="`preamble` has 2 rows, there are 1"):
        proof_reward([""], ["x"], statement=["True"], preamble=["", ""])


def test_the_reward_with_coq(coq):
    completions = [
        "<think>Easy.</think>\n```coq\nintros n. reflexivity.\n```",
        "<think>Easy.</think>\n```coq\nTheorem t : forall n : nat, n = n.\nProof. intros n. reflexivity. Qed.\n```",
        "<think>Easy.</think>\n```coq\nintros n. Admitted.\n```",
        "<think>Easy.</think> It is clear.",
        "<think>Easy.</think>\n```coq\nexact I.\n```",
    ]
    verdicts = proof_verdicts(
        [""] * 5, completions, statement=["forall n : nat, n = n"] * 4 + ["nonsense"], backends={"coq": coq}
    )
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0, 0.0, 0.0, None]
