"""The local provider: the public contract, and what is special about processes of this machine."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pilotflow.errors import ConfigError
from pilotflow.providers import processes
from pilotflow.providers.base import BlockJob, BlockState, BlockStatus, script_text
from pilotflow.providers.local import LocalProvider, main
from pilotflow.testing.providers import check_provider
from tests.processes import is_alive
from tests.waiting import until

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def test_local_keeps_the_contract(tmp_path: Path) -> None:
    check_provider(LocalProvider, tmp_path)


def job(folder: Path, command: str, name: str = "cpu-0", walltime_s: float | None = None) -> BlockJob:
    out = folder / "blocks" / name
    return BlockJob(name, command, folder / "scripts" / f"{name}.sh", out / "stdout", out / "stderr", 1, walltime_s)


def final(provider: LocalProvider, batch_id: str) -> BlockStatus:
    def ended() -> BlockStatus | None:
        status = provider.status([batch_id])[batch_id]
        return status if status.state.terminal else None

    status = until(ended)
    assert isinstance(status, BlockStatus)
    return status


def text_of(path: Path) -> str:
    return until(lambda: path.exists() and path.read_text()) or ""


# ---- processes ------------------------------------------------------------------------------


def test_parents_come_before_their_children_so_that_shells_end_before_what_they_wait_for() -> None:
    """Else a shell goes on with its next command when the one before it is ended."""
    script = "for i in 1 2 3; do set -m; bash -c \"bash -c 'sleep 60; true'; true\" & done; wait"
    with subprocess.Popen(["bash", "-c", script], start_new_session=True) as shell:
        try:
            found = until(lambda: (all_ := processes.members(shell.pid)) and len(all_) == 10 and all_)
            order = list(found)
            assert all(order.index(one.parent) < order.index(one.pid) for one in found.values() if one.pid != shell.pid)
        finally:
            for pid in processes.members(shell.pid):
                os.kill(pid, signal.SIGKILL)


# ---- the script -----------------------------------------------------------------------------


def test_the_script_is_the_one_on_record() -> None:
    text = script_text(job(Path("run"), "echo managers"), "module load gcc\nexport A=1", "1 node(s) on this machine")
    path = GOLDEN / "local_block.sh"
    assert text == path.read_text(), f"if the new text is right, write it to {path}"


def test_the_script_is_for_its_owner_only(tmp_path: Path) -> None:
    provider = LocalProvider()
    final(provider, provider.submit(job(tmp_path, "true")))
    assert (tmp_path / "scripts" / "cpu-0.sh").stat().st_mode & 0o777 == 0o700


def test_worker_init_runs_first_and_what_it_exports_is_there(tmp_path: Path) -> None:
    provider = LocalProvider(worker_init="FROM_INIT='a b'\nexport FROM_INIT  # a comment")
    status = final(provider, provider.submit(job(tmp_path, "sh -c 'echo \"[$FROM_INIT]\"'")))
    assert status == BlockStatus(BlockState.COMPLETED, "", 0)
    assert (tmp_path / "blocks/cpu-0/stdout").read_text() == "[a b]\n"


@pytest.mark.parametrize(
    ("worker_init", "code"),
    [("false", 1), ("exit 7", 7), ("set -e\nfalse\ntrue", 1), ("no_such_program_here", 127), ("if then (", 2)],
)
def test_a_worker_init_that_fails_ends_the_block_with_its_code(tmp_path: Path, worker_init: str, code: int) -> None:
    provider = LocalProvider(worker_init=worker_init)
    status = final(provider, provider.submit(job(tmp_path, f"touch '{tmp_path}/reached'")))
    assert (status.state, status.exit_code) == (BlockState.FAILED, code)
    assert not (tmp_path / "reached").exists()


def test_stderr_says_that_worker_init_failed(tmp_path: Path) -> None:
    provider = LocalProvider(worker_init="no_such_program_here")
    final(provider, provider.submit(job(tmp_path, "true")))
    text = (tmp_path / "blocks/cpu-0/stderr").read_text()
    assert "no_such_program_here" in text
    assert "worker_init of block cpu-0 failed with exit code 127" in text


def test_a_block_carries_its_environment_from_the_first_moment(tmp_path: Path) -> None:
    """Were it set by the script, a block whose script has not come so far could not be recognised."""
    provider = LocalProvider()
    batch_id = provider.submit(replace(job(tmp_path, "sleep 600"), environment={"MARK": "a 'b'"}))
    environ = Path(f"/proc/{int(batch_id.partition(':')[0])}/environ")
    while not (shown := environ.read_bytes()):  # in the middle of its exec a process shows none at all
        pass
    assert b"MARK=a 'b'" in shown.split(b"\0")
    provider.cancel([batch_id])
    final(provider, batch_id)


# ---- ends -----------------------------------------------------------------------------------


def test_a_block_that_a_signal_ends_tells_which(tmp_path: Path) -> None:
    provider = LocalProvider()
    status = final(provider, provider.submit(job(tmp_path, "kill -KILL $$")))
    assert (status.state, status.exit_code) == (BlockState.FAILED, -signal.SIGKILL)


def test_a_block_is_ended_at_its_walltime(tmp_path: Path) -> None:
    provider = LocalProvider(walltime="0.2s")
    batch_id = provider.submit(job(tmp_path, "sleep 600 & wait", walltime_s=provider.walltime_s))
    status = final(provider, batch_id)
    assert status.state is BlockState.TIMEOUT
    assert "0.2 s" in status.reason


STUBBORN = "trap '' TERM\necho $$ > '{pid}'\nwhile :; do sleep 600; done"


def test_a_block_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    provider = LocalProvider()
    batch_id = provider.submit(job(tmp_path, STUBBORN.format(pid=tmp_path / "pid")))
    text_of(tmp_path / "pid")
    started = time.monotonic()
    provider.cancel([batch_id])
    state = provider.status([batch_id])[batch_id].state
    if time.monotonic() - started < processes.GRACE_S:  # else the machine was busy
        assert state is BlockState.RUNNING
    assert final(provider, batch_id) == BlockStatus(BlockState.CANCELLED, "", -signal.SIGKILL)
    assert time.monotonic() - started >= processes.GRACE_S


def test_a_stopped_block_can_be_cancelled(tmp_path: Path) -> None:
    provider = LocalProvider()
    batch_id = provider.submit(job(tmp_path, f"echo $$ > '{tmp_path / 'pid'}'\nsleep 600"))
    os.kill(int(text_of(tmp_path / "pid")), signal.SIGSTOP)
    provider.cancel([batch_id])
    assert final(provider, batch_id).state is BlockState.CANCELLED


SCATTERED = """
import os, subprocess, sys, time
folder = sys.argv[1]
def fork(name, *, session=False, group=False):
    if os.fork() == 0:
        if session: os.setsid()
        if group: os.setpgid(0, 0)
        with open(f"{folder}/{name}.new", "w") as file: file.write(str(os.getpid()))
        os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
        time.sleep(600)
