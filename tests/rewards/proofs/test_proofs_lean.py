"""Lean: the backend against a small executable that replays Lean's messages, and against Lean itself where it is.

The messages have the shape that Lean 4.32 to 4.34 print with --json, as recorded in public test files; the replay
knows none of Lean's logic, so these tests show what the backend makes of messages, not what Lean accepts.
"""

import json
import shutil
import sys
import textwrap

import pytest

from rewards.proofs import LeanBackend, ProofBackend, ProofKind, ProofTask, ProofToolError
from rewards.proofs.lean import ReplLean
from rewards.proofs.lean_script import read_statement, refusal, skip_given, without_comments

STATEMENT = "theorem two_mul' (n : Nat) : 2 * n = n + n := by sorry"
REPLAY = r"""
import json, re, sys, time
replies = json.load(open({replies!r}))
def answer(text, send):
    name = re.search(r"#print axioms (\S+)", text).group(1)
    lines = text.split("\n")
    axioms_line = 1 + next(i for i, line in enumerate(lines) if line.startswith("#print axioms"))
    theorem_line = 1 + max(i for i, line in enumerate(lines[: axioms_line - 1]) if line.endswith(":= by"))
    for needle, messages in replies:
        if needle in text:
            break
    else:
        messages = [["information", "axioms", 0, "'NAME' does not depend on any axioms"]]
    for severity, place, column, data in messages:
        if severity == "sleep": time.sleep(60)
        if severity == "exit": print(data); sys.exit(1)
        line = axioms_line if place == "axioms" else place[0] if isinstance(place, list) else theorem_line + place
        send(dict(caption="", data=data.replace("NAME", name), endPos=None, fileName="<stdin>", isSilent=False,
                  keepFullRange=False, kind="[anonymous]", pos=dict(line=line, column=column), severity=severity))
"""
FRESH = "text = sys.stdin.read()\nanswer(text, lambda message: print(json.dumps(message)))\n"
REPL = r"""
environments = 0
for line in sys.stdin:
    if not line.strip(): continue
    request, messages = json.loads(line), []
    if "env" in request:
        answer(request["cmd"], messages.append)
    elif "Nowhere" in request["cmd"]:
        messages.append(dict(severity="error", pos=dict(line=1, column=0), data="unknown module prefix 'Nowhere'"))
    reply = dict(env=environments)
    if messages: reply["messages"] = messages
    print(json.dumps(reply, indent=1) + "\n", flush=True)
    environments += 1
"""

REPLIES = [
    ["omega_fails", [
        ["error", 2, 4, "omega could not prove the goal:\na possible counterexample may satisfy the constraints"],
        ["information", "axioms", 0, "'NAME' depends on axioms: [sorryAx]"]]],
    ["rw [nope]", [
        ["error", 2, 8, "Unknown identifier `nope`"],
        ["error", 0, 40, "unsolved goals\nn : Nat\n⊢ 2 * n = n + n"],
        ["information", "axioms", 0, "'NAME' depends on axioms: [sorryAx]"]]],
    ["exact wrong", [
        ["error", 1, 10, "type mismatch\n  wrong\nn : Nat\n⊢ 2 * n = n + n"]]],
    ["have h", [
        ["error", 0, 40, "unsolved goals\nn : Nat\nh : True\n⊢ 2 * n = n + n"],
        ["information", "axioms", 0, "'NAME' depends on axioms: [sorryAx]"]]],
    ["classical_proof", [
        ["information", "axioms", 0, "'NAME' depends on axioms: [propext,\n Classical.choice,\n Quot.sound]"]]],
    ["hidden_sorry", [
        ["warning", 0, 8, "declaration uses `sorry`"],
        ["information", "axioms", 0, "'NAME' depends on axioms: [propext, sorryAx]"]]],
    ["by_compiler", [["information", "axioms", 0, "'NAME' depends on axioms: [Lean.ofReduceBool]"]]],
    ["forged_message", [["information", 1, 2, "'NAME' does not depend on any axioms"]]],
    ["forged_twice", [
        ["information", "axioms", 0, "'NAME' does not depend on any axioms"],
        ["information", "axioms", 0, "'NAME' does not depend on any axioms"]]],
    ["another_name", [["information", "axioms", 0, "'other' does not depend on any axioms"]]],
    ["no_message", [["warning", 1, 0, "unused variable `h`"]]],
    ["endless", [["sleep", 0, 0, ""]]],
    ["memory_bomb", [["exit", 0, 0, "Stack overflow detected. Aborting."]]],
    ["bad_termination", [["error", 0, 8, "fail to show termination"]]],
    ["Unknown_type", [["error", 0, 20, "unknown identifier 'Unknown_type'"]]],
    ["import Nowhere", [["error", [1], 0, "unknown module prefix 'Nowhere'"]]],
]  # fmt: skip


