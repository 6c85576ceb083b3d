"""Files of shared values, and the copies of them that nodes have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotflow.errors import SerializationError
from pilotflow.runtime import node_files
from pilotflow.runtime.shared_files import opened, write
from pilotflow.serialize import pack

Put = Callable[[Any], Path]


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of the node."""
    path = tmp_path / "node"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def put(tmp_path: Path) -> Put:
    directory = tmp_path / "run" / node_files.SHARED
    directory.mkdir(parents=True)
    return lambda value: write(directory, pack(value, snapshot=False))


def copies(node: Path) -> list[Path]:
    return [path for path in node.rglob("*") if path.is_file()]


@pytest.mark.parametrize("node_copy", [None, False, True])
def test_a_value_is_the_same_where_it_is_opened(put: Put, node: Path, node_copy: bool | None) -> None:
    value = {
        "array": np.arange(100_000.0).reshape(100, -1),
        "text": "a" * 200_000,
        "bytes": b"b" * 300_000,
        "none": None,
    }
    path = put(value)
    found = opened(str(path), "dict", node_copy)
    np.testing.assert_equal(found, value)
    assert found["array"].flags.aligned
    assert len(copies(node)) == (node_copy is True)


def test_arrays_cannot_be_changed_and_the_rest_is_each_task_s_own(put: Put) -> None:
    path = str(put([np.zeros(10_000), {"list": []}]))
    array, other = opened(path, "list", None)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    other["list"].append(1)
    assert opened(path, "list", None)[1] == {"list": []}


def test_equal_values_have_one_file(put: Put) -> None:
    assert put(np.arange(50_000)) == put(np.arange(50_000)) != put(np.arange(50_001))
    assert len(list(put(1).parent.iterdir())) == 3


def test_a_file_that_is_gone_is_told_with_a_remedy(put: Put) -> None:
    path = put(np.arange(50_000))
    path.unlink()
    with pytest.raises(
        SerializationError, match=r"the shared ndarray is not there any more: .* is gone.*share it again"
    ):
        opened(str(path), "ndarray", True)


@pytest.mark.parametrize("length", [0, 5, 30, 1000])
def test_a_damaged_file_is_told(put: Put, length: int) -> None:
    path = put(np.arange(50_000))
    os.truncate(path, length)
    with pytest.raises(SerializationError, match=r"is damaged|cannot be read on this node"):
        opened(str(path), "ndarray", None)


# ---- copies of a node -----------------------------------------------------------------------


def test_many_processes_of_a_node_make_one_copy(put: Put, node: Path) -> None:
    path = put(np.arange(500_000))
    program = "import os, sys, tempfile; from pathlib import Path; from pilotflow.runtime import node_files\n"
    program += "copy = node_files.copied(Path(sys.argv[1])); print(copy, copy.stat().st_ino)"
    with ThreadPoolExecutor(6) as threads:
        found = set(
            threads.map(
                lambda _: (
                    subprocess.run(
                        [sys.executable, "-c", program, str(path)],
                        env={**os.environ, "TMPDIR": str(node)},
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                ),
                range(6),
            )
        )
    assert len(found) == 1
    (copy,) = copies(node)
    assert copy.read_bytes() == path.read_bytes()
    assert (node / f"pilotflow-node-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_has_left_is_replaced(put: Put, node: Path) -> None:
    path = put(np.arange(50_000))
    copy = node_files.copied(path)
    assert copy is not None
    copy.rename(copy.with_name(copy.name + ".part"))
    os.truncate(copy.with_name(copy.name + ".part"), 100)
    assert node_files.copied(path) == copy
    assert copies(node) == [copy]


def test_copies_whose_source_is_gone_are_removed_with_the_next_copy(put: Put, node: Path, tmp_path: Path) -> None:
    old, new = put(np.arange(50_000)), put(np.arange(60_000))
    node_files.copied(old)
    other = tmp_path / "other" / node_files.SHARED
    other.mkdir(parents=True)
    node_files.copied(write(other, pack(np.arange(70_000))))
    assert len(copies(node)) == 2
    old.unlink()
    (other / next(iter(os.listdir(other)))).unlink()
    other.rmdir()
    kept = node_files.copied(new)
    assert copies(node) == [kept]


def test_copies_are_removed_with_their_run(put: Put, node: Path) -> None:
    path = put(np.arange(50_000))
    node_files.copied(path)
    node_files.remove(path.parent)
    assert copies(node) == []


def test_a_node_without_room_uses_the_file_where_it_is(put: Put, node: Path) -> None:
    path = put(np.arange(50_000))
    (node / f"pilotflow-node-{os.getuid()}").write_text("in the way")
    assert node_files.copied(path) is None
    np.testing.assert_array_equal(opened(str(path), "ndarray", True), np.arange(50_000))


def test_a_directory_that_others_may_enter_is_not_used(put: Put, node: Path) -> None:
    base = node / f"pilotflow-node-{os.getuid()}"
    base.mkdir()
    base.chmod(0o755)
    assert node_files.copied(put(1)) is None
