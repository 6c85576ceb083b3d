"""The last one to go: cancels a run's batch jobs when its program and its interchange have both been killed.

    python -m pilotflow.runtime.block_guard FILE PID:START PID:START

These name the two by process id and start time; the file is kept by `runtime/guarding.py`. It sleeps until both are
gone; then it runs the commands in the file, and does so until they have worked several times in a row: a
job that was being handed in when the program died may show up only now. No file, or an empty one: nothing to do.

If a guard is killed as well, that of the next run in the same place does this for it, when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.process_name import name_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger

ROUNDS = 4
"""The commands must have worked this many times in a row."""
PAUSE_S = 2.0
"""After the first round; each later pause is twice as long."""
PAUSE_MAX_S = 60.0
PATIENCE_S = 6 * 3600.0
"""A batch system that is away is waited for this long."""
COMMAND_TIMEOUT_S = 60.0


def wait_for_the_ends(names: list[str]) -> None:
    """Sleep until these processes, named "PID:START", are all gone."""
    for name in names:
        pid, start = map(int, name.split(":"))
        with contextlib.suppress(ProcessLookupError):
            ProcessEnd(pid, start).has_come(None)


def read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Whose file it is, as marks of processes, and the commands that cancel what there is."""
    try:
        left = json.loads(file.read_bytes())
        return left["holders"], left["commands"]
    except (OSError, ValueError, KeyError, TypeError):  # it is gone, or nobody's
        return [], []


def run(argv: list[str]) -> str:
    """Run a command; returns what went wrong, or nothing."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return ""
    return done.stderr.decode(errors="replace").strip() or f"{argv[0]} ended with exit code {done.returncode}"


def cancel(file: Path, log: Logger, pause_s: float = PAUSE_S) -> None:
    """Cancel everything, for certain if it can be done at all; begin with pauses of `pause_s` seconds."""
    _, commands = read(file)
    deadline = time.monotonic() + PATIENCE_S
    good, said = 0, ""
    while commands and good < ROUNDS:
        problem = next(filter(None, map(run, commands)), "")
        good = 0 if problem else good + 1
        if problem and problem != said:
            log.warning("blocks cannot be cancelled, and it is tried again: %s", problem)
        said = problem
        if problem and time.monotonic() >= deadline:
            log.error("blocks may be left: %s", "; ".join(map(" ".join, commands)))
            return
        if good < ROUNDS:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
    file.unlink(missing_ok=True)
    if good:
        log.info("the blocks of %s have been cancelled", file.parent)


def cancel_those_of_others(own: Path, pause_s: float = PAUSE_S) -> None:
    """Cancel what runs beside this one have left, of which nobody lives who would."""
    for file in own.parent.parent.glob(f"*/{own.name}"):
        holders, commands = read(file)
        if file == own or not commands:
            continue
        from pilotflow.runtime.leftovers import is_dead  # hardly ever needed

        if holders and all(map(is_dead, holders)):
            log = log_of(own, about=file)
            log.warning("%s was killed with all who look after it: cancelling its blocks", file.parent)
            cancel(file, log, pause_s)


def log_of(own: Path, about: Path) -> Logger:
    """Where the run of the first file tells what is done about the second."""
    from pilotflow.runtime.log_files import log_to  # hardly ever needed

    return log_to(own.parent / "pilotflow.log", "guard", f"guard of {about}")


def main() -> int:
    """Wait, and do what is left to do."""
    name_process("pf-guard")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of the terminal that it outlives
    os.chdir("/")
    file = Path(sys.argv[1])
    cancel_those_of_others(file)
    wait_for_the_ends(sys.argv[2:])
    if read(file)[1]:
        log = log_of(file, about=file)
        log.error("program and interchange of this run are gone: cancelling its blocks")
        cancel(file, log)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
