"""The contract of a provider, as a test that any provider can be put to.

Example:
    A test of a provider of your own is two lines::

        def test_my_provider_keeps_the_contract(tmp_path):
            check_provider(MyProvider, tmp_path)
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pilotflow.providers.base import BlockJob, BlockState, BlockStatus, Provider
from pilotflow.typechecks import fields_without_dataclass
from pilotflow.units import show

ODD_NAME: Final = "odd 'quoted\" $HOME & ünï;(x)"
_WAIT: Final = "sleep 600 & wait $!"
_ORDER_S: Final = 15.0
"""`submit` and `cancel` give orders to the batch system, and take less than this."""
_SHOWN_S: Final = 5.0
"""An end that `status` tells must be shown by the descriptor by then."""


class _Bench:
    """One provider under test, and the blocks that the test has submitted."""

    def __init__(self, provider: Provider, folder: Path, timeout_s: float) -> None:
        self.provider = provider
        self.folder = folder
        self.timeout_s = timeout_s
        self.ids: list[str] = []

    def job(self, command: str, name: str = "check-0") -> BlockJob:
        out = self.folder / "blocks" / name
        out.mkdir(parents=True, exist_ok=True)
        return BlockJob(
            name=name,
            command=command,
            script=self.folder / "scripts" / f"{name}.sh",
            stdout=out / "stdout",
            stderr=out / "stderr",
            nodes=self.provider.nodes_per_block,
            walltime_s=self.provider.walltime_s,
        )

    def submit(self, command: str, name: str = "check-0") -> str:
        before = time.monotonic()
        batch_id = self.provider.submit(self.job(command, name))
        assert time.monotonic() - before < _ORDER_S, "submit waits for the block; it must only hand it in"
        assert isinstance(batch_id, str), f"submit returned {batch_id!r}, not a batch id as text"
        assert batch_id not in self.ids, f"batch id {batch_id!r} was given to two blocks"
        self.ids.append(batch_id)
        return batch_id

    def states(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        """What `status` says, which must be of the form that it promises."""
        statuses = self.provider.status(ids)
        call = f"status({list(ids)!r})"
        assert isinstance(statuses, dict), f"{call} returned {statuses!r}, not a dictionary by batch id"
        assert set(statuses) == set(ids), f"{call} speaks of {sorted(statuses)}; what is not known is MISSING"
        for status in statuses.values():
            assert isinstance(status, BlockStatus), f"{call} has {status!r}, which is no BlockStatus"
            assert isinstance(status.state, BlockState), (
                f"{call} has the state {status.state!r}, which is no BlockState"
            )
        return statuses

    def state(self, batch_id: str) -> BlockStatus:
        return self.states([batch_id])[batch_id]

    def until(self, ids: Sequence[str], done: Callable[[BlockStatus], bool], what: str) -> list[BlockStatus]:
        """Ask again and again until `done` holds for all of these blocks."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            statuses = self.states(ids)
            if all(done(statuses[batch_id]) for batch_id in ids):
                return [statuses[batch_id] for batch_id in ids]
            assert time.monotonic() < deadline, f"after {self.timeout_s:g} s, not {what}: {statuses}"
            time.sleep(min(self.provider.quick_poll_s, 1.0))

    def ended(self, *ids: str) -> list[BlockStatus]:
        return self.until(ids, lambda status: status.state.terminal, "ended")

    def written(self, path: Path, batch_id: str) -> None:
        """Wait for a file that the block writes."""
        self.until([batch_id], lambda _: path.exists() and path.stat().st_size > 0, f"written: {path}")


def check_provider(make_provider: Callable[[], Provider], tmp_path: Path, *, timeout_s: float = 60.0) -> None:
    """Run the whole contract; an AssertionError says what does not hold.

    Args:
        make_provider: gives a fresh provider, with one node a block and no `worker_init`.
        tmp_path: an empty folder, which the blocks must be able to reach.
        timeout_s: seconds a block may wait in the queue.
    """
    for number, check in enumerate(_CHECKS):
        folder = tmp_path / f"{number}-{check.__name__.strip('_')}"
        folder.mkdir()
        bench = _Bench(_made(make_provider), folder, timeout_s)
        try:
            check(bench)
        finally:
            bench.provider.cancel(bench.ids)
            if bench.ids:
                bench.ended(*bench.ids)


