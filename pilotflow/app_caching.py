"""What an app with `cache=True` does at a call: it makes the key, and leaves the rest to the run's memo."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pilotflow.app_options import AppOptions
from pilotflow.app_output import AUTO_LOGNAME, STREAMS, is_elsewhere
from pilotflow.caching.keys import AppKey, Call
from pilotflow.caching.values import cache_key
from pilotflow.errors import ConfigError
from pilotflow.files import File
from pilotflow.futures import AppFuture
from pilotflow.run import Run
from pilotflow.sharing import Shared
from pilotflow.units import nearest

_FILES = ("outputs", *(word for word, _ in STREAMS))

cache_key.register(type(AUTO_LOGNAME), repr)
cache_key.register(File, File.cache_key)
cache_key.register(Shared, lambda shared: shared.digest)  # not by its value, which may take long to look at


class AppCache:
    """How calls of one app are told apart.

    Args:
        function: what the app decorates.
        name: the app's.
        kind: which kind of app it is.
        parameters: the function's.
        options: what was said about its calls.

    Raises:
        ConfigError: `ignore_for_cache` names something that is no argument; has the nearest that is.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        kind: str,
        parameters: Mapping[str, inspect.Parameter],
        options: AppOptions,
    ) -> None:
        self._function = function
        self._name = name
        self._kind = kind
        self._parameters = parameters
        self._options = options
        self._known: tuple[Run, AppKey] | None = None
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            _check_ignored(name, options.ignore_for_cache, [*parameters, "inputs", *_FILES])

    def call(self, run: Run, given: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call, as far as its key is concerned.

        Args:
            run: where it is called.
            given: what the call says in our words.
            args, kwargs: the function's arguments.

        Raises:
            CacheKeyError: the function or an argument cannot be part of a key.
        """
        if self._known is None or self._known[0] is not run:  # as the function's body: once a run
            options = self._options
            ignored = frozenset(options.ignore_for_cache)
            self._known = (run, AppKey(self._name, self._kind, self._function, options.version, ignored))
        if "outputs" in kwargs:  # what is in them now does not count
            kwargs = {**kwargs, "outputs": self._paths(kwargs["outputs"])}
        kwargs = {**kwargs, **{word: _without_content(kwargs[word]) for word, _ in STREAMS if word in kwargs}}
        return self._known[1].call(args, kwargs, self._others(given))

    def files_of(self, future: AppFuture[Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """Paths of files that belong to a call's result: it is of use only while they are as they were."""
        targets = {word: self._target(word, given) for word, _ in STREAMS}
        streams = [
            getattr(future, word)
            for word, target in targets.items()
            if self._is_named(target) and not is_elsewhere(target)
        ]
        outputs = given.get("outputs", ())
        here = [output for output in outputs if not (isinstance(output, File) and output.is_remote)]
        return (*streams, *self._paths(here))

    def _others(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What counts besides the function's arguments."""
        options = self._options
        others: dict[str, Any] = {}
        if "inputs" in given and "inputs" not in self._parameters:
            others["inputs"] = list(given["inputs"])
        if "outputs" in given and "outputs" not in self._parameters:
            others["outputs"] = self._paths(given["outputs"])
        for word, _ in STREAMS:
            target = self._target(word, given)
            if self._is_named(target) and word not in self._parameters:
                others[word] = _without_content(target)
        if options.env:
            others["env"] = dict(options.env)
        if options.cwd is not None:
            others["cwd"] = os.path.abspath(options.cwd)
        return others

    def _paths(self, outputs: Iterable[Any]) -> list[str]:
        """Where files are made, by their whole paths or URLs."""
        cwd = None if self._options.cwd is None else os.path.abspath(self._options.cwd)
        return [_path(output, cwd) for output in outputs]

    def _target(self, word: str, given: Mapping[str, Any]) -> Any:
        """What was said about a stream: in the call, as the parameter's default, or for all calls."""
        if word in given:
            return given[word]
        parameter = self._parameters.get(word)
        default = None if parameter is None or parameter.default is parameter.empty else parameter.default
        return default or getattr(self._options, word)

    @staticmethod
    def _is_named(target: Any) -> bool:
        """Whether a stream goes to a file that the user has named."""
        return target is not None and target is not AUTO_LOGNAME


def _without_content(target: Any) -> Any:
    """A stream's target with the path or URL for a `File`: what is in that now does not count."""
    if isinstance(target, tuple):
        return (_without_content(target[0]), target[1])
    return str(target.url) if isinstance(target, File) else target


def _path(output: Any, cwd: str | None) -> str:
    return str(output.url) if isinstance(output, File) else os.path.join(cwd or os.getcwd(), os.fspath(output))


def _check_ignored(app: str, ignored: tuple[str, ...], valid: list[str]) -> None:
    for name in ignored:
        if name not in valid:
            close = nearest(name, valid)
            hint = f" Did you mean {close}?" if close else f" Its arguments: {', '.join(valid)}."
            raise ConfigError(f"ignore_for_cache: app '{app}' has no argument '{name}'.{hint}")
