"""`pilotflow demo`: a short, real workload on this machine, with live progress and a summary.

It counts primes: many small Python tasks each sieve a range, a tree of tasks adds their counts,
and some shell commands count a few of the ranges in another way, to check the answer.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pilotflow as pf
from pilotflow.cli import demo_tasks
from pilotflow.errors import TaskError
from pilotflow.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from pilotflow.futures import AppFuture
    from pilotflow.run import Run

T = TypeVar("T")
_RANGE: Final = 1_000
_COMMANDS: Final = 20
_FAN_IN: Final = 100
_EMPTY_TASKS: Final = 10_000
_TICK_S: Final = 0.1
_TICK_HZ: Final = 10
_COUNT_S: Final = 0.002


@dataclass(frozen=True)
class _Outcome:
    """What the workload has found, and how long it took.

    Attributes:
        primes: how many there are below `limit`, or None if a task failed.
        checked: ranges that commands have counted too, of which `wrong` gave another number.
        done, failed: tasks that ended well, and those that did not.
        error: why one of them failed.
        work_s: from the first task's submission to the last one's end.
    """

    primes: int | None
    limit: int
    checked: int
    wrong: int
    done: int
    failed: int
    error: TaskError | None
    work_s: float


@dataclass(frozen=True)
class _Summary:
    """Everything that is said at the end."""

    outcome: _Outcome
    start_s: float
    tasks_per_s: float
    empty_tasks_per_s: float
    workers: int
    directory: Path


class _Tally:
    """Counts the tasks that have ended, and shows it. Futures call it from the run's own thread.

    Args:
        total: tasks to come.
        tick: shows (ended, total).
    """

    def __init__(self, total: int, tick: Callable[[int, int], None]) -> None:
        self.ended = 0
        self.failed = 0
        self.total = total
        self._tick = tick
        self._next_tick = 0.0

    def watch(self, future: AppFuture[T]) -> AppFuture[T]:
        """Count this one; gives it back."""
        future.add_done_callback(self._note)
        self.show()
        return future

    def _note(self, future: Future[Any]) -> None:
        self.ended += 1
        self.failed += future.exception() is not None

    def show(self) -> None:
        """Show how far it is, but not too often."""
        now = time.monotonic()
        if now >= self._next_tick or self.ended == self.total:
            self._next_tick = now + _TICK_S
            self._tick(self.ended, self.total)

    def wait(self, future: AppFuture[T]) -> T:
        """The result of a future, with progress shown while it is not there."""
        while not future.done():
            wait([future], _TICK_S)
            self.show()
        return future.result()

    def finish(self) -> None:
        """Wait until all tasks have been counted, which is a little later than they end."""
        while self.ended < self.total:
            time.sleep(_COUNT_S)
            self.show()
        self.show()


def run_demo(workers: int | None, tasks: int, run_dir: Path, as_json: bool) -> None:
    """Run the workload and print how it went.

    Args:
        workers: workers on this machine; one per usable core if None.
        tasks: ranges to sieve, each a Python task.
        run_dir: where the run's directory goes.
        as_json: print the summary for programs, and progress on stderr if that is a terminal.

    Raises:
        PilotflowError: the run cannot start, or a task failed.
    """
    from rich.console import Console

    console = Console(highlight=False, stderr=as_json)
    with ExitStack() as shown:
        lines = _silence if as_json else _lines()
        tick = shown.enter_context(_bar(console)) if console.is_terminal else lines
        summary = _run(workers, tasks, run_dir, shown, tick)
    if as_json:
        print(json.dumps(_as_data(summary), indent=2))
    else:
        _print_summary(console, summary)
    outcome = summary.outcome
    if outcome.error is not None:
        raise outcome.error
    if outcome.wrong:
        raise pf.PilotflowError("The shell commands counted other primes than Python did.")


def _run(
    workers: int | None, tasks: int, run_dir: Path, shown: ExitStack, tick: Callable[[int, int], None]
) -> _Summary:
    begun = time.perf_counter()
    config = pf.Config.for_this_machine(max_workers=workers, run_dir=run_dir)
    with pf.load(config, progress=False) as run:  # it shows its own
        pf.python_app(demo_tasks.add)([]).result()
        start_s = time.perf_counter() - begun
        outcome = _work(tasks, tick)
        shown.close()
        return _Summary(
            outcome,
            start_s,
            (outcome.done + outcome.failed) / outcome.work_s,
            _rate_of_nothing(min(tasks, _EMPTY_TASKS)),
            _slots(run) or workers or len(os.sched_getaffinity(0)),
            run.directory,
        )


def _work(ranges: int, tick: Callable[[int, int], None]) -> _Outcome:
    """Submit everything at once, wait for the results that nothing else waits for."""
    count, add, same = (pf.python_app(fn) for fn in (demo_tasks.count_primes, demo_tasks.add, demo_tasks.same))
    factor = pf.bash_app(stdout=pf.AUTO_LOGNAME)(demo_tasks.factor_command)
    checked = range(0, ranges, max(1, ranges // _COMMANDS))
    tally = _Tally(ranges + 2 * len(checked) + sum(_levels(ranges)), tick)
    begun = time.perf_counter()
    counts = [tally.watch(count(n * _RANGE, (n + 1) * _RANGE)) for n in range(ranges)]
    checks = []
    for n in checked:
        command = tally.watch(factor(n * _RANGE, (n + 1) * _RANGE))
        checks.append(tally.watch(same(counts[n], command.stdout, command)))
    level = counts
    for _ in _levels(ranges):
        level = [tally.watch(add(level[at : at + _FAN_IN])) for at in range(0, len(level), _FAN_IN)]
    primes, wrong, error = None, 0, None
    try:
        primes = tally.wait(level[0])
        wrong = sum([not tally.wait(check) for check in checks])
    except TaskError as failure:
        error = failure
    tally.finish()
    seconds = time.perf_counter() - begun
    done = tally.ended - tally.failed
    return _Outcome(primes, ranges * _RANGE, len(checks), wrong, done, tally.failed, error, seconds)


def _levels(ranges: int) -> list[int]:
    """How many tasks there are on each level of the tree that adds up so many counts."""
    levels = [math.ceil(ranges / _FAN_IN)]
    while levels[-1] > 1:
        levels.append(math.ceil(levels[-1] / _FAN_IN))
    return levels


def _rate_of_nothing(tasks: int) -> float:
    """How many tasks a second end that do nothing."""
    nothing = pf.python_app(demo_tasks.nothing)
    nothing().result()
    begun = time.perf_counter()
    for future in [nothing() for _ in range(tasks)]:
        future.result()
    return tasks / (time.perf_counter() - begun)


def _slots(run: Run) -> int:
    """How many tasks the run's managers offer to run at once; 0 if they have not said it yet."""
    return sum(block.slots for block in run.load.blocks) if run.load else 0


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A live progress bar; gives what moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    first_s = 0.0
    with Progress(*columns, rate, TimeElapsedColumn(), console=console, refresh_per_second=_TICK_HZ) as progress:
        task = progress.add_task("starting", total=None, rate="")

        def tick(ended: int, total: int) -> None:
            nonlocal first_s
            now = time.perf_counter()
            first_s = first_s or now
            rate = f"{ended / (now - first_s):,.0f} tasks/s" if now > first_s else ""
            progress.update(task, description="counting primes", total=total, completed=ended, rate=rate)

        yield tick


