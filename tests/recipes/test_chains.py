"""Filters and rewriting against chains written by hand, each of which says what is wrong with it."""

import pytest

from recipes.chains import (
    COLUMNS,
    Chain,
    FilterConfig,
    NothingKeptError,
    chain_filters,
    check_kept,
    filter_table,
    read_chain,
    run_filters,
    sft_rows,
    tidy,
    with_reading,
)
from rewards import check, extract_answer, has_r1_format

EN = {"problem": "What is 6 * 7 + 8?", "answer": "50", "task": "arithmetic", "language": "en", "id": "a", "numbers": []}
KO = EN | {"problem": "6 * 7 + 8을 계산하세요.", "language": "ko", "id": "b"}
NAMES = EN | {"problem": "Who is taller?", "answer": "Tom, Lucy, Paul", "task": "ordering", "id": "c"}
REASONING = "First we multiply: 6 * 7 = 42.\nThen we add: 42 + 8 = 50."
BOUNDS = FilterConfig(max_paragraph_words=60, max_words=120, max_per_prompt=2)


def chain(reasoning=REASONING, answer="50", problem=EN, text=None, **changed):
    text = f"<think> {reasoning} </think>\n<answer> {answer} </answer>" if text is None else text
    return Chain(**{"problem": problem, "text": text, "source": "few-shot", "model": "base", "seed": 1} | changed)


def names():
    return [one.name for one in chain_filters(BOUNDS)]


def dropped_by(chains, without=()):
    """Filter -> how many it dropped, where it dropped any."""
    _, report = run_filters(chains, [one for one in chain_filters(BOUNDS) if one.name not in without])
    return {one["name"]: one["dropped"] for one in report["filters"] if one["dropped"]}


STEPS = [f"{n} + {n * n} = {n + n * n}" for n in range(1, 40)]
CAUGHT = {
    "finished": [chain(text=f"<think>{REASONING}</think>It is \\boxed{{50}}, because", finished=False)],
    "correct": [chain(answer="51")],
    "language": [chain(reasoning="First we multiply: 6 * 7 = 42.\n다음으로 더하면 42 + 8 = 50.")],
    "repetition": [chain(reasoning="\n".join(["6 * 7 = 42, so we have 42."] * 6))],
    "paragraphs": [chain(reasoning="; ".join(STEPS[:14]))],
    "code": [chain(reasoning=f"{REASONING}\n```python\nprint(6 * 7 + 8)\n```")],
    "length": [chain(reasoning="6 * 7 + 8 = 50")],
    "rewriting": [chain(reasoning=f"{REASONING} <|im_end|>")],
    "duplicates": [chain(), chain(reasoning=REASONING.upper(), seed=2)],
    "per prompt": [chain(reasoning=f"{REASONING}\n{step}.", seed=n) for n, step in enumerate(STEPS[:3])],
}
"""Each list loses one chain, to this filter alone."""


@pytest.mark.parametrize("name", CAUGHT)
def test_each_filter_drops_what_no_other_does(name):
    assert dropped_by(CAUGHT[name]) == {name: 1}
    after = {"rewriting"} if name == "correct" else set()  # whose result must pass the accuracy reward, whatever came
    assert dropped_by(CAUGHT[name], without={name} | after) == {}


def test_the_length_filter_has_two_ends_and_does_not_count_a_long_answer():
    assert dropped_by([chain(reasoning="\n".join(STEPS))]) == {"length": 1}
    stated = chain(reasoning="So Tom is first, then Lucy, then Paul.", answer="Tom, Lucy, Paul", problem=NAMES)
    assert dropped_by([stated]) == {"length": 1}


@pytest.mark.parametrize(
    "text",
    [
        f"{REASONING} The answer is 50.",
        f"<think>{REASONING}",
        f"Sure. <think>{REASONING}</think><answer>50</answer>",
        f"<think></think><answer>50</answer> {REASONING}",
        f"<think>{REASONING}</think> I do not know.",
        f"<think>{REASONING}</think><think>50</think><answer>50</answer>",
    ],
)
def test_what_cannot_be_read_counts_for_the_format(text):
    assert dropped_by([chain(text=text)]) == {"format": 1}


