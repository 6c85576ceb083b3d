"""Which of this machine's addresses the nodes are given, and what is said when they cannot reach it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.units import did_you_mean, show

_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True)
class Interface:
    """One address of this machine: of which network interface, and in numbers."""

    name: str
    address: str


@dataclass(frozen=True)
class Try:
    """What became of the attempts to reach one endpoint: the endpoint, and why not, in words."""

    endpoint: str
    outcome: str


def choose_address(
    wanted: str | None, interfaces: Sequence[Interface], routed: str | None = None, resolved: Sequence[str] = ()
) -> str:
    """The address to listen on.

    Args:
        wanted: the name of an interface ("ib0"), a network ("10.1.0.0/16"), an address or a name of this
            machine; None to take the one that this machine would use to talk to the nodes.
        interfaces: what this machine has.
        routed: the address from which this machine's packets to the nodes come, if that is known.
        resolved: what `wanted` means as a host name.

    Raises:
        ConfigError: this machine has no such address; says what it has.
    """
    if wanted is None:
        return _by_route(interfaces, routed)
    if "/" in wanted:
        found = _in_network(wanted, interfaces)
    else:
        found = [each.address for each in interfaces if each.name == wanted and not _is_link_local(each.address)]
        if not found:
            meant = {_plain(wanted), *map(_plain, resolved)}
            found = [each.address for each in interfaces if _plain(each.address) in meant]
    if not found:
        names = [each.name for each in interfaces]
        raise ConfigError(
            f"{show(wanted)} is no interface, network, address or name of this machine"
            f"{did_you_mean(wanted, names)}. It has {_listed(interfaces)}."
        )
    return min(found, key=lambda address: ":" in address)  # IPv4 first: nodes without IPv6 are more common


def _by_route(interfaces: Sequence[Interface], routed: str | None) -> str:
    if routed is not None and not _is_loopback(routed):
        return routed
    usable = [each.address for each in interfaces if not _is_loopback(each.address)]
    usable = [address for address in usable if not _is_link_local(address)]
    if not usable:
        raise ConfigError(
            "This machine has no address that nodes could reach (only loopback). Give the executor an `address`."
        )
    return min(usable, key=lambda address: ":" in address)


def _in_network(wanted: str, interfaces: Sequence[Interface]) -> list[str]:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        raise ConfigError(f"{show(wanted)} is no network; write it as 10.1.0.0/16 or fd00::/64.") from None
    return [each.address for each in interfaces if ipaddress.ip_address(_plain(each.address)) in network]


def _plain(address: str) -> str:
    return address.partition("%")[0].lower()


def _is_link_local(address: str) -> bool:
    return ipaddress.ip_address(_plain(address)).is_link_local


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(_plain(address)).is_loopback


def _listed(interfaces: Sequence[Interface]) -> str:
    by_name: dict[str, list[str]] = {}
    for each in interfaces:
        by_name.setdefault(each.name, []).append(each.address)
    return ", ".join(f"{name} ({', '.join(addresses)})" for name, addresses in by_name.items()) or "none"


def endpoint_of(address: str, ports: str = "*") -> str:
    """The endpoint on an address, as `tcp://10.0.0.1:*` or `tcp://[fd00::1]:*`."""
    return f"tcp://[{address}]:{ports}" if ":" in address else f"tcp://{address}:{ports}"


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Address and port, or ports, of an endpoint made by `endpoint_of`."""
    host, _, ports = endpoint.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), ports


def is_settled(endpoint: str) -> bool:
    """Whether an endpoint can be connected to: it is no network endpoint whose port is still to be chosen."""
    return endpoint.startswith("unix:") or split_endpoint(endpoint)[1].isdecimal()


def parse_ports(text: str) -> range:
    """The ports of "50000-50100", or of "50000".

    Raises:
        ConfigError: it is no range of ports that a user may open.
    """
    match = _PORTS.fullmatch(text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise ConfigError(f"{show(text)} is no range of ports from 1024 to 65535. Write it as 50000-50100.")
    return range(first, last + 1)


def unreachable_text(
    node: str, run_host: str, executor: str, tries: Sequence[Try], own: Sequence[Interface], seconds: float
) -> str:
    """What a manager says that could not reach its run: what it tried from where, and what to set."""
    tried = "; ".join(f"{each.endpoint.removeprefix('tcp://')}: {each.outcome}" for each in tries)
    return (
        f"node {node} cannot reach the run's interchange on {run_host}. For {seconds:.0f} s it tried {tried}. "
        f"The node has {_listed([each for each in own if not _is_loopback(each.address)])}. "
        f"Set `address` of executor '{executor}' to the interface, network (such as 10.1.0.0/16) or address of "
        f"{run_host} that nodes can reach; if a firewall is between them, set `ports` of the run to a range that it "
        "lets through."
    )
