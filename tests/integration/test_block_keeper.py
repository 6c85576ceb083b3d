"""The block keeper with real local blocks: shell scripts stand for managers, the test for the interchange."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pilotflow.core.block_records import BlockLimits, BlockStatus, Phase
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.messages.client import ClientMessage, DrainBlocks, FailExecutor, LiveBlocks, Load, ManagerDown, ManagerUp
from pilotflow.messages.records import BlockLoad, ClassLoad
from pilotflow.providers.base import BlockJob
from pilotflow.providers.local import LocalProvider
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from pilotflow.runtime.block_keeper import SUBMIT_S, BlockKeeper, KeptExecutor
from tests.processes import is_alive

LIMITS = BlockLimits(
    shape=BlockShape("cpu", NodeShape(cpus_milli=2000, slots=2)),
    init_blocks=1,
    min_blocks=0,
    max_blocks=3,
    parallelism=1.0,
    max_idletime_s=300.0,
)
SLEEPER = "echo $$ > pid.new.$1; mv pid.new.$1 pid.$1; exec sleep 600"
"""Stands for a manager: leaves its process id and stays."""


class Client:
    """Takes the keeper's messages, and waits for what should come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[ClientMessage] = []

    def send(self, message: ClientMessage) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def all(self, kind: type[Any]) -> list[Any]:
        with self._changed:
            return [message for message in self._messages if isinstance(message, kind)]

    def until(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """What the condition gives once it is true. Looked at on each message, and often besides."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := condition()):
                assert time.monotonic() < deadline, f"it did not come; there is {self._messages}"
                self._changed.wait(0.02)
            return value

    @property
    def live(self) -> list[str]:
        said = self.all(LiveBlocks)
        return [block.block for block in said[-1].blocks] if said else []


def kept(folder: Path, manager: str = SLEEPER, label: str = "cpu", **changes: Any) -> KeptExecutor:
    """An executor whose managers run `manager` in `folder`, with the block's name as $1."""
    provider = changes.pop("provider", None) or LocalProvider(worker_init=changes.pop("worker_init", ""))

    def argv(block: str) -> list[str]:
        return ["bash", "-c", f"cd '{folder}'; {manager}", "manager", block]

    shape = structs.replace(
        LIMITS.shape, executor=label, nodes=provider.nodes_per_block, walltime_s=provider.walltime_s
    )
    return KeptExecutor(label, provider, SingleNodeLauncher(), argv, replace(LIMITS, shape=shape, **changes))


@contextmanager
def keeping(run_dir: Path, *executors: KeptExecutor) -> Iterator[tuple[BlockKeeper, Client]]:
    client = Client()
    keeper = BlockKeeper(executors, run_dir, client.send, logging.getLogger("test.blocks"))
    keeper.start()
    try:
        yield keeper, client
    finally:
        assert keeper.close(20.0)


def up(block: str, slots: int = 2, node: str = "n0") -> ManagerUp:
    return ManagerUp(block.rpartition("-")[0], block, node, Capacity(1000 * slots, slots=slots))


def down(
    block: str, *, planned: bool = False, refused: bool = False, reason: str = "gone", node: str = "n0"
) -> ManagerDown:
    return ManagerDown(block.rpartition("-")[0], block, node, reason, planned, refused)


def load(queued: int = 0, label: str = "", **held: int) -> Load:
    """So many tasks wait, for that executor or for any; and each block (`cpu_0=2`) holds so many."""
    blocks = [BlockLoad(name.replace("_", "-"), 1, count, 2, 0.0, False) for name, count in held.items()]
    return Load([], blocks, [ClassLoad(Request(), (label,) if label else (), queued)] if queued else [])


def phases(keeper: BlockKeeper) -> dict[str, Phase]:
    return {info.block: info.phase for info in keeper.describe()}


def manager_pid(client: Client, folder: Path, block: str) -> int:
    path = folder / f"pid.{block}"
    return int(client.until(lambda: path.exists() and path.read_text()))


def test_the_initial_block_runs_is_announced_and_ends_with_the_keeper(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path)) as (keeper, client):
        client.until(lambda: client.live == ["cpu-0"])
        pid = manager_pid(client, tmp_path, "cpu-0")
        (block,) = client.all(LiveBlocks)[-1].blocks
        (info,) = keeper.describe()
        assert block.executor == info.executor == "cpu"
        assert info.batch_id in block.cancel_argv
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.RUNNING})
        keeper.on_manager_up(up("cpu-0"))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        assert (tmp_path / "run/scripts/cpu-0.sh").exists()
        assert (tmp_path / "run/blocks/cpu-0/stderr").exists()
    assert not is_alive(pid)
    assert client.live == []
    assert phases(keeper) == {"cpu-0": Phase.ENDED}


