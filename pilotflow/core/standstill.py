"""Managers that have fallen silent, and what becomes of what must not run twice, such as that of suspended blocks.

A manager on the interchange's host that holds nothing says nothing: there it is looked at whether its process goes on.

What may run elsewhere does so once such a manager has been silent for as long as any. What must not run again waits:
until the manager is heard of again, or has been silent for as long once more while its block was not suspended. In that
time the program asks the batch system, which it does when it hears that the manager is silent.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from math import inf

from pilotflow.core.beats import beat_s, next_beat
from pilotflow.core.ledger import Ledger
from pilotflow.core.peers import Peer, up
from pilotflow.messages.client import ManagerDown
from pilotflow.messages.manager import Reregister
from pilotflow.messages.records import Task


class Standstill(Ledger):
    """Who says nothing, who stands still, and what waits for that."""

    def to_look_at(self, now: float) -> list[Hashable]:
        """Managers at rest: those of this host say nothing either, so their processes are to be looked at.

        That is due as often as the others send signs of life, and before any manager is given up as silent.
        """
        if now < min(self._look_at, self._check_at):
            return []
        self._look_at = next_beat(now, beat_s(self.heartbeat_limit_s))
        self._sees_any = False
        return [key for key, peer in self.peers.items() if self._rests(peer)]

    def on_sight(self, key: Hashable, now: float) -> None:
        """A manager at rest has been seen to go on, which is a sign of life of its process."""
        peer = self.peers[key]
        peer.last_seen = now
        self._sees_any = True
        if peer.still_until is not None:
            self._goes_on(peer)

    def _rests(self, peer: Peer) -> bool:
        """Whether a manager holds nothing, as far as it knows: it has not been sent a task whose nodes are still gathered."""
        manager = peer.manager
        return not manager.leases or (manager.gang is not None and self.gatherings.missing(manager.gang) > 0)

    def _check_liveness(self, now: float) -> None:
        """Give up who is silent for too long; at the second look, as this process may have been stopped and hears late."""
        if now < self._check_at:
            return
        limit_s, since = self.heartbeat_limit_s, now - self._checked
        self._checked = now
        silent = self._silent(now)
        if silent and since > limit_s / 4:
            self._check_at = now + limit_s / 8
            return
        for peer in silent:
            reason = f"not heard of for {now - peer.last_seen:.0f} s"
            if peer.still_until is not None or not self._stands_still(peer, reason, now):
                if self._rests(peer):
                    self._send(peer.key, Reregister())  # once it goes on it would not say so by itself
                self._lose(peer, reason, planned=False, silent=True)
        self._check_at = self._next_silence(now)

    def _suspend(self, blocks: Collection[str], now: float) -> None:
        """These blocks are suspended, and no others: those that were have been resumed, or have ended."""
        self._wait_for_suspended(now)
        self._suspended = frozenset(blocks)
        self._check_at = min(self._check_at, self._next_silence(now))

    def _stands_still(self, peer: Peer, reason: str, now: float) -> bool:
        """Whether a silent manager is kept, as it has what must not run twice; everything else is taken from it."""
        manager, scheduler = peer.manager, self.scheduler
        gang = manager.gang  # all of its nodes are in this block
        held = scheduler.leased(manager) if gang is None else [scheduler.gangs.by_task[gang].task]
        if not any(map(self._runs_for_the_last_time, held)):
            return False
        peer.still_until = now + self.heartbeat_limit_s
        if not manager.closed:
            manager.closed = True
            if self._hope.part(manager):
                self._fail_hopeless()
        others = [task for task in held if not self._runs_for_the_last_time(task)]
        self._send_cancel(peer, [(task.id, task.attempt) for task in others])
        for task in reversed(others):
            scheduler.release(manager, task)
            self._miss(peer, task, reason)
        who = manager.executor, manager.block, manager.node
        self._send_client(ManagerDown(*who, reason, planned=False, follows=manager.capacity.follows))
        self._load_changed = True
        return True

    def _runs_for_the_last_time(self, task: Task) -> bool:
        lost = len(self._history.get(task.id, ()))
        return lost + 1 >= self.scheduler.classes[task.cls].crash_limit and task.id not in self.cancels

    def _goes_on(self, peer: Peer) -> None:
        """A manager that stood still is heard of again."""
        manager = peer.manager
        peer.still_until = None
        self._excuse(peer.session)
        if not self.closing and manager.block not in self._draining and manager.block not in self._dropped:
            manager.closed = False
            self.scheduler.reopen(manager)
            if self._hope.meet(manager, None):
                self._fail_hopeless()
        self._send_client(up(manager))
        self._load_changed = True

    def _wait_for_suspended(self, now: float) -> None:
        """Time in which a block is suspended is not counted."""
        for peer in self.peers.values():
            if peer.still_until is not None and peer.manager.block in self._suspended:
                peer.still_until = now + self.heartbeat_limit_s

    def _silent(self, now: float) -> list[Peer]:
        """Who has not been heard of for too long."""
        self._wait_for_suspended(now)
        return [peer for peer in self.peers.values() if self._given_up_at(peer) <= now]

    def _next_silence(self, now: float) -> float:
        """When the first of all has been silent for too long."""
        first = min(map(self._given_up_at, self.peers.values()), default=inf)
        return now + self.heartbeat_limit_s if first == inf else first

    def _given_up_at(self, peer: Peer) -> float:
        return peer.last_seen + self.heartbeat_limit_s if peer.still_until is None else peer.still_until
