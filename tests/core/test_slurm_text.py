"""What Slurm's commands print, read and judged. `golden/slurm` has what Slurm 22.05 printed for real jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.core.block_records import BlockState, BlockStatus
from pilotflow.providers import slurm_words
from pilotflow.providers.slurm_text import Row, read_sacct, read_squeue, read_submitted, read_time

GOLDEN = Path(__file__).resolve().parents[1] / "golden/slurm"


def squeue() -> dict[str, Row]:
    return {row.job: row for row in read_squeue((GOLDEN / "squeue.txt").read_text())}


def sacct() -> dict[str, Row]:
    return {row.job: row for row in read_sacct((GOLDEN / "sacct.txt").read_text())}


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ("1", BlockStatus(BlockState.COMPLETED, "", 0)),
        ("2", BlockStatus(BlockState.FAILED, "NonZeroExitCode", 3)),
        ("3", BlockStatus(BlockState.FAILED, "JobLaunchFailure", -9)),  # so says Slurm of a script that kills itself
        ("4", BlockStatus(BlockState.RUNNING, "", None, 1164.0, 1795832892.0, ("node1", "node2"))),
        ("5", BlockStatus(BlockState.PENDING, "PartitionTimeLimit", None, 600.0)),
        ("7", BlockStatus(BlockState.PENDING, "PartitionDown", None, 600.0)),
        ("8", BlockStatus(BlockState.PENDING, "JobHeldUser; `scontrol release 8` lets it start", None, 600.0)),
        ("9", BlockStatus(BlockState.CANCELLED, "", -15)),
        ("10", BlockStatus(BlockState.CANCELLED, "JobHeldUser", 0)),
        ("11", BlockStatus(BlockState.RUNNING, "", None, None, 1795832892.0, ("node2",))),
        ("13", BlockStatus(BlockState.FAILED, "NODE_FAIL: NodeDown", 0)),
        ("14", BlockStatus(BlockState.TIMEOUT, "TimeLimit", -15)),
        ("18", BlockStatus(BlockState.PENDING, "BeginTime", None, 600.0, 1795833015.0)),
    ],
)
def test_a_job_of_squeue_becomes_a_blocks_status(job: str, status: BlockStatus) -> None:
    assert squeue()[job].status() == status


def test_a_held_job_is_expected_to_start_never() -> None:
    (row,) = read_squeue("12|PENDING|JobHeldAdmin|0|9:58|1795877138|0||")
    assert row.status().start_unix_s is None


def test_a_suspended_job_says_no_more_than_that() -> None:
    (row,) = read_squeue("12|SUSPENDED|None|0|9:58|1795877138|0|node1|")
    assert row.status() == BlockStatus(BlockState.SUSPENDED, "", None, 598.0, 1795877138.0, ("node1",))


def test_a_reason_may_be_a_sentence() -> None:
    assert squeue()["17"].reason.startswith("Nodes required for job are DOWN, DRAINED or reserved")
    assert not squeue()["17"].never


def test_a_job_that_was_put_back_is_counted() -> None:
    assert (squeue()["12"].restarts, squeue()["4"].restarts) == (1, 0)


def test_elements_of_an_array_have_ids_of_their_own() -> None:
    assert {"16", "18"} <= set(squeue())


@pytest.mark.parametrize("job", ["5", "6", "15"])
def test_reasons_that_time_does_not_cure_come_with_what_to_change(job: str) -> None:
    assert "provider." in squeue()[job].never


@pytest.mark.parametrize("job", ["4", "7", "8", "16", "17"])
def test_other_reasons_may_pass(job: str) -> None:
    assert not squeue()[job].never


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ("1", BlockStatus(BlockState.COMPLETED, "", 0)),
        ("2", BlockStatus(BlockState.FAILED, "", 3)),
        ("3", BlockStatus(BlockState.FAILED, "", -9)),
        ("4", BlockStatus(BlockState.RUNNING)),
        ("9", BlockStatus(BlockState.CANCELLED, "by 0", 0)),
        ("12", BlockStatus(BlockState.PENDING, "REQUEUED")),
        ("13", BlockStatus(BlockState.FAILED, "NODE_FAIL", 0)),
        ("14", BlockStatus(BlockState.TIMEOUT, "", 0)),
    ],
)
def test_a_job_of_sacct_becomes_a_blocks_status(job: str, status: BlockStatus) -> None:
    assert sacct()[job].status() == status


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("12\n", "12"),
        ("12;other\n", "12;other"),
        ("sbatch: notice: the site says hello\n12\n", "12"),
        ("", None),
        ("Submitted batch job\n", None),
    ],
)
def test_the_id_of_a_submitted_job(text: str, id: str | None) -> None:
    assert read_submitted(text) == id


def test_the_cluster_is_taken_from_the_line_before() -> None:
    text = "CLUSTER: one\n1|RUNNING|None|0|9:00|5|0|n1|\nCLUSTER: two\n1|PENDING|Priority|0|9:00|N/A|0||\n"
    assert [(row.cluster, row.state) for row in read_squeue(text)] == [("one", "RUNNING"), ("two", "PENDING")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0.0),
        ("9:58", 598.0),
        ("1:00:01", 3601.0),
        ("2-03:04:05", 183845.0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_time_that_is_left(text: str, seconds: float | None) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["", "slurm_load_jobs error: x", "1|", "a|b|c|d|e|f|g|h|", "|||||||||", "\0\n|1|"])
def test_rubbish_is_left_out(text: str) -> None:
    assert read_squeue(text) == []
    assert read_sacct(text) == []


def test_a_state_that_is_not_known_counts_as_running() -> None:
    row = Row("1", state="DANCING", reason="Music")
    assert row.status() == BlockStatus(BlockState.RUNNING, "DANCING: Music")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        (
            "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified",
            "partition",
        ),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "account"),
        ("Batch job submission failed: Invalid qos specification", "qos"),
        ("Batch job submission failed: Invalid feature specification", "constraint"),
        ("Batch job submission failed: Requested reservation is invalid", "reservation"),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", "walltime"),
        ("Batch job submission failed: Node count specification invalid", "nodes_per_block"),
        ("Batch job submission failed: Requested node configuration is not available", "cores_per_node"),
        ("Memory specification can not be satisfied", "mem_per_node"),
        ("Invalid generic resource (gres) specification", "gpus_per_node"),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "qos"),
        ("'pfs9' can't be reached now, or it is an invalid entry for --cluster", "clusters"),
        ("invalid option -- 'Z'", "scheduler_options"),
    ],
)
def test_a_refusal_comes_with_the_key_to_change(said: str, key: str) -> None:
    assert key in slurm_words.remedy(said)


@pytest.mark.parametrize(
    "said",
    [
        "QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
        "AssocMaxSubmitJobLimit; Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
        "QOSMaxSubmitJobPerUserLimit",
        "Slurm temporarily unable to accept job, sleeping and retrying",
    ],
)
def test_a_full_queue_is_no_mistake(said: str) -> None:
    assert slurm_words.FULL.search(said)


def test_a_controller_that_is_away_is_no_mistake() -> None:
    assert slurm_words.AWAY.search("Batch job submission failed: Unable to contact slurm controller (connect failure)")
    assert not slurm_words.AWAY.search("Batch job submission failed: Invalid partition name specified")


@pytest.mark.parametrize(
    ("said", "code"), [("0", 0), ("1792", 7), ("9", -9), ("0:0", 0), ("37:0", 37), ("0:9", -9), ("?", None), ("", None)]
)
def test_exit_codes_are_read_as_old_and_new_versions_of_squeue_print_them(said: str, code: int | None) -> None:
    (row,) = read_squeue(f"12|FAILED|NonZeroExitCode|{said}|9:58|1795877138|0|node1|")
    assert row.exit_code == code
