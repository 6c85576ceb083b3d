"""Where a workflow's jobs run: the executors that its schedulers, a site, or this machine become. Pure but for the site.

Each entry of `slurm_schedulers` is an executor of its name. Actions that give the same scheduler's managers another
`max_parallel_jobs` are executors beside it, since how a manager places tasks is settled when it starts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.launchers.one_head import OneHeadLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.local import LocalProvider
from pilotflow.workflow.allocations import slurm_provider
from pilotflow.workflow.heads import one_head
from pilotflow.workflow.options import GRACE_MARGIN_S, LOCAL, RunOptions
from pilotflow.workflow.records import Action, Deed, ExecutionConfig, Job, Mode, Workflow

_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MODES: Final[Mapping[Mode, Literal["direct", "slurm"]]] = {
    Mode.AUTO: "slurm",  # what runs in an allocation is inside of one
    Mode.SLURM: "slurm",
    Mode.DIRECT: "direct",
}


@dataclass(frozen=True)
class _Kind:
    """Allocations of one scheduler whose managers work alike."""

    scheduler: int
    max_parallel_jobs: int | None
    one_head: bool = False


class Supplies:
    """The executors of a workflow's run, and which of them jobs and actions mean.

    Args:
        workflow: the workflow.
        options: what the command line says.
        site: the configuration of the site, if one is to be used, for workflows without schedulers.
    """

    def __init__(self, workflow: Workflow, options: RunOptions, site: Config | None = None) -> None:
        self._workflow = workflow
        self._options = options
        self._site = site
        self._labels: dict[_Kind, str] = {}
        if options.slurm:
            kinds = _kinds(workflow)
            self._labels = {kind: self._label(kind, kinds) for kind in kinds}

    def config(self) -> Config:
        """What the run is started with."""
        workflow = self._workflow
        shared: dict[str, Any] = {"job_sort_method": workflow.sort_method.value}
        shared |= self._idle_times()
        if self._site is not None:
            executors = [dataclasses.replace(executor, **self._common()) for executor in self._site.executors]
            return dataclasses.replace(self._site, executors=executors, **shared)
        executors = [self._executor(kind, label) for kind, label in self._labels.items()]
        return Config(executors=executors or [self._here()], **shared)

    def _idle_times(self) -> dict[str, float]:
        """When idle blocks end, if the workflow says it and the command line does not; young ones too."""
        idle_s, said = self._workflow.idle_s, self._options.settings or {}
        if idle_s is None or "max_idletime" in said or not (self._labels or self._site):
            return {}
        return {"max_idletime": idle_s, "min_block_life": min(idle_s, (self._site or Config()).min_block_life_s)}

    def bindings(self, job: Job) -> tuple[str, ...]:
        """Labels of the executors that a job may run on; none for any."""
        if job.label is not None:
            return (job.label,)
        if self._labels and job.scheduler is not None:
            return tuple(label for kind, label in self._labels.items() if kind.scheduler == job.scheduler)
        known = () if self._site is None else tuple(executor.label for executor in self._site.executors)
        return tuple(label for label in job.executors if label in known)

    def of_action(self, action: Action) -> str | None:
        """The executor whose blocks an action asks for; None if the run has none of that kind."""
        if action.deed is not Deed.SCHEDULE_NODES or action.scheduler is None:
            return None
        return self._labels.get(_kind_of(self._workflow, action))

    def of_scheduler(self, name: str, max_parallel_jobs: int | None, *, each: bool = False) -> str | None:
        """The executor of a scheduler's blocks with so many jobs at once, or None.

        Args:
            name: the scheduler's.
            max_parallel_jobs: as an action says it.
            each: with a manager on each node; else those with one at the head come first, if there are any.
        """
        schedulers = self._workflow.slurm_schedulers
        found = {
            kind.one_head: label
            for kind, label in self._labels.items()
            if schedulers[kind.scheduler].name == name and kind.max_parallel_jobs == max_parallel_jobs
        }
        return found.get(False) if each else found.get(True, found.get(False))

    def most_blocks(self) -> dict[str, int]:
        """How many blocks actions may come to ask for, by executor."""
        found = dict.fromkeys(self._labels.values(), 0)
        for action in self._workflow.actions:
            if (label := self.of_action(action)) is not None:
                found[label] += action.num_allocations
        return found

    def origins(self) -> dict[str, dict[str, str]]:
        """The place of each executor's scheduler in the workflow's file, by the executor's label; see `Use.origins`."""
        file = self._workflow
        return {
            label: {"": file.where(file.slurm_schedulers[kind.scheduler].at)} for kind, label in self._labels.items()
        }

    def _label(self, kind: _Kind, kinds: Sequence[_Kind]) -> str:
        names = [_plain(scheduler.name) for scheduler in self._workflow.slurm_schedulers]
        name = names[kind.scheduler]
        label = f"{name}-{kind.scheduler}" if names.count(name) > 1 else name
        if kind.max_parallel_jobs is not None:
            label = f"{label}.{kind.max_parallel_jobs}"
        both = kind.one_head and dataclasses.replace(kind, one_head=False) in kinds
        return f"{label}.head" if both else label

    def _executor(self, kind: _Kind, label: str) -> ExecutorConfig:
        workflow = self._workflow
        scheduler = workflow.slurm_schedulers[kind.scheduler]
        # What actions ask for comes then. A scheduler that none asks for grows by what its jobs are worth.
        asked = any(action.scheduler == kind.scheduler for action in workflow.actions)
        provider = dataclasses.replace(slurm_provider(scheduler), init_blocks=0, max_blocks=0 if asked else 1)
        return ExecutorConfig(
            label=label,
            provider=provider,
            launcher=(OneHeadLauncher if kind.one_head else SrunLauncher)(
                mpi=workflow.execution.srun_mpi, options=_srun_options(workflow.execution)
            ),
            mode=_MODES[workflow.execution.mode],
            max_parallel_jobs=kind.max_parallel_jobs,
            **self._common(),
        )

    def _here(self) -> ExecutorConfig:
        options = self._options
        return ExecutorConfig(
            label=LOCAL,
            provider=LocalProvider(init_blocks=int(options.local), min_blocks=0, max_blocks=int(options.local)),
            num_cpus=options.num_cpus,
            memory=options.memory_bytes,
            num_gpus=options.num_gpus,
            max_parallel_jobs=options.max_parallel_jobs,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        execution = self._workflow.execution
        limits: dict[str, Any] = {
            "memory_margin": 0.05 if execution.limit_resources else 10.0,
            "runtime_grace": execution.sigterm_lead_s + GRACE_MARGIN_S,
            "min_time_for_new_tasks": self._workflow.min_time_s,
        }
        return {**limits, "resources": self._options.resources} if self._options.resources else limits


def _srun_options(execution: ExecutionConfig) -> tuple[str, ...]:
    """What the file says about the steps of slurm mode. Of several `--signal` srun takes the last, which this is."""
    if _MODES[execution.mode] != "slurm":
        return ()
    signal, binds = execution.srun_termination_signal, execution.enable_cpu_bind
    return (*((f"--signal={signal}",) if signal else ()), *(("--cpu-bind=none",) if binds is False else ()))


def _plain(name: str) -> str:
    """A scheduler's name as a label."""
    return _NO_LABEL.sub("_", name).lstrip("_.-")[:40] or "slurm"


def _kinds(workflow: Workflow) -> Sequence[_Kind]:
    """What the actions ask for, and schedulers that no action names."""
    asked = [each for each in workflow.actions if each.deed is Deed.SCHEDULE_NODES and each.scheduler is not None]
    found = dict.fromkeys(_kind_of(workflow, action) for action in asked)
    named = {kind.scheduler for kind in found}
    found |= dict.fromkeys(_Kind(index, None) for index in range(len(workflow.slurm_schedulers)) if index not in named)
    return list(found)


def _kind_of(workflow: Workflow, action: Action) -> _Kind:
    """What an action asks for, which names a scheduler."""
    assert action.scheduler is not None
    return _Kind(action.scheduler, action.max_parallel_jobs, one_head(workflow, action))
