"""Every open port is sent rubbish: it is dropped and counted, and the run goes on."""

from __future__ import annotations

import array
import contextlib
import os
import platform
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from pilotflow import PilotExecutor, Run
from pilotflow.errors import InitializerFailed
from pilotflow.ids import VERSION
from pilotflow.messages.client import (
    AckResults,
    CancelTasks,
    ClientAlive,
    DefineClass,
    DefineFunction,
    DefineSetup,
    DrainBlocks,
    FailExecutor,
    Hello,
    LiveBlock,
    LiveBlocks,
    Submit,
    TaskView,
    from_client,
)
from pilotflow.messages.codec import PROTOCOL, Envelope, encode
from pilotflow.messages.control import ExplainTask, StatusQuery, from_control
from pilotflow.messages.manager import (
    Begun,
    CancelOutcome,
    Done,
    IsAt,
    Leaving,
    ManagerAlive,
    Register,
    Returned,
    WorkerSetupFailed,
    from_manager,
)
from pilotflow.messages.records import Result, Status, Task
from pilotflow.messages.views import BlockView, ClientView, Stretch, Whereabouts
from pilotflow.resources import Capacity, Request
from pilotflow.runtime import packets
from tests.integration import fault_tasks as tasks
from tests.integration.faults import config, connection_of, running, status_of
from tests.waiting import logged, until

KINDS = ("client", "managers", "control")


def works(run: Run) -> None:
    """See that the run is as it should be."""
    assert [tasks.square(i).result(60) for i in range(20)] == [i * i for i in range(20)]


def counted(run: Run, number: int, what: str = "the count") -> None:
    """Wait until so many messages have been dropped."""
    until(lambda: status_of(run).dropped >= number, what=what)


def _at_most(folder: Path, number: int) -> bool:
    return len(list(folder.iterdir())) <= number


def endpoints(run: Run) -> dict[str, str]:
    """The Unix sockets that a run listens on, by kind of peer."""
    connection = connection_of(run)
    found = {kind: getattr(connection, kind)[0] for kind in KINDS}
    return {kind: endpoint[5:] for kind, endpoint in found.items() if endpoint.startswith("unix:")}


@contextlib.contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(path)
        yield sock


def rubbish(seed: int) -> list[bytes]:
    """Packets that are none of ours, or only almost."""
    rng = random.Random(seed)
    head = struct.Struct("<BBIH")
    found = [rng.randbytes(rng.choice([1, 2, 7, 100, 5000])) for _ in range(60)]
    found += [bytes([PROTOCOL]) + rng.randbytes(rng.randrange(200)) for _ in range(60)]
    found += [bytes([first]) for first in range(256)]
    found += [b"\xc1", b"\xc1" * 8, head.pack(0xC1, 0, 5, 0)]
    found += [head.pack(0xC1, bits, rng.randrange(1 << 32), rng.randrange(1 << 16)) for bits in range(8)]
    sizes = [-1, 1 << 62, -(1 << 63), 0, 5]
    found += [head.pack(0xC1, bits, 3, 1) + struct.pack("<q", size) + b"abc" for bits in range(4) for size in sizes]
    found += [b"x" * (packets.PACKET_BYTES + 100_000 - 1)]  # longer than anybody reads
    nested = b"\x91" * 5000
    found += [bytes([PROTOCOL]) + nested, encode(Envelope(1, 1, 0, 0, False, []))[:-2]]
    return found


