"""The books of an interchange: tasks, leases, managers, letters, and what can happen to one task."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from pilotflow.core.cancels import Asked, Cancels
from pilotflow.core.gatherings import Gatherings
from pilotflow.core.hope import Hope, Verdict
from pilotflow.core.inquiries import Inquiries
from pilotflow.core.notices import Notices
from pilotflow.core.outbox import Outbox
from pilotflow.core.peers import Peer, where
from pilotflow.core.post import Letter
from pilotflow.core.recovery import Recovery
from pilotflow.core.scheduler import Scheduler
from pilotflow.messages.client import LiveBlock, ManagerDown
from pilotflow.messages.manager import Cancel, Function, Recorded
from pilotflow.messages.records import Status, Task
from pilotflow.resources import SortMethod

EPOCH_SHIFT = 20
"""Attempts, and numbers of managers, of a later epoch of the run are larger than all of an earlier one."""
MISSED_MAX = 1000
"""Managers that fell silent and are remembered, should they come back."""


class Ledger:
    """State of one run's interchange.

    Args:
        run_id: the run it serves.
        epoch: how often the run has been started or resumed, from 1.
        version, python: ours; managers with another are refused.
        heartbeat_limit_s: a manager silent for longer is lost.
        resubmit_grace_s: after a restart, work that was handed out before waits this long for
            the managers that hold it to come back.
        pid: of its process.
        sort_method: which of the tasks of equal priority come first.
    """

    def __init__(
        self,
        run_id: str,
        epoch: int,
        version: str,
        python: str,
        heartbeat_limit_s: float = 30.0,
        resubmit_grace_s: float = 30.0,
        pid: int = 0,
        sort_method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY,
    ) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.version = version
        self.python = python
        self.pid = pid
        self.sort_method = sort_method
        self.heartbeat_limit_s = heartbeat_limit_s
        self.scheduler = Scheduler()
        self.recovery = Recovery(epoch << EPOCH_SHIFT, resubmit_grace_s, active=epoch > 1)
        self.outbox = Outbox()
        self.cancels = Cancels()
        self.gatherings = Gatherings()
        self.inquiries = Inquiries()
        self.notices = Notices()
        self.client: Hashable | None = None
        self._program = 0  # process id of the client, 0 when its connection has closed
        self._token = b""  # what that client alone knows
        self._had_client = False
        self._knows_all = epoch == 1  # whether managers of an earlier interchange may still come
        self._unheard: set[int] = set()  # managers that have results to tell once more, as the client has begun anew
        self._instructions: dict[int, tuple[Hashable, int]] = {}  # of other terminals: who asked, and their token
        self._instructed = 0
        self.peers: dict[Hashable, Peer] = {}
        self.by_id: dict[int, Peer] = {}
        self.live_blocks: list[LiveBlock] = []
        self.closing = False
        self.dropped = 0
        self._first_attempt = epoch << EPOCH_SHIFT
        self._next_manager = (epoch << EPOCH_SHIFT) + 1
        self._out: dict[Hashable, Letter] = {}
        self._functions: dict[int, Function] = {}
        self._unused: set[int] = set()  # functions that the client has no task of, and we perhaps still have
        self._setups: dict[str, bytes] = {}
        self._frames: dict[int, Sequence[Any]] = {}
        self._history: dict[int, list[str]] = {}
        self._missed: dict[str, list[tuple[int, str]]] = {}  # what the loss of silent managers added there, by session
        self._cut: dict[int, list[float]] = {}  # seconds that a task ran before each end of a block's walltime
        self._crashes: list[tuple[int, int, str]] = []  # of which the client has not been told
        self._draining: set[str] = set()
        self._suspended: frozenset[str] = frozenset()  # blocks
        self._dropped: dict[str, str] = {}  # blocks that are over for their provider, and why
        self._hope = Hope()
        self._hopeless: dict[int, Verdict] = {}
        self._lost: list[Hashable] = []
        self._load_changed = True
        self._load_sent = -1e9
        self._load_stays = False  # until something happens
        self._checked = 0.0
        self._check_at = 0.0  # somebody may be silent for too long
        self._look_at = 0.0  # managers of this host that hold nothing are looked at...
        self._sees_any = False  # ...if there are any
        self._balanced = 0.0

    def tables(self) -> list[Iterable[int]]:
        """Everything that is kept by task, for those who look on: none may outlive its task."""
        return [self._frames, self._history, self._cut, self.cancels]

    def _queue(self, task: Task, *, first: bool = False) -> None:
        """A task waits for a manager, if there is hope for one."""
        if task.attempt < self._first_attempt:  # of an earlier life, in which there may have been later ones
            task.attempt = self._first_attempt
        verdict = self._hopeless.get(task.cls) if self._hopeless else None
        if verdict is not None:
            self._give_up(task.id, task.attempt + 1, [verdict.why], verdict.status)
        elif first:
            self.scheduler.requeue(task)
        else:
            self.scheduler.submit(task)

    def _crashed(self, task: Task, how: str) -> None:
        """An attempt ended with the loss of its worker or manager: again, or enough.

        `how` is a line, and below it what the worker said last, of which only the last attempt's is told.
        """
        if task.id in self.cancels:
            self._drop_payload(task.id)
            self.cancels.settle(task.id, ended=True)
            return
        history = self._history.setdefault(task.id, [])
        line, _, last_words = how.partition("\n")
        history.append(f"attempt {len(history) + 1}: {line}")
        if len(history) < self.scheduler.classes[task.cls].crash_limit and not self.closing:
            self._crashes.append((task.id, task.attempt, history[-1]))
            self._queue(task, first=True)
        else:
            lines = [*history[:-1], f"{history[-1]}\n{last_words}".rstrip()]
            self._give_up(task.id, max(task.attempt, self._first_attempt), lines, Status.LOST)

    def _give_up(self, id: int, attempt: int, lines: Sequence[str], status: Status) -> None:
        self._drop_payload(id)
        self.cancels.settle(id, ended=False)
        self.outbox.give_up(id, attempt, lines, status)

    def _drop_payload(self, id: int) -> None:
        self._frames.pop(id, None)
        self._history.pop(id, None)
        self._cut.pop(id, None)

    def _fail_hopeless(self) -> None:
        """End what can run nowhere any more, and remember which classes those are."""
        self._hopeless = self._hope.judge_all(self.scheduler.classes.values())
        for id in self._hopeless:
            for task in self.scheduler.take_waiting(self.scheduler.classes[id]):
                self._queue(task)

    def _resolve(self, id: int, refused_by: Peer | None = None, token: int = 0) -> None:
        """A manager has not ended a task that it was asked to end: look where the task is now."""
        task = self.scheduler.find(id)
        holder = self.scheduler.holder(id)
        if task is None:
            self.cancels.settle(id, ended=False)
        elif holder is None:
            self.scheduler.forget(task)
            self._drop_payload(id)
            self.cancels.settle(id, ended=True)
        else:
            for asked in self.cancels.of(id):
                if (asked.manager, asked.attempt) != (holder.id, task.attempt):  # it has moved on since
                    self.cancels.ask(id, Asked(asked.token, asked.running, holder.id, task.attempt))
                    self._send(self.by_id[holder.id].key, Cancel(asked.token, [(id, task.attempt)], asked.running))
                elif refused_by is self.by_id[holder.id] and asked.token == token:
                    self.cancels.refuse(id, token)

    def _send_cancel(self, peer: Peer, stale: Iterable[tuple[int, int]]) -> None:
        if pairs := list(stale):
            self._send(peer.key, Cancel(0, pairs, running=True))

    def _recorded(self, seqs: dict[int, list[int]]) -> None:
        for manager_id, recorded in seqs.items():
            peer = self.by_id.get(manager_id)
            if peer is not None:
                self._send(peer.key, Recorded(recorded))

    def _lose(self, peer: Peer, reason: str, planned: bool, *, silent: bool = False) -> None:
        """A manager is gone, or says nothing. What it held runs again, unless it was lost too often."""
        manager = peer.manager
        was_closed = manager.closed
        asked = self.cancels.put_to(manager.id) if self.cancels else []
        held = self.scheduler.remove_manager(manager)
        del self.peers[peer.key]
        del self.by_id[manager.id]
        self._lost.append(peer.key)
        self.recovery.lose(manager.id)
        self._unheard.discard(manager.id)
        for task in reversed(held):
            unstarted = self.gatherings.end(task.id)
            if task.manager != manager.id and (lead := self.by_id.get(task.manager)) is not None:
                self._send_cancel(lead, [(task.id, task.attempt)])  # it has lost one of its nodes
            if task.id in self.cancels:
                self._drop_payload(task.id)
                self.cancels.settle(task.id, ended=True)
            elif planned or unstarted:
                self._queue(task, first=True)
            elif silent:
                self._miss(peer, task, reason)
            else:
                self._crashed(task, f"{where(manager)} lost: {reason}")
        while len(self._missed) > MISSED_MAX:
            del self._missed[next(iter(self._missed))]
        for id in asked:
            if id in self.cancels:
                self._resolve(id)
        who = manager.executor, manager.block, manager.node
        if peer.still_until is None:  # else it was said when it fell silent
            self._send_client(ManagerDown(*who, reason, planned, follows=manager.capacity.follows))
        if not was_closed and self._hope.part(manager):
            self._fail_hopeless()
        self._load_changed = True

    def _miss(self, peer: Peer, task: Task, reason: str) -> None:
        """A task is taken from a manager that is silent; should that come back it was no harm."""
        self._crashed(task, f"{where(peer.manager)} lost: {reason}")
        if task.id in self._history:
            self._missed.setdefault(peer.session, []).append((task.id, self._history[task.id][-1]))

    def _excuse(self, session: str) -> None:
        """A manager that was silent for too long is back: what it had held did it no harm."""
        for id, line in self._missed.pop(session, ()):
            history = self._history.get(id)
            if history is not None and line in history:
                history.remove(line)
                if not history:
                    del self._history[id]

    def _letter(self, key: Hashable) -> Letter:
        letter = self._out.get(key)
        if letter is None:
            letter = self._out[key] = Letter()
        return letter

    def _send(self, key: Hashable, message: Any) -> None:
        self._letter(key).messages.append(message)

    def _send_client(self, message: Any) -> None:
        if self.client is not None:
            self._letter(self.client).messages.append(message)
