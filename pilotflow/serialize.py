"""Values into payloads and back: pickle first, more only for what pickle cannot do.

A payload is `Packed`: small ones are one inline pickle, big ones a list of frames that are never
joined or copied on their way (see `pilotflow.messages` for the layout). Three things differ from
plain `pickle.dumps`:

- functions and classes that a worker could not import (from `__main__`, lambdas, closures,
  notebook cells) go by value (see `pilotflow.byvalue`), inside the same stream;
- futures inside the value become dependencies: the stream only says "the result of number i";
- buffers of protocol 5 (NumPy arrays, ...) and long `bytes` become frames of their own.
"""

from __future__ import annotations

import importlib
import pickle
import platform
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.chunks import ChunkReader, coalesced
from pilotflow.errors import PilotflowError, SerializationError
from pilotflow.made_anew import ANEW
from pilotflow.memfile import buffer_of, memory_by_value, size_of
from pilotflow.names import found, importable_class, importable_function, resolve

INLINE_BYTES = 32 * 1024
"""Payloads up to this size ride inside the message header."""
BUFFER_BYTES = 16 * 1024
"""Buffers below this size stay inside the pickle stream."""
SHARED_BYTES = 64 * 1024
"""Frames below this size may share a memory file (`pilotflow.runtime.packets`)."""
BUFFERS_MAX = 1000
"""Buffers of one value that travel as frames of their own; the rest stay in the pickle stream."""
_BUNDLE = b"\0"
"""First byte of a blob that is several of them; a pickle never begins with it."""

_NUMBERS = frozenset({int, float, bool, type(None), complex})
_ATOMS = _NUMBERS | {str, bytes}
"""Types of values that hold no others, for which plain pickle does all there is to do."""


class Packed(NamedTuple):
    """A value ready to travel; `layout` and `frames` are empty for inline ones."""

    payload: bytes
    layout: tuple[int, ...] = ()
    frames: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return len(self.payload) + sum(map(size_of, self.frames))


class Derived(Future[Any]):
    """A future of something that is made of another one's result, where that is needed."""

    # Not an `ABC`: whether something is one of these is asked for each future among the arguments of tasks.
    @abstractmethod
    def derivation(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A function that makes it, and its arguments, which hold the other future."""


class _Sink:
    """What a Pickler writes to: each write becomes one chunk, long bytes without a copy."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


class _Pickler(pickle.Pickler):
    """C pickler that sends unimportable functions and classes by value and collects futures."""

    futures: list[Future[Any]] | None = None

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            return _function_by(obj)
        if isinstance(obj, type):
            return NotImplemented if importable_class(obj) else _class_by_value(obj)
        if isinstance(obj, Future):
            if self.futures is None:
                raise SerializationError(
                    "a future cannot travel inside a result, an exception or a closure; pass it as an argument"
                )
            if isinstance(obj, Derived):
                return obj.derivation()
            self.futures.append(obj)  # the pickler remembers objects, so each comes here once
            return _dependency, (len(self.futures) - 1,)
        reduce = _OTHERS.get(kind)
        return NotImplemented if reduce is None else reduce(obj)


# ---- packing --------------------------------------------------------------------------------


def pack(value: Any, futures: list[Future[Any]] | None = None, *, snapshot: bool = True) -> Packed:
    """The value as a payload.

    Args:
        value: anything that can be pickled, functions and classes of `__main__` included.
        futures: list to which futures found anywhere in the value are added, in the order of
            their numbers; None if futures are not allowed here.
        snapshot: copy big buffers, so that the caller may change the value at once; without it
            the payload is only good while the value is as it was.

    Raises:
        SerializationError: if something in it cannot be pickled.
    """
    if type(value) in _NUMBERS:
        return Packed(pickle.dumps(value, 5))
    chunks: list[Any] = []
    buffers: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < BUFFER_BYTES or len(buffers) >= BUFFERS_MAX:
            return True
        # What is read-only here may still be written through another view of the same array.
        buffers.append(bytes(raw) if snapshot and type(raw.obj) is not bytes else raw)
        return False

    pickler = _Pickler(_Sink(chunks.append), 5, buffer_callback=keep)
    pickler.futures = futures
    try:
        pickler.dump(value)
    except (PilotflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a value's own methods may raise SystemExit too
        raise SerializationError(f"{type(error).__name__}: {error}") from error
    if len(chunks) == 1:
        if not buffers and len(chunks[0]) <= INLINE_BYTES:
            return Packed(chunks[0])
    else:  # a long bytearray is handed over itself, and may change
        chunks = [chunk if type(chunk) is bytes else bytes(chunk) for chunk in chunks]
        if not buffers and sum(map(len, chunks)) <= INLINE_BYTES:
            return Packed(b"".join(chunks))
    chunks = coalesced(chunks)
    return Packed(b"", (len(chunks), len(buffers)), (*chunks, *buffers))


def pack_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], futures: list[Future[Any]], ours: Sequence[str] = ()
) -> Packed:
    """Arguments of a call as a payload; see `pack`.

    Args:
        args, kwargs, futures: as they travel.
        ours: names for those at the beginning of `args` that the caller has not written.

    Raises:
        SerializationError: naming the argument that cannot travel.
    """
    if not kwargs:
        for value in args:
            if type(value) not in _ATOMS:
                break
        else:
            stream = pickle.dumps((args, kwargs), 5)
            if len(stream) <= INLINE_BYTES:
                return Packed(stream)
    try:
        return pack((args, kwargs), futures)
    except SerializationError as error:
        from pilotflow.blame import unsendable_argument  # only after a failure

        where, cause = unsendable_argument(args, kwargs, ours, error)
        raise SerializationError(f"{where} cannot be sent to a worker: {cause}") from error.__cause__


