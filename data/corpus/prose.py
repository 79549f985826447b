"""Small stories, descriptions and paragraphs of facts about the closed world, in English and Korean.

Each text is a script: lines with the same sentence in English and Korean, filled from one set of choices, so the end
of a story fits its beginning. Questions about it may follow, with their answers. The facts are the vocabulary's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from data.corpus.vocabulary import (
    ADJECTIVES,
    ANIMALS,
    BELONGINGS,
    COLORS,
    COUNTRIES,
    DAYS,
    ENGLISH,
    FACTS,
    FACTS_ABOUT,
    FRUITS,
    JOBS,
    KOREAN,
    PARTS_OF_DAY,
    PEOPLE,
    PLACES,
    SEASONS,
    VEGETABLES,
    Fact,
    Hangul,
    Word,
    capital,
    count_of,
    draw_side,
    plural,
    with_article,
    words,
)

MIXED_SHARE = 0.04
"""Share of texts told in both languages, sentence by sentence."""

QUIZ_SHARE = 0.35
"""Share of texts with a question behind them."""

PLAIN = 2
"""The third column of a script: Korean in the written style (갔다). KOREAN is the polite one (갔어요)."""

Slots = dict[str, Any]
Columns = tuple[str, str, str]
"""A sentence in English, polite Korean and plain Korean, with slots to fill."""


class Script(NamedTuple):
    """Lines (optional or not), questions with answers, what slots are drawn from, slots that follow from others."""

    lines: tuple[tuple[bool, Columns], ...]
    quiz: tuple[tuple[Columns, Columns], ...]
    pools: Mapping[str, Sequence]
    derive: Callable[[random.Random, Slots], Slots]


def _script(
    text: str, derive: Callable[[random.Random, Slots], Slots] = lambda rng, slots: {}, **pools: Sequence
) -> Script:
    """Read a script. A line is "English | Korean" or "English | polite | plain"; "? " marks one that may be left out.

    "Q: question = answer | question = answer" is a question. Korean past tenses end in {end}: 다 or 어요. A line that
    starts with "| " belongs to the one before.
    """
    lines, quiz = [], []
    for line in text.strip().replace("\n| ", " | ").splitlines():
        if line.startswith("Q: "):
            question, answer = zip(*(part.split(" = ") for part in line[3:].split(" | ")))
            quiz.append((_columns(question), _columns(answer)))
        else:
            lines.append((line.startswith("? "), _columns(line.removeprefix("? ").split(" | "))))
    return Script(tuple(lines), tuple(quiz), pools, derive)


def _columns(parts: Sequence[str]) -> Columns:
    english, polite, *plain = (part.strip() for part in parts)
    return english, polite, plain[0] if plain else polite


# --- What every script may use ----------------------------------------------------------------------------------------

_WHEN = (
    *(Word(f"On {day.en} {part.en}", f"{day.ko} {part.ko}에") for day in DAYS for part in PARTS_OF_DAY),
    *(Word(f"One day in {season.en}", f"어느 {season.ko}날") for season in SEASONS for _ in range(3)),
    *words("One day:어느 날, Yesterday:어제, Last week:지난주에"),
)
_SKIES = words(
    "It was sunny.:날씨가 맑았, It was warm.:날씨가 따뜻했, It was cool.:날씨가 시원했, It was windy.:바람이 불었,"
    "It was cloudy.:날씨가 흐렸"
)
_GOOD_FEELINGS = words("happy:기뻐했, very happy:아주 기뻐했, glad:즐거워했")
_BAD_FEELINGS = words("sad:슬퍼했, very sad:아주 슬퍼했, worried:걱정했")
_THANKS = (
    Word("Thank you.", "고마워."),
    Word("Thank you, my friend.", "고마워, 친구야."),
    Word("You are very kind.", "너는 참 친절해."),
)


def common_slots(rng: random.Random, end: str = "") -> Slots:
    """People, a place with something to do there, time, weather, feelings; `end` closes Korean past tenses."""
    hero, friend, third = rng.sample(PEOPLE, 3)
    place = rng.choice(PLACES)
    return {
        "hero": hero,
        "friend": friend,
        "third": third,
        "place": place,
        "act": rng.choice(place.activities),
        "when": rng.choice(_WHEN),
        "sky": rng.choice(_SKIES),
        "good": rng.choice(_GOOD_FEELINGS),
        "bad": rng.choice(_BAD_FEELINGS),
        "thanks": rng.choice(_THANKS),
        "end": end,
    }


# --- Stories ----------------------------------------------------------------------------------------------------------

_OPENING = """
{when.en}, {hero.en} went to the {place.en}. | {when.ko} {hero.ko:은/는} {place.ko}에 갔{end}.
? {sky.en} | {sky.ko}{end}.
? {hero.He} wanted to {act.en}. | {hero.ko:은/는} {act.ko}고 싶어 했{end}.
Q: Where did {hero.en} go? = to the {place.en} | {hero.ko:은/는} 어디에 갔나요? = {place.ko}
"""
_SPOTS = words(
    "under a tree:나무 아래, under a chair:의자 아래, on a chair:의자 위, behind a door:문 뒤, near a door:문 옆,"
    "in the grass:풀밭"
)
_LOST = _script(
    _OPENING
    + """But {hero.he} lost {hero.his} {thing.en}. | 그런데 {hero.ko:은/는} {thing.ko:을/를} 잃어버렸{end}.
