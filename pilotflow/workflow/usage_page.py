"""What a run has used, as one HTML page: no script, nothing from elsewhere, readable offline and in print."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from pilotflow.units import counted, format_duration, format_memory
from pilotflow.workflow.usage import StageUse, Usage, Use, lanes, over_time

BINS: Final = 300
NODES_MAX: Final = 64
"""So many nodes have a plot of their own."""
BARS_MAX: Final = 4_000
"""So many attempts are drawn one by one, the longest ones."""
ROWS_MAX: Final = 200
"""So many jobs are listed, those that differ most from what they asked for."""
_WIDTH: Final = 1000.0
_LEFT: Final = 110.0
_PLOT: Final = _WIDTH - _LEFT - 10
_COLOURS: Final = (
    "#3a7ca5", "#d98e04", "#4f9d69", "#b5495b", "#7a5ea8", "#8c6d46", "#d277b0", "#6c7a89", "#a3ab2c", "#2ba3a3"
)  # fmt: skip
_NUMBER: Final = ' class="n"'
_CSS: Final = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; } p.dim, .dim { color: var(--dim); }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { padding: 3px 10px 3px 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.over { color: #c0392b; font-weight: 600; } .under { color: #b7791f; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.grid { stroke: var(--line); } .held { fill: #3a7ca555; } .busy { fill: #3a7ca5; } .there { fill: #8882; }
.wait { fill: #d98e04aa; } .run { fill: #4f9d69aa; } .key { display: inline-block; width: 11px; height: 11px;
margin: 0 5px 0 14px; border-radius: 2px; }
"""


