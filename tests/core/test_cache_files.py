"""The files of a cache: whole or not there, whoever writes them and whatever happens meanwhile; its index follows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotflow.caching.entries import MAPPED_BYTES, CacheFiles, Entry, mark_of
from pilotflow.caching.index import CacheIndex
from pilotflow.caching.keys import AppKey, CallKey
from pilotflow.errors import ConfigError
from pilotflow.serialize import Packed, pack, unpack

LATER = 1e12


def key_of(x: Any, app: str = "f") -> CallKey:
    def f(x: Any) -> None: ...

    return AppKey(app, "python_app", f, "1", frozenset()).call((x,), {}).key()


def entry_of(key: CallKey, app: str = "f", created: float = 1.0) -> Entry:
    return Entry(app, key.parts, created)


@pytest.fixture
def files(tmp_path: Path) -> CacheFiles:
    return CacheFiles(tmp_path / "cache")


@pytest.fixture
def index(files: CacheFiles) -> Iterator[CacheIndex]:
    with closing(CacheIndex(files)) as index:
        yield index


def only_file(files: CacheFiles) -> Path:
    (path,) = (files.directory / "entries").glob("*/*")
    return path


VALUES: list[Any] = [
    None,
    1,
    "text",
    list(range(10_000)),
    b"x" * 300_000,
    np.arange(100_000.0),
    {"a": np.ones(5000), "b": [np.zeros((0, 3))]},
]


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_what_is_written_is_read(files: CacheFiles, value: Any) -> None:
    key = key_of("x")
    assert files.read(key.digest) is None
    files.write(key, entry_of(key), pack(value))
    found = files.read(key.digest)
    assert found is not None
    entry, packed = found
    np.testing.assert_equal(unpack(*packed), value)
    assert entry.parts == key.parts
    assert files.header(key.digest) == entry
    assert only_file(files).stat().st_mode & 0o777 == 0o600
    assert not list((files.directory / "aside").iterdir())


def test_big_arrays_are_used_where_they_lie_and_changes_stay_with_the_reader(files: CacheFiles) -> None:
    key = key_of("x")
    value: Any = np.arange(MAPPED_BYTES // 4, dtype="f8")
    files.write(key, entry_of(key), pack(value))
    for _ in range(2):
        found = files.read(key.digest)
        assert found is not None
        array = unpack(*found[1])
        assert array.flags.writeable
        assert array.flags.aligned
        assert array[0] == 0
        array[0] = 5


def test_a_file_that_is_cut_anywhere_or_changed_anywhere_counts_as_missing(files: CacheFiles) -> None:
    key = key_of("x")
    files.write(key, entry_of(key), pack(list(range(50))))
    path = only_file(files)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert files.read(key.digest) is None
        assert not path.exists()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert files.read(key.digest) is None
    path.write_bytes(whole)
    assert files.read(key.digest) is not None


def test_files_of_programs_that_are_gone_are_removed_and_those_of_others_are_not(files: CacheFiles) -> None:
    aside = files.directory / "aside"
    host = os.uname().nodename
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    names = {
        f"{host}:{dead.stdout.strip()}:1": False,
        f"{host}:{os.getpid()}:1": True,
        "elsewhere:1:1": True,
        "elsewhere:2:1": False,
    }
    for name in names:
        (aside / name).write_bytes(b"half")
    os.utime(aside / "elsewhere:2:1", (1, 1))
    CacheFiles(files.directory)
    assert {name: (aside / name).exists() for name in names} == names


def test_a_directory_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match=r"Everybody may write into the cache directory .*chmod o-w"):
        CacheFiles(shared)


def test_a_path_that_is_no_directory_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Cannot use the cache directory .*file.*cache="):
        CacheFiles(tmp_path / "file")


def test_a_file_of_a_call_is_seen_to_change(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("a")
    mark = mark_of(str(path))
    assert mark is not None
    entry = Entry("f", (), 1.0, files=(mark,))
    assert entry.changed_file() is None
    path.write_text("ab")
    assert entry.changed_file() == str(path)
    path.unlink()
    assert entry.changed_file() == str(path)


# ---- index ----------------------------------------------------------------------------------


def write(files: CacheFiles, *values: Any, app: str = "f") -> None:
    for value in values:
        key = key_of(value, app)
        files.write(key, entry_of(key, app), pack(value))


def test_the_index_finds_what_others_have_written_and_forgets_what_is_gone(
    files: CacheFiles, index: CacheIndex
) -> None:
    asked = key_of("asked")
    assert index.nearest("f", asked, LATER) is None
    write(files, 1, 2)
    write(files, 3, app="g")
    nearest = index.nearest("f", asked, LATER)
    assert nearest is not None
    assert nearest.calls == 2
    assert {part.shown for part in nearest.parts} & {"1", "2"}
    for path in (files.directory / "entries").glob("*/*"):
        if path.name == key_of(1).digest.hex():
            path.unlink()
    nearest = index.nearest("f", asked, LATER)
    assert nearest is not None
    assert nearest.calls == 1


def test_a_call_is_not_its_own_nearest_nor_one_that_came_later(files: CacheFiles, index: CacheIndex) -> None:
    write(files, 1)
    assert index.nearest("f", key_of(1), LATER) is None
    assert index.nearest("f", key_of(2), 0.5) is None


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, None])
def test_a_damaged_or_missing_index_is_made_anew(files: CacheFiles, index: CacheIndex, damage: bytes | None) -> None:
    write(files, 1)
    assert index.nearest("f", key_of(2), LATER) is not None
    index.close()
    for path in files.directory.glob("index-*"):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
    assert index.nearest("f", key_of(2), LATER) is not None


def test_an_index_that_cannot_be_written_is_done_without(files: CacheFiles, index: CacheIndex) -> None:
    write(files, 1)
    for path in (files.directory / f"index-{os.uname().nodename}.db",):
        path.mkdir()
    index.add([(key_of(1), entry_of(key_of(1)))])
    assert index.nearest("f", key_of(2), LATER) is None


def test_entries_written_by_two_at_once_are_those_of_one(files: CacheFiles) -> None:
    others = CacheFiles(files.directory)
    key = key_of("x")
    files.write(key, entry_of(key), pack(1))
    before = files.read(key.digest)
    others.write(key, entry_of(key), Packed(pack(2).payload))
    assert before is not None
    assert unpack(*before[1]) == 1
    after = files.read(key.digest)
    assert after is not None
    assert unpack(*after[1]) == 2
