"""A run: its directory, its interchange process, its blocks and the loop that submits to it.

Apps submit to the current run, the one that `pilotflow.loading` has started last.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from pilotflow.core.block_records import BlockInfo
from pilotflow.core.pace import Counts, parts_of
from pilotflow.current import no_longer_current
from pilotflow.display import Display, Look, Surface, executor_rows, waited_for
from pilotflow.edited import EditedModules
from pilotflow.errors import ConfigError, InterchangeLost, RunClosed
from pilotflow.futures import AppFuture
from pilotflow.ids import RUN_VARIABLE
from pilotflow.last_sentences import say_given_up, say_unseen
from pilotflow.messages.client import (
    DefineExecutors,
    DefineSetup,
    FailExecutor,
    Instruction,
    Load,
    LookUp,
    ManagerDown,
    ManagerUp,
    Notice,
    Obeyed,
    SetupFailed,
)
from pilotflow.notebook import table
from pilotflow.own_pid import OWN_PID
from pilotflow.runtime import leftovers, rundir, socket_directories
from pilotflow.runtime.block_keeper import BlockKeeper, KeptExecutor
from pilotflow.runtime.block_report import VERB, write_report
from pilotflow.runtime.client import Client
from pilotflow.runtime.connection import Connection, write_connection
from pilotflow.runtime.departure import leave
from pilotflow.runtime.explaining import explain
from pilotflow.runtime.guarding import BlockGuard
from pilotflow.runtime.interchange_process import InterchangeProcess, TakenOver
from pilotflow.runtime.limits import say_how_ends_are_seen
from pilotflow.runtime.log_files import write_in_background
from pilotflow.runtime.run_record import RunRecord
from pilotflow.runtime.setups import setup_error
from pilotflow.runtime.store import Store, open_store
from pilotflow.runtime.threaded_client import ThreadedClient
from pilotflow.supplies import connection_of, kept_executors, shape_of
from pilotflow.typechecks import check_call

if TYPE_CHECKING:
    from typing_extensions import Self

    from pilotflow.caching.memo import Memo
    from pilotflow.config.model import Config
    from pilotflow.explanation import Explanation
    from pilotflow.sharing import Shelf

START_TIMEOUT_S = 30.0
"""The interchange must answer within this time."""
CLOSE_TIMEOUT_S = 4.0
"""Everything of a run must be gone within this time after its end."""
CACHE_TIMEOUT_S = 30.0
"""Results that have come in are written to the cache within this time after a run's end."""
LOST_GRACE_S = 10.0
"""Blocks that have lost their interchange have this long to end."""
NOT_ENCRYPTED = (
    "encrypted=False: the TCP links of this run are neither encrypted nor checked. Whoever can reach their ports can "
    "read what travels and run code as you. Use it on networks of your own only."
)


