"""A picture of a workflow's graph as DOT, Mermaid or SVG text."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Final

from pilotflow.workflow.picture import Node, Picture

_CHARACTER_WIDTH: Final = 7.3
_LONGEST: Final = 34
_BOX_HEIGHT: Final = 40
_COLUMN_GAP: Final = 70
_ROW_GAP: Final = 16
_MARGIN: Final = 20
_SWEEPS: Final = 4


def _label(node: Node) -> str:
    return f"{node.name} ({node.count} jobs)" if node.count > 1 else node.name


def dot(picture: Picture) -> str:
    """The picture for Graphviz."""
    lines = [f"digraph {_in_dot(picture.title)} {{", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for index, node in enumerate(picture.nodes):
        text = _in_dot(_label(node) + (f"\n{node.note}" if node.note else ""))
        lines.append(f"  n{index} [label={text}];")
    lines += [f"  n{start} -> n{end};" for start, end in picture.edges]
    return "\n".join([*lines, "}", ""])


def _in_dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def mermaid(picture: Picture) -> str:
    """The picture for Mermaid, which many pages and editors draw."""
    lines = ["flowchart LR"]
    for index, node in enumerate(picture.nodes):
        text = _label(node) + (f"\n{node.note}" if node.note else "")
        lines.append(f'  n{index}["{_in_mermaid(text)}"]')
    lines += [f"  n{start} --> n{end}" for start, end in picture.edges]
    return "\n".join([*lines, ""])


def _in_mermaid(text: str) -> str:
    special = {"\n": "<br/>", "#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\\": "#92;"}
    return "".join(special.get(character, character) for character in text)


def svg(picture: Picture) -> str:
    """The picture as a file for browsers: levels from left to right, no script, readable offline."""
    columns = _ordered(picture)
    widths = [max(map(_width, (picture.nodes[index] for index in column)), default=0.0) for column in columns]
    lefts = [_MARGIN + sum(widths[:number]) + _COLUMN_GAP * number for number in range(len(columns))]
    tallest = max(map(len, columns), default=0)
    height = 2 * _MARGIN + max(1, tallest) * (_BOX_HEIGHT + _ROW_GAP) - _ROW_GAP
    width = (lefts[-1] + widths[-1] if columns else 0) + _MARGIN
    boxes: dict[int, tuple[float, float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * (_BOX_HEIGHT + _ROW_GAP) + _ROW_GAP) / 2
        for row, index in enumerate(column):
            boxes[index] = (lefts[number], top + row * (_BOX_HEIGHT + _ROW_GAP), widths[number])
    body = [_edge(boxes[start], boxes[end]) for start, end in picture.edges]
    body += [_box(picture.nodes[index], *boxes[index]) for index in range(len(picture.nodes))]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"',
            f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="ui-monospace, monospace" font-size="12">',
            f"<title>{_in_xml(picture.title)}</title>",
            '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
            '<path d="M0 0 8 4 0 8z" fill="#6b7785"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _ordered(picture: Picture) -> list[list[int]]:
    """Nodes by level; within a level near to what they are connected with, so that few edges cross."""
    depth = 1 + max((node.level for node in picture.nodes), default=-1)
    columns: list[list[int]] = [[] for _ in range(depth)]
    for index, node in enumerate(picture.nodes):
        columns[max(0, node.level)].append(index)
    before: dict[int, list[int]] = {index: [] for index in range(len(picture.nodes))}
    behind: dict[int, list[int]] = {index: [] for index in range(len(picture.nodes))}
    for start, end in picture.edges:
        if start != end:
            before[end].append(start)
            behind[start].append(end)
    for sweep in range(_SWEEPS):
        neighbours, order = (before, columns) if sweep % 2 == 0 else (behind, columns[::-1])
        _sweep(order, columns, neighbours)
    return [column for column in columns if column]


def _sweep(order: list[list[int]], columns: list[list[int]], neighbours: Mapping[int, list[int]]) -> None:
    place = {index: (row + 0.5) / len(column) for column in columns for row, index in enumerate(column)}
    for column in order:
        wish = {
            index: sum(place[other] for other in neighbours[index]) / len(neighbours[index])
            if neighbours[index]
            else place[index]
            for index in column
        }
        column.sort(key=wish.__getitem__)
        for row, index in enumerate(column):
            place[index] = (row + 0.5) / len(column)


def _width(node: Node) -> float:
    return max(len(_shown(_label(node))), len(_shown(node.note)), 6) * _CHARACTER_WIDTH + 24


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _in_xml(text: str) -> str:
    kept = "".join(character if character.isprintable() else " " for character in text)
    return html.escape(kept, quote=True)


def _box(node: Node, left: float, top: float, width: float) -> str:
    fill = "#e8f1fb" if node.count == 1 else "#fdf3dd"
    middle = left + width / 2
    lines = [
        f"<g><title>{_in_xml(_label(node))}</title>",
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BOX_HEIGHT}" rx="6" fill="{fill}" stroke="#6b7785"/>',
    ]
    name_at = top + (17 if node.note else 24)
    lines.append(
        f'<text x="{middle:.1f}" y="{name_at:.1f}" text-anchor="middle">{_in_xml(_shown(_label(node)))}</text>'
    )
    if node.note:
        lines.append(
            f'<text x="{middle:.1f}" y="{top + 32:.1f}" text-anchor="middle" fill="#6b7785" font-size="10">'
            f"{_in_xml(_shown(node.note))}</text>"
        )
    return "".join([*lines, "</g>"])


def _edge(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    style = 'fill="none" stroke="#6b7785" marker-end="url(#end)"'
    if start == end:  # a stage whose jobs are chained
        x, y = start[0] + start[2] / 2, start[1]
        return f'<path d="M{x + 12:.1f} {y:.1f} C{x + 24:.1f} {y - 16:.1f} {x - 24:.1f} {y - 16:.1f} {x - 12:.1f} {y:.1f}" {style}/>'
    x1, y1 = start[0] + start[2], start[1] + _BOX_HEIGHT / 2
    x2, y2 = end[0], end[1] + _BOX_HEIGHT / 2
    bend = max(30.0, abs(x2 - x1) / 2)
    return (
        f'<path d="M{x1:.1f} {y1:.1f} C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}" {style}/>'
    )


FORMATS: Final[Mapping[str, Callable[[Picture], str]]] = {"svg": svg, "dot": dot, "mermaid": mermaid}
