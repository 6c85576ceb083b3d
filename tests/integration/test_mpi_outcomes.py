"""How a step ended, from the files that ranks left and what launchers printed (texts seen on real clusters)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.errors import RankError
from pilotflow.remote_errors import unpack_exception
from pilotflow.runtime import ranks_files
from pilotflow.runtime.ranks_result import Ran, StepEnd, outcome_of
from pilotflow.serialize import pack

OPENMPI = """\
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD
with errorcode 5.

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
--------------------------------------------------------------------------
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: error: node1: task 1: Killed
"""
MPICH = "Abort(5) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 5) - process 1\n"


@pytest.mark.parametrize("printed", [OPENMPI, MPICH])
@pytest.mark.parametrize("claimed", [False, True])
def test_a_rank_that_aborts_mpi_and_is_killed_before_it_can_say_so_is_the_users_error(
    tmp_path: Path, printed: str, claimed: bool
) -> None:
    if claimed:
        ranks_files.claim_first(tmp_path, 1)
    done = outcome_of(Ran("solve", tmp_path, 4, 5, printed, range(1)))
    assert done.end is StepEnd.ERROR
    error = unpack_exception(*done.packed)
    assert isinstance(error, RankError)
    assert (error.rank, error.exit_code, error.failed) == (1, 5, (1,))
    assert str(error).startswith("Rank 1 of 4 of 'solve' called MPI_Abort with code 5. The output ends with:\n")


def test_a_rank_that_could_say_more_is_believed_more_than_what_was_printed(tmp_path: Path) -> None:
    ranks_files.claim_first(tmp_path, 2)
    ranks_files.claim_first(tmp_path, 1)  # too late
    (tmp_path / "ended.2").write_text("139 node3\n")
    done = outcome_of(Ran("solve", tmp_path, 4, 139, OPENMPI, range(1)))
    assert done.end is StepEnd.LOST
    assert done.words.startswith("Rank 2 of 4 of 'solve' (on node3) was killed by signal 11 (SIGSEGV).")


def test_a_code_that_no_launcher_has_of_its_own_is_a_ranks(tmp_path: Path) -> None:
    """As after MPI_Abort, when mpirun kills the rank before its message has arrived."""
    done = outcome_of(Ran("solve", tmp_path, 4, 5, "ORTE_ERROR_LOG: Data unpack would read past end", range(1)))
    assert done.end is StepEnd.ERROR
    error = unpack_exception(*done.packed)
    assert isinstance(error, RankError)
    assert (error.rank, error.exit_code, error.failed) == (None, 5, ())
    assert str(error).startswith("A rank of 'solve' ended with exit code 5, and was killed before it could say more.")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "The step of 'solve' ended with exit code 1, and no rank said why."),
        (205, "The step of 'solve' ended with exit code 205, and no rank said why."),
        (127, "The step of 'solve' ended with exit code 127 (command not found), and no rank said why."),
        (-9, "The step of 'solve' ended by signal 9 (SIGKILL), and no rank said why."),
    ],
)
def test_a_launcher_that_fails_by_itself_is_a_loss(tmp_path: Path, code: int, words: str) -> None:
    done = outcome_of(Ran("solve", tmp_path, 4, code, "srun: error: node failure\n", range(1)))
    assert (done.end, done.exit_code) == (StepEnd.LOST, code)
    assert done.words == f"{words} The output ends with:\nsrun: error: node failure"


def test_a_result_that_is_not_whole_is_a_loss(tmp_path: Path) -> None:
    packed = pack("x" * 10_000)
    head = ranks_files.ResultFile(True, "node1", packed.payload, packed.layout, ())
    ranks_files.write(tmp_path / "result.0", head, ())
    whole = (tmp_path / "result.0").read_bytes()
    assert outcome_of(Ran("solve", tmp_path, 1, 0, "", range(1))).end is StepEnd.OK
    garbled = whole[:8] + b"\xc1" * (len(whole) - 8)
    for content in (b"", whole[:4], whole[:100], whole[:-1], garbled):
        (tmp_path / "result.0").write_bytes(content)
        done = outcome_of(Ran("solve", tmp_path, 1, 0, "", range(1)))
        assert done.end is StepEnd.LOST
        assert done.words.startswith("The result of rank 0 of 'solve' cannot be read:")