def test_a_block_that_never_starts_fails_the_executor_once_with_its_own_words(tmp_path: Path) -> None:
    executor = kept(tmp_path, worker_init="echo 'ModuleNotFound: gcc/99' >&2; exit 42")
    with keeping(tmp_path / "run", executor) as (keeper, client):
        keeper.on_load(load(queued=1))
        (failure,) = client.until(lambda: client.all(FailExecutor))
        assert failure.executor == "cpu"
        last = keeper.describe()[-1].block
        for words in (
            "3 blocks in a row of executor 'cpu'",
            "failed with exit code 42",
            f"{tmp_path}/run/blocks/{last}/stderr",
            "ModuleNotFound: gcc/99",
            "Check worker_init",
            f"{tmp_path}/run/scripts/{last}.sh",
        ):
            assert words in failure.reason, failure.reason
        client.until(lambda: client.live == [])
        keeper.on_load(load(queued=9))
        client.until(lambda: not keeper._events)
    assert len(client.all(FailExecutor)) == 1
    assert len(list((tmp_path / "run/scripts").iterdir())) == 3


def test_the_log_has_the_last_words_of_a_block_that_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    executor = kept(tmp_path, "echo no such licence >&2; exit 3", start_retries=1)
    with keeping(tmp_path / "run", executor) as (_, client):
        client.until(lambda: client.all(FailExecutor))
    assert "the stderr of block cpu-0 ends with:\nno such licence" in caplog.text


def test_the_managers_log_is_quoted_when_stderr_is_silent(tmp_path: Path) -> None:
    log = tmp_path / "run/blocks/$1/manager-n0.log"
    executor = kept(tmp_path, f'echo "no route to host" > "{log}"; exit 1', start_retries=1)
    with keeping(tmp_path / "run", executor) as (_, client):
        (failure,) = client.until(lambda: client.all(FailExecutor))
    assert "stderr is empty" in failure.reason.replace(f"({tmp_path}/run/blocks/cpu-0/stderr) ", "")
    assert "manager-n0.log) ends with:\nno route to host" in failure.reason


def test_a_refused_manager_is_quoted(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path, start_retries=1)) as (keeper, client):
        pid = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_down(down("cpu-0", refused=True, reason="it has Python 3.9, the run has 3.11"))
        client.until(lambda: not keeper._events)
        os.kill(pid, signal.SIGTERM)
        (failure,) = client.until(lambda: client.all(FailExecutor))
    assert "it has Python 3.9, the run has 3.11" in failure.reason


def test_a_killed_manager_has_its_block_replaced_at_once_while_work_waits(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path)) as (keeper, client):
        pid = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        keeper.on_load(load(cpu_0=2))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        os.kill(pid, signal.SIGKILL)
        keeper.on_manager_down(down("cpu-0"))
        keeper.on_load(load(queued=2))
        manager_pid(client, tmp_path, "cpu-1")
        client.until(lambda: client.live == ["cpu-1"])
        assert phases(keeper)["cpu-0"] is Phase.ENDED
        assert "signal" in keeper.describe()[0].reason or "137" in keeper.describe()[0].reason


@pytest.mark.soak  # the time that it takes is that of core.blocks, whose tests show the same
def test_a_block_whose_managers_are_lost_but_which_lives_on_is_ended_and_replaced(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path)) as (keeper, client):
        pid = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        os.kill(pid, signal.SIGSTOP)  # frozen: the interchange has given it up
        keeper.on_manager_down(down("cpu-0", reason="silent for 30 s"))
        keeper.on_load(load(queued=1))
        client.until(lambda: client.live == ["cpu-1"])
        assert not is_alive(pid)


def test_load_brings_blocks_and_idleness_drains_them(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path, max_idletime_s=0.2)) as (keeper, client):
        keeper.on_load(load(queued=6))
        client.until(lambda: client.live == ["cpu-0", "cpu-1", "cpu-2"])
        for name in client.live:
            manager_pid(client, tmp_path, name)
        for name in ("cpu-0", "cpu-1", "cpu-2"):
            keeper.on_manager_up(up(name))
        keeper.on_load(load(cpu_0=2, cpu_1=2, cpu_2=2))
        client.until(lambda: set(phases(keeper).values()) == {Phase.WORKING})
        keeper.on_load(load(cpu_0=1, cpu_1=0, cpu_2=0))
        client.until(lambda: sorted(n for said in client.all(DrainBlocks) for n in said.blocks) == ["cpu-1", "cpu-2"])
        for name in ("cpu-1", "cpu-2"):
            keeper.on_manager_down(down(name, planned=True))
        client.until(lambda: client.live == ["cpu-0"])
        assert phases(keeper) == {"cpu-0": Phase.WORKING, "cpu-1": Phase.ENDED, "cpu-2": Phase.ENDED}
    assert client.all(FailExecutor) == []