def join(packs: Sequence[Packed]) -> Packed:
    """Several payloads (the arguments, then each dependency's result) as one."""
    if len(packs) == 1:
        return packs[0]
    if sum(len(pack.payload) for pack in packs) <= INLINE_BYTES and not any(pack.layout for pack in packs):
        return Packed(_BUNDLE + msgspec.msgpack.encode([pack.payload for pack in packs]))
    layout: list[int] = []
    frames: list[Any] = []
    run: list[bytes] = []
    for i, pack in enumerate(packs):
        if pack.layout:
            _add_run(run, layout, frames)
            layout += pack.layout
            frames += pack.frames
        elif i == 0:
            layout += (1, 0)
            frames.append(pack.payload)
        else:
            run.append(pack.payload)
    _add_run(run, layout, frames)
    return Packed(b"", tuple(layout), tuple(frames))


def _add_run(run: list[bytes], layout: list[int], frames: list[Any]) -> None:
    """Small results that follow each other share a frame: there may be any number of them."""
    if run:
        layout += (1, 0)
        frames.append(_BUNDLE + msgspec.msgpack.encode(run))
        run.clear()


# ---- unpacking ------------------------------------------------------------------------------


class _Unpacking(threading.local):
    """What the call that a thread unpacks needs of others; a worker has one thread, a program may have more."""

    def __init__(self) -> None:
        self.dependencies: list[Any] = []


_unpacking = _Unpacking()


