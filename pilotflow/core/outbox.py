"""Results on their way to the client, and how many it has not acknowledged.

A client that stands still must not fill this process's memory: when `full`, the exchange hands
out nothing new until acknowledgements come. What is handed out already still ends, so the bound
is soft by what the managers hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pilotflow.memfile import size_of
from pilotflow.messages.client import Results
from pilotflow.messages.records import Excess, Result, ResultBatch, Status, encode_excess

RESULTS_MAX = 200_000
"""Results that the client has not acknowledged before nothing new is handed out..."""
BYTES_MAX = 1 << 30
"""...or bytes in them."""
FRAME_BYTES = BYTES_MAX // 1000
"""A payload frame counts as at least so many, because each is a memory file and takes a descriptor."""


class Outbox:
    """Results for the client, by the batch of the manager that they came in."""

    def __init__(self) -> None:
        self._batches: list[ResultBatch] = []
        self._frames: list[Any] = []
        self._unacknowledged: dict[tuple[int, int], tuple[int, int]] = {}  # batch -> results, bytes
        self._results = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether the client is too far behind."""
        return self._results > RESULTS_MAX or self._bytes > BYTES_MAX

    @property
    def unsent(self) -> Sequence[ResultBatch]:
        """What goes with the next letter."""
        return self._batches

    @property
    def unacknowledged(self) -> int:
        """Results that the client has not acknowledged."""
        return self._results

    def knows(self, manager: int, seq: int) -> bool:
        """Whether this batch is on its way."""
        return (manager, seq) in self._unacknowledged

    def add(self, manager: int, seq: int, results: list[Result], frames: Sequence[Any], inline_bytes: int) -> None:
        """A batch from a manager."""
        nbytes = inline_bytes + sum(max(size_of(frame), FRAME_BYTES) for frame in frames) if frames else inline_bytes
        self._batches.append(ResultBatch(manager, seq, results))
        self._frames += frames
        self._unacknowledged[(manager, seq)] = (len(results), nbytes)
        self._results += len(results)
        self._bytes += nbytes

    def give_up(self, id: int, attempt: int, lines: Sequence[str], status: Status) -> None:
        """The end of a task that will not be tried any more, in words."""
        # The client does not acknowledge it: no manager keeps it.
        self._batches.append(ResultBatch(0, 0, [Result(id, attempt, status, msgspec.msgpack.encode(lines))]))

    def exceeded(self, id: int, attempt: int, excess: Excess) -> None:
        """The end of a task that has had all the time that there is."""
        self._batches.append(ResultBatch(0, 0, [Result(id, attempt, Status.EXCEEDED, encode_excess(excess))]))

    def acknowledged(self, batches: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
        """The client has these; returns those that were on their way, by manager."""
        seqs: dict[int, list[int]] = {}
        for batch in batches:
            counts = self._unacknowledged.pop(batch, None)
            if counts is not None:
                self._results -= counts[0]
                self._bytes -= counts[1]
                seqs.setdefault(batch[0], []).append(batch[1])
        return seqs

    def drop(self) -> set[int]:
        """The client that was sent them is no more; returns the managers that still have some of them."""
        managers = {manager for manager, _ in self._unacknowledged}
        self._batches, self._frames, self._unacknowledged = [], [], {}
        self._results = self._bytes = 0
        return managers

    def take(self) -> tuple[Results, list[Any]] | None:
        """Everything that has not been sent, with its frames, in one message."""
        if not self._batches:
            return None
        taken = Results(self._batches), self._frames
        self._batches, self._frames = [], []
        return taken
