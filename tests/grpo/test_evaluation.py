"""The evaluation protocol over a sampler whose answers are known, so every number can be written down by hand."""

import pytest
from tiny import EOS, PAD, tiny_dataset, tiny_model, tiny_tokenizer

from grpo.evaluation import Judge, Protocol, evaluate_policy, evaluation_report, gain
from grpo.sampling import Completion, Sampler, SamplingConfig


def correct(prompts, completions, answer, **columns):
    """The text ends in "=" and the answer: right, and in the right place."""
    return [float(text(c).endswith("=" + a)) for c, a in zip(completions, answer)]


def lenient(prompts, completions, answer, **columns):
    return [float(a in text(c)) for c, a in zip(completions, answer)]


def formatted(prompts, completions, **columns):
    """0.5 for half of the format: that is not formatted."""
    return [1.0 if "=" in text(c) else 0.5 for c in completions]


def text(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]


def answer_key(completion, row):
    return completion.partition("=")[2] or None


JUDGE = Judge(correct=correct, lenient=lenient, formatted=formatted, answer_key=answer_key)
TEXTS = {"1+1=": ["?=2", "?=3", "2", "?=2"], "9-2=": ["7", "a=7", "=8", "=8"], "5=": ["", "", "", ""]}
GREEDY = {"1+1=": "=2", "9-2=": "7", "5=": "=5"}
ROWS = {
    "answer": ["2", "7", "5"],
    "task": ["arithmetic", "arithmetic", "equations"],
    "difficulty": [1, 3, 3],
    "language": ["en", "ko", "en"],
    "id": ["a", "b", "c"],
}


class Scripted:
    """A sampler that answers by prompt, and keeps what it was asked."""

    def __init__(self, texts=TEXTS, greedy=GREEDY):
        self.texts, self.greedy, self.asked = texts, greedy, []
        self.tokenizer = tiny_tokenizer()

    def sample(self, prompt_ids, seeds, config, max_rows=512, on_progress=None):
        self.asked.append((prompt_ids, seeds, config, max_rows))
        groups = []
        for ids, row in zip(prompt_ids, seeds):
            prompt = self.tokenizer.decode(ids)
            texts = self.texts[prompt][: len(row)] if config.temperature else [self.greedy[prompt]]
            groups.append([self.completion(text) for text in texts])
        return groups

    def completion(self, text):
        """A text without an answer was cut off."""
        cut = "=" not in text
        ids = self.tokenizer(text)["input_ids"] + ([] if cut else [EOS])
        return Completion(ids, [-1.0] * len(ids), truncated=cut)


def problems(**columns):
    return tiny_dataset(list(TEXTS), **ROWS | columns)


def evaluate(sampler=None, dataset=None, **protocol):
    sampler = Scripted() if sampler is None else sampler
    return evaluate_policy(
        sampler, tiny_tokenizer(), problems() if dataset is None else dataset, JUDGE, Protocol(**{"k": 4} | protocol)
    )


def test_every_sample_is_judged():
    first, second, third = evaluate()
    assert first["correct"] == [True, False, False, True]
    assert first["lenient"] == [True, False, True, True]
    assert first["formatted"] == [True, True, False, True]
    assert first["answers"] == ["2", "3", None, "2"]
    assert first["lengths"] == [4, 4, 1, 4], "with the end token"
    assert first["truncated"] == [False, False, True, False]
    assert first["texts"] == TEXTS["1+1="]
    assert (first["greedy_correct"], first["greedy_text"]) == (True, "=2")
    assert second["correct"] == [False, True, False, False]
    assert second["greedy_correct"] is False
    assert third["truncated"] == [True] * 4
    assert [sample["id"] for sample in (first, second, third)] == ["a", "b", "c"]
    assert (second["task"], second["difficulty"], second["language"]) == ("arithmetic", 3, "ko")


def test_the_protocol_is_r1_s():
    """arXiv:2501.12948: temperature 0.6, top-p 0.95; greedy beside it, with one sample a problem."""
    sampler = Scripted()
    evaluate(sampler, max_completion_length=99)
    (prompts, seeds, config, _), (greedy_prompts, greedy_seeds, greedy_config, _) = sampler.asked
    assert config == SamplingConfig(max_new_tokens=99, temperature=0.6, top_p=0.95)
    assert greedy_config == SamplingConfig(max_new_tokens=99, temperature=0)
    assert prompts == greedy_prompts == [tiny_tokenizer()(prompt)["input_ids"] for prompt in TEXTS]
    assert [len(row) for row in seeds] == [4, 4, 4]
    assert [len(row) for row in greedy_seeds] == [1, 1, 1]
    assert len({seed for row in seeds for seed in row}) == 12


def test_greedy_is_optional():
    sampler = Scripted()
    samples = evaluate(sampler, greedy=False)
    assert len(sampler.asked) == 1
    assert all(sample["greedy_correct"] is None for sample in samples)


def test_a_problem_needs_a_sample():
    with pytest.raises(ValueError, match="k must be 1 or more samples a problem, got 0"):
        evaluate(k=0)


