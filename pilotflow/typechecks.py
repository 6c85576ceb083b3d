"""Type checks of what users construct and call, in words that name the argument.

The usual case, a value that plainly fits a plain annotation, costs an `isinstance`. typeguard
decides the rest; its import takes longer than all of ours, so it happens only then.

Every error about a field has one form, `Owner(field=...): problem`, which `split_field_error`
takes apart again, so that a config file's reader can point at the line of the field.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple, cast

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

    Called first in `__post_init__` of public records, providers among them. Fields of a class with
    annotations that cannot be resolved at run time are not checked, those of its bases are.

    Raises:
        ConfigError: `LocalProvider(max_blocks=...): 'two' is str, expected int.`
    """
    if not dataclasses.is_dataclass(obj):
        raise TypeError(f"{obj!r} is not an instance of a dataclass")
    cls: Any = type(obj)
    hints = annotations_of(cls)
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
    """The resolved annotations of a class's constructor; those of its bases only, if its own cannot be resolved."""
    source: Any = cls if dataclasses.is_dataclass(cls) else cls.__init__  # type: ignore[misc]  # any class will do
    try:
        return typing.get_type_hints(source)
    except (NameError, AttributeError, TypeError):  # names imported for type checkers only
        bases = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
        return {name: hint for base in reversed(bases) for name, hint in annotations_of(base).items()}


def fields_without_dataclass(cls: type) -> str | None:
    """What is wrong with a subclass of a dataclass that lacks the decorator: its fields are none. None if nothing is."""
    for each in cls.__mro__:
        if "__dataclass_fields__" in vars(each) or "__init__" in vars(each) or not dataclasses.is_dataclass(each):
            continue
        others = {name for base in each.__bases__ for name in dir(base)} - {
            field.name for field in dataclasses.fields(each)
        }
        lost = [
            name
            for name, hint in inspect.get_annotations(each).items()
            if not name.startswith("_") and name not in others and "ClassVar" not in str(hint)
        ]
        if lost:
            so = "this is no field" if len(lost) == 1 else "these are no fields"
            return (
                f"class {each.__name__} declares {', '.join(lost)} and is no dataclass, so {so} of it. "
                f"Write @dataclass(frozen=True, kw_only=True) above `class {each.__name__}`."
            )
    return None


def type_problem(value: object, annotation: Any) -> str | None:
    """What is wrong with a value's type, as a sentence, or None."""
    if _plainly_fits(value, annotation):
        return None
    expected = f"{show(value)} is {kind(value)}, expected {describe(annotation)}."
    if isinstance(value, bool) and {int, float}.intersection(_members(annotation)):
        return expected  # True is an int to Python, but never a number of blocks
    detail = _typeguard_problem(value, annotation)
    if detail is None:
        return None
    origin = typing.get_origin(annotation)
    inside = isinstance(origin, type) and isinstance(value, origin)
    return f"{show(value)} is not {describe(annotation)}: {detail}." if inside else expected


def _typeguard_problem(value: object, annotation: Any) -> str | None:
    import typeguard

    try:
        typeguard.check_type(
            value,
            annotation,
            forward_ref_policy=typeguard.ForwardRefPolicy.IGNORE,
            collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS,
        )
    except typeguard.TypeCheckError as error:
        return str(error)
    return None


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _plainly_fits(value: object, annotation: Any) -> bool:
    """True only if the value fits for certain; False may mean that typeguard has to look."""
    for member in _members(annotation):
        origin, args = typing.get_origin(member), typing.get_args(member)
        if member is Any or member is object:
            return True
        if origin is Literal:
            fits = any(value == arg and type(value) is type(arg) for arg in args)
        elif origin in _SEQUENCES:
            plain = isinstance(value, (list, tuple) if origin is Sequence else list)
            fits = plain and all(_plainly_fits(item, args[0]) for item in cast("Sequence[object]", value))
        elif origin in _MAPPINGS:
            fits = isinstance(value, dict) and all(
                _plainly_fits(key, args[0]) and _plainly_fits(item, args[1]) for key, item in value.items()
            )
        else:
            fits = _is_instance(value, member)
        if fits:
            return True
    return False


_SEQUENCES: Final = (list, Sequence)
_MAPPINGS: Final = (dict, Mapping)


def _is_instance(value: object, member: Any) -> bool:
    if not isinstance(member, type) or typing.get_origin(member) is not None:
        return value is None and member is type(None)
    if isinstance(value, bool):
        return member is bool
    if member is float:
        return isinstance(value, (int, float))
    try:
        return isinstance(value, member)
    except TypeError:  # a protocol without @runtime_checkable: typeguard compares the signatures
        return False


def describe(annotation: Any) -> str:
    """An annotation as it goes into a message: `int | None`, `list[ExecutorConfig]`, `'a' or 'b'`."""
    if annotation is None or annotation is type(None):
        return "None"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(describe(member) for member in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is Callable:
        return "a function"
    if origin is not None:
        inner = ", ".join("..." if arg is ... else describe(arg) for arg in args)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")
