"""Waiting classes in their order, found by what they need without looking at all of them.

The classes stand in chunks of about a hundred. Of each chunk it is known what the most modest
class needs, so that a search passes over whole chunks which ask for more than there is. A search
costs O(chunks) as a rule, however many classes wait.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from pilotflow.core.needs import Needs
from pilotflow.core.supply import RequestClass

Key = tuple[float, ...]
"""Where a class stands: its order, then the id of its first task. Smaller ones come first."""

CHUNK = 100
"""Classes in a chunk; one with twice as many is split."""


class Line:
    """Classes that wait, in order.

    Args:
        small_first: whether those that need less come first, among those of equal priority.
    """

    def __init__(self, small_first: bool) -> None:
        self._small_first = small_first
        self._chunks: list[_Chunk] = []
        self._last: list[Key] = []  # the last key of each chunk
        self._keys: dict[int, Key] = {}  # of each class, as it stands

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, cls: RequestClass) -> bool:
        return cls.id in self._keys

    def key_of(self, cls: RequestClass) -> Key | None:
        """Where a class should stand now; None if nothing of it waits."""
        first = cls.first()
        if first is None:
            return None
        order = cls.order
        if self._small_first:
            return (order[0], *(-amount for amount in order[1:]), first.id)
        return (*order, first.id)

    def key(self, cls: RequestClass) -> Key:
        """Where a class stands."""
        return self._keys[cls.id]

    def put(self, cls: RequestClass) -> None:
        """A class waits, or its first task is another one than it was."""
        key = self.key_of(cls)
        old = self._keys.get(cls.id)
        if key == old:
            return
        if old is not None:
            self.drop(cls)
        if key is None:
            return
        self._keys[cls.id] = key
        at = bisect_left(self._last, key)
        if at == len(self._chunks):
            at -= 1
            if at < 0:
                self._chunks.append(_Chunk([key], [cls]))
                self._last.append(key)
                return
        chunk = self._chunks[at]
        chunk.insert(key, cls)
        self._last[at] = chunk.keys[-1]
        if len(chunk.keys) >= 2 * CHUNK:
            rest = _Chunk(chunk.keys[CHUNK:], chunk.classes[CHUNK:])
            self._chunks[at] = chunk = _Chunk(chunk.keys[:CHUNK], chunk.classes[:CHUNK])
            self._last[at] = chunk.keys[-1]
            self._chunks.insert(at + 1, rest)
            self._last.insert(at + 1, rest.keys[-1])

    def drop(self, cls: RequestClass) -> None:
        """A class does not wait here any more, if it did."""
        key = self._keys.pop(cls.id, None)
        if key is None:
            return
        at = bisect_left(self._last, key)
        chunk = self._chunks[at]
        chunk.remove(key)
        if chunk.keys:
            self._last[at] = chunk.keys[-1]
        else:
            del self._chunks[at], self._last[at]

    def first(self) -> RequestClass | None:
        """The class that is next."""
        return self._chunks[0].classes[0] if self._chunks else None

    def follower(self, key: Key) -> Key | None:
        """Where the class after that place stands."""
        at = bisect_right(self._last, key)
        if at == len(self._last):
            return None
        keys = self._chunks[at].keys
        return keys[bisect_right(keys, key)]

    def next(self, room: Needs, after: Key = ()) -> RequestClass | None:
        """The first class after that place which needs no more than this of anything."""
        chunks = self._chunks
        where = bisect_right(self._last, after)
        if where == len(chunks):
            return None
        start = bisect_right(chunks[where].keys, after) if after else 0
        cpus, memory, gpus, runtime, open_end, nodes = room
        for at in range(where, len(chunks)):
            chunk = chunks[at]
            c, m, g, r, o, n = chunk.least
            if c <= cpus and m <= memory and g <= gpus and r <= runtime and o <= open_end and n <= nodes:
                needs = chunk.needs
                for i in range(start, len(needs)):
                    c, m, g, r, o, n = needs[i]
                    if c <= cpus and m <= memory and g <= gpus and r <= runtime and o <= open_end and n <= nodes:
                        return chunk.classes[i]
                chunk.tighten()
            start = 0
        return None


class _Chunk:
    """Some classes in a row."""

    __slots__ = ("classes", "keys", "least", "loose", "needs")

    def __init__(self, keys: list[Key], classes: list[RequestClass]) -> None:
        self.keys = keys
        self.classes = classes
        self.needs = [cls.needs for cls in classes]
        self.least = _least(self.needs)
        self.loose = False  # whether a class has left since `least` was computed

    def insert(self, key: Key, cls: RequestClass) -> None:
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        self.classes.insert(at, cls)
        self.needs.insert(at, cls.needs)
        self.least = _least([self.least, cls.needs])

    def remove(self, key: Key) -> None:
        at = bisect_left(self.keys, key)
        del self.keys[at], self.classes[at], self.needs[at]
        self.loose = True

    def tighten(self) -> None:
        """A search in vain has been here: see that it does not come back for nothing."""
        if self.loose:
            self.least = _least(self.needs)
            self.loose = False


def _least(needs: list[Needs]) -> Needs:
    """The least that any of them needs of each."""
    cpus, memory, gpus, runtime, open_end, nodes = map(min, zip(*needs, strict=True))
    return Needs(int(cpus), int(memory), int(gpus), runtime, int(open_end), int(nodes))
