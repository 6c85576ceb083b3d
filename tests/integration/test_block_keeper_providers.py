"""The block keeper with providers that refuse, are slow, cannot tell, or are told which nodes to avoid."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pilotflow.core.block_records import BlockStatus, Phase
from pilotflow.messages.client import FailExecutor, LiveBlocks
from pilotflow.providers.base import BlockJob
from pilotflow.providers.local import LocalProvider
from pilotflow.runtime.block_keeper import SUBMIT_S
from tests.integration.block_keeping import down, keeping, kept, load, manager_pid, phases, up
from tests.processes import is_alive


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


@dataclass(frozen=True, kw_only=True)
class Refuses(LocalProvider):
    """Takes no block."""

    def submit(self, job: BlockJob) -> str:
        raise OSError("invalid partition 'gppu'")


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


@dataclass(frozen=True, kw_only=True)
class Blind(LocalProvider):
    """Cannot tell the state of blocks for the first calls."""

    calls: list[int] = field(default_factory=list, init=False, compare=False)

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        self.calls.append(len(ids))
        if len(self.calls) < 4:
            raise OSError("the batch system does not answer")
        return LocalProvider.status(self, ids)


def test_a_provider_that_is_blind_for_a_while_is_asked_again(tmp_path: Path) -> None:
    with keeping(tmp_path / "run", kept(tmp_path, provider=Blind())) as (keeper, client):
        client.until(lambda: phases(keeper).get("cpu-0") is Phase.RUNNING)
        assert client.all(FailExecutor) == []


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
