"""A workflow's mind: the states of its jobs, what becomes ready, what is tried again, what fires.

It is told what happens to jobs and answers with changes of state. Whoever drives it writes those
down first and acts on them then (`pilotflow.workflow.engine`), so that it can be built anew from what
was written: everything but the states is computed from them.

    UNINITIALIZED -> BLOCKED -> READY -> PENDING -> RUNNING -> COMPLETED | FAILED | TERMINATED
                        |         ^ (given out)  (begun)  |
                        |         +----- another try -----+
                        +-> CANCELLED (something it depends on did not end well)

Jobs that depend on the same jobs wait at one gate, so ten thousand behind ten thousand cost as much
as they are, not their product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pilotflow.core.job_states import ACTIVE, COMPLETE, ENDED, TRANSITIONS, JobState
from pilotflow.core.triggers import Trigger, Triggers

S = JobState


class Rule(Protocol):
    """What a failure handler says about an exit code."""

    @property
    def recovery_script(self) -> str | None:
        """A command before the next attempt."""

    @property
    def max_attempts(self) -> int:
        """Attempts in all."""


class Handler(Protocol):
    """A failure handler."""

    def rule_for(self, exit_code: int) -> Rule | None:
        """The rule for an exit code."""


class JobLike(Protocol):
    """What must be known of a job."""

    @property
    def depends_on(self) -> tuple[int, ...]:
        """Jobs that must have ended first."""

    @property
    def cancel_on_blocking_job_failure(self) -> bool:
        """Whether it is cancelled when one of them does not end well."""

    @property
    def failure_handler(self) -> int | None:
        """Its failure handler's number."""

    @property
    def retries(self) -> int:
        """Further tries after failures that no rule takes."""


class _Gate:
    """Jobs that wait for the same jobs."""

    __slots__ = ("broken", "jobs", "missing")

    def __init__(self) -> None:
        self.jobs: list[int] = []
        self.missing = 0
        self.broken = False


@dataclass(frozen=True)
class Verdict:
    """What an ended attempt means.

    Attributes:
        state: what the attempt was.
        again: whether the job is tried again.
        script: what runs before that.
        why: in words, if it is not tried again although it failed; may be empty.
    """

    state: JobState
    again: bool = False
    script: str | None = None
    why: str = ""


class WrongTransition(AssertionError):
    """A bug of ours: a job was to go where it may not."""


