"""What notebooks show of futures, runs and apps: small tables in HTML that suit light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable

_TEXT_MAX = 500
_LEFT = "text-align:left;vertical-align:top"


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table in HTML.

    Args:
        title: its first line.
        rows: names and values; a row without a value (None or an empty text) is left out.
    """
    import html  # its tables take a while, and only notebooks need it

    lines = [f'<tr><th colspan="2" style="{_LEFT}">{html.escape(title)}</th></tr>']
    for name, value in rows:
        text = "" if value is None else str(value)
        if text:
            cut = text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 3]}..."
            cell = f'<td style="{_LEFT};white-space:pre-wrap">{html.escape(cut)}</td>'
            lines.append(f'<tr><td style="{_LEFT}">{html.escape(name)}</td>{cell}</tr>')
    return f"<table>{''.join(lines)}</table>"
