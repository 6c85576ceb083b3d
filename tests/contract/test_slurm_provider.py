"""The provider around Slurm's commands, which are stand-ins here: what it asks, how often, and what it makes of silence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pilotflow.errors import InfrastructureError
from pilotflow.providers.base import BlockJob, BlockState, SubmitLater, SubmitRefused
from pilotflow.providers.slurm import DOOMED_S, SlurmProvider


class Commands:
    """Programs of Slurm's names on PATH, each a shell script; every call is noted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"
        self._calls.touch()

    def set(self, name: str, body: str) -> None:
        path = self._folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self._calls}"\n{body}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        return [line for line in self._calls.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    made = Commands(folder)
    made.set("sbatch", "echo 12")
    made.set("squeue", "")
    made.set("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    made.set("scancel", "")
    made.set("sinfo", "echo debug; echo gpu")
    return made


def job(folder: Path, name: str = "cpu-0") -> BlockJob:
    out = folder / name
    return BlockJob(name, "true", out / "script", out / "stdout", out / "stderr", 1, 60.0, run="0001-ab in /r")


def provider(**keys: Any) -> SlurmProvider:
    return SlurmProvider(**{"cmd_timeout": 5.0, "submit_rate": 1000.0, **keys})


def row(job: int, state: str, reason: str = "None", code: int = 0) -> str:
    return f"{job}|{state}|{reason}|{code}|9:00|5|0||"


def test_all_blocks_are_asked_about_in_one_query(commands: Commands) -> None:
    commands.set("squeue", f"echo '{row(1, 'RUNNING')}'; echo '{row(2, 'PENDING', 'Priority')}'")
    statuses = provider().status(["1", "2"])
    assert [status.state for status in statuses.values()] == [BlockState.RUNNING, BlockState.PENDING]
    (call,) = commands.calls("squeue")
    assert "--jobs=1,2" in call
    assert "--states=all" in call


def test_no_blocks_no_query(commands: Commands) -> None:
    assert provider().status([]) == {}
    assert commands.calls("squeue") == []


def test_more_than_a_batch_is_asked_in_several(commands: Commands) -> None:
    provider(status_batch_size=2).status(["1", "2", "3"])
    assert len(commands.calls("squeue")) == 2


def test_a_block_that_has_ended_is_not_asked_about_again(commands: Commands) -> None:
    commands.set("squeue", f"echo '{row(1, 'FAILED', 'NonZeroExitCode', 768)}'")
    slurm = provider()
    first = slurm.status(["1"])
    commands.set("squeue", "exit 1")  # Slurm has forgotten it
    assert slurm.status(["1"]) == first
    assert first["1"].exit_code == 3


def test_what_slurmctld_has_forgotten_is_looked_up_in_accounting(commands: Commands) -> None:
    commands.set("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    commands.set("sacct", "echo '1|TIMEOUT|0:0|n1'")
    assert provider().status(["1"])["1"].state is BlockState.TIMEOUT


def test_without_accounting_it_is_missing_and_accounting_is_tried_once(commands: Commands) -> None:
    slurm = provider()
    for _ in range(3):
        assert slurm.status(["1"])["1"].state is BlockState.MISSING
    assert len(commands.calls("sacct")) == 1


def test_a_slow_accounting_hides_nothing(commands: Commands) -> None:
    commands.set("squeue", f"echo '{row(1, 'RUNNING')}'")
    commands.set("sacct", "exec sleep 60")
    statuses = provider(cmd_timeout=0.5).status(["1", "2"])
    assert statuses["1"].state is BlockState.RUNNING


@pytest.mark.parametrize("body", ["echo 'Unable to contact slurm controller' >&2; exit 1", "exec sleep 60"])
def test_a_squeue_that_fails_says_nothing_about_blocks(commands: Commands, body: str) -> None:
    commands.set("squeue", body)
    with pytest.raises(InfrastructureError, match="squeue"):
        provider(cmd_timeout=0.5).status(["1"])


def test_without_slurm_it_is_said_where_to_go(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="no sbatch on PATH here"):
        provider().submit(job(tmp_path))


def test_a_job_that_may_have_been_taken_without_an_answer_is_cancelled_by_its_name(
    commands: Commands, tmp_path: Path
) -> None:
    commands.set("sbatch", "exec sleep 60")
    slurm = provider(cmd_timeout=0.5)
    with pytest.raises(SubmitLater, match="sbatch has not answered within"):
        slurm.submit(job(tmp_path))
    for _ in range(4):
        slurm.status([])
    assert commands.calls("scancel") == [f"scancel --user={os.getuid()} --name=pilotflow:0001-ab:cpu-0"] * 3


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", SubmitLater),
        ("QOSMaxSubmitJobPerUserLimit", SubmitLater),
        ("Batch job submission failed: Invalid account or account/partition combination specified", SubmitRefused),
        ("Batch job submission failed: something new", InfrastructureError),
    ],
)
def test_refusals_are_told_apart(
    commands: Commands, tmp_path: Path, said: str, error: type[InfrastructureError]
) -> None:
    commands.set("sbatch", f"echo 'sbatch: error: {said}' >&2; exit 1")
    with pytest.raises(InfrastructureError) as caught:
        provider().submit(job(tmp_path))
    assert type(caught.value) is error
    assert said in str(caught.value)


