"""`pilotflow logs`: what jobs have printed, while they run too."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pilotflow.cli.runs import find_directory
from pilotflow.errors import ConfigError
from pilotflow.workflow.calls import output_paths
from pilotflow.workflow.history import History, open_history

FOLLOW_S: Final = 0.3


class _Output:
    """One file, and how far it was printed."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        self.at = 0

    def read(self, lines: int | None = None) -> bytes:
        """What is new in it; of the first look only so many lines."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.at)
                data = file.read()
        except OSError:
            return b""
        self.at += len(data)
        if lines is not None:
            data = b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""
        return data


def show_logs(
    run: str,
    selector: str | None,
    base: Path,
    *,
    follow: bool,
    lines: int | None,
    attempt: int | None,
    streams: Sequence[str],
) -> None:
    """Print the output of jobs.

    Args:
        run, base: which run, and where runs are.
        selector: which jobs; None for those that failed, or all if none did.
        follow: go on until the run ends.
        lines: only the last so many of each file.
        attempt: which; None for the last.
        streams: "out", "err" or both.

    Raises:
        ConfigError: there are no such jobs, or they have no output.
    """
    directory = find_directory(run, base)
    with open_history(directory) as history:
        numbers = history.select("failed" if selector is None else selector)
        if not numbers and selector is None:
            numbers = history.select(None)
        outputs = _outputs(history, numbers, attempt, streams)
        printed = _print(outputs, lines, alone=len(numbers) == 1 and len(streams) == 1)
        if not printed and not follow and not any(output.path.exists() for output in outputs):
            raise ConfigError(
                f"These jobs of run {directory.name} have no output: none of them has run, or it goes nowhere."
            )
        if not printed and not follow:
            sys.stderr.write("These jobs have printed nothing.\n")
        while follow and history.summary(stages=False).state == "running":
            time.sleep(FOLLOW_S)
            known = {output.path for output in outputs}
            outputs += [o for o in _outputs(history, numbers, attempt, streams) if o.path not in known]
            _print(outputs, None, alone=len(numbers) == 1 and len(streams) == 1)
        _print(outputs, None, alone=True)


def _outputs(history: History, numbers: Sequence[int], attempt: int | None, streams: Sequence[str]) -> list[_Output]:
    jobs = history.workflow().jobs
    found: list[_Output] = []
    for line in history.jobs(numbers):
        which = attempt or line.attempt
        if not which:
            continue
        out, err = output_paths(history.directory, jobs[line.job], which)
        paths = dict.fromkeys(p for name, p in (("out", out), ("err", err)) if name in streams and p is not None)
        found += [_Output(path, f"==> {line.name}, attempt {which}: {path} <==") for path in paths]
    return found


def _print(outputs: Sequence[_Output], lines: int | None, *, alone: bool) -> bool:
    printed = False
    for output in outputs:
        data = output.read(lines)
        if data:
            printed = True
            if not alone:
                sys.stdout.write(f"{output.title}\n")
            sys.stdout.write(data.decode("utf-8", "replace"))
            if not data.endswith(b"\n"):
                sys.stdout.write("\n")
    sys.stdout.flush()
    return printed
