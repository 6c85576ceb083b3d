"""What a run writes down of its managers and executors: in its log, and in its store if it has one."""

from __future__ import annotations

import logging

from pilotflow.messages.client import FailExecutor, ManagerDown, ManagerUp, Notice
from pilotflow.runtime.store import Store


class RunRecord:
    """Writes down what happens to a run, for people who look later.

    Attributes:
        warnings: what people should know, for those who look now.
    """

    def __init__(self, log: logging.Logger, store: Store | None) -> None:
        self._log = log
        self._store = store
        self.warnings: list[str] = []

    def manager_up(self, event: ManagerUp) -> None:
        """A manager has joined."""
        self._log.info("manager on %s joined executor %s (block %s)", event.node, event.executor, event.block)
        self._event("manager up", event.node, f"executor {event.executor} block {event.block}")
        if self._store is not None:
            self._store.manager(event)

    def manager_down(self, event: ManagerDown) -> None:
        """A manager has left."""
        self._log.info("manager on %s left (block %s): %s", event.node, event.block, event.reason)
        self._event("manager down", event.node, event.reason)

    def notice(self, event: Notice) -> None:
        """The interchange has said something to people."""
        self._log.warning("%s", event.text)
        self.warnings.append(event.text)
        self._event("notice", "", event.text)

    def executor_failed(self, event: FailExecutor) -> None:
        """No block of an executor will come any more."""
        self._event("executor failed", event.executor, event.reason)

    def label(self, task: int, label: str) -> None:
        """A task is known by this label, too."""
        if self._store is not None:
            self._store.label(task, label)

    def _event(self, kind: str, subject: str, detail: str) -> None:
        if self._store is not None:
            self._store.event(kind, subject, detail)
