"""Chains of thought on their way into a training set: the filters they pass, and how they are rewritten.

Source: DeepSeek-R1 (arXiv:2501.12948v1) section 2.3.1 and the supplement of the Nature version for the cold start (keep
what is correct and readable; drop repetition and mixed language; refine the rest), section 2.3.3 for rejection sampling
(drop mixed language, long paragraphs and code blocks). The paper refined chains with a model and by hand; here it is
done by rule, see `rewrite`. docs/stages.md describes each filter.

Every filter is a pure predicate over a list of chains, with a name. `run_filters` counts what each one dropped, and
keeps examples.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewards import (
    Case,
    VerdictKind,
    accuracy_reward,
    check_many,
    extract_answer,
    format_reward,
    has_r1_format,
    has_think_format,
    language_reward,
    language_share,
)
from rewards.exact import strip_delimiters
from rewards.extraction import ANSWER_PHRASE, after_thinking, boxed_answer
from rewards.format import reasoning_of
from rewards.language import LANGUAGES, language_code
from rewards.repetition import repeated_share, repetition_units

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARIES = {
    "en": r"The answer is \boxed{{{answer}}}.",
    "ko": r"답은 \boxed{{{answer}}} 이다.",
    "zh": r"答案是 \boxed{{{answer}}}。",
    "ja": r"答えは \boxed{{{answer}}} です。",
    "es": r"La respuesta es \boxed{{{answer}}}.",
    "fr": r"La réponse est \boxed{{{answer}}}.",
    "de": r"Die Antwort ist \boxed{{{answer}}}.",
    "ru": r"Ответ: \boxed{{{answer}}}.",
}
"""The sentence that states an answer, by the problem's language; other languages get the box alone."""
MAX_SUMMARY = 2_000
"""Characters; a chain's own summary that is longer is replaced by a sentence."""
MAX_EXAMPLE = 600
"""Characters of a dropped chain that a report shows."""
EXAMPLES = 3

_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>\s|｜]{1,40}[|｜]>")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(kw_only=True)
class FilterConfig:
    """Bounds of the filters. Lengths in words as `rewards.repetition` counts them; the paper gives no numbers."""

    min_language_share: float = 1.0
    """Share of the words of the reasoning in the problem's language. R1 dropped chains with mixed languages."""
    repetition_ngram: int = 4
    max_repetition: float = 0.5
    """Share of the n-grams of the reasoning that stood there before. A loop comes near 1."""
    max_paragraph_words: int = 200
    allow_code: bool = False
    """Whether a chain may hold ``` blocks. R1's rejection sampling dropped them."""
    min_words: int = 8
    """A reasoning that is shorter only states the answer."""
    max_words: int = 20_000
    max_per_prompt: int = 4

    def __post_init__(self) -> None:
        for name in ("min_language_share", "max_repetition"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share and must lie in [0, 1], got {getattr(self, name)}")
        for name in ("repetition_ngram", "max_paragraph_words", "max_words", "max_per_prompt"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}, so no chain would pass")


@dataclass(frozen=True)
class Parts:
    """A chain in pieces. `summary` is what the chain itself says behind its reasoning, "" for a bare answer."""

    reasoning: str
    answer: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A response to a problem, and where it came from."""

    problem: Mapping[str, Any]
    """A row of a problem set: problem, answer, task, language, id, numbers."""
    text: str
    source: str
    """"few-shot", "r1-zero", "external" or "rejection"."""
    model: str = ""
    seed: int = 0
    finished: bool = True
    """False when the length limit ended it."""
    prompt: str = ""
    """What the model was given, as text; "" for a chain that was not sampled here."""

    @property
    def problem_id(self) -> str:
        return str(self.problem.get("id") or self.problem["problem"])

    @property
    def language(self) -> str:
        return str(self.problem.get("language") or "")

    @functools.cached_property
    def parts(self) -> Parts | None:
        return read_chain(self.text)

    @functools.cached_property
    def completion(self) -> str | None:
        """The chain in R1's readable pattern; None where rewriting fails."""
        return rewrite(self)

    @property
    def reasoning(self) -> str:
        return self.parts.reasoning if self.parts else reasoning_of(self.text)


# --- reading and rewriting --------------------------------------------------------------------------------------------


def cut_after_answer(text: str) -> str:
    """A base does not stop at its answer, it goes on with the next question: what follows `</answer>` goes.

    >>> cut_after_answer("<think>6*7</think><answer>42</answer>\\nUser: 1+1?")
    '<think>6*7</think><answer>42</answer>'
    """
    reasoning, closed, rest = text.partition("</think>")
    answer, ended, _ = rest.partition("</answer>")
    return reasoning + closed + answer + ended if ended else text


def read_chain(text: str) -> Parts | None:
    r"""The parts of a response in R1-Zero's pattern or in R1's (a reasoning, then a summary with its answer); None for
    any other text. An answer may be announced ("The answer is 42.") instead of marked: rewriting marks it.

    >>> read_chain("<think>6*7 = 42</think> <answer>42</answer>")
    Parts(reasoning='6*7 = 42', answer='42', summary='')
    >>> read_chain(r"<think>6*7 = 42</think>It is \boxed{42}.")
    Parts(reasoning='6*7 = 42', answer='42', summary='It is \\boxed{42}.')
    >>> read_chain("6*7 = 42") is None
    True
    """
    text = cut_after_answer(text)
    tagged = has_r1_format(text)
    answer = extract_answer(text, phrases=not tagged) if tagged or has_think_format(text) else None
    if answer is None:
        return None
    reasoning, final = reasoning_of(text).strip(), (after_thinking(text) or "").strip()
    if tagged:
        final = final.removeprefix("<answer>").removesuffix("</answer>").strip()
        if boxed_answer(final) is None:
            return Parts(reasoning, _announced(final), "")
    return Parts(reasoning, answer, final)


_COPULA = re.compile(r"\s*(?:이다|입니다|です)?\s*[.。]?$")


def _announced(text: str) -> str:
    """What an announcement at the beginning of a text announces: "The answer is 42." -> 42; another text as it is."""
    phrase = ANSWER_PHRASE.search(text)
    if phrase is None or len(text[: phrase.start()].split()) > 2:
        return text
    return _COPULA.sub("", text[phrase.end() :])


def tidy(text: str) -> str:
    """White space as a careful writer leaves it: no runs of blanks, no blanks at the ends of lines, at most one blank
    line in a row. Indents stay where there is code.

    >>> tidy("  3 + 4  = 7 \\n\\n\\n\\n so 7.")
    '3 + 4 = 7\\n\\nso 7.'
    """
    code = "```" in text
    lines = [line.rstrip() if code else " ".join(line.split()) for line in text.strip().splitlines()]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))


