"""The end of what a run does in its directory, for which nobody waits long: the file system may hang."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from pilotflow.core.pace import Counts
from pilotflow.runtime import node_files
from pilotflow.runtime.guarding import BlockGuard
from pilotflow.runtime.log_files import LogWriter
from pilotflow.runtime.store import Store

RECORD_S: Final = 2.0
"""The last rows of the record are written within this time."""
REMOVE_S: Final = 5.0
"""Shared values are removed within this time."""


def leave(
    directory: Path, writer: LogWriter | None, store: Store | None, counts: Counts, guard: BlockGuard | None
) -> None:
    """Remove what was for the run alone, and close its record; says on stderr what was given up.

    Args:
        directory: the run directory.
        writer: the thread that does what may hang; without one it is done here.
        store: the record, if there is one.
        counts: how the run's tasks ended.
        guard: of its blocks, if they are all gone.
    """
    late: list[str] = []
    shared = directory / node_files.SHARED

    def remove() -> None:
        if guard is not None:
            guard.end()
        node_files.end(shared)

    if writer is None:
        remove()
    elif not writer.do(remove, REMOVE_S):
        late.append(f"{shared}/ is not removed")
    if store is not None:
        store.end(counts)
        if not store.close(RECORD_S):
            late.append(f"the record in {store.path.name} lacks the end")
    if late:
        sys.stderr.write(
            f"pilotflow: {directory} does not answer, so the run's end does not wait for it: {', and '.join(late)}. "
            "See whether its file system hangs.\n"
        )
