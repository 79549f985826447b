"""Dialogues of two to four turns about everyday things and the closed world, polite, casual or rude.

Korean has the two speech levels that go with that: 존댓말 and 반말. Prices, times and facts are consistent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from data.corpus.prose import Slots, common_slots
from data.corpus.vocabulary import (
    ADJECTIVES,
    ANIMALS,
    BELONGINGS,
    COUNTRIES,
    DAYS,
    FACTS,
    FRUITS,
    JOBS,
    KOREAN,
    PLACES,
    RUDE_REPLIES,
    SEASONS,
    Activity,
    Fact,
    Place,
    casual,
    draw_side,
    plural,
    with_article,
    words,
)

POLITE, CASUAL = 0, 1

RUDE_SHARE = 0.12
"""Share of dialogues in which the second speaker is rude."""


class Mood(NamedTuple):
    """How somebody feels: in English, in polite and in casual Korean."""

    en: str
    ko: str
    casual: str


class Dialogue(NamedTuple):
    """Turns, each in [language][POLITE or CASUAL]; what the slots are drawn from; slots that follow from others."""

    turns: tuple[tuple[tuple[str, str], tuple[str, str]], ...]
    pools: Mapping[str, Sequence]
    derive: Callable[[random.Random, Slots], Slots]


def _dialogue(
    text: str, derive: Callable[[random.Random, Slots], Slots] = lambda rng, slots: {}, **pools: Sequence
) -> Dialogue:
    """Read a dialogue. A turn is "A: English | 존댓말 | 반말"; with four columns the first two are English.

    A line that starts with "| " belongs to the one before.
    """
    turns: list[tuple[tuple[str, str], tuple[str, str]]] = []
    for line in text.strip().replace("\n| ", " | ").splitlines():
        speaker, _, line = line.partition(": ")
        parts = [part.strip() for part in line.split(" | ")]
        said = [f"{{{speaker}}}: {part}" for part in parts]
        turns.append(((said[0], said[-3]), (said[-2], said[-1])))
    return Dialogue(tuple(turns), pools, derive)


_MOODS = tuple(
    Mood(*row)
    for row in (
        ("fine", "좋아요", "좋아"),
        ("very well", "아주 좋아요", "아주 좋아"),
        ("a little tired", "조금 피곤해요", "조금 피곤해"),
        ("very busy", "아주 바빠요", "아주 바빠"),
        ("happy", "기뻐요", "기뻐"),
    )
)
_SIDES = words("left:왼쪽, right:오른쪽")
_HOURS = tuple(range(1, 13))
_MEALS = words("noodles:국수, rice:밥, soup:수프, bread:빵, meat:고기, cheese:치즈")
_DRINKS = words("water:물, milk:우유, juice:주스, tea:차, coffee:커피")
_RIDES = words("bus:버스, train:기차, plane:비행기, boat:배")
_SPOTS = words(
    "under the chair:의자 아래, on the table:탁자 위, behind the door:문 뒤, near the door:문 옆, in the box:상자 안"
)


def _two_hours(rng: random.Random, slots: Slots) -> Slots:
    first, second = sorted(rng.sample(_HOURS, 2))
    return {"hour": first, "later": second}


def _price(rng: random.Random, slots: Slots) -> Slots:
    number, price = rng.randint(2, 9), rng.randint(1, 9)
    return {"items": plural(slots["item"].en), "number": number, "price": price, "total": number * price}


_GREETING = _dialogue(
    """
A: Good morning, {friend.en}. How are you today? | Hi, {friend.en}. How are you today?
| 안녕하세요, {friend.ko} 씨. 오늘 기분이 어때요? | 안녕, {friend.ko:아/야}. 오늘 기분이 어때?
B: I am {mood.en}, thank you. And you? | I am {mood.en}. And you? | {mood.ko}. {hero.ko} 씨는요? | {mood.casual}. 너는?
A: I am {mood2.en}. Where will you go today? | 저는 {mood2.ko}. 오늘 어디에 가요? | 나는 {mood2.casual}. 오늘 어디에 가?
B: I will go to the {place.en}. I want to {act.en}.
| {place.ko}에 가요. {act.ko}고 싶어요.
| {place.ko}에 가. {act.ko}고 싶어.
""",
    mood=_MOODS,
    mood2=_MOODS,
)

_DIRECTIONS = _dialogue(
    """
