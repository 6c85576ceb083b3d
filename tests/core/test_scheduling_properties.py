"""What holds for every cluster and every workload: random ones are driven to their end, and each step is checked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotflow.core.patience import PATIENCE_S, REVIEW_S
from pilotflow.resources import Capacity, Request, SortMethod
from tests.core.scheduling_world import Kind, Node, World

EXAMPLES = pytest.mark.parametrize("examples", [75, pytest.param(5_000, marks=pytest.mark.soak)])

CORES = st.sampled_from([250, 500, 600, 1000, 1000, 1000, 1500, 2000, 3000, 4000])
LIMITS = st.sampled_from([None, None, 5.0, 60.0, 900.0])


@st.composite
def kinds(draw: st.DrawFn, *, seconds: float = 0.0, plain: bool = False) -> Kind:
    """A request class with a duration within its limit."""
    runtime = draw(LIMITS)
    most = min(runtime or 40.0, 40.0)
    resources = draw(st.sampled_from([(), (), (), (("licence", 1),), (("licence", 2),)]))
    request = Request(
        cpus_milli=draw(CORES),
        memory_bytes=draw(st.sampled_from([0, 0, 1, 3, 8])),
        gpus_milli=draw(st.sampled_from([0, 0, 0, 250, 400, 500, 1000, 2000])),
        num_nodes=1 if plain else draw(st.sampled_from([1, 1, 1, 1, 2, 3])),
        runtime_s=runtime,
        priority=draw(st.sampled_from([0, 0, 0, 1, 2])),
        resources=resources,
    )
    executors = draw(st.sampled_from([(), (), (), ("cpu",), ("gpu",), ("cpu", "gpu")]))
    return Kind(request, seconds or draw(st.floats(1.5, max(1.5, most))), executors, draw(st.sampled_from([1, 5])))


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    """A node."""
    return Capacity(
        cpus_milli=1000 * draw(st.integers(1, 8)),
        memory_bytes=draw(st.sampled_from([0, 4, 16])),
        gpus=tuple(map(str, range(draw(st.sampled_from([0, 0, 1, 2, 4]))))),
        slots=draw(st.sampled_from([1, 2, 4, 8, 64])),
        depth_limited=draw(st.sampled_from([False, False, False, True])),
        resources=draw(st.sampled_from([(), (), (("licence", 2),)])),
    )


@dataclass(frozen=True)
class Join:
    capacity: Capacity
    executor: str
    block: str
    left_s: float | None


@dataclass(frozen=True)
class Leave:
    which: int
    lost: bool


@dataclass(frozen=True)
class Send:
    kind: int
    count: int


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class Pass:
    seconds: float


JOIN = st.builds(
    Join,
    capacities(),
    st.sampled_from(["cpu", "cpu", "gpu"]),
    st.sampled_from(["", "b", "c"]),
    st.sampled_from([None, None, 30.0, 1000.0, 4000.0]),
)
SEND = st.builds(Send, st.integers(0, 30), st.integers(1, 12))
EVENTS = st.one_of(
    JOIN,
    SEND,
    SEND,
    st.builds(Leave, st.integers(0, 30), st.booleans()),
    st.builds(Cancel, st.integers(0, 200)),
    st.builds(Pass, st.floats(0.1, 30.0)),
    st.builds(Pass, st.floats(0.1, 30.0)),
)


def play(world: World, event: Join | Leave | Send | Cancel | Pass) -> None:
    """Let something happen."""
    nodes = [*world.nodes.values()]
    match event:
        case Join(capacity, executor, block, left_s):
            world.join(capacity, executor, f"{block}-{executor}" if block else "", left_s)
        case Leave(which, lost):
            if nodes:
                node = nodes[which % len(nodes)]
                if lost:
                    world.leave(node)
                else:
                    world.close(node)
        case Send(kind, count):
            for _ in range(count):
                world.submit(kind % len(world.kinds))
        case Cancel(which):
            ids = [*world.scheduler.tasks]
            if ids:
                world.cancel(ids[which % len(ids)])
        case Pass(seconds):
            world.run_for(seconds)


def could_run_there(world: World, kind: Kind, nodes: list[Node]) -> bool:
    """Whether these nodes, when they are empty, are enough for a task that starts now."""
    id = world.kinds.index(kind)
    able = [
        node.manager.block
        for node in nodes
        if not node.closed
        and node.manager.could_ever_run(world.scheduler.classes[id])
        and node.manager.lasts(world.scheduler.classes[id], world.now)
    ]
    return any(able.count(block) >= kind.request.num_nodes for block in able)


@EXAMPLES
def test_whatever_happens_no_rule_is_broken_and_everything_that_can_run_does(examples: int) -> None:
    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(kinds(), min_size=1, max_size=8),
        st.lists(JOIN, min_size=1, max_size=6),
        st.lists(EVENTS, max_size=40),
        st.sampled_from(SortMethod),
    )
    def check(
        some: list[Kind], joins: list[Join], events: list[Join | Leave | Send | Cancel | Pass], method: SortMethod
    ) -> None:
        world = World(some, method)
        for event in (*joins, *events):
            play(world, event)
        world.run()
        left = set(world.scheduler.tasks)
        assert not any(task.manager for task in world.scheduler.tasks.values())
        for id in left:
            kind = world.kind_of[id]
            assert not could_run_there(world, kind, [*world.nodes.values()]), "a task waits for ever"
        assert len(world.ended) + len(world.cancelled - world.ended.keys()) + len(left) == len(world.kind_of)

    check()


@EXAMPLES
def test_without_losses_every_task_begins_exactly_once(examples: int) -> None:
    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(kinds(), min_size=1, max_size=8),
        st.lists(JOIN.filter(lambda join: join.left_s is None), min_size=1, max_size=8),
        st.lists(st.one_of(SEND, st.builds(Pass, st.floats(0.1, 10.0))), min_size=1, max_size=30),
    )
    def check(some: list[Kind], joins: list[Join], events: list[Send | Pass]) -> None:
        world = World(some)
        for event in (*joins, *events):
            play(world, event)
        world.run()
        for id, kind in world.kind_of.items():
            possible = could_run_there(world, kind, [*world.nodes.values()])
            assert world.started[id] == possible, f"task {id} began {world.started[id]} times"

    check()


@EXAMPLES
def test_short_tasks_are_sent_ahead_within_the_rules(examples: int) -> None:
    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(kinds(seconds=0.05), min_size=1, max_size=5),
        st.lists(JOIN, min_size=1, max_size=5),
        st.lists(
            st.one_of(
                st.builds(Send, st.integers(0, 30), st.integers(1, 60)),
                st.builds(Pass, st.floats(0.01, 0.5)),
                st.builds(Leave, st.integers(0, 30), st.booleans()),
                st.builds(Cancel, st.integers(0, 200)),
                JOIN,
            ),
            max_size=30,
        ),
    )
    def check(some: list[Kind], joins: list[Join], events: list[Join | Leave | Send | Cancel | Pass]) -> None:
        world = World(some)
        for event in (*joins, *events):
            play(world, event)
        world.run()
        assert not any(node.ahead for node in world.nodes.values())

    check()


@EXAMPLES
def test_wide_and_urgent_work_waits_for_a_bounded_time_only(examples: int) -> None:
    """A stream of small tasks that never ends may delay what needs much by patience and by what runs already."""

    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        wide=st.sampled_from(
            [
                Request(cpus_milli=8000),
                Request(cpus_milli=5000, priority=1),
                Request(cpus_milli=1000, memory_bytes=16),
                Request(gpus_milli=2000),
                Request(num_nodes=2, priority=1),
                Request(num_nodes=3),
            ]
        ),
        small=st.lists(
            st.builds(
                Request,
                cpus_milli=st.sampled_from([500, 1000, 2000, 3000]),
                memory_bytes=st.sampled_from([0, 1, 4]),
                gpus_milli=st.sampled_from([0, 0, 500, 1000]),
                runtime_s=st.sampled_from([None, 30.0]),
            ),
            min_size=1,
            max_size=4,
        ),
        seconds=st.lists(st.floats(1.5, 20.0), min_size=4, max_size=4),
        every=st.floats(0.05, 0.5),
        managers=st.integers(3, 5),
    )
    def check(wide: Request, small: list[Request], seconds: list[float], every: float, managers: int) -> None:
        # What is as urgent must have come later, or it would be first by right.
        small = [
            Request(r.cpus_milli, min(r.memory_bytes, wide.memory_bytes), min(r.gpus_milli, wide.gpus_milli))
            for r in small
        ]
        world = World([Kind(wide, 5.0), *(Kind(request, time) for request, time in zip(small, seconds, strict=False))])
        for _ in range(managers):
            world.join(Capacity(8000, 16, ("0", "1"), slots=16), block="b")
        for turn in range(60):  # more than fits
            world.submit(1 + turn % len(small))
        world.run_for(1.0)
        backlog = [id for id, task in world.scheduler.tasks.items() if not task.manager]
        for id in backlog:
            world.cancel(id)
        task = world.submit(0)
        since = world.now
        longest = max(seconds)
        while task.id not in world.begun_at:
            assert world.now - since <= PATIENCE_S + REVIEW_S + 2 * longest + 1.0, "it waits too long"
            for kind in range(len(small)):
                world.submit(1 + kind)
            world.run_for(every)

    check()


def test_tasks_of_several_lost_managers_run_again_in_the_order_in_which_they_came() -> None:
    world = World([Kind(Request(cpus_milli=250), seconds=0.05)])
    nodes = [world.join(Capacity(1000, slots=1)) for _ in range(4)]
    for _ in nodes:
        world.submit(0)
    world.step()
    for node in (nodes[0], nodes[2], nodes[1]):
        world.leave(node)
    assert [task.id for task in world.scheduler.classes[0].queue] == [1, 2, 3]
    world.run()  # which checks that nobody is passed
