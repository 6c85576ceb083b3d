"""Whom the actions of workers count."""

from __future__ import annotations

from pilotflow.messages.client import ManagerDown, ManagerUp
from pilotflow.resources import Capacity
from pilotflow.workflow.roster import Roster


def up(node: str, block: str = "s-0", slots: int = 4) -> ManagerUp:
    return ManagerUp("s", block, node, Capacity(4000, slots=slots))


def down(node: str, block: str = "s-0", *, follows: bool = False) -> ManagerDown:
    return ManagerDown("s", block, node, "it left", planned=True, follows=follows)


def test_every_node_with_a_manager_of_its_own_is_a_worker_that_comes_and_goes_once() -> None:
    roster = Roster()
    assert [roster.joined(up(node)) for node in ("n1", "n2", "n1")] == [True, True, False]
    assert [roster.left(down(node)) for node in ("n1", "n2")] == [True, True]


def test_an_allocation_whose_manager_starts_steps_on_all_nodes_is_one_worker() -> None:
    roster = Roster(at_heads={"s"})
    assert [roster.joined(up(node)) for node in ("n1", "n2", "n1")] == [True, False, False]
    assert roster.joined(up("n3", "s-1"))
    assert [roster.left(down(node)) for node in ("n1", "n2")] == [False, True]
    assert roster.left(down("n3", "s-1"))


def test_an_allocation_that_was_there_before_is_no_new_worker() -> None:
    roster = Roster([("s-0", "n1"), ("s-0", "n2")], {"s"})
    assert not roster.joined(up("n1"))
    assert not roster.joined(up("n3"))
    roster.blocks_are(["s"], ())
    assert roster.joined(up("n1"))


def test_a_node_that_follows_a_head_is_no_worker() -> None:
    roster = Roster()
    assert [roster.joined(up("n2", slots=0)), roster.joined(up("n1"))] == [False, True]
    assert [roster.left(down("n1")), roster.left(down("n2", follows=True))] == [True, False]
