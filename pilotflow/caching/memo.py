"""A run's memory of calls: what is known is not run, and what is asked for twice at once is run once.

The first of several equal calls is their leader and runs; the others wait for it. They are tasks as
any other, which need a `Ticket` besides their arguments: it is given when they have to run after all,
because the leader was cancelled or could not run.

Calls whose arguments are all there are looked up in the caller's thread. Those that wait for results
of others are looked up later, in the thread of the cache, which also writes what comes in.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pilotflow.caching.entries import CacheFiles, Entry, FileMark, mark_of
from pilotflow.caching.index import CacheIndex
from pilotflow.caching.keys import Call, CallKey
from pilotflow.errors import CacheKeyError, PilotflowError, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.memfile import buffer_of
from pilotflow.messages.records import Status
from pilotflow.runtime.own_threads import start_thread
from pilotflow.runtime.tickets import Ticket
from pilotflow.serialize import Packed, pack, unpack

if TYPE_CHECKING:
    from pilotflow.runtime.client import Client

T = TypeVar("T")
_BY_VALUE = re.compile(b"load_class")
"""What a result has in it that holds classes by value, see `byvalue.reduce_class`."""


class Fate(Enum):
    """What the cache did for a call."""

    WAITING = "waits for what its key is made of"
    KNOWN = "its result was in the cache"
    JOINED = "an equal call was running"
    NEW = "it had to run"
    NO_KEY = "something that it needs has failed"


class CachedFuture(AppFuture[T]):
    """The future of a call of an app with `cache=True`.

    Attributes:
        memo: the run's memory of calls.
        fate: what it did for this call.
        key: the call's key; None until it is known.
        called_at: when it was called, in seconds since 1970.
        known_since: when the result that was found had been made, in seconds since 1970.
        changed_file: why a result that was found is of no use: the path of a file that is not as it was.
        files: paths of files that the call makes, and that belong to its result.
        landed: how it ended, and its result as it came.
        marks: its files as they were then; None for one that was not there.
    """

    memo: Memo
    fate: Fate = Fate.WAITING
    key: CallKey | None = None
    called_at: float = 0.0
    known_since: float = 0.0
    changed_file: str | None = None
    files: tuple[str, ...] = ()
    landed: tuple[Status, Packed] | None = None
    marks: tuple[FileMark | None, ...] = ()

    def settle(self, status: Status, packed: Packed) -> bool:
        """As `AppFuture.settle`."""
        self._land(status, packed)
        return super().settle(status, packed)

    def give(self, value: T) -> bool:
        """As `AppFuture.give`."""
        with contextlib.suppress(SerializationError):  # then it cannot be kept
            self._land(Status.OK, pack(value))
        return super().give(value)

    def _land(self, status: Status, packed: Packed) -> None:
        if self.files:
            self.marks = tuple(mark_of(path) for path in self.files)
        self.landed = (status, packed)


@dataclass(eq=False)
class _Flight:
    """A call that runs, and equal ones that wait for it; or that has ended well, and is not written yet."""

    leader: CachedFuture[Any]
    others: list[tuple[CachedFuture[Any], Ticket]] = field(default_factory=list)

    def result(self) -> Packed | None:
        """The result, if it is there."""
        landed = self.leader.landed
        return landed[1] if landed is not None and landed[0] is Status.OK else None

    def is_of_no_use(self) -> bool:
        """Whether there is a result, and files that belong to it are not as they were."""
        return self.result() is not None and any(
            mark is None or mark_of(mark.path) != mark for mark in self.leader.marks
        )


class Memo:
    """One run's memory of calls.

    Args:
        directory: where results are kept.
        client: ends calls that need not run.
        log: where to say that results cannot be kept.

    Raises:
        ConfigError: the directory cannot be used.
    """

    def __init__(self, directory: Path, client: Client, log: logging.Logger) -> None:
        self.files = CacheFiles(directory)
        self.index = CacheIndex(self.files)
        self._client = client
        self._log = log
        self._lock = threading.Lock()
        self._flights: dict[bytes, _Flight] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._new: list[tuple[CallKey, Entry]] = []
        self._cannot_write = False

    def new_future(self, task_id: int, name: str, client: Client, fn: int) -> CachedFuture[Any]:
        """A future for `call`."""
        future: CachedFuture[Any] = CachedFuture(task_id, name, client, fn)
        future.memo = self
        future.called_at = time.time()
        return future

    def call(self, future: CachedFuture[Any], call: Call, submit: Callable[[Ticket | None], None]) -> None:
        """Settle the future of a call if its result is known; else submit it, or have it wait for an equal one.

        Args:
            future: of the call.
            call: what it calls with what.
            submit: submits it, to wait for this ticket besides its arguments.

        Raises:
            CacheKeyError: it has no key.
            InfrastructureError: there can be no thread for what is to be done later.
        """
        if self._thread is None:
            self._start()  # now, where that can be told to somebody
        if call.needs:
            first = call.needs[0]
            ticket = Ticket(first.task_id, first.name) if isinstance(first, AppFuture) else Ticket()
            submit(ticket)
            self._when_all_are_done(call.needs, lambda: self._decide(future, call, ticket))
            return
        key = future.key = call.key()
        packed = self._lead_or_join(future, key, None)
        if packed is None and future.fate is Fate.JOINED:
            ticket = self._ticket(key)
            submit(ticket)
            self._resolve(future, key, ticket)
            return
        if packed is not None:
            future.settle(Status.OK, packed)
            return
        try:
            submit(None)
        except BaseException as error:
            future.fail(error)  # so that equal calls do not wait for it
            raise

    def close(self, timeout_s: float) -> None:
        """Write what is left, within the timeout."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(timeout_s)
            if self._thread.is_alive():  # it waits for a file system that hangs, as would who closes the index
                self._log.warning("the cache does not answer: some results are not kept")
                return
        self.index.close()

    # ---- who runs ---------------------------------------------------------------------------

    def _lead_or_join(self, future: CachedFuture[Any], key: CallKey, ticket: Ticket | None) -> Packed | None:
        """The known result of a call, or None: then its fate is to run, or to wait for an equal one that runs.

        Args:
            future, key: the call.
            ticket: what it waits for, if it waits already.
        """
        with self._lock:
            flight = self._flights.get(key.digest)
            if flight is None or flight.is_of_no_use():
                flight = self._flights[key.digest] = _Flight(future)
            packed = flight.result()
            if packed is None and flight.leader is not future:
                future.fate = Fate.JOINED
                if ticket is not None:
                    flight.others.append((future, ticket))
                return None
        if flight.leader is future:
            future.add_done_callback(lambda _: self._ended(flight, key))
            return self._found(future, key)
        _is_known(future, time.time(), flight.leader.stdout, flight.leader.stderr)
        return packed

    def _ticket(self, key: CallKey) -> Ticket:
        """A ticket for a call that waits for an equal one."""
        flight = self._flights.get(key.digest)
        return Ticket() if flight is None else Ticket(flight.leader.task_id, flight.leader.name)

    def _found(self, future: CachedFuture[Any], key: CallKey) -> Packed | None:
        """The known result of a call, or None; then the call has to run."""
        found = self.files.read(key.digest)
        if found is not None:
            entry, packed = found
            future.changed_file = entry.changed_file()
            if future.changed_file is None:
                try:
                    packed = _renewed(packed) if entry.classes else packed
                except PilotflowError as error:
                    self._log.warning("a kept result of '%s' cannot be read: %s", future.name, error)
                else:
                    _is_known(future, entry.created, entry.stdout, entry.stderr)
                    return packed
        future.fate = Fate.NEW
        return None

    def _when_all_are_done(self, needs: list[Future[Any]], action: Callable[[], None]) -> None:
        missing = len(needs)
        lock = threading.Lock()

        def one_is_done(_: Future[Any]) -> None:
            nonlocal missing
            with lock:
                missing -= 1
                last = missing == 0
            if last:
                self._do(action)

        for need in needs:
            need.add_done_callback(one_is_done)

    def _decide(self, future: CachedFuture[Any], call: Call, ticket: Ticket) -> None:
        """The results that a call waited for are there."""
        if future.done():
            return
        if any(need.cancelled() or need.exception() is not None for need in call.needs):
            future.fate = Fate.NO_KEY  # it fails with them, or it is made to see such
            ticket.set_result(None)
            return
        try:
            key = future.key = call.key()
        except CacheKeyError as error:
            self._client.conclude(future, error)
            return
        self._resolve(future, key, ticket)

    def _resolve(self, future: CachedFuture[Any], key: CallKey, ticket: Ticket) -> None:
        """End a submitted call, have it wait, or let it run."""
        packed = self._lead_or_join(future, key, ticket)
        if packed is not None:
            self._client.conclude(future, (Status.OK, packed))
        elif future.fate is not Fate.JOINED:
            ticket.set_result(None)

    def _ended(self, flight: _Flight, key: CallKey) -> None:
        """The leader of a flight has ended, one way or another."""
        leader = flight.leader
        landed = leader.landed
        is_new = landed is not None and landed[0] is Status.OK and leader.fate is Fate.NEW
        with self._lock:
            waiting, flight.others = flight.others, []
            if not is_new:
                self._end(flight, key)
        if landed is None:  # cancelled, or it could not run, or its result stays here: the others may fare better
            for future, ticket in waiting:
                self._do(partial(self._resolve, future, key, ticket))
            return
        for future, _ in waiting:
            future.stdout, future.stderr = leader.stdout, leader.stderr
            self._client.conclude(future, landed)
        if is_new:
            self._do(partial(self._keep, flight, key, landed[1]))

    # ---- the thread -------------------------------------------------------------------------

    def _do(self, action: Callable[[], None]) -> None:
        """Have the cache's thread do this."""
        self._work.put(action)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = start_thread(self._run, "pilotflow-cache")

    def _run(self) -> None:
        while (action := self._work.get()) is not None:
            try:
                action()
            except BaseException:  # noqa: BLE001  the loop's top: a bug must not stop the calls that come after
                self._log.exception("the cache's thread failed to do something")
            if self._new and self._work.empty():
                new, self._new = self._new, []
                self.index.add(new)

    def _end(self, flight: _Flight, key: CallKey) -> None:
        """Forget a flight, if no other has taken its place. Called with the lock held."""
        if self._flights.get(key.digest) is flight:
            del self._flights[key.digest]

    def _keep(self, flight: _Flight, key: CallKey, packed: Packed) -> None:
        """Write a result; from then on it is found in its file."""
        try:
            self._write(flight.leader, key, packed)
        finally:
            with self._lock:
                self._end(flight, key)

    def _write(self, future: CachedFuture[Any], key: CallKey, packed: Packed) -> None:
        present = tuple(mark for mark in future.marks if mark is not None)
        if len(present) < len(future.marks):  # it is of no use without them
            return
        entry = Entry(
            app=future.name,
            parts=key.parts,
            created=time.time(),
            files=present,
            stdout=future.stdout,
            stderr=future.stderr,
            classes=_holds_classes(packed),
        )
        try:
            self.files.write(key, entry, packed)
        except OSError as error:
            if not self._cannot_write:
                self._cannot_write = True
                text = "results cannot be kept in the cache %s: %s; the run goes on without"
                self._log.error(text, self.files.directory, error.strerror or error)
            return
        self._new.append((key, entry))


def _is_known(future: CachedFuture[Any], since: float, stdout: str | None, stderr: str | None) -> None:
    future.fate = Fate.KNOWN
    future.known_since = since
    future.stdout, future.stderr = stdout, stderr


def _holds_classes(packed: Packed) -> bool:
    chunks = packed.frames[: packed.layout[0]] if packed.layout else (packed.payload,)
    return any(_BY_VALUE.search(buffer_of(chunk)) for chunk in chunks)


def _renewed(packed: Packed) -> Packed:
    """A result of another program with this program's own classes in the place of the other's."""
    return pack(unpack(*packed))
