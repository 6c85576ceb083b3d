"""What is said of a job over several nodes when its ranks fail."""

from __future__ import annotations

from typing import Any

import pytest

from pilotflow.errors import RankError
from pilotflow.futures import AppFuture
from pilotflow.messages.records import Status
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime.job_task import JobFailed, Outcome
from pilotflow.workflow.outcomes import LOST_CODE, Ended, ended
from pilotflow.workflow.records import ExecutionConfig


def failed(error: RankError, cause: Outcome | None = None) -> Ended:
    if cause is not None:
        error.__cause__ = JobFailed(tuple(cause))
    future: AppFuture[Any] = AppFuture(1, "job", None)
    future.settle(Status.ERROR, pack_exception(error))
    return ended(future, ExecutionConfig())


def test_it_fails_as_its_first_rank_that_failed_does() -> None:
    error = RankError("rank 1 of 4 of 'job' raised JobFailed.", 1, "node2", (1, 3), None)
    end = failed(error, Outcome(7, 2, words="mesh.nc: no such file"))
    assert (end.exit_code, end.attempt, end.cause, end.terminated) == (7, 2, "exit", False)
    assert end.words == "rank 1 on node2, and 1 more:\nmesh.nc: no such file"
    assert end.again, "failure handlers and retries are for such jobs, too"


@pytest.mark.parametrize(("told", "code"), [(3, 3), (-9, 137), (0, LOST_CODE), (None, LOST_CODE)])
def test_a_rank_that_could_say_nothing_counts_by_its_exit_code(told: int | None, code: int) -> None:
    end = failed(RankError("rank 0 of 2 of 'job' called MPI_Abort with code 3.", 0, "node1", (0,), told))
    assert (end.exit_code, end.cause, end.again) == (code, "exit", True)
    assert end.words.startswith("rank 0 of 2")


def test_a_rank_whose_time_was_over_ends_its_job_like_that() -> None:
    end = failed(RankError("rank 0 of 2 raised JobFailed.", 0, "node1", (0,), None), Outcome(152, 1, terminated=True))
    assert (end.exit_code, end.cause, end.terminated) == (152, "runtime", True)
