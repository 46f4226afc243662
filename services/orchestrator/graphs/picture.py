"""A graph as a picture: Mermaid text and a whole SVG, with the states its nodes are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from services.orchestrator.graphs.validate import levels

_COLOURS: Final = {
    "pending": "#e8e8e8",
    "running": "#ffd866",
    "completed": "#a9dc76",
    "failed": "#ff6188",
    "skipped": "#cfcfcf",
    "cancelled": "#fc9867",
}
_WIDTH: Final = 192  # 24 characters of 7.2 and a little room
_HEIGHT: Final = 44
_GAP_X: Final = 60
_GAP_Y: Final = 16
_MARGIN: Final = 12
_SHOWN: Final = 24


@dataclass(frozen=True, slots=True)
class Drawn:
    """One node as it is drawn. `state` is a key of the legend: "pending", "running" and so on."""

    id: str
    agent: str
    state: str
    depends_on: Sequence[str]


def mermaid(nodes: Sequence[Drawn]) -> str:
    """A flowchart (mermaid.js.org) from left to right."""
    names = {node.id: f"n{place}" for place, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        label = f"{node.id}<br/>{node.agent or 'no agent'}<br/>{node.state}"
        lines.append(f'  {names[node.id]}["{label}"]:::{node.state}')
    lines += [f"  {names[before]} --> {names[node.id]}" for node in nodes for before in node.depends_on]
    lines += [f"  classDef {state} fill:{colour},stroke:#444,color:#111" for state, colour in _COLOURS.items()]
    return "\n".join(lines) + "\n"


def svg(nodes: Sequence[Drawn]) -> str:
    """Levels as columns, a box a node, a curve an edge."""
    ranks = levels({node.id: node.depends_on for node in nodes})
    tallest = max((len(rank) for rank in ranks), default=0)
    width = 2 * _MARGIN + len(ranks) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + tallest * (_HEIGHT + _GAP_Y) - _GAP_Y
    places = {
        name: (_MARGIN + column * (_WIDTH + _GAP_X), _row(row, len(rank), height))
        for column, rank in enumerate(ranks)
        for row, name in enumerate(rank)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        "<style>text{font:12px monospace}.id{font-weight:bold}</style>",
    ]
    parts += [_edge(places, before, node.id) for node in nodes for before in node.depends_on]
    parts += [_box(node, *places[node.id]) for node in nodes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(row: int, count: int, height: int) -> int:
    used = count * (_HEIGHT + _GAP_Y) - _GAP_Y
    return (height - used) // 2 + row * (_HEIGHT + _GAP_Y)


def _edge(places: Mapping[str, tuple[int, int]], before: str, name: str) -> str:
    x1, y1 = places[before][0] + _WIDTH, places[before][1] + _HEIGHT // 2
    x2, y2 = places[name][0], places[name][1] + _HEIGHT // 2
    bend = (x2 - x1) // 2
    return f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" fill="none" stroke="#777"/>'


def _box(node: Drawn, x: int, y: int) -> str:
    agent = escape(f"{_cut(node.agent or 'no agent', _SHOWN - 3 - len(node.state))} · {node.state}")
    return (
        f'<g><title>{escape(node.id)}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="{_COLOURS[node.state]}" stroke="#444"/><text x="{x + 8}" y="{y + 18}" class="id">'
        f'{escape(_cut(node.id))}</text><text x="{x + 8}" y="{y + 35}">{agent}</text></g>'
    )


def _cut(text: str, room: int = _SHOWN) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
