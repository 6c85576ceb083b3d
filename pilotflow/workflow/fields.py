"""The kinds of values in a workflow's file: what may be written, what is made of it, how editors check it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from pilotflow.errors import ConfigError
from pilotflow.requests import parse_request
from pilotflow.units import kind, parse_duration, show

_NUMBER_OF_MINUTES: Final = re.compile(r"[0-9]{1,8}")
_MINUTES_SECONDS: Final = re.compile(r"([0-9]{1,6}):([0-5]?[0-9])")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNALS: Final = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGXCPU", "SIGALRM",
)  # fmt: skip

WALLTIME_FORMS: Final = '"04:00:00", "1-12:00:00", "90" (minutes, as sbatch reads it), or units such as "4h"'


def _text(value: Any) -> str:
    if not isinstance(value, str):
        hint = f" Quote it: {str(value)!r}." if isinstance(value, (int, float)) else ""
        raise ValueError(f"{show(value)} is {words_for(value)}, expected text.{hint}")  # noqa: TRY004
    return value


def _name(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise ValueError("a name cannot be empty.")
    return text


def _filled(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise ValueError("this cannot be empty.")
    return text


def words_for(value: Any) -> str:
    """The kind of a value, as the author of a file knows it."""
    names = {dict: "a mapping", list: "a list", type(None): "nothing", str: "text", bool: "true or false"}
    return names.get(type(value)) or {int: "a number", float: "a number"}.get(type(value), kind(value))


def _asked(name: str) -> Callable[[Any], Any]:
    """A value that requests have too, so with the same forms and the same words."""
    field = {
        "num_cpus": "cpus_milli", "memory": "memory_bytes", "num_gpus": "gpus_milli", "num_nodes": "num_nodes",
        "ranks_per_node": "ranks_per_node", "runtime": "runtime_s", "priority": "priority", "resources": "resources",
    }[name]  # fmt: skip

    def parse(value: Any) -> Any:
        if value is None:
            raise ValueError(f"is empty; leave {name} out, or say how much.")
        try:
            return getattr(parse_request(**{name: value}), field)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix(f"{name}=")) from None

    return parse


def _priority(value: Any) -> Any:
    if type(value) is int and value < 0:
        raise ValueError(f"{value} is negative, expected a whole number from 0; higher runs sooner.")
    return _asked("priority")(value)


def _duration(value: Any) -> float:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _limit(value: Any) -> float:
    seconds = _duration(value)
    if seconds == 0:
        raise ValueError(f"{show(value)} leaves no time, expected more than 0 seconds.")
    return seconds


def _walltime(value: Any) -> float:
    """As sbatch reads `--time`, and with units."""
    text = str(value) if type(value) is int else value
    try:
        if isinstance(text, str) and _NUMBER_OF_MINUTES.fullmatch(text.strip()):
            seconds = float(text) * 60
        elif isinstance(text, str) and (match := _MINUTES_SECONDS.fullmatch(text.strip())):
            seconds = int(match[1]) * 60.0 + int(match[2])
        elif isinstance(text, str) and re.fullmatch(r"[0-9]+-[0-9]+:[0-9]+", text.strip()):
            seconds = parse_duration(f"{text.strip()}:00")
        else:
            seconds = parse_duration(text)
    except ConfigError:
        raise ValueError(f"{show(value)} is not a walltime. Write {WALLTIME_FORMS}.") from None
    if seconds < 60:
        raise ValueError(f"{show(value)} is less than a minute, and batch systems count in minutes.")
    return seconds


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{show(value)} is {words_for(value)}, expected variables and values.")  # noqa: TRY004
    for key, item in value.items():
        if not _VARIABLE.fullmatch(key):
            raise ValueError(f"'{key}' cannot name a variable; letters, digits and _ can.")
        if not isinstance(item, str):
            raise ValueError(f"{key}: {show(item)} is {words_for(item)}, expected text. Quote it.")  # noqa: TRY004
    return value


def _signal(value: Any) -> str:
    text = _text(value)
    full = text if text.startswith("SIG") else f"SIG{text}"
    if full not in _SIGNALS:
        raise ValueError(f"{show(text)} is not a signal that can end a job. Valid: {', '.join(_SIGNALS)}.")
    return full


def _srun_signal(value: Any) -> str:
    text = _text(value)
    match = re.fullmatch(r"(?:[BR]{1,2}:)?(?:SIG)?([A-Z0-9]+)(?:@([0-9]+))?", text)
    if match is None or not (match[1].isdigit() or f"SIG{match[1]}" in _SIGNALS):
        raise ValueError(f'{show(text)} is not what srun\'s --signal takes, such as "TERM@120".')
    return text


def _mpi(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9+_.-]+", text):
        raise ValueError(f'{show(text)} is not what srun\'s --mpi takes: one word such as "pmix" or "none".')
    return text


def _function(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*", text):
        raise ValueError(f'{show(text)} does not name a function; write "package.module:name".')
    return text


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        raise ValueError(f"{show(value)} is text, expected a list. Write [{value}].")  # noqa: TRY004
    if not isinstance(value, list):
        raise ValueError(f"{show(value)} is {words_for(value)}, expected a list of names.")  # noqa: TRY004
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise ValueError(f"entry {index + 1}, {show(item)}, is {words_for(item)}, expected text. Quote it.")  # noqa: TRY004
    return value


def _executors(value: Any) -> list[str]:
    return _names([value] if isinstance(value, str) else value)


def _schema(of: Any, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": of, **more})


Text = Annotated[str, PlainValidator(_text), _schema("string")]
Name = Annotated[str, PlainValidator(_name), _schema("string", minLength=1)]
Filled = Annotated[str, PlainValidator(_filled), _schema("string", minLength=1)]
Names = Annotated[list[str], PlainValidator(_names), _schema("array", items={"type": "string"})]
Executors = Annotated[list[str], PlainValidator(_executors), _schema(["array", "string"], items={"type": "string"})]
Cpus = Annotated[int, PlainValidator(_asked("num_cpus")), _schema("number", exclusiveMinimum=0)]
Memory = Annotated[int, PlainValidator(_asked("memory")), _schema(["string", "integer"])]
Gpus = Annotated[int, PlainValidator(_asked("num_gpus")), _schema("number", minimum=0)]
Nodes = Annotated[int, PlainValidator(_asked("num_nodes")), _schema("integer", minimum=1)]
Ranks = Annotated[int, PlainValidator(_asked("ranks_per_node")), _schema("integer", minimum=1)]
Runtime = Annotated[float, PlainValidator(_asked("runtime")), _schema(["string", "number"])]
Amounts = Annotated[
    tuple[tuple[str, int], ...],
    PlainValidator(_asked("resources")),
    _schema("object", additionalProperties={"type": "integer", "minimum": 1}),
]
Priority = Annotated[int, PlainValidator(_priority), _schema("integer", minimum=0)]
Limit = Annotated[float, PlainValidator(_limit), _schema(["string", "number"])]
Walltime = Annotated[float, PlainValidator(_walltime), _schema(["string", "integer"])]
Environment = Annotated[
    dict[str, str], PlainValidator(_environment), _schema("object", additionalProperties={"type": "string"})
]
Signal = Annotated[str, PlainValidator(_signal), _schema("string")]
SrunSignal = Annotated[str, PlainValidator(_srun_signal), _schema("string")]
Mpi = Annotated[str, PlainValidator(_mpi), _schema("string", pattern=r"^[A-Za-z0-9+_.-]+$")]
Function = Annotated[str, PlainValidator(_function), _schema("string")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Amount = Annotated[int, Field(ge=0, le=10**9)]
ExitCode = Annotated[int, Field(ge=-255, le=255)]
