"""The simulator's interchange and client: the shells of `pilotflow.runtime`, without sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pilotflow.core.beats import InterchangeWatch, beat_s, next_beat
from pilotflow.core.exchange import Exchange
from pilotflow.core.graph import Graph
from pilotflow.core.post import Letter, Post
from pilotflow.messages.client import (
    AckResults,
    Cancelled,
    CancelTasks,
    ClientAlive,
    Crashed,
    Hello,
    HelloAgain,
    Load,
    Results,
    Started,
    Submit,
    from_client,
    to_client,
)
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import Reregister, Run, from_manager
from pilotflow.messages.records import ResultBatch, Status, Task
from pilotflow.serialize import Packed
from pilotflow.testing.simulator_network import Clock, Network

VERSION, PYTHON, RUN_ID = "0.0.0", "3.10.0", "sim"
CLIENT, INTERCHANGE = "client", "interchange"


class Neighbour(Protocol):
    """A manager on the interchange's host: each sees by itself whether the other is there."""

    @property
    def goes_on(self) -> bool:
        """Whether its process is neither stopped nor gone."""

    def hung_up(self) -> None:
        """The interchange's process has ended; another one takes its place."""


class SimInterchange:
    """One life after the other of an interchange process; `neighbours` are on its host."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        heartbeat_limit_s: float,
        check: Callable[[Exchange], None],
        neighbours: Mapping[str, Neighbour],
    ) -> None:
        self.clock = clock
        self.network = network
        self._neighbours = neighbours
        self.heartbeat_limit_s = heartbeat_limit_s
        self.epoch = 0
        self.frozen = False
        self.latest: dict[int, int] = {}  # task -> last attempt handed out
        self._check = check
        self._wake_at = 0.0
        self._decode_client = from_client()
        self._decode_manager = from_manager()
        self.restart()

    def restart(self) -> None:
        """A new life that remembers nothing."""
        self.epoch += 1
        limit = self.heartbeat_limit_s
        self.exchange = Exchange(RUN_ID, self.epoch, VERSION, PYTHON, limit, limit)
        self.post = Post(self.epoch * 1_000_000_000)
        self.network.join(INTERCHANGE, self._hear)
        self._wake_at = 0.0
        for neighbour in list(self._neighbours.values()):
            neighbour.hung_up()
        self.turn()

    def _hear(self, sender: str, header: bytes, frames: Sequence[bytes]) -> None:
        try:
            if sender == CLIENT:
                arrived = self.post.receive(sender, self._decode_client(header), frames)
                stranger: Any = HelloAgain()
            else:
                arrived = self.post.receive(sender, self._decode_manager(header), frames)
                stranger = Reregister()
            if arrived is None:
                self.network.send(INTERCHANGE, sender, self.post.stranger_note(stranger), ())
                return
            take = self.exchange.on_client if sender == CLIENT else self.exchange.on_manager
            for messages, parts in arrived:
                take(sender, messages, parts, self.clock.now)
        except BadMessage as error:
            self.exchange.dropped += error.count
        self.turn()

    def hang_up(self, name: str) -> None:
        """A peer's connection has closed."""
        self.exchange.on_hang_up(name, self.clock.now)
        self.post.forget(name)
        self.turn()

    def turn(self) -> None:
        """What the process's loop does after something has happened."""
        self._look_at_neighbours()
        self._see_results()
        letters = self.exchange.turn(self.clock.now)
        self._see_leases(letters)
        self._check(self.exchange)
        for key, header, frames in self.post.send(letters):
            self.network.send(INTERCHANGE, str(key), header, frames)
        for gone in self.exchange.take_lost():
            self.post.forget(gone)
        self.exchange.tidy()
        deadline = self.exchange.next_deadline()
        if self._wake_at <= self.clock.now or deadline < self._wake_at:
            self._wake_at = deadline
            exchange = self.exchange
            self.clock.at(deadline, lambda: self.turn() if self.exchange is exchange else None)

    def _look_at_neighbours(self) -> None:
        now = self.clock.now
        for key in self.exchange.to_look_at(now):
            neighbour = self._neighbours.get(str(key))
            if neighbour is not None and neighbour.goes_on:
                self.exchange.on_sight(key, now)

    def _see_results(self) -> None:
        """No result of a superseded attempt goes to the client."""
        for batch in self.exchange.outbox.unsent:
            for result in batch.results if batch.manager else ():
                latest = self.latest.get(result.id, 0)
                if result.attempt >> 20 == self.epoch:
                    assert result.attempt == latest, f"{result} is superseded by attempt {latest}"

    def _see_leases(self, letters: dict[Any, Letter]) -> None:
        for letter in letters.values():
            for message in letter.messages:
                if isinstance(message, Run):
                    for task in message.tasks:
                        assert task.attempt > self.latest.get(task.id, 0), f"{task} is handed out with an old number"
                        self.latest[task.id] = task.attempt


