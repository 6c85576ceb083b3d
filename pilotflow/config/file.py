"""`load_config`: a `Config` from a YAML file, or everything that is wrong with it, by line and column.

Keys are the fields of `Config` and `ExecutorConfig`; a provider or a launcher is its `type` (see
`pilotflow.config.plugins`) and the fields of that class. The records check themselves when they
are made, and `pilotflow.config.reader` finds the line that an error is about.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from pilotflow.config import yaml_tree
from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
from pilotflow.config.reader import Bad, RecordReader, kind_in_file, raise_problems, read_document
from pilotflow.errors import ConfigError
from pilotflow.units import show


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration in a YAML or JSON file.

    Args:
        path: the file, UTF-8.

    Raises:
        ConfigError: the file cannot be read, or anything in it is wrong. Everything is reported at
            once, one line each, as `file:line:column: where: what is wrong and what is allowed`.
    """
    name = os.fspath(path)
    document = read_document(name)
    reader = _ConfigReader(document)
    config = reader.config()
    try:
        raise_problems(name, reader.problems)
    except ConfigError as error:
        if isinstance(document.value, Mapping) and "jobs" in document.value:
            hint = f"{name} looks like a workflow: `pilotflow create {name}` checks those."
            raise ConfigError(f"{error}\n{hint}") from None
        raise
    assert config is not None
    return config


class _ConfigReader(RecordReader):
    """Makes a `Config`."""

    def config(self) -> Config | None:
        """The configuration, or None if the document has none."""
        value = self.document.value
        if value is None:
            self.note((), "the file is empty. Write at least `executors:` and one executor with a label.")
            return None
        try:
            return self.record(Config, value, (), {"executors": self._executors})
        except Bad:
            return None

    def _executors(self, value: object, path: yaml_tree.Path) -> list[ExecutorConfig | ThreadExecutorConfig]:
        if value is yaml_tree.BROKEN:
            raise Bad
        if not isinstance(value, list):
            self.note(path, f"{show(value)} is {kind_in_file(value)}, expected a list of executors, each after a '-'.")
            raise Bad
        noted = len(self.problems)
        self._check_labels(value, path)
        plugins = {"provider": self.provider, "launcher": self.launcher}
        made = list[ExecutorConfig | ThreadExecutorConfig]()
        for index, item in enumerate(value):
            with contextlib.suppress(Bad):
                if isinstance(item, Mapping) and "max_threads" in item:
                    made.append(self.record(ThreadExecutorConfig, item, (*path, index), {}))
                else:
                    made.append(self.record(ExecutorConfig, item, (*path, index), plugins))
        if len(made) < len(value) or len(self.problems) > noted:
            raise Bad
        return made

    def _check_labels(self, executors: list[Any], path: yaml_tree.Path) -> None:
        first: dict[object, int] = {}
        for index, item in enumerate(executors):
            default = "threads" if isinstance(item, Mapping) and "max_threads" in item else "local"
            label = item.get("label", default) if isinstance(item, Mapping) else None
            if isinstance(label, str):
                if label in first:
                    where = "it has no label, and the default" if "label" not in item else "the label"
                    at = (*path, index, "label") if "label" in item else (*path, index)
                    self.note(at, f"{where} '{label}' is already that of executors[{first[label]}]. Choose another.")
                first.setdefault(label, index)
