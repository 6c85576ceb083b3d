"""The managers' half of an interchange: who they are, what they hold, how their attempts end."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from pilotflow.core.checks import (
    check_attempts,
    check_time_left,
    check_times,
    frame_counts,
    how_it_crashed,
    is_crash,
    tell_passed_over,
    why_not_join,
)
from pilotflow.core.peers import Peer, up, where
from pilotflow.core.recovery import Verdict
from pilotflow.core.standstill import Standstill
from pilotflow.core.supply import Manager
from pilotflow.messages.client import ManagerDown, SetupFailed, Started
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import (
    AliveReply,
    Begun,
    CancelOutcome,
    Class,
    Done,
    Drain,
    IsAt,
    Leaving,
    ManagerAlive,
    ManagerMessage,
    ManagerRefused,
    NodeReady,
    Place,
    Recorded,
    Register,
    Registered,
    Reregister,
    ReserveNode,
    Returned,
    Run,
    Stop,
    WorkerSetupFailed,
)
from pilotflow.messages.records import ENDED_WHILE_IT_RAN, Excess, ForgetFunctions, Result, Status, Task

WALLTIME_ENDS_MAX = 2
"""A task without a runtime that was running at so many planned ends is not tried again."""


class Fleet(Standstill):
    """What managers say, and what follows from it."""

    def on_manager(self, key: Hashable, messages: Sequence[ManagerMessage], frames: Sequence[Any], now: float) -> None:
        """What a manager said.

        Raises:
            BadMessage: some of it makes no sense, and alone was passed over.
        """
        at = 0
        peer = self.peers.get(key)
        known = peer is not None
        if peer is not None:
            peer.last_seen = now
        bad: list[BadMessage] = []
        for message in messages:
            try:
                if isinstance(message, Register):
                    self._register(key, message, now)
                    peer = self.peers.get(key)
                elif peer is None:
                    if not self.closing:
                        self._send(key, Reregister())
                    break
                elif isinstance(message, Done):
                    at = self._done(peer, message, frames, at, now)
                elif isinstance(message, Leaving):
                    self._leaving(peer, message)
                    peer = None
                else:
                    self._take_news(peer, message, now)
            except BadMessage as error:
                bad.append(error)
                if isinstance(message, Done):
                    frames, at = (), 0  # whose the others are is not known any more
                elif message is messages[0]:
                    known = False  # there is no stock to take
        if known and peer is not None and messages and isinstance(messages[0], Register):
            self._take_stock(peer, messages[0], now)  # after the results that came with it
            self._unheard.discard(peer.manager.id)
        tell_passed_over(bad)

    def _take_news(self, peer: Peer, message: ManagerMessage, now: float) -> None:
        if isinstance(message, ManagerAlive):
            check_time_left(message.time_left_s)
            if peer.still_until is not None:
                self._goes_on(peer)
            if peer.manager.set_time_left(message.time_left_s, now):
                self.scheduler.reopen(peer.manager)
            said = self._letter(peer.key).messages
            if not said or type(said[-1]) is not AliveReply:  # one answers any number of signs
                said.append(AliveReply())
        elif isinstance(message, Begun):
            self._begun(peer, message)
        elif isinstance(message, Returned):
            self._returned(peer, message.tasks)
        elif isinstance(message, CancelOutcome):
            self._cancel_outcome(peer, message)
        elif isinstance(message, NodeReady):
            if self.gatherings.answer(message.task, message.attempt, peer.manager.id):
                self._start_gang(message.task)
        elif isinstance(message, WorkerSetupFailed):
            if peer.manager.executor not in self._setups:
                raise BadMessage("a setup has failed where there is no setup")
            self._send_client(SetupFailed(peer.manager.executor, message.payload, message.died))
        elif isinstance(message, IsAt):
            self.inquiries.manager_said(peer.manager.id, message)

    def _register(self, key: Hashable, message: Register, now: float) -> None:
        check_time_left(message.time_left_s)
        check_attempts(message.leased)
        check_attempts(message.running)
        refusal = why_not_join(message, self.version, self.python)
        known = self.peers.get(key)
        if refusal and known is None:
            self._send(key, ManagerRefused(refusal))
            self._lost.append(key)  # it ends, which is not heard over TCP
            self._send_client(
                ManagerDown(message.executor, message.block, message.node, refusal, planned=False, refused=True)
            )
        elif known is None:
            self._admit(key, message, now)
        elif known.session == message.session:
            self._send(key, self._welcome(known))
        else:
            self._lose(known, "another manager took its place", planned=False)
            self._lost.remove(key)
            self._register(key, message, now)

    def _admit(self, key: Hashable, message: Register, now: float) -> None:
        manager = Manager(self._next_manager, message.executor, message.block, message.node, message.capacity)
        self._next_manager += 1
        manager.set_time_left(message.time_left_s, now)
        peer = Peer(key, message.session, manager, now, now)
        self.peers[key] = peer
        self.by_id[manager.id] = peer
        self._excuse(message.session)
        self.scheduler.add_manager(manager)
        self.notices.joined(manager)
        self._send(key, self._welcome(peer))
        self._send_client(up(manager))
        self._claim(peer, (*message.running, *message.leased), now)
        if message.block in self._draining:
            manager.closed = True
            self._send(key, Drain())
        elif self._hope.meet(manager, message.time_left_s):
            self._fail_hopeless()
        if self.closing or message.block in self._dropped:
            self._send(key, Stop("the run has ended" if self.closing else self._dropped[message.block]))
        self._load_changed = True

    def _welcome(self, peer: Peer) -> Registered:
        setup = self._setups.get(peer.manager.executor, b"")
        return Registered(peer.manager.id, self.heartbeat_limit_s, setup)

    def _take_stock(self, peer: Peer, message: Register, now: float) -> None:
        """A manager that we know has begun anew: letters were lost, and what it was sent or had said in them."""
        if peer.session != message.session:
            return
        held = {*message.running, *message.leased}
        ours = [(task.id, task.attempt) for task in self.scheduler.leased(peer.manager)]
        self._returned(peer, [pair for pair in ours if pair not in held])
        self.recovery.lose(peer.manager.id, but={id for id, _ in held})
        self._claim(peer, held.difference(ours), now)
        for id in self.cancels.put_to(peer.manager.id):
            self._resolve(id)

    def _claim(self, peer: Peer, held: Iterable[tuple[int, int]], now: float) -> None:
        """Take over what a manager still holds, or tell it that it is out of date."""
        stale: list[tuple[int, int]] = []
        for id, attempt in dict(held).items():
            task = self.scheduler.find(id)
            if task is not None:
                if not self._supersede(task, attempt):
                    stale.append((id, attempt))
                    continue
            else:
                verdict, task, (older, older_attempt) = self.recovery.claim(peer.manager.id, id, attempt, now)
                if verdict is Verdict.STALE:
                    stale.append((id, attempt))
                if older and older in self.by_id:
                    self._send_cancel(self.by_id[older], [(id, older_attempt)])
            if task is not None:
                self.scheduler.adopt(peer.manager, task, now)
        self._send_cancel(peer, stale)

    def _supersede(self, task: Task, attempt: int) -> bool:
        """Take a task from a manager that holds an older attempt, both from before a restart."""
        holder = self.scheduler.holder(task.id)
        if holder is None or not task.attempt < attempt < self._first_attempt:
            return False
        self._send_cancel(self.by_id[holder.id], [(task.id, task.attempt)])
        self.scheduler.release(holder, task)
        task.attempt = attempt
        return True

    def _done(self, peer: Peer, message: Done, frames: Sequence[Any], at: int, now: float) -> int:
        manager, scheduler = peer.manager, self.scheduler
        counts = frame_counts(message.results, len(frames) - at)
        if self.outbox.knows(manager.id, message.seq):  # repeated; the client will acknowledge the first
            return at + sum(counts)
        tasks, learn, release, manager_id = scheduler.tasks, scheduler.learn, scheduler.release, manager.id
        accepted: list[Result] = []
        parts: list[Any] = []
        nbytes = 0
        for i, result in enumerate(message.results):
            id = result.id
            n = counts[i] if counts else 0
            at += n
            task = tasks.get(id)
            if task is None or task.attempt != result.attempt or task.manager != manager_id:
                if not self._from_before(peer, result, now):
                    continue
            else:
                learn(task.fn, result.duration_us)
                release(manager, task)
                if result.status > Status.ERROR and is_crash(result):
                    self._crashed(task, how_it_crashed(result))
                    continue
                if task.layout:
                    self._frames.pop(id, None)
            if self._history or self._cut:
                self._history.pop(id, None)
                self._cut.pop(id, None)
            accepted.append(result)
            nbytes += len(result.payload)
            if n:
                parts += frames[at - n : at]
        if accepted:
            self.outbox.add(manager.id, message.seq, accepted, parts, nbytes)
            if self.cancels:
                for result in accepted:
                    self.cancels.settle(result.id, ended=False)
        else:
            self._send(peer.key, Recorded([message.seq]))
        if not manager.leases:
            peer.idle_since = now
        self._load_changed = True
        return at

    def _from_before(self, peer: Peer, result: Result, now: float) -> bool:
        """Whether to take a result that no lease explains: one from the interchange's earlier life."""
        if not self.recovery.active or self.scheduler.find(result.id) is not None:
            return False
        verdict, task = self.recovery.result(peer.manager.id, result, now)
        if verdict is not Verdict.TAKE:
            return False
        if result.status > Status.ERROR and is_crash(result):
            if task is not None:
                task.attempt = result.attempt
                self._crashed(task, how_it_crashed(result))
            return False
        self._drop_payload(result.id)
        return True

    # ---- handing out ------------------------------------------------------------------------

    def _send_tasks(self, peer: Peer, tasks: list[Task]) -> None:
        if peer.manager.capacity.depth_limited and (notice := self.notices.of_excess(peer.manager)):
            self._send_client(notice)
        letter = self._letter(peer.key)
        functions, classes = peer.functions, peer.classes
        for task in tasks:
            if task.fn not in functions:
                functions.add(task.fn)
                letter.messages.append(self._functions[task.fn])
            if task.cls not in classes:
                classes.add(task.cls)
                letter.messages.append(Class(task.cls, self.scheduler.classes[task.cls].request))
            if task.layout:
                letter.frames += self._frames[task.id]
        letter.messages.append(Run(tasks))
        self._load_changed = True

    def _forget_functions(self, fns: Sequence[int]) -> None:
        """The client has no task of these functions any more; those of which we have none either are forgotten."""
        self._unused |= self._functions.keys() & set(fns)
        if self.recovery.active:  # managers may come with tasks that we do not know yet
            return
        gone = self._unused - {task.fn for task in self.scheduler.tasks.values()}
        self._unused -= gone
        for fn in gone:
            del self._functions[fn]
            self.scheduler.durations.forget(fn)
        for peer in self.peers.values():
            if known := peer.functions & gone:
                peer.functions -= known
                self._send(peer.key, ForgetFunctions(sorted(known)))

    def _gather(self, task: Task) -> None:
        """Nodes are reserved for a multi-node task: ask whether they are empty."""
        managers = self.scheduler.gangs.by_task[task.id].managers
        self.gatherings.begin(task.id, task.attempt, [manager.id for manager in managers])
        for manager in managers:
            self._send(self.by_id[manager.id].key, ReserveNode(task.id, task.attempt))

    def _start_gang(self, id: int) -> None:
        task = self.scheduler.tasks[id]
        managers = self.scheduler.gangs.by_task[id].managers
        lead = self.by_id[task.manager]
        self._send(lead.key, Place(id, task.attempt, [manager.node for manager in managers]))
        self._send_tasks(lead, [task])

    # ---- what managers say of their tasks ---------------------------------------------------

    def _begun(self, peer: Peer, message: Begun) -> None:
        tasks = [(id, n) for id, n in message.tasks if self._lease_of(peer, id, n) is not None]
        if tasks:
            self._send_client(Started(tasks))

    def _returned(self, peer: Peer, returned: Sequence[tuple[int, int]]) -> None:
        for id, attempt in reversed(returned):
            task = self._lease_of(peer, id, attempt)
            if task is not None:
                self.gatherings.end(id)
                self.scheduler.release(peer.manager, task)
                self._queue(task, first=True)
        self._load_changed = True

    def _leaving(self, peer: Peer, message: Leaving) -> None:
        """Its end costs nobody anything, but what may not be tried twice and had begun."""
        check_times(message.ran_s)
        classes = self.scheduler.classes
        for i, (id, attempt) in enumerate(message.started):
            task = self._lease_of(peer, id, attempt)
            if task is None:
                continue
            if classes[task.cls].crash_limit == 1:
                self.scheduler.release(peer.manager, task)
                self._crashed(task, f"{where(peer.manager)} {ENDED_WHILE_IT_RAN}: {message.reason}")
            elif i < len(message.ran_s) and classes[task.cls].request.runtime_s is None:
                self._cut_by_walltime(peer, task, message.ran_s[i])
        self._lose(peer, message.reason, planned=True)

    def _cut_by_walltime(self, peer: Peer, task: Task, ran_s: float) -> None:
        """A task that does not say how long it takes was running when its block's walltime was over."""
        longest = self._cut.setdefault(task.id, [])
        longest.append(ran_s)
        if len(longest) >= WALLTIME_ENDS_MAX and task.id not in self.cancels:
            excess = Excess("walltime", len(longest), max(longest), where(peer.manager))
            self.scheduler.release(peer.manager, task)
            self._drop_payload(task.id)
            self.outbox.exceeded(task.id, task.attempt, excess)

    def _cancel_outcome(self, peer: Peer, message: CancelOutcome) -> None:
        for id, attempt in message.ended:
            task = self._lease_of(peer, id, attempt)
            if task is not None:
                self.scheduler.release(peer.manager, task)
                if id in self.cancels:
                    self._drop_payload(id)
                    self.cancels.settle(id, ended=True)
                else:  # we asked when it seemed unwanted, and then the client wanted it
                    self._crashed(task, f"{where(peer.manager)} ended it on an order that was out of date")
            elif id in self.cancels:
                self._resolve(id)
        for id in message.refused:
            if id in self.cancels:
                self._resolve(id, refused_by=peer, token=message.token)
        self._load_changed = True

    def _lease_of(self, peer: Peer, id: int, attempt: int) -> Task | None:
        """The task, if this manager holds this attempt at it."""
        task = self.scheduler.find(id)
        return task if task is not None and (task.manager, task.attempt) == (peer.manager.id, attempt) else None

    def on_hang_up(self, key: Hashable, now: float) -> None:
        """A peer's connection has closed, which happens when its process ends."""
        peer = self.peers.get(key)
        if peer is not None:
            self._lose(peer, "its process has ended", planned=False)
