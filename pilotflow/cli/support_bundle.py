"""`pilotflow support-bundle`: one file with what an admin needs to help with a run, without its secrets.

What tasks were given and have returned is not in it, nor what they printed and the words of their exceptions: only
the names and sizes of those files. Secrets are taken out of all text, see `pilotflow.cli.redaction`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
import re
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pilotflow.cli.redaction import is_sensitive, redacted, without_output
from pilotflow.cli.runs import find_connection
from pilotflow.cli.site_shows import show_settings
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.ids import VERSION
from pilotflow.runtime.connection import read_connection

MAX_FILE_BYTES: Final = 1 << 20
"""Of each file the end is taken, up to this."""
_SHOWN_VARIABLES: Final = re.compile(
    r"PATH|PYTHON\w*|LANG|LC_\w+|HOSTNAME|SHELL|TERM|TMPDIR|VIRTUAL_ENV|CONDA_\w+|LOADEDMODULES|MODULEPATH|OMP_\w+|"
    r"CUDA_\w+|ROCR_\w+|SLURM_\w+|SBATCH_\w+|PBS_\w+|PILOTFLOW_\w+|XDG_\w+"
)
_PACKAGES: Final = (
    "pyzmq",
    "msgspec",
    "cloudpickle",
    "dill",
    "tblib",
    "psutil",
    "pyyaml",
    "typer",
    "rich",
    "numpy",
    "mpi4py",
)


def write_bundle(run_name: str, base: Path, output: Path | None) -> Path:
    """Write the bundle of a run; returns its path.

    Args:
        run_name, base: which run, and where run directories are; see `find_directory`.
        output: the file to write, which must not exist; pilotflow-support-RUN.tar.gz by default.

    Raises:
        ConfigError: there is no run, or the file exists or cannot be written.
    """
    connection = read_connection(find_connection(run_name, base))
    run = Path(connection.directory)
    secrets = [value for value in msgspec.structs.astuple(connection.keys) if value]
    secrets += [value for name, value in os.environ.items() if is_sensitive(name)]
    target = output or Path(f"pilotflow-support-{connection.run_id}.tar.gz")
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as bundle:
            for name, text in _parts(run):
                data = redacted(text, secrets).encode("utf-8", "backslashreplace")
                info = tarfile.TarInfo(f"{target.name.removesuffix('.tar.gz')}/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
                bundle.addfile(info, io.BytesIO(data))
    except FileExistsError:
        raise ConfigError(f"{target} exists; give another name with -o, or move it away.") from None
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}.") from None
    return target


def _parts(run: Path) -> Iterator[tuple[str, str]]:
    yield "versions.txt", _versions()
    yield "settings.txt", _settings()
    yield "environment.txt", _environment(os.environ)
    yield "tasks.txt", _tasks(run / "run.db")
    yield "files.txt", "".join(_listing(run))
    for path in sorted(run.rglob("*")):
        place = path.relative_to(run)
        text = _end_of(path) if _is_wanted(place) and path.is_file() and not path.is_symlink() else None
        if text is not None and place.parts[0] == "blocks" and _has_had_managers(path.parent):
            text = text if path.suffix == ".log" else without_output(text)
        if text is not None:
            yield f"run/{place}", text


def _is_wanted(place: Path) -> bool:
    """Whether a file says what an admin needs, and nothing that tasks, jobs or commands of actions have printed."""
    if place.parts[0] in ("scripts", "blocks"):
        return True
    return len(place.parts) == 1 and place.suffix in (".log", ".err") and not place.name.startswith("action-")


def _has_had_managers(block: Path) -> bool:
    """Whether tasks may have run in a block; if none did, all that it has printed is about its start."""
    return any(block.glob("manager-*.log"))


def _end_of(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - MAX_FILE_BYTES))
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"
    if b"\0" in data[:4096]:
        return None  # no text
    cut = f"[the first {size - MAX_FILE_BYTES} bytes are left out]\n" if size > MAX_FILE_BYTES else ""
    return cut + data.decode("utf-8", "replace")


def _listing(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        with contextlib.suppress(OSError):
            info = path.lstat()
            yield f"{info.st_mode & 0o7777:04o} {info.st_size:>12} {path.relative_to(run)}\n"


def _versions() -> str:
    lines = [f"pilotflow {VERSION}", f"Python {platform.python_version()} on {platform.platform()}"]
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name} {importlib.metadata.version(name)}")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=10, check=False)
        lines.append(done.stdout.strip() or done.stderr.strip())
    return "\n".join(lines) + "\n"


def _settings() -> str:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            show_settings((), origin=True, as_json=False)
    except PilotflowError as error:
        return f"{out.getvalue()}\n{type(error).__name__}: {error}\n"
    return out.getvalue()


def _environment(environment: Mapping[str, str]) -> str:
    shown = [f"{name}={value}" for name, value in sorted(environment.items()) if _SHOWN_VARIABLES.fullmatch(name)]
    hidden = [name for name in sorted(environment) if not _SHOWN_VARIABLES.fullmatch(name)]
    return "\n".join([*shown, "", "Set too, values left out:", *hidden]) + "\n"


def _tasks(path: Path) -> str:
    """How tasks and jobs have ended, and what has happened; of exceptions only the type, as their words may be data."""
    parts = {
        "ends other than success": "SELECT how, count(*) FROM ends GROUP BY how",
        "the last of them": "SELECT time, how, CASE WHEN how = 'failed' THEN substr(words, 1, instr(words || ':', ':') - 1)"
        " ELSE words END FROM ends ORDER BY time DESC LIMIT 100",
        "jobs by their last end and exit code": "SELECT how, exit_code, cause, count(*) FROM results GROUP BY 1, 2, 3",
        "events": "SELECT * FROM (SELECT * FROM events ORDER BY time DESC LIMIT 1000) ORDER BY time",
    }
    lines: list[str] = []
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            has_jobs = store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'results'").fetchone()[0]
            for title, query in parts.items():
                if has_jobs or "FROM results" not in query:
                    lines += [f"# {title}", *_lines(store.execute(query).fetchall())]
    except sqlite3.Error as error:
        lines.append(f"{path.name} cannot be read: {error}")
    return "\n".join(lines) + "\n"


def _lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for row in rows:
        yield "\t".join(map(str, row))
