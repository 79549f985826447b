"""The graph of a pipeline as a picture: which model or data set goes where, as inline SVG without scripts.

A row a stage, in their order, and three lanes: on the left what is made for training (data sets, reward models), in the
middle the models, on the right each model's measurement. A line that passes other stages runs through the gutter
between left and middle, in a channel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

LEFT, MIDDLE, RIGHT = 0, 1, 2
LANES = ((0, 310), (420, 310), (784, 296))
"""x and width of the boxes of each lane, in SVG units."""
WIDTH, ROW, BOX, MARGIN = 1106, 80, 60, 6
CHANNEL, RADIUS = 14, 7
CHARACTERS = 15
"""Of small text that fit into 100 units."""


@dataclass
class Node:
    """A box: a stage, or a model from outside of the pipeline."""

    name: str
    title: str = ""
    facts: str = ""
    note: str = ""
    """Beside the name: the time that it took, or that it comes from outside."""
    status: str = "finished"
    lane: int = LEFT
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of another node -> what is taken from it: "model", "dataset", or another word."""
    row: int = -1

    @property
    def x(self) -> int:
        return LANES[self.lane][0]

    @property
    def right(self) -> int:
        return self.x + LANES[self.lane][1]

    @property
    def y(self) -> int:
        return MARGIN + ROW * self.row

    @property
    def middle(self) -> float:
        return self.y + BOX / 2


Edge = tuple[Node, Node, str]
"""From, to, and what goes along."""


def picture(nodes: Sequence[Node]) -> str:
    """The SVG. Nodes come in an order in which each follows those it needs; unknown inputs are left out."""
    by_name = {node.name: node for node in nodes}
    place(nodes)
    edges = [(by_name[name], node, what) for node in nodes for name, what in node.inputs.items() if name in by_name]
    height = MARGIN * 2 + ROW * (1 + max((node.row for node in nodes), default=0)) - (ROW - BOX)
    lines = "".join(_lines(nodes, edges))
    words = f"{len(nodes)} stages and the models and data sets that go between them"
    return (
        f'<svg class="picture" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{words}">'
        f"{lines}{''.join(_box(node) for node in nodes)}</svg>"
    )


def place(nodes: Sequence[Node]) -> None:
    """Give every node its row: one of its own, or, on the right, that of what it measures."""
    rows = 0
    for node in nodes:
        if node.lane != RIGHT:
            node.row, rows = rows, rows + 1
    row_of = {node.name: node.row for node in nodes if node.lane != RIGHT}
    measured: dict[str, int] = {}
    for node in nodes:
        if node.lane == RIGHT:
            beside = [row_of[name] for name in node.inputs if name in row_of]
            below = [measured[name] + 1 for name in node.inputs if name in measured]
            wanted = max([*beside, *below], default=0)
            node.row = next(row for row in range(wanted, wanted + len(nodes)) if row not in measured.values())
            measured[node.name] = node.row


def channels(edges: Sequence[Edge]) -> dict[str, int]:
    """Source -> its channel in the gutter; two whose rows touch never share one."""
    spans: dict[str, tuple[int, int]] = {}
    for source, target, _ in edges:
        low, high = spans.get(source.name, (source.row, source.row))
        spans[source.name] = (min(low, target.row), max(high, target.row))
    found: dict[str, int] = {}
    for name, (low, high) in sorted(spans.items(), key=lambda item: item[1]):
        busy = {found[other] for other in found if spans[other][0] <= high and low <= spans[other][1]}
        found[name] = next(channel for channel in range(len(spans)) if channel not in busy)
    return found


