"""Simple instructions whose answers can be checked: lists, sorting, rewriting, translation, counting, facts, manners.

Each comes with a good answer, which passes its own check, and a bad one, which does not: wrong, off topic, rude, in the
wrong language or no answer at all. Later stages draw from here through `draw_instruction` and judge with `passes`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

from data.corpus.vocabulary import (
    ADJECTIVES,
    CATEGORIES,
    ENGLISH,
    FACTS,
    KOREAN,
    LANGUAGES,
    NOUNS,
    OBJECTS,
    OFF_TOPIC,
    PEOPLE,
    PLACES,
    RUDE_REPLIES,
    SPEAKERS,
    THING_NOUNS,
    Hangul,
    Word,
    casual,
    draw_side,
    plural,
    with_article,
)

GOOD_SHARE = 0.85
"""Share of instructions in the pretraining text that are answered well."""


@dataclass(frozen=True)
class Check:
    """What a right answer must be. `rule` decides how `expected` is read:

    - "contains": one of `expected` occurs as a word or phrase, none of `forbidden` does
    - "items": the answer lists exactly `expected`, in that order
    - "members": the answer lists `count` different members of `expected` and nothing else
    - "exact": the answer is `expected[0]`, letter by letter
    - "starts": the first word of the answer is `expected[0]`, and none of `forbidden` occurs
    - "polite": every word of `expected` occurs, and the answer is polite
    - "covers": at least `count` of the content words in `expected` occur, and COVERED of no text in `forbidden`

    An answer longer than `most_words` fails, so that saying everything is no way to be right.
    """

    rule: str
    expected: tuple[str, ...]
    forbidden: tuple[str, ...] = ()
    count: int = 0
    most_words: int = 40

    def to_json(self) -> str:
        """The check as a text, for a column of a data set; `Check.from_json` reads it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Check:
        """Raises ValueError for a text that is no check.

        >>> Check.from_json(Check("contains", ("cat",), count=1).to_json())
        Check(rule='contains', expected=('cat',), forbidden=(), count=1, most_words=40)
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a check is the JSON of Check.to_json, got {text!r:.80} ({error})") from error
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or not {"rule", "expected"} <= set(values) <= set(names):
            raise ValueError(f"a check is a JSON object with {', '.join(names)}, got {text!r:.80}")
        if values["rule"] not in _RULES:
            raise ValueError(f"unknown rule {values['rule']!r}: expected one of {', '.join(_RULES)}")
        lists = {name: tuple(values[name]) for name in ("expected", "forbidden") if name in values}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Instruction:
    """`language` is the request's; `answer_language` differs from it in translations and in English spelling tasks."""

    kind: str
    language: str
    request: str
    good: str
    bad: str
    check: Check
    answer_language: str
    wrong: tuple[str, ...] = ()
    """Answers that are wrong in ways of this kind."""


Draft = tuple[str, str, Sequence[str], Check]
"""Request, good answer, wrong answers of this kind, check."""

# --- Checking ---------------------------------------------------------------------------------------------------------

_ENDINGS = frozenset(
    ending
    for line in (
        "은 는 이 가 을 를 에 에서 의 도 과 와 으로 로 요",
        "이다 다 이에요 예요 입니다 이야 야 이고 고 라고 이라고",
    )
    for ending in line.split()
)
COVERED = 0.6
"""Share of the content words of a text that an answer carries if it says the same."""

_FUNCTION_WORDS = frozenset(
    word
    for line in (
        "a an and are as at be by can do does for from go has have how i if in is it its me my not now of on one or",
        "our so some somebody that the then there they this to two up was what when where who with you your",
        "수 것 곳 한 더 내 저는 나는 그 이 안 잘",
    )
    for word in line.split()
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".,!?:;\"'()“”‘’", " "))
_POLITE_ENGLISH = ("please", "could", "would")


