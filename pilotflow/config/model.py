"""The typed configuration of a run: `Config` and its executors, checked when they are made."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pilotflow.core.addresses import parse_ports
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.providers.base import Provider
from pilotflow.providers.local import LocalProvider
from pilotflow.requests import parse_request
from pilotflow.resources import SortMethod
from pilotflow.typechecks import check_arguments, field_error
from pilotflow.units import did_you_mean, format_duration, format_memory, parse_duration, parse_memory, show

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:@-]{0,254}(/[0-9]{1,3})?")
_MAX_WORKERS: Final = 100_000
_MAX_THREADS: Final = 1000
_MAX_COUNT: Final = 10**6


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """A named supply of workers.

    Attributes:
        label: its name, unique in the run; apps are bound to it by this name.
        provider: where its blocks come from, and how many.
        launcher: how managers are started on a block's nodes; if not given, as its provider has it:
            `single_node` on this machine, `srun` in jobs of Slurm.
        max_workers_per_node: one-CPU slots to offer on each node, even above its core count; one
            per usable core if not given.
        max_parallel_jobs: run at most this many tasks at once on a node and ignore what they ask
            for (depth-limited dispatch), instead of `max_workers_per_node`.
        num_cpus, memory, num_gpus: what each node offers, instead of what is measured there; memory
            in bytes or as in "64g". `max_workers_per_node` goes before `num_cpus`.
        resources: consumables that each node has, such as `{"licence": 2}`.
        pin: whether tasks are pinned to their cores. If not given they are, unless several managers
            may share this machine.
        memory_margin: memory above its request that a task may use before it is ended, as a part of it.
        runtime_grace: time from the warning to the end of a task that has exceeded its runtime.
            Seconds or "5s".
        min_time_for_new_tasks: a task that does not say its runtime starts only where so much of its block's walltime is
            left. Seconds or "10m"; if not given, 5 minutes, and a tenth of it where blocks are shorter than 50.
        mode: how tasks are placed: "direct", by managers on the nodes; "slurm", each as a step that srun starts,
            for blocks that are jobs of Slurm; "auto", as steps where that is possible.
        activate: whether the virtual environment, or conda's, in which this program runs is active on nodes; otherwise
            `python3` is the one that `worker_init` has put on the PATH.
        stage_env: bring that environment to a directory of each node, as one file: a path, or True for /tmp. For
            hundreds of nodes that start from a shared file system.
        address: where the nodes reach this machine: the name of a network interface ("ib0"), a network
            ("10.1.0.0/16"), an address or a host name. If not given, the address that this machine uses
            to talk to the nodes, where they are other machines.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    label: str = "local"
    provider: Provider = field(default_factory=LocalProvider)
    launcher: Launcher = None  # type: ignore[assignment]  # the provider's own, see __post_init__
    max_workers_per_node: int | None = None
    max_parallel_jobs: int | None = None
    num_cpus: int | None = None
    memory: int | str | None = None
    num_gpus: int | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    pin: bool | None = None
    memory_margin: float = 0.05
    runtime_grace: float | str = 5.0
    min_time_for_new_tasks: float | str | None = None
    mode: Literal["direct", "slurm", "auto"] = "direct"
    activate: bool = True
    stage_env: bool | str = False
    address: str | None = None

    def __post_init__(self) -> None:
        given: object = self.launcher
        if given is None and isinstance(self.provider, Provider):
            object.__setattr__(self, "launcher", self.provider.default_launcher())
        check_arguments(self)
        for plugin in (self.provider, self.launcher):
            if dataclasses.is_dataclass(plugin):  # those of other packages may leave it to us
                check_arguments(plugin)
        _check_label(self)
        self.provider.check_launcher(self.launcher)
        for key in ("max_workers_per_node", "max_parallel_jobs"):
            _check_range(self, key, 1, _MAX_WORKERS)
        _check_range(self, "num_cpus", 1, _MAX_WORKERS)
        _check_range(self, "num_gpus", 0, 1 << 10)
        if self.memory is not None:
            _parse(self, "memory", parse_memory, 1 << 20, format_memory)
        _parse(self, "runtime_grace", parse_duration, 0.0, format_duration)
        self._check_min_time()
        if not 0.0 <= self.memory_margin <= 10.0:
            raise field_error(self, "memory_margin", f"{show(self.memory_margin)} is not a number from 0 to 10.")
        if isinstance(self.stage_env, str) and not self.stage_env.startswith("/"):
            raise field_error(
                self, "stage_env", f"{show(self.stage_env)} is no absolute path of the nodes, and not true."
            )
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            problem = "is no interface, network, address or host name."
            raise field_error(self, "address", f"{show(self.address)} {problem}")
        parse_request(resources=dict(self.resources) or None)  # names and amounts are those of requests
        if self.max_workers_per_node is not None and self.max_parallel_jobs is not None:
            raise field_error(
                self,
                ("max_workers_per_node", "max_parallel_jobs"),
                f"executor '{self.label}' has both, and they exclude each other. The first offers that many one-CPU "
                "slots a node and fits tasks into them; the second runs that many tasks a node at once, whatever "
                "they ask for. Give one.",
            )

    def _check_min_time(self) -> None:
        if self.min_time_for_new_tasks is None:
            return
        _parse(self, "min_time_for_new_tasks", parse_duration, 0.0, format_duration)
        walltime_s = self.provider.walltime_s
        if walltime_s is not None and (self.min_time_s or 0.0) >= walltime_s:
            raise field_error(
                self,
                "min_time_for_new_tasks",
                f"{format_duration(self.min_time_s or 0.0)} are never left of blocks with a walltime of "
                f"{format_duration(walltime_s)}. Give less, or the provider a longer walltime.",
            )

    @property
    def min_time_s(self) -> float | None:
        """`min_time_for_new_tasks` in seconds."""
        return None if self.min_time_for_new_tasks is None else float(self.min_time_for_new_tasks)

    @property
    def memory_bytes(self) -> int | None:
        """`memory` as a number."""
        return None if self.memory is None else int(self.memory)

    @property
    def runtime_grace_s(self) -> float:
        """`runtime_grace` in seconds."""
        return float(self.runtime_grace)


