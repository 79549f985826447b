r"""Mathematical answers: what can be decided exactly and cheaply, and how the rest is written down for math-verify.

`compare_exactly` settles identical texts, plain numbers, number bases ("204_5") and words; it returns None where
computer algebra is needed. `as_latex` then writes one answer as one formula: math-verify reads a bare LaTeX answer
without `$` poorly, and left to find answers in prose it takes the last of several. Some of these stages exist because
math-verify 0.9 gets them wrong: it ignores number bases and words such as "million", and rejects a full stop, extra
braces and e-notation.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.exact import read_list, read_number, strip_delimiters
from rewards.extraction import last_boxed
from rewards.tasks import MAX_ANSWER_LENGTH
from rewards.verdicts import NO_ANSWER, Verdict, correct, unparsable, unreadable_gold, wrong

SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that multiply the number before them, as powers of ten."""
UNICODE_LATEX = {
    "−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ",
    "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "°": r"^\circ ",
    "²": "^2", "³": "^3", "，": ",", "（": "(", "）": ")",
}  # fmt: skip
_SPACES = re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~|\s+")
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])")
_USELESS_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")


def read_gold(gold: str) -> str:
    r"""The answer inside a gold column: its last `\boxed{}` (MATH solutions), what follows `####` (GSM8K), or all of
    it.

    >>> read_gold(r"So $x = \boxed{7}$."), read_gold("6 * 7 = 42\n#### 42"), read_gold("1/2")
    ('7', '42', '1/2')
    """
    return (last_boxed(gold) or gold.rpartition("####")[2]).strip()


def canonical(text: str) -> str:
    r"""One spelling for answers that differ in typesetting only: equal results mean the same answer, unequal ones mean
    nothing.

    >>> canonical(r" $\dfrac{1}{2},\, x$. ") == canonical(r"\frac{1}{2}, x")
    True
    """
    for sign, latex in UNICODE_LATEX.items():
        text = text.replace(sign, latex)
    text = _SIZES.sub("", _SPACES.sub(" ", text)).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return _USELESS_SPACE.sub("", strip_delimiters(text))


def compare_exactly(*, gold: str, answer: str | None) -> Verdict | None:
    """The verdict where no computer algebra is needed, else None. `gold` comes from `read_gold`."""
    if not gold:
        return unreadable_gold("the gold answer is empty")
    if len(gold) > MAX_ANSWER_LENGTH:
        return unreadable_gold(f"the gold answer has {len(gold)} characters, {MAX_ANSWER_LENGTH} are read at most")
    if answer is None:
        return NO_ANSWER if read_plain(gold) is not None or is_words(gold) else None
    if len(answer) > MAX_ANSWER_LENGTH:
        return unparsable(f"the answer has {len(answer)} characters, {MAX_ANSWER_LENGTH} are read at most")
    if canonical(gold) == canonical(answer):
        return correct("the same text")
    if is_words(gold):
        return correct("the same words") if read_list(gold) == read_list(answer) else wrong("other words")
    return _compare_bases(gold, answer) or _compare_plain(gold, answer)


def read_plain(text: str) -> Fraction | None:
    r"""The value of a plain number: as rewards.exact.read_number, also "42 million", "(42)", `42\text{ million}` and,
    in base five, "204_5".
    """
    text = strip_delimiters(_TEXT_COMMAND.sub(r" \1 ", text[:MAX_ANSWER_LENGTH]))
    if (based := _read_based(text)) is not None:
        return Fraction(based[1])
    if text.startswith("(") and text.endswith(")") and "," not in text:
        text = text[1:-1]
    words = text.rsplit(maxsplit=1)
    if len(words) == 2 and words[1].lower() in SCALES:
        value = read_number(words[0])
        return None if value is None else value * 10 ** SCALES[words[1].lower()]
    return read_number(text)


def _compare_plain(gold: str, answer: str) -> Verdict | None:
    """Plain numbers as fractions. An unequal decimal is left to math-verify, which takes 0.333333 for 1/3."""
    wanted, given = read_plain(gold), read_plain(answer)
    if wanted is None or given is None:
        return (
            wrong("only one of them is scaled by a word such as million") if _scales(gold) != _scales(answer) else None
        )
    if wanted == given:
        return correct("the same number")
    return None if "." in gold + answer else wrong("another number")


