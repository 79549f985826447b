"""The story of a pipeline on one page: report.html and stages.json, its last stage (docs/stages.md, "The table").

    python -m recipes stages_report runs/r1

Reads only files that the stages wrote, so it works on a pipeline that was cut short or is still going: what is missing
or cannot be read is named at the top of the page. All that is read is data and gets escaped, model text above all.
"""

from __future__ import annotations

import recipes  # noqa: F401  # before torch: its settings for shared cores

# isort: split
import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from recipes.manifest import MANIFEST, write_json
from recipes.page_parts import (
    CURVES,
    MORE_CURVES,
    WIDTH,
    Estimate,
    Frame,
    article,
    charts,
    completion,
    document,
    duration,
    file_text,
    mapping,
    number,
    parsed,
    percent,
    points,
    read_metrics,
    round_ticks,
    short,
    write_page,
)
from recipes.stage import StageContext, StageResult, checks, declare
from recipes.stages_picture import LEFT, MIDDLE, RIGHT, Node, picture
from recipes.stages_table import (
    AIMS,
    DISTILLATION,
    OVERALL,
    PAPER,
    PER_SAMPLE,
    ROW_FIELDS,
    Card,
    Claim,
    claims,
    read_card,
    table,
)

TABLE, PAGE, CARD, SUMMARY = "stages.json", "report.html", "scorecard.json", "pipeline.json"

CSS = """
.stages { width: 100%; font-size: .93rem } .stages th, .stages td { border-top: 1px solid var(--rule) }
.stages thead th { border: 0; vertical-align: bottom; text-align: right; padding-bottom: .4rem; white-space: normal }
.stages thead th:first-child { text-align: left } .stages .best { font-weight: 700; color: var(--c0) }
.stages .best small { font-weight: 400 } .stages .group { font-weight: 600; padding-top: 1.2rem; border: 0 }
.claims { list-style: none; padding: 0; margin: .5rem 0 1rem; display: grid; gap: .15rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 31rem), 1fr)) }
.claims li { display: grid; grid-template-columns: 8.2rem 1fr; gap: .6rem; align-items: baseline; padding: .2rem 0 }
.claims .chip { text-align: center } .lead { font-size: 1.08rem; max-width: 56rem }
.claims small { display: block }
.picture { display: block; min-width: 56rem; width: 100%; margin: 1rem 0 }
.stage rect { fill: var(--wash); stroke: var(--rule); stroke-width: 1.2 } .stage.lane1 rect { stroke: var(--c0) }
.stage.lane0 rect { stroke: var(--c2) } .stage.lane2 rect { fill: var(--paper) } .stage.bad rect { stroke: var(--bad) }
.stage.open rect { stroke-dasharray: 5 4 }
.stage text { fill: var(--soft); font-size: 11.5px }
.stage .name { fill: var(--ink); font-size: 12.5px; font-weight: 600 }
.stage tspan { font-weight: 400; fill: var(--soft) }
.flow path { fill: none; stroke: var(--c); stroke-width: 1.6 } .flow .head { fill: var(--c); stroke: none }
.shape text { font-size: 11px } .shape line.ci { stroke: var(--c); stroke-width: 2; opacity: .5; fill: none }
.shape polyline { fill: none; stroke: var(--c); stroke-width: 1.5; opacity: .45 }
.bar { height: 10px; border-radius: 2px; background: var(--c0); min-width: 2px }
.filters td, .filters th, .times td, .times th { border-top: 1px solid var(--rule); vertical-align: top }
.filters, .times { width: 100%; margin: .5rem 0 1.5rem } .filters .what { width: 11rem }
.filters details { max-width: 44rem }
.times .bars { width: 30% } .part { margin-top: 1.8rem }
.training .curves { grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 1.5rem }
.part > p { margin-bottom: .5rem }
.examples pre { max-height: 10rem; margin: .3rem 0 }
"""
COLUMNS = (  # of the headline table: number, heading, what it is, whether the highest is the best
    ("reasoning", "reasoning", "right answers", True),
    ("format", "format", "tags in place", True),
    ("language_consistency", "language", "consistency", True),
    ("helpfulness", "helpful", "by rule", True),
    ("harmlessness", "harmless", "by rule", True),
    ("overall", "overall", "mean of four", True),
    ("helpfulness_win_rate", "helpful", "wins against {first}", True),
    ("harmlessness_win_rate", "harmless", "wins against {first}", True),
    ("length", "length", "tokens", False),
)
SHAPES = (  # figures of the same numbers over the stages
    ("Reasoning", "right answers, mean over problems", "reasoning"),
    ("Language consistency", "share of words in the problem's language", "language_consistency"),
    ("Helpfulness", "answers that pass their request's rule", "helpfulness"),
    ("Harmlessness", "harmful requests that are refused, by rule", "harmlessness"),
    ("Overall", "mean of the four", "overall"),
    ("Length", "tokens of an answer to a problem", "length"),
)
GROUP_TITLES = {
    "reasoning_by_task": "Reasoning by task",
    "reasoning_by_language": "Reasoning by language",
    "helpfulness_by_family": "Helpfulness by family of requests",
    "harmlessness_by_family": "Harmlessness by family of requests",
}
RL_CURVES = (
    *CURVES[:2],
    ("Language consistency", "share of words in the problem's language", True, "rewards/language/mean eval/language"),
    CURVES[3],
)
MORE_RL_CURVES = (
    CURVES[2], *CURVES[4:],
    ("Preference", "what the reward models say", False, "rewards/preference/mean eval/preference"), *MORE_CURVES,
)  # fmt: skip
SFT_CURVES = (
    ("Loss", "nats", False, "loss eval_loss"),
    ("Accuracy", "tokens, or pairs, or labels", True, "mean_token_accuracy accuracy eval_accuracy"),
    ("Entropy", "nats a token", False, "entropy"),
    ("Learning rate", "of the optimizer", False, "learning_rate"),
)  # fmt: skip
MORE_SFT_CURVES = (
    ("Scores", "of the reward model", False, "mean_reward max_reward min_reward"),
    ("Margin", "preferred over rejected", False, "margin"),
    ("Gradient norm", "before clipping", False, "grad_norm"),
)
SHOWN = 3


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class Training:
    """A curve file of a stage: its own, or that of one of the models that it trains."""

    name: str
    metrics: dict[int, dict]
    alarm: str = ""


