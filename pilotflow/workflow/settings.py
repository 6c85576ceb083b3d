"""Records of the short sections: requirements, handlers, schedulers, actions, how jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeVar

from pilotflow.resources import Request
from pilotflow.units import format_duration, show
from pilotflow.workflow.fields import words_for
from pilotflow.workflow.findings import Findings, first
from pilotflow.workflow.model import (
    ActionSpec,
    ExecutionSpec,
    FailureHandlerSpec,
    RequirementsSpec,
    SchedulerSpec,
    WorkflowSpec,
)
from pilotflow.workflow.names import Names
from pilotflow.workflow.reading import Path
from pilotflow.workflow.records import (
    Action,
    Deed,
    ExecutionConfig,
    FailureHandler,
    FailureRule,
    Mark,
    Mode,
    SlurmScheduler,
    Trigger,
)

_OF_THE_SCHEDULER: Final = frozenset(("partition", "nodes", "walltime", "time", "mem", "gres", "name", "job-name"))
_DIRECT_ONLY: Final = ("limit_resources", "termination_signal", "sigterm_lead_seconds", "oom_exit_code", "srun_mpi")
_SLURM_ONLY: Final = ("srun_termination_signal", "enable_cpu_bind")
_Spec = TypeVar("_Spec")

_JOB_TRIGGERS: Final = (Trigger.ON_JOBS_READY, Trigger.ON_JOBS_COMPLETE)


Entries: TypeAlias = Sequence[tuple[int, _Spec]]
"""The entries of a list that are right, with their places in it."""


def named(kind: str, section: str, entries: Entries[Any], findings: Findings, *, incomplete: bool) -> Names:
    """The names of a list's entries; those that are there twice are errors."""
    names = Names(kind, findings)
    names.incomplete = incomplete
    for index, entry in entries:
        names.add(entry.name, (section, index))
    return names


def requests(entries: Entries[RequirementsSpec]) -> list[Request]:
    """The request of each of the requirements, without a priority."""
    return [
        Request(
            cpus_milli=each.num_cpus or 1000,
            memory_bytes=each.memory or 0,
            gpus_milli=each.num_gpus,
            num_nodes=each.num_nodes,
            ranks_per_node=each.ranks_per_node,
            runtime_s=each.runtime,
            resources=each.resources,
            spreads_itself=each.num_nodes > 1 and "ranks_per_node" not in each.model_fields_set,
        )
        for _, each in entries
    ]


def handlers(entries: Entries[FailureHandlerSpec], marks: list[Mark], findings: Findings) -> tuple[FailureHandler, ...]:
    """The failure handlers; a rule that takes no exit code is an error."""
    made = list[FailureHandler]()
    for index, each in entries:
        if not each.rules:
            findings.error(("failure_handlers", index, "rules"), f"failure handler '{each.name}' has no rules.")
        for number, rule in enumerate(each.rules):
            path: Path = ("failure_handlers", index, "rules", number)
            if not rule.exit_codes and not rule.match_all_exit_codes:
                findings.error(
                    path, "this rule takes no exit code; write `exit_codes` or `match_all_exit_codes: true`."
                )
            if 0 in rule.exit_codes:
                findings.error((*path, "exit_codes"), "exit code 0 is success; a rule cannot take it.")
        rules = tuple(
            FailureRule(
                exit_codes=tuple(rule.exit_codes),
                match_all_exit_codes=rule.match_all_exit_codes,
                recovery_script=rule.recovery_script,
                max_attempts=rule.max_retries,
            )
            for rule in each.rules
        )
        made.append(FailureHandler(name=each.name, rules=rules, at=first(marks, index)))
    return tuple(made)


def schedulers(
    entries: Entries[SchedulerSpec], top: WorkflowSpec, marks: list[Mark], findings: Findings
) -> tuple[SlurmScheduler, ...]:
    """The Slurm schedulers with the defaults in them."""
    options = _defaults(top, findings)
    account = options.pop("account", None)
    made = list[SlurmScheduler]()
    for index, each in entries:
        own = options.copy()
        for key, option in (("qos", "qos"), ("tmp", "tmp"), ("ntasks_per_node", "ntasks-per-node")):
            if getattr(each, key) is not None:
                own.pop(option, None)
        made.append(
            SlurmScheduler(
                name=each.name,
                nodes=each.nodes,
                walltime_s=each.walltime or 3600.0,
                account=each.account or account,
                partition=each.partition,
                qos=each.qos,
                gres=each.gres,
                mem=each.mem,
                tmp=each.tmp,
                ntasks_per_node=each.ntasks_per_node,
                extra=each.extra,
                serialize_allocations=each.serialize_allocations,
                options=tuple(sorted(own.items())),
                at=first(marks, index),
            )
        )
    return tuple(made)


def check_min_time(seconds: float | None, schedulers: Sequence[SlurmScheduler], findings: Findings) -> None:
    """Allocations must last longer than what must be left of them for a job without a runtime."""
    for each in schedulers:
        if seconds is not None and each.walltime_s <= seconds:
            findings.error(
                ("compute_node_min_time_for_new_jobs_seconds",),
                f"so much is never left of allocations of '{each.name}', which last {format_duration(each.walltime_s)}.",
            )
            return