A: Excuse me, where is the {place.en}? | Do you know where the {place.en} is?
| 실례합니다. {place.ko:은/는} 어디에 있어요? | {place.ko:이/가} 어디에 있는지 알아?
B: Go straight and turn {turn.en}. It is next to the {near.en}.
| 똑바로 가서 {turn.ko}으로 가세요. {near.ko} 옆에 있어요.
| 똑바로 가서 {turn.ko}으로 가. {near.ko} 옆에 있어.
A: Thank you very much. Is it far from here? | Thanks. Is it far from here?
| 정말 감사합니다. 여기에서 멀어요? | 고마워. 여기에서 멀어?
B: No, it takes {minutes} minutes. | 아니요, {minutes}분 걸려요. | 아니, {minutes}분 걸려.
""",
    lambda rng, slots: {"near": rng.choice([place for place in rng.sample(PLACES, 2) if place != slots["place"]])},
    turn=_SIDES,
    minutes=tuple(range(2, 30)),
)

_SHOPPING = _dialogue(
    """
A: Hello. How much is one {item.en}? | 안녕하세요. {item.ko} 한 개에 얼마예요? | 안녕. {item.ko} 한 개에 얼마야?
B: One {item.en} is {price} dollars. | {item.ko} 한 개는 {price}달러예요. | {item.ko} 한 개는 {price}달러야.
A: I would like {number} {items}, please.
| Give me {number} {items}.
| {item.ko} {number}개 주세요.
| {item.ko} {number}개 줘.
B: Here you are. That is {total} dollars. | 여기 있어요. 모두 {total}달러예요. | 여기 있어. 모두 {total}달러야.
""",
    _price,
    item=FRUITS,
)

_RESTAURANT = _dialogue(
    """
A: Good {part.en}. What would you like to eat?
| What do you want to eat?
| 어서 오세요. 무엇을 드시겠어요?
| 너는 뭐 먹고 싶어?
B: I would like {meal.en} and {drink.en}, please. | I want {meal.en} and {drink.en}.
| {meal.ko:과/와} {drink.ko:을/를} 주세요. | {meal.ko:과/와} {drink.ko:을/를} 줘.
A: Would you like some {fruits} too? | Do you want some {fruits} too? | {fruit.ko}도 드릴까요? | {fruit.ko}도 줄까?
B: {yes.en} | {yes.ko} | {yes.casual}
""",
    lambda rng, slots: {"fruits": plural(slots["fruit"].en)},
    part=words("morning:아침, afternoon:오후, evening:저녁"),
    meal=_MEALS,
    drink=_DRINKS,
    fruit=FRUITS,
    yes=(
        Mood("Yes, please. Thank you.", "네, 감사합니다.", "응, 고마워."),
        Mood("No, thank you.", "아니요, 괜찮아요.", "아니, 괜찮아."),
    ),
)

_WEATHER = _dialogue(
    """
A: It is {season.en} now. How is the weather there?
| 이제 {season.ko}이네요. 거기 날씨는 어때요?
| 이제 {season.ko}이네. 거기 날씨는 어때?
B: It is {season.weather.en}. Do you like {season.en}?
| {season.weather.ko}. {season.ko:을/를} 좋아해요?
| {weather}. {season.ko:을/를} 좋아해?
A: Yes. I like to {act.en} at the {place.en}.
| 네. {place.ko}에서 {act.ko}는 것을 좋아해요.
| 응. {place.ko}에서 {act.ko}는 것을 좋아해.
B: That sounds good. I want to come too. | 좋네요. 저도 가고 싶어요. | 좋네. 나도 가고 싶어.
""",
    lambda rng, slots: {"weather": slots["season"].weather.ko.removesuffix("요")},
    season=SEASONS,
)

_INVITATION = _dialogue(
    """
