"""Checks of what users give to launchers."""

from __future__ import annotations

from pilotflow.errors import ConfigError
from pilotflow.units import kind, show


def check_options(launcher: object, *names: str) -> None:
    """Check fields that are options of a command line, or one word of it.

    Raises:
        ConfigError: one is empty, is no text, or could not be handed to a program; names it.
    """
    for name in names:
        value = getattr(launcher, name)
        for option in (value,) if isinstance(value, str) else value:
            if not isinstance(option, str) or not option or "\0" in option:
                raise ConfigError(
                    f"{type(launcher).__name__}({name}=...): {show(option)} is {kind(option)}, expected a word of a "
                    "command line."
                )
