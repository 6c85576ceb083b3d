"""What Slurm's commands print, read into records. Pure.

Formats: `squeue --Format` with a bar after each field, `sacct --parsable2`, `sbatch --parsable`, of Slurm 22.05
and later. What cannot be read is left out: it is asked for again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pilotflow.core.block_records import BlockState, BlockStatus
from pilotflow.node.slurm import expand_hosts
from pilotflow.providers.slurm_words import HELD, NEVER, STATES

SQUEUE_FORMAT: Final = "JobID:|,State:|,Reason:|,exit_code:|,TimeLeft:|,StartTime:|,RestartCnt:|,NodeList:|"
SACCT_FORMAT: Final = "JobIDRaw,State,ExitCode,NodeList"

_CLUSTER: Final = re.compile(r"CLUSTER: (\S+)")
_SUBMITTED: Final = re.compile(r"(\d+)(?:;(\S+))?")
_TIME: Final = re.compile(r"(?:(?:(?P<d>\d+)-)?(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)")
_STATE: Final = re.compile(r"[A-Z_]+")
_EXIT: Final = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Row:
    """One job, as one of the commands tells of it.

    Attributes:
        job: its id, without the cluster.
        cluster: its cluster, if the command has said it.
        state: Slurm's word for its state.
        reason: Slurm's reason, empty for none.
        exit_code: of a job that has ended, minus a signal's number.
        time_left_s: until its limit, if that is known.
        start_unix_s: when it started, or is expected to.
        restarts: how often it was requeued.
        nodes: nodes it has.
    """

    job: str
    cluster: str = ""
    state: str = ""
    reason: str = ""
    exit_code: int | None = None
    time_left_s: float | None = None
    start_unix_s: float | None = None
    restarts: int = 0
    nodes: tuple[str, ...] = ()

    @property
    def never(self) -> str:
        """What to change, if the job waits for something that time does not bring; else empty."""
        return NEVER.get(self.reason, "") if self.state == "PENDING" else ""

    def status(self) -> BlockStatus:
        """What that means for a block. A state of a newer Slurm that is not known counts as running."""
        state = STATES.get(self.state, BlockState.RUNNING)
        words = [self.state] if self.state not in _PLAIN_STATES else []
        words += [self.reason] if self.reason and self.reason != self.state else []
        said = ": ".join(words)
        if state is BlockState.PENDING and HELD.search(self.reason):  # it is expected to start never
            return BlockStatus(state, f"{said}; `scontrol release {self.job}` lets it start", None, self.time_left_s)
        if state.terminal:
            return BlockStatus(state, said, self.exit_code)
        return BlockStatus(state, said, None, self.time_left_s, self.start_unix_s, self.nodes)


_PLAIN_STATES: Final = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}


def read_submitted(text: str) -> str | None:
    """The id in what `sbatch --parsable` prints: "12", or "12;cluster" for one that was named."""
    for line in reversed(text.splitlines()):
        if _SUBMITTED.fullmatch(line.strip()):
            return line.strip()
    return None


def read_squeue(text: str) -> list[Row]:
    """The jobs in squeue's output with `SQUEUE_FORMAT`; times are in seconds since 1970 (SLURM_TIME_FORMAT=%s)."""
    rows = []
    cluster = ""
    for line in text.splitlines():
        if match := _CLUSTER.fullmatch(line.strip()):
            cluster = match[1]
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < 8 or not fields[0].isdecimal() or not _STATE.fullmatch(fields[1]):
            continue
        job, state, reason, code, left, start, restarts, nodes = fields[:8]
        rows.append(
            Row(
                job,
                cluster,
                state,
                "" if reason == "None" else reason,
                _code_of_wait_status(int(code)) if code.isdecimal() else _code_of_pair(code),
                read_time(left),
                float(start) if start.isdecimal() else None,
                int(restarts) if restarts.isdecimal() else 0,
                tuple(expand_hosts(nodes) or ()) if nodes else (),
            )
        )
    return rows


def read_sacct(text: str, cluster: str = "") -> list[Row]:
    """The jobs, without their steps, in the output of `sacct --parsable2 --noheader` with `SACCT_FORMAT`.

    Of a job that was requeued the last line counts.
    """
    rows: dict[str, Row] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) < 4 or not fields[0].isdecimal():
            continue
        state, _, by = fields[1].partition(" ")  # "CANCELLED by 1000"
        if not _STATE.fullmatch(state):
            continue
        reason = f"{by} (uid)" if by and not by.endswith("by 0") else by
        rows[fields[0]] = Row(fields[0], cluster, state, reason, _code_of_pair(fields[2]))
    return list(rows.values())


def read_time(text: str) -> float | None:
    """Seconds from "D-HH:MM:SS", "HH:MM:SS" or "MM:SS"; None for UNLIMITED, NOT_SET, INVALID and the like."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(match[name] or 0) for name in "dhms")
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _code_of_wait_status(status: int) -> int:
    """An exit code from the wait status that squeue of Slurm 22.05 prints: 1792 is exit code 7, 9 is signal 9."""
    return -(status & 0x7F) if status & 0x7F else status >> 8


def _code_of_pair(text: str) -> int | None:
    """An exit code from "CODE:SIGNAL", which sacct prints, and squeue of Slurm 24.11."""
    match = _EXIT.fullmatch(text.strip())
    if match is None:
        return None
    return -int(match[2]) if int(match[2]) else int(match[1])