A: Would you like to {act.en} at the {place.en} on {day.en}? | Let us {act.en} at the {place.en} on {day.en}.
| {day.ko}에 {place.ko}에서 같이 {act.ko}지 않을래요? | {day.ko}에 {place.ko}에서 같이 {act.ko}자.
B: Yes, I would love to. When shall we meet?
| Good idea. When shall we meet?
| 네, 좋아요. 몇 시에 만날까요?
| 그래, 좋아. 몇 시에 만날까?
A: How about {hour}? | {hour}시 어때요? | {hour}시 어때?
B: That is fine. See you on {day.en}. | 좋아요. {day.ko}에 봐요. | 좋아. {day.ko}에 봐.
""",
    day=DAYS,
    hour=_HOURS,
)

_BUSY = _dialogue(
    """
A: Can we meet at the {place.en} on {day.en}?
| {day.ko}에 {place.ko}에서 만날 수 있어요?
| {day.ko}에 {place.ko}에서 만날 수 있어?
B: I am sorry, I am busy on {day.en}. I will {act2.en}. | Sorry, I am busy on {day.en}. I will {act2.en}.
| 미안해요, {day.ko}에는 바빠요. {act2.ko}기로 했어요. | 미안해, {day.ko}에는 바빠. {act2.ko}기로 했어.
A: How about {other.en}? | 그럼 {other.ko}은 어때요? | 그럼 {other.ko}은 어때?
B: Yes, {other.en} is fine. Thank you.
| Yes, {other.en} is fine.
| 네, {other.ko}은 괜찮아요. 감사합니다.
| 응, {other.ko}은 괜찮아.
""",
    lambda rng, slots: (
        dict(zip(("day", "other"), rng.sample(DAYS, 2))) | {"act2": rng.choice(rng.choice(PLACES).activities)}
    ),
)

_APOLOGY = _dialogue(
    """
A: I am very sorry. I am {minutes} minutes late. | Sorry, I am {minutes} minutes late.
| 정말 죄송합니다. {minutes}분 늦었어요. | 미안해. {minutes}분 늦었어.
B: That is all right. What happened? | 괜찮아요. 무슨 일이 있었어요? | 괜찮아. 무슨 일이 있었어?
A: The {ride.en} from the {place.en} did not come.
| {place.ko}에서 {ride.ko:이/가} 오지 않았어요.
| {place.ko}에서 {ride.ko:이/가} 오지 않았어.
B: Do not worry. I {act.past} and waited for you.
| 걱정하지 마세요. 저는 {act.ko}고 기다렸어요.
| 걱정하지 마. 나는 {act.ko}고 기다렸어.
""",
    minutes=tuple(range(5, 40)),
    ride=_RIDES[:2],
)

_LOST = _dialogue(
    """
A: Excuse me, I lost my {thing.en}. Did you see it? | I lost my {thing.en}. Did you see it?
| 실례합니다. 제 {thing.ko:을/를} 잃어버렸어요. 혹시 보셨어요? | 내 {thing.ko:을/를} 잃어버렸어. 혹시 봤어?
B: Is it {a_look} {thing.en}? | {look.ko} {thing.ko}인가요? | {look.ko} {thing.ko}이니?
A: Yes, it is. Where was it? | 네, 맞아요. 어디에 있었어요? | 응, 맞아. 어디에 있었어?
B: It was {spot.en}. Here you are. | {spot.ko}에 있었어요. 여기 있어요. | {spot.ko}에 있었어. 여기 있어.
""",
    lambda rng, slots: {"a_look": with_article(slots["look"].en)},
    thing=BELONGINGS,
    look=ADJECTIVES,
    spot=_SPOTS,
)

_PET = _dialogue(
    """
A: Do you have an animal at home? | 집에서 동물을 키워요? | 집에서 동물을 키워?
B: Yes, I have {a_animal}. Its name is {third.en}. | 네, {animal.ko:을/를} 키워요. 이름은 {third.ko:이에요/예요}.
| 응, {animal.ko:을/를} 키워. 이름은 {third.ko:이야/야}.
A: What does {third.en} like? | {third.ko:은/는} 무엇을 좋아해요? | {third.ko:은/는} 무엇을 좋아해?
B: It likes {animal.food.en}. It is {age} years old.
| {animal.food.ko:을/를} 좋아해요. {age}살이에요.
| {animal.food.ko:을/를} 좋아해. {age}살이야.
""",
    lambda rng, slots: {"a_animal": with_article(slots["animal"].en)},
    animal=tuple(animal for animal in ANIMALS if animal.en in ("cat", "dog", "bird", "rabbit", "horse", "duck", "hen")),
    age=tuple(range(2, 10)),
)

_INTRODUCTION = _dialogue(
    """
