"""Helpers of the tests of faults: runs, their processes, programs that use them, and real times."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, final

from pilotflow import Config, ExecutorConfig, LocalProvider, Run, load
from pilotflow.ids import RUN_VARIABLE
from pilotflow.messages.codec import Envelope, encode
from pilotflow.messages.control import StatusQuery, StatusReport, to_control
from pilotflow.runtime import packets
from pilotflow.runtime.connection import Connection, read_connection
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("PILOTFLOW_PATIENCE", "10"))
"""A stated limit is waited for so many times as long; `make bench-faults` sets it to 1."""
REPORT = os.environ.get("PILOTFLOW_FAULT_TIMES", "")
"""A file to which the real times go, one JSON text a line."""

T = TypeVar("T")


# ---- time -----------------------------------------------------------------------------------


def within(limit_s: float, what: str, condition: Callable[[], T], since: float | None = None) -> T:
    """As `until`, but the time is the point: it is printed, and held against the limit."""
    start = time.monotonic() if since is None else since
    value = until(condition, what, limit_s * PATIENCE + 1.0)
    took(limit_s, what, time.monotonic() - start)
    return value


def took(limit_s: float, what: str, real_s: float) -> None:
    """Print a real time and hold it against its limit."""
    report(what, f"{real_s:.2f} s", f"{limit_s:g} s", real_s <= limit_s)
    assert real_s <= limit_s * PATIENCE, f"{what}: {real_s:.2f} s, and the limit is {limit_s:g} s"


def report(what: str, real: str, limit: str, held: bool) -> None:
    """Print a figure and the limit it has."""
    print(f"{what}: {real} (limit {limit})")
    if REPORT:
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps([what, real, limit, held]) + "\n")


# ---- runs -----------------------------------------------------------------------------------


def config(tmp_path: Path, *, workers: int = 2, label: str = "cpu", **words: Any) -> Config:
    """Two workers on this machine. Words of `LocalProvider` go there, all others to `Config`."""
    names = ("init_blocks", "min_blocks", "max_blocks", "worker_init", "nodes_per_block", "walltime")
    provider = LocalProvider(**{name: words.pop(name) for name in names if name in words})
    executor = ExecutorConfig(label=label, max_workers_per_node=workers, provider=provider)
    return Config(executors=[executor], run_dir=tmp_path / "runs", **words)


@contextmanager
def running(tmp_path: Path, **words: Any) -> Iterator[Run]:
    """A run that is open when the body begins and gone, with all its processes, after it."""
    run = load(config(tmp_path, **words))
    try:
        yield run
    finally:
        run.close(wait=False)
        nothing_left(run)


def nothing_left(run: Run, limit_s: float = 60.0) -> None:
    """See that no process of a run is alive."""
    until(lambda: not processes_of(run.directory, run.run_id), f"the end of {run.run_id}'s processes", limit_s)


# ---- processes ------------------------------------------------------------------------------


def processes_of(directory: Path, run_id: str = "") -> dict[int, str]:
    """Command lines of the living processes of a run: those that carry its mark, or name its directory."""
    mark, path = f"{RUN_VARIABLE}={run_id}:".encode(), f"{directory}/".encode()
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if line and ((run_id and mark in environment) or path in line):
            found[int(entry)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def parent_of(pid: int) -> int:
    """The parent of a process, 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def managers_of(run: Run) -> list[int]:
    """Process ids of a run's managers, whose parents are the scripts of their blocks."""
    lines = processes_of(run.directory, run.run_id)
    pids = _with(run, "pilotflow.runtime.manager")
    return sorted(pid for pid in pids if lines.get(parent_of(pid), "").startswith("bash"))


def zygotes_of(run: Run) -> list[int]:
    """Process ids of the processes that fork workers."""
    managers = managers_of(run)
    return sorted(pid for pid in _with(run, "pilotflow.runtime.manager") if parent_of(pid) in managers)


