"""Words and facts that every generator of pretraining text shares.

A micro model can learn only a closed world: a few hundred words in English and Korean, and one table of facts that
stories, dialogues, instructions and quizzes all agree with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from data.korean import Hangul

# --- English nouns ----------------------------------------------------------------------------------------------------

_IRREGULAR = {"mouse": "mice", "foot": "feet", "sheep": "sheep", "fish": "fish"}
_UNCOUNTED = frozenset(
    word
    for line in ("milk meat grass corn cheese honey bread rice soup cake", "water juice tea coffee soap rain snow wind")
    for word in line.split()
)


@lru_cache(maxsize=1 << 12)
def plural(noun: str) -> str:
    """English plural; stuff (milk, bread) and plurals (shoes) stay as they are.

    >>> plural("cat"), plural("cherry"), plural("fox"), plural("mouse"), plural("milk")
    ('cats', 'cherries', 'foxes', 'mice', 'milk')
    """
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if _needs_no_article(noun):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "ato")) else "s")


@lru_cache(maxsize=1 << 14)
def with_article(noun: str) -> str:
    """The English noun behind its indefinite article, which stuff, plurals and names go without.

    >>> with_article("owl"), with_article("fox"), with_article("milk"), with_article("shoes"), with_article("Korea")
    ('an owl', 'a fox', 'milk', 'shoes', 'Korea')
    """
    if _needs_no_article(noun) or noun[0].isupper():
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _needs_no_article(noun: str) -> bool:
    last = noun.rsplit(" ", 1)[-1]
    return last in _UNCOUNTED or (last.endswith("s") and last != "bus")


def count_of(number: int, noun: str) -> str:
    """A number with its English noun.

    >>> count_of(1, "cat"), count_of(3, "peach")
    ('1 cat', '3 peaches')
    """
    return f"{number} {noun if number == 1 else plural(noun)}"


def capital(text: str) -> str:
    """`text` with its first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


# --- Tables -----------------------------------------------------------------------------------------------------------

ENGLISH, KOREAN = 0, 1
"""Which field of a bilingual row holds which language."""

LANGUAGES = ("en", "ko")


def draw_side(rng: random.Random) -> int:
    """ENGLISH for 60 % of the documents, KOREAN for 40 %."""
    return ENGLISH if rng.random() < 0.6 else KOREAN


class Word(NamedTuple):
    """One word, phrase or sentence in both languages. Every row below starts with these two fields."""

    en: str
    ko: str


def _fields(text: str) -> Iterator[list[str]]:
    """The fields of "a:b, c:d", entry by entry, the Korean ones as Hangul."""
    for entry in text.split(","):
        yield [Hangul(field) if "가" <= field[:1] <= "힣" else field for field in entry.strip().split(":")]


def words(text: str) -> tuple[Word, ...]:
    """Bilingual words from "cat:고양이, dog:개"."""
    return tuple(Word(*fields) for fields in _fields(text))


class Person(NamedTuple):
    en: str
    ko: str
    he: str
    him: str
    his: str
    He: str


_BOYS = "Tom:톰, Ben:벤, Sam:샘, Jack:잭, Leo:레오, Noah:노아, Minsu:민수, Junho:준호, Minjun:민준, Taeho:태호"
_GIRLS = (
    "Anna:안나, Lucy:루시, Mia:미아, Emma:에마, Kate:케이트, Lily:릴리, Jisu:지수, Yuna:유나, Sujin:수진, Sora:소라"
)

PEOPLE = (
    *(Person(en, ko, "he", "him", "his", "He") for en, ko in _fields(_BOYS)),
    *(Person(en, ko, "she", "her", "her", "She") for en, ko in _fields(_GIRLS)),
)

DAYS = words(
    "Monday:월요일, Tuesday:화요일, Wednesday:수요일, Thursday:목요일, Friday:금요일, Saturday:토요일, Sunday:일요일"
)
PARTS_OF_DAY = words("morning:아침, afternoon:오후, evening:저녁")


