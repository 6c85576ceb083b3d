"""Both kinds of channels keep one contract, which ships with the library."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from pilotflow.runtime.channels import Channel, HangUp, Hear, Server, UnixServer, connect
from pilotflow.runtime.connection import Keys, make_keys
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.zmq_channels import ZmqServer, answer_key_questions
from pilotflow.testing.channels import check_channels
from tests.waiting import until

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


def test_a_unix_server_sees_which_of_its_peers_are_stopped(tmp_path: Path) -> None:
    path, loop = tmp_path / "s", Loop()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    heard: list[Hashable] = []
    server = UnixServer(loop, listener, LIMIT, lambda peer, _, __: heard.append(peer), _nothing_heard, _no_garbage)
    channel = connect(loop, f"unix:{path}", b"", ("", "", ""), LIMIT, _nothing_heard, _nothing_heard)
    channel.send(b"from this process", ())
    with subprocess.Popen(
        [sys.executable, "-c", _SENDS_AND_WAITS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while len(heard) < 2:
            loop.turn(1.0)
        ours, theirs = heard
        assert server.goes_on(ours)
        assert server.goes_on(theirs)
        child.send_signal(signal.SIGSTOP)
        until(lambda: not server.goes_on(theirs))
        assert server.goes_on(ours)
        child.send_signal(signal.SIGCONT)
        until(lambda: server.goes_on(theirs))
        assert not server.goes_on("a stranger")
        child.kill()
    channel.close()
    server.close()
    loop.close()


_SENDS_AND_WAITS = """
import sys
from pilotflow.runtime.channels import connect
from pilotflow.runtime.loop import Loop
channel = connect(Loop(), "unix:" + sys.argv[1], b"", ("", "", ""), 1000, print, print)
channel.send(b"from a child", ())
print(flush=True)
sys.stdin.read()
"""


def _nothing_heard(*_: Any) -> None:
    raise AssertionError("nobody has said anything")


def test_a_peer_that_asks_and_does_not_read_is_hung_up_on_and_others_are_not(tmp_path: Path) -> None:
    loop = Loop()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    gone: list[Hashable] = []
    garbage: list[str] = []

    def answer(peer: Hashable, header: Any, frames: Sequence[Any]) -> None:
        server.send(peer, b"a" * 10_000, ())

    server = UnixServer(loop, listener, LIMIT, answer, gone.append, garbage.append, unread_max=50)
    heard: list[bytes] = []
    good = connect(
        loop, f"unix:{tmp_path / 's'}", b"", ("", "", ""), LIMIT, lambda _p, h, _f: heard.append(h), gone.append
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as flood:
        flood.connect(str(tmp_path / "s"))
        flood.settimeout(10)
        asked = 0
        while not gone and asked < 100_000:
            with contextlib.suppress(OSError):  # we have been hung up on
                flood.send(b"q")
            asked += 1
            loop.turn(0)
        assert gone == [2]
        assert garbage == ["a peer asks and asks, and reads nothing"]
    for _ in range(200):  # more than may be unread
        before = len(heard)
        good.send(b"q", ())
        while len(heard) == before:
            loop.turn(1.0)
    assert gone == [2]
    good.close()
    server.close()
    loop.close()


def test_over_zeromq_a_peer_that_does_not_read_is_sent_no_more() -> None:
    loop = Loop()
    peers: list[Hashable] = []
    context = zmq.Context()
    server = ZmqServer(
        loop, context, "tcp://127.0.0.1:*", "control", "", LIMIT, lambda p, _h, _f: peers.append(p), _no_garbage, 5
    )
    mute = context.socket(zmq.DEALER)
    try:
        mute.set(zmq.RCVHWM, 5)
        mute.connect(server.endpoint)
        mute.send(b"q")
        while not peers:
            loop.turn(1.0)
        for _ in range(2_000):  # each 100 kB: far more than the system's buffers have room for
            server.send(peers[0], b"a" * 100_000, ())
        received = 0
        while mute.poll(500):
            assert len(mute.recv()) == 100_000
            received += 1
        assert 0 < received < 2_000
    finally:
        server.close()
        context.destroy(linger=0)
        loop.close()
