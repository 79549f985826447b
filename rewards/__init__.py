"""Rewards: (problem, completion) -> score. Rule-based, as in DeepSeek-R1; see docs/rewards.md.

Light on purpose: no torch here; math-verify and SymPy load only in the worker processes, and what one reward alone
needs (a language detector, a sandbox, a proof assistant) when that reward is first asked for.
"""

from rewards.accuracy import accuracy_reward, accuracy_verdicts, answer_key, lenient_accuracy, phrase_accuracy
from rewards.checking import Case, check, check_many
from rewards.combination import RewardSpec, load_reward, load_rewards
from rewards.extraction import extract_answer, extract_lenient
from rewards.format import format_reward, has_r1_format, has_think_format, lenient_format_reward, think_format_reward
from rewards.language import language_reward, language_share
from rewards.length import cosine_reward, soft_overlong_reward
from rewards.mathematics.pool import WorkerError, WorkerPool, default_pool
from rewards.registry import BUILT_IN
from rewards.repetition import repetition_reward
from rewards.scoring import RewardError, RewardFunction, SetupError, call_reward, reward_name, score_all, score_later
from rewards.steps import StepRewards
from rewards.verdicts import Verdict, VerdictKind

__all__ = [
    "BUILT_IN",
    "Case",
    "RewardError",
    "RewardFunction",
    "RewardSpec",
    "SetupError",
    "StepRewards",
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
    "cosine_reward",
    "default_pool",
    "extract_answer",
    "extract_lenient",
    "format_reward",
    "has_r1_format",
    "has_think_format",
    "language_reward",
    "language_share",
    "lenient_accuracy",
    "lenient_format_reward",
    "load_reward",
    "load_rewards",
    "phrase_accuracy",
    "repetition_reward",
    "reward_name",
    "score_all",
    "score_later",
    "soft_overlong_reward",
    "think_format_reward",
]
