"""How a PilotExecutor begins and ends: workers are set up, pending work finishes, forks are refused."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import threading
import traceback
from concurrent.futures import BrokenExecutor, CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import Config, ConfigError, PilotExecutor, RunClosed
from pilotflow.errors import InitializerFailed, SerializationError
from pilotflow.serialize import Packed, pack_call
from tests.integration import call_tasks
from tests.integration.scripts import run_script
from tests.processes import is_alive
from tests.waiting import until


def pool(tmp_path: Path, workers: int = 2, **words: Any) -> PilotExecutor:
    return PilotExecutor(max_workers=workers, run_dir=tmp_path / "runs", **words)


# ---- construction ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "2", True])
def test_a_wrong_number_of_workers_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="max_workers"):
        PilotExecutor(max_workers=wrong)


def test_an_initializer_must_be_callable_and_config_stands_alone() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        PilotExecutor(initializer=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="or config, which has both"):
        PilotExecutor(2, config=Config())


# ---- initializers ---------------------------------------------------------------------------


def test_each_worker_is_set_up_once_and_so_is_its_replacement(tmp_path: Path) -> None:
    log = tmp_path / "log"
    value = call_tasks.Box([1, 2])
    with pool(tmp_path, initializer=call_tasks.set_up, initargs=(value, str(log))) as ex:
        found = [ex.submit(call_tasks.settings).result() for _ in range(20)]
        assert all(one["initialized"] == 1 and one["value"].value == [1, 2] for one in found)
        victim = ex.submit(call_tasks.hold, str(tmp_path / "hold"))
        pid = until(partial(call_tasks.started, str(tmp_path / "hold")))
        assert ex.kill(victim)
        until(lambda: not is_alive(pid))
        holds = [ex.submit(call_tasks.hold, f"{tmp_path}/h{i}") for i in range(2)]
        pids = {until(partial(call_tasks.started, f"{tmp_path}/h{i}")) for i in range(2)}
        for i in range(2):
            call_tasks.let_go(f"{tmp_path}/h{i}")
        assert [future.result() for future in holds] == [f"{tmp_path}/h{i}" for i in range(2)]
    set_up = log.read_text(encoding="ascii").split()
    assert len(set_up) == len(set(set_up)) == 3
    assert pids <= {int(one) for one in set_up}


def test_an_initializer_of_a_script_sets_its_globals_for_all_calls_as_in_a_process_pool(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import functools
        import multiprocessing
        import os
        from concurrent.futures import ProcessPoolExecutor
        import pilotflow as pf

        model = None
        table = {"before": 1}
        kept = 5

        def scaled(x): return x * 10

        def load_model(x):
            global model
            model = scaled(x)

        def set_up(x):
            global fresh
            load_model(x)
            fresh = [x]
            table["x"] = x

        def indirect(): return model

        class Box:
            def __init__(self, y): self.y = y
            def get(self): return model, fresh, self.y

        def read(y): return model, fresh, table, kept, y, indirect(), scaled(y)

        def read_box(box): return box.get(), type(box) is Box

        def answers(pool):
            with pool:
                yield pool.submit(read, 3).result()
                yield list(pool.map(read, range(5), chunksize=2))
                yield pool.submit(read_box, Box(4)).result()
                yield pool.submit(functools.partial(read, 6)).result()

        if __name__ == "__main__":
            spawn = multiprocessing.get_context("spawn")
            theirs = list(answers(ProcessPoolExecutor(1, mp_context=spawn, initializer=set_up, initargs=(7,))))
            ours = list(answers(pf.PilotExecutor(1, initializer=set_up, initargs=(7,))))
            print(ours == theirs, ours[0])
            with pf.PilotExecutor(1, initializer=set_up, initargs=(7,)) as pool:
                print(pool.submit(lambda: (model, fresh)).result(), model)

                def scaled(x): return -x

                print(pool.submit(read, 3).result()[-1])  # later functions are the program's, not the initializer's
        """,
    )
    assert done.stdout.splitlines() == [
        "True (70, [7], {'before': 1, 'x': 7}, 5, 3, 70, 30)",
        "(70, [7]) None",
        "-3",
    ]


def test_a_failing_initializer_breaks_the_pool_with_its_cause(tmp_path: Path) -> None:
    with pool(tmp_path, initializer=call_tasks.set_up_badly) as ex:
        future = ex.submit(call_tasks.same, 1)
        with pytest.raises(InitializerFailed, match="initializer") as caught:
            future.result()
        assert isinstance(caught.value, BrokenExecutor)
        cause = caught.value.__cause__
        assert isinstance(cause, LookupError)
        assert "no licence on this node" in str(cause)
        assert traceback.extract_tb(cause.__traceback__)[-1].name == "set_up_badly"
        with pytest.raises(BrokenExecutor):
            ex.submit(call_tasks.same, 2)