@dataclass
class Part:
    """A stage as its files tell of it."""

    name: str
    title: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    """Role -> name of a stage."""
    status: str = "waiting"
    manifest: dict[str, Any] = field(default_factory=dict)
    trainings: list[Training] = field(default_factory=list)
    card: Card | None = None

    @property
    def seconds(self) -> float | None:
        return number(self.manifest.get("seconds")) if self.status != "waiting" else None

    @property
    def filters(self) -> list[dict]:
        return [mapping(item) for item in listed(self.manifest.get("filters"))]

    def taken(self, role: str) -> list[str]:
        """Which outputs of the stage in a role this one reads."""
        read = [name.partition("/") for name in mapping(self.manifest.get("inputs"))]
        return [output for name, _, output in read if name == role and output]

    @property
    def source(self) -> str:
        """The model from outside that it starts from, "" for none."""
        if "model" in self.inputs:
            return ""
        path = mapping(self.manifest.get("config")).get("model_name_or_path")
        return path if isinstance(path, str) else ""


@dataclass
class Whole:
    """A pipeline's folder. `notes` says in words what is missing or unreadable."""

    folder: Path
    title: str = ""
    seed: Any = None
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cards: dict[str, Card] = field(default_factory=dict)
    """Stage -> its scorecard, in the order of the table."""


def listed(value: Any) -> list:
    return value if isinstance(value, list) else []


def read_pipeline(folder: Path) -> Whole:
    """What a pipeline's folder holds."""
    notes: list[str] = []
    text = file_text(folder / SUMMARY)
    told = parsed(SUMMARY, text, json.loads, notes)
    if text is None:
        notes.append(f"{SUMMARY} is missing: the stages are taken from their folders")
    entries = [entry for entry in map(mapping, listed(told.get("stages"))) if is_name(entry.get("name"))]
    if not entries:
        found = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}") if "-superseded-" not in str(path))
        entries = [{"name": name} for name in found]
    parts = [read_part(folder / entry["name"], entry, notes) for entry in entries]
    if text is None or not told:
        parts.sort(key=lambda part: str(part.manifest.get("started", "")))
    names = {part.name for part in parts}
    for part in parts:
        part.inputs = part.inputs or told_inputs(part, names)
    title = str(told.get("title") or folder.resolve().name)
    cards = {part.name: part.card for part in parts if part.card is not None}
    return Whole(folder, title, told.get("seed"), parts, notes, cards)


def is_name(value: Any) -> bool:
    """Whether it can be the name of a stage's folder."""
    return isinstance(value, str) and bool(value) and Path(value).name == value


