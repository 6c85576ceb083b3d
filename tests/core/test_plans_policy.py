"""What is planned never exceeds a policy, and is taken by the same site without a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.config.compose import compose, use_of
from pilotflow.config.policy import LocatedPolicy, check_uses
from pilotflow.config.settings import layer_of_call, resolve
from pilotflow.config.site import Partition, Policy, Site
from pilotflow.errors import PolicyExceeded
from pilotflow.workflow.planned import planned_settings
from pilotflow.workflow.plans import plan, written_durations
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.schemes import places_of
from tests.core.workflow_texts import read

WORKFLOW = """\
name: w
resource_requirements:
  - {{name: small, num_cpus: {cpus}, runtime: PT{small}M}}
  - {{name: wide, num_cpus: 1, num_nodes: {nodes}, num_gpus: {gpus}, runtime: PT{wide}M}}
jobs:
  - {{name: "a_{{i}}", command: x, resource_requirements: small, parameters: {{i: "1:{count}"}}}}
  - {{name: b, command: x, resource_requirements: wide, depends_on_regexes: ["^a_"]}}
  - {{name: "c_{{i}}", command: x, resource_requirements: small, depends_on: [b], parameters: {{i: "1:{count}"}}}}
"""
limits = st.none() | st.integers(1, 6)
policies = st.lists(
    st.builds(
        Policy,
        max_blocks=limits,
        max_nodes=limits,
        max_queued_jobs=limits,
        max_walltime=st.none() | st.integers(600, 20_000),
        partitions=st.none() | st.just(["p*"]) | st.just(["g"]) | st.just(["p", "g"]),
    ),
    min_size=1,
    max_size=2,
)
shapes = st.fixed_dictionaries(
    {
        "cpus": st.integers(1, 8),
        "small": st.integers(1, 90),
        "nodes": st.integers(1, 4),
        "gpus": st.integers(0, 2),
        "wide": st.integers(1, 90),
        "count": st.integers(1, 40),
    }
)


def site(fewest: int) -> Site:
    most = Partition(
        name="p", nodes=20, cpus_per_node=8, min_nodes=fewest, max_nodes=8, default=True, max_walltime="4h"
    )
    return Site(name="s", partitions=(most, Partition(name="g", nodes=4, cpus_per_node=4, gpus_per_node=2)))


@settings(max_examples=150, deadline=None)
@given(policies, shapes, st.integers(1, 3))
def test_no_plan_exceeds_a_policy(
    tmp_path_factory: pytest.TempPathFactory, found: list[Policy], shape: dict[str, int], fewest: int
) -> None:
    workflow = read(tmp_path_factory.mktemp("plan"), WORKFLOW.format(**shape))
    located = [LocatedPolicy(policy, "s") for policy in found]
    here = site(fewest)
    try:
        places = places_of(here, located)
    except PolicyExceeded:  # no partition is left
        return
    for choice in plan(workflow, written_durations(workflow), places, lambda _: 0.0, 120.0).choices:
        asks = choice.scheme.asks
        within(found, [(ask.place.name, ask.nodes, ask.count, ask.walltime_s) for ask in asks])
    taken(workflow, here, located)


def within(found: list[Policy], asks: list[tuple[str, int, int, float]]) -> None:
    for policy in found:
        blocks, nodes = sum(count for _, _, count, _ in asks), sum(size * count for _, size, count, _ in asks)
        assert policy.max_blocks is None or blocks <= policy.max_blocks
        assert policy.max_queued_jobs is None or blocks <= policy.max_queued_jobs
        assert policy.max_nodes is None or nodes <= policy.max_nodes
        assert policy.max_walltime is None or all(walltime <= float(policy.max_walltime) for *_, walltime in asks)
        assert policy.partitions is None or all(name[0] in {text[0] for text in policy.partitions} for name, *_ in asks)


def taken(workflow: Workflow, here: Site, located: list[LocatedPolicy]) -> None:
    planned = planned_settings(workflow, here, located, ())
    if planned is None:
        return
    said: dict[str, Any] = planned.settings
    config = compose(here, resolve([layer_of_call(said)]), located, {})
    check_uses(located, [use_of(executor, {}) for executor in config.block_executors], {})
    (executor,) = config.block_executors
    provider = executor.provider
    assert (provider.nodes_per_block, provider.max_blocks) == (said["nodes_per_block"], said["max_blocks"])


def test_steps_that_would_need_more_together_than_is_allowed_are_no_way(tmp_path: Path) -> None:
    shape = {"cpus": 8, "small": 60, "nodes": 4, "gpus": 0, "wide": 60, "count": 8}
    workflow = read(tmp_path, WORKFLOW.format(**shape))

    def ways(max_blocks: int | None = None, max_nodes: int | None = None) -> set[str]:
        places = places_of(site(1), [LocatedPolicy(Policy(max_blocks=max_blocks, max_nodes=max_nodes), "s")])
        choices = plan(workflow, written_durations(workflow), places, lambda _: 0.0, 120.0).choices
        return {choice.scheme.name for choice in choices}

    assert ways() >= {"one large", "per step"}
    assert ways(max_blocks=2) == {"one large", "many small"}
    assert ways(max_nodes=5) == {"one large"}
