"""Keeps the blocks of a run: one thread that acts for the scaling cores of all executors.

It turns what the interchange reports and what providers say into events for each executor's
`BlockScaler`, and does what that decides: submits, drains, cancels, or fails the executor with the
block's own words. It decides nothing itself. All state belongs to the thread; other threads put
events into its queue and read the last published description.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pilotflow.core.block_records import (
    BlockInfo,
    BlockLimits,
    CancelBlock,
    DrainBlock,
    DropBlock,
    GiveUp,
    KnownBlock,
    Outlook,
    Phase,
    RequestBlock,
)
from pilotflow.core.blocks import BlockScaler
from pilotflow.core.scaling import Planner, Queue, Supply
from pilotflow.errors import PilotflowError
from pilotflow.messages.client import (
    BlocksEnd,
    ClientMessage,
    DrainBlocks,
    DropBlocks,
    FailExecutor,
    Load,
    ManagerDown,
    ManagerUp,
)
from pilotflow.messages.records import BlockLoad
from pilotflow.providers.base import Provider, SubmitLater, SubmitRefused
from pilotflow.runtime import own_threads
from pilotflow.runtime.block_announcer import Announcer
from pilotflow.runtime.block_job import block_job
from pilotflow.runtime.block_output import why_no_start
from pilotflow.runtime.kept import Ask, Kept, KeptExecutor, log_changes
from pilotflow.runtime.loop import Loop

__all__ = ["BlockInfo", "BlockKeeper", "BlockLimits", "KeptExecutor"]

LOOK_S: Final = 60.0
"""Longest time between two looks at what is due, though nothing is."""
SUBMIT_S: Final = 1.0
"""After so long in a provider's `submit` the other executors have their turn, and whoever wants to close."""
CLOSE_POLL_S: Final = 0.05


Event: TypeAlias = Load | ManagerUp | ManagerDown | Ask


@dataclass(frozen=True)
class _Close:
    deadline: float
    spare: bool = False  # the blocks: somebody else goes on with them


