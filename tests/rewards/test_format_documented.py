"""The tables of docs/rewards.md on format, language, length and repetition say what the rewards give."""

from pathlib import Path

import pytest

from rewards.format import format_reward, lenient_format_reward, think_format_reward
from rewards.language import language_reward
from rewards.length import cosine_reward, soft_overlong_reward
from rewards.repetition import repetition_reward

DOCS = Path(__file__).parents[2] / "docs" / "rewards.md"


def rows(header):
    """The rows of the one table with this header, without their code quotes."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert lines.count(header) == 1, f"docs/rewards.md has no table, or several, with the header {header}"
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            return
        yield tuple(cell.strip().removeprefix("`").removesuffix("`").strip() for cell in line.strip("|").split("|"))


def test_format():
    for completion, *expected in rows("| completion | format | lenient_format | think_format |"):
        found = [reward(["Q"], [completion]) for reward in (format_reward, lenient_format_reward, think_format_reward)]
        assert found == [[float(value)] for value in expected], completion


def test_language():
    for reasoning, target, expected in rows("| reasoning | target | language |"):
        (found,) = language_reward(["Q"], [f"<think>{reasoning}</think><answer>8</answer>"], language=[target])
        assert found == pytest.approx(float(expected), abs=5e-4), (reasoning, target)


def test_length():
    for tokens, overlong, right, wrong in rows("| tokens | soft_overlong | cosine, right | cosine, wrong |"):
        completions = ["<think>6*7</think><answer>42</answer>", "<think>6*7</think><answer>41</answer>"]
        columns = {"answer": ["42"] * 2, "task": ["arithmetic"] * 2, "completion_ids": [[0] * int(tokens)] * 2}
        assert soft_overlong_reward(100, 20)(["Q"] * 2, completions, **columns) == [float(overlong)] * 2
        found = cosine_reward(100)(["Q"] * 2, completions, **columns)
        assert found == pytest.approx([float(right), float(wrong)], abs=5e-4)


def test_repetition():
    for completion, ngram_size, expected in rows("| completion | ngram_size | repetition |"):
        assert repetition_reward(int(ngram_size))(["Q"], [completion]) == pytest.approx([float(expected)]), completion
