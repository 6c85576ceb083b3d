"""Sees the ends of blocks at once, where their provider has descriptors that show them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection

from pilotflow.providers.base import Provider
from pilotflow.runtime.loop import Loop


class EndWatch:
    """Watches the blocks of one provider, in one thread.

    Args:
        provider: whose blocks they are.
        loop: waits for the descriptors.
        seen: called when a block has ended.
        log: told of a provider that cannot say by what to see an end.

    Attributes:
        ended: batch ids of blocks whose end was seen, as long as they are to be watched.
    """

    def __init__(self, provider: Provider, loop: Loop, seen: Callable[[], None], log: logging.Logger) -> None:
        self._provider = provider
        self._loop = loop
        self._seen = seen
        self._log = log
        self._fds: dict[str, int | None] = {}  # by batch id; None if there is none, or it has shown the end
        self.ended: set[str] = set()

    def keep_to(self, batch_ids: Collection[str]) -> None:
        """Watch these blocks, and no others any more."""
        for gone in self._fds.keys() - set(batch_ids):
            self._let_go(gone)
            del self._fds[gone]
            self.ended.discard(gone)
        for batch_id in batch_ids:
            if batch_id not in self._fds:
                self._fds[batch_id] = self._watch(batch_id)

    def close(self) -> None:
        """Watch nothing any more."""
        self.keep_to(())

    def _watch(self, batch_id: str) -> int | None:
        """The descriptor by which the end will be seen, if there is one."""
        try:
            fd: object = self._provider.end_fd(batch_id)
            if fd is None:
                return None
            if type(fd) is not int:
                raise TypeError(f"end_fd returned {fd!r}, which is no descriptor")
            self._loop.add(fd, lambda: self._see(batch_id))
        except Exception as error:  # noqa: BLE001  a plugin's code; it is asked for the block's state all the same
            where = f"{type(self._provider).__name__}.end_fd"
            self._log.warning("the end of block %s may be seen late: %s: %r", batch_id, where, error)
            return None
        return fd

    def _see(self, batch_id: str) -> None:
        self._let_go(batch_id)
        self.ended.add(batch_id)
        self._seen()

    def _let_go(self, batch_id: str) -> None:
        fd = self._fds[batch_id]
        if fd is not None:
            self._fds[batch_id] = None
            self._loop.remove(fd)
            os.close(fd)