def _scales(text: str) -> set[str]:
    return {word for word in SCALES if word in text.lower()}


_BASED = re.compile(r"([0-9]{1,60})_(?:\{\s*([0-9]{1,2})\s*\}|([0-9]))")


def _read_based(text: str) -> tuple[str, int, int] | None:
    """(digits, value, base) of a number such as 204_5 or 1101_{2}; None if it is none or a digit does not belong to the
    base.
    """
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    base = int(match[2] or match[3])
    if not 2 <= base <= 36 or any(int(digit) >= base for digit in match[1]):
        return None
    return match[1], int(match[1], base), base


def _compare_bases(gold: str, answer: str) -> Verdict | None:
    """A gold answer in a base wants that base: its digits, with or without the base written behind them."""
    wanted, given = (_read_based(strip_delimiters(_TEXT_COMMAND.sub(r"\1", text))) for text in (gold, answer))
    if wanted is None:
        return None
    digits, base = (given[0], given[2]) if given else (strip_delimiters(answer), wanted[2])
    same = (digits.lstrip("0"), base) == (wanted[0].lstrip("0"), wanted[2])
    return correct("the same digits in the same base") if same else wrong(f"not {wanted[0]} in base {wanted[2]}")


_NOT_WORDS = re.compile(r"[0-9+=^_\\*/<>|$&%{}]|[\u0370-\u03ff]")
_WORD = re.compile(r"[A-Za-z]{4,}|[^\W\d_A-Za-z]+")
_SHORT_WORDS = {"yes", "no", "odd", "even"}


def is_words(text: str) -> bool:
    r"""Whether the text is words, to be compared as such, and no formula: `\text{Monday}`, "no solution", "서울"; not
    "xy" or "2\pi".

    >>> is_words(r"\text{Monday}"), is_words("xy"), is_words("10 cm")
    (True, False, False)
    """
    plain = _TEXT_COMMAND.sub(r" \1 ", strip_delimiters(text))
    return not _NOT_WORDS.search(plain) and (bool(_WORD.search(plain)) or plain.strip().lower() in _SHORT_WORDS)


_UNIT = re.compile(r"(?P<number>[^A-Za-z\\]{1,40}?)\s+(?P<unit>[A-Za-z]{3,}(?: [A-Za-z]+){0,2})")
# Words after a number that change its value, and so are no unit.
_CHANGING_WORDS = frozenset({*SCALES, "dozen", "percent", "squared", "cubed", "half", "halves", "third", "thirds"}) | {
    *("and", "or", "not", "to", "mod", "base", "times", "plus", "minus", "over", "choose", "quarter", "quarters"),
}
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|log|ln|exp|infty)(?![A-Za-z])")
_JOINED = re.compile(r"(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])")


def as_latex(text: str) -> str:
    r"""One answer as one `$formula$`; a text that already holds formulas among words is left to math-verify as it is.

    >>> as_latex(r"\frac{1}{2}"), as_latex("x = 1 or x = 2"), as_latex("42 apples"), as_latex("2*sqrt(3)")
    ('$\\frac{1}{2}$', '$x = 1 , x = 2$', '$42$', '$2*\\sqrt{3}$')
    """
    text = strip_delimiters(text)
    if text.count("$") == 1:  # a price, "$10" or "\\$10"
        text = text.replace(r"\$", "").replace("$", "").strip()
    if any(mark in text.replace(r"\$", "") for mark in ("$", r"\(", r"\[")):
        return text
    for sign, latex in UNICODE_LATEX.items():
        text = text.replace(sign, latex)
    unit = _UNIT.fullmatch(text)
    if unit and read_number(unit["number"]) is not None and not _CHANGING_WORDS & set(unit["unit"].lower().split()):
        return f"${unit['number'].strip()}$"
    text = _FUNCTION.sub(r"\\\1", _JOINED.sub(",", text).replace("**", "^"))
    return "$" + re.sub(r"sqrt\(([^()]*)\)", r"sqrt{\1}", text) + "$"
