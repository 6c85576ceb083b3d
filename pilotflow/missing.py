"""Errors of tasks whose cause is where they ran, such as a module that is not there: what to do about them."""

from __future__ import annotations

import errno
import importlib.util
from typing import Final

OPEN_FILES: Final = (
    "Close files in the task, or raise the limit where it runs (`ulimit -n` in worker_init of the executor's provider); "
    "tasks in threads share the limit of the program: give their executor fewer max_threads"
)
_NODE: Final = "pilotflow_node"
"""Where a worker leaves its node's name, among the exception's own attributes, which travel with it."""


def note_node(error: BaseException, node: str) -> None:
    """In a worker: a task has failed for lack of a module; say where."""
    if isinstance(error, ModuleNotFoundError):
        vars(error)[_NODE] = node


def explain_missing(error: BaseException) -> BaseException:
    """In the submitting program: the same error, which says so if the module is here and was not there."""
    node = vars(error).pop(_NODE, None)
    if node is None or not isinstance(error, ModuleNotFoundError) or not error.name:
        return error
    origin = _origin(error.name)
    if origin is None:
        return error
    told = ModuleNotFoundError(f"{error}. {words(error.name, node, origin)}", name=error.name, path=error.path)
    told.__cause__, told.__context__ = error.__cause__, error.__context__
    return told.with_traceback(error.__traceback__)


def explain_surroundings(error: BaseException) -> BaseException:
    """In the submitting program: the same error, with a remedy if one is known."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        error.strerror = f"{error.strerror}. {OPEN_FILES}"
    return explain_missing(error)


def words(module: str, node: str, origin: str = "") -> str:
    """What is said of a module that is missing on a node."""
    where = f" ({origin})" if origin else ""
    return (
        f"Module '{module}' is here{where} but not on node {node}: set worker_init of its executor's provider to "
        "load or activate what has it, or stage_env of the executor to bring this environment along"
    )


def _origin(module: str) -> str | None:
    """Where a module would be imported from here; None if it is not here."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin or "a namespace package"
