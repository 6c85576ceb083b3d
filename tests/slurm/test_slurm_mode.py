"""mode: slurm on a real cluster: every task is a step of its own, with what it asked for, and ends with words."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.errors import BashExitError, InitializerFailed, MemoryLimitExceeded, TaskTimeout, WorkerLost
from tests.slurm.conftest import a_cluster, a_state
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.harness.settings import Settings
from tests.slurm.programs import Program
from tests.slurm.tasks import config, noted, pause
from tests.slurm.test_losses import starts

MIB = 1 << 20
SCRATCH = "/dev/shm/pf-scratch"
"""Each host has its own."""


@pf.python_app
def step(seconds: float = 0.0) -> tuple[str, str, float, float]:
    """Which step of which node this is, and from when to when it ran."""
    began = time.time()
    time.sleep(seconds)
    return os.environ["SLURMD_NODENAME"], os.environ["SLURM_STEP_ID"], began, time.time()


@pf.python_app
def granted(*names: str, seconds: float = 0.0) -> list[str | None]:
    time.sleep(seconds)
    return [os.environ.get(name) for name in names]


@pf.python_app
def size(data: bytes) -> bytes:
    return data[::-1]


@pf.bash_app
def fail(stderr: Any = pf.AUTO_LOGNAME) -> str:
    return "echo it is broken >&2; exit 3"


@pf.python_app(scratch=True)
def in_scratch(seconds: float) -> tuple[str, str]:
    task = pf.current_task()
    assert task is not None
    assert os.getcwd() == str(task.scratch) == os.environ["PILOTFLOW_SCRATCH"]
    Path("made").write_text("here")
    time.sleep(seconds)
    return os.environ["SLURMD_NODENAME"], os.getcwd()


@pf.python_app
def left_in(folder: str) -> list[str]:
    time.sleep(0.2)
    return os.listdir(folder)


@pf.bash_app
def nested() -> str:
    return "srun --mpi=pmix hostname"


@pf.python_app
def die() -> None:
    os.write(2, b"libfoo: no licence\n")
    os.kill(os.getpid(), signal.SIGKILL)


@pf.python_app
def saves(path: str) -> None:
    def save(*_: Any) -> None:
        Path(path).write_text("saved")
        os._exit(0)

    signal.signal(signal.SIGTERM, save)
    time.sleep(60)


@pf.python_app(num_nodes=2, ranks_per_node=2, return_ranks="all")
def ranks() -> Any:
    return os.environ["SLURMD_NODENAME"], os.environ["PILOTFLOW_RANK"]


@pf.python_app
def use(mib: int) -> int:
    return len(bytearray(b"x") * (mib * MIB))


def steps_of(provider: dict[str, Any] | None = None, **executor: Any) -> pf.Config:
    given = {"partition": "gpu", "nodes_per_block": 2, "cores_per_node": 4, "mem_per_node": 2, "gpus_per_node": 2}
    return config(
        {**given, **(provider or {})},
        {"mode": "slurm", "runtime_grace": 2, **executor},
        crash_limit=2,
        scratch_dir=SCRATCH,
    )


def run_steps(folder: str) -> None:
    with pf.load(steps_of()):
        found = [future.result(60) for future in [step(0.4) for _ in range(10)]]
        assert {node for node, *_ in found} == {"node3", "node4"}
        assert len({number for _, number, *_ in found}) == 10, "each is a step of its own"
        for node in ("node3", "node4"):
            ends = [(began, 1) for at, _, began, _ in found if at == node]
            ends += [(ended, -1) for at, _, _, ended in found if at == node]
            most = now = 0
            for _, change in sorted(ends):
                now += change
                most = max(most, now)
            assert most <= 4, "a node has four CPUs"
        names = ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        assert granted.options(num_cpus=3)(*names).result(60) == ["3", "3", ""]
        assert granted.options(num_cpus=0.5, num_gpus=2)(*names).result(60) == ["1", "1", "0,1"]
        pairs = [granted.options(num_gpus=1)(*names, seconds=0.5) for _ in range(4)]
        assert sorted(str(future.result(60)[2]) for future in pairs) == ["0", "0", "1", "1"]
        data = os.urandom(3 * MIB)
        assert size(data).result(60) == data[::-1]
        print("steps and what they have: ok")
        check_ends(folder)


def check_ranks(found: list[tuple[str, str]], nodes: set[str]) -> None:
    """Two ranks on each node, in order; which node is the first is not said."""
    assert [rank for _, rank in found] == ["0", "1", "2", "3"], found
    assert found[0][0] == found[1][0] != found[2][0] == found[3][0], found
    assert {node for node, _ in found} == nodes, found


def check_ends(folder: str) -> None:
    """Errors of the task's own, deaths and runtimes at once, and then a task of several ranks."""
    dies, slow = die(), pause.options(runtime=1)(60)
    warned = saves.options(runtime=4)(f"{folder}/saved")  # a busy machine takes a second to start it
    with pytest.raises(BashExitError, match=r"exit code 3\. Its stderr .* ends with:\nit is broken"):
        fail().result(60)
    with pytest.raises(pf.ConfigError, match=r"The command of 'nested' begins with srun, and its executor places each"):
        nested().result(60)
    with pytest.raises(
        WorkerLost, match=r"attempt 2: worker on node\d \(block slurm-0\) was killed by signal 9"
    ) as caught:
        dies.result(60)
    assert "The stderr of its step ends with:\nlibfoo: no licence\n" in str(caught.value)
    for ended in (slow, warned):
        with pytest.raises(TaskTimeout, match=r"its runtime is [14]s"):
            ended.result(60)
    assert Path(folder, "saved").read_text() == "saved", "it was warned before it was ended"
    check_ranks(ranks().result(60), {"node3", "node4"})
    running = pause(60)
    wait_for(running.running, "a step runs", 60)
    assert running.cancel(), "a running step can be cancelled"
    print("how they end: ok")
    places = [future.result(60) for future in [in_scratch(0.3) for _ in range(8)]]
    assert len({place for _, place in places}) == 8, "each has a directory of its own"
    assert {node for node, _ in places} == {"node3", "node4"}
    assert all(place.startswith(f"{SCRATCH}/in_scratch-") for _, place in places)
    assert not any(future.result(60) for future in [left_in(SCRATCH) for _ in range(8)]), "they are removed"
    print("scratch directories: ok")


