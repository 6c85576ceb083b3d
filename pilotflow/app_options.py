"""What decorators and `options()` say about the calls of an app: their keywords, checked in words.

Each keyword has one line in `_PARSERS` or is a word of the request (`pilotflow.requests`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pilotflow.app_output import Target, check_label, check_target
from pilotflow.core.retry import UNLIMITED, Policy
from pilotflow.errors import ConfigError
from pilotflow.requests import REQUEST_WORDS, parse_request
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.units import format_duration, kind, nearest, parse_duration, show

Handler: TypeAlias = Callable[[BaseException, int], object]
"""A `retry_handler`: called with the error and the number of tries made."""


@dataclass(frozen=True)
class AppOptions:
    """What is said about all calls of an app."""

    executors: tuple[str, ...] = ()
    request: Request = DEFAULT_REQUEST
    retries: int | None = None
    crash_limit: int | None = None
    stdout: Target = None
    stderr: Target = None
    label: str | None = None
    all_ranks: bool = False
    cwd: str | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    backoff_s: float | None = None
    retry_handler: Handler | None = None
    timeout_s: float | None = None
    allow_failed: bool = False
    scratch: bool = False
    cache: bool = False
    ignore_for_cache: tuple[str, ...] = ()
    version: str | None = None

    def policy(self, retries: int, backoff_s: float, handler: Handler | None) -> Policy | None:
        """How failures of its tasks are dealt with; None if nothing is done about them.

        Args:
            retries, backoff_s, handler: those of the run, which hold where the app says nothing.
        """
        handler = self.retry_handler or handler
        if self.retries is not None:
            retries = self.retries
        elif handler is not None and (self.retry_handler is not None or not retries):
            retries = UNLIMITED
        backoff_s = backoff_s if self.backoff_s is None else self.backoff_s
        policy = Policy(retries, backoff_s, handler, self.timeout_s, self.allow_failed)
        return policy if retries or policy.timeout_s is not None or policy.allow_failed else None

    def check_for_threads(self, name: str, executor: str, *, is_command: bool) -> None:
        """See that tasks can run in threads of the program, where little can be promised.

        Raises:
            ConfigError: they cannot; names the keyword.
        """
        request, why = self.request, ""
        if request.num_nodes > 1 or request.ranks_per_node > 1:
            why = "num_nodes or ranks_per_node, and a thread is on one node"
        elif is_command:
            return
        elif request.runtime_s is not None or self.timeout_s is not None:
            word = "timeout" if self.timeout_s is not None else "runtime"
            why = f"{word}, and a thread cannot be ended when its time is over"
        elif self.has_setting:
            word = "cwd" if self.cwd is not None else "env" if self.env else "scratch"
            why = f"{word}, and a thread has the working directory and the environment of the whole program"
        if why:
            raise ConfigError(
                f"app '{name}' would run in a thread of the program, on executor '{executor}'. It says {why}. Leave "
                "that out, or bind the app to an executor with processes (ExecutorConfig)."
            )

    @property
    def redirects(self) -> bool:
        """Whether the output of every task goes to a file."""
        return self.stdout is not None or self.stderr is not None

    @property
    def has_setting(self) -> bool:
        """Whether tasks run in other surroundings than those of their worker."""
        return self.cwd is not None or bool(self.env) or self.scratch


def parse_options(who: str, words: Mapping[str, Any]) -> AppOptions:
    """The options for these keywords. None stands for "not said".

    Args:
        who: what has the keywords, for messages: "@python_app".
        words: what the user wrote.

    Raises:
        ConfigError: a keyword or its value is wrong; names the nearest valid one.
    """
    for word in words:
        if word not in _PARSERS and word not in REQUEST_WORDS:
            raise no_keyword(who, word, (*_PARSERS, *REQUEST_WORDS))
    request = {word: value for word, value in words.items() if word in REQUEST_WORDS}
    try:
        fields: dict[str, Any] = {"request": parse_request(**request) if request else DEFAULT_REQUEST}
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    for word, value in words.items():
        if word in _PARSERS and value is not None:
            field, parse = _PARSERS[word]
            fields[field] = parse(value, f"{who}({word}=...)")
    return AppOptions(**fields)


_ELSEWHERE: Final = {
    "data_flow_kernel": "an app belongs to whatever run is loaded, see pilotflow.load.",
    "parsl_resource_specification": "say num_cpus, memory, num_gpus, num_nodes, ranks_per_node or priority.",
    "resource_specification": "say num_cpus, memory, num_gpus, num_nodes, ranks_per_node or priority.",
    "walltime": "say timeout for the limit of a task, or runtime for one that is planned with.",
}
"""Keywords that people bring along from elsewhere, none of which is like what it is called here."""


def no_keyword(who: str, word: str, valid: Sequence[str]) -> ConfigError:
    """The error of a keyword that does not exist, with the nearest one that does."""
    close = nearest(word, sorted(valid))
    if word in _ELSEWHERE:
        return ConfigError(f"{who} has no keyword '{word}': {_ELSEWHERE[word]}")
    hint = f" Did you mean {close}?" if close else f" Valid here: {', '.join(sorted(valid))}."
    return ConfigError(f"{who} has no keyword '{word}'.{hint}")


def _executors(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return () if value == "all" else (value,)
    if not isinstance(value, Sequence) or not all(isinstance(label, str) for label in value):
        raise ConfigError(f"{where} takes a list of executor labels, not {show(value)}")
    return tuple(value)


def _whole_from(least: int) -> Callable[[Any, str], int]:
    def parse(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{where} takes a whole number from {least}, not {show(value)}")
        return value

    return parse


def _target(value: Any, where: str) -> Any:
    check_target(value, where)
    return value


def _label(value: Any, where: str) -> Any:
    check_label(value, where)
    return value


def _return_ranks(value: Any, where: str) -> bool:
    if value not in ("first", "all"):
        raise ConfigError(f"{where} takes 'first' or 'all', not {show(value)}")
    return bool(value == "all")


def _cwd(value: Any, where: str) -> str:
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise ConfigError(f"{where} takes the path of a directory, not {show(value)}")
    return os.fspath(value)


def _env(value: Any, where: str) -> tuple[tuple[str, str | None], ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{where} takes names and values, such as {{"OMP_NUM_THREADS": "4"}}, not {show(value)}')
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigError(f"{where}: {show(name)} cannot be the name of an environment variable.")
        if isinstance(text, str) and "\0" in text:
            raise ConfigError(f"{where}: the value {show(text)} of '{name}' holds the character NUL, which ends texts.")
        if text is not None and not isinstance(text, str):
            raise ConfigError(
                f"{where}: the value {show(text)} of '{name}' is {kind(text)}, expected a string, or None to unset it."
            )
    return tuple(value.items())


def _seconds_from(least: float) -> Callable[[Any, str], float]:
    def parse(value: Any, where: str) -> float:
        try:
            seconds = float(parse_duration(value))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if seconds < least:
            raise ConfigError(f"{where} takes at least {format_duration(least)}, not {show(value)}")
        return seconds

    return parse


def _handler(value: Any, where: str) -> Handler:
    if not callable(value):
        raise ConfigError(
            f"{where} takes a function of an exception and the number of tries, which returns True, False or "
            f"seconds; not {show(value)}"
        )
    return value  # type: ignore[no-any-return]


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} takes True or False, not {show(value)}")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{where} takes a list of names of arguments, not {show(value)}")
    return tuple(value)


def _version(value: Any, where: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ConfigError(f"{where} takes a string or a whole number, not {show(value)}")
    return str(value)


_PARSERS: Final[dict[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "executors": ("executors", _executors),
    "retries": ("retries", _whole_from(0)),
    "crash_limit": ("crash_limit", _whole_from(1)),
    "stdout": ("stdout", _target),
    "stderr": ("stderr", _target),
    "label": ("label", _label),
    "return_ranks": ("all_ranks", _return_ranks),
    "cwd": ("cwd", _cwd),
    "env": ("env", _env),
    "backoff": ("backoff_s", _seconds_from(0.0)),
    "retry_handler": ("retry_handler", _handler),
    "timeout": ("timeout_s", _seconds_from(0.001)),
    "allow_failed": ("allow_failed", _truth),
    "scratch": ("scratch", _truth),
    "cache": ("cache", _truth),
    "ignore_for_cache": ("ignore_for_cache", _names),
    "version": ("version", _version),
}
"""Keyword: the field of `AppOptions`, and what checks and turns the value into it; called with (value, where)."""
