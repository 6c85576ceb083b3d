"""The simulator's clock and network: encoded letters that may be lost, late, doubled or out of order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

Receive: TypeAlias = Callable[[str, bytes, Sequence[bytes]], None]
"""Called with (sender, header, frames)."""

SURE_S = 0.0005
"""How long a letter takes that stays on a host."""


class Clock:
    """Time that jumps to whatever is due next."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time; at once if that has passed."""
        self._count += 1
        heapq.heappush(self._due, (max(time, self.now), self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self.at(self.now + seconds, action)

    def step(self) -> bool:
        """Do what is due next; False if nothing is."""
        if not self._due:
            return False
        self.now, _, action = heapq.heappop(self._due)
        action()
        return True


@dataclass
class Faults:
    """What goes wrong with letters on their way.

    Attributes:
        drop, duplicate: probabilities for each letter.
        delay_s: least and largest time on the way, a random one for each letter; if they differ,
            letters overtake each other.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = (0.0005, 0.0005)


class Network:
    """Carries letters between named peers."""

    def __init__(self, clock: Clock, random: Random, faults: Faults) -> None:
        self.faults = faults
        self.cut: set[str] = set()  # peers that nothing reaches and that reach nothing
        self.sure: set[str] = set()  # peers on the interchange's host: no letter of theirs is lost, late or doubled
        self.carried = 0
        self._clock = clock
        self._random = random
        self._peers: dict[str, Receive] = {}

    def join(self, name: str, receive: Receive) -> None:
        """A peer can be reached by this name, instead of who had it before."""
        self._peers[name] = receive

    def leave(self, name: str) -> None:
        """A peer is gone."""
        self._peers.pop(name, None)

    def send(self, sender: str, receiver: str, header: bytes, frames: Sequence[Any]) -> None:
        """Send a letter; it arrives later, if it does."""
        copies = [bytes(frame) for frame in frames]
        if sender in self.sure or receiver in self.sure:
            self._clock.after(SURE_S, lambda: self._arrive(sender, receiver, header, copies))
            return
        for _ in range(2 if self._random.random() < self.faults.duplicate else 1):
            if self._random.random() < self.faults.drop:
                continue
            delay = self._random.uniform(*self.faults.delay_s)
            self._clock.after(delay, lambda: self._arrive(sender, receiver, header, copies))

    def _arrive(self, sender: str, receiver: str, header: bytes, frames: Sequence[bytes]) -> None:
        receive = self._peers.get(receiver)
        if receive is not None and sender not in self.cut and receiver not in self.cut:
            self.carried += 1
            receive(sender, header, list(frames))
