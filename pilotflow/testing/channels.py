"""The contract of channels, for any pair of a `Server` and a `Channel`.

def test_my_channels_keep_the_contract(tmp_path):
    check_channels(lambda loop, hear, hang_up: ..., lambda loop, identity, hear, hang_up: ...)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

from pilotflow.memfile import MemoryFile, buffer_of
from pilotflow.runtime.channels import Channel, HangUp, Hear, Server
from pilotflow.runtime.loop import Loop

MakeServer: TypeAlias = Callable[[Loop, Hear, HangUp], Server]
"""Makes a server in this loop, which hears with the first and notices ends with the second."""
MakeChannel: TypeAlias = Callable[[Loop, bytes, Hear, HangUp], Channel]
"""Makes a channel to that server, with this identity."""

SIZES = (0, 1, 1000, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 300_000, 3 << 20)
"""Bytes of the frames that are sent: around the limits where the way of travelling changes."""


class _Side:
    """One end: what it has heard, copied, since headers are good for the call only."""

    def __init__(self) -> None:
        self.heard: list[tuple[Hashable, bytes, list[bytes]]] = []
        self.gone: list[Hashable] = []

    def hear(self, peer: Hashable, header: Any, frames: Sequence[Any]) -> None:
        self.heard.append((peer, bytes(header), [bytes(buffer_of(frame)) for frame in frames]))


class _Bench:
    """A server and the channels to it, in one loop."""

    def __init__(self, make_server: MakeServer, make_channel: MakeChannel, timeout_s: float) -> None:
        self.loop = Loop()
        self.ours = _Side()
        self.server = make_server(self.loop, self.ours.hear, self.ours.gone.append)
        self._make_channel = make_channel
        self._timeout_s = timeout_s
        self._channels: list[Channel] = []

    def join(self, identity: bytes) -> tuple[Channel, _Side]:
        """A new peer."""
        side = _Side()
        channel = self._make_channel(self.loop, identity, side.hear, side.gone.append)
        self._channels.append(channel)
        return channel, side

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Turn the loop until that holds."""
        deadline = time.monotonic() + self._timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"{what} within {self._timeout_s:g} s"
            self.loop.turn(0.05)

    def close(self) -> None:
        """End both sides."""
        for channel in self._channels:
            channel.close()
        self.server.close()
        self.loop.close()


def check_channels(make_server: MakeServer, make_channel: MakeChannel, *, timeout_s: float = 20.0) -> None:
    """Run the whole contract; an AssertionError says what does not hold.

    Args:
        make_server, make_channel: give fresh ones, to be closed by this function.
        timeout_s: seconds that a message may take.
    """
    for check in (_frames_arrive_whole, _order_is_kept_and_nothing_is_dropped, _answers_find_their_peer, _gone_peers):
        bench = _Bench(make_server, make_channel, timeout_s)
        try:
            check(bench)
        finally:
            bench.close()


def _frames_arrive_whole(bench: _Bench) -> None:
    channel, theirs = bench.join(b"one")
    payloads = [bytes([size % 251]) * size for size in SIZES]
    channel.send(b"header", [*payloads, MemoryFile.write((b"of a ", b"memory file"))])
    bench.until(lambda: bool(bench.ours.heard), "a message with frames of all sizes arrives")
    peer, header, frames = bench.ours.heard[0]
    assert header == b"header", f"the header became {header!r}"
    assert frames == [*payloads, b"of a memory file"], f"frames became {[len(frame) for frame in frames]} bytes long"
    long_header = b"h" * 400_000
    bench.server.send(peer, long_header, payloads)
    bench.until(lambda: bool(theirs.heard), "the answer arrives")
    assert theirs.heard[0][1:] == (long_header, payloads), "the answer is another than was sent"


def _order_is_kept_and_nothing_is_dropped(bench: _Bench) -> None:
    channel, theirs = bench.join(b"one")
    count = 20_000
    for number in range(count):  # nobody reads meanwhile: all of it must wait somewhere
        channel.send(b"%d" % number, [b"x" * 100] if number % 7 == 0 else ())
    bench.until(lambda: len(bench.ours.heard) >= count, f"{count} messages to a slow reader arrive")
    assert [int(header) for _, header, _ in bench.ours.heard] == list(range(count)), "messages lost their order"
    peer = bench.ours.heard[0][0]
    for number in range(count):
        bench.server.send(peer, b"%d" % number, ())
    bench.until(lambda: len(theirs.heard) >= count, f"{count} answers arrive")
    assert [int(header) for _, header, _ in theirs.heard] == list(range(count)), "answers lost their order"


def _answers_find_their_peer(bench: _Bench) -> None:
    peers = {b"peer-%d" % i: bench.join(b"peer-%d" % i) for i in range(5)}
    for name, (channel, _) in peers.items():
        channel.send(name, ())
    bench.until(lambda: len(bench.ours.heard) == len(peers), "one message of each peer arrives")
    assert len({peer for peer, _, _ in bench.ours.heard}) == len(peers), "peers are mistaken for each other"
    for peer, name, _ in bench.ours.heard:
        bench.server.send(peer, b"to " + name, ())
    bench.until(lambda: all(side.heard for _, side in peers.values()), "each peer gets an answer")
    for name, (_, side) in peers.items():
        assert [header for _, header, _ in side.heard] == [b"to " + name], f"{name!r} heard {side.heard}"


def _gone_peers(bench: _Bench) -> None:
    leaving, _ = bench.join(b"leaving")
    staying, theirs = bench.join(b"staying")
    leaving.send(b"last words", ())
    bench.until(lambda: bool(bench.ours.heard), "what a peer said before it left arrives")
    gone = bench.ours.heard[0][0]
    leaving.close()
    for _ in range(3):
        bench.server.send(gone, b"nobody hears this", ())
        bench.loop.turn(0.05)
    staying.send(b"still here", ())
    bench.until(lambda: len(bench.ours.heard) == 2, "others are heard after a peer has gone")
    bench.server.send(bench.ours.heard[1][0], b"answer", ())
    bench.until(lambda: bool(theirs.heard), "others are answered after a peer has gone")