def passes(check: Check, answer: str) -> bool:
    """Whether `answer` does what the instruction asked for. Raises ValueError for an unknown rule.

    >>> passes(Check("contains", ("집",), forbidden=("숲",)), "고양이는 집에 살아요.")
    True
    >>> passes(Check("members", ("cat", "dog", "cow"), count=2), "Here are 2 animals: dog, cat.")
    True
    """
    if check.rule not in _RULES:
        raise ValueError(f"unknown rule {check.rule!r}: expected one of {', '.join(_RULES)}")
    return len(answer.split()) <= check.most_words and _RULES[check.rule](check, answer)


def _contains(check: Check, answer: str) -> bool:
    tokens = _tokens(answer)
    return any(_occurs(word, tokens) for word in check.expected) and not any(
        _occurs(word, tokens) for word in check.forbidden
    )


def _tokens(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION).split()


def _occurs(phrase: str, tokens: list[str]) -> bool:
    """Whether the words of `phrase` stand in a row in `tokens`, the last one with any Korean particle or copula."""
    words = _tokens(phrase)
    for start in range(len(tokens) - len(words) + 1):
        *inner, last = tokens[start : start + len(words)]
        if inner == words[:-1] and (last == words[-1] or _inflected(last, words[-1])):
            return True
    return False


def _inflected(token: str, word: str) -> bool:
    return token.startswith(word) and token[len(word) :] in _ENDINGS and "가" <= token[-1] <= "힣"


@lru_cache(maxsize=1 << 12)
def content_words(text: str) -> tuple[str, ...]:
    """The different words of a text that carry its content: function words left out, Korean ones cut to a stem.

    >>> content_words("Keep it cold and eat it soon."), content_words("차가운 곳에 두고 빨리 드세요.")
    (('keep', 'cold', 'eat', 'soon'), ('차가', '두', '빨리', '드세'))
    """
    stems = [_stem(token) for token in _tokens(text) if token not in _FUNCTION_WORDS]
    return tuple(dict.fromkeys(stem for stem in stems if stem not in _FUNCTION_WORDS))


def stems(text: str) -> tuple[str, ...]:
    """All words of a text, function words too, in their order; Korean ones cut to a stem as in `content_words`."""
    return tuple(map(_stem, _tokens(text)))


def _stem(token: str) -> str:
    """A Korean word without what is bound to it, as far as two syllables tell; an English one without its plural."""
    if "가" <= token[-1] <= "힣":
        ending = next((token[-size:] for size in (2, 1) if len(token) > size and token[-size:] in _ENDINGS), "")
        return token.removesuffix(ending)[:2]
    return token[:-1] if len(token) > 3 and token.endswith("s") and not token.endswith("ss") else token


def covers(answer: str, words: Sequence[str]) -> float:
    """The share of content words that occur in an answer; 0.0 of none."""
    found = set(stems(answer))
    return sum(word in found for word in words) / len(words) if words else 0.0


def _items(answer: str) -> list[str]:
    """The entries of a list in the answer: by commas or by lines, without an introduction, numbers or a full stop."""
    body = answer.rpartition(":")[2].strip()
    entries = body.split("\n") if "\n" in body else body.split(",")
    return [entry.strip().lstrip("0123456789").lstrip(".)- ").rstrip(". ") or entry.strip(" .") for entry in entries]


def _lists_items(check: Check, answer: str) -> bool:
    return _items(answer) == list(check.expected)


def _lists_members(check: Check, answer: str) -> bool:
    items = [item.lower() for item in _items(answer)]
    return len(items) == len(set(items)) == check.count and set(items) <= {word.lower() for word in check.expected}


def _is_exact(check: Check, answer: str) -> bool:
    return answer.rpartition(":")[2].strip().rstrip(".") == check.expected[0]


def _starts(check: Check, answer: str) -> bool:
    tokens = _tokens(answer)
    return tokens[:1] == _tokens(check.expected[0]) and not any(_occurs(word, tokens) for word in check.forbidden)


def _is_polite(check: Check, answer: str) -> bool:
    tokens = _tokens(answer)
    polite = any(word in tokens for word in _POLITE_ENGLISH) or answer.rstrip(".?! ").endswith("요")
    return polite and all(_occurs(word, tokens) for word in check.expected)