A: Nice to meet you. My name is {hero.en}.
| Hi, I am {hero.en}.
| 만나서 반가워요. 제 이름은 {hero.ko:이에요/예요}.
| 안녕, 내 이름은 {hero.ko:이야/야}.
B: Nice to meet you too. I am {friend.en} from {country.en}. | Hi, I am {friend.en} from {country.en}.
| 저도 반가워요. 저는 {country.ko}에서 온 {friend.ko:이에요/예요}.
| 반가워. 나는 {country.ko}에서 온 {friend.ko:이야/야}.
A: What is your job? | 무슨 일을 하세요? | 무슨 일을 해?
B: I am {a_job}. I work {job.place.en}.
| 저는 {job.ko:이에요/예요}. {job.place.ko}에서 일해요.
| 나는 {job.ko:이야/야}. {job.place.ko}에서 일해.
""",
    lambda rng, slots: {"a_job": with_article(slots["job"].en)},
    country=COUNTRIES,
    job=JOBS,
)

_TIMETABLE = _dialogue(
    """
A: Excuse me, when does the {ride.en} to {country.capital.en} leave?
| When does the {ride.en} to {country.capital.en} leave?
| 실례합니다. {country.capital.ko}에 가는 {ride.ko:은/는} 몇 시에 떠나요?
| {country.capital.ko}에 가는 {ride.ko:은/는} 몇 시에 떠나?
B: It leaves at {hour}. | {hour}시에 떠나요. | {hour}시에 떠나.
A: And when will I be there? | 그럼 몇 시에 도착해요? | 그럼 몇 시에 도착해?
B: You will be there at {later}. Have a good trip.
| {later}시에 도착해요. 좋은 여행 되세요.
| {later}시에 도착해. 잘 다녀와.
""",
    _two_hours,
    ride=_RIDES,
    country=COUNTRIES,
)

EVERYDAY = (
    *(_GREETING, _DIRECTIONS, _SHOPPING, _RESTAURANT, _WEATHER, _INVITATION),
    *(_BUSY, _APOLOGY, _LOST, _PET, _INTRODUCTION, _TIMETABLE),
)

_COMPLAINTS = (
    Mood("You are not kind today.", "오늘은 친절하지 않네요.", "오늘은 친절하지 않네."),
    Mood("I only asked a question.", "그냥 물어봤어요.", "그냥 물어봤어."),
    Mood("Please be kind to me.", "친절하게 말해 주세요.", "친절하게 말해 줘."),
    Mood("Then I will ask my teacher.", "그럼 선생님께 물어볼게요.", "그럼 선생님께 물어볼게."),
)
_BRUSH_OFF = _dialogue(
    """
B: {rude.en} | {rude.ko} | {rude.ko}
A: {complaint.en} | {complaint.ko} | {complaint.casual}
B: {rude2.en} | {rude2.ko} | {rude2.ko}
""",
    rude=RUDE_REPLIES,
    rude2=RUDE_REPLIES,
    complaint=_COMPLAINTS,
)
RUDE = tuple(
    Dialogue(one.turns[:1] + _BRUSH_OFF.turns, {**one.pools, **_BRUSH_OFF.pools}, one.derive) for one in EVERYDAY
)
"""The same openings, brushed off by the second speaker."""

_FOLLOW_UPS = (
    _dialogue(
        """
A: Do you know {third.en}? | {third.ko:을/를} 아세요? | {third.ko:을/를} 알아?
B: Yes, {third.he} is {a_job} and works {job.place.en}.
| 네, {third.ko:은/는} {job.ko:이에요/예요}. {job.place.ko}에서 일해요.
| 응, {third.ko:은/는} {job.ko:이야/야}. {job.place.ko}에서 일해.
""",
        lambda rng, slots: {"a_job": with_article(slots["job"].en)},
        job=JOBS,
    ),
    _dialogue(
        """
A: What will you do on {day.en}? | {day.ko}에는 무엇을 하고 싶어요? | {day.ko}에는 무엇을 하고 싶어?
B: I want to {act.en} at the {place.en} with {third.en}. | {third.ko:과/와} 함께 {place.ko}에서 {act.ko}고 싶어요.
| {third.ko:과/와} 함께 {place.ko}에서 {act.ko}고 싶어.
""",
        lambda rng, slots: dict(zip(("place", "act"), _outing(rng))),
        day=DAYS,
    ),
    _dialogue(
        """
