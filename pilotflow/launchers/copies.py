"""Shell text around managers: start them, pass signals on to them, wait for all, report the first failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pilotflow.launchers.base import quote_command
from pilotflow.launchers.steps import FOREIGN_NAMES, FOREIGN_PREFIXES

# In bash, a signal that has a trap ends `wait` early with a status of its own, so after a signal the
# same process is waited for again; bash remembers the status of one that has ended meanwhile.
_STARTED: Final = """\
pilotflow_pids= pilotflow_signals=0 pilotflow_code=0
trap 'pilotflow_signals=$((pilotflow_signals + 1)); kill -{signal} $pilotflow_pids 2>/dev/null || :' TERM
{start}
[ "$pilotflow_signals" -eq 0 ] || kill -{signal} $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  pilotflow_seen=
  while [ "$pilotflow_seen" != "$pilotflow_signals" ]; do
    pilotflow_seen=$pilotflow_signals pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
{after}(exit "$pilotflow_code")
"""

# Beside each manager that srun, mpirun or mpiexec starts. They pass SIGUSR1 on at once, but end everything
# when they get SIGTERM, so the block's shell sends SIGUSR1 and this turns it into the manager's SIGTERM. When a
# job is cancelled everything in it gets SIGTERM; this stays until its manager has left.
_COPY: Final = """\
{head}
pilotflow_told=0 pilotflow_seen= pilotflow_pid=
trap 'pilotflow_told=$((pilotflow_told + 1)); [ -z "$pilotflow_pid" ] || kill -TERM "$pilotflow_pid" 2>/dev/null' USR1 TERM
(trap '' USR1; trap - INT QUIT TERM; exec {command}) {redirection}&
pilotflow_pid=$!
[ "$pilotflow_told" -eq 0 ] || kill -TERM "$pilotflow_pid" 2>/dev/null
while [ "$pilotflow_seen" != "$pilotflow_told" ]; do
  pilotflow_seen=$pilotflow_told pilotflow_code=0
  wait "$pilotflow_pid" 2>/dev/null || pilotflow_code=$?
done
{end}"""


def started(start: str, signal: Literal["TERM", "USR1"], after: str = "") -> str:
    """Text that starts processes and waits for them; its status is the first of theirs that is not 0.

    Args:
        start: text that starts them in the background and leaves their ids in `pilotflow_pids`.
        signal: what they are sent when the shell gets SIGTERM.
        after: text that may look at `pilotflow_code`, and change it, when they have ended.
    """
    return _STARTED.format(start=start, signal=signal, after=after)


def copy_text(command: Sequence[str], head: str, *, report: bool = False) -> str:
    """Text for bash that runs one manager, for launchers that start the same text everywhere.

    Args:
        command: the argument list of the manager.
        head: text before it, which sets PILOTFLOW_NODE_INDEX.
        report: write the end as a line "pilotflow-end INDEX CODE" to stdout and succeed; the manager's
            own stdout goes to stderr. For launchers that end all copies when one fails.
    """
    end = 'echo "pilotflow-end $PILOTFLOW_NODE_INDEX $pilotflow_code"\n' if report else 'exit "$pilotflow_code"\n'
    redirection = ">&2 " if report else ""
    return _COPY.format(head=head, command=quote_command(command), redirection=redirection, end=end)


def forget_launch() -> str:
    """Text for bash that drops what mpirun has put into the environment, so that tasks can use MPI."""
    prefixes = " ".join(f'"${{!{prefix}@}}"' for prefix in FOREIGN_PREFIXES)
    return f"unset {prefixes} {' '.join(FOREIGN_NAMES)}"
