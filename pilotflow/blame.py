"""Which argument of a call, or part of a result, cannot travel: the slow second look, after the fast one has failed.

Before it is sent, each argument is pickled by itself, and then each of its parts; a result likewise. On the worker the
call is unpickled once more, in Python, going on where something raises: a `Broken` takes the place of
what could not be made. Where the first one ends up is the path of the argument.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from io import IOBase
from typing import Any, ClassVar

import msgspec

from pilotflow.errors import SerializationError
from pilotflow.memfile import buffer_of
from pilotflow.serialize import pack

_SENT_DEPTH_MAX = 5
_READ_DEPTH_MAX = 8
_POPPED = ("load_newobj", "load_newobj_ex")
"""These have taken what they work on off the stack when they fail..."""
_IN_PLACE = (
    "load_reduce",
    "load_build",
    "load_append",
    "load_appends",
    "load_setitem",
    "load_setitems",
    "load_additems",
)
"""...and these have left it there."""


class Broken:
    """Stands for a value that could not be made."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Fails as what it stands for did."""
        raise self.error


class _Tolerant(pickle._Unpickler):  # CPython's own, in Python
    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if name == "_dependency" and module == "pilotflow.serialize":
            return lambda _: None
        try:
            return super().find_class(module, name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  an import runs the user's code
            return Broken(error)


def _tolerate(name: str) -> None:
    original = getattr(pickle._Unpickler, name)

    def load(self: Any) -> None:
        try:
            original(self)
        except (Exception, SystemExit) as error:  # noqa: BLE001  unpickling runs the user's code
            if name in _IN_PLACE:
                self.stack.pop()
            self.stack.append(Broken(error))

    for code, function in _Tolerant.dispatch.items():
        if function is original:
            _Tolerant.dispatch[code] = load


for _name in (*_POPPED, *_IN_PLACE):
    _tolerate(_name)


def _named(args: Sequence[Any], kwargs: dict[str, Any], ours: Sequence[str]) -> list[tuple[str, Any]]:
    """The arguments of a call, as the caller would call them."""
    named = list(zip(ours, args, strict=False))
    named += [(f"args[{i}]", value) for i, value in enumerate(args[len(ours) :])]
    return named + [(f"kwargs[{key!r}]", value) for key, value in kwargs.items()]


# ---- before sending -------------------------------------------------------------------------


def unsendable_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], ours: Sequence[str], error: SerializationError
) -> tuple[str, str]:
    """The argument that cannot be pickled, in words with its path and type, and why.

    Args:
        args, kwargs, ours: as in `pilotflow.serialize.pack_call`.
        error: why all of them together cannot be.
    """
    for path, value in _named(args, kwargs, ours):
        found = _first_bad(value, path, 0)
        if found:
            return f"argument {found[0]} ({type(found[1]).__name__})", str(found[2])
    return "the arguments together", str(error)


def unsendable_result(value: Any, name: str, error: BaseException) -> str:
    """Why a result cannot be pickled, in words with the path of the part that cannot, and what to return instead.

    Args:
        value: the result.
        name: of what returned it; empty if that is not known.
        error: why it cannot be.
    """
    try:
        found = _first_bad(value, "result", 0)
    except KeyboardInterrupt:  # raised by a value: what is pickled runs the user's code
        found = None
    path, part, cause = found or ("result", value, error)
    where = "" if path == "result" else f"{path} ({type(part).__name__}): "
    what = f"the result of '{name}' ({type(value).__name__})" if name else f"the result ({type(value).__name__})"
    return f"{what} cannot be sent back: {where}{str(cause) or repr(cause)}{_instead(part)}"


def _instead(value: Any) -> str:
    """What to return instead of what cannot travel, as the end of a message; empty if nothing is known."""
    if isinstance(value, Generator):
        return "; return a list of what it yields"
    if isinstance(value, Coroutine):
        return "; make the app of an `async def` function, or await it there"
    if isinstance(value, IOBase):
        return "; return the file's path, or what was read"
    return ""


def _first_bad(value: Any, path: str, depth: int) -> tuple[str, Any, BaseException] | None:
    try:
        pack(value, [])
    except SerializationError as error:
        for child_path, child in _parts(path, value) if depth < _SENT_DEPTH_MAX else ():
            found = _first_bad(child, child_path, depth + 1)
            if found:
                return found
        return path, value, error
    return None


# ---- on the worker --------------------------------------------------------------------------


def broken_argument(payload: bytes, layout: Sequence[int], frames: Sequence[Any], ours: Sequence[str] = ()) -> str:
    """The path of the argument that cannot be unpickled, as in `args[1]['x']`; empty if it cannot be told.

    Args:
        payload, layout, frames: the arguments of a call, see `pilotflow.serialize`.
        ours: as in `pilotflow.serialize.pack_call`.
    """
    try:
        if layout:
            parts = [buffer_of(frame) for frame in frames[: layout[0] + layout[1]]]
            stream, buffers = b"".join(parts[: layout[0]]), parts[layout[0] :]
        elif payload[:1] == b"\0":
            stream, buffers = msgspec.msgpack.decode(memoryview(payload)[1:], type=list[bytes])[0], []
        else:
            stream, buffers = payload, []
        args, kwargs = _Tolerant(io.BytesIO(stream), buffers=buffers).load()
        named = _named(args, kwargs, ours)
        return next((found for path, value in named for found in _paths(path, value, 0)), "")
    except Exception:  # noqa: BLE001  this only makes a message better
        return ""


def _paths(path: str, value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, Broken):
        yield path
    elif depth < _READ_DEPTH_MAX:
        for child_path, child in _parts(path, value):
            yield from _paths(child_path, child, depth + 1)


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    """What a value consists of, with the path of each."""
    if isinstance(value, dict):
        return [(f"{path}[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"{path}[{i}]", child) for i, child in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [(path, child) for child in value]
    if type(value).__module__ != "builtins":
        return [(f"{path}.{key}", child) for key, child in getattr(value, "__dict__", {}).items()]
    return []
