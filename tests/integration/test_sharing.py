"""Values that many tasks take travel to each node once, and go when nobody needs them any more."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pilotflow as pf
from tests.integration.scripts import run_script
from tests.waiting import until

MIB = 1 << 20


@pytest.fixture
def run(tmp_path: Path) -> Iterator[pf.Run]:
    config = pf.Config(
        run_dir=tmp_path / "runs",
        executors=[pf.ExecutorConfig(provider=pf.LocalProvider(nodes_per_block=2), max_workers_per_node=1)],
    )
    with pf.load(config) as run:
        yield run


def shared_files(run: pf.Run) -> list[Path]:
    directory = run.directory / "shared"
    return list(directory.iterdir()) if directory.exists() else []


def memory_of_this_process() -> dict[str, int]:
    """Bytes, by the kernel's word for them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split()[0].rstrip(":"): int(line.split()[1]) * 1024 for line in lines}


@pf.python_app
def use(array: Any, _: int) -> tuple[float, int, int, int]:
    total = float(array[::512].sum())  # touches every page
    memory = memory_of_this_process()
    maps = {
        line.split()[4]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "/shared/" in line or "-node-" in line
    }
    (inode,) = maps
    return total, os.getpid(), memory["Anonymous"], int(inode)


@pf.python_app
def idle_memory() -> int:
    return memory_of_this_process()["Anonymous"]


@pf.python_app
def size(value: Any) -> int:
    return len(value)


@pytest.mark.parametrize("node_copy", [False, True])
@pytest.mark.parametrize(
    ("count", "mib"), [(60, 32), pytest.param(1000, 200, marks=pytest.mark.soak)], ids=["sample", "full"]
)
def test_tasks_that_take_a_big_array_move_it_once_and_hold_no_copies(
    run: pf.Run, count: int, mib: int, node_copy: bool, record_property: Callable[[str, object], None]
) -> None:
    record_property("count", count)
    array: Any = np.arange(mib * MIB // 8, dtype="f8")
    idle = max(future.result() for future in [idle_memory() for _ in range(4)])
    written = int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])
    shared = pf.share(array, node_copy=node_copy)
    results = [future.result() for future in [use(shared, number) for number in range(count)]]
    written = int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0]) - written
    print(f"{count} tasks that take {mib} MiB: {written / MIB:.1f} MiB written by the program")
    print(
        f"memory of a worker's own: {max(anonymous for _, _, anonymous, _ in results) / MIB:.1f} MiB, idle {idle / MIB:.1f}"
    )
    assert {total for total, *_ in results} == {float(array[::512].sum())}
    assert mib * MIB <= written < (mib + 8) * MIB
    assert all(anonymous < idle + 16 * MIB for _, _, anonymous, _ in results)
    assert len({inode for *_, inode in results}) == 1, "all workers of this host map one file"


def test_a_value_goes_when_the_program_and_its_tasks_have_let_go_of_it(run: pf.Run, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    @pf.python_app
    def later(value: Any, flag: str) -> int:
        deadline = time.monotonic() + 60
        while not os.path.exists(flag) and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(value)

    waiting = later(pf.share(list(range(5000))), str(flag))
    dependent = size.options()([waiting, pf.share("x" * 50_000)])
    gc.collect()
    assert len(shared_files(run)) == 2
    flag.touch()
    assert waiting.result() == 5000
    assert dependent.result() == 2
    until(lambda: not shared_files(run))


def test_equal_values_are_one_and_it_can_be_shared_again(run: pf.Run) -> None:
    one, other = pf.share(np.ones(5000)), pf.share(np.ones(5000))
    assert one is other
    assert len(shared_files(run)) == 1
    assert size(one).result() == 5000
    del one, other
    gc.collect()
    until(lambda: not shared_files(run))
    assert size(pf.share(np.ones(5000))).result() == 5000


def test_values_are_found_anywhere_in_arguments_and_here_too(run: pf.Run) -> None:
    shared = pf.share(np.arange(5000))

    @pf.python_app
    def total(parts: dict[str, list[Any]]) -> int:
        return int(sum(part.sum() for part in parts["arrays"]))

    assert total({"arrays": [shared, shared]}).result() == 2 * np.arange(5000).sum()
    np.testing.assert_array_equal(shared.result(), np.arange(5000))
    assert size(shared).result() == 5000, "it stays shared when it has been looked at"
    assert repr(shared).startswith("<Shared ndarray of 39.")


def test_shared_memory_does_not_count_as_the_task_s_own(run: pf.Run) -> None:
    @pf.python_app(memory="60m")
    def slow(array: Any) -> float:
        total = float(array[::512].sum())
        time.sleep(1.5)  # several looks of the watch
        return total

    array = np.ones(100 * MIB // 8)
    assert slow(pf.share(array)).result() == float(array[::512].sum())


def test_calls_with_shared_values_can_be_cached(run: pf.Run) -> None:
    app = pf.python_app(cache=True)(lambda array: float(array.sum()))
    first = app(pf.share(np.ones(5000)))
    first.result()
    assert pf.why_not_cached(app(pf.share(np.ones(5000)))).cached
    assert not pf.why_not_cached(app(pf.share(np.ones(5001)))).cached


def test_a_value_of_a_run_that_has_ended_is_told(tmp_path: Path, run: pf.Run) -> None:
    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "others")
    with pf.load(config) as other:
        shared = pf.share(np.ones(6000))
        assert size(shared).result() == 6000
    assert not shared_files(other)
    with pytest.raises(
        pf.SerializationError, match=r"shared ndarray of 47.0 KiB is not there any more.*share it again"
    ):
        size(shared).result()


def test_what_cannot_be_shared_is_told(run: pf.Run) -> None:
    with pytest.raises(pf.SerializationError, match="share: a generator cannot be sent to workers"):
        pf.share(number for number in range(3))
    with pytest.raises(pf.ConfigError, match=r"share takes a value, and .* is a future"):
        pf.share(size([1]))
    with pytest.raises(pf.ConfigError, match="node_copy"):
        pf.share(1, node_copy="yes")  # type: ignore[arg-type]


def test_nothing_is_left_on_the_node_after_a_run(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=2, run_dir=tmp_path / "others")) as run:
        shared = pf.share(np.ones(6000), node_copy=True)
        assert size(shared).result() == 6000
        (copy,) = Path("/tmp", f"pilotflow-node-{os.getuid()}").glob(f"*/{shared.digest}")
    assert not copy.parent.exists()
    assert not (run.directory / "shared").exists()


def test_nothing_is_left_of_a_program_that_was_killed(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        import pilotflow as pf

        @pf.python_app
        def size(value):
            return len(value)

        if __name__ == "__main__":
            with pf.load(pf.Config.for_this_machine(max_workers=1)):
                shared = pf.share("x" * 100_000, node_copy=True)
                print(size(shared).result(), shared.digest, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_script(tmp_path, program, check=False)
    size, digest = done.stdout.split()
    assert size == "100000"
    until(lambda: not list((tmp_path / "runs").glob("*/shared")))
    until(lambda: not list(Path("/tmp").glob(f"pilotflow-node-*/*/{digest}")))
