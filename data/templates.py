"""How a problem becomes the text a model reads: the one place that decides it, for sampling, SFT and evaluation alike.

`r1_zero` is DeepSeek-R1-Zero's template, word for word (arXiv:2501.12948v1, table 1). `r1_zero_short` says the same in
a fifth of the tokens, which is what a small model on a CPU pays for. `chat` is for the stages after cold start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>. User: {problem}. Assistant:"
)
R1_ZERO_SHORT = "User: {problem}\nReason in <think> </think>, then answer in <answer> </answer>.\nAssistant:"

TEMPLATES = {"r1_zero": R1_ZERO, "r1_zero_short": R1_ZERO_SHORT, "plain": "{problem}"}
"""Plain-text templates by name. A base model has no turns; it continues the text."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% else %}{{ '<|assistant|>' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% if prefill_think %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
"""The micro model's chat template (Jinja, as tokenizers carry it): DeepSeek-R1's order of turns with two role tokens.

`prefill_think=True` opens the reasoning, as DeepSeek-R1's usage notes advise for evaluation; R1-Zero runs never set it.
The `generation` block marks the assistant's tokens, which is what SFT trains on.
"""


def render_prompt(problem: str, template: str = "r1_zero") -> str:
    """The text of one prompt. `template` is a name in TEMPLATES or a text with `{problem}`; ValueError otherwise.

    R1-Zero's template puts a full stop behind the question; one that ends a sentence already keeps its own.
    """
    text = TEMPLATES.get(template, template)
    if "{problem}" not in text:
        names = ", ".join(TEMPLATES)
        raise ValueError(
            f"unknown template {template!r}: give one of {names}, a text with {{problem}} where the question goes, or "
            "for a whole problem set chat"
        )
    problem = problem.strip()
    if problem.endswith((".", "?", "!", "。", "？")):
        text = text.replace("{problem}.", "{problem}")
    return text.replace("{problem}", problem)


def render_prompts(problems: Dataset, template: str = "r1_zero", system: str | None = None) -> Dataset:
    """Add the `prompt` column to a problem set. `chat` gives conversations, which a tokenizer's chat template renders;
    a column `history` holds the turns before a problem, which the other templates have no place for.

    Raises ValueError for an unknown template, a set without a `problem` column, or a history in another template.
    """
    if "problem" not in problems.column_names:
        raise ValueError(
            f"the problem set has no `problem` column, only {problems.column_names}; "
            "load it with data.loading.load_problems"
        )
    histories = problems["history"] if "history" in problems.column_names else [None] * len(problems)
    if template == "chat":
        turns = [{"role": "system", "content": system}] if system else []
        prompts: list = [
            [*turns, *(history or []), {"role": "user", "content": problem}]
            for history, problem in zip(histories, problems["problem"])
        ]
    elif any(histories):
        raise ValueError(
            f"a dialogue has turns before its problem, and the template {template!r} has one turn; use chat"
        )
    else:
        prompts = [render_prompt(problem, template) for problem in problems["problem"]]
    if "prompt" in problems.column_names:
        problems = problems.remove_columns("prompt")
    return problems.add_column("prompt", prompts)
