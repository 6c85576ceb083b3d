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
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
"""Variables with which output is the same everywhere."""


def pilotflow(
    *arguments: str, cwd: Path = ROOT, stdin: str = "", timeout_s: float = 120.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command line does, as `subprocess.run` tells it; `env` is added to our environment."""
    return _server().run(arguments, cwd, {**os.environ, **(PLAIN if env is None else env)}, timeout_s, stdin=stdin)


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


class CommandServer:
    """A process that has imported everything and forks for what it is asked to do.

    Args:
        argv: the command line that runs Python, as far as "python".
        more: modules that it imports besides.
        env: its environment; that of a command is said with it.
        folder: where input and output lie in files, which both sides see.
    """

    def __init__(
        self,
        argv: Sequence[str] = (sys.executable,),
        more: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*argv, "-m", "tests.command_server", *more], cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=env
        )
        self._folder = folder
        self._lock = threading.Lock()

    def run(
        self,
        arguments: Sequence[Any],
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        *,
        stdin: str = "",
        function: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """What a command of pilotflow does, or a function "module:function"; it is killed if it takes longer.

        Args:
            arguments: of the command, or of the function: what JSON can carry.
            cwd, env, timeout_s, stdin: its directory, whole environment, time and input.
            function: what to call instead of the command.
        """
        with tempfile.TemporaryDirectory(prefix="pilotflow-command-", dir=self._folder) as folder:
            files = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
            files["stdin"].write_text(stdin, encoding="utf-8")
            request = {
                "argv": arguments,
                "cwd": str(cwd),
                "env": dict(env),
                "timeout_s": timeout_s,
                "function": function,
                **{name: str(path) for name, path in files.items()},
            }
            code = self._answer(json.dumps(request))
            out, err = (files[name].read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([function or "pilotflow", *arguments], code, out, err)

    def _answer(self, request: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """It ends when nobody can ask any more."""
        self._process.communicate()


@cache
def _server() -> CommandServer:
    server = CommandServer()
    atexit.register(server.close)
    return server
