"""Launchers of managers: the public contract, their text, and signals on their way to the managers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pilotflow.config.model import ExecutorConfig
from pilotflow.config.plugins import launcher_names, load_launcher, name_of
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher, quote_command
from pilotflow.launchers.mpirun import MpiexecLauncher, MpirunLauncher
from pilotflow.launchers.simple import SimpleLauncher, WrappedLauncher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher, SrunMPILauncher
from pilotflow.launchers.steps import Step
from pilotflow.providers import processes
from pilotflow.testing.launchers import check_launcher
from tests.integration import mpi_tools
from tests.waiting import until

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FAKE_SRUN = Path(__file__).with_name("fake_srun.py")


def launcher_of(kind: str) -> Launcher:
    match kind:
        case "single_node":
            return SingleNodeLauncher()
        case "wrapped":
            return WrappedLauncher("nice -n 1")
        case "srun":
            return SrunLauncher()
        case "srun_mpi":
            return SrunMPILauncher()
        case "mpirun":
            return MpirunLauncher(program=mpi_tools.openmpi())
        case "mpiexec":
            return MpiexecLauncher(program=mpi_tools.mpich())
        case _:
            return WrappedLauncher("nice -n 1", SrunLauncher())


KINDS = ["single_node", "wrapped", "srun", "srun_mpi", "mpirun", "mpiexec", "wrapped_srun"]


@pytest.fixture
def with_srun(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for srun is found first, and the environment is one in which a site and a user left settings."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "srun").write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_SRUN} "$@"\n')
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SLURM_GPUS_PER_TASK"):
        monkeypatch.setenv(name, "1")


@pytest.mark.usefixtures("with_srun")
@pytest.mark.parametrize("kind", KINDS)
def test_a_launcher_keeps_the_contract(tmp_path: Path, kind: str) -> None:
    check_launcher(lambda: launcher_of(kind), tmp_path)


def test_the_simple_launcher_keeps_the_contract_on_one_node_and_refuses_more(tmp_path: Path) -> None:
    check_launcher(SimpleLauncher, tmp_path, nodes=1)
    with pytest.raises(ConfigError, match="starts one manager and the block has 2 nodes"):
        SimpleLauncher().wrap(["true"], 2)


COMMAND = ["python3", "-m", "pilotflow.runtime.manager", "--name", "it's $HOME"]


@pytest.mark.parametrize(
    ("launcher", "nodes", "name"),
    [
        (SingleNodeLauncher(), 1, "single_node_1.sh"),
        (SingleNodeLauncher(), 3, "single_node_3.sh"),
        (SimpleLauncher(), 1, "simple.sh"),
        (WrappedLauncher('apptainer exec "$HOME/tools.sif"'), 1, "wrapped.sh"),
        (SrunLauncher(), 3, "srun.sh"),
        (SrunLauncher(mpi="pmix", options=("--network=a b",)), 1, "srun_options.sh"),
        (SrunMPILauncher(), 3, "srun_mpi.sh"),
        (MpirunLauncher(), 3, "mpirun.sh"),
        (MpiexecLauncher(options=("-iface", "ib0")), 3, "mpiexec.sh"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_text_is_the_one_on_record(launcher: Launcher, nodes: int, name: str) -> None:
    path = GOLDEN / name
    text = launcher.wrap(COMMAND, nodes)
    assert text == path.read_text(), f"if the new text is right, write it to {path}"


def test_the_first_word_is_a_program_whatever_it_looks_like() -> None:
    assert quote_command(["a=b", "c=d", "e f"]) == "'a=b' c=d 'e f'"


# ---- environment of the managers ---------------------------------------------------------------


def test_managers_that_mpirun_started_can_use_mpi_as_if_it_had_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = MpirunLauncher(program=mpi_tools.openmpi()).wrap(["sh", "-c", f"env >{out}"], 1)
    subprocess.run(["bash", "-c", text], timeout=30, check=True, env=os.environ | {"OMPI_MCA_btl": "self,tcp"})
    names = {line.partition("=")[0] for line in out.read_text().splitlines()}
    of_mpirun = {
        name for name in names if re.match("OMPI_COMM|OMPI_UNIV|OMPI_MCA_(orte|ess)|PMIX_(RANK|SERV|NAME)", name)
    }
    assert not of_mpirun
    assert {"PILOTFLOW_NODE_INDEX", "OMPI_MCA_btl"} <= names


@pytest.mark.usefixtures("with_srun")
def test_managers_in_steps_of_their_own_show_their_tasks_a_job_of_one_node(tmp_path: Path) -> None:
    command = ["sh", "-c", f"env >{tmp_path}/$PILOTFLOW_NODE_INDEX"]
    subprocess.run(["bash", "-c", SrunMPILauncher().wrap(command, 2)], timeout=30, check=True)
    lines = [line for line in (tmp_path / "1").read_text().splitlines() if "SLURM" in line]
    found = dict(line.split("=", 1) for line in lines)
    assert (found["SLURM_JOB_NODELIST"], found["SLURM_NNODES"], found["SLURM_TASKS_PER_NODE"]) == ("node2", "1", "4")
    assert "SLURM_STEP_ID" not in found
    step = Step(name="a", nodes=("node1", "node2"))
    again = SrunMPILauncher().environment(step, dict(line.split("=", 1) for line in lines))
    assert (again["SLURM_JOB_NODELIST"], again["SLURM_NNODES"]) == ("node[1-2]", "2")  # a step sees the whole job


# ---- signals -----------------------------------------------------------------------------------

OBEDIENT = r"""
import os, pathlib, signal, sys
out = pathlib.Path(sys.argv[1] + os.environ["PILOTFLOW_NODE_INDEX"])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept until it is waited for
out.with_suffix(".ready").write_text("yes")
signal.sigwait({signal.SIGTERM})
out.with_suffix(".term").write_text("yes")
sys.exit(5)
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


