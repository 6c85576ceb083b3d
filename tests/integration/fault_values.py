"""Values that do not survive pickling, each in another way."""

from __future__ import annotations

import os
from typing import Any


class Unpicklable:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("this one stays here")


class UnpicklableElsewhere:
    """Can be pickled, and unpickled only in the process that pickled it."""

    def __reduce__(self) -> Any:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> str:
    if os.getpid() != pid:
        raise OSError("no such device here")
    return "home"


class Rotten:
    """Can be pickled, and unpickled nowhere."""

    def __reduce__(self) -> Any:
        return _raise, ("it has gone bad",)


def _raise(text: str) -> None:
    raise LookupError(text)


class DiesWhenUnpickled:
    """Kills the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (4,)


class Holder:
    """Holds a value in an attribute."""

    def __init__(self, value: Any) -> None:
        self.inner = value


class TwoArguments(Exception):
    """An exception that pickles and does not unpickle, as many do."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class HoldsLock(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        import threading

        super().__init__(text)
        self.lock = threading.Lock()


class NoText(Exception):
    """An exception that can neither be pickled nor put into words."""

    def __init__(self) -> None:
        super().__init__()
        self.value = Unpicklable()

    def __str__(self) -> str:
        raise ValueError("no words")


def make(kind: str) -> Any:
    """A value that does not survive the way home."""
    return {
        "unpicklable": Unpicklable(),
        "deep": {"a": [1, Unpicklable()]},
        "rotten": Rotten(),
        "lock": HoldsLock("x").lock,
        "generator": (i for i in range(3)),
    }[kind]


def throw(kind: str) -> None:
    """Raise an exception that does not survive the way home."""
    if kind == "two arguments":
        raise TwoArguments("one", "two")
    if kind == "lock":
        raise HoldsLock("I hold a lock")
    if kind == "lock without text":
        raise NoText
    error = ValueError("outer")
    raise error from HoldsLock("the cause holds a lock")
