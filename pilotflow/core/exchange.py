"""The interchange's mind: messages in, messages out.

It owns the queue (through `Scheduler`), the managers, and the leases, and never looks into a
payload. The shell around it (`pilotflow.runtime.interchange`) owns the sockets and the clock:
it calls `on_client` and `on_manager` for everything that has arrived, then `turn` once.

Peers are opaque keys. Everything a peer sends is treated as hostile until it has been checked:
`BadMessage` leaves the state as it was before that message.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilotflow.core.post import Letter
from pilotflow.core.scheduler import Manager, RequestClass, Scheduler
from pilotflow.messages import (
    AckResults,
    AliveReply,
    BadMessage,
    Begun,
    BlockLoad,
    Cancel,
    Cancelled,
    CancelOutcome,
    CancelTasks,
    Class,
    ClientAlive,
    ClientMessage,
    Close,
    DefineClass,
    DefineFunction,
    DefineSetup,
    Done,
    Drain,
    DrainBlocks,
    ExecutorLoad,
    FailExecutor,
    Function,
    Hello,
    InterchangeAlive,
    Leaving,
    LiveBlock,
    LiveBlocks,
    Load,
    ManagerAlive,
    ManagerDown,
    ManagerMessage,
    ManagerRefused,
    ManagerUp,
    Recorded,
    Refused,
    Register,
    Registered,
    Reregister,
    Result,
    ResultBatch,
    Results,
    Returned,
    Run,
    SetupFailed,
    Started,
    Status,
    StatusReport,
    Stop,
    Submit,
    Task,
    Welcome,
    WorkerSetupFailed,
)

LOAD_PERIOD_S = 0.25
"""The client hears of a changed load at most this often."""
IDLE_LOAD_PERIOD_S = 5.0
"""...and of an unchanged one this often, so that idle times move on."""
EPOCH_SHIFT = 20
"""Attempts of a later epoch of the run are larger than all of an earlier one."""


@dataclass
class Peer:
    """A registered manager beyond what the scheduler needs to know of it."""

    key: Hashable
    session: str
    manager: Manager
    last_seen: float
    idle_since: float
    functions: set[int] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)
    unrecorded: set[int] = field(default_factory=set)  # batches the client has not acknowledged


class Exchange:
    """State of one run's interchange.

    Args:
        run_id: the run it serves.
        epoch: how often the run has been started or resumed, from 1.
        version, python: ours; managers with another are refused.
        heartbeat_limit_s: a manager silent for longer is lost.
        resubmit_grace_s: after a restart, work that was handed out before waits this long for
            the managers that hold it to come back.
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
    ) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.version = version
        self.python = python
        self.pid = pid
        self.heartbeat_limit_s = heartbeat_limit_s
        self.resubmit_grace_s = resubmit_grace_s
        self.scheduler = Scheduler()
        self.client: Hashable | None = None
        self.peers: dict[Hashable, Peer] = {}
        self.by_id: dict[int, Peer] = {}
        self.live_blocks: list[LiveBlock] = []
        self.closing = False
        self.dropped = 0
        self._next_manager = 1
        self._out: dict[Hashable, Letter] = {}
        self._functions: dict[int, Function] = {}
        self._setups: dict[str, bytes] = {}
        self._frames: dict[int, Sequence[Any]] = {}
        self._history: dict[int, list[str]] = {}
        self._results: list[ResultBatch] = []
        self._result_frames: list[Any] = []
        self._claims: dict[int, tuple[Peer, int]] = {}  # attempts held from an earlier epoch
        self._held_back: list[tuple[float, Task]] = []  # resubmitted, may be claimed yet
        self._cancels: dict[tuple[int, int], Hashable] = {}
        self._draining: set[str] = set()
        self._failed: dict[str, str] = {}
        self._lost: list[Hashable] = []
        self._load_changed = True
        self._load_sent = -1e9
        self._checked = 0.0

    # ---- from the client --------------------------------------------------------------------

    def on_client(self, key: Hashable, messages: Sequence[ClientMessage], frames: Sequence[Any], now: float) -> None:
        """What the client said.

        Raises:
            BadMessage: it makes no sense; nothing of it from there on was taken.
        """
        at = 0
        for message in messages:
            if isinstance(message, Submit):
                at = self._submit(message, frames, at, now)
            elif isinstance(message, Hello):
                self._hello(key, message)
            elif key != self.client:
                raise BadMessage("a client that has not said hello")
            elif isinstance(message, AckResults):
                self._acknowledge(message)
            elif isinstance(message, DefineFunction):
                self._functions[message.fn] = Function(message.fn, message.digest, message.body)
            elif isinstance(message, DefineClass):
                self._define_class(message)
            elif isinstance(message, CancelTasks):
                self._cancel(message)
            else:
                self._administer(message, now)

    def _hello(self, key: Hashable, hello: Hello) -> None:
        if hello.version != self.version or hello.run_id != self.run_id:
            reason = f"this interchange serves run {self.run_id} with pilotflow {self.version}"
            self._send(key, Refused(f"{reason}; the client wants run {hello.run_id} with {hello.version}"))
            return
        self.client = key
        self._load_changed = True
        self._send(key, Welcome(self.version, self.pid, self.epoch))

    def _submit(self, message: Submit, frames: Sequence[Any], at: int, now: float) -> int:
        scheduler = self.scheduler
        counts = _frame_counts(message.tasks, len(frames) - at)
        for task in message.tasks:
            if task.cls not in scheduler.classes or task.fn not in self._functions or task.attempt < 0:
                raise BadMessage(f"task {task.id} names an unknown function or class")
        for i, task in enumerate(message.tasks):
            id = task.id
            if id in scheduler.tasks:
                at += counts[i] if counts else 0
                continue
            if counts and counts[i]:
                self._frames[id] = frames[at : at + counts[i]]
                at += counts[i]
            if task.attempt < self.epoch << EPOCH_SHIFT:
                task.attempt = self.epoch << EPOCH_SHIFT
            if message.again:
                self._take_again(task, now)
            else:
                scheduler.submit(task)
        if self._failed:
            self._fail_hopeless()
        self._load_changed = True
        return at

    def _take_again(self, task: Task, now: float) -> None:
        claim = self._claims.pop(task.id, None)
        if claim is None:
            self._held_back.append((now + self.resubmit_grace_s, task))
            return
        peer, attempt = claim
        task.attempt = attempt
        self.scheduler.adopt(peer.manager, task)

    def _acknowledge(self, message: AckResults) -> None:
        seqs: dict[int, list[int]] = {}
        for manager_id, seq in message.batches:
            seqs.setdefault(manager_id, []).append(seq)
        for manager_id, recorded in seqs.items():
            peer = self.by_id.get(manager_id)
            if peer is not None:
                peer.unrecorded.difference_update(recorded)
                self._send(peer.key, Recorded(recorded))

    def _define_class(self, message: DefineClass) -> None:
        if message.cls not in self.scheduler.classes:
            cls = RequestClass(message.cls, message.request, message.executors, max(1, message.crash_limit))
            self.scheduler.add_class(cls)

    def _cancel(self, message: CancelTasks) -> None:
        ended: list[int] = []
        refused: list[int] = []
        asked: dict[Hashable, list[tuple[int, int]]] = {}
        for id in message.ids:
            task = self.scheduler.tasks.get(id)
            manager = self.scheduler.holder.get(id)
            if task is None:
                refused.append(id)
            elif manager is None:
                self.scheduler.forget(task)
                self._drop_payload(id)
                ended.append(id)
            else:
                peer = self.by_id[manager.id]
                asked.setdefault(peer.key, []).append((id, task.attempt))
                self._cancels[(message.token, id)] = peer.key
        for key, tasks in asked.items():
            self._send(key, Cancel(message.token, tasks, message.running))
        if ended or refused:
            self._send_client(Cancelled(message.token, ended, refused))
        self._load_changed = True

    def _administer(self, message: ClientMessage, now: float) -> None:
        if isinstance(message, ClientAlive):
            self._send_client(InterchangeAlive(self.dropped))
        elif isinstance(message, DefineSetup):
            self._setups[message.executor] = message.payload
        elif isinstance(message, LiveBlocks):
            self.live_blocks = message.blocks
        elif isinstance(message, DrainBlocks):
            self._drain(set(message.blocks))
        elif isinstance(message, FailExecutor):
            self._failed[message.executor] = message.reason
            self._fail_hopeless()
        elif isinstance(message, Close):
            self.close("the run has ended")

    def _drain(self, blocks: set[str]) -> None:
        self._draining |= blocks
        self._load_changed = True
        for peer in self.peers.values():
            if peer.manager.block in blocks and not peer.manager.closed:
                peer.manager.closed = True
                self._send(peer.key, Drain())

    def close(self, reason: str) -> None:
        """Tell all managers to stop."""
        self.closing = True
        for peer in self.peers.values():
            self._send(peer.key, Stop(reason))

    def _fail_hopeless(self) -> None:
        """End tasks that may only run on executors that will have no blocks any more."""
        alive = {peer.manager.executor for peer in self.peers.values() if not peer.manager.closed}
        dead = {name: why for name, why in self._failed.items() if name not in alive}
        if not dead:
            return
        hopeless: dict[int, str] = {}
        for cls in self.scheduler.classes.values():
            bound = cls.executors or {"*"}
            if bound <= dead.keys():
                hopeless[cls.id] = "\n".join(dead[name] for name in sorted(bound))
        if "*" in dead:  # no executor at all has hope
            hopeless = {cls: dead["*"] for cls in self.scheduler.classes}
        if not hopeless:
            return
        for task in list(self.scheduler.tasks.values()):
            if task.cls in hopeless and task.id not in self.scheduler.holder:
                self.scheduler.forget(task)
                self._give_up(task.id, task.attempt, [hopeless[task.cls]], Status.UNSTARTABLE)

    # ---- from managers ----------------------------------------------------------------------

    def on_manager(self, key: Hashable, messages: Sequence[ManagerMessage], frames: Sequence[Any], now: float) -> None:
        """What a manager said.

        Raises:
            BadMessage: it makes no sense; nothing of it from there on was taken.
        """
        at = 0
        peer = self.peers.get(key)
        if peer is not None:
            peer.last_seen = now
        for message in messages:
            if isinstance(message, Register):
                self._register(key, message, now)
                peer = self.peers.get(key)
            elif peer is None:
                if not self.closing:
                    self._send(key, Reregister())
                return
            elif isinstance(message, Done):
                at = self._done(peer, message, frames, at, now)
            elif isinstance(message, ManagerAlive):
                peer.manager.set_time_left(message.time_left_s, now)
                self._send(key, AliveReply())
            elif isinstance(message, Begun):
                self._begun(peer, message)
            elif isinstance(message, Returned):
                self._returned(peer, message.tasks)
            elif isinstance(message, CancelOutcome):
                self._cancel_outcome(peer, message)
            elif isinstance(message, Leaving):
                self._returned(peer, message.returned)
                self._lose(peer, message.reason, planned=True)
                peer = None
            elif isinstance(message, WorkerSetupFailed):
                self._send_client(SetupFailed(peer.manager.executor, message.payload))

    def _register(self, key: Hashable, message: Register, now: float) -> None:
        mismatch = self._mismatch(message)
        if mismatch:
            self._send(key, ManagerRefused(mismatch))
            self._send_client(
                ManagerDown(message.executor, message.block, message.node, mismatch, planned=False, refused=True)
            )
            return
        known = self.peers.get(key)
        if known is not None:
            if known.session == message.session:  # a repeated registration
                self._send(key, self._welcome(known))
                return
            self._lose(known, "another manager took its place", planned=False)
        manager = Manager(self._next_manager, message.executor, message.block, message.node, message.capacity)
        self._next_manager += 1
        manager.set_time_left(message.time_left_s, now)
        peer = Peer(key, message.session, manager, now, now)
        self.peers[key] = peer
        self.by_id[manager.id] = peer
        self.scheduler.add_manager(manager)
        self._send(key, self._welcome(peer))
        self._send_client(ManagerUp(message.executor, message.block, message.node, message.capacity))
        self._claim(peer, message)
        if message.block in self._draining:
            manager.closed = True
            self._send(key, Drain())
        if self.closing:
            self._send(key, Stop("the run has ended"))
        self._load_changed = True

    def _mismatch(self, message: Register) -> str:
        where = f"The manager on {message.node} (block {message.block})"
        if message.version != self.version:
            return f"{where} has pilotflow {message.version}, the run has {self.version}. Install the same on both."
        if message.python.split(".")[:2] != self.python.split(".")[:2]:
            return (
                f"{where} runs Python {message.python}, the run has {self.python}. Functions and results cannot "
                "travel between them: set the provider's worker_init so that the blocks use the same Python."
            )
        return ""

    def _welcome(self, peer: Peer) -> Registered:
        setup = self._setups.get(peer.manager.executor, b"")
        return Registered(peer.manager.id, self.heartbeat_limit_s, setup)

    def _claim(self, peer: Peer, message: Register) -> None:
        """Take over what the manager still holds, or tell it that it is out of date."""
        held = {id: attempt for id, attempt in (*message.leased, *message.running)}
        if not held:
            return
        waiting = {task.id: task for _, task in self._held_back}
        stale: list[tuple[int, int]] = []
        for id, attempt in held.items():
            task = waiting.get(id)
            if task is not None:
                task.attempt = attempt
                self.scheduler.adopt(peer.manager, task)
            elif id in self.scheduler.tasks or self.epoch == 1:
                stale.append((id, attempt))
            else:
                self._claims[id] = (peer, attempt)
        self._held_back = [(due, task) for due, task in self._held_back if task.id not in held]
        if stale:
            self._send(peer.key, Cancel(0, stale, running=True))

    def _done(self, peer: Peer, message: Done, frames: Sequence[Any], at: int, now: float) -> int:
        counts = _frame_counts(message.results, len(frames) - at)
        if message.seq in peer.unrecorded:  # repeated; the client will acknowledge the first
            return at + (sum(counts) if counts else 0)
        scheduler, manager = self.scheduler, peer.manager
        leases, learn, release = manager.leases, scheduler.learn, scheduler.release
        accepted: list[Result] = []
        for i, result in enumerate(message.results):
            id = result.id
            n = counts[i] if counts else 0
            task = leases.get(id)
            if task is None or task.attempt != result.attempt:
                if not self._from_before(peer, result):
                    at += n
                    continue
            else:
                learn(task.fn, result.duration_us)
                release(manager, task)
                if result.status == Status.CRASHED:
                    self._crashed(task, bytes(result.payload).decode("utf-8", "replace"))
                    at += n
                    continue
                if task.layout:
                    self._frames.pop(id, None)
            if self._history:
                self._history.pop(id, None)
            accepted.append(result)
            if n:
                self._result_frames += frames[at : at + n]
                at += n
        if accepted:
            peer.unrecorded.add(message.seq)
            self._results.append(ResultBatch(manager.id, message.seq, accepted))
        else:
            self._send(peer.key, Recorded([message.seq]))
        if not leases:
            peer.idle_since = now
        self._load_changed = True
        return at

    def _from_before(self, peer: Peer, result: Result) -> bool:
        """Whether a result that no lease knows comes from the interchange's earlier life."""
        id = result.id
        if self.epoch == 1 or id in self.scheduler.tasks or result.status == Status.CRASHED:
            return False
        for i, (_, task) in enumerate(self._held_back):
            if task.id == id:
                del self._held_back[i]
                self._drop_payload(id)
                return True
        claim = self._claims.pop(id, None)
        return claim is None or (claim[0] is peer and claim[1] == result.attempt)

    def _begun(self, peer: Peer, message: Begun) -> None:
        leases = peer.manager.leases
        tasks = [(id, n) for id, n in message.tasks if id in leases and leases[id].attempt == n]
        if tasks:
            self._send_client(Started(tasks))

    def _returned(self, peer: Peer, returned: Sequence[tuple[int, int]]) -> None:
        for id, attempt in returned:
            task = peer.manager.leases.get(id)
            if task is not None and task.attempt == attempt:
                self.scheduler.release(peer.manager, task)
                self.scheduler.requeue(task)
        self._load_changed = True

    def _cancel_outcome(self, peer: Peer, message: CancelOutcome) -> None:
        ended: list[int] = []
        for id, attempt in message.ended:
            task = peer.manager.leases.get(id)
            if task is not None and task.attempt == attempt:
                self.scheduler.release(peer.manager, task)
                self._drop_payload(id)
                ended.append(id)
            self._cancels.pop((message.token, id), None)
        for id in message.refused:
            self._cancels.pop((message.token, id), None)
        if message.token:
            self._send_client(Cancelled(message.token, ended, message.refused))
        self._load_changed = True

    def _lose(self, peer: Peer, reason: str, planned: bool) -> None:
        """A manager is gone. What it held runs again, unless it was lost too often."""
        manager = peer.manager
        held = self.scheduler.remove_manager(manager)
        del self.peers[peer.key]
        del self.by_id[manager.id]
        self._lost.append(peer.key)
        for (token, id), key in list(self._cancels.items()):
            if key == peer.key:
                del self._cancels[(token, id)]
                self._send_client(Cancelled(token, [], [id]))
        for task in reversed(held):
            if planned:
                self.scheduler.requeue(task)
            else:
                self._crashed(task, f"manager on {manager.node} (block {manager.block}) lost: {reason}")
        self._send_client(ManagerDown(manager.executor, manager.block, manager.node, reason, planned))
        if self._failed:
            self._fail_hopeless()
        self._load_changed = True

    def _crashed(self, task: Task, how: str) -> None:
        """An attempt ended with the loss of its worker or manager: again, or enough."""
        history = self._history.setdefault(task.id, [])
        history.append(f"attempt {len(history) + 1}: {how}")
        if len(history) < self.scheduler.classes[task.cls].crash_limit and not self.closing:
            self.scheduler.requeue(task)
        else:
            self._give_up(task.id, task.attempt, history, Status.LOST)

    def _give_up(self, id: int, attempt: int, lines: list[str], status: Status) -> None:
        payload = msgspec.msgpack.encode(lines)
        self._drop_payload(id)
        self._results.append(ResultBatch(0, 0, [Result(id, attempt, status, payload)]))

    def _drop_payload(self, id: int) -> None:
        self._frames.pop(id, None)
        self._history.pop(id, None)

    # ---- a turn -----------------------------------------------------------------------------

    def on_hang_up(self, key: Hashable, now: float) -> None:
        """A peer's connection has closed, which happens when its process ends."""
        peer = self.peers.get(key)
        if peer is not None:
            self._lose(peer, "its process has ended", planned=False)

    def on_control(self, key: Hashable, now: float) -> None:
        """Another terminal asks for the run's state."""
        load = self._load(now)
        self._send(key, StatusReport(self.run_id, self.pid, load.executors, load.blocks, self.dropped))

    def turn(self, now: float) -> dict[Hashable, Letter]:
        """Schedule once, and return everything there is to say."""
        if self._held_back:
            self._release_held_back(now)
        self._check_liveness(now)
        if self.scheduler.has_work or self.scheduler.any_dirty:
            for manager_id, tasks in self.scheduler.step(now).items():
                self._lease(self.by_id[manager_id], tasks)
        if self._results and self.client is not None:
            letter = self._letter(self.client)
            # Result frames come first in the letter: nothing else in it has any.
            letter.messages.append(Results(self._results))
            letter.frames += self._result_frames
            self._results, self._result_frames = [], []
        if self.client is not None and self._load_due(now):
            self._send_client(self._load(now))
            self._load_changed = False
            self._load_sent = now
        out, self._out = self._out, {}
        return out

    def take_lost(self) -> list[Hashable]:
        """Peers with which nothing is to be exchanged any more."""
        lost, self._lost = self._lost, []
        return lost

    def next_deadline(self) -> float:
        """When `turn` must be called even if nothing arrives."""
        deadline = self._checked + self.heartbeat_limit_s / 4
        period = LOAD_PERIOD_S if self._load_changed else IDLE_LOAD_PERIOD_S
        deadline = min(deadline, self._load_sent + period) if self.client is not None else deadline
        return min(deadline, self._held_back[0][0]) if self._held_back else deadline

    def _lease(self, peer: Peer, tasks: list[Task]) -> None:
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

    def _check_liveness(self, now: float) -> None:
        since = now - self._checked
        if since < self.heartbeat_limit_s / 4:
            return
        self._checked = now
        if since > self.heartbeat_limit_s / 2:  # this process was stopped: hear them first, then judge
            for peer in self.peers.values():
                peer.last_seen = max(peer.last_seen, now - self.heartbeat_limit_s / 2)
        for peer in [p for p in self.peers.values() if now - p.last_seen > self.heartbeat_limit_s]:
            self._lose(peer, f"not heard of for {now - peer.last_seen:.0f} s", planned=False)

    def _release_held_back(self, now: float) -> None:
        while self._held_back and self._held_back[0][0] <= now:
            self.scheduler.submit(self._held_back.pop(0)[1])

    def _load_due(self, now: float) -> bool:
        period = LOAD_PERIOD_S if self._load_changed else IDLE_LOAD_PERIOD_S
        return now - self._load_sent >= period

    def _load(self, now: float) -> Load:
        executors: dict[str, ExecutorLoad] = {}
        blocks: dict[str, BlockLoad] = {}
        for peer in self.peers.values():
            m = peer.manager
            idle_s = max(0.0, now - peer.idle_since) if not m.leases else 0.0
            block = blocks.get(m.block)
            if block is None:
                block = blocks[m.block] = BlockLoad(m.block, 0, 0, 0, idle_s, m.block in self._draining)
            block.managers += 1
            block.leased += len(m.leases)
            block.slots += m.capacity.slots
            block.idle_s = min(block.idle_s, idle_s)
            load = executors.setdefault(m.executor, ExecutorLoad(m.executor, 0, 0, 0))
            load.leased += len(m.leases)
            load.slots += m.capacity.slots
        for cls in self.scheduler.classes.values():
            if cls.queue:
                for name in cls.executors or ("*",):
                    load = executors.setdefault(name, ExecutorLoad(name, 0, 0, 0))
                    load.queued += len(cls.queue)
        return Load(list(executors.values()), list(blocks.values()))

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


def _frame_counts(items: Sequence[Task] | Sequence[Result], available: int) -> list[int]:
    """Payload frames of each item; empty if none has any.

    Raises:
        BadMessage: if the counts are wrong or more than there are frames.
    """
    for item in items:
        if item.layout:
            break
    else:
        return []
    counts = [sum(item.layout) if item.layout else 0 for item in items]
    if not any(counts):
        if any(item.layout for item in items):
            raise BadMessage("a layout without frames")
        return []
    if any(n < 0 for item in items for n in item.layout) or any(len(item.layout) % 2 for item in items):
        raise BadMessage("a layout that is none")
    if sum(counts) > available:
        raise BadMessage(f"{sum(counts)} frames announced, {available} came")
    return counts