class BlockKeeper:
    """Starts, watches, drains and ends the blocks of all executors of a run.

    Args:
        executors: what to keep.
        run_dir: the run's directory; scripts go to `scripts/`, output to `blocks/BLOCK/`.
        send: hands a message to the interchange; called from the keeper's thread.
        log: gets one line for each change of a block's state.
        environment: variables that mark the processes of the run's blocks.
        run_id: the run's name.
        adopted: blocks that there are from an earlier life of the run.
        known: told which blocks exist, whenever that has changed, in the keeper's thread.
        spare: whether there is another try if the run cannot be started.
        if_killed: told the commands that would cancel all batch jobs, before there may be another one.
        is_over: whether the run's interchange has ended. Its managers end with it, and new ones could not work.
    """

    def __init__(
        self,
        executors: Sequence[KeptExecutor],
        run_dir: Path,
        send: Callable[[ClientMessage], None],
        log: logging.Logger,
        environment: Mapping[str, str] | None = None,
        run_id: str = "",
        adopted: Sequence[KnownBlock] = (),
        known: Callable[[list[KnownBlock]], object] = len,
        if_killed: Callable[[list[tuple[str, ...]]], object] | None = None,
        spare: bool = False,
        is_over: Callable[[], bool] = bool,
    ) -> None:
        self._spare = spare
        self._is_over = is_over
        self._run_id = run_id
        self._environment = environment or {}
        self._loop = Loop()
        self._kept = [Kept(each, BlockScaler(each.label, each.limits), self._loop, log) for each in executors]
        for kept in self._kept:
            kept.adopt([block for block in adopted if block.executor == kept.executor.label], run_dir / "blocks", log)
        self._planner = Planner()
        self._queue = Queue()
        self._run_dir = run_dir.absolute()
        self._log = log
        self._announcer = Announcer(self._kept, send, known, if_killed, log, adopted=bool(adopted))
        self._events: deque[Event | _Close] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._bell)
        self._loop.add_bell(self._bell)
        self._closing: _Close | None = None
        self._infos: tuple[BlockInfo, ...] = ()
        self._outlooks: tuple[Outlook, ...] = ()
        self._thread = threading.Thread(target=self._run, name="pilotflow-blocks", daemon=True)

    # ---- called from any thread -------------------------------------------------------------

    def start(self) -> None:
        """Begin, with the initial blocks."""
        own_threads.start(self._thread)

    def on_load(self, load: Load) -> None:
        """The interchange says how much there is to do."""
        self._put(load)

    def on_manager_up(self, event: ManagerUp) -> None:
        """A manager has joined."""
        self._put(event)

    def on_manager_down(self, event: ManagerDown) -> None:
        """A manager has left, was lost, or was refused."""
        self._put(event)

    def ask(self, executor: str, count: int) -> None:
        """Somebody wants so many blocks of this executor now. See `BlockScaler.ask`."""
        self._put(Ask(executor, count))

    def describe(self) -> list[BlockInfo]:
        """The blocks that exist and the last ones that have ended, as of the thread's last turn."""
        return list(self._infos)

    def outlooks(self) -> list[Outlook]:
        """What becomes of each executor's blocks, as of the thread's last turn."""
        return list(self._outlooks)

    def close(self, timeout_s: float) -> bool:
        """Cancel all blocks and wait until they are gone, at most `timeout_s` seconds.

        Blocks are sent SIGTERM and have a few seconds to end before they are killed. May be called
        again. Returns whether everything is gone.
        """
        if self._thread.ident is None:
            return True
        self.stop(timeout_s)
        self._thread.join(timeout_s + 0.5)
        gone = not self._thread.is_alive() and not any(kept.scaler.live for kept in self._kept)
        if not gone:
            self._log.warning("some blocks have not ended within %g s: %s", timeout_s, self._names_of_live())
        return gone

    def leave(self) -> None:
        """Keep nothing any more, and leave the blocks to somebody else."""
        self._put(_Close(time.monotonic(), spare=True))
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def undo(self, timeout_s: float) -> None:
        """The run could not be started: leave the blocks to another try, if there is one, or close."""
        if self._spare:
            self.leave()
        else:
            self.close(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Begin what `close` does, and do not wait for it."""
        self._put(_Close(time.monotonic() + timeout_s))

    def _put(self, event: Event | _Close) -> None:
        self._events.append(event)
        os.eventfd_write(self._bell, 1)

    def _names_of_live(self) -> str:
        return ", ".join(f"{i.block} ({i.batch_id})" for i in self._infos if i.phase is not Phase.ENDED)

    # ---- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while self._closing is None:
            try:
                self._turn()
                self._publish()
                self._take_events()
            except BaseException as error:  # noqa: BLE001  the loop's top: nothing may end this thread silently
                for kept in self._kept:
                    self._break(kept, error)
                self._log.exception("the block keeper failed")
        try:
            if not self._closing.spare:
                self._end_all(self._closing.deadline)
        except BaseException:  # noqa: BLE001  the thread's last act
            self._log.exception("the block keeper failed while it ended the blocks: %s", self._names_of_live())
        for kept in self._kept:
            kept.ends.close()
        self._loop.close()

    def _turn(self) -> None:
        supplies: list[Supply] = []
        for kept in self._kept:
            self._guard(kept, lambda kept: supplies.append(self._look(kept)))
        missing = self._planner.missing(self._queue, supplies)
        for kept in self._kept:
            self._guard(kept, lambda kept: self._act(kept, missing.get(kept.executor.label, 0)))
            self._guard(kept, self._submit_some)

    def _guard(self, kept: Kept, step: Callable[[Kept], None]) -> None:
        if kept.broken:
            return
        try:
            step(kept)
        except BaseException as error:  # noqa: BLE001  the loop's top for one executor: the others go on
            self._log.exception("keeping the blocks of executor '%s' failed", kept.executor.label)
            self._break(kept, error)

    def _look(self, kept: Kept) -> Supply:
        now = time.monotonic()
        if now >= kept.polls_at(now):
            self._poll(kept, now)
        return kept.scaler.supply(now)

    def _break(self, kept: Kept, error: BaseException) -> None:
        if not kept.broken:
            kept.broken = True
            reason = f"Keeping the blocks of executor '{kept.executor.label}' failed: {error!r}. Please report this."
            self._announcer.say(FailExecutor(kept.executor.label, reason))

    def _take_events(self) -> None:
        """Sleep until something is due or happens, then take in all that has happened."""
        now = time.monotonic()
        due_at = min((kept.due_at(now) for kept in self._kept if not kept.broken), default=float("inf"))
        self._loop.turn(min(LOOK_S, due_at - now))
        while self._events:
            event = self._events.popleft()
            if isinstance(event, _Close):
                self._closing = event
                return
            self._on_event(event, time.monotonic())

    def _on_event(self, event: Event, now: float) -> None:
        if isinstance(event, Load):
            self._on_load(event, now)
        elif kept := self._of(event.executor):
            if isinstance(event, Ask):
                self._log.info("executor '%s' was asked for more blocks: %d", event.executor, event.count)
                kept.scaler.ask(event.count)
            elif isinstance(event, ManagerUp):
                kept.scaler.on_manager_up(event.block, event.node, event.capacity, now)
            elif event.refused:
                kept.scaler.on_manager_refused(event.block, event.reason)
            else:
                kept.scaler.on_manager_down(event.block, event.node, now, planned=event.planned)
                kept.look_soon()

    def _on_load(self, load: Load, now: float) -> None:
        self._queue = Queue(load.classes)
        by_executor = defaultdict[str, list[BlockLoad]](list)
        for block in load.blocks:
            by_executor[block.block.rpartition("-")[0]].append(block)
        for kept in self._kept:
            kept.scaler.on_load(by_executor[kept.executor.label], self._queue, now)

    def _of(self, label: str) -> Kept | None:
        return next((kept for kept in self._kept if kept.executor.label == label), None)

    def _poll(self, kept: Kept, now: float) -> None:
        if reason := kept.poll(now, self._log):
            kept.broken = True
            self._announcer.say(FailExecutor(kept.executor.label, reason))

    # ---- doing what the core decides --------------------------------------------------------

    def _act(self, kept: Kept, missing: int) -> None:
        provider = kept.executor.provider
        drain: list[str] = []
        cancel: list[str] = []
        drop: list[tuple[str, str]] = []
        actions = kept.scaler.decide(time.monotonic(), missing)
        if actions:
            kept.quiet = 0
            self._describe()  # a provider may take its time, and what it does is to be seen
        for action in actions:
            match action:
                case RequestBlock():
                    kept.to_submit.append(action)
                case DrainBlock(name):
                    drain.append(name)
                case CancelBlock(name):
                    cancel.append(name)
                case DropBlock(name, reason):
                    drop.append((name, reason))
                case GiveUp(reason, block):
                    self._log.error("executor '%s' is given up: %s", kept.executor.label, reason)
                    self._announcer.say(
                        FailExecutor(kept.executor.label, f"{reason}\n{why_no_start(self._run_dir, block)}")
                    )
        if drain:
            self._announcer.say(DrainBlocks(drain))
        if drop:
            self._log.info("managers of blocks that are over are sent away: %s", ", ".join(name for name, _ in drop))
            self._announcer.say(DropBlocks(drop))
        if ends := kept.scaler.take_ends(time.monotonic()):
            self._announcer.say(BlocksEnd(ends))
        if cancel:
            live = kept.scaler.live
            self._cancel(provider, [live[name] for name in cancel if name in live])

    def _submit_some(self, kept: Kept) -> None:
        now = time.monotonic()
        while kept.to_submit and kept.submit_at <= time.monotonic() < now + SUBMIT_S:
            if self._is_over():  # the client will say so, when it has failed what was pending
                kept.submit_at = now + LOOK_S
                break
            kept.postponed = ""
            self._submit(kept, kept.to_submit.popleft())
        log_changes(kept, self._run_dir, self._log)

    def _submit(self, kept: Kept, request: RequestBlock) -> None:
        executor, name, now = kept.executor, request.name, time.monotonic
        if request.exclude_nodes:
            bad = ", ".join(request.exclude_nodes)
            self._log.info("block %s should not get these nodes, whose managers were lost: %s", name, bad)
        try:
            (self._run_dir / "blocks" / name).mkdir(parents=True, exist_ok=True)
            job = block_job(executor, name, self._run_dir, self._run_id, self._environment, request.exclude_nodes)
            kept.handing_in[name] = job
            self._announcer.leave_word()
            batch_id = executor.provider.submit(job)
        except SubmitLater as later:
            self._postpone(kept, request, later)
            return
        except Exception as error:  # noqa: BLE001  a plugin's code; the core counts this, and says it in the end
            kept.handing_in.pop(name, None)
            self._log.warning("block %s could not be submitted: %r", name, error)
            never = isinstance(error, SubmitRefused)
            said = str(error) if isinstance(error, PilotflowError) else f"{type(error).__name__}: {error}"
            kept.scaler.on_submit_failed(name, said, now(), hopeless=never)
            return
        del kept.handing_in[name]
        kept.scaler.on_submitted(name, batch_id, now())
        self._announcer.announce_now_and_then()

    def _postpone(self, kept: Kept, request: RequestBlock, later: SubmitLater) -> None:
        """Hand it in later, before what was wanted after it."""
        kept.to_submit.appendleft(request)
        kept.submit_at = time.monotonic() + later.after_s
        if str(later) != kept.postponed:
            kept.postponed = str(later)
            self._log.info("block %s waits to be submitted: %s", request.name, later)

    def _cancel(self, provider: Provider, ids: list[str]) -> None:
        if not ids:
            return
        try:
            provider.cancel(ids)
        except Exception as error:  # noqa: BLE001  a plugin's code; the core asks for it again
            self._log.warning("blocks %s could not be cancelled: %r", ", ".join(ids), error)

    def _publish(self) -> None:
        self._announcer.announce()
        self._describe()

    def _describe(self) -> None:
        self._infos = tuple(info for kept in self._kept for info in kept.scaler.describe())
        self._outlooks = tuple(kept.outlook() for kept in self._kept)

    # ---- the end ----------------------------------------------------------------------------

    def _end_all(self, deadline: float) -> None:
        for kept in self._kept:
            self._cancel(kept.executor.provider, list(kept.scaler.live.values()))
        while True:
            now = time.monotonic()
            for kept in self._kept:
                if kept.scaler.live:
                    self._poll(kept, now)
                    log_changes(kept, self._run_dir, self._log)
            self._publish()
            waiting = [kept for kept in self._kept if kept.scaler.live]
            if not waiting or now >= deadline:
                return
            quick = all(kept.executor.provider.quick_poll_s < 1 for kept in waiting)
            until = min(time.monotonic() + (CLOSE_POLL_S if quick else 0.5), deadline)  # or until one has ended
            while (left_s := until - time.monotonic()) > 0 and not any(kept.looks_soon for kept in waiting):
                self._loop.turn(left_s)
