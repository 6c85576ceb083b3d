"""Directories of sockets that killed runs have left: the next start removes these, and nothing else."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pilotflow.runtime import socket_directories
from pilotflow.runtime.socket_directories import INCOMPLETE_S, MOST, YOUNG_S, remove_dead

LOG = logging.getLogger("test")
ALL = ("client", "managers", "control")
OLD_S = YOUNG_S + 5


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs have their sockets; its path is short enough for them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()
    return sock


def aged(directory: Path, age_s: float) -> Path:
    stamp = directory.stat().st_ctime - age_s
    os.utime(directory, (stamp, stamp))
    return directory


def dead(names: tuple[str, ...] = ALL, age_s: float = OLD_S) -> Path:
    """A directory whose listeners have been killed."""
    directory = socket_directories.make()
    for name in names:
        listening(directory / name).close()
    return aged(directory, age_s)


@pytest.mark.parametrize("names", [ALL, ("client", "control")])
def test_dead_sockets_go_with_their_directory(
    base: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    directories = [dead(names), dead(names)]
    assert remove_dead(base, LOG) == 2
    assert not any(directory.exists() for directory in directories)
    assert f"removed the sockets of 2 runs that had been killed, in {base}" in caplog.text


def test_a_directory_with_one_socket_that_somebody_listens_on_stays_whole(base: Path) -> None:
    directory = dead(("client", "managers"))
    with closing(listening(directory / "control")):
        aged(directory, OLD_S)
        assert remove_dead(base, LOG) == 0
    assert sorted(os.listdir(directory)) == sorted(ALL)
    assert remove_dead(base, LOG) == 1


def test_a_listener_with_a_full_queue_is_alive(base: Path) -> None:
    directory = dead(("client", "managers"))
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as full:
        full.bind(str(directory / "control"))
        full.listen(0)
        waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(directory / "control"))
        aged(directory, OLD_S)
        assert remove_dead(base, LOG) == 0
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("names", "age_s", "goes"),
    [
        (ALL, YOUNG_S - 5, False),
        ((), OLD_S, False),  # its program may be stopped before it has made any
        (("client",), OLD_S, False),
        (("client",), INCOMPLETE_S + 5, True),
        ((), INCOMPLETE_S + 5, True),
    ],
)
def test_one_that_may_just_be_made_stays(base: Path, names: tuple[str, ...], age_s: float, goes: bool) -> None:
    directory = dead(names, age_s)
    assert remove_dead(base, LOG) == goes
    assert directory.exists() is not goes


def write_a_file(directory: Path) -> None:
    (directory / "managers").unlink()
    (directory / "managers").write_text("no socket")


def link_elsewhere(directory: Path) -> None:
    (directory / "managers").unlink()
    (directory / "managers").symlink_to(directory / "client")


SPOILED: dict[str, Callable[[Path], object]] = {
    "a file among its sockets": write_a_file,
    "a link among its sockets": link_elsewhere,
    "another entry": lambda directory: listening(directory / "other").close(),
    "others may enter": lambda directory: directory.chmod(0o750),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_does_not_look_like_a_run_s_stays(base: Path, how: str) -> None:
    directory = dead()
    SPOILED[how](directory)
    before = sorted(os.listdir(aged(directory, INCOMPLETE_S + 5)))
    assert remove_dead(base, LOG) == 0
    assert sorted(os.listdir(directory)) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_another_user_s_stays(base: Path) -> None:
    directory = dead()
    os.chown(directory, 12345, -1)
    assert remove_dead(base, LOG) == 0
    assert directory.exists()


def test_links_and_other_names_are_not_followed(base: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as other:
        away = dead().rename(Path(other) / "pilotflow-abcdefgh")
        (base / "pilotflow-abcdefgh").symlink_to(away)
        (base / "pilotflow-node-0").mkdir(mode=0o700)
        aged(base / "pilotflow-node-0", INCOMPLETE_S + 5)
        (base / "pilotflow-00000000").write_text("a file")
        assert remove_dead(base, LOG) == 0
        assert sorted(os.listdir(away)) == sorted(ALL)
    assert (base / "pilotflow-node-0").exists()


def test_a_start_removes_so_many_and_leaves_others_to_the_next(base: Path) -> None:
    for _ in range(MOST + 3):
        dead(("control",))
    assert remove_dead(base, LOG) == MOST
    assert remove_dead(base, LOG) == 3


def test_a_place_that_is_not_there_is_passed_over(base: Path) -> None:
    assert remove_dead(base / "nowhere", LOG) == 0
