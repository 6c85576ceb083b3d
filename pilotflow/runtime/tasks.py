"""What a worker calls for tasks that are more than a plain function call."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pilotflow.errors import BashExitError, ConfigError

TAIL_LINES = 15
"""Lines of stderr that an error shows."""
_TAIL_BYTES = 4096
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./ -]*")
"""A command without anything that a shell would interpret."""
_SHELL_WORDS = frozenset(
    ["alias", "bg", "bind", "break", "builtin", "caller", "case", "cd", "command", "compgen", "complete", "compopt", "continue", "coproc", "declare", "dirs", "disown", "do", "done", "echo", "elif", "else", "enable", "esac", "eval", "exec", "exit", "export", "fc", "fg", "fi", "for", "function", "getopts", "hash", "help", "history", "if", "in", "jobs", "kill", "let", "local", "logout", "mapfile", "popd", "printf", "pushd", "pwd", "read", "readarray", "readonly", "return", "select", "set", "shift", "shopt", "source", "suspend", "test", "then", "time", "times", "trap", "type", "typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"]
)
"""Builtins and reserved words of bash: a command that begins with one needs the shell."""


class Output(NamedTuple):
    """Where a task's output goes: (path, mode) for each stream, or None to leave it."""

    stdout: tuple[str, str] | None
    stderr: tuple[str, str] | None


class PythonCall:
    """A function whose printed output goes to files; its first argument is an `Output`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, output: Output, *args: Any, **kwargs: Any) -> Any:
        with _redirected(output):
            return self.function(*args, **kwargs)


class BashCall:
    """A function that returns a command, and the command; its first argument is an `Output`."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, output: Output, *args: Any, **kwargs: Any) -> int:
        command = self.function(*args, **kwargs)
        if not isinstance(command, str):
            kind = type(command).__name__
            raise ConfigError(f"bash app '{self.name}' must return its command as a str, it returned {kind}")
        code = run_command(command, output)
        if code:
            path = output.stderr[0] if output.stderr else None
            raise BashExitError(self.name, code, path, tail(path) if path else "")
        return 0


def invoke(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call something that travelled as an argument."""
    return function(*args, **kwargs)


def run_command(command: str, output: Output) -> int:
    """Run a command in bash, or without it if it needs none; returns its exit code.

    The code is minus the signal's number if a signal ended it.
    """
    argv = plain_argv(command) or ["/bin/bash", "-c", command]
    actions: list[tuple[Any, ...]] = []
    for fd, target in ((1, output.stdout), (2, output.stderr)):
        if target is not None:
            Path(target[0]).parent.mkdir(parents=True, exist_ok=True)
            actions.append((os.POSIX_SPAWN_OPEN, fd, target[0], _flags(target[1]), 0o666))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGINT])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def plain_argv(command: str) -> list[str] | None:
    """The argument list of a command that means the same with and without a shell, or None."""
    command = command.strip(" ")
    if not _PLAIN.fullmatch(command):
        return None
    argv = command.split()
    if argv[0] in _SHELL_WORDS or "=" in argv[0] or argv[0].startswith("-"):
        return None
    program = _program(argv[0], os.environ.get("PATH", os.defpath))
    return None if program is None else [program, *argv[1:]]


@lru_cache(maxsize=256)
def _program(name: str, path: str) -> str | None:
    return shutil.which(name, path=path)


def tail(path: str) -> str:
    """The last lines of a text file, or nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


@contextlib.contextmanager
def _redirected(output: Output) -> Iterator[None]:
    """Descriptors 1 and 2 go to files, so that C code and child processes write there too."""
    saved: list[tuple[int, int]] = []
    try:
        for fd, stream, target in ((1, sys.stdout, output.stdout), (2, sys.stderr, output.stderr)):
            if target is None:
                continue
            Path(target[0]).parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(target[0], _flags(target[1]) | os.O_CLOEXEC, 0o666)
            stream.flush()
            saved.append((fd, os.dup(fd)))
            os.dup2(opened, fd)
            os.close(opened)
        yield
    finally:
        for fd, copy in saved:
            with contextlib.suppress(OSError, ValueError):
                (sys.stdout if fd == 1 else sys.stderr).flush()
            os.dup2(copy, fd)
            os.close(copy)


def _flags(mode: str) -> int:
    return os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if mode.startswith("w") else os.O_APPEND)
