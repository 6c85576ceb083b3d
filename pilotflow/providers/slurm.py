"""Blocks as batch jobs of Slurm: sbatch, squeue, sacct and scancel, each asked with a time limit.

`slurm_commands` runs them. What they are given is made by `slurm_script`, what they answer is read by `slurm_text`
and judged by `slurm_words`, all pure.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from pilotflow.errors import InfrastructureError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.simple import SimpleLauncher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers import slurm_script, slurm_text, slurm_words
from pilotflow.providers.base import BlockJob, BlockState, BlockStatus, Provider, SubmitLater, SubmitRefused
from pilotflow.providers.slurm_commands import NoAnswer, by_cluster, cancel_commands, job_of, run, said_by
from pilotflow.resources import NodeShape
from pilotflow.typechecks import field_error

DOOMED_S: Final = 4.0
"""A job that Slurm says will never start is given up after it has said so for this long."""
FULL_S: Final = 30.0
"""When Slurm takes no more jobs of ours, it is asked again after this time."""
AWAY_S: Final = 5.0
"""And after this when it does not answer."""


@dataclass
class _Memory:
    """What the provider remembers between calls."""

    final: dict[str, BlockStatus] = field(default_factory=dict)
    doomed: dict[str, float] = field(default_factory=dict)  # since when a job has had a reason that time does not cure
    cancelled: set[str] = field(default_factory=set)  # by us
    unsure: dict[str, int] = field(default_factory=dict)  # names of jobs whose sbatch gave no answer, and tries
    submits: list[float] = field(default_factory=list)  # times of the last ones
    accounting: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SlurmProvider(Provider):
    """Gets blocks as batch jobs from Slurm (22.05 or later). See `Provider` for the keys that are not here.

    Args:
        partition, account, qos, constraint, reservation: as of sbatch; the site's defaults if not given.
        clusters: names of clusters with a comma between; the job goes to the one that starts it first.
        cores_per_node: cores of each node to ask for (`--cpus-per-task`).
        mem_per_node: memory of each node to ask for, in GB of 1024 MB; 0 for all that the node has.
        gpus_per_node: GPUs of each node, a number or "type:number".
        gres: generic resources of each node, such as "gpu:a100:2".
        exclusive: whether nodes are shared with no other job. If not given they are not shared when neither
            `cores_per_node` nor `mem_per_node` says how much of them is wanted.
        scheduler_options: further lines of the batch script's head, each with its `#SBATCH`. They come last,
            so they win over those that are made from other keys.
        export_environment: start the block with the environment of this program, instead of the one that you
            get when you log in on a node.
        requeue: let Slurm start a block again, with the same id, after a node has failed or it was preempted.
        cmd_timeout: how long a command of Slurm may take, in seconds or as in "30s".
        submit_rate: blocks that are handed in at most, each second.
        status_batch_size: jobs that one query asks about at most.
        min_poll_interval: least time between two queries while the run goes on, in seconds or as in "15s".

    Raises:
        ConfigError: a value is out of range; the message names it.

    Example:
        >>> SlurmProvider(partition="cpu", nodes_per_block=2, walltime="01:00:00", max_blocks=10)
    """

    poll_s: ClassVar[float] = 30.0
    quick_poll_s: ClassVar[float] = 1.0
    patience_s: ClassVar[float] = 900.0
    elsewhere: ClassVar[bool] = True
    places_steps: ClassVar[bool] = True

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    clusters: str | None = None
    reservation: str | None = None
    cores_per_node: int | None = None
    mem_per_node: int | float | None = None
    gpus_per_node: int | str | None = None
    gres: str | None = None
    exclusive: bool | None = None
    scheduler_options: str = ""
    export_environment: bool = False
    requeue: bool = False
    cmd_timeout: float | str = 10.0
    submit_rate: float = 5.0
    status_batch_size: int = 1000
    min_poll_interval: float | str = 0.0

    _memory: _Memory = field(default_factory=_Memory, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("partition", "account", "qos", "constraint", "clusters", "reservation", "gres"):
            value = getattr(self, key)
            if value is not None and (not value.strip() or any(ord(char) < 32 for char in value)):
                raise field_error(self, key, f"{value!r} is not a name. Leave it out for the site's default.")
        for key, least in (("cores_per_node", 1), ("mem_per_node", 0), ("status_batch_size", 1)):
            value = getattr(self, key)
            if value is not None and not least <= value <= 1 << 20:
                raise field_error(self, key, f"{value} is not a number from {least} to {1 << 20}.")
        if isinstance(self.gpus_per_node, int) and self.gpus_per_node < 0:
            raise field_error(self, "gpus_per_node", f"{self.gpus_per_node} is not a number of 0 or more.")
        if not 0 < self.submit_rate <= 1000:
            raise field_error(self, "submit_rate", f"{self.submit_rate} is not a number above 0, up to 1000.")
        _parse_durations(self)
        for line in self.scheduler_options.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                problem = (
                    f"the line {line.strip()!r} is no directive. Begin each with #SBATCH; commands go to worker_init."
                )
                raise field_error(self, "scheduler_options", problem)

    @property
    def is_exclusive(self) -> bool:
        """Whether nodes are asked for as a whole."""
        return self.cores_per_node is None and self.mem_per_node is None if self.exclusive is None else self.exclusive

    @property
    def min_poll_s(self) -> float:
        """See `Provider.min_poll_s`."""
        return float(self.min_poll_interval)

    @property
    def cmd_timeout_s(self) -> float:
        """`cmd_timeout` in seconds."""
        return float(self.cmd_timeout)

    def node(self) -> NodeShape:
        """See `Provider.node`. Whole nodes have more cores than were asked for."""
        cores = None if self.is_exclusive else self.cores_per_node
        gpus = str(self.gpus_per_node if self.gpus_per_node is not None else "").rpartition(":")[2]
        return NodeShape(
            cpus_milli=None if cores is None else 1000 * cores,
            memory_bytes=int(self.mem_per_node * (1 << 30)) if self.mem_per_node else None,
            gpus=int(gpus) if gpus.isdecimal() else None,
        )

    def default_launcher(self) -> Launcher:
        """See `Provider.default_launcher`."""
        return SrunLauncher()

    def check_launcher(self, launcher: Launcher) -> None:
        """See `Provider.check_launcher`."""
        if self.nodes_per_block > 1 and isinstance(launcher, (SingleNodeLauncher, SimpleLauncher)):
            word = "single_node" if isinstance(launcher, SingleNodeLauncher) else "simple"
            raise field_error(
                "ExecutorConfig",
                "launcher",
                f"{word} starts managers on the first of a block's nodes only, and nodes_per_block is "
                f"{self.nodes_per_block}. Leave it out, or say srun or mpirun.",
            )

    def some_node(self) -> str | None:
        """See `Provider.some_node`: the address of the first node of the partition."""
        partition = [f"--partition={self.partition}"] if self.partition is not None else []
        clusters = [f"--clusters={self.clusters}"] if self.clusters is not None else []
        done = self._call("sinfo", "--noheader", "--Node", *partition, *clusters, "--format=%o")
        lines = [line for line in done.stdout.split("\n") if line and " " not in line]
        return lines[0] if lines else None

    # ---- the contract -----------------------------------------------------------------------

    def script(self, job: BlockJob) -> str:
        """The batch script of a block."""
        return slurm_script.batch_script(self, job)

    def submit(self, job: BlockJob) -> str:
        """See `Provider.submit`. The id is Slurm's, with the cluster if `clusters` is given: "12;cluster".

        Raises:
            SubmitLater: the rate is reached, Slurm does not answer, or takes no more jobs of ours now.
        """
        self._keep_rate()
        for path in (job.script, job.stdout, job.stderr):
            path.parent.mkdir(parents=True, exist_ok=True)
        job.script.write_text(self.script(job), encoding="utf-8", errors="surrogateescape")
        job.script.chmod(0o700)
        clusters = [f"--clusters={self.clusters}"] if self.clusters is not None else []
        try:
            done = self._call(
                "sbatch", "--parsable", *clusters, str(job.script), environment=self._environment_of_sbatch(job)
            )
        except NoAnswer as error:
            self._memory.unsure[slurm_script.job_name(job)] = 3
            raise SubmitLater(f"{error}; block {job.name} is handed in again", AWAY_S) from None
        batch_id = slurm_text.read_submitted(done.stdout) if done.returncode == 0 else None
        if batch_id is not None:
            return batch_id
        said = said_by(done)
        if slurm_words.FULL.search(said):
            raise SubmitLater(f"Slurm takes no more jobs of yours now: {said}", FULL_S)
        if slurm_words.AWAY.search(said) and self.clusters is None:
            raise SubmitLater(f"Slurm does not answer: {said}", AWAY_S)
        refused = SubmitRefused if slurm_words.remedy(said) else InfrastructureError
        raise refused(self._refusal(job.name, said))

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        """See `Provider.status`."""
        memory = self._memory
        self._end_unsure()
        asked = [batch_id for batch_id in ids if batch_id not in memory.final]
        rows: dict[str, slurm_text.Row] = {}
        for cluster, jobs in by_cluster(asked).items():
            for at in range(0, len(jobs), self.status_batch_size):
                some = jobs[at : at + self.status_batch_size]
                rows.update(self._look_up(cluster, some))
        self._judge(rows)
        missing = BlockStatus(BlockState.MISSING, "Slurm does not know this job")
        answer: dict[str, BlockStatus] = {}
        for batch_id in ids:
            status = memory.final.get(batch_id)
            if status is None:
                status = rows[batch_id].status() if batch_id in rows else missing
                if status.state.terminal:
                    memory.final[batch_id] = status
                    memory.doomed.pop(batch_id, None)
            answer[batch_id] = status
        return answer

    def cancel(self, ids: Sequence[str]) -> None:
        """See `Provider.cancel`."""
        wanted = [batch_id for batch_id in ids if batch_id not in self._memory.final and job_of(batch_id).isdecimal()]
        for argv in cancel_commands(wanted):
            done = self._call(*argv)
            said = said_by(done)
            if done.returncode and slurm_words.AWAY.search(said):
                raise InfrastructureError(f"scancel: {said}")
        self._memory.cancelled.update(wanted)

    def cancel_argv(self, ids: Sequence[str]) -> tuple[str, ...]:
        """See `Provider.cancel_argv`."""
        commands = cancel_commands([batch_id for batch_id in ids if job_of(batch_id).isdecimal()])
        if not commands:
            return ("true",)
        if len(commands) == 1:
            return commands[0]
        return ("sh", "-c", "\n".join(" ".join(command) for command in commands))  # ids and names of clusters only

    def cancel_named_argv(self, jobs: Sequence[BlockJob]) -> tuple[str, ...]:
        """See `Provider.cancel_named_argv`. Names that `scheduler_options` have changed are not known."""
        return self._cancel_by_name([slurm_script.job_name(job) for job in jobs])

    # ---- inside -----------------------------------------------------------------------------

    def _cancel_by_name(self, names: Sequence[str]) -> tuple[str, ...]:
        clusters = (f"--clusters={self.clusters}",) if self.clusters is not None else ()
        return ("scancel", *clusters, f"--user={os.getuid()}", f"--name={','.join(names)}")

    def _environment_of_sbatch(self, job: BlockJob) -> dict[str, str]:
        """This program's, without what would go before the script's directives."""
        said = {line.removeprefix("--").partition("=")[0] for line in slurm_script.directives(self, job)}
        drop = {variable for option, variable in slurm_script.INPUTS.items() if option in said}
        return {name: value for name, value in os.environ.items() if name not in drop}

    def _keep_rate(self) -> None:
        """As many at once as a second allows, then one after the other."""
        now, submits = time.monotonic(), self._memory.submits
        burst = max(1, int(self.submit_rate))
        if len(submits) >= burst:
            wait = submits[-burst] + burst / self.submit_rate - now
            if wait > 0:
                raise SubmitLater(f"submit_rate is {self.submit_rate:g} blocks a second", wait)
        submits.append(now)
        del submits[:-burst]

    def _look_up(self, cluster: str, jobs: Sequence[str]) -> dict[str, slurm_text.Row]:
        """What Slurm says about some jobs of one cluster ("" for the default one), by batch id."""
        where = [f"--clusters={cluster}"] if cluster else []
        query = ("--noheader", "--states=all", f"--jobs={','.join(jobs)}", f"--Format={slurm_text.SQUEUE_FORMAT}")
        done = self._call("squeue", *where, *query, environment={**os.environ, "SLURM_TIME_FORMAT": "%s"})
        said = said_by(done)
        if done.returncode and not slurm_words.UNKNOWN_JOB.search(said):
            raise InfrastructureError(f"squeue: {said}")
        rows = {row.job: row for row in slurm_text.read_squeue(done.stdout)}
        unknown = [job for job in jobs if job not in rows]
        if unknown:
            rows.update({row.job: row for row in self._account_of(where, unknown)})
        return {f"{job};{cluster}" if cluster else job: rows[job] for job in jobs if job in rows}

    def _account_of(self, where: Sequence[str], jobs: Sequence[str]) -> list[slurm_text.Row]:
        """What accounting knows of jobs that slurmctld has forgotten; nothing where there is none."""
        if self._memory.accounting is False:
            return []
        query = ("--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}")
        try:
            done = self._call("sacct", *where, *query, f"--format={slurm_text.SACCT_FORMAT}")
        except InfrastructureError:  # a slow database must not hide what squeue has said
            return []
        if done.returncode:
            if slurm_words.NO_ACCOUNTING.search(said_by(done)):
                self._memory.accounting = False
            return []
        self._memory.accounting = True
        return slurm_text.read_sacct(done.stdout)

    def _judge(self, rows: dict[str, slurm_text.Row]) -> None:
        """End jobs that wait for what will not come, once Slurm has said so for long enough."""
        now, memory = time.monotonic(), self._memory
        over = []
        for batch_id, row in rows.items():
            if not row.never or batch_id in memory.cancelled:
                memory.doomed.pop(batch_id, None)
            elif now - memory.doomed.setdefault(batch_id, now) >= DOOMED_S:
                over.append(batch_id)
        if over:
            self.cancel(over)
        for batch_id in over:
            row = rows[batch_id]
            said = f"Slurm would never have started it: {row.reason}. {row.never}."
            rows[batch_id] = replace(row, state="FAILED", reason=said)
            memory.final[batch_id] = BlockStatus(BlockState.FAILED, said, hopeless=True)

    def _end_unsure(self) -> None:
        """Cancel, by their names, jobs that sbatch may have handed in without an answer."""
        for name, tries in list(self._memory.unsure.items()):
            done = self._call(*self._cancel_by_name([name]))
            if done.returncode == 0 and tries <= 1:
                del self._memory.unsure[name]
            elif done.returncode == 0:
                self._memory.unsure[name] = tries - 1

    def _refusal(self, block: str, said: str) -> str:
        remedy = slurm_words.remedy(said)
        valid = ""
        if "partition" in remedy and (names := self._partitions()):
            valid = f" Partitions here: {', '.join(names)}."
        return f"Slurm rejected block {block}: {said}.{valid}{f' {remedy}.' if remedy else ''}"

    def _partitions(self) -> list[str]:
        try:
            done = self._call("sinfo", "--noheader", "--format=%R")
        except InfrastructureError:
            return []
        return sorted(set(done.stdout.split())) if done.returncode == 0 else []

    def _call(self, *argv: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return run(argv, self.cmd_timeout_s, environment)


def _parse_durations(provider: SlurmProvider) -> None:
    from pilotflow.errors import ConfigError
    from pilotflow.units import parse_duration, show

    for key, least in (("cmd_timeout", 0.1), ("min_poll_interval", 0.0)):
        try:
            seconds = parse_duration(getattr(provider, key))
        except ConfigError as error:
            raise field_error(provider, key, str(error)) from None
        if seconds < least:
            raise field_error(provider, key, f"{show(getattr(provider, key))} is less than {least} s.")
        object.__setattr__(provider, key, seconds)
