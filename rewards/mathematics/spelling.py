r"""One spelling for what is typeset in many: Unicode signs, LaTeX spaces and sizes, `\text{}`, delimiters, lead-ins.

Everything here is text to text, linear, and knows no mathematics. Characters that only look like ASCII ones (full-width
digits, Cyrillic letters, mathematical alphanumerics) are left as they are, so that no reader takes them for the real
ones: an answer that needs them is unparsable.
"""

from __future__ import annotations

import functools
import re
import unicodedata

UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "∕": "/",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ",
    "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ",
    "√": r"\surd ", "∛": r"\cbrt ", "°": r"\deg ", "′": "'", "’": "'", "∣": r"\mid ", "ℝ": r"\Reals ",
    "ℤ": r"\Integers ", "ℕ": r"\Naturals ", "ℚ": r"\Rationals ", "ℂ": r"\Complexes ", "∠": r"\angle ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "，": ", ", "、": ", ", "；": ";", "：": ":", "（": "(", "）": ")",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "\u00a0": " ",
    "\u202f": " ", "\u2009": " ",
}  # fmt: skip
"""Signs that people and models write for LaTeX ones. No look-alikes of digits or letters."""
_UNICODE = str.maketrans(UNICODE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\{\s*([^{}]{1,20})\\choose(?![A-Za-z])\s*([^{}]{1,20})\}", r"\\binom{\1}{\2}"),
        (r"\\(?:left|right|middle)(?![A-Za-z])\s*\.?|\\[bB]igg?[lrm]?(?![A-Za-z])", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|mathstrut|strut|hfill|bf|it|rm)(?![A-Za-z])", " "),
        (r"(?<!\\)\\(?:[,;:! >]|(?:q?quad|(?:thin|med|thick|neg)space)(?![A-Za-z])|hspace\{[^{}]*\})|~", " "),
        (r"\\(?:[dtc]|x)frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\math(?:bb|bf|cal)\s*\{\s*R\s*\}|\\mathbb\s+R(?![A-Za-z])|\\R(?![A-Za-z])", r"\\Reals "),
        (r"\\math(?:bb|bf)\s*\{\s*Z\s*\}|\\mathbb\s+Z(?![A-Za-z])|\\Z(?![A-Za-z])", r"\\Integers "),
        (r"\\math(?:bb|bf)\s*\{\s*N\s*\}|\\mathbb\s+N(?![A-Za-z])|\\N(?![A-Za-z])", r"\\Naturals "),
        (r"\\math(?:bb|bf)\s*\{\s*Q\s*\}|\\mathbb\s+Q(?![A-Za-z])|\\Q(?![A-Za-z])", r"\\Rationals "),
        (r"\\math(?:bb|bf)\s*\{\s*C\s*\}|\\mathbb\s+C(?![A-Za-z])|\\C(?![A-Za-z])", r"\\Complexes "),
        (r"\^\s*(?:\{\s*)?\\circ(?![A-Za-z])(?:\s*\})?|\\(?:degree|textdegree)(?![A-Za-z])", r"\\deg "),
        (r"\^\s*\\deg", r"\\deg"),
        (r"\\%", "%"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:vert|lvert|rvert)(?![A-Za-z])", "|"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=|=<", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:bigcup|cup)(?![A-Za-z])", r"\\cup "),
        (r"\\(?:backslash|smallsetminus)(?![A-Za-z])", r"\\setminus "),
        (r"\+/-|\+-", r"\\pm "),
        (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"(\.[0-9]*)\\dot\s*\{?([0-9])\}?", r"\1\\overline{\2}"),
    ]
]
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf|tt)|mbox|hbox|operatorname\*?|boldsymbol|bm|emph|boxed|fbox"
    r"|underline|bold)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_DELIMITED = re.compile(
    r"(?<!\$)\$\$([^$]+)\$\$(?!\$)|(?<![\\$])\$([^$]+)\$(?!\$)|(?<!\\)\\\(((?:(?!\\[()\[\]]).)*)\\\)"
    r"|(?<!\\)\\\[((?:(?!\\[()\[\]]).)*)\\\]",
    re.DOTALL,
)
_THOUSANDS_COMMA = re.compile(r"(?<=[0-9])\s?(?:\{\s*,\s*\}\s?(?:\\!)?|,\s?\\!)\s*(?=[0-9]{3})")
_SPACE = re.compile(r"[ \t\r\n]+")
_AMOUNT = r"-?[0-9]+(?:(?:,| )[0-9]{3})*(?:\.[0-9]+)?(?:\s*(?:thousand|million|billion|trillion))?"
_MONEY = re.compile(rf"(?:US|USD\s*)?(-?)\s*\\?([$€£¥])\s*({_AMOUNT})")
_MONEY_AFTER = re.compile(r"([0-9])\s*(\\\$|[€£¥])\s*$")
_CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds sterling", "¥": "yen"}
_STOPS = re.compile(r"[.。]\s*$")


