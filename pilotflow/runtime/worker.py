"""The worker process: reads a task, runs it, says how it ended, one at a time, for ever.

It is forked by the manager's zygote, talks to the manager over one link (see `link`), and ends
when that link closes. Whatever a task raises, `SystemExit` included, is that task's result.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from pilotflow.context import RUNNING
from pilotflow.errors import TaskTimeout
from pilotflow.memfile import buffer_of
from pilotflow.messages.records import Result, Status, Task
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime import link, packets
from pilotflow.runtime.calls import Calls
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.process_name import name_process
from pilotflow.runtime.set_up import call_setup
from pilotflow.runtime.task_output import flush_output

MEASURED_FROM_US = 1_000
"""CPU time is measured of a task that has run for so long, and else taken to be its duration; to ask takes a microsecond."""
EARLY_NS = 50_000_000
"""The manager's clock and ours may differ by so much about when a task began."""


class Worker(Calls):
    """One worker's state: its link and the functions it has been given.

    Args:
        channel: the worker's end of the link.
        max_bytes: largest result that the run's links carry.
    """

    def __init__(self, channel: socket.socket, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._channel = channel
        self._names: dict[int, str] = {}
        self._order = link.InOrder()
        self._seat = link.Sit((), (), None, {}, None, None)
        self._started_ns = 0  # of the running task; 0 while none runs
        self._home = WorkingDirectory()
        self._masks: dict[int, set[int]] = {}  # of signals, of threads that fork
        self._others_cpu_s = 0.0  # CPU time of processes that tasks have started, at the last look

    def run(self) -> None:
        """Work until the manager closes the link."""
        buffer = packets.new_buffer()
        channel, receive, decode = self._channel, packets.receive, link.decode_to_worker
        signal.signal(signal.SIGTERM, self._warned)
        os.register_at_fork(
            before=self._hold_warnings, after_in_parent=self._let_warnings, after_in_child=self._be_no_worker
        )
        self._send(link.Ready())
        while (packet := receive(channel, buffer)) is not None:
            header, frames = packet
            message = decode(header)
            if type(message) is link.GiveTask and message.after <= self._order.told:
                self._execute(message.task, list(frames))
            else:
                for each, its_frames in self._order.put(message, list(frames)):
                    self._take(each, its_frames)
                    del each, its_frames
            del message, frames, packet

    def _take(self, message: link.ToWorker, frames: list[Any]) -> None:
        if type(message) is link.GiveTask:
            self._execute(message.task, frames)  # which empties them as soon as they are not needed
        elif type(message) is link.GiveFunction:
            self._bodies[message.fn] = bytes(buffer_of(frames[0]))
            self._names[message.fn] = message.name
            self._functions.pop(message.fn, None)
        elif type(message) is link.Sit:
            self._sit(message)
        elif type(message) is link.Forget:
            for fn in message.fns:
                for known in (self._bodies, self._functions, self._names):
                    known.pop(fn, None)
        else:
            self._set_up(bytes(buffer_of(frames[0])))

    def _execute(self, task: Task, frames: list[Any]) -> None:
        started = time.time_ns()
        cpu_ns = time.process_time_ns()
        self._announce(task, started)
        start = self._started_ns = time.perf_counter_ns()
        try:
            status, packed = self.call(task, frames)
            self._started_ns = 0
        except TaskTimeout as error:  # its time was over in the moment in which it ended
            self._started_ns = 0
            status, packed = Status.ERROR, pack_exception(error)
        duration_us = (time.perf_counter_ns() - start) // 1000
        self._home.go_back()
        cpu_us, peak_bytes = duration_us, 0
        if duration_us >= MEASURED_FROM_US:
            cpu_us = (time.process_time_ns() - cpu_ns) // 1000 + self._cpu_us_of_others()
        seat = self._seat
        result = Result(
            task.id,
            task.attempt,
            status,
            packed.payload,
            packed.layout,
            duration_us,
            started // 1000,
            cpu_us,
            peak_bytes,
            seat.cores,
            seat.gpus,
            self._exit_code,
        )
        flush_output()
        self._send(link.TaskDone(result), packed.frames)

    def _announce(self, task: Task, started_ns: int) -> None:
        """Let `current_task` know. It is made when it is asked for: most tasks do not ask."""
        RUNNING.set((task, started_ns, self._seat, self._names))

    def _sit(self, seat: link.Sit) -> None:
        """Take a seat: run on these CPUs, with these variables."""
        if seat.cpus is not None and seat.cpus != self._seat.cpus:
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(OSError):  # the thread has ended, or a CPU went away
                    os.sched_setaffinity(int(thread), seat.cpus)
        os.environ.update(seat.environ)
        self._seat = seat

    def _warned(self, *_: Any) -> None:
        """SIGTERM: the running task's time is over, or its block ends soon."""
        limit, started = self._seat.runtime_s, self._started_ns
        if limit is not None and started and time.perf_counter_ns() - started >= limit * 1e9 - EARLY_NS:
            raise TaskTimeout(f"it has run for longer than it may, {limit:g} s")

    def _hold_warnings(self) -> None:
        """Before a task forks: what a SIGTERM does to the new process is settled before it can get one."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def _let_warnings(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(threading.get_ident()))

    def _be_no_worker(self) -> None:
        """In a process that a task has forked: SIGTERM ends it, as `multiprocessing` expects, and it answers no manager."""
        if signal.getsignal(signal.SIGTERM) == self._warned:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._channel.close()
        self._let_warnings()

    def _cpu_us_of_others(self) -> int:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = usage.ru_utime + usage.ru_stime
        spent, self._others_cpu_s = total - self._others_cpu_s, total
        return int(spent * 1e6)

    def _set_up(self, payload: bytes) -> None:
        try:
            call_setup(payload)
            self._home.stay()
        except BaseException as error:  # noqa: BLE001  as for a task
            self._send(link.SetupRaised(), (pickle.dumps(tuple(pack_exception(error)), 5),))
            raise SystemExit(1) from None
        self._send(link.IsSetUp())

    def _send(self, message: Any, frames: Sequence[Any] = ()) -> None:
        packets.send(self._channel, link.encode(message), frames)


class WorkingDirectory:
    """Where each task of a worker begins, wherever the last one has gone."""

    def __init__(self) -> None:
        self._descriptor = -1
        self.stay()

    def stay(self) -> None:
        """Let it be where the worker is now."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(".", os.O_PATH | os.O_CLOEXEC)
        self._path = _path_of_here()

    def go_back(self) -> None:
        """Be there again."""
        if _path_of_here() != self._path:  # to look asks no file server, to enter may
            with contextlib.suppress(OSError):
                os.fchdir(self._descriptor)


def _path_of_here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def main(channel: socket.socket, max_bytes: int, path: Sequence[str] = ()) -> None:
    """Run a worker in a freshly forked process; does not return.

    Args:
        channel, max_bytes: as of `Worker`.
        path: where it imports from; nothing if that stays as it is.
    """
    code = 1
    name_process("pf-worker")
    if path:
        sys.path[:] = path
    OWN_STDERR.set(OwnStderr())
    try:
        Worker(channel, max_bytes).run()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the manager is gone
    except SystemExit:
        code = 1
    finally:
        flush_output()
        os._exit(code)