def test_conversations_are_judged_as_conversations():
    """Rewards get the completion as a message, as in training; the prompt goes through the chat template."""
    dataset = tiny_dataset([[{"role": "user", "content": "1+1="}]], answer=["2"])
    asked = Scripted({"u:1+1=a:": ["?=2", "?=3"]}, {"u:1+1=a:": "=2"})
    (sample,) = evaluate(asked, dataset, k=2)
    assert sample["correct"] == [True, False]
    assert sample["task"] is None


# ---------------------------------------------------------------- the real sampler


SHORT = {"temperature": 1.0, "max_completion_length": 10}


def real_sampler():
    return Sampler(tiny_model(), [EOS], PAD)


def test_the_same_seed_gives_the_same_samples():
    runs = [evaluate(real_sampler(), seed=seed, **SHORT) for seed in (0, 0, 1)]
    texts = [[sample["texts"] for sample in run] for run in runs]
    assert texts[0] == texts[1] != texts[2]
    assert [sample["greedy_text"] for sample in runs[0]] == [sample["greedy_text"] for sample in runs[2]]


def test_more_samples_begin_with_the_same_ones():
    """And a problem's samples do not depend on how many rows decode together."""
    few, many = (evaluate(real_sampler(), k=k, **SHORT) for k in (2, 5))
    assert [sample["texts"] for sample in few] == [sample["texts"][:2] for sample in many]
    one_by_one = evaluate_policy(
        real_sampler(), tiny_tokenizer(), problems(), JUDGE, Protocol(k=5, **SHORT), max_rows=1
    )
    assert one_by_one == many


def test_progress_is_told():
    seen = []
    evaluate_policy(
        real_sampler(), tiny_tokenizer(), problems(), JUDGE, Protocol(k=2, max_completion_length=4), max_rows=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == sorted(set(seen)), "it only rises"
    assert seen[-1] == (6, 6)
    assert {total for _, total in seen} == {6}


# ---------------------------------------------------------------- eval.json


def test_the_report_adds_up():
    report = evaluation_report({"base": evaluate()}, Protocol(k=4), {"model": "tiny"})
    overall = report["overall"]["base"]
    assert overall["pass@1"] == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert overall["lenient_pass@1"] == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert overall["pass@4"] == pytest.approx(2 / 3)
    assert overall["cons@4"] == pytest.approx(1 / 3), (
        "2 wins the first problem, the wrong 8 the second, nothing the third"
    )
    assert overall["format"] == pytest.approx((3 + 3 + 0) / 12)
    assert overall["truncated"] == pytest.approx((1 + 1 + 4) / 12)
    assert overall["greedy"] == pytest.approx(2 / 3)
    assert overall["num_problems"] == 3
    tasks = {name: sides["base"]["pass@1"] for name, sides in report["tasks"].items()}
    assert tasks == {"arithmetic": pytest.approx(3 / 8), "equations": 0}
    difficulties = {name: sides["base"]["num_problems"] for name, sides in report["difficulties"].items()}
    assert difficulties == {"1": 1, "3": 2}
    assert {name: sides["base"]["pass@1"] for name, sides in report["languages"].items()} == {"en": 0.25, "ko": 0.25}
    assert "gain" not in report
    assert report["protocol"] == {
        "k": 4, "temperature": 0.6, "top_p": 0.95, "max_completion_length": 512, "seed": 0, "model": "tiny",
    }  # fmt: skip


def test_the_gain_compares_the_same_problems():
    better = {"1+1=": ["=2"] * 4, "9-2=": ["=7", "a=7", "=8", "=8"], "5=": ["=5", "", "", ""]}
    sides = {"base": evaluate(), "trained": evaluate(Scripted(better))}
    report = evaluation_report(sides, Protocol(k=4))
    gains = [4 / 4 - 2 / 4, 2 / 4 - 1 / 4, 1 / 4 - 0]
    assert report["gain"]["pass@1"] == pytest.approx(sum(gains) / 3)
    assert report["gain"]["lenient_pass@1"] == pytest.approx((1 / 4 + 0 + 1 / 4) / 3)
    low, high = report["gain"]["ci95"]
    assert min(gains) <= low < sum(gains) / 3 < high <= max(gains), "an interval of means of resampled gains"
    assert report["overall"]["trained"]["pass@1"] - report["overall"]["base"]["pass@1"] == pytest.approx(sum(gains) / 3)


def test_no_gain_from_the_same_samples():
    samples = evaluate()
    assert gain(samples, samples) == {
        "pass@1": 0, "ci95": [0, 0], "lenient_pass@1": 0, "lenient_ci95": [0, 0],
    }  # fmt: skip


def test_a_gain_over_other_problems_is_refused():
    for others in (evaluate()[:2], evaluate(dataset=problems(id=["a", "b", "x"]))):
        with pytest.raises(ValueError, match="a gain compares the same problems in the same order, got 3 and"):
            gain(evaluate(), others)
