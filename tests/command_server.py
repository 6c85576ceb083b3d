"""Forks for each `pilotflow` command that is asked for on stdin; see `tests.command_line`.

    python -m tests.command_server

A request is a line of JSON, answered by two lines: the command's process id, and its exit code.
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


def import_everything() -> None:
    """Whatever a command might import."""
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


def serve() -> None:
    """Until stdin ends; in a command's process, until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
            main()  # ends in SystemExit, and with it this process
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    import_everything()
    serve()