? {hero.en} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
{friend.en} asked, "What is wrong?" | {friend.ko:이/가} "무슨 일이야?" 하고 물었{end}.
{hero.en} said, "I lost my {thing.en}." | {hero.ko:은/는} "{thing.ko:을/를} 잃어버렸어." 하고 말했{end}.
{friend.en} found the {thing.en} {spot.en}. | {friend.ko:은/는} {spot.ko}에서 {thing.ko:을/를} 찾았{end}.
{hero.en} said, "{thanks.en}" | {hero.ko:은/는} "{thanks.ko}" 하고 말했{end}.
? They went home together. | 두 사람은 함께 집에 갔{end}.
Q: What did {hero.en} lose? = {hero.his} {thing.en} | {hero.ko:은/는} 무엇을 잃어버렸나요? = {thing.ko}
Q: Who found the {thing.en}? = {friend.en} | 누가 {thing.ko:을/를} 찾았나요? = {friend.ko}
Q: Where was the {thing.en}? = {spot.en} | {thing.ko:은/는} 어디에 있었나요? = {spot.ko}""",
    thing=BELONGINGS,
    spot=_SPOTS,
)

_TAME_NAMES = {"cat", "dog", "cow", "horse", "pig", "hen", "duck", "sheep", "bird", "goat"}
_TAME = tuple(animal for animal in ANIMALS if animal.en in _TAME_NAMES)
_HUNGRY_ANIMAL = _script(
    _OPENING
    + """There {hero.he} saw a {look.en} {animal.en}. | 그곳에서 {hero.ko:은/는} {look.ko} {animal.ko:을/를} 보았{end}.
