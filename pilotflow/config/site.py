"""What a site is: its partitions, its habits, and the limits that its admins set.

A `Site` is what a site file says (see `pilotflow.config.site_file`). Users name a site, or are on one;
what they must not know then is in here. The records check themselves when they are made.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilotflow.config.plugins import name_of
from pilotflow.core.addresses import parse_ports
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.typechecks import check_arguments, field_error
from pilotflow.units import did_you_mean, format_duration, format_memory, parse_duration, parse_memory, show

BATCH_SYSTEMS: Final = ("slurm", "pbs", "local")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a site file's facts come from.

    Attributes:
        url: a public page.
        date: the day of the version that was read, or on which it was read where the page does not say, such as
            "2026-11-28"; None where it is only the place to look.
    """

    url: str
    date: str | None = None

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.date is not None and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", self.date):
            raise field_error(self, "date", f"{show(self.date)} is no date. Write it as 2026-11-28.")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How to tell that a program runs at the site. One hit is enough.

    Attributes:
        environment: variables and the values that they have there; patterns as of the shell (`*`, `?`, `[a-c]`).
        hosts: patterns of host names, fully qualified where they are that here.
        files: paths that exist there.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: Sequence[str] = ()
    files: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_arguments(self)

    def __str__(self) -> str:
        """What tells that one is there, in words; empty if nothing does."""
        signs = [f"{name}={pattern}" for name, pattern in self.environment.items()]
        signs += [f"host {pattern}" for pattern in self.hosts]
        return " or ".join([*signs, *(f"file {path}" for path in self.files)])

    def reason(self, environment: Mapping[str, str], hosts: Sequence[str], exists: Any) -> str | None:
        """Why this is the site, in words, or None if nothing says so.

        Args:
            environment: the variables to look at.
            hosts: the names of this host.
            exists: tells whether a path exists.
        """
        for name, pattern in self.environment.items():
            if name in environment and fnmatch.fnmatchcase(environment[name], pattern):
                return f"{name}={environment[name]}"
        for pattern in self.hosts:
            for host in hosts:
                if fnmatch.fnmatchcase(host, pattern):
                    return f"the host name {host} fits {pattern}"
        for path in self.files:
            if exists(path):
                return f"{path} exists"
        return None


@dataclass(frozen=True, kw_only=True)
class AccountRules:
    """What the site says of accounts (projects, allocations).

    Attributes:
        required: whether the batch system wants one.
        default: the account if none is given.
        suffix_for_gpus: what the account's name gets on partitions with GPUs, such as "_g".
        suffix_for_cpus: the same on partitions without.
    """

    required: bool = False
    default: str | None = None
    suffix_for_gpus: str = ""
    suffix_for_cpus: str = ""

    def __post_init__(self) -> None:
        check_arguments(self)

    def name_on(self, account: str, gpus: bool) -> str:
        """What an account is called on a partition, whichever of its names was given.

        Args:
            account: a name, with a suffix or without.
            gpus: whether the partition has GPUs.
        """
        wanted, other = (self.suffix_for_gpus, self.suffix_for_cpus)[:: 1 if gpus else -1]
        if wanted and account.endswith(wanted):
            return account
        return (account.removesuffix(other) if wanted else account) + wanted


