"""Type checks of what users construct and call, in words that name the argument.

The usual case, a value that plainly fits a plain annotation, costs an `isinstance`. typeguard
decides the rest; its import takes longer than all of ours, so it happens only then.

Every error about a field has one form, `Owner(field=...): problem`, which `split_field_error`
takes apart again, so that a config file's reader can point at the line of the field.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from pilotflow.errors import ConfigError
from pilotflow.units import kind, show

_FIELD_ERROR: Final = re.compile(r"(?P<owner>\w+)\((?P<keys>\w+=\.\.\.(?:, \w+=\.\.\.)*)\): (?P<problem>.*)", re.DOTALL)


class FieldError(NamedTuple):
    """The parts of a message that `field_error` made."""

    owner: str
    keys: tuple[str, ...]
    problem: str


def field_error(owner: object, keys: str | tuple[str, ...], problem: str) -> ConfigError:
    """A `ConfigError` about one field of `owner`, or about several that do not go together.

    Args:
        owner: the object or class that the fields belong to, or its name.
        keys: names of the fields.
        problem: what is wrong and what is allowed.
    """
    name = owner if isinstance(owner, str) else (owner if isinstance(owner, type) else type(owner)).__name__
    listed = ", ".join(f"{key}=..." for key in ((keys,) if isinstance(keys, str) else keys))
    return ConfigError(f"{name}({listed}): {problem}")


def split_field_error(error: ConfigError) -> FieldError | None:
    """The fields and the problem of an error from `field_error`, or None if it is another one."""
    match = _FIELD_ERROR.fullmatch(str(error))
    if match is None:
        return None
    keys = tuple(part.partition("=")[0] for part in match["keys"].split(", "))
    return FieldError(match["owner"], keys, match["problem"])


def check_arguments(obj: object) -> None:
    """Check the fields of a dataclass instance against their annotations.

    Called first in `__post_init__` of public records. Annotations that cannot be resolved at run
    time are not checked.

    Raises:
        ConfigError: `LocalProvider(max_blocks=...): 'two' is str, expected int.`
    """
    if not dataclasses.is_dataclass(obj):
        raise TypeError(f"{obj!r} is not an instance of a dataclass")
    hints = annotations_of(type(obj))
    for field in dataclasses.fields(obj):
        if field.init and field.name in hints:
            problem = type_problem(getattr(obj, field.name), hints[field.name])
            if problem is not None:
                raise field_error(obj, field.name, problem)


def check_call(function: str, name: str, value: object, annotation: Any) -> None:
    """Check one argument of a public function.

    Args:
        function: the function's name, for the message.
        name: the argument's name.
        value: what the user gave.
        annotation: what it should be; a type, not a string.

    Raises:
        ConfigError: `load(config=...): 3 is int, expected Config | str | None.`
    """
    problem = type_problem(value, annotation)
    if problem is not None:
        raise field_error(function, name, problem)


@cache
def annotations_of(cls: type) -> dict[str, Any]:
    """The resolved annotations of a class's constructor, without those that cannot be resolved."""
    source: Any = cls if dataclasses.is_dataclass(cls) else cls.__init__  # type: ignore[misc]  # any class will do
    try:
        return typing.get_type_hints(source)
    except (NameError, AttributeError, TypeError):
        return {}  # names imported for type checkers only


def type_problem(value: object, annotation: Any) -> str | None:
    """What is wrong with a value's type, as a sentence, or None."""
    if _plainly_fits(value, annotation):
        return None
    expected = f"{show(value)} is {kind(value)}, expected {describe(annotation)}."
    if isinstance(value, bool) and not _plainly_fits(value, annotation | object if False else annotation):
        if _takes_numbers(annotation):
            return expected
    return _typeguard_problem(value, annotation, expected)
