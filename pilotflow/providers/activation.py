"""Shell text that activates on a node the Python environment that the submitting program runs in. Pure.

It does what `source bin/activate` and `conda activate` do, without their hooks into an interactive shell.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """A Python environment.

    Attributes:
        prefix: its directory.
        kind: "venv", "conda", or "" for a Python of the system, which needs no activation.
        name: what conda calls it.
    """

    prefix: str
    kind: str
    name: str = ""


def environment_of(prefix: str, base_prefix: str, *, has_conda_meta: bool, name: str = "") -> Environment:
    """Which kind of environment a program runs in.

    Args:
        prefix, base_prefix: `sys.prefix` and `sys.base_prefix`.
        has_conda_meta: whether the prefix has a directory `conda-meta`.
        name: CONDA_DEFAULT_ENV, if that is about this environment.
    """
    kind = "venv" if prefix != base_prefix else "conda" if has_conda_meta else ""
    return Environment(prefix, kind, name)


def activation_text(environment: Environment) -> str:
    """Text for bash that activates an environment; nothing for a Python of the system."""
    prefix = shlex.quote(environment.prefix)
    if not environment.kind:
        return ""
    lines = [f'export PATH={prefix}/bin:"$PATH"', "unset PYTHONHOME"]
    if environment.kind == "venv":
        return "\n".join([f"export VIRTUAL_ENV={prefix}", *lines]) + "\n"
    name = shlex.quote(environment.name or environment.prefix)
    return (
        "\n".join(
            [
                f"export CONDA_PREFIX={prefix} CONDA_DEFAULT_ENV={name}",
                *lines,
                'for pilotflow_file in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do',
                '  if [ -r "$pilotflow_file" ]; then . "$pilotflow_file"; fi',
                "done",
                "unset pilotflow_file",
            ]
        )
        + "\n"
    )
