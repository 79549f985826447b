"""Prompts: R1-Zero's template word for word, and the chat template as the shipped tokenizer renders it."""

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from data.templates import CHAT_TEMPLATE, TEMPLATES, render_prompt, render_prompts

BASE = Path(__file__).resolve().parents[2] / "data/base"

TABLE_1 = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it.
The assistant first thinks about the reasoning process in the mind and then provides the user
with the answer. The reasoning process and answer are enclosed within <think> </think> and
<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think>
<answer> answer here </answer>. User: prompt. Assistant:"""
"""arXiv:2501.12948v1, table 1, as it is printed; "prompt" stands in red, for the question."""

TALK = [
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "<think>\n2 + 3 = 5\n</think>\n<answer>5</answer>"},
    {"role": "user", "content": "고마워. 7 - 4는?"},
    {"role": "assistant", "content": "<think>\n7 - 4 = 3\n</think>\n<answer>3</answer>"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


# --- templates of a base model ----------------------------------------------------------------------------------------


def test_r1_zero_is_table_1_word_for_word():
    assert render_prompt("prompt", "r1_zero") == TABLE_1.replace("\n", " ")
    assert render_prompt("prompt") == render_prompt("prompt", "r1_zero")


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        ("Compute 2 + 3", "User: Compute 2 + 3. Assistant:"),
        ("Compute 2 + 3.", "User: Compute 2 + 3. Assistant:"),
        ("What is 2 + 3?", "User: What is 2 + 3? Assistant:"),
        ("  2 + 3은 얼마입니까?\n", "User: 2 + 3은 얼마입니까? Assistant:"),
        ("二加三是多少？", "User: 二加三是多少？ Assistant:"),
    ],
)
def test_a_question_has_one_mark_at_its_end(problem, shown):
    assert render_prompt(problem, "r1_zero").endswith(shown)


def test_a_template_of_ones_own():
    assert render_prompt("2 + 3?", "Q: {problem}\nA:") == "Q: 2 + 3?\nA:"


def test_a_problem_is_text_and_never_a_format():
    problem = "Is {problem} or {0} or {{x}} \\boxed{} a set? %s"
    assert render_prompt(problem, "plain") == problem


@pytest.mark.parametrize("template", ["r1-zero", "chat", "", "Question: {question}"])
def test_an_unknown_template_is_an_error_that_names_the_known_ones(template):
    with pytest.raises(
        ValueError, match=r"unknown template .*r1_zero, r1_zero_short, plain, a text with \{problem\}.*chat"
    ):
        render_prompt("2 + 3", template)


def test_the_short_template_asks_for_the_same_tags():
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert all(tag in TEMPLATES[name] for name in ("r1_zero", "r1_zero_short"))


# --- problem sets -----------------------------------------------------------------------------------------------------


def test_prompts_are_a_new_column_and_the_rest_stays():
    problems = Dataset.from_dict({"problem": ["2 + 3", "4 - 1?"], "answer": ["5", "3"], "prompt": ["old", "old"]})
    rendered = render_prompts(problems, "r1_zero_short")
    assert rendered["prompt"][:] == [render_prompt(text, "r1_zero_short") for text in problems["problem"]]
    assert rendered["answer"][:] == ["5", "3"]
    assert problems["prompt"][:] == ["old", "old"]


def test_chat_gives_conversations():
    problems = Dataset.from_dict({"problem": ["2 + 3"]})
    assert render_prompts(problems, "chat")["prompt"][0] == [{"role": "user", "content": "2 + 3"}]
    turns = render_prompts(problems, "chat", system="Answer in English.")["prompt"][0]
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert turns[0]["content"] == "Answer in English."


def test_a_set_without_problems_is_an_error():
    with pytest.raises(ValueError, match=r"no `problem` column, only \['question'\]"):
        render_prompts(Dataset.from_dict({"question": ["2 + 3"]}))


# --- the chat template, by the shipped tokenizer ----------------------------------------------------------------------


def test_the_shipped_tokenizer_carries_the_template(tokenizer):
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_turns_stand_in_deepseeks_order(tokenizer):
    text = tokenizer.apply_chat_template([{"role": "system", "content": "S"}, *TALK[:3]], tokenize=False)
    first, second, third = (turn["content"] for turn in TALK[:3])
    assert text == f"S\n<|user|>{first}<|assistant|>{second}<|endoftext|><|user|>{third}"


def test_the_generation_prompt_opens_the_assistants_turn(tokenizer):
    text = tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>What is 2 + 3?<|assistant|>"


def test_reasoning_is_opened_only_on_request(tokenizer):
    opened = tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True, prefill_think=True)
    assert opened == "<|user|>What is 2 + 3?<|assistant|><think>\n"
    closed = tokenizer.apply_chat_template(TALK, tokenize=False, prefill_think=True)
    assert not closed.endswith("<think>\n")


def test_the_role_marks_are_tokens_of_their_own(tokenizer):
    ids = tokenizer.apply_chat_template(TALK, return_dict=True)["input_ids"]
    marks = [tokenizer.decode([token]) for token in ids if token in tokenizer.all_special_ids]
    assert marks == ["<|user|>", "<|assistant|>", "<|endoftext|>"] * 2


def test_the_training_mask_covers_what_the_assistant_writes_and_its_end(tokenizer):
    encoded = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    trained = [token for token, kept in zip(encoded["input_ids"], encoded["assistant_masks"]) if kept]
    answers = [turn["content"] + "<|endoftext|>" for turn in TALK if turn["role"] == "assistant"]
    assert tokenizer.decode(trained) == "".join(answers)
    # No more than that: every question and role mark is left out.
    assert len(trained) == sum(len(tokenizer(answer)["input_ids"]) for answer in answers)


def test_dialogues_keep_their_turns_under_the_chat_template_alone():
    turns = [{"role": "user", "content": "I am Mia."}, {"role": "assistant", "content": "Hello, Mia!"}]
    rows = Dataset.from_list([{"problem": "Who am I?", "history": turns}, {"problem": "6 * 7?", "history": []}])
    asked = {"role": "user", "content": "Who am I?"}
    assert render_prompts(rows, "chat", system="Be brief.")[0]["prompt"] == [
        {"role": "system", "content": "Be brief."}, *turns, asked
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the template 'r1_zero' has one turn; use chat"):
        render_prompts(rows, "r1_zero")
    assert "6 * 7?" in render_prompts(rows.select([1]), "r1_zero")[0]["prompt"]
