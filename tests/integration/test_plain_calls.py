"""A plain call pays for no feature that it does not use: what is called for it is counted, so the machine's pace is not."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pilotflow as pf
from pilotflow.app_calls import PLAIN, Manner
from pilotflow.app_options import AppOptions
from pilotflow.resources import DEFAULT_REQUEST

CALLS = 200
HOME = str(Path(pf.__file__).parent)
OF_A_SUBMIT = {
    "apps.py:__call__",
    "apps.py:_current_run",
    "current.py:current_run",
    "run.py:is_open",
    "runtime/client.py:new_id",
    "lazy_future.py:__init__",
    "apps.py:_submit",
    "serialize.py:pack_call",
    "runtime/client.py:submit",
}
"""Each once. One more function is a tenth of the time of a submit: it should be worth that to those who do not use it."""
OF_FEATURES = (
    "app_caching.py",
    "app_calls.py",
    "app_options.py",
    "app_output.py",
    "blame.py",
    "caching/",
    "display.py",
    "files.py",
    "future_errors.py",
    "joins.py",
    "remote_errors.py",
    "runtime/ends.py",
    "runtime/file_staging.py",
    "runtime/local_book.py",
    "runtime/shared_files.py",
    "runtime/thread",
    "sharing.py",
)
"""Modules that a plain task has no business in, from its submission to its result."""


def nothing() -> None: ...


class Calls:
    """Counts calls of pilotflow's functions in the threads that it is told of."""

    def __init__(self) -> None:
        self.counting = False
        self.seen: Counter[str] = Counter()

    def of_tasks(self) -> dict[str, int]:
        """What was called for every task, not now and then."""
        return {name: count for name, count in self.seen.items() if count >= CALLS // 2}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and self.counting and code.co_filename.startswith(HOME):
            self.seen[f"{code.co_filename[len(HOME) + 1 :]}:{code.co_name}"] += 1


def test_a_plain_call_costs_nine_functions_and_none_of_a_feature(tmp_path: Path) -> None:
    ours, loops, app = Calls(), Calls(), pf.python_app(nothing)
    threading.setprofile(loops)  # of the client loop, the store and the block keeper, which start now
    try:
        run = pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path), progress=False)
    finally:
        threading.setprofile(None)
    with run:
        app().result()
        ours.counting = loops.counting = True
        sys.setprofile(ours)
        futures = [app() for _ in range(CALLS)]
        sys.setprofile(None)
        assert ours.of_tasks() == dict.fromkeys(OF_A_SUBMIT, CALLS)
        assert [future.result() for future in futures] == [None] * CALLS
        loops.counting = False
        of_loop = loops.of_tasks()
        assert of_loop["runtime/task_book.py:add"] == CALLS, "the loop was looked at"
        assert [name for name in of_loop if name.startswith(OF_FEATURES)] == []
        assert sum(of_loop.values()) < 12 * CALLS, of_loop


def test_a_plain_app_s_function_travels_as_it_is_with_the_request_of_all_plain_apps() -> None:
    manner = Manner(nothing, "nothing", False, AppOptions())
    assert manner.shape_of((), {}) == (PLAIN, {})
    assert not manner.always_special
    assert manner.wrapped(PLAIN) is nothing
    assert AppOptions().request is DEFAULT_REQUEST
    assert AppOptions().policy(0, 0.0, None) is None, "nothing is kept to try it again"
