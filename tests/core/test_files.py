"""A `File` is a path or a URL, says what it is called, and counts in cached calls by content, by date, or by name."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import pilotflow.app_caching  # noqa: F401  it registers files
from pilotflow.caching.values import filled, text_of
from pilotflow.errors import CacheKeyError, ConfigError
from pilotflow.files import File


def test_a_path_is_whole_and_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("text")
    for file in (File("a.txt"), File(Path("a.txt")), File(f"file://{tmp_path}/a.txt"), File(tmp_path / "a.txt")):
        assert file == File("a.txt")
        assert not file.is_remote
        assert str(file) == os.fspath(file) == file.filepath == file.path == f"{tmp_path}/a.txt"
        assert (file.scheme, file.netloc, file.filename) == ("file", "", "a.txt")
        with open(file, encoding="utf-8") as opened:
            assert opened.read() == "text"
        assert pickle.loads(pickle.dumps(file)) == file


def test_a_url_is_taken_apart_and_shown_without_its_password() -> None:
    file = File("ftp://me:secret@host:2121/dir/a%20b.txt")
    assert file.is_remote
    assert (file.scheme, file.netloc, file.path, file.filename) == (
        "ftp",
        "me:secret@host:2121",
        "/dir/a b.txt",
        "a b.txt",
    )
    assert repr(file) == "File('ftp://me:***@host:2121/dir/a%20b.txt')"


@pytest.mark.parametrize(
    ("where", "words", "message"),
    [
        ("", {}, "neither a path nor a URL"),
        ("a\0b", {}, "neither a path nor a URL"),
        (3, {}, r"File\(url=...\)"),
        ("http://host", {}, "names no file"),
        ("http:///a", {}, "names no file"),
        ("a", {"stage": "node"}, r"File\(stage=...\)"),
        ("a", {"cache_by": "mtime"}, r"File\(cache_by=...\)"),
    ],
)
def test_wrong_files_are_told(where: str, words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        File(where, **words)  # type: ignore[arg-type]


def key(file: File) -> bytes:
    return filled(text_of(file))


def test_files_count_by_what_was_asked_for(tmp_path: Path) -> None:
    one, same, other = tmp_path / "1" / "x", tmp_path / "2" / "x", tmp_path / "3" / "x"
    for path, content in ((one, "a"), (same, "a"), (other, "b")):
        path.parent.mkdir()
        path.write_text(content)
    assert key(File(one)) == key(File(same)) != key(File(other))
    assert key(File(one, cache_by="stat")) != key(File(same, cache_by="stat"))
    before = key(File(one, cache_by="stat")), key(File(one, cache_by="name")), key(File(one))
    os.utime(one, (1, 1))
    after = key(File(one, cache_by="stat")), key(File(one, cache_by="name")), key(File(one))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True]
    one.write_text("changed")
    assert key(File(one)) != before[2]
    assert len(File(one).digest()) == 40


def test_a_file_that_is_not_there_has_no_key_and_says_so(tmp_path: Path) -> None:
    for how in ("content", "stat"):
        with pytest.raises(CacheKeyError, match=r"File\('.*nowhere'\) cannot be read: No such file"):
            key(File(tmp_path / "nowhere", cache_by=how))
    assert key(File(tmp_path / "nowhere", cache_by="name"))
