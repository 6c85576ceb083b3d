"""Programs that are killed while they fill a cache, and several that use one at once: what is kept is right, always."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotflow.caching.entries import CacheFiles
from pilotflow.caching.index import CacheIndex
from pilotflow.serialize import unpack
from tests.core.test_cache_files import LATER, key_of
from tests.integration.scripts import ROOT
from tests.waiting import until

WRITER = """
import itertools, sys
from pathlib import Path
import numpy as np
from pilotflow.caching.entries import CacheFiles
from pilotflow.caching.index import CacheIndex
from pilotflow.serialize import pack
from tests.core.test_cache_files import entry_of, key_of
from tests.integration.test_cache_kills import value_of

files = CacheFiles(Path(sys.argv[1]))
index = CacheIndex(files)
print("started", flush=True)
for n in itertools.count(int(sys.argv[2])):
    key = key_of(n)
    files.write(key, entry_of(key), pack(value_of(n)))
    index.add([(key, entry_of(key))])
"""


def value_of(n: int) -> Any:
    return np.full(n * 997 % 200_000, n) if n % 3 else list(range(n % 1000))


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.soak)])
def test_writers_killed_at_any_moment_leave_whole_entries_only(
    tmp_path: Path, kills: int, record_property: Callable[[str, object], None]
) -> None:
    directory = tmp_path / "cache"
    record_property("count", kills)
    written = 0
    for round_ in range(kills):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(directory), str(round_ * 1000)], cwd=ROOT, stdout=subprocess.PIPE
            )
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"started\n"
        if round_ == kills - 1:
            until(lambda: any(directory.glob("entries/*/*")), "an entry is written")
        time.sleep(0.003 * (round_ + 1))  # another moment each time
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        files = CacheFiles(directory)
        assert not list((directory / "aside").iterdir())
        present = list((directory / "entries").glob("*/*"))
        for n in range(round_ * 1000, round_ * 1000 + 1000):
            found = files.read(key_of(n).digest)
            if found is None:
                break
            np.testing.assert_equal(unpack(*found[1]), value_of(n))
        assert set(present) == set((directory / "entries").glob("*/*")), "a damaged entry was there"
        written = len(present)
        with closing(CacheIndex(files)) as index:
            nearest = index.nearest("f", key_of("asked"), LATER)
        assert (0 if nearest is None else nearest.calls) == written
    assert written, "entries of the last round at least"


PROGRAM = """
import sys
from pathlib import Path
import pilotflow as pf

@pf.python_app(cache=True, ignore_for_cache=["log"])
def step(n, log):
    with open(log, "a") as file:
        file.write(f"{n}\\n")
    return [n] * (n * 37 % 500)

@pf.python_app(cache=True)
def total(parts):
    return sum(map(sum, parts))

if __name__ == "__main__":
    cache, log, count = sys.argv[1:]
    with pf.load(pf.Config.for_this_machine(max_workers=2), cache=cache):
        print("started", flush=True)
        futures = [step(n, log) for n in range(int(count))]
        assert [future.result() for future in futures] == [[n] * (n * 37 % 500) for n in range(int(count))]
        groups = [total(futures[i : i + 10]) for i in range(0, len(futures), 10)]
        print(sum(group.result() for group in groups))
"""


def start(tmp_path: Path, log: str, count: int) -> subprocess.Popen[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "cache"), str(tmp_path / log), str(count)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(program: subprocess.Popen[str]) -> int:
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 0
    return int(output.splitlines()[-1])


def ran(tmp_path: Path, log: str) -> list[str]:
    path = tmp_path / log
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_a_program_killed_again_and_again_ends_with_the_right_results_and_keeps_what_it_had(
    tmp_path: Path, kills: int, record_property: Callable[[str, object], None]
) -> None:
    record_property("count", kills)
    count = 40 * kills
    expected = sum(n * (n * 37 % 500) for n in range(count))
    kept = 0
    for round_ in range(kills):
        program = start(tmp_path, "log", count)
        assert program.stdout is not None
        assert program.stdout.readline() == "started\n"
        time.sleep(0.005 * (round_ % 25 + 1))
        program.send_signal(signal.SIGKILL)
        program.communicate()
        now = len(list((tmp_path / "cache" / "entries").glob("*/*")))
        assert now >= kept
        kept = now
    assert finished(start(tmp_path, "again", count)) == expected
    assert finished(start(tmp_path, "last", count)) == expected
    assert not ran(tmp_path, "last"), "everything was known"
    again = ran(tmp_path, "again")
    assert len(again) == len(set(again)), "nothing was run twice by one program"


def test_two_programs_use_one_cache_at_once(tmp_path: Path) -> None:
    count = 200
    expected = sum(n * (n * 37 % 500) for n in range(count))
    programs = [start(tmp_path, log, count) for log in ("one", "other")]
    assert [finished(program) for program in programs] == [expected, expected]
    for log in ("one", "other"):
        assert len(ran(tmp_path, log)) == len(set(ran(tmp_path, log)))
    assert set(ran(tmp_path, "one")) | set(ran(tmp_path, "other")) == set(map(str, range(count)))
    assert finished(start(tmp_path, "third", count)) == expected
    assert not ran(tmp_path, "third")
