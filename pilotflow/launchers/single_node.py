"""Managers on the machine where the block's script runs, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilotflow.launchers.base import Launcher, quote_command

# In bash, a signal that has a trap ends `wait` early with a status of its own, so after a signal the
# same manager is waited for again; bash remembers the status of one that has ended meanwhile.
_TEXT = """\
pilotflow_pids= pilotflow_signals=0 pilotflow_code=0
trap 'pilotflow_signals=$((pilotflow_signals + 1)); kill -TERM $pilotflow_pids 2>/dev/null || :' TERM
for pilotflow_node in {nodes}; do
  PILOTFLOW_NODE_INDEX=$pilotflow_node {command} &
  pilotflow_pids="$pilotflow_pids $!"
done
[ "$pilotflow_signals" -eq 0 ] || kill -TERM $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  pilotflow_seen=
  while [ "$pilotflow_seen" != "$pilotflow_signals" ]; do
    pilotflow_seen=$pilotflow_signals pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
(exit "$pilotflow_code")
"""


@dataclass(frozen=True)
class SingleNodeLauncher(Launcher):
    """Starts all managers of a block on one machine, and passes SIGTERM on to them.

    The exit status is the first that is not 0, in the order of the nodes. A manager that ends does
    not end the others.
    """

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`."""
        return _TEXT.format(nodes=" ".join(map(str, range(nodes))), command=quote_command(command))
