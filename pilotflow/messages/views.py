"""What answers to questions about one task are made of."""

from __future__ import annotations

import msgspec

from pilotflow.explanation import Named


class BlockView(msgspec.Struct, frozen=True, array_like=True):
    """One block as the run's program knows it.

    Attributes:
        block, executor: its name and whose it is.
        batch_id: its provider's name for it, None while it is being submitted.
        phase: see `pilotflow.core.block_records.Phase`.
        said: what its provider last said of it, in words; may be empty.
        for_s: how long it has been in its phase.
    """

    block: str
    executor: str
    batch_id: str | None
    phase: str
    said: str
    for_s: float


class ExecutorView(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of an executor's blocks.

    Attributes:
        executor: its label.
        blocks, max_blocks: how many exist, and how many may.
        failures: blocks in a row that ended before a manager had joined.
        last_failure: the last of them and how it ended, the end of a sentence.
        last_failed: its name.
        next_try_s: seconds until the next block is asked for; 0 if nothing is waited for.
        trouble: what its provider cannot do now, in words; may be empty.
    """

    executor: str
    blocks: int
    max_blocks: int
    failures: int = 0
    last_failure: str = ""
    last_failed: str = ""
    next_try_s: float = 0.0
    trouble: str = ""


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """Pending tasks that follow each other, from the first number to the last, all of one name."""

    first: int
    last: int
    name: str


class ClientView(msgspec.Struct, frozen=True, array_like=True):
    """What the run's program knows of a task and of the run's blocks.

    Attributes:
        task: its number; 0 if no such task is pending. Of several with the name, the first that waits in the
            program; if none does, the first that is not known to run.
        name: its name.
        alike: how many pending tasks have the name by which it was asked for; 0 if it was by number.
        needs: unfinished tasks whose results it needs; the first ones if they are many.
        needed: how many there are.
        chain: from one of them to the task that all of this waits for; cut in the middle if it is long.
        links: how many there are in the chain.
        held_back: it waits until fewer big arguments are on their way.
        blocks, executors: what there is, and is to come.
        names: names of pending tasks, if it was asked for by a name that none has.
        here: what the program itself does about the task that all of this waits for, in words; empty if nothing.
        runs_here: whether it runs that task.
        among: if it was asked for by a name, those that come before the first that waits in the program, or all.
            Which of them run is known to the program a second late.
    """

    task: int
    name: str = ""
    alike: int = 0
    needs: tuple[Named, ...] = ()
    needed: int = 0
    chain: tuple[Named, ...] = ()
    links: int = 0
    held_back: bool = False
    blocks: tuple[BlockView, ...] = ()
    executors: tuple[ExecutorView, ...] = ()
    names: tuple[str, ...] = ()
    here: str = ""
    runs_here: bool = False
    among: tuple[Stretch, ...] = ()

    @property
    def subject(self) -> Named:
        """The task that all of this waits for: it itself, if it waits for no other."""
        return self.chain[-1] if self.chain else Named(self.task, self.name)


class Whereabouts(msgspec.Struct, frozen=True, array_like=True):
    """Where a task is in its manager.

    Attributes:
        held: whether the manager has it at all.
        worker: number of the worker that has it, or None.
        running_s: for how long it has been running, or None if it has not started.
        ahead: tasks that its worker runs first, or that wait with the manager before it.
        pid: of its worker's process, if it runs and that is known; on the manager's node.
        stopped: whether that process has been stopped (SIGSTOP), and waits to be told to go on.
    """

    held: bool
    worker: int | None = None
    running_s: float | None = None
    ahead: int = 0
    pid: int | None = None
    stopped: bool = False
