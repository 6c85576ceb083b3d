"""The interchange's mind: messages in, messages out.

It owns the queue (through `Scheduler`), the managers, and the leases, and never looks into a
payload. The shell around it (`pilotflow.runtime.interchange`) owns the sockets and the clock:
it calls `on_client` and `on_manager` for everything that has arrived, then `turn` once.

Peers are opaque keys. Everything a peer sends is treated as hostile until it has been checked:
`BadMessage` leaves the state as it was before that message.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf
from typing import Any

from pilotflow.core.cancels import Asked
from pilotflow.core.checks import (
    ATTEMPT_LIMIT,
    check_class,
    check_executors,
    check_time_left,
    frame_counts,
    tell_passed_over,
)
from pilotflow.core.desk import Desk
from pilotflow.core.peers import Peer, up
from pilotflow.core.post import Letter
from pilotflow.core.recovery import Verdict
from pilotflow.core.supply import RequestClass
from pilotflow.messages.client import (
    AckResults,
    BlocksEnd,
    CancelTasks,
    ClientAlive,
    ClientMessage,
    Close,
    Crashed,
    DefineClass,
    DefineExecutors,
    DefineFunction,
    DefineSetup,
    DrainBlocks,
    DropBlocks,
    FailExecutor,
    Hello,
    InterchangeAlive,
    LiveBlocks,
    Obeyed,
    Reunited,
    Submit,
    SuspendedBlocks,
    TaskView,
    Welcome,
)
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import Cancel, Drain, EndsIn, Function, Reregister, Retract, Stop
from pilotflow.messages.records import ForgetFunctions, Refused, Task

LOAD_PERIOD_S = 0.25
"""The client hears of a changed load at most this often..."""
LOAD_SHARE = 1e-4
"""...and less often where there are many managers or request classes: this many seconds for each."""
SAME_LOAD_PERIOD_S = 5.0
"""It hears of an unchanged one this often, as long as there is something to do."""
BALANCE_PERIOD_S = 0.25
"""Tasks sent ahead that have not been started after this long are asked back if somebody idles."""


GENERATION = 1 << 10
"""Attempts are raised by this when the client begins anew within an epoch."""


class Exchange(Desk):
    """What the client says, and when everybody is answered. See `Ledger` for the arguments."""

    def on_client(self, key: Hashable, messages: Sequence[ClientMessage], frames: Sequence[Any], now: float) -> None:
        """What the client said.

        Raises:
            BadMessage: some of it makes no sense, and alone was passed over.
        """
        at = 0
        bad: list[BadMessage] = []
        for message in messages:
            try:
                if key != self.client:
                    if not isinstance(message, Hello):
                        raise BadMessage("a client that has not said hello")
                    self._hello(key, message, now)
                elif isinstance(message, Submit):
                    at = self._submit(message, frames, at, now)
                elif isinstance(message, AckResults):
                    self._recorded(self.outbox.acknowledged(message.batches))
                elif isinstance(message, DefineFunction):
                    self._functions.setdefault(message.fn, _function_of(message))
                elif isinstance(message, DefineClass):
                    self._define_class(message)
                elif isinstance(message, CancelTasks):
                    self._cancel(message)
                else:
                    self._administer(key, message, now)
            except BadMessage as error:
                bad.append(error)
                if isinstance(message, Submit):
                    frames, at = (), 0  # whose the others are is not known any more
        tell_passed_over(bad)

    def _hello(self, key: Hashable, hello: Hello, now: float) -> None:
        if hello.version != self.version or hello.run_id != self.run_id:
            reason = f"this interchange serves run {self.run_id} with pilotflow {self.version}"
            self._send(key, Refused(f"{reason}; the client wants run {hello.run_id[:200]} with {hello.version[:50]}"))
            return
        same = (hello.pid, hello.token) == (self._program, self._token)
        if key != self.client and self._program and not same:
            self._send(key, Refused(f"run {self.run_id} belongs to the program with pid {self._program}"))
            return
        self._program, self._token = hello.pid, hello.token
        again = self.client is not None or self._had_client
        if again:
            self._client_again()
        self.client = key
        self._had_client = True
        self.recovery.client_is_here(now)
        self._load_changed = True
        self._send(key, Welcome(self.version, self.pid, self.epoch))
        if again:
            for peer in self.peers.values():
                self._send(key, up(peer.manager))

    def on_hang_up(self, key: Hashable, now: float) -> None:
        """A peer's connection has closed, which happens when its process ends."""
        super().on_hang_up(key, now)
        if key == self.client:
            self._program, self.client = 0, None  # another one may take the run over

    def _client_again(self) -> None:
        """The client has begun anew, and what was on its way to it is lost.

        It submits everything again of which it has no result. Managers keep results that nobody
        has acknowledged: asked to register anew they send them once more. What is submitted again
        and neither here nor in these results had never arrived, and needs not wait for anybody.
        """
        self._first_attempt += GENERATION
        self.recovery.begin(self._first_attempt)
        for manager_id in self.outbox.drop():
            peer = self.by_id.get(manager_id)
            if peer is not None:
                self._unheard.add(manager_id)
                self._send(peer.key, Reregister())

    def _submit(self, message: Submit, frames: Sequence[Any], at: int, now: float) -> int:
        scheduler, first_attempt = self.scheduler, self._first_attempt
        classes, functions = scheduler.classes, self._functions
        counts = frame_counts(message.tasks, len(frames) - at)
        for task in message.tasks:
            if task.cls not in classes or task.fn not in functions or not 0 <= task.attempt < ATTEMPT_LIMIT:
                raise BadMessage(f"task {task.id} names an unknown function or class")
        again = message.again and self.recovery.active
        crashes = dict(message.crashes)
        for i, task in enumerate(message.tasks):
            id = task.id
            n = counts[i] if counts else 0
            at += n
            if id in scheduler.tasks or (self.recovery.active and id in self.recovery):
                continue
            if n:
                self._frames[id] = frames[at - n : at]
            if crashes and id in crashes:
                self._history[id] = list(crashes[id])
            if again:
                self._submit_again(task, now)
                continue
            if task.attempt < first_attempt:
                task.attempt = first_attempt
            if self._hopeless:
                self._queue(task)
            else:
                scheduler.submit(task)
        self._load_changed = True
        return at

    def _submit_again(self, task: Task, now: float) -> None:
        verdict, manager, crash = self.recovery.resubmit(task, now)
        if verdict is Verdict.TAKE:
            self.scheduler.adopt(self.by_id[manager].manager, task, now)
        elif verdict is Verdict.STALE:
            if crash:
                self._crashed(task, crash)
            else:
                self._drop_payload(task.id)

    def _define_class(self, message: DefineClass) -> None:
        if message.cls not in self.scheduler.classes:
            check_class(message)
            crash_limit = max(1, message.crash_limit)
            cls = RequestClass(message.cls, message.request, message.executors, crash_limit, self.sort_method)
            self.scheduler.add_class(cls)
            verdict = self._hope.judge(cls)
            if verdict is not None:
                self._hopeless[cls.id] = verdict

    def _cancel(self, message: CancelTasks) -> None:
        token = message.token
        asked: dict[Hashable, list[tuple[int, int]]] = {}
        for id in message.ids:
            task = self.scheduler.find(id)
            manager = self.scheduler.holder(id)
            if manager is not None and task is not None and self.gatherings.end(id):
                self.scheduler.release(manager, task)  # no manager knows of it yet
                self._drop_payload(id)
                self.cancels.answer(token, id, ended=True)
            elif manager is not None and task is not None and self.by_id[manager.id].still_until is not None:
                if message.running:  # it stands still and cannot answer: it will be told when it goes on
                    self.scheduler.release(manager, task)
                    self._drop_payload(id)
                    self._send_cancel(self.by_id[manager.id], [(id, task.attempt)])
                self.cancels.answer(token, id, ended=message.running)
            elif manager is not None and task is not None:
                asked.setdefault(self.by_id[manager.id].key, []).append((id, task.attempt))
                self.cancels.ask(id, Asked(token, message.running, manager.id, task.attempt))
            elif task is not None:
                self.scheduler.forget(task)
                self._drop_payload(id)
                self.cancels.answer(token, id, ended=True)
            else:  # one that waits for managers after a restart may be running
                ended = message.running and self.recovery.cancel(id) is not None
                if ended:
                    self._drop_payload(id)
                self.cancels.answer(token, id, ended=ended)
        for key, tasks in asked.items():
            self._send(key, Cancel(token, tasks, message.running))
        self._load_changed = True

    def _administer(self, key: Hashable, message: ClientMessage, now: float) -> None:
        if isinstance(message, ClientAlive):
            self._send_client(InterchangeAlive(self.dropped))
        elif isinstance(message, ForgetFunctions):
            self._forget_functions(message.fns)
        elif isinstance(message, DefineSetup):
            self._setups[message.executor] = message.payload
        elif isinstance(message, LiveBlocks):
            self.live_blocks = message.blocks
        elif isinstance(message, SuspendedBlocks):
            self._suspend(message.blocks, now)
        elif isinstance(message, DrainBlocks):
            self._drain(set(message.blocks))
        elif isinstance(message, BlocksEnd):
            self._tell_ends(message)
        elif isinstance(message, DropBlocks):
            self._drop(message)
        elif isinstance(message, FailExecutor):
            self._hope.fail(message.executor, message.reason)
            self._fail_hopeless()
        elif isinstance(message, DefineExecutors):
            check_executors(message)
            self._hope.define(message.executors, closed=message.closed)
            self._fail_hopeless()
        elif isinstance(message, TaskView):
            self.inquiries.client_said(message)
        elif isinstance(message, Reunited):
            self._reunite()
        elif isinstance(message, Obeyed):
            self._obeyed(message)
        elif isinstance(message, Close):
            self.close("the run has ended")
        elif isinstance(message, Hello):
            self._hello(key, message, now)

    def _drain(self, blocks: set[str]) -> None:
        self._draining |= blocks
        self._load_changed = True
        judge = False
        for peer in self.peers.values():
            if peer.manager.block in blocks and not peer.manager.closed:
                peer.manager.closed = True
                judge = self._hope.part(peer.manager) or judge
                self._send(peer.key, Drain())
        if judge:
            self._fail_hopeless()

    def _tell_ends(self, message: BlocksEnd) -> None:
        ends = dict(message.ends)
        for left_s in ends.values():
            check_time_left(left_s)
        for peer in self.peers.values():
            if (left := ends.get(peer.manager.block)) is not None:
                self._send(peer.key, EndsIn(left))

    def _drop(self, message: DropBlocks) -> None:
        dropped = dict(message.blocks)
        self._dropped.update(dropped)
        for peer in self.peers.values():
            if (reason := dropped.get(peer.manager.block)) is not None:
                self._send(peer.key, Stop(reason))

    @property
    def program(self) -> int:
        """Process id of the program that it works for; 0 if that is gone."""
        return self._program

    @property
    def runs_something(self) -> bool:
        """Whether any manager holds a task."""
        return any(peer.manager.leases for peer in self.peers.values())

    def close(self, reason: str) -> None:
        """Tell all managers to stop."""
        self.closing = True
        for peer in self.peers.values():
            self._send(peer.key, Stop(reason))

    def turn(self, now: float) -> dict[Hashable, Letter]:
        """Schedule once, and return everything there is to say."""
        due = self.recovery.next_due()
        if due is not None and due <= now:
            self._end_grace(now)
        self._check_liveness(now)
        if self.recovery.held and self._knows_all and not self._unheard:
            self._hand_out_held()
        scheduler = self.scheduler
        if scheduler.any_ahead and now >= self._balanced + BALANCE_PERIOD_S:
            self._balance(now)
        if scheduler.any_waiting and scheduler.has_changed and not self.outbox.full and not self.closing:
            for manager_id, tasks in scheduler.step(now).items():
                self._lease(self.by_id[manager_id], tasks)
        if self.inquiries:
            self._answer_inquiries(now)
        if self.client is not None:
            self._tell_client(self.client, now)
        out, self._out = self._out, {}
        return out

    def tidy(self) -> None:
        """Do what can wait until the letters of a turn are on their way."""
        self.scheduler.tidy()

    def _tell_client(self, client: Hashable, now: float) -> None:
        results = self.outbox.take()
        if results is not None:
            letter = self._letter(client)  # nothing else in it has frames
            letter.messages.append(results[0])
            letter.frames += results[1]
        if self._crashes:
            self._letter(client).messages.append(Crashed(self._crashes))
            self._crashes = []
        if self.cancels.answered:
            self._letter(client).messages += self.cancels.take_answers()
        if now >= self._load_due():
            load = self._load_now(now)
            self._send(client, load)
            self._load_stays = not any(each.queued or each.leased for each in load.executors)
            classes, managers = self.scheduler.classes.values(), self.scheduler.managers.values()
            self._letter(client).messages += self.notices.of_idle_nodes(classes, managers)
            self._load_changed = False
            self._load_sent = now

    def take_lost(self) -> list[Hashable]:
        """Peers with which nothing is to be exchanged any more."""
        lost, self._lost = self._lost, []
        return lost

    def next_deadline(self) -> float:
        """When `turn` must be called even if nothing arrives."""
        deadline = min(self._check_at, self._look_at) if self._sees_any else self._check_at
        if self.client is not None:
            deadline = min(deadline, self._load_due())
        if self.scheduler.any_ahead:
            deadline = min(deadline, self._balanced + BALANCE_PERIOD_S)
        if self.inquiries:
            deadline = min(deadline, self.inquiries.next_due())
        due = self.recovery.next_due()
        return deadline if due is None else min(deadline, due)

    def _lease(self, peer: Peer, tasks: list[Task]) -> None:
        if peer.manager.gang is not None:
            (task,) = tasks
            self._gather(task)
        else:
            self._send_tasks(peer, tasks)

    def _balance(self, now: float) -> None:
        self._balanced = now
        for manager_id, tasks in self.scheduler.rebalance(now).items():
            self._send(self.by_id[manager_id].key, Retract([(task.id, task.attempt) for task in tasks]))

    def _reunite(self) -> None:
        """All managers are back, says the client."""
        self._knows_all = True
        self._hand_out_held()

    def _hand_out_held(self) -> None:
        """What none of all managers has was not handed out."""
        for task in self.recovery.take_held():
            task.attempt = max(task.attempt, self._first_attempt)
            self._queue(task)
        self._load_changed = True

    def _end_grace(self, now: float) -> None:
        """Nobody came for these: the client's tasks are tried again, what managers hold is unwanted."""
        tasks, unwanted = self.recovery.release(now)
        for task in reversed(tasks):
            self._crashed(task, "the interchange was restarted, and no manager came back with it")
        for manager_id, id, attempt in unwanted:
            peer = self.by_id.get(manager_id)
            if peer is not None:
                self._send_cancel(peer, [(id, attempt)])

    def _load_due(self) -> float:
        if self.outbox.full:  # then nothing is handed out, and what waits says nothing about room
            return inf
        if self._load_changed:
            return self._load_sent + LOAD_PERIOD_S + LOAD_SHARE * (len(self.peers) + len(self.scheduler.classes))
        return inf if self._load_stays else self._load_sent + SAME_LOAD_PERIOD_S


def _function_of(message: DefineFunction) -> Function:
    return Function(message.fn, message.digest, message.body, message.name, message.all_ranks)
