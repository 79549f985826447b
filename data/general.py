"""General requests of the micro world, with what the later stages of R1 need of them: prompts with a rule, preference
pairs, safety labels, SFT rows.

A split differs from another by family first. HELD_OUT names the families that only `test` has: four instruction kinds,
each with a sibling that is trained on (sort_numbers ~ sort_words, reverse ~ repeat, capitals ~ polite, odd_one_out ~
list), and three of the eight safety families (poison ~ violence, scam ~ theft, privacy ~ burglary). Within a family a
hash of what is asked decides: 80 % train, 10 % validation, 10 % test. The wording does not count for it, so that no
question is in two splits in other words; of harmful and benign requests the language does not either.

All this holds for what is trained after pretraining. The shipped base has read requests of every family, answered well
or badly; held out means that nothing later has taught or rewarded them.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.corpus import instructions, safety
from data.corpus.instructions import INSTRUCTION_KINDS, Check, draw_instruction, passes
from data.corpus.safety import FAMILIES, draw_request, family_of, help_check
from data.corpus.vocabulary import LANGUAGES, OFF_TOPIC, RUDE_REPLIES
from data.dialogues import DIALOGUES, draw_dialogue
from data.problems import content_hash

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = ("instruction", "harmful", "benign")
"""instruction: a small task with a checkable answer, some in a dialogue. harmful: to be refused. benign: looks harmful,
is to be helped."""

FAMILIES_OF: dict[str, tuple[str, ...]] = {
    "instruction": (*INSTRUCTION_KINDS, *DIALOGUES), "harmful": FAMILIES, "benign": FAMILIES
}  # fmt: skip

HELD_OUT: dict[str, tuple[str, ...]] = {
    "instruction": ("sort_numbers", "reverse", "capitals", "odd_one_out"),
    "harmful": ("poison", "scam", "privacy"),
    "benign": ("poison", "scam", "privacy"),
}
"""Families of `test` alone."""
TAUGHT = tuple(kind for kind in INSTRUCTION_KINDS if kind not in HELD_OUT["instruction"])
"""Kinds of instructions that dialogues are about."""

SPLITS = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}
"""Which hundredths of the requests of a family that is not held out belong to which split."""

DIFFERENCES = ("helpfulness", "harmlessness")
DIFFERENCE_OF = {"instruction": "helpfulness", "benign": "helpfulness", "harmful": "harmlessness"}
"""What the two answers to a request of a kind differ in."""

SUMMARY, RESPONSE = "{response}", "<answer>{response}</answer>"
"""What a reward model for helpfulness reads, the final summary; a whole response, which the other one reads."""

TRIES = 2000
"""Draws without a new request after which a family counts as used up."""


@dataclass(frozen=True, kw_only=True)
class GeneralRequest:
    """A request with its rule, a good answer, and what wrong answers to it may look like."""

    kind: str
    family: str
    language: str
    text: str
    content: str
    """What is asked, whatever the wording; it decides the split."""
    reference: str
    check: Check | None
    """None for a harmful request, which has no helpful answer."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier requests of a dialogue, each with its answer."""
    about: str = ""
    """The family whose content decides the split, if it is not the request's own."""
    wrong: tuple[str, ...] = ()
    """Answers on topic that are wrong."""
    help: str = ""

    @property
    def side(self) -> int:
        return LANGUAGES.index(self.language)

    @property
    def turns(self) -> list[dict[str, str]]:
        """The earlier turns."""
        return [turn for asked, said in self.history for turn in (*_user(asked), *_assistant(said, SUMMARY))]

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [*self.turns, *_user(self.text)]

    @property
    def whole(self) -> str:
        """All that was said, as one text."""
        return "\n".join([*itertools.chain(*self.history), self.text])

    @property
    def id(self) -> str:
        return f"{self.family}-{content_hash(self.family, self.whole)}"

    def columns(self) -> dict[str, Any]:
        return {"family": self.family, "language": self.language, "id": self.id}


# --- The four tables --------------------------------------------------------------------------------------------------


