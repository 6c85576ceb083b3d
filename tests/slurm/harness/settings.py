"""What a test cluster is like, and the texts of its configuration files. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOGIN: Final = "login"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A cluster of node1 to nodeN, and the host `login` with slurmctld and the user's programs.

    Partitions: `debug` (the default, all nodes), `gpu` (the nodes with GPUs), `low` (all nodes, preempted by
    the other two), `limited` (all nodes, at most 5 minutes and 2 nodes), `off` (down).

    Attributes:
        state: where everything of the cluster is written. Short: Unix sockets have 108 bytes.
        name: the cluster's name, as for `--clusters`.
        prefix: put before all host names, so that two clusters can know each other.
        first_address: the last byte of node1's address; login has the one before.
        nodes, cpus, memory_mb: how many nodes there are, and what Slurm believes of each.
        gpu_nodes, gpus: the last so many nodes have so many GPUs each (character devices that do nothing).
        accounting: slurmdbd and MariaDB, so that there is sacct.
        enforce: with accounting: accounts must be right, and limits are kept.
        sacctmgr: with accounting: commands of sacctmgr that are run before slurmctld first starts; that of
            22.05.8 was seen to die when a second account was made while it ran.
        cgroups: Slurm enforces memory by cgroups of version 1.
        private_tmp: each node has a /tmp of its own; `state/shared` is then what all hosts share.
        kill_wait_s: seconds from SIGTERM to SIGKILL.
        slurmd_timeout_s: seconds of silence until a node is down.
        min_job_age_s: seconds for which an ended job is remembered.
        more: further lines of slurm.conf; a key that is given here is left out above.
    """

    state: Path = Path(f"/tmp/pfs-{zlib.crc32(str(Path(__file__)).encode()):08x}")  # one for each checkout
    name: str = "pfs"
    prefix: str = ""
    first_address: int = 1
    nodes: int = 4
    cpus: int = 4
    memory_mb: int = 4000
    gpu_nodes: int = 2
    gpus: int = 2
    accounting: bool = False
    enforce: bool = False
    sacctmgr: tuple[str, ...] = ()
    cgroups: bool = False
    private_tmp: bool = False
    kill_wait_s: int = 5
    slurmd_timeout_s: int = 10
    min_job_age_s: int = 300
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def login(self) -> str:
        """The login host's name."""
        return self.prefix + LOGIN

    @property
    def node_names(self) -> list[str]:
        """All nodes, in order."""
        return [f"{self.prefix}node{number}" for number in range(1, self.nodes + 1)]

    @property
    def hosts(self) -> list[str]:
        """Login and all nodes."""
        return [self.login, *self.node_names]

    def address(self, host: str) -> str:
        """A host's address on the cluster's network."""
        if host == self.login:
            return f"10.77.0.{254 - len(self.prefix)}"
        return f"10.77.0.{self.first_address + self.node_names.index(host)}"


def hosts_text(clusters: list[Settings]) -> str:
    """/etc/hosts of all hosts of these clusters."""
    lines = ["127.0.0.1 localhost"]
    for cluster in clusters:
        lines += [f"{cluster.address(host)} {host}" for host in cluster.hosts]
    return "\n".join(lines) + "\n"


