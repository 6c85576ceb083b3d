"""The Unix sockets that an interchange listens on, made again when somebody has removed them.

The end of a login session removes XDG_RUNTIME_DIR, and cleaners empty temporary directories, while runs go on.
Connections that are open last, but new blocks of this host and commands from other terminals would find nobody.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.runtime import socket_directories
from pilotflow.runtime.channels import UnixServer

LOOK_S: Final = 10.0
"""The paths are looked at this often, and..."""
AT_MOST_EVERY_S: Final = 0.5
"""...when something else has woken the interchange, such as a new block, not more often than this."""


def listen(path: str, descriptor: int | None = None) -> socket.socket:
    """A socket that listens there: the one that the client has bound already, or a new one."""
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(1024)
    return listener


class UnixListeners:
    """Looks after the sockets of these servers.

    Args:
        log: of the run.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._servers: list[UnixServer] = []
        self._looked_at = 0.0
        self._problem = ""

    @property
    def due_at(self) -> float:
        """When `look` must be called again, on the monotonic clock."""
        return self._looked_at + LOOK_S if self._servers else float("inf")

    def add(self, server: UnixServer) -> None:
        """Look after the socket of this one."""
        self._servers.append(server)

    def look(self, now: float) -> dict[str, str]:
        """Listen again where a path is gone; returns the new endpoints of those that have moved, by the old ones."""
        if now - self._looked_at < AT_MOST_EVERY_S:
            return {}
        self._looked_at = now
        gone = [server for server in self._servers if not os.path.exists(server.path)]
        places: dict[Path, Path] = {}
        moved: dict[str, str] = {}
        for server in gone:
            before = server.path
            try:
                place = places.get(before.parent) or socket_directories.make_again(before.parent)
                server.listen_at(listen(str(place / before.name)))
            except (OSError, ConfigError) as error:
                self._complain(f"cannot listen again on {before}, which was removed: {error}")
                return moved
            places[before.parent] = place
            if server.path != before:
                moved[f"unix:{before}"] = f"unix:{server.path}"
        if gone:
            self._problem = ""
            where = " and ".join(sorted({str(server.path.parent) for server in gone}))
            self._log.warning("sockets of this run were removed by somebody; it listens again in %s", where)
        return moved

    def close(self) -> None:
        """Remove the directories, once the servers are closed."""
        for folder in {server.path.parent for server in self._servers}:
            socket_directories.remove(folder)

    def _complain(self, problem: str) -> None:
        if problem != self._problem:  # not every ten seconds
            self._problem = problem
            self._log.error("%s", problem)
