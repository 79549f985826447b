"""Rewards: (problem, completion) -> score. Rule-based, as in DeepSeek-R1; see docs/rewards.md.

Light on purpose: no torch here, and math-verify and SymPy load only in the worker processes.
"""

from rewards.accuracy import accuracy_reward, accuracy_verdicts, answer_key, lenient_accuracy
from rewards.checking import Case, check, check_many
from rewards.combination import BUILT_IN, RewardError, call_reward, load_reward, load_rewards
from rewards.extraction import extract_answer, extract_lenient
from rewards.format import format_reward, has_r1_format
from rewards.verdicts import Verdict, VerdictKind
from rewards.workers import WorkerError, WorkerPool, default_pool

__all__ = [
    "BUILT_IN",
    "Case",
    "RewardError",
    "Verdict",
    "VerdictKind",
    "WorkerError",
    "WorkerPool",
    "accuracy_reward",
    "accuracy_verdicts",
    "answer_key",
    "call_reward",
    "check",
    "check_many",
    "default_pool",
    "extract_answer",
    "extract_lenient",
    "format_reward",
    "has_r1_format",
    "lenient_accuracy",
    "load_reward",
    "load_rewards",
]