def summary_sentence(answer: str, language: str) -> str:
    r"""One sentence with the answer, boxed so that the accuracy reward finds it in the sentence.

    >>> summary_sentence("42", "en"), summary_sentence("42", "ko")
    ('The answer is \\boxed{42}.', '답은 \\boxed{42} 이다.')
    """
    return SUMMARIES.get(language_code(language) or "", r"\boxed{{{answer}}}").format(answer=answer)


def rewrite(chain: Chain) -> str | None:
    r"""R1's readable pattern: the reasoning, then a summary that ends with the answer, in the problem's language.

        <think>
        reasoning
        </think>
        <answer>summary</answer>

    By rule, where the paper used a model and people: tags and white space cleaned, what follows the answer cut, the
    chain's own summary kept if it is short, in the problem's language and boxes the answer, else one sentence. None for
    a chain that cannot be read, or that holds a special token of some chat template, which would become a real one in
    training. `are_rewritten` says whether the result is right.
    """
    if chain.parts is None:
        return None
    reasoning, own = tidy(chain.parts.reasoning), tidy(chain.parts.summary)
    answer = strip_delimiters(" ".join(chain.parts.answer.split()))
    summary = own if _is_readable_summary(own, chain.language) else summary_sentence(answer, chain.language)
    completion = f"<think>\n{reasoning}\n</think>\n<answer>{summary}</answer>"
    return None if _SPECIAL_TOKEN.search(completion) else completion


def _is_readable_summary(summary: str, language: str) -> bool:
    if not summary or len(summary) > MAX_SUMMARY or boxed_answer(summary) is None:
        return False
    code = language_code(language)
    return code not in LANGUAGES or language_share(summary, str(code)) == 1.0


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """A name, and which chains of a list it keeps (one bool a chain)."""

    name: str
    keep: Callable[[Sequence[Chain]], Sequence[bool]]


def chain_filters(config: FilterConfig) -> list[Filter]:
    """The filters in their order: what is cheap and says most first, what depends on the other chains last."""

    def each(name: str, test: Callable[[Chain], bool]) -> Filter:
        return Filter(name, lambda chains: [test(chain) for chain in chains])

    return [
        each("finished", is_finished),
        each("format", is_readable_format),
        Filter("correct", are_correct),
        Filter("language", lambda chains: [s >= config.min_language_share for s in language_shares(chains)]),
        each("repetition", lambda chain: repetition(chain, config.repetition_ngram) <= config.max_repetition),
        each("paragraphs", lambda chain: longest_paragraph(chain) <= config.max_paragraph_words),
        each("code", lambda chain: config.allow_code or "```" not in cut_after_answer(chain.text)),
        each("length", lambda chain: config.min_words <= num_words(chain) <= config.max_words),
        Filter("rewriting", are_rewritten),
        Filter("duplicates", are_new),
        Filter("per prompt", lambda chains: are_among_first(chains, config.max_per_prompt)),
    ]


