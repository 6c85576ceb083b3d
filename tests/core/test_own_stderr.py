"""The stderr of commands that have no file for it: it stays short, is quoted well, and survives what commands do to it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.context import RUNNING
from pilotflow.errors import BashExitError
from pilotflow.messages.records import Task
from pilotflow.runtime.link import Sit
from pilotflow.runtime.own_stderr import LOOK_EVERY, OWN_STDERR, OwnStderr
from pilotflow.runtime.tails import LINE_CHARS, TAIL_BYTES, last_lines, tail
from pilotflow.runtime.task_output import Output
from pilotflow.runtime.tasks import BashCall
from pilotflow.runtime.worker_files import KEPT_BYTES, MOST_BYTES, STDERR, of_worker, remove_left, shorten_left
from tests.waiting import until

NOWHERE = Output(None, None)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """As in a worker whose task runs: the file of its commands."""
    seat = Sit((), (), None, {}, None, None, run_directory=str(tmp_path))
    running, own = RUNNING.set((Task(1, 1, 1, 1, b""), 0, seat, {})), OWN_STDERR.set(OwnStderr())
    yield of_worker(tmp_path, STDERR, os.getpid())
    OWN_STDERR.reset(own)
    RUNNING.reset(running)


def run(command: str) -> None:
    assert BashCall(lambda: command, "app")(NOWHERE) == 0


def failure_of(command: str) -> BashExitError:
    with pytest.raises(BashExitError) as caught:
        BashCall(lambda: command, "app")(NOWHERE)
    return caught.value


A_LOT = "yes 'a line of some length' | head -n 200000 >&2"


# ---- short -----------------------------------------------------------------------------------


def test_what_a_command_has_written_too_much_is_cut_as_soon_as_it_has_ended(file: Path) -> None:
    run(f"{A_LOT}; echo last >&2")
    lines = file.read_text().splitlines()
    assert file.stat().st_size <= KEPT_BYTES + 100
    assert lines[0].startswith("[pilotflow has cut ")
    assert lines[0].endswith(" bytes here]")
    assert set(lines[1:-1]) == {"a line of some length"}, "lines are whole"
    assert lines[-1] == "last"


def test_many_commands_that_write_a_little_do_not_add_up(file: Path) -> None:
    for _ in range(8):
        run("yes 'a line of some length' | head -n 20000 >&2")
        assert file.stat().st_size <= MOST_BYTES + 440_000
    assert file.read_text().count("[pilotflow has cut ") == 1, "what was cut before is counted with it"


def test_a_command_that_fails_is_quoted_before_its_file_is_cut_and_the_next_one_is_too(file: Path) -> None:
    assert failure_of(f"{A_LOT}; echo last >&2; exit 1").stderr_tail.endswith("length\nlast")
    assert file.stat().st_size <= KEPT_BYTES + 100
    assert failure_of("exit 1").stderr_tail == ""
    assert failure_of("echo word >&2; exit 1").stderr_tail == "word"


def test_a_process_in_the_background_writes_on_where_a_cut_file_ends(file: Path, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    run(f"(while [ ! -e {go} ]; do sleep 0.01; done; echo from the background >&2; touch {done}) &")
    run(f"{A_LOT}; echo last >&2")
    go.touch()
    until(done.exists)
    assert file.stat().st_size <= KEPT_BYTES + 200
    assert b"\0" not in file.read_bytes()
    assert file.read_text().endswith("last\nfrom the background\n")
    assert failure_of("exit 1").stderr_tail == "", "it was written between the two"


def test_what_a_running_command_writes_too_much_is_cut_meanwhile_and_its_end_is_quoted(
    file: Path, tmp_path: Path
) -> None:
    """As it is done for the workers of a manager, now and then."""
    written, go = tmp_path / "written", tmp_path / "go"

    def cut() -> None:
        until(written.exists)
        shorten_left(tmp_path, os.getpid())
        go.touch()

    thread = threading.Thread(target=cut)
    thread.start()
    run("echo word >&2")
    wait = f"touch {written}; while [ ! -e {go} ]; do sleep 0.01; done"
    error = failure_of(f"{A_LOT}; {wait}; wc -c <{file}; echo last >&2; exit 1")
    thread.join()
    assert error.stderr_tail.endswith("a line of some length\nlast")
    assert file.stat().st_size <= KEPT_BYTES + 100
    shorten_left(tmp_path, 1)
    assert len(list(file.parent.iterdir())) == 1, "no file is made"


def test_commands_that_open_dev_stderr_themselves_do_not_add_up_either(file: Path) -> None:
    for _ in range(LOOK_EVERY):
        run("head -c 30000 /dev/zero | tr '\\0' x >> /dev/stderr")
    assert file.stat().st_size <= KEPT_BYTES + 100


def test_one_line_that_is_too_long_is_cut_in_its_middle(file: Path) -> None:
    error = failure_of("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1")
    assert file.stat().st_size <= KEPT_BYTES + 100
    assert len(error.stderr_tail) < 2 * LINE_CHARS
    assert error.stderr_tail.endswith("xend")


def test_what_a_killed_worker_has_written_too_much_is_cut_by_who_buries_it(tmp_path: Path) -> None:
    file = of_worker(tmp_path, STDERR, 17)
    file.parent.mkdir()
    file.write_text("a line\n" * 1_000_000 + "last\n")
    remove_left(tmp_path, 17)
    assert file.stat().st_size <= KEPT_BYTES + 100
    assert file.read_text().endswith("a line\nlast\n")
    file.write_text("")
    remove_left(tmp_path, 17)
    assert not file.exists()


def test_a_worker_that_ends_leaves_no_empty_file(file: Path) -> None:
    own = OWN_STDERR.get()
    assert own is not None
    run("true")
    assert file.exists()
    own.close()
    assert not file.exists()


# ---- broken ----------------------------------------------------------------------------------


def test_a_file_that_was_there_before_is_not_quoted_as_a_command_s(file: Path) -> None:
    """Process ids come again, in a run that goes on for long."""
    file.parent.mkdir()
    file.write_text("of a worker before\n")
    assert failure_of("exit 1").stderr_tail == ""
    assert failure_of("echo mine >&2; exit 1").stderr_tail == "mine"
    assert file.read_text() == "of a worker before\nmine\n"


def test_a_command_that_closes_its_stderr_has_written_nothing(file: Path) -> None:
    assert failure_of("exec 2>&-; ls /no/such/place; exit 3").stderr_tail == ""
    assert failure_of("echo next >&2; exit 3").stderr_tail == "next"


def test_a_file_that_is_removed_meanwhile_is_made_again(file: Path) -> None:
    run("echo one >&2")
    shutil.rmtree(file.parent)
    assert failure_of("echo two >&2; exit 1").stderr_tail == "two"
    assert failure_of("echo three >&2; exit 1").stderr_tail == "three"
    assert file.read_text() == "three\n"


def test_commands_still_run_when_the_whole_run_directory_is_gone(file: Path, tmp_path: Path) -> None:
    run("echo one >&2")
    shutil.rmtree(tmp_path)
    for word in ("two", "three", "four"):
        assert failure_of(f"echo {word} >&2; exit 1").stderr_tail == word
    run("true")
    tmp_path.mkdir()


def test_no_descriptor_is_lost(file: Path) -> None:
    run("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        shutil.rmtree(file.parent)
        failure_of("exit 1")
        run(A_LOT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_may_not_grow_leaves_the_command_its_own_end(file: Path) -> None:
    """As on a full disk: writes fail, and the command says so by its exit code."""
    run("echo one >&2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        error = failure_of("trap '' XFSZ; head -c 5000 /dev/zero | tr '\\0' x >&2; exit 5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.exit_code == 5
    assert error.stderr_tail.startswith("xxx")


ON_A_SMALL_DISK = """
import os, sys
from pathlib import Path
from pilotflow.context import RUNNING
from pilotflow.messages.records import Task
from pilotflow.runtime.link import Sit
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.task_output import Output
from pilotflow.runtime.tasks import BashCall

