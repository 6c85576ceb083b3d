"""`pilotflow` commands for tests, each a process of its own, without the time that Python and its imports take.

The process that `tests.command_server` is has imported everything, and forks for each command. What is about
the start of a command itself (imports, Ctrl-C meanwhile, terminals) is tested with a Python that starts anew.
"""

from __future__ import annotations

import atexit
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
"""Variables with which output is the same everywhere."""


def pilotflow(
    *arguments: str, cwd: Path = ROOT, stdin: str = "", timeout_s: float = 120.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command line does, as `subprocess.run` tells it; `env` is added to our environment."""
    with tempfile.TemporaryDirectory(prefix="pilotflow-command-") as folder:
        files = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
        files["stdin"].write_text(stdin, encoding="utf-8")
        request = {
            "argv": arguments,
            "cwd": str(cwd),
            "env": {**os.environ, **(PLAIN if env is None else env)},
            **{name: str(path) for name, path in files.items()},
        }
        code = _server().answer(json.dumps(request), timeout_s)
        out, err = (files[name].read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(["pilotflow", *arguments], code, out, err)


def on_terminal(*arguments: str, cwd: Path, columns: int = 100) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns)}
    env.pop("NO_COLOR", None)
    argv = [sys.executable, "-m", "pilotflow", *arguments]
    with subprocess.Popen(argv, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = bytearray()
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # the other side of a terminal is gone
            pass
        process.wait(100)
    os.close(ours)
    return written.decode()


class _Server:
    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.command_server"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self._lock = threading.Lock()
        atexit.register(self.close)

    def answer(self, request: str, timeout_s: float) -> int:
        """The exit code of a command, whose process is killed if it takes longer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            pid = self._line()
            timer = threading.Timer(timeout_s, os.kill, (pid, 9))
            timer.start()
            try:
                return self._line()
            finally:
                timer.cancel()
                timer.join()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """It ends when nobody can ask any more."""
        self._process.communicate()


@cache
def _server() -> _Server:
    return _Server()
