"""How a step ended, from what its ranks left in its directory, as a payload for the client.

Nothing of the user's is unpickled here: results are put together, and exceptions given their place, as bytes.
"""

from __future__ import annotations

import pickle
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from pilotflow.errors import InfrastructureError, RankError
from pilotflow.memfile import buffer_of
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime import ranks_files
from pilotflow.runtime.ranks_files import Ended
from pilotflow.runtime.tails import last_lines
from pilotflow.serialize import Packed, pack, unpack

_NAMED: Final = 5
"""Ranks that a message names; of more it says how many."""
_ABORTED: Final = re.compile(
    r"MPI_ABORT was invoked on rank (?P<rank>\d+) .*?with errorcode (?P<code>-?\d+)"
    r"|called MPI_Abort\([^,]*, (?P<reason>-?\d+)\) - process (?P<process>\d+)",
    re.DOTALL,
)
"""What Open MPI 4.1 and MPICH 4.0 print."""
_OF_A_RANK: Final = range(2, 125)
"""Exit codes that launchers pass on from a rank: srun and mpirun fail with 1, 205, 213, ..., shells with 125 to 127."""
_SIGNALLED: Final = 128
"""A shell's exit code above this is that of a program ended by a signal."""


class StepEnd(Enum):
    """How a step ended."""

    OK = auto()
    """Every rank ended well."""
    ERROR = auto()
    """A rank raised an exception, or a command failed: the user's code."""
    LOST = auto()
    """A rank was killed, a node was lost, or the launcher failed: may be run again."""
    TIMEOUT = auto()
    """Its runtime was over."""
    CANCELLED = auto()
    """It was ended on order."""


@dataclass(frozen=True)
class StepOutcome:
    """How a step ended.

    Attributes:
        end: how.
        packed: for OK the result, for everything else the exception, see `remote_errors`.
        words: for everything but OK what happened, a sentence.
        exit_code: of the launcher, minus the signal's number if a signal ended it.
        tail: the last lines that were printed.
        duration_us: from start to end, in microseconds.
        started_us: wall clock at the start, microseconds since the epoch of Unix time.
    """

    end: StepEnd
    packed: Packed
    words: str
    exit_code: int
    tail: str = ""
    duration_us: int = 0
    started_us: int = 0


@dataclass(frozen=True)
class Ran:
    """What is known of a step that has ended by itself.

    Attributes:
        name: of the app or command, for messages.
        directory: the step's directory.
        ranks: how many there were.
        exit_code: of the launcher.
        printed: the end of what was printed.
        returns: ranks whose results are wanted; none for commands.
        as_list: the result is the list of them.
    """

    name: str
    directory: Path
    ranks: int
    exit_code: int
    printed: str
    returns: range = range(0)
    as_list: bool = False

    @property
    def tail(self) -> str:
        """The last lines of what was printed."""
        return last_lines(self.printed)


class _Joined:
    """Several payloads that unpickle as the list of their values, without being looked into before."""

    def __init__(self, packs: Sequence[Packed]) -> None:
        self._packs = packs

    def __reduce__(self) -> tuple[Any, ...]:
        parts = [
            (packed.payload, packed.layout, [pickle.PickleBuffer(buffer_of(frame)) for frame in packed.frames])
            for packed in self._packs
        ]
        return unpack_all, (parts,)


def unpack_all(parts: Sequence[tuple[bytes, Sequence[int], Sequence[Any]]]) -> list[Any]:
    """The values of several payloads."""
    return [unpack(*part) for part in parts]


def join_results(packs: Sequence[Packed]) -> Packed:
    """One payload whose value is the list of the values of these."""
    return pack(_Joined(packs), snapshot=False)


def outcome_of(ran: Ran) -> StepOutcome:
    """How a step that ended by itself ended."""
    first = ranks_files.read_first(ran.directory)
    if ran.exit_code == 0 and first is None:
        return _good(ran)
    aborted = _ABORTED.search(ran.printed)
    if aborted and (first is None or not _left_word(ran.directory, first)):
        rank, code = int(aborted["rank"] or aborted["process"]), int(aborted["code"] or aborted["reason"])
        words = f"Rank {rank} of {ran.ranks} of '{ran.name}' called MPI_Abort with code {code}."
        return _error(RankError(words + _shown(ran.tail), rank, "", (rank,), code), ran, None)
    if first is None and ran.exit_code in _OF_A_RANK:
        words = f"A rank of '{ran.name}' ended with exit code {ran.exit_code}, and was killed before it could say more."
        return _error(RankError(words + _shown(ran.tail), None, "", (), ran.exit_code), ran, None)
    if first is None:
        return _lost(ran, f"The step of '{ran.name}' ended {_code_in_words(ran.exit_code)}, and no rank said why.")
    return _failed(ran, first)


