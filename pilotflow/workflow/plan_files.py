"""A way to ask for nodes as lines of a workflow's file, and the whole file with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilotflow.core.triggers import Moment
from pilotflow.workflow.records import Mode, Workflow
from pilotflow.workflow.schemes import Ask, Scheme

NAMES_MAX: Final = 20
"""So many jobs are named one by one where no regular expression is exact."""
_PARAMETER: Final = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Sections:
    """Parts of a workflow's file.

    Attributes:
        schedulers: entries of `slurm_schedulers`.
        actions: entries of `actions`.
        scheduler_of: the `scheduler` of each entry of `jobs`, by its name as written; empty if none is bound.
    """

    schedulers: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    scheduler_of: dict[str, str]


def sections(workflow: Workflow, scheme: Scheme, account: str | None = None) -> Sections:
    """What the workflow's file has to say so that its nodes are asked for in this way."""
    schedulers = [_scheduler(ask, account) for ask in scheme.asks]
    actions = [_action(workflow, ask) for ask in scheme.asks]
    bound = {workflow.stages[stage]: ask.name for ask in scheme.asks for stage in ask.stages or ()}
    return Sections(schedulers, actions, bound)


def _scheduler(ask: Ask, account: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": ask.name, "partition": ask.place.name, "nodes": ask.nodes}
    entry["walltime"] = Quoted(walltime_text(ask.walltime_s))
    if account is not None:
        entry["account"] = account
    return entry


class Quoted(str):
    """Text that is written in quotes: other readers of YAML take 12:30:00 for a number."""

    __slots__ = ()


def dump(value: Any, **options: Any) -> str:
    """A value as YAML, in its order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    )
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, **options)
    return text


def walltime_text(seconds: float) -> str:
    """A walltime as batch systems write it."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"


def _action(workflow: Workflow, ask: Ask) -> dict[str, Any]:
    entry: dict[str, Any] = {"trigger_type": "on_workflow_start"}
    if ask.after is not None:
        entry["trigger_type"] = "on_jobs_ready" if ask.when is Moment.READY else "on_jobs_complete"
        entry |= _selection(workflow, ask.after)
    entry |= {"action_type": "schedule_nodes", "scheduler": ask.name, "scheduler_type": "slurm"}
    entry["num_allocations"] = ask.count
    if ask.nodes > 1 and workflow.execution.mode is Mode.DIRECT and not ask.one_head:
        entry["start_one_worker_per_node"] = True
    return entry


def _selection(workflow: Workflow, jobs: Sequence[int]) -> dict[str, list[str]]:
    """These jobs, by name or by regular expressions that fit no other."""
    names = [workflow.jobs[job].name for job in jobs]
    if len(names) > NAMES_MAX:
        stages = dict.fromkeys(workflow.jobs[job].stage for job in jobs)
        patterns = [_pattern(workflow.stages[stage]) for stage in stages]
        together = re.compile("|".join(patterns))
        if [job.index for job in workflow.jobs if together.search(job.name)] == sorted(jobs):
            return {"job_name_regexes": patterns}
    return {"jobs": names}


def _pattern(name: str) -> str:
    parts = [re.escape(part).replace(r"\-", "-") for part in _PARAMETER.split(name)]
    return f"^{'.+'.join(parts)}$"


def as_lines(found: Sections) -> str:
    """The sections as YAML, with a word about the jobs' own lines."""
    text = dump({"slurm_schedulers": found.schedulers, "actions": found.actions}, width=110)
    if found.scheduler_of:
        text += "jobs:  # what is added to their entries\n"
        for name, scheduler in found.scheduler_of.items():
            text += _inline({"name": name, "scheduler": scheduler})
    return text


def _inline(entry: dict[str, str]) -> str:
    line = dump([entry], default_flow_style=True, width=10_000)
    return f"- {line.strip()[1:-1]}\n"


def whole_file(value: dict[str, Any], found: Sections) -> dict[str, Any]:
    """A workflow's file with these sections instead of its own; other actions stay.

    Args:
        value: what the file says.
        found: what is to be said in it.
    """
    kept = [each for each in value.get("actions") or () if each.get("action_type") != "schedule_nodes"]
    jobs = [_bound(entry, found) for entry in value.get("jobs") or ()]
    new = {**value, "jobs": jobs, "slurm_schedulers": found.schedulers, "actions": [*kept, *found.actions]}
    first = [key for key in value if key not in ("slurm_schedulers", "actions")]
    return {key: new[key] for key in [*first, "slurm_schedulers", "actions"]}


def _bound(entry: Any, found: Sections) -> Any:
    if not isinstance(entry, dict):
        return entry
    kept = {key: part for key, part in entry.items() if key != "scheduler"}
    scheduler = found.scheduler_of.get(str(entry.get("name")))
    return kept if scheduler is None else {**kept, "scheduler": scheduler}