def _lines() -> Callable[[int, int], None]:
    """Prints a line at each quarter, for output that is no terminal."""
    shown = 0

    def tick(ended: int, total: int) -> None:
        nonlocal shown
        quarter = 4 * ended // total
        if quarter > shown:
            shown = quarter
            print(f"{ended} of {total} tasks done", flush=True)

    return tick


def _silence(_ended: int, _total: int) -> None:
    """Shows nothing."""


def _print_summary(console: Console, summary: _Summary) -> None:
    outcome = summary.outcome
    primes = "not known" if outcome.primes is None else f"{outcome.primes:,} below {outcome.limit:,}"
    same = "not known" if outcome.error else f"{outcome.wrong} DIFFER" if outcome.wrong else "all the same"
    rows = [
        ("primes", primes),
        ("checked", f"{outcome.checked} ranges counted again by shell commands: {same}"),
        ("tasks", f"{outcome.done:,} done, {outcome.failed:,} failed"),
        ("wall time", f"{format_duration(outcome.work_s)}, after a start of {format_duration(summary.start_s)}"),
        ("tasks/s", f"{summary.tasks_per_s:,.0f} of this work; {summary.empty_tasks_per_s:,.0f} if tasks do nothing"),
        ("workers", str(summary.workers)),
        ("run directory", str(summary.directory)),
        ("log", str(summary.directory / "pilotflow.log")),
    ]
    console.print()
    for name, value in rows:
        console.print(f"[bold]{name:<14}[/bold]", end="")
        console.print(value, markup=False, soft_wrap=True)


def _as_data(summary: _Summary) -> dict[str, Any]:
    outcome = summary.outcome
    return {
        "primes": outcome.primes,
        "below": outcome.limit,
        "checked": outcome.checked,
        "wrong": outcome.wrong,
        "tasks_done": outcome.done,
        "tasks_failed": outcome.failed,
        "start_s": summary.start_s,
        "work_s": outcome.work_s,
        "tasks_per_s": summary.tasks_per_s,
        "empty_tasks_per_s": summary.empty_tasks_per_s,
        "workers": summary.workers,
        "run_directory": str(summary.directory),
        "log": str(summary.directory / "pilotflow.log"),
    }
