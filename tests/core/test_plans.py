"""Ways to ask for a workflow's nodes: which are compared, what they come to, which is recommended, how it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pilotflow.config.policy import LocatedPolicy
from pilotflow.config.site import Partition, Policy, Site
from pilotflow.resources import Capacity
from pilotflow.workflow.plan_files import as_lines, dump, sections, whole_file
from pilotflow.workflow.planned import planned_settings
from pilotflow.workflow.plans import Choice, Plan, plan, rounded_walltime, written_durations
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.schemes import Ask, Place, places_of, schemes
from tests.core.workflow_texts import read

GIB = 1 << 30
NODE = Capacity(8000, 32 * GIB, (), slots=8)
EQUAL = """\
name: equal
resource_requirements: [{name: one, num_cpus: 1, runtime: PT1H}]
jobs: [{name: "job_{i}", command: x, resource_requirements: one, parameters: {i: "1:64"}}]
"""
STAGED = """\
name: staged
resource_requirements:
  - {name: small, num_cpus: 1, runtime: PT30M}
  - {name: wide, num_cpus: 8, num_nodes: 4, runtime: PT4H}
jobs:
  - {name: "prep_{i}", command: x, resource_requirements: small, parameters: {i: "1:32"}}
  - {name: train, command: x, resource_requirements: wide, depends_on_regexes: ["^prep_"]}
  - {name: "eval_{i}", command: x, resource_requirements: small, depends_on: [train], parameters: {i: "1:24"}}
"""


def planned(workflow: Workflow, *places: Place, wait_s: float = 0.0) -> Plan:
    return plan(workflow, written_durations(workflow), places or (Place("p", NODE),), lambda _: wait_s, 120.0)


def of(found: Plan, name: str) -> list[Choice]:
    return [choice for choice in found.choices if choice.scheme.name == name]


def test_equal_jobs_are_compared_on_all_sizes_that_are_of_use(tmp_path: Path) -> None:
    found = planned(read(tmp_path, EQUAL), wait_s=600.0)
    large, small = of(found, "one large"), of(found, "many small")
    assert sorted(choice.scheme.asks[0].nodes for choice in large) == [1, 2, 4, 8], "64 cores fill eight nodes"
    assert sorted(choice.scheme.asks[0].count for choice in small) == [2, 4, 8]
    for choice in found.choices:
        ask = choice.scheme.asks[0]
        rounds = 8 // (ask.nodes * ask.count)
        assert choice.forecast.makespan_s == pytest.approx(600 + 1 + rounds * 3600.3)
        assert choice.node_hours == pytest.approx(8 * 3600.3 / 3600 + 1 * ask.nodes * ask.count / 3600)
        assert 1.2 * rounds * 3600 < ask.walltime_s <= 1.2 * rounds * 3600 + 3600
    assert found.best is not None
    assert (found.best.scheme.name, found.best.scheme.asks[0].nodes) == ("one large", 8)


def test_a_staged_workflow_is_cheaper_with_allocations_of_each_step(tmp_path: Path) -> None:
    workflow = read(tmp_path, STAGED)
    found = planned(workflow)
    assert found.best is not None
    assert found.best.scheme.name == "per step"
    assert found.best.scheme.asks[1].nodes == 4
    assert all(one.cost > found.best.cost for one in of(found, "one large"))
    assert not of(found, "many small"), "no small allocation takes the job on four nodes"


def test_what_is_recommended_can_be_read_back_and_comes_to_the_same(tmp_path: Path) -> None:
    workflow = read(tmp_path, STAGED)
    found = planned(workflow)
    assert found.best is not None
    value = yaml.safe_load(STAGED)
    text = dump(whole_file(value, sections(workflow, found.best.scheme, "me")))
    again = read(tmp_path, text)
    assert {each.account for each in again.slurm_schedulers} == {"me"}
    written = of(planned(again), "as written")
    assert len(written) == 1
    assert written[0].forecast.makespan_s == found.best.forecast.makespan_s
    assert written[0].node_hours == found.best.node_hours
    assert as_lines(sections(workflow, found.best.scheme)).count("scheduler: step_2") == 2


def test_many_jobs_are_waited_for_by_a_pattern_that_fits_them_alone(tmp_path: Path) -> None:
    workflow = read(tmp_path, STAGED)
    actions = sections(workflow, of(planned(workflow), "per step")[0].scheme).actions
    assert [action.get("job_name_regexes") for action in actions] == [None, None, ["^eval_.+$"]]
    assert [action.get("jobs") for action in actions] == [None, ["train"], None]


def test_walltimes_keep_to_the_partition_and_enough_allocations_are_asked_for(tmp_path: Path) -> None:
    found = planned(read(tmp_path, EQUAL), Place("p", NODE, walltime_s=3 * 3600.0))
    done = [choice for choice in found.choices if choice.is_complete]
    assert done
    assert all(choice.scheme.asks[0].walltime_s <= 3 * 3600 for choice in found.choices)
    assert [one.scheme.asks[0].nodes for one in of(found, "one large") if not one.is_complete] == [2, 1]


def test_jobs_that_fit_nowhere_together_go_to_the_cheapest_partition_that_takes_them(tmp_path: Path) -> None:
    text = """\
name: w
resource_requirements: [{name: cpu, num_cpus: 8, runtime: PT1H}, {name: gpu, num_cpus: 1, num_gpus: 1, runtime: PT1H}]
jobs:
  - {name: "a_{i}", command: x, resource_requirements: cpu, parameters: {i: "1:4"}}
  - {name: g, command: x, resource_requirements: gpu}
