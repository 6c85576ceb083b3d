"""Values of the standard types, and of registered ones, as the text of keys."""

from __future__ import annotations

import dataclasses
import enum
import functools
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from re import Pattern
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pilotflow.caching import arrays, code
from pilotflow.caching.text import Text, Unordered, atom, gaps, joined_in_order
from pilotflow.errors import CacheKeyError


@functools.singledispatch
def cache_key(value: Any) -> Any:
    """What stands for a value in the key of a cached call. Register it for your own classes:

        >>> @pf.cache_key.register(Molecule)
        ... def _(molecule: Molecule): return molecule.formula, molecule.charge

    What the function returns must be of a kind that can be keyed: numbers, strings, containers,
    dataclasses, arrays, files, or something that is registered too.

    Raises:
        CacheKeyError: nothing is registered for values of this class.
    """
    raise CacheKeyError(f"nothing is registered for {_name(type(value))}")


_UNREGISTERED: Final = cache_key.dispatch(object)

_ATOMS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"n",
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"i%x;" % value if value >= 0 else b"j%x;" % -value,
    float: lambda value: b"d" + struct.pack("<d", value),
    complex: lambda value: b"c" + struct.pack("<dd", value.real, value.imag),
    str: lambda value: atom(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: atom(b"b", value),
    bytearray: lambda value: atom(b"B", bytes(value)),
    type(...): lambda _: b"e",
}
_SEQUENCES: Final[dict[type, bytes]] = {list: b"[", tuple: b"(", deque: b"q"}
_SETS: Final[dict[type, bytes]] = {set: b"<", frozenset: b"{"}

_SIMPLER: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    memoryview: lambda value: (value.format, value.shape, value.tobytes()),
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    Decimal: lambda value: (str(value),),
    Fraction: lambda value: (value.numerator, value.denominator),
    UUID: lambda value: (value.bytes,),
    Pattern: lambda value: (value.pattern, value.flags),
    date: lambda value: (value.isoformat(),),
    time: lambda value: (value.isoformat(), value.fold, value.tzinfo),
    datetime: lambda value: (value.isoformat(), value.fold, value.tzinfo),
    timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    timezone: lambda value: (str(value),),
    ZoneInfo: lambda value: (value.key,),
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    MethodType: lambda value: (value.__func__, value.__self__),
    ModuleType: lambda value: (value.__name__,),
    OrderedDict: lambda value: tuple(value.items()),
    defaultdict: lambda value: (value.default_factory, dict(value)),
    Counter: lambda value: (dict(value),),
}


def text_of(value: Any) -> Text:
    """The text of a value, with gaps where futures are that have not ended.

    Raises:
        CacheKeyError: something in it cannot be keyed; says what and where.
    """
    writer = Writer()
    writer.put(value)
    return writer.text


def filled(text: Text) -> bytes:
    """A text as a whole; the futures in it have ended well.

    Raises:
        CacheKeyError: a result cannot be keyed.
    """
    return b"".join(_filled(piece) for piece in text)


def _filled(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, Unordered):
        return joined_in_order(map(filled, piece.parts))
    try:
        return filled(text_of(piece.result(0)))
    except CacheKeyError as error:
        raise CacheKeyError(f"in the result of '{getattr(piece, 'name', piece)}': {error}") from None