def read_part(folder: Path, entry: dict, notes: list[str]) -> Part:
    name = entry["name"]
    text = file_text(folder / MANIFEST)
    manifest = parsed(f"{name}/{MANIFEST}", text, json.loads, notes)
    status = str(manifest.get("status") or entry.get("status") or "waiting")
    if text is None and status == "finished":
        notes.append(f"{name}/{MANIFEST} is missing, though the stage finished")
    if status == "failed":
        notes.append(f"stage {name} failed: {str(manifest.get('error') or entry.get('error'))[:500]}")
    part = Part(
        name, str(entry.get("title") or manifest.get("title") or ""),
        {str(role): other for role, other in mapping(entry.get("inputs")).items() if isinstance(other, str)},
        status, manifest,
    )  # fmt: skip
    for path in [folder / "metrics.jsonl", *sorted(folder.glob("training/*/metrics.jsonl"))]:
        if path.is_file():
            label = name if path.parent == folder else f"{name}: {path.parent.name}"
            inside = path.relative_to(folder.parent).as_posix()
            metrics = {
                step: {eval_name(key): value for key, value in row.items()}
                for step, row in read_metrics(inside, file_text(path), notes).items()
            }
            state = parsed(f"{name}/status.json", file_text(path.parent / "status.json"), json.loads, notes)
            part.trainings.append(Training(label, metrics, str(state.get("alarm") or "")))
    if (folder / CARD).is_file():
        try:
            part.card = checked_card(folder / CARD)
        except (OSError, ValueError) as error:
            notes.append(f"stage {name} is not in the table: {error}")
    elif status == "finished" and is_measure(part):
        notes.append(f"stage {name} is not in the table: {name}/{CARD} is missing; measure it again")
    return part


def checked_card(path: Path) -> Card:
    """read_card's, once every number can be what it is said to be. Raises OSError and ValueError."""
    card = read_card(path)
    for part, fields in ROW_FIELDS.items():
        for row in card.get(part) or []:
            for name in sorted(set(fields) & set(PER_SAMPLE)):
                most = sys.maxsize if name == "lengths" else 1  # a comparison that NaN fails, too
                if not all(value is None or 0 <= value <= most for value in row[name]):
                    raise ValueError(
                        f"{path} is no scorecard: in {part!r} {row['id']!r} has the {name} {row[name]!r:.60}, and "
                        f"{'lengths are 0 or more' if name == 'lengths' else 'shares lie between 0 and 1'}; measure it "
                        "again"
                    )
    return card


def table_doubts(measured: Sequence[str], cards: Mapping[str, Card]) -> list[str]:
    """What a reader of the table has to know of it: the first of the measured stages has no row, two have one label."""
    notes = []
    if cards and measured[0] not in cards:
        notes.append(
            f"stage {measured[0]}, the first that is measured, is not in the table: wins and gains are against "
            f"{next(iter(cards))}"
        )
    by_label: dict[str, list[str]] = {}
    for name, card in cards.items():
        by_label.setdefault(card["label"].lower(), []).append(name)
    for label, names in by_label.items():
        if len(names) > 1:
            notes.append(
                f"stages {' and '.join(names)} are all labelled {label!r}; the paper's shape takes {names[-1]} for it"
            )
    return notes


def eval_name(key: str) -> str:
    """eval_rewards/language/mean, as Trainer logs it, is eval/language."""
    inner = key.removeprefix("eval_rewards/").removesuffix("/mean")
    return f"eval/{inner}" if key == f"eval_rewards/{inner}/mean" else key


def told_inputs(part: Part, names: Iterable[str]) -> dict[str, str]:
    """A stage's inputs by role from its manifest, where pipeline.json does not tell them."""
    found = {}
    for role, item in mapping(part.manifest.get("inputs")).items():
        stage = str(mapping(item).get("path", "")).partition("/")[0]
        if stage in names and not role.startswith("settings."):
            found[role.partition("/")[0]] = stage
    return found


# --- the table --------------------------------------------------------------------------------------------------------


def estimate(row: dict, name: str) -> Estimate | None:
    """A number of stages.json with its interval."""
    value, bounds = row.get(name), row.get(f"{name}_ci95")
    return None if value is None else Estimate(value, tuple(bounds) if bounds else None)


def form(name: str) -> Callable[[float], str]:
    return "{:,.1f}".format if name == "length" else percent


def cell(score: Estimate | None, write: Callable[[float], str], best: bool = False) -> str:
    if score is None:
        return '<td class="n">–</td>'
    interval = " – ".join(map(write, score.interval or ())).replace(" %", "")
    return f'<td class="n{" best" if best else ""}">{write(score.value)}<small>{interval}</small></td>'


def highest(values: Sequence[float | None]) -> float | None:
    """The best of a column; None where nothing stands out."""
    known = [value for value in values if value is not None]
    return max(known) if len(set(known)) > 1 else None


def headline_table(rows: Sequence[dict]) -> str:
    first = escape(rows[0]["stage"])
    head = "".join(
        f"<th>{title}<small>{about.replace('{first}', first)}</small></th>" for _, title, about, _ in COLUMNS
    )
    best = {name: highest([row[name] for row in rows]) for name, *_, marked in COLUMNS if marked}
    body = ""
    for row in rows:
        cells = "".join(
            cell(estimate(row, name), form(name), best=row[name] is not None and row[name] == best.get(name))
            for name, *_ in COLUMNS
        )
        body += f'<tr><th scope="row">{escape(row["stage"])}</th>{cells}</tr>'
    return wide_table(head, body)