@dataclass
class SimFuture:
    """A task of the simulated client and how it ended.

    Attributes:
        id: the task's number.
        status: how it ended, or None.
        payload: its result.
        attempts: attempts of which a result came.
        started: whether it was announced as running.
        retried: how often it was tried again after an error of its own.
        cancel_answers: whether each strict cancel of it succeeded.
    """

    id: int
    status: Status | None = None
    payload: bytes = b""
    attempts: list[int] = field(default_factory=list)
    started: bool = False
    retried: int = 0
    cancel_answers: list[bool] = field(default_factory=list)


class SimClient:
    """A client: submits, takes results, submits again when the interchange has lost its memory."""

    def __init__(self, clock: Clock, network: Network, heartbeat_limit_s: float) -> None:
        self.clock = clock
        self.network = network
        self.graph: Graph[SimFuture] = Graph(keep_all=True)
        self.futures: dict[int, SimFuture] = {}
        self.definitions: list[Any] = []
        self.loads: list[Load] = []
        self.events: list[Any] = []
        self.listener: Callable[[Any], None] = lambda _: None  # hears of loads and events, in order
        self.unanswered: dict[int, set[int]] = {}  # token -> tasks whose cancel has no answer
        self._post = Post(1)
        self._decode = to_client()
        self._letter = Letter([Hello(VERSION, PYTHON, 1, RUN_ID, 1)])
        self._acks: list[tuple[int, int]] = []
        self._limit_s = heartbeat_limit_s
        self._watch = InterchangeWatch(heartbeat_limit_s)
        self._stalled = False
        self._mailbox: deque[tuple[str, bytes, Sequence[bytes]]] = deque()
        self._token = 0
        network.join(CLIENT, self._hear)
        self.turn()
        self._beat()

    def say(self, *messages: Any) -> None:
        """Tell the interchange, now and after a restart."""
        self.definitions += messages
        self._letter.messages += messages
        self.turn()

    def submit(self, tasks: Sequence[tuple[Task, Sequence[bytes], int, Sequence[Packed | int]]]) -> list[SimFuture]:
        """Submit tasks: each with its frames, retries, and what it needs."""
        futures = []
        for task, frames, retries, needs in tasks:
            future = self.futures[task.id] = SimFuture(task.id)
            futures.append(future)
            self.graph.add(future, task, frames, retries, needs)
        self.turn()
        return futures

    def cancel(self, ids: Sequence[int], *, running: bool) -> int:
        """Cancel tasks; returns the token."""
        self._flush_ready(again=False)
        self._token += 1
        asked = [id for id in ids if id in self.graph.pending and not self.graph.is_waiting(id)]
        for id in set(ids).difference(asked) & self.graph.pending.keys():
            self._end(id, Status.CANCELLED, b"")
        if asked:
            self._letter.messages.append(CancelTasks(self._token, asked, running))
            self.unanswered[self._token] = set(asked)
        if running:
            for id in asked:
                self._end(id, Status.CANCELLED, b"")
        self.turn()
        return self._token

    def stall(self) -> None:
        """Stop reading and sending."""
        self._stalled = True

    def resume(self) -> None:
        """Go on, with what has come meanwhile."""
        self._stalled = False
        while self._mailbox:
            self._hear(*self._mailbox.popleft())
        self.turn()

    def turn(self) -> None:
        """What the process's loop does after something has happened."""
        if self._stalled:
            return
        self._flush_ready(again=False)
        letter = self._letter
        if self._acks:
            letter.messages.append(AckResults(self._acks))
            self._acks = []
        self._letter = Letter()
        for _, header, frames in self._post.send({INTERCHANGE: letter} if letter.messages else {}):
            self.network.send(CLIENT, INTERCHANGE, header, frames)

    def _flush_ready(self, *, again: bool) -> None:
        ready = self.graph.take_ready()
        if ready.tasks:
            self._letter.messages.append(Submit(ready.tasks, again, ready.crashes))
            self._letter.frames += ready.frames

    def _beat(self) -> None:
        now = self.clock.now
        if self.graph.pending:
            self._watch.hurry(now)
        if not self._stalled and now >= self._watch.due_at - 1e-6:  # a multiple of both periods may differ by less
            self._watch.ask(now, now, at_stake=bool(self.graph.pending))
            self.network.send(CLIENT, INTERCHANGE, self._post.sign_of_life(INTERCHANGE, [ClientAlive()]), ())
        self.clock.at(next_beat(now, beat_s(self._limit_s)), self._beat)

    def _hear(self, sender: str, header: bytes, frames: Sequence[bytes]) -> None:
        if self._stalled:
            self._mailbox.append((sender, header, frames))
            return
        for messages, parts in self._post.receive(INTERCHANGE, self._decode(header), frames) or ():
            for message in messages:
                self._take(message, parts)
        self.turn()

    def _take(self, message: Any, frames: Sequence[bytes]) -> None:
        if isinstance(message, Results):
            at = 0
            for batch in message.batches:
                at = self._take_results(batch, frames, at)
        elif isinstance(message, Cancelled):
            self._take_cancelled(message)
        elif isinstance(message, Started):
            for id, _ in message.tasks:
                self.futures[id].started = True
        elif isinstance(message, Crashed):
            for crash in message.attempts:
                self.graph.crashed(*crash)
        elif isinstance(message, Load):
            self.loads.append(message)
            self.listener(message)
        elif isinstance(message, HelloAgain):
            self._hello_again()
        else:
            self.events.append(message)
            self.listener(message)

    def _hello_again(self) -> None:
        self._post.forget(INTERCHANGE)
        # Cancels whose answers will not come, because the interchange that was asked is no more:
        cancels = [CancelTasks(token, sorted(ids), running=False) for token, ids in self.unanswered.items()]
        self._letter = Letter([Hello(VERSION, PYTHON, 1, RUN_ID, 1), *self.definitions])
        self.graph.submit_all_again()
        self._flush_ready(again=True)
        self._letter.messages += cancels

    def _take_results(self, batch: ResultBatch, frames: Sequence[bytes], at: int) -> int:
        for result in batch.results:
            n = sum(result.layout)
            parts, at = frames[at : at + n], at + n
            future = self.graph.pending.get(result.id)
            if future is None or self.graph.is_superseded(result.id, result.attempt):
                continue
            assert result.attempt > max(future.attempts, default=0), f"{result} came before"
            future.attempts.append(result.attempt)
            if result.status is Status.ERROR and self.graph.retry(result.id, result.attempt):
                future.retried += 1
                continue
            if result.status is Status.OK and self.graph.has_dependents(result.id):
                self.graph.supply(result.id, Packed(result.payload, result.layout, tuple(parts)))
            self._end(result.id, result.status, result.payload or b"".join(parts))
        if batch.manager:
            self._acks.append((batch.manager, batch.seq))
        return at

    def _take_cancelled(self, message: Cancelled) -> None:
        missing = self.unanswered.get(message.token)
        if missing is None:
            return
        for id in (*message.ended, *message.refused):
            missing.discard(id)
        for id in message.refused:
            self.futures[id].cancel_answers.append(False)
        for id in message.ended:
            self.futures[id].cancel_answers.append(True)
            if id in self.graph.pending:
                self._end(id, Status.CANCELLED, b"")
        if not missing:
            del self.unanswered[message.token]

    def _end(self, id: int, status: Status, payload: bytes) -> None:
        future = self.graph.finish(id)
        if future is None:
            return
        assert future.status is None, f"task {id} ended twice: {future.status!r}, then {status!r}"
        future.status = status
        future.payload = payload
        if status is not Status.OK:
            for dependent in self.graph.abandon(id):
                self._end(dependent, Status.ERROR, b"a task that it needs has failed")