RUNNING.set((Task(1, 1, 1, 1, b""), 0, Sit((), (), None, {}, None, None, run_directory=sys.argv[1]), {}))
OWN_STDERR.set(OwnStderr())

def fail(command):
    try:
        BashCall(lambda: command, "app")(Output(None, None))
    except Exception as error:
        print(error.exit_code, error.stderr_tail)

fail("yes 'a line of some length' | head -c 8000000 >&2; echo last >&2; exit 1")
fail("echo there is room again >&2; exit 2")
filler = os.open(sys.argv[1] + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    os.truncate(next(Path(sys.argv[1], "tasks").iterdir()), 0)  # else there is room in its last page
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    pass
fail("echo no room >&2; exit 3")
os.ftruncate(filler, 0)
fail("echo room >&2; exit 4")
"""


def test_a_full_disk_is_cleared_by_the_cut_or_told_and_does_not_end_the_worker(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=3m none '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    program = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", ON_A_SMALL_DISK]
    done = subprocess.run([*program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stdout.splitlines() if "a line of some length" not in line]
    assert lines[-3:] == [
        "2 there is room again",
        "3 [The disk of the run directory is full: what it wrote, if anything, is lost.]",
        "4 room",
    ], done.stderr
    assert done.stdout.startswith("1 a line of some length\na line")


# ---- readable --------------------------------------------------------------------------------


def test_a_long_line_is_shown_by_its_beginning_and_its_end() -> None:
    shown = last_lines("first " + "x" * 8000 + " last\nnext")
    long, after = shown.split("\n")
    assert (long[:6], long[-5:], after) == ("first ", " last", "next")
    assert "[... 7,011 characters ...]" in long
    assert len(long) < LINE_CHARS + 40


def test_a_line_of_which_the_beginning_was_not_read_says_so(file: Path) -> None:
    assert failure_of("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").stderr_tail.startswith("[...] xxx")
    assert failure_of("echo short >&2; exit 1").stderr_tail == "short"


def test_a_progress_bar_is_shown_as_it_was_left() -> None:
    assert last_lines("start\n 1 %\r 2 %\r99 %\r\nend\r\n") == "start\n99 %\nend"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31merror:\x1b[0m no such file\x1b[K", "error: no such file"),
        ("\x1b]0;title\x07word \x1b]8;;http://x\x1b\\link", "word link"),
        ("\x1bcreset \x1b(Bset", "reset set"),
        ("bell\x07\x07 back\x08 nul\0\0\0", "bell\ufffd back\ufffd nul\ufffd"),
        ("broken \x1b[", "broken \ufffd["),
        ("tab\tgrüße 中文 \u202egnp.exe", "tab\tgrüße 中文 \ufffdgnp.exe"),
    ],
)
def test_nothing_is_shown_that_a_terminal_would_obey(text: str, shown: str) -> None:
    assert last_lines(text) == shown


def test_rubbish_is_shown_short_and_a_character_cut_in_half_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "err"
    path.write_bytes(bytes(range(256)) * 100)
    shown = tail(path)
    assert shown.isprintable() or set(shown) <= {"\t", "\n"} | {c for c in shown if c.isprintable()}
    for shift in range(4):
        path.write_bytes(b"x" * shift + "ü€𝄞".encode() * 2000)
        shown = tail(path).removeprefix("[...] ")
        assert "\ufffd" not in shown, shift
        assert shown[0] in "ü€𝄞"
    path.write_bytes(b"\xe9" * 3 + b" latin\n")
    assert tail(path) == "\ufffd latin"
    path.write_bytes(b"\x80" * (TAIL_BYTES + 1))
    assert tail(path) == "[...] "


def test_what_is_no_file_has_no_end_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert [tail(tmp_path / "fifo"), tail("/dev/zero"), tail(tmp_path), tail(tmp_path / "none")] == [""] * 4
