"""Exceptions on their way home: pickled with their tracebacks, or described if they cannot be."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pilotflow.errors import RemoteTraceback, SerializationError
from pilotflow.serialize import Packed, pack, unpack

_CHAIN_MAX = 20
_FRAMES_MAX = 100
"""Frames of a traceback that travel, half of them from each end."""
_LINKS = ("__traceback__", "__cause__", "__context__")
_OURS = frozenset(f"pilotflow.runtime.{name}" for name in ("calls", "tasks", "thread_calls", "worker"))


def pack_exception(error: BaseException) -> Packed:
    """An exception with its chain of causes as a payload that always unpickles.

    Frames of pilotflow itself, before those of the user's code, are left out.
    """
    tb = _without_ours(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, tb))
    chain: list[tuple[bytes | None, str, list[Any], str]] = []
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


class _AsValue:
    """An exception as an argument of a task: it arrives as `unpack_exception` makes it."""

    def __init__(self, error: BaseException) -> None:
        self._packed = pack_exception(error)

    def __reduce__(self) -> tuple[Any, ...]:
        packed = self._packed
        return unpack_exception, (packed.payload, packed.layout, tuple(map(bytes, packed.frames)))


def pack_as_value(error: BaseException) -> Packed:
    """An exception as a value, for a task that takes the failures of those it needs; it always unpickles."""
    return pack(_AsValue(error))


def _without_ours(tb: TracebackType | None) -> TracebackType | None:
    first = tb
    while tb is not None and tb.tb_frame.f_globals.get("__name__") in _OURS:
        tb = tb.tb_next
    return first if tb is None else tb


def unpack_exception(payload: Any, layout: Any = (), frames: Any = ()) -> BaseException:
    """The exception of a payload: its frames can be walked, its `__cause__` is the remote text.

    A cause that the exception had remotely is the `__cause__` of that text.
    """
    text, chain = unpack(payload, layout, frames)
    chain_link = ""
    outer: BaseException | None = None
    makers: list[Any] = []
    for pickled, described, tb, link in reversed(chain):
        error = _restored(pickled, described).with_traceback(_walkable(tb, makers))
        if outer is not None and chain_link == "cause":
            _set(error, "__cause__", outer)
        elif outer is not None:
            _set(error, "__context__", outer)
        outer, chain_link = error, link
    assert outer is not None
    remote = RemoteTraceback(text, makers)
    remote.__cause__ = outer.__cause__
    _set(outer, "__cause__", remote)
    return outer


def add_note(error: BaseException, note: str) -> None:
    """Have a traceback of this exception show one more line; its type, arguments and text stay as they are.

    It is in `__notes__`, as its own `add_note` has it. Before Python 3.11 tracebacks do not show these, and it is the
    last line of the remote text.
    """
    remote = error.__cause__
    if sys.version_info < (3, 11) and isinstance(remote, RemoteTraceback):
        remote.append(note)
        return
    notes = vars(error).setdefault("__notes__", [])  # its class may forbid to set attributes
    if isinstance(notes, list):
        notes.append(note)


def _pickled(error: BaseException) -> bytes | None:
    """The exception alone; many classes pickle but do not unpickle, so this tries both."""
    bare = [getattr(error, name) for name in _LINKS]
    try:
        for form in (error, _Rebuilt(type(error), error.args, vars(error).copy())):
            try:
                packed = pack(form)
                restored = unpack(*packed)
            except BaseException:  # noqa: BLE001, S112  the exception's own methods may raise anything
                continue
            if type(restored) is type(error):
                return pickle.dumps(tuple(packed), 5)
    finally:
        for name, value in zip(_LINKS, bare, strict=True):
            _set(error, name, value)
    return None


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute that every exception has, also where the class forbids to set any, as frozen dataclasses do."""
    BaseException.__setattr__(error, name, value)


class _Rebuilt:
    """An exception by its class, arguments and attributes, without its constructor."""

    def __init__(self, cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.parts = cls, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self.parts


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    _set(error, "args", args)
    vars(error).update(state)
    return error


def summary(packed: Packed) -> str:
    """Type and text of a packed exception, which is not unpickled itself."""
    try:
        _, chain = unpack(*packed)
        described: str = chain[0][1]
    except (SerializationError, ValueError, TypeError, LookupError):
        return "an exception that cannot be read here"
    return described.removeprefix("builtins.")


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  as above
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


def _frames(tb: TracebackType | None) -> list[Any]:
    """Frames as tblib has them, one after the other: nested ones would break at great depth."""
    if tb is None:
        return []
    from tblib import Traceback

    entries: list[TracebackType] = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    if len(entries) > _FRAMES_MAX:
        half = _FRAMES_MAX // 2
        entries = entries[:half] + entries[-half:]
    return [Traceback(TracebackType(None, e.tb_frame, e.tb_lasti, e.tb_lineno)).to_dict() for e in entries]


def _walkable(frames: list[Any], makers: list[Any]) -> TracebackType | None:
    if not frames:
        return None
    from tblib import Traceback

    whole: dict[str, Any] | None = None
    for frame in reversed(frames):
        frame["tb_next"] = whole
        whole = frame
    # In a generator, because the frames made here refer to their callers for as long as the exception
    # lives, and the callers to the future. A generator that has yielded has no caller, until it is closed.
    maker = _made(Traceback.from_dict(whole))
    makers.append(maker)
    return next(maker)


def _made(traceback_: Any) -> Iterator[TracebackType | None]:
    yield traceback_.as_traceback()