@pytest.mark.parametrize(("way", "how"), [("exit", "exited with code 7"), ("abort", "killed by signal 6 (SIGABRT)")])
def test_an_initializer_that_ends_its_workers_breaks_the_pool_and_says_how(tmp_path: Path, way: str, how: str) -> None:
    with pool(tmp_path, initializer=call_tasks.set_up_deadly, initargs=(way,)) as ex:
        futures = [ex.submit(call_tasks.same, number) for number in range(5)]
        for future in futures:
            with pytest.raises(InitializerFailed, match="10 workers in a row") as caught:
                future.result(60)
            assert how in str(caught.value)
            assert "stderr) ends with:\nlibfoo: no licence on this node\n" in str(caught.value)
            assert isinstance(caught.value, BrokenExecutor)
        with pytest.raises(BrokenExecutor):
            ex.submit(call_tasks.same, 2)


def test_proxies_of_a_multiprocessing_manager_can_be_arguments_and_in_initargs(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared, set_up = manager.dict(), manager.list()
        with pool(tmp_path, initializer=set_up.append, initargs=("ready",)) as ex:
            assert ex.submit(call_tasks.put, shared, "a", 1).result(60) == 1
            assert next(iter(set_up)) == "ready"
        with pool(tmp_path, initializer=call_tasks.append_to, initargs=(set_up, "again")) as ex:
            assert ex.submit(call_tasks.put, shared, "b", 2).result(60) == 2
            assert "again" in list(set_up)
        with pool(tmp_path) as ex:
            assert ex.submit(call_tasks.put, shared, "c", 3).result(60) == 3
        assert dict(shared) == {"a": 1, "b": 2, "c": 3}


def test_a_proxy_without_its_key_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    config = dataclasses.replace(Config.for_this_machine(max_workers=1), run_dir=str(tmp_path), encrypted=False)
    with multiprocessing.get_context("spawn").Manager() as manager, PilotExecutor(config=config) as ex:
        error = ex.submit(call_tasks.put, manager.dict(), "a", 1).exception(60)
        assert isinstance(error, SerializationError)
        assert "made after multiprocessing was imported, with encrypted links" in str(error)


def test_the_key_for_multiprocessing_is_in_no_file_of_the_run(tmp_path: Path) -> None:
    key = bytes(multiprocessing.current_process().authkey)
    with pool(tmp_path) as ex:
        assert ex.submit(call_tasks.has_authkey, key).result(60)
        files = [path for path in ex.run.directory.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if key in path.read_bytes()]


def test_the_key_for_multiprocessing_does_not_travel_if_links_are_not_protected(tmp_path: Path) -> None:
    config = dataclasses.replace(Config.for_this_machine(max_workers=1), run_dir=str(tmp_path), encrypted=False)
    with PilotExecutor(config=config) as ex:
        assert not ex.submit(call_tasks.has_authkey, bytes(multiprocessing.current_process().authkey)).result(60)


# ---- shutdown -------------------------------------------------------------------------------


def test_after_shutdown_nothing_can_be_submitted(tmp_path: Path) -> None:
    ex = pool(tmp_path)
    future = ex.submit(call_tasks.same, 1)
    ex.shutdown()
    assert future.result(0) == 1
    for submit in (
        lambda: ex.submit(pow, 2, 2),
        lambda: ex.map(pow, [1], [1]),
        lambda: ex.map(pow, [1], [1], chunksize=2),
    ):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown") as caught:
            submit()
        assert isinstance(caught.value, RunClosed)
    ex.shutdown()
    ex.shutdown(wait=False, cancel_futures=True)


def test_what_is_refused_after_the_end_is_told_anew_each_time_and_keeps_no_caller_alive(tmp_path: Path) -> None:
    ex = pool(tmp_path)
    pending = ex.submit(call_tasks.hold, str(tmp_path / "never"))
    ex.run.close(wait=False)
    with pytest.raises(RunClosed, match="closed while the task was pending"):
        pending.result()

    def refused() -> RunClosed:
        with pytest.raises(RunClosed, match="is closed and takes no more tasks") as caught:
            ex.submit(pow, 2, 2)
        return caught.value

    first, second = refused(), refused()
    assert first is not second
    assert len(traceback.extract_tb(first.__traceback__)) == len(traceback.extract_tb(second.__traceback__))


def test_shutdown_waits_for_what_is_pending_or_not_as_told(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    ex = pool(tmp_path, 1)
    held, queued = ex.submit(call_tasks.hold, path), ex.submit(call_tasks.same, 2)
    until(partial(call_tasks.started, path))
    ex.shutdown(wait=False)
    assert not held.done()
    with pytest.raises(RuntimeError):
        ex.submit(call_tasks.same, 3)
    call_tasks.let_go(path)
    assert [held.result(), queued.result()] == [path, 2]
    ex.shutdown(wait=True)
    assert repr(ex).endswith("closed>>")


def test_shutdown_can_cancel_what_has_not_started(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    ex = pool(tmp_path, 1)
    held = ex.submit(call_tasks.hold, path)
    until(partial(call_tasks.started, path))
    waiting = [ex.submit(call_tasks.same, i) for i in range(20)]
    dependent = ex.submit(call_tasks.same, held)
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in [*waiting, dependent])
    with pytest.raises(CancelledError):
        waiting[0].result()
    call_tasks.let_go(path)
    assert held.result() == path
    ex.shutdown()


def test_a_pool_that_nobody_holds_ends_after_its_work(tmp_path: Path) -> None:
    ex = pool(tmp_path)
    future, run = ex.submit(call_tasks.pid), ex.run
    worker = future.result()
    del ex
    gc.collect()
    until(lambda: not run.is_open and not is_alive(worker), "the end of the pool")


def test_leaving_the_block_finishes_the_work(tmp_path: Path) -> None:
    with pool(tmp_path) as ex:
        futures = [ex.submit(call_tasks.add, i, 1) for i in range(100)]
    assert [future.result(0) for future in futures] == list(range(1, 101))


# ---- forks ----------------------------------------------------------------------------------


def test_use_after_a_fork_is_refused_with_words(tmp_path: Path) -> None:
    with pool(tmp_path) as ex:
        pending = ex.submit(call_tasks.hold, str(tmp_path / "hold"))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = "nothing"
            try:
                ex.submit(call_tasks.same, 1)
            except RuntimeError as error:
                said = str(error)
            ex.shutdown(cancel_futures=True)
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        os.waitpid(child, 0)
        assert "forked" in said
        call_tasks.let_go(str(tmp_path / "hold"))
        assert pending.result()
        assert ex.submit(call_tasks.same, 1).result() == 1


# ---- the program's end ----------------------------------------------------------------------


WORK = """
    import os, time
    from pilotflow import PilotExecutor

    def work(i):
        while not os.path.exists("ending"):
            time.sleep(0.01)
        with open("done", "a") as file:
            file.write(f"{i}\\n")
        return i

    if __name__ == "__main__":
        ex = PilotExecutor(max_workers=2)
        futures = [ex.submit(work, i) for i in range(6)]
        open("ending", "x").close()  # nothing ends before the program does
"""


@pytest.mark.parametrize(
    "end",
    ["", "        ex.shutdown(wait=False)\n", "        del ex\n", "        import sys; sys.exit(0)\n"],
    ids=["just ends", "shut down without waiting", "forgotten", "sys.exit"],
)
def test_a_program_that_ends_finishes_its_work(tmp_path: Path, end: str) -> None:
    done = run_script(tmp_path, "\n".join([*(line[4:] for line in WORK.splitlines()), end[4:]]))
    assert done.stderr == ""
    assert sorted((tmp_path / "done").read_text().split()) == [str(i) for i in range(6)]


def test_a_program_may_use_threads_to_submit_and_end(tmp_path: Path) -> None:
    with pool(tmp_path) as ex:
        threads = [threading.Thread(target=lambda: ex.submit(call_tasks.same, 1).result()) for _ in range(8)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()


def test_a_task_submitted_in_the_moment_in_which_the_run_ends_ends_too(tmp_path: Path) -> None:
    class EndsTheRun(Packed):
        """Arguments that are looked at between the check whether the run is open and the submission."""

        def __getattribute__(self, name: str) -> Any:
            if name == "layout":
                run.close(wait=False)
            return super().__getattribute__(name)

    run = pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path))
    app = pf.python_app(len)
    assert app("four").result(60) == 4
    future: pf.AppFuture[int] = pf.AppFuture(run.client.new_id(), "len", run.client, 1)
    run.client.submit(future, 1, 1, EndsTheRun(*pack_call(("four",), {}, [])))
    with pytest.raises(pf.RunClosed):
        future.result(60)
