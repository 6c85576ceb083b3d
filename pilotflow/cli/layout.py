"""Text for terminals of any width: tables that become lists, and lists whose text is folded.

Where there is no terminal, nothing is folded: a file or another program wants whole lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_GAP: Final = 3  # between the columns of a table
_AT_END: Final = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")
"""Blanks that fill up a line, and what ends its colours."""
_NARROWEST: Final = 24
"""A column of text that would be narrower goes below its key."""


def print_table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> None:
    """Print a table, or a list for each row where the table would be wider than the terminal.

    Before that, columns of which no row has anything are left out.

    Args:
        console: where to.
        header: names of the columns.
        rows: their texts.
        right: numbers of the columns that are aligned to the right.
    """
    from rich import box
    from rich.table import Table

    columns, width = list(range(len(header))), _width(header, rows)
    if console.is_terminal and width > console.width:
        columns = [number for number in columns if any(row[number] for row in rows)]
        header, rows = [header[number] for number in columns], [[row[number] for number in columns] for row in rows]
        width = _width(header, rows)
    if console.is_terminal and width > console.width:
        for number, row in enumerate(rows):
            if number:
                print()
            pairs = [(key, text) for key, text in zip(header, row, strict=True) if text]
            print_pairs(console, pairs, max(map(len, header)) + 2)
        return
    if not console.is_terminal:  # or it would be cut at 80 columns
        console.width = max(console.width, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number, column in zip(columns, header, strict=True):
        table.add_column(column, justify="right" if number in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    with console.capture() as capture:
        console.print(table, width=width, crop=False)
    print("\n".join(_AT_END.sub(r"\1", line) for line in capture.get().splitlines()))


def _width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len  # some letters are two columns wide

    return sum(max(map(cell_len, column)) for column in zip(header, *rows, strict=True)) + _GAP * (len(header) - 1)


def print_pairs(console: Console, pairs: Iterable[tuple[str, str]], key_width: int) -> None:
    """Print each key, in bold, and its text beside it, or below it where there is no room beside it.

    Args:
        console: where to.
        pairs: keys and texts; an empty key goes on with the one before.
        key_width: columns for the keys.
    """
    from rich.text import Text

    room = console.width - key_width if console.is_terminal else None
    for key, text in pairs:
        lines = [text] if room is None else _folded(text, room if room >= _NARROWEST else console.width - 2)
        if room is None or room >= _NARROWEST:
            first, indent = Text.assemble((key.ljust(key_width), "bold"), lines.pop(0)), " " * key_width
            first.rstrip()
            console.print(first, soft_wrap=True)
        else:
            indent = "  "
            if key:
                console.print(Text(key, style="bold"), soft_wrap=True)
        for line in lines:
            console.print(Text(indent + line), soft_wrap=True)


def _folded(text: str, width: int) -> list[str]:
    return wrap(text, max(1, width), break_on_hyphens=False) or [""]
