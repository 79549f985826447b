"""report.html: what a run did, on one page that opens anywhere: no network, no libraries, readable without JavaScript.

`write_report` reads only the files that the run wrote, so it needs no GPU and no model, and it works on a run that
crashed: whatever is missing or cut off is named at the top of the page. Everything read is data and gets escaped, model
text above all, and the page forbids itself to load anything or to run a script that is not ours.
docs/metrics.md explains the names.

    python -m recipes.report runs/NAME
"""

import argparse
import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CSS = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1b1d20; --soft: #666b73; --rule: #e3e4e6; --wash: #f4f4f2;
  --c0: #2461c4; --c1: #cf6f1e; --c2: #25906a; --c3: #8f55ad; --c4: #b8476a; --c5: #8a9099;
  --good: #1c7f57; --bad: #b93a3a }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e6e7e9; --soft: #999fa8; --rule: #2d3137;
  --wash: #1d2024; --c0: #7da9f7; --c1: #efa35f; --c2: #5cc69b; --c3: #c597e0; --c4: #ec8ba9; --c5: #969da8;
  --good: #5cc69b; --bad: #f0837d } }
.c0 { --c: var(--c0) } .c1 { --c: var(--c1) } .c2 { --c: var(--c2) }
.c3 { --c: var(--c3) } .c4 { --c: var(--c4) } .c5 { --c: var(--c5) }

* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK KR", sans-serif;
  font-variant-numeric: tabular-nums }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .4rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--rule) }
h3 { font-size: .95rem; margin: 0 }
p { margin: .25rem 0 1rem; max-width: 48rem }
small, .soft, .meta, thead th, summary { color: var(--soft); font-size: .8rem; font-weight: 400 }
summary { cursor: pointer; padding: .35rem 0; font-size: .9rem }
.meta { font-size: .95rem; margin: 0; max-width: none } .meta > span { margin-right: 1.1rem }
.chip { display: inline-block; font-size: .76rem; line-height: 1.35; padding: .1rem .5rem; border: 1px solid;
  border-radius: 1rem; color: var(--soft) }
.chip.good { color: var(--good) } .chip.bad { color: var(--bad) }
.notes { margin: 1.25rem 0 0; padding: .6rem 1rem .6rem 2rem; background: var(--wash); overflow-wrap: anywhere;
  border-left: 3px solid var(--c1) }
table { border-collapse: collapse }
td, th { padding: .3rem .5rem } th { font-weight: 500; text-align: left } th:first-child { padding-left: 0 }
td small, th small { display: block; line-height: 1.25 }
.n { text-align: right; white-space: nowrap } .gain { font-weight: 600 }

.hero { font-size: 3rem; line-height: 1.1; letter-spacing: -.03em; font-weight: 600; margin: .75rem 0 .4rem }
.hero i { font-style: normal; color: var(--c5) } .hero b, .new { font-weight: inherit; color: var(--c0) }
.compare { width: 100%; table-layout: fixed } .compare .l { width: 15rem } .compare .v { width: 7.25rem }
.compare tbody tr:first-child > * { border-top: 1px solid var(--rule) }
.compare .group { padding-top: 1.3rem; font-weight: 600 }
.compare .plot { padding: 0 1rem } .plot svg { display: block; width: 100%; height: 28px; overflow: visible }
.scale { position: relative; height: 1.2em }
.scale span { position: absolute; transform: translateX(-50%); white-space: nowrap }
.grid { stroke: var(--rule) } .ci { fill: var(--c); opacity: .28 }
.join { stroke: var(--soft); stroke-width: 1.5; opacity: .6 }
.wide { overflow-x: auto } .wide th, .wide td { white-space: nowrap; border-top: 1px solid var(--rule) }

.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 2rem 2.25rem; margin: 1.25rem 0 }
figure { margin: 0; break-inside: avoid; display: flex; flex-direction: column } figure p { margin: 0 }
figure h3 { display: flex; justify-content: space-between }
figure svg { width: 100%; margin-top: auto; touch-action: pan-y }
figure text { fill: var(--soft); font-size: 10.5px }
.raw, .smooth { fill: none; stroke: var(--c); stroke-linejoin: round } .raw { opacity: .32 }
.smooth { stroke-width: 2.2 } .cursor { stroke: var(--soft); stroke-dasharray: 2 3 }
circle { fill: var(--c) } .ring circle { fill: var(--paper); stroke: var(--c); stroke-width: 2 }
.keys { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .8rem; margin: .1rem 0 .4rem }
.keys span::before { content: ""; display: inline-block; width: .8em; height: 3px; border-radius: 4px;
  background: var(--c); margin-right: .4em; vertical-align: .25em }