The {animal.en} was hungry. | {animal.ko:은/는} 배가 고팠{end}.
{hero.en} gave {animal.food.en} to the {animal.en}. | {hero.ko:은/는} {animal.ko}에게 {animal.food.ko:을/를} 주었{end}.
? The {animal.en} was {good.en}. | {animal.ko:은/는} {good.ko}{end}.
The {animal.en} said, "{animal.sound.en}!" | {animal.ko:이/가} "{animal.sound.ko}!" 하고 울었{end}.
? The next day {hero.en} met the {animal.en} again. | 다음 날 {hero.ko:은/는} {animal.ko:을/를} 다시 만났{end}.
They were good friends. | 둘은 좋은 친구가 되었{end}.
Q: What animal did {hero.en} see? = a {look.en} {animal.en}
| {hero.ko:은/는} 어떤 동물을 보았나요? = {look.ko} {animal.ko}
Q: What did the {animal.en} eat? = {animal.food.en} | {animal.ko:은/는} 무엇을 먹었나요? = {animal.food.ko}""",
    animal=_TAME,
    look=words("small:작은, white:하얀, black:검은, cute:귀여운, big:큰"),
)

_RAIN = _script(
    """
{when.en}, {hero.en} went to the {place.en}. | {when.ko} {hero.ko:은/는} {place.ko}에 갔{end}.
Then it began to rain. | 그런데 비가 오기 시작했{end}.
{hero.en} had no umbrella. | {hero.ko}에게는 우산이 없었{end}.
? {hero.He} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
{friend.en} came with {color} umbrella. | {friend.ko:이/가} {look.before_noun} 우산을 가지고 왔{end}.
{friend.en} said, "Come with me." | {friend.ko:은/는} "나와 같이 가자." 하고 말했{end}.
They went home under the umbrella. | 두 사람은 우산을 함께 쓰고 집에 갔{end}.
{hero.en} said, "{thanks.en}" | {hero.ko:은/는} "{thanks.ko}" 하고 말했{end}.
Q: Who had an umbrella? = {friend.en} | 누구에게 우산이 있었나요? = {friend.ko}
Q: What color was the umbrella? = {look.en} | 우산은 무슨 색이었나요? = {look.ko}
Q: Where did {hero.en} go? = to the {place.en} | {hero.ko:은/는} 어디에 갔나요? = {place.ko}""",
    lambda rng, slots: {"color": with_article(slots["look"].en)},
    look=COLORS,
)

_COUNTED = tuple(item for item in FRUITS + VEGETABLES if item.en not in ("grape", "corn", "cabbage"))


def _purchase(rng: random.Random, slots: Slots) -> Slots:
    """How many were bought, given away and left, with their English nouns."""
    item, other = rng.sample(_COUNTED, 2)
    bought, others = rng.randint(2, 9), rng.randint(1, 9)
    given = rng.randint(1, bought - 1)
    counts = {name: count_of(n, item.en) for name, n in (("buys", bought), ("gives", given), ("keeps", bought - given))}
    return {
        "item": item,
        "items": plural(item.en),
        "other": other,
        "more": count_of(others, other.en),
        "bought": bought,
        "others": others,
        "given": given,
        "left": bought - given,
        **counts,
    }


_SHOPPING = _script(
    """
{when.en}, {hero.en} went to the market. | {when.ko} {hero.ko:은/는} 시장에 갔{end}.
? {sky.en} | {sky.ko}{end}.
{hero.He} bought {buys} and {more}. | {hero.ko:은/는} {item.ko} {bought}개와 {other.ko} {others}개를 샀{end}.
On the way home {hero.he} met {friend.en}. | 집에 가는 길에 {friend.ko:을/를} 만났{end}.
{hero.en} gave {friend.him} {gives}. | {hero.ko:은/는} {friend.ko}에게 {item.ko} {given}개를 주었{end}.
{friend.en} said, "{thanks.en}" | {friend.ko:은/는} "{thanks.ko}" 하고 말했{end}.
Then {hero.en} had {keeps}. | 이제 {hero.ko}에게는 {item.ko:이/가} {left}개 있었{end}.
Q: How many {items} did {hero.en} buy? = {bought} | {hero.ko:은/는} {item.ko:을/를} 몇 개 샀나요? = {bought}개
Q: How many {items} did {friend.en} get? = {given} | {friend.ko:은/는} {item.ko:을/를} 몇 개 받았나요? = {given}개
Q: How many {items} did {hero.en} have then? = {left} | {item.ko:이/가} 몇 개 남았나요? = {left}개""",
    _purchase,
)


def _present(rng: random.Random, slots: Slots) -> Slots:
    thing, look = rng.choice(BELONGINGS), rng.choice(ADJECTIVES)
    return {"present": Word(with_article(f"{look.en} {thing.en}"), Hangul(f"{look.ko} {thing.ko}"))}


_BIRTHDAY = _script(
    """
{day.en} was {friend.en}'s birthday. | {day.ko}은 {friend.ko}의 생일이었{end}.
{hero.en} wanted to give {friend.him} a present. | {hero.ko:은/는} {friend.ko}에게 선물을 주고 싶어 했{end}.
So {hero.he} bought {present.en}. | 그래서 {present.ko:을/를} 샀{end}.
They met at the {place.en}. | 두 사람은 {place.ko}에서 만났{end}.
{hero.en} said, "Happy birthday!" | {hero.ko:은/는} "생일 축하해!" 하고 말했{end}.
? {friend.en} was {good.en}. | {friend.ko:은/는} {good.ko}{end}.
{friend.en} said, "{thanks.en}" | {friend.ko:은/는} "{thanks.ko}" 하고 말했{end}.
Then they {act.past} and ate cake. | 그리고 두 사람은 {act.ko}고 케이크를 먹었{end}.
Q: Whose birthday was it? = {friend.en}'s | 누구의 생일이었나요? = {friend.ko}의 생일
Q: When was the birthday? = on {day.en} | 생일은 무슨 요일이었나요? = {day.ko}
Q: What did {hero.en} buy? = {present.en} | {hero.ko:은/는} 무엇을 샀나요? = {present.ko}
Q: Where did they meet? = at the {place.en} | 두 사람은 어디에서 만났나요? = {place.ko}""",
    _present,
    day=DAYS,
)


def _two_days(rng: random.Random, slots: Slots) -> Slots:
    first, second = sorted(rng.sample(range(5), 2))
    fruit = rng.choice(FRUITS)
    return {"day": DAYS[first], "later": DAYS[second], "fruit": fruit, "fruits": plural(fruit.en)}


_SICK_FRIEND = _script(
    """
On {day.en} {friend.en} did not come to school. | {day.ko}에 {friend.ko:은/는} 학교에 오지 않았{end}.
{friend.He} was sick. | {friend.ko:은/는} 아팠{end}.
? {hero.en} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
After school {hero.en} went to {friend.his} house. | 학교가 끝나고 {hero.ko:은/는} {friend.ko}의 집에 갔{end}.
{hero.He} gave {friend.him} {fruits}. | {hero.ko:은/는} {friend.ko}에게 {fruit.ko:을/를} 주었{end}.
? Then {hero.he} read a book to {friend.him}. | 그리고 책을 읽어 주었{end}.
{friend.en} said, "{thanks.en}" | {friend.ko:은/는} "{thanks.ko}" 하고 말했{end}.
On {later.en} {friend.en} was well again. | {later.ko}에 {friend.ko:은/는} 다 나았{end}.
{friend.He} came to school with {hero.en}. | {friend.ko:은/는} {hero.ko:과/와} 함께 학교에 왔{end}.
Q: Why was {friend.en} not at school? = because {friend.he} was sick
| {friend.ko:은/는} 왜 학교에 오지 않았나요? = 아파서
Q: What did {hero.en} give to {friend.en}? = {fruits} | {hero.ko:은/는} 무엇을 주었나요? = {fruit.ko}
Q: When was {friend.en} well again? = on {later.en} | {friend.ko:은/는} 언제 다 나았나요? = {later.ko}""",
    _two_days,
)

_MEALS = words("noodles:국수, rice:밥, soup:수프, cake:케이크, bread:빵, meat:고기")
_TRIP = _script(
    """