@dataclass(frozen=True, kw_only=True)
class Network:
    """How compute nodes reach the interchange.

    Attributes:
        address: name of a network interface of the login nodes ("hsn0"), or a network ("10.148.0.0/16"); None
            for the route that the nodes use. See `ExecutorConfig`.
        ports: "LOW-HIGH", both included; None for any free port.
    """

    address: str | None = None
    ports: str | None = None

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.ports is not None:
            try:
                parse_ports(self.ports)
            except ConfigError as error:
                raise field_error(self, "ports", str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Directories of the site. `~`, `$NAME` and `${NAME}` are expanded in these, and nowhere else.

    Attributes:
        runs: where run directories go by default; all nodes must see it.
        scratch: big and fast, seen by all nodes.
        node_local: on each node's own disk or in its memory.
    """

    runs: str | None = None
    scratch: str | None = None
    node_local: str | None = None

    def __post_init__(self) -> None:
        check_arguments(self)


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition (queue) of the batch system. Amounts are per node.

    Attributes:
        name: what users and policies call it.
        batch_name: what the batch system calls it, if that is another word; empty for the batch system's default,
            where a QOS or a constraint says everything.
        description: for people.
        nodes: how many there are.
        cpus_per_node: cores that jobs may use on a node.
        memory_per_node: memory that jobs may use; bytes or as in "240g".
        gpus_per_node: GPUs.
        gpu_type: what they are called in `--gpus` or `--gres`.
        gpu_memory: memory of one GPU.
        ask_for_gpus: whether jobs ask the batch system for them; false where they come with the node.
        max_walltime: the longest that a batch job may run; seconds or as in "2-00:00:00".
        min_nodes, max_nodes: what one batch job may have.
        shared: whether several jobs may share a node.
        default: whether it is taken if nothing says otherwise; at most one is.
        explicit: whether it is taken only by those who name it.
        qos: qualities of service that jobs may ask for there; none means that none is known.
        default_qos: the one to ask for.
        constraint: node features to ask for.
        charge_factor: what a node-hour costs, relative to the site's unit.
        launcher: how managers are started there, if not as everywhere on the site; its name, or its type and options.
        scheduler_options: further options of the batch system, such as "--licenses=scratch".
        unverified: names of fields above whose values no public page confirms.
    """

    name: str
    batch_name: str | None = None
    description: str = ""
    nodes: int | None = None
    cpus_per_node: int | None = None
    memory_per_node: int | str | None = None
    gpus_per_node: int = 0
    gpu_type: str | None = None
    gpu_memory: int | str | None = None
    ask_for_gpus: bool = True
    max_walltime: float | str | None = None
    min_nodes: int = 1
    max_nodes: int | None = None
    shared: bool = False
    default: bool = False
    explicit: bool = False
    qos: Sequence[str] = ()
    default_qos: str | None = None
    constraint: str | None = None
    charge_factor: float = 1.0
    launcher: Launcher | None = None
    scheduler_options: Sequence[str] = ()
    unverified: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_arguments(self)
        if not _NAME.fullmatch(self.name):
            raise field_error(self, "name", f"{show(self.name)} is no name of a partition.")
        for key, least in (
            ("nodes", 1),
            ("cpus_per_node", 1),
            ("gpus_per_node", 0),
            ("min_nodes", 1),
            ("max_nodes", 1),
        ):
            value = getattr(self, key)
            if value is not None and value < least:
                raise field_error(self, key, f"{show(value)} is not a whole number of {least} or more.")
        for key in ("memory_per_node", "gpu_memory"):
            _to_number(self, key, parse_memory)
        _to_number(self, "max_walltime", parse_duration)
        if self.max_nodes is not None and self.max_nodes < self.min_nodes:
            problem = f"{self.min_nodes} is above max_nodes={self.max_nodes}."
            raise field_error(self, ("min_nodes", "max_nodes"), problem)
        if self.charge_factor < 0:
            raise field_error(self, "charge_factor", f"{show(self.charge_factor)} is below 0.")
        if self.qos and self.default_qos is not None and self.default_qos not in self.qos:
            raise field_error(self, "default_qos", f"{show(self.default_qos)} is not in qos ({', '.join(self.qos)}).")
        for name in self.unverified:
            _check_known(self, "unverified", name, [key for key in self.__dataclass_fields__ if key != "unverified"])

    @property
    def memory_bytes(self) -> int | None:
        """`memory_per_node` as a number."""
        return None if self.memory_per_node is None else int(self.memory_per_node)

    @property
    def max_walltime_s(self) -> float | None:
        """`max_walltime` in seconds."""
        return None if self.max_walltime is None else float(self.max_walltime)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits that users' settings may not exceed; what is not given is not limited.

    Attributes:
        max_blocks: blocks of a run at any time, all executors together.
        max_nodes: nodes of a run at any time, all executors together.
        max_walltime: of a block.
        max_queued_jobs: batch jobs of a run that wait or run at any time.
        max_submissions_per_minute: batch jobs that a run submits.
        min_poll_interval: the shortest time between two questions to the batch system.
        partitions, accounts, qos: the only ones allowed; patterns as of the shell.
        fixed: settings that users may not change; they are what the site file's `defaults` say.
    """

    max_blocks: int | None = None
    max_nodes: int | None = None
    max_walltime: float | str | None = None
    max_queued_jobs: int | None = None
    max_submissions_per_minute: int | None = None
    min_poll_interval: float | str | None = None
    partitions: Sequence[str] | None = None
    accounts: Sequence[str] | None = None
    qos: Sequence[str] | None = None
    fixed: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_arguments(self)
        for key in ("max_blocks", "max_nodes", "max_queued_jobs", "max_submissions_per_minute"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise field_error(self, key, f"{show(value)} is not a whole number of 1 or more.")
        for key in ("max_walltime", "min_poll_interval"):
            _to_number(self, key, parse_duration)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A machine with a batch system, as its admins describe it.

    Attributes:
        name: what users call it.
        description: for people.
        sources: where the facts come from.
        detect: how to tell that one is there.
        batch_system: "slurm", "pbs" or "local".
        account: rules of accounts.
        network: how nodes reach the interchange.
        paths: directories.
        worker_init: shell text by name, for users to choose from.
        launcher: how managers are started: its name, or its type and options; srun if not given.
        partitions: where work can run.
        resources: consumables of the site as a whole, such as `{"matlab": 20}` licences. The nodes that a run may come
            to have share them evenly, so that it never uses more; where there are fewer than nodes, it has none.
        defaults: settings, see `pilotflow.config.settings`, which users may change unless they are fixed.
        policy: limits.
        message: what users are told once when a run starts.
        unverified: names of fields above whose values no public page confirms.
    """

    name: str
    description: str = ""
    sources: tuple[Source, ...] = ()
    detect: Detection = field(default_factory=Detection)
    batch_system: str = "slurm"
    account: AccountRules = field(default_factory=AccountRules)
    network: Network = field(default_factory=Network)
    paths: Paths = field(default_factory=Paths)
    worker_init: Mapping[str, str] = field(default_factory=dict)
    launcher: Launcher | None = None
    partitions: tuple[Partition, ...] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    message: str = ""
    unverified: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_arguments(self)
        if not _NAME.fullmatch(self.name):
            raise field_error(self, "name", f"{show(self.name)} is no name. Use letters, digits and _ . -")
        _check_known(self, "batch_system", self.batch_system, BATCH_SYSTEMS)
        names = [partition.name for partition in self.partitions]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise field_error(self, "partitions", f"'{twice}' is described twice.")
        first = [partition.name for partition in self.partitions if partition.default]
        if len(first) > 1:
            raise field_error(self, "partitions", f"{' and '.join(first)} are both `default`; one can be.")
        for name in self.unverified:
            _check_known(self, "unverified", name, [key for key in self.__dataclass_fields__ if key != "unverified"])

    def partition(self, name: str) -> Partition:
        """The partition of this name.

        Raises:
            ConfigError: there is none; names those that there are.
        """
        for partition in self.partitions:
            if partition.name == name:
                return partition
        names = [partition.name for partition in self.partitions]
        raise ConfigError(
            f"site '{self.name}' has no partition '{name}'{did_you_mean(name, names)}. It has: {', '.join(names)}."
        )

    def unverified_values(self) -> list[str]:
        """What no public page confirms, each as `where: value`."""
        out = [f"{key}: {_text_of(key, getattr(self, key))}" for key in self.unverified]
        for partition in self.partitions:
            where = f"partition {partition.name}"
            out += [f"{where}, {key}: {_text_of(key, getattr(partition, key))}" for key in partition.unverified]
        return out


def _text_of(key: str, value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, Launcher):
        return name_of(type(value))
    if key in ("memory_per_node", "gpu_memory"):
        return format_memory(value)
    return format_duration(value) if key == "max_walltime" else str(value)


def _check_known(owner: object, key: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        problem = f"{show(value)} is none of {', '.join(valid)}{did_you_mean(value, valid)}."
        raise field_error(owner, key, problem)


def _to_number(owner: object, key: str, parse: Any) -> None:
    """Replace a field by its number, so that "2h" and 7200 are the same from here on."""
    value = getattr(owner, key)
    if value is None:
        return
    try:
        object.__setattr__(owner, key, parse(value))
    except ConfigError as error:
        raise field_error(owner, key, str(error)) from None
