"""Limits for a cluster that enforces them."""

from typing import Final

SACCTMGR: Final = ("modify qos normal set MaxSubmitJobsPerUser=3 MaxWall=60",)
"""No more accounts than the first: slurmdbd 22.05.8 mixes them up with the MariaDB of Debian 12 (10.11.19)."""
