"""The single-node launcher: the public contract, its text, and signals on their way to the managers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilotflow.launchers.base import Launcher, quote_command
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.testing.launchers import check_launcher

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def test_single_node_keeps_the_contract(tmp_path: Path) -> None:
    check_launcher(SingleNodeLauncher, tmp_path)


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_text_is_the_one_on_record(nodes: int) -> None:
    text = SingleNodeLauncher().wrap(["python3", "-m", "pilotflow.runtime.manager", "--name", "it's $HOME"], nodes)
    path = GOLDEN / f"single_node_{nodes}.sh"
    assert text == path.read_text(), f"if the new text is right, write it to {path}"


def test_the_first_word_is_a_program_whatever_it_looks_like() -> None:
    assert quote_command(["a=b", "c=d", "e f"]) == "'a=b' c=d 'e f'"


OBEDIENT = r"""
import os, pathlib, signal, sys, time
out = pathlib.Path(sys.argv[1])
def end(*_):
    out.with_suffix(".term").write_text("yes")
    sys.exit(5)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\n")  # in one piece: several managers share the pipe
while True:
    time.sleep(0.05)  # short: a signal that comes just before a sleep is seen after it
"""


@contextmanager
def started(text: str) -> Iterator[subprocess.Popen[str]]:
    """A shell with this text; what is left of it at the end is killed."""
    with subprocess.Popen(["bash", "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True) as shell:
        try:
            yield shell
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.parametrize("nodes", [1, 2])
def test_sigterm_to_the_shell_alone_reaches_every_manager_and_their_exit_code_comes_back(
    tmp_path: Path, nodes: int
) -> None:
    code = OBEDIENT.replace("sys.argv[1]", "sys.argv[1] + __import__('os').environ['PILOTFLOW_NODE_INDEX']")
    text = SingleNodeLauncher().wrap([sys.executable, "-c", code, f"{tmp_path}/node"], nodes)
    with started(text) as shell:
        assert shell.stdout
        for _ in range(nodes):
            assert shell.stdout.readline() == "ready\n"
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(timeout=30) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"node{i}.term" for i in range(nodes)]


def test_one_manager_that_dies_leaves_the_others_alone_and_its_end_is_reported(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "if os.environ['PILOTFLOW_NODE_INDEX'] == '0': os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pathlib.Path({str(tmp_path / 'done')!r}).write_text(sys.stdin.read())\n"
    )
    text = SingleNodeLauncher().wrap([sys.executable, "-c", code], 2)
    done = subprocess.run(["bash", "-c", text], timeout=30, check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 128 + signal.SIGKILL
    assert (tmp_path / "done").read_text() == ""


class LosesArguments(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return "PILOTFLOW_NODE_INDEX=0 " + " ".join(command)


class ForgetsTheIndex(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return "\n".join([f"PILOTFLOW_NODE_INDEX=0 {quote_command(command)}"] * nodes)


class HidesFailures(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return SingleNodeLauncher().wrap(command, nodes) + "true\n"


@pytest.mark.parametrize("broken", [LosesArguments, ForgetsTheIndex, HidesFailures])
def test_the_contract_finds_a_launcher_that_breaks_it(tmp_path: Path, broken: type[Launcher]) -> None:
    with pytest.raises(AssertionError):
        check_launcher(broken, tmp_path)