def test_load_for_any_executor_makes_one_of_them_grow(tmp_path: Path) -> None:
    executors = [kept(tmp_path, label=label, init_blocks=0) for label in ("a", "b")]
    with keeping(tmp_path / "run", *executors) as (keeper, client):
        keeper.on_load(load(queued=4))
        client.until(lambda: client.live == ["a-0", "a-1"])
        keeper.on_load(load(queued=8))
        client.until(lambda: client.live == ["a-0", "a-1", "a-2", "b-0"])
        keeper.on_load(load(queued=2, label="b"))
        client.until(lambda: not keeper._events)
        assert client.live == ["a-0", "a-1", "a-2", "b-0"]


def test_several_nodes_start_several_managers(tmp_path: Path) -> None:
    manager = "echo $$ > pid.new.$PILOTFLOW_NODE_INDEX; mv pid.new.$PILOTFLOW_NODE_INDEX pid.$PILOTFLOW_NODE_INDEX; exec sleep 600"
    executor = kept(tmp_path, manager, provider=LocalProvider(nodes_per_block=3))
    with keeping(tmp_path / "run", executor) as (_, client):
        pids = {manager_pid(client, tmp_path, str(index)) for index in range(3)}
        assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_walltime_ends_a_block_and_the_load_brings_the_next(tmp_path: Path) -> None:
    executor = kept(tmp_path, provider=LocalProvider(walltime=0.5))
    with keeping(tmp_path / "run", executor) as (keeper, client):
        manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        keeper.on_load(load(queued=1))
        manager_pid(client, tmp_path, "cpu-1")
        client.until(lambda: "walltime" in keeper.describe()[0].reason)
    assert client.all(FailExecutor) == []


class AskedSeldom(LocalProvider):
    """Is asked about blocks that work when years have passed."""

    poll_s = 1e8


def test_the_end_of_a_working_block_is_seen_though_nobody_asks_for_it(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path, provider=AskedSeldom(), min_blocks=1)) as (keeper, client):
        manager = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        shell = int((keeper.describe()[0].batch_id or "").partition(":")[0])
        os.kill(shell, signal.SIGKILL)  # its manager lives on, and nobody has heard of anything
        client.until(lambda: client.live == ["cpu-1"])
        assert not is_alive(manager)