def test_good_chains_pass_and_every_filter_is_in_the_report():
    good = [chain(), chain(problem=KO, reasoning="먼저 곱하면 6 * 7 = 42 이다.\n더하면 42 + 8 = 50 이다.", seed=2)]
    kept, report = run_filters(good, chain_filters(BOUNDS))
    assert kept == good
    assert {one["name"] for one in report["filters"]} == {*CAUGHT, "format"}
    assert (report["seen"], report["kept"]) == (2, 2)


def test_counts_add_up_and_at_most_three_examples_are_shown():
    everything = [one for chains in CAUGHT.values() for one in chains] + [chain(answer="52")] * 4
    kept, report = run_filters(everything, chain_filters(BOUNDS))
    assert report["seen"] == len(everything) == report["kept"] + sum(one["dropped"] for one in report["filters"])
    assert report["kept"] == len(kept)
    wrong = next(one for one in report["filters"] if one["name"] == "correct")
    assert wrong["dropped"] == 5 == wrong["sources"]["few-shot"]
    assert len(wrong["examples"]) == 3
    assert all(EN["problem"] in example and "5" in example for example in wrong["examples"])
    printed = {line.rsplit(None, 1)[0].strip(): line.rsplit(None, 1)[1] for line in filter_table(report).splitlines()}
    assert printed["correct"] == "-5"
    assert printed["seen"] == str(len(everything))


def test_what_was_dropped_while_a_set_was_read_counts_as_seen():
    _, report = run_filters([chain(source="external"), chain(answer="51")], chain_filters(BOUNDS))
    read = [{"name": "a/set: without a closed reasoning", "dropped": 3, "examples": ["…"]}]
    whole = with_reading(report, read, "external")
    assert whole["filters"][0] == read[0] | {"sources": {"external": 3}}
    assert whole["filters"][1:] == report["filters"]
    assert whole["sources"] == {"external": {"seen": 4, "kept": 1}, "few-shot": {"seen": 1, "kept": 0}}
    assert whole["seen"] == 5 == whole["kept"] + sum(one["dropped"] for one in whole["filters"])
    assert "a/set: without a closed reasoning" in filter_table(whole)
    assert with_reading(report, [], "external") == report


def test_prompts_share_their_places_among_the_sources():
    few = [chain(reasoning=f"{REASONING}\n{step}.", seed=n) for n, step in enumerate(STEPS[:3])]
    zero = [chain(reasoning=f"{REASONING}\n{step}.", seed=n, source="r1-zero") for n, step in enumerate(STEPS[5:8])]
    kept, _ = run_filters([*few, *zero], chain_filters(BOUNDS))
    assert [(one.source, one.seed) for one in kept] == [("few-shot", 0), ("r1-zero", 0)]


def test_nothing_kept_is_an_error_that_names_each_count():
    _, report = run_filters([chain(answer="51"), chain(answer="52"), chain(text="50")], chain_filters(BOUNDS))
    message = r"none of 3 chains .*format dropped 1, correct dropped 2.*; try harder"
    with pytest.raises(NothingKeptError, match=message) as nothing:
        check_kept(report, "try harder")
    assert nothing.value.report == report
    check_kept(run_filters([chain()], chain_filters(BOUNDS))[1], "unused")


# --- rewriting --------------------------------------------------------------------------------------------------------


