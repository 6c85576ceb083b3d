"""The contract of a launcher, as a test that any launcher can be put to.

Example:
    A test of a launcher of your own is two lines::

        def test_my_launcher_keeps_the_contract(tmp_path):
            check_launcher(MyLauncher, tmp_path)
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pilotflow.launchers.base import Launcher

ODD_ARGUMENTS: Final = (
    "two  words",
    "it's",
    'say "hi"',
    "$HOME ${PATH} $(echo no) `echo no`",
    "line one\nline two\n",
    "back\\slash\\",
    "*",
    "~",
    "",
    "-n",
    "a=b",
    "#no",
    "!!",
    "ünïcode",
    "{1..3}",
    "; exit 9",
    ":",
    "--",
)

# A copy that fails does so at once, the others a while after it, so that a launcher that ends them is noticed.
_COPY: Final = """
import json, os, signal, sys, time
folder, failing, code, linger_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
index = os.environ["PILOTFLOW_NODE_INDEX"]
def names():
    return [name.split(".") for name in os.listdir(folder)]
def leave_word(name):
    with open(os.path.join(folder, f"{index}.{name}.{os.getpid()}.{os.uname().nodename}"), "w") as file:
        json.dump(sys.argv[5:], file)
leave_word("here")
if index == failing:
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)
if int(failing) >= 0:
    end = time.monotonic() + 30
    while not any(name[:2] == [failing, "here"] for name in names()) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(linger_s)
leave_word("done")
"""
LINGER_S: Final = 0.3
"""Seconds that the other copies go on after one has failed."""


def check_launcher(
    make_launcher: Callable[[], Launcher], tmp_path: Path, *, nodes: int = 3, timeout_s: float = 60.0
) -> None:
    """Run the whole contract; an AssertionError says what does not hold.

    Args:
        make_launcher: gives a launcher.
        tmp_path: an empty folder, which all nodes must be able to reach.
        nodes: nodes at hand, where the launcher starts things on other machines.
        timeout_s: seconds that one start of all copies may take.
    """
    launcher = make_launcher()
    for count in sorted({1, nodes}):
        _each_node_runs_one_copy(launcher, tmp_path / f"copies-{count}", count, timeout_s)
        for failing in sorted({0, count - 1}):
            first = "set -eu\n" if failing == nodes - 1 else ""  # a strict shell is to make no difference
            case = tmp_path / f"failing-{failing}-of-{count}"
            _a_failure_is_reported(launcher, case, count, failing, timeout_s, first)
    _a_copy_that_dies_leaves_the_others_alone(launcher, tmp_path / "dying", nodes, timeout_s)
    assert launcher.wrap(["a", "b c"], nodes) == make_launcher().wrap(["a", "b c"], nodes), "equal input, other text"


def _run(
    launcher: Launcher, folder: Path, nodes: int, timeout_s: float, *, failing: int = -1, code: int = 0, first: str = ""
) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    head = [sys.executable, "-I", "-S", "-c", _COPY, str(folder), str(failing), str(code), str(LINGER_S)]
    text = f"{first}{launcher.wrap([*head, *ODD_ARGUMENTS], nodes)}\n"
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )


def _check_copies(folder: Path, nodes: int, failing: int = -1) -> None:
    copies = [path for path in sorted(folder.iterdir()) if path.name.split(".")[1] == "here"]
    indices = sorted(path.name.split(".")[0] for path in copies)
    assert indices == sorted(map(str, range(nodes))), f"of {nodes} copies, these ran: {indices}"
    for path in copies:
        arguments = json.loads(path.read_text())
        assert arguments == list(ODD_ARGUMENTS), f"copy {path.name} was given {arguments}"
    done = {path.name.split(".")[0] for path in folder.iterdir() if path.name.split(".")[1] == "done"}
    ended = {str(index) for index in range(nodes) if index != failing} - done
    assert not ended, f"copy {failing} of {nodes} failed, and these were ended with it: {sorted(ended)}"


def _each_node_runs_one_copy(launcher: Launcher, folder: Path, nodes: int, timeout_s: float) -> None:
    done = _run(launcher, folder, nodes, timeout_s)
    assert done.returncode == 0, f"all copies ended with 0, the launcher with {done.returncode}: {done.stderr}"
    _check_copies(folder, nodes)


def _a_failure_is_reported(
    launcher: Launcher, folder: Path, nodes: int, failing: int, timeout_s: float, first: str
) -> None:
    done = _run(launcher, folder, nodes, timeout_s, failing=failing, code=37, first=first)
    words = f"{first}copy {failing} of {nodes} ended with 37, the launcher with {done.returncode}: {done.stderr}"
    assert done.returncode == 37, words
    _check_copies(folder, nodes, failing)


def _a_copy_that_dies_leaves_the_others_alone(launcher: Launcher, folder: Path, nodes: int, timeout_s: float) -> None:
    done = _run(launcher, folder, nodes, timeout_s, failing=0, code=-signal.SIGKILL)
    assert done.returncode != 0, f"copy 0 of {nodes} was killed, and the launcher ended with 0: {done.stderr}"
    _check_copies(folder, nodes, 0)