Last {season.en} {hero.en} went to {country.capital.en}.
| 지난{season.ko}에 {hero.ko:은/는} {country.capital.ko}에 갔{end}.
It is the capital of {country.en}.
| {country.capital.ko:은/는} {country.ko}의 수도예요.
| {country.capital.ko:은/는} {country.ko}의 수도이다.
{hero.He} went there by {ride.en}. | {hero.ko:은/는} {ride.ko:을/를} 타고 갔{end}.
? {sky.en} | {sky.ko}{end}.
{hero.He} saw a big {sight.en} and ate {meal.en}. | {hero.ko:은/는} 큰 {sight.ko:을/를} 보고 {meal.ko:을/를} 먹었{end}.
? {hero.He} wrote a letter to {friend.en}. | {hero.ko:은/는} {friend.ko}에게 편지를 썼{end}.
On {day.en} {hero.he} came home. | {day.ko}에 {hero.ko:은/는} 집에 돌아왔{end}.
{hero.en} was {good.en}. | {hero.ko:은/는} {good.ko}{end}.
Q: How did {hero.en} go there? = by {ride.en} | {hero.ko:은/는} 무엇을 타고 갔나요? = {ride.ko}
Q: Which country was {hero.en} in? = {country.en} | {hero.ko:은/는} 어느 나라에 갔나요? = {country.ko}
Q: What did {hero.en} eat? = {meal.en} | {hero.ko:은/는} 무엇을 먹었나요? = {meal.ko}
Q: When did {hero.en} come home? = on {day.en} | {hero.ko:은/는} 언제 돌아왔나요? = {day.ko}""",
    country=COUNTRIES,
    season=SEASONS,
    ride=words("train:기차, bus:버스, plane:비행기, car:자동차, boat:배"),
    sight=words("museum:박물관, zoo:동물원, market:시장, river:강, park:공원"),
    meal=_MEALS,
    day=DAYS,
)

_RACE = _script(
    """
{when.en}, {hero.en} and {friend.en} had a race. | {when.ko} {hero.ko:과/와} {friend.ko:은/는} 시합을 했{end}.
The race was at the {place.en}. | 시합은 {place.ko}에서 했{end}.
{hero.en} was fast, but {friend.en} was faster. | {hero.ko:은/는} 빨랐지만 {friend.ko:이/가} 더 빨랐{end}.
{friend.en} won the race. | {friend.ko:이/가} 시합에서 이겼{end}.
? {hero.en} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
After that {hero.en} {run.en} every morning. | 그 뒤로 {hero.ko:은/는} 매일 아침 {run.ko}{end}.
{later.en} they had a race again. | {later.ko} 두 사람은 다시 시합을 했{end}.
This time {hero.en} won. | 이번에는 {hero.ko:이/가} 이겼{end}.
Q: Who won the first race? = {friend.en} | 첫 번째 시합에서는 누가 이겼나요? = {friend.ko}
Q: Who won the second race? = {hero.en} | 두 번째 시합에서는 누가 이겼나요? = {hero.ko}
Q: Where was the race? = at the {place.en} | 시합은 어디에서 했나요? = {place.ko}""",
    run=words("ran:달렸, swam:수영을 했, rode a bicycle:자전거를 탔"),
    later=words("One week later:일주일 뒤에, One month later:한 달 뒤에, One year later:일 년 뒤에"),
)

_BROKEN = _script(
    """
{when.en}, {friend.en} lent {hero.en} {friend.his} {thing.en}.
| {when.ko} {friend.ko:은/는} {hero.ko}에게 {thing.ko:을/를} 빌려주었{end}.
{hero.en} took it to the {place.en}. | {hero.ko:은/는} 그것을 {place.ko}에 가져갔{end}.
There {hero.he} {act.past}. | 그곳에서 {act.past_ko}{end}.
But the {thing.en} broke. | 그런데 {thing.ko:이/가} 망가졌{end}.
{hero.en} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
{hero.He} said to {friend.en}, "I am sorry." | {hero.ko:은/는} {friend.ko}에게 "미안해." 하고 말했{end}.
{friend.en} said, "It is all right." | {friend.ko:은/는} "괜찮아." 하고 말했{end}.
? {hero.en} bought a new {thing.en} for {friend.him}.
| {hero.ko:은/는} {friend.ko}에게 새 {thing.ko:을/를} 사 주었{end}.
Q: What broke? = the {thing.en} | 무엇이 망가졌나요? = {thing.ko}
Q: Whose {thing.en} was it? = {friend.en}'s | 누구의 {thing.ko:이었/였}나요? = {friend.ko}의 {thing.ko}
Q: Who said sorry? = {hero.en} | 누가 미안하다고 했나요? = {hero.ko}""",
    thing=words("camera:사진기, umbrella:우산, watch:손목시계, doll:인형, kite:연, phone:전화기, pen:펜"),
)


def _three_days(rng: random.Random, slots: Slots) -> Slots:
    """Three days in a row, each with a place and something to do there."""
    first, places = rng.randrange(5), rng.sample(PLACES, 3)
    acts = [rng.choice(place.activities) for place in places]
    asked = rng.randrange(3)
    return {
        **{f"day{n}": DAYS[first + n] for n in range(3)},
        **{f"place{n}": place for n, place in enumerate(places)},
        **{f"act{n}": act for n, act in enumerate(acts)},
        "day": DAYS[first + asked],
        "there": places[asked],
        "did": acts[asked],
    }


_WEEK = _script(
    """
