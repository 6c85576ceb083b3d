"""Files that a task's output goes to."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from pilotflow.errors import ConfigError


class Output(NamedTuple):
    """Where a task's output goes: (path, mode) for each stream, or None to leave it."""

    stdout: tuple[str, str] | None
    stderr: tuple[str, str] | None


def flush_output() -> None:
    """Bring what was printed to its file; a task may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


@contextlib.contextmanager
def opened(output: Output) -> Iterator[list[tuple[int, int]]]:
    """(1 or 2, descriptor of its file) for each stream that has one; both may have the same.

    Raises:
        ConfigError: a file cannot be written to.
    """
    files: list[tuple[int, int]] = []
    by_path: dict[str, int] = {}
    try:
        for fd, target in ((1, output.stdout), (2, output.stderr)):
            if target is None:
                continue
            path, mode = target
            if path not in by_path:
                try:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    by_path[path] = os.open(path, _flags(mode), 0o666)
                except OSError as error:
                    raise ConfigError(
                        f"the task's {'stdout' if fd == 1 else 'stderr'} cannot go to {path} on {socket.gethostname()}: "
                        f"{error}. Name a file in a directory where every node can write, or use AUTO_LOGNAME."
                    ) from None
            files.append((fd, by_path[path]))
        yield files
    finally:
        for opened in by_path.values():
            os.close(opened)


@contextlib.contextmanager
def redirected(output: Output) -> Iterator[None]:
    """The task's output goes to its files, which are closed as soon as descriptors 1 and 2 lead there."""
    with contextlib.ExitStack() as stack:
        with opened(output) as files:
            stack.enter_context(pointed(files))
        yield


@contextlib.contextmanager
def pointed(files: list[tuple[int, int]]) -> Iterator[None]:
    """Descriptors 1 and 2 go to files, as `opened` gives them, so that C code and child processes write there too."""
    flush_output()
    saved = [(fd, os.dup(fd)) for fd, _ in files]
    for fd, file in files:
        os.dup2(file, fd)
    try:
        yield
    finally:
        flush_output()
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)


def _flags(mode: str) -> int:
    return os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if mode.startswith("w") else os.O_APPEND)
