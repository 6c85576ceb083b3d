"""Disks that are full, few open files, payloads that are large: errors with words, and bounded memory."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow import ConfigError, Run, load
from pilotflow.errors import SerializationError
from pilotflow.runtime.rundir import make
from tests.integration import fault_tasks as tasks
from tests.integration.faults import (
    Program,
    config,
    connection_of,
    interchange_of,
    managers_of,
    processes_of,
    report,
    running,
)
from tests.waiting import logged, until

MIB = 1 << 20

# ---- disks ----------------------------------------------------------------------------------


def test_a_run_directory_that_cannot_be_made_is_said_at_load(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file is in the way")
    threads = threading.active_count()
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path))
    assert f"Cannot write the run directory {tmp_path}/runs" in str(caught.value)
    assert "run_dir" in str(caught.value)
    assert threading.active_count() == threads


SMALL_DISK = """
    import sqlite3, resource
    {before}
    try:
        with pf.load(config(HERE / "disk", store=True)) as run:
            assert square(3).result(60) == 9
            {fill}
            futures = [square(i) for i in range(20_000)]
            assert [future.result(60) for future in futures] == [i * i for i in range(20_000)]
        say("went on")
    except pf.ConfigError as error:
        say("refused", error)
"""


def test_a_run_directory_without_a_name_in_utf_8_is_refused_at_load(tmp_path: Path) -> None:
    base = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9/runs"))
    with pytest.raises(ConfigError, match=r"caf\\xe9/runs' cannot be used: its path is no UTF-8.*run_dir"):
        load(config(base.parent))
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_may_be_named_from_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory, run_id = make(Path("~/runs"))
    assert directory == tmp_path / "home" / "runs" / "0001"
    assert run_id.startswith("0001-")


def test_a_program_whose_directory_was_removed_is_told_so_at_load(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    plain = "import json, os\nos.rmdir(os.getcwd())\ntry: json.nothing\nexcept AttributeError: pass"
    if subprocess.run([sys.executable, "-c", plain], cwd=gone, capture_output=True, check=False).returncode:
        pytest.skip("this Python (3.13.0) raises SystemError wherever it looks for a name without its directory")
    for run_dir in ("runs", str(tmp_path / "runs")):
        gone.mkdir()
        script = f"import os, pilotflow\nos.rmdir(os.getcwd())\npilotflow.load(site=None, run_dir={run_dir!r})"
        done = subprocess.run([sys.executable, "-c", script], cwd=gone, capture_output=True, text=True, check=False)
        assert "ConfigError: The directory that this program is in has been removed." in done.stderr
    assert list(tmp_path.iterdir()) == []


def on_small_disk(tmp_path: Path, size: int, before: str, fill: str) -> Program:
    """A program whose runs are on a disk of so many bytes, in a name space of its own.

    Where such a disk may not be mounted, no file of the program may be larger than that: its writes
    then fail in the same places, with another error number.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    source = SMALL_DISK.format(before=before, fill=fill)
    for flags in (["-m"], ["-rm"]):
        mount = ["unshare", *flags, "sh", "-c", f"mount -t tmpfs -o size={size} none '{disk}'"]
        if _succeeds(mount):
            text = f"mount -t tmpfs -o size={size} none '{disk}' && exec \"$@\""
            return Program(tmp_path, source, before=("unshare", *flags, "sh", "-c", text, "sh"))
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({min(size, 4095)}, resource.RLIM_INFINITY))"
    later = limit if size > 100_000 else ""
    return Program(tmp_path, SMALL_DISK.format(before="" if later else limit, fill=later))


