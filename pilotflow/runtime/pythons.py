"""Command lines of our own Python processes on nodes: which Python, which module, and how it finds pilotflow."""

from __future__ import annotations

import site
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Python:
    """How Python processes are started on a block's nodes.

    Attributes:
        executable: the interpreter.
        home: where to find pilotflow, if it is not among the interpreter's packages. It comes last on the
            path; as PYTHONPATH it would undo what a block's worker_init has set.
        prefix: words before it, such as a script that first brings the environment to the node.
    """

    executable: str
    home: str = ""
    prefix: tuple[str, ...] = ()

    def argv(self, module: str, *arguments: str) -> list[str]:
        """The argument list that calls `main` of a module, and exits with what it returns.

        The working directory is not on the path: on a shared file system each import would look there first.
        The submitting program's own path is added later, from the connection file.

        Args:
            module: its name.
            arguments: what it finds in `sys.argv` from 1 on.
        """
        home = f"sys.path.append({self.home!r}); " if self.home else ""
        code = (
            f"import sys; sys.path[:1] == [''] and sys.path.pop(0); {home}from {module} import main; sys.exit(main())"
        )
        return [*self.prefix, self.executable, "-c", code, *arguments]


def this_python(prefix: tuple[str, ...] = ()) -> Python:
    """The interpreter that runs here, for nodes that have the same files, or get them by the prefix."""
    return Python(sys.executable, home(), prefix)


def home() -> str:
    """Where pilotflow is, if it is not installed among this Python's packages; else empty."""
    found = str(Path(__file__).resolve().parents[2])
    return "" if found in {*site.getsitepackages(), site.getusersitepackages()} else found
