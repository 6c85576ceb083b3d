"""Runs on the login host that the nodes reach by one network or another, or not."""

from __future__ import annotations

import time
from typing import Any

import pilotflow as pf
from pilotflow.core.addresses import split_endpoint
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.runtime.connection import read_connection
from tests.slurm.tasks import config, where

SMALL = {"cores_per_node": 1, "mem_per_node": 0.25}


def run_by(address: str | None, ports: str | None) -> None:
    """One task on a node; prints where the run has listened."""
    with pf.load(config(SMALL, {"address": address}, ports=ports)) as run:
        assert where().result(60).startswith("node")
        found = read_connection(run.directory / "connection.json").managers
        hosts = [split_endpoint(endpoint) for endpoint in found if endpoint.startswith("tcp:")]
    ((host, port),) = hosts
    print(host, port if ports else "")


def run_by_several() -> None:
    """The first of two addresses is on a network that nodes do not have."""
    idle = pf.ExecutorConfig(label="idle", provider=SlurmProvider(init_blocks=0, max_blocks=0), address="dead0")
    near = config(SMALL).executors[0]
    with pf.load(pf.Config(executors=[idle, near])) as run:
        assert where().result(60).startswith("node")
        found = read_connection(run.directory / "connection.json").managers
        print(*[split_endpoint(endpoint)[0] for endpoint in found if endpoint.startswith("tcp:")])


def run_cut_off(connect_timeout: float | None) -> None:
    """Only an address that no node can reach; prints what the user is told, and after how many seconds."""
    more: dict[str, Any] = {} if connect_timeout is None else {"connect_timeout": connect_timeout}
    began = time.monotonic()
    with pf.load(config({**SMALL, "nodes_per_block": 2}, {"address": "dead0"}, **more)):
        error = where().exception(120)
    print(f"{time.monotonic() - began:.0f} {error}")
