"""Forks for each `pilotflow` command, or function, that is asked for on stdin; see `tests.command_line`.

    python -m tests.command_server [MODULE...]

The modules are imported beforehand. A request is a line of JSON, answered by a line: the exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import sys
from typing import Any

import pilotflow
from pilotflow.cli.main import main


def import_everything(more: list[str]) -> None:
    """Whatever a command might import, and these modules."""
    for name in more:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(pilotflow.__path__, "pilotflow."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()


def become(request: dict[str, Any]) -> None:
    """Make this process what a new one would be."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        file = open(request[name], mode + "b", buffering=0)  # noqa: SIM115  it stays
        os.dup2(file.fileno(), fd)
        file.close()
        setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.argv = ["pilotflow", *request["argv"]]
    sys.path[0] = os.getcwd()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()


def do(request: dict[str, Any]) -> None:
    """What was asked for, in a process of its own, which ends with it."""
    become(request)
    if not request["function"]:
        main()  # ends in SystemExit
    module, _, function = request["function"].partition(":")
    getattr(importlib.import_module(module), function)(*request["argv"])
    sys.exit(0)


def code_of(pid: int, timeout_s: float) -> int:
    """The exit code of a process, which is killed if it takes longer."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def serve() -> None:
    """Until stdin ends; in a command's process, until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            do(request)
        print(code_of(pid, request["timeout_s"]), flush=True)


if __name__ == "__main__":
    import_everything(sys.argv[1:])
    serve()