def _lines(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[str]:
    taken = {(node.lane, node.row) for node in nodes}
    gutter, drawn = [], []
    for edge in edges:
        source, target, _ = edge
        free = not any((source.lane, row) in taken for row in range(source.row + 1, target.row))
        if target.lane == RIGHT:
            # To a measurement; or from one, down the page's edge, to what gathers them.
            x, end = (LANES[RIGHT][0] - 24, target.x) if source.lane != RIGHT else (target.right + 16, target.right)
            turns = [(x, source.middle), (x, target.middle)]
            drawn.append(_line(edge, [(source.right, source.middle), *turns, (end, target.middle)]))
        elif source.lane == target.lane and free:
            centre = source.x + LANES[source.lane][1] / 2
            drawn.append(_line(edge, [(centre, source.y + BOX), (centre, target.y)]))
        else:
            gutter.append(edge)
    return drawn + _gutter(gutter)


def _gutter(edges: Sequence[Edge]) -> list[str]:
    """Lines between left and middle. Where several meet at a box, each has a height of its own: first those that come
    in, from above, then the one that leaves."""
    channel = channels(edges)
    ports: dict[str, set[tuple[bool, int]]] = {}
    for source, target, _ in edges:
        ports.setdefault(source.name, set()).add((True, channel[source.name]))
        ports.setdefault(target.name, set()).add((False, channel[source.name]))

    def end(node: Node, port: tuple[bool, int]) -> tuple[float, float]:
        order = sorted(ports[node.name])
        y = node.y + BOX * (1 + order.index(port)) / (len(order) + 1)
        return node.right if node.lane == LEFT else node.x, round(y, 1)

    drawn = []
    for edge in edges:
        source, target, _ = edge
        x = LANES[MIDDLE][0] - 22 - CHANNEL * channel[source.name]
        (x1, y1), (x2, y2) = end(source, (True, channel[source.name])), end(target, (False, channel[source.name]))
        drawn.append(_line(edge, [(x1, y1), (x, y1), (x, y2), (x2, y2)]))
    return drawn


def _line(edge: Edge, corners: Sequence[tuple[float, float]]) -> str:
    """A line with rounded corners and a head, and in words for whoever points at it."""
    source, target, what = edge
    path = f"M{corners[0][0]:g} {corners[0][1]:g}"
    for before, corner, after in zip(corners, corners[1:], corners[2:]):
        reach = min(RADIUS, _distance(before, corner) / 2, _distance(corner, after) / 2)
        near, far = _toward(corner, before, reach), _toward(corner, after, reach)
        path += f"L{near[0]:g} {near[1]:g}Q{corner[0]:g} {corner[1]:g} {far[0]:g} {far[1]:g}"
    (x0, y0), (x, y) = corners[-2:]
    path += f"L{x:g} {y:g}"
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    head = f"M{x:g} {y:g}l{-7 * dx - 4 * dy:g} {-7 * dy - 4 * dx:g}l{8 * dy:g} {8 * dx:g}z"
    kind = {"model": "c0", "dataset": "c2"}.get(what, "c5" if target.lane == RIGHT else "c3")
    words = escape(f"{source.name} → {target.name}: {what}")
    return f'<g class="flow {kind}"><title>{words}</title><path d="{path}"/><path class="head" d="{head}"/></g>'


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _toward(a: tuple[float, float], b: tuple[float, float], by: float) -> tuple[float, float]:
    length = _distance(a, b) or 1.0
    return round(a[0] + (b[0] - a[0]) * by / length, 1), round(a[1] + (b[1] - a[1]) * by / length, 1)


def _box(node: Node) -> str:
    x, width = LANES[node.lane]
    notes = [node.status] if node.status != "finished" else []
    beside = " · ".join([*notes, *([node.note] if node.note else [])])
    head = f"{escape(_cut_front(node.name, width // 11))}<tspan> {escape(beside)}</tspan>"
    lines = [(20, "name", head), (37, "", escape(_cut(node.title, CHARACTERS * width // 100)))]
    lines.append((53, "", escape(_cut(node.facts, CHARACTERS * width // 100))))
    words = "".join(f'<text class="{kind}" x="{x + 12}" y="{node.y + dy}">{text}</text>' for dy, kind, text in lines)
    kind = {"failed": "bad", "finished": ""}.get(node.status, "open")
    shape = f'<rect x="{x + 0.5}" y="{node.y + 0.5}" width="{width - 1}" height="{BOX - 1}" rx="7"/>'
    about = escape(" · ".join(part for part in (node.name, node.title, node.status, node.note, node.facts) if part))
    return f'<g class="stage {kind} lane{node.lane}"><title>{about}</title>{shape}{words}</g>'


def _cut_front(text: str, limit: int) -> str:
    """A path says most at its end."""
    return text if len(text) <= limit else "…" + text[-limit + 1 :]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