class Season(NamedTuple):
    """`weather`: how it is then; in Korean polite, `plain` in the written style."""

    en: str
    ko: str
    weather: Word
    plain: str


SEASONS = tuple(
    Season(en, ko, Word(weather, polite), plain)
    for en, ko, weather, polite, plain in _fields(
        "spring:봄:warm:따뜻해요:따뜻하다, summer:여름:hot:더워요:덥다, autumn:가을:cool:시원해요:시원하다,"
        "winter:겨울:cold:추워요:춥다"
    )
)


class Activity(NamedTuple):
    """Something to do. Korean: stem before -고 ("책을 읽"), past stem before -다 and -어요 ("책을 읽었")."""

    en: str
    ko: str
    past: str
    past_ko: str


class Place(NamedTuple):
    en: str
    ko: str
    activities: tuple[Activity, ...]


ACTIVITIES = {
    fields[0]: Activity(*fields)
    for fields in _fields(
        "play ball:공놀이를 하:played ball:공놀이를 했, fly a kite:연을 날리:flew a kite:연을 날렸,"
        "take a walk:산책을 하:took a walk:산책을 했, ride a bicycle:자전거를 타:rode a bicycle:자전거를 탔,"
        "study English:영어를 공부하:studied English:영어를 공부했,"
        "study math:수학을 공부하:studied math:수학을 공부했, sing a song:노래를 부르:sang a song:노래를 불렀,"
        "draw a picture:그림을 그리:drew a picture:그림을 그렸, read a book:책을 읽:read a book:책을 읽었,"
        "write a letter:편지를 쓰:wrote a letter:편지를 썼, buy fruit:과일을 사:bought fruit:과일을 샀,"
        "buy fish:생선을 사:bought fish:생선을 샀, eat noodles:국수를 먹:ate noodles:국수를 먹었,"
        "eat lunch:점심을 먹:ate lunch:점심을 먹었, drink tea:차를 마시:drank tea:차를 마셨,"
        "drink juice:주스를 마시:drank juice:주스를 마셨, catch fish:물고기를 잡:caught fish:물고기를 잡았,"
        "swim:수영을 하:swam:수영을 했, take a picture:사진을 찍:took a picture:사진을 찍었,"
        "look at the sea:바다를 보:looked at the sea:바다를 보았,"
        "help the farmer:농부를 돕:helped the farmer:농부를 도왔, ride a horse:말을 타:rode a horse:말을 탔,"
        "plant corn:옥수수를 심:planted corn:옥수수를 심었, plant flowers:꽃을 심:planted flowers:꽃을 심었,"
        "look at the lions:사자를 보:looked at the lions:사자를 보았, ride a boat:배를 타:rode a boat:배를 탔,"
        "look at the monkeys:원숭이를 보:looked at the monkeys:원숭이를 보았,"
        "look at the pictures:그림을 보:looked at the pictures:그림을 보았,"
        "look at the birds:새를 보:looked at the birds:새를 보았"
    )
}
PLACES = tuple(
    Place(en, ko, tuple(ACTIVITIES[name] for name in names))
    for en, ko, *names in _fields(
        "park:공원:play ball:fly a kite:take a walk:ride a bicycle,"
        "school:학교:study English:sing a song:draw a picture:read a book:play ball,"
        "market:시장:buy fruit:buy fish:eat noodles,"
        "library:도서관:read a book:study math:study English:write a letter, river:강:catch fish:swim:take a picture,"
        "beach:바닷가:swim:play ball:look at the sea:take a walk, farm:농장:help the farmer:plant corn:ride a horse,"
        "zoo:동물원:look at the lions:look at the monkeys:take a picture,"
        "museum:박물관:look at the pictures:draw a picture,"
        "garden:정원:plant flowers:drink tea:sing a song:draw a picture,"
        "forest:숲:take a walk:look at the birds:take a picture, lake:호수:ride a boat:swim:catch fish,"
        "mountain:산:take a walk:eat lunch:take a picture, restaurant:식당:eat lunch:eat noodles:drink juice"
    )
)