def page(usage: Usage) -> str:
    """The page.

    Args:
        usage: of which run.
    """
    stages = usage.stages()
    colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(dict.fromkeys(one.name for one in stages))}
    title = f"Run {usage.run} of '{usage.name}': resources"
    parts = [
        f"<h1>{_text(title)}</h1>",
        _summary(usage),
        "<h2>Asked for and used, by entry</h2>",
        _stage_table(stages),
        "<h2>Nodes over time</h2>",
        _key((("#8882", "cores that were there"), ("#3a7ca555", "held by jobs"), ("#3a7ca5", "kept busy"))),
        *_nodes(usage),
        "<h2>Jobs that wait and jobs that run</h2>",
        _key((("#d98e04aa", "ready, and waiting for room"), ("#4f9d69aa", "running"))),
        _waiting(usage),
        "<h2>What ran when</h2>",
        _key([(colour, name) for name, colour in [*colours.items()][:20]]),
        _gantt(usage, colours),
        "<h2>Jobs that differ most from what they asked for</h2>",
        _job_table(usage.uses),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{_text(title)}</title>\n'
        f"<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def percent(share: float | None) -> str:
    """A share as people read it; "-" if there is none."""
    return "-" if share is None else f"{share:.0%}"


def core_time(seconds: float) -> str:
    """Time of cores as people read it."""
    return f"{seconds / 3600:,.2f} core-hours" if seconds >= 360 else f"{seconds:,.1f} core-seconds"


def _summary(usage: Usage) -> str:
    waited = sum(use.waited_s for use in usage.uses)
    held = usage.asked_core_s / usage.core_s if usage.core_s else None
    busy = usage.used_core_s / usage.core_s if usage.core_s else None
    mean = waited / len(usage.uses) if usage.uses else 0.0
    count = len({span.node for span in usage.nodes})
    rows = (
        ("took", format_duration(round(usage.seconds, 1))),
        ("attempts", f"{len(usage.uses):,} on {count:,} node{'' if count == 1 else 's'}"),
        ("cores there", core_time(usage.core_s)),
        ("held by jobs", f"{core_time(usage.asked_core_s)}, {percent(held)}"),
        ("kept busy", f"{core_time(usage.used_core_s)}, {percent(busy)}"),
        ("mean wait of a job", format_duration(round(mean, 2))),
    )
    return "<table>" + "".join(f"<tr><th>{k}</th><td>{_text(v)}</td></tr>" for k, v in rows) + "</table>"


def _stage_table(stages: Sequence[StageUse]) -> str:
    header = ("entry", "attempts", "cores asked", "busy", "memory asked", "peak", "runtime asked", "longest", "")
    rows = [
        (
            one.name,
            f"{one.attempts:,}",
            f"{one.request.cpus_milli / 1000:g}",
            f"{one.cores_mean:.2f}" if one.cores_mean is not None else "-",
            format_memory(one.request.memory_bytes) if one.request.memory_bytes else "-",
            format_memory(one.memory_peak) if one.memory_peak else "-",
            format_duration(one.request.runtime_s) if one.request.runtime_s is not None else "-",
            format_duration(round(one.longest_s, 1) or round(one.longest_s, 3)),
            one.verdicts,
        )
        for one in stages
    ]
    return _table(header, rows)


def _job_table(uses: Sequence[Use]) -> str:
    found = sorted((use for use in uses if use.verdicts), key=_distance, reverse=True)
    if not found:
        return "<p>Every job used between half and all of what it asked for, as far as that was measured.</p>"
    rows = [
        (
            use.name,
            str(use.attempt),
            use.node,
            percent(use.cpu_share),
            percent(use.memory_share),
            format_memory(use.peak_bytes) if use.peak_bytes else "-",
            percent(use.runtime_share),
            format_duration(round(use.seconds, 1)),
            use.verdicts,
        )
        for use in found[:ROWS_MAX]
    ]
    header = ("job", "attempt", "node", "of its cores", "of its memory", "peak", "of its runtime", "took", "")
    more = len(found) - len(rows)
    return _table(header, rows) + (f'<p class="dim">and {more:,} more</p>' if more > 0 else "")


def _distance(use: Use) -> float:
    shares = [share for share in (use.memory_share, use.cpu_share, use.runtime_share) if share]
    return max((max(share, 1 / share) for share in shares), default=0.0)


def _table(header: Sequence[str], rows: Sequence[tuple[str | tuple[str, ...], ...]]) -> str:
    heads = "".join(f"<th{_NUMBER if number else ''}>{_text(name)}</th>" for number, name in enumerate(header))
    body = []
    for row in rows:
        cells = []
        for number, cell in enumerate(row):
            if isinstance(cell, tuple):
                words = ", ".join(f'<span class="{word.split()[1]}">{_text(word)}</span>' for word in cell)
                cells.append(f"<td>{words}</td>")
            else:
                cells.append(f"<td{_NUMBER if number else ''}>{_text(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


# ---- plots ----------------------------------------------------------------------------------


def _key(entries: Iterable[tuple[str, str]]) -> str:
    return "<p>" + "".join(f'<span class="key" style="background:{c}"></span>{_text(t)}' for c, t in entries) + "</p>"


def _svg(height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{_text(label)}">'
        f"<title>{_text(label)}</title>{''.join(parts)}</svg>"
    )


def _axis(seconds: float, top: float, bottom: float) -> list[str]:
    """Times below a plot, and lines up from them."""
    parts = []
    for number in range(6):
        x = _LEFT + _PLOT * number / 5
        anchor = "start" if not number else "end" if number == 5 else "middle"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>')
        text = format_duration(round(seconds * number / 5, 1))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14:g}" text-anchor="{anchor}">{_text(text)}</text>')
    return parts


def _area(values: Sequence[float], most: float, top: float, bottom: float, css: str) -> str:
    """A plot in steps, filled down to its bottom."""
    width, scale = _PLOT / len(values), (bottom - top) / most if most else 0.0
    points = [f"M{_LEFT:g},{bottom:g}"]
    for number, value in enumerate(values):
        y = bottom - min(value, most) * scale
        points.append(f"V{y:.1f}H{_LEFT + width * (number + 1):.1f}")
    return f'<path class="{css}" d="{"".join(points)}V{bottom:g}Z"/>'


def _nodes(usage: Usage) -> Iterable[str]:
    names = list(dict.fromkeys(span.node for span in usage.nodes))
    by_node: dict[str, list[Use]] = {name: [] for name in names}
    for use in usage.uses:
        by_node.setdefault(use.node, []).append(use)
    for name in names[:NODES_MAX]:
        spans = [span for span in usage.nodes if span.node == name]
        there = over_time([(span.start_s, span.end_s, span.cores) for span in spans], usage.seconds, BINS)
        whole = max(span.cores for span in spans)
        held = [(use.start_s, use.end_s, _held(use, whole)) for use in by_node[name]]
        busy = [(use.start_s, use.end_s, use.cores or 0.0) for use in by_node[name]]
        most = max([*there, whole])
        parts = [
            *_axis(usage.seconds, 4, 64),
            _area(there, most, 4, 64, "there"),
            _area(over_time(held, usage.seconds, BINS), most, 4, 64, "held"),
            _area(over_time(busy, usage.seconds, BINS), most, 4, 64, "busy"),
            f'<text x="0" y="20">{_text(name[:18])}</text>',
            f'<text x="0" y="36">{most:g} cores</text>',
        ]
        yield _svg(82, f"cores of {name} over time", parts)
    if len(names) > NODES_MAX:
        yield f'<p class="dim">and {counted(len(names) - NODES_MAX, "more node")}</p>'
    if any(use.request.num_nodes > 1 for use in usage.uses):
        yield '<p class="dim">Jobs on several nodes are shown on the first of them.</p>'


def _held(use: Use, whole: float) -> float:
    return whole if use.request.num_nodes > 1 else use.request.cpus_milli / 1000


def _waiting(usage: Usage) -> str:
    waits = over_time([(use.ready_s, use.start_s, 1.0) for use in usage.uses], usage.seconds, BINS)
    runs = over_time([(use.start_s, use.end_s, 1.0) for use in usage.uses], usage.seconds, BINS)
    parts = []
    for top, values, css, word in ((4.0, waits, "wait", "waiting"), (104.0, runs, "run", "running")):
        most = max([*values, 1.0])
        parts += _axis(usage.seconds, top, top + 70) if css == "run" else []
        parts.append(_area(values, most, top, top + 70, css))
        parts.append(
            f'<text x="0" y="{top + 14:g}">{word}</text><text x="0" y="{top + 30:g}">at most {most:,.3g}</text>'
        )
    return _svg(194, "jobs that wait and jobs that run, over time", parts)


def _gantt(usage: Usage, colours: dict[str, str]) -> str:
    shown = sorted(usage.uses, key=lambda use: use.seconds, reverse=True)[:BARS_MAX]
    by_node: dict[str, list[Use]] = {}
    for use in shown:
        by_node.setdefault(use.node, []).append(use)
    parts, top = list[str](), 4.0
    scale = _PLOT / usage.seconds if usage.seconds else 0.0
    for node in sorted(by_node):
        placed, rows = lanes(by_node[node])
        height = max(3.0, min(14.0, 240.0 / rows))
        parts.append(f'<text x="0" y="{top + 11:g}">{_text(node[:18])}</text>')
        for row, use in placed:
            x, width = _LEFT + use.start_s * scale, max(0.6, use.seconds * scale)
            colour = colours.get(use.stage, "#888")
            edge = "" if use.how == "completed" else ' stroke="#c0392b" stroke-width="1.5"'
            title = f"{use.name}, attempt {use.attempt}: {use.how} after {format_duration(round(use.seconds, 1))}"
            parts.append(
                f'<rect x="{x:.1f}" y="{top + row * height:.1f}" width="{width:.1f}" height="{height - 1:.1f}" '
                f'fill="{colour}"{edge}><title>{_text(title)}</title></rect>'
            )
        top += max(14.0, rows * height) + 8
    drawn = _svg(top + 20, "what ran when, on each node", [*_axis(usage.seconds, 0, top), *parts])
    left = len(usage.uses) - len(shown)
    note = f'<p class="dim">The {left:,} shortest attempts are not drawn.</p>' if left else ""
    return drawn + '<p class="dim">A red edge: it did not end well.</p>' + note