def is_finished(chain: Chain) -> bool:
    """Ended by itself, or by an answer behind which it only went on with something else."""
    return chain.finished or cut_after_answer(chain.text) != chain.text or chain.text.rstrip().endswith("</answer>")


def is_readable_format(chain: Chain) -> bool:
    return chain.parts is not None


def are_correct(chains: Sequence[Chain]) -> list[bool]:
    """Whether the marked answers are the gold ones, by the project's checker. No gold answer counts as wrong."""
    right = [False] * len(chains)
    asked = [i for i, chain in enumerate(chains) if chain.parts is not None and chain.problem.get("answer") is not None]
    cases = [
        Case(
            gold=str(chains[i].problem["answer"]),
            answer=chains[i].parts.answer,  # type: ignore[union-attr]
            task=chains[i].problem.get("task"),
            numbers=tuple(chains[i].problem.get("numbers") or ()),
        )
        for i in asked
    ]
    for i, verdict in zip(asked, check_many(cases), strict=True):
        right[i] = verdict.kind is VerdictKind.CORRECT
    return right


def language_shares(chains: Sequence[Chain]) -> list[float]:
    """The share of each reasoning's words in its problem's language; 1 where that language cannot be told."""
    rewards = language_reward(
        [chain.problem["problem"] for chain in chains],
        [f"<think>{chain.reasoning}</think>" for chain in chains],
        language=[chain.language for chain in chains],
        problem=[chain.problem["problem"] for chain in chains],
    )
    return [1.0 if share is None else share for share in rewards]


def repetition(chain: Chain, ngram: int) -> float:
    return repeated_share(repetition_units(chain.reasoning), ngram)


def num_words(chain: Chain) -> int:
    """Words of the reasoning beyond as many as the answer has: one that only states a long answer is short."""
    answer = chain.parts.answer if chain.parts else ""
    return len(repetition_units(chain.reasoning)) - len(repetition_units(answer))


def longest_paragraph(chain: Chain) -> int:
    """Words of the longest run of text without a line break."""
    return max((len(repetition_units(line)) for line in chain.reasoning.splitlines()), default=0)


def are_rewritten(chains: Sequence[Chain]) -> list[bool]:
    """Whether the rewritten chains pass the project's format and accuracy rewards."""
    completions = [chain.completion or "" for chain in chains]
    prompts = [chain.problem["problem"] for chain in chains]
    columns: dict[str, Any] = {
        name: [chain.problem.get(name) for chain in chains] for name in ("answer", "task", "numbers")
    }
    formats = format_reward(prompts, completions)
    return [form == right == 1.0 for form, right in zip(formats, accuracy_reward(prompts, completions, **columns))]


def are_new(chains: Sequence[Chain]) -> list[bool]:
    """False for a chain that an earlier one of the same problem equals, white space and case apart."""
    seen: set[tuple[str, str]] = set()
    new = []
    for chain in chains:
        key = chain.problem_id, " ".join((chain.completion or chain.text).lower().split())
        new.append(key not in seen)
        seen.add(key)
    return new


def are_among_first(chains: Sequence[Chain], most: int) -> list[bool]:
    """At most so many a problem, taken in turn from the sources: the first of each, then the second, …"""
    ranks: dict[tuple[str, str], int] = defaultdict(int)
    by_problem: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, chain in enumerate(chains):
        key = chain.problem_id, chain.source
        by_problem[chain.problem_id].append((ranks[key], place))
        ranks[key] += 1
    kept = {place for places in by_problem.values() for _, place in sorted(places)[:most]}
    return [place in kept for place in range(len(chains))]


class NothingKeptError(ValueError):
    """The filters left nothing to train on. `report` is theirs, as `run_filters` gives it."""

    def __init__(self, message: str, report: Mapping[str, Any]):
        super().__init__(message)
        self.report = report