def replay(folder, program, name):
    table = folder / "replies.json"
    table.write_text(json.dumps(REPLIES))
    path = folder / name
    code = (REPLAY + program).replace("{replies!r}", repr(str(table)))
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=["fresh", "repl"])
def lean(request, tmp_path):
    if request.param == "fresh":
        backend = LeanBackend([replay(tmp_path, FRESH, "lean")], size=1, timeout=20)
    else:
        backend = LeanBackend(repl=[replay(tmp_path, REPL, "repl")], size=1, timeout=20)
    yield backend
    backend.close()


def test_it_is_a_backend(lean):
    assert isinstance(lean, ProofBackend)


@pytest.mark.parametrize(
    "script", ["omega", "  omega\n", "  have := n\n  omega -- sorry", "/- axiom -/\n  classical_proof"]
)
def test_no_error_and_known_axioms_prove(lean, script):
    verdict = lean.check(STATEMENT, script, "open Nat")
    assert (verdict.kind, verdict.valid_prefix) == (ProofKind.PROVED, script), verdict


@pytest.mark.parametrize(
    ("script", "kind", "where", "prefix", "says"),
    [
        ("  intro\n  omega_fails", "failed", "omega_fails", "  intro\n", "could not prove"),
        ("  intro\n  rw [nope]", "failed", "nope]", "  intro\n", "Unknown identifier"),
        ("  exact wrong", "failed", "wrong", "", "type mismatch"),
        ("  have h := trivial", "incomplete", "", "  have h := trivial", "goals are left"),
        ("  hidden_sorry", "cheating", "", "", "sorryAx"),
        ("  by_compiler", "cheating", "", "", "Lean.ofReduceBool"),
        ("  forged_message", "failed", "", "", "does not say"),
        ("  forged_twice", "failed", "", "", "does not say"),
        ("  another_name", "failed", "", "", "does not say"),
        ("  no_message", "failed", "", "", "does not say"),
        ("  memory_bomb", "failed", "  memory_bomb", "", "ended early"),
        ("  bad_termination", "failed", "  bad_termination", "", "termination"),
        ("", "incomplete", "", "", "no tactic"),
    ],
)
def test_messages_become_verdicts(lean, script, kind, where, prefix, says):
    verdict = lean.check(STATEMENT, script, "open Nat")
    assert (verdict.kind.value, verdict.valid_prefix) == (kind, prefix), verdict
    assert script[verdict.position.offset :] == where
    assert says in verdict.detail


def test_goals_are_kept(lean):
    assert lean.check(STATEMENT, "  have h := trivial").goals == "n : Nat\nh : True\n⊢ 2 * n = n + n"
    assert "⊢ 2 * n = n + n" in lean.check(STATEMENT, "  exact wrong").goals


def test_the_data_sets_errors_mask(lean):
    verdict = lean.check("theorem t (x : Unknown_type) : x = x", "  rfl")
    assert (verdict.kind, verdict.reward) == (ProofKind.UNREADABLE_STATEMENT, None)
    assert "Unknown_type" in verdict.detail
    assert lean.check(STATEMENT, "  rfl", "import Nowhere").reward is None
    assert lean.check("import Nowhere\n" + STATEMENT, "  rfl").reward is None
    assert lean.check("", "  rfl").reward is None


