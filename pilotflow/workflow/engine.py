"""Runs a workflow: decides with `core.workflow`, commits to the store, and only then acts.

One thread (`run`) owns the jobs' states. Everything that happens comes into its inbox; a whole batch
is taken, decided and committed in one transaction, and after that results are acknowledged, jobs handed
out and actions begun. So a job is finished when its row is committed, what depends on it starts only
then, and whatever is killed at whatever moment, the next program goes on from the last commit.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pilotflow.core.block_records import KnownBlock
from pilotflow.core.job_states import ENDED, JobState
from pilotflow.core.workflow import JobGraph
from pilotflow.durable_run import DurableRun
from pilotflow.errors import InterchangeLost, PilotflowError
from pilotflow.futures import AppFuture
from pilotflow.messages.client import Instruction, ManagerDown, ManagerUp, Obeyed, Reunited
from pilotflow.messages.records import Status
from pilotflow.runtime.durable_client import DurableClient
from pilotflow.runtime.store import TaskRow
from pilotflow.workflow.action_book import ActionBook
from pilotflow.workflow.asked_blocks import AskedBlocks
from pilotflow.workflow.attempts import Attempts
from pilotflow.workflow.calls import NoValue
from pilotflow.workflow.due import Due
from pilotflow.workflow.fingerprints import encode_prints
from pilotflow.workflow.inbox import ActionEnded, BlocksAre, CancelJobs, Event, Inbox, TasksBegun, TasksEnded, TasksLost
from pilotflow.workflow.orders import Cancelled
from pilotflow.workflow.outcomes import Ended, ended
from pilotflow.workflow.packing import Packer, Parcel, Tries
from pilotflow.workflow.ranges import numbers_in
from pilotflow.workflow.records import Trigger
from pilotflow.workflow.roster import Roster
from pilotflow.workflow.setting import Setting
from pilotflow.workflow.store import JobStore, Restored

S = JobState
RESTARTS_MAX: Final = 5
"""An interchange that is lost so often without any job ending in between is not started again."""
LAST_ACTIONS_S: Final = 300.0
"""Actions that fire when the last managers leave are waited for while one of them ends within this time."""


class Engine:
    """One program's life with a workflow's run.

    Args:
        setting: where and how.
        store: the run's store.
        restored: what the store knows of the jobs.
        log: the program's log.
        perform: begins an action, given its number; it puts an `ActionEnded` into `inbox`.

    Attributes:
        inbox: for whoever has something to say.
        graph: the jobs' states.
        trouble: what is wrong with the infrastructure, if that has ended the run.
        stopped: why it ends before its end, if somebody wants that.
        run: the blocks and links, while there are any.
    """

    def __init__(
        self,
        setting: Setting,
        store: JobStore,
        restored: Restored,
        log: logging.Logger,
        perform: Callable[[int, str], None],
    ) -> None:
        self.setting = setting
        self.inbox = Inbox()
        self.trouble: PilotflowError | None = None
        self.stopped: str | None = None
        self.run: DurableRun | None = None
        self._store = store
        self._log = log
        self._perform = perform
        workflow = setting.workflow
        self._workflow = workflow
        self._jobs = workflow.jobs
        self._tries = Tries.of(restored)
        self._packer = Packer(setting, self._tries)
        self._blocks = restored.blocks
        self._futures: dict[int, AppFuture[Any]] = {}
        self._restarts = 0
        self._epoch = setting.epoch
        self._roster = Roster(restored.managers if setting.reunites else (), setting.at_heads)
        self._actions = ActionBook(workflow.actions, restored.fired)
        self._asked = AskedBlocks(setting.supplies, workflow.actions)
        self._ready: list[int] = []  # to be handed out, besides what becomes ready
        self._instructions: dict[str, Callable[[Sequence[str]], str]] = {
            "cancel": lambda words: self._cancel(numbers_in(words) if words else None).as_text(),
            "schedule": lambda words: self._asked.order(self.run, words),
        }
        self._waiting: list[int] = []  # committed as handed out before there was a run
        self._due = Due()
        self.graph = JobGraph(
            self._jobs,
            workflow.failure_handlers,
            self._actions.job_triggers(),
            use_pending_failed=workflow.use_pending_failed,
            states=restored.states,
            failures=restored.failures,
        )
        self._attempts = Attempts(setting, self.graph, self._tries, self._packer)

    # ---- the life ---------------------------------------------------------------------------

    def live(self) -> None:
        """Run what is left of the workflow; returns when it is over, or was stopped."""
        reunites = self.setting.reunites
        if not reunites:
            self._take_all_back("the run's programs had died")
        self.graph.initialize()
        for number in self._actions.running:  # an action that was cut is carried out again
            self._perform(number, "")
        self._fire(Trigger.ON_WORKFLOW_START)
        self._settle()
        try:
            if reunites or not self._is_over():
                self._open(again=reunites)
            while not self._is_over():
                for event in self.inbox.take(None):
                    self._on(event)
                self._settle()
        except InterchangeLost as error:
            self.trouble = error
        finally:
            self._close()

    def _is_over(self) -> bool:
        if self.stopped is not None or self.trouble is not None:
            return True
        if not self.graph.is_over or self._actions.running:
            return False
        self._fire(Trigger.ON_WORKFLOW_COMPLETE)  # after all others
        self._settle()
        return not self._actions.running

    def _open(self, *, again: bool) -> None:
        """Start what runs the jobs, or go on with what is left of it, and hand out what is ready."""
        blocks, spare = self._blocks if again else None, again and self._restarts < RESTARTS_MAX
        parts = (self._epoch, blocks, self._store, self.inbox, self._know_blocks, self._prepare)
        durable = self.setting.durable(*parts, spare=spare)
        if again and durable.interchange is None:
            self._roster.expect_all()
        try:
            self.run = DurableRun(self.setting.config, durable)
        except InterchangeLost as error:
            if not again:
                raise
            self._restart(error)
            return
        self._asked.ask_again(self.run, self._actions.done, Counter(block.executor for block in durable.blocks))
        waiting, self._waiting = self._waiting, []
        self._submit(waiting)
        self._settle()
        self._reunite()

    def _know_blocks(self, blocks: list[KnownBlock]) -> None:
        self._blocks = tuple(blocks)
        self._store.known_blocks(blocks)
        self.inbox.put(BlocksAre(frozenset(block.name for block in blocks)))

    def _prepare(self, client: DurableClient) -> None:
        """Say what the interchange must know first; of one that was taken over, in the same order as before."""
        self._packer.define(client)
        waiting, again = set(self._waiting), []
        for number, state in enumerate(self.graph.states):
            if state in (S.PENDING, S.RUNNING) and number not in waiting:
                again.append(self._pack(client, number))
        client.submit_again(again)

    def _close(self) -> None:
        """End what runs the jobs. What is out is taken back: it was cut, and may run again."""
        if self.run is not None:
            self.run.close(wait=False)
            self.run = None
        for event in self.inbox.take(0.0):  # what came while it ended
            if isinstance(event, ManagerDown):
                self._on(event)
            for row in event.rows if isinstance(event, TasksEnded) else ():
                if row[3] == Status.OK:  # what failed now was cut by us
                    self._ended(row)
        self._take_all_back(self.stopped or "the run has ended")
        self._roster.dismiss()
        self._commit()
        self._store.known_blocks([])
        for answer in self._due.answers:
            answer()
        while self.stopped is None and self._actions.running and (events := self.inbox.take(LAST_ACTIONS_S)):
            for event in filter(lambda each: isinstance(each, ActionEnded), events):
                self._on(event)

    def _restart(self, error: InterchangeLost) -> None:
        """The interchange is lost: start another, to which managers come with what they run and have kept."""
        self._restarts += 1
        self._log.error("%s Starting another interchange.", error)
        self._store.event("interchange lost", "", str(error))
        if self._restarts > RESTARTS_MAX:
            self.trouble = error
            return
        if self.run is not None:
            self.run.abandon()
        self._futures.clear()
        self._due, self.run = Due(), None
        self._epoch += 1
        self._open(again=True)

    def _reunite(self) -> None:
        if self.run is not None and self._roster.is_reunited():
            self.run.client.say(Reunited())

    def _take_all_back(self, why: str) -> None:
        now = time.time()
        for number, state in enumerate(self.graph.states):
            if state in (S.PENDING, S.RUNNING):
                if state is S.RUNNING:
                    self._attempts.lost(number, why, now)
                self.graph.taken_back(number)
        self.graph.take_ready()  # everything that is ready is to be handed out, whenever it became so
        self._ready = [number for number, state in enumerate(self.graph.states) if state is S.READY]

    # ---- events -----------------------------------------------------------------------------

    def _on(self, event: Event) -> None:
        if isinstance(event, TasksEnded):
            self._due.batches += event.batches
            for row in event.rows:
                self._ended(row)
        elif isinstance(event, TasksBegun):
            for task, _ in event.attempts:
                self.graph.begun(task - 1)
        elif isinstance(event, TasksLost):
            now = time.time()
            for task, wire, how in event.attempts:
                if self.graph.lost(task - 1):
                    self._tries.reached(task - 1, wire)
                    self._attempts.lost(task - 1, how, now)
        elif isinstance(event, CancelJobs):
            self._cancel(event.jobs)
        elif isinstance(event, Instruction):
            self._obey(event)
        elif isinstance(event, ActionEnded):
            self._actions.end(event.number)
            words = self._asked.ask(self.run, event)
            self._store.action_ended(event.number, words)
            self._store.event("action", str(event.number), words)
        elif isinstance(event, ManagerUp):
            if self._roster.joined(event):
                self._fire(Trigger.ON_WORKER_START, event.node)
            self._reunite()
        elif isinstance(event, ManagerDown):
            if not event.refused and self._roster.left(event):
                self._fire(Trigger.ON_WORKER_COMPLETE, event.node)
        elif isinstance(event, BlocksAre):
            self._roster.blocks_are([executor.label for executor in self.setting.config.executors], event.names)
            self._reunite()
        elif isinstance(event, InterchangeLost):
            self._restart(event)
        else:
            self.stopped = event.why

    def _ended(self, row: TaskRow) -> None:
        number = row[0] - 1
        if (future := self._futures.get(number)) is None or not future.done():
            return
        del self._futures[number]
        self._apply(number, ended(future, self._workflow.execution), row)

    def _apply(self, number: int, end: Ended, row: TaskRow) -> None:
        """What the end of an attempt means for its job."""
        self._tries.reached(number, row[2])
        if end.unstartable:
            self.trouble = self.trouble or PilotflowError(end.words)
            self.graph.taken_back(number)
        elif self._attempts.ended(number, end, row):
            self._restarts = 0

    def _obey(self, event: Instruction) -> None:
        try:
            text, done = self._instructions[event.verb](event.words), True
        except (KeyError, ValueError) as error:
            text, done = f"this program cannot {event.verb}: {error}", False

        def answer() -> None:
            if self.run is not None:
                self.run.client.say(Obeyed(event.token, done, text))

        self._due.answers.append(answer)

    def _cancel(self, numbers: Sequence[int] | None) -> Cancelled:
        now, states, before = time.time(), self.graph.states, self.graph.counts[S.CANCELLED]
        chosen = [job for job in (range(len(self._jobs)) if numbers is None else numbers) if states[job] not in ENDED]
        for number in chosen:
            if states[number] in (S.PENDING, S.RUNNING):
                self._attempts.cut(number, "cancelled", "cancelled on request", now)
            self.graph.cancel(number)
        cancelled = Cancelled(len(chosen), self.graph.counts[S.CANCELLED] - before - len(chosen))
        self._due.cancel += [self._futures.pop(job) for job in list(self._futures) if states[job] is S.CANCELLED]
        self._store.event("cancel", "", cancelled.words)
        return cancelled

    # ---- actions ----------------------------------------------------------------------------

    def _fire(self, trigger: Trigger, node: str = "") -> None:
        """Actions whose moment has come."""
        for number in self._actions.due(trigger):
            self._begin_action(number, node)

    def _begin_action(self, number: int, node: str = "") -> None:
        self._actions.begin(number)
        self._attempts.changes.fired.append((number, time.time()))
        self._due.answers.append(lambda: self._perform(number, node))

    # ---- commit, then act -------------------------------------------------------------------

    def _settle(self) -> None:
        """Commit what has happened, and do what follows from it, until nothing follows."""
        while True:
            for number in self.graph.take_fired():
                self._begin_action(number)
            if self.trouble is None and self.stopped is None:
                self._hand_out()
            self._commit()
            due, self._due = self._due, Due()
            if self.run is not None:
                if due.batches:
                    self.run.client.acknowledge(due.batches)
                self._submit(due.submit)
            else:
                self._waiting = [*self._waiting, *due.submit]
            for future in due.cancel:
                future.cancel()
            for answer in due.answers:
                answer()
            if not (self._attempts.has_changes or self._ready):
                return

    def _hand_out(self) -> None:
        """What is ready is to be submitted after the commit that says so."""
        ready, self._ready = [*self._ready, *self.graph.take_ready()], []
        for number in ready:
            if self.graph.states[number] is not S.READY:
                continue
            self._attempts.given_out(number)
            self._due.submit.append(number)
            if inputs := self._jobs[number].input_files:
                paths = [self._workflow.files[file].path for file in inputs]
                self._attempts.changes.inputs.append((number, encode_prints(paths, self.setting.home)))

    def _commit(self) -> None:
        changes = self._attempts.take_changes()
        changes.places = self._roster.take_changes()
        if changes:
            self._store.apply(changes)

    # ---- handing out ------------------------------------------------------------------------

    def _submit(self, numbers: Iterable[int]) -> None:
        run = self.run
        if run is None:
            return
        client = run.client
        for number in numbers:
            if self.graph.states[number] in ENDED:
                continue
            try:
                parcel = self._pack(client, number)
            except NoValue as error:
                self._refuse(number, str(error))
                continue
            try:
                client.submit_try(*parcel)
            except InterchangeLost:
                return  # of which we hear in a moment

    def _pack(self, client: DurableClient, number: int) -> Parcel:
        parcel = self._packer.pack(client, number)
        self._futures[number] = parcel.future
        return parcel

    def _refuse(self, number: int, words: str) -> None:
        """A job cannot be handed out at all."""
        row: TaskRow = (number + 1, self._packer.fn, self._tries.wires[number], 0, 0, 0, 0, 0, 0, None, (), ())
        self._apply(number, Ended(126, cause="exit", words=words, again=False), row)
