"""Which run is meant: `last`, a number, a run directory, or where run directories are. For all commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.units import nearest

LAST: Final = ("last", "latest")
CONNECTION: Final = "connection.json"
_OF_RUNS: Final = (CONNECTION, "run.db")
_NUMBERED: Final = re.compile(r"\d{4,}")
_HOW: Final = "Name a run by its number, as `last`, or by its directory; `pilotflow list` shows those of workflows."


def run_directories(base: Path) -> list[Path]:
    """All run directories in `base`, oldest first."""
    if not base.is_dir():
        return []
    return sorted((each for each in base.iterdir() if _NUMBERED.fullmatch(each.name)), key=lambda each: int(each.name))


def find_directory(text: str, base: Path) -> Path:
    """The run directory that is meant.

    Args:
        text: `last`; a number; a run directory, its connection file, or a directory of run directories (then its
            newest is meant).
        base: where run directories are.

    Raises:
        ConfigError: there is no such run.
    """
    if text in LAST:
        return _newest(base)
    if text.isdecimal():
        numbered = base / f"{int(text):04d}"
        if numbered.is_dir():
            return numbered.resolve()
        known = run_directories(base)
        some = f"The last one is {known[-1].name}" if known else "There is none"
        raise ConfigError(f"There is no run {text} in {base.absolute()}. {some}. {_HOW}")
    path = Path(text)
    if path.name == CONNECTION and path.is_file():
        return path.parent.resolve()
    if path.is_dir():
        is_one = _NUMBERED.fullmatch(path.resolve().name) or any((path / name).exists() for name in _OF_RUNS)
        return path.resolve() if is_one else _newest(path)
    close = nearest(text, LAST)
    raise ConfigError(f"There is no run {text}.{f' Did you mean {close}?' if close else ''} {_HOW}")


def _newest(base: Path) -> Path:
    found = run_directories(base)
    if not found:
        raise ConfigError(
            f"There is no run in {base.absolute()}. Start one with `pilotflow run WORKFLOW`, or say where runs are by "
            "--run-dir."
        )
    return found[-1].resolve()


def find_connection(text: str, base: Path) -> Path:
    """The connection file of the run that is meant; see `find_directory`.

    Raises:
        ConfigError: there is no such run, or nothing of it has begun.
    """
    path = find_directory(text, base) / CONNECTION
    if not path.is_file():
        raise ConfigError(f"{path.parent} is not the directory of a run that has begun: it has no {CONNECTION}. {_HOW}")
    return path