Last week {hero.en} was busy. | 지난주에 {hero.ko:은/는} 바빴{end}.
On {day0.en} {hero.he} {act0.past} at the {place0.en}. | {day0.ko}에는 {place0.ko}에서 {act0.past_ko}{end}.
On {day1.en} {hero.he} {act1.past} at the {place1.en}. | {day1.ko}에는 {place1.ko}에서 {act1.past_ko}{end}.
On {day2.en} {hero.he} {act2.past} at the {place2.en}. | {day2.ko}에는 {place2.ko}에서 {act2.past_ko}{end}.
? {friend.en} went with {hero.him}. | {friend.ko:이/가} 함께 갔{end}.
? After that {hero.he} slept for a long time. | 그 뒤에 {hero.ko:은/는} 오래 잤{end}.
{hero.en} was {good.en}. | {hero.ko:은/는} {good.ko}{end}.
Q: Where was {hero.en} on {day.en}? = at the {there.en} | {day.ko}에 {hero.ko:은/는} 어디에 있었나요? = {there.ko}
Q: When was {hero.en} at the {there.en}? = on {day.en} | {hero.ko:은/는} 언제 {there.ko}에 있었나요? = {day.ko}""",
    _three_days,
)


def _dish(rng: random.Random, slots: Slots) -> Slots:
    dish, parts = rng.choice(((Word("soup", "수프"), VEGETABLES), (Word("juice", "주스"), FRUITS)))
    had, missing = rng.sample(parts, 2)
    return {
        "dish": Word(dish.en, Hangul(dish.ko)),
        "had": had,
        "missing": missing,
        "haves": plural(had.en),
        "needs": plural(missing.en),
    }


_COOKING = _script(
    """
{when.en}, {hero.en} wanted to make {dish.en}. | {when.ko} {hero.ko:은/는} {dish.ko:을/를} 만들고 싶어 했{end}.
{hero.He} had {haves}, but {hero.he} had no {needs}. | {had.ko:은/는} 있었지만 {missing.ko:은/는} 없었{end}.
? {hero.en} was {bad.en}. | {hero.ko:은/는} {bad.ko}{end}.
So {hero.he} called {friend.en}. | 그래서 {friend.ko}에게 전화했{end}.
{friend.en} came with {needs}. | {friend.ko:은/는} {missing.ko:을/를} 가지고 왔{end}.
{hero.en} said, "{thanks.en}" | {hero.ko:은/는} "{thanks.ko}" 하고 말했{end}.
They made {dish.en} together. | 두 사람은 함께 {dish.ko:을/를} 만들었{end}.
The {dish.en} was very good. | {dish.ko:은/는} 아주 맛있었{end}.
Q: What did they make? = {dish.en} | 두 사람은 무엇을 만들었나요? = {dish.ko}
Q: What did {friend.en} bring? = {needs} | {friend.ko:은/는} 무엇을 가지고 왔나요? = {missing.ko}
Q: Who helped {hero.en}? = {friend.en} | 누가 {hero.ko:을/를} 도왔나요? = {friend.ko}""",
    _dish,
)

STORIES = (_LOST, _HUNGRY_ANIMAL, _RAIN, _SHOPPING, _BIRTHDAY, _SICK_FRIEND, _TRIP, _RACE, _BROKEN, _WEEK, _COOKING)

# --- Descriptions -----------------------------------------------------------------------------------------------------


def _articles(rng: random.Random, slots: Slots) -> Slots:
    return {f"a_{name}": with_article(slots[name].en) for name in ("animal", "job", "dream")}


_PERSON = _script(
    """
{hero.en} is {age} years old. | {hero.ko:은/는} {age}살이에요. | {hero.ko:은/는} {age}살이다.
{hero.He} lives in {country.capital.en}, the capital of {country.en}.
| {country.ko}의 수도 {country.capital.ko}에 살아요.
| {country.ko}의 수도 {country.capital.ko}에 산다.
{hero.He} has {a_animal}. | {hero.ko:은/는} {animal.ko:을/를} 키워요. | {hero.ko:은/는} {animal.ko:을/를} 키운다.
The {animal.en} likes {animal.food.en}.
| {animal.ko:은/는} {animal.food.ko:을/를} 좋아해요.
| {animal.ko:은/는} {animal.food.ko:을/를} 좋아한다.
? {hero.en}'s mother is {a_job} and works {job.place.en}.
| {hero.ko}의 어머니는 {job.ko}이고 {job.place.ko}에서 일해요.
| {hero.ko}의 어머니는 {job.ko}이고 {job.place.ko}에서 일한다.
? {hero.en} likes the color {color.en}.
| {hero.ko:은/는} {color.ko}을 좋아해요.
| {hero.ko:은/는} {color.ko}을 좋아한다.
? {hero.He} likes to {act.en} with {friend.en}.
| {friend.ko:과/와} {act.ko}는 것을 좋아해요.
| {friend.ko:과/와} {act.ko}는 것을 좋아한다.
{hero.en} wants to be {a_dream}.
| {hero.ko:은/는} {dream.ko:이/가} 되고 싶어 해요.
| {hero.ko:은/는} {dream.ko:이/가} 되고 싶어 한다.
Q: How old is {hero.en}? = {age} | {hero.ko:은/는} 몇 살인가요? = {age}살
Q: Where does {hero.en} live? = in {country.capital.en} | {hero.ko:은/는} 어디에 사나요? = {country.capital.ko}
Q: What animal does {hero.en} have? = {a_animal} | {hero.ko:은/는} 어떤 동물을 키우나요? = {animal.ko}
Q: What does {hero.en} want to be? = {a_dream} | {hero.ko:은/는} 무엇이 되고 싶어 하나요? = {dream.ko}""",
    _articles,
    age=tuple(range(6, 20)),
    country=COUNTRIES,
    animal=tuple(animal for animal in ANIMALS if animal.en in ("cat", "dog", "bird", "rabbit", "horse", "duck")),
    job=JOBS,
    dream=JOBS,
    color=COLORS,
)


def _room_things(rng: random.Random, slots: Slots) -> Slots:
    bed, desk = rng.sample(COLORS, 2)
    thing, look = rng.choice(BELONGINGS), rng.choice(ADJECTIVES)
    return {"bed": bed, "desk": desk, "thing": thing, "a_thing": with_article(f"{look.en} {thing.en}"), "look": look}


_ROOM = _script(
    """
