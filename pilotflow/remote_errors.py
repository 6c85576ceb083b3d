"""Exceptions on their way home: pickled with their tracebacks, or described if they cannot be."""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any

from pilotflow.errors import RemoteTraceback, SerializationError
from pilotflow.serialize import Packed, pack, unpack

_CHAIN_MAX = 20


def pack_exception(error: BaseException, skip: int = 0) -> Packed:
    """An exception with its chain of causes as a payload that always unpickles.

    Args:
        error: what was raised.
        skip: innermost frames of pilotflow itself to leave out of its traceback.
    """
    tb = error.__traceback__
    for _ in range(skip):
        tb = tb.tb_next if tb is not None and tb.tb_next is not None else tb
    text = "".join(traceback.format_exception(type(error), error, tb))
    chain: list[tuple[bytes | None, str, dict[str, Any] | None, str]] = []
    current: BaseException | None = error
    link = ""
    while current is not None and len(chain) < _CHAIN_MAX:
        chain.append((_pickled(current), _described(current), _frames(tb), link))
        if current.__cause__ is not None:
            current, link = current.__cause__, "cause"
        elif current.__context__ is not None and not current.__suppress_context__:
            current, link = current.__context__, "context"
        else:
            current = None
        tb = current.__traceback__ if current is not None else None
    return pack((text, chain))


def unpack_exception(payload: Any, layout: Any = (), frames: Any = ()) -> BaseException:
    """The exception of a payload: its frames can be walked, its `__cause__` is the remote text.

    A cause that the exception had remotely is the `__cause__` of that text.
    """
    text, chain = unpack(payload, layout, frames)
    chain_link = ""
    outer: BaseException | None = None
    for pickled, described, tb, link in reversed(chain):
        error = _restored(pickled, described).with_traceback(_walkable(tb))
        if outer is not None and chain_link == "cause":
            error.__cause__ = outer
        elif outer is not None:
            error.__context__ = outer
        outer, chain_link = error, link
    assert outer is not None
    remote = RemoteTraceback(text)
    remote.__cause__ = outer.__cause__
    outer.__cause__ = remote
    return outer


def _pickled(error: BaseException) -> bytes | None:
    bare = error.__traceback__, error.__cause__, error.__context__
    try:
        packed = pack(error)
        body = pickle.dumps(tuple(packed), 5)
        unpack(*packed)  # many exception classes pickle, but do not unpickle
    except Exception:  # the exception's own methods may raise anything
        return None
    finally:
        error.__traceback__, error.__cause__, error.__context__ = bare
    return body


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # as above
        text = "(its text cannot be had)"
    return f"{type(error).__module__}.{type(error).__qualname__}: {text}"


def _restored(pickled: bytes | None, described: str) -> BaseException:
    if pickled is not None:
        try:
            error = unpack(*pickle.loads(pickled))
            if isinstance(error, BaseException):
                return error
        except SerializationError:
            pass
    return SerializationError(f"the task raised an exception that cannot be pickled: {described}")


def _frames(tb: TracebackType | None) -> dict[str, Any] | None:
    if tb is None:
        return None
    from tblib import Traceback

    found: dict[str, Any] = Traceback(tb).to_dict()
    return found


def _walkable(tb: dict[str, Any] | None) -> TracebackType | None:
    if tb is None:
        return None
    from tblib import Traceback

    found: TracebackType | None = Traceback.from_dict(tb).as_traceback()
    return found
