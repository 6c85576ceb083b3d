"""A run that starts when it is first used: what `load` gives inside an event loop, which must not wait there."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from pilotflow.errors import RunClosed
from pilotflow.run import Run

if TYPE_CHECKING:
    from pilotflow.config.model import Config
    from pilotflow.display import Surface


class LaterRun(Run):
    """A run that `async with` starts without holding up the event loop, and any other use at once.

    Until then nothing of a run is there; what looks for it comes through `__getattr__`, so that a run
    that has started costs nothing more than any other.
    """

    def __init__(self, config: Config, place: Surface | None = None) -> None:  # not the base's: that one starts
        self.config = config
        self.display = None
        self._place = place
        self._pid = os.getpid()
        self._closed = False
        self._starting = threading.RLock()
        self._begun = False
        self._why_not: BaseException | None = None

    def begin(self) -> None:
        """Start it, unless it has been started.

        Raises:
            RunClosed: it was closed before.
            ConfigError, InterchangeLost: as `load`, each time.
        """
        with self._starting:
            if self._begun:
                return
            if self._why_not is not None:
                raise self._why_not
            if self._closed:
                raise RunClosed("The run was closed before it had started.")
            self._begun = True
            try:
                super().__init__(self.config, None, self._place)
            except BaseException as error:
                self._begun, self._closed, self._why_not = False, True, error
                raise

    def close(self, wait: bool = True) -> None:
        """As `Run.close`; a run that has not started never will."""
        with self._starting:
            self._closed = self._closed or not self._begun
        if self._begun:
            super().close(wait)

    def __repr__(self) -> str:
        if self._begun:
            return super().__repr__()
        return f"<Run in {os.fspath(self.config.run_dir)}: not started{', closed' if self._closed else ''}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # Python asks for those, not people
                raise AttributeError(name)
            self.begin()
            try:
                return self.__dict__[name]
            except KeyError:
                raise AttributeError(f"'Run' object has no attribute '{name}'") from None
