"""The live line, looked at through a pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pdb  # noqa: T100  to see that it is left alone
import pty
import re
import select
import struct
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotflow.core.block_records import BlockInfo, Phase
from pilotflow.core.pace import Counts
from pilotflow.display import Look, TerminalSurface, waited_for
from tests.integration.scripts import run_script
from tests.integration.terminals import Terminal

Start = Callable[..., Terminal]

HEAD = """
    import sys, time
    import pilotflow as pf

    @pf.python_app
    def wait_for(path, x=0):
        import os, time
        while not os.path.exists(path):
            time.sleep(0.01)
        if x < 0:
            raise ValueError(x)
        return x

    def go(name):
        open(name, "w").close()

    config = pf.Config.for_this_machine(max_workers=2)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Terminal] = []

    def begin(body: str, **options: Any) -> Terminal:
        terminal = Terminal(tmp_path, HEAD + body, **options)
        started.append(terminal)
        return terminal

    yield begin
    for terminal in started:
        terminal.kill()


def test_one_line_says_what_is_done_running_waiting_and_failed_and_a_summary_stays(start: Start) -> None:
    terminal = start("""
    with pf.load(config):
        first = [wait_for("one", x) for x in (1, 2, -3)]
        rest = [wait_for("two", x) for x in range(9)]
        input("")
        go("one")
        input("")
        go("two")
    """)
    terminal.wait_for(lambda lines: any("0 done · 2 running · 10 waiting" in line for line in lines))
    terminal.send("\n")
    screen = terminal.wait_for(lambda lines: any("2 done · 1 failed · 2 running · 7 waiting" in line for line in lines))
    assert sum("done" in line for line in screen) == 1, "one line, whatever happens"
    terminal.send("\n")
    assert terminal.finish() == 0
    assert re.fullmatch(r"runs/0001 11 done, 1 failed in .+s \(.+/s\)", terminal.lines()[-1])
    assert sum("done" in line for line in terminal.lines()) == 1
    assert b"\x1b[31m1 failed\x1b[0m" in terminal.raw, "failures are red"


def test_the_summary_warns_of_nodes_that_ran_more_than_they_have(start: Start) -> None:
    terminal = start("""
    with pf.load(pf.Config(executors=[pf.ExecutorConfig(label="deep", num_cpus=2, max_parallel_jobs=3)])):
        futures = [wait_for("go", x) for x in range(4)]
        input("")
        go("go")
    """)
    terminal.wait_for(lambda lines: any("3 running" in line for line in lines))
    terminal.send("\n")
    assert terminal.finish() == 0
    after = "".join(terminal.lines()).partition("4 done in")[2]  # folded by the terminal
    assert "Warning: The tasks that manager on" in after
    assert "ask for 3 cores of 2. It runs 3 at once" in after


def test_what_the_program_prints_comes_above_the_line_and_is_whole(start: Start) -> None:
    terminal = start("""
    with pf.load(config):
        futures = [wait_for("go", x) for x in range(4)]
        for number in range(3):
            input("")
            print("step", number, "of the program, " + 60 * "x")
            print("and on stderr", number, file=sys.stderr)
        input("")
        go("go")
    """)
    for number in range(3):
        terminal.wait_for(lambda lines: any("4 " in line or "2 waiting" in line for line in lines[-1:]))
        terminal.send("\n")
        last = f"and on stderr {number}"
        terminal.wait_for(lambda lines: last in lines)  # noqa: B023  it is called before the next round
    terminal.wait_for(lambda lines: "2 waiting" in lines[-1])
    terminal.send("\n")
    assert terminal.finish() == 0
    printed = [line for line in terminal.lines() if line and "done" not in line]
    assert printed == [
        text for n in range(3) for text in (f"step {n} of the program, {60 * 'x'}", f"and on stderr {n}")
    ]


def test_a_line_that_the_program_has_not_finished_is_left_alone(start: Start) -> None:
    terminal = start("""
    with pf.load(config) as run:
        futures = [wait_for("go", x) for x in range(4)]
        input("")
        print("half a line, ", end="", flush=True)
        input("")
        print("and the rest")
        go("go")
    """)
    terminal.wait_for(lambda lines: any("2 running" in line for line in lines))
    terminal.send("\n")
    terminal.wait_for(lambda lines: any(line.startswith("half a line,") for line in lines))
    terminal.send("\n")
    assert terminal.finish() == 0
    assert "half a line, and the rest" in terminal.lines()


def test_progress_of_some_futures_takes_the_place_of_the_runs_line(start: Start) -> None:
    terminal = start("""
    with pf.load(config):
        others = [wait_for("never", x) for x in range(1)]
        mine = [wait_for("go", x) for x in range(5)]
        import threading
        threading.Thread(target=lambda: (input(""), go("go"))).start()
        same = pf.progress(mine, "samples")
        assert same == mine and all(future.done() for future in mine)
        print([future.result() for future in same])
        go("never")
    """)
    screen = terminal.wait_for(lambda lines: any(line.startswith("samples ") for line in lines))
    assert not any(line.startswith("runs/") for line in screen)
    assert "0 done" in screen[-1]
    assert "1 running · 4 waiting" in screen[-1] or "5 waiting" in screen[-1], "those in question only"
    terminal.send("\n")
    assert terminal.finish() == 0
    assert "[0, 1, 2, 3, 4]" in terminal.lines()
    assert any(re.match(r"samples 5 done in ", line) for line in terminal.lines())


