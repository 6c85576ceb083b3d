"""The live line of a run: a thread that looks at its counts a few times a second, and where it shows them.

A terminal gets one line below all other output, a notebook one piece of HTML in the cell that loaded
the run, and anything else nothing. Tasks do not know of it: they pay nothing for being counted.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from pilotflow.core.block_records import BlockInfo, Phase
from pilotflow.core.pace import Counts, Pace, line, parts_of, summary

TICK_S: Final = 0.25
"""Time between two looks."""
IDLE_TICK_S: Final = 1.0
"""The same once everything so far has ended: then there may be nothing to see for hours."""
QUIET_S: Final = 0.5
"""What takes less time is not worth a line."""
_AWAITED: Final = frozenset({Phase.REQUESTED, Phase.PENDING, Phase.SUSPENDED})
_JOIN_S: Final = 1.0
_ERASE: Final = "\r\x1b[2K"
_FAILED: Final = re.compile(r"[\d,]+ failed")
_DEBUGGERS: Final = frozenset({"pdb.py", "bdb.py"})


@dataclass(frozen=True)
class Look:
    """What a look at the tasks has shown.

    Attributes:
        counts: how many there are of each kind.
        note: what is waited for, if there is something to say.
        warnings: what people should know at the end.
    """

    counts: Counts
    note: str = ""
    warnings: Sequence[str] = ()


class Surface(Protocol):
    """Where progress is shown."""

    def open(self, title: str) -> None:
        """Something will be shown. Called by the thread that wants it shown."""

    def show(self, title: str, look: Look, rate: float) -> None:
        """Show this instead of what was shown before; `rate` is in tasks a second."""

    def finish(self, title: str, look: Look, seconds: float) -> None:
        """Show what became of it, to stay."""

    def close(self) -> None:
        """Nothing more will be shown."""


class Display:
    """Shows what a function sees, until it is closed.

    Args:
        surface: where.
        title: what it is about, in a word or two.
        look: sees how things are; called in the display's thread.
    """

    def __init__(self, surface: Surface, title: str, look: Callable[[], Look]) -> None:
        self._surface = surface
        self._watched = [_Watched(title, look)]
        self._lock = threading.Lock()
        self._done = threading.Event()
        surface.open(title)
        self._thread = threading.Thread(target=self._run, name="pilotflow-progress", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def instead(self, title: str, look: Callable[[], Look]) -> Iterator[None]:
        """Show something else for a while, and how it has ended."""
        watched = _Watched(title, look)
        with self._lock:
            self._watched.append(watched)
        try:
            yield
        finally:
            with self._lock:
                self._watched.remove(watched)
                watched.finish(self._surface)

    def close(self) -> None:
        """Say how it has ended, if it was shown at all, and show no more."""
        self._done.set()
        self._thread.join(_JOIN_S)
        with self._lock:
            self._watched[0].finish(self._surface)
            self._surface.close()

    def _run(self) -> None:
        pause_s = TICK_S
        while not self._done.wait(pause_s):
            try:
                with self._lock:
                    ended = self._watched[-1].show(self._surface)
                pause_s = IDLE_TICK_S if ended else TICK_S
            except (OSError, ValueError):  # the terminal is gone, or the stream closed
                return


class _Watched:
    """One thing that is shown, with its pace."""

    def __init__(self, title: str, look: Callable[[], Look]) -> None:
        self._title = title
        self._look = look
        self._pace = Pace()
        self._begun: float | None = None
        self._ended_at = 0.0
        self._last = Counts()
        self._shown = False

    def show(self, surface: Surface) -> bool:
        """Show how things are; returns whether they are at an end, as far as one knows."""
        look, now = self._look(), time.monotonic()
        self._note(look.counts, now)
        if self._begun is not None and (self._shown or now - self._begun >= QUIET_S):
            self._shown = True
            surface.show(self._title, look, self._pace.rate)
        return bool(look.counts.total) and not look.counts.pending

    def finish(self, surface: Surface) -> None:
        if self._shown and self._begun is not None:
            look = self._look()
            self._note(look.counts, time.monotonic())
            surface.finish(self._title, look, self._ended_at - self._begun)

    def _note(self, counts: Counts, now: float) -> None:
        self._pace.look(now, counts)
        if counts.total and self._begun is None:
            self._begun = now
        if counts.ended != self._last.ended:
            self._ended_at = now
        self._last = counts


def surface() -> Surface | None:
    """Where progress can be shown to whoever started this program; None if nowhere."""
    notebook = _notebook_display()
    if notebook is not None:
        return NotebookSurface(notebook)
    stream = sys.stderr
    try:
        if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return None
        stream.fileno()
    except (AttributeError, OSError, ValueError):  # None, closed, or replaced by something else
        return None
    return TerminalSurface(stream, coloured="NO_COLOR" not in os.environ)


def waited_for(blocks: Sequence[BlockInfo]) -> str:
    """What a run without any worker waits for, in a few words."""
    alive = [block for block in blocks if block.phase is not Phase.ENDED]
    if any(block.phase not in _AWAITED for block in alive):
        return "workers are starting"
    if alive:
        said = next((block.said for block in alive if block.said), "")
        suspended = sum(block.phase is Phase.SUSPENDED for block in alive)
        pending = len(alive) - suspended
        counts = [(suspended, "suspended"), (pending, "pending")]
        words = [f"{count} block{'s' if count > 1 else ''} {word}" for count, word in counts if count]
        asked = ", ".join(words)
        return f"no workers yet, {asked}{f' ({said})' if said else ''}"
    return "no workers yet"


def executor_rows(labels: Sequence[str], blocks: Sequence[BlockInfo]) -> Iterator[tuple[str, object]]:
    """For a table: how many blocks of each executor are in which phase."""
    for label in labels:
        phases = Counter(block.phase.value for block in blocks if block.executor == label)
        words = ", ".join(f"{count} {phase}" for phase, count in phases.items()) or "none yet"
        yield f"executor {label}", f"blocks: {words}"


# ---- terminals ------------------------------------------------------------------------------


class TerminalSurface:
    """One line at the bottom of a terminal; whatever Python prints there comes above it.

    Not rich's live display: that one folds what others print at the terminal's width.

    Args:
        stream: writes to the terminal.
        coloured: whether colours are welcome.
    """

    def __init__(self, stream: IO[str], *, coloured: bool) -> None:
        self._stream = stream
        self._coloured = coloured
        self._unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal handler may print while its thread holds it
        self._painted = ""
        self._unfinished: set[str] = set()
        self._above: dict[str, _Above] = {}

    def open(self, title: str) -> None:
        """Have everything that Python prints to the terminal come above the line."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and _same_terminal(stream, self._stream):
                self._above[name] = _Above(name, stream, self)
                setattr(sys, name, self._above[name])

    def show(self, title: str, look: Look, rate: float) -> None:
        """Paint the line, unless somebody is asked something there."""
        width = os.get_terminal_size(self._stream.fileno()).columns - 1
        text = line(title, look.counts, rate, look.note, width, unicode=self._unicode)
        with self._lock:
            if text == self._painted or self._unfinished or not self._is_ours():
                return
            shown = _FAILED.sub(lambda match: f"\x1b[31m{match[0]}\x1b[0m", text) if self._coloured else text
            self._stream.write(f"{_ERASE}{shown}\r")
            self._stream.flush()
            self._painted = text

    def finish(self, title: str, look: Look, seconds: float) -> None:
        """Leave one line that stays, and warnings."""
        with self._lock:
            self._erase()
            if not self._unfinished and self._is_ours():
                lines = f"{title} {summary(look.counts, seconds)}", *(f"Warning: {text}" for text in look.warnings)
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()

    def close(self) -> None:
        """Give the streams back."""
        with self._lock:
            self._erase()
        for name, above in self._above.items():
            if getattr(sys, name) is above:
                setattr(sys, name, above.stream)

    def write_above(self, name: str, stream: IO[str], text: str) -> int:
        """Write to a stream of this name as if there were no line."""
        if os.getpid() != self._pid:  # a fork: the lock may be held by a thread that it does not have
            return stream.write(text)
        with self._lock:
            self._erase()
            written = stream.write(text)
            if text:
                (self._unfinished.discard if text.endswith("\n") else self._unfinished.add)(name)
            return written

    def _erase(self) -> None:
        if self._painted:
            self._painted = ""
            self._stream.write(_ERASE)
            self._stream.flush()

    def _is_ours(self) -> bool:
        """Whether nobody else uses the terminal: a prompt of Python's or a debugger's, or another job of the shell."""
        if hasattr(sys, "ps1"):
            return False
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame is not None:
            if os.path.basename(frame.f_code.co_filename) in _DEBUGGERS:
                return False
            frame = frame.f_back
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:  # not our controlling terminal
            return True