@functools.lru_cache(maxsize=8192)
def plain(text: str) -> str:
    r"""The text in ASCII and LaTeX commands, without delimiters, sizes, LaTeX spaces, `\text{}` or a closing full stop.

    >>> plain(r"$\left(\dfrac{1}{2},\, ∞\right)$."), plain(r"10\text{ cm}^2"), plain(r"\$1{,}234.50")
    ('(\\frac{1}{2}, \\infty )', '10 cm ^2', '1,234.50 dollars')
    """
    text = _THOUSANDS_COMMA.sub(",", unicodedata.normalize("NFC", text))
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
    text = _undelimited(_money_in_words(text).translate(_UNICODE))
    if "\\" in text or any(mark in text for mark in ("=", "~", "+-", "+/-", "&")):
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
        for _ in range(4):  # \textbf{\text{…}}
            text, found = _TEXT.subn(r" \1 ", text)
            if not found:
                break
    return _SPACE.sub(" ", text).strip(" ")


_USELESS_SPACE = re.compile(r"(?<![A-Za-z0-9.,]) | (?![A-Za-z0-9.])")


def squeezed(text: str) -> str:
    """A plain text without the spaces that say nothing; "4 2" keeps its own.

    >>> squeezed("( x + 1 )"), squeezed("4 2"), squeezed("1, 234")
    ('(x+1)', '4 2', '1, 234')
    """
    return _USELESS_SPACE.sub("", text)


def _money_in_words(text: str) -> str:
    """`\\$5` and a lone `$5` as "5 dollars"; `$5$` is LaTeX."""
    if text.count("$") - text.count(r"\$") == 1:
        text = re.sub(r"(?<!\\)\$", r"\\$", text)
    elif r"\$" not in text and not any(sign in text for sign in "€£¥"):
        return text

    def in_words(match: re.Match[str]) -> str:
        if match[2] == "$" and r"\$" not in match[0]:
            return match[0]
        return f"{match[1]}{match[3].strip()} {_CURRENCIES[match[2]]}"

    text = _MONEY.sub(in_words, text)
    return _MONEY_AFTER.sub(lambda match: f"{match[1]} {_CURRENCIES[match[2].lstrip(chr(92))]}", text)


def _undelimited(text: str) -> str:
    text = _DELIMITED.sub(lambda match: f" {next(filter(None, match.groups()), '')} ", text).strip(" \t\r\n`")
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        text = text[2:-2].strip()
    return _STOPS.sub("", text.replace("**", "^")).strip()


CORRECTION = re.compile(
    r"(?:[.,;!?\n]|--?|…|\s)\s*(?:oh\s+)?(?:\bno,?\s+wait\b|\bno\b\s*(?=[,.:;!])|\bwait\b|\bsorry\b|\bactually\b|\boops\b"
    r"|\bcorrection\b|\bI mean(?:t)?\b|\bscratch that\b|\bor rather\b|\brather\b|\blet me correct\b"
    r"|\bon second thought\b)[\s,.:;!-]*",
    re.IGNORECASE,
)
"""Where a text takes back what it said before."""
HEDGING = re.compile(
    r"\b(?:not|n't|or|either|maybe|perhaps|possibly|probably|might|may|could|between|if|unless|about|around|roughly"
    r"|neither|nor|what|which|who|than|least|most|almost|nearly|cannot|never|un\w+ly)\b|n't",
    re.IGNORECASE,
)
"""Words of a text that does not commit itself, or denies."""
_LEAD_IN = re.compile(
    r"(?:[A-Za-z][A-Za-z'\s,-]{0,80}?\s)?(?:is|are|equals|equal to|be|get|gives?|it's|that's)(?:\s*:)?\s+"
    r"|(?:(?:so|thus|hence|therefore|finally)[\s,]+)+|(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s*[:=]\s*|\s+(?=[^A-Za-z]))"
    r"|(?:exactly|only)\s+",
    re.IGNORECASE,
)


def last_word(text: str) -> str:
    """What stands after the last correction, if anything does.

    >>> last_word("41. No, wait, 42"), last_word("no solution")
    ('42', 'no solution')
    """
    start = 0
    for match in CORRECTION.finditer(text):
        if text[match.end() :].strip(" .!,"):
            start = match.end()
    return text[start:].strip()


def without_lead_in(text: str) -> str:
    """Without "The total is", "So it's" and the like; a lead-in that hedges or denies stays.

    >>> without_lead_in("So the total is 42"), without_lead_in("It is not 42"), without_lead_in("42")
    ('42', 'It is not 42', '42')
    """
    while (match := _LEAD_IN.match(text)) and match.end() < len(text) and not HEDGING.search(match[0]):
        if HEDGING.match(text, match.end()):
            break
        text = text[match.end() :]
    return text
