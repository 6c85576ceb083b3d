"""A loop that waits for plain descriptors and ZeroMQ sockets together, and calls their handlers."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zmq

DRAIN_MAX = 256
"""Rounds over what can be read before the caller has its turn."""
_POLLIN = 1
"""ZeroMQ's own bit for "can be read", so that this module does not import it."""


class Loop:
    """Descriptors, their handlers, and one place to wait for all of them.

    Attributes:
        busy: whether something could be done already when this turn began, so that there may be more.
    """

    def __init__(self) -> None:
        self.busy = False
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._sockets: list[tuple[zmq.Socket[Any], int, Callable[[], None]]] = []

    def add(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor can be read or was closed by its peer."""
        self._epoll.register(fd, select.EPOLLIN)  # first, as it refuses what is no descriptor
        self._readers[fd] = handler

    def add_bell(self, fd: int) -> None:
        """Wake up whenever an eventfd is written to. It need not be read."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def want_writes(self, fd: int, handler: Callable[[], None] | None) -> None:
        """Call the handler when there is room to write to a descriptor; None to stop that."""
        if fd not in self._readers:
            return
        if handler is None:
            if self._writers.pop(fd, None) is not None:
                self._epoll.modify(fd, select.EPOLLIN)
        elif fd not in self._writers:
            self._writers[fd] = handler
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def remove(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._writers.pop(fd, None)
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def add_socket(self, socket: zmq.Socket[Any], handler: Callable[[], None]) -> None:
        """Call the handler whenever a ZeroMQ socket can be read. It must read all there is."""
        import zmq

        fd = int(socket.get(zmq.FD))
        self._sockets.append((socket, zmq.EVENTS, handler))
        self._epoll.register(fd, select.EPOLLIN)

    def remove_socket(self, socket: zmq.Socket[Any]) -> None:
        """Forget a ZeroMQ socket, before it is closed."""
        import zmq

        self._sockets = [entry for entry in self._sockets if entry[0] is not socket]
        self._epoll.unregister(int(socket.get(zmq.FD)))

    def turn(self, timeout_s: float) -> None:
        """Wait until something can be done, or the timeout, and call handlers until nothing can."""
        # ZeroMQ's descriptors signal changes only, so what is already there must be looked for.
        ready = self._readable_sockets() if self._sockets else []
        poll = self._epoll.poll
        events = poll(0)
        self.busy = bool(events or ready)
        if not self.busy:  # what wakes us is handled at once, without a look for more behind it
            self._handle(poll(max(0.0, timeout_s)))
        else:
            for _ in range(DRAIN_MAX):
                if not events or not self._handle(events):
                    break
                events = poll(0)
        if self._sockets:
            for handler in ready or self._readable_sockets():
                handler()

    def _handle(self, events: list[tuple[int, int]]) -> bool:
        """Call what handles these events; False if all are of ZeroMQ, and stay until it is read."""
        handled = False
        for fd, bits in events:
            if bits & select.EPOLLOUT and (writer := self._writers.get(fd)) is not None:
                writer()
            if bits & ~select.EPOLLOUT and (reader := self._readers.get(fd)) is not None:
                reader()
                handled = True
        return handled

    def _readable_sockets(self) -> list[Callable[[], None]]:
        return [handler for socket, events, handler in self._sockets if int(socket.get(events)) & _POLLIN]

    def close(self) -> None:
        """Release the loop's own descriptor."""
        self._epoll.close()