def _carries(check: Check, answer: str) -> bool:
    found = set(stems(answer))
    enough = sum(word in found for word in check.expected) >= max(check.count, 1)
    return enough and all(covers(answer, content_words(text)) < COVERED for text in check.forbidden)


_RULES: dict[str, Callable[[Check, str], bool]] = {
    "contains": _contains,
    "items": _lists_items,
    "members": _lists_members,
    "exact": _is_exact,
    "starts": _starts,
    "polite": _is_polite,
    "covers": _carries,
}

# --- Kinds ------------------------------------------------------------------------------------------------------------


_LIST = (
    (
        "List {n} {plural}.",
        "Name {n} {plural}.",
        "Give me {n} {plural}.",
        "Can you tell me {n} {plural}?",
        "Write {n} {plural}.",
    ),
    (
        "{ko} 이름 {n}개를 말해 주세요.",
        "{ko} 이름 {n}개를 써 줘.",
        "{ko} 이름을 {n}개 알려 주세요.",
        "{ko} 이름 {n}개를 나열하세요.",
    ),
)
_LIST_INTRO = ("Here are {n} {plural}: ", "{ko} 이름 {n}개: ")


def _draw_list(rng: random.Random, side: int) -> Draft:
    category, other = rng.sample(CATEGORIES, 2)
    n = rng.randint(2, min(5, len(category.members)))
    slots = {"n": n, "plural": category.plural, "ko": category.ko}
    words = [word[side] for word in rng.sample(category.members, n)]
    good = _joined(rng, words, _LIST_INTRO[side].format_map(slots))
    wrong = (
        ", ".join(words[:-1]),
        ", ".join([*words[:-1], rng.choice(other.members)[side]]),
        ", ".join([*words[:-1], words[0], words[0]]),
        ", ".join([word[1 - side] for word in rng.sample(category.members, n)]),
    )
    check = Check("members", tuple(word[side] for word in category.members), count=n)
    return rng.choice(_LIST[side]).format_map(slots), good, wrong, check


def _joined(rng: random.Random, words: Sequence[str], intro: str) -> str:
    """A list as one line, with or without an introduction, or with numbers, a line each."""
    draw = rng.random()
    if draw < 0.6:
        return ", ".join(words)
    if draw < 0.8:
        return f"{intro}{', '.join(words)}"
    return "\n".join([f"{number}. {word}" for number, word in enumerate(words, 1)])


_SORT_WORDS = (
    (
        "Sort these words in alphabetical order: {x}",
        "Put these words in alphabetical order: {x}",
        "Order the words from A to Z: {x}",
    ),
    (
        "다음 낱말을 가나다순으로 정렬하세요: {x}",
        "이 낱말들을 가나다순으로 써 주세요: {x}",
        "가나다순으로 정렬해 줘: {x}",
    ),
)
_SORTED_INTRO = ("Sorted: ", "정렬한 결과: ")


def _draw_sort_words(rng: random.Random, side: int) -> Draft:
    words = [word[side] for word in rng.sample(THING_NOUNS, rng.randint(3, 5))]
    return _sorting(rng, words, sorted(words), _SORT_WORDS, side)


def _sorting(rng: random.Random, given: list[str], right: list[str], asks: tuple, side: int) -> Draft:
    request = rng.choice(asks[side]).format(x=", ".join(given))
    good = ", ".join(right) if rng.random() < 0.8 else _SORTED_INTRO[side] + ", ".join(right)
    wrong = [", ".join(order) for order in (right[1:] + right[:1], right[:-1], right[::-1])]
    if given != right:
        wrong.append(", ".join(given))
    return request, good, wrong, Check("items", tuple(right))


