"""Calls of apps that are more than a function and its arguments.

A plain call never comes here. Others have `stdout`, `stderr`, `inputs`, `outputs` or `label`, or are of an
app that has options about its tasks' surroundings. What a worker needs to know then travels before the
arguments of the call, and the function in wrappers that take it off again (`pilotflow.runtime.tasks`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pilotflow.app_options import AppOptions
from pilotflow.app_output import STREAMS, check_label, is_elsewhere, place_of
from pilotflow.errors import ConfigError
from pilotflow.files import File
from pilotflow.futures import AppFuture, PartFuture
from pilotflow.run import Run
from pilotflow.runtime.task_output import Output
from pilotflow.runtime.tasks import AsyncCall, BashCall, InSetting, PythonCall, Setting, second
from pilotflow.units import kind, show

CALL_WORDS: Final = ("stdout", "stderr", "inputs", "outputs", "label")
"""Keywords of a call that are ours unless the function has a parameter of that name; then both."""

_PLACED: Final = ("stdout", "stderr", "outputs")
"""Those of which a function's parameter may have a default."""

PLAIN, REDIRECTED, IN_SETTING = 0, 1, 2
"""Shapes in which a function travels, to be added: bare, with its output redirected, in other surroundings."""


@dataclass(frozen=True)
class Arguments:
    """What is packed for a call.

    Attributes:
        args, kwargs: as the worker calls the function, in its wrappers.
        ours: names of those at the beginning of `args` that the caller has not written.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ours: tuple[str, ...] = ()


class Manner:
    """How an app calls its function.

    Args:
        function: the function.
        name: of the app.
        is_command: whether it returns a command.
        options: what was said about its calls.
    """

    def __init__(self, function: Callable[..., Any], name: str, is_command: bool, options: AppOptions) -> None:
        self.function = function
        self._name = name
        self._is_command = is_command
        self._options = options
        self.parameters = parameters_of(function)
        self._defaults = {
            word: parameter.default
            for word in _PLACED
            if (parameter := self.parameters.get(word)) is not None and parameter.default is not parameter.empty
        }
        redirected = is_command or options.redirects or any(self._defaults.get(word) for word, _ in STREAMS)
        elsewhere = options.has_setting or bool(self._defaults.get("outputs"))
        elsewhere = elsewhere or any(is_elsewhere(self._target(word, {})) for word, _ in STREAMS)
        self.least = (REDIRECTED if redirected else PLAIN) | (IN_SETTING if elsewhere else PLAIN)
        """The shape of a call without any words of ours."""
        has_label = options.label is not None
        self.always_special = self.least != PLAIN or has_label or any(word in self.parameters for word in _PLACED)
        """Whether every call must be looked at: where output goes may be given by position."""

    def shape_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The shape of a call, and what it says in our words; those are taken out of `kwargs`."""
        given: dict[str, Any] = {word: kwargs[word] for word in CALL_WORDS if word in kwargs}
        for word in given:
            if word not in self.parameters:
                del kwargs[word]
        positional = list(self.parameters)[: len(args)]
        given.update((word, args[i]) for i, word in enumerate(positional) if word in CALL_WORDS and word != "inputs")
        shape = self.least
        if "stdout" in given or "stderr" in given:
            shape |= REDIRECTED
            if any(is_elsewhere(given.get(word)) for word, _ in STREAMS):
                shape |= IN_SETTING
        if given.get("outputs") or ("inputs" in given and "inputs" not in self.parameters):
            shape |= IN_SETTING
        return shape, given

    def wrapped(self, shape: int) -> Callable[..., Any]:
        """The function as it travels in that shape."""
        function: Callable[..., Any] = self.function
        if inspect.iscoroutinefunction(function):
            function = AsyncCall(function)
        if self._is_command:
            function = BashCall(function, self._name)
        elif shape & REDIRECTED:
            function = PythonCall(function)
        if shape & IN_SETTING:
            function = InSetting(function, self._name)
        return function

    def arguments(
        self,
        run: Run,
        future: AppFuture[Any],
        shape: int,
        given: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Arguments:
        """What a call of that shape sends; the future is told where output goes.

        Raises:
            ConfigError: one of our words has a wrong value.
        """
        future.label = given.get("label", self._options.label)
        check_label(future.label, "label")
        if future.label is not None:
            run.record_label(future.task_id, future.label)
        before: tuple[Any, ...] = ()
        ours: tuple[str, ...] = ()
        streams: tuple[File, ...] = ()
        if shape & REDIRECTED:
            args, output, streams = self._redirected(run, future, given, args, kwargs)
            before, ours = (output,), ("output",)
        if shape & IN_SETTING:
            waits = "inputs" in given and "inputs" not in self.parameters
            inputs = _listed(given["inputs"], "inputs") if waits else []  # only waited for: the worker drops them
            cwd = None if self._options.cwd is None else os.path.abspath(self._options.cwd)
            args, outputs, uploads = self._with_outputs(run, future, given, cwd, args, kwargs)
            setting = Setting(cwd, self._options.env, outputs, uploads, self._options.scratch, streams)
            before, ours = (setting, inputs, *before), ("setting", "inputs", *ours)
        return Arguments((*before, *args), kwargs, ours)

    def _redirected(
        self, run: Run, future: AppFuture[Any], given: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], Output, tuple[File, ...]]:
        """The arguments with paths where the function asks for them, where output goes, and what of it is stored elsewhere."""
        label = future.label
        places: dict[str, tuple[str, str] | None] = {}
        streams: dict[Any, File] = {}  # by URL, which may be that of both
        for word, suffix in STREAMS:
            target = self._target(word, given)
            if is_elsewhere(target):
                file, mode = target if isinstance(target, tuple) else (target, "a")
                made = streams.setdefault(file.url, file.promised(run.directory, future.task_id, word)[0])
                target = (made, mode)
            place = place_of(target, run.directory / "tasks" / self._name, future.task_id, label, suffix, word)
            places[word] = place
            if place is None or word not in self.parameters:
                continue
            args = self._replaced(word, place[0], args, kwargs)
        output = Output(**places)
        future.stdout = output.stdout[0] if output.stdout else None
        future.stderr = output.stderr[0] if output.stderr else None
        return args, output, tuple(streams.values())

    def _target(self, word: str, given: dict[str, Any]) -> Any:
        """What was said about a stream: in the call, as the parameter's default, or for all calls."""
        return given.get(word, self._defaults.get(word) or getattr(self._options, word))

    def _with_outputs(
        self,
        run: Run,
        future: AppFuture[Any],
        given: dict[str, Any],
        cwd: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[File, ...]]:
        """The arguments with whole paths where the function asks for `outputs`, these paths, and what is stored elsewhere."""
        promised = given.get("outputs", self._defaults.get("outputs"))
        if not promised:
            return args, (), ()
        files: list[Any] = []
        taken: list[Any] = []
        for i, file in enumerate(_listed(promised, "outputs")):
            if isinstance(file, File):
                mine, theirs = file.promised(run.directory, future.task_id, i)
            else:
                mine = theirs = _whole(file, cwd)
            files.append(mine)
            taken.append(theirs)
        future.outputs = [
            PartFuture(future, f"{self._name}.outputs[{i}]", (second, file)) for i, file in enumerate(taken)
        ]
        if "outputs" in self.parameters:
            args = self._replaced("outputs", files, args, kwargs)
        uploads = tuple(file for file in files if isinstance(file, File) and file.is_remote)
        return args, tuple(map(os.fspath, files)), uploads

    def _replaced(self, word: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments with that value for one of the function's parameters."""
        at = list(self.parameters).index(word)
        if at < len(args):
            return (*args[:at], value, *args[at + 1 :])
        kwargs[word] = value
        return args


def _whole(file: Any, cwd: str | None) -> Any:
    """A promised file with its whole path, as the kind of path that it is."""
    if not isinstance(file, (str, os.PathLike)):
        raise ConfigError(f"outputs=... takes a list of paths, and {show(file)} is {kind(file)}")
    if not isinstance(file, (str, Path)):
        return file
    return type(file)(os.path.join(cwd or os.getcwd(), file))


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The function's parameters; none of builtins without a signature."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def _listed(values: Any, word: str) -> list[Any]:
    what = "paths" if word == "outputs" else "futures and values"
    try:
        if not isinstance(values, str):
            return list(values)
    except TypeError:
        pass
    raise ConfigError(f"{word}=... takes a list of {what}, not {kind(values)}")