fork("plain")
fork("group", group=True)
fork("session", session=True)
if len(sys.argv) > 2: sys.exit(int(sys.argv[2]))
time.sleep(600)
"""


def scattered(tmp_path: Path, *arguments: str) -> str:
    (tmp_path / "scattered.py").write_text(SCATTERED)
    pids = tmp_path / "pids"
    pids.mkdir()
    return " ".join(["'" + sys.executable + "'", f"'{tmp_path}/scattered.py'", f"'{pids}'", *arguments])


def test_cancelling_ends_descendants_in_groups_and_sessions_of_their_own(tmp_path: Path) -> None:
    provider = LocalProvider()
    batch_id = provider.submit(job(tmp_path, scattered(tmp_path)))
    pids = [int(text_of(tmp_path / "pids" / name)) for name in ("plain", "group", "session")]
    provider.cancel([batch_id])
    assert final(provider, batch_id).state is BlockState.CANCELLED
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_block_has_ended_only_when_what_it_left_in_its_session_is_gone(tmp_path: Path) -> None:
    provider = LocalProvider()
    command = scattered(tmp_path, "4")
    batch_id = provider.submit(
        job(tmp_path, f"{command}; code=$?\nuntil [ -e '{tmp_path}/go' ]; do sleep 0.01; done\n(exit $code)")
    )
    left = {name: int(text_of(tmp_path / "pids" / name)) for name in ("plain", "group", "session")}
    (tmp_path / "go").touch()
    status = final(provider, batch_id)
    try:
        assert (status.state, status.exit_code) == (BlockState.FAILED, 4)
        assert [is_alive(left[name]) for name in ("plain", "group", "session")] == [False, False, True]
    finally:
        os.kill(left["session"], signal.SIGKILL)  # it detached itself from a block that ended by itself


def test_ended_blocks_leave_no_zombies_and_no_warnings(tmp_path: Path) -> None:
    provider = LocalProvider()
    ids = [provider.submit(job(tmp_path, "true", f"cpu-{number}")) for number in range(3)]
    for batch_id in ids:
        final(provider, batch_id)
    assert [processes.read(int(batch_id.partition(":")[0])) for batch_id in ids] == [None] * 3
    del provider
    gc.collect()


@pytest.mark.filterwarnings("error")
def test_a_provider_that_is_let_go_of_before_its_block_has_ended_gives_no_warning_and_leaves_no_zombie(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run's end does not wait any longer for a block."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    provider = LocalProvider()
    pid = int(provider.submit(job(tmp_path, "sleep 600")).partition(":")[0])
    del provider
    gc.collect()
    assert not unraisable
    assert not recwarn.list
    os.killpg(pid, signal.SIGKILL)

    def reaped() -> bool:
        subprocess.run(["true"], check=True)
        return processes.read(pid) is None

    until(reaped)


# ---- other people's blocks ------------------------------------------------------------------


def test_another_process_sees_the_block_and_can_cancel_it(tmp_path: Path) -> None:
    owner, other = LocalProvider(), LocalProvider()
    batch_id = owner.submit(job(tmp_path, "sleep 600"))
    assert other.status([batch_id])[batch_id].state is BlockState.RUNNING
    other.cancel([batch_id])
    assert final(other, batch_id).state is BlockState.CANCELLED
    final(owner, batch_id)


def test_a_recycled_process_id_is_nobodys_block(tmp_path: Path) -> None:
    owner, other = LocalProvider(), LocalProvider()
    batch_id = owner.submit(job(tmp_path, "sleep 600"))
    pid = batch_id.partition(":")[0]
    imposter = f"{pid}:1"
    assert other.status([imposter])[imposter].state is BlockState.MISSING
    other.cancel([imposter])
    assert main(["cancel", imposter]) == 0
    assert owner.status([batch_id])[batch_id].state is BlockState.RUNNING
    owner.cancel([batch_id])
    final(owner, batch_id)


@pytest.mark.parametrize("batch_id", ["", "x", "12", "12:", ":12", "-5:3", "1:1", "0:0", "12:34:56", "²:1"])
def test_an_id_of_another_form_is_missing_and_touches_nothing(batch_id: str) -> None:
    provider = LocalProvider()
    provider.cancel([batch_id])
    assert provider.status([batch_id])[batch_id].state is BlockState.MISSING


def test_the_cancel_command_ends_blocks_whose_client_is_dead_stubborn_ones_and_orphans_too(tmp_path: Path) -> None:
    client = (
        "import sys, pathlib\n"
        "from pilotflow.providers.local import LocalProvider\n"
        "from pilotflow.providers.base import BlockJob\n"
        "folder, provider = pathlib.Path(sys.argv[1]), LocalProvider()\n"
        "for n, command in enumerate(sys.argv[2:]):\n"
        "    job = BlockJob(f'b-{n}', command, folder / f'{n}.sh', folder / f'{n}.out', folder / f'{n}.err', 1, None)\n"
        "    print(provider.submit(job), flush=True)\n"
        "sys.stdin.read()\n"
    )
    stubborn = STUBBORN.format(pid=tmp_path / "stubborn")
    orphaned = f"sleep 600 & echo $! > '{tmp_path / 'orphan'}'\nwait"
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", client, str(tmp_path), stubborn, orphaned],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
    ) as process:  # fmt: skip
        assert process.stdout
        ids = [process.stdout.readline().strip(), process.stdout.readline().strip()]
        pids = [int(text_of(tmp_path / "stubborn")), int(text_of(tmp_path / "orphan"))]
        process.kill()
    os.kill(int(ids[1].partition(":")[0]), signal.SIGKILL)  # its session has lost its leader
    until(lambda: not is_alive(int(ids[1].partition(":")[0])))
    argv = LocalProvider().cancel_argv(ids)
    done = subprocess.run(argv, cwd=root, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("argv", [[], ["cancel"], ["end", "1:2"], ["cancel", "nonsense"]])
def test_the_cancel_command_refuses_what_it_does_not_understand(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert "usage" in capsys.readouterr().err


# ---- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_blocks": 3, "max_blocks": 2}, "(min_blocks=..., max_blocks=...): min_blocks=3 is above max_blocks=2"),
        ({"init_blocks": 2}, "(init_blocks=..., max_blocks=...): init_blocks=2 is above max_blocks=1"),
        ({"init_blocks": -1}, "(init_blocks=...): -1 is not a whole number of 0 or more."),
        ({"max_blocks": 1.5}, "(max_blocks=...): 1.5 is float, expected int."),
        ({"max_blocks": True}, "(max_blocks=...): True is bool, expected int."),
        ({"nodes_per_block": 0}, "(nodes_per_block=...): 0 is not a whole number of 1 or more."),
        ({"parallelism": 1.1}, "(parallelism=...): 1.1 is not a number between 0 and 1."),
        ({"parallelism": float("nan")}, "(parallelism=...): nan"),
        ({"parallelism": "1"}, "(parallelism=...): '1' is str, expected float."),
        ({"walltime": "soon"}, "(walltime=...): 'soon' is not a duration."),
        ({"walltime": True}, "(walltime=...): True is bool, expected str | float | None."),
        ({"walltime": 0}, "(walltime=...): 0 leaves no time."),
        ({"worker_init": None}, "(worker_init=...): None is "),
        ({"worker_init": "a\0b"}, "null character"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LocalProvider(**settings)
    assert str(caught.value).startswith("LocalProvider(")
    assert words in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class WithAPartition(LocalProvider):
    partition: str = ""


@dataclass(frozen=True, kw_only=True)
class WithUnknownNames(LocalProvider):
    site: NotHere | None = None  # type: ignore[name-defined]  # noqa: F821  as if imported for type checkers only


def test_a_subclass_has_the_types_of_its_own_fields_checked() -> None:
    with pytest.raises(ConfigError, match=r"WithAPartition\(partition=\.\.\.\): 3 is int, expected str\."):
        WithAPartition(partition=3)  # type: ignore[arg-type]


def test_a_subclass_whose_annotations_mean_nothing_here_has_the_others_checked() -> None:
    assert WithUnknownNames(site=3).site == 3
    with pytest.raises(ConfigError, match=r"WithUnknownNames\(max_blocks=\.\.\.\): 'two' is str, expected int\."):
        WithUnknownNames(max_blocks="two")  # type: ignore[arg-type]


def test_settings_are_a_value() -> None:
    first = LocalProvider(max_blocks=2, walltime="1h")
    assert first == LocalProvider(max_blocks=2, walltime="1h") != LocalProvider()
    assert len({first, replace(first, max_blocks=2)}) == 1
    assert first.walltime_s == 3600
    assert " _blocks" not in repr(first)


# ---- the contract itself --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ForgetsTheCode(LocalProvider):
    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        return {id_: replace(status, exit_code=None) for id_, status in super().status(ids).items()}


@dataclass(frozen=True, kw_only=True)
class AbsentMeansCompleted(LocalProvider):
    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        found = super().status(ids)
        done = BlockStatus(BlockState.COMPLETED)
        return {id_: done if found[id_].state is BlockState.MISSING else found[id_] for id_ in ids}


@dataclass(frozen=True, kw_only=True)
class ShowsTheEndTooEarly(LocalProvider):
    def end_fd(self, batch_id: str) -> int | None:
        return os.open(os.devnull, os.O_RDONLY)


@dataclass(frozen=True, kw_only=True)
class CallsAllEndsFailures(LocalProvider):
    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        return {
            id_: replace(status, state=BlockState.FAILED) if status.state is BlockState.CANCELLED else status
            for id_, status in super().status(ids).items()
        }


@pytest.mark.parametrize("broken", [ForgetsTheCode, AbsentMeansCompleted, ShowsTheEndTooEarly, CallsAllEndsFailures])
def test_the_contract_finds_a_provider_that_breaks_it(tmp_path: Path, broken: type[LocalProvider]) -> None:
    with pytest.raises(AssertionError):
        check_provider(broken, tmp_path)