def test_submissions_keep_their_rate(commands: Commands, tmp_path: Path) -> None:
    slurm = provider(submit_rate=0.01)
    slurm.submit(job(tmp_path))
    with pytest.raises(SubmitLater, match="submit_rate") as later:
        slurm.submit(job(tmp_path, "cpu-1"))
    assert 0 < later.value.after_s <= 100.0
    assert len(commands.calls("sbatch")) == 1
    two_a_second = provider(submit_rate=2.0)
    for name in ("cpu-2", "cpu-3"):  # as many at once as a second has
        two_a_second.submit(job(tmp_path, name))


def test_many_are_cancelled_by_few_commands(commands: Commands) -> None:
    provider().cancel([str(number) for number in range(1, 2001)])
    assert len(commands.calls("scancel")) == 2


def test_clusters_are_asked_one_by_one(commands: Commands) -> None:
    commands.set("squeue", f"echo '{row(1, 'RUNNING')}'")
    statuses = provider().status(["1;one", "1;two"])
    assert set(statuses) == {"1;one", "1;two"}
    assert len(commands.calls("squeue")) == 2
    assert provider().cancel_argv(["1;one"]) == ("scancel", "--clusters=one", "1")
    assert provider().cancel_argv(["1", "2"]) == ("scancel", "1", "2")
    handed_in = provider(clusters="one,two").cancel_named_argv([job(Path()), job(Path())])
    name = "pilotflow:0001-ab:cpu-0"
    assert handed_in == ("scancel", "--clusters=one,two", f"--user={os.getuid()}", f"--name={name},{name}")


def test_rubbish_is_no_job(commands: Commands) -> None:
    provider().cancel(["x; rm -rf /", ""])
    assert commands.calls("scancel") == []
    assert provider().cancel_argv(["$(reboot)"]) == ("true",)


def test_a_wait_that_time_does_not_cure_is_ended_after_a_while_and_only_then(
    commands: Commands,
) -> None:
    commands.set("squeue", f"echo '{row(1, 'PENDING', 'PartitionTimeLimit')}'")
    slurm = provider()
    began = time.monotonic()
    while not (status := slurm.status(["1"])["1"]).state.terminal:
        assert commands.calls("scancel") == []
        assert time.monotonic() < began + 30
        time.sleep(0.2)
    assert time.monotonic() - began >= DOOMED_S
    assert (status.state, status.hopeless) == (BlockState.FAILED, True)
    assert "Lower provider.walltime" in status.reason
    assert commands.calls("scancel") == ["scancel 1"]


def test_variables_of_sbatch_hold_for_what_is_not_said(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.set("sbatch", f'echo "$SBATCH_PARTITION,$SBATCH_ACCOUNT,$SBATCH_TIMELIMIT" > "{tmp_path}/env"; echo 12')
    for name in ("PARTITION", "ACCOUNT", "TIMELIMIT"):
        monkeypatch.setenv(f"SBATCH_{name}", "theirs")
    provider(partition="cpu").submit(job(tmp_path))
    assert (tmp_path / "env").read_text() == ",theirs,\n"
