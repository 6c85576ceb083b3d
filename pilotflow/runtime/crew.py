"""What the workers of a node have in common, whether they are processes here or steps elsewhere."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from pilotflow.core.orders import Give, Kill, Order, Recall, Spawn, Warn, Worker
from pilotflow.core.pool import Pool
from pilotflow.core.watch import LOOK_PERIOD_S
from pilotflow.messages.views import Whereabouts
from pilotflow.runtime import link
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options, ends_at


class Crew(ABC):
    """The workers of one node: they carry out what its pool orders, and tell it what becomes of that.

    Args:
        loop: calls us when there is something to read.
        pool: the mind of the node's manager.
        options, connection: the manager's.
        started: when the block began, by the monotonic clock.
        log: the manager's log.
    """

    def __init__(
        self, loop: Loop, pool: Pool, options: Options, connection: Connection, started: float, log: logging.Logger
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._options = options
        self._connection = connection
        self._log = log
        self._where = options.watch.where
        self._ends_at = ends_at(options, started)
        self._setup = b""
        self._runtimes_due_at = 0.0

    @property
    @abstractmethod
    def any(self) -> bool:
        """Whether any worker is there."""

    @property
    @abstractmethod
    def due_at(self) -> float:
        """When `look` must be called again."""

    @abstractmethod
    def look(self, now: float) -> None:
        """See whether running tasks keep within their limits."""

    @abstractmethod
    def kill_all(self) -> None:
        """End every worker and what it has started."""

    def trouble(self, now: float, limit_s: float) -> str:
        """Why no workers can be had any more, if so; `limit_s` is for those who do not answer."""
        return ""

    def seen(self, place: Whereabouts) -> Whereabouts:
        """The same, with what can be seen of the worker's process."""
        return place

    def close(self) -> None:  # noqa: B027  there may be nothing to do
        """All is over."""

    def set_up(self, payload: bytes) -> None:
        """What every worker calls before its first task."""
        self._setup = payload

    def forget(self, fns: AbstractSet[int]) -> None:  # noqa: B027  workers may know no function for longer than a task
        """No task will be of these functions."""

    def ends_in(self, seconds: float) -> None:
        """Tasks that start from now on are told that they have so long."""
        self._ends_at = time.time() + seconds

    def carry_out(self, orders: list[Order]) -> None:
        """Do what the pool has decided."""
        for order in orders:
            if isinstance(order, Give):
                self._give(order)
            elif isinstance(order, Recall):
                self._recall(order.worker)
            elif isinstance(order, Kill):
                self._kill(order.worker)
            elif isinstance(order, Warn):
                self._warn(order.worker)
            elif isinstance(order, Spawn):
                self._spawn(order.worker)

    @abstractmethod
    def _give(self, order: Give) -> None: ...

    @abstractmethod
    def _recall(self, worker: Worker) -> None: ...

    @abstractmethod
    def _kill(self, worker: Worker) -> None: ...

    @abstractmethod
    def _warn(self, worker: Worker) -> None: ...

    @abstractmethod
    def _spawn(self, worker: Worker) -> None: ...

    def _next_look(self, due_at: float) -> float:
        """When to look again, if something else is due then."""
        return min(due_at, self._runtimes_due_at) if self._pool.limits_runtimes else due_at

    def _keep_to_runtimes(self, now: float) -> None:
        if now >= self._runtimes_due_at:
            self._runtimes_due_at = now + LOOK_PERIOD_S
            self._pool.enforce_runtimes(now)

    def _seat_of(
        self,
        cls: int,
        cores: tuple[int, ...],
        gpus: tuple[int, ...],
        environ: dict[str, str],
        cpus: Iterable[int] | None = None,
    ) -> link.Sit:
        """What a worker is told before a task of this class."""
        return link.Sit(
            cores,
            gpus,
            None if cpus is None else sorted(cpus),
            environ,
            self._pool.limit_s(cls),
            self._ends_at,
            self._pool.room.request(cls),
            self._connection.directory,
            self._connection.scratch_here,
        )