def _made(make_provider: Callable[[], Provider]) -> Provider:
    """A fresh provider, if that is what comes."""
    assert callable(make_provider), (
        f"check_provider was given {show(make_provider)}: hand in the class, or a function that makes a fresh provider"
    )
    what = make_provider.__name__ if isinstance(make_provider, type) else "make_provider"
    if isinstance(make_provider, type):
        _is_a_providers_class(make_provider)
    try:
        provider: object = make_provider()
    except TypeError as error:
        raise AssertionError(f"{what}() raises {error!r}: every field of a provider needs a default") from error
    _is_a_providers_class(type(provider))
    assert isinstance(provider, Provider)
    return provider


def _is_a_providers_class(cls: type) -> None:
    name = cls.__name__
    assert issubclass(cls, Provider), (
        f"{name} is no subclass of Provider. Write:\n\n"
        f"    @dataclass(frozen=True, kw_only=True)\n    class {name}(Provider):"
    )
    unwritten = sorted(getattr(cls, "__abstractmethods__", ()))
    assert not unwritten, f"{name} lacks {', '.join(unwritten)}: write these methods as the docstrings of Provider say"
    lost = fields_without_dataclass(cls)
    assert lost is None, lost


def _submit_does_not_wait(bench: _Bench) -> None:
    bench.submit(f"sleep {_ORDER_S + 5:g}")


def _success_is_completed(bench: _Bench) -> None:
    batch_id = bench.submit("echo to-stdout\necho to-stderr >&2")
    (status,) = bench.ended(batch_id)
    assert status.state is BlockState.COMPLETED, f"a script that ends with 0 gives {status}"
    job = bench.job("")
    assert "to-stdout" in job.stdout.read_text(), f"{job.stdout} does not have the script's output"
    assert "to-stderr" in job.stderr.read_text(), f"{job.stderr} does not have the script's errors"
    assert "to-stdout" in job.script.read_text(), f"{job.script} is not what was run"


def _failure_has_its_exit_code(bench: _Bench) -> None:
    batch_id = bench.submit("echo no such module >&2\n(exit 37)")
    (status,) = bench.ended(batch_id)
    assert status.state is BlockState.FAILED, f"a script that ends with 37 gives {status}"
    assert status.exit_code == 37, f"the exit code 37 became {status.exit_code}"
    assert "no such module" in bench.job("").stderr.read_text()


def _terminal_states_are_final(bench: _Bench) -> None:
    good, bad = bench.submit("true", "check-0"), bench.submit("(exit 3)", "check-1")
    first = bench.ended(good, bad)
    bench.provider.cancel([good, bad])
    for _ in range(3):
        again = bench.states([good, bad])
        assert [again[good], again[bad]] == first, f"final states changed from {first} to {again}"


def _a_running_block_can_be_cancelled(bench: _Bench) -> None:
    started = bench.folder / "started"
    batch_id = bench.submit(f"echo yes > '{started}'\n{_WAIT}")
    bench.written(started, batch_id)
    bench.until([batch_id], lambda status: status.state is BlockState.RUNNING, "running")
    _cancel_and_check(bench, batch_id)


def _a_descriptor_shows_the_end_and_nothing_before(bench: _Bench) -> None:
    started = bench.folder / "started"
    batch_id = bench.submit(f"echo yes > '{started}'\n{_WAIT}")
    bench.written(started, batch_id)
    fd = bench.provider.end_fd(batch_id)
    if fd is None:
        return
    where = f"{type(bench.provider).__name__}.end_fd"
    good = "Return a new descriptor that can be read once the block is over, or None."
    assert type(fd) is int, f"{where} returned {show(fd)}, which is no descriptor. {good}"
    try:
        os.fstat(fd)
    except OSError:
        raise AssertionError(f"{where} returned {fd}, which is no open descriptor. {good}") from None
    try:
        assert not select.select([fd], [], [], 0)[0], "the descriptor of end_fd shows the end of a block that runs"
        bench.provider.cancel([batch_id])
        bench.ended(batch_id)
        assert select.select([fd], [], [], _SHOWN_S)[0], "the descriptor of end_fd does not show the end of the block"
    finally:
        os.close(fd)


