"""A worker reads what its manager took back and sent again as if it had never been taken back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pilotflow.bodies import pack_function
from pilotflow.messages.records import Result, Status, Task
from pilotflow.runtime import link, packets
from pilotflow.runtime.link import InOrder, WorkerLink
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.set_up import pack_setup
from pilotflow.serialize import pack_call, unpack

WORKER = """
import socket, sys
from pilotflow.runtime.worker import Worker
Worker(socket.socket(fileno=int(sys.argv[1])), 1 << 30).run()
"""


def a_seat(number: int) -> link.Sit:
    return link.Sit((number,), (), None, {"SEAT": str(number)}, None, None)


def a_function(fn: int, function: Any) -> tuple[link.ToWorker, Sequence[Any]]:
    return link.GiveFunction(fn, function.__name__), (pack_function(function),)


def a_task(number: int, fn: int, *arguments: Any) -> tuple[link.ToWorker, Sequence[Any]]:
    return link.GiveTask(Task(number, 1, fn, 1, pack_call(arguments, {}, []).payload)), ()


SENT: list[tuple[link.ToWorker, Sequence[Any]]] = [
    (link.Setup(), (pack_setup(os.putenv, ("SET_UP", "yes")),)),
    (a_seat(3), ()),
    a_function(7, os.getenv),
    a_task(1, 7, "SEAT"),
    a_function(8, os.path.join),
    a_task(2, 8, "a", "b"),
    (link.Forget([7]), ()),
    (a_seat(5), ()),
    a_task(3, 8, "c", "d"),
    a_function(7, os.getenv),
    a_task(4, 7, "SEAT"),
]


RESULTS = {1: ("3", (3,)), 2: ("a/b", (3,)), 3: ("c/d", (5,)), 4: ("5", (5,))}
"""Of each task its value, and the cores that it had."""


@pytest.mark.parametrize("taken", range(len(SENT)))
def test_what_was_overtaken_still_comes_first(taken: int) -> None:
    buffer = packets.new_buffer()
    its_link = WorkerLink(Loop(), lambda: None)
    for message, frames in SENT:
        its_link.send(its_link.placed(message), frames)
    again: list[tuple[bytes, Sequence[Any]]] = []
    wanted = dict(RESULTS)
    for message, _ in SENT[:taken]:
        packet = packets.receive(its_link.theirs, buffer)
        assert packet is not None
        if isinstance(message, link.GiveTask):  # another worker gets it
            del wanted[message.task.id]
        else:
            again.append((bytes(packet[0]), packet[1]))
    for header, frames in again:  # now they come after all that was not taken back in time
        its_link.send(header, frames)
    theirs = its_link.theirs.fileno()
    with subprocess.Popen([sys.executable, "-c", WORKER, str(theirs)], pass_fds=[theirs]):
        try:
            assert {result.id: (_value(result), result.cores) for result in _results(its_link, len(wanted))} == wanted
        finally:
            its_link.close()


def _results(its_link: WorkerLink, count: int) -> Iterator[Result]:
    buffer = packets.new_buffer()
    while count:
        packet = packets.receive(its_link.ours, buffer)
        assert packet is not None
        said = link.decode_from_worker(packet[0])
        assert not isinstance(said, link.SetupRaised)
        if isinstance(said, link.TaskDone):
            count -= 1
            yield said.result


def _value(result: Result) -> Any:
    assert result.status is Status.OK
    return unpack(result.payload, result.layout, ())


@pytest.mark.parametrize("seed", range(50))
def test_whatever_overtakes_what_each_task_follows_all_that_was_told_before_it(seed: int) -> None:
    dice = random.Random(seed)
    sent: list[link.ToWorker] = []
    told = 0
    for number in range(30):
        if dice.random() < 0.5:
            told += 1
            sent.append(link.Forget([number], told))
        else:
            sent.append(link.GiveTask(Task(number, 1, 1, 1, b""), told))
    order = InOrder()
    read: list[link.ToWorker] = []
    for message in dice.sample(sent, len(sent)):
        read += [each for each, _ in order.put(message, [])]
    assert len(read) == len(sent)
    seen = 0
    for message in read:
        if isinstance(message, link.GiveTask):
            assert seen >= message.after
        else:
            seen += 1
            assert not isinstance(message, link.Forget) or message.number == seen, "in the order of their numbers"