_ASCENDING = (
    (
        "Sort these numbers from small to big: {x}",
        "Put the numbers in increasing order: {x}",
        "Order from smallest to largest: {x}",
    ),
    ("작은 수부터 정렬하세요: {x}", "다음 수를 작은 것부터 차례로 써 주세요: {x}", "오름차순으로 정렬해 줘: {x}"),
)
_DESCENDING = (
    (
        "Sort these numbers from big to small: {x}",
        "Put the numbers in decreasing order: {x}",
        "Order from largest to smallest: {x}",
    ),
    ("큰 수부터 정렬하세요: {x}", "다음 수를 큰 것부터 차례로 써 주세요: {x}", "내림차순으로 정렬해 줘: {x}"),
)


def _draw_sort_numbers(rng: random.Random, side: int) -> Draft:
    numbers = rng.sample(range(1, 100), rng.randint(3, 6))
    down = rng.random() < 0.4
    right = [str(number) for number in sorted(numbers, reverse=down)]
    return _sorting(rng, [str(number) for number in numbers], right, _DESCENDING if down else _ASCENDING, side)


_CAPITALS = (
    ("Write this in capital letters: {x}", "Rewrite in capitals: {x}", "Put this in upper case: {x}"),
    ("다음을 대문자로 쓰세요: {x}", "이것을 대문자로 바꿔 주세요: {x}", "대문자로 써 줘: {x}"),
)


def _draw_capitals(rng: random.Random, side: int) -> Draft:
    phrase = _phrase(rng).en
    if rng.random() < 0.4:
        phrase += f" and {_phrase(rng).en}"
    right = phrase.upper()
    wrong = (phrase, phrase.title(), right.split(" ", 1)[0] + " " + phrase.split(" ", 1)[1])
    return rng.choice(_CAPITALS[side]).format(x=phrase), right, wrong, Check("exact", (right,))


def _phrase(rng: random.Random, nouns: Sequence[Word] = THING_NOUNS) -> Word:
    """An adjective with a noun: small cat, 작은 고양이."""
    look, thing = rng.choice(ADJECTIVES), rng.choice(nouns)
    return Word(f"{look.en} {thing.en}", Hangul(f"{look.ko} {thing.ko}"))


_REVERSE = (
    (
        "Write these words in reverse order: {x}",
        "Reverse the order of these words: {x}",
        "Say these words from last to first: {x}",
    ),
    ("다음 낱말의 순서를 거꾸로 하세요: {x}", "이 낱말들을 뒤에서부터 써 주세요: {x}", "순서를 거꾸로 해 줘: {x}"),
)


def _draw_reverse(rng: random.Random, side: int) -> Draft:
    words = [word[side] for word in rng.sample(NOUNS, rng.randint(3, 5))]
    right = words[::-1]
    wrong = [", ".join(order) for order in (words, right[1:] + right[:1], right[:-1])]
    return rng.choice(_REVERSE[side]).format(x=", ".join(words)), ", ".join(right), wrong, Check("items", tuple(right))


_REPEAT = (
    ("Say the word {x} {n} times.", "Repeat {x} {n} times.", "Write {x} {n} times."),
    ("{x:을/를} {n}번 쓰세요.", "{x:이라는/라는} 말을 {n}번 반복해 주세요.", "{x:을/를} {n}번 말해 줘."),
)


def _draw_repeat(rng: random.Random, side: int) -> Draft:
    word, n = (_phrase(rng) if rng.random() < 0.5 else rng.choice(NOUNS))[side], rng.randint(2, 6)
    right = [word] * n
    wrong = [", ".join(right + [word] * extra) for extra in (1, 2)] + [", ".join(right[1:])]
    return rng.choice(_REPEAT[side]).format(x=word, n=n), ", ".join(right), wrong, Check("items", tuple(right))


