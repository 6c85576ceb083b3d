"""A run that outlives its program: what it does in another way than `Run`."""

from __future__ import annotations

import atexit
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pilotflow.errors import ConfigError, InterchangeLost, RunClosed
from pilotflow.messages.client import Instruction, ManagerDown, ManagerUp
from pilotflow.run import CLOSE_TIMEOUT_S, Run
from pilotflow.runtime import leftovers, socket_directories
from pilotflow.runtime.block_keeper import BlockKeeper, KeptExecutor
from pilotflow.runtime.block_report import VERB
from pilotflow.runtime.client import Client
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.durable import Durable
from pilotflow.runtime.durable_client import DurableClient
from pilotflow.runtime.interchange_process import TakenOver
from pilotflow.runtime.run_record import RunRecord
from pilotflow.runtime.store import Store

if TYPE_CHECKING:
    from pilotflow.config.model import Config


class DurableRun(Run):
    """One program's part of a durable run. See `Run`, and `Durable` for what makes the difference."""

    client: DurableClient

    def __init__(self, config: Config, durable: Durable) -> None:
        self._durable = durable
        self._is_up = False
        super().__init__(config)
        with self._lock:
            self._is_up, broken = True, self.broken
        if isinstance(broken, InterchangeLost):
            durable.journal.lost(broken)

    def _find_directory(self) -> tuple[Path, str]:
        return self._durable.directory, self._durable.run_id

    def _open_store(self, config: Config) -> Store | None:
        return None  # whoever has the run has it open

    def _make_record(self) -> RunRecord:
        return RunRecord(self._log, self._durable.store)

    def _mark(self) -> str:
        return leftovers.durable_mark(self.run_id)

    def _find_interchange(self, config: Config, mark: dict[str, str], undo: contextlib.ExitStack) -> Connection:
        connection = self._durable.interchange
        if connection is None:
            return super()._find_interchange(config, mark, undo)
        self._sockets = Path(connection.client[0].removeprefix("unix:")).parent
        try:
            self._interchange = TakenOver(self._durable.interchange_pid, self.directory)
        except ProcessLookupError:
            raise InterchangeLost(f"The interchange of run {self.run_id} has ended in the meantime.") from None
        return connection

    def _connection(self, config: Config) -> Connection:
        durable = self._durable
        made = super()._connection(config)
        with contextlib.suppress(ConfigError):  # the first life has none
            before = read_connection(self._connection_file)
            if before.run_id == made.run_id and before.encrypted and made.encrypted:
                made = msgspec.structs.replace(made, keys=before.keys)  # links between nodes of a block use them, too
        return msgspec.structs.replace(made, epoch=durable.epoch, keep_s=durable.keep_s)

    def _make_keeper(self, kept: list[KeptExecutor], mark: dict[str, str]) -> BlockKeeper:
        send, blocks, known = self._from_keeper, self._durable.blocks, self._durable.known
        parts = (kept, self.directory, send, self._log, mark, self.run_id, blocks, known)
        return BlockKeeper(*parts, spare=self._durable.spare, is_over=lambda: self._interchange.has_ended)

    def _make_client(self, connection: Connection) -> Client:
        return DurableClient(connection, self._interchange.pid, self._hear, self._log, self._durable.journal)

    @property
    def _is_open_to_all(self) -> bool:  # type: ignore[override]
        return self._durable.open

    def _prepare(self) -> None:
        self._durable.prepare(self.client)

    def _hear(self, event: Any) -> None:
        journal = self._durable.journal
        if isinstance(event, Instruction) and event.verb != VERB:
            journal.instructed(event)
            return
        if isinstance(event, InterchangeLost):
            with self._lock:
                self.broken, is_up = event, self._is_up
            self._interchange.kill()  # it may be frozen, and its managers look for its successor
            if is_up:  # else whoever starts it is told
                journal.lost(event)
            return
        super()._hear(event)
        if isinstance(event, (ManagerUp, ManagerDown)):
            journal.manager(event)

    def abandon(self) -> None:
        """End this program's part in a run whose interchange is lost; its blocks are left to the next one."""
        with self._lock:
            self._closed = True
        self._keeper.leave()
        self.client.close(RunClosed(f"run {self.run_id} goes on with another interchange"), CLOSE_TIMEOUT_S)
        self._interchange.end(CLOSE_TIMEOUT_S)
        socket_directories.remove(self._sockets)
        atexit.unregister(self._at_exit)
        self._close_log()
