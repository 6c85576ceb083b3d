"""Errors as messages and exit codes, for all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pilotflow.cli.interrupts import INTERRUPTED, leave_quietly, raise_again
from pilotflow.errors import ConfigError, InfrastructureError, PilotflowError

TASK_FAILED: Final = 1
CONFIG_WRONG: Final = 2
INFRASTRUCTURE_FAILED: Final = 3


def import_from_here() -> None:
    """Let a file name classes of modules in the working directory, as programs started there do."""
    if not {"", os.getcwd()}.intersection(sys.path):
        sys.path.append(os.getcwd())


@contextmanager
def errors_in_words(interrupted: str = "Interrupted.") -> Iterator[None]:
    """Turn errors of pilotflow, and Ctrl-C, into a message on stderr and an exit code."""
    try:
        begun = raise_again()
        try:
            yield
        finally:
            if begun:
                leave_quietly()
    except PilotflowError as error:
        complain(str(error))
        raise SystemExit(_exit_code(error)) from None
    except KeyboardInterrupt:
        complain(interrupted)
        raise SystemExit(INTERRUPTED) from None


def _exit_code(error: PilotflowError) -> int:
    if isinstance(error, ConfigError):
        return CONFIG_WRONG
    return INFRASTRUCTURE_FAILED if isinstance(error, InfrastructureError) else TASK_FAILED


def seconds_of(option: str, text: str) -> float:
    """The duration that an option was given.

    Raises:
        ConfigError: it is none.
    """
    from pilotflow.units import parse_duration

    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def complain(message: str) -> None:
    """Say on stderr what is wrong."""
    from rich.console import Console
    from rich.text import Text

    with suppress(OSError):  # there is nowhere else to say it
        Console(stderr=True).print(Text(message, style="red"), soft_wrap=True)
