"""Korean particles, which depend on the last sound of the word before them."""

from __future__ import annotations

from functools import lru_cache

PARTICLES = {
    "은/는": ("은", "는"),
    "이/가": ("이", "가"),
    "을/를": ("을", "를"),
    "과/와": ("과", "와"),
    "으로/로": ("으로", "로"),
    "이랑/랑": ("이랑", "랑"),
    "이나/나": ("이나", "나"),
    "아/야": ("아", "야"),
    "이다/다": ("이다", "다"),
    "이에요/예요": ("이에요", "예요"),
    "이야/야": ("이야", "야"),
    "이고/고": ("이고", "고"),
    "이라고/라고": ("이라고", "라고"),
    "이라는/라는": ("이라는", "라는"),
    "이었/였": ("이었", "였"),
}
"""Pair -> (after a final consonant, after a vowel). A pair may be asked for in either order: 와/과 is 과/와."""

_PAIRS = PARTICLES | {"/".join(pair.split("/")[::-1]): forms for pair, forms in PARTICLES.items()}
_DIGIT_FINALS = {"0": "ㅇ", "1": "ㄹ", "2": "", "3": "ㅁ", "4": "", "5": "", "6": "ㄱ", "7": "ㄹ", "8": "ㄹ", "9": ""}
_LETTER_FINALS = {"l": "ㄹ", "m": "ㅁ", "n": "ㄴ", "r": "ㄹ"}
_SYMBOL_FINALS = {"%": "", "°": "", "π": ""}


@lru_cache(maxsize=1 << 16)
def particle(word: str, pair: str) -> str:
    """`word` with the particle of `pair` that its last sound asks for.

    Hangul goes by the last syllable, digits and fractions by their Sino-Korean reading (2분의 7 for 7/2), Latin letters
    by their names and Latin words by how they are usually transcribed. Quotes and brackets at the end do not count.
    Raises ValueError for an unknown pair or a word without anything to read.

    >>> particle("사과", "은/는"), particle("물", "으로/로"), particle("10", "와/과"), particle("Tom", "이/가")
    ('사과는', '물로', '10과', 'Tom이')
    """
    if pair not in _PAIRS:
        raise ValueError(f"unknown particle pair {pair!r}: expected one of {', '.join(PARTICLES)}")
    final = final_sound(word)
    after_consonant, after_vowel = _PAIRS[pair]
    if after_consonant == "으로" and final == "ㄹ":
        return word + after_vowel
    return word + (after_consonant if final else after_vowel)


def final_sound(word: str) -> str:
    """The final consonant that `word` is read with: "" for a vowel, "ㄹ" for ㄹ, another jamo for other consonants.

    >>> final_sound("물"), final_sound("나무"), final_sound("집") != "", final_sound("1000")
    ('ㄹ', '', True, 'ㄴ')
    """
    core = word.rstrip("'\"”’)]}>.,!?~ ")
    last = core[-1:]
    if "가" <= last <= "힣":
        return _hangul_final(last)
    if last.isdecimal() and last.isascii():
        return _number_final(core)
    if last.isascii() and last.isalpha():
        return _latin_final(core)
    if last in _SYMBOL_FINALS:
        return _SYMBOL_FINALS[last]
    raise ValueError(f"cannot read the end of {word!r} aloud: expected Hangul, digits or Latin letters at its end")


def _hangul_final(syllable: str) -> str:
    """Unicode orders syllables by initial, vowel, final: 28 finals, the first of them none, the ninth ㄹ."""
    index = (ord(syllable) - ord("가")) % 28
    return "" if index == 0 else "ㄹ" if index == 8 else "ㄱ"


def _number_final(text: str) -> str:
    """Digits at the end of `text`, read in Sino-Korean: 십, 백, 천, 만, 억 end in consonants, 조 does not."""
    number = text[len(text.rstrip("0123456789,./")) :].lstrip(",./")
    numerator, slash, _ = number.rpartition("/")
    if slash and numerator:  # 7/2 is read 2분의 7
        number = numerator
    digits = number.replace(",", "")
    if "." in digits or not digits.strip("0"):  # decimals are read digit by digit, zero is 영
        return _DIGIT_FINALS[digits[-1]]
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros == 0:
        return _DIGIT_FINALS[digits[-1]]
    if zeros < 4:
        return ("ㅂ", "ㄱ", "ㄴ")[zeros - 1]
    return ("ㄴ", "ㄱ", "", "ㅇ")[min(zeros // 4, 4) - 1]


def _latin_final(text: str) -> str:
    """The usual transcription of the Latin word at the end of `text`: 톰 and 잭 end in a consonant, 마크 does not."""
    start = len(text)
    while start and text[start - 1].isascii() and text[start - 1].isalpha():
        start -= 1
    word = text[start:]
    if len(word) == 1 or word.isupper():
        return _LETTER_FINALS.get(word[-1].lower(), "")
    word = word.lower()
    if word.endswith(("l", "le", "ll")):
        return "ㄹ"
    if word.endswith(("m", "n", "ng", "ne", "me")):
        return "ㄴ"
    short_vowel = word[-2] in "aeiou" and (len(word) == 2 or word[-3] not in "aeiou")
    if word.endswith(("ck", "ook")) or (word[-1] in "bpktc" and short_vowel):
        return "ㄱ"
    return ""


class Hangul(str):
    """A Korean word that takes its particle in a template.

    >>> f"{Hangul('공'):을/를} 찾았다", "{0:이/가}".format(Hangul("나무"))
    ('공을 찾았다', '나무가')
    """

    __slots__ = ()

    def __format__(self, pair: str) -> str:
        return particle(self, pair) if pair else str(self)
