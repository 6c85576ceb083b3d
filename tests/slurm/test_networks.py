"""How nodes of a real cluster reach the run: one network of many, IPv6, ports, and none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.harness.cluster import Cluster


@pytest.fixture
def wired(cluster: Cluster) -> Cluster:
    """The login host has a second network, which leads nowhere, and all have IPv6 on the first; node1 has a second too."""
    lines = [
        "ip link show dead0 >/dev/null 2>&1 && exit 0",
        "ip link add dead0 type bridge",
        "ip addr add 10.99.0.254/24 dev dead0",
        "ip link set dead0 up",
        "ip -6 addr add fd77::254/64 dev br0 nodad",
    ]
    cluster.run("sh", "-ec", "\n".join(lines))
    for number, node in enumerate(cluster.settings.node_names, 1):
        cluster.run("ip", "-6", "addr", "replace", f"fd77::{number}/64", "dev", "eth0", "nodad", host=node)
    other = "ip link show ib0 >/dev/null 2>&1 && exit 0; ip link add ib0 type bridge; ip addr add 10.88.0.1/24 dev ib0"
    cluster.run("sh", "-ec", other, host="node1")
    return cluster


@pytest.mark.parametrize(
    ("address", "ports", "said"),
    [
        (None, "50000-50010", "10.77.0.254 500"),
        ("fd77::/64", None, "fd77::254 "),
        pytest.param("br0", None, "10.77.0.254 ", marks=pytest.mark.soak),
        pytest.param("10.77.0.0/16", None, "10.77.0.254 ", marks=pytest.mark.soak),
        pytest.param("login", None, "10.77.0.254 ", marks=pytest.mark.soak),
    ],
)
def test_nodes_reach_the_run_by_the_network_that_was_chosen(
    wired: Cluster, tmp_path: Path, address: str | None, ports: str | None, said: str
) -> None:
    """With no address it is that of the route to the nodes. The nodes are told numbers, which need no names."""
    assert wired.function("tests.slurm.network_runs:run_by", address, ports, cwd=tmp_path).startswith(said)


@pytest.mark.soak
def test_a_manager_tries_one_address_after_the_other(wired: Cluster, tmp_path: Path) -> None:
    said = wired.function("tests.slurm.network_runs:run_by_several", cwd=tmp_path)
    assert said == "10.99.0.254 10.77.0.254\n"


@pytest.mark.parametrize("timeout", [3, pytest.param(None, marks=pytest.mark.soak)])
def test_a_user_whose_nodes_cannot_connect_is_told_what_was_tried_from_where(
    wired: Cluster, tmp_path: Path, timeout: float | None
) -> None:
    said = wired.function("tests.slurm.network_runs:run_cut_off", timeout, cwd=tmp_path, timeout_s=120)
    seconds, _, text = said.partition(" ")
    assert "node node1 cannot reach the run's interchange on login." in text
    assert "it tried 10.99.0.254:" in text
    assert ": this node has no route to that network." in text
    assert "The node has eth0 (10.77.0.1" in text
    assert "Set `address` of executor 'slurm' to the interface, network" in text
    assert "A block of executor 'slurm' ended before a manager had joined" in text, "it was not tried again and again"
    if timeout is None:
        assert int(seconds) < 60, "by default, too, within a minute"
