"""A penalty for repetition: the share of n-grams that the text has had before.

Source: "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv:2502.03373), appendix C.2, where a model under a
length reward was seen to fill its reasoning with copies. The share, and its defaults of 3-grams and -1, are open-r1's
and TRL's. open-r1 takes words between white space, of which a Chinese text has a few long ones that never repeat; TRL
takes token ids, which depend on the tokenizer. Ours takes words, and in Chinese and Japanese characters.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rewards.texts import message_text

_CHARACTER = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_CHARACTER}]|[^\s{_CHARACTER}]+")


def repetition_units(text: str) -> list[str]:
    """Words in lower case, as white space divides them; each Chinese or Japanese character is one.

    >>> repetition_units("So x = 5. 所以答案是5。")
    ['so', 'x', '=', '5.', '所', '以', '答', '案', '是', '5。']
    """
    return _UNIT.findall(text.lower())


def repeated_share(units: Sequence[Hashable], ngram_size: int) -> float:
    """The share of n-grams equal to an earlier one: 0 for none (and for texts shorter than one), towards 1 for a loop.

    >>> repeated_share("a b a b a b".split(), 2), repeated_share("a b c".split(), 2)
    (0.6, 0.0)
    """
    total = len(units) - ngram_size + 1
    if total < 1:
        return 0.0
    different = len(set(zip(*(units[start:] for start in range(ngram_size)), strict=False)))
    return (total - different) / total


def repetition_reward(ngram_size: int = 3, max_penalty: float = -1.0) -> RepetitionReward:
    """The reward function: max_penalty times the repeated share of the whole completion.

    Reasoning repeats short phrases for good reason ("so we get …"): 3-grams put a price on that too, longer ones (the
    paper punishes 40-grams of tokens) only on loops.

    >>> repetition_reward(ngram_size=2)(["Q"] * 2, ["one two three", "wait wait wait wait wait"])
    [0.0, -0.75]
    """
    return RepetitionReward(ngram_size, max_penalty)


@dataclass(frozen=True)
class RepetitionReward:
    ngram_size: int = 3
    max_penalty: float = -1.0
    __name__ = "repetition"

    def __post_init__(self) -> None:
        if self.ngram_size < 1:
            raise ValueError(f"ngram_size must be 1 or more words, got {self.ngram_size}; open-r1 and TRL take 3")
        if not self.max_penalty <= 0:
            raise ValueError(f"max_penalty must not be positive, got {self.max_penalty}; a repetition costs")

    def __call__(self, prompts: Sequence, completions: Sequence, **columns: object) -> list[float]:
        return [self._penalty(message_text(completion)) for completion in completions]

    def _penalty(self, text: str) -> float:
        share = repeated_share(repetition_units(text), self.ngram_size)
        return share * self.max_penalty if share else 0.0