def wait_for(folder: Path, pattern: str, count: int) -> None:
    until(lambda: len(list(folder.glob(pattern))) >= count, f"{count} of {pattern}")


@pytest.mark.usefixtures("with_srun")
@pytest.mark.parametrize("kind", [*KINDS, "one manager"])
def test_sigterm_to_the_shell_alone_reaches_every_manager_and_their_exit_code_comes_back(
    tmp_path: Path, kind: str
) -> None:
    launcher, nodes = (SingleNodeLauncher(), 1) if kind == "one manager" else (launcher_of(kind), 2)
    text = launcher.wrap([sys.executable, "-c", OBEDIENT, f"{tmp_path}/node"], nodes)
    with started(text) as shell:
        wait_for(tmp_path, "*.ready", nodes)
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(timeout=30) == 5
    assert sorted(path.name for path in tmp_path.glob("*.term")) == [f"node{i}.term" for i in range(nodes)]


@pytest.mark.usefixtures("with_srun")
@pytest.mark.parametrize("kind", KINDS)
def test_managers_can_leave_in_their_own_time_when_all_processes_of_a_block_get_sigterm(
    tmp_path: Path, kind: str
) -> None:
    if kind == "mpirun" and mpi_tools.openmpi_version() >= 5:
        pytest.skip("Open MPI 5 ends its processes at once, see pilotflow/launchers/mpirun.py")
    text = launcher_of(kind).wrap([sys.executable, "-c", OBEDIENT, f"{tmp_path}/node"], 2)
    with started(text) as shell:
        wait_for(tmp_path, "*.ready", 2)
        everybody = processes.members(shell.pid)
        for pid in everybody:
            with suppress(ProcessLookupError):  # an end of one may be the end of another
                os.kill(pid, signal.SIGTERM)
        wait_for(tmp_path, "*.term", 2)
        shell.wait(timeout=30)


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


def test_an_mpirun_that_cannot_start_anything_is_a_failure() -> None:
    text = MpirunLauncher(program="mpirun-that-is-not-here").wrap(["true"], 2)
    done = subprocess.run(["bash", "-c", text], timeout=30, check=False, capture_output=True, text=True)
    assert done.returncode == 127
    assert "mpirun-that-is-not-here" in done.stderr


# ---- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "launcher"),
    [
        ("single_node", SingleNodeLauncher()),
        ("simple", SimpleLauncher()),
        ("srun", SrunLauncher()),
        ("srun_mpi", SrunMPILauncher()),
        ("mpirun", MpirunLauncher()),
        ("mpiexec", MpiexecLauncher()),
        ("wrapped", WrappedLauncher("nice")),
    ],
)
def test_every_launcher_has_a_short_name(name: str, launcher: Launcher) -> None:
    assert load_launcher(name) is type(launcher)
    assert name_of(type(launcher)) == name
    assert name in launcher_names()
    assert ExecutorConfig(launcher=launcher).launcher == launcher


@pytest.mark.parametrize(
    ("cls", "arguments", "words"),
    [
        (MpirunLauncher, {"mpi": "opnmpi"}, "'opnmpi' is unknown (did you mean 'openmpi'?). Valid: openmpi, mpich."),
        (MpirunLauncher, {"options": ("-x", "")}, "MpirunLauncher(options=...): '' is str, expected a word"),
        (SrunLauncher, {"mpi": ""}, "SrunLauncher(mpi=...): '' is str, expected a word"),
        (
            SrunLauncher,
            {"options": "--a --b"},
            "SrunLauncher(options=...): '--a --b' is str, expected tuple[str, ...].",
        ),
        (
            WrappedLauncher,
            {"prepend": " "},
            "WrappedLauncher(prepend=...): ' ' is str, expected a command for the shell",
        ),
        (WrappedLauncher, {"prepend": 3}, "WrappedLauncher(prepend=...): 3 is int, expected a command for the shell"),
        (WrappedLauncher, {"prepend": "nice", "launcher": "srun"}, "'srun' is str, expected Launcher."),
    ],
    ids=lambda value: "",
)
def test_a_wrong_argument_is_named(cls: type[Launcher], arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExecutorConfig(launcher=cls(**arguments))
    assert words in str(caught.value)


# ---- the contract itself -----------------------------------------------------------------------


class LosesArguments(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return "PILOTFLOW_NODE_INDEX=0 " + " ".join(command)


class ForgetsTheIndex(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return "\n".join([f"PILOTFLOW_NODE_INDEX=0 {quote_command(command)}"] * nodes)


class HidesFailures(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        return SingleNodeLauncher().wrap(command, nodes) + "true\n"


class EndsTheOthers(Launcher):
    def wrap(self, command: list[str], nodes: int) -> str:  # type: ignore[override]
        quoted, indices = quote_command(command), " ".join(map(str, range(nodes)))
        copies = f'for i in {indices}; do PILOTFLOW_NODE_INDEX=$i {quoted} & pids="$pids $!"; done'
        return (
            f"pids=; {copies}; code=0; for _ in {indices}; do wait -n || {{ code=$?; kill $pids; }}; done; (exit $code)"
        )


@pytest.mark.parametrize("broken", [LosesArguments, ForgetsTheIndex, HidesFailures, EndsTheOthers])
def test_the_contract_finds_a_launcher_that_breaks_it(tmp_path: Path, broken: type[Launcher]) -> None:
    with pytest.raises(AssertionError):
        check_launcher(broken, tmp_path)
