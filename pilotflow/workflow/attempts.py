"""What becomes of attempts at jobs: the states that follow from it, and the rows that say so."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec

from pilotflow.core.advice import Fact
from pilotflow.core.job_states import JobState
from pilotflow.core.workflow import JobGraph
from pilotflow.runtime.store import TaskRow
from pilotflow.workflow.outcomes import HOW, Ended, cut_row, result_row
from pilotflow.workflow.packing import HELPED_MAX, Packer, Tries
from pilotflow.workflow.setting import Setting
from pilotflow.workflow.store import Changes


class Attempts:
    """Takes attempts as they begin and end, and keeps what is to be committed of them.

    Args:
        setting: where and how the workflow runs.
        graph: the jobs' states.
        tries: what is known of the attempts.
        packer: has jobs ask for more.

    Attributes:
        changes: what has happened since the last commit; whoever else has something to commit adds it here.
    """

    def __init__(self, setting: Setting, graph: JobGraph, tries: Tries, packer: Packer) -> None:
        self._jobs = setting.workflow.jobs
        self._data_number = {each.name: number for number, each in enumerate(setting.workflow.user_data)}
        self._auto_recover = setting.auto_recover
        self._graph = graph
        self._tries = tries
        self._packer = packer
        self._touched: dict[int, None] = {}  # jobs with something to commit besides their states
        self.changes = Changes()

    @property
    def has_changes(self) -> bool:
        """Whether there is something to commit, as far as is known without asking the graph."""
        return bool(self.changes or self._touched)

    def take_changes(self) -> Changes:
        """What is to be committed now."""
        changes, self.changes = self.changes, Changes()
        self._touched.update(dict.fromkeys(self._graph.take_changed()))
        changes.jobs = self._tries.rows(self._touched, self._graph, time.time())
        self._touched = {}
        return changes

    def given_out(self, number: int) -> None:
        """A job is handed out: a new attempt, if the last one ended by itself or there was none."""
        self._graph.given_out(number)
        if number in self._tries.after or not self._tries.attempts[number]:
            self._tries.attempts[number] += 1

    def ended(self, number: int, end: Ended, row: TaskRow) -> bool:
        """An attempt has ended by itself; whether that was still news."""
        now = time.time()
        if end.exit_code and (over := self._tries.spend(self._jobs[number], row[5] / 1e6)):
            end = replace(end, again=False, words=end.words or over)
        helped = self._helped(number, end, row)
        verdict = self._graph.ended(
            number, end.exit_code, terminated=end.terminated, again=end.again, helped=bool(helped)
        )
        if verdict is None:
            return False
        words = end.words
        if helped:
            words = f"{words}\n(tried again: {helped})".strip()
        if verdict.why:
            words = f"{words}\n({verdict.why})".strip()
        self._tries.attempts[number] = attempt = max(self._tries.attempts[number], end.attempt)
        self.changes.results.append(
            result_row(number, attempt, HOW[verdict.state], row, replace(end, words=words), now)
        )
        self._tries.after.pop(number, None)
        if verdict.again:
            self._tries.after[number] = (verdict.script, end.exit_code)
        elif verdict.state is JobState.COMPLETED and end.result is not None:
            self.changes.user_data += self._tries.keep(end.result, self._data_number)
        return True

    def cut(self, number: int, how: str, words: str, now: float) -> None:
        """An attempt has been ended by something else."""
        self.changes.results.append(cut_row(number, self._tries.attempts[number], how, words, now))

    def lost(self, number: int, words: str, now: float) -> None:
        """An attempt was lost and another one follows."""
        self.cut(number, "lost", words, now)
        self._tries.attempts[number] += 1
        self._touched[number] = None

    def _helped(self, number: int, end: Ended, row: TaskRow) -> str:
        """Have a job ask for more if that is what it failed for, where that is wanted; how, or nothing."""
        if not self._auto_recover or not end.again or self._graph.failures[number] >= HELPED_MAX:
            return ""
        advice = self._packer.help(number, Fact(end.cause, end.exit_code, row[8], row[5] / 1e6))
        if advice is None or advice.request is None:
            return ""
        self.changes.requests.append((number, msgspec.msgpack.encode(advice.request), advice.why))
        return advice.why
