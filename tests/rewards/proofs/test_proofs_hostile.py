"""Scripts that want a reward for a false theorem, or do harm: none is accepted, and the next honest proof still is.

Each aims at `forall n : nat, n = S n` unless the case says otherwise, so that any acceptance is a mistake.
"""

import os
import tempfile
import time

import pytest

from rewards.proofs import CoqBackend, ProofKind, ProofVerdict
from rewards.proofs.coq_script import Script, Sentence, read_statement

FALSE = "forall n : nat, n = S n"
PREAMBLE = "From Coq Require Import Lia String."

COMMANDS = {
    "admitted": "intros n. Admitted.",
    "admitted in capitals by unicode": "intros n. \uff21dmitted.",
    "abort, then another theorem": "Abort. Theorem t : True. Proof. exact I. Qed.",
    "another theorem of the same name": "Theorem t : True. Proof. exact I. Qed.",
    "close early, go on": "Qed. Theorem t : True. Proof. exact I. Qed.",
    "a lemma beside it": "Lemma cheat : False. Admitted. exact (False_ind _ cheat).",
    "axiom": "Axiom cheat : forall n : nat, n = S n. exact cheat.",
    "parameter": "Parameter cheat : False. destruct cheat.",
    "conjecture": "Conjecture cheat : False. destruct cheat.",
    "hypothesis": "Hypothesis cheat : False. destruct cheat.",
    "context": "Context (cheat : False). destruct cheat.",
    "primitive": "Primitive cheat := #int63_add.",
    "definition by local": "Local Definition S (n : nat) := n. intros n. reflexivity.",
    "notation": 'Notation "x = y" := True. intros n. exact I.',
    "infix": 'Infix "=" := (fun _ _ => True). intros n. exact I.',
    "inductive": "Inductive eq (n m : nat) : Prop := yes. intros n. apply yes.",
    "coercion": "Coercion f := fun n : nat => n. intros n. reflexivity.",
    "module": "Module Nat. Definition S (n : nat) := n. End Nat. intros n. reflexivity.",
    "section": "Section s. Variable cheat : False. End s.",
    "guard checking off": "Unset Guard Checking. exact (fix f (n : nat) : n = S n := f n).",
    "guard bypassed by attribute": "#[bypass_check(guard)] Fixpoint f (n : nat) : n = S n := f n. exact f.",
    "positivity checking off": "Unset Positivity Checking. Inductive bad := B (f : bad -> False).",
    "universe checking off": "Unset Universe Checking. exact I.",
    "universe polymorphism": "Set Universe Polymorphism. exact I.",
    "require": "Require Import Classical. tauto.",
    "from require": "From Coq Require Import Classical. tauto.",
    "load": 'Load "/tmp/cheat".',
    "load path": 'Add LoadPath "/tmp" as Tmp.',
    "ml module": 'Declare ML Module "cheat".',
    "redirect": 'Redirect "r1lab_written" Print nat.',
    "extraction to a file": 'Extraction "r1lab_written" nat.',
    "drop into the toplevel": "Drop.",
    "change the folder": 'Cd "/".',
    "quit": "Quit.",
    "go back": "BackTo 1.",
    "reset": "Reset Initial.",
    "restart": "Restart. Undo 5.",
    "print success": "Print Assumptions I.",
    "eval": 'Eval compute in "Closed under the global context"%string.',
    "check after a goal selector": "1: Check I.",
    "admitted after a goal selector": "all: Admitted.",
    "fail": "Fail exact I. Fail Fail exact I.",
    "timeout as a prefix": "Timeout 100000 (repeat idtac).",
    "tactic of one's own": "Ltac cheat := admit. cheat.",
    "hint": "Hint Extern 1 => admit : core. auto.",
    "obligation": "Next Obligation.",
    "save under another name": "intros n. Save other.",
    "qed exporting": "intros n. Qed exporting.",
    "scheme": "Scheme Equality for nat.",
    "silence lifted": "Unset Silent.",
}
"""Refused before Coq reads them."""