def test_the_readable_pattern_letter_by_letter():
    untidy = chain(
        text=" <think>  6 * 7 =  42 \n\n\n\n 42 + 8 = 50 </think>  <answer> 50. </answer>\nUser: 1+1?\nAssistant:"
    )
    assert untidy.completion == (
        "<think>\n6 * 7 = 42\n\n42 + 8 = 50\n</think>\n<answer>The answer is \\boxed{50}.</answer>"
    )
    korean = chain(problem=KO, reasoning="6 * 7 = 42, 42 + 8 = 50", answer="정답: 50 이다.")
    assert korean.completion == "<think>\n6 * 7 = 42, 42 + 8 = 50\n</think>\n<answer>답은 \\boxed{50} 이다.</answer>"


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (EN, "50"),
        (KO, "50"),
        (NAMES, "tom,  Lucy,Paul"),
        (EN | {"task": "countdown", "answer": "24", "numbers": [6, 3, 1]}, "(1 + 3) * 6 = 24"),
        (EN | {"task": "equations", "answer": "-7/2"}, "x = -7/2"),
        (EN | {"task": "math", "answer": "\\frac{1}{2}"}, "$\\frac{1}{2}$"),
    ],
)
def test_rewritten_chains_pass_our_own_rewards(problem, answer):
    completion = chain(problem=problem, answer=answer).completion
    assert has_r1_format(completion)
    verdict = check(
        gold=problem["answer"], answer=extract_answer(completion), task=problem["task"], numbers=problem["numbers"]
    )
    assert verdict.reward == 1.0


def test_a_chain_keeps_its_own_summary_where_that_is_readable():
    def answer_of(summary, problem=EN):
        completion = chain(problem=problem, text=f"<think>{REASONING}</think>\n{summary}").completion
        return completion.partition("<answer>")[2].removesuffix("</answer>")

    assert answer_of("Six sevens and eight make $\\boxed{50}$.") == "Six sevens and eight make $\\boxed{50}$."
    assert answer_of("The answer is 50.") == "The answer is \\boxed{50}."
    assert answer_of("여섯에 일곱을 곱하면 $\\boxed{50}$ 이다.") == "The answer is \\boxed{50}."
    assert answer_of("We get \\boxed{50}." + " Really." * 400) == "The answer is \\boxed{50}."


def test_what_follows_the_answer_is_cut_and_a_tag_in_quotes_is_text():
    assert read_chain("<think>a</think><answer>1</answer> <answer>2</answer>").answer == "1"
    assert (
        read_chain("<think>I write `<answer>` next.</think><answer>1</answer>").reasoning == "I write `<answer>` next."
    )


def test_indents_of_code_stay():
    assert tidy("see:\n```\nif x:\n    y()\n```  ") == "see:\n```\nif x:\n    y()\n```"


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_carry_where_they_came_from():
    chains = [chain(seed=7, prompt="Q: 6*7+8?"), chain(problem=KO, seed=8, source="r1-zero", model="zero")]
    rows = sft_rows(chains, FilterConfig())
    assert sft_rows([], FilterConfig()).features == rows.features
    assert rows.column_names == ["prompt", "completion", *COLUMNS]
    first, second = rows
    assert first["prompt"] == [{"role": "user", "content": EN["problem"]}]
    assert first["completion"] == [{"role": "assistant", "content": chain().completion}]
    assert {name: first[name] for name in COLUMNS if name != "kept_because"} == {
        "kind": "reasoning", "language": "en", "task": "arithmetic", "problem_id": "a", "source": "few-shot",
        "model": "base", "seed": 7, "source_id": "", "sampled_prompt": "Q: 6*7+8?", "raw_response": chain().text,
    }  # fmt: skip
    assert "'50' is right" in first["kept_because"]
    assert "100% of the words in en" in first["kept_because"]
    assert (second["source"], second["model"], second["problem_id"]) == ("r1-zero", "zero", "b")


def test_a_system_prompt_stands_first():
    (row,) = sft_rows([chain()], FilterConfig(), system="Be brief.")
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]


def test_bounds_that_nothing_can_meet_are_errors():
    with pytest.raises(ValueError, match=r"min_words 9 is above max_words 8"):
        FilterConfig(min_words=9, max_words=8)
    with pytest.raises(ValueError, match=r"max_repetition is a share"):
        FilterConfig(max_repetition=2.0)
    with pytest.raises(ValueError, match=r"max_per_prompt must be 1 or more"):
        FilterConfig(max_per_prompt=0)
