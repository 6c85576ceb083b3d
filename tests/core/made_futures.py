"""Futures for tests, as a client has made and settled them."""

from __future__ import annotations

from typing import Any

from pilotflow.futures import AppFuture
from pilotflow.messages.records import Status
from pilotflow.remote_errors import pack_exception
from pilotflow.serialize import pack


class ClientThatCancels:
    """As much of a client as a future talks to."""

    def __init__(self) -> None:
        self.cancelled: list[AppFuture[Any]] = []

    def may_cancel(self, future: AppFuture[Any]) -> bool:
        return True

    def cancel(self, future: AppFuture[Any]) -> None:
        self.cancelled.append(future)


def new(name: str = "f", number: int = 1) -> AppFuture[Any]:
    return AppFuture(number, name, ClientThatCancels())  # type: ignore[arg-type]


def ended(value: Any) -> AppFuture[Any]:
    future = new()
    future.settle(Status.OK, pack(value))
    return future


def failed(error: BaseException, name: str = "f", number: int = 1) -> AppFuture[Any]:
    future = new(name, number)
    future.settle(Status.ERROR, pack_exception(error))
    return future
