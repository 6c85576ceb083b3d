"""Both kinds of channels keep one contract, which ships with the library."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import zmq

from pilotflow.runtime.channels import Channel, HangUp, Hear, Server, UnixServer, connect
from pilotflow.runtime.connection import Keys, make_keys
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.zmq_channels import ZmqServer, answer_key_questions
from pilotflow.testing.channels import check_channels

LIMIT = 1 << 30


def _no_garbage(why: str) -> None:
    raise AssertionError(f"taken for garbage: {why}")


def test_unix_channels_keep_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def server(loop: Loop, hear: Hear, hang_up: HangUp) -> Server:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        listener.listen()
        return UnixServer(loop, listener, LIMIT, hear, hang_up, _no_garbage)

    def channel(loop: Loop, identity: bytes, hear: Hear, hang_up: HangUp) -> Channel:
        return connect(loop, f"unix:{path}", identity, ("", "", ""), LIMIT, hear, hang_up)

    check_channels(server, channel)


@pytest.mark.parametrize("keys", [Keys(), make_keys()], ids=["plain", "curve"])
def test_zeromq_channels_keep_the_contract(keys: Keys) -> None:
    servers: list[ZmqServer] = []
    contexts: list[zmq.Context[zmq.Socket[bytes]]] = []

    def server(loop: Loop, hear: Hear, hang_up: HangUp) -> Server:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        contexts.append(context)
        if keys.server_secret:
            answer_key_questions(loop, context, {"manager": keys.manager_public})
        secret = keys.server_secret
        servers.append(ZmqServer(loop, context, "tcp://127.0.0.1:*", "manager", secret, LIMIT, hear, _no_garbage))
        return servers[-1]

    def channel(loop: Loop, identity: bytes, hear: Hear, hang_up: HangUp) -> Channel:
        pair = (keys.server_public, keys.manager_public, keys.manager_secret)
        return connect(loop, servers[-1].endpoint, identity, pair, LIMIT, hear, hang_up)

    try:
        check_channels(server, channel)
    finally:
        for context in contexts:
            context.destroy(linger=0)