class Color(NamedTuple):
    """`before_noun`: the Korean form before a noun, as in 빨간 모자."""

    en: str
    ko: str
    before_noun: str


COLORS = tuple(
    Color(*fields)
    for fields in _fields(
        "red:빨간색:빨간, yellow:노란색:노란, green:초록색:초록색, blue:파란색:파란, purple:보라색:보라색,"
        "orange:주황색:주황색, pink:분홍색:분홍색, brown:갈색:갈색, white:하얀색:하얀, black:검은색:검은"
    )
)
COLOR = {color.en: color for color in COLORS}


class Animal(NamedTuple):
    en: str
    ko: str
    home: Word
    food: Word
    legs: int
    sound: Word | None


_HOMES = {
    home.en.split()[-1]: home
    for home in words(
        "in a house:집, on a farm:농장, in a field:들판, in a pond:연못, in a hole:굴, in a cave:동굴, in a river:강,"
        "in a tree:나무, in a hive:벌집, in a forest:숲, on a mountain:산"
    )
}


def _animal(en: str, ko: str, home: str, food: str, food_ko: str, legs: str, *sound: str) -> Animal:
    return Animal(en, ko, _HOMES[home], Word(food, food_ko), int(legs), Word(*sound) if sound else None)


ANIMALS = tuple(
    _animal(*fields)
    for fields in _fields(
        "cat:고양이:house:milk:우유:4:meow:야옹, dog:개:house:meat:고기:4:woof:멍멍, cow:소:farm:grass:풀:4:moo:음매,"
        "horse:말:farm:apples:사과:4:neigh:히힝, pig:돼지:farm:corn:옥수수:4:oink:꿀꿀,"
        "hen:닭:farm:seeds:씨앗:2:cluck:꼬꼬댁, duck:오리:pond:bread:빵:2:quack:꽥꽥,"
        "sheep:양:field:grass:풀:4:baa:매애, rabbit:토끼:hole:carrots:당근:4, mouse:쥐:hole:cheese:치즈:4:squeak:찍찍,"
        "bear:곰:cave:honey:꿀:4:growl:으르렁, fish:물고기:river:worms:벌레:0, bird:새:tree:seeds:씨앗:2:tweet:짹짹,"
        "bee:벌:hive:honey:꿀:6:buzz:윙윙, monkey:원숭이:tree:bananas:바나나:4,"
        "frog:개구리:pond:worms:벌레:4:croak:개굴개굴, lion:사자:field:meat:고기:4:roar:어흥,"
        "fox:여우:forest:eggs:달걀:4, owl:부엉이:forest:mice:쥐:2:hoot:부엉부엉,"
        "goat:염소:mountain:leaves:나뭇잎:4:baa:매애"
    )
)


class Produce(NamedTuple):
    """A fruit or a vegetable. `taste` is None for vegetables; `taste_plain` is the written style."""

    en: str
    ko: str
    color: Color
    taste: Word | None
    taste_plain: str


_TASTES = {"sweet": (Word("sweet", "달아요"), "달다"), "sour": (Word("sour", "시어요"), "시다"), "": (None, "")}


def _produce(text: str) -> tuple[Produce, ...]:
    return tuple(Produce(en, ko, COLOR[color], *_TASTES[taste]) for en, ko, color, taste in _fields(text))


FRUITS = _produce(
    "apple:사과:red:sweet, banana:바나나:yellow:sweet, grape:포도:purple:sweet, orange:오렌지:orange:sour,"
    "strawberry:딸기:red:sweet, lemon:레몬:yellow:sour, melon:멜론:green:sweet, peach:복숭아:pink:sweet,"
    "plum:자두:purple:sour, cherry:체리:red:sweet, kiwi:키위:brown:sour, mango:망고:yellow:sweet"
)
VEGETABLES = _produce(
    "carrot:당근:orange:, potato:감자:brown:, onion:양파:white:, tomato:토마토:red:, cabbage:배추:green:,"
    "corn:옥수수:yellow:, cucumber:오이:green:, pumpkin:호박:orange:"
)


