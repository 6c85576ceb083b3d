"""Which address the nodes are given, and what is said when they cannot reach it."""

from __future__ import annotations

import pytest

from pilotflow.core.addresses import (
    Interface,
    Try,
    choose_address,
    endpoint_of,
    parse_ports,
    split_endpoint,
    unreachable_text,
)
from pilotflow.errors import ConfigError

HERE = (
    Interface("lo", "127.0.0.1"),
    Interface("lo", "::1"),
    Interface("eth0", "192.168.7.4"),
    Interface("eth0", "fe80::1"),
    Interface("ib0", "fd00:5::2"),
    Interface("ib0", "10.1.0.4"),
    Interface("six", "fe80::2"),
    Interface("six", "fd00:6::1"),
)


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        ("eth0", "192.168.7.4"),
        ("ib0", "10.1.0.4"),
        ("six", "fd00:6::1"),
        ("10.1.0.0/16", "10.1.0.4"),
        ("10.1.77.3/16", "10.1.0.4"),
        ("fd00:5::/32", "fd00:5::2"),
        ("192.168.7.4", "192.168.7.4"),
        ("FD00:6::1", "fd00:6::1"),
        ("lo", "127.0.0.1"),
    ],
)
def test_an_interface_a_network_or_an_address_says_where_to_listen(wanted: str, address: str) -> None:
    assert choose_address(wanted, HERE) == address


def test_a_host_name_is_what_it_resolves_to() -> None:
    assert choose_address("login-ib", HERE, resolved=("8.8.8.8", "10.1.0.4")) == "10.1.0.4"


@pytest.mark.parametrize("routed", ["10.1.0.4", "fd00:6::1"])
def test_if_nothing_is_said_it_is_the_address_that_talks_to_the_nodes(routed: str) -> None:
    assert choose_address(None, HERE, routed) == routed


@pytest.mark.parametrize("routed", [None, "127.0.0.1", "::1"])
def test_without_a_route_it_is_the_first_address_that_is_not_of_this_machine_alone(routed: str | None) -> None:
    assert choose_address(None, HERE, routed) == "192.168.7.4"


def test_a_machine_with_loopback_only_can_be_reached_by_nobody() -> None:
    with pytest.raises(ConfigError, match="only loopback"):
        choose_address(None, HERE[:2])


@pytest.mark.parametrize("wanted", ["ib1", "10.2.0.0/16", "10.1.0.5", "no-such-host"])
def test_what_this_machine_does_not_have_is_refused_with_what_it_has(wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_address(wanted, HERE)
    assert f"{wanted!r} is no interface, network, address or name of this machine" in str(caught.value)
    assert "eth0 (192.168.7.4, fe80::1), ib0 (fd00:5::2, 10.1.0.4)" in str(caught.value)
    assert ("did you mean 'ib0'" in str(caught.value)) == (wanted == "ib1")


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no network; write it as"):
        choose_address("10.1.0.0/99", HERE)


@pytest.mark.parametrize("address", ["10.1.0.4", "fd00:5::2"])
def test_an_endpoint_can_be_taken_apart_again(address: str) -> None:
    assert split_endpoint(endpoint_of(address, "50000-50100")) == (address, "50000-50100")
    assert split_endpoint(endpoint_of(address)) == (address, "*")


@pytest.mark.parametrize(("text", "ports"), [("50000-50100", range(50000, 50101)), (" 2000 ", range(2000, 2001))])
def test_a_range_of_ports_is_read(text: str, ports: range) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "80", "50100-50000", "1024-70000", "5000-", "a-b", "50000,50001"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Write it as 50000-50100"):
        parse_ports(text)


def test_who_cannot_reach_the_run_says_what_it_tried_from_where_and_what_to_set() -> None:
    tries = [Try("tcp://10.1.0.4:50001", "refused"), Try("tcp://[fd00:5::2]:50002", "no answer")]
    text = unreachable_text("node2", "login", "cpu", tries, [HERE[0], Interface("eth0", "10.9.0.2")], 30.4)
    assert text == (
        "node node2 cannot reach the run's interchange on login. For 30 s it tried 10.1.0.4:50001: refused; "
        "[fd00:5::2]:50002: no answer. The node has eth0 (10.9.0.2). Set `address` of executor 'cpu' to the "
        "interface, network (such as 10.1.0.0/16) or address of login that nodes can reach; if a firewall is between "
        "them, set `ports` of the run to a range that it lets through."
    )