_POLITE = (
    ("Make this polite: {x}", "Say this politely: {x}", "Rewrite this in a polite way: {x}"),
    ("공손하게 바꿔 주세요: {x}", "이 말을 공손하게 쓰세요: {x}", "예의 바르게 말해 줘: {x}"),
)
_BLUNT = (
    (Word("Give me {a}.", "{ko} 줘."), Word("Could you please give me {a}?", "{ko:을/를} 주시겠어요?")),
    (Word("Bring me {a}.", "{ko} 가져와."), Word("Could you please bring me {a}?", "{ko:을/를} 가져와 주시겠어요?")),
    (Word("Show me {a}.", "{ko} 보여 줘."), Word("Would you please show me {a}?", "{ko:을/를} 보여 주시겠어요?")),
    (Word("Buy me {a}.", "{ko} 사 줘."), Word("Would you please buy me {a}?", "{ko:을/를} 사 주시겠어요?")),
    (Word("Look at {a}.", "{ko} 봐."), Word("Please look at {a}.", "{ko:을/를} 봐 주세요.")),
    (Word("Draw {a}.", "{ko} 그려."), Word("Please draw {a}.", "{ko:을/를} 그려 주세요.")),
    (Word("Find {a}.", "{ko} 찾아."), Word("Please find {a}.", "{ko:을/를} 찾아 주세요.")),
)


def _draw_polite(rng: random.Random, side: int) -> Draft:
    thing = _phrase(rng, OBJECTS) if rng.random() < 0.5 else rng.choice(OBJECTS)
    blunt, polite = rng.choice(_BLUNT)
    slots = {"a": with_article(thing.en), "ko": Hangul(thing.ko)}
    said, good = blunt[side].format_map(slots), polite[side].format_map(slots)
    rude = (f"{said} Now!", f"{said} Be quick!") if side == ENGLISH else (f"빨리 {said}", f"야, {said}")
    check = Check("polite", (thing[side],), most_words=12)
    return rng.choice(_POLITE[side]).format(x=said), good, (said, *rude), check


_TRANSLATE = (  # by the language of the request, then of the text
    (
        ("Translate into Korean: {x}", "How do you say this in Korean? {x}", "What is '{x}' in Korean?"),
        ("Translate into English: {x}", "How do you say this in English? {x}", "What is '{x}' in English?"),
    ),
    (
        ("한국어로 번역하세요: {x}", "다음을 한국어로 말해 주세요: {x}", "다음을 한국어로 옮겨 줘: {x}"),
        ("영어로 번역하세요: {x}", "다음을 영어로 말해 주세요: {x}", "영어로 옮겨 줘: {x}"),
    ),
)


def _draw_translate(rng: random.Random, side: int) -> Draft:
    source = rng.choice((ENGLISH, KOREAN))
    text, near = _bilingual(rng)
    right, given = text[1 - source], text[source]
    request = rng.choice(_TRANSLATE[side][source]).format(x=given)
    wrong = [word for word in (near[1 - source], given, rng.choice(NOUNS)[1 - source]) if word.lower() != right.lower()]
    return request, right, wrong, Check("exact", (right.rstrip("."),), most_words=12)


def _bilingual(rng: random.Random) -> tuple[Word, Word]:
    """A word, phrase or short sentence in both languages, and another one like it."""
    draw = rng.random()
    if draw < 0.3:
        one, other = rng.sample(NOUNS, 2)
        return one, other
    if draw < 0.6:
        return _phrase(rng), _phrase(rng)
    if draw < 0.8:
        return _went(rng), _went(rng)
    return _likes(rng), _likes(rng)


def _went(rng: random.Random) -> Word:
    person, place = rng.choice(PEOPLE), rng.choice(PLACES)
    return Word(f"{person.en} went to the {place.en}.", f"{person.ko:은/는} {place.ko}에 갔어요.")


def _likes(rng: random.Random) -> Word:
    person, thing = rng.choice(PEOPLE), rng.choice(OBJECTS)
    return Word(f"{person.en} likes {plural(thing.en)}.", f"{person.ko:은/는} {thing.ko:을/를} 좋아해요.")


_COUNT = (
    ("How many words are in this sentence? {x}", "Count the words: {x}", "Count the words in this sentence: {x}"),
    ("다음 문장은 몇 어절인가요? {x}", "어절의 수를 세어 주세요: {x}", "이 문장의 어절은 몇 개야? {x}"),
)
MOST_WORDS = 20
"""No sentence to count is longer."""
_COUNTED = (("{n}", "There are {n} words."), ("{n}", "{n}어절이에요."))