.keys .dot::before, .keys .ring::before { width: 5px; height: 5px; vertical-align: 0; border: 2px solid var(--c);
  border-radius: 50% }
.keys .ring::before { background: none }

article { padding: 1.1rem 0; border-top: 1px solid var(--rule) } article > p { margin: .2rem 0; white-space: pre-wrap }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1rem 1.5rem; margin-top: .7rem }
.side { min-width: 0 }
.side > div { display: flex; flex-wrap: wrap; gap: .3rem .4rem; align-items: center; margin-bottom: .4rem }
pre { font: 12.5px/1.55 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--wash); border-radius: 5px; padding: .75rem .9rem; margin: 0;
  max-height: 24rem; overflow: auto }
pre i { font-style: normal; color: var(--c3) } pre b { color: var(--c0) } pre.all { max-height: none }
.facts { margin: .5rem 0 1.5rem } .facts th { color: var(--soft); white-space: nowrap; vertical-align: top }
.facts td { overflow-wrap: anywhere } .facts .keys { margin: 0; font-size: inherit }
.phases { display: flex; height: 12px; gap: 2px; margin-top: .8rem }
.phases i { background: var(--c); border-radius: 2px; min-width: 2px }

@media screen and (max-width: 52rem) {
  .hero { font-size: 2.4rem } .compare col, .compare thead, .plot:empty { display: none }
  .compare, .compare tbody { display: block }
  .compare tr { display: grid; grid-template-columns: 1fr 1fr 1fr; padding: .45rem 0 }
  .compare tr > *, .compare tbody tr:first-child > * { padding: .1rem 0; border: 0 }
  .compare th, .compare .plot { grid-column: 1 / -1 } .compare .plot { padding: .1rem .4rem }
  .plot .grid { transform: translateY(6px) scaleY(.58) } .compare td.n { text-align: left }
  .compare td.n::before { content: attr(data-of); display: block; font-size: .75rem; font-weight: 400;
    color: var(--soft) }
}
@media print {
  :root { --paper: #fff } body { max-width: none; padding: 0; font-size: 10pt } * { print-color-adjust: exact }
  article, tr, .side { break-inside: avoid } h2, h3, h2 + p { break-after: avoid } pre { max-height: none }
  .curves { grid-template-columns: 1fr 1fr } .compare .l { width: 11rem } .compare .v { width: 6.5rem }
}
"""

# Hovering a curve puts the values of that step into its key; without scripts the key keeps those at the end of the run.
JS = """
for (const svg of document.querySelectorAll('svg[data-tip]')) {
  const rows = JSON.parse(svg.dataset.tip), cursor = svg.querySelector('.cursor');
  const outs = [...svg.closest('figure').querySelectorAll('output')], last = outs.map(o => o.textContent);
  const show = texts => outs.forEach((o, i) => o.textContent = texts[i]);
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const [at, texts] = rows.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    cursor.setAttribute('transform', `translate(${at})`); cursor.removeAttribute('visibility'); show(texts);
  });
  svg.addEventListener('pointerleave', () => { cursor.setAttribute('visibility', 'hidden'); show(last); });
}
"""

FILES = ("config.yaml", "metrics.jsonl", "samples.jsonl", "eval.json")
EVAL_LABELS = {  # in the order of the headline table; a final @ stands for @k
    "pass@1": ("pass@1, strict", "right answer in the right place"),
    "lenient_pass@1": ("pass@1, lenient", "right answer anywhere"),
    "greedy": ("greedy", "one completion, temperature 0"),
    "cons@": ("cons@{k}", "majority vote over {k} samples"),
    "pass@": ("pass@{k}, strict", "one of {k} samples right"),
    "lenient_pass@": ("pass@{k}, lenient", "one of {k} right anywhere"),
    "format": ("format", "every tag where it belongs"),
    "truncated": ("truncated", "cut off at the token limit"),
    "mean_length": ("mean length", "tokens a completion"),
}
CURVES = (  # title, what is drawn, whether in percent, metrics ({parts}: every reward function)
    ("Reward", "mean over a step's completions", False, "reward {parts}"),
    ("Accuracy", "completions with the right answer", True, "rewards/accuracy/mean eval/pass@1 eval/greedy"),
    ("Format", "completions with every tag in place", True, "rewards/format/mean eval/format"),
    ("Response length", "mean tokens a completion", False, "completions/mean_length eval/mean_length"),
    ("Entropy", "nats a token: how much it still explores", False, "entropy"),
    ("Groups without a signal", "all completions got the same reward", True, "frac_reward_zero_std"),
)
MORE_CURVES = (
    ("KL", "nats a token, to the reference policy", False, "kl"),
    ("Gradient norm", "before clipping", False, "grad_norm"),
    ("Learning rate", "of the optimizer", False, "learning_rate"),
    ("Clipped, by side", "tokens outside the trust region", True, "clip_ratio/low_mean clip_ratio/high_mean"),
    ("Clipped, in all", "tokens outside the trust region", True, "clip_ratio/region_mean"),
    ("Loss", "says little in RL: watch the reward", False, "loss"),
    ("Reward spread", "standard deviation within a group", False, "reward_std"),
    ("Truncated", "completions cut off at the token limit", True, "completions/clipped_ratio"),
    ("Length extremes", "tokens", False, "completions/max_length completions/min_length"),
    ("Throughput", "tokens sampled a second", False, "tokens_per_second"),
    ("Step time", "seconds", False, "step_time time/sample time/score time/update"),
)
TRAINER_EVAL_NAMES = {  # what GRPOTrainer.evaluate logs: the name that docs/metrics.md gives it
    "eval_rewards/accuracy/mean": "eval/pass@1",
    "eval_greedy/accuracy": "eval/greedy",
    "eval_rewards/format/mean": "eval/format",
    "eval_completions/mean_length": "eval/mean_length",
}
MAX_POINTS = 400  # a longer curve is averaged down to this many points
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 190, 40, 10, 8, 22  # a chart's box and margins, in SVG units


# Reading
@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder holds. `notes` says in words what is missing or unreadable."""

    name: str
    config_text: str = ""
    config: dict = field(default_factory=dict)
    status: dict = field(default_factory=dict)
    metrics: dict[int, dict] = field(default_factory=dict)
    samples: list[dict] = field(default_factory=list)
    evaluation: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of one metric in order of steps, without values that are no finite numbers."""
        points = ((step, number(row.get(key))) for step, row in sorted(self.metrics.items()))
        return [(step, value) for step, value in points if value is not None]

    def scores(self, table: str) -> dict:
        return mapping(self.evaluation.get(table))


def number(value: Any) -> float | None:
    """value as a float if it is a number, else None: a crashed run may hold NaN, null or text anywhere.

    Beyond 1e100 it counts as none and below 1e-100 as 0, so that nothing overflows when a curve is scaled.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e100:
        return None
    return float(value) if abs(value) > 1e-100 else 0.0


def mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def read_run(run_dir: Path) -> Run:
    """Read what there is. Raises FileNotFoundError when the folder holds none of a run's files."""
    texts = {name: file_text(run_dir / name) for name in (*FILES, "status.json")}
    if not any(texts[name] is not None for name in FILES):
        raise FileNotFoundError(
            f"{run_dir} is no run: it holds none of {', '.join(FILES)}; pass a folder like runs/NAME"
        )
    notes = [f"{name} is missing" for name in FILES if texts[name] is None]
    metrics: dict[int, dict] = {}
    for line in json_lines("metrics.jsonl", texts["metrics.jsonl"], notes):
        if (step := number(line.get("step"))) is not None:  # a resumed run repeats steps: the later line wins
            named = {TRAINER_EVAL_NAMES.get(key, key): value for key, value in line.items()}
            metrics[int(step)] = metrics.get(int(step), {}) | named
    return Run(
        name=run_dir.resolve().name,
        config_text=texts["config.yaml"] or "",
        config=parsed("config.yaml", texts["config.yaml"], yaml.safe_load, notes),
        status=parsed("status.json", texts["status.json"], json.loads, notes),
        metrics=metrics,
        samples=json_lines("samples.jsonl", texts["samples.jsonl"], notes),
        evaluation=parsed("eval.json", texts["eval.json"], json.loads, notes),
        notes=notes,
    )


def file_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def parsed(name: str, text: str | None, parse: Callable[[str], Any], notes: list[str]) -> dict:
    """The mapping in text; when there is none, {} and a line in notes."""
    try:
        value = {} if text is None else parse(text)
    except (ValueError, yaml.YAMLError) as error:
        value = str(error).partition("\n")[0]
    if not isinstance(value, dict):
        notes.append(f"{name} cannot be read, perhaps cut off by a crash: expected a mapping, got: {str(value)[:200]}")
    return mapping(value)


