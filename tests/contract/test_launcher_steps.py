"""Steps: the commands that start ranks, the environment of ranks, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.mpirun import MpiexecLauncher, MpirunLauncher
from pilotflow.launchers.rank_text import NO_RANK, rank_command
from pilotflow.launchers.simple import SimpleLauncher, WrappedLauncher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher, SrunMPILauncher
from pilotflow.launchers.steps import Step, program_environment, step_environment
from pilotflow.resources import Request
from pilotflow.testing.launchers import ODD_ARGUMENTS
from pilotflow.units import parse_memory

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TWO = Step(name="train-1.1", nodes=("node3", "node1"), ranks_per_node=2)
FULL = Step(
    name="train-1.1",
    nodes=("node3", "node1"),
    ranks_per_node=2,
    cpus_per_rank=8,
    memory_bytes=parse_memory("1.5g") + 1,
    gpus_per_node=4,
    runtime_s=90.5,
    directory="/runs/0001/steps/it's/train-1.1",
)
HERE = Step(name="fit-1.1", nodes=("node1",), ranks_per_node=3, local=True, directory="/runs/0001/steps/fit-1.1")
LOCAL = Step(name="train-1.1", nodes=("vm-0", "vm-1"), ranks_per_node=2, local=True)


@pytest.mark.parametrize(
    ("launcher", "step", "name"),
    [
        (SrunLauncher(), TWO, "step_srun.txt"),
        (SrunLauncher(mpi="pmix", options=("-v",), step_options=("--network=x",)), FULL, "step_srun_full.txt"),
        (SrunMPILauncher(), TWO, "step_srun_mpi.txt"),
        (SrunLauncher(), HERE, "step_srun_here.txt"),
        (MpirunLauncher(), TWO, "step_mpirun.txt"),
        (MpirunLauncher(options=("-q",), step_options=("--bind-to", "core")), FULL, "step_mpirun_full.txt"),
        (MpirunLauncher(), LOCAL, "step_mpirun_local.txt"),
        (SingleNodeLauncher(), LOCAL, "step_mpirun_local.txt"),
        (MpiexecLauncher(), TWO, "step_mpiexec.txt"),
        (MpiexecLauncher(options=("-iface", "ib0")), FULL, "step_mpiexec_full.txt"),
        (MpiexecLauncher(), LOCAL, "step_mpiexec_local.txt"),
        (WrappedLauncher("apptainer exec tools.sif", SrunLauncher()), TWO, "step_wrapped.txt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_of_a_step_is_the_one_on_record(launcher: Launcher, step: Step, name: str) -> None:
    assert launcher.starts_ranks
    assert launcher.warning == signal.SIGUSR1
    text = "".join(f"{shlex.quote(word)}\n" for word in launcher.step(["./solve", "--name", "it's $HOME"], step))
    path = GOLDEN / name
    assert text == path.read_text(), f"if the new text is right, write it to {path}"


def test_the_host_file_has_a_line_for_each_rank_in_their_order() -> None:
    assert TWO.hostfile_text == "node3\nnode3\nnode1\nnode1\n"
    assert LOCAL.hostfile_text == "localhost\n" * 4
    assert (TWO.hostfile, FULL.hostfile) == (None, "/runs/0001/steps/it's/train-1.1/hosts")


def test_the_environment_of_a_step_names_its_nodes_for_everybody() -> None:
    found = step_environment(FULL)
    assert found == {
        "PILOTFLOW_NODES": "node3,node1",
        "PILOTFLOW_NUM_NODES": "2",
        "PILOTFLOW_RANKS_PER_NODE": "2",
        "PILOTFLOW_NUM_RANKS": "4",
        "PILOTFLOW_HEAD_ADDRESS": "node3",
        "PILOTFLOW_HOSTFILE": "/runs/0001/steps/it's/train-1.1/hosts",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node3",
        "MASTER_PORT": found["MASTER_PORT"],
        "PET_NNODES": "2",
        "PET_MASTER_ADDR": "node3",
        "PET_MASTER_PORT": found["MASTER_PORT"],
        "OMP_NUM_THREADS": "8",
    }
    assert 20_000 <= int(found["MASTER_PORT"]) < 30_000
    other = step_environment(Step(name="train-2.1", nodes=("node3",)))
    assert other["MASTER_PORT"] != found["MASTER_PORT"]


def test_logical_nodes_of_one_machine_are_all_localhost() -> None:
    found = step_environment(LOCAL)
    assert found["PILOTFLOW_NODES"] == "localhost,localhost"
    assert found["MASTER_ADDR"] == found["PILOTFLOW_HEAD_ADDRESS"] == "localhost"
    assert "PILOTFLOW_HOSTFILE" not in found


def test_what_another_mpirun_or_the_jobs_options_left_behind_is_not_taken_over() -> None:
    inherited = {
        "HOME": "/home/me",
        "OMPI_MCA_btl": "tcp",
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_UNIVERSE_SIZE": "8",
        "PMIX_RANK": "3",
        "PMI_RANK": "3",
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_CPU": "100",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_GPUS_PER_TASK": "1",
        "PILOTFLOW_NUM_NODES": "99",
    }
    kept = {"HOME": "/home/me", "OMPI_MCA_btl": "tcp", "SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100"}
    assert SrunLauncher().environment(TWO, inherited) == kept | step_environment(TWO)
    program = program_environment(FULL, inherited)
    assert "SLURM_MEM_PER_CPU" not in program
    assert program["OMPI_MCA_orte_default_hostfile"] == program["PRTE_MCA_prte_default_hostfile"] == FULL.slots_file
    assert FULL.slots_text == "node3 slots=2\nnode1 slots=2\n"
    assert program["SLURM_OVERLAP"] == "1"
    assert program["SLURM_JOB_NODELIST"] == program["SLURM_NODELIST"] == ",".join(FULL.nodes)
    assert program["SLURM_TASKS_PER_NODE"] == f"{FULL.ranks_per_node}(x{len(FULL.nodes)})"
    assert program["SLURM_NTASKS"] == str(FULL.ranks)
    assert program["SLURM_HOSTFILE"] == FULL.hostfile
    for nodes, is_needed in (("node3,node1", False), ("node[1,3]", True), ("node3,node1,node2", True)):
        of_job = program_environment(FULL, inherited | {"SLURM_JOB_NODELIST": nodes})
        assert ("SLURM_HOSTFILE" in of_job) is is_needed, "where srun would not find them by itself"
    assert "SLURM_DISTRIBUTION" not in program, "beside it srun of Slurm 24.11, and mpirun's own, refuse --nodes"
    assert not {"WORLD_SIZE", "PET_NNODES"} & set(program), "it has no ranks yet"
    assert not {"SLURM_NODELIST", "SLURM_HOSTFILE"} & set(program_environment(LOCAL, inherited))


def test_a_tasks_request_becomes_a_step_with_the_nodes_cores_shared_by_its_ranks() -> None:
    request = Request(
        cpus_milli=9500, memory_bytes=1 << 30, gpus_milli=500, num_nodes=2, ranks_per_node=4, runtime_s=60.0
    )
    step = Step.of("a", request, ("n1", "n2"), directory="/d")
    expected = Step(
        name="a",
        nodes=("n1", "n2"),
        ranks_per_node=4,
        cpus_per_rank=2,
        memory_bytes=1 << 30,
        gpus_per_node=1,
        runtime_s=60.0,
        directory="/d",
    )
    assert step == expected
    assert Step.of("a", Request(ranks_per_node=4), ("n1",)).cpus_per_rank == 1
    with pytest.raises(ConfigError, match="asks for 2 nodes and was given 1"):
        Step.of("a", request, ("n1",))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b"}, "Step(name=...): 'a b' cannot be used. Use letters"),
        ({"nodes": ()}, "Step(nodes=...): () cannot be used. Give a tuple of at least one node."),
        ({"nodes": ["n1"]}, "Step(nodes=...): ['n1'] cannot be used. Give a tuple"),
        ({"nodes": ("n1", "-oProxyCommand=x")}, "'-oProxyCommand=x' cannot be used. A node is given by its host name."),
        ({"nodes": ("n1,n2",)}, "'n1,n2' cannot be used."),
        ({"nodes": ("n1", "n2", "n1")}, "'n1' cannot be used. It is in the list twice; raise ranks_per_node"),
        ({"ranks_per_node": 0}, "Step(ranks_per_node=...): 0 cannot be used. It is int; give a whole number of 1"),
        ({"ranks_per_node": 2.0}, "2.0 cannot be used. It is float; give a whole number of 1 or more."),
        ({"gpus_per_node": -1}, "Step(gpus_per_node=...): -1 cannot be used."),
        ({"memory_bytes": 0}, "Step(memory_bytes=...): 0 cannot be used."),
        ({"cpus_per_rank": True}, "Step(cpus_per_rank=...): True cannot be used."),
        ({"runtime_s": 0.0}, "Step(runtime_s=...): 0.0 cannot be used. Give more than 0 seconds"),
        ({"runtime_s": float("nan")}, "Step(runtime_s=...): nan cannot be used."),
        ({"directory": "steps/1"}, "Step(directory=...): 'steps/1' cannot be used. Give an absolute path"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_with_its_reason(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Step(**({"name": "a", "nodes": ("n1",)} | fields))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("launcher", "step", "words"),
    [
        (SimpleLauncher(), TWO, "SimpleLauncher starts no ranks, so its executor cannot run tasks on several nodes"),
        (WrappedLauncher("nice", SimpleLauncher()), TWO, "SimpleLauncher starts no ranks"),
        (SingleNodeLauncher(), TWO, "starts ranks on its own machine only, and step train-1.1 is for 2 nodes"),
        (SrunLauncher(), LOCAL, "SrunLauncher starts ranks on nodes of a Slurm job, and step train-1.1 is for logical"),
    ],
    ids=lambda value: "",
)
def test_a_launcher_says_which_steps_it_cannot_start(launcher: Launcher, step: Step, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launcher.step(["true"], step)
    assert words in str(caught.value)
    assert launcher.starts_ranks != isinstance(launcher, (SimpleLauncher, WrappedLauncher))


# ---- the text around a rank --------------------------------------------------------------------

SHOW = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], sys.stdout)"


def run_rank(command: list[str], step: Step, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = rank_command(command, step)
    environment = {"PATH": os.environ["PATH"]} | variables
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({"OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3", "SLURM_PROCID": "0"}, 3),  # mpirun in a Slurm job
        ({"PMIX_RANK": "2", "SLURM_PROCID": "2"}, 2),
        ({"PMI_RANK": "1", "SLURM_PROCID": "0"}, 1),
        ({"SLURM_PROCID": "0"}, 0),
    ],
)
def test_every_rank_learns_its_numbers_whoever_started_it(variables: dict[str, str], rank: int) -> None:
    done = run_rank([sys.executable, "-c", SHOW, *ODD_ARGUMENTS], TWO, variables)
    assert (done.returncode, done.stderr) == (0, "")
    arguments, environment = json.loads(done.stdout)
    assert arguments == list(ODD_ARGUMENTS)
    names = ("PILOTFLOW_RANK", "PILOTFLOW_NODE_RANK", "PILOTFLOW_LOCAL_RANK")
    assert [int(environment[name]) for name in names] == [rank, rank // 2, rank % 2]
    others = ("RANK", "GROUP_RANK", "PET_NODE_RANK", "LOCAL_RANK")
    assert [int(environment[name]) for name in others] == [rank, rank // 2, rank // 2, rank % 2]


@pytest.mark.parametrize("variables", [{}, {"SLURM_PROCID": "x; exit 0"}])
def test_a_process_that_was_given_no_rank_does_not_run(variables: dict[str, str]) -> None:
    done = run_rank(["echo", "ran"], TWO, variables)
    assert (done.returncode, done.stdout) == (NO_RANK, "")
    assert "pilotflow: this process was given no rank: none of OMPI_COMM_WORLD_RANK" in done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 37", 37), ("kill -KILL $$", 128 + signal.SIGKILL), ("kill -SEGV $$", 128 + signal.SIGSEGV)],
)
def test_a_rank_that_fails_leaves_word_and_the_first_one_is_known(tmp_path: Path, command: str, code: int) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    step = Step(name="a", nodes=("n1", "n2", "n3"), directory=str(folder))
    for rank in ("2", "0"):
        done = run_rank(["sh", "-c", command], step, {"SLURM_PROCID": rank})
        assert done.returncode == code
    run_rank(["true"], step, {"SLURM_PROCID": "1"})
    assert (folder / "first").read_text() == "2\n"
    assert {path.name for path in folder.iterdir()} == {"first", "ended.0", "ended.2"}
    assert (folder / "ended.0").read_text() == f"{code} {os.uname().nodename}\n"
    assert (folder / "ended.0").stat().st_mode & 0o777 == 0o600


def test_a_program_that_is_not_there_is_a_failure_with_words(tmp_path: Path) -> None:
    step = Step(name="a", nodes=("n1",), directory=str(tmp_path))
    done = run_rank(["no-such-program"], step, {"SLURM_PROCID": "0"})
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert (tmp_path / "ended.0").read_text().startswith("127 ")


PATIENT = r"""
import pathlib, signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
end = time.monotonic() + 30
while not heard and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.1)
print("saved", flush=True)
sys.exit(7)
"""


@pytest.mark.parametrize("to_group", [False, True])
def test_a_warning_becomes_sigterm_and_the_rank_ends_in_its_own_time(to_group: bool) -> None:
    argv = rank_command([sys.executable, "-c", PATIENT], TWO)
    environment = os.environ | {"SLURM_PROCID": "0"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"  # Ctrl-C means for it what it always means
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGUSR1)
        assert process.stdout.read() == "saved\n"
        assert process.wait(timeout=30) == 7


def test_a_rank_that_is_ended_because_of_another_leaves_no_word(tmp_path: Path) -> None:
    argv = rank_command([sys.executable, "-c", PATIENT], Step(name="a", nodes=("n1",), directory=str(tmp_path)))
    environment = os.environ | {"SLURM_PROCID": "0"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 7
    assert not list(tmp_path.iterdir())


def test_where_the_others_must_be_ended_by_a_death_a_failing_rank_dies() -> None:
    argv = rank_command(["sh", "-c", "exit 3"], TWO, kill_on_failure=True)
    started = time.monotonic()
    done = subprocess.run(argv, env={"PATH": os.environ["PATH"], "PMI_RANK": "0"}, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert time.monotonic() - started < 30
    argv = rank_command(["true"], TWO, kill_on_failure=True)
    assert (
        subprocess.run(argv, env={"PATH": os.environ["PATH"], "PMI_RANK": "0"}, timeout=30, check=False).returncode == 0
    )
