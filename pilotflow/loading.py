"""`load`: start a run and make it the one that apps submit to."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from pilotflow.current import make_current
from pilotflow.display import NotebookSurface, surface
from pilotflow.run import Run
from pilotflow.run_later import LaterRun

if TYPE_CHECKING:
    from pilotflow.config.model import Config


def load(
    config: Config | str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
    cache: str | os.PathLike[str] | None = None,
    site: str | None = None,
    **settings: Any,
) -> Run:
    """Start a run and make it the current one.

    Where an event loop runs, nothing waits for the start: `async with load()` lets the loop go on
    meanwhile, and otherwise the run starts when it is first used.

    Args:
        config: a `Config`, or the path of a YAML file with one. Without it settings decide, those given here and
            those of the site, the user, the project and the environment; where nobody says anything, it is this
            machine with all its cores.
        progress: show one live line of how far the tasks are, if output is a terminal or a notebook.
        cache: a directory where results of apps with `cache=True` are kept and found again, by this run and
            others; in place of the configuration's.
        site: name of the site whose partitions and habits to use; found out if not given.
        settings: such as account, partition, walltime or max_blocks, see `pilotflow.config.settings`.

    Raises:
        ConfigError: the configuration is wrong, or the run directory cannot be written.
        PolicyExceeded: the site's admins do not allow it.
        InterchangeLost: the interchange process does not come up.

    Example:
        >>> with load() as run:
        ...     ...
        >>> with load(site="kestrel", account="abc") as run:
        ...     ...
    """
    from pilotflow.config.here import config_to_use

    config = config_to_use(config, {"site": site, **settings})
    if cache is not None:
        config = dataclasses.replace(config, cache=cache)
    place = surface() if progress else None
    if _in_event_loop() and not isinstance(place, NotebookSurface):  # a notebook's cells may wait
        run: Run = LaterRun(config, place)
    else:
        run = Run(config, place=place)
    make_current(run)
    return run


def _in_event_loop() -> bool:
    """Whether the caller is in a thread whose event loop is running; without asyncio nobody is."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except (RuntimeError, AttributeError):  # the latter while another thread imports it
        return False
    return True