def test_while_there_are_no_workers_it_says_what_is_awaited(start: Start) -> None:
    terminal = start("""
    provider = pf.LocalProvider(worker_init="until [ -e blocks ]; do sleep 0.05; done")
    with pf.load(pf.Config(executors=[pf.ExecutorConfig(provider=provider, max_workers_per_node=1)])):
        future = wait_for("go")
        go("go")
        input("")
        go("blocks")
    """)
    terminal.wait_for(lambda lines: any("1 waiting · workers are starting" in line for line in lines))
    terminal.send("\n")
    assert terminal.finish() == 0
    assert terminal.lines()[-1].startswith("runs/0001 1 done in ")


def test_nothing_is_shown_if_it_was_told_so(start: Start) -> None:
    terminal = start("""
    with pf.load(config, progress=False):
        futures = [wait_for("go", x) for x in range(3)]
        time.sleep(1)
        go("go")
    print("over")
    """)
    assert terminal.finish() == 0
    assert terminal.lines() == ["over"]
    assert b"\x1b" not in terminal.raw


def test_nothing_is_shown_where_output_is_no_terminal(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        HEAD
        + """
    with pf.load(config):
        futures = [wait_for("go", x) for x in range(3)]
        time.sleep(1)
        go("go")
        print([future.result() for future in pf.progress(futures)])
    """,
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")


def test_after_ctrl_c_the_screen_is_in_order(start: Start) -> None:
    terminal = start("""
    with pf.load(config):
        futures = [wait_for("never", x) for x in range(3)]
        futures[0].result()
    """)
    terminal.wait_for(lambda lines: any("2 running" in line for line in lines))
    terminal.send("\x03")
    assert terminal.finish() != 0
    assert "KeyboardInterrupt" in terminal.lines()[-1]
    assert any(re.fullmatch(r"runs/0001 0 done, 3 failed in .*", line) for line in terminal.lines())


# ---- the surface alone, in a pseudo-terminal of this process --------------------------------


class Paper:
    """A terminal's other end, and what was written there."""

    def __init__(self, columns: int, encoding: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
        self.stream = open(slave, "w", encoding=encoding)  # noqa: SIM115  closed below

    def read(self) -> str:
        self.stream.flush()
        return os.read(self._master, 65536).decode() if select.select([self._master], [], [], 0.1)[0] else ""

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def paper(request: pytest.FixtureRequest) -> Iterator[Paper]:
    paper = Paper(*request.param)
    yield paper
    paper.close()


LOOK = Look(Counts(done=2, failed=1, running=2, waiting=3))


@pytest.mark.parametrize("paper", [(40, "ascii")], indirect=True)
def test_a_narrow_terminal_without_utf8_gets_what_fits(paper: Paper) -> None:
    place = TerminalSurface(paper.stream, coloured=False)
    place.show("runs/0001", LOOK, 10.0)
    assert paper.read() == "\r\x1b[2Kruns/0001 2 done | 1 failed | 2 running\r"
    place.close()
    assert paper.read() == "\r\x1b[2K"


@pytest.mark.parametrize("paper", [(100, "utf-8")], indirect=True)
def test_an_unchanged_line_is_not_painted_again(paper: Paper) -> None:
    place = TerminalSurface(paper.stream, coloured=False)
    place.show("runs/0001", LOOK, 10.0)
    assert paper.read()
    place.show("runs/0001", LOOK, 10.0)
    assert not paper.read()


@pytest.mark.parametrize("paper", [(100, "utf-8")], indirect=True)
def test_a_debugger_is_left_alone(paper: Paper) -> None:
    class Asking(pdb.Pdb):
        def run_here(self) -> None:
            self.cmdqueue = ["continue"]
            self.runcall(lambda: place.show("runs/0001", LOOK, 10.0))

    place = TerminalSurface(paper.stream, coloured=False)
    Asking(stdout=io.StringIO()).run_here()
    assert not paper.read()


@pytest.mark.parametrize("paper", [(100, "utf-8")], indirect=True)
def test_a_process_forked_from_the_program_prints_without_the_line(paper: Paper) -> None:
    place = TerminalSurface(paper.stream, coloured=False)
    place.show("runs/0001", LOOK, 10.0)
    paper.read()
    pid = os.fork()
    if pid == 0:
        place.write_above("stdout", paper.stream, "from the fork\n")
        paper.stream.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert paper.read() == "from the fork\r\n"


def test_blocks_that_are_suspended_are_told_from_pending_ones() -> None:
    suspended = BlockInfo("cpu-0", "cpu", "1", Phase.SUSPENDED, "")
    pending = BlockInfo("cpu-1", "cpu", "2", Phase.PENDING, "", said="Resources")
    assert waited_for([suspended]) == "no workers yet, 1 block suspended"
    assert waited_for([suspended, pending]) == "no workers yet, 1 block suspended, 1 block pending (Resources)"
    assert waited_for([replace(suspended, phase=Phase.WORKING), pending]) == "workers are starting"
