"""Questions about one task, and what the answers are made of.

Another terminal asks the interchange (`ExplainTask`). That asks the run's program what it knows
(`LookUp`: who the task waits for, what becomes of blocks), and the manager that holds the task
(`WhereIs`), and answers with everything (`Explained`). The messages belong to the closed unions of
`pilotflow.messages`.
"""

from __future__ import annotations

import msgspec

from pilotflow.explanation import Explanation, Named


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
        free_workers: workers without a task.
    """

    held: bool
    worker: int | None = None
    running_s: float | None = None
    ahead: int = 0
    free_workers: int = 0


# ---- messages -------------------------------------------------------------------------------


class _Question(msgspec.Struct, array_like=True, tag_field="kind"):
    pass


class ExplainTask(_Question, tag=20):
    """Control to interchange: why is the task with this number or name not running?"""

    token: int
    task: str


class Explained(_Question, tag=20):
    """Answer to `ExplainTask`."""

    token: int
    explanation: Explanation


class LookUp(_Question, tag=21):
    """Interchange to client: what do you know of the task with this number or name?"""

    token: int
    task: str


class TaskView(_Question, tag=21):
    """Answer to `LookUp`."""

    token: int
    view: ClientView


class WhereIs(_Question, tag=22):
    """Interchange to manager: where is this attempt at this task?"""

    token: int
    task: int
    attempt: int


class IsAt(_Question, tag=22):
    """Answer to `WhereIs`."""

    token: int
    place: Whereabouts


class Instruct(_Question, tag=23):
    """Control to interchange: have the run's program do something.

    Attributes:
        token: comes back with the answer.
        verb: what, such as "cancel".
        words: to what; the program knows how to read them.
    """

    token: int
    verb: str
    words: list[str]


class Instructed(_Question, tag=23):
    """Answer to `Instruct`: whether it was done, and what there is to say."""

    token: int
    done: bool
    text: str


class Instruction(_Question, tag=24):
    """Interchange to client: see `Instruct`."""

    token: int
    verb: str
    words: list[str]


class Obeyed(_Question, tag=24):
    """Answer to `Instruction`."""

    token: int
    done: bool
    text: str
