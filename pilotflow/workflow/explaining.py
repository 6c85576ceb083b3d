"""Why a job is not running, where it runs, or how it has ended."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pilotflow.core.explain import MORE_NODES
from pilotflow.core.job_states import COMPLETE, JobState
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.explanation import Explanation, Kind, Named, Reason, State, listed
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import ask_explanation
from pilotflow.units import counted, format_duration
from pilotflow.workflow.history import History, JobLine
from pilotflow.workflow.options import LOCAL, RunOptions
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.supplies import Supplies

S = JobState
TIMEOUT_S: Final = 10.0
SHOWN: Final = 5
_ENDS: Final = {
    S.COMPLETED: (State.DONE, Kind.DONE),
    S.FAILED: (State.FAILED, Kind.FAILED),
    S.TERMINATED: (State.FAILED, Kind.FAILED),
    S.PENDING_FAILED: (State.FAILED, Kind.FAILED),
    S.CANCELLED: (State.CANCELLED, Kind.CANCELLED),
    S.DISABLED: (State.CANCELLED, Kind.CANCELLED),
}


_HOW: Final = {
    S.COMPLETED: "It ended well",
    S.FAILED: "It ended",
    S.TERMINATED: "Its time was over, and it was ended",
    S.PENDING_FAILED: "It failed and waits to be repaired",
    S.CANCELLED: "It was cancelled",
    S.DISABLED: "It is disabled",
}


_OF_OTHERS: Final = frozenset({Kind.BLOCK, Kind.START_FAILURES, Kind.GIVEN_UP, Kind.CRASHES})
"""Reasons that quote what others have said."""
_TASKS: Final = re.compile(r"(?<![\w'`/.-])([Tt]ask)(?=s?(?![\w'`/-]))")


def explain_job(history: History, asked: str) -> Explanation:
    """What is known of one job.

    Args:
        history: of its run.
        asked: its name or its number.

    Raises:
        ConfigError: there is no such job, or several are meant.
    """
    numbers = history.select(asked)
    if len(numbers) != 1:
        raise ConfigError(f"'{asked}' means {counted(len(numbers), 'job')}; name one.")
    workflow, states = history.workflow(), history.states()
    number = numbers[0]
    running = history.summary(stages=False).state == "running"
    found = _of(history, workflow, states, number, running)
    if found.state is not State.WAITING:
        return found
    chain = _chain(workflow, states, number)
    names = tuple(Named(one + 1, workflow.jobs[one].name) for one in chain)
    root = _of(history, workflow, states, chain[-1], running) if chain else None
    return msgspec.structs.replace(found, chain=names[: 2 * SHOWN], links=len(chain), root=root)


def _of(history: History, workflow: Workflow, states: list[JobState], number: int, running: bool) -> Explanation:
    (line,) = history.jobs([number])
    return msgspec.structs.replace(
        _of_line(history, workflow, states, line, running), task=number + 1, name=line.name, noun="job"
    )


def _of_line(history: History, workflow: Workflow, states: list[JobState], line: JobLine, running: bool) -> Explanation:
    if line.state in _ENDS:
        return _ended(workflow, states, line)
    if line.state in (S.BLOCKED, S.UNINITIALIZED):
        return _waiting(history, workflow, states, line, running)
    try:
        said = ask_explanation(read_connection(history.directory / "connection.json"), str(line.job + 1), TIMEOUT_S)
        said = in_words_of_workflows(said, workflow)
    except PilotflowError as error:
        reason = Reason(Kind.SILENT, str(error)) if running else _abandoned(history)
        return Explanation(line.job + 1, line.name, State.QUEUED, (reason,))
    if said.state is State.UNKNOWN:
        about = Reason(Kind.HERE, "It is about to be handed out, or has just ended.", advice="Ask again in a moment.")
        return Explanation(line.job + 1, line.name, State.QUEUED, (about if running else _abandoned(history),))
    if running:
        return said
    others = tuple(reason for reason in said.reasons if reason.kind is not Kind.SILENT)
    advice = f"Go on with the run: pilotflow resume {history.directory.name}."
    gone = Reason(Kind.SILENT, "The run's program is gone; what has been handed out goes on.", advice=advice)
    return msgspec.structs.replace(said, reasons=(gone, *others))


def in_words_of_workflows(said: Explanation, workflow: Workflow) -> Explanation:
    """What an interchange has said of a job: it knows tasks, and blocks of executors, where a file has its own words."""
    return msgspec.structs.replace(said, reasons=tuple(_in_words(reason, workflow) for reason in said.reasons))


def _in_words(reason: Reason, workflow: Workflow) -> Reason:
    advice, about_more, raises = reason.advice.partition(MORE_NODES)
    if about_more:
        more = _more_nodes(workflow, reason.executor, raises)
        advice += f"{about_more}{more}" if more else ""
    if reason.kind in _OF_OTHERS:
        return msgspec.structs.replace(reason, advice=advice)
    return msgspec.structs.replace(reason, text=_of_jobs(reason.text), advice=_of_jobs(advice))


def _of_jobs(text: str) -> str:
    return _TASKS.sub(lambda found: "Job" if found[1] == "Task" else "job", text)


def _more_nodes(workflow: Workflow, label: str, otherwise: str) -> str:
    """What to do for more nodes of an executor: what the file says, or a site's configuration, which says it `otherwise`."""
    supplies = Supplies(workflow, RunOptions(slurm=True, local=False))
    for action in workflow.actions:
        if supplies.of_action(action) == label:
            where = workflow.where(action.at)
            return f"raise `num_allocations` of the action in {where}, or see `pilotflow slurm schedule-nodes --help`."
    if place := supplies.origins().get(label):
        return f"write actions (`schedule_nodes`) that ask for allocations of the scheduler in {place['']}."
    return "" if label == LOCAL else otherwise


