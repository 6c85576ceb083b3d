"""Why a task is not running, or where it is: the scheduler's reasons, blocks and dependencies together.

Nothing is kept for this while nobody asks. An answer costs one look at each manager and class of
the run, and is made from what the interchange knows (`Scheduler`), what the run's program has told
(`ClientView`), and what the manager has told that holds the task (`Whereabouts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilotflow.core.block_records import Phase
from pilotflow.core.line import Line
from pilotflow.core.scheduler import Scheduler
from pilotflow.core.shortage import why_not
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import HOPELESS, RANKS, Explanation, Kind, Number, Reason, State, listed
from pilotflow.messages.records import Task
from pilotflow.messages.views import BlockView, ClientView, ExecutorView, Whereabouts
from pilotflow.units import counted, format_duration

_AWAITED: Final = frozenset(one.value for one in (Phase.REQUESTED, Phase.PENDING, Phase.RUNNING, Phase.SUSPENDED))
_BUSY: Final = frozenset(
    {Kind.CORES, Kind.MEMORY, Kind.GPUS, Kind.CONSUMABLE, Kind.APART, Kind.SLOTS, Kind.DEPTH, Kind.TAKEN, Kind.NODES}
)
"""What passes when tasks end."""
MORE_NODES: Final = " For more nodes, "
"""What advice to have more blocks begins with; it ends there. Who runs a workflow has other words for them."""
_BLOCKS_SHOWN: Final = 3
_WORDS_MAX: Final = 300


@dataclass(frozen=True)
class Facts:
    """What an interchange knows beyond its scheduler.

    Attributes:
        view: what the run's program knows; None if it does not answer.
        failed: executors that will have no more blocks, and why.
        misfits: executors whose new blocks would not take the task, and why.
        behind: results that the program has not taken, if nothing is handed out for that; else 0.
        history: one line for each attempt at the task that was lost.
        cancelling: whether the task is being ended on the program's order.
        gathering: nodes of the task, which is for several, that have not said yet that they are empty.
        holder_heard_s: how long ago the manager that holds the task was last heard of.
    """

    view: ClientView | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    behind: int = 0
    history: Sequence[str] = ()
    cancelling: bool = False
    gathering: int = 0
    holder_heard_s: float = 0.0
    misfits: Mapping[str, str] = field(default_factory=dict)


def explain_queued(scheduler: Scheduler, task: Task, name: str, facts: Facts, now: float) -> Explanation:
    """Why a task waits that no manager has."""
    cls = scheduler.classes[task.cls]
    managers: dict[str, list[Manager]] = {}
    for manager in scheduler.managers.values():
        managers.setdefault(manager.executor, []).append(manager)
    known = [one.executor for one in facts.view.executors] if facts.view is not None else []
    labels = list(dict.fromkeys([*known, *managers, *sorted(cls.executors)]))
    parts = [_of_executor(cls, label, managers.get(label, []), facts, now) for label in labels]
    if not labels:
        parts = [[Reason(Kind.NO_BLOCK, "No manager has joined yet.")]]
    parts.sort(key=lambda part: RANKS[part[0].kind])
    reasons = [_behind(facts.behind)] if facts.behind else []
    reasons += [reason for part in parts for reason in part]
    hopeless = {part[0].executor for part in parts if part[0].kind in HOPELESS}
    hopeful = [label for label in labels if cls.admits(label) and label not in hopeless]
    if hopeful:
        reasons += _order(scheduler, cls, task, {label: managers.get(label, []) for label in hopeful})
    return Explanation(task.id, name, State.QUEUED, (*reasons, *_lost(cls, facts)))


def explain_leased(
    scheduler: Scheduler, task: Task, name: str, manager: Manager, place: Whereabouts | None, facts: Facts
) -> Explanation:
    """Where a task is that a manager has. `place` is None if that manager does not answer."""
    gang = scheduler.gangs.by_task.get(task.id)
    nodes = [member.node for member in gang.managers] if gang is not None else [manager.node]
    where = f"node{'s' * (len(nodes) > 1)} {listed(nodes)} (block {manager.block})"
    if facts.gathering:
        text = f"It has {where}. {facts.gathering} of {len(nodes)} have not said yet that nothing runs there any more."
        advice = "It starts when all nodes have said so, which takes moments."
        state, reason = State.LEASED, _at(manager, Kind.SENT, text, (Number("missing", facts.gathering),), advice)
    else:
        runtime_s = scheduler.classes[task.cls].request.runtime_s
        state, reason = _place(place, where, manager, facts.holder_heard_s, runtime_s)
    reasons = [reason]
    if facts.cancelling:
        reasons.insert(0, Reason(Kind.ENDING, "It is being cancelled."))
    return Explanation(task.id, name, state, (*reasons, *_lost(scheduler.classes[task.cls], facts)))


def explain_waiting(view: ClientView, root: Explanation | None) -> Explanation:
    """Why a task waits that needs others; `root` is what can be said of the one that all of this waits for."""
    names = [str(need) for need in view.needs] + ["another"] * (view.needed - len(view.needs))
    if view.needed == 1:
        text = f"It needs the result of {names[0]}."
    else:
        text = f"It needs the results of {view.needed:,} tasks that have not ended: {listed(names)}."
    advice = "" if root is not None else "It goes on when that future has a result."
    tasks = tuple(need.task for need in view.needs if need.task)
    needs = Reason(Kind.NEEDS, text, "", (Number("needed", view.needed),), tasks, advice=advice)
    return Explanation(view.task, view.name, State.WAITING, (needs,), view.chain, view.links, root)


def explain_here(task: int, name: str, view: ClientView) -> Explanation:
    """The run's program runs it itself, or waits before it tries it again."""
    return Explanation(task, name, State.RUNNING if view.runs_here else State.WAITING, (Reason(Kind.HERE, view.here),))