A: How was your trip to {country.capital.en}?
| {country.capital.ko} 여행은 어땠어요?
| {country.capital.ko} 여행은 어땠어?
B: It was good. I ate {meal.en} and saw {third.en}. | 좋았어요. {meal.ko:을/를} 먹고 {third.ko:을/를} 만났어요.
| 좋았어. {meal.ko:을/를} 먹고 {third.ko:을/를} 만났어.
""",
        country=COUNTRIES,
        meal=_MEALS,
    ),
)
"""What the talk may turn to afterwards."""


def _outing(rng: random.Random) -> tuple[Place, Activity]:
    place = rng.choice(PLACES)
    return place, rng.choice(place.activities)


_LABELS = (("A", "B"), ("가", "나"))


def draw_everyday(rng: random.Random) -> str:
    """A dialogue between two people: greetings, the way, shopping, plans, apologies, pets, timetables."""
    side = draw_side(rng)
    rude = rng.random() < RUDE_SHARE
    dialogue = rng.choice(RUDE if rude else EVERYDAY)
    slots = common_slots(rng)
    named = rng.random() < 0.5
    slots["A"], slots["B"] = (slots["hero"][side], slots["friend"][side]) if named else _LABELS[side]
    level = POLITE if rng.random() < 0.55 else CASUAL
    parts = [dialogue, rng.choice(_FOLLOW_UPS)] if not rude and rng.random() < 0.6 else [dialogue]
    return "\n".join([_filled(rng, part, slots, side, level) for part in parts])


def _filled(rng: random.Random, dialogue: Dialogue, slots: Slots, side: int, level: int) -> str:
    slots = slots | {name: rng.choice(pool) for name, pool in dialogue.pools.items()}
    slots.update(dialogue.derive(rng, slots))
    return "\n".join([turn[side][level] for turn in dialogue.turns]).format_map(slots)


# --- Questions about the closed world ---------------------------------------------------------------------------------

_THANKS = (("Thank you.", "Thanks.", "I see.", "Good."), ("감사합니다.", "고마워요.", "그렇군요.", "좋아요."))
_CASUAL_THANKS = ("고마워.", "그렇구나.", "좋아.")
_ASKERS = ((("User", "Assistant"), ("A", "B")), (("사용자", "도우미"), ("User", "Assistant"), ("가", "나")))
_CASUAL = {fact: (tuple(map(casual, fact.questions[KOREAN])), casual(fact.sentence.ko)) for fact in FACTS}


def draw_questions(rng: random.Random) -> str:
    """Questions about facts, answered with a sentence or just the answer, rarely rudely. An assistant stays polite."""
    side = draw_side(rng)
    asker, answerer = rng.choice(_ASKERS[side])
    level = CASUAL if side == KOREAN and rng.random() < 0.4 else POLITE
    manner = "rude" if rng.random() < RUDE_SHARE / 2 else "short" if rng.random() < 0.25 else "polite"
    if manner == "polite" and level == CASUAL and answerer == "나":
        manner = "casual"
    lines: list[str] = []
    length = 0
    while length < 20:
        fact = rng.choice(FACTS)
        question = rng.choice(_CASUAL[fact][0] if level == CASUAL else fact.questions[side])
        if lines and rng.random() < 0.3:
            question = f"{rng.choice(_CASUAL_THANKS if level == CASUAL else _THANKS[side])} {question}"
        lines.append(f"{asker}: {question}\n{answerer}: {_answer(rng, fact, side, manner)}")
        length += lines[-1].count(" ") + 2
    return "\n".join(lines)


def _answer(rng: random.Random, fact: Fact, side: int, manner: str) -> str:
    if manner == "rude":
        return rng.choice(RUDE_REPLIES)[side]
    if manner == "casual":
        return _CASUAL[fact][1]
    return fact.answer[side] if manner == "short" else fact.sentence[side]


KINDS: dict[str, Callable[[random.Random], str]] = {"dialogue": draw_everyday, "questions": draw_questions}
"""Document kinds of this module and their generators."""
