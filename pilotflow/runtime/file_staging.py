"""Files from elsewhere: plug-ins that fetch what is at a URL, store it there, and tell whether it has changed.

A plug-in is registered under the scheme of its URLs in the entry-point group `pilotflow.staging`. What
has none is left to fsspec (`pip install 'pilotflow[staging]'`), which knows http, https, ftp and many more.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from pilotflow.errors import ConfigError, StagingError
from pilotflow.units import did_you_mean

GROUP: Final = "pilotflow.staging"
TRIES: Final = 3
"""How often something is tried that may work the next time."""
_PAUSE_S: Final = 0.5
_CONNECT_S: Final = 30
_SILENCE_S: Final = 120
"""A server may be silent for so long."""


class Staging(Protocol):
    """Moves files from and to URLs of one kind. Whatever it raises is reported with the URL and the node."""

    def fetch(self, url: str, path: str) -> None:
        """Copy what is at the URL into a new file."""

    def store(self, path: str, url: str) -> None:
        """Copy a file to the URL, in the place of what is there."""

    def fingerprint(self, url: str) -> str:
        """Text that is another when what is at the URL has changed; empty if that cannot be told without fetching it."""


class FsspecStaging:
    """Moves files with fsspec."""

    def fetch(self, url: str, path: str) -> None:
        """Copy what is at the URL into a new file."""
        system, there = _file_system(url)
        system.get_file(there, path)

    def store(self, path: str, url: str) -> None:
        """Copy a file to the URL."""
        system, there = _file_system(url)
        system.put_file(path, there)

    def fingerprint(self, url: str) -> str:
        """What the server says of the file's version, or its size and time of change."""
        system, there = _file_system(url)
        info = system.info(there)
        version = [f"{word}={info[word]}" for word in ("ETag", "Content-MD5", "Digest") if info.get(word)]
        if not version:
            changed = next(
                (info[word] for word in ("Last-Modified", "modify", "mtime", "LastModified") if info.get(word)), None
            )
            version = [] if changed is None else [f"changed={changed}"]
        return " ".join([f"size={info.get('size')}", *version]) if version else ""


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # an extra

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if url.startswith(("http://", "https://")):
        import aiohttp  # of the same extra

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}  # clusters have proxies
    system, path = fsspec.core.url_to_fs(url, **options)
    return system, path


def staging_for(url: str) -> Staging:
    """The plug-in for a URL.

    Raises:
        ConfigError: there is none; has the schemes that there are, or what to install.
    """
    from importlib import metadata  # it takes a while, and most programs do without

    scheme = urlsplit(url).scheme
    found = metadata.entry_points(group=GROUP, name=scheme)
    for entry in found:
        plugin: Staging = entry.load()()
        return plugin
    try:
        import fsspec  # an extra
    except ImportError:
        raise ConfigError(
            f"{shown(url)}: files from {scheme}:// need fsspec, which is not installed here. Say: pip install "
            "'pilotflow[staging]', also where tasks run."
        ) from None
    known = sorted({*fsspec.available_protocols(), *(entry.name for entry in metadata.entry_points(group=GROUP))})
    if scheme not in known:
        raise ConfigError(
            f"{shown(url)}: there is no staging for {scheme}://{did_you_mean(scheme, known)}. fsspec does not know it, "
            f"and no installed package has registered it in the entry-point group {GROUP}."
        )
    return FsspecStaging()


def fetch(url: str, target: Path) -> None:
    """Have what is at a URL in a file, which is whole once it is there; many may ask for it at once.

    Raises:
        StagingError: it cannot be had.
        ConfigError: there is no plug-in for it.
    """
    if target.exists():
        return
    plugin = staging_for(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _turn(target.parent):
        if target.exists():
            return
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            _tried(lambda: plugin.fetch(url, str(part)), url, "fetched")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def store(path: Path, url: str) -> None:
    """Copy a file to a URL.

    Raises:
        StagingError: it cannot be stored.
        ConfigError: there is no plug-in for it.
    """
    plugin = staging_for(url)
    _tried(lambda: plugin.store(str(path), url), url, "stored")


def fingerprint(url: str) -> str:
    """See `Staging.fingerprint`.

    Raises:
        StagingError: the server does not answer, or there is no such file.
        ConfigError: there is no plug-in for it.
    """
    plugin = staging_for(url)
    text = ""

    def ask() -> None:
        nonlocal text
        text = plugin.fingerprint(url)

    _tried(ask, url, "looked at")
    return text


def digest_of(path: str) -> str:
    """The digest of a file's content, 40 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    content = hashlib.blake2b(digest_size=20)
    buffer = memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            content.update(buffer[:count])
    return content.hexdigest()


def shown(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def _tried(action: Callable[[], None], url: str, done: str) -> None:
    from ftplib import error_perm

    for number in range(1, TRIES + 1):
        try:
            action()
        except Exception as error:
            final = isinstance(error, (FileNotFoundError, PermissionError, NotImplementedError, error_perm))
            if final or number == TRIES:
                tries = "" if number == 1 else f" after {number} tries"
                raise StagingError(
                    f"{shown(url)} cannot be {done} on {socket.gethostname()}{tries}: {_reason(error, url)}"
                ) from error
            time.sleep(_PAUSE_S * number)
        else:
            return


def _reason(error: Exception, url: str) -> str:
    if isinstance(error, NotImplementedError):
        return f"{urlsplit(url).scheme}:// cannot be written to. Use a path or another kind of URL."
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
        error = cause  # fsspec calls everything so that it cannot look at
    text = str(error).replace(url, "it")
    if isinstance(error, FileNotFoundError):
        return f"there is no such file ({type(error).__name__})."
    return f"{type(error).__name__}{': ' if text else ''}{text}. See that this node reaches that server."


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """One at a time fetches into a directory, where its file system can tell; else each does, and the last one counts."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
