"""Environments as one file, and the script that unpacks it on a node."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pilotflow.runtime.staging import SCRIPT, pack_environment


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Something like a virtual environment."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/python3/site-packages/pack age").mkdir(parents=True)
    (folder / "lib64").symlink_to("lib")
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "lib/python3/site-packages/pack age/a.py").write_text("x = 1\n")
    (folder / "bin/tool").write_text(f"#!{folder}/bin/python\nprint('tool')\n")
    (folder / "bin/tool").chmod(0o755)
    return folder


def stage(tmp_path: Path, tar: Path, dest: Path, *command: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "stage.sh"
    script.write_text(SCRIPT)
    argv = ["bash", str(script), str(tar), str(dest), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_an_environment_arrives_with_its_links_and_scripts_that_run_there(prefix: Path, tmp_path: Path) -> None:
    tar, dest = pack_environment(prefix, tmp_path / "store", str(tmp_path / "local"))
    done = stage(tmp_path, tar, dest, "sh", "-c", 'echo "$1 $2"', "sh", "it's", "$HOME")
    assert (done.returncode, done.stdout) == (0, "it's $HOME\n"), done.stderr
    assert (dest / "lib64").readlink() == Path("lib")
    assert (dest / "lib64/python3/site-packages/pack age/a.py").read_text() == "x = 1\n"
    assert (dest / "bin/tool").read_text().startswith(f"#!{dest}/bin/python\n")
    assert subprocess.run([dest / "bin/tool"], capture_output=True, check=True).stdout == b"tool\n"
    assert dest.parent.stat().st_mode & 0o777 == 0o700
    assert not [path for path in dest.parent.iterdir() if path not in (dest, dest.parent / ".lock")]


def test_it_is_packed_again_only_if_it_has_changed(prefix: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = pack_environment(prefix, store, "/tmp/x")
    written = first[0].stat().st_mtime_ns
    assert pack_environment(prefix, store, "/tmp/x") == first
    assert first[0].stat().st_mtime_ns == written
    (prefix / "bin/other").write_text("new\n")
    assert pack_environment(prefix, store, "/tmp/x")[0] != first[0]
    assert len(list(store.iterdir())) == 2


def test_a_package_from_elsewhere_comes_along(prefix: Path, tmp_path: Path) -> None:
    package = tmp_path / "checkout/thing"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    tar, _ = pack_environment(prefix, tmp_path / "store", "/tmp/x", package)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with tarfile.open(tar) as found:
        assert f"lib/{version}/site-packages/thing/__init__.py" in found.getnames()


def test_many_that_come_at_once_find_it_whole(prefix: Path, tmp_path: Path) -> None:
    (prefix / "big").write_bytes(os.urandom(1 << 20))
    tar, dest = pack_environment(prefix, tmp_path / "store", str(tmp_path / "local"))
    (tmp_path / "stage.sh").write_text(SCRIPT)
    argv = ["bash", str(tmp_path / "stage.sh"), str(tar), str(dest), "cmp", str(prefix / "big"), str(dest / "big")]
    assert [process.wait() for process in [subprocess.Popen(argv) for _ in range(8)]] == [0] * 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make something of somebody else")
def test_what_somebody_else_has_put_there_is_not_used(prefix: Path, tmp_path: Path) -> None:
    base = tmp_path / "local"
    tar, dest = pack_environment(prefix, tmp_path / "store", str(base))
    base.mkdir()
    os.chown(base, 65534, 65534)
    done = stage(tmp_path, tar, dest, "true")
    assert done.returncode == 73
    assert "cannot stage the Python environment in" in done.stderr
    assert "it belongs to somebody else" in done.stderr


def test_a_file_that_cannot_be_unpacked_is_said_with_what_to_set(tmp_path: Path) -> None:
    done = stage(tmp_path, tmp_path / "none.tar", tmp_path / "local/x", "true")
    assert done.returncode == 73
    assert done.stderr.endswith("pilotflow: set stage_env to a directory of the nodes with room, or to false.\n")
    assert not list((tmp_path / "local").glob("x*"))