def explain_held_back(task: int, name: str) -> Explanation:
    """The task's arguments are big, and so are those of many before it."""
    text = "Its arguments are big, and as many such arguments as may be at once are on their way to other tasks."
    reason = Reason(Kind.HELD_BACK, text, advice="It is sent when some of those tasks have ended.")
    return Explanation(task, name, State.QUEUED, (reason,))


def explain_restart(task: int, name: str) -> Explanation:
    """The interchange has been restarted, and does not know yet whether the task is running."""
    text = "The interchange was restarted, and waits for the managers that may be running it."
    advice = "If none of them comes back with it, it is tried again."
    return Explanation(task, name, State.QUEUED, (Reason(Kind.RESTART, text, advice=advice),))


def explain_ended(task: int, name: str) -> Explanation:
    """It has ended a moment ago, and the program does not know yet."""
    text = "It has just ended, and its result is on its way to the run's program."
    return Explanation(task, name, State.ENDED, (Reason(Kind.ENDED, text),))


def explain_unknown(asked: str, names: Sequence[str] = ()) -> Explanation:
    """Nothing that is pending is called that."""
    text = f"No task {asked} is pending in this run."
    if names:
        text += f" There are: {listed(names)}."
    return Explanation(0, "", State.UNKNOWN, (Reason(Kind.UNKNOWN, text),))


def explain_unheard(asked: str) -> Explanation:
    """The interchange alone does not know it."""
    text = f"The interchange does not know task {asked}; the run's program may."
    return Explanation(0, "", State.UNKNOWN, (Reason(Kind.UNKNOWN, text),))


def with_note(explanation: Explanation, note: Reason, *, first: bool = False) -> Explanation:
    """The same with one reason more."""
    reasons = (note, *explanation.reasons) if first else (*explanation.reasons, note)
    chain, links, root = explanation.chain, explanation.links, explanation.root
    return Explanation(explanation.task, explanation.name, explanation.state, reasons, chain, links, root)


def silent_client(pid: int, after_s: float | None) -> Reason:
    """The run's program has not answered within that time, or (None) is not connected."""
    missing = "What only it knows is missing here: names, dependencies and blocks."
    if after_s is None:
        return Reason(Kind.SILENT, f"The run's program is not connected. {missing}")
    text = f"The run's program (pid {pid}) has not answered within {format_duration(after_s)}. {missing}"
    advice = "See whether that program is stopped or very busy."
    return Reason(Kind.SILENT, text, "", (Number("waited_s", after_s),), advice=advice)