def _draw_count(rng: random.Random, side: int) -> Draft:
    sentence = _long_sentence(rng)[side]
    n = len(sentence.split())
    request = rng.choice(_COUNT[side]).format(x=sentence)
    wrong = [rng.choice(_COUNTED[side]).format(n=n + error) for error in (-1, 1, 2)]
    expected = (str(n),) if side == ENGLISH else (str(n), f"{n}어절", f"{n}개")
    others = [str(other) for other in range(1, MOST_WORDS + 1) if other != n]
    forbidden = (*others, *(f"{other}{unit}" for other in others for unit in ("어절", "개") if side != ENGLISH))
    check = Check("contains", expected, forbidden, most_words=8)
    return request, rng.choice(_COUNTED[side]).format(n=n), wrong, check


def _long_sentence(rng: random.Random) -> Word:
    draw = rng.random()
    if draw < 0.4:
        return rng.choice(FACTS).sentence
    (person, friend), place = rng.sample(PEOPLE, 2), rng.choice(PLACES)
    act = rng.choice(place.activities)
    if draw < 0.7:
        return Word(
            f"{person.en} {act.past} at the {place.en} with {friend.en}.",
            f"{person.ko:은/는} {friend.ko:과/와} 함께 {place.ko}에서 {act.past_ko}어요.",
        )
    thing = _phrase(rng)
    return Word(
        f"{person.en} saw {with_article(thing.en)} at the {place.en}.",
        f"{person.ko:은/는} {place.ko}에서 {thing.ko:을/를} 보았어요.",
    )


_ODD = (
    ("Which word does not belong: {x}?", "Pick the odd one out: {x}", "Find the word that is different: {x}"),
    (
        "다음 가운데 종류가 다른 것은 무엇인가요? {x}",
        "나머지와 다른 하나를 고르세요: {x}",
        "종류가 다른 낱말을 골라 줘: {x}",
    ),
)
_BECAUSE = ("It is {odd}. The others are {plural}.", "{odd:이에요/예요}. 나머지는 {ko:이에요/예요}.")


def _draw_odd(rng: random.Random, side: int) -> Draft:
    category, other = rng.sample(CATEGORIES, 2)
    same = [word[side] for word in rng.sample(category.members, 3)]
    odd = rng.choice(other.members)[side]
    words = [*same, odd]
    rng.shuffle(words)
    slots = {"odd": odd, "plural": category.plural, "ko": category.ko}
    good = odd if rng.random() < 0.6 else _BECAUSE[side].format_map(slots)
    check = Check("contains", (odd,), forbidden=tuple(same), most_words=10)
    return rng.choice(_ODD[side]).format(x=", ".join(words)), good, same, check


def _safe_wrong(sentence: str, wrong: Sequence[str]) -> tuple[str, ...]:
    """The wrong answers that the right sentence does not happen to contain ("Tuesday comes after Monday.")."""
    tokens = _tokens(sentence)
    return tuple(word for word in wrong if not _occurs(word, tokens))


_FORBIDDEN = {
    fact: tuple(
        _safe_wrong(f"{fact.sentence[side]} {fact.answer[side]}", [word[side] for word in fact.wrong])
        for side in (ENGLISH, KOREAN)
    )
    for fact in FACTS
}


def _draw_fact(rng: random.Random, side: int) -> Draft:
    fact = rng.choice(FACTS)
    question = rng.choice(fact.questions[side])
    if side == KOREAN and rng.random() < 0.3:
        question = casual(question)
    good = fact.sentence[side] if rng.random() < 0.6 else fact.answer[side]
    forbidden = _FORBIDDEN[fact][side]
    wrong = (rng.choice(fact.mistakes)[side], rng.choice(fact.wrong)[side], fact.sentence[1 - side])
    return question, good, wrong, Check("contains", (fact.answer[side],), forbidden, most_words=14)