def test_every_task_is_a_step_with_what_it_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    said = cluster.function("tests.slurm.test_slurm_mode:run_steps", str(tmp_path), cwd=tmp_path, timeout_s=120)
    assert said == "steps and what they have: ok\nhow they end: ok\nscratch directories: ok\n"
    assert not cluster.jobs("--states=pending,running")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_workers_of_steps_have_the_environment_that_was_brought_to_their_nodes(
    cluster: Cluster, small_environment: Path, tmp_path: Path
) -> None:
    """Nodes keep it in a directory that no other host sees."""
    python = str(small_environment / "bin/python")
    code = f"from tests.slurm.environment_runs import run_steps; run_steps({str(cluster.state / 'local')!r})"
    assert cluster.run("env", f"--chdir={tmp_path}", python, "-c", code, timeout_s=300).stdout == "staged\n"


def outlast(tasks: int) -> None:
    """Tasks as steps of a block of two nodes, one of which goes; they wait for the file `crashed`."""
    provider = {"nodes_per_block": 2, "cores_per_node": 4, "mem_per_node": 1, "max_blocks": 2}
    with pf.load(config(provider, {"mode": "slurm"}, heartbeat_limit=3, crash_limit=3)):
        futures = [noted(number, 0.2, "crashed") for number in range(tasks)]
        wait_for(lambda: len(starts(Path())) >= 8, "eight tasks have begun", 60)
        print("running", flush=True)
        assert [future.result(150) for future in futures] == list(range(tasks))
    print("done", flush=True)


