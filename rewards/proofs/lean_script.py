r"""Reading Lean 4 text: what a tactic script may not hold, and the file that is handed to Lean.

In Lean a command may follow a tactic block at any place, and a tactic may run any program (`run_tac`). So a script is
refused if it holds a word that starts a command or reaches Lean's own API, a quotation mark, or an attribute. Comments
become blanks first. This costs honest proofs about strings and names such as «end»; it leaves nothing between the
theorem and `#print axioms`, which both come from us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.proofs.coq_script import ScriptError
from rewards.proofs.verdicts import ProofKind

ADMITS = frozenset({"sorry", "admit", "sorryAx", "stop", "proof_wanted"})
# fmt: off
COMMANDS = frozenset({
    "abbrev", "add_decl_doc", "alias", "attribute", "axiom", "binder_predicate", "builtin_initialize", "class",
    "coinductive", "compile_inductive", "constant", "declare_command_config_elab", "declare_config_elab",
    "declare_syntax_cat", "def", "derive_functional", "deriving", "elab", "elab_rules", "end", "example", "export",
    "extern", "gen_injective_theorems", "grind_pattern", "import", "inductive", "infix", "infixl", "infixr",
    "init_quot", "initialize", "initialize_simps_projections", "instance", "lemma", "library_note", "macro",
    "macro_rules", "meta", "module", "mutual", "namespace", "noncomputable", "notation", "notation3", "omit",
    "opaque", "partial", "postfix", "prefix", "prelude", "private", "protected", "public", "reassoc", "recall",
    "register_builtin_option", "register_option", "register_simp_attr", "run_cmd", "run_elab", "run_meta", "scoped",
    "section", "simproc", "simproc_decl", "structure", "suppress_compilation", "syntax", "tactic_extension",
    "theorem", "unif_hint", "universe", "unsafe", "unseal", "variable", "variables",
})
"""Words that start a command or change one."""
META = frozenset({
    "run_tac", "by_elab", "include_str", "native_decide", "native", "ofReduceBool", "reduceBool",
    "ofReduceNat", "reduceNat", "trustCompiler", "implemented_by", "csimp", "Lean", "Elab", "IO", "unsafeCast",
    "unsafeIO", "unsafeBaseIO", "lcProof", "lcUnreachable", "lcAny", "dbgTrace", "dbg_trace", "dbgTraceIfShared",
    "bv_check", "bv_decide", "polyrith",
})
"""Words by which a script could run programs, or trust a compiler or a solver in place of the kernel."""
# fmt: on
HARMLESS_OPTIONS = frozenset(
    {"maxRecDepth", "maxHeartbeats", "exponentiation.threshold", "synthInstance.maxHeartbeats"}
)
_REFUSED = ((ADMITS, "admits a goal"), (COMMANDS, "is a command, not a tactic"), (META, "is not allowed"))
HARMLESS_GROUPS = ("linter.", "pp.")

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COMMENT = re.compile(r"--|/-")
_BLOCK_PART = re.compile(r"/-|-/")
_WORD = re.compile(r"[a-z_][\w'!?]*", re.ASCII | re.IGNORECASE)
_SIGNS = {
    '"': "strings are not read",
    "«": "quoted names are not read",
    "»": "quoted names are not read",
    "`": "quotations are not read",
    "@[": "sets an attribute",
    "eval%": "runs a program",
}
_SIGN = re.compile(r'["«»`]|@\[|eval%|#[a-z]{2}')
_OPTION = re.compile(r"set_option\s+([\w.]+)")


def without_comments(script: str) -> str:
    """The script with each comment replaced by blanks, line breaks kept. Raises ScriptError for an open comment or a
    control character.

    >>> without_comments("simp -- ok")
    'simp      '
    """
    if control := _CONTROL.search(script):
        raise ScriptError(control.start(), f"the character {control.group()!r} may not stand in a script")
    result, position = [], 0
    while found := _COMMENT.search(script, position):
        result.append(script[position : found.start()])
        position = _comment_end(script, found)
        result.append(re.sub(r"[^\n]", " ", script[found.start() : position]))
    return "".join(result) + script[position:]


def _comment_end(script: str, opening: re.Match[str]) -> int:
    if opening.group() == "--":
        end = script.find("\n", opening.start())
        return end if end >= 0 else len(script)
    depth = 0
    for part in _BLOCK_PART.finditer(script, opening.start()):
        depth += 1 if part.group() == "/-" else -1
        if depth == 0:
            return part.end()
    raise ScriptError(opening.start(), "a comment is never closed")


def refusal(script: str) -> ScriptError | None:
    """The first place of a script without comments that may not stand in it.

    >>> refusal("  omega") is None
    True
    >>> refusal("  trivial\\naxiom a : False").message
    'axiom is a command, not a tactic'
    """
    errors = [error for error in (_refused_word(script), _refused_sign(script), _refused_option(script)) if error]
    return min(errors, key=lambda error: error.offset, default=None)


def _refused_word(script: str) -> ScriptError | None:
    for found in _WORD.finditer(script):
        word = found.group()
        for words, why in (
            (ADMITS, "admits a goal"),
            (COMMANDS, "is a command, not a tactic"),
            (META, "is not allowed"),
        ):
            if word in words:
                return ScriptError(found.start(), f"{word} {why}", ProofKind.CHEATING)
    return None


def _refused_sign(script: str) -> ScriptError | None:
    found = _SIGN.search(script)
    if found is None:
        return None
    why = _SIGNS.get(found.group(), "is a command, not a tactic")
    return ScriptError(found.start(), f"{found.group()} {why}", ProofKind.CHEATING)


def _refused_option(script: str) -> ScriptError | None:
    for found in _OPTION.finditer(script):
        name = found.group(1)
        if name not in HARMLESS_OPTIONS and not name.startswith(HARMLESS_GROUPS):
            return ScriptError(found.start(), f"the option {name} may not be set", ProofKind.CHEATING)
    return None


@dataclass(frozen=True)
class Statement:
    """A theorem split around its name. `before` ends with the keyword, `after` begins with the binders or the colon.
    `imports` is the text up to its last import, if it has any.
    """

    before: str
    namespace: str
    after: str
    imports: str = ""

    def theorem(self, name: str) -> str:
        return f"{self.before}{self.namespace}{name}{self.after} := by"


_HEADER = re.compile(
    r"^(?P<keyword>(?:[ \t]*(?:private|protected|noncomputable)\b)*[ \t]*(?:theorem|lemma)\s+)", re.MULTILINE
)
_NAME = re.compile(r"[^\s:({\[⦃]+")
_IMPORTS = re.compile(r"(?:.*\n)*import[ \t].*\n")
_PROOF_OPENING = re.compile(r"\s*:=\s*(?:by\b\s*)?(?:sorry\s*)?$")


def read_statement(text: str) -> Statement:
    """A statement as data sets spell it: a proposition, or `theorem name binders : proposition`, with `:= by sorry`, a
    part of that, or nothing after it. What stands before the theorem (imports, `open`) is kept.

    >>> read_statement("theorem Nat.t (n : Nat) : n = n := by sorry").theorem("x")
    'theorem Nat.x (n : Nat) : n = n := by'
    >>> read_statement("1 + 1 = 2").theorem("x")
    'theorem x : 1 + 1 = 2 := by'
    """
    stated = _PROOF_OPENING.sub("", text.rstrip())
    if not stated.strip():
        raise ScriptError(0, "the statement is empty")
    headers = list(_HEADER.finditer(stated))
    if not headers:
        return Statement("theorem ", "", f" : {stated.strip()}")
    keyword_end = headers[-1].end()
    name = _NAME.match(stated, keyword_end)
    if name is None:
        raise ScriptError(keyword_end, "the theorem has no name")
    namespace = name.group().rpartition(".")  # kept: its names are known inside the theorem
    imports = _IMPORTS.match(stated)
    start = imports.end() if imports else 0
    return Statement(
        stated[start:keyword_end], namespace[0] + namespace[1], stated[name.end() :], stated[:start].strip()
    )


def skip_given(script: str, statement: str, preamble: str) -> str:
    """The script with a copy of the preamble and of the statement replaced by blanks, if it begins with one: models
    like to repeat what they were given. White space does not count.

    >>> skip_given("theorem t : True := by\\n  trivial", "theorem t : True", "")
    '                      \\n  trivial'
    """
    stated = _PROOF_OPENING.sub("", statement.rstrip())
    headers = list(_HEADER.finditer(stated))
    theorem = stated[headers[-1].start() :] if headers else stated
    for given in (preamble + stated, stated, theorem):
        end = _common_end(script, given)
        if end:
            opening = re.compile(r"\s*:=\s*by\b").match(script, end)
            end = opening.end() if opening else end
            return re.sub(r"[^\n]", " ", script[:end]) + script[end:]
    return script


def _common_end(script: str, given: str) -> int:
    """Where the script stops repeating all of `given`; 0 if it does not."""
    wanted = [character for character in given if not character.isspace()]
    matched = 0
    for position, character in enumerate(script):
        if matched == len(wanted):
            return position if matched else 0
        if character.isspace():
            continue
        if character != wanted[matched]:
            return 0
        matched += 1
    return len(script) if wanted and matched == len(wanted) else 0
