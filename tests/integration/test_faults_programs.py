"""The user's program ends, in every way a program ends: nothing of its runs stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilotflow.runtime.connection import read_connection
from tests.integration import fault_tasks as tasks
from tests.integration.faults import Program, parent_of, pids_in, processes_of, running, took, within
from tests.processes import is_alive
from tests.waiting import logged, until

BUSY = """
    run = pf.load(config(HERE, **WORDS))
    futures = [ignore_sigterm(str(HERE / "pids")), deaf_command(str(HERE / "pids"))]
    futures += [square(i) for i in range(1000)]
    while len((HERE / "pids").read_text().splitlines() if (HERE / "pids").exists() else []) < 2: time.sleep(0.01)
    say("ready", run.run_id)
"""


def busy(here: Path, source: str = "", **words: object) -> Program:
    """A program with a Python task and a command that both ignore SIGTERM, and then what the source says."""
    return Program(here, f"WORDS = {words!r}\n" + _dedented(BUSY) + _dedented(source))


def _dedented(source: str) -> str:
    import textwrap

    return textwrap.dedent(source)


def test_nothing_of_a_killed_program_is_alive_15_seconds_later(tmp_path: Path) -> None:
    with busy(tmp_path, "time.sleep(600)") as program:
        program.said("ready")
        alive = [*pids_in(tmp_path / "pids"), *program.left()]
        assert len(alive) >= 6  # interchange, block, manager, zygote, two workers at least
        killed = time.monotonic()
        program.process.kill()
        within(15.0, "nothing of a killed program is alive",
               lambda: not program.left() and not any(map(is_alive, alive)), killed)  # fmt: skip


def test_blocks_that_are_pending_end_with_a_killed_program(tmp_path: Path) -> None:
    """Their managers, which would notice by themselves, have not even started."""
    source = """
        run = pf.load(config(HERE, init_blocks=2, max_blocks=2, worker_init="echo $$ >> " + str(HERE / "inits") +
            "; trap '' TERM; sleep 500; sleep 500"))
        square(1)
        say("loaded")
        time.sleep(600)
    """
    with Program(tmp_path, source) as program:
        program.said("loaded")
        until(lambda: len((tmp_path / "inits").read_text().split() if (tmp_path / "inits").exists() else ()) == 2)
        scripts = [int(pid) for pid in (tmp_path / "inits").read_text().split()]
        until(lambda: _knows_blocks(program, 2))
        program.process.kill()
        within(15.0, "pending blocks of a killed program are gone",
               lambda: not program.left() and not any(map(is_alive, scripts)))  # fmt: skip


KILL_INTERCHANGE = """
def kill_interchange():
    from tests.integration.faults import processes_of
    (directory,) = (HERE / "runs").glob("[0-9]*")
    lines = processes_of(directory).items()
    os.kill(next(pid for pid, line in lines if "runtime.interchange" in line), 9)

"""
DYING = """
    class Dying(pf.LocalProvider):
        def submit(self, job):
            super().submit(job)
            while not (HERE / "inits").exists(): time.sleep(0.01)
            os.kill(os.getpid(), 9)

    provider = Dying(worker_init="echo $$ > " + str(HERE / "new") + "; mv " + str(HERE / "new") + " " + str(HERE / "inits")
        + "; trap '' TERM; sleep 500; sleep 500")
    say("begins")
    pf.load(pf.Config(executors=[pf.ExecutorConfig(label="cpu", provider=provider)], run_dir=HERE / "runs"))
"""


def test_a_block_that_nobody_had_been_told_of_ends_with_a_killed_program(tmp_path: Path) -> None:
    """It dies between the block's start and its announcement: the interchange knows no command to cancel it."""
    with Program(tmp_path, DYING) as program:
        assert program.end() == -signal.SIGKILL
        died = time.monotonic()
        (script,) = pids_in(tmp_path / "inits")
        within(
            15.0, "a block that was not announced is gone", lambda: not is_alive(script) and not program.left(), died
        )


def test_the_next_start_leaves_a_dead_programs_run_to_its_interchange(tmp_path: Path) -> None:
    """It cancels what is pending, politely; killed before that, it would leave batch jobs in the queue."""
    with Program(tmp_path, DYING) as program:
        assert program.end() == -signal.SIGKILL
        (script,) = pids_in(tmp_path / "inits")
        with running(tmp_path / "next") as run:
            within(15.0, "a block that was not announced is gone", lambda: not is_alive(script))
            assert "left over" not in (run.directory / "pilotflow.log").read_text()
        (directory,) = program.run_directories()
        logged(directory, f"ending process {script}, left over")


