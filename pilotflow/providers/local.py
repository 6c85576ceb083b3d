"""Blocks on this machine: each is a script in a session of its own.

`python -m pilotflow.providers.local cancel ID...` ends blocks whose client is dead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, ClassVar, Final

from pilotflow.providers import processes
from pilotflow.providers.base import BlockJob, BlockState, BlockStatus, Provider, script_text
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.pythons import this_python

_RUNNING: Final = BlockStatus(BlockState.RUNNING)


class _Script(subprocess.Popen[bytes]):
    """The process of a block. Nobody waits for one that does not end in time; Python's own class warns of that."""

    def __del__(self) -> None:
        super().__del__(_warn=lambda *_, **__: None)  # type: ignore[call-arg]  # it is reaped with the next process


@dataclass
class _Started:
    """A block that this provider has started; `final` is set when it and all its processes have ended."""

    process: _Script
    deadline: float | None
    walltime_s: float | None
    ending: processes.Ending | None = None
    cause: BlockState | None = None  # why it is being ended, if we end it
    final: BlockStatus | None = None


@dataclass
class _Stranger:
    """A block that another process started and this one is ending."""

    ending: processes.Ending
    final: BlockStatus | None = None


@dataclass(frozen=True, kw_only=True)
class LocalProvider(Provider):
    """Runs each block as a process group of this machine. Linux only.

    With `nodes_per_block` above 1, a launcher starts so many managers here, each as a node of its own.
    A block's output goes to files; it shares the environment and the working directory of the process
    that starts it. See `Provider` for the arguments.
    """

    poll_s: ClassVar[float] = 60.0  # the end of a block is seen without
    quick_poll_s: ClassVar[float] = 0.1

    _blocks: dict[str, _Started] = field(default_factory=dict, init=False, repr=False, compare=False)
    _strangers: dict[str, _Stranger] = field(default_factory=dict, init=False, repr=False, compare=False)

    def submit(self, job: BlockJob) -> str:
        """See `Provider.submit`. The id is "PID:START", with the start time from /proc."""
        for path in (job.script, job.stdout, job.stderr):
            path.parent.mkdir(parents=True, exist_ok=True)
        text = script_text(job, self.worker_init, f"{job.nodes} node(s) on this machine")
        job.script.write_text(text, encoding="utf-8", errors="surrogateescape")
        job.script.chmod(0o700)
        with job.stdout.open("wb") as stdout, job.stderr.open("wb") as stderr:
            process = _start(job, stdout, stderr)
        batch_id = processes.name_of(process.pid)
        deadline = None if job.walltime_s is None else time.monotonic() + job.walltime_s
        self._blocks[batch_id] = _Started(process, deadline, job.walltime_s)
        return batch_id

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        """See `Provider.status`. It is here that a block's walltime is enforced."""
        now = time.monotonic()
        return {batch_id: self._status(batch_id, now) for batch_id in ids}

    def _status(self, batch_id: str, now: float) -> BlockStatus:
        block = self._blocks.get(batch_id)
        if block is None:
            return self._status_of_stranger(batch_id, now)
        if block.final is None:
            block.final = _advance(block, now)
        return block.final or _RUNNING

    def end_fd(self, batch_id: str) -> int | None:
        """See `Provider.end_fd`. What the script has left behind is ended by the calls of `status` that follow."""
        name = processes.parse(batch_id)
        if name is None:
            return None
        try:
            return ProcessEnd(*name).detach()
        except ProcessLookupError:
            return None

    def cancel(self, ids: Sequence[str]) -> None:
        """See `Provider.cancel`: SIGTERM now, SIGKILL by a later `status` when the grace is over."""
        now = time.monotonic()
        for batch_id in ids:
            block = self._blocks.get(batch_id)
            if block is None:
                self._cancel_stranger(batch_id, now)
            elif block.final is None and block.ending is None and not _has_exited(block.process.pid):
                block.cause = BlockState.CANCELLED
                block.ending = processes.Ending(block.process.pid, now)

    def _status_of_stranger(self, batch_id: str, now: float) -> BlockStatus:
        stranger = self._strangers.get(batch_id)
        if stranger is None:
            name = processes.parse(batch_id)
            if name is not None and processes.is_running(*name):
                return BlockStatus(BlockState.RUNNING, "started by another process")
            return BlockStatus(BlockState.MISSING, f"this machine has no block {batch_id!r}, or it has ended")
        if stranger.final is None and stranger.ending.step(now):
            stranger.final = BlockStatus(BlockState.CANCELLED)
        return stranger.final or _RUNNING

    def _cancel_stranger(self, batch_id: str, now: float) -> None:
        name = processes.parse(batch_id)
        if name and processes.is_running(*name) and batch_id not in self._strangers:
            self._strangers[batch_id] = _Stranger(processes.Ending(name[0], now))

    def cancel_argv(self, ids: Sequence[str]) -> tuple[str, ...]:
        """See `Provider.cancel_argv`."""
        return tuple(this_python().argv("pilotflow.providers.local", "cancel", *ids))