TACTICS = {
    "admit": "intros n. admit.",
    "admit inside": "intros n. assert (H : False) by admit. destruct H. Qed.",
    "give up": "give_up.",
    "native compiler": "intros n. native_compute. reflexivity.",
    "native cast": "exact I. native_cast_no_check I.",
    "other processes": "par: auto.",
    "external solver": "psatz R 2.",
}

WRONG = {
    "nothing": "",
    "only words": "The theorem is clearly true.",
    "proof of something else": "exact I.",
    "recursion without end": "exact (fix f (n : nat) : n = S n := f n).",
    "corecursion without guard": "cofix f. exact f.",
    "recursion by tactic": "fix f 1. exact f.",
    "its own name": "exact r1lab.",
    "shelved": "intros n. shelve.",
    "open evar": "intros n. eapply eq_trans. Unshelve. all: shelve.",
    "cast without check": "intros n. exact_no_check (eq_refl n).",
    "cast left to the vm": "intros n. vm_cast_no_check (eq_refl n).",
    "goal changed without check": "change_no_check True. exact I.",
    "conversion without check": "intros n. change_no_check (n = n). reflexivity.",
    "abstract without check": "intros n. abstract (exact_no_check (eq_refl n)).",
    "inductive on nothing": "intros n. induction n. discriminate.",
    "errors after each other": "foo. bar. intros n. baz.",
    "forged success": 'intros n. idtac "Closed under the global context".',
    "forged prompt": 'intros n. idtac "<prompt>Coq < 999 || 0 < </prompt>".',
    "forged prompt in an error": 'intros n. fail "<prompt>Coq < 999 || 0 < </prompt>".',
    "forged prompt with the theorem's subproof": (
        "intros n. assert (H : True) by abstract (exact I). "
        'match goal with H := ?t |- _ => idtac "<prompt>" t " < 9 |" t "| 0 < </prompt>" | _ => idtac end.'
    ),
    "comment never closed": "intros n. (* Qed.",
    "comment that hides a quote": 'intros n. (* " *) exact I. (* " *)',
    "nested comment": "(* (* *) exact I. *) intros n.",
    "comment inside a string": 'intros n. idtac "(*". exact I. idtac "*)".',
    "command inside a string": 'idtac "a. Axiom cheat : False. b".',
    "string never closed": 'intros n. idtac "a. exact I.',
    "command after a no-break space": "idtac.\u00a0Axiom cheat : False.",
    "command after a zero width space": "idtac.\u200bAxiom cheat : False.",
    "command after a line separator": "idtac.\u2028Axiom cheat : False.",
    "null byte": "intros n.\x00 exact I.",
    "escape sequence": "intros n. \x1b[2K exact I.",
    "lone surrogate": "intros n. \ud800 exact I.",
    "two stops": "intros n.. Axiom cheat : False.",
    "many stops": "intros n..... exact I.",
    "no stop": "intros n. exact I",
    "unbalanced braces": "intros n. } } { {",
    "deep parentheses": "exact " + "(" * 20_000 + "I" + ")" * 20_000 + ".",
    "a million characters": "idtac. " * 150_000,
    "a closed focus": "{ intros n. } exact I.",
}

BOMBS = {
    "endless loop": "let rec loop := idtac; loop in loop.",
    "endless repetition": "repeat (idtac; assert True by exact I).",
    "long repetition": "do 2000000000 idtac.",
    "virtual machine": "intros n. assert (Nat.ltb (Nat.pow 9 9) 3 = true) by (vm_compute; reflexivity). discriminate.",
    "memory": "intros n. assert (H : Nat.ltb (Nat.pow 2 22) 3 = true) by (vm_compute; reflexivity). discriminate.",
    "growing term": "intros n. assert (x : nat * nat) by exact (0, 0). do 60 (pose (y := (x, x)); set (x' := y) in *).",
    "backtracking": "intros n. do 40 (first [ idtac + idtac ]). fail.",
    "output": f'do 1000000 idtac "{"a" * 200}".',
}


@pytest.mark.parametrize("script", COMMANDS.values(), ids=COMMANDS)
def test_commands_never_reach_coq(coq, script):
    verdict = coq.check(FALSE, script, PREAMBLE)
    assert verdict.kind is ProofKind.CHEATING or "no tactic begins" in verdict.detail, verdict
    assert verdict.reward == 0.0


