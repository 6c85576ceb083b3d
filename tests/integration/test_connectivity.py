"""How managers reach the run: addresses, ranges of ports, and the words when they cannot."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

import pilotflow as pf
from pilotflow import Config, ConfigError, ExecutorConfig, LocalProvider, WrappedLauncher
from pilotflow.core.addresses import split_endpoint
from pilotflow.errors import BlockStartError
from pilotflow.loading import load
from pilotflow.run import Run
from pilotflow.runtime.connection import read_connection


@pf.python_app
def answer() -> int:
    return 42


def config(tmp_path: Path, address: str | None = None, **more: object) -> Config:
    launcher = more.pop("launcher", None)
    extra = {} if launcher is None else {"launcher": launcher}
    executor = ExecutorConfig(label="cpu", max_workers_per_node=1, address=address, **extra)  # type: ignore[arg-type]
    return Config(executors=[executor], run_dir=tmp_path, **more)  # type: ignore[arg-type]


def endpoints(run: Run) -> list[tuple[str, str]]:
    found = read_connection(run.directory / "connection.json").managers
    return [split_endpoint(endpoint) for endpoint in found if endpoint.startswith("tcp:")]


@pytest.mark.parametrize(
    ("address", "host"), [("lo", "127.0.0.1"), ("127.0.0.0/8", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")]
)
def test_managers_connect_to_the_address_that_was_chosen(tmp_path: Path, address: str, host: str) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with load(config(tmp_path, address, tcp=True)) as run:
        assert answer().result(60) == 42
        assert [found for found, _ in endpoints(run)] == [host]


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_the_port_is_the_first_free_one_of_the_range(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        with load(config(tmp_path, tcp=True, ports=f"{first}-{min(65535, first + 50)}")) as run:
            assert answer().result(60) == 42
            ((_, port),) = endpoints(run)
            assert first < int(port) <= first + 50


def test_a_range_without_a_free_port_is_said_when_the_run_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            pf.InterchangeLost, match=f"Cannot listen on 127.0.0.1:{port}-{port}: Address already in use"
        ):
            load(config(tmp_path, tcp=True, ports=f"{port}-{port}"))


def test_an_address_of_another_machine_is_refused_when_the_run_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Executor 'cpu': '192\.0\.2\.7' is no interface, .* It has lo \(127"):
        load(config(tmp_path, "192.0.2.7"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a manager a network of its own")
def test_managers_that_cannot_connect_say_what_they_tried_from_where_and_what_to_set(tmp_path: Path) -> None:
    """The manager is alone in a network namespace, as on a node that has no way to this machine."""
    cut_off = WrappedLauncher(prepend="unshare --net")
    began = time.monotonic()
    with load(config(tmp_path, launcher=cut_off, tcp=True, connect_timeout=2)) as run:
        ((host, port),) = endpoints(run)
        with pytest.raises(BlockStartError) as caught:
            answer().result(60)
    assert time.monotonic() - began < 60
    text = " ".join(str(caught.value).split())
    assert f"it tried {host}:{port}: this node has no route to that network" in text
    assert f"node {socket.gethostname()} cannot reach the run's interchange on {socket.gethostname()}" in text
    assert "Set `address` of executor 'cpu'" in text
    assert "A block of executor 'cpu' ended before a manager had joined" in text, "one try is enough"


def test_an_address_of_several_executors_is_listened_on_once(tmp_path: Path) -> None:
    far = ExecutorConfig(label="far", provider=LocalProvider(init_blocks=0, max_blocks=0), address="lo")
    near = ExecutorConfig(label="near", max_workers_per_node=1, address="127.0.0.0/8")
    with load(Config(executors=[far, near], run_dir=tmp_path, tcp=True)) as run:
        assert len(endpoints(run)) == 1
        assert answer().result(60) == 42