This is {hero.en}'s room. | 여기는 {hero.ko}의 방이에요. | 여기는 {hero.ko}의 방이다.
There is a bed and a desk. | 침대와 책상이 있어요. | 침대와 책상이 있다.
The bed is {bed.en}, and the desk is {desk.en}.
| 침대는 {bed.ko}이고 책상은 {desk.ko}이에요.
| 침대는 {bed.ko}이고 책상은 {desk.ko}이다.
There are {number} {item.en} on the desk.
| 책상 위에는 {item.ko:이/가} {number}개 있어요.
| 책상 위에는 {item.ko:이/가} {number}개 있다.
There is {a_thing} {spot.en}.
| {spot.ko}에는 {look.ko} {thing.ko:이/가} 있어요.
| {spot.ko}에는 {look.ko} {thing.ko:이/가} 있다.
{hero.en} reads and sleeps here.
| {hero.ko:은/는} 여기에서 책을 읽고 잠을 자요.
| {hero.ko:은/는} 여기에서 책을 읽고 잠을 잔다.
? {friend.en} often comes to this room. | {friend.ko:은/는} 이 방에 자주 와요. | {friend.ko:은/는} 이 방에 자주 온다.
Q: What color is the bed? = {bed.en} | 침대는 무슨 색인가요? = {bed.ko}
Q: What color is the desk? = {desk.en} | 책상은 무슨 색인가요? = {desk.ko}
Q: How many {item.en} are on the desk? = {number} | 책상 위에 {item.ko:이/가} 몇 개 있나요? = {number}개
Q: What is {spot.en}? = {a_thing} | {spot.ko}에는 무엇이 있나요? = {look.ko} {thing.ko}""",
    _room_things,
    number=tuple(range(2, 10)),
    item=words("pens:펜, cups:컵, balls:공, apples:사과, oranges:오렌지, dolls:인형, eggs:달걀, keys:열쇠"),
    spot=words(
        "under the bed:침대 아래, on the chair:의자 위, behind the door:문 뒤, near the door:문 옆, in the box:상자 안"
    ),
)


def _farm_animals(rng: random.Random, _: Slots) -> Slots:
    (one, other), (n, m) = rng.sample(_TAME, 2), rng.sample(range(2, 10), 2)
    more, fewer = (one, other) if n > m else (other, one)
    slots = {"one": one, "other": other, "n": n, "m": m, "total": n + m, "more": more, "fewer": fewer}
    plurals = {"ones": plural(one.en), "others": plural(other.en), "many": plural(more.en), "few": plural(fewer.en)}
    return slots | plurals


_FARM = _script(
    """
{hero.en} lives on a farm. | {hero.ko:은/는} 농장에 살아요. | {hero.ko:은/는} 농장에 산다.
There are {n} {ones} and {m} {others}.
| 농장에는 {one.ko} {n}마리와 {other.ko} {m}마리가 있어요.
| 농장에는 {one.ko} {n}마리와 {other.ko} {m}마리가 있다.
So there are {total} animals. | 그래서 동물은 모두 {total}마리예요. | 그래서 동물은 모두 {total}마리이다.
There are more {many} than {few}. | {more.ko:이/가} {fewer.ko}보다 많아요. | {more.ko:이/가} {fewer.ko}보다 많다.
? The {ones} like {one.food.en}.
| {one.ko:은/는} {one.food.ko:을/를} 좋아해요.
| {one.ko:은/는} {one.food.ko:을/를} 좋아한다.
? The {others} say {other.sound.en}.
| {other.ko:은/는} {other.sound.ko} 소리를 내요.
| {other.ko:은/는} {other.sound.ko} 소리를 낸다.
{friend.en} often comes to help {hero.en}.
| {friend.ko:이/가} 자주 {hero.ko:을/를} 도와줘요.
| {friend.ko:이/가} 자주 {hero.ko:을/를} 도와준다.
Q: How many {ones} are there? = {n} | {one.ko:은/는} 몇 마리인가요? = {n}마리
Q: How many animals are there? = {total} | 동물은 모두 몇 마리인가요? = {total}마리
Q: Are there more {ones} or more {others}? = more {many}
| {one.ko:과/와} {other.ko} 가운데 무엇이 더 많나요? = {more.ko}""",
    _farm_animals,
)


def _ages(rng: random.Random, slots: Slots) -> Slots:
    ages = rng.sample(range(6, 20), 3)
    people = sorted(zip(ages, (slots["hero"], slots["friend"], slots["third"])))
    (low, young), _, (high, old) = people
    asked = rng.choice(people)
    named = dict(zip(("age1", "age2", "age3"), ages))
    return {**named, "young": young, "old": old, "years": high - low, "asked": asked[1], "age": asked[0]}


_AGES = _script(
    """
{hero.en}, {friend.en} and {third.en} are friends.
| {hero.ko:과/와} {friend.ko}, {third.ko:은/는} 친구예요.
| {hero.ko:과/와} {friend.ko}, {third.ko:은/는} 친구이다.
{hero.en} is {age1} years old, {friend.en} is {age2}, and {third.en} is {age3}.
| {hero.ko:은/는} {age1}살, {friend.ko:은/는} {age2}살, {third.ko:은/는} {age3}살이에요.
| {hero.ko:은/는} {age1}살, {friend.ko:은/는} {age2}살, {third.ko:은/는} {age3}살이다.
{old.en} is the oldest. | 나이가 가장 많은 사람은 {old.ko:이에요/예요}. | 나이가 가장 많은 사람은 {old.ko}이다.
{young.en} is the youngest. | 가장 어린 사람은 {young.ko:이에요/예요}. | 가장 어린 사람은 {young.ko}이다.
? {old.en} is {years} years older than {young.en}.
| {old.ko:은/는} {young.ko}보다 {years}살 많아요.
| {old.ko:은/는} {young.ko}보다 {years}살 많다.
They like to {act.en} at the {place.en}.
| 세 사람은 {place.ko}에서 {act.ko}는 것을 좋아해요.
| 세 사람은 {place.ko}에서 {act.ko}는 것을 좋아한다.
Q: Who is the oldest? = {old.en} | 나이가 가장 많은 사람은 누구인가요? = {old.ko}
Q: Who is the youngest? = {young.en} | 가장 어린 사람은 누구인가요? = {young.ko}
Q: How old is {asked.en}? = {age} | {asked.ko:은/는} 몇 살인가요? = {age}살""",
    _ages,
)

_AFTER_SCHOOL = tuple(place for place in PLACES if place.en != "school")
_ROUTINE = _script(
    """
{hero.en} gets up at {up} every morning.
| {hero.ko:은/는} 매일 아침 {up}시에 일어나요.
| {hero.ko:은/는} 매일 아침 {up}시에 일어난다.
{hero.He} drinks {drink.en} and eats {food.en}.
| {drink.ko:을/를} 마시고 {food.ko:을/를} 먹어요.
| {drink.ko:을/를} 마시고 {food.ko:을/를} 먹는다.
At {start} {hero.he} goes to school by {ride.en}.
| {start}시에 {ride.ko:을/를} 타고 학교에 가요.
| {start}시에 {ride.ko:을/를} 타고 학교에 간다.
At {lunch} {hero.he} eats lunch with {friend.en}.
| {lunch}시에 {friend.ko:과/와} 점심을 먹어요.
| {lunch}시에 {friend.ko:과/와} 점심을 먹는다.
? After school {hero.he} goes to the {place.en}. | 학교가 끝나면 {place.ko}에 가요. | 학교가 끝나면 {place.ko}에 간다.
{hero.He} comes home at {back}. | {back}시에 집에 와요. | {back}시에 집에 온다.
{hero.He} goes to bed at {night}. | 그리고 {night}시에 자요. | 그리고 {night}시에 잔다.
Q: When does {hero.en} get up? = at {up} | {hero.ko:은/는} 몇 시에 일어나나요? = {up}시
Q: How does {hero.en} go to school? = by {ride.en} | {hero.ko:은/는} 무엇을 타고 학교에 가나요? = {ride.ko}
Q: Who eats lunch with {hero.en}? = {friend.en} | {hero.ko:은/는} 누구와 점심을 먹나요? = {friend.ko}
Q: What does {hero.en} drink in the morning? = {drink.en} | {hero.ko:은/는} 아침에 무엇을 마시나요? = {drink.ko}""",
    lambda rng, slots: {"place": rng.choice(_AFTER_SCHOOL)},
    up=(5, 6, 7),
    start=(8, 9),
    lunch=(12, 1),
    back=(3, 4, 5, 6),
    night=(8, 9, 10, 11),
    drink=words("water:물, milk:우유, juice:주스, tea:차"),
    food=_MEALS,
    ride=words("bus:버스, train:기차, car:자동차, bicycle:자전거"),
)

DESCRIPTIONS = (_PERSON, _ROOM, _FARM, _AGES, _ROUTINE)

# --- Telling ----------------------------------------------------------------------------------------------------------


def _perform(rng: random.Random, script: Script) -> str:
    """Fill a script in English, Korean or, rarely, both, with a quiz now and then."""
    column = draw_side(rng) and rng.choice((KOREAN, PLAIN))
    slots = common_slots(rng, "다" if column == PLAIN else "어요")
    for name, pool in script.pools.items():
        slots[name] = rng.choice(pool)
    slots.update(script.derive(rng, slots))
    lines = [columns for optional, columns in script.lines if not optional or rng.random() < 0.5]
    if rng.random() < MIXED_SHARE:
        return "\n".join(f"{columns[ENGLISH]} {columns[KOREAN]}" for columns in lines[:6]).format_map(
            slots | {"end": "어요"}
        )
    text = " ".join([columns[column] for columns in lines])
    if rng.random() < QUIZ_SHARE:
        question, answer = rng.choice(script.quiz)
        text += "\n" + _asked(rng, question[column], answer[column], column)
    return text.format_map(slots)


def _asked(rng: random.Random, question: str, answer: str, column: int) -> str:
    q, a = (("Question", "Answer"), ("Q", "A"))[rng.random() < 0.3] if column == ENGLISH else ("질문", "답")
    return f"{q}: {question}\n{a}: {answer}"


def draw_story(rng: random.Random) -> str:
    """A story of one of eleven plots."""
    return _perform(rng, rng.choice(STORIES))


def draw_description(rng: random.Random) -> str:
    """A person, a room, a farm, three friends and their ages, or somebody's day."""
    return _perform(rng, rng.choice(DESCRIPTIONS))