def _start(job: BlockJob, stdout: IO[bytes], stderr: IO[bytes]) -> _Script:
    return _Script(
        ["bash", str(job.script)],
        env={**os.environ, **job.environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _has_exited(pid: int) -> bool:
    """Whether a child has ended. It stays a zombie, so that nobody else gets its id before we are done."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # somebody else in this process has reaped it


def _advance(block: _Started, now: float) -> BlockStatus | None:
    """The block's final state, or None while something of it is alive."""
    pid = block.process.pid
    if block.ending is None:
        if _has_exited(pid):
            if processes.members(pid):  # what the script left behind goes with it
                block.ending = processes.Ending(pid, now)
                return None
        elif block.deadline is not None and now >= block.deadline:
            block.cause = BlockState.TIMEOUT
            block.ending = processes.Ending(pid, now)
            return None
        else:
            return None
    elif not block.ending.step(now):
        return None
    return _final(block) if _has_exited(pid) else BlockStatus(BlockState.FAILED, f"process {pid} cannot be killed")


def _final(block: _Started) -> BlockStatus:
    code = block.process.wait()
    if block.cause is BlockState.TIMEOUT:
        return BlockStatus(BlockState.TIMEOUT, f"walltime of {block.walltime_s:g} s reached", code)
    if block.cause is not None:
        return BlockStatus(block.cause, "", code)
    return BlockStatus(BlockState.COMPLETED if code == 0 else BlockState.FAILED, "", code)


def _end_stranger(batch_id: str, now: float) -> processes.Ending | None:
    """Begin to end a block that a dead process started; None if there is nothing of it."""
    name = processes.parse(batch_id)
    if name is None:
        return None
    leader = processes.read(name[0])
    if leader is not None and leader.start != name[1]:
        return None  # the id belongs to somebody else, so nothing is left of the block's session
    return processes.Ending(name[0], now)


def main(argv: Sequence[str] | None = None) -> int:
    """Cancel blocks by id, as `cancel_argv` and the command line ask. Exit code 0 when they are gone."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) < 2 or argv[0] != "cancel" or any(processes.parse(batch_id) is None for batch_id in argv[1:]):
        sys.stderr.write("usage: python -m pilotflow.providers.local cancel PID:START...\n")
        return 2
    now = time.monotonic()
    endings = [ending for batch_id in argv[1:] if (ending := _end_stranger(batch_id, now))]
    while endings:
        endings = [ending for ending in endings if not ending.step(time.monotonic())]
        if endings:
            time.sleep(0.05)
    left = [batch_id for batch_id in argv[1:] if processes.is_running(*(processes.parse(batch_id) or (0, 0)))]
    if left:
        sys.stderr.write(f"These blocks cannot be ended: {' '.join(left)}\n")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
