"""The process that cancels a run's batch jobs when everybody else has been killed: real processes, a batch system of files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pilotflow.providers.local import LocalProvider
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.runtime import block_guard, leftovers
from pilotflow.runtime.guarding import FILE, BlockGuard
from tests.integration.faults import processes_of
from tests.waiting import until


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """What the guard takes for an interchange."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_guard_that_is_ended_leaves_nothing_and_does_nothing(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    guard = BlockGuard(tmp_path, other.pid, [SlurmProvider()])
    guard.write([("touch", str(tmp_path / "cancelled"))])
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    other.kill()
    guard.end()
    assert not list(tmp_path.iterdir())


def test_a_run_whose_blocks_are_all_here_has_none(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    guard = BlockGuard(tmp_path, other.pid, [LocalProvider()])
    guard.write([("false",)])
    guard.end()
    assert not list(tmp_path.iterdir())


PROGRAM = """
import os, signal, sys
from pathlib import Path
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.runtime.guarding import BlockGuard
guard = BlockGuard(Path(sys.argv[1]), int(sys.argv[2]), [SlurmProvider()])
guard.write([("false",)])
guard.write([("touch", sys.argv[3])])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_left_behind_is_done_when_both_are_gone(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    done = tmp_path / "done"
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), str(other.pid), str(done)], check=False)
    time.sleep(0.3)
    assert not done.exists(), "the interchange is there, and does it"
    other.kill()
    other.wait()
    until(done.exists)
    assert "cancelling its blocks" in (tmp_path / "pilotflow.log").read_text()
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)  # it would do so again and again for a while


def leave(folder: Path, *commands: list[str], holders: Sequence[str] = ("x:y:1:1",)) -> Path:
    folder.mkdir()
    file = folder / FILE
    file.write_text(json.dumps({"holders": holders, "commands": commands}))
    return file


def test_it_is_tried_until_it_has_worked_several_times(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    text = f'echo try >> "{tries}"; [ "$(wc -l < "{tries}")" -gt 1 ] || {{ echo "no controller" >&2; exit 1; }}'
    file = leave(tmp_path / "0001", ["sh", "-c", text], ["echo", "fine"])
    block_guard.cancel(file, block_guard.log_of(file, about=file), pause_s=0.001)
    assert tries.read_text() == "try\n" * (1 + block_guard.ROUNDS), "one failed, and then it worked several times"
    log = (tmp_path / "0001/pilotflow.log").read_text()
    assert log.count("no controller") == 1
    assert "have been cancelled" in log
    assert not file.exists()


def test_the_next_run_does_it_for_one_that_was_killed_with_its_guard(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    """Not for one of which somebody lives, here or where nothing can be known."""
    alive = leftovers.mark("0001", other.pid)
    dead = alive.rpartition(":")[0] + ":1"  # the pid of another by now
    elsewhere = "0001:another-host/1:5:1"
    done = [tmp_path / f"done{number}" for number in range(4)]
    touch = [["touch", str(path)] for path in done]
    files = [
        leave(tmp_path / "0001", touch[0], holders=[dead, dead, dead]),
        leave(tmp_path / "0002", touch[1], holders=[dead, alive, dead]),
        leave(tmp_path / "0003", touch[2], holders=[elsewhere]),
    ]
    own = leave(tmp_path / "0004", touch[3], holders=[alive])
    (tmp_path / "0005").mkdir()
    (tmp_path / "0005" / FILE).write_text("[")
    block_guard.cancel_those_of_others(own, pause_s=0.001)
    assert [path.exists() for path in done] == [True, False, False, False]
    assert [file.exists() for file in files] == [False, True, True]
    assert f"{tmp_path}/0001 was killed with all who look after it" in (own.parent / "pilotflow.log").read_text()


def test_a_guard_imports_little(tmp_path: Path) -> None:
    code = "import sys; import pilotflow.runtime.block_guard; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"zmq", "msgspec", "logging", "typing", "pilotflow.errors"} & set(loaded)
