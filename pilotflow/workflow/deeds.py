"""Carries out a run's actions: commands on this host, and blocks that are asked for.

Commands of an action run one after another in the run directory, in a thread of their own. What fails is
recorded and fails nothing else: neither the other commands nor the run.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pilotflow.providers.processes import Ending
from pilotflow.units import counted
from pilotflow.workflow.inbox import ActionEnded
from pilotflow.workflow.records import Action, Deed

if TYPE_CHECKING:
    from typing_extensions import Self

    from pilotflow.workflow.setting import Setting

AT_ONCE: Final = 8
END_POLL_S: Final = 0.05


class Deeds:
    """Does what actions say. Use it in a `with` block: leaving it ends commands that run.

    Args:
        setting: of the run.
        log: the run's.

    Attributes:
        tell: takes an `ActionEnded` for each `perform`.
    """

    def __init__(self, setting: Setting, log: logging.Logger) -> None:
        self.tell: Callable[[ActionEnded], None] = lambda _: None
        self._setting = setting
        self._log = log
        self._threads = ThreadPoolExecutor(AT_ONCE, "pilotflow-actions")
        self._beginning = threading.Lock()  # a command begins before `_over`, and is in `_running`, or does not
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def perform(self, number: int, node: str) -> None:
        """Begin an action; `node` is whose manager has come or gone, if that is why."""
        self._threads.submit(self._perform, number, node)

    def _perform(self, number: int, node: str) -> None:
        action = self._setting.workflow.actions[number]
        try:
            words = self._do(number, action, node)
        except Exception as error:  # noqa: BLE001  the thread's top: the run waits for this word
            self._log.exception("action %d failed", number)
            words = f"failed: {error!r}"
        self.tell(ActionEnded(number, words))

    def _do(self, number: int, action: Action, node: str) -> str:
        if action.deed is Deed.SCHEDULE_NODES:
            return self.schedule(action)
        env = {
            **os.environ,
            "TORC_WORKFLOW_ID": self._setting.number,
            "TORC_OUTPUT_DIR": str(self._setting.directory),
            "PILOTFLOW_RUN_DIR": str(self._setting.directory),
            "PILOTFLOW_WORKFLOW": self._setting.workflow.name,
            "PILOTFLOW_NODE": node,
        }
        failed: list[str] = []
        output = self._setting.directory / f"action-{number}.log"
        for command in action.commands:
            process = self._begin(command, env, output)
            if process is None:
                return "cut: the run's program ended"
            try:
                code = process.wait()
            finally:
                self._running.discard(process)
            self._log.info("action %d: `%s` ended with exit code %d", number, command, code)
            if code:
                failed.append(f"`{command}` failed with exit code {code}")
        return f"{'; '.join(failed)}; see {output}" if failed else "done"

    def _begin(self, command: str, env: dict[str, str], output: Path) -> subprocess.Popen[bytes] | None:
        """Start a command; None if it is too late for that."""
        with self._beginning, open(output, "ab") as file:
            if self._over:
                return None
            process = subprocess.Popen(
                ["/bin/bash", "-c", command],
                cwd=self._setting.home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            self._running.add(process)
        return process

    def schedule(self, action: Action) -> str:
        """Say what is asked for; the engine asks when it hears that this has been carried out."""
        label = self._setting.supplies.of_action(action)
        if label is None:
            return "nothing to do: the run does not use this scheduler"
        return f"{counted(action.num_allocations, 'block')} of executor '{label}' asked for"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._beginning:
            self._over = True
            endings = [Ending(process.pid, time.monotonic()) for process in self._running]
        while endings := [ending for ending in endings if not ending.step(time.monotonic())]:
            time.sleep(END_POLL_S)
        self._threads.shutdown(wait=True, cancel_futures=True)
