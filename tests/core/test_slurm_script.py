"""The batch scripts of blocks, against the ones on record; and what the provider's keys allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilotflow.config.model import ExecutorConfig
from pilotflow.errors import ConfigError
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.base import BlockJob
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.providers.slurm_script import directives, job_name, quoted, time_text
from pilotflow.supplies import shape_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden/slurm"


def job(**changes: Any) -> BlockJob:
    given: dict[str, Any] = {
        "name": "cpu-0",
        "command": "echo managers",
        "script": Path("/home/u/runs/0001/scripts/cpu-0.sh"),
        "stdout": Path("/home/u/runs/0001/blocks/cpu-0/stdout"),
        "stderr": Path("/home/u/runs/0001/blocks/cpu-0/stderr"),
        "nodes": 1,
        "walltime_s": None,
        "run": "0001-abcd in /home/u/runs/0001",
    }
    return BlockJob(**{**given, **changes})


SCRIPTS = {
    "plain": (SlurmProvider(), job()),
    "full": (
        SlurmProvider(
            partition="cpu",
            account="proj",
            qos="high",
            constraint="[rack1|rack2]",
            reservation="tuesday",
            nodes_per_block=2,
            cores_per_node=8,
            mem_per_node=1.5,
            gpus_per_node="a100:2",
            gres="tmp:10G",
            exclusive=True,
            requeue=True,
            export_environment=True,
            worker_init="module load gcc",
            scheduler_options="#SBATCH --mail-type=END\n#SBATCH --time=2:00:00",
        ),
        job(nodes=2, walltime_s=5400.5, environment={"A": "b c"}, exclude_nodes=("n1", "n7")),
    ),
    "odd_paths": (SlurmProvider(mem_per_node=0), job(stdout=Path('/a b/50%/"x"/o\'ut'), run="")),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_the_one_on_record(name: str) -> None:
    provider, block = SCRIPTS[name]
    path = GOLDEN / f"{name}.sh"
    assert provider.script(block) == path.read_text(), f"if the new text is right, write it to {path}"


@pytest.mark.parametrize(
    ("keys", "exclusive"),
    [
        ({}, True),
        ({"cores_per_node": 4}, False),
        ({"mem_per_node": 4}, False),
        ({"gpus_per_node": 1}, True),
        ({"exclusive": False}, False),
        ({"cores_per_node": 4, "exclusive": True}, True),
    ],
)
def test_nodes_are_shared_with_nobody_unless_a_part_of_them_is_asked_for(keys: dict[str, Any], exclusive: bool) -> None:
    assert ("--exclusive" in directives(SlurmProvider(**keys), job())) is exclusive


@pytest.mark.parametrize(("gb", "text"), [(4, "--mem=4096M"), (0.5, "--mem=512M"), (0, "--mem=0M")])
def test_memory_is_in_gb(gb: float, text: str) -> None:
    assert text in directives(SlurmProvider(mem_per_node=gb), job())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "00:00:01"), (90, "00:01:30"), (3600, "01:00:00"), (360000.5, "100:00:01")]
)
def test_seconds_of_the_walltime_are_passed_on(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [("a-b_1,[x]", "a-b_1,[x]"), ("a b", '"a b"'), ('a"b\\', '"a\\"b\\\\"'), ("", '""')]
)
def test_values_of_directives(value: str, text: str) -> None:
    assert quoted(value) == text


def test_the_jobs_name_says_which_run_it_belongs_to() -> None:
    assert job_name(job()) == "pilotflow:0001-abcd:cpu-0"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"partition": ""}, "partition"),
        ({"account": "a\nb"}, "account"),
        ({"cores_per_node": 0}, "cores_per_node"),
        ({"mem_per_node": -1}, "mem_per_node"),
        ({"mem_per_node": float("nan")}, "mem_per_node"),
        ({"gpus_per_node": -1}, "gpus_per_node"),
        ({"submit_rate": 0.0}, "submit_rate"),
        ({"cmd_timeout": "x"}, "cmd_timeout"),
        ({"cmd_timeout": 0}, "cmd_timeout"),
        ({"scheduler_options": "module load gcc"}, "worker_init"),
        ({"scheduler_options": "--exclusive"}, "#SBATCH"),
        ({"status_batch_size": 0}, "status_batch_size"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SlurmProvider(**keys)


def test_managers_are_started_by_srun_unless_the_executor_says_otherwise() -> None:
    assert ExecutorConfig(provider=SlurmProvider()).launcher == SrunLauncher()
    own = SingleNodeLauncher()
    assert ExecutorConfig(provider=SlurmProvider(), launcher=own).launcher is own
    assert ExecutorConfig().launcher == SingleNodeLauncher()


def test_a_launcher_that_reaches_one_node_only_is_refused_for_blocks_of_several() -> None:
    with pytest.raises(ConfigError, match="single_node starts managers on the first"):
        ExecutorConfig(provider=SlurmProvider(nodes_per_block=2), launcher=SingleNodeLauncher())


def test_what_is_asked_for_is_known_before_the_first_node_comes() -> None:
    shape = shape_of(ExecutorConfig(provider=SlurmProvider(cores_per_node=4, mem_per_node=2, gpus_per_node="a100:2")))
    assert (shape.node.cpus_milli, shape.node.memory_bytes, shape.node.gpus) == (4000, 2 << 30, 2)
    whole = shape_of(ExecutorConfig(provider=SlurmProvider(cores_per_node=4, exclusive=True, mem_per_node=0)))
    assert (whole.node.cpus_milli, whole.node.memory_bytes) == (None, None)
    more = SlurmProvider(cores_per_node=4, scheduler_options="#SBATCH --gres=gpu:2")
    assert shape_of(ExecutorConfig(provider=more)).node.gpus is None, "what others ask for is not known"
    own = shape_of(ExecutorConfig(num_cpus=3, provider=SlurmProvider(cores_per_node=4)))
    assert own.node.cpus_milli == 3000
