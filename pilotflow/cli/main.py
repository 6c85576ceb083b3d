"""The `pilotflow` command: ready for Ctrl-C before the imports that take a while."""

from __future__ import annotations

import os
import sys

from pilotflow.cli.interrupts import leave_quietly

OUTPUT_FAILED = 1


def main() -> None:
    """Run the command line in `sys.argv`; ends in `SystemExit`."""
    leave_quietly()
    if sys.getfilesystemencoding() == "ascii":
        _begin_anew_with_utf8()
    from contextlib import suppress
    from errno import EPIPE
    from io import TextIOWrapper

    from pilotflow.cli.in_words import CONFIG_WRONG, complain
    from pilotflow.damaged import damaged_module

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path of other bytes must not stop a message
    try:
        os.getcwd()
    except OSError:
        complain("The directory that you are in has been removed. Go to one that is there (cd), and call this again.")
        sys.exit(CONFIG_WRONG)
    try:
        try:
            _obey(sys.argv[1:])
        finally:
            if sys.stdout is not None:  # it may be closed
                sys.stdout.flush()
        sys.exit()
    except OSError as error:
        if error.filename is not None:  # a file that may not be read, say
            complain(f"{error.filename}: {error.strerror}. See that you may read and write it.")
            sys.exit(CONFIG_WRONG)
        # Otherwise our own output: a full disk, or a reader that has left.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter's end would try again
        if error.errno != EPIPE:
            complain(f"The output cannot be written: {error.strerror or error}.")
        sys.exit(OUTPUT_FAILED)
    except Exception as error:
        damage = damaged_module(error)
        if damage is None:
            raise  # a bug of ours: a traceback says more of it than we could
        complain(f"{damage}.")
        sys.exit(CONFIG_WRONG)


def _obey(words: list[str]) -> None:
    if words[:1] == ["status"]:
        from pilotflow.cli.status import plainly_asked, say_status

        asked = plainly_asked(words[1:])
        if asked is not None:
            say_status(*asked)
            return
    from pilotflow.cli.commands import app

    app(prog_name="pilotflow")


def _begin_anew_with_utf8() -> None:
    """In a locale of ASCII alone, names of files and jobs are bytes to Python; for us, and all that we start, they are UTF-8."""
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  what we were started as