def _abandoned(history: History) -> Reason:
    """Why a job waits of whose run nobody is there."""
    advice = f"Go on with the run: pilotflow resume {history.directory.name}."
    return Reason(Kind.ENDED, "Its run is not running, so nobody runs it.", advice=advice)


def _ended(workflow: Workflow, states: list[JobState], line: JobLine) -> Explanation:
    state, kind = _ENDS[line.state]
    text = _HOW[line.state]
    if line.exit_code is not None and line.state is not S.CANCELLED:
        text += f" with exit code {line.exit_code} in attempt {line.attempt}"
        text += f" after {format_duration(line.duration_us / 1e6)}" if line.duration_us else ""
    text += "."
    if line.words and line.state is not S.COMPLETED:
        text = f"{text}\n{line.words}"
    bad = [need for need in workflow.jobs[line.job].depends_on if states[need] in COMPLETE - {S.COMPLETED}]
    if line.state is S.CANCELLED and bad:
        named = listed([f"{workflow.jobs[need].name} ({states[need].word})" for need in bad])
        text = text.replace("It was cancelled.", f"It was cancelled because it depends on {named}.", 1)
        return Explanation(
            line.job + 1, line.name, state, (Reason(kind, text, tasks=tuple(n + 1 for n in bad[:SHOWN])),)
        )
    return Explanation(line.job + 1, line.name, state, (Reason(kind, text),))


def _waiting(history: History, workflow: Workflow, states: list[JobState], line: JobLine, running: bool) -> Explanation:
    needs = [need for need in workflow.jobs[line.job].depends_on if states[need] not in COMPLETE]
    some = ", ".join(workflow.jobs[need].name for need in needs[:SHOWN])
    more = f" and {len(needs) - SHOWN:,} more" if len(needs) > SHOWN else ""
    text = f"It waits for {some}{more}." if needs else "The run has not looked at it yet."
    advice = "" if running else f"The run is not running: pilotflow resume {history.directory.name}."
    if any(states[need] is S.PENDING_FAILED for need in needs):
        advice = f"Repair what failed: pilotflow recover {history.directory.name}, or rerun --failed."
    reason = Reason(Kind.NEEDS, text, tasks=tuple(need + 1 for need in needs[:SHOWN]), advice=advice)
    return Explanation(line.job + 1, line.name, State.WAITING, (reason,))


def _chain(workflow: Workflow, states: list[JobState], number: int) -> list[int]:
    """From a job that this one waits for to one that waits for none; rather over those that do not run yet."""
    chain: list[int] = []
    while needs := [need for need in workflow.jobs[number].depends_on if states[need] not in COMPLETE]:
        number = next((need for need in needs if states[need] is not S.RUNNING), needs[0])
        chain.append(number)
    return chain
