"""Futures of tasks, as users have them: cancelled with their task, and asked for parts of a result to come."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED
from typing import TYPE_CHECKING, Any, TypeVar

from pilotflow.errors import SerializationError
from pilotflow.future_errors import NOT_THERE_YET, dependency_failed
from pilotflow.lazy_future import LazyFuture, decoding
from pilotflow.notebook import table
from pilotflow.runtime.tasks import part
from pilotflow.serialize import Derived, Packed
from pilotflow.units import nearest

if TYPE_CHECKING:
    from pilotflow.runtime.client import Client

T = TypeVar("T")


class AppFuture(LazyFuture[T]):
    """The result of a task that may not have run yet.

    It is a `concurrent.futures.Future`, and can be awaited. `cancel()` also ends a running task.

    Attributes:
        task_id: the task's number in its run.
        name: name of the app or function.
        label: what its call was given as its label, or None.
        stdout, stderr: paths of the files that the task's output goes to, or None.
        outputs: futures of the files that the task has promised; they can be arguments.
    """

    outputs: Sequence[PartFuture[Any]] = ()

    # ---- for users --------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the task, even if it is running already.

        False if it has ended, or is a function that runs in a thread of the program (see
        `ThreadExecutorConfig`), which cannot be killed; the run's log says so.
        """
        client = self._client
        if client is not None and not client.may_cancel(self):
            return False
        if not self._end(CANCELLED_AND_NOTIFIED):
            return self._state is not FINISHED
        if client is not None:
            client.cancel(self)
        return True

    def __getitem__(self, key: Any) -> PartFuture[Any]:
        """The item of the result that will be there: a future too, which can be an argument."""
        return PartFuture(self, f"{self.name}[{key!r}]", (operator.getitem, key))

    def __getattr__(self, name: str) -> Any:
        """The attribute of the result that will be there, as a future, if a future itself has none of that name."""
        if name.startswith("_"):  # what libraries look for
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return PartFuture(self, f"{self.name}.{name}", (getattr, name))

    def __iter__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be iterated over before its result is there: say future[0], future[1] for futures of "
            "its items, or .result()"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} #{self.task_id} {self.state}>"

    def _repr_html_(self) -> str:
        error = self.exception() if self.failed() else None
        rows = [
            ("task", self.task_id),
            ("state", self.state),
            ("error", None if error is None else f"{type(error).__name__}: {error}"),
            ("stdout", self.stdout),
            ("stderr", self.stderr),
        ]
        return table(self.name, rows)

    def __reduce__(self) -> Any:
        raise SerializationError("a future cannot be pickled; pass it as an argument, or wait for its result")

    # ---- for the client loop ----------------------------------------------------------------

    def is_of(self, client: Client) -> bool:
        """Whether its task is one of that client's; not known, and so true, of one that has ended."""
        return self._client is None or self._client is client

    def packed_for(self, future: AppFuture[Any]) -> Packed | None:
        """The result as it came, if it was good and nobody has asked for it, for a task that takes it."""
        return self.packed_result()


class PartFuture(AppFuture[T], Derived):
    """A part of a task's result, `future[key]` or `future.name`, which can be had when the task has ended.

    As an argument of an app it is taken out of the result where the app runs.

    Args:
        whole: the future whose part it is.
        name: what it is called in messages.
        take: called with the result and the second item, gives the part.
    """

    __slots__ = ("_take", "_whole")

    def __init__(self, whole: AppFuture[Any], name: str, take: tuple[Callable[[Any, Any], T], Any]) -> None:
        super().__init__(whole.task_id, name, None, whole.fn)
        self._take = take
        self._whole: AppFuture[Any] | None = whole
        whole.add_done_callback(self._whole_done)

    def failed(self) -> bool:
        """Whether it cannot be had: the task failed, or its result has no such part."""
        return self._state is FINISHED and self._decoded_error() is not None

    def derivation(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What gives the part on a worker, and the arguments of that."""
        return part, (self._whole, self._take, self.name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Not to be called: the result is not there yet."""
        meant = nearest(self.name.rpartition(".")[2], [name for name in dir(AppFuture) if not name.startswith("_")])
        hint = f" Did you mean .{meant}()?" if meant is not None else ""
        raise TypeError(f"{self.name} cannot be called: {NOT_THERE_YET}.{hint} Call it in an app, or after .result().")

    def __bool__(self) -> bool:  # else `if fit(x).converged:` would always hold
        raise TypeError(f"whether {self.name} is true is not known: {NOT_THERE_YET}. Ask in an app, or its .result().")

    def _whole_done(self, whole: Future[Any]) -> None:
        self._end(CANCELLED_AND_NOTIFIED if whole.cancelled() else FINISHED)

    def _decoded_error(self) -> BaseException | None:
        if self._whole is not None and self._state is FINISHED:
            with decoding:
                self._look(self._whole)
        return self._exception

    def _look(self, whole: AppFuture[Any] | None) -> None:
        if whole is None:  # another thread was faster
            return
        error = whole.exception(0)
        if error is not None:
            self._exception = dependency_failed(whole, self, did="cannot be had")
        else:
            take, key = self._take
            try:
                self._result = take(whole.result(0), key)
            except Exception as problem:  # noqa: BLE001  whatever the user's class raises
                self._exception = problem
        self._whole = None