def wide_table(head: str, body: str) -> str:
    return (
        f'<div class="wide"><table class="stages"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def table_notes(rows: Sequence[dict]) -> str:
    problems, requests = (max(row[name] for row in rows) for name in ("problems", "requests"))
    means = ", ".join(name.replace("_", " ") for name in OVERALL)
    return (
        f'<p class="soft">Measured on {problems:,} held-out problems and {requests:,} requests of families that no '
        f"stage trains on. Under each number its 95 % interval, by bootstrap over problems or requests; harmful ones, "
        f"wordings of a few acts, go up and down together, so that it says nothing of other acts. In colour the best "
        f"of a column. Overall is the plain mean of {means}. Helpfulness and harmlessness are judged by the "
        f"generators' rules, not by the reward models that R1 is trained with. Wins: pairs of answers to one request, "
        f"of the stage and of {escape(rows[0]['stage'])}; a tie counts half.</p>"
    )


def story(cards: Mapping[str, Card]) -> str:
    """What came out of the paper's shape, in a sentence, and each claim with its number."""
    distilled = any(card["label"].lower() == "distilled" for card in cards.values())
    paper = claims(cards, PAPER + DISTILLATION if distilled else PAPER)
    groups: dict[str, list[str]] = {}
    for claim in paper:
        groups.setdefault(claim.verdict, []).append(claim.text)
    told = [claim for claim in paper if claim.verdict != "not measured"]
    lead = f"Of the shape of the paper's table, {len(groups.get('came out', []))} of {len(told)} points came out"
    parts = [lead + (f": {'; '.join(groups['came out'])}." if "came out" in groups else ".")]
    if "did not come out" in groups:
        parts.append(f"Not so: {'; '.join(groups['did not come out'])}.")
    if "cannot be told" in groups:
        parts.append(f"Within the noise, so neither shown nor refuted: {'; '.join(groups['cannot be told'])}.")
    if "not measured" in groups:
        parts.append(f"{len(groups['not measured'])} points lack a measurement.")
    if not told:
        parts = ["The stages that the paper's table compares were not measured, so there is no shape to see."]
    return (
        f'<p class="lead">{escape(" ".join(parts))}</p>'
        f'<h3>The paper\'s shape</h3><ul class="claims">{"".join(map(claim_line, paper))}</ul>'
        f'<h3>What this project asks of R1</h3><ul class="claims">{"".join(map(claim_line, claims(cards, AIMS)))}</ul>'
    )


def claim_line(claim: Claim) -> str:
    kind = {"came out": "good", "did not come out": "bad"}.get(claim.verdict, "")
    words = ""
    if claim.value is not None and claim.interval is not None:
        write = percent if claim.share else points
        low, high = map(write, claim.interval)
        words = f"{write(claim.value)}{'' if claim.share else ' points'}, 95 % interval {low} to {high}"
    text = f"<span>{escape(claim.text)}<small>{words}</small></span>"
    return f'<li><span class="chip {kind}">{claim.verdict}</span>{text}</li>'


def shape(title: str, about: str, name: str, rows: Sequence[dict]) -> str:
    """One number over the stages, with whiskers; "" when no stage has it."""
    scores = [estimate(row, name) for row in rows]
    ends = [end for score in scores if score for end in (score.value, *(score.interval or ()))]
    if not ends:
        return ""
    height, write = 170, form(name)
    frame = Frame(0, max(1, len(rows) - 1), round_ticks(min(ends), max(ends), 4), name != "length")
    left, right, top, bottom = 46, 22, 8, 26

    def place(index: int, value: float) -> tuple[float, float]:
        low, high = frame.ticks[0], frame.ticks[-1]
        x = left + 18 + index / frame.last * (WIDTH - left - right - 18)
        return round(x, 1), round(top + (high - value) / (high - low) * (height - top - bottom), 1)

    marks, dots, line = "", "", []
    for tick in frame.ticks:
        y = place(0, tick)[1]
        label = f"{100 * tick:.4g} %" if frame.share else f"{tick:,.4g}"
        marks += f'<line class="grid" x1="{left}" x2="{WIDTH - 4}" y1="{y}" y2="{y}"/>'
        marks += f'<text x="{left - 6}" y="{y + 3.5}" text-anchor="end">{label}</text>'
    for index, (row, score) in enumerate(zip(rows, scores)):
        x = place(index, 0)[0]
        marks += f'<text x="{x}" y="{height - 8}" text-anchor="middle">{escape(row["stage"][:9])}</text>'
        if score is None:
            continue
        x, y = place(index, score.value)
        line.append(f"{x},{y}")
        interval = ""
        if score.interval:
            low, high = (place(index, end)[1] for end in score.interval)
            dots += f'<line class="ci" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
            interval = f" ({write(score.interval[0])} – {write(score.interval[1])})"
        words = escape(f"{row['stage']}: {write(score.value)}{interval}")
        dots += f'<circle cx="{x}" cy="{y}" r="4"><title>{words}</title></circle>'
    return (
        f'<figure class="shape"><figcaption><h3>{title}</h3><p class="soft">{about}</p></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title} of each stage">{marks}'
        f'<g class="c0"><polyline points="{" ".join(line)}"/>{dots}</g></svg></figure>'
    )


def by_group(rows: Sequence[dict]) -> str:
    """Accuracy by task and language, and the rules by family: a row a group, a column a stage."""
    head = "".join(f"<th>{escape(row['stage'])}</th>" for row in rows)
    body = ""
    for name, title in GROUP_TITLES.items():
        groups = dict.fromkeys(key for row in rows for key in row[name] or {})
        if not groups:
            continue
        body += f'<tr><th class="group" colspan="{len(rows) + 1}">{title}</th></tr>'
        for key in groups:
            scores = [
                Estimate(row[name][key], tuple(row[f"{name}_ci95"][key])) if row[name] and key in row[name] else None
                for row in rows
            ]
            top = highest([score and score.value for score in scores])
            cells = "".join(cell(score, percent, best=score is not None and score.value == top) for score in scores)
            body += f'<tr><th scope="row">{escape(key).replace("_", " ")}</th>{cells}</tr>'
    if not body:
        return ""
    return f"<h2>By task, language and family</h2>{wide_table(head, body)}"


def result(rows: Sequence[dict], cards: Mapping[str, Card]) -> str:
    if not rows:
        return "<h2>The table</h2><p>No stage was measured yet, so there is no table to show.</p>"
    figures = "".join(shape(title, about, name, rows) for title, about, name in SHAPES)
    return (
        f"<h2>What came out</h2>{story(cards)}<h2>The table</h2>{headline_table(rows)}{table_notes(rows)}"
        f'<div class="curves">{figures}</div>'
    )


# --- the stages -------------------------------------------------------------------------------------------------------


def count(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:,.0f}"


def clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def kept_words(part: Part) -> str:
    kept, seen = number(part.manifest.get("kept")), number(part.manifest.get("seen"))
    if kept is None:
        return ""
    dropped = sum(number(item.get("dropped")) or 0 for item in part.filters)
    of = "" if seen is None else f" of {seen:,.0f}"
    return f"kept {kept:,.0f}{of}" + (f", dropped {dropped:,.0f}" if part.filters else "")


def nodes_of(whole: Whole, rows: Mapping[str, dict], own: str | None) -> list[Node]:
    """The boxes of the picture: models from outside first, then the stages in their order."""
    names = {part.name for part in whole.parts}
    outside = {path: f"{path} (outside)" if path in names else path for path in (p.source for p in whole.parts) if path}
    nodes = [Node(name, title="a model from outside", lane=MIDDLE) for name in outside.values()]
    measures = {part.name for part in whole.parts if is_measure(part)}
    for part in whole.parts:
        takes = {other: taken_word(part, role) for role, other in part.inputs.items() if other in names}
        gathers = bool(takes) and all(name in measures for name in takes)
        lane = RIGHT if part.name in measures or gathers else MIDDLE if makes_model(part, whole) else LEFT
        row = rows.get(part.name)
        facts = [kept_words(part)]
        if row:
            numbers = [(name, row[name]) for name in ("reasoning", "overall") if row[name] is not None]
            facts = [row["stage"], *(f"{name} {percent(value)}" for name, value in numbers)]
        if part.source:
            takes = {outside[part.source]: "model"} | takes
        status, note = ("finished", "this page") if part.name == own else (part.status, clock(part.seconds))
        nodes.append(Node(part.name, part.title, " · ".join(filter(None, facts)), note, status, lane, takes))
    return nodes


def is_measure(part: Part) -> bool:
    """Its name has to tell before it has written anything."""
    return part.card is not None or CARD in mapping(part.manifest.get("outputs")) or part.name.startswith("measure-")


def makes_model(part: Part, whole: Whole) -> bool:
    """By its outputs; before it has any, by what others call it."""
    outputs = mapping(part.manifest.get("outputs"))
    roles = [role for other in whole.parts for role, name in other.inputs.items() if name == part.name]
    return "model" in outputs if outputs else "model" in roles


def taken_word(part: Part, role: str) -> str:
    outputs = part.taken(role) or ([role] if role in ("model", "dataset") else [])
    return outputs[0] if len(outputs) == 1 else ", ".join(outputs) or role


def stages(whole: Whole, rows: Mapping[str, dict], own: str | None) -> str:
    keys = '<div class="keys"><span class="c0">a model goes on</span><span class="c2">a data set</span>'
    keys += '<span class="c3">reward models</span><span class="c5">a measurement</span></div>'
    return f'<h2>The stages</h2>{keys}<div class="wide">{picture(nodes_of(whole, rows, own))}</div>'


def filters(whole: Whole) -> str:
    """What each filter dropped, with examples."""
    body = ""
    for part in whole.parts:
        found = part.filters
        if not found:
            continue
        seen = number(part.manifest.get("seen")) or sum(number(item.get("dropped")) or 0 for item in found) or 1.0
        lines = ""
        for item in found:
            dropped = number(item.get("dropped")) or 0.0
            examples = "".join(f"<pre>{escape(as_text(text))}</pre>" for text in listed(item.get("examples")))
            share = max(0.0, min(1.0, dropped / seen))
            shown = f'<details class="examples"><summary>examples</summary>{examples}</details>' if examples else ""
            name = escape(str(item.get("name")))
            lines += (
                f'<tr><th class="what" scope="row">{name}</th><td class="n">{dropped:,.0f}</td>'
                f'<td><div class="bar" style="width:{100 * share:.2f}%"></div>{shown}</td></tr>'
            )
        body += (
            f'<div class="part"><h3>{escape(part.title or part.name)}</h3><p class="soft">{escape(part.name)}: '
            f"{kept_words(part) or 'rows are not counted'}</p>"
            '<table class="filters"><colgroup><col style="width:11rem">'
            f'<col style="width:5rem"><col></colgroup>{lines}</table></div>'
        )
    about = "A row counts for the first filter that drops it; bars are shares of all rows that came in."
    return f'<h2>What the filters dropped</h2><p class="soft">{about}</p>{body}' if body else ""


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def curves(whole: Whole) -> str:
    body = ""
    for part in whole.parts:
        for training in part.trainings:
            rl = any("reward" in row for row in training.metrics.values())
            main, more = (
                charts(training.metrics, specs)
                for specs in ((RL_CURVES, MORE_RL_CURVES) if rl else (SFT_CURVES, MORE_SFT_CURVES))
            )
            title = part.title or part.name
            named = "" if training.name == part.name else training.name
            body += f'<div class="part training"><h3>{escape(title)} <small>{escape(named or part.name)}</small></h3>'
            body += alarm(part, training)
            body += f'<div class="curves">{main}</div>' if main else '<p class="soft">No step was logged.</p>'
            if more:
                body += f'<details><summary>More of its curves</summary><div class="curves">{more}</div></details>'
            body += "</div>"
    about = "Thin: each step; thick: running average; dots and rings: evaluations on held-out problems."
    return f'<h2>Curves of every training</h2><p class="soft">{about}</p>{body}' if body else ""


def alarm(part: Part, training: Training) -> str:
    """Whether the alarm against reward hacking watched a run, and what it saw."""
    steps = [step for step, row in sorted(training.metrics.items()) if any(key.startswith("hacking/") for key in row)]
    if training.alarm or steps:
        at = f" at step {', '.join(map(str, steps))}" if steps else ""
        return f'<p><span class="chip bad">hacking alarm{at}</span> {escape(training.alarm)}</p>'
    watched = mapping(part.manifest.get("config")).get("hacking_alarm")
    if not watched:
        return ""
    seen = sum(f"rewards/{watched}/mean" in row for row in training.metrics.values())
    needed = int(number(mapping(part.manifest.get("config")).get("hacking_window")) or 10) + 3
    if seen < needed:
        return (
            f'<p><span class="chip">hacking alarm</span> It had {seen} values of {escape(str(watched))} to judge by, '
            f"too few for its {needed}.</p>"
        )
    return f'<p><span class="chip good">hacking alarm</span> It watched {escape(str(watched))} and stayed silent.</p>'


def times(whole: Whole, own: str | None) -> str:
    """Time per stage, from the manifests."""
    seconds = [part.seconds or 0.0 for part in whole.parts]
    longest, lines = max([*seconds, 1e-9]), ""
    for part, spent in zip(whole.parts, seconds):
        numbers = [
            f"{escape(str(key))} {short(found)}"
            for key, value in mapping(part.manifest.get("metrics")).items()
            if (found := number(value)) is not None
        ]
        bar = f'<div class="bar" style="width:{100 * spent / longest:.2f}%"></div>' if spent else ""
        attempts = len(listed(part.manifest.get("attempts")))
        again = f"<small>{attempts} attempts</small>" if attempts > 1 else ""
        status, took = ("writes this page", "") if part.name == own else (part.status, clock(part.seconds))
        lines += (
            f'<tr><th scope="row">{escape(part.name)}<small>{escape(part.title)}</small></th>'
            f"<td>{escape(status)}{again}</td>"
            f'<td class="n">{took or "–"}</td><td class="bars">{bar}</td>'
            f'<td class="n">{kept_words(part) or ""}</td><td><small>{", ".join(numbers[:4])}</small></td></tr>'
        )
    return (
        f'<h2>Time per stage</h2><p class="soft">{clock(sum(seconds))} in all{beside(whole, sum(seconds))}; '
        "the time of attempts that were killed is not known.</p>"
        f'<div class="wide"><table class="times">{lines}</table></div>{setup(whole)}'
    )


def beside(whole: Whole, total: float) -> str:
    """How long it took by the clock, where stages ran side by side."""
    took = by_the_clock(whole.parts)
    return f", {clock(took)} by the clock because stages ran side by side" if took < 0.95 * total else ""


def by_the_clock(parts: Sequence[Part]) -> float:
    """Seconds in which at least one stage ran; an attempt that does not say when counts whole."""
    spans, total = [], 0.0
    for part in parts:
        for attempt in listed(part.manifest.get("attempts")) or [{"seconds": part.seconds}]:
            seconds = number(mapping(attempt).get("seconds")) or 0.0
            try:
                start = datetime.fromisoformat(str(mapping(attempt)["started"])).timestamp()
            except (KeyError, ValueError):
                total += seconds
            else:
                spans.append((start, start + seconds))
    latest = float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, latest))
        latest = max(latest, end)
    return total


