"""Plans against what then happens on a real cluster: the makespan is within 15 % of what was said.

The plan takes the times that jobs took in the very run that it is held against: what a busy machine adds to a job is in
both. What it adds between them is in one alone; so a run that went otherwise than planned is tried again, at most twice,
and the planner is right if it is right about one of them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.slurm.harness.cluster import Cluster
from tests.slurm.test_workflows import pilotflow

CLOSE = 0.15
TRIES = 3


class Case(NamedTuple):
    """A workflow, and how its nodes are asked for.

    Attributes:
        jobs: entries of `jobs`.
        allocations: (nodes, how many) at the start; none if what `slurm generate` recommends is taken.
    """

    name: str
    jobs: list[dict[str, object]]
    allocations: tuple[tuple[int, int], ...] = ()


def entry(name: str, seconds: float, cores: int, count: int = 1, **more: object) -> dict[str, object]:
    many = {"parameters": {"i": f"1:{count}"}} if count > 1 else {}
    return {"name": name, "command": f"sleep {seconds}", "resource_requirements": f"cores_{cores}", **many, **more}


CASES = [
    Case("generated", [entry("a_{i}", 11, 1, 16), entry("b", 9, 4, depends_on_regexes=["^a_"])]),
    Case("one_large", [entry("a_{i}", 9, 1, 24)], ((2, 1),)),
    Case("many_small", [entry("a_{i}", 8, 2, 14)], ((1, 3),)),
    Case(
        "mixed",
        [entry("long_{i}", 14, 1, 6), entry("wide_{i}", 7, 4, 4), entry("pair_{i}", 5, 2, 6), entry("last", 6, 1, depends_on_regexes=["^long_"])],
        ((1, 2),),
    ),
    Case(
        "pipeline",
        [
            entry("x_{i}", 7, 1, 10),
            entry("y_{i}", 6, 2, 10, depends_on=["x_{i}"]),
            entry("z", 8, 4, depends_on_regexes=["^y_"]),
        ],
        ((3, 1),),
    ),
]  # fmt: skip


def whole(case: Case) -> dict[str, object]:
    needs = [{"name": f"cores_{n}", "num_cpus": n, "memory": "100m", "runtime": "PT1M"} for n in (1, 2, 4)]
    value: dict[str, object] = {"name": case.name, "resource_requirements": needs, "jobs": case.jobs}
    if case.allocations:
        kinds = list(enumerate(case.allocations))
        value["slurm_schedulers"] = [
            {"name": f"s{n}", "partition": "debug", "nodes": nodes, "walltime": "00:10:00"} for n, (nodes, _) in kinds
        ]
        start = {"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler_type": "slurm"}
        value["actions"] = [{**start, "scheduler": f"s{n}", "num_allocations": count} for n, (_, count) in kinds]
    return value


class Trial:
    """A case on a cluster, in a folder of its own."""

    def __init__(self, cluster: Cluster, folder: Path, case: Case) -> None:
        self._cluster, self._folder, self._case = cluster, folder, case
        at_once = [{k: v for k, v in job.items() if not k.startswith("depends_on")} for job in case.jobs]
        measured = {k: v for k, v in whole(case).items() if k != "actions"} | {"jobs": at_once}
        (folder / "plain.yaml").write_text(yaml.safe_dump(measured))
        (folder / "w.yaml").write_text(yaml.safe_dump(whole(case), sort_keys=False))
        (folder / "sites").mkdir()
        self("site", "generate", "--name", "here", "-o", "sites/here.yaml")

    def argv(self, *words: str) -> tuple[str, ...]:
        """A command of pilotflow, for `Cluster.run`."""
        told = (f"--chdir={self._folder}", f"PILOTFLOW_SITE_PATH={self._folder}/sites")
        return ("env", *told, sys.executable, "-m", "pilotflow", *words)

    def __call__(self, *words: str) -> str:
        return pilotflow(self._cluster, self._folder, *words, PILOTFLOW_SITE_PATH=f"{self._folder}/sites")

    def prepare(self) -> None:
        """Measure how long jobs take, and write what asks for their nodes."""
        cores = ("--num-cpus", "64", "--memory-gb", "64")
        said = json.loads(self("run", "plain.yaml", "--here", *cores, "--run-dir", "measured", "--json"))
        assert said["state"] == "succeeded", said
        if not self._case.allocations:
            common = ("--site", "here", "--partition", "debug", "--from", "last", "--run-dir", "measured")
            self("slurm", "generate", "w.yaml", *common, "--queue-wait", "probe", "-o", "generated.yaml")
            (self._folder / "generated.yaml").rename(self._folder / "w.yaml")

    def planned_s(self) -> float:
        """What the plan says of the way that the file asks for nodes, with the times of the last run."""
        common = ("--site", "here", "--partition", "debug", "--from", "last")
        data = json.loads(self("plan", "w.yaml", *common, "--queue-wait", "probe", "--json"))
        (written,) = [choice for choice in data["choices"] if choice["way"] == "as written"]
        assert "as `sbatch --test-only` expects" in data["assumptions"][1]
        assert written["unfinished"] == 0
        return float(written["makespan_s"])

    def measured_s(self) -> float:
        """How long a run takes, from its begin to the end of its last job."""
        said = json.loads(self("run", "w.yaml", "--json"))
        assert said["state"] == "succeeded", said
        jobs = json.loads(self("resources", "last", "--json"))["jobs"]
        assert {job["node"][:4] for job in jobs} == {"node"}, "all of it ran on the cluster's nodes"
        return max(float(job["start_s"] + job["seconds"]) for job in jobs)


def check(cluster: Cluster, folder: Path, case: Case) -> None:
    trial = Trial(cluster, folder, case)
    trial.prepare()
    found = []
    for _ in range(TRIES):
        measured = trial.measured_s()
        planned = trial.planned_s()
        found.append(f"planned {planned:.1f} s, took {measured:.1f} s ({measured / planned - 1:+.0%})")
        print(case.name, found[-1])
        if abs(measured / planned - 1) <= CLOSE:
            return
    pytest.fail(f"{case.name}: {'; '.join(found)}")


def test_a_workflow_without_schedulers_gets_what_is_planned_and_it_is_shown_before(
    cluster: Cluster, tmp_path: Path
) -> None:
    case = Case("nothing_said", [entry("a_{i}", 1, 2, 6)])
    trial = Trial(cluster, tmp_path, case)
    words = ("run", "w.yaml", "--site", "here", "--json")
    done = cluster.run(*trial.argv(*words), timeout_s=110)
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "planned: 1 x 3 nodes of partition 'debug' for " in done.stderr, "six jobs of half a node"
    with closing(sqlite3.connect(tmp_path / "runs/0001/run.db")) as database:
        executors = {row[0] for row in database.execute("SELECT executor FROM managers")}
    assert executors == {"debug"}
    assert not cluster.jobs()


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plans_of_all_ways_come_true_on_the_cluster(case: Case, cluster: Cluster, tmp_path: Path) -> None:
    check(cluster, tmp_path, case)