def alike(name: str, count: int, state: State) -> Reason:
    """Several tasks have the name that was asked for; one that waits was looked for."""
    text = f"{counted(count, 'task')} called '{name}' {'has' if count == 1 else 'have'} not ended"
    if state in {State.QUEUED, State.WAITING}:
        text += "; this one waits."
    elif state is State.LEASED:
        text += ". None waits in the queue; this is one that was handed to a node."
    else:
        text += ". None was found that waits; this is one of them."
    return Reason(Kind.ALIKE, text, "", (Number("alike", count),))


# ---- one executor ---------------------------------------------------------------------------


def _of_executor(cls: RequestClass, label: str, managers: Sequence[Manager], facts: Facts, now: float) -> list[Reason]:
    """Everything about one executor, at least one reason."""
    if not cls.admits(label):
        bound = listed([repr(name) for name in sorted(cls.executors)], "or")
        return [Reason(Kind.NOT_BOUND, f"The task is bound to {bound}.", label)]
    view = facts.view
    executor = next((one for one in view.executors if one.executor == label), None) if view is not None else None
    blocks = [block for block in view.blocks if block.executor == label] if view is not None else []
    awaited = [block for block in blocks if block.phase in _AWAITED]
    if managers:
        (reason,) = why_not(cls, label, managers, now)
        if reason.kind in _BUSY and not reason.advice:
            reason = _advised(reason, executor, awaited)
        reasons = [reason, *_awaited(label, awaited)]
        return [*reasons, *_kept(cls, label)]
    failed = facts.failed.get(label)
    if failed is not None:
        text = f"It has failed, and no block of it will come: {_cut(failed)}"
        return [Reason(Kind.GIVEN_UP, text, label, advice="Load a new run when that is repaired.")]
    if label in facts.misfits:
        return [Reason(Kind.TOO_BIG, facts.misfits[label], label)]
    return [*_awaited(label, awaited), *_failures(executor, label)] or [_no_block(label, blocks, executor)]


def _advised(reason: Reason, executor: ExecutorView | None, awaited: Sequence[BlockView]) -> Reason:
    label = reason.executor
    advice = "It starts when enough of what runs there has ended"
    if awaited:
        advice += ", or when a new block has come."
    elif executor is not None and executor.blocks >= executor.max_blocks:
        advice += f".{MORE_NODES}raise max_blocks of executor '{label}' (now {executor.max_blocks})."
    else:
        advice += "."
    return Reason(reason.kind, reason.text, label, reason.numbers, reason.tasks, reason.block, reason.node, advice)


def _awaited(label: str, blocks: Sequence[BlockView]) -> list[Reason]:
    reasons = [_block(block) for block in blocks[:_BLOCKS_SHOWN]]
    if len(blocks) > _BLOCKS_SHOWN:
        more = len(blocks) - _BLOCKS_SHOWN
        text = f"{more} more block{'s are' if more > 1 else ' is'} awaited."
        reasons.append(Reason(Kind.BLOCK, text, label, (Number("blocks", more),)))
    return reasons


def _block(block: BlockView) -> Reason:
    since = format_duration(round(block.for_s, 0 if block.for_s >= 1 else 1))
    name = f"Block {block.block}" + (f" (batch id {block.batch_id})" if block.batch_id is not None else "")
    advice = ""
    if block.phase == Phase.RUNNING.value:
        text = f"{name} has been running for {since}, and no manager of it has joined yet."
        advice = f"If none joins, see blocks/{block.block} in the run directory."
    elif block.phase == Phase.PENDING.value:
        text = f"{name} has been pending for {since}."
        advice = "It starts when that block does, which is up to its provider."
    elif block.phase == Phase.SUSPENDED.value:
        text = f"{name} has been suspended for {since}: nothing of it runs."
        advice = "It goes on when whoever has suspended that block resumes it."
    else:
        text = f"{name} is being submitted, for {since} now."
    if block.said:
        text += f" Its provider says: {_cut(block.said)}"
    return Reason(Kind.BLOCK, text, block.executor, (Number("for_s", block.for_s),), block=block.block, advice=advice)


