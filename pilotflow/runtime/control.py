"""Questions to a running interchange from another terminal, over its control endpoint."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Hashable, Sequence
from typing import Any

from pilotflow.core.addresses import is_settled
from pilotflow.core.post import Letter, Post
from pilotflow.errors import InfrastructureError, RunClosed
from pilotflow.explanation import Explanation
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.control import (
    ControlMessage,
    Explained,
    ExplainTask,
    Instruct,
    Instructed,
    StatusQuery,
    StatusReport,
    ToControl,
    to_control,
)
from pilotflow.messages.records import Refused
from pilotflow.runtime.channels import connect
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.loop import Loop

_PEER = "interchange"


class _Conversation:
    """One question, and what has been heard since."""

    def __init__(self) -> None:
        self.post = Post(time.time_ns())
        self.answer: ToControl | None = None
        self.hung_up = False
        self._decode = to_control()

    def hear(self, _peer: Hashable, header: Any, frames: Sequence[Any]) -> None:
        """Take a letter of the interchange. What is no letter is passed over; it is not an answer."""
        try:
            envelope = self._decode(header)
        except BadMessage:
            return
        for messages, _ in self.post.receive(_PEER, envelope, frames) or ():
            for message in messages:
                self.answer = message

    def hang_up(self, _peer: Hashable) -> None:
        """The interchange has closed the connection."""
        self.hung_up = True

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.answer is not None or self.hung_up


def ask_status(connection: Connection, timeout_s: float) -> StatusReport:
    """The state of a run: what waits and runs, by executor and block.

    Args:
        connection: the run's connection file.
        timeout_s: how long the interchange may take to answer, in seconds.

    Raises:
        RunClosed: the run is over: nobody listens there any more.
        InfrastructureError: the interchange cannot be reached from here, does not answer in time,
            or is of another version.
    """
    answer = _ask(connection, StatusQuery(), timeout_s)
    if isinstance(answer, StatusReport):
        return answer
    raise _no_answer(connection, answer, timeout_s)


def ask_explanation(connection: Connection, task: str, timeout_s: float) -> Explanation:
    """Why a task is not running, or where it runs.

    Args:
        connection: the run's connection file.
        task: its number, or its name.
        timeout_s: how long the interchange may take to answer, in seconds. It waits itself, for
            the run's program and for a manager, so allow it 5.

    Raises:
        RunClosed, InfrastructureError: see `ask_status`.
    """
    answer = _ask(connection, ExplainTask(1, task), timeout_s)
    if isinstance(answer, Explained):
        return answer.explanation
    raise _no_answer(connection, answer, timeout_s)


def instruct(connection: Connection, verb: str, words: Sequence[str], timeout_s: float) -> str:
    """Have a run's program do something; returns what it says when it is done.

    Args:
        connection: the run's connection file.
        verb, words: what; see `pilotflow.questions.Instruct`.
        timeout_s: how long the program may take, in seconds.

    Raises:
        RunClosed, InfrastructureError: see `ask_status`; also if the program refuses.
    """
    answer = _ask(connection, Instruct(1, verb, list(words)), timeout_s)
    if isinstance(answer, Instructed):
        if answer.done:
            return answer.text
        raise InfrastructureError(f"The program of run {connection.run_id} refuses: {answer.text}.")
    raise _no_answer(connection, answer, timeout_s)


def _ask(connection: Connection, question: ControlMessage, timeout_s: float) -> ToControl | None:
    """The answer; None if none came in time."""
    endpoint = _endpoint(connection, socket.gethostname())
    loop, conversation = Loop(), _Conversation()
    keys = connection.keys
    try:
        channel = connect(
            loop,
            endpoint,
            b"control-" + secrets.token_hex(8).encode(),
            (keys.server_public, keys.control_public, keys.control_secret),
            connection.max_message_bytes,
            conversation.hear,
            conversation.hang_up,
        )
    except (ConnectionError, FileNotFoundError):
        loop.close()
        raise _over(connection) from None
    try:
        for _, header, frames in conversation.post.send({_PEER: Letter([question])}):
            channel.send(header, frames)
        deadline = time.monotonic() + timeout_s
        while not conversation.is_over and (left := deadline - time.monotonic()) > 0:
            loop.turn(left)
    finally:
        channel.close()
        loop.close()
    if conversation.answer is None and conversation.hung_up:
        raise _over(connection)
    return conversation.answer


def _endpoint(connection: Connection, host: str) -> str:
    """Where a run is asked from this host."""
    for endpoint in connection.control:
        if connection.host == host if endpoint.startswith("unix:") else is_settled(endpoint):
            return endpoint
    raise InfrastructureError(
        f"Run {connection.run_id} listens for commands on host {connection.host} only, and this is {host}. Ask there, "
        "or give its executor an `address` of a network, and two `ports` or more if you name any."
    )


def _no_answer(connection: Connection, answer: ToControl | None, timeout_s: float) -> InfrastructureError:
    if isinstance(answer, Refused):
        return InfrastructureError(f"Run {connection.run_id} refuses to answer: {answer.reason}")
    return InfrastructureError(
        f"Run {connection.run_id} has not answered within {timeout_s:g} s. Its interchange may be stopped or very "
        f"busy. Its log is {connection.directory}/pilotflow.log."
    )


def _over(connection: Connection) -> RunClosed:
    return RunClosed(f"Run {connection.run_id} is over. Its log is {connection.directory}/pilotflow.log.")
