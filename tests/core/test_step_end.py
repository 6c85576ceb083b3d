"""How a step of Slurm ended, from what srun printed; the texts were seen on Slurm 22.05."""

from __future__ import annotations

import pytest

from pilotflow.core.step_end import StepFate, StepVerdict, judge_step

OOM = """\
srun: error: node2: task 0: Out Of Memory
slurmstepd-node2: error: Detected 1 oom-kill event(s) in StepId=1.2. Some of your processes may have been killed by \
the cgroup out-of-memory handler.
"""
TIME_LIMIT = """\
slurmstepd-node2: error: *** STEP 1.5 ON node2 CANCELLED AT 2026-11-28T02:21:33 DUE TO TIME LIMIT ***
srun: error: node2: task 0: Killed
srun: Force Terminated StepId=1.5
"""
NODE_FAILED = """\
srun: error: Node failure on node2
slurmstepd-node2: error: *** STEP 8.3 ON node2 CANCELLED AT 2026-11-28T02:21:33 DUE TO NODE FAILURE, SEE SLURMCTLD LOG \
FOR DETAILS ***
"""
REFUSED = "srun: error: Unable to create step for job 1: {}\n"


@pytest.mark.parametrize(
    ("code", "printed", "fate", "words"),
    [
        (0, "srun: error: the program itself printed this\n", StepFate.ITSELF, "ended"),
        (3, "a\nb\n", StepFate.ITSELF, "ended with exit code 3"),
        (137, "srun: error: node2: task 0: Killed\n", StepFate.ITSELF, "was ended by signal 9"),
        (-9, "", StepFate.ITSELF, "its srun was ended by signal 9"),
        (1, OOM, StepFate.OUT_OF_MEMORY, "was killed by Slurm for lack of memory"),
        (1, OOM.splitlines()[1].replace("oom-kill", "oom_kill"), StepFate.OUT_OF_MEMORY, "was killed by Slurm for lack of memory"),
        (137, TIME_LIMIT, StepFate.TIME_LIMIT, "was ended by Slurm at its time limit"),
        (1, NODE_FAILED.splitlines()[0], StepFate.NODE_LOST, "lost its node (Node failure on node2)"),
        (137, TIME_LIMIT.replace("TIME LIMIT", "PREEMPTION"), StepFate.ENDED, "was ended by Slurm due to preemption"),
        (137, TIME_LIMIT.replace(" DUE TO TIME LIMIT", ""), StepFate.ENDED, "was ended by Slurm"),
        (1, REFUSED.format("More processors requested than permitted"), StepFate.REFUSED, "More processors requested than permitted"),
        (1, REFUSED.format("Memory required by task is not available"), StepFate.REFUSED, "Memory required by task is not available"),
        (1, REFUSED.format("Unable to contact slurm controller"), StepFate.NOT_STARTED, "Unable to contact slurm controller"),
    ],
)  # fmt: skip
def test_who_ended_a_step_is_read_from_srun(code: int, printed: str, fate: StepFate, words: str) -> None:
    assert judge_step(code, printed) == StepVerdict(fate, words)


def test_a_failed_node_is_found_in_the_words_of_the_step_too() -> None:
    assert judge_step(137, NODE_FAILED.splitlines()[1]).fate is StepFate.NODE_LOST


@pytest.mark.parametrize(
    "printed",
    [
        "Out Of Memory\n",
        "my program: error: 1 oom-kill event happened\n",
        "*** CANCELLED DUE TO TIME LIMIT ***\n",
        "Unable to create step for job 1: More processors requested than permitted\n",
    ],
)
def test_a_program_that_prints_such_words_fails_by_itself(printed: str) -> None:
    assert judge_step(1, printed) == StepVerdict(StepFate.ITSELF, "ended with exit code 1")