class Run:
    """One run, started by `load`. Use it in a `with` or `async with` block, or `close` it.

    Leaving the block waits for all tasks; leaving it with an exception ends them.

    Attributes:
        config: what it was started with.
        directory: its run directory.
        run_id: its name, unique on this host.
        display: its live line, if somebody can see one.
    """

    def __init__(self, config: Config, setups: dict[str, bytes] | None = None, place: Surface | None = None) -> None:
        self.config = config
        self.display: Display | None = None
        self.directory, self.run_id = self._find_directory()
        self._pid = OWN_PID.value
        self._log, self._log_handler = rundir.open_log(self.directory)
        self._writer = write_in_background([self._log])
        say_how_ends_are_seen(self._log)
        self._lock = threading.Lock()
        self._closed = False
        self._load: Load | None = None
        self._failed: dict[str, str] = {}
        self._asked: dict[str, int] = {}
        self._memo: Memo | None = None
        self._shelf: Shelf | None = None
        self.edited = EditedModules()
        """Is told of functions that are sent to workers."""
        self.broken: BaseException | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_log)
            self._start(config, setups or {}, undo)
            undo.pop_all()  # from here on it is `close` that ends all this
        if place is not None:
            self.display = Display(place, self._title, self._look)

    def _start(self, config: Config, setups: dict[str, bytes], undo: contextlib.ExitStack) -> None:
        self._store = self._open_store(config)
        if self._store is not None:
            undo.callback(self._store.close, CLOSE_TIMEOUT_S)
        self._record = self._make_record()
        self._connection_file = self.directory / "connection.json"
        mark = {RUN_VARIABLE: self._mark()}
        connection = self._find_interchange(config, mark, undo)
        kept = kept_executors(config, self.directory, self._connection_file, mark)
        providers = [one.provider for one in kept if not connection.keep_s]  # else its jobs are for the next program
        self._guard = BlockGuard(self.directory, self._interchange.pid, providers)
        undo.callback(self._guard.end)
        self._keeper = self._make_keeper(kept, mark)
        undo.callback(self._keeper.undo, CLOSE_TIMEOUT_S)
        try:
            self.client = self._make_client(connection)
        except (ConnectionError, FileNotFoundError, ProcessLookupError):  # it was killed in the meantime
            raise self._interchange.why_no_start() from None
        undo.callback(self.client.close, RunClosed(f"run {self.run_id} did not start"), CLOSE_TIMEOUT_S)
        shapes = [shape_of(executor) for executor in config.block_executors]
        self.client.say(DefineExecutors(shapes, closed=not self._is_open_to_all))
        for label, payload in setups.items():
            self.client.say(DefineSetup(label, payload))
        self._prepare()
        self.client.start()
        if not connection.over_tcp:  # else the interchange chooses its port first
            self._keeper.start()
        leftovers.end_those_of_dead_programs(self._log)
        socket_directories.remove_dead(self._sockets.parent, self._log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.client.welcome.wait(0.05):
            if self._interchange.has_ended or time.monotonic() > deadline:
                raise self._interchange.why_no_start()
        if self.client.failure is not None:
            raise self._interchange.why_no_start()
        if connection.over_tcp:
            self._keeper.start()
        if config.cache is not None:
            _ = self.memo  # a directory that cannot be used is told now
        atexit.register(self._at_exit)

    # What a run that outlives its program does in another way, see `pilotflow.durable_run`.

    _is_open_to_all: ClassVar[bool] = False
    """Whether managers may join that no executor has asked for."""

    def _find_directory(self) -> tuple[Path, str]:
        return rundir.make(Path(self.config.run_dir))

    def _mark(self) -> str:
        return leftovers.mark(self.run_id, self._pid)

    def _find_interchange(self, config: Config, mark: dict[str, str], undo: contextlib.ExitStack) -> Connection:
        """Start the run's interchange; returns where it is."""
        self._sockets = socket_directories.make()
        undo.callback(socket_directories.remove, self._sockets)
        connection = self._connection(config)
        try:
            write_connection(self._connection_file, connection)
        except OSError as error:
            raise rundir.cannot_write(self.directory, error) from None
        if connection.over_tcp and not connection.encrypted:
            self._log.warning(NOT_ENCRYPTED)
        self._interchange: InterchangeProcess | TakenOver = InterchangeProcess(connection, self._connection_file, mark)
        undo.callback(self._interchange.kill)
        return connection

    def _connection(self, config: Config) -> Connection:
        return connection_of(config, self.run_id, self.directory, self._sockets)

    def _make_keeper(self, kept: list[KeptExecutor], mark: dict[str, str]) -> BlockKeeper:
        parts = (kept, self.directory, self._from_keeper, self._log, mark, self.run_id)
        return BlockKeeper(*parts, if_killed=self._guard.write, is_over=lambda: self._interchange.has_ended)

    def _make_client(self, connection: Connection) -> Client:
        parts = (connection, self._interchange.pid, self._hear, self._store, self._log)
        threads = {one.label: one.max_threads for one in self.config.thread_executors}
        return ThreadedClient(threads, *parts) if threads else Client(*parts)

    def _prepare(self) -> None:
        """Say what must be known before any result comes."""

    def _open_store(self, config: Config) -> Store | None:
        if not config.store:
            return None
        store = open_store(self.directory / "run.db", self._log)
        store.begin(self.run_id, self._pid)
        return store

    def _make_record(self) -> RunRecord:
        return RunRecord(self._log, self._store)

    # ---- for users --------------------------------------------------------------------------

    def blocks(self) -> list[BlockInfo]:
        """What blocks there are and were, and what became of them."""
        return self._keeper.describe()

    def counts(self) -> Counts:
        """How many of its tasks are done, failed, cancelled, running and waiting, a moment ago."""
        load = self._load
        leased = sum(min(one.leased, one.slots) for one in load.executors) if load is not None else 0
        return self.client.counts(leased)

    @property
    def load(self) -> Load | None:
        """The last report of what waits and runs, by executor and block; None before the first."""
        return self._load

    def explain(self, task: AppFuture[Any] | int | str) -> Explanation:
        """Why a task is not running, where it runs, or how it has ended; `print` it.

        Args:
            task: its future, its number, its name or its label (of several, one that waits).

        Raises:
            ConfigError: there is no such task.
            RunClosed, InfrastructureError: the run is over, or nobody who would know answers.
        """
        if self.client.is_own_thread:
            raise RunClosed("A callback of a future cannot ask about tasks; it would wait for itself.")
        if isinstance(task, AppFuture) and not task.is_of(self.client):
            raise ConfigError(f"{task!r} belongs to another run than {self!r}; ask that one.")
        return explain(self._connection_file, task)

    def request_blocks(self, executor: str, count: int = 1) -> None:
        """Ask for blocks of an executor now, whatever the load; from now on it may have so many more.

        Raises:
            ConfigError: there is no such executor, it has no blocks, or the count is no positive number.
            PolicyExceeded: this machine's admins do not allow so many.
        """
        if self.config.executors_for((executor,), "request_blocks")[1]:
            raise ConfigError(f"request_blocks('{executor}'): that executor has threads of the program, and no blocks.")
        if count < 1:
            raise ConfigError(f"request_blocks(count=...): {count} is not a whole number of 1 or more.")
        from pilotflow.config.here import more_within_policy

        self._asked = more_within_policy(self.config, self._asked, executor, count)
        self._keeper.ask(executor, count)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every task has ended; False if that takes longer than `timeout` seconds.

        Raises:
            ConfigError: the timeout is no number.
        """
        check_call("wait", "timeout", timeout, float | None)
        return self.client.wait_idle(timeout)

    def cancel_all(self) -> int:
        """Cancel every task that has not ended, also those that run, with all processes that they have started.

        A function that runs in a thread of the program (`ThreadExecutorConfig`) cannot be killed and is not cancelled:
        it goes on, its future ends with what comes of it, and the run's log says so.

        Returns:
            how many were cancelled. The run goes on and takes new tasks.
        """
        return self.client.cancel_all()

    def close(self, wait: bool = True) -> None:
        """End the run: its blocks are cancelled and its processes gone when this returns.

        Args:
            wait: first wait for all tasks; otherwise pending ones fail with `RunClosed`.
        """
        if OWN_PID.value != self._pid:
            return
        if not self._closed and (wait or self.client.is_own_thread):
            self.client.wait_idle()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        gone = self._keeper.close(CLOSE_TIMEOUT_S / 2)  # first, or it would replace the blocks that end now
        self.client.close(RunClosed(f"run {self.run_id} was closed while the task was pending"), CLOSE_TIMEOUT_S / 2)
        self._interchange.end(max(0.1, deadline - time.monotonic()))
        if self.display is not None:
            self.display.close()
        if self._memo is not None:
            self._memo.close(CACHE_TIMEOUT_S)
        # A guard of blocks that are not gone tries to end them when this program is.
        leave(self.directory, self._writer, self._store, self.counts(), self._guard if gone else None)
        socket_directories.remove(self._sockets)
        atexit.unregister(self._at_exit)
        self._log.info("run closed")
        self._close_log()
        no_longer_current(self)

    def begin(self) -> None:
        """Start it, if `load` has left that for later, as it does in an event loop."""

    def __enter__(self) -> Self:
        self.begin()
        return self

    async def __aenter__(self) -> Self:
        from pilotflow.aio import in_thread  # asyncio takes a while, and only these need it

        await in_thread(self.begin, lambda: self.close(wait=False))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from pilotflow.aio import in_thread  # as above

        await in_thread(lambda: self.close(wait=kind is None), lambda: self.close(wait=False))
        say_unseen(self, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(wait=kind is None)
        say_unseen(self, error)

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<Run {self._title}: {', '.join(parts_of(self.counts(), 0.0))}{closed}>"

    def _repr_html_(self) -> str:
        tasks = ", ".join(parts_of(self.counts(), 0.0))
        executors = executor_rows([one.label for one in self.config.block_executors], self.blocks())
        rows = [("directory", self.directory), ("tasks", tasks), *executors]
        return table(f"{self._title}{' (closed)' if self._closed else ''}", rows)

    @property
    def _title(self) -> str:
        """Its directory, as short as it can be found by."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    # ---- for apps ---------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process that has started it."""
        return self._pid

    @property
    def is_open(self) -> bool:
        """Whether it takes tasks."""
        return not self._closed and OWN_PID.value == self._pid

    def record_label(self, task: int, label: str) -> None:
        """A task is known by this label, too."""
        self._record.label(task, label)

    def define_function(self, name: str, body: bytes, *, all_ranks: bool = False, owner: object | None = None) -> int:
        """Make a function known; see `Definitions.function`."""
        return self.client.definitions.function(name, body, all_ranks=all_ranks, owner=owner)

    @property
    def memo(self) -> Memo:
        """Its memory of calls; without `cache` in the configuration it ends with the run."""
        with self._lock:
            if self._memo is None:
                from pilotflow.caching.memo import Memo  # most runs do without it

                directory = Path(self.config.cache or self.directory / "cache").absolute()
                self._memo = Memo(directory, self.client, self._log)
            return self._memo

    @property
    def shelf(self) -> Shelf:
        """Its shared values."""
        with self._lock:
            if self._shelf is None:
                from pilotflow.sharing import Shelf

                self._shelf = Shelf(self.directory)
            return self._shelf

    # ---- inside -----------------------------------------------------------------------------

    def _look(self) -> Look:
        counts, load = self.counts(), self._load
        idles = counts.waiting and (load is None or not any(block.managers for block in load.blocks))
        return Look(counts, waited_for(self.blocks()) if idles else "", self._record.warnings)

    def _hear(self, event: Any) -> None:
        """Called in the client's loop with what the interchange reports."""
        if isinstance(event, Load):
            self._load = event
            self._keeper.on_load(event)
        elif isinstance(event, LookUp):
            self.client.answer(event, self._keeper.describe(), self._keeper.outlooks())
        elif isinstance(event, Instruction) and event.verb == VERB:
            report = write_report(self._keeper.describe(), self._keeper.outlooks(), time.monotonic())
            self.client.say(Obeyed(event.token, True, report))
        elif isinstance(event, Instruction):
            self.client.say(Obeyed(event.token, False, "this run belongs to a Python program, which alone can do that"))
        elif isinstance(event, ManagerUp):
            self._record.manager_up(event)
            self._keeper.on_manager_up(event)
        elif isinstance(event, ManagerDown):
            self._record.manager_down(event)
            self._keeper.on_manager_down(event)
        elif isinstance(event, Notice):
            self._record.notice(event)
        elif isinstance(event, SetupFailed):
            self.broken = error = setup_error(event)
            self.client.break_with(error)
        elif isinstance(event, InterchangeLost):
            self.broken = event
            self._interchange.kill()  # it may be frozen, and nobody listens to it any more
            self._keeper.stop(LOST_GRACE_S)  # its blocks cannot work, and new ones could not either

    def _from_keeper(self, message: Any) -> None:
        """Called in the keeper's thread with what the interchange must know."""
        if isinstance(message, FailExecutor):
            self._failed[message.executor] = message.reason
            self._record.executor_failed(message)
            if len(self._failed) == len(self.config.block_executors):
                self.client.say(FailExecutor("*", "\n".join(self._failed.values())))
        self.client.say(message)

    def _close_log(self) -> None:
        self._log.removeHandler(self._log_handler)
        self._log_handler.close()
        if self._writer is not None:
            self._writer.end([self._log])  # of a workflow, whose program goes on

    def _at_exit(self) -> None:
        say_given_up(self)
        self.close(wait=False)
        say_unseen(self)
