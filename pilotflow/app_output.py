"""Where the output of an app's tasks goes: what `stdout=`, `stderr=` and `label=` may be, and their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, TypeAlias

from pilotflow.errors import ConfigError
from pilotflow.files import File
from pilotflow.units import show


class _AutoLogName:
    """The type of `AUTO_LOGNAME`."""

    def __repr__(self) -> str:
        return "AUTO_LOGNAME"

    def __reduce__(self) -> str:
        return "AUTO_LOGNAME"


AUTO_LOGNAME: Final = _AutoLogName()
"""As `stdout` or `stderr`: a file in the run directory, `tasks/APP/LABEL.out` or `.err`."""

Target: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | _AutoLogName | None"
"""What `stdout` and `stderr` may be."""

LABEL_MAX_BYTES: Final = 200
"""With a task's number and an ending, a name of 255 bytes must hold it."""

STREAMS: Final = (("stdout", "out"), ("stderr", "err"))
"""Keywords of the two streams, and how the names of their files end."""


def check_target(target: Any, where: str) -> None:
    """See that this can be a `stdout` or `stderr`.

    Raises:
        ConfigError: it cannot; `where` names the argument.
    """
    whole = isinstance(target, (str, os.PathLike, _AutoLogName)) or target is None
    pair = isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], (str, os.PathLike))
    if not whole and not (pair and target[1] in ("a", "a+", "w", "w+")):
        raise ConfigError(f"{where} takes a path, (path, 'a' or 'w'), or AUTO_LOGNAME, not {show(target)}")
    path = target[0] if isinstance(target, tuple) else target
    if isinstance(path, (str, os.PathLike)) and not is_elsewhere(target) and "\0" in os.fsdecode(path):
        raise ConfigError(f"{where} takes a path without the character NUL, not {show(str(path))}")


def is_elsewhere(target: Any) -> bool:
    """Whether what goes to such a `stdout` or `stderr` is to be stored at a URL."""
    path = target[0] if isinstance(target, tuple) else target
    return isinstance(path, File) and path.is_remote


def check_label(label: Any, where: str) -> None:
    """See that this can be a part of a file's name.

    Raises:
        ConfigError: it cannot; `where` names the argument.
    """
    if label is None:
        return
    if not isinstance(label, str) or not label or "/" in label or "\0" in label or label.startswith("."):
        raise ConfigError(f"{where} takes a name for files, without '/' and not beginning with '.', not {show(label)}")
    length = len(label.encode("utf-8", "surrogatepass"))
    if length > LABEL_MAX_BYTES:
        raise ConfigError(
            f"{where} names files, with at most {LABEL_MAX_BYTES} bytes; {show(label)} has {length}. Shorten it."
        )


def place_of(
    target: Any, directory: Path, task_id: int, label: str | None, suffix: str, word: str
) -> tuple[str, str] | None:
    """The path and mode of a stream's file, or None if it has none.

    Args:
        target: what the user wrote.
        directory: for files that are named by us.
        task_id, label, suffix: what such a name is made of.
        word: the argument, for the message.

    Raises:
        ConfigError: the target is wrong.
    """
    check_target(target, word)
    if target is None:
        return None
    if target is AUTO_LOGNAME:
        name = f"{task_id:06d}" if label is None else f"{label}-{task_id:06d}"
        return str(directory / f"{name}.{suffix}"), "a"
    if isinstance(target, tuple):
        return os.path.abspath(target[0]), target[1]
    return os.path.abspath(target), "a"