def unpack(payload: Any, layout: Sequence[int] = (), frames: Sequence[Any] = (), *, in_place: bool = False) -> Any:
    """The value of a payload with one blob.

    Args:
        payload, layout, frames: the payload.
        in_place: arrays stay where they are, also those that cannot be written to there.

    Raises:
        SerializationError: if it cannot be unpickled here.
    """
    try:
        return _load(payload, layout, frames, in_place)
    except (PilotflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a value's own methods may raise SystemExit too
        raise SerializationError(f"{type(error).__name__}: {error}{remedy(error)}") from error


def unpack_call(payload: Any, layout: Sequence[int], frames: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call, dependencies put in their places.

    Raises:
        SerializationError: if they cannot be unpickled here.
    """
    if not layout and payload[:1] == _BUNDLE:
        return _unpack_bundle(payload)
    if len(layout) <= 2:
        call: tuple[tuple[Any, ...], dict[str, Any]] = unpack(payload, layout, frames)
        return call
    first = at = layout[0] + layout[1]
    try:
        for i in range(2, len(layout), 2):
            end = at + layout[i] + layout[i + 1]
            head = buffer_of(frames[at])
            if head[:1] == _BUNDLE:
                _unpacking.dependencies.extend(map(unpack, msgspec.msgpack.decode(head[1:], type=list[bytes])))
            else:
                _unpacking.dependencies.append(unpack(b"", layout[i : i + 2], frames[at:end]))
            at = end
        call = unpack(b"", layout[:2], frames[:first])
        return call
    finally:
        _unpacking.dependencies.clear()


def _unpack_bundle(payload: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    first, *rest = msgspec.msgpack.decode(memoryview(payload)[1:], type=list[bytes])
    try:
        _unpacking.dependencies.extend(map(unpack, rest))
        call: tuple[tuple[Any, ...], dict[str, Any]] = unpack(first)
        return call
    finally:
        _unpacking.dependencies.clear()


def _load(payload: Any, layout: Sequence[int], frames: Sequence[Any], in_place: bool = False) -> Any:
    if not layout:
        return pickle.loads(payload)
    chunks, buffers = layout
    outside = [buffer_of(frame) for frame in frames[chunks : chunks + buffers]]
    if not in_place:
        outside = [_writable(buffer) for buffer in outside]
    if chunks == 1:
        return pickle.loads(buffer_of(frames[0]), buffers=outside)
    return pickle.Unpickler(ChunkReader(frames[:chunks]), buffers=outside).load()


def _writable(buffer: Any) -> Any:
    """Arrays may be changed in place, as plain pickle brings them; nobody else sees it.

    Long frames are private mappings. Short ones may share memory with what other tasks get.
    """
    view = memoryview(buffer)
    return bytearray(view) if view.readonly or view.nbytes < SHARED_BYTES else buffer


def _dependency(index: int) -> Any:
    return _unpacking.dependencies[index]


# ---- functions and classes ------------------------------------------------------------------


def _load_function(body: bytes) -> Any:
    from pilotflow.byvalue import load

    return load(body)


def _function_by(function: Any) -> Any:
    """By name if a worker can import it (decorated or not), else by value."""
    name = importable_function(function)
    if name is not None:
        return NotImplemented if found(*name) is function else (resolve, name)
    from pilotflow.byvalue import dump

    return _load_function, (dump(function),)


def _class_by_value(cls: type) -> Any:
    from pilotflow.byvalue import reduce_class

    return reduce_class(cls)


def _by_name(module: ModuleType) -> Any:
    return _module, (module.__name__,)


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


_OTHERS: Final[dict[type, Callable[[Any], Any]]] = {ModuleType: _by_name, memoryview: memory_by_value, **ANEW}


# ---- words for what failed ------------------------------------------------------------------


def remedy(error: BaseException) -> str:
    """What to do about an error of unpickling, as the end of its message; empty if nothing is known."""
    if isinstance(error, ModuleNotFoundError):
        from pilotflow.missing import words  # only after a failure

        return f". {words(str(error.name), platform.node())}"
    if isinstance(error, AttributeError) and "'__main__'" in str(error):
        return (
            ". It pickles as a name of the script, which workers do not run: define it in a module, which they import"
        )
    if isinstance(error, AttributeError):
        return ". The worker imported another version of that module than the submitting program has"
    if type(error).__name__ == "AuthenticationError":  # of multiprocessing, which need not be imported for that
        return (
            ". Proxies of a multiprocessing manager can be used in workers of a PilotExecutor that is made after "
            "multiprocessing was imported, with encrypted links"
        )
    from pilotflow.damaged import damaged_module

    damage = damaged_module(error)
    return f". {damage}" if damage else ""
