"""Of any queue: nobody asks for too much, in vain or twice, and thinking about it costs little."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pilotflow.core.scaling import Planner, Queue, Supply
from pilotflow.core.shapes import Nodes
from pilotflow.messages.records import ClassLoad
from tests.core.scaling_queue import missing, node, supply, wants

# ---- cost -----------------------------------------------------------------------------------


def test_the_number_of_tasks_costs_nothing() -> None:
    began = time.process_time()
    assert missing([wants(10**15), wants(10**15, cores=3)], supply(room=10**9)) == {"cpu": 10**9}
    assert time.process_time() - began < 0.5


def many_classes(count: int) -> list[ClassLoad]:
    return [
        wants(
            1 + n % 7, *(("a",), ("b", "c"), ())[n % 3], cores=1 + n % 16, gib=n, runtime_s=float(1 + n), priority=n % 5
        )
        for n in range(count)
    ]


def test_thousands_of_classes_cost_milliseconds_and_nothing_when_there_is_no_room() -> None:
    queue = Queue(many_classes(5000))
    offers = [
        supply("a", node(64, gib=5000), room=10_000, walltime_s=86400.0, coming=((1, 50),)),
        supply("b", node(128, gib=500), room=10_000, parallelism=0.5),
        supply("c", node(16), room=10_000),
    ]
    began = time.process_time()
    assert set(Planner().missing(queue, offers)) == {"a", "b", "c"}
    took = time.process_time() - began
    full = [structs_of(offer, room=0) for offer in offers]
    began = time.process_time()
    assert Planner().missing(queue, full) == {}
    nothing = time.process_time() - began
    print(f"5000 classes, three executors: {1000 * took:.0f} ms with room, {1e6 * nothing:.0f} us without")
    assert took < 5.0
    assert nothing < 0.05


def structs_of(offer: Supply, room: int) -> Supply:
    return Supply(offer.nodes, offer.parallelism, room, offer.coming)


def test_what_has_not_changed_is_not_thought_about_again() -> None:
    planner, queue = Planner(), Queue([wants(8)])
    first = planner.missing(queue, [supply()])
    assert planner.missing(queue, [supply()]) is first
    assert planner.missing(queue, [supply(coming=((1, 1),))]) == {"cpu": 1}
    assert planner.missing(Queue([wants(9)]), [supply(coming=((1, 1),))]) == {"cpu": 2}


# ---- any queue ------------------------------------------------------------------------------

NODES = st.builds(
    node,
    st.sampled_from([None, 1, 4, 64]),
    st.sampled_from([None, 8, 256]),
    st.sampled_from([None, 0, 4]),
    depth_limited=st.sampled_from([False, False, True]),
)


SUPPLIES = st.lists(
    st.builds(
        lambda has, nodes, room, coming, parallelism, leased, failing, walltime_s: supply(
            "x",
            has,
            nodes=nodes,
            room=room,
            coming=((nodes, coming),),
            parallelism=parallelism,
            leased=leased,
            failing=failing,
            walltime_s=walltime_s,
        ),
        NODES,
        st.integers(1, 4),
        st.integers(0, 20),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.3, 1.0]),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([None, 3600.0]),
    ),
    min_size=1,
    max_size=4,
)


CLASSES = st.lists(
    st.builds(
        wants,
        st.sampled_from([1, 2, 3, 50, 10**6]),
        cores=st.sampled_from([0.001, 0.5, 1, 3, 64]),
        gib=st.sampled_from([0, 1, 100]),
        gpus=st.sampled_from([0, 0, 0.3, 1, 4]),
        num_nodes=st.sampled_from([1, 1, 2, 4]),
        runtime_s=st.sampled_from([None, 60.0, 4000.0]),
    ),
    max_size=8,
)  # fmt: skip


def labelled(found: list[Supply]) -> list[Supply]:
    return [
        Supply(
            Nodes(structs.replace(one.nodes.blocks, executor=f"x{number}")),
            one.parallelism, one.room, one.coming, one.leased, one.idle, one.failing,
        )
        for number, one in enumerate(found)
    ]  # fmt: skip


@given(found=SUPPLIES, classes=CLASSES, bound=st.lists(st.integers(0, 5), max_size=8))
@settings(deadline=None, max_examples=300)
def test_whatever_waits_nobody_asks_for_too_much_or_in_vain_or_twice(
    found: list[Supply], classes: list[ClassLoad], bound: list[int]
) -> None:
    supplies = labelled(found)
    classes = [
        structs.replace(cls, executors=(f"x{number}",)) for cls, number in zip(classes, bound, strict=False)
    ] + classes[len(bound) :]
    planner = Planner()
    asked = planner.missing(Queue(classes), supplies)
    for one in supplies:
        label = one.nodes.blocks.executor
        blocks = asked.get(label, 0)
        assert 0 <= blocks <= max(0, one.room)
        if blocks:
            assert any(
                (not cls.executors or label in cls.executors) and one.nodes.admits(cls.request) for cls in classes
            ), "blocks that nothing would run on"
    for cls in classes:
        takers = [
            one
            for one in supplies
            if (not cls.executors or one.nodes.blocks.executor in cls.executors) and one.nodes.admits(cls.request)
        ]
        served = not takers or any(
            asked.get(one.nodes.blocks.executor) or any(count for _, count in one.coming) or one.leased or one.room <= 0
            for one in takers
        )
        assert served, "work waits that a block could run, and none is asked for"
    rounds = 0
    while asked:
        supplies = [with_blocks(one, asked.get(one.nodes.blocks.executor, 0)) for one in supplies]
        asked = planner.missing(Queue(classes), supplies)
        rounds += 1
    if all(one.parallelism == 1.0 for one in supplies):
        assert rounds <= 1, "what has been asked for is asked for again"
    assert rounds <= 3, "parts of slots add up, but not for long"


def with_blocks(one: Supply, blocks: int) -> Supply:
    coming = tuple((nodes, count + blocks) for nodes, count in one.coming)
    return Supply(
        one.nodes, one.parallelism, one.room - blocks, coming, one.leased, one.idle, one.failing
    )  # fmt: skip
