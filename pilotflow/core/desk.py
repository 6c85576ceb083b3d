"""The interchange's front desk: it answers other terminals.

What only the run's program or a manager knows is asked of them first. Whoever does not answer in
time is left out, and the answer says so: every question is answered.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from pilotflow.core import explain
from pilotflow.core.alike import choose
from pilotflow.core.checks import tell_passed_over
from pilotflow.core.fleet import Fleet
from pilotflow.core.inquiries import ANSWER_S, INQUIRIES_MAX, MOVES_MAX, Inquiry
from pilotflow.core.peers import load_of
from pilotflow.explanation import Explanation, Named
from pilotflow.messages.client import Instruction, Load, LookUp, Obeyed
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.control import (
    ControlMessage,
    Explained,
    ExplainTask,
    Instruct,
    Instructed,
    StatusQuery,
    StatusReport,
    ToControl,
)
from pilotflow.messages.manager import WhereIs
from pilotflow.messages.records import Refused, Task
from pilotflow.messages.views import ClientView, Whereabouts

NAME_MAX: Final = 1000
"""Characters of a task's name."""


class Desk(Fleet):
    """What other terminals ask of an interchange."""

    def on_control(self, key: Hashable, messages: Sequence[ControlMessage], now: float) -> None:
        """Another terminal asks something.

        Raises:
            BadMessage: some of it makes no sense, and alone was passed over.
        """
        bad = [BadMessage("several questions in one letter")] * (len(messages) - 1)  # short ones, with long answers
        for message in messages[:1]:
            try:
                if isinstance(message, StatusQuery):
                    self._report(key, now)
                elif isinstance(message, Instruct):
                    self._instruct(key, message)
                else:
                    self._inquire(key, message, now)
            except BadMessage as error:
                bad.append(error)
        tell_passed_over(bad)

    def _report(self, key: Hashable, now: float) -> None:
        load = self._load_now(now)
        self._reply(key, StatusReport(self.run_id, self.pid, load.executors, load.blocks, self.dropped))

    def _reply(self, key: Hashable, message: ToControl) -> None:
        """Answer another terminal. It asks one thing and goes, which is not heard over TCP: nothing of it is kept."""
        self._send(key, message)
        self._lost.append(key)

    def _load_now(self, now: float) -> Load:
        scheduler = self.scheduler
        classes, held = scheduler.classes.values(), self.recovery.held
        return load_of(self.peers.values(), classes, scheduler.durations, self._draining, held, now)

    def _instruct(self, key: Hashable, message: Instruct) -> None:
        if self.client is None:
            self._reply(key, Refused("the run's program is gone. Go on with the run: pilotflow resume"))
            return
        if len(self._instructions) >= INQUIRIES_MAX:
            self._reply(key, Refused(f"{INQUIRIES_MAX} instructions wait for the program already; try again later"))
            return
        self._instructed += 1
        self._instructions[self._instructed] = (key, message.token)
        self._send_client(Instruction(self._instructed, message.verb, message.words))

    def _obeyed(self, message: Obeyed) -> None:
        """The program has done, or refused, what another terminal wanted."""
        key, token = self._instructions.pop(message.token, (None, 0))
        if key is not None:
            self._reply(key, Instructed(token, message.done, message.text))

    def _inquire(self, key: Hashable, message: ExplainTask, now: float) -> None:
        if len(message.task) > NAME_MAX:
            raise BadMessage("a task's name of such a length")
        if len(self.inquiries) >= INQUIRIES_MAX:
            self._reply(key, Refused(f"{INQUIRIES_MAX} questions wait for their answers already; ask again later"))
            return
        number = self.inquiries.add(key, message.token, message.task, now)
        self._send_client(LookUp(number, message.task))

    def on_hang_up(self, key: Hashable, now: float) -> None:
        """A peer's connection has closed, which happens when its process ends."""
        self.inquiries.forget(key)
        if key == self.client:
            for asker, _ in self._instructions.values():
                self._reply(asker, Refused("the run's program has ended meanwhile"))
            self._instructions.clear()
        self._instructions = {number: ask for number, ask in self._instructions.items() if ask[0] != key}
        super().on_hang_up(key, now)

    def _answer_inquiries(self, now: float) -> None:
        """Answer what can be answered, and ask managers about what they hold; call it after scheduling."""
        self.scheduler.settle()  # nothing is scheduled while the program is behind
        for number, inquiry in self.inquiries:
            try:
                answer = self._answer(number, inquiry, now)
            except Exception as error:  # noqa: BLE001  a question must not end the run
                self.inquiries.close(number)
                self._reply(inquiry.key, Refused(f"a bug of pilotflow: {error!r}. Please report it."))
                continue
            if answer is not None:
                self.inquiries.close(number)
                self._reply(inquiry.key, Explained(inquiry.token, answer))

    def _answer(self, number: int, inquiry: Inquiry, now: float) -> Explanation | None:
        """The answer; None if there is somebody to wait for."""
        if not inquiry.has_view and now < inquiry.due and self.client is not None:
            return None
        inquiry.has_view = True
        if inquiry.view is not None and not inquiry.chosen:
            inquiry.chosen, inquiry.view = True, choose(inquiry.view, self.scheduler)
        view = inquiry.view
        subject = view.subject if view is not None else Named(_number(inquiry.task), "")
        task = self.scheduler.find(subject.task)
        leased = task if task is not None and task.manager and not self.gatherings.missing(task.id) else None
        if leased is not None and self._must_wait(number, inquiry, leased, now):
            return None
        answer = self._of_task(subject, task, inquiry, now)
        if view is None:
            answer = answer or explain.explain_unheard(inquiry.task)
            silent = explain.silent_client(self._program, ANSWER_S if self.client is not None else None)
            return explain.with_note(answer, silent, first=True)
        if view.chain:
            answer = explain.explain_waiting(view, answer)
        if answer is None:
            return explain.explain_unknown(inquiry.task, view.names)
        if view.alike > 1:
            return explain.with_note(answer, explain.alike(inquiry.task, view.alike, answer.state))
        return answer

    def _must_wait(self, number: int, inquiry: Inquiry, task: Task, now: float) -> bool:
        """Whether to wait for the manager that holds the task; asks it, if that was not done."""
        about = (task.manager, task.id, task.attempt)
        if inquiry.asked != about and inquiry.asks < MOVES_MAX:
            inquiry.asked, inquiry.place, inquiry.due = about, None, now + ANSWER_S
            inquiry.asks += 1
            self._send(self.by_id[task.manager].key, WhereIs(number, task.id, task.attempt))
        return inquiry.asked == about and inquiry.place is None and now < inquiry.due

    def _of_task(self, subject: Named, task: Task | None, inquiry: Inquiry, now: float) -> Explanation | None:
        """What can be said of one task; None if it is not known."""
        id, name, view = subject.task, subject.name, inquiry.view
        if task is not None:
            facts = self._facts(task, view, now)
            manager = self.scheduler.holder(id)
            if manager is None:
                return explain.explain_queued(self.scheduler, task, name, facts, now)
            moving = inquiry.asked != (manager.id, id, task.attempt)
            place = Whereabouts(held=False) if moving else inquiry.place
            return explain.explain_leased(self.scheduler, task, name, manager, place, facts)
        if id in self.recovery:
            return explain.explain_restart(id, name)
        if view is None or not id:
            return None
        if view.here:
            return explain.explain_here(id, name, view)
        return explain.explain_held_back(id, name) if view.held_back else explain.explain_ended(id, name)

    def _facts(self, task: Task, view: ClientView | None, now: float) -> explain.Facts:
        peer = self.by_id.get(task.manager)
        return explain.Facts(
            view,
            self._hope.failed,
            self.outbox.unacknowledged if self.outbox.full else 0,
            self._history.get(task.id, ()),
            task.id in self.cancels,
            self.gatherings.missing(task.id),
            now - peer.last_seen if peer is not None else 0.0,
            self._hope.misfits(self.scheduler.classes[task.cls]),
        )


def _number(task: str) -> int:
    return int(task) if task.isascii() and task.isdecimal() and len(task) < 19 else 0