class JobGraph:
    """The states of all jobs of a workflow.

    Args:
        jobs: them, in order.
        handlers: failure handlers, by number.
        triggers: what to fire.
        use_pending_failed: whether failures that no rule takes leave jobs pending.
        states: where the jobs are, from the store; all uninitialized if not given.
        failures: attempts of each job that have failed so far.

    Attributes:
        states: where each job is.
        counts: how many jobs are in each state.
        failures: as above.
    """

    def __init__(
        self,
        jobs: Sequence[JobLike],
        handlers: Sequence[Handler] = (),
        triggers: Iterable[Trigger] = (),
        *,
        use_pending_failed: bool = False,
        states: Sequence[JobState] | None = None,
        failures: Sequence[int] | None = None,
    ) -> None:
        self._jobs = jobs
        self._handlers = handlers
        self._use_pending_failed = use_pending_failed
        self.states: list[JobState] = list(states) if states is not None else [S.UNINITIALIZED] * len(jobs)
        self.failures: list[int] = list(failures) if failures is not None else [0] * len(jobs)
        self.counts: dict[JobState, int] = dict.fromkeys(S, 0)
        for state in self.states:
            self.counts[state] += 1
        self._gates_of: dict[int, list[_Gate]] = {}
        self._gate_before: dict[int, _Gate] = {}
        self._changed: dict[int, None] = {}
        self._ready: list[int] = []
        self._build_gates()
        self._triggers = Triggers(triggers, self.states)

    def __len__(self) -> int:
        return len(self._jobs)

    # ---- what has happened ------------------------------------------------------------------

    def take_changed(self) -> list[int]:
        """Jobs whose state must be written, each once."""
        changed, self._changed = list(self._changed), {}
        return changed

    def take_ready(self) -> list[int]:
        """Jobs that have become ready since the last call, in order."""
        ready, self._ready = self._ready, []
        return [job for job in ready if self.states[job] is S.READY]

    def take_fired(self) -> list[int]:
        """Numbers of triggers that have fired since the last call."""
        return self._triggers.take_fired()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself: everything has ended, or waits for what has not ended well."""
        return not any(self.counts[state] for state in ACTIVE) and not self.counts[S.UNINITIALIZED]

    @property
    def has_succeeded(self) -> bool:
        """Whether every job is completed (or was disabled)."""
        return self.counts[S.COMPLETED] + self.counts[S.DISABLED] == len(self._jobs)

    # ---- events -----------------------------------------------------------------------------

    def initialize(self) -> None:
        """Find out which of the uninitialized jobs are ready, which wait, and which can never run."""
        waiting = [job for job, state in enumerate(self.states) if state is S.UNINITIALIZED]
        for job in waiting:
            self._move(job, S.BLOCKED)
        for job in waiting:
            if self.states[job] is not S.BLOCKED:  # cancelled by a cascade that began at an earlier one
                continue
            gate = self._gate_before.get(job)
            if gate is not None and gate.broken and self._jobs[job].cancel_on_blocking_job_failure:
                self._end(job, S.CANCELLED)
            elif gate is None or not gate.missing:
                self._move(job, S.READY)

    def given_out(self, job: int) -> None:
        """The job was put into the queue."""
        self._move(job, S.PENDING)

    def begun(self, job: int) -> bool:
        """The job runs; False if it does not wait for that (it has ended already, say)."""
        if self.states[job] is not S.PENDING:
            return False
        self._move(job, S.RUNNING)
        return True

    def lost(self, job: int) -> bool:
        """The job's attempt was lost with its worker, and it waits in the queue again; False if it is not out."""
        if self.states[job] is S.RUNNING:
            self._move(job, S.PENDING)
        return self.states[job] is S.PENDING

    def ended(
        self, job: int, exit_code: int, *, terminated: bool = False, again: bool = True, helped: bool = False
    ) -> Verdict | None:
        """An attempt has ended.

        Args:
            job: whose.
            exit_code: 0 is success.
            terminated: it was ended because its time was over.
            again: whether it may be tried again at all.
            helped: what was in its way is out of the way, so that it is tried again in any case.

        Returns what that means, or None if the job is not out: then it has ended before.
        """
        if self.states[job] not in (S.PENDING, S.RUNNING):
            return None
        if exit_code == 0:
            self._end(job, S.COMPLETED)
            return Verdict(S.COMPLETED)
        self.failures[job] += 1
        state = S.TERMINATED if terminated else S.FAILED
        verdict = self._judge(job, exit_code, state) if again and not helped else Verdict(state, again=helped)
        if verdict.again:
            self._move(job, S.READY)
        elif self._use_pending_failed and not verdict.why and again:
            self._move(job, S.PENDING_FAILED)
        else:
            self._end(job, state)
        return verdict

    def cancel(self, job: int) -> bool:
        """End a job that has not ended, wherever it is; False if it has. Those that need it follow."""
        if self.states[job] in ENDED:
            return False
        self._end(job, S.CANCELLED)
        return True

    def taken_back(self, job: int) -> None:
        """The job is not in the queue any more and did not run."""
        if self.states[job] in (S.PENDING, S.RUNNING):
            self._move(job, S.READY)

    def reset(self, jobs: Iterable[int], *, downstream: bool = True) -> list[int]:
        """Let jobs that have ended run again, and what depends on them; returns all of those.

        Whoever calls this calls `initialize` next.
        """
        todo, found = list(jobs), set[int]()
        dependents = self._dependents() if downstream else {}
        while todo:
            job = todo.pop()
            if job in found or self.states[job] in ACTIVE:
                continue
            found.add(job)
            todo += dependents.get(job, ())
        for job in sorted(found):
            self.failures[job] = 0
            if self.states[job] in ENDED:
                self._move(job, S.UNINITIALIZED)
            elif self.states[job] is S.BLOCKED:
                self._set(job, S.UNINITIALIZED)
        self._build_gates()
        return sorted(found)

    def downstream(self, jobs: Iterable[int]) -> set[int]:
        """These jobs and everything that depends on them."""
        dependents = self._dependents()
        found, todo = set[int](), list(jobs)
        while todo:
            job = todo.pop()
            if job not in found:
                found.add(job)
                todo += dependents.get(job, ())
        return found

    # ---- inside -----------------------------------------------------------------------------

    def _judge(self, job: int, exit_code: int, state: JobState) -> Verdict:
        """Whether there is another try, by the job's handler and its own `retries`."""
        which = self._jobs[job].failure_handler
        rule = self._handlers[which].rule_for(exit_code) if which is not None else None
        tried = self.failures[job]
        if rule is not None:
            if tried < rule.max_attempts:
                return Verdict(state, again=True, script=rule.recovery_script)
            return Verdict(state, why=f"tried {tried} times, which is all that its failure handler allows")
        if tried <= self._jobs[job].retries:
            return Verdict(state, again=True)
        return Verdict(state)

    def _build_gates(self) -> None:
        by_identity: dict[int, _Gate] = {}
        self._gates_of, self._gate_before = {}, {}
        for index, job in enumerate(self._jobs):
            needs = job.depends_on
            if not needs:
                continue
            gate = by_identity.get(id(needs))
            if gate is None:
                gate = by_identity[id(needs)] = _Gate()
                for need in needs:
                    state = self.states[need]
                    if state not in COMPLETE:
                        gate.missing += 1
                        self._gates_of.setdefault(need, []).append(gate)
                    elif state is not S.COMPLETED:
                        gate.broken = True
            gate.jobs.append(index)
            self._gate_before[index] = gate

    def _dependents(self) -> dict[int, list[int]]:
        """Who depends on whom, directly. Made when it is asked for: repairs alone need it."""
        found: dict[int, list[int]] = {}
        behind: dict[int, list[int]] = {}  # all jobs behind one tuple are one list
        for index, job in enumerate(self._jobs):
            needs = job.depends_on
            if not needs:
                continue
            known = behind.get(id(needs))
            if known is not None:
                known.append(index)
                continue
            behind[id(needs)] = [index]
        for index, job in enumerate(self._jobs):
            if (group := behind.get(id(job.depends_on))) is not None and group[0] == index:
                for need in job.depends_on:
                    found[need] = found[need] + group if need in found else group
        return found

    def _end(self, job: int, state: JobState) -> None:
        """End a job, and follow what that means for those behind it."""
        todo = [(job, state)]
        while todo:
            job, state = todo.pop()
            if self.states[job] in ENDED:
                continue
            self._move(job, state)
            for gate in self._gates_of.pop(job, ()):
                gate.missing -= 1
                if state is not S.COMPLETED and not gate.broken:
                    gate.broken = True
                    todo += [(one, S.CANCELLED) for one in gate.jobs if self._is_held(one, cancels=True)]
                if not gate.missing:
                    for one in gate.jobs:
                        if self._is_held(one, cancels=False) and not (gate.broken and self._cancels(one)):
                            self._move(one, S.READY)

    def _is_held(self, job: int, *, cancels: bool) -> bool:
        return self.states[job] is S.BLOCKED and (not cancels or self._cancels(job))

    def _cancels(self, job: int) -> bool:
        return self._jobs[job].cancel_on_blocking_job_failure

    def _move(self, job: int, state: JobState) -> None:
        if state not in TRANSITIONS[self.states[job]]:
            raise WrongTransition(f"job {job} from {self.states[job].word} to {state.word}")
        self._set(job, state)
        if state is S.READY:
            self._ready.append(job)
        self._triggers.see(job, state)

    def _set(self, job: int, state: JobState) -> None:
        self.counts[self.states[job]] -= 1
        self.counts[state] += 1
        self.states[job] = state
        self._changed[job] = None
