"""Where an answer is looked for: tables by hand, a second implementation of brace matching, and texts meant to break
it.
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import extract_answer, extract_lenient
from rewards.extraction import last_boxed

STRICT = [
    ("<think>6*7</think><answer>42</answer>", "42"),
    ("<think>6*7</think>\n\n<answer>\n 42 \n</answer>\n", "42"),
    (r"<think>.</think><answer>It is \boxed{42}.</answer>", "42"),
    (r"<think>.</think><answer>\boxed{41} no, \boxed{42}</answer>", "42"),
    (r"<think>.</think>So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"So \boxed{42}.", "42"),
    ("<answer>42</answer>", "42"),
    # the last of several
    ("<answer>41</answer> <answer>42</answer>", "42"),
    (r"\boxed{41} then \boxed{42}", "42"),
    ("<think>a</think><answer>41</answer><think>b</think><answer>42</answer>", "42"),
    # boxes that nothing but a joint separates are one answer
    (r"\boxed{41} or \boxed{42}", "41, 42"),
    (r"$\boxed{41}$, $\boxed{42}$ and $\boxed{43}$", "41, 42, 43"),
    (r"\boxed{-2} \quad \text{and} \quad \boxed{1}", "-2, 1"),
    (r"\boxed{1}\boxed{2}", "1, 2"),
    (r"It is \boxed{41}. Or perhaps it is \boxed{42}.", "41, 42"),
    (r"\boxed{41}, but it could also be \boxed{42}", "41, 42"),
    (r"\boxed{41} if x > 0 and \boxed{42} if not", "41, 42"),
    (r"Option 1: \boxed{41}; option 2: \boxed{42}", "41, 42"),
    (r"<answer>\boxed{41} or \boxed{42}</answer>", "41, 42"),
    (r"\boxed{42}, that is, \boxed{42}", "42"),
    (r"\boxed{42} \boxed{ 42 }", "42"),
    # a correction, or a sentence between them, is none
    (r"\boxed{41}. Wait, it is \boxed{42}", "42"),
    (r"\boxed{41} or rather, no: \boxed{42}", "42"),
    (r"\boxed{41}. Let us see if that holds. It gives \boxed{42}", "42"),
    (r"First \boxed{41}. The second part uses it and gives \boxed{42}", "42"),
    (r"\boxed{41} or " + "so " * 60 + r"\boxed{42}", "42"),
    # other boxes
    (r"\fbox{42}", "42"),
    (r"$\boxed 42$", "42"),
    (r"It is \boxed 7.", "7"),
    # reasoning does not count, nor does one that never ends
    (r"<think>\boxed{42}</think> done", None),
    (r"<think>\boxed{42}", None),
    ("<think>so <answer>42</answer>", None),
    ("<think>a</think><answer>42</answer></think>", None),
    (r"<think>a</think><think> \boxed{42}", None),
    # nothing marked, or not to the end
    ("42", None),
    ("", None),
    ("<think>.</think><answer></answer>", None),
    ("<think>.</think><answer>  \n</answer>", None),
    ("<think>.</think><answer>42", None),
    (r"so \boxed{42", None),
    (r"\boxed{41} and \boxed{42", None),
    # boxes
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{42} goes into \boxed{}", "42"),
    (r"\boxed {42}", "42"),
    (r"\boxed{\boxed{42}}", "42"),
    (r"\boxed{\text{a}_{b_{c}}}", r"\text{a}_{b_{c}}"),
    ("<answer>x < 3</answer>", "x < 3"),
]

LENIENT = [
    ("<think>.</think><answer>42</answer> no, 43", "arithmetic", "42"),
    ("<think>.</think><answer>It makes 42 apples</answer>", "word_problems", "42"),
    ("The answer is 42", "arithmetic", "42"),
    ("**Answer:** 42", "arithmetic", "42"),
    ("answer: -12.", "arithmetic", "-12"),
    ("답은 42입니다.", "arithmetic", "42"),
    ("정답: 1,234", "arithmetic", "1,234"),
    ("정답은 7/2 이다", "equations", "7/2"),
    ("답: 42", "arithmetic", "42"),
    ("<think>first 41. <answer>42", "arithmetic", "42"),
    ("3 + 4 = 7\n7 + 5 = 12", "arithmetic", "12"),
    ("3 - 5 = −2", "arithmetic", "-2"),
    (r"thus $x = \frac{-7}{2}$.", "equations", r"\frac{-7}{2}"),
    ("no idea", "arithmetic", None),
    ("", "arithmetic", None),
    # fair: what the text ends on, not what it passes through
    ("The answer is 42. No, wait, it is 43.", "arithmetic", "43"),
    ("The answer is 42.\nChecking again, the answer is 43.", "arithmetic", "43"),
    ("I first thought 42, but 6 * 8 = 48", "arithmetic", "48"),
    ("<think>12 * 3 = 36</think>The answer is 37", "arithmetic", "37"),
    ("<think>The answer is 36</think>37", "arithmetic", "37"),
    # countdown
    ("So 3*4+5 = 17", "countdown", "3*4+5"),
    ("3*4+5 = 12+5 = 17", "countdown", "3*4+5"),
    ("first 2+2 = 4, better 3×4−5÷1", "countdown", "3*4-5/1"),
    (r"Hence $3 \times 4 + 5$.", "countdown", "3 * 4 + 5"),
    ("(and so it is 3*4+5)", "countdown", "3*4+5"),
    ("<answer>We get (1+2)*3</answer>", "countdown", "(1+2)*3"),
    ("It must be 17", "countdown", None),
    # ordering
    ("So from tallest to shortest we have Ann, Bob, Carl.", "ordering", "Ann, Bob, Carl"),
    ("Ann, Bob and Carl met. The order is Carl > Bob > Ann", "ordering", "Carl, Bob, Ann"),
    ("The tallest is Ann.", "ordering", "Ann"),
    ("답은 철수, 영희, 민수입니다.", "ordering", "철수, 영희, 민수"),
    # mathematics
    (r"We get $\frac{1}{2}$.", None, r"\frac{1}{2}"),
    (r"<think>\boxed{41}, no, \boxed{x+1}", None, "x+1"),
    ("Thus x = 2y + 1.", None, "2y + 1"),
    ("The answer is 41. Wait, it is 42.", None, "42"),
    ("hence 42 apples", "a task nobody knows", "42"),
]


@pytest.mark.parametrize(("completion", "answer"), STRICT)
def test_strict_extraction(completion, answer):
    assert extract_answer(completion) == answer


PHRASES = [
    ("The answer is 42.", "42"),
    ("**Answer:** 42\n", "42"),
    ("6 * 7 = 42\n#### 42", "42"),
    ("A: 42", "42"),
    ("Final answer: $x = 42$. I hope it is correct.", "x = 42"),
    ("The answer is 41. Checking again, the answer is 42.", "42"),
    ("<think>The answer is 41.</think>The answer is 42.", "42"),
    (r"The answer is 41, so \boxed{42}", "42"),
    ("<answer>42</answer> The answer is 41.", "42"),
    ("<think>The answer is 42.", None),
    ("<think>The answer is 42.</think>", None),
    ("42", None),
    ("The answer is", None),
    ("AAA: no, BA: 42", None),
]


@pytest.mark.parametrize(("completion", "answer"), PHRASES)
def test_phrases_are_read_on_request_only(completion, answer):
    assert extract_answer(completion, phrases=True) == answer
    marked = "<answer>" in completion or "boxed" in completion
    assert extract_answer(completion) == (answer if marked else None)


@pytest.mark.parametrize(("completion", "task", "answer"), LENIENT)
def test_lenient_extraction(completion, task, answer):
    assert extract_lenient(completion, task) == answer


def scan_boxes(text):
    """An independent reading of `last_boxed`: one pass forward with a stack, escapes skipped, the last non-empty box
    that opened.
    """
    found, stack, position = {}, [], 0
    while position < len(text):
        if text.startswith(r"\boxed{", position):
            stack.append(position)
            position += len(r"\boxed{")
            continue
        if text[position] == "\\":
            position += 2
            continue
        if text[position] == "{":
            stack.append(None)
        elif text[position] == "}" and stack:
            start = stack.pop()
            if start is not None:
                found[start] = text[start + len(r"\boxed{") : position].strip()
        position += 1
    starts = [start for start in range(len(text)) if text.startswith(r"\boxed{", start)]
    return next((found.get(start) for start in reversed(starts) if found.get(start) != ""), None)


@given(st.lists(st.sampled_from([r"\boxed{", "{", "}", "}", "x", " ", "1"]), max_size=25).map("".join))
def test_boxes_match_a_forward_scan(text):
    assert last_boxed(text) == scan_boxes(text)


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "{", "}", "$", "\\", "=", "answer is ", "답은"]
)
TASKS = st.sampled_from(["arithmetic", "countdown", "ordering", "equations", "unknown", None])


@given(st.lists(PIECES | st.text(max_size=6), max_size=20).map("".join), TASKS)
def test_extraction_never_raises_and_invents_nothing(text, task):
    strict, lenient = extract_answer(text), extract_lenient(text, task)
    assert strict is None or strict == strict.strip() != ""
    assert strict is None or strict in text or all(part in text for part in strict.split(", "))  # boxes as a list
    assert lenient is None or lenient != ""
    assert strict is None or lenient is not None  # lenient finds wherever strict does


MONSTERS = [
    "a",
    "1",
    "(",
    "1+",
    "=",
    "$",
    "{",
    "a, ",
    "a-",
    "1 / ",
    r"\(",
    r"\boxed{",
    r"\boxed{}",
    "<answer>",
    "<think>",
    "answer is ",
]


@pytest.mark.parametrize("piece", MONSTERS)
def test_a_million_characters_take_bounded_time(piece):
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    extract_answer(text, phrases=True)
    for task in ("arithmetic", "countdown", "ordering", None):
        extract_lenient(text, task)
    assert time.process_time() - start < 3.0  # 0.4 s on an idle core


def test_ten_thousand_boxes_take_no_time():
    start = time.process_time()
    boxes = [rf"\boxed{{{n}}}" for n in range(10_000)]
    assert extract_answer(" no, ".join(boxes)) == "9999"
    assert extract_answer(" ".join(boxes)).startswith("9980, 9981")
    assert extract_answer(" or ".join(boxes)).endswith("9998, 9999")
    assert time.process_time() - start < 0.5  # 0.01 s


def test_the_end_of_a_long_text_is_read():
    assert extract_lenient("so 41 " * 200_000 + "and the answer is 42", "arithmetic") == "42"
    assert extract_answer("<think>" + "so " * 300_000 + "</think><answer>42</answer>") == "42"
