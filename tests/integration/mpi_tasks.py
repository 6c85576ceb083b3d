"""Functions that tests run over ranks, importable by them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class OurError(Exception):
    def __init__(self, rank: int) -> None:
        super().__init__(f"rank {rank} does not like this")
        self.rank = rank


def rank() -> int:
    return int(os.environ["PILOTFLOW_RANK"])


def scaled(value: Any, factor: int = 1) -> Any:
    return rank() * factor, value


def whole_environment() -> dict[str, str]:
    return dict(os.environ)


def failing(*ranks: int, after_s: float = 0.0) -> int:
    """These ranks raise, the others wait until they are ended."""
    if rank() in ranks:
        time.sleep(after_s)
        raise OurError(rank())
    time.sleep(60)
    return 0


def killed(which: int, number: int) -> None:
    if rank() == which:
        os.kill(os.getpid(), number)
    time.sleep(60)


def exits(which: int, code: int) -> None:
    if rank() == which:
        print("these are its last words", file=sys.stderr, flush=True)
        os._exit(code)
    time.sleep(60 if code else 0)


def saving(folder: str, after_s: float) -> None:
    """Wait for a warning, then save; a rank that is killed saves nothing."""

    def save(*_: object) -> None:
        time.sleep(after_s)
        Path(folder, f"saved.{rank()}").write_text("")
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    Path(folder, f"ready.{rank()}").write_text("")
    while True:
        time.sleep(0.02)


def printing(text: str) -> None:
    os.write(1, f"{text} from {rank()}\n".encode())  # in one piece: the ranks share the file


def leaving_a_child_behind(folder: str) -> None:
    """Starts a process in a session of its own, and waits for ever."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(folder, f"child.{rank()}").write_text(str(os.getpid()))
        time.sleep(60)
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def unpicklable() -> Any:
    return (value for value in range(3))


# ---- with MPI ----------------------------------------------------------------------------------


def allreduce(value: float) -> tuple[int, int, float]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.rank, world.size, world.allreduce(value * world.rank)


def mpi_failing(which: int, how: str) -> None:
    """One rank fails while the others wait for it in MPI, where no signal handler of Python runs."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    world.Barrier()
    if world.rank == which:
        if how == "raises":
            raise OurError(world.rank)
        if how == "aborts":
            world.Abort(5)
        os.kill(os.getpid(), getattr(signal, how))
    world.Barrier()


def mpi_waiting(folder: str) -> None:
    """All ranks but the last wait in MPI for ever."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    world.Barrier()
    Path(folder, f"ready.{world.rank}").write_text(str(os.getpid()))
    if world.rank == world.size - 1:
        time.sleep(60)
    world.Barrier()


def alone() -> int:
    """MPI in a task that is not over ranks: a world of one process."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.size)


class Noted:
    """Stands for a file that is stored elsewhere: says each time that it was."""

    def __init__(self, path: str, place: str) -> None:
        self.path = path
        self.place = place

    def __fspath__(self) -> str:
        return self.path

    def store(self) -> None:
        with open(self.path, encoding="utf-8") as made, open(self.place, "a", encoding="utf-8") as place:
            place.write(f"{made.read()};")
