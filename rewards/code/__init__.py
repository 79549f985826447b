"""Programs against hidden tests: the code rewards and their sandbox. See docs/rewards.md, section "Code"."""

from rewards.code.judging import CodeVerdict, CodeVerdictKind, judge
from rewards.code.programs import extract_program
from rewards.code.reward import code_reward, code_share_reward, code_step_reward, code_verdicts
from rewards.code.rows import BadTests, Suite, suite_of
from rewards.code.sandbox import Sandbox, SandboxError, default_sandbox

__all__ = [
    "BadTests",
    "CodeVerdict",
    "CodeVerdictKind",
    "Sandbox",
    "SandboxError",
    "Suite",
    "code_reward",
    "code_share_reward",
    "code_step_reward",
    "code_verdicts",
    "default_sandbox",
    "extract_program",
    "judge",
    "suite_of",
]
