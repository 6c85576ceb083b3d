"""What the queue is worth in blocks: by shape, over all executors, whatever the number of tasks."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pilotflow.core.scaling import IdleBlock, Planner, Queue, Supply
from pilotflow.core.shapes import Nodes
from pilotflow.messages.records import ClassLoad
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request

GIB = 1 << 30
INF = float("inf")


def node(cores: int | None = None, gib: int | None = None, gpus: int | None = None, **more: Any) -> NodeShape:
    cpus = None if cores is None else 1000 * cores
    return NodeShape(cpus, None if gib is None else gib * GIB, gpus, more.pop("slots", cores), **more)


def supply(
    label: str = "cpu",
    has: NodeShape | None = None,
    *,
    nodes: int = 1,
    walltime_s: float | None = None,
    room: int = 100,
    seen: tuple[NodeShape, ...] = (),
    **more: Any,
) -> Supply:
    known = Nodes(BlockShape(label, has or node(4), nodes, walltime_s), kinds=seen)
    return Supply(known, room=room, **more)


def wants(count: int = 1, *executors: str, **words: Any) -> ClassLoad:
    cores, gib, gpus = words.pop("cores", 1), words.pop("gib", 0), words.pop("gpus", 0)
    request = Request(int(1000 * cores), gib * GIB, int(1000 * gpus), **words)
    return ClassLoad(request, executors, count)


def missing(queue: list[ClassLoad], *supplies: Supply) -> dict[str, int]:
    return Planner().missing(Queue(queue), supplies)


# ---- one executor ---------------------------------------------------------------------------


def test_nothing_waits_and_nothing_is_asked_for() -> None:
    assert missing([], supply()) == {}


@pytest.mark.parametrize(
    ("tasks", "cores", "blocks"), [(1, 1, 1), (4, 1, 1), (5, 1, 2), (9, 3, 9), (3, 4, 3), (4, 0.5, 1)]
)
def test_tasks_are_packed_into_nodes_by_their_cores(tasks: int, cores: float, blocks: int) -> None:
    assert missing([wants(tasks, cores=cores)], supply()) == {"cpu": blocks}


@pytest.mark.parametrize(
    ("queued", "running", "expected_s", "blocks"),
    [
        (100_000, 4, 20e-6, 0),  # two seconds of work for one slot, and four have it
        (100_000, 0, 20e-6, 1),  # nobody runs any of it now
        (1, 0, 20e-6, 1),
        (100, 4, 0.5, 12),  # four of the fifty slots that would end it within a second are there
        (8, 4, 0.5, 0),
        (100, 4, 1.0, 25),  # long tasks: a slot for each
        (100, 4, None, 25),  # nobody knows
    ],
)
def test_short_tasks_count_for_what_they_take_together(
    queued: int, running: int, expected_s: float | None, blocks: int
) -> None:
    waiting = ClassLoad(Request(), (), queued, running, expected_s)
    assert missing([waiting], supply(room=50)) == ({"cpu": blocks} if blocks else {})


def test_memory_packs_as_cores_do() -> None:
    assert missing([wants(6, gib=6)], supply(has=node(4, gib=16))) == {"cpu": 3}


def test_slots_limit_small_tasks() -> None:
    assert missing([wants(10, cores=0.1)], supply(has=node(4, slots=4))) == {"cpu": 3}


def test_small_work_fills_what_large_work_leaves_on_a_node() -> None:
    assert missing([wants(4, cores=1), wants(4, cores=3)], supply()) == {"cpu": 4}


def test_different_classes_share_a_block() -> None:
    queue = [wants(1, priority=n, runtime_s=float(n + 1)) for n in range(4)]
    assert missing(queue, supply()) == {"cpu": 1}


def test_parts_of_gpus_are_never_split_over_two() -> None:
    assert missing([wants(4, gpus=0.6)], supply(has=node(8, gpus=2))) == {"cpu": 2}
    assert missing([wants(4, gpus=0.5)], supply(has=node(8, gpus=2))) == {"cpu": 1}
    assert missing([wants(3, gpus=0.3)], supply(has=node(8, gpus=1))) == {"cpu": 1}


def test_consumables_of_a_node_are_counted() -> None:
    has = node(8, resources=(("licence", 2),))
    assert missing([wants(5, resources=(("licence", 1),))], supply(has=has)) == {"cpu": 3}
    assert missing([wants(5, resources=(("dongle", 1),))], supply(has=has)) == {}


def test_a_node_that_runs_so_many_at_once_takes_them_whatever_they_ask_for() -> None:
    has = node(None, slots=16, depth_limited=True)
    assert missing([wants(33, cores=64, gib=500, gpus=8)], supply(has=has)) == {"cpu": 3}


def test_the_limit_of_blocks_holds() -> None:
    assert missing([wants(1000)], supply(room=3)) == {"cpu": 3}
    assert missing([wants(1000)], supply(room=0)) == {}
    assert missing([wants(1000)], supply(room=-2)) == {}


def test_blocks_on_their_way_are_counted_with_what_they_will_bring() -> None:
    assert missing([wants(12)], supply(coming=((1, 3),))) == {}
    assert missing([wants(13)], supply(coming=((1, 3),))) == {"cpu": 1}
    assert missing([wants(8, cores=3)], supply(coming=((1, 3),))) == {"cpu": 5}


def test_work_bound_to_others_is_not_its_business() -> None:
    assert missing([wants(5, "gpu"), wants(5, "nobody")], supply()) == {}


# ---- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{"cores": 5}, {"gib": 64}, {"gpus": 1}, {"num_nodes": 2}])
def test_what_fits_no_node_asks_for_nothing(words: dict[str, Any]) -> None:
    assert missing([wants(3, **words)], supply(has=node(4, gib=16, gpus=0))) == {}


def test_gpus_that_nobody_knows_of_count_as_unlimited_until_the_first_block_has_come() -> None:
    """As with options of the batch system that are handed through: only the node itself can tell."""
    unknown = supply(has=node(4))
    assert missing([wants(10, gpus=2)], unknown) == {"cpu": 3}  # by their cores
    nodes = unknown.nodes.learn(Capacity(4000, 16 * GIB, ("0", "1"), 4))
    assert missing([wants(10, gpus=2)], Supply(nodes, room=100)) == {"cpu": 10}
    nodes = unknown.nodes.learn(Capacity(4000, 16 * GIB, (), 4))
    assert missing([wants(10, gpus=2)], Supply(nodes, room=100)) == {}


def test_memory_that_nobody_knows_of_counts_as_unlimited() -> None:
    assert missing([wants(10, gib=64)], supply(has=node(4))) == {"cpu": 3}


def test_an_executor_of_which_nothing_is_known_asks_for_one_block_first() -> None:
    assert missing([wants(10**6, cores=3, gib=7)], supply(has=NodeShape())) == {"cpu": 1}
    assert missing([wants(10**6, cores=3, gib=7)], supply(has=NodeShape(), coming=((1, 1),))) == {}


def test_what_managers_tell_goes_before_what_is_configured() -> None:
    assert missing([wants(8)], supply(has=node(4), seen=(node(8),))) == {"cpu": 1}


def test_of_several_kinds_of_nodes_one_that_fits_is_enough() -> None:
    seen = (node(4, gib=8, gpus=2), node(32, gib=64, gpus=0))
    assert missing([wants(2, cores=20)], supply(seen=seen)) == {"cpu": 2}
    assert missing([wants(2, gpus=2)], supply(seen=seen)) == {"cpu": 2}
    assert missing([wants(2, cores=20, gpus=1)], supply(seen=seen)) == {}


@pytest.mark.parametrize(("runtime_s", "blocks"), [(None, 1), (60.0, 1), (3599.0, 1), (3600.0, 0), (7200.0, 0)])
def test_a_runtime_that_does_not_fit_the_walltime_asks_for_nothing(runtime_s: float | None, blocks: int) -> None:
    found = missing([wants(1, runtime_s=runtime_s)], supply(walltime_s=3600.0))
    assert found.get("cpu", 0) == blocks


# ---- several nodes --------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "num_nodes", "blocks"), [(1, 4, 1), (3, 4, 3), (3, 2, 2), (5, 2, 3), (2, 3, 2)])
def test_tasks_on_several_nodes_need_blocks_with_as_many(tasks: int, num_nodes: int, blocks: int) -> None:
    assert missing([wants(tasks, num_nodes=num_nodes)], supply(nodes=4)) == {"cpu": blocks}


def test_tasks_on_more_nodes_than_a_block_has_ask_for_nothing() -> None:
    assert missing([wants(1, num_nodes=5)], supply(nodes=4)) == {}


def test_nodes_that_a_task_on_several_leaves_over_are_for_small_ones() -> None:
    queue = [wants(4), wants(1, num_nodes=3)]
    assert missing(queue, supply(nodes=4)) == {"cpu": 1}
    assert missing([wants(5), wants(1, num_nodes=3)], supply(nodes=4)) == {"cpu": 2}


def test_the_rest_of_a_block_that_has_begun_to_come_is_no_room_for_a_task_on_several_nodes() -> None:
    assert missing([wants(1, num_nodes=3)], supply(nodes=4, coming=((2, 1),))) == {"cpu": 1}
    assert missing([wants(8)], supply(nodes=4, coming=((2, 1),))) == {}


def test_tasks_on_several_nodes_pass_over_executors_that_ignore_requests() -> None:
    has = node(None, slots=16, depth_limited=True)
    assert missing([wants(1, num_nodes=2)], supply(has=has, nodes=4)) == {}


# ---- parallelism ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "running", "parallelism", "blocks"),
    [
        (8, 0, 1.0, 2),
        (8, 0, 0.5, 1),
        (9, 0, 0.5, 2),
        (100, 4, 0.5, 12),
        (4, 4, 0.5, 0),
        (100, 4, 0.0, 0),
        (100, 0, 0.0, 1),
    ],
)
def test_parallelism_scales_slots_to_tasks(tasks: int, running: int, parallelism: float, blocks: int) -> None:
    """As Parsl has it: slots / (running and waiting tasks) should not be less."""
    found = missing([wants(tasks)], supply(parallelism=parallelism, leased=running))
    assert found.get("cpu", 0) == blocks


@pytest.mark.parametrize("parallelism", [0.0, 0.01, 0.25])
def test_parallelism_holds_for_all_classes_together(parallelism: float) -> None:
    queue = [wants(1, cores=1 + n / 1000) for n in range(16)]
    assert missing(queue, supply(parallelism=parallelism, has=node(8))) == {"cpu": 1}


@given(
    tasks=st.integers(1, 300),
    slots=st.integers(1, 9),
    busy=st.integers(0, 20),
    coming=st.integers(0, 20),
    parallelism=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 0.9, 1.0]),
)
@settings(deadline=None, max_examples=200)
def test_for_equal_tasks_on_equal_nodes_it_is_the_rule_of_slots_for_tasks(
    tasks: int, slots: int, busy: int, coming: int, parallelism: float
) -> None:
    leased = busy * slots
    need = (tasks + leased) * parallelism - leased - coming * slots
    blocks = max(0, -int(-need // slots)) if need > 1e-6 else 0
    if not busy and not coming:
        blocks = max(1, blocks)
    found = missing(
        [wants(tasks)],
        supply(has=node(slots), room=1000, leased=leased, coming=((1, coming),), parallelism=parallelism),
    )
    assert found.get("cpu", 0) == blocks


# ---- several executors ----------------------------------------------------------------------


def test_work_that_may_run_anywhere_asks_one_executor_only() -> None:
    assert missing([wants(8)], supply("a"), supply("b")) == {"a": 2}


def test_when_one_executor_is_at_its_limit_the_rest_goes_to_the_next() -> None:
    assert missing([wants(20)], supply("a", room=2), supply("b", room=2), supply("c")) == {"a": 2, "b": 2, "c": 1}


def test_blocks_on_their_way_of_any_executor_are_used_before_new_ones_are_asked_for() -> None:
    assert missing([wants(8)], supply("a"), supply("b", coming=((1, 2),))) == {}


def test_bound_work_goes_first_and_what_it_leaves_is_for_the_rest() -> None:
    queue = [wants(4), wants(6, "b")]
    assert missing(queue, supply("a"), supply("b", coming=((1, 2),))) == {"a": 1}


def test_work_bound_to_two_executors_asks_neither_of_the_others() -> None:
    assert missing([wants(4, "c", "b")], supply("a"), supply("b", has=node(2)), supply("c")) == {"c": 1}


def test_a_gpu_task_asks_only_executors_that_have_gpus_or_may_have_some() -> None:
    cpu, gpu = supply("cpu", node(4, gpus=0)), supply("gpu", node(4, gpus=1))
    assert missing([wants(3, gpus=1)], cpu, gpu) == {"gpu": 3}
    perhaps = supply("perhaps", node(4))
    assert missing([wants(3, gpus=1)], cpu, perhaps) == {"perhaps": 1}
    assert missing([wants(3, gpus=1)], cpu, perhaps, gpu) == {"gpu": 3}  # certain before possible


def test_work_without_gpus_leaves_nodes_with_gpus_to_others() -> None:
    cpu, gpu = supply("cpu", node(4, gpus=0), room=2), supply("gpu", node(64, gpus=8))
    assert missing([wants(8)], gpu, cpu) == {"cpu": 2}
    assert missing([wants(9)], gpu, cpu) == {"cpu": 2, "gpu": 1}


def test_a_task_of_much_memory_asks_only_where_that_suffices() -> None:
    small, large = supply("small", node(16, gib=32)), supply("large", node(16, gib=256))
    assert missing([wants(4, gib=64)], small, large) == {"large": 1}
    assert missing([wants(4, gib=64), wants(12)], small, large) == {"large": 1}  # small ones go beside them


def test_the_cheapest_blocks_are_those_with_the_fewest_cores_for_the_work() -> None:
    one, many = supply("one", node(1)), supply("many", node(64))
    assert missing([wants(1)], many, one) == {"one": 1}
    assert missing([wants(3, cores=1)], many, one) == {"one": 3}
    assert missing([wants(1, cores=2)], many, one) == {"many": 1}
    assert missing([wants(64)], supply("many", node(64)), supply("sixty", node(60))) == {"many": 1}


def test_of_equally_cheap_executors_the_one_that_is_there_already_is_asked() -> None:
    assert missing([wants(4)], supply("a"), supply("b", seen=(node(4, gib=8, gpus=0),))) == {"b": 1}


def test_an_executor_whose_blocks_fail_is_asked_last() -> None:
    assert missing([wants(4)], supply("a", failing=True), supply("b")) == {"b": 1}
    assert missing([wants(8)], supply("a", failing=True), supply("b", room=1)) == {"a": 1, "b": 1}


def test_a_block_of_a_failing_executor_that_is_on_its_way_is_not_relied_on() -> None:
    assert missing([wants(4)], supply("a", failing=True, coming=((1, 1),)), supply("b")) == {"b": 1}


def test_a_block_of_which_nothing_is_known_is_not_relied_on_while_there_are_others() -> None:
    unknown = supply("unknown", NodeShape(), coming=((1, 1),))
    assert missing([wants(100)], unknown, supply("known", room=3)) == {"known": 3}


# ---- idle blocks ----------------------------------------------------------------------------


def idle(kind: NodeShape, nodes: int = 1, time_left_s: float = INF) -> IdleBlock:
    return IdleBlock((kind,), nodes, time_left_s)


def test_where_a_block_idles_that_would_take_it_another_one_does_not_help() -> None:
    beside = (idle(node(4)),)
    assert missing([wants(9)], supply(idle=beside)) == {}
    assert missing([wants(9)], supply(idle=beside), supply("b")) == {"b": 3}


def test_idle_blocks_that_would_not_take_it_say_nothing() -> None:
    large = (node(4), node(4, gpus=2))
    assert missing([wants(1, gpus=1)], supply(seen=large, idle=(idle(node(4, gpus=0)),))) == {"cpu": 1}
    assert missing([wants(1, num_nodes=3)], supply(nodes=3, idle=(idle(node(4), nodes=2),))) == {"cpu": 1}


@pytest.mark.parametrize(
    ("runtime_s", "time_left_s", "blocks"), [(600.0, 500.0, 1), (400.0, 500.0, 0), (None, 299.0, 1), (None, 301.0, 0)]
)
def test_idle_blocks_with_too_little_time_left_say_nothing(
    runtime_s: float | None, time_left_s: float, blocks: int
) -> None:
    found = missing(
        [wants(1, runtime_s=runtime_s)], supply(walltime_s=3600.0, idle=(idle(node(4), time_left_s=time_left_s),))
    )
    assert found.get("cpu", 0) == blocks


def test_a_block_idles_for_nothing_if_nothing_that_waits_would_run_there_in_the_time_left() -> None:
    queue = Queue([wants(1, gpus=1), wants(1, runtime_s=600.0), wants(1, "b")])
    assert queue.wants("a", idle(node(4, gpus=0), time_left_s=601.0), 3600.0)
    assert not queue.wants("a", idle(node(4, gpus=0), time_left_s=599.0), 3600.0)
    assert queue.wants("a", idle(node(4, gpus=1), time_left_s=599.0), 3600.0)
    assert queue.wants("b", idle(node(4, gpus=0), time_left_s=599.0), 3600.0)
    assert not Queue().wants("a", idle(node(4)), None)


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