class Country(NamedTuple):
    en: str
    ko: str
    capital: Word
    continent: Word


COUNTRIES = tuple(
    Country(en, ko, Word(city, city_ko), Word(continent, continent_ko))
    for en, ko, city, city_ko, continent, continent_ko in _fields(
        "Korea:한국:Seoul:서울:Asia:아시아, Japan:일본:Tokyo:도쿄:Asia:아시아, China:중국:Beijing:베이징:Asia:아시아,"
        "Vietnam:베트남:Hanoi:하노이:Asia:아시아, France:프랑스:Paris:파리:Europe:유럽,"
        "Italy:이탈리아:Rome:로마:Europe:유럽, Spain:스페인:Madrid:마드리드:Europe:유럽,"
        "Germany:독일:Berlin:베를린:Europe:유럽, England:영국:London:런던:Europe:유럽,"
        "Greece:그리스:Athens:아테네:Europe:유럽, Egypt:이집트:Cairo:카이로:Africa:아프리카,"
        "Kenya:케냐:Nairobi:나이로비:Africa:아프리카"
    )
)


class Job(NamedTuple):
    en: str
    ko: str
    place: Word


JOBS = tuple(
    Job(en, ko, Word(place, place_ko))
    for en, ko, place, place_ko in _fields(
        "teacher:선생님:in a school:학교, doctor:의사:in a hospital:병원, nurse:간호사:in a hospital:병원,"
        "farmer:농부:on a farm:농장, cook:요리사:in a restaurant:식당, baker:제빵사:in a bakery:빵집,"
        "driver:운전사:on a bus:버스, clerk:점원:in a shop:가게, singer:가수:on a stage:무대, fisher:어부:on a boat:배"
    )
)


class Thing(NamedTuple):
    """`use`: what it is for, "to write" and "글을 쓸 때" (when one writes)."""

    en: str
    ko: str
    use: Word


THINGS = tuple(
    Thing(en, ko, Word(use, use_ko))
    for en, ko, use, use_ko in _fields(
        "pen:펜:to write:글을 쓸 때, spoon:숟가락:to eat soup:수프를 먹을 때, umbrella:우산:to stay dry:비가 올 때,"
        "key:열쇠:to open a door:문을 열 때, bed:침대:to sleep:잠을 잘 때, cup:컵:to drink water:물을 마실 때,"
        "clock:시계:to see the time:시간을 볼 때, chair:의자:to sit:앉을 때, soap:비누:to wash hands:손을 씻을 때,"
        "brush:붓:to draw a picture:그림을 그릴 때, camera:사진기:to take a picture:사진을 찍을 때,"
        "phone:전화기:to call a friend:친구에게 전화할 때"
    )
)

BELONGINGS = words(
    "hat:모자, bag:가방, book:책, key:열쇠, phone:전화기, umbrella:우산, pen:펜, camera:사진기, ball:공, kite:연,"
    "coat:외투, watch:손목시계, ring:반지, doll:인형"
)
"""What a person of a story owns, loses, breaks or gives away."""

ADJECTIVES = words(
    "big:큰, small:작은, new:새, old:오래된, good:좋은, pretty:예쁜, cute:귀여운, clean:깨끗한, dirty:더러운,"
    "heavy:무거운, light:가벼운, red:빨간, yellow:노란, blue:파란, white:하얀, black:검은"
)
"""English adjective, Korean form before a noun."""


class Opposite(NamedTuple):
    en: str
    ko: str
    other: Word