def test_closing_ends_stubborn_managers_too_and_may_be_repeated(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo $$ > pid.new.$1; mv pid.new.$1 pid.$1; while :; do sleep 600; done"
    client = Client()
    keeper = BlockKeeper([kept(tmp_path, stubborn)], tmp_path / "run", client.send, logging.getLogger("test.blocks"))
    assert keeper.close(1.0)  # never started: nothing to end
    keeper.start()
    pid = manager_pid(client, tmp_path, "cpu-0")
    started = time.monotonic()
    assert keeper.close(30.0)
    assert time.monotonic() - started < 30
    assert not is_alive(pid)
    assert keeper.close(10.0)
    assert client.live == []


def test_closing_does_not_wait_longer_than_it_may_and_says_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor = kept(tmp_path, provider=Deaf())
    client = Client()
    keeper = BlockKeeper([executor], tmp_path / "run", client.send, logging.getLogger("test.blocks"))
    keeper.start()
    pid = manager_pid(client, tmp_path, "cpu-0")
    started = time.monotonic()
    try:
        assert not keeper.close(0.3)
        assert time.monotonic() - started < 10
        assert "cpu-0" in caplog.text
    finally:
        provider = executor.provider
        assert isinstance(provider, Deaf)
        provider.end()
    assert not is_alive(pid)


@dataclass(frozen=True, kw_only=True)
class Deaf(LocalProvider):
    """Does not cancel."""

    def cancel(self, ids: Sequence[str]) -> None:
        pass

    def end(self) -> None:
        ids = list(self._blocks)
        LocalProvider.cancel(self, ids)
        while not all(status.state.terminal for status in self.status(ids).values()):
            time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Refuses(LocalProvider):
    """Takes no block."""

    def submit(self, job: BlockJob) -> str:
        raise OSError("invalid partition 'gppu'")


@dataclass(frozen=True, kw_only=True)
class Blind(LocalProvider):
    """Cannot tell the state of blocks for the first calls."""

    calls: list[int] = field(default_factory=list, init=False, compare=False)

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        self.calls.append(len(ids))
        if len(self.calls) < 4:
            raise OSError("the batch system does not answer")
        return LocalProvider.status(self, ids)


def test_a_provider_that_takes_no_block_fails_its_executor_and_no_other(tmp_path: Path) -> None:
    bad = kept(tmp_path, label="gpu", provider=Refuses())
    with keeping(tmp_path / "run", bad, kept(tmp_path)) as (keeper, client):
        (failure,) = client.until(lambda: client.all(FailExecutor))
        assert failure.executor == "gpu"
        assert "could not be submitted" in failure.reason
        assert "invalid partition 'gppu'" in failure.reason
        keeper.on_manager_up(up("cpu-0"))
        client.until(lambda: phases(keeper)["cpu-0"] is Phase.WORKING)
        assert client.live == ["cpu-0"]


@dataclass(frozen=True, kw_only=True)
class Slow(LocalProvider):
    """Takes its time for each block."""

    def submit(self, job: BlockJob) -> str:
        time.sleep(1.1 * SUBMIT_S)
        return LocalProvider.submit(self, job)


def test_a_provider_that_is_slow_to_take_blocks_holds_up_neither_the_others_nor_the_end(tmp_path: Path) -> None:
    slow = kept(tmp_path, label="slow", provider=Slow(), init_blocks=3)
    with keeping(tmp_path / "run", slow, kept(tmp_path, init_blocks=0)) as (keeper, client):
        keeper.on_load(load(queued=1, label="cpu"))
        client.until(lambda: "cpu-0" in client.live)
        said = [{block.block for block in each.blocks} for each in client.all(LiveBlocks)]
        assert "slow-2" not in next(blocks for blocks in said if "cpu-0" in blocks)
        began = time.monotonic()
    assert time.monotonic() - began < 10 * SUBMIT_S
    assert "slow-2" not in client.live


@dataclass(frozen=True, kw_only=True)
class Noting(LocalProvider):
    """Keeps what it was asked for."""

    jobs: list[BlockJob] = field(default_factory=list, init=False, compare=False)

    def submit(self, job: BlockJob) -> str:
        self.jobs.append(job)
        return LocalProvider.submit(self, job)


def test_a_node_that_has_lost_its_manager_twice_is_named_to_the_provider(tmp_path: Path) -> None:
    provider = Noting()
    with keeping(tmp_path / "run", kept(tmp_path, provider=provider)) as (keeper, client):
        for number in range(2):
            block = f"cpu-{number}"
            pid = manager_pid(client, tmp_path, block)
            keeper.on_manager_up(up(block, node="bad"))
            keeper.on_load(load(queued=1))
            os.kill(pid, signal.SIGKILL)
            keeper.on_manager_down(down(block, node="bad"))
            manager_pid(client, tmp_path, f"cpu-{number + 1}")
        assert [job.exclude_nodes for job in provider.jobs] == [(), (), ("bad",)]


def test_a_provider_that_is_blind_for_a_while_is_asked_again(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path, provider=Blind())) as (keeper, client):
        client.until(lambda: phases(keeper).get("cpu-0") is Phase.RUNNING)
        assert client.all(FailExecutor) == []


def test_a_bug_in_the_keeping_of_one_executor_fails_it_and_not_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = kept(tmp_path, label="gpu", max_blocks=None)  # a limit that no arithmetic can be done with
    with keeping(tmp_path / "run", bad, kept(tmp_path)) as (keeper, client):
        (failure,) = client.until(lambda: client.all(FailExecutor))
        assert failure.executor == "gpu"
        assert "TypeError" in failure.reason
        client.until(lambda: phases(keeper).get("cpu-0") is Phase.RUNNING)
    assert "keeping the blocks of executor 'gpu' failed" in caplog.text


@pytest.mark.parametrize("shown", ["no descriptor", 1 << 30, True])
def test_a_provider_that_shows_the_end_by_no_descriptor_is_asked_for_the_state_and_its_name_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shown: Any
) -> None:
    class Showing(LocalProvider):
        quick_poll_s = poll_s = 0.1

        def end_fd(self, batch_id: str) -> int | None:
            return shown  # type: ignore[no-any-return]

    with keeping(tmp_path / "run", kept(tmp_path, provider=Showing())) as (keeper, client):
        pid = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        os.kill(pid, signal.SIGKILL)
        keeper.on_manager_down(down("cpu-0"))
        client.until(lambda: phases(keeper)["cpu-0"] is Phase.ENDED)
        assert client.all(FailExecutor) == []
    assert "may be seen late: Showing.end_fd" in caplog.text


def test_a_run_with_nothing_to_do_costs_next_to_nothing(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path)) as (keeper, client):
        manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        clock = time.pthread_getcpuclockid(keeper._thread.ident or 0)
        before, began = time.clock_gettime(clock), time.monotonic()
        threading.Event().wait(1.5)  # measured, not waited for
        share = (time.clock_gettime(clock) - before) / (time.monotonic() - began)
        print(f"the keeper used {share:.4%} of a core")
        assert share < 0.01
