"""Which run is meant: `last`, a number, or a path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.units import nearest

LAST: Final = ("last", "latest")
_NUMBERED: Final = re.compile(r"\d{4,}")


def run_directories(base: Path) -> list[Path]:
    """All run directories in `base`, oldest first."""
    if not base.is_dir():
        return []
    return sorted((each for each in base.iterdir() if _NUMBERED.fullmatch(each.name)), key=lambda each: int(each.name))


def find_directory(text: str, base: Path) -> Path:
    """The run directory that is meant.

    Args:
        text: `last`, a number, or a path.
        base: where run directories are.

    Raises:
        ConfigError: there is no such run.
    """
    if text in LAST:
        found = run_directories(base)
        if not found:
            raise ConfigError(f"There is no run in {base.absolute()}. Start one with `pilotflow run WORKFLOW`.")
        return found[-1].absolute()
    named = [Path(text)] if not text.isdecimal() else [base / f"{int(text):04d}"]
    for path in named:
        if path.is_dir():
            return path.absolute()
    known = [path.name for path in run_directories(base)]
    if not text.isdecimal():
        close = nearest(text, LAST)
        hint = f" Did you mean {close}?" if close else ""
        raise ConfigError(f"There is no run {text}.{hint} Name one by its number, as `last`, or by its directory.")
    some = f"The last one is {known[-1]}" if known else "There is none"
    raise ConfigError(f"There is no run {text} in {base.absolute()}. {some}; see `pilotflow list`.")
