"""Where the program stands in a completion, and what it becomes together with its task.

The program is the last fenced block of the wanted language in what follows `</think>` (in `<answer>…</answer>` where
there is one), else the last block without a language, else, where nothing is fenced, all of that text: a base model
continues the prompt. Reasoning that is still open holds no program.
"""

from __future__ import annotations

import ast
import re

from rewards.extraction import after_thinking

NAMES = {
    "python": ("python", "python3", "py", "py3", "pypy3", "python 3"),
    "cpp": ("cpp", "c++", "cc", "cxx", "c++11", "c++14", "c++17", "c++20", "c++23", "cpp17", "cpp20", "g++"),
}
"""What data sets and code fences call the languages."""
MAX_PROGRAM = 200_000
"""Characters; a longer one is no program."""
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)


def language_of(name: str | None) -> str | None:
    """The language that a data set or a fence means; Python if it says nothing, None if it is none of ours.

    >>> language_of("C++17"), language_of(None), language_of("rust")
    ('cpp', 'python', None)
    """
    if not name:
        return "python"
    return next((language for language, names in NAMES.items() if name.strip().lower() in names), None)


def extract_program(completion: str, language: str = "python") -> str | None:
    r"""The program of a completion, or None. Linear in the length.

    >>> extract_program("<think>```python\nx\n```</think>So:\n```python\ndef f(): return 1\n```\nDone.")
    'def f(): return 1\n'
    """
    final = after_thinking(completion)
    if final is None:
        return None
    _, opened, answer = final.rpartition("<answer>")
    if opened:
        final = answer.partition("</answer>")[0]
    blocks = _blocks(final)
    wanted = [text for name, text in blocks if name in NAMES[language]] or [text for name, text in blocks if not name]
    if wanted:
        program = wanted[-1]
    elif blocks:
        return None
    else:
        program = final
    return program if program.strip() and len(program) <= MAX_PROGRAM else None


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block; one that is cut off by the end of the text counts."""
    blocks, opening = [], None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[1].startswith(opening[1]) and not fence[2]:
            blocks.append((opening[2].lower(), text[opening.end() + 1 : fence.start()]))
            opening = None
    if opening is not None:
        blocks.append((opening[2].lower(), text[opening.end() + 1 :]))
    return blocks


def complete_program(program: str, preamble: str, entry_point: str) -> str:
    """A whole program: what the task gives (imports, helpers, the head of the function) and the model's part.

    A part that defines the function comes after the task's code and replaces its unfinished definition; any other goes
    on where the task's code stops, as a base model does.
    """
    if not preamble:
        return program
    name = re.escape(entry_point.rpartition(".")[2])
    if re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b", program, re.MULTILINE):
        return f"{preamble}\n\n{program}"
    return preamble + program


def task_code(prompt: str, entry_point: str) -> str:
    """The code that a prompt gives to start from: the head of the function `entry_point`, with imports and helpers.

    The prompt itself if it is Python (HumanEval), else its last fenced block that defines the function, else "".
    """
    for code in (prompt, *(text for _, text in reversed(_blocks(prompt)))):
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == entry_point for node in tree.body):
            return code
    return ""