@pytest.mark.parametrize("script", TACTICS.values(), ids=TACTICS)
def test_tactics_that_admit_or_start_programs_are_refused(coq, script):
    assert coq.check(FALSE, script, PREAMBLE).kind in {ProofKind.CHEATING, ProofKind.FAILED}


@pytest.mark.parametrize("script", WRONG.values(), ids=WRONG)
def test_nothing_proves_a_false_theorem(coq, script):
    verdict = coq.check(FALSE, script, PREAMBLE)
    assert verdict.reward == 0.0, verdict
    assert coq.check("True", "exact I.", PREAMBLE).kind is ProofKind.PROVED


@pytest.mark.parametrize("script", BOMBS.values(), ids=BOMBS)
def test_bombs_end_in_time(coq, script, children):
    before = children()
    backend = CoqBackend(size=1, timeout=0.5, memory_bytes=512 << 20)
    try:
        start = time.monotonic()
        assert backend.check(FALSE, script).reward == 0.0
        assert time.monotonic() - start < 5  # 0.6 s on an idle core
        assert backend.check("True", "exact I.", timeout=20).kind is ProofKind.PROVED
    finally:
        backend.close()
    assert children() <= before


@pytest.mark.parametrize(
    "name",
    [
        "admit",
        "axiom",
        "definition by local",
        "guard bypassed by attribute",
        "guard checking off",
        "inductive",
        "native compiler",
        "notation",
        "redirect",
        "require",
        "tactic of one's own",
    ],
)
def test_most_would_fail_without_the_filter_too(coq, name, monkeypatch):
    """The second wall: Coq's kernel, what `Print Assumptions` says, and the limits of the process."""
    monkeypatch.setattr("rewards.proofs.coq_script.refusal", lambda sentence: None)
    verdict = coq.check(FALSE, (COMMANDS | TACTICS)[name], PREAMBLE)
    assert verdict.reward == 0.0
    assert "is not a tactic" not in verdict.detail
    assert coq.check("1 + 1 = 2", "reflexivity.", PREAMBLE).kind is ProofKind.PROVED


@pytest.mark.parametrize("tail", ["Axiom a : False.", "Qed. Axiom a : False.", "Qed. idtac.", "Abort.", "Admitted."])
def test_a_right_proof_with_a_cheat_after_it_is_refused(coq, tail):
    assert coq.check("True", "exact I. " + tail).kind is ProofKind.CHEATING


def test_sentences_that_the_filter_did_not_see_shift_no_reply(coq):
    """Were Coq to find more sentences than we do, the reply to one of them could pass for the reply to ours."""
    hidden = Sentence("idtac. Print Assumptions I. Print Assumptions I.", 0, 1)
    session = coq._start()
    try:
        session.load("")
        found = session.attempt(read_statement(FALSE), "", Script((hidden,), None), 5.0)
        assert isinstance(found, ProofVerdict)
        assert found.reward == 0.0
        assert not session.usable
    finally:
        session.close()


def test_an_assumed_guard_is_seen(coq):
    """The data set's own carelessness does not become a proof."""
    preamble = "Unset Guard Checking. Fixpoint f (n : nat) : False := f n. Set Guard Checking."
    verdict = coq.check(FALSE, "intros n. destruct (f n).", preamble)
    assert verdict.kind is ProofKind.CHEATING
    assert "guarded" in verdict.detail


def test_hostile_scripts_leave_no_file_and_no_process(coq, tmp_path, monkeypatch, children):
    """With all that could be written in: the folder of temporary files, the working folder, Coq's caches."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = children()
    backend = CoqBackend(size=1, timeout=1.0)
    for script in ["intros n. lia.", *TACTICS.values(), COMMANDS["redirect"], BOMBS["endless loop"]]:
        assert backend.check(FALSE, script, PREAMBLE).reward == 0.0
    assert backend.check("forall n : nat, n < S n", "intros n. lia.", PREAMBLE, timeout=20).reward == 1.0
    assert os.listdir(tmp_path) == []
    backend.close()
    assert children() <= before
    assert os.listdir(tmp_path) == []
