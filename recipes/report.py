"""report.html: what a run did, on one page that opens anywhere: no network, no libraries, readable without JavaScript.

`write_report` reads only the files that the run wrote, so it needs no GPU and no model, and it works on a run that
crashed: whatever is missing or cut off is named at the top of the page. Everything read is data and gets escaped, model
text above all, and the page forbids itself to load anything or to run a script that is not ours.
docs/metrics.md explains the names.

    python -m recipes.report runs/NAME
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml

from recipes.page_parts import (
    CURVES,
    MORE_CURVES,
    Estimate,
    article,
    charts,
    completion,
    document,
    duration,
    estimate,
    file_text,
    json_lines,
    mapping,
    number,
    parsed,
    percent,
    points,
    points_of,
    read_metrics,
    score_cell,
    short,
    write_page,
)

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
        return points_of(self.metrics, key)

    def scores(self, table: str) -> dict:
        return mapping(self.evaluation.get(table))


def read_run(run_dir: Path) -> Run:
    """Read what there is. Raises FileNotFoundError when the folder holds none of a run's files."""
    texts = {name: file_text(run_dir / name) for name in (*FILES, "status.json")}
    if not any(texts[name] is not None for name in FILES):
        raise FileNotFoundError(
            f"{run_dir} is no run: it holds none of {', '.join(FILES)}; pass a folder like runs/NAME"
        )
    notes = [f"{name} is missing" for name in FILES if texts[name] is None]
    return Run(
        name=run_dir.resolve().name,
        config_text=texts["config.yaml"] or "",
        config=parsed("config.yaml", texts["config.yaml"], yaml.safe_load, notes),
        status=parsed("status.json", texts["status.json"], json.loads, notes),
        metrics=read_metrics("metrics.jsonl", texts["metrics.jsonl"], notes),
        samples=json_lines("samples.jsonl", texts["samples.jsonl"], notes),
        evaluation=parsed("eval.json", texts["eval.json"], json.loads, notes),
        notes=notes,
    )


# The result: base against trained
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
def curves(run: Run) -> str:
    main, more = charts(run.metrics, CURVES), charts(run.metrics, MORE_CURVES)
    if not main + more:
        return "<h2>Learning curves</h2><p>No step was logged (metrics.jsonl).</p>"
    return (
        '<h2>Learning curves</h2><p class="soft">Over training steps. Thin: each step; thick: running average; '
        f'dots and rings: evaluations on held-out problems.</p><div class="curves">{main}</div>'
        "<details><summary>More: KL, gradient norm, learning rate, clipping, lengths, speed</summary>"
        f'<div class="curves">{more}</div></details>'
    )


# Completions
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
    return document(run.name, header(run), result(run) + curves(run) + completions(run) + setup(run))


def write_report(run_dir: Path) -> Path:
    """Write run_dir/report.html and return its path. Raises FileNotFoundError when run_dir is no run."""
    return write_page(Path(run_dir) / "report.html", page(read_run(Path(run_dir))))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.report", description="Write report.html into a run.")
    parser.add_argument("run_dir", type=Path, help="a folder that a recipe wrote, such as runs/r1-zero")
    try:
        print(write_report(parser.parse_args(argv).run_dir))
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
