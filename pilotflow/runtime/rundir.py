"""The run directory: `runs/NNNN/`, with `runs/latest` pointing to the newest.

pilotflow.log       one line per change of a block, a manager or the run
interchange.err     what the interchange printed, normally nothing
connection.json     how to reach the interchange (0600)
cancel.json         commands that cancel its batch jobs, for when everybody else is dead (0600)
run.db              the run store
scripts/            what providers submitted
blocks/BLOCK/       its stdout and stderr, its managers' logs
tasks/APP/          stdout and stderr of tasks that asked for AUTO_LOGNAME
tasks/worker-*.err  stderr of commands that name no file for it, one a worker (or thread), at most about 1 MiB of it
tasks/worker-*.nodes  host file of a running task that uses several nodes by itself
scratch/            directories of tasks that have asked for one and have not ended well
shared/             values shared by `pilotflow.share`, until the run ends
files/              files that were fetched from URLs, or made to be stored there
cache/              results of apps with `cache=True`, if no other directory was named
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from pathlib import Path

from pilotflow.errors import ConfigError
from pilotflow.runtime.log_files import LogFile
from pilotflow.runtime.pythons import home


def make(base: Path) -> tuple[Path, str]:
    """A new run directory under `base`, where `~` is the home directory, and the run's id.

    Raises:
        ConfigError: it cannot be made or written; says why and what to do.
    """
    directory: Path | None = None
    _see_that_it_can_be_named(base)
    base = Path(os.path.expanduser(base))  # of a user that there is not, it stays as it is
    try:
        base.mkdir(parents=True, exist_ok=True)
        directory = _next(base.absolute())
        for name in ("scripts", "blocks", "tasks"):
            (directory / name).mkdir()
        probe = directory / "pilotflow.log"
        with open(probe, "wb") as file:
            file.write(b"\n" * 4096)  # a full disk says so here
            file.flush()
            os.fsync(file.fileno())
        probe.write_bytes(b"")
    except OSError as error:
        if directory is not None:
            import shutil  # all processes of a run import this module

            shutil.rmtree(directory, ignore_errors=True)  # nothing has run in it
        raise cannot_write(base.absolute(), error) from None
    _point_latest(base, directory)
    return directory, f"{directory.name}-{secrets.token_hex(4)}"


def _see_that_it_can_be_named(base: Path) -> None:
    try:
        whole = os.path.join(os.getcwd(), base)  # tasks run in the former
    except FileNotFoundError:
        raise ConfigError(
            "The directory that this program is in has been removed. Go to one that is there (os.chdir), and start the "
            "run again."
        ) from None
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"The run directory {os.fsencode(whole)!r} cannot be used: its path is no UTF-8, which "
            "messages and records are in. Choose another with run_dir; if the path is UTF-8, say LC_ALL=C.UTF-8."
        ) from None


def cannot_write(directory: Path, error: OSError) -> ConfigError:
    """The error of a run directory that is full or read-only."""
    return ConfigError(
        f"Cannot write the run directory {directory}: {error.strerror or error}. "
        "Choose another with run_dir, or make this one writable and see that its disk has room."
    )


def _next(base: Path) -> Path:
    taken = [int(entry.name) for entry in base.iterdir() if re.fullmatch(r"\d{4,}", entry.name)]
    number = max(taken, default=0)
    while True:
        number += 1
        directory = base / f"{number:04d}"
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:  # another program took it
            continue
        return directory


def _point_latest(base: Path, directory: Path) -> None:
    aside = base / f".latest-{os.getpid()}-{secrets.token_hex(2)}"
    with contextlib.suppress(OSError):  # a convenience; some file systems have no links
        aside.symlink_to(directory.name)
        aside.replace(base / "latest")


def open_log(directory: Path) -> tuple[logging.Logger, logging.Handler]:
    """The run's own logger, and the handler to close at its end."""
    logger = logging.getLogger(f"pilotflow.run.{str(directory.absolute()).replace('.', '_')}")
    if logger.handlers:  # whoever has the run has opened it
        return logger, logging.NullHandler()
    handler = LogFile(directory / "pilotflow.log")
    handler.setFormatter(logging.Formatter("%(asctime)s client %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger, handler


def import_path() -> dict[str, str]:
    """The environment that lets another process import pilotflow, if it is not installed."""
    entries = [entry for entry in (*os.environ.get("PYTHONPATH", "").split(os.pathsep), home()) if entry]
    return {"PYTHONPATH": os.pathsep.join(entries)} if home() else {}
