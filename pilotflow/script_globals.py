"""Globals of scripts in workers: each body that is loaded has its own, and finds there what the worker's setup has left.

So `global model; model = load()` in an initializer means what it means where processes import the script, and so does
`cache["model"] = load()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class ScriptGlobals:
    """What the setup of this process has left in the globals of its module, for the functions that come after it."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, Any]] = {}  # by module
        self._watched: list[tuple[dict[str, Any], dict[str, Any]]] | None = (
            None  # of the setup, now and before its call
        )

    def take(self, names: dict[str, Any]) -> None:
        """A body has been loaded whose functions have these globals."""
        names.update(self._left.get(names.get("__name__", ""), ()))
        if self._watched is not None:
            self._watched.append((names, dict(names)))

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        """What is loaded and called in here is the setup of this process.

        Functions and classes that it uses and has not set are left out: each body has its own, maybe a later one.
        """
        outer, self._watched = self._watched, []
        try:
            yield
            for names, before in self._watched:
                self._left.setdefault(names.get("__name__", ""), {}).update(
                    (name, value)
                    for name, value in names.items()
                    if not name.startswith("__") and (before.get(name, before) is not value or not callable(value))
                )
        finally:
            self._watched = outer