def json_lines(name: str, text: str | None, notes: list[str]) -> list[dict]:
    """The mappings in a file of JSON lines; notes counts the lines that hold none."""
    rows: list[dict] = []
    bad = []
    for index, line in enumerate((text or "").split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            row = None
        rows += [row] if isinstance(row, dict) and row else []
        bad += [] if isinstance(row, dict) else [str(index)]
    if bad:
        notes.append(f"{name}: left out unreadable line {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''} of {index}")
    return rows


# Numbers as text
def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of two shares in points, with its sign: 0.031 is +3.1."""
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def short(value: float) -> str:
    """Three significant digits or so: 1,830 and 71.2 and 0.84 and 2e-4."""
    size = abs(value)
    if 0 < size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return f"{value:,.{0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 4}f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


# The result: base against trained
class Estimate(NamedTuple):
    """A measured number and, where the evaluation gave one, its 95 % interval."""

    value: float
    interval: tuple[float, float] | None = None


def estimate(scores: Any, key: str) -> Estimate | None:
    interval_key = {"pass@1": "ci95", "lenient_pass@1": "lenient_ci95"}.get(key, f"{key}_ci95")
    value, bounds = number(mapping(scores).get(key)), mapping(scores).get(interval_key)
    match [number(bound) for bound in bounds] if isinstance(bounds, list) else []:
        case [float(low), float(high)] if value is not None:
            return Estimate(value, (low, high))
    return None if value is None else Estimate(value)


def eval_stem(key: str) -> str:
    return key if key in EVAL_LABELS else re.sub(r"@\d+$", "@", key)


def eval_label(key: str) -> tuple[str, str]:
    """Name of a score and what it means; a score that EVAL_LABELS does not hold keeps its key."""
    name, meaning = EVAL_LABELS.get(eval_stem(key), (key.replace("_", " "), ""))
    k = key.rpartition("@")[2]
    return escape(name.replace("{k}", k)), meaning.replace("{k}", k)


def eval_keys(tables: Iterable[Any]) -> list[str]:
    """The scores in these tables, in the order of EVAL_LABELS, unknown ones last."""
    keys = {key for table in tables for key in mapping(table) if estimate(table, key)} - {"num_problems", "k"}
    rank = {name: i for i, name in enumerate(EVAL_LABELS)}
    return sorted(keys, key=lambda key: (rank.get(eval_stem(key), len(rank)), key))


def score_cell(column: str, score: Estimate | None, form: Callable[[float], str]) -> str:
    """A number over its interval; `column` is the heading that a narrow screen repeats."""
    text, interval = ("–", "") if score is None else (form(score.value), " – ".join(map(form, score.interval or ())))
    return f'<td class="n {column}" data-of="{column}">{text}<small>{interval.replace(" %", "")}</small></td>'


def score_form(key: str) -> Callable[[float], str]:
    """How a score is written: a share in percent, a length or a count as a number, a score we do not know as it is."""
    forms = {"mean_length": "{:,.1f}".format, "num_problems": "{:,.0f}".format, "k": "{:,.0f}".format}
    return forms.get(key) or (percent if eval_stem(key) in EVAL_LABELS else short)


def dumbbell(base: Estimate | None, trained: Estimate | None) -> str:
    """Base dot and trained dot on a scale of 0 to 100 %; the soft bars are their 95 % intervals."""
    scores = [(name, color, e) for name, color, e in (("base", "c5", base), ("trained", "c0", trained)) if e]
    marks = [f'<line class="grid" x1="{x}%" x2="{x}%" y1="-10" y2="38"/>' for x in (0, 25, 50, 75, 100)]
    for _, color, (_, interval) in scores:
        if interval:
            x, width = 100 * interval[0], 100 * max(0.0, interval[1] - interval[0])
            marks.append(f'<rect class="ci {color}" x="{x:.2f}%" width="{width:.2f}%" y="9" height="10" rx="3"/>')
    if base and trained:
        ends = f'x1="{100 * base.value:.2f}%" x2="{100 * trained.value:.2f}%"'
        marks.append(f'<line class="join" {ends} y1="14" y2="14"/>')
    marks += [f'<circle class="{color}" cx="{100 * e.value:.2f}%" cy="14" r="4.5"/>' for _, color, e in scores]
    words = ", ".join(f"{name} {percent(e.value)}" for name, _, e in scores)
    return f'<svg role="img" aria-label="{words}">{"".join(marks)}</svg>'


def comparison_row(label: str, meaning: str, key: str, scores: dict, gains: Any = None) -> str:
    """One score of base and trained, as a picture and as numbers; `gains` may hold the gain's own interval."""
    base, trained = estimate(scores.get("base"), key), estimate(scores.get("trained"), key)
    gain = estimate(gains, key) or (Estimate(trained.value - base.value) if base and trained else None)
    form = score_form(key)
    return (
        f'<tr><th scope="row">{label}<small>{meaning}</small></th>'
        f'<td class="plot">{dumbbell(base, trained) if form is percent else ""}</td>'
        f"{score_cell('base', base, form)}{score_cell('trained', trained, form)}"
        f"{score_cell('gain', gain, points if form is percent else lambda value: points(value / 100))}</tr>"
    )


def num_problems(scores: dict) -> str:
    sizes = [number(mapping(side).get("num_problems")) for side in scores.values()]
    return next((f"{size:,.0f} problems" for size in sizes if size is not None), "")


def group_rows(title: str, groups: dict, prefix: str = "") -> str:
    """Strict pass@1 of each task, difficulty or language."""
    named = [(escape(f"{prefix}{name}").replace("_", " "), mapping(scores)) for name, scores in groups.items()]
    rows = [comparison_row(name, num_problems(scores), "pass@1", scores) for name, scores in named]
    return f'<tbody><tr><th colspan="5" class="group">{title}</th></tr>{"".join(rows)}</tbody>' if rows else ""


def finding(run: Run) -> str:
    """The result as one large line and a sentence."""
    overall, gains = run.scores("overall"), run.scores("gain")
    base, trained = estimate(overall.get("base"), "pass@1"), estimate(overall.get("trained"), "pass@1")
    if not base or not trained:
        return f"<p>Only the {'base' if base else 'trained model'} was evaluated, so there is no gain to show.</p>"
    text = f"{points(trained.value - base.value)} points of strict pass@1"
    match estimate(gains, "pass@1"):
        case Estimate(_, (low, high)):
            text += f", 95 % interval {points(low)} to {points(high)}"
            text += ". It includes zero: this run shows no gain" if low <= 0 <= high else ""
    if lenient := estimate(gains, "lenient_pass@1"):
        text += f". Where a right answer counts anywhere in the text: {points(lenient.value)} points; "
        text += "what strict gains beyond that is learning where the answer belongs"
    return f'<p class="hero"><i>{100 * base.value:.1f}</i> → <b>{percent(trained.value)}</b></p><p>{text}.</p>'


def result(run: Run) -> str:
    overall = run.scores("overall")
    keys = eval_keys(overall.values())
    if not keys:
        return "<h2>Result</h2><p>No evaluation was written (eval.json), so there is no base to compare with.</p>"
    scale = "".join(f'<span style="left:{x}%">{x}{" %" * (x == 100)}</span>' for x in (0, 25, 50, 75, 100))
    facts = [f"{key} {value}" for key, value in (run.scores("protocol") | run.scores("settings")).items()]
    return (
        f'<h2>Result</h2>{finding(run)}<table class="compare">'
        '<colgroup><col class="l"><col><col class="v"><col class="v"><col class="v"></colgroup>'
        f'<thead><tr><th>{num_problems(overall)}</th><th class="plot"><div class="scale">{scale}</div></th>'
        '<th class="n">● base<small>95 % interval</small></th><th class="n"><span class="new">● trained</span>'
        '<small>95 % interval</small></th><th class="n">gain<small>points</small></th></tr></thead><tbody>'
        + "".join(comparison_row(*eval_label(key), key, overall, run.scores("gain")) for key in keys)
        + f"</tbody>{group_rows('Strict pass@1 by task', run.scores('tasks'))}"
        + group_rows("By difficulty", dict(sorted(run.scores("difficulties").items())), "difficulty ")
        + f"{group_rows('By language', run.scores('languages'))}</table>"
        + f'<p class="soft">Evaluation: {escape(", ".join(facts))}</p>{every_score(run)}'
    )


def every_score(run: Run) -> str:
    """All score tables of eval.json as one wide table, collapsed."""
    tables = [("overall", run.scores("overall"))]
    for kind in ("tasks", "difficulties", "languages"):
        tables += [(f"{kind}: {name}", mapping(scores)) for name, scores in run.scores(kind).items()]
    keys = ["num_problems", "k", *eval_keys(side for _, scores in tables for side in scores.values())]
    head = "".join(f'<th class="n">{eval_label(key)[0]}</th>' for key in keys)
    body = ""
    for name, scores in tables:
        for side in scores:
            cells = "".join(score_cell("", estimate(scores[side], key), score_form(key)) for key in keys)
            body += f"<tr><th>{escape(name).replace('_', ' ')}</th><td>{escape(side)}</td>{cells}</tr>"
    return (
        '<details><summary>Every number of the evaluation</summary><div class="wide"><table>'
        f"<thead><tr><th></th><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


# Curves
class Line(NamedTuple):
    """One metric in a chart. Style "" is a curve over training steps; "dot" and "ring" are evaluations."""

    name: str
    points: list[tuple[int, float]]
    style: str

    def trend(self) -> list[tuple[int, float]]:
        """What the thick line shows. Evaluations and the learning rate have no noise to smooth away."""
        return self.points if self.style or self.name == "learning rate" else smoothed(self.points)


class Frame(NamedTuple):
    """The axes of a chart: first and last step, ticks of y, and whether y is a share, shown in percent."""

    first: int
    last: int
    ticks: list[float]
    share: bool

    def place(self, step: float, value: float) -> tuple[float, float]:
        x = (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
        y = (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0]) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + x, 1), round(TOP + y, 1)

    def text(self, value: float) -> str:
        return percent(value) if self.share else short(value)


def chart_line(run: Run, key: str) -> Line:
    """rewards/accuracy/mean is drawn as "accuracy", eval/pass@1 as "evaluation pass@1", time/sample as "sample"."""
    name = re.sub(r"^(rewards|completions|clip_ratio|time)/|(/|_)mean$", "", key).replace("eval/", "evaluation ")
    style = "" if not key.startswith("eval/") else "ring" if "greedy" in key else "dot"
    return Line(name.replace("_", " "), averaged_down(run.series(key)), style)


def averaged_down(series: list[tuple[int, float]], limit: int = MAX_POINTS) -> list[tuple[int, float]]:
    """series, or means over equal chunks of it when it is longer than limit."""
    size = math.ceil(len(series) / limit) or 1
    chunks = [series[i : i + size] for i in range(0, len(series), size)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]


def smoothed(series: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Centred moving average over about a tenth of the points, so that the curve does not lag behind its data."""
    half, values = max(1, len(series) // 20), [value for _, value in series]
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [(step, sum(window) / len(window)) for (step, _), window in zip(series, windows)]


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that cover [low, high]; at least two."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        high = low + (abs(low) or 1.0)
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    gap = next(power * m for m in (1, 2, 5, 10) if power * m * count >= 0.999 * (high - low))
    return [gap * i for i in range(math.floor(low / gap + 1e-6), math.ceil(high / gap - 1e-6) + 1)]


def frame(lines: list[Line], share: bool) -> Frame:
    """Axes that hold every point; a share gets all of 0 to 100 %, unless it stays below a tenth."""
    steps, values = zip(*(point for line in lines for point in line.points))
    low, high = min(values), max(values)
    if share:
        low, high = min(0.0, low), max(1.0 if high > 0.1 else 0.001, high)
    return Frame(min(steps), max(max(steps), min(steps) + 1), round_ticks(low, high), share)


def axes(f: Frame) -> str:
    marks = []
    for value in f.ticks:
        y = f.place(f.first, value)[1]
        plain = f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e3 else short(value)
        label = f"{100 * value:.4g} %" if f.share else plain
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 3.5}" text-anchor="end">{label}</text>')
    for step in round_ticks(f.first, f.last, 5):
        x = f.place(step, 0)[0]
        if f.first <= step <= f.last and step == int(step):
            anchor = "end" if x > WIDTH - 24 else "middle"
            marks.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step:,.0f}</text>')
    return "".join(marks)


def draw(line: Line, color: str, f: Frame) -> str:
    """A curve, raw and smoothed; evaluations, and a curve of one point, as dots."""
    if line.style or len(line.points) == 1:
        dots = ""
        for step, value in line.points:
            (x, y), title = f.place(step, value), f"{line.name}, step {step:,}: {f.text(value)}"
            dots += f'<circle cx="{x}" cy="{y}" r="4"><title>{escape(title)}</title></circle>'
        return f'<g class="{color} {line.style}">{dots}</g>'
    raw, smooth = (
        " ".join(f"{x},{y}" for x, y in (f.place(*point) for point in series)) for series in (line.points, line.trend())
    )
    return f'<g class="{color}"><path class="raw" d="M{raw}"/><path class="smooth" d="M{smooth}"/></g>'


def tips(lines: list[Line], f: Frame) -> str:
    """For each step, as JSON: its x in the drawing, and what the key says when the pointer is there."""
    values = [dict(line.points) for line in lines]
    steps = sorted({step for line in values for step in line})
    texts = [[f"step {step:,}", *(f.text(v[step]) if step in v else "–" for v in values)] for step in steps]
    return json.dumps([[f.place(step, 0)[0], text] for step, text in zip(steps, texts)], separators=(",", ":"))


def chart(title: str, about: str, share: bool, lines: list[Line]) -> str:
    """A figure with title, key, axes and curves; "" when no line has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    f = frame(lines, share)
    key = drawing = ""
    for i, line in enumerate(lines):
        color, end = f"c{min(i, 5)}", line.trend()[-1][1]
        key += f'<span class="{color} {line.style}">{escape(line.name)} <output>{f.text(end)}</output></span>'
        drawing += draw(line, color, f)
    return (
        f'<figure><figcaption><h3>{title}<output class="soft">at the end</output></h3><p class="soft">{about}</p>'
        f'<div class="keys">{key}</div></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"'
        f' data-tip="{escape(tips(lines, f))}">{axes(f)}{drawing}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg></figure>'
    )


def charts(run: Run, specs: tuple) -> str:
    parts = dict.fromkeys(key for row in run.metrics.values() for key in row if re.fullmatch(r"rewards/.+/mean", key))
    figures = ""
    for title, about, share, text in specs:
        keys = [key for word in text.split() for key in (parts if word == "{parts}" else [word])]
        figures += chart(title, about, share, [chart_line(run, key) for key in keys])
    return figures


def curves(run: Run) -> str:
    main, more = charts(run, CURVES), charts(run, MORE_CURVES)
    if not main + more:
        return "<h2>Learning curves</h2><p>No step was logged (metrics.jsonl).</p>"
    return (
        '<h2>Learning curves</h2><p class="soft">Over training steps. Thin: each step; thick: running average; '
        f'dots and rings: evaluations on held-out problems.</p><div class="curves">{main}</div>'
        "<details><summary>More: KL, gradient norm, learning rate, clipping, lengths, speed</summary>"
        f'<div class="curves">{more}</div></details>'
    )


# Completions
def highlighted(text: Any) -> str:
    """Model text, escaped, with its tags coloured and its answer bold."""
    safe = re.sub(r"(&lt;answer&gt;)(.*?)(?=&lt;/answer&gt;)", r"\1<b>\2</b>", escape(str(text)), flags=re.DOTALL)
    return re.sub(r"&lt;/?(?:think|answer)&gt;", r"<i>\g<0></i>", safe)


def verdict(name: str, value: float | None) -> tuple[str, str]:
    """(CSS class, words) for one reward of a completion."""
    right, wrong = {"accuracy": ("✓ correct", "✗ wrong"), "format": ("✓ format", "✗ format")}.get(name, ("", ""))
    if value is None:
        return "", f"{name} not scored"
    if right and value in (0, 1):
        return ("good", right) if value == 1 else ("bad", wrong)
    return "", f"{name} {value:.2f}"


def completion(title: str, sample: dict | None) -> str:
    """A completion under its verdicts and its length."""
    if sample is None:
        return f'<div class="side"><h3>{title}</h3><p class="soft">no completion was written</p></div>'
    marks = [verdict(str(name), number(value)) for name, value in mapping(sample.get("rewards")).items()]
    marks += [("bad", "cut off")] if sample.get("truncated") is True else []
    chips = "".join(f'<span class="chip {kind}">{escape(words)}</span>' for kind, words in marks)
    length = number(sample.get("length"))
    tokens = "" if length is None else f"<small>{length:,.0f} tokens</small>"
    text = highlighted(sample.get("completion", ""))
    return f'<div class="side"><div><h3>{title}</h3>{chips}{tokens}</div><pre>{text}</pre></div>'


def article(sample: dict, *sides: str) -> str:
    """A problem with its gold answer, completions of it side by side, and the prompt."""
    difficulty = f"difficulty {sample['difficulty']}" if sample.get("difficulty") else None
    about = " · ".join(str(part) for part in (sample.get("task"), sample.get("language"), difficulty) if part)
    problem, answer, prompt = (escape(str(sample.get(key, "–"))) for key in ("problem", "answer", "prompt"))
    return (
        f'<article><span class="soft">{escape(about).replace("_", " ")}</span><p><b>{problem}</b></p>'
        f'<p>Gold answer: <b>{answer}</b></p><div class="sides">{"".join(sides)}</div>'
        f"<details><summary>Prompt as the model saw it</summary><pre>{prompt}</pre></details></article>"
    )


def before_and_after(samples: list[dict]) -> list[dict[str, dict]]:
    """{"before": …, "after": …} of each problem: the first of every task, then the second of every task and so on."""
    pairs: dict[str, dict[str, dict]] = {}
    for sample in samples:
        if sample.get("kind") in ("before", "after"):
            pairs.setdefault(str(sample.get("id")), {}).setdefault(sample["kind"], sample)
    seen: Counter[str] = Counter()
    turns = []
    for pair in pairs.values():
        task = str(next(iter(pair.values())).get("task"))
        seen[task] += 1
        turns.append((seen[task], pair))
    return [pair for _, pair in sorted(turns, key=lambda turn: turn[0])]


def completions(run: Run, shown: int = 4) -> str:
    articles = [
        article(next(iter(pair.values())), *(completion(kind.title(), pair.get(kind)) for kind in ("before", "after")))
        for pair in before_and_after(run.samples)
    ]
    note = "One problem of each task in turn, not picked by outcome." if articles else "None written (samples.jsonl)."
    rest = f"<details><summary>{len(articles) - shown} more problems</summary>{''.join(articles[shown:])}</details>"
    return (
        f'<h2>The same problems before and after</h2><p class="soft">{note}</p>{"".join(articles[:shown])}'
        f"{rest if len(articles) > shown else ''}{training_completions(run)}"
    )


def training_completions(run: Run, shown: int = 12) -> str:
    """Training completions, at most `shown`, spread evenly over the run."""
    train = [sample for sample in run.samples if sample.get("kind") == "train"]
    picked = [train[i * (len(train) - 1) // (shown - 1)] for i in range(shown)] if len(train) > shown else train
    body = "".join(article(s, completion(f"Step {number(s.get('step')) or 0:,.0f}", s)) for s in picked)
    return f"<details><summary>{len(picked)} completions during training</summary>{body}</details>" if picked else ""


# The run itself
def phases(run: Run) -> str:
    """Where the time went: sampling, scoring, updating and the rest of each step."""
    seconds = {name: sum(value for _, value in run.series(f"time/{name}")) for name in ("sample", "score", "update")}
    steps = [value for _, value in run.series("step_time")]
    seconds["other"] = max(0.0, sum(steps) - sum(seconds.values()))
    total = sum(seconds.values())
    bar = rows = ""
    for i, (name, spent) in enumerate(seconds.items()):
        share = spent / (total or 1.0)
        bar += f'<i class="c{i}" style="flex:{share:.4f}"></i>'
        rows += (
            f'<tr><th><div class="keys"><span class="c{i}">{name}</span></div></th><td class="n">{duration(spent)}</td>'
        )
        rows += f'<td class="n">{spent / max(1, len(steps)):.2f} s a step</td><td class="n">{percent(share)}</td></tr>'
    return f'<h3>Time per phase</h3><div class="phases">{bar}</div><table class="facts">{rows}</table>' if total else ""


def setup(run: Run) -> str:
    """Where the run came from, where its time went, and the exact configuration."""
    facts = dict(mapping(run.config.get("provenance")))
    if versions := mapping(facts.get("versions")):
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    if elapsed := run.series("elapsed"):
        facts["training time"] = duration(elapsed[-1][1])
    cells = [(escape(str(key)).replace("_", " "), escape(str(value))) for key, value in facts.items()]
    rows = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in cells)
    return (
        f'<h2>How it was run</h2><table class="facts">{rows}</table>{phases(run)}<details><summary>The exact '
        f'configuration (config.yaml)</summary><pre class="all">{escape(run.config_text)}</pre></details>'
    )


def state(run: Run) -> tuple[str, str]:
    """(words, CSS class) for how far the run came. Without status.json, the last step and max_steps have to do."""
    step = int(number(run.status.get("step")) or max(run.metrics, default=0))
    last = int(number(run.status.get("max_steps")) or number(run.config.get("max_steps")) or 0)
    name = str(run.status.get("state") or ("finished" if 0 < last <= step else "not finished"))
    if name == "finished":
        return f"finished, {step:,} steps", "good"
    reached = f"step {step:,} of {last:,}" if last > 0 else f"step {step:,}"
    error = f": {run.status['error']}" if run.status.get("error") else ""
    return f"{name} at {reached}{error}", "bad" if name in ("interrupted", "failed") else ""


def header(run: Run) -> str:
    facts = mapping(run.config.get("provenance"))
    about = {
        "base": str(run.config.get("model_name_or_path", "")),
        "": str(facts.get("started", ""))[:16],
        "commit": str(facts.get("commit", ""))[:10],
        "on": str(facts.get("device", "")),
    }
    spans = "".join(f"<span>{name} {escape(value)}</span> " for name, value in about.items() if value)
    words, kind = state(run)
    notes = "".join(f"<li>{escape(note)}</li>" for note in run.notes)
    return f'<h1>{escape(run.name)}</h1><p class="meta">{spans}<span class="chip {kind}">{escape(words)}</span></p>' + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def page(run: Run) -> str:
    digest = base64.b64encode(hashlib.sha256(JS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(run.name)} · r1lab</title><style>{CSS}</style></head><body><header>{header(run)}</header>"
        f"<main>{result(run)}{curves(run)}{completions(run)}{setup(run)}</main><script>{JS}</script></body></html>\n"
    )


def write_report(run_dir: Path) -> Path:
    """Write run_dir/report.html and return its path. Raises FileNotFoundError when run_dir is no run."""
    path = Path(run_dir) / "report.html"
    html = page(read_run(Path(run_dir)))
    path.write_bytes(html.encode("utf-8", errors="replace"))  # model text may hold half a surrogate pair
    return path


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.report", description="Write report.html into a run.")
    parser.add_argument("run_dir", type=Path, help="a folder that a recipe wrote, such as runs/r1-zero")
    try:
        print(write_report(parser.parse_args(argv).run_dir))
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
