"""Rewards for formal proofs: a script of tactics, checked by Coq or Lean against a statement it cannot change.

See docs/rewards.md, section "Proofs".
"""

from rewards.proofs.backend import ProofBackend, ProofTask, ProofToolError
from rewards.proofs.coq import CoqBackend
from rewards.proofs.lean import LeanBackend
from rewards.proofs.reward import extract_proof, proof_reward, proof_verdicts
from rewards.proofs.verdicts import Position, ProofKind, ProofVerdict

__all__ = [
    "CoqBackend",
    "LeanBackend",
    "Position",
    "ProofBackend",
    "ProofKind",
    "ProofTask",
    "ProofToolError",
    "ProofVerdict",
    "extract_proof",
    "proof_reward",
    "proof_verdicts",
]