_TRUE = (
    ("True or false? {x}", "Is this true or false? {x}", "Say true or false: {x}"),
    ("맞으면 '네', 틀리면 '아니요'라고 답하세요. {x}", "이 말이 맞나요? {x}", "이 문장이 맞는지 말해 줘. {x}"),
)
_VERDICTS = (("False", "True"), ("아니요", "네"))


def _draw_true(rng: random.Random, side: int) -> Draft:
    fact = rng.choice(FACTS)
    true = rng.random() < 0.5
    claim = fact.sentence[side] if true else rng.choice(fact.mistakes)[side]
    verdict, opposite = _VERDICTS[side][true], _VERDICTS[side][not true]
    good = f"{verdict}." if rng.random() < 0.4 else f"{verdict}. {fact.sentence[side]}"
    check = Check("starts", (verdict,), forbidden=(opposite,), most_words=12)
    return rng.choice(_TRUE[side]).format(x=claim), good, (f"{opposite}.", f"{opposite}. {claim}"), check


_WHO = (
    (
        "Who are you?",
        "Please introduce yourself.",
        "What is your name?",
        "What are you?",
        "Can you introduce yourself?",
        "Are you a human?",
    ),
    (
        "당신은 누구예요?",
        "자기소개를 해 주세요.",
        "너는 누구야?",
        "너는 사람이야?",
        "이름이 뭐예요?",
        "자기소개를 해 줘.",
    ),
)
_SELF = (
    (
        "I am a small assistant.",
        "I am a small assistant, not a human.",
        "I am an assistant without a name.",
        "I am your assistant.",
        "I am a small assistant made of numbers.",
    ),
    (
        "저는 작은 도우미예요.",
        "저는 사람이 아니라 작은 도우미예요.",
        "저는 이름이 없는 도우미예요.",
        "저는 당신의 도우미예요.",
        "저는 숫자로 만든 작은 도우미예요.",
    ),
)
_SKILLS = (
    (
        "I can solve math problems.",
        "I can answer simple questions.",
        "I can translate short sentences.",
        "I can sort words and numbers.",
        "Ask me a question.",
        "How can I help you?",
        "I like to help people.",
    ),
    (
        "저는 수학 문제를 풀 수 있어요.",
        "저는 쉬운 질문에 답할 수 있어요.",
        "저는 짧은 문장을 번역할 수 있어요.",
        "저는 낱말과 수를 정렬할 수 있어요.",
        "질문해 주세요.",
        "무엇을 도와드릴까요?",
        "저는 사람을 돕는 것을 좋아해요.",
    ),
)
_BOASTS = (
    ("I am {name}. I am a human.", "My name is {name} and I know everything.", "I will not tell you."),
    ("나는 {name}. 사람이야.", "내 이름은 {name}. 나는 다 알아.", "알려 주지 않을 거야."),
)


def _draw_introduction(rng: random.Random, side: int) -> Draft:
    good = f"{rng.choice(_SELF[side])} {' '.join(rng.sample(_SKILLS[side], rng.randint(1, 2)))}"
    wrong = [boast.format(name=rng.choice(PEOPLE)[side]) for boast in _BOASTS[side]]
    return rng.choice(_WHO[side]), good, wrong, Check("contains", (("assistant",), ("도우미",))[side], most_words=30)


_HELLO = (
    ("Hello, I am {name}.", "Hi! My name is {name}.", "Good morning. I am {name}.", "Hello there, this is {name}."),
    (
        "안녕하세요, 저는 {name:이에요/예요}.",
        "안녕! 나는 {name:이야/야}.",
        "좋은 아침이에요. 저는 {name:이에요/예요}.",
        "반가워요, {name:이라고/라고} 해요.",
    ),
)
_WELCOME = (
    ("Hello, {name}! How can I help you?", "Hi, {name}! Nice to meet you.", "Hello, {name}! What can I do for you?"),
    (
        "안녕하세요, {name} 씨! 무엇을 도와드릴까요?",
        "반가워요, {name} 씨! 무엇이 궁금하세요?",
        "안녕하세요, {name} 씨! 만나서 반가워요.",
    ),
)


