"""A site file from what Slurm says of itself: text in, text out. Pure.

What the commands of Slurm 22.05 and later print for `scontrol show partition --oneliner`, `scontrol show node
--oneliner` and `scontrol show config` is read; what is not there is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilotflow.errors import ConfigError, InfrastructureError
from pilotflow.units import format_duration, parse_duration

_PAIR = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z_/:]*)=(\S*)")
_SETTING = re.compile(r"^(\S+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_GPU = re.compile(r"gpu(?::(?P<type>[A-Za-z][\w.-]*))?:(?P<count>\d+)")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_USELESS = frozenset(["", "(null)", "N/A", "UNLIMITED", "NONE", "ALL", "n/a", "INFINITE"])


@dataclass(frozen=True)
class _Node:
    """What one node has."""

    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str | None
    features: tuple[str, ...]
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class SlurmFacts:
    """What the commands have said.

    Attributes:
        partitions: text of `scontrol show partition --oneliner`.
        nodes: text of `scontrol show node --oneliner`.
        config: text of `scontrol show config`.
        accounts: accounts of the caller, as `sacctmgr` has them; empty if there is no accounting.
    """

    partitions: str
    nodes: str
    config: str
    accounts: Sequence[str] = field(default_factory=tuple)


def site_text(facts: SlurmFacts, date: str, name: str | None = None) -> str:
    """A site file, with remarks on what its admin should look at.

    Args:
        facts: what Slurm says.
        date: the day, for the file's head.
        name: what the site is called; the cluster's name if not given.

    Raises:
        InfrastructureError: Slurm has told of no partition.
    """
    settings = {match[1]: match[2] for match in _SETTING.finditer(facts.config)}
    partitions = [_pairs(line) for line in facts.partitions.splitlines() if "PartitionName=" in line]
    if not partitions:
        raise InfrastructureError(
            f"Slurm tells of no partition. `scontrol show partition` said: {facts.partitions[:500]!r}"
        )
    nodes = [_node(_pairs(line)) for line in facts.nodes.splitlines() if "NodeName=" in line]
    cluster = settings.get("ClusterName", "cluster")
    lines = [
        f"# Written by `pilotflow site generate` on {date}, from Slurm {settings.get('SLURM_VERSION', '')}.".replace(
            " .", "."
        ),
        "# Look through it, then try it: pilotflow site check FILE",
        f"name: {_word(name or cluster)}",
        "# description: 100 CPU nodes, 10 GPU nodes  # for `pilotflow site list`",
        "batch_system: slurm",
        "detect:",
        "  environment: {SLURM_CLUSTER_NAME: " + _word(cluster) + "}",
        "  # SLURM_CLUSTER_NAME is set in batch jobs only. /etc/pilotflow/site.yaml is found without; any other place needs:",
        '  # hosts: ["login*"]  # names of login nodes',
    ]
    lines += _account(settings, facts.accounts)
    lines += [
        "# network: {address: ib0, ports: 50000-51000}  # if the route that nodes use is not the right one",
        '# paths: {runs: "$SCRATCH/pilotflow"}  # a directory that all nodes see',
        '# worker_init: {default: "module load python"}',
        "launcher: srun",
        "partitions:",
    ]
    for pairs in partitions:
        lines += _partition(pairs, [node for node in nodes if pairs["PartitionName"] in node.partitions], settings)
    lines += [
        "policy:  # what nobody's settings may exceed; see the guide for site admins",
        "  max_blocks: 20",
        "  max_queued_jobs: 20",
        "  max_submissions_per_minute: 30",
        "  min_poll_interval: 15s",
    ]
    return "\n".join(lines) + "\n"


def _pairs(line: str) -> dict[str, str]:
    return dict(_PAIR.findall(line))


def _node(pairs: Mapping[str, str]) -> _Node:
    match = _GPU.search(pairs.get("Gres", ""))
    features = pairs.get("AvailableFeatures", "")
    return _Node(
        cpus=_number(pairs.get("CPUEfctv") or pairs.get("CPUTot")) or 1,
        memory_mb=_number(pairs.get("RealMemory")) or 0,
        gpus=int(match["count"]) if match else 0,
        gpu_type=match["type"] if match else None,
        features=() if features in _USELESS else tuple(features.split(",")),
        partitions=tuple(pairs.get("Partitions", "").split(",")),
    )


def _account(settings: Mapping[str, str], accounts: Sequence[str]) -> list[str]:
    enforced = "associations" in settings.get("AccountingStorageEnforce", "")
    if not enforced and not accounts:
        return []
    known = f"  # yours: {', '.join(accounts)}" if accounts else ""
    return [f"account: {{required: {'true' if enforced else 'false'}}}{known}"]


def _partition(pairs: Mapping[str, str], nodes: Sequence[_Node], settings: Mapping[str, str]) -> list[str]:
    name = pairs["PartitionName"]
    state = pairs.get("State", "UP")
    lines = [f"  - name: {_word(name)}"]
    if state != "UP":
        lines[0] += f"  # it is {state} now"
    lines.append(f"    nodes: {_number(pairs.get('TotalNodes')) or len(nodes) or 1}")
    if nodes:
        lines += _of_nodes(nodes)
    limit = pairs.get("MaxTime", "")
    if limit not in _USELESS:
        lines.append(f"    max_walltime: {_word(_duration(limit))}")
    for key, word in (("min_nodes", "MinNodes"), ("max_nodes", "MaxNodes")):
        number = _number(pairs.get(word))
        if number is not None and number > (1 if key == "min_nodes" else 0):
            lines.append(f"    {key}: {number}")
    linear = settings.get("SelectType", "") == "select/linear"
    lines.append(f"    shared: {'false' if linear or pairs.get('OverSubscribe') == 'EXCLUSIVE' else 'true'}")
    if pairs.get("Default") == "YES":
        lines.append("    default: true")
    if state != "UP" or pairs.get("Hidden") == "YES" or pairs.get("RootOnly") == "YES":
        lines.append("    explicit: true")
    allowed = pairs.get("AllowQos", "ALL")
    if allowed not in _USELESS:
        lines.append(f"    qos: [{', '.join(map(_word, allowed.split(',')))}]")
    if pairs.get("AllowAccounts", "ALL") not in _USELESS:
        lines.append(f"    # only for accounts {pairs['AllowAccounts']}")
    return lines


def _of_nodes(nodes: Sequence[_Node]) -> list[str]:
    """What every node of a partition has, so that what is planned with is true of each."""
    lines: list[str] = []
    for key, amounts, unit in (
        ("cpus_per_node", [node.cpus for node in nodes], ""),
        ("memory_per_node", [node.memory_mb for node in nodes], "m"),
        ("gpus_per_node", [node.gpus for node in nodes], ""),
    ):
        least, most = min(amounts), max(amounts)
        if most:
            more = f"  # some nodes have {most}{unit}" if most > least else ""
            lines.append(f"    {key}: {least}{unit}{more}")
    types = sorted({node.gpu_type for node in nodes if node.gpu_type})
    if min(node.gpus for node in nodes) and len(types) == 1:
        lines.append(f"    gpu_type: {_word(types[0])}")
    elif len(types) > 1:
        lines.append(f"    # GPUs of several types: {', '.join(types)}")
    features = sorted(set[str]().union(*(node.features for node in nodes)))
    if features:
        lines.append(f"    # features, for constraint: {', '.join(features)}")
    return lines


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _duration(text: str) -> str:
    try:
        return format_duration(parse_duration(text))
    except ConfigError:  # minutes alone, or "days-hours:minutes"
        return text


def _word(text: str) -> str:
    """Text as YAML: plain where that is safe."""
    if _PLAIN.fullmatch(text) and text.lower() not in ("true", "false", "null", "yes", "no", "on", "off"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def accounts_in(text: str) -> list[str]:
    """The accounts in what `sacctmgr --noheader --parsable2 show associations format=account` prints."""
    return sorted({line.strip() for line in text.splitlines() if line.strip()})
