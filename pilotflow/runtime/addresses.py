"""This machine's network addresses, as the system tells them, and attempts to reach others."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from pilotflow.core.addresses import Interface, Try, choose_address, split_endpoint, unreachable_text

ATTEMPT_S = 3.0
"""A connection that takes longer is not waited for."""
_NOWHERE = "192.0.2.1"
"""An address of documentation (RFC 5737): its route is the default route. Nothing is sent there."""
_REFUSED = "refused: nobody listens there (any more), or a firewall rejects it"
_OUTCOMES = {
    errno.ECONNREFUSED: _REFUSED,
    errno.EHOSTUNREACH: "the host does not answer, or a firewall rejects it",
    errno.ENETUNREACH: "this node has no route to that network",
    errno.ETIMEDOUT: "no answer: there is no way from here to there, or a firewall drops it",
}


def interfaces() -> list[Interface]:
    """The addresses that this machine has now."""
    import psutil  # for this alone

    families = (socket.AF_INET, socket.AF_INET6)
    found = psutil.net_if_addrs()
    return [
        Interface(name, address.address.partition("%")[0])
        for name, addresses in found.items()
        for address in addresses
        if address.family in families
    ]


def source_towards(host: str) -> str | None:
    """The address from which packets of this machine to that host would come; None if there is no way to it."""
    for family, kind, proto, _, target in resolve(host):
        with socket.socket(family, kind, proto) as probe:
            try:
                probe.connect(target)  # of a datagram socket: looks the route up and sends nothing
                return str(probe.getsockname()[0]).partition("%")[0]
            except OSError:
                continue
    return None


def resolve(host: str) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]]:
    """What `getaddrinfo` says of a host for datagrams; nothing if it cannot be resolved."""
    try:
        return list(socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM))
    except OSError:
        return []


def listening_address(wanted: str | None, some_node: str | None) -> str:
    """The address of this machine that the nodes are told.

    Args:
        wanted: as in `choose_address`.
        some_node: a node that will want to reach it, if one is known.

    Raises:
        ConfigError: as in `choose_address`.
    """
    routed = None if wanted is not None else source_towards(some_node or _NOWHERE)
    resolved = [] if wanted is None or "/" in wanted else [str(info[4][0]) for info in resolve(wanted)]
    return choose_address(wanted, interfaces(), routed, resolved)


def try_endpoint(endpoint: str) -> Try | None:
    """Connect once, to learn why it does not work; None if it does."""
    host, port = split_endpoint(endpoint)
    try:
        socket.create_connection((host, int(port)), ATTEMPT_S).close()
    except socket.gaierror:
        return Try(endpoint, "this node cannot resolve that name")
    except TimeoutError:
        return Try(endpoint, f"{_OUTCOMES[errno.ETIMEDOUT]} ({ATTEMPT_S:g} s)")
    except OSError as error:
        code = error.errno or 0
        return Try(endpoint, _OUTCOMES.get(code, os.strerror(code) if code else str(error)))
    return None


def why_unreachable(node: str, run_host: str, executor: str, endpoints: Sequence[str], seconds: float) -> str:
    """Why a run cannot be reached from here, by trying once more.

    Args:
        node, run_host, executor: this node's name, the run's host, whose manager this is.
        endpoints: where the run listens.
        seconds: for how long it has been tried.
    """
    silent = "connects, but what answers is not this run, or does not answer"
    tries = [try_endpoint(endpoint) or Try(endpoint, silent) for endpoint in endpoints]
    return unreachable_text(node, run_host, executor, tries, interfaces(), seconds)
