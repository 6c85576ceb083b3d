"""A user's program on the login host, which a test starts, listens to, and may kill."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import HostError

if TYPE_CHECKING:
    from typing_extensions import Self

_CODE: Final = (
    "import json, os, sys; print(os.getpid(), flush=True); "
    "from {module} import {function}; {function}(*json.loads(sys.argv[1]))"
)


class Program:
    """A function "module:function" that runs in a process of its own on the login host.

    Use it in a `with` block: what is left of it is killed at the end.
    """

    def __init__(self, cluster: Cluster, name: str, *arguments: object, cwd: Path) -> None:
        module, _, function = name.partition(":")
        self._cluster = cluster
        self._name = name
        self._errors = (cwd / "stderr").open("w+")
        self._process = cluster.popen(
            *("env", f"--chdir={cwd}", sys.executable, "-u", "-c", _CODE.format(module=module, function=function)),
            json.dumps(arguments),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            stdin=subprocess.DEVNULL,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = int(self.line())

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def line(self, timeout_s: float = 60.0) -> str:
        """What it prints next."""
        try:
            text = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise HostError(f"{self._name} has printed nothing for {timeout_s:g} s\n{self.errors()}") from None
        if not text:
            raise HostError(f"{self._name} has ended\n{self.errors()}")
        return text

    def until(self, start: str, timeout_s: float = 60.0) -> str:
        """The next line that begins so."""
        deadline = time.monotonic() + timeout_s
        while not (text := self.line(max(0.1, deadline - time.monotonic()))).startswith(start):
            pass
        return text

    def errors(self) -> str:
        """What it has written to stderr."""
        self._errors.flush()
        return Path(self._errors.name).read_text()

    def kill(self, *others: int) -> None:
        """SIGKILL to it, and to others on its host."""
        self._cluster.run("kill", "-KILL", *map(str, (self.pid, *others)))

    def finish(self, timeout_s: float = 60.0) -> None:
        """Wait for its end, which must be a good one."""
        code = self._process.wait(timeout_s)
        assert code == 0, f"{self._name} ended with {code}\n{self.errors()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._cluster.run("kill", "-KILL", str(self.pid), check=False)
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