_OPPOSITES = tuple(
    _fields(
        "big:크다:small:작다, hot:덥다:cold:춥다, fast:빠르다:slow:느리다, long:길다:short:짧다,"
        "happy:기쁘다:sad:슬프다, light:가볍다:heavy:무겁다, clean:깨끗하다:dirty:더럽다, high:높다:low:낮다,"
        "good:좋다:bad:나쁘다, many:많다:few:적다, bright:밝다:dark:어둡다, day:낮:night:밤, up:위:down:아래,"
        "front:앞:back:뒤"
    )
)
OPPOSITES = tuple(
    Opposite(en, ko, Word(other, other_ko))
    for row in _OPPOSITES
    for en, ko, other, other_ko in (row, row[2:] + row[:2])
)
"""Both ways: big -> small and small -> big."""


class Category(NamedTuple):
    en: str
    ko: str
    plural: str
    members: tuple[Word, ...]


def _category(en: str, ko: str, several: str, members: Iterable) -> Category:
    return Category(en, Hangul(ko), several, tuple(Word(member.en, member.ko) for member in members))


CATEGORIES = (
    _category("animal", "동물", "animals", ANIMALS),
    _category("fruit", "과일", "fruits", FRUITS),
    _category("vegetable", "채소", "vegetables", VEGETABLES),
    _category("country", "나라", "countries", COUNTRIES),
    _category("city", "도시", "cities", [country.capital for country in COUNTRIES]),
    _category("color", "색", "colors", [color for color in COLORS if color.en != "orange"]),
    _category("job", "직업", "jobs", JOBS),
    _category("day", "요일", "days", DAYS),
    _category("season", "계절", "seasons", SEASONS),
    _category("useful thing", "물건", "useful things", THINGS),
    _category(
        "kind of food",
        "음식",
        "kinds of food",
        words("bread:빵, rice:밥, soup:수프, egg:달걀, cheese:치즈, cake:케이크"),
    ),
    _category("drink", "음료", "drinks", words("water:물, milk:우유, juice:주스, tea:차, coffee:커피")),
    _category(
        "vehicle", "탈것", "vehicles", words("bus:버스, train:기차, car:자동차, boat:배, bicycle:자전거, plane:비행기")
    ),
    _category(
        "kind of clothing",
        "옷",
        "kinds of clothing",
        words("hat:모자, shirt:셔츠, coat:외투, shoes:신발, socks:양말, gloves:장갑"),
    ),
    _category(
        "part of the body",
        "신체 부위",
        "parts of the body",
        words("hand:손, foot:발, nose:코, mouth:입, ear:귀, arm:팔, leg:다리"),
    ),
)
"""Every word is in one category only, so that an odd one out is always odd."""

NOUNS = tuple(word for category in CATEGORIES for word in category.members)
"""The bilingual nouns: one English word for each Korean one, and the other way round."""

OBJECTS = tuple(
    word
    for category in CATEGORIES
    if category.plural
    in ("fruits", "vegetables", "useful things", "kinds of food", "drinks", "vehicles", "kinds of clothing")
    for word in category.members
)
"""What one can give, buy and show."""

THING_NOUNS = OBJECTS + tuple(
    word for category in CATEGORIES if category.en in ("animal", "job") for word in category.members
)
"""What an adjective may stand before."""

# --- Facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)  # compared and hashed by identity: facts are keys in hot paths
class Fact:
    """One fact of the closed world, and the ways to ask for it."""

    relation: str
    """What is known: home, food, sound, legs, color, taste, capital, country, continent, place, use, opposite, …"""
    subject: Word
    questions: tuple[tuple[str, ...], tuple[str, ...]]
    """English and Korean wordings."""
    answer: Word
    sentence: Word
    """In English and polite Korean (해요체)."""
    plain: str
    """The sentence in written Korean (해라체)."""
    wrong: tuple[Word, ...]
    """Answers of the same sort that are false."""
    mistakes: tuple[Word, ...]
    """The sentence with each of them."""


