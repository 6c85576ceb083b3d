"""The manager process: sockets, workers and clock around `core.pool`.

    python -m pilotflow.runtime.manager CONNECTION_FILE --executor LABEL --block BLOCK ...

One runs on each node of a block. It forks its zygote first, then connects to the interchange,
and ends when it is told to, when its block is ended (SIGTERM), when its walltime is over, or when
the interchange stays away.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from pilotflow.core.pool import Give, Kill, Order, Pool, Recall, Spawn, Worker
from pilotflow.core.post import Post
from pilotflow.errors import ConfigError
from pilotflow.ids import VERSION
from pilotflow.messages import (
    AliveReply,
    BadMessage,
    Cancel,
    Class,
    Drain,
    Function,
    ManagerRefused,
    Recorded,
    Register,
    Registered,
    Reregister,
    Retract,
    Run,
    Stop,
    to_manager,
)
from pilotflow.resources import Capacity
from pilotflow.runtime import limits, link, zygote
from pilotflow.runtime.manager_options import Options, parse_options
from pilotflow.runtime.transport import Connection, Loop, connect, read_connection, receive, send

CONNECT_TIMEOUT_S = 60.0
"""A manager that cannot register for so long ends."""
RECONNECT_TIMEOUT_S = 10.0
"""A manager whose interchange hung up and does not come back for so long ends."""
LEAVE_GRACE_S = 1.0
"""Workers have this long to die before the manager does."""
END_MARGIN_S = 5.0
"""A manager leaves this long before its block's walltime is over (or a tenth of it)."""

_INTERCHANGE = "interchange"