def _succeeds(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_full_disk_is_said_at_load(tmp_path: Path) -> None:
    fill = "(HERE / 'disk' / 'filler').write_bytes(bytes(4096))"
    with on_small_disk(
        tmp_path, 8192, before=f"with __import__('contextlib').suppress(OSError): {fill}", fill=""
    ) as program:
        program.process.wait(60)
        assert "refused Cannot write the run" in program.text or "refused Cannot make the run store" in program.text
        assert "run_dir" in program.text


def test_a_disk_that_fills_up_is_reported_and_the_run_goes_on(tmp_path: Path) -> None:
    fill = """filler = open(HERE / "disk" / "filler", "wb", buffering=0)
            try:
                while True: filler.write(bytes(4096))
            except OSError: filler.close()"""
    with on_small_disk(tmp_path, 2 * MIB, before="", fill=fill) as program:
        assert program.end() == 0, program.text
        assert "went on" in program.text
        assert "cannot record in" in program.text
        assert "the run goes on" in program.text


# ---- open files -----------------------------------------------------------------------------


def test_an_interchange_that_cannot_have_its_files_says_need_limit_and_remedy(tmp_path: Path) -> None:
    source = """
        try: pf.load(config(HERE))
        except pf.InterchangeLost as error: say("error", str(error).replace(chr(10), " / "))
        import threading, glob
        say("threads", threading.active_count())
    """
    with Program(tmp_path, source, before=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")) as program:
        text = program.said("error")
        assert "Too few open files: the interchange needs 200, the hard limit here is 64." in text
        assert "ulimit -Hn 200" in text
        assert program.end() == 0
        assert "threads 1" in program.text
        assert not program.left()


def test_interchange_and_managers_raise_their_soft_limit_and_tasks_keep_it(tmp_path: Path) -> None:
    source = """
        with pf.load(config(HERE)) as run:
            say("limits", *open_files_limit().result())
            say("still", *__import__("resource").getrlimit(7))
    """
    with Program(tmp_path, source, before=("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh")) as program:
        soft, hard = map(int, program.said("limits").split())
        assert soft == min(hard, 1 << 20) or hard == resource.RLIM_INFINITY
        assert soft > 256
        assert program.said("still").split()[0] == "256"  # the user's own process is left alone
        assert program.end() == 0


@pytest.mark.parametrize("again", [1_500, pytest.param(4_500, marks=pytest.mark.soak)])
def test_more_big_payloads_than_a_process_may_have_files(tmp_path: Path, again: int) -> None:
    """Each is a memory file; the client holds back what the interchange could not keep open."""
    source = f"AGAIN = {again}\n" + textwrap.dedent("""
        value = bytes(70_000)
        with pf.load(config(HERE)) as run:
            futures = [sized(value, str(HERE / "go")) for _ in range(4_500)]
            assert square(3).cancel() and not futures[-1].done()
            while sum(load.queued + load.leased for load in (run.load.executors if run.load else ())) < 1000:
                time.sleep(0.01)  # until all that may be sent is sent
            assert futures[4_499].cancel() and futures[4_498].cancel()
            (HERE / "go").touch()
            futures[4_498:] = [sized(value), sized(value)]
            futures += [blob(70_000, i % 256) for i in range(4_500)]
            assert [future.result() for future in futures[:4_500]] == [70_000] * 4_500
            assert all(future.result() == bytes([i % 256]) * 70_000 for i, future in enumerate(futures[4_500:]))
            again = [sized(future) for future in futures[-AGAIN:]]
            assert [future.result() for future in again] == [70_000] * AGAIN
            say("blocks", len(run.blocks()))
        say("dropped" if "dropped" in (run.directory / "pilotflow.log").read_text() else "clean")
    """)
    with Program(tmp_path, source, before=("sh", "-c", 'ulimit -n 4096; exec "$@"', "sh")) as program:
        assert program.said("blocks") == "1"
        assert program.end() == 0, program.text
        assert program.said_at_end("clean")


# ---- memory ---------------------------------------------------------------------------------


class Peak:
    """The largest memory of a run and its program while the body runs, in bytes.

    Memory of each process is its proportional share without shared memory; each memory file counts
    once, whoever has it open.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.base = self.bytes = self._now()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.bytes = max(self.bytes, self._now())

    def _now(self) -> int:
        total = 0
        files: dict[tuple[int, int], int] = {}
        for pid in (os.getpid(), *processes_of(self._run.directory, self._run.run_id)):
            with contextlib.suppress(OSError, ValueError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, rest = line.partition(":")
                    if name in ("Pss_Anon", "Pss_File"):
                        total += int(rest.split()[0]) * 1024
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        path = f"/proc/{pid}/fd/{fd}"
                        if os.readlink(path).startswith("/memfd:"):
                            found = os.stat(path)
                            files[(found.st_dev, found.st_ino)] = 512 * found.st_blocks
        return total + sum(files.values())

    def __enter__(self) -> Peak:  # noqa: PYI034  nothing derives from it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("mib", [1, 64, pytest.param(1024, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("tcp", [False, True], ids=["Unix sockets", "TCP with CURVE"])
def test_a_large_argument_and_a_large_result_arrive_and_memory_stays_bounded(
    tmp_path: Path, mib: int, tcp: bool
) -> None:
    size = mib * MIB
    with running(tmp_path, tcp=tcp, max_message_bytes=1100 * MIB, heartbeat_limit=60) as run:
        tasks.square(1).result(60)
        for direction in ("argument", "result"):
            with Peak(run) as peak:
                if direction == "argument":
                    value = b"x" * size
                    assert tasks.sized(value).result(500) == size
                    del value
                else:
                    result = tasks.blob(size, 7).result(500)
                    assert len(result) == size
                    assert result[:: MIB // 2] == b"\x07" * (2 * mib)
                    del result
            times = (peak.bytes - peak.base) / size
            where = "TCP" if tcp else "Unix sockets"
            if mib > 1:  # beside one, the processes' own ups and downs are all there is to see
                what = f"memory over all processes, {mib} MiB {direction}, {where}"
                report(what, f"{times:.1f} times", "6 times", times <= 6)
                assert times <= 6


def test_payloads_beyond_the_limit_fail_with_words(tmp_path: Path) -> None:
    with running(tmp_path, max_message_bytes=4 * MIB) as run:
        text = str(tasks.sized(bytes(5 * MIB)).exception(60))
        assert "the arguments of 'sized' have 5242" in text
        assert f"more than max_message_bytes={4 * MIB}" in text
        error = tasks.blob(5 * MIB, 1).exception(60)
        assert type(error) is SerializationError
        assert f"more than the run's max_message_bytes={4 * MIB}" in str(error)
        assert tasks.sized(bytes(3 * MIB)).result(60) == 3 * MIB
        assert len(tasks.blob(3 * MIB, 1).result(60)) == 3 * MIB
        joined = tasks.echo([tasks.blob(3 * MIB, i) for i in range(3)])  # small enough one by one
        error = joined.exception(60)
        assert type(error) is SerializationError
        assert "bytes with the 3 results they need" in str(error)
        assert tasks.square(3).result(60) == 9
        assert len(run.blocks()) == 1


# ---- security -------------------------------------------------------------------------------


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def _open_umask() -> Iterator[None]:
    old = os.umask(0)
    try:
        yield
    finally:
        os.umask(old)


def test_nobody_else_can_enter_a_runs_directories_or_read_its_keys(tmp_path: Path) -> None:
    with _open_umask(), running(tmp_path, tcp=True) as run:
        connection = connection_of(run)
        assert _mode(run.directory) == 0o700
        assert _mode(run.directory / "connection.json") == 0o600
        assert _mode(run.directory / "run.db") == 0o600
        assert connection.keys.server_secret
        sockets = Path(connection.client[0].removeprefix("unix:")).parent
        assert _mode(sockets) == 0o700
        assert tasks.square(2).result(60) == 4
        secrets = [value for name in ("server", "client", "manager", "control")
                   if (value := getattr(connection.keys, f"{name}_secret"))]  # fmt: skip
        for pid in (interchange_of(run), *managers_of(run)):
            line = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            assert not any(secret.encode() in line for secret in secrets)
        assert not any(secret in (run.directory / "pilotflow.log").read_text() for secret in secrets)


def test_without_encryption_a_run_works_and_says_what_that_means(tmp_path: Path) -> None:
    with running(tmp_path, tcp=True, encrypted=False) as run:
        assert tasks.square(2).result(60) == 4
        assert not connection_of(run).keys.server_secret
        logged(
            run.directory,
            "encrypted=False: the TCP links of this run are neither encrypted nor checked",
            "run code as you",
        )


def test_a_start_that_fails_half_way_leaves_no_process_thread_or_socket(tmp_path: Path) -> None:
    source = """
        import glob, threading
        def sockets(): return set(glob.glob(os.environ["XDG_RUNTIME_DIR"] + "/pilotflow-*"))
        before = sockets()
        files = len(os.listdir("/proc/self/fd"))
        for number in range(3):
            try: pf.load(config(HERE))
            except pf.InterchangeLost: pass
        __import__("gc").collect()
        say("left", len(sockets() - before), threading.active_count() - 1, len(os.listdir("/proc/self/fd")) - files)
    """
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import sys\nif 'pilotflow.runtime.interchange' in ' '.join(sys.orig_argv): raise SystemExit('no interchange today')\n"
    )
    from tests.integration.faults import ROOT

    sockets = tmp_path / "run"  # other runs of this machine have theirs elsewhere
    sockets.mkdir(mode=0o700)
    environment = {"PYTHONPATH": f"{shim}:{ROOT}", "XDG_RUNTIME_DIR": str(sockets)}
    with Program(tmp_path, source, environment=environment) as program:
        assert program.said("left") == "0 0 0"
        assert program.end() == 0
        until(lambda: not program.left())
