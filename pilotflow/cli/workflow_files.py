"""Commands that move runs about: delete, export, import."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from pilotflow.cli.runs import find_directory
from pilotflow.errors import ConfigError
from pilotflow.runtime import rundir
from pilotflow.workflow.history import is_workflow
from pilotflow.workflow.holding import is_held


def delete_run(run: str, base: Path, *, sure: bool) -> None:
    """Delete a run's directory.

    Raises:
        ConfigError: it is running, is no workflow's, or nobody is sure.
    """
    directory = _at_rest(run, base)
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
        with tarfile.open(target, "x:gz") as archive:
            for name in ("run.db", "pilotflow.log", "jobs"):
                if (directory / name).exists():
                    archive.add(directory / name, name)
    except OSError as error:
        raise ConfigError(f"Cannot write {target}: {error.strerror or error}.") from None
    print(f"Run {directory.name} is in {target}; bring it back with `pilotflow import {target}`.")


def import_run(archive: Path, base: Path) -> None:
    """Make a run of an archive that `export` has written.

    Raises:
        ConfigError: it is no such archive.
    """
    try:
        with tarfile.open(archive, "r:gz") as source:
            members = source.getmembers()
            if "run.db" not in [member.name for member in members] or not all(map(_is_harmless, members)):
                raise ConfigError(f"{archive} is not the archive of a run: `pilotflow export` writes those.")
            directory, _ = rundir.make(base)
            for member in members:
                member.mode = 0o700 if member.isdir() else 0o600
                source.extract(member, directory, set_attrs=False)
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"Cannot read the archive {archive}: {error}.") from None
    if not is_workflow(directory):
        shutil.rmtree(directory)
        raise ConfigError(f"{archive} has no record of a workflow's run.")
    print(f"It is run {directory.name} here.")


def _is_harmless(member: tarfile.TarInfo) -> bool:
    """Whether it stays in its place: a plain file or a directory, with a path that goes down only."""
    path = PurePosixPath(member.name)
    return (member.isreg() or member.isdir()) and not path.is_absolute() and ".." not in path.parts


def _at_rest(run: str, base: Path) -> Path:
    directory = find_directory(run, base)
    if not is_workflow(directory):
        raise ConfigError(f"{directory} is not the run of a workflow.")
    if is_held(directory):
        raise ConfigError(
            f"Run {directory.name} is running. Wait for it, or end it: pilotflow cancel {directory.name}."
        )
    return directory
