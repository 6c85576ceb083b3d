"""A cluster by hand: `python -m tests.slurm.harness up [KEY=VALUE...] | down | on HOST COMMAND...`.

`install` gets in CI, and there alone, the packages that clusters need.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from typing import Any

from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.settings import Settings


def main() -> None:
    """Do what the command line says."""
    words = sys.argv[1:]
    if words[:1] == ["up"]:
        kinds = {field.name: type(getattr(Settings(), field.name)) for field in fields(Settings)}
        pairs = (word.partition("=") for word in words[1:])
        given: dict[str, Any] = {
            key: kinds[key](int(value)) if kinds[key] in {int, bool} else kinds[key](value) for key, _, value in pairs
        }
        Cluster(Settings(**given)).up(stays=True)
    elif words == ["install"]:
        if packages.in_ci() and packages.can_install():
            packages.install()
    elif words == ["down"]:
        Cluster(Settings(nodes=64)).down()
    elif words[:1] == ["on"] and len(words) > 2:
        cluster = Cluster(Settings(nodes=64))
        argv = cluster.argv(words[1], words[2:])
        os.execvpe(argv[0], argv, cluster.environment())
    else:
        sys.exit(__doc__)


main()
