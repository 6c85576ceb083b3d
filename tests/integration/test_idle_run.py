"""An idle run sleeps: real processes, whose threads are counted as they go to sleep."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from pilotflow import python_app
from tests.integration.faults import processes_of, running
from tests.waiting import until

WINDOW_S = 8.0
WAKES_MAX = 9
"""A round of signs of life of client, interchange and manager may fall into a window; it makes about six."""


def sleeps(pids: list[int]) -> int:
    """How often threads of the run have gone to sleep so far: of these processes, and ours in this one."""
    ours = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("pilotflow-")]
    threads = [Path(f"/proc/self/task/{id}") for id in ours]
    threads += [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    texts = [(thread / "status").read_text(encoding="utf-8", errors="replace") for thread in threads]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)[0]) for text in texts)


@python_app
def square(x: int) -> int:
    return x * x


def test_an_idle_run_wakes_for_signs_of_life_alone(tmp_path: Path) -> None:
    """The best of some windows: whatever else the machine does, nothing of the run may wake in each of them."""
    with running(tmp_path, heartbeat_limit=3600) as run:
        assert [future.result() for future in [square(i) for i in range(20)]] == [i * i for i in range(20)]
        pids = list(processes_of(run.directory, run.run_id))
        seen: list[int] = []

        def sleeps_well() -> bool:
            before = sleeps(pids)
            time.sleep(WINDOW_S)  # what is counted is what happens in it
            seen.append(sleeps(pids) - before)
            return seen[-1] <= WAKES_MAX

        until(sleeps_well, f"a window of {WINDOW_S:g} s with at most {WAKES_MAX} wakes; there were {seen}")