@dataclass(frozen=True, kw_only=True)
class ThreadExecutorConfig:
    """Threads of the program itself, for light work: no blocks, no other process, nothing to wait for.

    A thread cannot be killed, and shares the program's memory and surroundings. So apps that say
    `runtime`, `timeout`, `cwd` or `env` are refused here, unless what they run is a command; what
    else tasks ask for (`num_cpus`, `memory`, `num_gpus`, `resources`) is ignored, as it is where
    `max_parallel_jobs` is set. Work that is not bound to an executor comes here only if there is no other.

    Attributes:
        label: its name, unique in the run; apps are bound to it by this name.
        max_threads: tasks that run at once.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    label: str = "threads"
    max_threads: int = 8

    def __post_init__(self) -> None:
        check_arguments(self)
        _check_label(self)
        _check_range(self, "max_threads", 1, _MAX_THREADS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a run is started with.

    Attributes:
        executors: its supplies of workers; by default this machine with all its cores.
        run_dir: where run directories go; `runs/NNNN/` are made in it.
        scratch_dir: where scratch directories of tasks are made on their nodes, such as "/tmp" or "$TMPDIR" (variables
            are those of the node); `scratch` in the run directory if not given.
        retries: how often a task is tried again after an error of its own.
        backoff: pause before a task is tried again, twice as long before each further try. Seconds or "10s".
        retry_handler: called with the error and the number of tries made; it returns whether the task is tried
            again, or in how many seconds. Without `retries` it alone decides. Not to be said in a file.
        crash_limit: attempts at a task that may end with the loss of its worker or manager; 1
            means that no task is ever run twice.
        max_idletime: a block idle for so long is ended, down to `min_blocks`. Seconds or "2m".
        min_block_life: a block is kept for so long after its first manager has joined, idle or not. Seconds or "30s".
        start_limit: a block that runs and has no manager for so long is replaced. Seconds or "2m"; if not given, a
            minute for blocks on this machine, five for others, and half a minute longer than `connect_timeout` at
            least.
        heartbeat_limit: a process silent for so long is given up. Seconds or "30s".
        connect_timeout: a manager that cannot reach the run for so long ends, and says why. Seconds or "30s".
        encrypted: protect TCP links with CURVE. Without it anyone who can reach their ports can
            run code as you; Unix sockets stay protected by their 0700 directory.
        tcp: managers connect over TCP even on this host (they do on other hosts anyway).
        ports: where to listen for managers over TCP, such as "50000-50100"; any free port if not given.
        max_message_bytes: the most that a task's arguments, with the results they need, or its result may have.
            Bytes or "2g".
        job_sort_method: which tasks come first among those of equal priority: "gpus_runtime_memory"
            (most GPUs first, then longest runtime, then most memory), "gpus_memory_runtime" or "none";
            ties are for who was submitted first.
        cache: directory where results of apps with `cache=True` are kept, for this run and others. If not given
            they are kept in the run directory, for this run.
        store: record tasks and events in the run store, `run.db`.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    executors: Sequence[ExecutorConfig | ThreadExecutorConfig] = field(default_factory=lambda: (ExecutorConfig(),))
    run_dir: str | os.PathLike[str] = "runs"
    scratch_dir: str | None = None
    retries: int = 0
    backoff: float | str = 0.0
    retry_handler: Callable[[BaseException, int], Any] | None = None
    crash_limit: int = 5
    max_idletime: float | str = 120.0
    min_block_life: float | str = 30.0
    start_limit: float | str | None = None
    heartbeat_limit: float | str = 30.0
    connect_timeout: float | str = 30.0
    encrypted: bool = True
    tcp: bool = False
    ports: str | None = None
    max_message_bytes: int | str = 2 << 30
    job_sort_method: str = SortMethod.GPUS_RUNTIME_MEMORY.value
    cache: str | os.PathLike[str] | None = None
    store: bool = True

    def __post_init__(self) -> None:
        check_arguments(self)
        if not self.executors:
            raise field_error(self, "executors", "is empty. A run needs at least one executor.")
        labels = [executor.label for executor in self.executors]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise field_error(self, "executors", f"label '{twice[0]}' is used twice. Give each executor its own.")
        object.__setattr__(self, "executors", tuple(self.executors))
        if not os.fspath(self.run_dir) or "\0" in os.fspath(self.run_dir):
            raise field_error(self, "run_dir", f"{show(self.run_dir)} cannot be the path of a directory.")
        if self.cache is not None and (not os.fspath(self.cache) or "\0" in os.fspath(self.cache)):
            raise field_error(self, "cache", f"{show(self.cache)} cannot be the path of a directory.")
        _check_range(self, "retries", 0, _MAX_COUNT)
        _check_range(self, "crash_limit", 1, _MAX_COUNT)
        methods = [method.value for method in SortMethod]
        if self.job_sort_method not in methods:
            hint = did_you_mean(self.job_sort_method, methods)
            problem = f"{show(self.job_sort_method)} is no sort method{hint}. Valid: {', '.join(methods)}."
            raise field_error(self, "job_sort_method", problem)
        least_s = {
            "max_idletime": 0.0,
            "min_block_life": 0.0,
            "heartbeat_limit": 0.1,
            "connect_timeout": 1.0,
            "backoff": 0.0,
        }
        if self.start_limit is not None:
            least_s["start_limit"] = 1.0
        for key, least in least_s.items():
            _parse(self, key, parse_duration, least, format_duration)
        _parse(self, "max_message_bytes", parse_memory, 1 << 20, format_memory)
        if self.ports is not None:
            try:
                parse_ports(self.ports)
            except ConfigError as error:
                raise field_error(self, "ports", str(error)) from None

    @property
    def block_executors(self) -> tuple[ExecutorConfig, ...]:
        """Those of its executors whose workers are processes, in blocks."""
        return tuple(one for one in self.executors if isinstance(one, ExecutorConfig))

    @property
    def thread_executors(self) -> tuple[ThreadExecutorConfig, ...]:
        """Those of its executors that are threads of the program."""
        return tuple(one for one in self.executors if isinstance(one, ThreadExecutorConfig))

    def executors_for(self, labels: tuple[str, ...], who: str) -> tuple[tuple[str, ...], bool]:
        """The executors on which work that may run on these really runs, and whether they are threads.

        Threads are only used where there is nothing else. No labels mean any executor.

        Raises:
            ConfigError: one of them does not exist; names the ones that do.
        """
        known = [executor.label for executor in self.executors]
        for label in labels:
            if label not in known:
                raise ConfigError(f"{who} is bound to executor '{label}', and this run has: {', '.join(known)}.")
        threads = [one.label for one in self.thread_executors]
        others = tuple(label for label in labels or known if label not in threads)
        if not others:
            return (labels or (threads[0],))[:1], True
        return (others if labels else ()), False

    @property
    def backoff_s(self) -> float:
        """`backoff` in seconds."""
        return float(self.backoff)

    @property
    def max_idletime_s(self) -> float:
        """`max_idletime` in seconds."""
        return float(self.max_idletime)

    @property
    def min_block_life_s(self) -> float:
        """`min_block_life` in seconds."""
        return float(self.min_block_life)

    @property
    def start_limit_s(self) -> float | None:
        """`start_limit` in seconds; None if not given."""
        return None if self.start_limit is None else float(self.start_limit)

    @property
    def heartbeat_limit_s(self) -> float:
        """`heartbeat_limit` in seconds."""
        return float(self.heartbeat_limit)

    @property
    def connect_timeout_s(self) -> float:
        """`connect_timeout` in seconds."""
        return float(self.connect_timeout)

    @property
    def max_frame_bytes(self) -> int:
        """`max_message_bytes` as a number."""
        return int(self.max_message_bytes)

    @classmethod
    def for_this_machine(cls, max_workers: int | None = None, **others: Any) -> Config:
        """One executor, `local`, with one block on this machine.

        Args:
            max_workers: its workers; one per usable core by default.
            others: other fields of `Config`.
        """
        return cls(executors=(ExecutorConfig(max_workers_per_node=max_workers),), **others)


def _check_label(owner: ExecutorConfig | ThreadExecutorConfig) -> None:
    if not _LABEL.fullmatch(owner.label):
        problem = "is no label. Use letters, digits and _ . - (at most 64, a letter or digit first)."
        raise field_error(owner, "label", f"{show(owner.label)} {problem}")


def _check_range(owner: object, key: str, low: int, high: int) -> None:
    value = getattr(owner, key)
    if value is not None and not low <= value <= high:
        raise field_error(owner, key, f"{show(value)} is not a whole number from {low} to {high}.")


def _parse(owner: object, key: str, parse: Any, least: float, as_text: Any) -> None:
    """Replace a field by its number, so that "2m" and 120 are the same from here on."""
    try:
        number = parse(getattr(owner, key))
    except ConfigError as error:
        raise field_error(owner, key, str(error)) from None
    if number < least:
        raise field_error(owner, key, f"{show(getattr(owner, key))} is less than {as_text(least)}.")
    object.__setattr__(owner, key, number)