def interchange_of(run: Run) -> int:
    """Process id of a run's interchange."""
    (pid,) = _with(run, "pilotflow.runtime.interchange")
    return pid


def _with(run: Run, words: str) -> list[int]:
    lines = processes_of(run.directory, run.run_id)
    return [pid for pid, line in lines.items() if words in line and not line.startswith("bash")]


def pids_in(path: Path) -> list[int]:
    """Process ids that tasks have written to a file."""
    return [int(line.split()[0]) for line in _lines(path)]


def times_in(path: Path) -> list[float]:
    """The times (of the wall clock) beside them."""
    return [float(line.split()[1]) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    """The whole lines of a file, none if it does not exist."""
    return (
        [line for line in path.read_text("ascii").splitlines(keepends=True) if line[-1] == "\n"]
        if path.exists()
        else []
    )


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process is stopped during the body."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- programs -------------------------------------------------------------------------------

_PROLOGUE = """\
import os, sys, time
import pilotflow as pf
from tests.integration.faults import config
from tests.integration.fault_tasks import *
from pathlib import Path
HERE = Path({here!r})
def say(*words): print(*words, flush=True)
"""


@final
class Program:
    """A user's program in a process of its own. What it prints goes to a file.

    Args:
        here: a folder of its own; its runs are in `runs` there.
        source: its text, after imports of pilotflow, of the tasks and of `config`.
        before: an argument list that the interpreter's is added to.
        environment: additions to the environment.
    """

    def __init__(
        self, here: Path, source: str, before: tuple[str, ...] = (), environment: dict[str, str] | None = None
    ) -> None:
        self.here = here
        here.mkdir(exist_ok=True)
        script = here / "program.py"
        script.write_text(_PROLOGUE.format(here=str(here)) + textwrap.dedent(source), encoding="utf-8")
        self._out = here / "program.out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, str(script)],
                cwd=here,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def text(self) -> str:
        """What it has printed so far, on either stream."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    def said(self, word: str, timeout_s: float = 60.0) -> str:
        """The rest of the first line that begins with this word, when it comes."""

        def look() -> str | None:
            for line in self.text.splitlines():
                if line.startswith(word):
                    return line[len(word) :].strip() or "yes"
            assert self.process.poll() is None, f"the program ended with {self.process.poll()}:\n{self.text}"
            return None

        return until(look, f"'{word}' from the program, which said\n{self.text}", timeout_s) or ""

    def said_at_end(self, word: str) -> bool:
        """Whether a line begins with this word, after the program's end."""
        assert self.process.poll() is not None
        return any(line.startswith(word) for line in self.text.splitlines())

    def end(self, timeout_s: float = 60.0) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(timeout_s)

    def run_directories(self) -> list[Path]:
        """Directories of its runs, oldest first."""
        return sorted(path for path in (self.here / "runs").glob("[0-9]*") if path.is_dir())

    def left(self) -> dict[int, str]:
        """Processes of its runs."""
        found: dict[int, str] = {}
        for directory in self.run_directories():
            log = directory / "pilotflow.log"
            words = log.read_text(encoding="utf-8").split() if log.exists() else []
            run_ids = [word for word in words if word.startswith(f"{directory.name}-")]
            found.update(processes_of(directory, run_ids[0] if run_ids else ""))
        found.pop(self.process.pid, None)
        return found

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        until(lambda: not self.left(), f"the end of {self.left()}")


# ---- what the interchange says --------------------------------------------------------------


def connection_of(run: Run) -> Connection:
    """A run's connection file."""
    return read_connection(run.directory / "connection.json")


def status_of(run: Run) -> StatusReport:
    """What the interchange answers on its control endpoint."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(30)
        sock.connect(connection_of(run).control[0].removeprefix("unix:"))
        packets.send(sock, encode(Envelope(time.time_ns(), 1, 0, 0, False, [StatusQuery()])))
        answer = packets.receive(sock, packets.new_buffer())
        assert answer is not None
        (message,) = to_control()(answer[0]).messages
        assert isinstance(message, StatusReport)
        return message