# --- Facts ------------------------------------------------------------------------------------------------------------


def _pronoun(fact: Fact) -> Columns:
    """The fact's sentence behind another about the same subject: "It likes milk."; Korean leaves the subject out."""
    subject, topic = capital(with_article(fact.subject.en)) + " ", f"{Hangul(fact.subject.ko):은/는} "
    english, polite = fact.sentence
    if english.startswith(subject):
        english = "It " + english.removeprefix(subject)
    return english, polite.removeprefix(topic), fact.plain.removeprefix(topic)


_ALONE = {fact: (*fact.sentence, fact.plain) for fact in FACTS}
_AFTER = {fact: _pronoun(fact) for fact in FACTS}
_TOPICS = tuple(FACTS_ABOUT.values())
_RICH_TOPICS = tuple(facts for facts in _TOPICS if len(facts) > 1)


def draw_facts(rng: random.Random) -> str:
    """What is known about two to four things, sometimes with a question."""
    column = draw_side(rng) and rng.choice((KOREAN, PLAIN))
    told: list[Fact] = []
    lines: list[Columns] = []
    length = 0
    while length < 24:
        facts = rng.choice(_RICH_TOPICS if rng.random() < 0.7 else _TOPICS)
        if facts[0] in told or facts[-1] in told:
            continue
        chosen = rng.sample(facts, min(len(facts), rng.randint(2, 4)))
        told += chosen
        added = [_ALONE[chosen[0]]]
        for before, fact in pairwise(chosen):  # "It" must mean the subject of the sentence before
            added.append(_AFTER[fact] if _AFTER[before] != _ALONE[before] else _ALONE[fact])
        length += sum([columns[column].count(" ") + 1 for columns in added])
        lines += added
    if rng.random() < MIXED_SHARE:
        return "\n".join(f"{columns[ENGLISH]} {columns[KOREAN]}" for columns in lines)
    text = " ".join([columns[column] for columns in lines])
    if rng.random() < QUIZ_SHARE:
        fact, side = rng.choice(told), min(column, KOREAN)
        text += "\n" + _asked(rng, rng.choice(fact.questions[side]), fact.answer[side], column)
    return text


KINDS: dict[str, Callable[[random.Random], str]] = {
    "story": draw_story,
    "description": draw_description,
    "facts": draw_facts,
}
"""Document kinds of this module and their generators."""