def make_general_prompts(
    split: str,
    size: int,
    *,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    languages: Sequence[str] = LANGUAGES,
    families: Sequence[str] | None = None,
) -> Dataset:
    """`size` different requests of one split, kinds and languages in equal shares, families in turn, shuffled.

    Columns: problem, history (the turns before it, of dialogues), kind, family, language, check (JSON of
    data.corpus.instructions.Check, "" for harmful requests), harmful, reference (a good answer), id. There is no gold
    `answer`: the accuracy reward does not apply.
    families: by default those of the split, which for `test` are the held-out ones alone; families of train may be
    asked for there too, and give their tenth of the requests.

    Raises ValueError for an unknown split, kind, language or family, for a held-out family in another split than test,
    and when the split has not enough different requests.
    """
    requests = _draw(split, size, seed, "prompts", _cells(split, kinds, languages, families))
    rows = [
        {
            "problem": one.text,
            "history": one.turns,
            "kind": one.kind,
            "family": one.family,
            "language": one.language,
            "check": one.check.to_json() if one.check else "",
            "harmful": one.kind == "harmful",
            "reference": one.reference,
            "id": one.id,
        }
        for one in requests
    ]
    return make_dataset(rows, "problem history kind family language check harmful reference id")


def make_general_sft(
    split: str,
    size: int,
    *,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    languages: Sequence[str] = LANGUAGES,
    families: Sequence[str] | None = None,
    template: str = RESPONSE,
) -> Dataset:
    """Different requests with a good answer, as SFT rows: prompt and completion are conversations.

    Columns: prompt, completion, kind ("general"), language, task (the family), problem_id, source ("general"), model
    (""), seed, kept_because. template: how a response is written, with {response} where the answer goes. Draws and
    errors as make_general_prompts.
    """
    _check_template(template)
    rows = [
        {
            "prompt": one.prompt,
            "completion": _assistant(one.reference, template),
            "kind": "general",
            "language": one.language,
            "task": one.family,
            "problem_id": one.id,
            "source": "general",
            "model": "",
            "seed": seed,
            "kept_because": "refuses as its family's rule asks" if one.check is None else "passes its generator's rule",
        }
        for one in _draw(split, size, seed, "sft", _cells(split, kinds, languages, families))
    ]
    return make_dataset(rows, "prompt completion kind language task problem_id source model seed kept_because")


def make_preference_pairs(
    split: str,
    size: int,
    *,
    seed: int = 0,
    differs_in: Sequence[str] = DIFFERENCES,
    languages: Sequence[str] = LANGUAGES,
    families: Sequence[str] | None = None,
    template: str | None = None,
    length: Callable[[str], int] = len,
) -> Dataset:
    """Pairs of answers to different requests. Columns: prompt, chosen, rejected (conversations), differs_in, family,
    language, id.

    helpfulness: to instructions and benign requests, a right answer and one that is wrong, off topic, empty or a
    refusal where none is needed; neither is harmful or rude. harmlessness: to harmful requests, a kind refusal and an
    agreement (often polite, or behind a refusal) or a rude refusal.
    The length does not tell which is which, as in R1 (Nature version, supplement): of the pairs of one kind and
    language that differ by about as much (1, 2-3, 4-7, …) chosen is the longer one in half. length measures an answer,
    by default in characters; what is even there need not be so in the tokens of a model, so give those for its data.
    template: how a response is written; by default what each reward model will see: SUMMARY for helpfulness, RESPONSE
    for harmlessness. Shares, draws and errors as make_general_prompts.
    """
    if template is not None:
        _check_template(template)
    _check_known("difference", differs_in, DIFFERENCES)
    kinds = [kind for kind in KINDS if DIFFERENCE_OF[kind] in differs_in]
    cells = _cells(split, kinds, languages, families)
    helpfulness = {kind for kind, _, _ in cells} - {"harmful"}
    # The differences come in equal shares, and helpfulness may have two kinds of requests.
    cells += [cell for cell in cells if cell[0] == "harmful"] * (len(helpfulness) - 1)
    balance = _Balance()
    answers = random.Random(f"pairs-answers-{split}-{seed}")
    rows: list[dict[str, Any]] = []

    def keep(one: GeneralRequest) -> bool:
        pair = _balanced_pair(answers, one, balance, length)
        if pair is None:
            return False
        difference = DIFFERENCE_OF[one.kind]
        form = template or (RESPONSE if difference == "harmlessness" else SUMMARY)
        texts = {name: _assistant(text, form) for name, text in zip(("chosen", "rejected"), pair, strict=True)}
        rows.append({"prompt": one.prompt, **texts, "differs_in": difference, **one.columns()})
        return True

    _draw(split, size, seed, "pairs", cells, keep)
    answers.shuffle(rows)
    return make_dataset(rows, "prompt chosen rejected differs_in family language id")


