"""Programs in a terminal, and what one would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte

from tests.integration.scripts import ROOT, TIMEOUT_S


class Terminal:
    """A program in a pseudo-terminal of its own, and its screen.

    Args:
        directory: where it runs.
        code: the program.
        columns, lines: size of the screen.
        variables: added to the environment.
    """

    def __init__(self, directory: Path, code: str, columns: int = 100, lines: int = 40, **variables: str) -> None:
        script = directory / "program.py"
        script.write_text(textwrap.dedent(code), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "LANG": "C.UTF-8", **variables}
        environment.pop("NO_COLOR", None)
        self._screen: Any = pyte.Screen(columns, lines)
        self._stream: Any = pyte.ByteStream(self._screen)
        self.raw = b""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            while os.get_terminal_size(0).columns != columns:
                time.sleep(0.001)
            os.execve(sys.executable, [sys.executable, "-W", "error", str(script)], environment)
        settings = termios.tcgetattr(self._fd)
        settings[3] &= ~termios.ECHO  # what is typed would show among what is printed
        termios.tcsetattr(self._fd, termios.TCSANOW, settings)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._open = True

    def lines(self) -> list[str]:
        """What is on the screen, without empty lines."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines())

    def wait_for(self, seen: Callable[[list[str]], Any]) -> list[str]:
        """The screen as it is when this can be seen on it for the first time."""
        deadline = time.monotonic() + TIMEOUT_S
        while not seen(self.lines()):
            assert self._open, f"the program has ended with this on the screen:\n{self.text()}"
            assert time.monotonic() < deadline, f"never seen; on the screen is:\n{self.text()}"
            self._read(0.2)
        return self.lines()

    def send(self, text: str) -> None:
        """Type something."""
        os.write(self._fd, text.encode())

    def finish(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._open:
            assert time.monotonic() < deadline, f"it does not end; on the screen is:\n{self.text()}"
            self._read(0.2)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._open:
            os.kill(self.pid, signal.SIGKILL)
            self.finish()

    def _read(self, timeout_s: float) -> None:
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            data = b""
        self._open = bool(data)
        self.raw += data
        for piece in data.splitlines(keepends=True):  # each state of the screen is one that somebody could see
            self._stream.feed(piece)
