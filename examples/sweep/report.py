"""The sweep's results: a table (Parquet if pyarrow is installed, else CSV), and a plot (SVG)."""

from __future__ import annotations

import csv
from html import escape
from pathlib import Path


def write_table(rows: list, directory: Path) -> Path:
    """The table's path."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        path = directory / "sweep.csv"
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        path = directory / "sweep.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_plot(rows: list, directory: Path) -> Path:
    """A bar for the error of each sampler on each target; the plot's path."""
    colours = dict(
        zip(sorted({row["sampler"] for row in rows}), ("#4477aa", "#ee6677", "#228833", "#ccbb44"), strict=False)
    )
    height, bar, left, wide = 24 * len(rows) + 70, 16, 150, 420
    most = max(row["error"] for row in rows) or 1.0
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 90}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    )
    parts = [
        head,
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-size="14">Relative error of the estimated mean of x squared</text>',
    ]
    for number, row in enumerate(rows):
        y = 40 + 24 * number
        length = wide * row["error"] / most
        parts.append(f'<text x="10" y="{y + 13}">{escape(row["target"])} {escape(row["sampler"])}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colours[row["sampler"]]}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 13}">{row["error"]:.1%}</text>')
    path = directory / "sweep.svg"
    path.write_text("\n".join([*parts, "</svg>\n"]))
    return path
