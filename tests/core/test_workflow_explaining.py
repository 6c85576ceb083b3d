"""What an interchange says of a job, in the words of workflows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.core.explain import MORE_NODES
from pilotflow.explanation import Explanation, Kind, Reason, State
from pilotflow.messages.views import ClientView, ExecutorView
from pilotflow.workflow.explaining import in_words_of_workflows
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.spec import read_workflow
from tests.core.explain_site import Site

TEXT = """\
name: w
execution_config: {mode: direct}
jobs: [{name: a, command: "true"}]
slurm_schedulers: [{name: asked, nodes: 2}, {name: other}]
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: asked, scheduler_type: slurm, max_parallel_jobs: 2}
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    (tmp_path / "w.yaml").write_text(TEXT)
    return read_workflow(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("label", "more"),
    [
        ("asked.2", "raise `num_allocations` of the action in {}:6:5, or see `pilotflow slurm schedule-nodes --help`."),
        ("other", "write actions (`schedule_nodes`) that ask for allocations of the scheduler in {}:4:45."),
        ("partition", "raise max_blocks of executor 'partition' (now 1)."),
        ("local", ""),
    ],
)
def test_who_wants_more_nodes_is_told_the_key_of_the_file_for_them(workflow: Workflow, label: str, more: str) -> None:
    site = Site()
    site.cls(1, executors=[label])
    site.manager(executor=label, slots=2, depth_limited=True)
    *_, task = site.submit(6)
    view = ClientView(1, "a", executors=(ExecutorView(label, 1, 1),))
    said = in_words_of_workflows(site.why(task, view), workflow)
    advice = f"{MORE_NODES}{more}" if more else ""
    assert said.advice == "It starts when enough of what runs there has ended." + advice.format(workflow.path)
    text = "Its node runs at most 2 jobs at once (max_parallel_jobs), and is full."
    assert [reason.text for reason in said.reasons] == [text, "3 jobs are ahead of it in the queue."]


def test_what_others_have_said_is_left_as_it_is(workflow: Workflow) -> None:
    reasons = (
        Reason(Kind.CRASHES, "1 attempt was lost: the task of node 1 died."),
        Reason(
            Kind.TAKEN,
            "Task 3 has node 'task' of run/tasks for itself, other tasks wait; multitasking.",
            advice="Bind the task.",
        ),
    )
    said = in_words_of_workflows(Explanation(1, "a", State.QUEUED, reasons), workflow)
    assert said.reasons[0] == reasons[0]
    assert said.reasons[1].text == "Job 3 has node 'task' of run/tasks for itself, other jobs wait; multitasking."
    assert said.reasons[1].advice == "Bind the job."