def _draw_greeting(rng: random.Random, side: int) -> Draft:
    person, other = rng.sample(PEOPLE, 2)
    name = person[side]
    good, wrong = rng.choice(_WELCOME[side]).format(name=name), rng.choice(_WELCOME[side]).format(name=other[side])
    others = tuple(one[side] for one in PEOPLE if one is not person)
    check = Check("contains", (name,), forbidden=others, most_words=14)
    return rng.choice(_HELLO[side]).format(name=name), good, (wrong,), check


_KINDS: dict[str, Callable[[random.Random, int], Draft]] = {
    "list": _draw_list,
    "sort_words": _draw_sort_words,
    "sort_numbers": _draw_sort_numbers,
    "capitals": _draw_capitals,
    "reverse": _draw_reverse,
    "repeat": _draw_repeat,
    "polite": _draw_polite,
    "translate": _draw_translate,
    "count": _draw_count,
    "odd_one_out": _draw_odd,
    "fact": _draw_fact,
    "true_or_false": _draw_true,
    "introduction": _draw_introduction,
    "greeting": _draw_greeting,
}
INSTRUCTION_KINDS = tuple(_KINDS)
_WEIGHTED = INSTRUCTION_KINDS[:-2] * 2 + INSTRUCTION_KINDS[-2:]
"""Introductions and greetings have few wordings, so they come half as often."""

NO_IDEA = (
    ("I do not know.", "I am not sure.", "Maybe later.", "Yes."),
    ("잘 모르겠어요.", "글쎄요.", "나중에요.", "그래요."),
)


def draw_instruction(rng: random.Random, kind: str | None = None, language: str | None = None) -> Instruction:
    """An instruction with a good and a bad answer, of any kind and language unless they are given.

    Raises ValueError for a kind not in INSTRUCTION_KINDS or a language other than "en" and "ko".
    """
    kind = kind or rng.choice(_WEIGHTED)
    if kind not in _KINDS or language not in (None, *LANGUAGES):
        raise ValueError(
            f"unknown kind {kind!r} or language {language!r}: expected {INSTRUCTION_KINDS} and {LANGUAGES}"
        )
    side = LANGUAGES.index(language) if language else draw_side(rng)
    request, good, wrong, check = _KINDS[kind](rng, side)
    bad = _failure(rng, wrong, side, check)
    answer = _language_of(good) if kind in ("translate", "capitals") else LANGUAGES[side]
    return Instruction(kind, LANGUAGES[side], request, good, bad, check, answer, tuple(wrong))


def _failure(rng: random.Random, wrong: Sequence[str], side: int, check: Check) -> str:
    """A bad answer: wrong, none at all, off topic or rude."""
    draw = rng.random()
    if draw < 0.6:
        return rng.choice(wrong)
    stray = rng.choice(OFF_TOPIC if draw < 0.75 else RUDE_REPLIES)[side]
    if draw > 0.9 or passes(check, stray):  # an off-topic sentence may happen to name the odd one out
        return rng.choice(NO_IDEA[side])
    return stray


def _language_of(text: str) -> str:
    return "en" if text.isascii() else "ko"


def draw(rng: random.Random) -> str:
    """One to four instructions with their answers, 85 % of them good, between two speakers."""
    language = LANGUAGES[draw_side(rng)]
    asker, answerer = rng.choice(SPEAKERS[LANGUAGES.index(language)])
    turns, length = [], 0
    while length < 20:
        one = draw_instruction(rng, language=language)
        answer = one.good if rng.random() < GOOD_SHARE else one.bad
        turns.append(f"{asker}: {one.request}\n{answerer}: {answer}")
        length += turns[-1].count(" ") + 2
    return "\n".join(turns)


KINDS: dict[str, Callable[[random.Random], str]] = {"instruction": draw}
"""Document kinds of this module and their generators."""
