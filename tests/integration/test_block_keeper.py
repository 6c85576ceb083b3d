"""The block keeper with real local blocks: how they start, fail, are replaced, follow the load, and end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pilotflow.core.block_records import Phase
from pilotflow.messages.client import DrainBlocks, FailExecutor, LiveBlocks
from pilotflow.providers.local import LocalProvider
from pilotflow.runtime.block_keeper import BlockKeeper
from tests.integration.block_keeping import Client, Deaf, down, keeping, kept, load, manager_pid, phases, up
from tests.processes import is_alive


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
def test_no_block_is_submitted_for_an_interchange_that_has_ended(tmp_path: Path) -> None:
    """Its managers, and with them its blocks, may end before the run's program has heard of it."""
    over = threading.Event()
    with keeping(tmp_path / "run", kept(tmp_path), is_over=over.is_set) as (keeper, client):
        pid = manager_pid(client, tmp_path, "cpu-0")
        keeper.on_manager_up(up("cpu-0"))
        keeper.on_load(load(queued=2))
        client.until(lambda: phases(keeper) == {"cpu-0": Phase.WORKING})
        over.set()
        os.kill(pid, signal.SIGKILL)
        client.until(lambda: keeper._kept[0].to_submit)
    assert [script.name for script in (tmp_path / "run/scripts").iterdir()] == ["cpu-0.sh"]


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
