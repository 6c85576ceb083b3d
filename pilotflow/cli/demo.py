"""`pilotflow demo`: a short, real workload on this machine, with live progress and a summary.

It counts primes: many small Python tasks each sieve a range, a tree of tasks adds their counts,
and some shell commands count a few of the ranges in another way, to check the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pilotflow as pf
from pilotflow.cli import demo_tasks
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


@dataclass(frozen=True)
class _Outcome:
    """What the workload has found, and how long it took."""

    primes: int
    limit: int
    checked: int
    wrong: int
    tasks: int
    seconds: float


class _Tally:
    """Counts the tasks that have ended. Futures call it from the run's own thread."""

    def __init__(self, tick: Callable[[int, int], None]) -> None:
        self.ended = 0
        self.total = 0
        self._tick = tick
        self._next_tick = 0.0

    def watch(self, future: AppFuture[T]) -> AppFuture[T]:
        """Count this one too; gives it back."""
        self.total += 1
        future.add_done_callback(self._note)
        self.show()
        return future

    def _note(self, _: Future[Any]) -> None:
        self.ended += 1

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


def run_demo(workers: int | None, tasks: int, run_dir: Path) -> None:
    """Run the workload and print how it went.

    Args:
        workers: workers on this machine; one per usable core if None.
        tasks: ranges to sieve, each a Python task.
        run_dir: where the run's directory goes.

    Raises:
        PilotflowError: the run cannot start, or a task failed.
    """
    from rich.console import Console

    console = Console(highlight=False)
    begun = time.perf_counter()
    with pf.load(pf.Config.for_this_machine(max_workers=workers, run_dir=run_dir)) as run:
        pf.python_app(demo_tasks.add)([]).result()
        started_s = time.perf_counter() - begun
        with _bar(console) if console.is_terminal else _lines() as tick:
            outcome = _work(tasks, _Tally(tick))
        empty_rate = _rate_of_nothing(min(tasks, _EMPTY_TASKS))
        slots = _slots(run) or workers or len(os.sched_getaffinity(0))
        directory = run.directory
    _print_summary(console, outcome, started_s, empty_rate, slots, directory)


def _work(ranges: int, tally: _Tally) -> _Outcome:
    """Submit everything at once, wait for the results that nothing else waits for."""
    count, add, same = (pf.python_app(fn) for fn in (demo_tasks.count_primes, demo_tasks.add, demo_tasks.same))
    factor = pf.bash_app(stdout=pf.AUTO_LOGNAME)(demo_tasks.factor_command)
    begun = time.perf_counter()
    counts = [tally.watch(count(n * _RANGE, (n + 1) * _RANGE)) for n in range(ranges)]
    checks = []
    for n in range(0, ranges, max(1, ranges // _COMMANDS)):
        command = tally.watch(factor(n * _RANGE, (n + 1) * _RANGE))
        checks.append(tally.watch(same(counts[n], command.stdout, command)))
    level = counts
    while len(level) > 1 or level is counts:
        level = [tally.watch(add(level[at : at + _FAN_IN])) for at in range(0, len(level), _FAN_IN)]
    primes = tally.wait(level[0])
    wrong = sum(not tally.wait(check) for check in checks)
    seconds = time.perf_counter() - begun
    return _Outcome(primes, ranges * _RANGE, len(checks), wrong, tally.total, seconds)


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

    columns = (SpinnerColumn(), TextColumn("counting primes"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]:>7,.0f} tasks/s")
    begun = time.perf_counter()
    with Progress(*columns, rate, TimeElapsedColumn(), console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=None, rate=0.0)

        def tick(ended: int, total: int) -> None:
            rate = ended / (time.perf_counter() - begun)
            progress.update(task, total=total, completed=ended, rate=rate, refresh=True)

        yield tick


@contextmanager
def _lines() -> Iterator[Callable[[int, int], None]]:
    """A line at each quarter, for output that is no terminal; gives what prints them."""
    shown = 0

    def tick(ended: int, total: int) -> None:
        nonlocal shown
        quarter = 4 * ended // total
        if quarter > shown:
            shown = quarter
            print(f"{ended} of {total} tasks done", flush=True)

    yield tick


def _print_summary(
    console: Console, outcome: _Outcome, started_s: float, empty_rate: float, workers: int, directory: Path
) -> None:
    checked = f"{outcome.checked} ranges counted again by shell commands: "
    rows = [
        ("primes", f"{outcome.primes:,} below {outcome.limit:,}"),
        ("checked", checked + (f"{outcome.wrong} DIFFER" if outcome.wrong else "all the same")),
        ("tasks done", f"{outcome.tasks:,} ({outcome.checked} of them commands)"),
        ("tasks/s", f"{outcome.tasks / outcome.seconds:,.0f}; {empty_rate:,.0f} if tasks do nothing"),
        ("wall time", f"{format_duration(outcome.seconds)}, after a start of {format_duration(started_s)}"),
        ("workers", str(workers)),
        ("run directory", str(directory)),
        ("log", str(directory / "pilotflow.log")),
    ]
    console.print()
    for name, value in rows:
        console.print(f"[bold]{name:<14}[/bold]", end="")
        console.print(value, markup=False, soft_wrap=True)
    if outcome.wrong:
        raise pf.PilotflowError("The shell commands counted other primes than Python did.")
