"""How a step of Slurm ended, from srun's exit code and what it printed.

Source of the words: seen on Slurm 22.05 ("oom-kill event(s)"; later versions write "oom_kill event"), and
the states of steps in `sacct(1)`, JOB STATE CODES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

_OOM: Final = re.compile(
    r"^srun: error: \S+: tasks? [^:]*: Out Of Memory|error: Detected \d+ oom[-_]kill event", re.MULTILINE
)
_CANCELLED: Final = re.compile(
    r"error: \*\*\* (?:STEP|JOB) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO (?P<why>[A-Z ]+?)(?:,.*)?)? \*\*\*"
)
_NODE: Final = re.compile(r"^srun: error: (?:Node failure on (?P<node>\S+)|.*\bNode failure\b.*)$", re.MULTILINE)
_REFUSED: Final = re.compile(r"^srun: error: Unable to create step for job \d+: (?P<why>.+)$", re.MULTILINE)
_NEVER: Final = re.compile(
    r"More processors requested|Memory required by task|Invalid generic resource|Requested node configuration|"
    r"Invalid (?:number of|partition|feature)|Requested time limit",
)
"""What Slurm will say again, however often it is asked."""


class StepFate(Enum):
    """Who ended a step, or that it did so itself."""

    ITSELF = auto()
    """Its process has ended by itself; its exit code says how."""
    OUT_OF_MEMORY = auto()
    """Slurm's memory limit: a process of it was killed."""
    TIME_LIMIT = auto()
    """Slurm has ended it because its time was over."""
    NODE_LOST = auto()
    """Its node has failed."""
    ENDED = auto()
    """Slurm has ended it for another reason: its job was cancelled, or preempted."""
    REFUSED = auto()
    """Slurm gives it no place, now or ever: it asks for more than the allocation has."""
    NOT_STARTED = auto()
    """Slurm could not start it now."""


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """How a step ended.

    Attributes:
        fate: see there.
        words: Slurm's own, if it has said something; else how srun ended, as the end of a sentence.
    """

    fate: StepFate
    words: str


def judge_step(exit_code: int, printed: str) -> StepVerdict:
    """How a step ended.

    Args:
        exit_code: of srun, minus the signal's number if a signal ended srun itself.
        printed: what srun and its step wrote to stderr, or the end of it.
    """
    if exit_code == 0:
        return StepVerdict(StepFate.ITSELF, "ended")
    if _OOM.search(printed):
        return StepVerdict(StepFate.OUT_OF_MEMORY, "was killed by Slurm for lack of memory")
    cancelled = _CANCELLED.search(printed)
    if cancelled is not None:
        why = (cancelled["why"] or "").lower()
        if why == "time limit":
            return StepVerdict(StepFate.TIME_LIMIT, "was ended by Slurm at its time limit")
        if "node" in why:
            return StepVerdict(StepFate.NODE_LOST, f"was ended by Slurm due to {why}")
        return StepVerdict(StepFate.ENDED, f"was ended by Slurm{f' due to {why}' if why else ''}")
    if (node := _NODE.search(printed)) is not None:
        return StepVerdict(StepFate.NODE_LOST, f"lost its node ({node[0].removeprefix('srun: error: ')})")
    if (refused := _REFUSED.search(printed)) is not None:
        fate = StepFate.REFUSED if _NEVER.search(refused["why"]) else StepFate.NOT_STARTED
        return StepVerdict(fate, refused["why"].strip())
    return StepVerdict(StepFate.ITSELF, _code_in_words(exit_code))


def _code_in_words(code: int) -> str:
    if code < 0:
        return f"its srun was ended by signal {-code}"
    return f"was ended by signal {code - 128}" if 128 < code < 128 + 65 else f"ended with exit code {code}"