class _Above:
    """A stream whose text comes above the live line. Everything else is the stream's own."""

    def __init__(self, name: str, stream: Any, surface: TerminalSurface) -> None:
        self._name = name
        self.stream = stream
        self._surface = surface

    def write(self, text: str) -> int:
        return self._surface.write_above(self._name, self.stream, text)

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)


def _same_terminal(stream: Any, terminal: IO[str]) -> bool:
    try:
        return bool(stream.isatty()) and os.fstat(stream.fileno()).st_rdev == os.fstat(terminal.fileno()).st_rdev
    except (AttributeError, OSError, ValueError):
        return False


# ---- notebooks ------------------------------------------------------------------------------


class NotebookSurface:
    """A bar and words in the output of the cell that loaded the run.

    Args:
        display: IPython's `display`.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._id = f"pilotflow-{os.urandom(8).hex()}"
        self._shown = ""

    def open(self, title: str) -> None:
        """Make the place, in the cell that runs now; later cells change what is there."""
        self._put(_html(title, Counts(), "no tasks yet"), update=False)

    def show(self, title: str, look: Look, rate: float) -> None:
        """Show a bar and words."""
        self._put(_html(title, look.counts, " · ".join(parts_of(look.counts, rate, look.note))))

    def finish(self, title: str, look: Look, seconds: float) -> None:
        """Show what became of it."""
        words = summary(look.counts, seconds), *(f"Warning: {text}" for text in look.warnings)
        self._put(_html(title, look.counts, " · ".join(words)))

    def close(self) -> None:
        """What is shown stays."""

    def _put(self, text: str, *, update: bool = True) -> None:
        if text != self._shown:
            self._shown = text
            self._display({"text/html": text, "text/plain": _plain(text)}, raw=True, display_id=self._id, update=update)


def _html(title: str, counts: Counts, words: str) -> str:
    most = max(counts.total, 1)
    return (
        f'<div style="font-family:monospace"><b>{html.escape(title)}</b> '
        f'<progress value="{counts.ended}" max="{most}" style="vertical-align:middle"></progress> '
        f"{html.escape(words)}</div>"
    )


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", text)).replace("  ", " ")


def _notebook_display() -> Callable[..., Any] | None:
    """IPython's `display` if this program is the kernel of a notebook."""
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    return display if getattr(get_ipython(), "kernel", None) is not None else None
