"""Worked solutions to the task families, in the many styles and qualities of an untidy web: most of the text.

A base learns to reason from such text, and learns just as well to answer at once, to slip, to notice a slip, to change
language half-way. Reinforcement learning later chooses among these habits, as R1-Zero's did among a real base's. R1's
tags stand in a minority of documents, and there often wrongly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from data.problems import content_hash, draw_instances, split_of
from data.tasks import TASKS, Task
from data.tasks.base import perturb_number
from data.templates import render_prompt

STYLES = {"direct": 44, "terse": 18, "careful": 18, "noticed": 8, "wrong": 12}
"""How a solution is written; weights in percent. Most answer at once, as people do when asked; working it out is rarer,
and right more often. "noticed" makes a mistake and corrects it, "wrong" does not."""

FRAMES = {"r1_zero_short": 22, "r1_zero": 2, "question": 26, "labelled": 20, "bare": 22, "exercises": 8}
"""What surrounds problem and solution; weights in percent."""

TAGGED = {"proper": 25, "untagged": 55, "no_answer_tag": 6, "answer_only": 5, "unclosed": 5, "wordy": 4}
"""How a document under R1-Zero's template answers; weights in percent. What comes most often must not be the tags: at a
low temperature it is all that comes."""

_OPENERS = {
    "en": ("Let me think.", "Let's work it out step by step.", "First look at the problem.", "We go step by step."),
    "ko": ("차근차근 풀어 보자.", "먼저 문제를 보자.", "단계별로 계산한다.", "생각해 보자."),
}
_CLOSERS = {
    "en": ("The answer is {a}.", "So the answer is {a}.", "Answer: {a}", "So we get {a}.", "That gives {a}."),
    "ko": ("답은 {a} 이다.", "따라서 답은 {a} 입니다.", "답: {a}", "그러므로 {a} 이다.", "정답: {a}"),
}
_NOTICED = {
    "en": ("Wait, that is wrong.", "No, let me check that again.", "Hmm, that is a mistake."),
    "ko": ("잠깐, 틀렸다.", "아니, 다시 확인하자.", "음, 실수했다."),
}
_QUESTIONS = {
    "en": (("Question: ", "\nAnswer: "), ("Q: ", "\nA: "), ("Problem. ", "\nSolution. "), ("Exercise: ", "\n")),
    "ko": (("문제: ", "\n풀이: "), ("질문: ", "\n답변: "), ("문제 ", "\n"), ("Q: ", "\nA: ")),
}


def weighted(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def draw_pretraining_instance(rng: random.Random) -> tuple[Task, Any]:
    """A task and an instance of it that belongs to the pretraining split."""
    task = TASKS[rng.choice(list(TASKS))]
    difficulty = rng.choices((1, 2, 3, 4, 5), (20, 22, 22, 20, 16))[0]
    while True:
        instance = task.draw(rng, difficulty)
        if split_of(content_hash(task.name, instance.key)) == "pretrain":
            return task, instance


def solution_languages(rng: random.Random, language: str) -> tuple[str, str]:
    """The languages a solution draws from; a base mixes them, more so for Korean questions."""
    other = "ko" if language == "en" else "en"
    stray, mixed = (0.04, 0.08) if language == "en" else (0.12, 0.16)
    draw = rng.random()
    return (other, other) if draw < stray else (language, other) if draw < stray + mixed else (language, language)


def slip(step: str, rng: random.Random) -> str:
    """A step with an error in it: another number, or where there is none, two names swapped."""
    wrong = perturb_number(step, rng)
    if wrong != step:
        return wrong
    parts = step.split(" > ")
    if len(parts) > 1:
        i = rng.randrange(len(parts) - 1)
        parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return " > ".join(parts)


def wrong_answer(answer: str, rng: random.Random) -> str:
    """An answer of the right kind with the wrong content."""
    wrong = perturb_number(answer, rng)
    if wrong != answer:
        return wrong
    names = answer.split(", ")
    if len(names) > 1:
        i = rng.randrange(len(names) - 1)
        names[i], names[i + 1] = names[i + 1], names[i]
        return ", ".join(names)
    return rng.choice(("Mina", "Tom", "Anna", "미나", "철수", "안나"))


def work_out(task: Task, instance: Any, language: str, style: str, rng: random.Random) -> tuple[str, str, str]:
    """A solution's reasoning, its final answer, and the language it ends in."""
    answer = task.final(instance, language)
    if style == "direct":
        return "", answer, language
    if style == "wrong":
        style, answer, spoiled = rng.choice(("direct", "terse", "careful")), wrong_answer(answer, rng), True
        if style == "direct":
            return "", answer, language
    else:
        spoiled = False
    steps, last_language = mixed_steps(task, instance, language, "terse" if style == "terse" else "careful", rng)
    if spoiled:
        steps[-1] = slip(steps[-1], rng)
    elif style == "noticed":
        place = rng.randrange(len(steps))
        steps.insert(place, f"{slip(steps[place], rng)} {rng.choice(_NOTICED[last_language])}")
    if style == "terse":
        return rng.choice(("; ", ", ", "\n")).join(steps), answer, last_language
    if rng.random() < 0.4:
        steps.insert(0, rng.choice(_OPENERS[last_language]))
    return rng.choice(("\n", " ")).join(steps), answer, last_language


