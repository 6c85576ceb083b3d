"""Why a call's result was not in the cache: which parts of its key differ from the nearest known call's."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pilotflow.caching.keys import CallKey, Part
from pilotflow.caching.memo import CachedFuture, Fate
from pilotflow.errors import ConfigError


class Difference(NamedTuple):
    """A part of a key that is another than in the nearest known call.

    Attributes:
        part: what it is, such as "argument 'x'" or "the code of 'f'".
        now: its value in this call, or its class; empty if it has no short form.
        then: its value in the known call.
    """

    part: str
    now: str
    then: str

    def __str__(self) -> str:
        if self.now == self.then:
            return f"{self.part}: it is another {self.now}" if self.now else f"{self.part} is not the same"
        return f"{self.part}: {self.now or 'absent'} now, {self.then or 'absent'} then"


@dataclass(frozen=True)
class CacheReport:
    """What the cache did for a call; `print` it.

    Attributes:
        cached: whether the result came from the cache.
        reason: in words.
        differences: from the nearest known call, if there was one.
    """

    cached: bool
    reason: str
    differences: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.reason, *(f"  {difference}" for difference in self.differences)])


def why_not_cached(future: Future[Any]) -> CacheReport:
    """Why the result of a call did not come from the cache: which parts of its key differed.

    Args:
        future: of a call of an app.

    Raises:
        ConfigError: it is none.

    Example:
        >>> print(why_not_cached(square(4)))
        None of the 3 known calls of 'square' is equal. The nearest (of 2026-11-28 12:00:00) differs in
          argument 'x': 4 now, 3 then
    """
    if not isinstance(future, Future):
        raise ConfigError(f"why_not_cached takes the future of an app's call, not {type(future).__name__}")
    if not isinstance(future, CachedFuture):
        name = getattr(future, "name", repr(future))
        return CacheReport(False, f"'{name}' is no app with cache=True, so its calls always run.")
    return _report(future)


def _report(future: CachedFuture[Any]) -> CacheReport:
    name, key = future.name, future.key
    match future.fate:
        case Fate.KNOWN:
            return CacheReport(
                True, f"It was cached: an equal call of '{name}' had ended on {_date(future.known_since)}."
            )
        case Fate.JOINED:
            return CacheReport(True, f"An equal call of '{name}' was running; this one waited for its result.")
        case Fate.NO_KEY:
            return CacheReport(False, f"A task that this call of '{name}' needs has failed, so it has no key.")
        case Fate.WAITING:
            if future.done():
                return CacheReport(False, f"This call of '{name}' has ended before its key was known.")
            return CacheReport(False, f"This call of '{name}' waits for results that are part of its key.")
        case Fate.NEW:
            pass
    assert key is not None
    return _of_new_call(future, key)


def _of_new_call(future: CachedFuture[Any], key: CallKey) -> CacheReport:
    name = future.name
    if future.changed_file is not None:
        return CacheReport(
            False, f"An equal call of '{name}' is known, but its file {future.changed_file} is gone or changed."
        )
    nearest = future.memo.index.nearest(name, key, future.called_at)
    if nearest is None:
        return CacheReport(False, f"No call of '{name}' was in the cache {future.memo.files.directory}. {_FAILED}")
    differences = _differences(key.parts, nearest.parts)
    if not differences:
        return CacheReport(False, f"An equal call of '{name}' was in the cache, and its file was damaged or removed.")
    known = f"None of the {nearest.calls} known calls" if nearest.calls > 1 else "The one known call"
    verb = "is equal. The nearest" if nearest.calls > 1 else "is not equal: it"
    return CacheReport(False, f"{known} of '{name}' {verb} (of {_date(nearest.created)}) differs in", differences)


_FAILED = "Calls that failed are not kept."


def _differences(now: Sequence[Part], then: Sequence[Part]) -> tuple[Difference, ...]:
    before = {part.name: part for part in then}
    found = [
        Difference(part.name, part.shown, before[part.name].shown if part.name in before else "")
        for part in now
        if part.name not in before or before[part.name].digest != part.digest
    ]
    names = {part.name for part in now}
    found += [Difference(part.name, "", part.shown or "there") for part in then if part.name not in names]
    return tuple(found)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
