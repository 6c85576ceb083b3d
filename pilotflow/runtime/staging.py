"""The submitting program's Python environment as one file, and the script that unpacks it on a node.

Starting a manager from a shared file system costs it a thousand look-ups, and hundreds of managers at once bring
it to its knees. One file that each node reads once costs a few.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError

SCRIPT: Final = r"""# usage: bash stage.sh TAR DIRECTORY COMMAND...   Brings an environment to this node, once, and becomes the command.
tar=$1 dest=$2
shift 2
fail() {
  echo "pilotflow: node $(hostname) cannot stage the Python environment in ${dest%/*}: $1" >&2
  echo "pilotflow: set stage_env to a directory of the nodes with room, or to false." >&2
  exit 73
}
if [ ! -e "$dest/.staged" ]; then
  umask 077
  base=${dest%/*}
  mkdir -p -m 700 "$base" || fail "it cannot be made"
  [ -O "$base" ] && [ ! -L "$base" ] || fail "it belongs to somebody else"
  exec 9> "$base/.lock"
  if command -v flock > /dev/null; then flock 9; fi
  if [ ! -e "$dest/.staged" ]; then
    find "$base" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} + 2> /dev/null
    aside=$dest.$(hostname).$$
    mkdir "$aside" && tar -xf "$tar" -C "$aside" && touch "$aside/.staged" || { rm -rf "$aside"; fail "tar failed"; }
    mv -T "$aside" "$dest" 2> /dev/null || rm -rf "$aside"
    [ -e "$dest/.staged" ] || fail "it cannot be renamed"
  fi
  exec 9>&-
fi
exec "$@"
"""
_SCRIPT_BYTES_MAX: Final = 1 << 16


def pack_environment(
    prefix: Path, store: Path, base: str, package: Path | None = None, *, write: bool = True
) -> tuple[Path, Path]:
    """The file of an environment, made if it has changed, and the directory on nodes where it is unpacked.

    Args:
        prefix: the environment.
        store: where such files are kept; all nodes can reach it.
        base: the nodes' directory for staged environments.
        package: a package that is imported from outside of the environment, to be brought along as well.
        write: make the file; otherwise say what it would be called.

    Raises:
        ConfigError: the file cannot be written.
    """
    key = hashlib.sha256(f"{prefix} {base} {package} {sys.version}".encode())
    entries = list(_entries(prefix, ""))
    if package is not None:
        site = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/{package.name}/"
        entries += [(path, site + name, found) for path, name, found in _entries(package, "")]
    for _, name, found in entries:
        key.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    digest = key.hexdigest()[:20]
    target, dest = store / f"{digest}.tar", Path(base) / digest
    try:
        if write and not target.exists():
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = store / f"{digest}.{os.getpid()}.new"
            with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
                for path, name, _ in entries:
                    _add(tar, path, name, prefix, dest)
            aside.replace(target)
    except OSError as error:
        raise ConfigError(
            f"The environment {prefix} cannot be packed into {store} for stage_env: {error.strerror or error}."
        ) from None
    return target, dest


def _entries(folder: Path, name: str) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Everything in a directory, but directories, in a fixed order."""
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), f"{name}{entry.name}/")
            else:
                yield Path(entry.path), name + entry.name, entry.stat(follow_symlinks=False)


def _add(tar: tarfile.TarFile, path: Path, name: str, prefix: Path, dest: Path) -> None:
    """Add a file; scripts that name the environment's Python name the staged one."""
    info = tar.gettarinfo(path, name)
    if not info.isreg():
        tar.addfile(info)
        return
    with path.open("rb") as file:
        if name.startswith("bin/") and info.size < _SCRIPT_BYTES_MAX and info.mode & stat.S_IXUSR:
            text = file.read()
            if text.startswith(b"#!"):
                text = text.replace(f"#!{prefix}/".encode(), f"#!{dest}/".encode(), 1)
            info.size = len(text)
            tar.addfile(info, BytesIO(text))
        else:
            tar.addfile(info, file)