def make_safety_labels(
    split: str,
    size: int,
    *,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    languages: Sequence[str] = LANGUAGES,
    families: Sequence[str] | None = None,
    template: str = RESPONSE,
    length: Callable[[str], int] = len,
) -> Dataset:
    """Single responses with a verdict: prompt (a conversation), response (a text), safe, family, language, id.

    Unsafe: agreeing to a harmful request, also politely or behind a refusal, and rudeness to anybody. Safe: refusing
    kindly, also where that is not needed, helping with what is benign, and wrong or empty answers. Half of each kind
    and language is safe, and at about equal lengths, so that neither kind nor length tells. length as in
    make_preference_pairs, other arguments and errors as make_general_prompts.
    """
    _check_template(template)
    balance = _Balance()
    answers = random.Random(f"safety-answers-{split}-{seed}")
    rows: list[dict[str, Any]] = []

    def keep(one: GeneralRequest) -> bool:
        found = _balanced_label(answers, one, balance, length)
        if found is None:
            return False
        response = template.replace("{response}", found[0])
        rows.append({"prompt": one.prompt, "response": response, "safe": found[1], **one.columns()})
        return True

    _draw(split, size, seed, "safety", _cells(split, kinds, languages, families), keep)
    answers.shuffle(rows)
    return make_dataset(rows, "prompt response safe family language id")


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str, template: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": template.replace("{response}", text)}]


def make_dataset(rows: Sequence[dict[str, Any]], columns: str) -> Dataset:
    """A table of these columns whose types do not depend on the rows."""
    from datasets import Dataset, Features, List, Value

    turns = List({"role": Value("string"), "content": Value("string")})
    types = dict.fromkeys(("prompt", "history", "completion", "chosen", "rejected"), turns)
    types |= {"harmful": Value("bool"), "safe": Value("bool"), "seed": Value("int64")}
    names = columns.split()
    features = Features({name: types.get(name, Value("string")) for name in names})
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names}, features=features)


# --- Which requests ---------------------------------------------------------------------------------------------------

Cell = tuple[str, str, tuple[str, ...]]
"""Kind, language, families."""


def families_of(split: str, kind: str) -> tuple[str, ...]:
    """The families of one kind that a split draws from by default.

    >>> families_of("test", "harmful"), "poison" in families_of("train", "benign")
    (('poison', 'scam', 'privacy'), False)
    """
    _check_known("split", [split], SPLITS)
    _check_known("kind", [kind], KINDS)
    if split == "test":
        return HELD_OUT[kind]
    return tuple(family for family in FAMILIES_OF[kind] if family not in HELD_OUT[kind])


def split_of(request: GeneralRequest) -> str:
    """The split that a request belongs to."""
    if request.family in HELD_OUT[request.kind]:
        return "test"
    bucket = int(content_hash(f"general-{request.about or request.family}", request.content)[:12], 16) % 100
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def _cells(split: str, kinds: Sequence[str], languages: Sequence[str], families: Sequence[str] | None) -> list[Cell]:
    _check_known("split", [split], SPLITS)
    _check_known("kind", kinds, KINDS)
    _check_known("language", languages, LANGUAGES)
    if families is not None:
        _check_known("family", families, tuple(dict.fromkeys(name for kind in KINDS for name in FAMILIES_OF[kind])))
    cells = []
    for kind in dict.fromkeys(kinds):
        chosen = families_of(split, kind) if families is None else [one for one in families if one in FAMILIES_OF[kind]]
        if split != "test" and (held_out := set(chosen) & set(HELD_OUT[kind])):
            raise ValueError(
                f"family {min(held_out)!r} is held out for the test split; {split} has {families_of(split, kind)}"
            )
        cells += [(kind, language, tuple(chosen)) for language in dict.fromkeys(languages) if chosen]
    if not cells:
        raise ValueError(f"none of the families {families} belongs to the kinds {tuple(kinds)}: {FAMILIES_OF}")
    return cells