"""
    gpus = Place("gpu", Capacity(4000, 0, ("0",), slots=4), charge=10.0)
    found = planned(read(tmp_path, text), Place("cpu", NODE), gpus)
    assert found.best is not None
    assert {ask.place.name: ask.stages for ask in found.best.scheme.asks} == {"cpu": (0,), "gpu": (1,)}
    assert found.best.cost == pytest.approx((4 + 10) * 3601.3 / 3600)
    alone = planned(read(tmp_path, text), Place("cpu", NODE))
    assert alone.best is None
    assert alone.choices[0].forecast.unfinished == [4]


def test_places_follow_from_partitions_and_policies() -> None:
    site = Site(
        name="s",
        partitions=(
            Partition(name="dear", cpus_per_node=8, memory_per_node="32g", max_walltime="2d", charge_factor=2.0),
            Partition(name="cheap", cpus_per_node=4, gpus_per_node=2, nodes=10, max_walltime="1h", max_nodes=4),
            Partition(name="asked", cpus_per_node=4, explicit=True),
            Partition(name="unknown"),
        ),
    )
    policy = LocatedPolicy(Policy(max_nodes=6, max_blocks=3, max_walltime="1d"), "s", {}, {})
    cheap, dear = places_of(site, [policy])
    assert (cheap.name, cheap.nodes, cheap.most, cheap.jobs, cheap.walltime_s) == ("cheap", 6, 4, 3, 3600)
    assert (dear.name, dear.nodes, dear.walltime_s, dear.charge) == ("dear", 6, 86400, 2.0)
    assert cheap.capacity.gpus == ("0", "1")
    assert [place.name for place in places_of(site, [], ["asked"])] == ["asked"]


def test_what_a_workflow_does_not_say_is_planned_only_if_it_can_be(tmp_path: Path) -> None:
    site = Site(name="s", partitions=(Partition(name="p", cpus_per_node=8, memory_per_node="32g", max_walltime="8h"),))
    found = planned_settings(read(tmp_path, EQUAL), site, [], ["site", "account"])
    assert found is not None
    assert found.settings == {
        "partition": "p", "nodes_per_block": 8, "walltime": 4500.0, "init_blocks": 1, "max_blocks": 1
    }  # fmt: skip
    assert found.words.startswith("planned: 1 x 8 nodes of partition 'p' for 1h 15m each; done in 1h 1s and the wait")
    assert planned_settings(read(tmp_path, EQUAL), site, [], ["walltime"]) is None, "somebody has said it"
    silent = EQUAL.replace(", runtime: PT1H", "")
    assert planned_settings(read(tmp_path, silent), site, [], []) is None, "nobody knows how long it takes"
    large = EQUAL.replace("num_cpus: 1", "num_cpus: 9")
    assert planned_settings(read(tmp_path, large), site, [], []) is None, "no node takes it"
    policy = LocatedPolicy(Policy(max_nodes=2), "s", {}, {})
    kept = planned_settings(read(tmp_path, EQUAL), site, [policy], [])
    assert kept is not None
    assert kept.settings["nodes_per_block"] * kept.settings["max_blocks"] <= 2


def test_allocations_with_a_depth_ignore_what_jobs_ask_for(tmp_path: Path) -> None:
    text = (
        EQUAL
        + """\
slurm_schedulers: [{name: s, nodes: 1, walltime: "40:00:00"}]
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm, max_parallel_jobs: 2}
"""
    )
    (written,) = of(planned(read(tmp_path, text)), "as written")
    assert written.forecast.makespan_s == pytest.approx(1 + 32 * 3600.3)


@pytest.mark.parametrize(
    ("says", "flag", "nodes"), [("", None, 1), (", start_one_worker_per_node: true", True, 2)], ids=["head", "each"]
)
def test_without_a_manager_on_each_node_one_node_is_reckoned_with(
    tmp_path: Path, says: str, flag: bool | None, nodes: int
) -> None:
    text = (
        EQUAL
        + f"""\
execution_config: {{mode: direct}}
slurm_schedulers: [{{name: s, nodes: 2, walltime: "40:00:00"}}]
actions:
  - {{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm{says}}}
"""
    )
    workflow = read(tmp_path, text)
    (written,) = of(planned(workflow), "as written")
    assert written.forecast.makespan_s == pytest.approx(8 // nodes * 3600, rel=0.01)
    (action,) = sections(workflow, written.scheme).actions
    assert action.get("start_one_worker_per_node") is flag, "its lines say the same"


def test_of_very_many_jobs_only_the_larger_ways_are_compared(tmp_path: Path) -> None:
    workflow = read(tmp_path, EQUAL.replace("1:64", "1:4096"))
    few = schemes(workflow, [Place("p", NODE, charge=1.0), Place("q", NODE, charge=2.0)], few=True)
    found = [(scheme.name, scheme.asks[0].nodes * scheme.asks[0].count) for scheme in few]
    assert found == [*[("one large", nodes) for nodes in (512, 256, 128)], *[("many small", n) for n in (64, 32, 16)]]


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(1, 60), (599, 600), (601, 900), (7300, 8100), (30_000, 32_400), (600, 600)]
)
def test_walltimes_are_round(seconds: float, rounded: float) -> None:
    assert rounded_walltime(seconds) == rounded


def test_an_ask_is_hashable_so_that_equal_ways_are_compared_once(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: a, command: x}, {name: b, command: x, depends_on: [a]}]\n"
    asks = [scheme.asks for scheme in schemes(read(tmp_path, text), [Place("p", NODE)])]
    assert len(set(asks)) == len(asks) == 2
    assert isinstance(asks[0][0], Ask)
