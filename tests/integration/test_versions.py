"""A manager in another environment than the program's sees to it that both read what the other packs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pilotflow.errors import ConfigError
from pilotflow.runtime.connection import Connection, Keys, write_connection
from pilotflow.runtime.manager_options import Offer, manager_argv
from pilotflow.runtime.versions import check_versions, versions_here


def connection(packages: tuple[tuple[str, str], ...], prefix: str = "/the/program") -> Connection:
    plain = Connection("run", 1, "/", (), ("tcp://127.0.0.1:1",), (), Keys(), 1 << 20, 1.0, 0, "login")
    return msgspec.structs.replace(plain, packages=packages, prefix=prefix)


def test_the_same_versions_are_let_pass() -> None:
    check_versions(connection(versions_here()), "node1", brought=False)


def test_other_versions_are_refused_with_both_and_what_to_set() -> None:
    with pytest.raises(ConfigError) as caught:
        check_versions(connection((("cloudpickle", "99.1.2"),)), "node1", brought=False)
    ours = dict(versions_here())["cloudpickle"]
    assert f"node node1 has cloudpickle {ours} in {sys.prefix}, the program has 99.1.2 in /the/program" in str(
        caught.value
    )
    assert "Set worker_init of the executor's provider to an environment with cloudpickle 99.1.2" in str(caught.value)


def test_a_package_that_is_missing_is_refused() -> None:
    with pytest.raises(ConfigError, match="node node1 has no nothing-of-this-name in"):
        check_versions(connection((("nothing-of-this-name", "1.0"),)), "node1", brought=False)


def test_the_programs_own_environment_need_not_be_looked_at() -> None:
    strange = (("cloudpickle", "99.1"),)
    check_versions(connection(strange, sys.prefix), "node1", brought=False)
    check_versions(connection(strange), "node1", brought=True)


def test_a_manager_with_other_versions_ends_with_these_words_before_it_connects(tmp_path: Path) -> None:
    file = tmp_path / "connection.json"
    write_connection(file, connection((("dill", "77.0"),)))
    argv = manager_argv(file, "cpu", "cpu-0", tmp_path, Offer(max_workers=1))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("pilotflow manager: node ")
    assert "the program has 77.0 in /the/program" in done.stderr
