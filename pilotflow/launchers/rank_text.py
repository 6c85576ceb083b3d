"""The shell text around each rank of a step: its number into the environment, a warning, word of its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from pilotflow.launchers.base import quote_command
from pilotflow.launchers.steps import RANK_VARIABLES, Step

NO_RANK: Final = 125
"""Exit code of a rank that was told no number: the launcher does not start ranks."""

# For bash (dash cannot undo that a background command ignores SIGINT), which -p keeps from reading BASH_ENV for
# each rank. The shell stays beside the rank for two reasons. Launchers pass SIGUSR1 on to ranks within a
# millisecond, but not SIGTERM: srun and Hydra kill at once, Open MPI waits and then leaves one second. And a
# rank that was ended by a signal cannot say so itself. `wait` ends early when a trap has run, so it is
# repeated, and must not tell of a killed rank in its own words; SIGUSR1 also reaches the rank itself where a launcher signals process groups, so it ignores it.
_TEXT: Final = """\
pilotflow_rank={variables}
case $pilotflow_rank in
''|*[!0-9]*)
  echo {no_rank} >&2
  exit {no_rank_code} ;;
esac
pilotflow_node=$((pilotflow_rank / {ranks_per_node})) pilotflow_local=$((pilotflow_rank % {ranks_per_node}))
export PILOTFLOW_RANK=$pilotflow_rank PILOTFLOW_LOCAL_RANK=$pilotflow_local PILOTFLOW_NODE_RANK=$pilotflow_node
export RANK=$pilotflow_rank LOCAL_RANK=$pilotflow_local GROUP_RANK=$pilotflow_node PET_NODE_RANK=$pilotflow_node
pilotflow_told=0 pilotflow_seen= pilotflow_pid= pilotflow_ended=
pilotflow_tell() {{
  pilotflow_told=$((pilotflow_told + 1))
  [ -z "$pilotflow_pid" ] || kill -TERM "$pilotflow_pid" 2>/dev/null
}}
trap pilotflow_tell USR1
trap 'pilotflow_ended=yes; pilotflow_tell' TERM
(trap '' USR1; trap - INT QUIT TERM; exec {command}) &
pilotflow_pid=$!
[ "$pilotflow_told" = 0 ] || kill -TERM "$pilotflow_pid" 2>/dev/null
while [ "$pilotflow_seen" != "$pilotflow_told" ]; do
  pilotflow_seen=$pilotflow_told pilotflow_code=0
  wait "$pilotflow_pid" 2>/dev/null || pilotflow_code=$?
done
{failed}exit "$pilotflow_code"
"""

# A shell that gets SIGTERM is being ended, with its rank, because of another rank, or with the whole job.
# The directory's first failure is the rank that manages to create the file: all others fail to (noclobber is
# O_EXCL), so clocks of different nodes do not matter.
_WORD: Final = """\
if [ "$pilotflow_code" -ne 0 ] && [ -z "$pilotflow_ended" ]; then
  (
    umask 077
    (set -C; echo "$pilotflow_rank" >{first}) 2>/dev/null
    echo "$pilotflow_code $(uname -n)" >{aside}."$pilotflow_rank" && mv {aside}."$pilotflow_rank" {ended}."$pilotflow_rank"
  )
fi
"""
_ABORT: Final = '[ "$pilotflow_code" -eq 0 ] || kill -KILL $$\n'


def rank_command(command: Sequence[str], step: Step, *, kill_on_failure: bool = False) -> list[str]:
    """The command of each rank of a step, from what it should run.

    It puts the rank's numbers into the environment: PILOTFLOW_RANK, PILOTFLOW_LOCAL_RANK (on its node),
    PILOTFLOW_NODE_RANK (of its node), and the same as RANK, LOCAL_RANK and GROUP_RANK, which
    `torch.distributed` reads, and PET_NODE_RANK, torchrun's default for `--node-rank`. SIGUSR1 becomes
    SIGTERM for the rank. Of a rank that ends with another code than 0, the step's directory gets
    `ended.RANK` (its exit code, 128 + signal as shells have it, and its host), and the first of them
    also `first`.

    Args:
        command: the argument list of one rank; every argument arrives as it is.
        step: which step.
        kill_on_failure: end by SIGKILL after a failure, for launchers that end the other ranks only then.
    """
    variables = ""
    for name in reversed(RANK_VARIABLES):
        variables = f"${{{name}:-{variables}}}"
    words = f"pilotflow: this process was given no rank: none of {', '.join(RANK_VARIABLES)} is set."
    text = _TEXT.format(
        variables=variables,
        no_rank=shlex.quote(words),
        no_rank_code=NO_RANK,
        ranks_per_node=step.ranks_per_node,
        command=quote_command(command),
        failed=_word(step) + (_ABORT if kill_on_failure else ""),
    )
    return ["bash", "-p", "-c", text]


def _word(step: Step) -> str:
    if step.directory is None:
        return ""
    first, aside, ended = (shlex.quote(f"{step.directory}/{name}") for name in ("first", ".ended", "ended"))
    return _WORD.format(first=first, aside=aside, ended=ended)