def test_a_block_that_nobody_had_been_told_of_is_ended_by_the_next_start(tmp_path: Path) -> None:
    """The same, and the interchange dies too."""
    source = DYING.replace("os.kill(os.getpid(), 9)", "kill_interchange(); os.kill(os.getpid(), 9)")
    with Program(tmp_path, KILL_INTERCHANGE + _dedented(source)) as program:
        assert program.end() == -signal.SIGKILL
        (script,) = pids_in(tmp_path / "inits")
        assert is_alive(script)
        with running(tmp_path / "next") as run:
            within(5.0, "the next start ends a block that was not announced", lambda: not is_alive(script))
            logged(run.directory, f"ending process {script}, left over from run 0001-")


def _knows_blocks(program: Program, number: int) -> bool:
    """Whether the program's thread has had the time to tell the interchange of its blocks."""
    (directory,) = program.run_directories()
    return (directory / "pilotflow.log").read_text().count("is running") >= number


MOMENTS = ("pilotflow.log", "connection.json", "interchange.err", "scripts/cpu-0.sh", "blocks/cpu-0/manager-*.log")
"""What a run has made by a moment of its start."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_program_killed_while_it_loads_leaves_nothing(tmp_path: Path, moment: str) -> None:
    with Program(tmp_path, "say('begins'); run = pf.load(config(HERE)); say('loaded'); time.sleep(600)") as program:
        until(lambda: list((tmp_path / "runs" / "0001").glob(moment)))
        program.process.kill()
        within(15.0, "nothing of a program killed while it loads is alive", lambda: not program.left())


def with_a_detached_process(tmp_path: Path) -> tuple[Program, str, int]:
    """A program, its run, and a process of a task that belongs to nobody any more."""
    source = """
        run = pf.load(config(HERE))
        detach(str(HERE / "pids"))
        while not (HERE / "pids").exists(): time.sleep(0.01)
        say("ready", run.run_id)
        time.sleep(600)
    """
    program = Program(tmp_path, source)
    run_id = program.said("ready")
    (detached,) = until(lambda: pids_in(tmp_path / "pids"))
    program.process.send_signal(signal.SIGSTOP)  # it would replace the block
    zygote = parent_of(detached)  # takes in orphans, so that a block's end finds them; kill it, and nobody can
    os.kill(zygote, signal.SIGKILL)
    until(lambda: parent_of(detached) != zygote)
    return program, run_id, detached


def test_what_detached_itself_is_ended_when_the_program_is_killed(tmp_path: Path) -> None:
    program, _, detached = with_a_detached_process(tmp_path)
    with program:
        program.process.kill()
        within(15.0, "what detached itself is gone", lambda: not is_alive(detached) and not program.left())


def test_what_detached_itself_is_ended_and_reported_by_the_next_start(tmp_path: Path) -> None:
    """If the interchange is gone as well, which would have done it."""
    program, run_id, detached = with_a_detached_process(tmp_path)
    lines = processes_of(program.run_directories()[0], run_id).items()
    interchange = next(pid for pid, line in lines if "runtime.interchange" in line)
    os.kill(interchange, signal.SIGKILL)
    program.process.kill()
    program.process.wait()
    until(lambda: not is_alive(interchange))
    connection = read_connection(program.run_directories()[0] / "connection.json")
    sockets = Path(connection.client[0].removeprefix("unix:")).parent
    os.utime(sockets, (1, 1))  # as if that was a while ago
    with running(tmp_path / "next") as run:
        assert not sockets.exists()
        within(5.0, "the next start ends what detached itself", lambda: not is_alive(detached))
        whose = f"left over from run {run_id} whose program (pid {program.process.pid}) is gone"
        logged(run.directory, f"ending process {detached}, {whose}")
        assert tasks.square(3).result(60) == 9


WAYS_OUT = {
    "Ctrl-C in result()": ("with run: futures[0].result()", -signal.SIGINT, "KeyboardInterrupt"),
    "Ctrl-C in result() without a with block": ("futures[0].result()", -signal.SIGINT, "KeyboardInterrupt"),
    "an exception inside with": ("with run: 1 / 0", 1, "ZeroDivisionError"),
    "sys.exit inside with": ("with run: sys.exit(7)", 7, ""),
    "interpreter exit without close": ("", 0, ""),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_the_prompt_is_back_and_everything_gone_within_5_seconds(tmp_path: Path, way: str) -> None:
    source, code, words = WAYS_OUT[way]
    with busy(tmp_path, source) as program:
        program.said("ready")
        pids = pids_in(tmp_path / "pids")
        assert len(pids) == 2
        begun = time.monotonic()
        if "Ctrl-C" in way:
            program.process.send_signal(signal.SIGINT)
        assert program.end() == code
        took(5.0, f"the prompt is back after {way}", time.monotonic() - begun)
        within(
            5.0, f"everything is gone after {way}", lambda: not program.left() and not any(map(is_alive, pids)), begun
        )
        assert words in program.text
        assert "Exception ignored" not in program.text
        (directory,) = program.run_directories()
        assert "run closed" in (directory / "pilotflow.log").read_text()


def test_ctrl_c_of_a_terminal_reaches_the_whole_group_and_ends_the_run_as_usual(tmp_path: Path) -> None:
    source = 'say("ready", "too") if not futures else None\nwith run: futures[0].result()'
    program = Program(tmp_path, "WORDS = {}\n" + _dedented(BUSY) + source, before=("setsid",))
    with program:
        program.said("ready")
        begun = time.monotonic()
        os.killpg(program.process.pid, signal.SIGINT)
        program.end()
        took(5.0, "the prompt is back after Ctrl-C to the group", time.monotonic() - begun)
        assert "KeyboardInterrupt" in program.text
        until(lambda: not program.left())


@pytest.mark.parametrize("stops", [1, pytest.param(5, marks=pytest.mark.soak)])
def test_a_stopped_program_loses_nothing(tmp_path: Path, stops: int) -> None:
    """A reader stalled under load: results pile up on their way, and none is dropped."""
    source = """
        with pf.load(config(HERE, heartbeat_limit=2)) as run:
            futures = [square(i) for i in range(30_000)] + [blob(70_000, i % 256) for i in range(3_000)]
            say("submitted")
            assert [future.result() for future in futures[:30_000]] == [i * i for i in range(30_000)]
            assert all(future.result() == bytes([i % 256]) * 70_000 for i, future in enumerate(futures[30_000:]))
            say("blocks", len(run.blocks()))
    """
    with Program(tmp_path, source) as program:
        program.said("submitted")
        for _ in range(stops):
            program.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            until(lambda stopped=stopped: time.monotonic() - stopped > 2.5)  # type: ignore[misc]
            program.process.send_signal(signal.SIGCONT)
        assert program.said("blocks") == "1"
        assert program.end() == 0, program.text


def test_forked_children_do_not_end_the_run_of_their_parent(tmp_path: Path) -> None:
    source = """
        with pf.load(config(HERE)) as run:
            assert square(2).result() == 4
            pid = os.fork()
            if pid == 0:
                try:
                    square(3)
                except pf.RunClosed as error:
                    say("child", error)
                sys.exit(0)  # atexit and the with block, in the child
            os.waitpid(pid, 0)
            say("parent", square(3).result())
    """
    with Program(tmp_path, source) as program:
        assert program.end() == 0, program.text
        assert "child This process was forked" in program.text
        assert "parent 9" in program.text


def test_programs_killed_again_and_again_leave_nothing(tmp_path: Path) -> None:
    kill_programs(tmp_path, 3)


@pytest.mark.soak
def test_a_hundred_killed_programs_leave_nothing(tmp_path: Path) -> None:
    kill_programs(tmp_path, 100)


def kill_programs(tmp_path: Path, kills: int) -> None:
    slowest = 0.0
    sockets: list[Path] = []
    for number in range(kills):
        source = "with pf.load(config(HERE)) as run:\n    while True: [f.result() for f in [square(i) for i in range(50)]]; say('works')"
        with Program(tmp_path / str(number), source) as program:
            program.said("works")
            sockets += _socket_directories(tmp_path / str(number))
            program.process.kill()
            killed = time.monotonic()
            until(lambda program=program: not program.left(), timeout_s=150.0)  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - killed)
    took(15.0, "nothing of a killed program is alive", slowest)
    assert len(sockets) == kills
    until(lambda: not any(path.exists() for path in sockets), timeout_s=60, what="the removal of socket directories")


def _socket_directories(program: Path) -> list[Path]:
    """Where the sockets of a program's runs are."""
    files = {path.resolve() for path in program.rglob("connection.json")}
    return [Path(read_connection(path).client[0].removeprefix("unix:")).parent for path in files]


def test_python_itself_says_nothing_at_exit(tmp_path: Path) -> None:
    """Threads, sockets and files are all closed: -X dev would complain."""
    script = tmp_path / "program.py"
    script.write_text(
        "from tests.integration.faults import config\nfrom tests.integration.fault_tasks import square\n"
        f"import pilotflow as pf, pathlib\nwith pf.load(config(pathlib.Path({str(tmp_path)!r}))): print(square(3).result())\n"
    )
    from tests.integration.faults import ROOT

    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "9\n", "")
