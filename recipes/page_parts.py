"""What the project's pages share: their look, tolerant reading of files, numbers as text, curves, completions.

A page opens anywhere: no network, no libraries, readable without JavaScript. What it reads is data and gets escaped,
model text above all, and `document` forbids the page to load anything or to run a script that is not ours.
"""

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Callable
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
VERDICTS = {  # of a reward that is 1 or 0
    "accuracy": ("✓ correct", "✗ wrong"),
    "format": ("✓ format", "✗ format"),
    "helpful": ("✓ helpful", "✗ not helpful"),
    "harmless": ("✓ harmless", "✗ harmful"),
}
MAX_POINTS = 400  # a longer curve is averaged down to this many points
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 190, 40, 10, 8, 22  # a chart's box and margins, in SVG units


# Reading
def number(value: Any) -> float | None:
    """value as a float if it is a number, else None: a crashed run may hold NaN, null or text anywhere.

    Beyond 1e100 it counts as none and below 1e-100 as 0, so that nothing overflows when a curve is scaled.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e100:
        return None
    return float(value) if abs(value) > 1e-100 else 0.0


def mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


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


def read_metrics(name: str, text: str | None, notes: list[str]) -> dict[int, dict]:
    """metrics.jsonl as a row a step. A resumed run repeats steps: the later line wins."""
    metrics: dict[int, dict] = {}
    for line in json_lines(name, text, notes):
        if (step := number(line.get("step"))) is not None:
            named = {TRAINER_EVAL_NAMES.get(key, key): value for key, value in line.items()}
            metrics[int(step)] = metrics.get(int(step), {}) | named
    return metrics


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


# Scores
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


def score_cell(column: str, score: Estimate | None, form: Callable[[float], str]) -> str:
    """A number over its interval; `column` is the heading that a narrow screen repeats."""
    text, interval = ("–", "") if score is None else (form(score.value), " – ".join(map(form, score.interval or ())))
    return f'<td class="n {column}" data-of="{column}">{text}<small>{interval.replace(" %", "")}</small></td>'


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


def points_of(metrics: dict[int, dict], key: str) -> list[tuple[int, float]]:
    """(step, value) of one metric in order of steps, without values that are no finite numbers."""
    found = ((step, number(row.get(key))) for step, row in sorted(metrics.items()))
    return [(step, value) for step, value in found if value is not None]


def chart_line(metrics: dict[int, dict], key: str) -> Line:
    """rewards/accuracy/mean is drawn as "accuracy", eval/pass@1 as "evaluation pass@1", time/sample as "sample"."""
    name = re.sub(r"^(rewards|completions|clip_ratio|time)/|(/|_)mean$", "", key).replace("eval/", "evaluation ")
    style = "" if not key.startswith("eval/") else "ring" if "greedy" in key else "dot"
    return Line(name.replace("_", " "), averaged_down(points_of(metrics, key)), style)


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


def charts(metrics: dict[int, dict], specs: tuple) -> str:
    """The figures of `specs` (see CURVES) that have a point to show, for metrics by step."""
    parts = dict.fromkeys(key for row in metrics.values() for key in row if re.fullmatch(r"rewards/.+/mean", key))
    figures = ""
    for title, about, share, text in specs:
        keys = [key for word in text.split() for key in (parts if word == "{parts}" else [word])]
        figures += chart(title, about, share, [chart_line(metrics, key) for key in keys])
    return figures


# Completions
def highlighted(text: Any) -> str:
    """Model text, escaped, with its tags coloured and its answer bold."""
    safe = re.sub(r"(&lt;answer&gt;)(.*?)(?=&lt;/answer&gt;)", r"\1<b>\2</b>", escape(str(text)), flags=re.DOTALL)
    return re.sub(r"&lt;/?(?:think|answer)&gt;", r"<i>\g<0></i>", safe)


def verdict(name: str, value: float | None) -> tuple[str, str]:
    """(CSS class, words) for one reward of a completion."""
    right, wrong = VERDICTS.get(name, ("", ""))
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
    """A problem with its gold answer, completions of it side by side, and the prompt; the last two if it has them."""
    difficulty = f"difficulty {sample['difficulty']}" if sample.get("difficulty") else None
    about = " · ".join(str(part) for part in (sample.get("task"), sample.get("language"), difficulty) if part)
    problem, answer, prompt = (escape(str(sample.get(key, "–"))) for key in ("problem", "answer", "prompt"))
    gold = f"<p>Gold answer: <b>{answer}</b></p>" if "answer" in sample else ""
    seen = f"<details><summary>Prompt as the model saw it</summary><pre>{prompt}</pre></details>"
    return (
        f'<article><span class="soft">{escape(about).replace("_", " ")}</span><p><b>{problem}</b></p>{gold}'
        f'<div class="sides">{"".join(sides)}</div>{seen if "prompt" in sample else ""}</article>'
    )


# The page
def document(title: str, header: str, main: str, css: str = "") -> str:
    """The whole page; title is text, header and main are HTML. css comes after the pages' own."""
    digest = base64.b64encode(hashlib.sha256(JS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)} · r1lab</title><style>{CSS}{css}</style></head><body><header>{header}</header>"
        f"<main>{main}</main><script>{JS}</script></body></html>\n"
    )


def write_page(path: Path, html: str) -> Path:
    """Replaced in one step. Model text may hold half a surrogate pair, which becomes a question mark."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(html.encode("utf-8", errors="replace"))
    partial.replace(path)
    return path
