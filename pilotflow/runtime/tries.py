"""Further tries of tasks that have failed: whether there is one, how long it waits, what is left of a timeout."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable

from pilotflow.core.graph import LOCAL, Kept
from pilotflow.core.retry import Policy, left_s, pause_s
from pilotflow.errors import ConfigError
from pilotflow.messages.records import Result, Status, decode_excess, encode_excess
from pilotflow.units import show

_CHANCES = (Status.ERROR, Status.EXCEEDED)
"""Ends that are the task's own doing; after others it is not tried again by us."""


class Tries:
    """Used by the client loop's thread only.

    Args:
        submit: submits a task once more, in that request class.
        narrowed: the request class that is like another, with that many seconds left of the timeout.
    """

    def __init__(self, submit: Callable[[int, int], None], narrowed: Callable[[int, float], int]) -> None:
        self._submit = submit
        self._narrowed = narrowed
        self._paused: list[tuple[float, int, int]] = []  # when, task, class
        self.due_at = math.inf
        """When `resume` must be called."""

    def pause_s(
        self, kept: Kept, policy: Policy, name: str, result: Result, error_of: Callable[[], BaseException]
    ) -> float | None:
        """Seconds to wait before the next try of a task, or None if this was the last.

        Args:
            kept, policy, name: the task.
            result: how its attempt has ended; of a timeout its payload is made to tell of all attempts.
            error_of: gives the exception that it has ended with.

        Raises:
            ConfigError: its `retry_handler` raised, or answered nonsense.
        """
        if result.status not in _CHANCES:
            return None
        took_s = result.duration_us / 1e6
        excess = decode_excess(result.payload) if result.status is Status.EXCEEDED else None
        if excess is not None and excess.kind != "memory":
            took_s = max(took_s, excess.taken)
        kept.used_s += took_s
        if excess is not None:
            if excess.kind == "walltime":
                return None
            if excess.kind == "timeout":
                excess.asked, excess.taken = policy.timeout_s or excess.asked, kept.used_s
                result.payload = encode_excess(excess)
                return None
        if kept.retries <= 0 or left_s(policy, kept.used_s) == 0.0:
            return None
        if policy.handler is None:
            return pause_s(policy, kept.tries)
        error = error_of()
        try:
            return pause_s(policy, kept.tries, policy.handler(error, kept.tries))
        except BaseException as problem:  # `sys.exit` in it must not end the loop that all futures wait for
            failure = ConfigError(
                f"'{name}' was not tried again, because its retry_handler failed: {type(problem).__name__}: {problem}. "
                f"It was asked about try {kept.tries}, which had ended with {type(error).__name__}: {show(str(error))}"
            )
            problem.__cause__ = problem.__cause__ or error
            raise failure from problem

    def submit(self, kept: Kept, pause: float) -> None:
        """Try the task again after that many seconds."""
        cls = kept.task.cls
        if cls != LOCAL and kept.policy is not None and (left := left_s(kept.policy, kept.used_s)) is not None:
            cls = self._narrowed(cls, left)
        if pause > 0.0:
            heapq.heappush(self._paused, (time.monotonic() + pause, kept.task.id, cls))
            self.due_at = self._paused[0][0]
        else:
            self._submit(kept.task.id, cls)

    def paused(self) -> set[int]:
        """The tasks that are tried again after a while."""
        return {id for _, id, _ in self._paused}

    def left_s(self, task: int) -> float | None:
        """Seconds until a task is tried again, or None if it does not pause."""
        ends = [at for at, id, _ in self._paused if id == task]
        return max(0.0, ends[0] - time.monotonic()) if ends else None

    def resume(self, now: float) -> None:
        """Submit the tasks whose pause is over."""
        while self._paused and self._paused[0][0] <= now:
            _, id, cls = heapq.heappop(self._paused)
            self._submit(id, cls)
        self.due_at = self._paused[0][0] if self._paused else math.inf
