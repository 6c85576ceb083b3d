"""Payload frames in memory files, which processes of one host hand on as descriptors, uncopied."""

from __future__ import annotations

import mmap
import os
import pickle
import sys
from collections.abc import Iterable
from typing import Any

FEW_DESCRIPTORS = 200
"""While no more are open, a mapping may keep one; from then on payloads are copied into plain memory."""
_NAME = "pilotflow-payload"
_CLOSE_ON_EXEC = 1
"""MFD_CLOEXEC in memfd_create(2)."""


class MemoryFile:
    """One frame in a memory file. Closes its descriptor when it is no longer used.

    Args:
        fd: descriptor, owned from now on.
        size: bytes in it.
    """

    __slots__ = ("__weakref__", "_view", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._view: memoryview | None = None

    @classmethod
    def write(cls, parts: Iterable[Any]) -> MemoryFile:
        """A new memory file with these buffers, one after the other.

        Raises:
            OSError: no memory or no descriptor is to be had.
        """
        file = cls(_memory_file(), 0)
        for part in parts:
            view = memoryview(part).cast("B")
            file.size += len(view)
            while len(view):
                view = view[os.write(file.fd, view) :]
        return file

    def view(self) -> memoryview:
        """Its bytes, mapped privately: they may be changed, and nobody else sees it.

        Raises:
            ValueError: the file is shorter than it was said to be.
        """
        if self._view is None:
            if os.fstat(self.fd).st_size < self.size:
                raise ValueError(f"a memory file is shorter than the {self.size} bytes announced")
            if self.size == 0:
                self._view = memoryview(b"")
            else:
                self._view = memoryview(self._mapped())
        return self._view

    def _mapped(self) -> mmap.mmap:
        flags, prot = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        # Not populated: that would copy every page now, since they may be written to.
        if sys.version_info >= (3, 13):
            return mmap.mmap(self.fd, self.size, flags=flags, prot=prot, trackfd=False)
        probe = os.dup(self.fd)
        os.close(probe)
        if probe < FEW_DESCRIPTORS:
            return mmap.mmap(self.fd, self.size, flags=flags, prot=prot)  # keeps a descriptor while it lives
        copy = mmap.mmap(-1, self.size)
        target, at = memoryview(copy), 0
        while at < self.size:
            at += self.read_into(target[at:], at)
        return copy

    def read_into(self, target: memoryview, offset: int) -> int:
        """Copy bytes from an offset on into a buffer; returns how many."""
        return os.preadv(self.fd, [target], offset)

    def __del__(self) -> None:
        os.close(self.fd)


def _memory_file() -> int:
    """The descriptor of a new one."""
    try:
        return os.memfd_create(_NAME)  # which sets that it is closed when a program is executed
    except (
        AttributeError
    ):  # this Python was built with a C library older than 2.27, as conda's is, and runs with a newer one
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        fd = int(libc.memfd_create(_NAME.encode(), _CLOSE_ON_EXEC))
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number)) from None
        return fd


def keepable(frame: Any) -> Any:
    """A frame as it can be kept for long, by many: a memory file while descriptors are few, else a buffer."""
    return frame.view() if type(frame) is MemoryFile and frame.fd >= FEW_DESCRIPTORS else frame


def buffer_of(frame: Any) -> Any:
    """A frame as something with the buffer protocol."""
    return frame.view() if type(frame) is MemoryFile else frame


def size_of(frame: Any) -> int:
    """Bytes in a frame."""
    return frame.size if type(frame) is MemoryFile else memoryview(frame).nbytes


def memory_by_value(view: memoryview) -> tuple[Any, tuple[Any, ...]]:
    """How a pickler should write a memoryview."""
    flat = pickle.PickleBuffer(view if view.c_contiguous else view.tobytes())
    return _memory, (flat, view.format, view.shape)


def _memory(buffer: Any, format_: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(buffer).cast("B")
    return view if format_ == "B" and len(shape) == 1 else view.cast(format_, shape)  # type: ignore[call-overload]