def setup(whole: Whole) -> str:
    """Where it ran, from the newest manifest; each stage's full configuration."""
    manifests = [part.manifest for part in whole.parts if part.manifest]
    newest = max(manifests, key=lambda found: str(found.get("started", "")), default={})
    machine = mapping(newest.get("machine"))
    versions = ", ".join(f"{name} {version}" for name, version in mapping(machine.get("versions")).items())
    commits = dict.fromkeys(
        str(found.get("commit")) + (" (changed)" if found.get("dirty") else "") for found in manifests
    )
    facts = {
        "cores": machine.get("cores"), "gpus": ", ".join(map(str, listed(machine.get("gpus")))), "versions": versions,
        "commit": ", ".join(commits), "seed": whole.seed,
    }  # fmt: skip
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
        if value not in (None, "")
    )
    configs = ""
    for part in whole.parts:
        if config := part.manifest.get("config"):
            text = json.dumps(config, ensure_ascii=False, indent=1)
            configs += f"<h3>{escape(part.name)}</h3><pre>{escape(text)}</pre>"
    shown = f"<details><summary>The configuration of every stage</summary>{configs}</details>" if configs else ""
    return f'<table class="facts">{rows}</table>{shown}'


# --- the same problem by every stage ----------------------------------------------------------------------------------