def slurm_conf(of: Settings, dbd_host: str | None = None) -> str:
    """The text of slurm.conf.

    Args:
        of: the cluster.
        dbd_host: where slurmdbd runs, if somewhere.
    """
    state = of.state
    keys = {
        "ClusterName": of.name,
        "SlurmctldHost": of.login,
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={state}/run/munge.sock",
        "StateSaveLocation": f"{state}/ctld",
        "SlurmdSpoolDir": f"{state}/run/slurmd",
        "SlurmctldPidFile": f"{state}/run/slurmctld.pid",
        "SlurmdPidFile": f"{state}/run/slurmd.pid",
        "SlurmctldLogFile": f"{state}/log/slurmctld.log",
        "SlurmdLogFile": f"{state}/log/slurmd.%n.log",
        # the nodes' hardware is what this file says
        "SlurmdParameters": "config_overrides",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/cgroup" if of.cgroups else "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": str(of.memory_mb // of.cpus),
        "GresTypes": "gpu",
        "MpiDefault": "none",
        "TmpFS": f"{state}/local",  # of the node: pmix keeps its sockets there
        # reactions in seconds instead of minutes
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1",
        "SlurmdTimeout": str(of.slurmd_timeout_s),
        "SlurmctldTimeout": "10",
        "MessageTimeout": "5",
        "TCPTimeout": "2",
        "BatchStartTimeout": "10",
        "KillWait": str(of.kill_wait_s),
        "CompleteWait": "0",
        "InactiveLimit": "0",
        "MinJobAge": str(of.min_job_age_s),
        "WaitTime": "0",
        "ReturnToService": "1",
        "JobRequeue": "1",
        "GetEnvTimeout": "0",  # the login environment is in its cache: getting it takes a second each other time
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "AccountingStorageType": "accounting_storage/none",
    }
    if dbd_host is not None:
        keys |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": dbd_host,
            "AccountingStoragePass": f"{state}/run/munge.sock",
            "AccountingStorageTRES": "gres/gpu",
        }
        if of.enforce:
            keys["AccountingStorageEnforce"] = "associations,limits"
    return (
        "\n".join(f"{key}={value}" for key, value in {**keys, **of.more}.items()) + "\n" + _nodes(of) + _partitions(of)
    )


def _nodes(of: Settings) -> str:
    hardware = f"CPUs={of.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={of.cpus} ThreadsPerCore=1"
    gpus = set(_with_gpus(of))
    lines = [
        f"NodeName={node} {hardware} RealMemory={of.memory_mb}{f' Gres=gpu:{of.gpus}' if node in gpus else ''}"
        for node in of.node_names
    ]
    return "\n".join(lines) + "\n"


def _partitions(of: Settings) -> str:
    every = f"Nodes={','.join(of.node_names)} MaxTime=INFINITE DefaultTime=10"
    lines = [
        f"PartitionName=debug {every} Default=YES PriorityTier=10",
        f"PartitionName=low {every} PriorityTier=1 PreemptMode=REQUEUE",
        f"PartitionName=limited Nodes={','.join(of.node_names)} MaxTime=5 MaxNodes=2 PriorityTier=10",
        f"PartitionName=off {every} State=DOWN",
    ]
    if gpus := _with_gpus(of):
        lines.append(f"PartitionName=gpu Nodes={','.join(gpus)} MaxTime=INFINITE DefaultTime=10 PriorityTier=10")
    return "\n".join(lines) + "\n"


def _with_gpus(of: Settings) -> list[str]:
    return of.node_names[len(of.node_names) - of.gpu_nodes :] if of.gpus and of.gpu_nodes else []


def gres_conf(of: Settings) -> str:
    """The text of gres.conf."""
    lines = ["AutoDetect=off"]
    devices = f"{of.state}/dev/gpu[0-{of.gpus - 1}]"
    lines += [f"NodeName={node} Name=gpu Flags=nvidia_gpu_env File={devices}" for node in _with_gpus(of)]
    return "\n".join(lines) + "\n"


def cgroup_conf(of: Settings) -> str:
    """The text of cgroup.conf."""
    ram = "yes" if of.cgroups else "no"
    return (
        "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
        f"ConstrainRAMSpace={ram}\nConstrainCores=no\nConstrainDevices=no\n"
    )


def dbd_conf(of: Settings) -> str:
    """The text of slurmdbd.conf."""
    return f"""\
DbdHost={of.login}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={of.state}/run/munge.sock
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=3306
StorageUser=root
StorageLoc=slurm_acct
PidFile={of.state}/run/slurmdbd.pid
LogFile={of.state}/log/slurmdbd.log
CommitDelay=0
"""
