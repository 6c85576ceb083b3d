"""Where settings and site files are looked for, and whether anybody has a say at all."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "PILOTFLOW_"
"""Of variables that are settings."""
ADMIN_FILE: Final = Path("/etc/pilotflow/site.yaml")
PATH_VARIABLE: Final = "PILOTFLOW_SITE_PATH"
BATCH_COMMANDS: Final = ("sbatch", "qsub")
IN_A_JOB: Final = ("SLURM_JOB_ID", "PBS_JOBID")


@dataclass(frozen=True)
class Places:
    """Where site files and settings are looked for.

    Attributes:
        admin: the machine's own site file, which need not exist.
        added: files, and directories of files, that add or tighten.
        shipped: directories of files that come with pilotflow.
        user, project: files of settings, which need not exist.
    """

    admin: Path = ADMIN_FILE
    added: tuple[Path, ...] = ()
    shipped: tuple[Path, ...] = ()
    user: Path = Path("~/.config/pilotflow/config.yaml")
    project: Path = Path("pilotflow.yaml")


def usual_places(environment: Mapping[str, str]) -> Places:
    """Where things are, as the environment and this installation have it."""
    added = tuple(Path(part).expanduser() for part in environment.get(PATH_VARIABLE, "").split(":") if part)
    config = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Places(
        added=added,
        shipped=shipped_folders(),
        user=Path(config).expanduser() / "pilotflow" / "config.yaml",
    )


def may_exist(path: Path) -> bool:
    """Whether there is such a file, or none can tell: what may not be looked at is there, and reading it says so."""
    try:
        return path.exists()
    except OSError:
        return True


def shipped_folders() -> tuple[Path, ...]:
    """Where the site files that come with pilotflow are: in its source tree, or where it was installed.

    That is beside the packages with `pip install --target`, and in the user's own tree with `--user`.
    """
    home = Path(__file__).resolve().parents[2]
    of_user = Path(sysconfig.get_path("data", sysconfig.get_preferred_scheme("user")))
    trees = [home, of_user] if home.is_relative_to(of_user.resolve()) else [home]
    places = [home / "configs" / "sites"]
    places += [tree / "share" / "pilotflow" / "sites" for tree in (*trees, Path(sysconfig.get_path("data")))]
    return tuple(folder for folder in places if folder.is_dir())[:1]


def nothing_said(places: Places, environment: Mapping[str, str], call: Mapping[str, Any]) -> bool:
    """Whether no layer can have a say, so that nothing need be read.

    Files that ship speak of machines with a batch system, and in a batch job its nodes are the place to be.
    """
    if any(value is not None for value in call.values()) or places.added:
        return False
    if any(may_exist(path) for path in (places.admin, places.user, places.project)):
        return False
    if any(name.startswith(PREFIX) for name in environment):
        return False
    in_job = any(name in environment for name in IN_A_JOB)
    return in_job or not any(shutil.which(command) for command in BATCH_COMMANDS)
