"""Keys of calls: what an app does, and what it is called with, part by part."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import FunctionType
from typing import Any, Final, NamedTuple

from pilotflow.caching import code
from pilotflow.caching.text import Text, digest, gaps
from pilotflow.caching.values import Writer, filled, text_of
from pilotflow.errors import CacheKeyError

_SHOWN_MAX: Final = 60


class Part(NamedTuple):
    """A part of a key.

    Attributes:
        name: what it is, in words.
        digest: names its value.
        shown: the value, if it is short.
    """

    name: str
    digest: bytes
    shown: str = ""


class CallKey(NamedTuple):
    """The key of a call.

    Attributes:
        digest: names it.
        parts: what it is made of.
    """

    digest: bytes
    parts: tuple[Part, ...]


class Call:
    """A call whose key may have gaps: results of tasks that have not ended.

    Attributes:
        needs: the futures of these.
    """

    def __init__(self, app: AppKey, arguments: list[tuple[str, Text, str]]) -> None:
        self._app = app
        self._arguments = arguments
        self.needs: list[Future[Any]] = [future for _, text, _ in arguments for future in gaps(text)]

    def key(self) -> CallKey:
        """The key, once all futures in the arguments have ended well.

        Raises:
            CacheKeyError: a result cannot be keyed.
        """
        parts = list(self._app.parts)
        for name, text, shown in self._arguments:
            try:
                parts.append(Part(name, digest(filled(text)), shown))
            except CacheKeyError as error:
                raise self._app.failure(name, error) from None
        return CallKey(digest(b"".join([part.name.encode() + b"\0" + part.digest for part in parts])), tuple(parts))


class AppKey:
    """The part of keys that all calls of an app share.

    Args:
        name: the app's name.
        kind: which kind of app it is.
        function: what it decorates.
        version: stands for the function's code, which is then not looked at.
        ignored: parameters that do not count.

    Attributes:
        parts: these parts.

    Raises:
        CacheKeyError: the function holds something that cannot be keyed.
    """

    def __init__(
        self, name: str, kind: str, function: Callable[..., Any], version: str | None, ignored: frozenset[str]
    ) -> None:
        self.name = name
        self._ignored = ignored
        self._signature = _signature(function)
        where = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}"
        self.parts = [Part("the app", digest(f"{kind} {where}".encode()), f"{kind} {where}")]
        if version is not None:
            self.parts.append(Part("the version", digest(version.encode()), repr(version)))
        else:
            self.parts += self._code_of(function)

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], others: Mapping[str, Any] | None = None) -> Call:
        """A call with these arguments.

        Args:
            args, kwargs: those of the function.
            others: what counts besides, by its name in messages.

        Raises:
            CacheKeyError: an argument cannot be keyed; names it and says what to do.
        """
        arguments: list[tuple[str, Text, str]] = []
        for name, value in self._bound(args, kwargs):
            if name in self._ignored:
                continue
            try:
                arguments.append((f"argument '{name}'", text_of(value), _shown(value)))
            except CacheKeyError as error:
                raise self.failure(f"argument '{name}'", error) from None
        for name, value in (others or {}).items():
            if name not in self._ignored:
                arguments.append((name, text_of(value), _shown(value)))
        return Call(self, arguments)

    def failure(self, what: str, error: CacheKeyError) -> CacheKeyError:
        """The error of a call of this app."""
        at = f", at {error.where}," if error.where else ""
        argument = what.partition("'")[2].rstrip("'") or "NAME"
        remedy = error.remedy or (
            f"Pass what it is made from instead, name the argument in ignore_for_cache=['{argument}'] if results do "
            "not depend on it, or register its class with pilotflow.cache_key."
        )
        return CacheKeyError(
            f"app '{self.name}' has cache=True, and {what}{at} cannot be part of a key: {error.problem}", remedy=remedy
        )

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """(name, value) of each parameter, in the order of the signature."""
        if self._signature is not None:
            try:
                bound = self._signature.bind(*args, **kwargs)
            except TypeError:  # the call will fail in the same words
                return [("arguments", (args, dict(kwargs)))]
            bound.apply_defaults()
            return list(bound.arguments.items())
        return [*((str(number), value) for number, value in enumerate(args, 1)), *sorted(kwargs.items())]

    def _code_of(self, function: Callable[..., Any]) -> list[Part]:
        writer = Writer()
        try:
            if not isinstance(function, FunctionType):
                writer.put(function)
                return [Part(f"the code of '{self.name}'", digest(filled(writer.text)))]
            code.put_own(writer, function)
            parts = [Part(f"the code of '{self.name}'", digest(filled(writer.text)))]
            for name, value in code.used(function):
                writer.text = []
                code.put_used(writer, name, value)
                what = f"the code of '{name}'" if isinstance(value, (FunctionType, type)) else f"the global '{name}'"
                parts.append(Part(what, digest(filled(writer.text)), _shown(value)))
        except CacheKeyError as error:
            raise CacheKeyError(
                f"app '{self.name}' has cache=True, and its code cannot be part of a key: {error}. Say version='1' in "
                "the decorator, and another version whenever its results change."
            ) from None
        return parts


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # builtins without one
        return None


def _shown(value: Any) -> str:
    """A value for people, if it is short; else its class."""
    if isinstance(value, (str, bytes)) and len(value) > _SHOWN_MAX:
        return f"{value[: _SHOWN_MAX // 2]!r}... of {len(value)}"
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        text = repr(value) if type(value) is not int or abs(value) < 10**_SHOWN_MAX else "a large int"
        return text if len(text) <= 2 * _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
    return "" if isinstance(value, (FunctionType, type, Future)) else type(value).__name__
