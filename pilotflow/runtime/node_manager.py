"""The manager of one node: its pool, its workers and its way to the interchange, driven by turns.

A process has one of them, or at the head of an allocation one for each node.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from typing import Any, Final

from pilotflow.core.beats import REST, InterchangeWatch
from pilotflow.core.pool import Pool
from pilotflow.core.whereabouts import place_of
from pilotflow.ids import VERSION
from pilotflow.messages.manager import (
    AliveReply,
    Cancel,
    Class,
    Drain,
    EndsIn,
    Function,
    IsAt,
    ManagerAlive,
    ManagerRefused,
    Place,
    Recorded,
    Register,
    Registered,
    Reregister,
    ReserveNode,
    Retract,
    Run,
    Stop,
    WhereIs,
)
from pilotflow.messages.records import ForgetFunctions
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.crew import Crew
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import END_MARGIN_S, Options
from pilotflow.runtime.uplink import Uplink

LEAVE_GRACE_S: Final = 1.0
"""Workers have this long to die before the manager does."""
CONNECT_LOOK_S: Final = 1.0
"""Until it is registered a manager looks this often whether the interchange answers."""
WARN_S: Final = 60.0
"""Running tasks are warned this long before their manager leaves (or a twentieth of the walltime)."""


class NodeManager:
    """The manager of one node.

    Args:
        options: what it was told.
        connection: the run's.
        pool: its mind.
        loop: calls it when there is something to read.
        crew: its workers.
        started: when its block began, by the monotonic clock.
        log: its log.
        context: of ZeroMQ, shared by the managers of one process.

    Attributes:
        log: the manager's log.
    """

    def __init__(
        self,
        options: Options,
        connection: Connection,
        pool: Pool,
        loop: Loop,
        crew: Crew,
        started: float,
        log: logging.Logger,
        context: Any = None,
    ) -> None:
        self._options = options
        self.log = log
        self._pool = pool
        self._crew = crew
        self._manager_id = 0
        self._started = started
        self._ends = None if options.walltime_s is None else started + options.walltime_s
        self._watch = InterchangeWatch(connection.heartbeat_limit_s, due_at=time.monotonic())
        self._announce_at = 0.0
        self._exit: int | None = None
        self._leave_at: float | None = None
        self._warned = False
        self._warn_s = min(WARN_S, (options.walltime_s or 0.0) / 20)
        self._limit_s = connection.heartbeat_limit_s
        self._session = f"{options.node}-{os.getpid()}-{time.time_ns()}"
        self._uplink = Uplink(
            loop,
            connection,
            options.node,
            options.executor,
            self._session,
            self._obey,
            self._register,
            log,
            options.connection,
            context,
        )
        self._register()

    # ---- interchange ------------------------------------------------------------------------

    def _obey(self, messages: list[Any], frames: Any) -> None:
        at = 0
        for message in messages:
            if isinstance(message, Run):
                at = self._pool.on_run(message, frames, at)
            elif isinstance(message, Recorded):
                self._pool.on_recorded(message.seqs)
            elif isinstance(message, Function):
                self._pool.on_function(message)
            elif isinstance(message, ForgetFunctions):
                self._crew.forget(self._pool.on_forget(message))
            elif isinstance(message, Class):
                self._pool.on_class(message.cls, message.request)
            elif isinstance(message, Cancel):
                self._pool.on_cancel(message)
            elif isinstance(message, Retract):
                self._pool.on_retract(message.tasks)
            elif isinstance(message, ReserveNode):
                self._pool.on_reserve(message)
            elif isinstance(message, Place):
                self._pool.on_place(message)
            elif isinstance(message, Registered):
                self._registered(message)
            elif isinstance(message, Reregister):
                if self._leave_at is None:
                    self._uplink.forget()
                    self._register()
            elif isinstance(message, ManagerRefused):
                self.end(message.reason, 1)
            elif isinstance(message, Drain):
                self.log.info("draining")
                self._pool.drain()
            elif isinstance(message, EndsIn):
                self._ends_in(message.left_s)
            elif isinstance(message, Stop):
                self.leave(message.reason)
            elif isinstance(message, WhereIs):
                place = place_of(self._pool, message.task, message.attempt, time.monotonic())
                self._uplink.note(IsAt(message.token, self._crew.seen(place)))
            else:
                assert isinstance(message, AliveReply)

    def _register(self) -> None:
        self._pool.register(
            Register(
                VERSION,
                platform.python_version(),
                self._options.executor,
                self._options.block,
                self._options.node,
                self._session,
                os.getpid(),
                self._options.capacity,
                self._time_left(),
                [],
                [],
            )
        )

    def _registered(self, message: Registered) -> None:
        if not self._manager_id:
            self.log.info("registered as manager %d", message.manager)
            self._crew.set_up(message.setup)
        self._manager_id = message.manager
        self._uplink.registered()

    def _time_left(self) -> float | None:
        if self._ends is None:
            return None
        margin = min(END_MARGIN_S, (self._ends - self._started) / 10)
        return max(0.0, self._ends - margin - time.monotonic())

    def _ends_in(self, left_s: float) -> None:
        """The block's provider says when it ends, or that this has changed."""
        now = time.monotonic()
        self._ends = now + left_s
        self._warn_s = min(WARN_S, (self._ends - self._started) / 20)
        left = self._time_left() or 0.0
        self._warned = self._warned and left <= self._warn_s
        self.log.info("the block ends in %.0f s", left_s)
        self._crew.ends_in(left)
        self._uplink.note(ManagerAlive(left))

    # ---- leaving ----------------------------------------------------------------------------

    def expect_end(self) -> None:
        """Its block is being ended: what fails from now on is handed back."""
        self._pool.expect_end()

    def leave(self, reason: str, walltime_over_at: float | None = None) -> None:
        """Hand everything back and go, soon."""
        if self._leave_at is None:
            self.log.info("leaving: %s", reason)
            self._pool.leave(reason, walltime_over_at)
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = 0

    def end(self, reason: str, code: int) -> None:
        """Go at once: nobody waits for what is here."""
        if self._leave_at is None:
            (self.log.info if code == 0 else self.log.error)("ending: %s", reason)
            if code:
                sys.stderr.write(f"pilotflow manager: {reason}\n")
                sys.stderr.flush()
            self._crew.kill_all()
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = code

    # ---- turns ------------------------------------------------------------------------------

    def turn(self, now: float) -> int | None:
        """Do what is due, and say what is to be said; the exit code, when it is over."""
        self._watch_time(now)
        if self._leave_at is None or self._exit == 0:  # to leave is to have workers killed
            self._crew.carry_out(self._pool.take_orders(now))
        self._uplink.send(self._pool.take_letter())
        if self._leave_at is not None and (now >= self._leave_at or not self._crew.any):
            return self._exit or 0
        return None

    def _watch_time(self, now: float) -> None:
        watch = self._watch
        if at_stake := self._is_at_stake(now):
            watch.hurry(now)
        if now >= watch.due_at:
            late = watch.is_late(now)
            if late and self._ends is not None:  # the block's clock may have stood still as well: wait to be told
                self._ends = max(self._ends, now + self._limit_s + END_MARGIN_S)
            silent_s = watch.ask(now, self._uplink.heard_at, at_stake=at_stake)
            if not self._manager_id:
                watch.due_at = min(watch.due_at, now + CONNECT_LOOK_S)
            self._beat(now, silent_s, late)
        if self._pool.busy and now >= self._announce_at:
            self._announce_at = now + 1.0
            self._pool.announce_long_runs(now)
        self._crew.look(now)
        if self._leave_at is not None:
            return
        if self._pool.broken:
            self.end(self._pool.broken, 1)
        elif self._pool.drained:
            self.leave("drained")
        elif (left := self._time_left()) is not None:
            self._watch_walltime(left)
        if (gone := self._uplink.lost(now)) is not None:
            self.end(*gone)

    def _is_at_stake(self, now: float) -> bool:
        """Whether it is not enough that an interchange of this host sees that this process goes on.

        Near its end a manager must notice when it has been stopped, as its block's clock may have stood still as well.
        """
        near_end = self._ends is not None and self._ends - now < 2 * REST * self._limit_s
        return self._pool.busy or near_end or not self._uplink.is_local

    def _watch_walltime(self, left: float) -> None:
        if left == 0.0:
            self.leave("its block's walltime is over", time.monotonic())
        elif left <= self._warn_s and not self._warned:
            self._warned = True
            self._pool.warn_of_end()

    def _beat(self, now: float, silent_s: float, late: bool) -> None:
        if not late:
            if trouble := self._crew.trouble(now, self._limit_s):
                self.end(trouble, 1)
            gone = self._uplink.silent(now, silent_s)
            if gone is not None:
                self.end(*gone)
                return
        if self._manager_id:
            self._uplink.note(ManagerAlive(self._time_left()))

    def due_at(self, now: float) -> float:
        """When `turn` must be called again, if nothing happens until then."""
        deadline = min(self._watch.due_at, self._crew.due_at, self._uplink.due_at)
        if self._pool.busy:
            deadline = min(deadline, self._announce_at)
        if self._leave_at is not None:
            deadline = min(deadline, self._leave_at)
        left = self._time_left()
        if left is None:
            return deadline
        return min(deadline, now + left if self._warned else now + max(0.0, left - self._warn_s))

    def close(self) -> None:
        """Close what is open, when it is over."""
        self._uplink.close()
        self._crew.close()