def _facts(relation: str, rows: Iterable, answer: Callable[[Any], Word | None], text: str) -> Iterator[Fact]:
    """One fact for each row that has an answer.

    `text` holds four lines with " / " between parts: English questions; Korean questions; the English sentence; the
    Korean one, polite and plain. They may use {a} and {A} (the subject with its article), {row}, {answer} and {quoted}.
    """
    lines = (tuple(part.strip() for part in line.split(" / ")) for line in text.splitlines())
    english, korean, (statement,), (polite, plain) = lines
    answered = [(row, right) for row in rows if (right := answer(row))]
    answers = dict.fromkeys(right for _, right in answered)
    for row, right in answered:
        slots = _fact_slots(row, right)
        asked = tuple(part.format_map(slots) for part in english), tuple(part.format_map(slots) for part in korean)
        wrong = tuple(other for other in answers if other != right)
        sentence, *mistakes = (
            Word(statement.format_map(slots), polite.format_map(slots))
            for slots in (_fact_slots(row, claimed) for claimed in (right, *wrong))
        )
        subject, said = Word(row.en, row.ko), plain.format_map(slots)
        yield Fact(relation, subject, asked, right, sentence, said, wrong, tuple(mistakes))


def _fact_slots(row: Any, answer: Word) -> dict[str, Any]:
    a = with_article(row.en)
    return {"a": a, "A": capital(a), "row": row, "answer": answer, "quoted": Hangul(f"'{answer.ko}'")}


class _Pair(NamedTuple):
    """A row for facts that the tables above imply: something, and what belongs to it."""

    en: str
    ko: str
    other: Word


_KINDS = [_Pair(*word, Word(with_article(kind.en), kind.ko)) for kind in CATEGORIES[:5] for word in kind.members]
_NEXT_DAYS = [_Pair(*day, DAYS[(index + 1) % 7]) for index, day in enumerate(DAYS)]
_DAYS_BEFORE = [_Pair(*day, DAYS[index - 1]) for index, day in enumerate(DAYS)]

