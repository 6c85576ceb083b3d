"""The interchange as its run sees it: a process to start, to watch and to end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pilotflow.errors import InterchangeLost
from pilotflow.runtime import rundir
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.pythons import this_python
from pilotflow.runtime.tails import tail

EXIT_CODE_TIMEOUT_S = 1.0
"""How long an interchange that has hung up may take to end."""
KILLED_S = 5.0
"""A process that was killed is gone within this time, if it does not wait for a file system that hangs."""


class InterchangeProcess:
    """A run's interchange. Its Unix sockets take connections from the moment when this is made.

    Args:
        connection: how to reach it.
        path: the file with that.
        mark: variables by which its process is found.

    Attributes:
        pid: its process id.
    """

    def __init__(self, connection: Connection, path: Path, mark: Mapping[str, str]) -> None:
        self._connection = connection
        self._output = Path(connection.directory) / "interchange.err"
        endpoints = [e for e in (*connection.client, *connection.managers, *connection.control) if e[:5] == "unix:"]
        # Bound before it starts, so that everybody can connect at once.
        listeners = {endpoint: _listen(endpoint[5:]) for endpoint in endpoints}
        argv = this_python().argv("pilotflow.runtime.interchange", str(path))
        argv += [f"{endpoint}={listener.fileno()}" for endpoint, listener in listeners.items()]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **mark, **rundir.import_path()},
                start_new_session=True,
                pass_fds=[listener.fileno() for listener in listeners.values()],
            )
        for listener in listeners.values():
            listener.close()
        self.pid = self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    def end(self, timeout_s: float) -> None:
        """Wait for its end, and kill it when that takes longer."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a file system that hangs
            self._process.wait(KILLED_S)

    def why_no_start(self) -> InterchangeLost:
        """The error of a run whose interchange does not come up, with what it has printed."""
        try:
            how = f"ended with exit code {self._process.wait(EXIT_CODE_TIMEOUT_S)}"
        except subprocess.TimeoutExpired:
            how = "did not answer"
        lines = tail(self._output) or "(it printed nothing)"
        run_id, directory = self._connection.run_id, self._connection.directory
        return InterchangeLost(
            f"The interchange of run {run_id} {how}. It said:\n{lines}\nIts log is {directory}/pilotflow.log."
        )


class TakenOver:
    """The interchange of a program that is gone, as `InterchangeProcess` is to the one that started it."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.pid = pid
        self._directory = directory
        self._end = ProcessEnd(pid)
        self._ended = False

    @property
    def has_ended(self) -> bool:
        """Whether it is no more."""
        return self._ended or self._end.has_come()

    def end(self, timeout_s: float) -> None:
        """Wait for its end, and kill it when that takes longer."""
        if self._ended:
            return
        if not self._end.has_come(timeout_s):
            self.kill()
        self._end.close()
        self._ended = True

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self._end.send(signal.SIGKILL)
            self._end.has_come(KILLED_S)

    def why_no_start(self) -> InterchangeLost:
        """The error of an interchange that does not let us take over."""
        return InterchangeLost(
            f"The interchange (pid {self.pid}) does not answer. Its log is {self._directory}/pilotflow.log. "
            f"If it hangs, end it (kill {self.pid}) and resume again: what it held runs once more."
        )


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(1024)
    return listener
