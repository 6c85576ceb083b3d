"""`File`: a file that tasks read or make, by its path or URL.

A file from elsewhere is fetched when a task first asks for its path: opens it, formats it into a
command, looks at `filepath`. A task that does not ask does not pay.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pilotflow.context import current_task
from pilotflow.current import current_run
from pilotflow.errors import CacheKeyError, ConfigError, RunClosed, StagingError
from pilotflow.ids import RUN_DIRECTORY_VARIABLE
from pilotflow.runtime import file_staging, node_files
from pilotflow.typechecks import check_arguments

FILES = "files"
"""Name of the directory of fetched files, and of those that tasks make, in a run directory."""


@dataclass(frozen=True)
class File(os.PathLike[str]):
    """A file that tasks read or make. It can be opened, and formatted into commands, as a path can.

    Args:
        url: a path, which is whole from then on, or a URL: file, http, https, ftp and others that fsspec or a
            plug-in knows.
        stage: "shared" to use a path as it is, and to fetch a URL once in a run, into the run directory that all
            nodes see; "task" for a copy of its own for each task, in the node's temporary directory.
        cache_by: what counts in calls of apps with `cache=True`: "content", "stat" (size and time of change; of a
            URL what its server says), or "name" (nothing but the path or URL). If not given, "content" of paths
            and "stat" of URLs.

    Raises:
        ConfigError: one of them is wrong.

    Example:
        >>> count(inputs=[File("https://example.org/data.csv")])
    """

    url: str | os.PathLike[str]
    stage: Literal["shared", "task"] = "shared"
    cache_by: Literal["content", "stat", "name"] | None = None
    _made: str | None = None  # where a task makes it that is to be stored at the URL
    _is_promised: bool = False
    _version: str = field(default="", compare=False)  # what its server told when a key was made; each has its own copy

    def __post_init__(self) -> None:
        check_arguments(self)
        url = os.fspath(self.url)
        if not url or "\0" in url:
            raise ConfigError(f"File({url!r}): this is neither a path nor a URL.")
        if url.startswith("file://"):
            url = unquote(urlsplit(url).path)
        if "://" not in url:
            url = os.path.abspath(url)
        elif not urlsplit(url).netloc or not urlsplit(url).path.strip("/"):
            raise ConfigError(f"File({file_staging.shown(url)!r}): the URL names no file: SCHEME://HOST/PATH.")
        object.__setattr__(self, "url", url)

    # ---- what it is called ------------------------------------------------------------------

    @property
    def is_remote(self) -> bool:
        """Whether it has to be fetched, or stored elsewhere."""
        return "://" in str(self.url)

    @property
    def scheme(self) -> str:
        """The URL's scheme; "file" of a path."""
        return urlsplit(str(self.url)).scheme if self.is_remote else "file"

    @property
    def netloc(self) -> str:
        """The URL's host, with what else is written there; empty of a path."""
        return urlsplit(str(self.url)).netloc if self.is_remote else ""

    @property
    def path(self) -> str:
        """The path, or the path in the URL."""
        return unquote(urlsplit(str(self.url)).path) if self.is_remote else str(self.url)

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    # ---- where it is ------------------------------------------------------------------------

    @property
    def filepath(self) -> str:
        """Its path here; fetches it if it is not here yet.

        Raises:
            StagingError: it cannot be fetched.
            ConfigError: nothing installed can fetch it.
            RunClosed: it is elsewhere, and there is no run that it could be fetched for.
        """
        if self._made is not None and (self._is_promised or os.path.exists(self._made)):
            os.makedirs(os.path.dirname(self._made), exist_ok=True)
            return self._made
        if not self.is_remote and self.stage == "shared":
            return str(self.url)
        return self._staged

    def __fspath__(self) -> str:
        return self.filepath

    def __str__(self) -> str:
        return self.filepath

    def __repr__(self) -> str:
        return f"File({file_staging.shown(str(self.url))!r})"

    def __reduce__(self) -> Any:
        return File, (self.url, self.stage, self.cache_by, self._made, self._is_promised, self._version)

    def digest(self) -> str:
        """The digest of its content, 40 hexadecimal digits; fetches it if it is not here.

        Raises:
            OSError, StagingError: it cannot be read.
        """
        path = self.filepath
        stat = os.stat(path)
        return _digest((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))

    def cache_key(self) -> tuple[str, ...]:
        """What counts of it in calls of apps with `cache=True`.

        Raises:
            CacheKeyError: that is not known: there is no such file, or its server tells nothing.
        """
        url = str(self.url)
        how = self.cache_by or ("stat" if self.is_remote else "content")
        try:
            if how == "name":
                return how, url
            if how == "content":
                return how, self.filename, self.digest()
            if not self.is_remote:
                stat = os.stat(url)
                return how, url, str(stat.st_size), str(stat.st_mtime_ns)
            told = file_staging.fingerprint(url)
        except (StagingError, ConfigError) as error:
            remedy = "With File(..., cache_by='name') the URL alone counts, and nobody looks at what is there."
            raise CacheKeyError(str(error).rstrip("."), remedy=remedy) from None
        except OSError as error:
            raise CacheKeyError(f"{self!r} cannot be read: {error.strerror or error}") from None
        if not told:
            raise CacheKeyError(
                f"the server of {self!r} does not say when it was changed",
                remedy="Say File(..., cache_by='content'), for which it is fetched, or 'name'.",
            )
        object.__setattr__(self, "_version", told)
        return how, url, told

    # ---- inside -----------------------------------------------------------------------------

    @cached_property
    def _staged(self) -> str:
        source = str(self.url)
        run = _run_directory()
        if self.stage == "shared":
            name = hashlib.blake2b(f"{source} {self._version}".encode(), digest_size=8).hexdigest()
            target = run / FILES / name / self.filename
            file_staging.fetch(source, target)
            return str(target)
        home = Path(tempfile.mkdtemp(prefix="task-", dir=_scratch() or node_files.home_for(run / node_files.SHARED)))
        weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        target = home / self.filename
        if self.is_remote:
            file_staging.fetch(source, target)
        else:
            shutil.copyfile(source, target)
        return str(target)

    def promised(self, run_directory: Path, task_id: int, part: int | str) -> tuple[File, File]:
        """The file as the task gets it that makes it, and as others do who take it from that task."""
        if not self.is_remote:
            return self, self
        made = str(run_directory / FILES / "made" / f"{task_id:06d}" / str(part) / self.filename)
        words = (self.url, self.stage, self.cache_by, made)
        return File(*words, True), File(*words)

    def store(self) -> None:
        """Store what the task has made at the URL.

        Raises:
            StagingError: it cannot be stored.
        """
        if self._made is not None:
            file_staging.store(Path(self._made), str(self.url))


def _run_directory() -> Path:
    """Of the run that this process has loaded, or that it is a worker of."""
    try:
        return current_run().directory
    except RunClosed:
        directory = os.environ.get(RUN_DIRECTORY_VARIABLE)
        if directory is None:
            raise
        return Path(directory)


def _scratch() -> Path | None:
    """The scratch directory of the task that runs here, if it has one."""
    try:
        return current_task().scratch
    except RunClosed:
        return None


@lru_cache(maxsize=4096)
def _digest(as_it_is: tuple[str, int, int, int]) -> str:
    """The digest of a file with this path, size, time of change and inode: it is read again only if it looks different."""
    return file_staging.digest_of(as_it_is[0])