def _a_block_can_be_cancelled_at_once(bench: _Bench) -> None:
    _cancel_and_check(bench, bench.submit(_WAIT))


def _cancel_and_check(bench: _Bench, batch_id: str) -> None:
    before = time.monotonic()
    bench.provider.cancel([batch_id])
    bench.provider.cancel([batch_id])
    assert time.monotonic() - before < _ORDER_S, "cancel waits for the block; it must only order the end"
    (status,) = bench.ended(batch_id)
    assert status.state is BlockState.CANCELLED, f"a cancelled block gives {status}"
    bench.provider.cancel([batch_id])
    assert bench.state(batch_id) == status


def _an_unknown_id_is_missing(bench: _Bench) -> None:
    known = bench.submit("true")
    bench.ended(known)
    statuses = bench.states(["999999999", known])
    assert statuses["999999999"].state is BlockState.MISSING, f"an unknown id gives {statuses['999999999']}"
    assert statuses[known].state is BlockState.COMPLETED
    try:
        bench.provider.cancel(["999999999"])
    except Exception as error:
        raise AssertionError(f"cancel of an unknown id raises {error!r}; it must pass it over") from error
    assert not bench.states([]), "status of nothing must be empty"
    bench.provider.cancel([])


def _many_are_answered_in_one_call(bench: _Bench) -> None:
    ids = [bench.submit(f"(exit {number % 2})", f"check-{number}") for number in range(6)]
    statuses = bench.ended(*ids)
    expected = [BlockState.COMPLETED, BlockState.FAILED] * 3
    assert [status.state for status in statuses] == expected, f"{statuses}"


def _odd_paths_are_kept(bench: _Bench) -> None:
    bench.folder = bench.folder / ODD_NAME
    bench.folder.mkdir()
    batch_id = bench.submit("echo here")
    (status,) = bench.ended(batch_id)
    assert status.state is BlockState.COMPLETED, f"in {bench.folder}: {status}"
    assert bench.job("").stdout.read_text().strip().endswith("here")


def _the_command_is_shell_text(bench: _Bench) -> None:
    batch_id = bench.submit("words=(one 'two  three')\nprintf '<%s>' \"${words[@]}\" \\\n  last\n")
    (status,) = bench.ended(batch_id)
    assert status.state is BlockState.COMPLETED, f"{status}: {bench.job('').stderr.read_text()}"
    assert "<one><two  three><last>" in bench.job("").stdout.read_text()


def _the_jobs_environment_is_there(bench: _Bench) -> None:
    job = replace(bench.job("printf '<%s>' \"$PILOTFLOW_CHECK\""), environment={"PILOTFLOW_CHECK": ODD_NAME})
    bench.ids.append(bench.provider.submit(job))
    (status,) = bench.ended(*bench.ids)
    assert status.state is BlockState.COMPLETED, f"{status}: {job.stderr.read_text()}"
    assert f"<{ODD_NAME}>" in job.stdout.read_text(), "job.environment does not reach the block's processes"


def _a_command_cancels_for_a_dead_client(bench: _Bench) -> None:
    started = bench.folder / "started"
    batch_id = bench.submit(f"echo yes > '{started}'\n{_WAIT}")
    bench.written(started, batch_id)
    argv = bench.provider.cancel_argv([batch_id])
    assert argv, "cancel_argv is empty"
    done = subprocess.run(argv, capture_output=True, text=True, timeout=bench.timeout_s, check=False)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stderr}"
    bench.ended(batch_id)


_CHECKS: Final = (
    _submit_does_not_wait,
    _success_is_completed,
    _failure_has_its_exit_code,
    _terminal_states_are_final,
    _a_running_block_can_be_cancelled,
    _a_descriptor_shows_the_end_and_nothing_before,
    _a_block_can_be_cancelled_at_once,
    _an_unknown_id_is_missing,
    _many_are_answered_in_one_call,
    _odd_paths_are_kept,
    _the_command_is_shell_text,
    _the_jobs_environment_is_there,
    _a_command_cancels_for_a_dead_client,
)