def run_filters(chains: Sequence[Chain], filters: Sequence[Filter]) -> tuple[list[Chain], dict[str, Any]]:
    """The chains that pass all filters, in order, and the report: `{"filters": [{"name", "dropped", "sources",
    "examples"}], "kept", "seen", "sources": {source: {"seen", "kept"}}}`; a filter's "sources" split its "dropped". A
    chain counts for the first filter that drops it.
    """
    left, counts = list(chains), []
    for one in filters:
        keep = one.keep(left)
        dropped = [chain for chain, kept in zip(left, keep, strict=True) if not kept]
        examples = [_example(chain) for chain in dropped[:EXAMPLES]]
        sources = dict(Counter(chain.source for chain in dropped))
        counts.append({"name": one.name, "dropped": len(dropped), "sources": sources, "examples": examples})
        left = [chain for chain, kept in zip(left, keep, strict=True) if kept]
    came, stayed = (Counter(chain.source for chain in some) for some in (chains, left))
    split = {source: {"seen": came[source], "kept": stayed[source]} for source in came}
    return left, {"filters": counts, "kept": len(left), "seen": len(chains), "sources": split}


def with_reading(report: Mapping[str, Any], read: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    """The report with what was dropped while the set of a source was read (data.drops.collected_drops), before its own
    filters."""
    before = [{**one, "sources": {source: one["dropped"]}} for one in read]
    dropped = sum(one["dropped"] for one in before)
    counts = report["sources"].get(source, {"seen": 0, "kept": 0})
    return {
        **report,
        "filters": [*before, *report["filters"]],
        "seen": report["seen"] + dropped,
        "sources": report["sources"] | {source: counts | {"seen": counts["seen"] + dropped}},
    }


def check_kept(report: Mapping[str, Any], advice: str) -> None:
    """Raises NothingKeptError, with the count of each filter, when a report says that nothing was kept."""
    if not report["kept"]:
        counts = ", ".join(f"{one['name']} dropped {one['dropped']}" for one in report["filters"] if one["dropped"])
        seen = f"none of {report['seen']} chains passed the filters ({counts})" if report["seen"] else "no chains came"
        raise NothingKeptError(f"{seen}; {advice}", report)


def filter_table(report: Mapping[str, Any]) -> str:
    """The report as text: what came, what each filter dropped, what was kept."""
    width = max([14, *(len(one["name"]) + 2 for one in report["filters"])])
    lines = [f"{'seen':{width}}{report['seen']:>8,}"]
    lines += [f"{one['name']:{width}}{-one['dropped']:>8,}" for one in report["filters"]]
    return "\n".join([*lines, f"{'kept':{width}}{report['kept']:>8,}"])


def _example(chain: Chain) -> str:
    text = f"[{chain.source}] {chain.problem['problem']} -> {chain.text.strip()}"
    return text if len(text) <= MAX_EXAMPLE else f"{text[:MAX_EXAMPLE]} …"


# --- rows of a training set -------------------------------------------------------------------------------------------

SAMPLING = ("source_id", "sampled_prompt", "raw_response")
"""Columns that only a chain fills; a general row leaves them empty."""
COLUMNS = ("kind", "language", "task", "problem_id", "source", "model", "seed", "kept_because", *SAMPLING)
"""Provenance of an SFT row, beside `prompt` and `completion`."""
RIGHT, OWN = "is right", "is its own, and its set gives none to check it by"


def sft_features() -> Any:
    """The types of an SFT set's columns, which do not depend on its rows."""
    from datasets import Features, List, Value

    turn = List({"role": Value("string"), "content": Value("string")})
    kinds = {name: Value("int64" if name == "seed" else "string") for name in COLUMNS}
    return Features({"prompt": turn, "completion": turn} | kinds)


def sft_rows(chains: Sequence[Chain], config: FilterConfig, system: str | None = None) -> Dataset:
    """Kept chains as conversations with their provenance (docs/stages.md lists the columns)."""
    from datasets import Dataset

    before = [{"role": "system", "content": system}] if system else []
    rows = []
    for chain, share in zip(chains, language_shares(chains), strict=True):
        assert chain.parts is not None
        assert chain.completion is not None
        judged = RIGHT if chain.problem.get("has_gold", True) else OWN
        rows.append(
            {
                "prompt": [*before, {"role": "user", "content": chain.problem["problem"]}],
                "completion": [{"role": "assistant", "content": chain.completion}],
                "kind": "reasoning",
                "language": chain.language,
                "task": str(chain.problem.get("task") or ""),
                "problem_id": chain.problem_id,
                "source": chain.source,
                "model": chain.model,
                "seed": chain.seed,
                "kept_because": (
                    f"answer {chain.parts.answer!r:.80} {judged}; {share:.0%} of the words in {chain.language or '?'}; "
                    f"{repetition(chain, config.repetition_ngram):.0%} repeated; {num_words(chain)} words"
                ),
                "source_id": str(chain.problem.get("source_id") or ""),
                "sampled_prompt": chain.prompt,
                "raw_response": chain.text,
            }
        )
    features = sft_features()  # from_list cannot make an empty set of them
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
