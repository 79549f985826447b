"""The proof reward: 1 if the marked proof proves the row's statement, else 0 (DeepSeek-Prover-V1.5, arXiv:2408.08152,
section 2.3).

None, which masks the completion, where the row has no statement or an unreadable one. A missing proof assistant is an
error: rewards of 0 would teach that nothing can be proved.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence

from rewards.extraction import after_thinking
from rewards.proofs.backend import ProofBackend, ProofTask
from rewards.proofs.coq import CoqBackend
from rewards.proofs.lean import LeanBackend
from rewards.proofs.verdicts import NO_PROOF, ProofVerdict
from rewards.texts import message_text, with_prefill

BACKENDS: dict[str, Callable[[], ProofBackend]] = {"coq": CoqBackend, "lean": LeanBackend}
"""What `proof_language` may say, and what checks it by default."""

_SPELLINGS = {"coq": "coq", "rocq": "coq", "lean": "lean", "lean4": "lean"}
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[ \t]*$", re.MULTILINE)
_PROOF_FENCES = frozenset({*_SPELLINGS, "v", "lean3", ""})
_LEAN_HEADER = re.compile(r"^\s*(?:theorem|lemma)\s", re.MULTILINE)


def proof_reward(
    prompts: Sequence,
    completions: Sequence,
    statement: Sequence[str | None] | None = None,
    preamble: Sequence[str | None] | None = None,
    proof_language: Sequence[str | None] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 for a proof of the row's statement, 0.0 for anything else the model wrote, None for rows without a readable
    statement.

    `preamble` holds what precedes the statement (imports, definitions), `proof_language` is "coq" or "lean"; without it
    a statement that begins with `theorem` or `lemma` is Lean's, any other Coq's. Raises ProofToolError where the
    assistant is missing, ValueError for an unknown language or a column of another length.
    """
    verdicts = proof_verdicts(prompts, completions, statement, preamble, proof_language)
    return [None if verdict is None else verdict.reward for verdict in verdicts]


def proof_verdicts(
    prompts: Sequence,
    completions: Sequence,
    statement: Sequence[str | None] | None = None,
    preamble: Sequence[str | None] | None = None,
    proof_language: Sequence[str | None] | None = None,
    backends: Mapping[str, ProofBackend] | None = None,
) -> list[ProofVerdict | None]:
    """The verdicts behind `proof_reward`; None for a row without a statement. Positions count in the extracted proof.

    backends: by language, where the default ones (BACKENDS) do not do: other axioms, time-outs or a Lean project.
    """
    if statement is None:
        raise ValueError("proof_reward needs the column `statement`: the theorem to prove, None where a row has none")
    for name, column in (("statement", statement), ("preamble", preamble), ("proof_language", proof_language)):
        if column is not None and len(column) != len(completions):
            raise ValueError(f"the column `{name}` has {len(column)} rows, there are {len(completions)} completions")
    verdicts: list[ProofVerdict | None] = [None] * len(completions)
    tasks: dict[str, list[tuple[int, ProofTask]]] = {}
    for index, stated in enumerate(statement):
        if stated is None:
            continue
        proof = extract_proof(completions[index], prompts[index])
        if proof is None:
            verdicts[index] = NO_PROOF
            continue
        language = language_of(stated, proof_language[index] if proof_language else None)
        task = ProofTask(statement=stated, script=proof, preamble=(preamble[index] if preamble else None) or "")
        tasks.setdefault(language, []).append((index, task))
    for language, numbered in tasks.items():
        backend = (backends or {}).get(language) or default_backend(language)
        checked = backend.check_many([task for _, task in numbered])
        for (index, _), verdict in zip(numbered, checked, strict=True):
            verdicts[index] = verdict
    return verdicts


def language_of(statement: str, named: str | None = None) -> str:
    """The language of a statement: the named one; else Lean's if it states a `theorem` or `lemma`, which Coq writes
    with a capital; else Coq's.

    >>> language_of("theorem t : 1 = 1"), language_of("Theorem t : 1 = 1."), language_of("1 = 1", "Lean4")
    ('lean', 'coq', 'lean')
    """
    if named is None:
        return "lean" if _LEAN_HEADER.search(statement) else "coq"
    if named.lower() not in _SPELLINGS:
        raise ValueError(f"proof_language is one of {', '.join(_SPELLINGS)}, got {named!r}")
    return _SPELLINGS[named.lower()]


def extract_proof(completion: str | Sequence[dict], prompt: str | Sequence[dict] = "") -> str | None:
    r"""The proof that a completion marks, or None: after the last `</think>`, in it the content of the last `<answer>`,
    in it the last code block for Coq or Lean, else the whole answer. A prompt that ends inside a code block (Prover's
    prompts end with the statement) is continued: the proof is what comes before the block ends.

    >>> extract_proof("<think>easy</think>\n```coq\nreflexivity.\n```\nDone.")
    'reflexivity.\n'
    >>> extract_proof("<answer>reflexivity.</answer>"), extract_proof("It is clear.")
    ('reflexivity.', None)
    >>> extract_proof("  simp\n```\n", "Prove:\n```lean4\ntheorem t : 1 = 1 := by\n")
    '  simp\n'
    """
    if len(_FENCE.findall(message_text(prompt) if prompt else "")) % 2 == 1:
        text = message_text(completion)
        end = _FENCE.search(text)
        return text[: end.start()] if end else text
    final = after_thinking(with_prefill(prompt, completion))
    if final is None:
        return None
    opening, closing = final.rfind("<answer>", 0, max(0, final.rfind("</answer>"))), final.rfind("</answer>")
    answer = final[opening + len("<answer>") : closing] if 0 <= opening < closing else None
    block = _last_block(final if answer is None else answer)
    return block if block is not None else answer


def _last_block(text: str) -> str | None:
    """The content of the last code block that may hold a proof."""
    fences = list(_FENCE.finditer(text))
    blocks = [(start, end) for start, end in zip(fences[::2], fences[1::2]) if start[1].lower() in _PROOF_FENCES]
    if not blocks:
        return None
    start, end = blocks[-1]
    return text[start.end() + 1 : end.start()]


_default_backends: dict[str, ProofBackend] = {}
_lock = threading.Lock()


def default_backend(language: str) -> ProofBackend:
    """The backend of this process for a language, made at the first call. A forked child makes its own."""
    with _lock:
        if language not in _default_backends:
            _default_backends[language] = BACKENDS[language]()
        return _default_backends[language]


def _forget_backends() -> None:
    global _default_backends, _lock
    _default_backends, _lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_backends)
