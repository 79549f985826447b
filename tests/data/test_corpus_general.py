"""The general half of the pretraining text: Korean particles, facts, and each kind of document."""

import random
import re

import pytest

from data.corpus import code, dialogues, instructions, prose, safety, vocabulary
from data.corpus.instructions import INSTRUCTION_KINDS, Check, draw_instruction, passes
from data.corpus.safety import FAMILIES, draw_request, refuses
from data.corpus.vocabulary import FACTS, NOUNS, casual, plural, with_article
from data.korean import Hangul, particle

KINDS = {name: draw for module in (prose, dialogues, instructions, safety, code) for name, draw in module.KINDS.items()}


def sample(kind: str, size: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [KINDS[kind](rng) for _ in range(size)]


def has_korean(text: str) -> bool:
    return any("가" <= letter <= "힣" for letter in text)


# --- Korean -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "right"),
    [
        ("은/는", "톰은 민수는 물은 집은 나무는 10은 2는 5는 0은 R1은 Ben은 Mia는"),
        ("이/가", "톰이 지수가 서울이 1이 4가 9가 100이 1000이 10000이 3이"),
        ("을/를", "사과를 빵을 수박을 6을 7을 8을 1,000을 7/2을 2/7를 2.5를 3.0을"),
        ("와/과", "고양이와 개와 곰과 돼지와 11과 12와 13과"),
        ("으로/로", "집으로 학교로 물로 서울로 1로 7로 8로 3으로 6으로 10으로 100으로 Paul로"),
        ("이에요/예요", "과일이에요 채소예요 사자예요 곰이에요 3이에요 5예요"),
        ("아/야", "톰아 민수야"),
        ("이라고/라고", "민준이라고 유나라고"),
    ],
)
def test_particles_follow_the_last_sound(pair, right):
    forms = sorted(pair.split("/"), key=len, reverse=True)
    for form in right.split():
        # The table gives finished forms; the word is what is left without the particle.
        word = next(form.removesuffix(ending) for ending in forms if form.endswith(ending))
        assert particle(word, pair) == form


def test_particle_pairs_work_in_both_orders_and_behind_quotes():
    assert particle("책", "와/과") == particle("책", "과/와") == "책과"
    assert particle("'작다'", "이에요/예요") == "'작다'예요"
    assert f"{Hangul('공'):을/를} {Hangul('공')}" == "공을 공"


@pytest.mark.parametrize(("word", "pair"), [("공", "을/은"), ("", "은/는"), ("?!", "은/는")])
def test_particle_says_what_it_cannot_read(word, pair):
    with pytest.raises(ValueError, match="expected"):
        particle(word, pair)


def test_casual_speech_drops_politeness():
    for fact in FACTS:
        for sentence in (fact.sentence.ko, *fact.questions[1]):
            assert not casual(sentence).rstrip(".?").endswith("요")


def test_english_nouns():
    assert [plural(noun) for noun in ("dog", "peach", "bus", "potato", "cherry", "milk", "socks", "monkey")] == (
        ["dogs", "peaches", "buses", "potatoes", "cherries", "milk", "socks", "monkeys"]
    )
    assert [with_article(noun) for noun in ("old hat", "red apple", "bus", "juice", "Korea")] == (
        ["an old hat", "a red apple", "a bus", "juice", "Korea"]
    )


# --- Facts ------------------------------------------------------------------------------------------------------------


def test_every_question_has_one_answer():
    answers: dict[str, object] = {}
    for fact in FACTS:
        for side in (0, 1):
            for question in fact.questions[side]:
                assert answers.setdefault(question, fact.answer) == fact.answer


def test_facts_say_their_answer_and_mistakes_do_not():
    for fact in FACTS:
        assert fact.answer not in fact.wrong
        assert len(fact.wrong) == len(fact.mistakes) >= 1
        for side in (0, 1):
            assert fact.answer[side] in fact.sentence[side]
            assert fact.sentence[side] not in [mistake[side] for mistake in fact.mistakes]


def test_nouns_translate_one_to_one():
    assert len({word.en for word in NOUNS}) == len({word.ko for word in NOUNS}) == len(NOUNS) > 100