def side_by_side(cards: Mapping[str, Card]) -> str:
    problems = answered(cards, "shown_problems", "reasoning")
    requests = answered(cards, "shown_requests", "general")
    if not problems and not requests:
        return ""
    about = "The first sample of each stage to the first held-out problems and requests, not picked by outcome."
    text = f'<h2>The same problem, answered by every stage</h2><p class="soft">{about}</p>'
    for title, articles in (("Problems", problems), ("Requests", requests)):
        if articles:
            rest = articles[SHOWN:]
            more = (
                f"<details><summary>{len(rest)} more {title.lower()}</summary>{''.join(rest)}</details>" if rest else ""
            )
            text += f'<div class="part"><h3>{title}</h3>{"".join(articles[:SHOWN])}{more}</div>'
    return text


def answered(cards: Mapping[str, Card], shown: str, part: str) -> list[str]:
    """An article a problem: what every stage answered. Stages show the same problems in the same order."""
    asked: dict[str, dict[str, Any]] = {}
    given: dict[str, dict[str, dict]] = {}
    for name, card in cards.items():
        rows = listed(card.get(part))
        for index, item in enumerate(map(mapping, listed(card.get(shown)))):
            problem, row = as_text(item.get("problem", "–")), mapping(rows[index]) if index < len(rows) else {}
            about = {"problem": problem, "task": row.get("task") or item.get("kind"), "language": row.get("language")}
            about |= {"answer": item["answer"]} if item.get("answer") is not None else {}
            asked.setdefault(problem, about)
            given.setdefault(problem, {})[name] = sample_of(item, row)
    return [
        article(about, *(completion(escape(cards[name]["label"]), given[problem].get(name)) for name in cards))
        for problem, about in asked.items()
    ]