def test_rubbish_on_unix_sockets_is_dropped_and_counted(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        works(run)
        for seed, (kind, path) in enumerate(endpoints(run).items()):
            before = status_of(run).dropped
            packets_ = rubbish(seed)
            with connected(path) as sock:
                for packet in packets_:
                    sock.send(packet)
                counted(run, before + len(packets_), f"the count of {kind}")
            with connected(path):  # comes and goes, and says nothing
                pass
            works(run)
        log = logged(run.directory, "dropped a message that is not ours")
        assert log.count("\n") < 100  # a flood does not fill the log


def test_descriptors_that_come_with_rubbish_are_closed(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        works(run)
        fds = Path(f"/proc/{run._interchange.pid}/fd")
        for path in endpoints(run).values():
            before = status_of(run).dropped
            count = len(list(fds.iterdir()))
            with open(os.devnull, "rb") as file, connected(path) as sock:
                rights = array.array("i", [file.fileno()] * 100)
                for packet in rubbish(1)[:150]:
                    sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                counted(run, before + 150)
            until(partial(_at_most, fds, count + 2), what="the closing of what came")
            works(run)


# ---- valid peers with mutated messages ------------------------------------------------------


def client_messages(run: Run) -> list[Any]:
    task = Task(900_001, 0, 1, 1, b"x" * 20)
    return [
        Hello(VERSION, platform.python_version(), 1, run.run_id, 1),
        DefineFunction(77, b"d" * 16, b"body"),
        DefineClass(77, Request(), ("nowhere",), 5),
        DefineSetup("nowhere", b"payload"),
        Submit([task, Task(900_002, 0, 1, 1, b"", (1, 2))]),
        CancelTasks(1, [900_001], True),
        AckResults([(1, 1), (2, 900)]),
        LiveBlocks([LiveBlock("nowhere", "b", ("true",))]),
        DrainBlocks(["nowhere-0"]),
        FailExecutor("nowhere", "reason"),
        ClientAlive(),
        TaskView(1, ClientView(900_001, "f", blocks=(BlockView("b", "nowhere", None, "pending", "", 1.5),))),
        TaskView(2, ClientView(900_001, "f", 2, among=(Stretch(900_001, 900_002, "f"),))),
    ]


def manager_messages(run: Run) -> list[Any]:
    result = Result(900_001, 1, Status.OK, b"payload", (), 5, 5)
    framed = Result(900_002, 1, Status.ERROR, b"", (1, 1), 5, 5)
    register = Register(
        VERSION, platform.python_version(), "elsewhere", "strange", "node", "session", 1, Capacity(1000, 1 << 30, (), 1, False),
        100.0, [(900_001, 1)], [(900_002, 1)],
    )  # fmt: skip
    return [
        register,
        Done(1, [result, framed]),
        Begun([(900_001, 1)]),
        Returned([(900_001, 1)]),
        CancelOutcome(5, [(900_001, 1)], [900_002]),
        ManagerAlive(50.0),
        Leaving("reason", [(900_001, 1)]),
        WorkerSetupFailed(b"payload"),
        IsAt(1, Whereabouts(True, 3, 1.5, 2)),
    ]


def control_messages(run: Run) -> list[Any]:
    return [StatusQuery(), ExplainTask(1, "900001")]


SPEAKERS: dict[str, tuple[Callable[[Run], list[Any]], Any]] = {
    "client": (client_messages, from_client()),
    "managers": (manager_messages, from_manager()),
    "control": (control_messages, from_control()),
}


def mutated(header: bytes, rng: random.Random) -> bytes:
    """A header with a few bytes changed, cut, doubled or put in; often still a message."""
    data = bytearray(header)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        if len(data) < 2:
            break
        at = rng.randrange(1, len(data))
        how = rng.randrange(6)
        if how == 0:
            data[at] = rng.randrange(256)
        elif how == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at:]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif how == 4:
            data[at:at] = data[at : at + rng.randrange(1, 30)]
        else:  # a number out of all bounds, where there may be a small one
            data[at : at + 1] = msgspec.msgpack.encode(rng.choice([-1, 2**31, 2**63, -(2**63), 2**64 - 1, 1e300, None]))
    return bytes(data)


def mutants(run: Run, kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Mutated letters with messages of one kind of peer."""
    rng = random.Random(seed)
    make, _ = SPEAKERS[kind]
    letters = [[message] for message in make(run)] + [make(run)]
    for number in range(count):
        letter = rng.choice(letters)
        envelope: Envelope[Any] = Envelope(
            rng.choice([1, seed, number]), rng.choice([1, 2, number, 0, -1]), 0, 0, False, letter
        )
        yield mutated(encode(envelope), rng)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_messages_of_valid_peers_do_not_disturb_the_run(tmp_path: Path, kind: str) -> None:
    send_mutants(tmp_path, kind, 1_000)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutated_messages_do_not_disturb_the_run(tmp_path: Path, kind: str) -> None:
    send_mutants(tmp_path, kind, 10_000)


def send_mutants(tmp_path: Path, kind: str, count: int) -> None:
    _, decode = SPEAKERS[kind]
    with running(tmp_path, heartbeat_limit=5, crash_limit=1000) as run:
        works(run)
        before = status_of(run).dropped
        futures = [tasks.square(i) for i in range(500)]
        understood = bad = 0
        letters = list(mutants(run, kind, count, seed=count))
        for start in range(0, count, 50):  # in many lives, because one Register or Leaving changes the rest
            with connected(endpoints(run)[kind]) as sock:
                if start % 100:
                    first = SPEAKERS[kind][0](run)[:1]
                    sock.send(encode(Envelope(time.time_ns(), 1, 0, 0, False, first)))
                sock.setblocking(False)
                for letter in letters[start : start + 50]:
                    sock.setblocking(True)
                    sock.send(letter)
                    try:
                        decode(letter)
                        understood += 1
                    except ValueError:
                        bad += 1
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):  # answers must not pile up
                        while sock.recv(1 << 17):
                            pass
        assert understood > count / 20
        assert bad > count / 20
        until(lambda: status_of(run).dropped >= before + bad, what=f"the count of {bad} messages")
        assert [future.result(60) for future in futures] == [i * i for i in range(500)]
        works(run)
        print(f"{kind}: {bad} of {count} mutants were no messages, {understood} were")


def test_a_failure_of_an_initializer_that_cannot_be_read_is_one_all_the_same(tmp_path: Path) -> None:
    with PilotExecutor(config=config(tmp_path), initializer=int) as pool:
        run = pool._run
        assert pool.submit(pow, 2, 3).result(60) == 8
        (register, *_), executor = manager_messages(run), run.config.executors[0].label
        register.executor, register.leased, register.running = executor, [], []
        with connected(endpoints(run)["managers"]) as sock:
            sock.send(encode(Envelope(1, 1, 0, 0, False, [register])))
            sock.send(encode(Envelope(1, 2, 0, 0, False, [WorkerSetupFailed(b"rubbish")])))
            until(lambda: run.broken is not None)
        with pytest.raises(InitializerFailed, match="and how cannot be read: UnpicklingError"):
            pool.submit(pow, 2, 3)


# ---- TCP ------------------------------------------------------------------------------------


def tcp_address(run: Run) -> tuple[str, int]:
    (endpoint,) = connection_of(run).managers
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


@pytest.mark.parametrize("encrypted", [True, False])
def test_raw_bytes_on_the_tcp_port_are_counted_and_change_nothing(tmp_path: Path, encrypted: bool) -> None:
    with running(tmp_path, tcp=True, encrypted=encrypted) as run:
        works(run)
        assert tcp_address(run)[0] == "127.0.0.1"
        before = status_of(run).dropped
        rng = random.Random(4)
        greeting = bytes([0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1]) + b"CURVE".ljust(20, b"\0") + bytes(32)
        sends = [
            b"GET / HTTP/1.1\r\n\r\n",
            rng.randbytes(100),
            rng.randbytes(100_000),
            greeting,
            greeting[:-32] + rng.randbytes(500),
        ]
        for data in sends * 4:
            with socket.create_connection(tcp_address(run), 10) as sock, contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(1)
                while sock.recv(65536):
                    pass
        until(lambda: status_of(run).dropped >= before + len(sends), what="the count")
        works(run)


@pytest.mark.parametrize("keys", ["another client's", "the control peers'", "none", "no CURVE at all"])
def test_a_peer_without_a_managers_key_is_refused(tmp_path: Path, keys: str) -> None:
    with running(tmp_path, tcp=True) as run:
        works(run)
        ours = connection_of(run).keys
        before = status_of(run).dropped
        context = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        try:
            dealer.linger = 0
            if keys != "no CURVE at all":
                public, secret = zmq.curve_keypair()
                if keys == "the control peers'":
                    public, secret = ours.control_public.encode(), ours.control_secret.encode()
                server = ours.server_public.encode() if keys != "none" else public
                dealer.set(zmq.CURVE_SERVERKEY, server)
                dealer.set(zmq.CURVE_PUBLICKEY, public)
                dealer.set(zmq.CURVE_SECRETKEY, secret)
            dealer.set(zmq.IPV6, 1)
            dealer.connect(connection_of(run).managers[0])
            dealer.send(encode(Envelope(time.time_ns(), 1, 0, 0, False, manager_messages(run)[:1])))
            until(lambda: status_of(run).dropped > before, what="the count")
            assert not dealer.poll(200)
        finally:
            dealer.close()
            context.term()
        works(run)
        assert {block.block for block in status_of(run).blocks} == {"cpu-0"}


def test_mutated_messages_over_tcp_with_valid_keys_do_not_disturb_the_run(tmp_path: Path) -> None:
    with running(tmp_path, tcp=True, heartbeat_limit=3, crash_limit=1000) as run:
        works(run)
        before = status_of(run).dropped
        keys = connection_of(run).keys
        bad = 0
        with zmq.Context() as context:
            for life in range(10):
                dealer = context.socket(zmq.DEALER)
                dealer.linger = 0
                dealer.set(zmq.SNDHWM, 0)
                dealer.set(zmq.IPV6, 1)
                dealer.set(zmq.CURVE_SERVERKEY, keys.server_public.encode())
                dealer.set(zmq.CURVE_PUBLICKEY, keys.manager_public.encode())
                dealer.set(zmq.CURVE_SECRETKEY, keys.manager_secret.encode())
                dealer.connect(connection_of(run).managers[0])
                rng = random.Random(life)
                for letter in mutants(run, "managers", 100, life):
                    frames = [rng.randbytes(rng.randrange(50)) for _ in range(rng.randrange(4))]
                    dealer.send_multipart([letter, *frames])
                    try:
                        from_manager()(letter)
                    except ValueError:
                        bad += 1
                dealer.send_multipart([b""])
                dealer.send(b"x" * 300)
                counted(run, before + bad + 2 * (life + 1))
                dealer.close()
        works(run)
