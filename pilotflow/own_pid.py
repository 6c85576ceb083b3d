"""This process's pid without a system call, for what happens at every task: `os.getpid` asks the kernel each time."""

from __future__ import annotations

import os


class OwnPid:
    """What `os.getpid` returns, also in processes that were forked.

    Attributes:
        value: the pid.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self._look()
        os.register_at_fork(after_in_child=self._look)

    def _look(self) -> None:
        self.value = os.getpid()


OWN_PID = OwnPid()