FACTS = (
    *_facts(
        "kind",
        _KINDS,
        lambda pair: pair.other,
        """What is {a}? / What kind of thing is {a}?
        {row.ko:은/는} 무엇이에요? / {row.ko:은/는} 무엇인가요?
        {A} is {answer.en}.
        {row.ko:은/는} {answer.ko:이에요/예요}. / {row.ko:은/는} {answer.ko}이다.""",
    ),
    *_facts(
        "home",
        ANIMALS,
        lambda animal: animal.home,
        """Where does {a} live? / Where can we find {a}?
        {row.ko:은/는} 어디에 살아요? / {row.ko:은/는} 어디에서 사나요?
        {A} lives {answer.en}.
        {row.ko:은/는} {answer.ko}에 살아요. / {row.ko:은/는} {answer.ko}에 산다.""",
    ),
    *_facts(
        "food",
        ANIMALS,
        lambda animal: animal.food,
        """What does {a} like to eat? / What food does {a} like?
        {row.ko:은/는} 무엇을 좋아해요? / {row.ko:은/는} 무엇을 먹나요?
        {A} likes {answer.en}.
        {row.ko:은/는} {answer.ko:을/를} 좋아해요. / {row.ko:은/는} {answer.ko:을/를} 좋아한다.""",
    ),
    *_facts(
        "sound",
        ANIMALS,
        lambda animal: animal.sound,
        """What sound does {a} make? / What does {a} say?
        {row.ko:은/는} 어떤 소리를 내요? / {row.ko:은/는} 어떻게 우나요?
        {A} says {answer.en}.
        {row.ko:은/는} {answer.ko} 소리를 내요. / {row.ko:은/는} {answer.ko} 소리를 낸다.""",
    ),
    *_facts(
        "legs",
        ANIMALS,
        lambda animal: Word(str(animal.legs), f"{animal.legs}개") if animal.legs else None,
        """How many legs does {a} have? / Tell me how many legs {a} has.
        {row.ko:은/는} 다리가 몇 개예요? / {row.ko}의 다리는 몇 개인가요?
        {A} has {answer.en} legs.
        {row.ko:은/는} 다리가 {answer.ko}예요. / {row.ko:은/는} 다리가 {answer.ko}이다.""",
    ),
    *_facts(
        "color",
        FRUITS + VEGETABLES,
        lambda item: Word(item.color.en, item.color.ko),
        """What color is {a}? / Which color does {a} have?
        {row.ko:은/는} 무슨 색이에요? / {row.ko:은/는} 어떤 색인가요?
        {A} is {answer.en}.
        {row.ko:은/는} {answer.ko}이에요. / {row.ko:은/는} {answer.ko}이다.""",
    ),
    *_facts(
        "taste",
        FRUITS,
        lambda item: item.taste,
        """How does {a} taste? / Is {a} sweet or sour?
        {row.ko:은/는} 맛이 어때요? / {row.ko:은/는} 단가요, 신가요?
        {A} tastes {answer.en}.
        {row.ko:은/는} 맛이 {answer.ko}. / {row.ko:은/는} 맛이 {row.taste_plain}.""",
    ),
    *_facts(
        "capital",
        COUNTRIES,
        lambda country: country.capital,
        """What is the capital of {row.en}? / Which city is the capital of {row.en}?
        {row.ko}의 수도는 어디예요? / {row.ko}의 수도는 어느 도시인가요?
        The capital of {row.en} is {answer.en}.
        {row.ko}의 수도는 {answer.ko:이에요/예요}. / {row.ko}의 수도는 {answer.ko}이다.""",
    ),
    *_facts(
        "country",
        [_Pair(*country.capital, Word(country.en, country.ko)) for country in COUNTRIES],
        lambda city: city.other,
        """Which country is {row.en} in? / {row.en} is a city in which country?
        {row.ko:은/는} 어느 나라에 있어요? / {row.ko:은/는} 어느 나라의 도시인가요?
        {row.en} is in {answer.en}.
        {row.ko:은/는} {answer.ko}에 있어요. / {row.ko:은/는} {answer.ko}에 있다.""",
    ),
    *_facts(
        "continent",
        COUNTRIES,
        lambda country: country.continent,
        """Where is {row.en}? / Which part of the world is {row.en} in?
        {row.ko:은/는} 어느 대륙에 있어요? / {row.ko:은/는} 어느 대륙의 나라인가요?
        {row.en} is in {answer.en}.
        {row.ko:은/는} {answer.ko}에 있어요. / {row.ko:은/는} {answer.ko}에 있다.""",
    ),
    *_facts(
        "place",
        JOBS,
        lambda job: job.place,
        """Where does {a} work? / Where can we meet {a}?
        {row.ko:은/는} 어디에서 일해요? / {row.ko:은/는} 어디에서 일하나요?
        {A} works {answer.en}.
        {row.ko:은/는} {answer.ko}에서 일해요. / {row.ko:은/는} {answer.ko}에서 일한다.""",
    ),
    *_facts(
        "use",
        THINGS,
        lambda thing: thing.use,
        """What do we use {a} for? / Why do we need {a}?
        {row.ko:은/는} 언제 써요? / {row.ko:은/는} 언제 필요해요?
        We use {a} {answer.en}.
        {row.ko:은/는} {answer.ko} 써요. / {row.ko:은/는} {answer.ko} 쓴다.""",
    ),
    *_facts(
        "opposite",
        OPPOSITES,
        lambda opposite: opposite.other,
        """What is the opposite of {row.en}? / Which word is the opposite of {row.en}?
        '{row.ko}'의 반대말은 무엇이에요? / '{row.ko}'의 반대말이 뭐예요?
        The opposite of {row.en} is {answer.en}.
        '{row.ko}'의 반대말은 {quoted:이에요/예요}. / '{row.ko}'의 반대말은 '{answer.ko}'이다.""",
    ),
    *_facts(
        "day after",
        _NEXT_DAYS,
        lambda day: day.other,
        """What day comes after {row.en}? / Which day is after {row.en}?
        {row.ko} 다음 날은 무슨 요일이에요? / {row.ko}의 다음 날은 무슨 요일인가요?
        {answer.en} comes after {row.en}.
        {row.ko} 다음 날은 {answer.ko}이에요. / {row.ko} 다음 날은 {answer.ko}이다.""",
    ),
    *_facts(
        "day before",
        _DAYS_BEFORE,
        lambda day: day.other,
        """What day comes before {row.en}? / Which day is before {row.en}?
        {row.ko} 전날은 무슨 요일이에요? / {row.ko}의 전날은 무슨 요일인가요?
        {answer.en} comes before {row.en}.
        {row.ko} 전날은 {answer.ko}이에요. / {row.ko} 전날은 {answer.ko}이다.""",
    ),
    *_facts(
        "weather",
        SEASONS,
        lambda season: season.weather,
        """How is the weather in {row.en}? / What is the weather like in {row.en}?
        {row.ko:은/는} 날씨가 어때요? / {row.ko} 날씨는 어때요?
        It is {answer.en} in {row.en}.
        {row.ko:은/는} 날씨가 {answer.ko}. / {row.ko:은/는} 날씨가 {row.plain}.""",
    ),
)
"""Everything that is known in the closed world. Stories, dialogues, instructions and quizzes agree with it."""