class Manager:
    """The process's loop. `run` returns the exit code."""

    def __init__(self, options: Options, connection: Connection, zygote_: zygote.Zygote, log: logging.Logger) -> None:
        import zmq

        self._zmq = zmq
        self._options = options
        self._connection = connection
        self._zygote = zygote_
        self._log = log
        self._pool = Pool(options.capacity)
        self._post = Post(time.time_ns())
        self._decode = to_manager()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = Loop()
        self._links: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._buffer = bytearray(link.PACKET_BYTES)
        self._setup = b""
        self._manager_id = 0
        self._started = self._heard = time.monotonic()
        self._hung_up_at: float | None = None
        self._beat_at = 0.0
        self._announce_at = 0.0
        self._exit: int | None = None
        self._leave_at: float | None = None
        self._heartbeat_s = max(0.05, connection.heartbeat_limit_s / 4)
        self._where = f"on {options.node} (block {options.block})"
        self._session = f"{options.node}-{os.getpid()}-{time.time_ns()}"
        self._socket = self._connect()
        self._loop.add(zygote_.channel.fileno(), self._hear_zygote)
        self._watch_signals()

    def _connect(self) -> Any:
        endpoint = _choose(self._connection)
        keys = self._connection.keys
        socket_ = connect(
            self._context,
            endpoint,
            self._session.encode(),
            (keys.server_public, keys.manager_public, keys.manager_secret),
            self._connection.max_message_bytes,
        )
        self._loop.add_socket(socket_, self._hear_interchange)
        events = self._zmq.EVENT_DISCONNECTED | self._zmq.EVENT_HANDSHAKE_SUCCEEDED
        monitor = socket_.get_monitor_socket(events)
        self._loop.add_socket(monitor, lambda: self._hear_monitor(monitor))
        self._log.info("connecting to %s", endpoint)
        return socket_

    def _watch_signals(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self._leave("its block was ended (SIGTERM)"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._loop.add(read, lambda: (os.read(read, 4096), None)[1])

    # ---- interchange ------------------------------------------------------------------------

    def _hear_monitor(self, monitor: Any) -> None:
        while True:
            try:
                event = monitor.recv_multipart(self._zmq.NOBLOCK)[0]
            except self._zmq.Again:
                return
            connected = int.from_bytes(event[:2], "little") == self._zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._hung_up_at = None if connected else time.monotonic()

    def _hear_interchange(self) -> None:
        for _ in range(limits.READ_MAX):
            message = receive(self._socket, routed=False)
            if message is None:
                return
            _, header, frames = message
            try:
                envelope = self._decode(header)
                for messages, parts in self._post.receive(_INTERCHANGE, envelope, frames) or ():
                    self._obey(messages, parts)
            except BadMessage as error:
                self._log.warning("dropped a message that is not ours: %s", error)
                continue
            self._heard = time.monotonic()

    def _obey(self, messages: list[Any], frames: Any) -> None:
        at = 0
        for message in messages:
            if isinstance(message, Run):
                at = self._pool.on_run(message, frames, at)
            elif isinstance(message, Recorded):
                self._pool.on_recorded(message.seqs)
            elif isinstance(message, Function):
                self._pool.on_function(message.fn, message.body)
            elif isinstance(message, Class):
                self._pool.on_class(message.cls, message.request)
            elif isinstance(message, Cancel):
                self._pool.on_cancel(message)
            elif isinstance(message, Retract):
                self._pool.on_retract(message.tasks)
            elif isinstance(message, Registered):
                self._registered(message)
            elif isinstance(message, Reregister):
                if self._leave_at is None:
                    self._post.forget(_INTERCHANGE)
                    self._register()
            elif isinstance(message, ManagerRefused):
                self._end(message.reason, 1)
            elif isinstance(message, Drain):
                self._log.info("draining")
                self._pool.drain()
            elif isinstance(message, Stop):
                self._leave(message.reason)
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
            self._log.info("registered as manager %d", message.manager)
            if message.setup != self._setup:
                self._setup = message.setup
                for _, (ours, _) in self._links.items():
                    self._send_setup(ours)
        self._manager_id = message.manager

    def _time_left(self) -> float | None:
        walltime = self._options.walltime_s
        if walltime is None:
            return None
        margin = min(END_MARGIN_S, walltime / 10)
        return max(0.0, self._started + walltime - margin - time.monotonic())

    # ---- workers ----------------------------------------------------------------------------

    def _carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            if isinstance(order, Give):
                self._give(order)
            elif isinstance(order, Recall):
                self._recall(order.worker)
            elif isinstance(order, Kill):
                self._zygote.kill(order.worker.id)
            elif isinstance(order, Spawn):
                self._spawn(order.worker)

    def _spawn(self, worker: Worker) -> None:
        ours, theirs = link.pair()
        self._links[worker.id] = (ours, theirs)
        self._loop.add(ours.fileno(), lambda: self._hear_worker(worker, ours))
        if self._setup:
            self._send_setup(ours)
        self._zygote.spawn(worker.id, theirs)

    def _send_setup(self, ours: socket.socket) -> None:
        self._send_blob(ours, link.Setup(self._setup), self._setup)

    def _send_blob(self, ours: socket.socket, message: Any, blob: bytes) -> None:
        """A message with one blob, which goes into a memory file if it is long."""
        if len(blob) < link.PACKET_BYTES // 2:
            link.send(ours, link.encode(message))
            return
        fields = (b"", (len(blob),))
        stub = link.Setup(*fields) if isinstance(message, link.Setup) else link.GiveFunction(message.fn, *fields)
        link.send(ours, link.encode(stub), (blob,))

    def _give(self, order: Give) -> None:
        worker, task = order.worker, order.task
        ours = self._links[worker.id][0]
        try:
            if task.fn not in worker.functions:
                worker.functions.add(task.fn)
                body = self._pool.bodies[task.fn]
                self._send_blob(ours, link.GiveFunction(task.fn, body), body)
            if order.frames:
                sizes = tuple(memoryview(frame).nbytes for frame in order.frames)
                link.send(ours, link.encode(link.GiveTask(task, sizes)), order.frames)
            else:
                ours.send(link.encode(link.GiveTask(task)))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has died; its death is reported soon, and the task is among those it had

    def _recall(self, worker: Worker) -> None:
        """Take back the tasks that a worker has not read; what else was unread is sent again."""
        ours, theirs = self._links[worker.id]
        ids: list[tuple[int, int]] = []
        again: list[tuple[bytes, int]] = []
        while True:
            try:
                n, fd = link.receive(theirs, self._buffer, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if n == 0:
                break
            packet = bytes(self._buffer[:n])
            message = link.decode_to_worker(packet)
            if isinstance(message, link.GiveTask) and fd < 0:
                ids.append((message.task.id, message.task.attempt))
            else:
                again.append((packet, fd))
        for packet, fd in again:
            _send_again(ours, packet, fd)
        self._pool.on_recalled(worker, ids)

    def _hear_worker(self, worker: Worker, ours: socket.socket) -> None:
        now = time.monotonic()
        buffer, pool = self._buffer, self._pool
        view = memoryview(buffer)
        while True:
            try:
                n, fd = link.receive(ours, buffer, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                return
            if n == 0:
                return
            try:
                message = link.decode_from_worker(view[:n])
                frames = link.open_frames(fd, message.sizes) if fd >= 0 else ()
            except ValueError as error:  # a task has written into the link
                self._log.error("worker %d sends rubbish (%s); ending it", worker.id, error)
                self._zygote.kill(worker.id)
                return
            if isinstance(message, link.TaskDone):
                pool.on_result(worker, message.result, frames, now)
            elif isinstance(message, link.Ready):
                pool.on_ready(worker)
            else:
                pool.on_setup_failed(bytes(frames[0]) if frames else message.payload)

    def _hear_zygote(self) -> None:
        reports = self._zygote.reports()
        if reports is None:
            self._loop.remove(self._zygote.channel.fileno())
            self._log.error("the zygote has died, and all workers with it")
            for worker in list(self._pool.workers.values()):
                self._bury(worker, "died with the manager's zygote")
            self._end("its zygote died", 1)
            return
        for kind, number, value in reports:
            worker = self._pool.workers.get(number)
            if kind == zygote.DIED and worker is not None:
                self._bury(worker, _in_words(value))

    def _bury(self, worker: Worker, how: str) -> None:
        ours, theirs = self._links[worker.id]
        self._hear_worker(worker, ours)  # results it had sent before it died
        self._recall_dead(worker)
        self._loop.remove(ours.fileno())
        del self._links[worker.id]
        ours.close()
        theirs.close()
        if worker.tasks and not worker.ending:
            self._log.warning("worker %d %s while running task %d", worker.id, how, worker.tasks[0].id)
        self._pool.on_death(worker, how, self._where)

    def _recall_dead(self, worker: Worker) -> None:
        """Find out which tasks a dead worker had not read: those have not started."""
        _, theirs = self._links[worker.id]
        ids: list[tuple[int, int]] = []
        while True:
            try:
                n, fd = link.receive(theirs, self._buffer, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if n == 0:
                break
            if fd >= 0:
                os.close(fd)
            message = link.decode_to_worker(memoryview(self._buffer)[:n])
            if isinstance(message, link.GiveTask) and fd < 0:
                ids.append((message.task.id, message.task.attempt))
        self._pool.on_recalled(worker, ids)

    # ---- leaving ----------------------------------------------------------------------------

    def _leave(self, reason: str) -> None:
        """Hand everything back and go, soon."""
        if self._leave_at is None:
            self._log.info("leaving: %s", reason)
            self._pool.leave(reason)
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = 0

    def _end(self, reason: str, code: int) -> None:
        """Go at once: nobody waits for what is here."""
        if self._leave_at is None:
            (self._log.info if code == 0 else self._log.error)("ending: %s", reason)
            if code:
                print(f"pilotflow manager: {reason}", file=sys.stderr, flush=True)
            for worker in self._pool.workers.values():
                self._zygote_kill(worker)
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = code

    def _zygote_kill(self, worker: Worker) -> None:
        try:
            self._zygote.kill(worker.id)
        except OSError:
            return

    # ---- the loop ---------------------------------------------------------------------------

    def run(self) -> int:
        """Work until the end; returns the exit code."""
        self._register()
        while True:
            now = time.monotonic()
            self._watch_time(now)
            if self._leave_at is None:
                self._carry_out(self._pool.take_orders(now))
            self._dispatch()
            if self._leave_at is not None and (now >= self._leave_at or not self._links):
                break
            self._loop.turn(self._next_deadline(now) - now)
        self._close()
        return self._exit or 0

    def _watch_time(self, now: float) -> None:
        if now >= self._beat_at:
            self._beat_at = now + self._heartbeat_s
            self._beat(now)
        if self._pool.busy and now >= self._announce_at:
            self._announce_at = now + 1.0
            self._pool.announce_long_runs(now)
        if self._leave_at is not None:
            return
        if self._pool.broken:
            self._end(self._pool.broken, 1)
        elif self._pool.drained:
            self._leave("drained")
        elif self._time_left() == 0.0:
            self._leave("its block's walltime is over")
        elif self._hung_up_at is not None and now - self._hung_up_at > RECONNECT_TIMEOUT_S:
            self._end("the interchange is gone", 1)

    def _beat(self, now: float) -> None:
        from pilotflow.messages import ManagerAlive

        silent = now - self._heard
        limit = self._connection.heartbeat_limit_s if self._manager_id else CONNECT_TIMEOUT_S
        if silent > max(limit, 2 * self._heartbeat_s):
            what = "answered no heartbeat" if self._manager_id else "could not be reached"
            self._end(f"the interchange ({_choose(self._connection)}) {what} for {silent:.0f} s", 1)
            return
        header = self._post.sign_of_life(_INTERCHANGE, [ManagerAlive(self._time_left())])
        if self._manager_id:
            send(self._socket, [header])

    def _dispatch(self) -> None:
        letter = self._pool.take_letter()
        letters = {_INTERCHANGE: letter} if letter.messages else {}
        for _, header, frames in self._post.send(letters):
            send(self._socket, [header, *frames])

    def _next_deadline(self, now: float) -> float:
        deadline = self._beat_at
        if self._pool.busy:
            deadline = min(deadline, self._announce_at)
        if self._leave_at is not None:
            deadline = min(deadline, self._leave_at)
        if self._hung_up_at is not None:
            deadline = min(deadline, self._hung_up_at + RECONNECT_TIMEOUT_S + 0.01)
        left = self._time_left()
        return deadline if left is None else min(deadline, now + left)

    def _close(self) -> None:
        self._socket.disable_monitor()
        self._socket.close(linger=1000)
        self._context.destroy(linger=1000)
        self._zygote.channel.close()


def _send_again(ours: socket.socket, packet: bytes, fd: int) -> None:
    if fd < 0:
        ours.send(packet)
        return
    try:
        rights = fd.to_bytes(4, "little")
        ours.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    finally:
        os.close(fd)


def _choose(connection: Connection) -> str:
    """The best endpoint for this host: a Unix socket if the interchange is here."""
    for endpoint in connection.managers:
        if endpoint.startswith("ipc://"):
            if connection.host == socket.gethostname() and Path(endpoint[6:]).parent.is_dir():
                return endpoint
        else:
            return endpoint
    raise ConfigError(
        f"The run listens only on this host's Unix sockets ({connection.host}), and this manager is on "
        f"{socket.gethostname()}. Give the executor an address, so that it listens on TCP."
    )


def _in_words(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        return f"was killed by signal {number} ({name})"
    return f"exited with code {os.WEXITSTATUS(status)}"


def main() -> int:
    """Run a manager as its command line says."""
    options = parse_options(sys.argv[1:])
    connection = read_connection(options.connection)
    sys.path += [entry for entry in connection.path if entry not in sys.path]
    log = limits.log_to(options.directory / f"manager-{options.node}.log", f"manager {options.node}")
    try:
        limits.raise_open_files(
            limits.MANAGER_FILES + limits.FILES_PER_WORKER * options.capacity.slots,
            f"a manager with {options.capacity.slots} workers",
        )
    except ConfigError as error:
        log.error("cannot start: %s", error)
        print(f"pilotflow manager: {error}", file=sys.stderr)
        return 1
    zygote_ = zygote.start(connection.max_message_bytes)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        return Manager(options, connection, zygote_, log).run()
    except Exception as error:
        log.exception("the manager ends because of a bug")
        print(f"pilotflow manager: a bug: {error!r}; see its log in {options.directory}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
