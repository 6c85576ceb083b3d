"""One srun while it runs: a process whose end is seen, whose stderr is passed on and whose last lines are kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pilotflow.runtime.loop import Loop
from pilotflow.runtime.process_end import ProcessEnd

_KEPT_BYTES: Final = 8192


class SrunProcess:
    """An srun that was started.

    Args:
        loop: calls `ended` when it has ended and all that it printed was read.
        argv, environment: the command.
        child_setup: called in the child before it becomes srun.
        ended: called once.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        loop: Loop,
        argv: Sequence[str],
        environment: Mapping[str, str],
        child_setup: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._said = b""
        self._process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=child_setup,  # noqa: PLW1509  one system call, prepared before the fork
        )
        assert self._process.stderr is not None
        self._stderr = self._process.stderr.fileno()
        os.set_blocking(self._stderr, False)
        self._end = ProcessEnd(self._process.pid)
        loop.add(self._stderr, self._read)
        loop.add(self._end.fileno(), self._exited)

    @property
    def printed(self) -> str:
        """The end of what srun and its step wrote to stderr."""
        return self._said.decode("utf-8", "replace")

    @property
    def exit_code(self) -> int:
        """Of an srun that has ended: its exit code, minus the signal's number if a signal ended it."""
        return self._process.wait()

    def end(self) -> None:
        """End all processes of the step, at once and for certain."""
        with contextlib.suppress(ProcessLookupError):
            self._end.send(signal.SIGTERM)

    def _read(self) -> None:
        while True:
            try:
                text = os.read(self._stderr, 65536)
            except BlockingIOError:
                return
            except OSError:
                text = b""
            if not text:
                self._loop.remove(self._stderr)
                return
            with contextlib.suppress(OSError):  # a full disk costs the log, not the task
                os.write(sys.stderr.fileno(), text)
            self._said = (self._said + text)[-_KEPT_BYTES:]

    def _exited(self) -> None:
        self._loop.remove(self._end.fileno())
        self._read()  # what is there now; another process may hold the pipe for ever
        self._loop.remove(self._stderr)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._end.close()
        self._ended()
