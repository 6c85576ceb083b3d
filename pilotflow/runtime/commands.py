"""Running a task's command: in bash, or without it if it needs none."""

from __future__ import annotations

import os
import re
import signal
from functools import lru_cache
from typing import Final

from pilotflow.runtime.task_output import Output, flush_output, opened

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./ -]*")
"""A command without anything that a shell would interpret."""
_SHELL_WORDS: Final = frozenset(
    "alias bg bind break builtin caller case cd command compgen complete compopt continue coproc declare "  # noqa: SIM905  a line a word would hide the code below
    "dirs disown do done echo elif else enable esac eval exec exit export fc fg fi for function getopts hash "
    "help history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return "
    "select set shift shopt source suspend test then time times trap type typeset ulimit umask unalias unset until "
    "wait while".split()
)
"""Builtins and reserved words of bash: a command that begins with one needs the shell."""


def run_command(command: str, output: Output, stderr: int = -1) -> int:
    """Run a command in bash, or without it if it needs none; returns its exit code.

    The code is minus the signal's number if a signal ended it.

    Args:
        command: what to run.
        output: files for its streams.
        stderr: what else is to be its stderr, an open file; -1 for ours.

    Raises:
        ConfigError: an output file cannot be opened.
    """
    with opened(output) as files:
        actions = [(os.POSIX_SPAWN_DUP2, file, fd) for fd, file in files]
        if stderr >= 0:
            actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
        flush_output()
        argv = plain_argv(command)
        try:
            pid = _spawn(argv or in_bash(command), actions)
        except OSError:  # gone since it was looked up, or a script without a first line: bash knows what to do
            if argv is None:
                raise
            pid = _spawn(in_bash(command), actions)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_bash(command: str) -> list[str]:
    """The argument list that has bash run a command."""
    return ["/bin/bash", "-c", command]


def _spawn(argv: list[str], actions: list[tuple[int, int, int]]) -> int:
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGINT])


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
    import shutil  # it takes a while, and only commands need it

    return shutil.which(name, path=path)
