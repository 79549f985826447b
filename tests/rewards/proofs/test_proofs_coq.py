"""Coq: right proofs pass, errors are placed, a search can resume, and the processes are looked after."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rewards.proofs import CoqBackend, ProofBackend, ProofKind, ProofTask, ProofToolError
from rewards.proofs.coq_session import assumptions

ROOT = Path(__file__).parents[3]
LIA = "From Coq Require Import Arith Lia List."
REALS = "From Coq Require Import Reals Lra. Open Scope R_scope."

RIGHT = [
    ("True", "exact I.", ""),
    ("forall n : nat, n + 0 = n", "induction n as [| n IH]. - reflexivity. - simpl. rewrite IH. reflexivity.", ""),
    ("forall n : nat, n + 0 = n", "induction n; simpl; auto.", ""),
    ("Theorem t : forall n : nat, n + 0 = n.", "Proof.\n  intros n.\n  now induction n.\nQed.", ""),
    ("Lemma t (n m : nat) : n + m = m + n.", "lia.", LIA),
    ("Theorem t : forall P Q : Prop, P /\\ Q -> Q /\\ P.\nProof.", "intros P Q []. split.\n{ auto. } { auto. }", ""),
    ("forall P Q : Prop, P \\/ Q -> Q \\/ P", "intros P Q [p | q]. * right. assumption. * left. assumption.", ""),
    ("forall P : Prop, ~ ~ (P \\/ ~ P)", "tauto.", ""),
    ("exists n : nat, n * n = 49", "exists 7. reflexivity.", ""),
    ("forall n : nat, n < 2 ^ n", "intros n. apply Nat.pow_gt_lin_r. auto.", LIA),
    ("forall (A : Type) (l : list A), rev (rev l) = l", "intros. apply rev_involutive.", LIA),
    ("forall n : nat, even n = true \\/ even (S n) = true", "induction n; [left | destruct IHn; [right | left]]; auto.",
     "Fixpoint even (n : nat) := match n with 0 => true | 1 => false | S (S n) => even n end."),
    ("forall x : R, x + 0 = x", "intros x. lra.", REALS),
    ("forall x y : R, x < y -> exists z, x < z < y", "intros x y H. exists ((x + y) / 2). lra.", REALS),
    ("forall n : nat, f n = f n", "reflexivity.", "Parameter f : nat -> nat."),
    ("forall n m : Z, (n < m -> m > n)%Z", "intros. Z.swap_greater. assumption.", "From Coq Require Import ZArith."),
    ("forall n : nat, n + 0 = n", "Proof with auto. induction n... Qed.", ""),
    ("forall n : nat, n = n", "Proof using. reflexivity. Qed.", ""),
    ("#1", "exact I.", "Notation \"'#' x\" := True (at level 9). Notation \"'(*' x '. '\" := x (at level 9)."),
    ("forall n : nat, n = n", "intros n. 1: { reflexivity. }", ""),
    ("True /\\ True", "split. all: exact I.", ""),
    ("True /\\ True", "split; [> exact I | exact I ].", ""),
    ("forall n : nat, n = n", "intros... reflexivity.", ""),
    ("forall n : nat, n = n", "(* a (* nested \"*)\" *) comment. *) intros n. (* - *) reflexivity. (* end *)", ""),
    ('("a" <> "b")%string', 'assert ("a" <> "b")%string by discriminate. auto.', "From Coq Require Import String."),
    ("forall α : nat, α = α", "intros α. reflexivity.", ""),
    ("forall n : nat, n = n", "intros n. assert (H : n = n) by abstract reflexivity. exact H.", ""),
    ("1 + 1 = 2", "vm_compute. reflexivity.", ""),
    ("forall b : bool, negb (negb b) = b", "move=> b. by case: b.", "From Coq Require Import ssreflect."),
    ("2 * (3 + 4) = 14", "From Coq Require Import Arith Lia List. Theorem t : 2 * (3 + 4) = 14. Proof. lia. Qed.", LIA),
    ("forall P : Prop, P -> P", "intros P p. exact p. Defined.", ""),
    ("exists x : nat, x = x", "eexists. Unshelve. 2: exact 0. reflexivity.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "script", "preamble"), RIGHT)
def test_right_proofs_pass(coq, statement, script, preamble):
    verdict = coq.check(statement, script, preamble)
    assert (verdict.kind, verdict.reward) == (ProofKind.PROVED, 1.0), verdict


def test_it_is_a_backend(coq):
    assert isinstance(coq, ProofBackend)
    assert coq.language == "coq"


def test_an_error_is_placed_and_a_search_resumes_there(coq):
    script = (
        "intros n m.\n(* ∀ *) induction n as [| n IH].\n- simpl. rewrite <- plus_n_O. auto.\n- simpl. rewrite nope."
    )
    verdict = coq.check("forall n m : nat, n + m = m + n", script)
    assert verdict.kind is ProofKind.FAILED
    assert script[verdict.position.offset :] == "nope."
    assert (verdict.position.line, verdict.position.column) == (4, 17)
    assert verdict.valid_prefix == script.removesuffix(" rewrite nope.")
    assert "nope" in verdict.detail
    assert "IH : n + m = m + n" in verdict.goals
    assert "S (n + m) = m + S n" in verdict.goals
    rest = " rewrite IH. apply plus_n_Sm."
    assert coq.check("forall n m : nat, n + m = m + n", verdict.valid_prefix + rest).kind is ProofKind.PROVED


def test_the_place_counts_characters_not_bytes(coq):
    script = "intros α β γ.\nexact (eq_trans δ)."
    verdict = coq.check("forall a b c : nat, a = b -> a = c", script)
    assert script[verdict.position.offset] == "δ"
    assert verdict.position.line == 2


@pytest.mark.parametrize(
    ("script", "kind", "where", "prefix"),
    [
        ("split. exact I.", "incomplete", "", "split. exact I."),
        ("split.\n- exact I.\n- idtac", "failed", "idtac", "split.\n- exact I.\n-"),
        ("split.\n- exact I.\n- admit.", "cheating", "admit.", "split.\n- exact I.\n-"),
        ("split. exact I. Axiom a : False. exact I.", "cheating", "Axiom a : False. exact I.", "split. exact I."),
        ("split. nope. Axiom a : False.", "failed", "nope. Axiom a : False.", "split."),
        ("split. exact I. exact I. exact I.", "failed", "exact I.", "split. exact I. exact I."),
        ("", "incomplete", "", ""),
        ("  (* nothing", "failed", "(* nothing", ""),
        ("split.\n- exact I. (* and", "failed", "(* and", "split.\n- exact I."),
        ('split.\n- exact I.\n- idtac "and', "failed", '"and', "split.\n- exact I.\n-"),
    ],
)
def test_the_first_problem_decides(coq, script, kind, where, prefix):
    verdict = coq.check("True /\\ True", script)
    assert (verdict.kind.value, verdict.valid_prefix) == (kind, prefix), verdict
    assert script[verdict.position.offset :] == where
    assert "True" in verdict.goals or not where or kind == "failed"
    rest = {"split.": " all: exact I.", "": "split; exact I.", "split. exact I. exact I.": ""}.get(prefix)
    if rest is None:
        rest = "\n- exact I." if prefix.endswith("exact I.") and "-" in prefix else " exact I."
    assert coq.check("True /\\ True", prefix + rest).kind is ProofKind.PROVED


def test_a_time_out_is_placed(coq):
    script = "intros n. let rec loop := idtac; loop in loop. reflexivity."
    verdict = coq.check("forall n : nat, n = n", script, timeout=0.5)
    assert verdict.kind is ProofKind.TIMEOUT
    assert verdict.valid_prefix == "intros n."
    assert script[verdict.position.offset :].startswith("let rec")


@pytest.mark.parametrize(
    ("statement", "preamble", "says"),
    [
        ("forall n : nat, n = m", "", "m was not found"),
        ("", "", "one sentence"),
        ("True. Axiom a : False", "", "one sentence, got 2"),
        ("Theorem t", "", "Syntax error"),
        ("True", "Require Import NoSuchLibrary.", "NoSuchLibrary"),
        ("True", "Section s.", "open"),
        ("True", "Lemma l : True.", "open"),
        ("True", "(* never closed", "never closed"),
        ("5", "", "the statement"),
    ],
)
def test_a_bad_row_masks(coq, statement, preamble, says):
    verdict = coq.check(statement, "exact I.", preamble)
    assert (verdict.kind, verdict.reward) == (ProofKind.UNREADABLE_STATEMENT, None)
    assert says in verdict.detail
    assert coq.check("True", "exact I.").kind is ProofKind.PROVED


def test_axioms_are_refused_unless_named_or_needed_by_the_statement(coq):
    statement, preamble = "forall P : Prop, P \\/ ~ P", "From Coq Require Import Classical."
    verdict = coq.check(statement, "exact classic.", preamble)
    assert verdict.kind is ProofKind.CHEATING
    assert "classic" in verdict.detail
    lax = CoqBackend(size=1, axioms={"classic"})
    try:
        assert lax.check(statement, "exact classic.", preamble, timeout=20).kind is ProofKind.PROVED
    finally:
        lax.close()


def test_one_look_at_many_hides_no_axiom(coq):
    """Accepted theorems are looked at together; what one rests on is not overlooked, nor held against the others."""
    preamble = "Axiom bad : forall n : nat, n = S n. Parameter f : nat -> nat."
    scripts = {
        ("forall n : nat, n = n", "reflexivity."): "proved",
        ("forall n : nat, n = S n", "exact bad."): "cheating",
        ("1 = 2", "exact (bad 1)."): "cheating",
        ("forall n : nat, f n = f n", "reflexivity."): "proved",
        ("forall n : nat, f n = S (f n)", "intros n. apply bad."): "cheating",
        ("forall n : nat, f n + 0 = f n", "auto."): "proved",
    }
    tasks = [ProofTask(statement=statement, script=script, preamble=preamble) for statement, script in scripts]
    assert [verdict.kind.value for verdict in coq.check_many(tasks)] == list(scripts.values())
    right = [task for task, kind in zip(tasks, scripts.values()) if kind == "proved"]
    assert [verdict.reward for verdict in coq.check_many(right)] == [1.0] * 3


def test_bombs_in_a_batch_take_no_other_script_along(coq):
    loop = "let rec loop := idtac; loop in loop."
    scripts = ["reflexivity.", loop, "exact I.", "now idtac.", loop + " idtac.", "auto."]
    tasks = [ProofTask(statement="1 = 1", script=script) for script in scripts]
    verdicts = coq.check_many(tasks, timeout=0.3)
    assert [verdict.kind.value for verdict in verdicts] == [
        "proved",
        "timeout",
        "failed",
        "proved",
        "timeout",
        "proved",
    ]


def test_print_assumptions_is_read_line_by_line():
    assert assumptions("Axioms:\na : nat\nB.c\n  : forall n,\n    n = n\n") == ["a", "B.c"]
    for output in [
        "",
        "Axioms:",
        "a : nat",
        "Axioms:\n  : nat",
        "Section Variables:\nx : nat",
        "Axioms:\na : nat\nf is assumed to be guarded.",
        "Closed under the global context\nf is assumed to be guarded.",
    ]:
        with pytest.raises(ValueError, match=r"Print Assumptions|more than axioms"):
            assumptions(output)


def test_nothing_stays_from_one_script_to_the_next(coq):
    """A lemma of `abstract` is taken back, and so is the theorem itself."""
    assert coq.check("True", "abstract exact I.").kind is ProofKind.PROVED
    before = coq.check("True", "idtac. nope.").detail
    for _ in range(3):
        assert coq.check("1 = 2", "intros. abstract (exact_no_check (eq_refl 1)).").reward == 0.0
    assert coq.check("True", "idtac. nope.").detail == before


def test_many_at_once_come_back_in_order(coq):
    tasks = [
        ProofTask(statement=f"{i} + 1 = {i + 1 + i % 2}", script="reflexivity.", preamble=LIA if i % 3 else "")
        for i in range(12)
    ]
    pair = CoqBackend(size=2, timeout=20)
    try:
        kinds = [verdict.kind.value for verdict in pair.check_many(tasks)]
    finally:
        pair.close()
    assert kinds == ["proved", "failed"] * 6
    assert coq.check_many([]) == []


def test_a_fresh_process_confirms(coq):
    backend = CoqBackend(size=1, timeout=20, fresh=True)
    try:
        assert backend.check("1 + 1 = 2", "reflexivity.").kind is ProofKind.PROVED
        assert backend.check("1 + 1 = 3", "reflexivity.").kind is ProofKind.FAILED
    finally:
        backend.close()


def process_of(backend):
    (session,) = backend._pool._idle
    return session.process.pid


def test_processes_are_used_again_and_replaced_when_killed(coq, is_running):
    coq.check("True", "exact I.")
    first = process_of(coq)
    coq.check("True", "exact I.")
    assert process_of(coq) == first
    os.kill(first, signal.SIGKILL)
    assert coq.check("True", "exact I.").kind is ProofKind.PROVED
    second = process_of(coq)
    assert second != first
    coq.check("True", "repeat (assert True by exact I).", timeout=0.3)
    assert not is_running(second)


def test_a_process_killed_at_work_is_replaced_and_the_check_repeated(coq):
    coq.check("True", "exact I.")
    pid = process_of(coq)
    threading.Timer(0.2, os.kill, [pid, signal.SIGKILL]).start()
    assert coq.check("True", "do 3000000 idtac. exact I.").kind is ProofKind.PROVED  # 0.9 s of work
    assert process_of(coq) != pid


def test_threads_share_a_backend(coq):
    verdicts = {}

    def check(number):
        verdicts[number] = coq.check(f"{number} + 1 = {number + 1 + number % 2}", "reflexivity.").reward

    threads = [threading.Thread(target=check, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: float(number % 2 == 0) for number in range(6)}


def test_a_forked_process_leaves_its_parents_alone(coq):
    from rewards.proofs import proof_reward
    from rewards.proofs.reward import default_backend

    arguments = (["", ""], ["```coq\nexact I.\n```", "```coq\nfoo.\n```"])
    assert proof_reward(*arguments, statement=["True"] * 2) == [1.0, 0.0]
    parents = default_backend("coq")
    child = os.fork()
    if child == 0:
        right = proof_reward(*arguments, statement=["True"] * 2) == [1.0, 0.0]
        own = default_backend("coq") is not parents
        default_backend("coq").close()
        os._exit(0 if right and own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert proof_reward(*arguments, statement=["True"] * 2) == [1.0, 0.0]
    parents.close()


SCRIPT = """
from rewards.proofs import CoqBackend
backend = CoqBackend(size=1, timeout=1.0)
backend.check("True", "exact I.")
print(backend._pool._idle[0].process.pid, flush=True)
"""


def test_no_process_outlives_the_interpreter(coq, is_running):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not is_running(int(done.stdout), within=5.0)


def test_no_process_outlives_a_killed_parent(coq, is_running):
    """Killed while its Coq loops: processor time is limited to little more than the check may take."""
    code = SCRIPT + "backend.check('True', 'let rec loop := idtac; loop in loop.')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    assert not is_running(pid, within=30.0)


def test_a_missing_coq_is_an_error(monkeypatch):
    with pytest.raises(ProofToolError, match="apt-get install coq"):
        CoqBackend("no-such-coqtop").check("True", "exact I.")


def test_a_coq_that_does_not_start_is_an_error(tmp_path):
    broken = tmp_path / "coqtop"
    broken.write_text("#!/bin/sh\necho no libraries; exit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ProofToolError, match="no libraries"):
        CoqBackend(str(broken)).check("True", "exact I.")


@pytest.mark.parametrize("options", [{"size": 0}, {"timeout": 0}, {"timeout": float("nan")}])
def test_senseless_settings_are_refused(options):
    with pytest.raises(ValueError, match=r"process|timeout"):
        CoqBackend(**options)