def _left_word(directory: Path, rank: int) -> bool:
    """Whether a rank said how it failed. It cannot when it is killed with its shell, as MPI_Abort may do."""
    return ranks_files.read_ended(directory, rank) is not None or ranks_files.read_error(directory, rank) is not None


def _good(ran: Ran) -> StepOutcome:
    if not ran.returns:
        return StepOutcome(StepEnd.OK, pack(0), "", 0, ran.tail)
    packs: list[Packed] = []
    for rank in ran.returns:
        try:
            found = ranks_files.read_result(ran.directory, rank)
        except (OSError, ValueError) as error:
            return _lost(ran, f"The result of rank {rank} of '{ran.name}' cannot be read: {error}.")
        if found is None:
            words = (
                f"Rank {rank} of {ran.ranks} of '{ran.name}' ended with exit code 0 before the function had returned."
            )
            return _error(RankError(words + _shown(ran.tail), rank, "", (rank,), 0), ran, None)
        packs.append(found)
    if ranks_files.left_early(ran.directory, ran.ranks):
        words = f"A rank of '{ran.name}' ended with exit code 0 before the function had returned."
        return _error(RankError(words + _shown(ran.tail), None, "", (), 0), ran, None)
    return StepOutcome(
        StepEnd.OK, packs[0] if ran.returns == range(1) and not ran.as_list else join_results(packs), "", 0, ran.tail
    )


def _failed(ran: Ran, first: int) -> StepOutcome:
    broken = ranks_files.read_broken(ran.directory, first)
    if broken is not None:
        return StepOutcome(StepEnd.ERROR, broken, _described(broken), ran.exit_code, ran.tail)
    raised, failed = dict[int, Packed](), list[int]()
    ended: dict[int, Ended] = {}
    for rank in range(ran.ranks):
        found = ranks_files.read_error(ran.directory, rank)
        if found is not None:
            raised[rank] = found
        word = ranks_files.read_ended(ran.directory, rank)
        if word is not None:
            ended[rank] = word
        if found is not None or word is not None or rank == first:
            failed.append(rank)
    host = ended[first].host if first in ended else ""
    where = f" (on {host})" if host else ""
    how = _how(first, raised, ended)
    words = f"Rank {first} of {ran.ranks} of '{ran.name}'{where} {how}."
    others = [f"rank {rank} {_how(rank, raised, ended)}" for rank in failed if rank != first]
    if others:
        more = f"; and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        words += f" So did others: {'; '.join(others[:_NAMED])}{more}."
    code = ended[first].code if first in ended and first not in raised else None
    if code is not None and code > _SIGNALLED and ran.returns:
        return _lost(ran, words)
    shown = words if first in raised else words + _shown(ran.tail)
    exit_code = None if code is None else _SIGNALLED - code if code > _SIGNALLED else code
    return _error(RankError(shown, first, host, tuple(failed), exit_code), ran, raised.get(first))


def _how(rank: int, raised: dict[int, Packed], ended: dict[int, Ended]) -> str:
    if rank in raised:
        return f"raised {_described(raised[rank])}"
    if rank not in ended:
        return "failed"
    code = ended[rank].code
    if code > _SIGNALLED:
        return _code_in_words(_SIGNALLED - code).replace("by", "was killed by", 1)
    return f"ended {_code_in_words(code)}"


def _described(packed: Packed) -> str:
    """An exception's class and text, without its own code: see `remote_errors.pack_exception`."""
    _, chain = unpack(*packed)
    text = str(chain[0][1]).partition("\n")[0]
    return text.removeprefix("builtins.")


def _code_in_words(code: int) -> str:
    """A process's exit code as the end of a sentence; negative for a signal."""
    if code >= 0:
        reason = {126: " (a file that cannot be executed)", 127: " (command not found)"}.get(code, "")
        return f"with exit code {code}{reason}"
    try:
        return f"by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"by signal {-code}"


def _shown(tail: str) -> str:
    return f" The output ends with:\n{tail}" if tail else ""


def _lost(ran: Ran, words: str) -> StepOutcome:
    words += _shown(ran.tail)
    return StepOutcome(StepEnd.LOST, pack_exception(InfrastructureError(words)), words, ran.exit_code, ran.tail)


def _error(error: RankError, ran: Ran, cause: Packed | None) -> StepOutcome:
    packed = pack_exception(error)
    if cause is not None:
        packed = _with_cause(packed, cause)
    return StepOutcome(StepEnd.ERROR, packed, str(error), ran.exit_code, ran.tail)


def _with_cause(packed: Packed, cause: Packed) -> Packed:
    """A packed exception with a packed one as its cause, in the form of `remote_errors.pack_exception`."""
    text, chain = unpack(*packed)
    cause_text, cause_chain = unpack(*cause)
    head, *rest = cause_chain
    between = "\nThe above exception was the direct cause of the following exception:\n\n"
    return pack((cause_text + between + text, [*chain, (*head[:-1], "cause"), *rest]))
