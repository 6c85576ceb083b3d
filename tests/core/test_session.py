"""Letters arrive once and in order, whatever is lost, late or doubled on the way."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotflow.core.post import Letter, Post
from pilotflow.core.session import ACK_EVERY, EARLY_BYTES, EARLY_FRAMES, Session
from pilotflow.messages.manager import ManagerAlive, Reregister, from_manager, to_manager


def pair() -> tuple[Session, Session]:
    return Session(7), Session(9)


def receive(session: Session, wire: tuple[bytes, Any]) -> list[list[Any]]:
    return [messages for messages, _ in session.unwrap(from_manager()(wire[0]), wire[1])]


def letter(session: Session, number: float) -> tuple[bytes, Any]:
    return session.wrap([ManagerAlive(number)], ())


def numbers(arrived: list[list[Any]]) -> list[Any]:
    return [message.time_left_s for messages in arrived for message in messages]


def test_a_letter_that_comes_early_waits_for_those_before_it() -> None:
    ours, theirs = pair()
    first, second, third = (letter(ours, n) for n in (1, 2, 3))
    assert numbers(receive(theirs, third)) == []
    assert theirs.again
    assert numbers(receive(theirs, second)) == []
    assert numbers(receive(theirs, first)) == [1, 2, 3]
    assert numbers(receive(theirs, first)) == []


def test_a_lost_letter_is_sent_again_when_the_peer_asks() -> None:
    ours, theirs = pair()
    receive(theirs, letter(ours, 1))
    letter(ours, 2)  # lost
    receive(theirs, letter(ours, 3))
    receive(ours, theirs.note())
    resent = ours.take_resends()
    assert [numbers(receive(theirs, wire)) for wire in resent] == [[2, 3], []]


def test_a_sign_of_life_shows_that_the_last_letter_is_missing() -> None:
    ours, theirs = pair()
    letter(ours, 1)  # lost
    receive(theirs, ours.note())
    assert theirs.again


def test_a_repeated_letter_never_asks_for_repetition() -> None:
    ours, theirs = pair()
    letter(theirs, 1)
    receive(ours, letter(theirs, 2))
    assert ours.again
    header, _ = letter(ours, 1)
    assert from_manager()(header).again is False
    assert ours.again  # a note says so


@pytest.mark.parametrize(("size", "count"), [(EARLY_BYTES // 2, 2), (10, EARLY_FRAMES)])
def test_what_comes_early_with_much_payload_is_not_kept_but_asked_for_again(size: int, count: int) -> None:
    ours, theirs = pair()
    letter(ours, 1)  # lost
    frames = [b"x" * size] * count
    for number in (2, 3, 4):
        receive(theirs, ours.wrap([ManagerAlive(number)], frames))
    assert len(theirs._early) == 1
    receive(ours, theirs.note())
    resent = ours.take_resends()
    assert [numbers(receive(theirs, wire)) for wire in resent] == [[1, 2], [], [3], [4]]


def test_a_long_gap_is_asked_about_now_and_then_only() -> None:
    ours, theirs = pair()
    letter(ours, 0)
    asked = 0
    for n in range(1, 1001):
        receive(theirs, letter(ours, n))
        if theirs.again:
            asked += 1
            theirs.note()
    assert asked == 10


def test_letters_are_acknowledged_without_an_answer_after_a_while() -> None:
    ours, theirs = pair()
    for n in range(ACK_EVERY):
        assert not theirs.pressing
        receive(theirs, letter(ours, n))
    assert theirs.pressing
    receive(ours, theirs.note())
    assert ours.unacknowledged == 0


def test_a_letter_for_an_earlier_life_is_dropped() -> None:
    ours, theirs = pair()
    receive(theirs, letter(ours, 1))
    receive(ours, letter(theirs, 5))
    late = letter(theirs, 6)  # it names our stream 7
    again = Session(8)
    assert receive(again, late) == []
    assert again.their_stream == 0


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_every_letter_arrives_once_and_in_order(seed: int, count: int) -> None:
    dice = Random(seed)
    ours, theirs = pair()
    way: list[tuple[bytes, Any]] = []
    back: list[tuple[bytes, Any]] = []
    got: list[Any] = []
    sent = 0
    quiet = 0
    while quiet < 20:
        losing = sent < count
        if losing:
            sent += 1
            way.append(letter(ours, sent))
        else:
            quiet += 1
            way.append(ours.note())
            back.append(theirs.note())
        way += ours.take_resends()
        for wires, end, is_theirs in ((way, theirs, True), (back, ours, False)):
            dice.shuffle(wires)
            while wires and (not losing or dice.random() < 0.7):
                wire = wires.pop()
                if losing and dice.random() < 0.3:
                    continue
                if losing and dice.random() < 0.2:
                    wires.append(wire)
                arrived = receive(end, wire)
                got += numbers(arrived) if is_theirs else []
        if theirs.pressing:
            back.append(theirs.note())
    assert got == list(range(1, count + 1))
    assert ours.unacknowledged == 0


# ---- several peers ------------------------------------------------------------------------------


def exchange_letters(sender: Post, receiver: Post, *messages: Any) -> Any:
    ((_, header, frames),) = sender.send({"peer": Letter(list(messages))})
    return receiver.receive("peer", from_manager()(header), frames)


def test_a_peer_in_the_middle_of_a_conversation_that_we_do_not_know_is_a_stranger() -> None:
    manager, old, new = Post(1), Post(100), Post(200)
    assert exchange_letters(manager, old, ManagerAlive(1.0))
    assert exchange_letters(manager, new, ManagerAlive(2.0)) is None


def test_a_stranger_note_is_heeded_once_however_often_it_comes() -> None:
    manager, old, new = Post(1), Post(100), Post(200)
    exchange_letters(manager, old, ManagerAlive(1.0))
    exchange_letters(manager, new, ManagerAlive(2.0))
    note = to_manager()(new.stranger_note(Reregister()))
    assert manager.receive("peer", note, ()) == [([Reregister()], ())]
    manager.forget("peer")
    assert manager.receive("peer", note, ()) == []  # before it has begun anew
    exchange_letters(manager, new, ManagerAlive(3.0))
    assert manager.receive("peer", note, ()) == []  # and after


def test_a_peer_that_begins_anew_gets_a_new_numbering_from_us_too() -> None:
    manager, interchange = Post(1), Post(100)
    exchange_letters(manager, interchange, ManagerAlive(1.0))
    for _ in range(3):
        ((_, header, _),) = interchange.send({"peer": Letter([Reregister()])})
        manager.receive("peer", to_manager()(header), ())
    exchange_letters(manager, interchange, ManagerAlive(1.0))
    manager.forget("peer")
    assert exchange_letters(manager, interchange, ManagerAlive(2.0)) == [([ManagerAlive(2.0)], [])]
    ((_, header, _),) = interchange.send({"peer": Letter([Reregister()])})
    assert manager.receive("peer", to_manager()(header), ()) == [([Reregister()], ())]


def test_what_comes_late_from_before_a_new_beginning_is_dropped() -> None:
    manager, interchange = Post(1), Post(100)
    ((_, first, _),) = manager.send({"peer": Letter([ManagerAlive(1.0)])})
    ((_, second, _),) = manager.send({"peer": Letter([ManagerAlive(2.0)])})
    interchange.receive("peer", from_manager()(first), ())
    manager.forget("peer")
    exchange_letters(manager, interchange, ManagerAlive(3.0))
    assert interchange.receive("peer", from_manager()(second), ()) == []
