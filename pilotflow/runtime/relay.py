"""The process in a task's step: forks one worker, and carries what it and its manager say.

    python -m pilotflow.runtime.relay CONNECTION_FILE ENDPOINT NAME

srun starts it on the task's node; the manager is at the head of the allocation. The worker is the same as
everywhere, in a process group of its own. The relay outlives it, to tell how it ended. The step ends with the
exit code of the task, so that the site's accounting shows it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Final

from pilotflow.ids import UNREACHABLE, WORKER_VARIABLE
from pilotflow.messages.records import Status
from pilotflow.runtime import link, packets, worker
from pilotflow.runtime.channels import connect
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.process_name import name_process
from pilotflow.runtime.pythons import Python
from pilotflow.runtime.relay_link import Here, Over, Seen, Warned, decode_to_relay, encode
from pilotflow.runtime.worker_files import remove_left
from pilotflow.runtime.zygote import kill_tree

CONNECT_S: Final = 30.0
"""The manager must have been heard after so long."""
GOODBYE_S: Final = 10.0
"""The manager must have seen the end after so long."""
_PR_SET_PDEATHSIG: Final = 1


def relay_argv(python: Python, connection: Path, endpoint: str, name: str) -> list[str]:
    """The command of a relay.

    Args:
        python: how Python is started on the nodes.
        connection: the run's connection file.
        endpoint: where the manager listens.
        name: what the manager calls this step.
    """
    return python.argv("pilotflow.runtime.relay", str(connection), endpoint, name)


class Relay:
    """The parent's side.

    Args:
        connection: the run's.
        endpoint: where the manager listens.
        name: what it calls this step.
        ours: the manager's end of the worker's link.
        pid: the worker.
    """

    def __init__(self, connection: Connection, endpoint: str, name: str, ours: socket.socket, pid: int) -> None:
        self._ours = ours
        self._pid = pid
        self._run_directory = connection.directory
        self._end = ProcessEnd(pid)
        self._buffer = packets.new_buffer()
        self._loop = Loop()
        self._until = time.monotonic() + CONNECT_S
        self._heard = self._seen = self._over = False
        self._code: int | None = None
        keys = connection.keys
        self._channel = connect(
            self._loop,
            endpoint,
            name.encode(),
            (keys.server_public, keys.manager_public, keys.manager_secret),
            connection.max_message_bytes,
            self._hear_manager,
            lambda _: None,
        )
        self._loop.add(ours.fileno(), lambda: (self._hear_worker(), None)[1])
        self._loop.add(self._end.fileno(), self._bury)

    def run(self) -> int:
        """Carry messages until the worker has ended and the manager knows; returns the step's exit code."""
        signal.signal(signal.SIGTERM, lambda *_: None)  # Slurm's warning, which the task has got too
        self._send(Here(socket.gethostname(), _gpus(os.environ.get("SLURM_STEP_GPUS", ""))))
        while not self._seen:
            left = self._until - time.monotonic()
            if left <= 0 and not self._heard:
                sys.stderr.write(f"pilotflow: {socket.gethostname()} cannot reach its task's manager\n")
                kill_tree(self._pid)
                return UNREACHABLE
            if left <= 0 and self._over:
                break
            self._loop.turn(left if not self._heard or self._over else 3600.0)
        self._channel.close()
        remove_left(self._run_directory, self._pid)  # last: its file system may hang
        return 1 if self._code is None else self._code

    def _send(self, message: Any) -> None:
        self._channel.send(encode(message), ())

    def _hear_manager(self, _: Hashable, header: Any, frames: Sequence[Any]) -> None:
        self._heard = True
        message = decode_to_relay(header)
        if isinstance(message, Seen):
            self._seen = True
        elif isinstance(message, Warned):
            kill_tree(self._pid, signal.SIGTERM)
        elif not self._over:
            try:
                packets.send(self._ours, bytes(header), frames)
            except ConnectionError:  # it has died, which is noticed by itself
                pass

    def _hear_worker(self) -> bool:
        """Pass on what the worker says next; False if that is nothing."""
        try:
            packet = packets.receive(self._ours, self._buffer, packets.DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            packet = None
        if packet is None:
            self._loop.remove(self._ours.fileno())
            return False
        header, frames = packet
        message = link.decode_from_worker(header)
        self._channel.send(bytes(header), frames)
        if isinstance(message, link.TaskDone):
            result = message.result
            self._code = _exit_code(result.status, result.exit_code)
            self._ours.shutdown(socket.SHUT_WR)  # there is no second task
        return True

    def _bury(self) -> None:
        """The worker has ended, and what it has left behind goes with it."""
        self._loop.remove(self._end.fileno())
        while self._hear_worker():
            pass
        _, status, usage = os.wait4(self._pid, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._code is None:
            self._code = _exit_code_of(status)
        self._over = True
        self._until = time.monotonic() + GOODBYE_S
        self._send(Over(status, usage.ru_maxrss * 1024))


def _exit_code(status: Status, exit_code: int | None) -> int:
    """The step's exit code, as a shell would give it for the task's command."""
    if status is Status.OK:
        return 0
    code = 1 if exit_code is None else exit_code
    return 128 - code if code < 0 else code & 0xFF


def _exit_code_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code or 1


def _gpus(text: str) -> tuple[int, ...]:
    """Indices of GPUs as Slurm lists them, "0,2-3"."""
    found: list[int] = []
    for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", text):
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def main() -> int:
    """Run the relay of the step that this process is in."""
    name_process("pf-relay")
    path, endpoint, name = sys.argv[1:]
    connection = read_connection(Path(path))
    of_worker = connection.path.around(sys.path)
    sys.path[:] = connection.path.after(sys.path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        packets.tune(end)
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setpgid(0, 0)
        ours.close()
        os.environ[WORKER_VARIABLE] = "0"
        worker.main(theirs, connection.max_message_bytes, of_worker)  # does not return
    theirs.close()
    return Relay(connection, endpoint, name, ours, pid).run()


if __name__ == "__main__":
    raise SystemExit(main())