def _check_known(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    known = tuple(known)
    if isinstance(given, str):
        raise ValueError(f"give a list for {what}, such as [{given!r}], not the text {given!r}")
    if not given:
        raise ValueError(f"no {what} to draw from: give some of {known}")
    if unknown := [one for one in given if one not in known]:
        raise ValueError(f"unknown {what} {unknown[0]!r}: expected some of {known}")


def _check_template(template: str) -> None:
    if "{response}" not in template:
        raise ValueError(f"a response template has {{response}} where the answer goes, got {template!r}")


def _draw(
    split: str,
    size: int,
    seed: int,
    purpose: str,
    cells: Sequence[Cell],
    keep: Callable[[GeneralRequest], bool] = lambda request: True,
) -> list[GeneralRequest]:
    """Different requests that `keep` accepts, cells in equal shares (the first ones take the remainder), shuffled."""
    if size < 1:
        raise ValueError(f"a set has 1 row or more, got size {size}")
    rng = random.Random(f"general-{purpose}-{split}-{seed}")
    seen: set[str] = set()
    streams = [_requests(rng, split, cell, seen) for cell in cells]
    rows: list[GeneralRequest] = []
    for number in range(size):
        turn = number % len(cells)
        accepted = next(filter(keep, streams[turn]), None)
        if accepted is None:
            kind, language, families = cells[turn]
            found = sum((one.kind, one.language) == (kind, language) for one in rows)
            raise ValueError(
                f"the {split} split has no more than {found} different requests of kind {kind!r} in {language!r} for "
                f"this set (families {', '.join(families)}), too few for a size of {size}: ask for fewer rows, or for "
                "more kinds or families"
            )
        rows.append(accepted)
    rng.shuffle(rows)
    return rows


def _requests(rng: random.Random, split: str, cell: Cell, seen: set[str]) -> Iterator[GeneralRequest]:
    """New requests of one cell, from its families in turn, until all are used up. Adds their texts to `seen`."""
    kind, language, families = cell
    left = list(families)
    while left:
        for family in tuple(left):
            for _ in range(TRIES):
                one = draw_general(rng, kind, family, language)
                if one.whole not in seen and split_of(one) == split:
                    seen.add(one.whole)
                    yield one
                    break
            else:
                left.remove(family)


def draw_general(rng: random.Random, kind: str, family: str, language: str) -> GeneralRequest:
    """A request of any split. Raises ValueError for an unknown kind, family or language."""
    _check_known("kind", [kind], KINDS)
    if family in DIALOGUES:
        said = draw_dialogue(rng, family, language, TAUGHT)
        wrong = tuple(dict.fromkeys(text for text in said.wrong if not passes(said.check, text)))
        content = f"{language}|{_instruction_content(said.asked.kind, said.asked.request, said.asked.check)}"
        return GeneralRequest(
            kind=kind, family=family, language=language, text=said.request, content=content, about=said.asked.kind,
            history=said.history, reference=said.good, check=said.check, wrong=wrong,
        )  # fmt: skip
    if kind == "instruction":
        one = draw_instruction(rng, family, language)
        wrong = tuple(dict.fromkeys(text for text in one.wrong if not passes(one.check, text)))
        content = f"{language}|{_instruction_content(family, one.request, one.check)}"
        return GeneralRequest(
            kind=kind, family=family, language=language, text=one.request, content=content, reference=one.good,
            check=one.check, wrong=wrong,
        )  # fmt: skip
    asked = draw_request(rng, family, language, harmful=kind == "harmful")
    side = LANGUAGES.index(language)
    helps = tuple(text[side] for _, text in family_of(family).benign)
    return GeneralRequest(
        kind=kind, family=family, language=language, text=asked.request, content=asked.act, reference=asked.good,
        check=None if asked.harmful else help_check(asked),
        wrong=() if asked.harmful else tuple(text for text in helps if text != asked.help),
        help=asked.help,
    )  # fmt: skip


def _instruction_content(family: str, request: str, check: Check) -> str:
    """What an instruction asks: its rule says that, except where many questions have the same answer."""
    if family in ("count", "true_or_false"):
        return re.split(r"[?:.] ", request, maxsplit=1)[-1]
    if family == "introduction":
        return request
    return repr((check.rule, sorted(check.expected) if check.rule == "items" else check.expected, check.count))


# --- Good and bad answers ---------------------------------------------------------------------------------------------


class _Balance:
    """Keeps two classes alike in length: of each bin, neither is ahead of the other by more than one."""

    def __init__(self) -> None:
        self.lead: Counter = Counter()

    def pick(self, rng: random.Random, candidates: Sequence[tuple[Hashable, int, Any]]) -> Any | None:
        """The item of one candidate (bin, sign, item), of those that bring a lead back if there are any.

        A sign of 0 belongs to neither class. None if all candidates would put a class ahead by two.
        """
        if not candidates:
            return None
        best = min(self._lead(place, sign) for place, sign, _ in candidates)
        if best > 1:
            return None
        place, sign, item = rng.choice([one for one in candidates if self._lead(*one[:2]) == best])
        self.lead[place] += sign
        return item

    def _lead(self, place: Hashable, sign: int) -> int:
        """What the lead would be."""
        return abs(self.lead[place] + sign) if sign else 0


def _balanced_pair(
    rng: random.Random, one: GeneralRequest, balance: _Balance, length: Callable[[str], int]
) -> tuple[str, str] | None:
    """A good and a bad answer, binned by the power of two of the difference in length."""
    good, bad = ([(length(text), text) for text in make(rng, one)] for make in (_good_answers, _bad_answers))
    candidates = []
    for (size, chosen), (other_size, rejected) in itertools.product(good, bad):
        longer = size - other_size
        place = (one.kind, one.language, longer.bit_length())
        candidates.append((place, (longer > 0) - (longer < 0), (chosen, rejected)))
    return balance.pick(rng, candidates)


def _balanced_label(
    rng: random.Random, one: GeneralRequest, balance: _Balance, length: Callable[[str], int]
) -> tuple[str, bool] | None:
    """A response and whether it is safe, binned by length in steps of about 9 %."""
    answers = [(text, True) for text in _safe_answers(rng, one)] + [(text, False) for text in _unsafe_answers(rng, one)]
    candidates = []
    for text, safe in answers:
        place = (one.kind, one.language, int(8 * math.log2(1 + length(text))))
        candidates.append((place, 1 if safe else -1, (text, safe)))
    return balance.pick(rng, candidates)


def _good_answers(rng: random.Random, one: GeneralRequest) -> list[str]:
    if one.kind == "harmful":
        return _refusals(rng, one)
    if one.kind == "benign":
        return _dressed(rng, one.help, one.side)
    return [one.reference]


def _refusals(rng: random.Random, one: GeneralRequest) -> list[str]:
    """Refusing kindly: alone, with a reason, with what to do instead, with both."""
    family, side = family_of(one.family), one.side
    refusal = rng.choice(safety.REFUSALS[side])
    reason, instead = rng.choice(family.reasons)[side], rng.choice(family.alternatives)[side]
    return [refusal, f"{refusal} {reason}", f"{refusal} {instead}", f"{refusal} {reason} {instead}"]


def _dressed(rng: random.Random, text: str, side: int) -> list[str]:
    """A help alone, with an opener, with a closer, with both."""
    opener, closer = rng.choice(safety.HELP_OPENERS[side]), rng.choice(safety.HELP_CLOSERS[side])
    return [text, f"{opener} {text}", f"{text} {closer}", f"{opener} {text} {closer}"]


def _bad_answers(rng: random.Random, one: GeneralRequest) -> list[str]:
    """Rejected answers of one sort. None of those to instructions and benign requests is rude or agrees to harm."""
    side = one.side
    if one.kind == "harmful":
        return _unsafe_answers(rng, one)
    sort = rng.random()
    if sort < 0.55 and one.wrong:
        wrong = rng.choice(one.wrong)
        texts = list(one.wrong) if one.kind == "instruction" else _dressed(rng, wrong, side)
    elif sort < 0.75:
        # A refusal where none is needed. Its reason is that of another request, as in models that refuse too much.
        texts = _refusals(rng, one) if one.kind == "benign" else list(safety.REFUSALS[side])
    elif sort < 0.88:
        texts = [rng.choice(OFF_TOPIC)[side] for _ in range(3)]
        texts.append(" ".join(text[side] for text in rng.sample(OFF_TOPIC, 2)))
    else:
        unsure = (*instructions.NO_IDEA[side], *safety.EMPTY[side][1:])  # the first one tells to just do it
        texts = [*unsure, " ".join(rng.sample(unsure, 2))]
    assert one.check is not None
    return [text for text in texts if not passes(one.check, text)]


def _unsafe_answers(rng: random.Random, one: GeneralRequest) -> list[str]:
    """Of one sort: agreeing to harm, bluntly, politely or behind a refusal; or rude."""
    side, sort = one.side, rng.random()
    rude = [text[side] for text in rng.sample(RUDE_REPLIES, 2)]
    if one.kind != "harmful":
        return [*rude, " ".join(rude), f"{rude[0]} {one.reference}", f"{one.reference} {rude[0]}"]
    first, second = rng.sample(safety.AGREEMENTS[side], 2)
    if sort < 0.35:
        return [first, f"{first} {second}"]
    opener, closer = rng.choice(safety.HELP_OPENERS[side]), rng.choice(safety.HELP_CLOSERS[side])
    if sort < 0.65:
        return [f"{opener} {first}", f"{first} {closer}", f"{opener} {first} {closer}", f"{opener} {first} {second}"]
    refusals = _refusals(rng, one)
    if sort < 0.8:
        return [f"{text} {_BUT[side]} {first}" for text in refusals]
    return [*rude, *(f"{text} {rude[0]}" for text in refusals), f"{rude[0]} {refusals[0]}"]


_BUT = ("But it is easy.", "하지만 쉬워요.")
"""What turns a refusal into its opposite."""


def _safe_answers(rng: random.Random, one: GeneralRequest) -> list[str]:
    """Good ones; where the request is fine also those that only fail to help."""
    good = _good_answers(rng, one)
    return good if one.kind == "harmful" else [*good, *_bad_answers(rng, one)]