class Writer:
    """Writes the text of values; see `KeyWriter`.

    Attributes:
        text: what it has written.
    """

    def __init__(self) -> None:
        self.text: Text = []
        self.functions: list[FunctionType] = []
        self._inside: set[int] = set()

    def put(self, value: Any) -> None:
        """Write a value.

        Raises:
            CacheKeyError: it cannot be keyed, or something in it cannot.
        """
        kind = type(value)
        encode = _ATOMS.get(kind)
        if encode is not None:
            self.text.append(encode(value))
            return
        if id(value) in self._inside:
            raise CacheKeyError(f"a {kind.__name__} that contains itself has no end")
        self._inside.add(id(value))
        try:
            self._put_compound(value, kind)
        except RecursionError:
            raise CacheKeyError(f"a {kind.__name__} nested this deeply is too much") from None
        finally:
            self._inside.discard(id(value))

    def named(self, what: str, kind: type, values: tuple[Any, ...]) -> None:
        """Write values under the name of a class."""
        self.text.append(atom(b"o", f"{what} {_name(kind)} {len(values)}".encode()))
        self._put_each(values)

    def buffer(self, data: Any) -> None:
        """Write what is in a buffer."""
        self.text.append(atom(b"a", memoryview(data).cast("B")))

    def can_put(self, value: Any) -> bool:
        """Write a value if that is possible."""
        try:
            self.text += self._apart(value)
        except CacheKeyError:
            return False
        return True

    def _put_compound(self, value: Any, kind: type) -> None:
        if (tag := _SEQUENCES.get(kind)) is not None:
            self.text.append(b"%b%d:" % (tag, len(value)))
            self._put_each(value)
        elif kind is dict:
            self._put_dict(value)
        elif (tag := _SETS.get(kind)) is not None:
            self._put_unordered(b"%b%d:" % (tag, len(value)), [self._apart(item) for item in value])
        elif (registered := cache_key.dispatch(kind)) is not _UNREGISTERED:
            self.named("registered", kind, (registered(value),))
        elif (simpler := _SIMPLER.get(kind)) is not None:
            self.named("value", kind, simpler(value))
        else:
            self._put_special(value, kind)

    def _put_special(self, value: Any, kind: type) -> None:
        if isinstance(value, Future):
            ended_well = value.done() and not value.cancelled() and value.exception() is None
            self.text.append(_filled(value) if ended_well else value)
        elif isinstance(value, enum.Enum):
            self.named("enum", kind, (value.value if isinstance(value, enum.Flag) else value.name,))
        elif isinstance(value, PurePath):
            self.named("path", PurePath, (str(value),))
        elif isinstance(value, type):
            self.named("class", value, ())
        elif dataclasses.is_dataclass(value):
            self.named("dataclass", kind, ())
            for field in dataclasses.fields(value):
                self._put_labelled(f".{field.name}", getattr(value, field.name, None))
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            self.named("namedtuple", kind, tuple(value))
        elif isinstance(value, FunctionType):
            code.put_function(self, value)
        elif isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            self.named(
                "builtin", kind, (value.__qualname__, owner.__name__ if isinstance(owner, ModuleType) else owner)
            )
        elif (function := getattr(value, "__pilotflow_function__", None)) is not None:
            self.put(function)
        elif not arrays.put_array(self, value, kind):
            raise CacheKeyError(f"values of class {_name(kind)} cannot be compared by what is in them")

    def _put_each(self, values: Iterable[Any]) -> None:
        for index, item in enumerate(values):
            try:
                self.put(item)
            except CacheKeyError as error:
                raise error.inside(f"[{index}]") from None

    def _put_labelled(self, label: str, value: Any) -> None:
        try:
            self.put(value)
        except CacheKeyError as error:
            raise error.inside(label) from None

    def _put_dict(self, value: dict[Any, Any]) -> None:
        parts: list[Text] = []
        for key, item in value.items():
            try:
                parts.append(self._apart(key) + self._apart(item))
            except CacheKeyError as error:
                raise error.inside(f"[{key!r}]") from None
        self._put_unordered(b":%d:" % len(parts), parts)

    def _put_unordered(self, head: bytes, parts: list[Text]) -> None:
        self.text.append(head)
        if any(gaps(part) for part in parts):
            self.text.append(Unordered(parts))
        else:
            self.text.append(joined_in_order(map(filled, parts)))

    def _apart(self, value: Any) -> Text:
        whole, self.text = self.text, []
        try:
            self.put(value)
            return self.text
        finally:
            self.text = whole


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