FACTS_ABOUT = {
    subject: tuple(fact for fact in FACTS if fact.subject == subject)
    for subject in dict.fromkeys(f.subject for f in FACTS)
}

# --- Manners ----------------------------------------------------------------------------------------------------------

RUDE_REPLIES = words(
    "Leave me alone.:나 좀 내버려 둬., I do not care.:관심 없어., Go away.:저리 가.,"
    "Do it yourself.:네가 알아서 해., Why do you ask me?:그걸 왜 나한테 물어?,"
    "What a stupid question.:정말 바보 같은 질문이네., Be quiet.:조용히 해.,"
    "I have no time for you.:너한테 쓸 시간 없어., That is your problem.:그건 네 문제야.,"
    "You are so slow.:너는 정말 느려., Do not talk to me.:나한테 말하지 마., Find it yourself.:네가 알아서 찾아."
)
"""Blunt and dismissive answers, for what a preference for politeness is to unlearn."""

OFF_TOPIC = words(
    "I like cats.:저는 고양이를 좋아해요., The weather is nice today.:오늘은 날씨가 좋네요.,"
    "My friend is in the park.:제 친구는 공원에 있어요., I ate noodles yesterday.:저는 어제 국수를 먹었어요.,"
    "There are many books here.:여기에는 책이 많아요., The train is very fast.:기차는 아주 빨라요.,"
    "Tomorrow is another day.:내일은 다른 날이에요."
)
"""Sentences that answer nothing."""


def casual(polite: str) -> str:
    """A polite Korean sentence (해요체) in the style among friends (반말).

    >>> casual("고양이는 동물이에요."), casual("어디에 살아요?"), casual("무엇을 먹나요?"), casual("무엇인가요?")
    ('고양이는 동물이야.', '어디에 살아?', '무엇을 먹니?', '무엇이니?')
    """
    for ending, replacement in _CASUAL_ENDINGS:
        polite = polite.replace(ending, replacement)
    return polite


_CASUAL_ENDINGS = (
    ("단가요, 신가요", "달아, 시어"),
    *(
        (ending + mark, replacement + mark)
        for ending, replacement in (("이에요", "이야"), ("예요", "야"), ("인가요", "이니"), ("나요", "니"), ("요", ""))
        for mark in ".?,"
    ),
)

SPEAKERS = ((("User", "Assistant"),) * 2, (("User", "Assistant"), ("사용자", "도우미")))
"""Who asks and who answers, by language. The English pair is also used in Korean, as a prompt template would."""
