"""`share`: big values that many tasks take, once on each node instead of once with each task."""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from pilotflow.current import current_run
from pilotflow.errors import ConfigError, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.messages.records import Status
from pilotflow.runtime.node_files import SHARED
from pilotflow.runtime.shared_files import SharedFile, write
from pilotflow.serialize import Packed, pack
from pilotflow.typechecks import check_call
from pilotflow.units import format_memory

T = TypeVar("T")


class Shared(AppFuture[T]):
    """A value that each node has once. As an argument of an app it is the value.

    It is a future that has ended: `result()` gives the value here. Its memory and files are given
    back when the program has let go of it and no task that takes it is left, or the run ends.

    Attributes:
        digest: names its content.
        nbytes: its size.
    """

    __slots__ = ("_what", "digest", "nbytes", "token")

    def __init__(self, what: str, digest: str, nbytes: int, token: Packed) -> None:
        super().__init__(0, what, None)
        self.digest = digest
        self.nbytes = nbytes
        self.token = token
        self.settle(Status.OK, token)

    def packed_for(self, future: AppFuture[Any]) -> Packed:
        """What stands for it in a task's arguments; it stays at least until that task has ended."""
        future.add_done_callback(functools.partial(_let_go, self))
        return self.token

    def __repr__(self) -> str:
        return f"<Shared {self.name}>"


class Shelf:
    """The shared values of a run.

    Args:
        run_directory: the run's.
    """

    def __init__(self, run_directory: Path) -> None:
        self._directory = run_directory / SHARED
        self._lock = threading.RLock()  # a finalizer may come while it is held
        self._values: weakref.WeakValueDictionary[str, Shared[Any]] = weakref.WeakValueDictionary()

    def put(self, value: T, node_copy: bool | None) -> Shared[T]:
        """Share a value; equal ones are one.

        Raises:
            SerializationError: it cannot be pickled.
            ConfigError: there is no room for it.
        """
        try:
            packed = pack(value, snapshot=False)
        except SerializationError as error:
            raise SerializationError(f"share: a {type(value).__name__} cannot be sent to workers: {error}") from None
        what = f"{type(value).__name__} of {format_memory(packed.nbytes)}"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            with self._lock:
                path = write(self._directory, packed)
                known = self._values.get(path.name)
                if known is not None:
                    return known
                token = Packed(pickle.dumps(SharedFile(str(path), what, node_copy), 5))
                shared: Shared[T] = Shared(what, path.name, packed.nbytes, token)
                self._values[path.name] = shared
                weakref.finalize(shared, self._drop, path).atexit = False
        except OSError as error:
            raise ConfigError(
                f"share: cannot write {what} into {self._directory}: {error.strerror or error}. See that its disk has "
                "room, or choose another run_dir."
            ) from None
        return shared

    def _drop(self, path: Path) -> None:
        with self._lock:
            if path.name not in self._values:  # else it has been shared again meanwhile
                with contextlib.suppress(OSError):
                    path.unlink()


def share(value: T, *, node_copy: bool | None = None) -> Shared[T]:
    """Put a value once on each node of the current run, for any number of tasks that take it.

    Tasks get the value itself. Arrays in it (of NumPy, pandas and whatever else gives pickle its
    buffers) lie in memory that all workers of a node share, and cannot be changed there.

    Args:
        value: anything that can be an argument.
        node_copy: whether each node makes a copy in its temporary directory. If not given, it does so when
            the run directory is on a network file system.

    Raises:
        SerializationError: it cannot be sent to workers.
        ConfigError: it is a future, or the run directory has no room for it.
        RunClosed: there is no run.

    Example:
        >>> table = share(numpy.load("table.npy"))
        >>> futures = [use(table, row) for row in range(1000)]
    """
    check_call("share", "node_copy", node_copy, bool | None)
    if isinstance(value, Future):
        raise ConfigError(f"share takes a value, and {value!r} is a future; share its result().")
    return current_run().shelf.put(value, node_copy)


def _let_go(_: Shared[Any], __: Any) -> None:
    """Called when a task has ended that holds on to a shared value: it does so no longer."""