def _failures(executor: ExecutorView | None, label: str) -> list[Reason]:
    reasons = []
    if executor is not None and executor.trouble:
        reasons.append(Reason(Kind.START_FAILURES, _cut(executor.trouble), label))
    if executor is not None and executor.failures:
        count = executor.failures
        many = "A block" if count == 1 else f"{count} blocks in a row"
        text = f"{many} ended before a manager had joined. The last one, {executor.last_failed}, "
        text += f"{_cut(executor.last_failure)}"
        if executor.next_try_s > 0:
            text += f" The next try is in {format_duration(max(0.1, round(executor.next_try_s, 1)))}."
        numbers = Number("failures", count), Number("next_try_s", executor.next_try_s)
        advice = f"What it said is in blocks/{executor.last_failed}/stderr in the run directory."
        reasons.append(Reason(Kind.START_FAILURES, text, label, numbers, block=executor.last_failed, advice=advice))
    return reasons


def _no_block(label: str, blocks: Sequence[BlockView], executor: ExecutorView | None) -> Reason:
    live = [block for block in blocks if block.phase != Phase.ENDED.value]
    if executor is None:
        return Reason(Kind.NO_BLOCK, "None of its managers is here.", label)
    if live:
        words = [f"{block.block} is {block.phase}" for block in live[:_BLOCKS_SHOWN]]
        return Reason(Kind.NO_BLOCK, f"None of its managers is here: block {listed(words)}.", label)
    if executor.max_blocks == 0:
        return Reason(Kind.NO_BLOCK, "It may have no blocks (max_blocks=0).", label, advice="Raise its max_blocks.")
    if executor.next_try_s > 0:
        text = f"It has no block. The next one is asked for in {format_duration(round(executor.next_try_s, 1))}."
        return Reason(Kind.NO_BLOCK, text, label, (Number("next_try_s", executor.next_try_s),))
    return Reason(Kind.NO_BLOCK, "It has no block. One is asked for in a moment.", label)


def _kept(cls: RequestClass, label: str) -> list[Reason]:
    nodes = [manager.node for manager in cls.reserved if manager.executor == label]
    if not nodes:
        return []
    text = f"Node{'s' * (len(nodes) > 1)} {listed(nodes)} {'are' if len(nodes) > 1 else 'is'} kept free for tasks of its kind."
    return [Reason(Kind.KEPT, text, label, (Number("nodes", len(nodes)),), node=nodes[0])]


def _cut(text: str) -> str:
    """Words of others: their first line, not too long, as a sentence."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) > _WORDS_MAX:
        return f"{line[:_WORDS_MAX]}..."
    return line if line.endswith((".", "!", "?")) else f"{line}."


# ---- order ----------------------------------------------------------------------------------


def _order(
    scheduler: Scheduler, cls: RequestClass, task: Task, managers: Mapping[str, Sequence[Manager]]
) -> list[Reason]:
    """How many tasks come first, for each executor that may run it; once, if that is the same for all."""
    same = _position(cls, task)
    waiting = [other for other in scheduler.classes.values() if other is not cls and other.queued]
    counts = {label: _others_first(cls, label, present, waiting) for label, present in managers.items()}
    if len(set(counts.values())) <= 1:
        return [_ahead("", same, next(iter(counts.values()), 0))] if same or any(counts.values()) else []
    return [_ahead(label, same, others) for label, others in counts.items() if same or others]


def _others_first(cls: RequestClass, label: str, managers: Sequence[Manager], waiting: Sequence[RequestClass]) -> int:
    """Tasks of other classes that an executor takes first; what none of its nodes could run is in nobody's way."""
    line = Line(small_first=bool(managers) and all(manager.capacity.depth_limited for manager in managers))
    kinds = list({manager.capacity: manager for manager in managers}.values())
    mine = line.key_of(cls)
    count = 0
    for other in waiting:
        if other.admits(label) and (not kinds or any(kind.could_ever_run(other) for kind in kinds)):
            key = line.key_of(other)
            if key is not None and mine is not None and key < mine:
                count += other.queued
    return count


