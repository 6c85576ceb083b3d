"""The log of a process that a thread writes."""

from __future__ import annotations

import logging
from pathlib import Path

from pilotflow.runtime.log_files import LogFile, LogWriter


class Counting(LogWriter):
    flushes = 0

    def flush(self) -> bool:
        self.flushes += 1
        return super().flush()


def test_a_closed_log_does_not_wait_for_its_thread_again_when_python_ends(tmp_path: Path) -> None:
    """`logging.shutdown` closes every handler that there was; the thread has ended by then, and would not answer."""
    log, writer = LogFile(tmp_path / "log"), Counting()
    log.leave_to(writer)
    log.emit(logging.makeLogRecord({"msg": "one line"}))
    log.close()
    writer.end()
    log.close()
    assert writer.flushes == 1
    assert (tmp_path / "log").read_text() == "one line\n"
