"""Asking a vendor's program, with a limit on how long it may take."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

TOOL_TIMEOUT_S: Final = 20.0
"""nvidia-smi may wake up every GPU first, which takes some seconds where no persistence daemon runs."""
_DEATH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Attributes:
        out: its standard output; None if it is not installed or did not end in time.
        problem: what was wrong, in words, as the rest of a sentence that begins with its name.
    """

    out: str | None
    problem: str | None


Run = Callable[[Sequence[str]], Answer]
"""Runs a command and returns its answer; never raises, never waits for ever."""

NOT_INSTALLED: Final = Answer(None, None)


def run_tool(argv: Sequence[str], timeout_s: float = TOOL_TIMEOUT_S) -> Answer:
    """The answer of a program, within the time limit whatever it does.

    A driver that hangs keeps its callers in the kernel, where even SIGKILL does not reach them;
    such a process is left behind, not waited for.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError):
        return NOT_INSTALLED
    except OSError as error:
        return Answer(None, f"cannot be started ({error.strerror})")
    try:
        out, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _abandon(process)
        return Answer(None, f"did not answer within {timeout_s:g} s")
    text = out.decode("utf-8", "replace")
    if process.returncode == 0:
        return Answer(text, None)
    said = (errors.decode("utf-8", "replace").strip() or text.strip()).splitlines()
    return Answer(text, f"failed with exit code {process.returncode}" + (f" ({said[0][:200]})" if said else ""))


def _abandon(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_DEATH_S)