@pytest.mark.soak
@pytest.mark.parametrize("which", ["head", "other"])
def test_a_node_that_crashes_under_its_steps_costs_them_nothing_but_time(
    cluster: Cluster, tmp_path: Path, which: str
) -> None:
    with Program(cluster, "tests.slurm.test_slurm_mode:outlast", 24, cwd=tmp_path) as program:
        program.until("running")
        head = cluster.run("squeue", "-h", "-o", "%B").stdout.split()[0]
        others = {node for begun in starts(tmp_path).values() for _, node in begun} - {head}
        crashed = head if which == "head" else min(others)
        cluster.crash(crashed)
        (tmp_path / "crashed").touch()
        program.until("done")
        program.finish()
    again = [node for begun in starts(tmp_path).values() if len(begun) > 1 for _, node in begun[:1]]
    assert again, "no task had to run again"


def run_inside() -> None:
    """A program inside an allocation: its executor takes the allocation's nodes, if it may."""
    local = pf.ExecutorConfig(label="here", mode="auto")
    with pf.load(pf.Config(executors=[local])):
        found = [future.result(60) for future in [step(0.5) for _ in range(8)]]
        check_ranks(ranks().result(60), {"node1", "node2"})
    print(sorted({node for node, *_ in found}), len({number for _, number, *_ in found}))


@pytest.mark.soak
def test_a_program_inside_an_allocation_places_its_tasks_on_all_its_nodes(cluster: Cluster, tmp_path: Path) -> None:
    code = "from tests.slurm.test_slurm_mode import run_inside; run_inside()"
    options = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--mem-per-cpu=100", f"--chdir={tmp_path}")
    script = tmp_path / "job.sh"
    script.write_text(f'#!/bin/bash\nexec {sys.executable} -c "{code}"\n')
    cluster.run("sbatch", "--wait", *options, f"--output={tmp_path}/out", str(script), timeout_s=100)
    assert Path(tmp_path, "out").read_text() == "['node1', 'node2'] 8\n"


@pytest.fixture(scope="module")
def limiting() -> Iterator[Cluster]:
    """A cluster where Slurm enforces memory."""
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("this machine has no cgroups of version 1, with which the test cluster enforces memory")
    yield from a_cluster(Settings(state=a_state("m"), nodes=1, gpu_nodes=0, cgroups=True))


def run_out_of_memory() -> None:
    with pf.load(steps_of({"partition": "debug", "nodes_per_block": 1, "gpus_per_node": None})):
        others = [pause.options(memory="100m")(3) for _ in range(2)]
        assert use.options(memory="100m")(20).result(60) == 20 * MIB
        with pytest.raises(MemoryLimitExceeded) as caught:
            use.options(memory="100m")(400).result(60)
        assert [future.result(60) for future in others] == ["node1", "node1"], "only that task fails"
    assert caught.value.requested == 100 * MIB
    print(caught.value)


def test_a_task_that_exceeds_its_memory_is_ended_by_slurm_and_only_that_task(limiting: Cluster, tmp_path: Path) -> None:
    said = limiting.function("tests.slurm.test_slurm_mode:run_out_of_memory", cwd=tmp_path, timeout_s=100)
    assert "'use' was ended by the system, because the memory of worker" in said
    assert re.search(r"used (9\d|10\d)(\.\d)? MiB", said)
    assert "it asked for 100 MiB" in said


def run_with_deadly_setup() -> None:
    with pf.PilotExecutor(
        config=dataclasses.replace(steps_of(), crash_limit=1), initializer=leave_without_licence
    ) as ex:
        futures = [ex.submit(os.getpid) for _ in range(3)]
        errors = [future.exception(90) for future in futures]
    assert all(isinstance(error, InitializerFailed) for error in errors), errors
    print(errors[0])


def leave_without_licence() -> None:
    os.write(2, b"libfoo: no licence\n")
    os._exit(7)


def test_an_initializer_that_ends_its_steps_breaks_the_pool_and_no_call_is_charged(
    cluster: Cluster, tmp_path: Path
) -> None:
    said = cluster.function("tests.slurm.test_slurm_mode:run_with_deadly_setup", cwd=tmp_path, timeout_s=150)
    assert "10 workers in a row" in said
    assert "the last exited with code 7" in said
    assert "libfoo: no licence" in said
