"""`variables`: names that are replaced by their values in every text of a file, before anything else is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from pilotflow.units import show
from pilotflow.workflow.fields import words_for
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.parameters import ParameterProblem, Value, read_table, written
from pilotflow.workflow.reading import BROKEN, Path

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN: Final = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)(?::([^{}]*))?\}")
_NOT_TEXTS: Final = frozenset(("use_parameters",))
_TABLES: Final = ("jobs", "files", "user_data")


def put_in(value: Any, findings: Findings, folder: FilePath) -> Any:
    """The file's value with its variables replaced; names that nothing defines are errors.

    Args:
        value: the whole file.
        findings: where errors go.
        folder: where the file is, for tables of parameters, whose columns are names too.
    """
    if not isinstance(value, dict) or value.get("variables") in (None, BROKEN, {}):
        return value
    given = value["variables"]
    if not isinstance(given, dict):
        return value  # the model says so
    values = _checked(given, findings)
    parameters = _parameter_names(value, values, folder)
    for name in sorted(values.keys() & parameters):
        findings.error(("variables", name), f"'{name}' is a parameter too; rename one of them.", key=True)
    replacer = _Replacer(values, parameters, findings)
    return {key: item if key == "variables" else replacer.replace(item, (key,)) for key, item in value.items()}


def _checked(given: Mapping[str, Any], findings: Findings) -> dict[str, Value]:
    values = dict[str, Value]()
    for name, value in given.items():
        path: Path = ("variables", name)
        if not _NAME.fullmatch(name):
            findings.error(path, f"'{name}' cannot name a variable; letters, digits and _ can.", key=True)
        elif isinstance(value, bool):
            values[name] = "true" if value else "false"
        elif not isinstance(value, (str, int, float)):
            if value is not BROKEN:
                findings.error(path, f"{name}: {show(value)} is {words_for(value)}, expected text or a number.")
        elif isinstance(value, str) and (match := _TOKEN.search(value)):
            findings.error(
                path, f"{name}: a variable's value cannot hold {match[0]}; put them together where they are used."
            )
        else:
            values[name] = value
    return values


def _parameter_names(value: Mapping[str, Any], variables: Mapping[str, Value], folder: FilePath) -> set[str]:
    """All names that parameters and the columns of tables define anywhere in the file."""
    found = set[str]()
    entries = [value, *(each for name in _TABLES if isinstance(value.get(name), list) for each in value[name])]
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        if isinstance(entry.get("parameters"), dict):
            found |= entry["parameters"].keys()
        if isinstance(entry.get("parameters_file"), str):
            path = _TOKEN.sub(
                lambda token: written(variables.get(token[1], token[0]), token[2]), entry["parameters_file"]
            )
            try:
                found |= read_table(path, folder).names
            except ParameterProblem:
                continue  # said when the entry is expanded
    return found


class _Replacer:
    def __init__(self, values: Mapping[str, Value], others: set[str], findings: Findings) -> None:
        self._values = values
        self._others = others
        self._findings = findings

    def replace(self, value: Any, path: Path) -> Any:
        """The value with all variables in its texts replaced."""
        if isinstance(value, str):
            return self._text(value, path) if "{" in value else value
        if isinstance(value, list):
            return [self.replace(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: item if key in _NOT_TEXTS else self.replace(item, (*path, key)) for key, item in value.items()}
        return value

    def _text(self, text: str, path: Path) -> str:
        def put(token: re.Match[str]) -> str:
            name = token[1]
            if name in self._values:
                return written(self._values[name], token[2])
            if name not in self._others:
                near = self._findings.suggest(name, [*self._values, *self._others])
                self._findings.error(
                    path, f"{token[0]} is neither a variable nor a parameter{near} A shell's own is ${{{name}}}."
                )
            return token[0]

        return _TOKEN.sub(put, text)
