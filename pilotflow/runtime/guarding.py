"""What a run leaves behind for the case that it is killed: commands that cancel its batch jobs, and who runs them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pilotflow.ids import RUN_VARIABLE
from pilotflow.providers import processes
from pilotflow.providers.base import Provider
from pilotflow.runtime import leftovers, rundir
from pilotflow.runtime.pythons import this_python

FILE: Final = "cancel.json"
"""In the run directory: argument lists of commands that cancel all blocks, those that are being handed in included, and
marks of the processes that would see to that."""


class BlockGuard:
    """The process `block_guard` of a run, and the file that it goes by; none of them if no block is a batch job.

    Args:
        directory: the run's directory.
        interchange_pid: the run's interchange. The program is this one.
        providers: those whose batch jobs must not outlive both; none in a durable run, where they are for the next
            program.
    """

    def __init__(self, directory: Path, interchange_pid: int, providers: Sequence[Provider]) -> None:
        self._file = directory.absolute() / FILE
        self._written: Sequence[tuple[str, ...]] = ()
        self._holders: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if any(provider.elsewhere for provider in providers):
            self._process = self._start(interchange_pid)
            pids = (os.getpid(), interchange_pid, self._process.pid)
            self._holders = [leftovers.mark(directory.name, pid) for pid in pids]

    def _start(self, interchange_pid: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **rundir.import_path()}
        environment.pop(RUN_VARIABLE, None)  # what carries the mark is ended as a leftover
        names = [processes.name_of(pid) for pid in (os.getpid(), interchange_pid)]
        argv = this_python().argv("pilotflow.runtime.block_guard", str(self._file), *names)
        null = subprocess.DEVNULL
        return subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, env=environment, start_new_session=True)

    def write(self, commands: Sequence[tuple[str, ...]]) -> None:
        """These commands would cancel everything now.

        Raises:
            OSError: they cannot be written.
        """
        if self._process is None or commands == self._written:
            return
        aside = self._file.with_suffix(".new")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"holders": self._holders, "commands": commands}, file)
        aside.replace(self._file)
        self._written = tuple(commands)

    def end(self) -> None:
        """There is nothing to guard any more."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._file.unlink()