def test_a_time_out_ends_the_process(lean, children):
    before = children()
    assert lean.check(STATEMENT, "  endless", timeout=1.0).kind is ProofKind.TIMEOUT
    assert children() <= before
    assert lean.check(STATEMENT, "  omega").kind is ProofKind.PROVED


def test_many_at_once_come_back_in_order(lean):
    tasks = [ProofTask(statement=STATEMENT, script=script) for script in ("  omega", "  omega_fails") * 3]
    assert [verdict.reward for verdict in lean.check_many(tasks)] == [1.0, 0.0] * 3


def test_a_repl_loads_a_preamble_once(tmp_path, monkeypatch):
    requests, ask = [], ReplLean._ask
    monkeypatch.setattr(
        ReplLean, "_ask", lambda repl, request, deadline: requests.append(request) or ask(repl, request, deadline)
    )
    backend = LeanBackend(repl=[replay(tmp_path, REPL, "repl")], size=1, timeout=20)
    try:
        for preamble in ("import A", "import A", "import B", "import B"):
            assert backend.check(STATEMENT, "  omega", preamble).reward == 1.0
    finally:
        backend.close()
    assert [request.get("env") for request in requests] == [None, 0, 0, None, 3, 3]


HOSTILE = {
    "sorry": "sorry",
    "admit": "admit",
    "sorry inside": "exact absurd rfl (by sorry)",
    "sorryAx": "exact sorryAx _ false",
    "stop": "stop\n  rfl",
    "native": "native_decide",
    "native by option": "decide +native",
    "axiom after it": "trivial\naxiom cheat : False",
    "axiom, indented": "trivial\n  axiom cheat : False",
    "next theorem": "trivial\n\ntheorem t : 2 * n = n + n := rfl",
    "macro": 'trivial\nmacro "omega" : tactic => `(tactic| trivial)',
    "syntax": "trivial\nmacro_rules | `(#print axioms $i) => `(#check Nat)",
    "elab": "trivial\nelab_rules : tactic | _ => pure ()",
    "notation": "trivial\nlocal notation x => True",
    "namespace": "trivial\nnamespace Foo",
    "end": "trivial\nend Foo",
    "instance": "trivial\ninstance : OfNat Nat 2 := ⟨0⟩",
    "attribute": "trivial\nattribute [simp] foo",
    "attribute by sign": "trivial\n@[simp] foo",
    "implemented by": "exact implemented_by foo",
    "eval": '#eval IO.println "x"',
    "print": "trivial\n#print axioms Nat",
    "run a program": "run_tac do pure ()",
    "run by elaborator": "exact by_elab return .const ``True.intro []",
    "kernel off": "set_option debug.skipKernelTC true in exact foo",
    "unknown option": "set_option autoImplicit true in rfl",
    "include a file": 'exact include_str "/etc/passwd"',
    "unsafe": "exact unsafe foo",
    "open comment": "trivial /- hidden",
    "closed twice": "/- -/ axiom /- -/ x : False",
    "nested comment": "/- /- -/ trivial -/ sorry",
    "line comment": "trivial -- /-\nsorry -- -/",
    "quoted name": "exact «sorry»",
    "control character": "trivial\x00",
    "a million characters": "skip\n" * 200_000,
    "initialize": "trivial\ninitialize foo : Unit ← pure ()",
    "Lean's own": "exact Lean.Elab.admit",
    "universe": "trivial\nuniverse u",
    "import": "trivial\nimport Lean",
    "word at a sign": "exact (sorry%1)",
    "word at a letter that is notation": "exact sorryˣ",
    "evaluation": "exact eval% foo",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_hostile_scripts_are_refused_before_lean_sees_them(script):
    verdict = LeanBackend(["no-such-lean"]).check(STATEMENT, script)  # it would raise if it asked Lean
    assert verdict.kind in {ProofKind.CHEATING, ProofKind.FAILED}


@pytest.mark.parametrize(
    "script",
    [
        "simp [Nat.add_comm, two_mul] at *",
        "induction n with\n| zero => rfl\n| succ n ih => omega",
        "set_option maxRecDepth 4000 in decide",
        "open Nat in exact foo",
        "rcases h with ⟨x, hx⟩ <;> nlinarith [sq_nonneg (x - 1)]",
        "have h' : ∀ x, f! x = x := fun x ↦ by rfl",
        "-- the end of this theorem, by definition\nrfl",
        "refine ⟨#s, ?_⟩",
    ],
)
def test_honest_scripts_are_not_refused(script):
    assert refusal(without_comments(script)) is None


def test_statements_are_read_as_data_sets_spell_them():
    text = "import Mathlib\nopen Nat\ntheorem Foo.bar {n : ℕ}\n  (h : n = 1) : n = n := by\n  sorry\n"
    read = read_statement(text)
    assert read.imports == "import Mathlib"
    assert read.theorem("x") == "open Nat\ntheorem Foo.x {n : ℕ}\n  (h : n = 1) : n = n := by"
    for ending in ("", " :=", " := by", " := sorry", " := by\n  sorry"):
        assert read_statement(f"lemma a : 1 = 1{ending}").theorem("x") == "lemma x : 1 = 1 := by"


def test_a_repeated_statement_is_passed_over():
    given = "theorem t (n : Nat) : n = n := by sorry"
    for script in (
        "theorem t (n : Nat) :\n    n = n := by\n  rfl",
        "import Mathlib\ntheorem t (n : Nat) : n = n := by\n  rfl",
    ):
        blank = skip_given(script, given, "import Mathlib")
        assert (len(blank), blank.strip()) == (len(script), "rfl")
    whole = "import Mathlib\nopen Nat\n" + given
    assert skip_given("theorem t (n : Nat) : n = n := by\n  rfl", whole, "").strip() == "rfl"
    other = "theorem t (n : Nat) : n = 0 := by\n  rfl"
    assert skip_given(other, given, "") == other


def test_a_lean_that_says_nothing_is_an_error(tmp_path):
    broken = tmp_path / "lean"
    broken.write_text("#!/bin/sh\necho no toolchain; exit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ProofToolError, match="no toolchain"):
        LeanBackend([str(broken)]).check(STATEMENT, "  rfl")


needs_lean = pytest.mark.skipif(shutil.which("lean") is None, reason="Lean 4 is not installed")


@pytest.fixture(scope="module")
def real():
    return LeanBackend(size=1)


@needs_lean
@pytest.mark.parametrize(
    ("statement", "script", "kind"),
    [
        ("theorem t (n : Nat) : 2 * n = n + n := by sorry", "  omega", "proved"),
        ("theorem t (n : Nat) : 2 * n = n + n", "omega", "proved"),
        ("theorem t (p q : Prop) : p ∧ q → q ∧ p", "  intro h\n  exact ⟨h.2, h.1⟩", "proved"),
        ("theorem t (p : Prop) : p ∨ ¬p", "  exact Classical.em p", "proved"),
        ("1 + 1 = 2", "  rfl", "proved"),
        ("theorem t (n : Nat) : n = n + 1", "  rfl", "failed"),
        ("theorem t (n : Nat) : n = n + 1", "  have h : True := trivial", "incomplete"),
        ("theorem t (n : Nat) : n = n + 1", "  exact t n", "failed"),
        ("theorem t (n : Nut) : n = n", "  rfl", "unreadable_statement"),
    ],
)
def test_lean_itself(real, statement, script, kind):
    assert real.check(statement, script).kind.value == kind


@needs_lean
def test_lean_itself_places_errors_and_resumes(real):
    statement = "theorem t (p q : Prop) : p ∧ q → q ∧ p"
    script = textwrap.indent("intro h\nobtain ⟨a, b⟩ := h\nexact nope", "  ")
    verdict = real.check(statement, script)
    assert script[verdict.position.offset :] == "nope"
    assert real.check(statement, verdict.valid_prefix + "  exact ⟨b, a⟩").kind is ProofKind.PROVED


@needs_lean
@pytest.mark.parametrize("script", [s for s in HOSTILE.values() if len(s) < 1000])
def test_lean_itself_accepts_no_cheat(real, script):
    assert real.check("theorem t (n : Nat) : n = n + 1", script).reward == 0.0