def _defaults(top: WorkflowSpec, findings: Findings) -> dict[str, str]:
    made = dict[str, str]()
    for key, value in (top.slurm_defaults or {}).items():
        path: Path = ("slurm_defaults", key)
        name = key.removeprefix("--").lower().replace("_", "-")
        if name in _OF_THE_SCHEDULER:
            findings.error(path, f"'{key}' cannot be a default; write it in each of `slurm_schedulers`.", key=True)
        elif not name or not all(character.isalnum() or character == "-" for character in name):
            findings.error(path, f"{show(key)} is no long option of sbatch.", key=True)
        elif value is True:
            made[name] = ""
        elif isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            findings.warn(
                path, f"{key}: {show(value)} is {words_for(value)}, which sbatch does not take; it is left out."
            )
        elif isinstance(value, (str, int, float)):
            made[name] = str(value)
    return made


def execution(top: WorkflowSpec, entries: Entries[ActionSpec], findings: Findings) -> ExecutionConfig:
    """How jobs are started and ended; what belongs to the other mode is an error."""
    spec = top.execution_config or ExecutionSpec.model_validate({})
    mode = Mode(spec.mode)
    if mode is not Mode.AUTO:
        other, keys = ("direct", _DIRECT_ONLY) if mode is Mode.SLURM else ("slurm", _SLURM_ONLY)
        for key in keys:
            if getattr(spec, key) is not None:
                text = f"`{key}` is for `mode: {other}`, and this workflow has `mode: {mode.value}`."
                findings.error(("execution_config", key), text, key=True)
    if "mode" not in spec.model_fields_set:
        mode = _mode_of_actions(entries, findings)
    plain = ExecutionConfig()
    return ExecutionConfig(
        mode=mode,
        limit_resources=_or(spec.limit_resources, plain.limit_resources),
        termination_signal=_or(spec.termination_signal, plain.termination_signal),
        sigterm_lead_s=float(_or(spec.sigterm_lead_seconds, plain.sigterm_lead_s)),
        oom_exit_code=_or(spec.oom_exit_code, plain.oom_exit_code),
        srun_termination_signal=spec.srun_termination_signal,
        enable_cpu_bind=spec.enable_cpu_bind,
        srun_mpi=spec.srun_mpi,
        timeout_exit_code=_or(spec.timeout_exit_code, plain.timeout_exit_code),
    )


def _mode_of_actions(entries: Entries[ActionSpec], findings: Findings) -> Mode:
    """The mode where the file says none: a manager on each node is only for direct mode."""
    for index, action in entries:
        if action.start_one_worker_per_node:
            findings.warn(
                ("actions", index, "start_one_worker_per_node"),
                "one worker per node is direct mode, so this workflow runs in direct mode. To say so, write: "
                "`execution_config: {mode: direct}`.",
            )
            return Mode.DIRECT
    return Mode.AUTO


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def actions(
    entries: Entries[ActionSpec],
    jobs: Names,
    schedulers_by_name: Names,
    mode: Mode,
    marks: list[Mark],
    findings: Findings,
) -> tuple[Action, ...]:
    """The actions, with the jobs and schedulers they name."""
    made = list[Action]()
    for index, each in entries:
        path: Path = ("actions", index)
        found = set[int]()
        for place, name in enumerate(each.jobs or ()):
            job = jobs.find(name, (*path, "jobs", place))
            found.update(() if job is None else (job,))
        for place, pattern in enumerate(each.job_name_regexes or ()):
            found.update(jobs.matching(pattern, (*path, "job_name_regexes", place)))
        scheduler = _action_shape(each, path, schedulers_by_name, mode, findings)
        made.append(
            Action(
                trigger=Trigger(each.trigger_type),
                deed=Deed(each.action_type),
                jobs=tuple(sorted(found)),
                commands=tuple(each.commands or ()),
                scheduler=scheduler,
                num_allocations=each.num_allocations,
                start_one_worker_per_node=each.start_one_worker_per_node,
                max_parallel_jobs=each.max_parallel_jobs,
                persistent=each.persistent,
                at=first(marks, index),
            )
        )
    return tuple(made)


def _action_shape(each: ActionSpec, path: Path, names: Names, mode: Mode, findings: Findings) -> int | None:
    """Which scheduler an action asks; what it lacks is an error, what it does not use a warning."""
    trigger = Trigger(each.trigger_type)
    says_jobs = bool(each.jobs or each.job_name_regexes)
    if trigger in _JOB_TRIGGERS and not says_jobs:
        findings.error(path, f"`{trigger.value}` needs `jobs` or `job_name_regexes`: which jobs are waited for.")
    elif trigger not in _JOB_TRIGGERS and says_jobs:
        key = "jobs" if each.jobs else "job_name_regexes"
        findings.warn((*path, key), f"`{trigger.value}` is not about jobs; this has no effect.", key=True)
    if each.action_type == "run_commands":
        if not each.commands:
            findings.error(path, "`run_commands` needs `commands`, at least one.")
        for key in ("scheduler", "scheduler_type", "num_allocations", "start_one_worker_per_node", "max_parallel_jobs"):
            if key in each.model_fields_set and getattr(each, key) not in (None, False):
                findings.warn((*path, key), f"`{key}` is for `schedule_nodes`; here it has no effect.", key=True)
        return None
    if each.commands is not None:
        findings.warn((*path, "commands"), "`commands` is for `run_commands`; here it has no effect.", key=True)
    if each.start_one_worker_per_node and mode is not Mode.DIRECT:
        findings.error(
            (*path, "start_one_worker_per_node"),
            f"one worker per node needs `execution_config: {{mode: direct}}`, and this workflow has `mode: {mode.value}`.",
        )
    if each.scheduler_type == "local":
        return None
    if each.scheduler is None:
        findings.error(
            path, "`schedule_nodes` needs `scheduler`, one of `slurm_schedulers`, or `scheduler_type: local`."
        )
        return None
    return names.find(each.scheduler, (*path, "scheduler"))