def sample_of(item: dict, row: dict) -> dict[str, Any]:
    """What completion() shows of a stage's first answer."""
    firsts = {key: listed(row.get(key))[:1] for key in ("formatted", "consistent", "lengths")}
    rewards: dict[str, Any] = {}
    if "correct" in item:
        rewards["accuracy"] = float(bool(item["correct"]))
    if firsts["formatted"]:
        rewards["format"] = float(bool(firsts["formatted"][0]))
    if firsts["consistent"] and firsts["consistent"][0] is not None:
        rewards["language"] = firsts["consistent"][0]
    if "passed" in item:
        rewards["harmless" if row.get("judged") == "harmlessness" else "helpful"] = float(bool(item["passed"]))
    return {"completion": item.get("text", ""), "rewards": rewards, "length": (firsts["lengths"] or [None])[0]}


# --- the page ---------------------------------------------------------------------------------------------------------


def header(whole: Whole, own: str | None) -> str:
    states = [part.status for part in whole.parts if part.name != own]
    done = sum(state == "finished" for state in states)
    kind = "good" if done == len(states) else "bad" if "failed" in states else ""
    started = min((str(part.manifest["started"]) for part in whole.parts if part.manifest.get("started")), default="")
    spans = {
        "": started[:16], "seed": "" if whole.seed is None else whole.seed,
        "in all": clock(by_the_clock(whole.parts)),
    }  # fmt: skip
    words = "".join(f"<span>{name} {escape(str(value))}</span> " for name, value in spans.items() if value != "")
    notes = "".join(f"<li>{escape(note)}</li>" for note in whole.notes)
    return (
        f'<h1>{escape(whole.title)}</h1><p class="meta">{words}<span class="chip {kind}">{done} of {len(states)} '
        f"stages finished</span></p>" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def page(whole: Whole, rows: Sequence[dict], own: str | None = None) -> str:
    """The HTML; rows as `table` gives them, for whole's cards. own: the stage that is writing the page."""
    by_name = dict(zip(whole.cards, rows))
    main = (
        result(rows, whole.cards) + stages(whole, by_name, own) + by_group(rows) + filters(whole)
        + side_by_side(whole.cards) + curves(whole) + times(whole, own)
    )  # fmt: skip
    return document(whole.title, header(whole, own), main, CSS)


def write_report(folder: Path) -> list[dict[str, Any]]:
    """report.html and stages.json of a pipeline's folder, into it; returns the rows.

    Raises FileNotFoundError for a folder that holds no stage, ValueError for scorecards of different problems.
    """
    whole = read_pipeline(folder)
    if not whole.parts:
        raise FileNotFoundError(
            f"{folder} is no pipeline: it holds neither {SUMMARY} nor a stage's {MANIFEST}; pass a folder like runs/r1"
        )
    whole.notes += table_doubts([part.name for part in whole.parts if is_measure(part)], whole.cards)
    rows = table(whole.cards)
    write_page(folder / PAGE, page(whole, rows))
    write_json(folder / TABLE, rows)
    return rows


@declare(outputs=(TABLE, PAGE), check=checks())
def stage(context: StageContext) -> StageResult:
    """The table of the measured stages that are its inputs, in their order, and the page; also beside pipeline.json.

    Another table among the inputs says that this one is written after it."""
    context.parse()
    measured = {role: found.name for role, found in context.inputs.items() if TABLE not in found.outputs}
    cards = {name: checked_card(context.input(role, CARD)) for role, name in measured.items()}
    rows = table(cards)
    if not context.is_main_process:
        return StageResult()
    whole = read_pipeline(context.folder.parent)
    whole.cards = cards
    whole.notes += table_doubts(list(measured.values()), cards)
    text = page(whole, rows, own=context.name)
    for folder in (context.folder, context.folder.parent):
        write_page(folder / PAGE, text)
        write_json(folder / TABLE, rows)
    return StageResult(metrics=last_row(rows))


def last_row(rows: Sequence[dict]) -> dict[str, Any]:
    """The numbers of the last stage in the table."""
    shown = ("overall", "reasoning", "language_consistency", "harmlessness", "helpfulness", "format")
    return {name: rows[-1][name] for name in shown if rows and rows[-1][name] is not None}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes stages_report", description="The page of a pipeline.")
    parser.add_argument("folder", type=Path, help="a pipeline's folder, such as runs/r1")
    folder = parser.parse_args(argv).folder
    try:
        rows = write_report(folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for row in rows:
        numbers = {name: row[name] for name in ("overall", *OVERALL) if row[name] is not None}
        print(f"{row['stage']:10}" + "".join(f"  {name} {percent(value)}" for name, value in numbers.items()))
    print(f"{folder / PAGE}\n{folder / TABLE}", file=sys.stderr)


if __name__ == "__main__":
    main()