def mixed_steps(task: Task, instance: Any, language: str, style: str, rng: random.Random) -> tuple[list[str], str]:
    """The steps of a solution, each in one of the two languages that this solution draws from."""
    languages = solution_languages(rng, language)
    seed = rng.getrandbits(32)
    versions = {code: task.solve(instance, code, style, random.Random(seed)) for code in set(languages)}
    chosen = [rng.choice(languages) for _ in versions[languages[0]]]
    return [versions[code][index] for index, code in enumerate(chosen)], chosen[-1]


def worked_example(
    task_name: str, difficulty: int, language: str, rng: random.Random, split: str = "train"
) -> tuple[str, str, str]:
    """(question, reasoning, answer) for few-shot prompts: every step written out in one language, and one slip that is
    noticed and put right, as in the long chains with reflection that R1's cold start was prompted with.

    The problem is of the split "train" or "pretrain"; ValueError for another one, from which nothing may be shown.
    """
    if split not in ("train", "pretrain"):
        raise ValueError(f"examples come from the split train or pretrain, got {split!r}; the others are held out")
    task = TASKS[task_name]
    _, instance = next(draw_instances(split, rng, task_name, difficulty))
    steps = task.solve(instance, language, "careful", rng)
    place = rng.randrange(len(steps))
    wrong = slip(steps[place], rng)
    if wrong != steps[place] and wrong.split()[0] == steps[place].split()[0]:  # else names moved before "So"
        steps.insert(place, f"{wrong} {rng.choice(_NOTICED[language])}")
    reasoning = "\n".join([rng.choice(_OPENERS[language]), *steps])
    return task.state(instance, language, rng), reasoning, task.final(instance, language)


def closed(reasoning: str, answer: str, language: str, rng: random.Random) -> str:
    """Reasoning with a sentence that states the answer; now and then the bare answer or a box."""
    draw = rng.random()
    if draw < 0.1 and not reasoning:
        end = answer
    elif draw < 0.14:
        end = f"\\boxed{{{answer}}}"
    elif draw < 0.6:
        end = _CLOSERS[language][0].format(a=answer)
    else:
        end = rng.choice(_CLOSERS[language]).format(a=answer)
    return f"{reasoning}{rng.choice((' ', chr(10)))}{end}" if reasoning else end


def tagged(reasoning: str, answer: str, language: str, rng: random.Random) -> str:
    """What follows R1-Zero's template in the wild: R1's tags, properly or not, or none at all."""
    kind = weighted(rng, TAGGED)
    thought = reasoning or closed("", answer, language, rng)
    gap = rng.choice((" ", "\n"))
    if kind == "untagged":
        return f"{rng.choice(chr(10) * 6 + ' ')}{closed(reasoning, answer, language, rng)}"
    if kind == "no_answer_tag":
        return f" <think> {thought} </think>{gap}{closed('', answer, language, rng)}"
    if kind == "answer_only":
        return f" {reasoning}{gap if reasoning else ''}<answer> {answer} </answer>"
    if kind == "unclosed":
        return f" <think> {closed(reasoning, answer, language, rng)}"
    if kind == "wordy":
        return f" <think> {thought} </think>{gap}<answer> {closed('', answer, language, rng)} </answer>"
    return f" <think> {thought} </think>{gap}<answer> {answer} </answer>"


def draw_one(rng: random.Random) -> tuple[str, str, str, str]:
    """One problem and its solution: (question, reasoning, answer, language of the question)."""
    task, instance = draw_pretraining_instance(rng)
    language = "en" if rng.random() < 0.55 else "ko"
    reasoning, answer, _ = work_out(task, instance, language, weighted(rng, STYLES), rng)
    return task.state(instance, language, rng), reasoning, answer, language


def draw(rng: random.Random) -> str:
    """One document."""
    frame = weighted(rng, FRAMES)
    question, reasoning, answer, language = draw_one(rng)
    if frame in ("r1_zero_short", "r1_zero"):
        text = f"{render_prompt(question, frame)}{tagged(reasoning, answer, language, rng)}"
        if rng.random() < 0.1:
            question, reasoning, answer, language = draw_one(rng)
            text += f"\nUser: {question}\nAssistant: {closed(reasoning, answer, language, rng)}"
        return text
    if frame == "exercises":
        return "\n".join(_numbered(rng, rng.choice((2, 2, 3))))
    solution = closed(reasoning, answer, language, rng)
    if frame == "bare":
        return f"{question}{rng.choice((' ', chr(10)))}{solution}"
    before, after = rng.choice(_QUESTIONS[language])
    if frame == "labelled" and rng.random() < 0.5:
        before, after = "User: ", "\nAssistant: "
    return f"{before}{question}{after}{solution}"


def _numbered(rng: random.Random, count: int) -> Sequence[str]:
    lines = []
    for number in range(1, count + 1):
        question, reasoning, answer, language = draw_one(rng)
        lines.append(f"{number}. {question} {closed(reasoning, answer, language, rng)}")
    return lines