def _ahead(label: str, same: int, others: int) -> Reason:
    count = same + others
    text = f"{count:,} task{'s are' if count > 1 else ' is'} ahead of it in the queue"
    if same and others:
        text += f": {same:,} like it and {others:,} of {'another kind' if others == 1 else 'other kinds'}"
    elif others:
        text = (
            f"{count:,} task{'s of other kinds are' if count > 1 else ' of another kind is'} ahead of it in the queue"
        )
    numbers = Number("ahead", count), Number("ahead_like_it", same), Number("ahead_others", others)
    return Reason(Kind.AHEAD, f"{text}.", label, numbers)


def _position(cls: RequestClass, task: Task) -> int:
    """Tasks of its own class that come first."""
    count = 0
    for other in cls.queue:
        if other is task:
            break
        count += other.attempt >= 0
    return count


# ---- other reasons --------------------------------------------------------------------------


def _behind(results: int) -> Reason:
    text = f"Nothing is handed out now: the run's program has not taken {counted(results, 'result')} yet."
    return Reason(
        Kind.BEHIND, text, "", (Number("results", results),), advice="See what keeps that program busy or stopped."
    )


def _lost(cls: RequestClass, facts: Facts) -> list[Reason]:
    if not facts.history:
        return []
    count = len(facts.history)
    text = f"{count} of at most {cls.crash_limit} attempts at it were lost; the last one: {_cut(facts.history[-1])}"
    if count == 1:
        text = f"1 of at most {cls.crash_limit} attempts at it was lost: {_cut(facts.history[-1])}"
    numbers = Number("lost", count), Number("crash_limit", cls.crash_limit)
    return [Reason(Kind.CRASHES, text, "", numbers)]


def _place(
    place: Whereabouts | None, where: str, manager: Manager, heard_s: float, runtime_s: float | None
) -> tuple[State, Reason]:
    if place is None:
        text = f"It was handed to {where}. The manager there has not answered; it was last heard of "
        text += f"{format_duration(round(heard_s, 1))} ago."
        advice = "If it stays silent it is given up, and what may run again runs elsewhere."
        return State.LEASED, _at(manager, Kind.SILENT, text, (Number("heard_s", heard_s),), advice)
    if place.running_s is not None:
        numbers = [Number("running_s", place.running_s)]
        text = f"It has been running for {format_duration(round(place.running_s, 1))}"
        if runtime_s is not None:
            numbers.append(Number("runtime_s", runtime_s))
            text += f" of at most {format_duration(runtime_s)}"
        text += f" on {where}"
        if place.worker is not None:
            text += f", in worker {place.worker}"
        if place.pid is None:
            return State.RUNNING, _at(manager, Kind.RUNS, f"{text}.", tuple(numbers))
        numbers.append(Number("pid", place.pid))
        text += f" (pid {place.pid})."
        if not place.stopped:
            return State.RUNNING, _at(manager, Kind.RUNS, text, tuple(numbers))
        advice = f"It goes on when somebody on {manager.node} says: kill -CONT {place.pid}"
        return State.RUNNING, _at(manager, Kind.RUNS, f"{text} That process is stopped.", tuple(numbers), advice)
    if not place.held:
        return State.LEASED, _at(manager, Kind.SENT, f"It is on its way to {where}, or back from there.")
    text = f"It was sent ahead to {where}. "
    if place.worker is not None:
        text += f"Worker {place.worker} runs it after {_tasks(place.ahead)}."
    elif place.ahead:
        text += f"There, {_tasks(place.ahead)} {'come' if place.ahead > 1 else 'comes'} first."
    else:
        text += "There, it is the next."
    advice = "It starts there soon, or is asked back when another node has room."
    return State.LEASED, _at(manager, Kind.SENT, text, (Number("ahead", place.ahead),), advice)


def _at(manager: Manager, kind: Kind, text: str, numbers: tuple[Number, ...] = (), advice: str = "") -> Reason:
    return Reason(kind, text, manager.executor, numbers, (), manager.block, manager.node, advice)


def _tasks(count: int) -> str:
    return counted(count, "task")
