"""Commands that move runs about: delete, export, import."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
import zlib
from contextlib import closing
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Final

from pilotflow.cli.runs import find_directory
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.runtime import rundir
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.workflow.history import is_workflow
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.rows import FILE

ANSWER_S: Final = 5.0
"""An interchange that lives answers within this time."""


def delete_run(run: str, base: Path, *, sure: bool) -> None:
    """Delete a run's directory.

    Raises:
        ConfigError: it is running, or processes of it that its program has left; it is no workflow's; or nobody is sure.
    """
    directory = _at_rest(run, base)
    if _has_interchange(directory):
        name = directory.name
        raise ConfigError(
            f"The program of run {name} has died, and what it had started still works. End that first: "
            f"pilotflow resume {name} --detach && pilotflow cancel {name}."
        )
    if not sure:
        raise ConfigError(f"This deletes {directory} with everything in it. Say --yes if that is meant.")
    shutil.rmtree(directory)
    latest = directory.parent / "latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink()
    print(f"Run {directory.name} is deleted.")


def export_run(run: str, base: Path, output: Path | None) -> None:
    """Write a run's record and its jobs' output into one archive.

    Raises:
        ConfigError: it is running, or the archive cannot be written.
    """
    directory = _at_rest(run, base)
    target = output or Path(f"run-{directory.name}.tar.gz")
    try:
        with closing(sqlite3.connect(directory / FILE)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a killed program leaves part of it beside the file
        with tarfile.open(target, "x:gz") as archive:
            for name in (FILE, "pilotflow.log", "jobs"):
                if (directory / name).exists():
                    archive.add(directory / name, name)
    except sqlite3.Error as error:
        raise ConfigError(f"Cannot read the run store {directory / FILE}: {error}.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {target}: {error.strerror or error}.") from None
    print(f"Run {directory.name} is in {target}; bring it back with `pilotflow import {quote(str(target))}`.")


def import_run(archive: Path, base: Path) -> None:
    """Make a run of an archive that `export` has written.

    Raises:
        ConfigError: it is no such archive.
    """
    try:
        with tarfile.open(archive, "r:gz") as source:
            members = source.getmembers()
            if FILE not in [member.name for member in members] or not all(map(_is_harmless, members)):
                raise ConfigError(f"{archive} is not the archive of a run: `pilotflow export` writes those.")
            directory, _ = rundir.make(base)
            for member in members:
                member.mode = 0o700 if member.isdir() else 0o600
                source.extract(member, directory, set_attrs=False)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"Cannot read the archive {archive}: {words or error}.") from None
    if not is_workflow(directory):
        shutil.rmtree(directory)
        raise ConfigError(f"{archive} has no record of a workflow's run.")
    print(f"It is run {directory.name} here.")


def _has_interchange(directory: Path) -> bool:
    try:
        ask_status(read_connection(directory / "connection.json"), ANSWER_S)
    except PilotflowError:
        return False
    return True


def _is_harmless(member: tarfile.TarInfo) -> bool:
    """Whether it stays in its place: a plain file or a directory, with a path that goes down only."""
    path = PurePosixPath(member.name)
    return (member.isreg() or member.isdir()) and not path.is_absolute() and ".." not in path.parts


def _at_rest(run: str, base: Path) -> Path:
    directory = find_directory(run, base)
    if not is_workflow(directory):
        raise ConfigError(
            f"{directory} is not the run of a workflow: it is a directory like others, to copy or remove."
        )
    if is_held(directory):
        raise ConfigError(
            f"Run {directory.name} is running. Wait for it, or end it: pilotflow cancel {directory.name}."
        )
    return directory