# --- Documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_documents_depend_on_the_generator_alone(kind):
    assert sample(kind, 50, seed=1) == sample(kind, 50, seed=1) != sample(kind, 50, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_documents_vary(kind):
    assert len(set(sample(kind, 2000))) > 0.95 * 2000


@pytest.mark.parametrize("kind", KINDS)
def test_both_languages_occur(kind):
    korean = sum(has_korean(text) for text in sample(kind, 2000)) / 2000
    assert 0.35 < korean < 0.55


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_short_and_complete(kind):
    for text in sample(kind, 2000):
        assert 10 <= len(text.split()) <= 120
        assert text == text.strip()
        assert not re.search(r"[{}]|\bNone\b|은/는|을/를|이/가", text)


def test_few_words_make_the_world():
    english, korean = set(), set()
    for kind in KINDS.keys() - {"code"}:
        for text in sample(kind, 3000):
            english.update(re.findall(r"[a-z]+", text.lower()))
            korean.update(re.findall(r"[가-힣]+", text))
    assert len(english) < 850  # plurals, names and function words included
    assert len(korean) < 3000  # words with their particles and endings


def test_shopping_adds_up():
    seen = 0
    for text in sample("story", 4000):
        found = re.search(r"bought (\d+) (\w+) and .* gave \w+ (\d+) \w+\..* had (\d+) \w+\.", text)
        if found and not has_korean(text):
            seen += 1
            assert int(found[1]) - int(found[3]) == int(found[4])
    assert seen > 50


def test_prices_multiply():
    seen = 0
    for text in sample("dialogue", 4000):
        price, number, total = (
            re.search(pattern, text)
            for pattern in (r"One \w+ is (\d+) dollars", r"(?:like|Give me) (\d+) ", r"That is (\d+) dollars")
        )
        if price and number and total:
            seen += 1
            assert int(price[1]) * int(number[1]) == int(total[1])
    assert seen > 50


# --- Instructions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("kind", INSTRUCTION_KINDS)
def test_good_answers_pass_and_bad_ones_fail(kind, language):
    rng = random.Random(f"{kind}-{language}")
    for _ in range(400):
        instruction = draw_instruction(rng, kind, language)
        assert (instruction.kind, instruction.language) == (kind, language)
        assert passes(instruction.check, instruction.good), instruction
        assert not passes(instruction.check, instruction.bad), instruction


def test_checks_agree_with_a_second_opinion():
    rng = random.Random(5)
    for _ in range(300):
        numbers = draw_instruction(rng, "sort_numbers", "en")
        given = [int(number) for number in numbers.request.split(": ")[1].split(", ")]
        answer = [int(number) for number in numbers.good.split(": ")[-1].split(", ")]
        assert answer in (sorted(given), sorted(given, reverse=True))
        reverse = draw_instruction(rng, "reverse", "ko")
        assert reverse.good.split(", ")[::-1] == reverse.request.split(": ")[1].split(", ")
        capitals = draw_instruction(rng, "capitals", "en")
        assert capitals.good == capitals.request.split(": ")[1].upper()
        count = draw_instruction(rng, "count", "ko")
        sentence = re.split(r"[?:] ", count.request, maxsplit=1)[1]
        assert str(len(sentence.split())) in count.good


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (Check("contains", ("milk",), forbidden=("grass",)), "milk or grass"),
        (Check("contains", ("cat",)), "category"),
        (Check("contains", ("4",)), "14"),
        (Check("contains", ("개",)), "번개"),
        (Check("contains", ("dog",), most_words=5), "dog dog dog dog dog dog"),
        (Check("members", ("cat", "dog"), count=2), "cat, cat"),
        (Check("members", ("cat", "dog"), count=1), "cat, dog"),
        (Check("items", ("1", "2")), "2, 1"),
        (Check("exact", ("RED",)), "Red"),
        (Check("polite", ("book",)), "Give me a book."),
        (Check("starts", ("네",)), "네가 알아서 해."),
    ],
)
def test_checks_are_not_fooled(check, answer):
    assert not passes(check, answer)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (Check("contains", ("in a house",)), "A cat lives in a house."),
        (Check("contains", ("4개",)), "다리가 4개예요."),
        (Check("members", ("cat", "dog", "cow"), count=2), "1. Dog\n2. cat"),
        (Check("items", ("3", "20")), "Sorted: 3, 20"),
        (Check("polite", ("책",)), "책을 주시겠어요?"),
    ],
)
def test_checks_accept_other_wordings(check, answer):
    assert passes(check, answer)


def test_unknown_instructions_are_errors():
    with pytest.raises(ValueError, match="unknown kind 'sing'"):
        draw_instruction(random.Random(0), "sing")
    with pytest.raises(ValueError, match="unknown rule"):
        passes(Check("nice", ()), "yes")


# --- Requests to refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("family", FAMILIES)
def test_harm_is_refused_and_help_is_given(family, language):
    rng = random.Random(f"{family}-{language}")
    for _ in range(200):
        harmful = draw_request(rng, family, language, harmful=True)
        benign = draw_request(rng, family, language, harmful=False)
        assert (harmful.family, harmful.language, harmful.harmful) == (family, language, True)
        assert refuses(harmful.good)
        assert not refuses(harmful.bad)
        assert not refuses(benign.good)
        assert harmful.good != harmful.bad
        assert benign.good != benign.bad
        assert has_korean(harmful.request + benign.good) == (language == "ko")


def test_both_sides_of_a_family_differ():
    rng = random.Random(0)
    harmful = {draw_request(rng, harmful=True).request for _ in range(3000)}
    benign = {draw_request(rng, harmful=False).request for _ in range(3000)}
    assert not harmful & benign


def test_unknown_families_are_errors():
    with pytest.raises(ValueError, match="unknown family 'arson'"):
        draw_request(random.Random(0), "arson")


# --- Programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correct", [True, False])
def test_programs_pass_their_asserts_exactly_when_correct(correct):
    rng = random.Random(7)
    families = set()
    for _ in range(1500):
        program = code.draw_program(rng, correct)
        families.add(program.family)
        assert program.correct is correct
        names: dict = {}
        exec(program.source, names)  # generated by this project, from templates above; never model text
        if correct:
            exec(program.test, names)
        else:
            with pytest.raises(AssertionError):
                exec(program.test, names)
    assert families == set(code.PROGRAM_FAMILIES)


def test_most_documented_programs_are_correct():
    rng = random.Random(3)
    share = sum(code.draw_program(rng).correct for _ in range(2000)) / 2000
    assert abs(share - code.CORRECT_SHARE) < 0.03


def test_doctests():
    import doctest

    for module in (vocabulary, instructions, safety):
        assert doctest.testmod(module).failed == 0
