"""The `pilotflow` command: ready for Ctrl-C before the imports that take a while."""

from __future__ import annotations

import os
import sys

from pilotflow.cli.interrupts import leave_quietly


def main() -> None:
    """Run the command line in `sys.argv`; ends in `SystemExit`."""
    leave_quietly()
    if sys.getfilesystemencoding() == "ascii":
        _begin_anew_with_utf8()
    from pilotflow.cli.commands import run

    run()


def _begin_anew_with_utf8() -> None:
    """In a locale of ASCII alone, names of files and jobs are bytes to Python; for us, and all that we start, they are UTF-8."""
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "pilotflow", *sys.argv[1:]])  # noqa: S606  what we were started as
