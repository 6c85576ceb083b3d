"""Why the nodes of one executor do not take a task, in the scheduler's own terms.

Everything is looked at afresh, when somebody asks. The order is that of the scheduler: what could
never fit, what time is left, what others hold, what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pilotflow.core.notices import EACH_NODE
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import Kind, Number, Reason, listed
from pilotflow.units import format_duration, format_memory

LISTED_MAX: Final = 9
"""Tasks that a reason names."""
_KEYWORDS: Final = {Kind.CORES: "num_cpus", Kind.MEMORY: "memory", Kind.GPUS: "num_gpus", Kind.CONSUMABLE: "resources"}
_UNITS: Final = {Kind.CORES: "cpus_milli", Kind.MEMORY: "bytes", Kind.GPUS: "gpus_milli", Kind.CONSUMABLE: "amount"}


class Amount(NamedTuple):
    """What a task asks for of one thing, and what a node has of it."""

    kind: Kind
    name: str  # of a consumable
    asked: int
    free: int
    has: int

    def words(self, amount: int) -> str:
        """So much of it, as people write it."""
        match self.kind:
            case Kind.MEMORY:
                return f"{format_memory(amount)} of memory"
            case Kind.CORES:
                return _count(amount, "core")
            case Kind.GPUS:
                return _count(amount, "GPU")
            case _:
                return f"{amount} of '{self.name}'"

    def bare(self, amount: int) -> str:
        """So much of it, where it is clear of what."""
        match self.kind:
            case Kind.MEMORY:
                return format_memory(amount)
            case Kind.CORES | Kind.GPUS:
                return f"{amount / 1000:g}"
            case _:
                return str(amount)

    def numbers(self) -> tuple[Number, ...]:
        """What is asked, free, and there at all."""
        unit = _UNITS[self.kind]
        return Number(f"asked_{unit}", self.asked), Number(f"free_{unit}", self.free), Number(f"node_{unit}", self.has)


def _count(milli: int, what: str) -> str:
    return f"{milli / 1000:g} {what}{'' if milli == 1000 else 's'}"


def amounts(manager: Manager, cls: RequestClass) -> Iterator[Amount]:
    """Everything that tasks of the class ask for, on one node that does not ignore it."""
    request, capacity = cls.request, manager.capacity
    yield Amount(Kind.CORES, "", request.cpus_milli, manager.free_cpus, capacity.cpus_milli)
    if request.memory_bytes and capacity.memory_bytes:
        yield Amount(Kind.MEMORY, "", request.memory_bytes, manager.free_memory, capacity.memory_bytes)
    if asked := request.gpus_milli:
        whole = 1000 * sum(amount == 1000 for amount in manager.free_gpus)
        free = whole if asked >= 1000 else max(manager.free_gpus, default=0)
        yield Amount(Kind.GPUS, "", asked, free, 1000 * len(capacity.gpus))
    has = dict(capacity.resources)
    for name, amount in request.resources:
        yield Amount(Kind.CONSUMABLE, name, amount, manager.free_resources.get(name, 0), has.get(name, 0))


def why_not(cls: RequestClass, executor: str, managers: Sequence[Manager], now: float) -> list[Reason]:
    """Why none of these managers, which are all of one executor, takes a task of the class now."""
    present = [manager for manager in managers if not manager.closed]
    if all(manager.capacity.follows for manager in present):  # nothing begins there any more
        count = "Its node takes" if len(managers) == 1 else f"All of its {len(managers)} nodes take"
        text = f"{count} no more work: it is drained, or its block ends."
        return [Reason(Kind.CLOSED, text, executor, (Number("nodes", len(managers)),))]
    able = [manager for manager in present if manager.could_ever_run(cls)]
    if all(manager.capacity.follows for manager in able):  # every task begins where there are workers
        return [_too_big(cls, executor, [manager for manager in present if not manager.capacity.follows])]
    lasting = [manager for manager in able if manager.lasts(cls, now)]
    if not lasting:
        return [_too_long(cls, executor, able, now)]
    if cls.request.num_nodes > 1:
        return [_too_few_nodes(cls, executor, lasting)]
    reason = _no_room(cls, executor, lasting, now)
    idle = [manager for manager in present if manager.capacity.follows and manager.gang is None]
    return [_on_the_head_alone(reason, idle) if idle and reason.kind is not Kind.NEXT else reason]


def _on_the_head_alone(reason: Reason, idle: Sequence[Manager]) -> Reason:
    """The same, and that nodes idle which follow a head."""
    others = f"{len(idle)} other node{'s idle' if len(idle) > 1 else ' idles'}"
    text = f"{reason.text} Tasks on one node run at the head of each block alone; {others}."
    numbers = (*reason.numbers, Number("idle_followers", len(idle)))
    where = reason.tasks, reason.block, reason.node
    return Reason(
        reason.kind, text, reason.executor, numbers, *where, f"To use all nodes for tasks on one node, {EACH_NODE}"
    )


def _too_big(cls: RequestClass, executor: str, managers: Sequence[Manager]) -> Reason:
    nodes = [manager for manager in managers if not manager.capacity.depth_limited]
    if not nodes:
        text = "Its nodes take tasks by number only (max_parallel_jobs), and no task on several nodes."
        return Reason(Kind.TOO_BIG, text, executor, advice="Bind it to an executor without max_parallel_jobs.")
    over = [amount for amount, _ in _largest(nodes, cls) if amount.asked > amount.has]
    if not over:
        words = listed([amount.words(amount.asked) for amount in amounts(nodes[0], cls)])
        text = f"It is too big: no node has {words} together."
        return Reason(Kind.TOO_BIG, text, executor, advice="Ask for less, or bind the task to another executor.")
    asked = listed([amount.words(amount.asked) for amount in over])
    has = listed([amount.bare(amount.has) for amount in over])
    text = f"It is too big: it asks for {asked} on one node, and the largest has {has}."
    most = listed([f"{_KEYWORDS[amount.kind]}={_argument(amount)}" for amount in over if amount.has])
    advice = f"Ask for less (at most {most}), or" if most else "Bind it to an executor that has what it asks for, or"
    numbers = tuple(number for amount in over for number in amount.numbers())
    return Reason(Kind.TOO_BIG, text, executor, numbers, advice=f"{advice} cancel it: it would wait for ever.")


def _argument(amount: Amount) -> str:
    match amount.kind:
        case Kind.MEMORY:
            return f'"{amount.has >> 20}m"' if amount.has % (1 << 30) else f'"{amount.has >> 30}g"'
        case Kind.CONSUMABLE:
            return f'{{"{amount.name}": {amount.has}}}'
        case _:
            return f"{amount.has / 1000:g}"


def _too_long(cls: RequestClass, executor: str, managers: Sequence[Manager], now: float) -> Reason:
    longest = max(managers, key=lambda manager: manager.end_at or 0.0)
    left = max(0.0, (longest.end_at or 0.0) - now)
    runtime = cls.request.runtime_s
    if runtime is None:
        needed = longest.min_time_s
        text = f"It does not say its runtime, so it starts only where {format_duration(needed)} are left."
        remedy = "Say its runtime, or have blocks with a longer walltime."
    else:
        needed = runtime
        text = f"It asks for a runtime of {format_duration(needed)}."
        remedy = "Blocks with a longer walltime, or a shorter runtime, would help."
    text += f" The block that lasts longest ({longest.block}) has {format_duration(left)} left."
    numbers = Number("asked_s", needed), Number("left_s", left)
    advice = f"It waits for a new block. {remedy}"
    return Reason(Kind.TOO_LONG, text, executor, numbers, block=longest.block, advice=advice)


def _no_room(cls: RequestClass, executor: str, managers: Sequence[Manager], now: float) -> Reason:
    room = [manager for manager in managers if manager.gang is None]
    if not room:
        return _taken(executor, managers)
    if any(manager.fits(cls, now) for manager in room):
        return Reason(Kind.NEXT, "Nothing stands in its way there.", executor, advice="It is handed out next.")
    for manager in room:
        if manager.has_room(cls) and _kept_for_other(manager, cls) is not None:
            return _reserved(executor, manager, cls)
    full = all(manager.free_slots <= 0 for manager in room)
    if full and (cls.request.cpus_milli <= 1000 or all(manager.capacity.depth_limited for manager in room)):
        return _no_slot(executor, room)
    return _short_of(cls, executor, room)


def _taken(executor: str, managers: Sequence[Manager]) -> Reason:
    tasks = _gangs(managers)
    who = f"Task {tasks[0]} has" if len(tasks) == 1 else f"{len(tasks)} tasks on several nodes have"
    nodes = "the only node" if len(managers) == 1 else f"all {len(managers)} nodes"
    return Reason(
        Kind.TAKEN, f"{who} {nodes} for itself.", executor, (Number("nodes", len(managers)),), tasks[:LISTED_MAX]
    )


def _gangs(managers: Iterable[Manager]) -> tuple[int, ...]:
    """The multi-node tasks that have some of these nodes."""
    return tuple(sorted({manager.gang for manager in managers if manager.gang is not None}))


def _kept_for_other(manager: Manager, cls: RequestClass) -> str | None:
    """For which task of another class a node is kept free, in words."""
    if manager.reserved is None or manager.reserved.cls is cls:
        return None
    first = manager.reserved.cls.first()
    return "another task" if first is None else f"task {first.id}"


def _reserved(executor: str, manager: Manager, cls: RequestClass) -> Reason:
    first = manager.reserved.cls.first() if manager.reserved is not None else None
    who = _kept_for_other(manager, cls)
    text = f"There is room on node {manager.node}, which is kept free for {who}: that one is more urgent."
    tasks = () if first is None else (first.id,)
    return Reason(Kind.RESERVED, text, executor, (), tasks, manager.block, manager.node)


def _no_slot(executor: str, managers: Sequence[Manager]) -> Reason:
    slots, nodes = sum(manager.capacity.slots for manager in managers), len(managers)
    where = "of its node" if nodes == 1 else f"on its {nodes} nodes"
    numbers = Number("slots", slots), Number("free_slots", 0), Number("nodes", nodes)
    if any(manager.capacity.depth_limited for manager in managers):
        most = max(manager.capacity.slots for manager in managers)
        text = "Its node runs" if nodes == 1 else f"Each of its {nodes} nodes runs"
        text += f" at most {most} task{'s' * (most > 1)} at once (max_parallel_jobs), and "
        text += "is full." if nodes == 1 else "all are full."
        return Reason(Kind.DEPTH, text, executor, numbers)
    text = f"The only slot {where} is taken." if slots == 1 else f"All {slots} slots {where} are taken."
    return Reason(Kind.SLOTS, text, executor, numbers)


def _short_of(cls: RequestClass, executor: str, managers: Sequence[Manager]) -> Reason:
    """What is short on every node, or else what is on the node that is nearest to enough."""
    nodes = [manager for manager in managers if not manager.capacity.depth_limited]
    for amount, node in _largest(nodes, cls, free=True):
        if amount.asked > amount.free:
            most = f"{amount.bare(amount.free)} of {amount.bare(amount.has)}"
            verb = "is" if amount.kind is Kind.MEMORY or amount.bare(amount.free) == "1" else "are"
            if len(nodes) == 1:
                there = f"{most} {verb} free on its node ({node.node})."
            else:
                there = f"At most {most} {verb} free on one node ({node.node})."
            text = f"It asks for {amount.words(amount.asked)}. {there}"
            return Reason(amount.kind, text, executor, amount.numbers(), block=node.block, node=node.node)
    with_slot = [manager for manager in nodes if manager.free_slots > 0]
    if not with_slot:
        return _no_slot(executor, managers)
    return _apart(cls, executor, min(with_slot, key=lambda manager: len(_short(manager, cls))))


def _apart(cls: RequestClass, executor: str, nearest: Manager) -> Reason:
    missing = _short(nearest, cls)
    asked = listed([amount.words(amount.asked) for amount in amounts(nearest, cls)])
    free = listed([f"{amount.bare(amount.free)} of {amount.words(amount.has)}" for amount in missing])
    text = f"It asks for {asked} on one node. The nearest to that is {nearest.node}: {free} free."
    numbers = tuple(number for amount in missing for number in amount.numbers())
    return Reason(Kind.APART, text, executor, numbers, block=nearest.block, node=nearest.node)


def _short(manager: Manager, cls: RequestClass) -> list[Amount]:
    """What a node has too little of."""
    if manager.capacity.depth_limited:
        return []
    return [amount for amount in amounts(manager, cls) if amount.asked > amount.free]


def _largest(managers: Iterable[Manager], cls: RequestClass, *, free: bool = False) -> list[tuple[Amount, Manager]]:
    """Of everything that is asked for, the most that a node has (or has free), and which node that is."""
    best: dict[tuple[Kind, str], tuple[Amount, Manager]] = {}
    for manager in managers:
        for amount in amounts(manager, cls):
            known = best.get((amount.kind, amount.name))
            if known is None or _size(amount, free=free) > _size(known[0], free=free):
                best[amount.kind, amount.name] = amount, manager
    return list(best.values())


def _size(amount: Amount, *, free: bool) -> tuple[int, int]:
    return (amount.free, amount.has) if free else (amount.has, amount.free)


def _too_few_nodes(cls: RequestClass, executor: str, managers: Sequence[Manager]) -> Reason:
    blocks: dict[str, list[Manager]] = {}
    for manager in managers:
        blocks.setdefault(manager.block, []).append(manager)
    wanted = cls.request.num_nodes
    largest = max(blocks.values(), key=len)
    if len(largest) < wanted:
        text = f"It asks for {wanted} nodes of one block. The largest block here ({largest[0].block}) has "
        text += f"{len(largest)} that can take it."
        numbers = Number("asked_nodes", wanted), Number("nodes", len(largest))
        advice = f"It starts in a block with nodes_per_block={wanted} or more."
        return Reason(Kind.NODES, text, executor, numbers, block=largest[0].block, advice=advice)
    big = [members for members in blocks.values() if len(members) >= wanted]
    best = max(big, key=lambda members: sum(_is_empty(manager, cls) for manager in members))
    empty = sum(_is_empty(manager, cls) for manager in best)
    heads = [manager for manager in best if not manager.capacity.follows]
    if 0 < len(heads) < len(best) and not any(_is_empty(manager, cls) for manager in heads):
        head, what = heads[0], _what_is_on(heads[0], cls)
        text = "Tasks on several nodes begin at the head of their block, one at a time. "
        text += f"That of {head.block}, {head.node}, is {'busy ' if what.startswith('with') else ''}{what}."
        figures = Number("asked_nodes", wanted), Number("empty_nodes", empty), Number("nodes", len(best))
        advice = f"To have several at once, {EACH_NODE}"
        return Reason(Kind.NODES, text, executor, figures, _gangs(heads), head.block, head.node, advice)
    if empty >= wanted:
        return Reason(Kind.NEXT, "Nothing stands in its way there.", executor, advice="It is handed out next.")
    text = f"It waits for {wanted} empty nodes of one block. {best[0].block} has {empty} of {len(best)}{_why_full(best, cls)}."
    figures = Number("asked_nodes", wanted), Number("empty_nodes", empty), Number("nodes", len(best))
    return Reason(Kind.NODES, text, executor, figures, _gangs(best)[:LISTED_MAX], block=best[0].block)


def _is_empty(manager: Manager, cls: RequestClass) -> bool:
    return not manager.leases and manager.gang is None and _kept_for_other(manager, cls) is None


def _why_full(managers: Sequence[Manager], cls: RequestClass) -> str:
    """What is on the nodes that are not empty, as the rest of a sentence."""
    on: dict[str, int] = {}
    for manager in managers:
        if what := _what_is_on(manager, cls):
            on[what] = on.get(what, 0) + 1
    return f", {listed([f'{count} {what}' for what, count in on.items()])}" if on else ""


def _what_is_on(manager: Manager, cls: RequestClass) -> str:
    if manager.gang is not None:
        return f"with task {manager.gang}"
    if manager.leases:
        return "with other tasks"
    other = _kept_for_other(manager, cls)
    return "" if other is None else f"kept free for {other}"
