"""The entries of a file multiplied by their parameters: how many copies each makes, and their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, Generic, TypeVar

from pilotflow.units import nearest
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.model import Parameterized, WorkflowSpec
from pilotflow.workflow.names import Names
from pilotflow.workflow.parameters import ONE, Copies, ParameterProblem, combine, read_table
from pilotflow.workflow.reading import Path

_Entry = TypeVar("_Entry", bound=Parameterized)

MAX_ENTRIES: Final = 4_000_000
_NO_SOURCES: Final = (None, None, None, None)


@dataclass(frozen=True)
class Expanded(Generic[_Entry]):
    """An entry and its copies.

    Attributes:
        entry: what is in the file.
        path: where.
        copies: the values of each copy.
        names: the name of each copy.
        first: the index of the first copy among all of its kind.
    """

    entry: _Entry
    path: Path
    copies: Copies
    names: list[str]
    first: int

    def column(self, text: str) -> Iterator[str]:
        """A text of the entry for each copy."""
        made = self.copies.column(text)
        return iter([made] * self.copies.count) if isinstance(made, str) else iter(made)


class Multiplier:
    """Makes the copies of entries; shared parameters and tables are read once."""

    def __init__(self, top: WorkflowSpec, folder: FilePath, findings: Findings) -> None:
        self._top = top
        self._folder = folder
        self._findings = findings
        self._tables: dict[str, Copies] = {}
        if top.parameters is not None and top.parameters_file is not None:
            findings.error(
                ("parameters_file",), "`parameters` is there too; a workflow shares one or the other.", key=True
            )

    def expand(self, index: int, kind: str, entry: _Entry, names: Names) -> Expanded[_Entry] | None:
        """An entry and its copies, whose names are given; None if there is something wrong with its parameters.

        Args:
            index: its place in its section.
            kind: the section.
            entry: the entry, which has a name.
            names: the names of its kind.
        """
        path: Path = (kind, index)
        sources = (entry.parameters, entry.use_parameters, entry.parameters_file, entry.use_parameters_file)
        copies = ONE if sources == _NO_SOURCES else self._copies(entry, path)
        if copies is None:
            names.incomplete = True
            return None
        name: str = getattr(entry, "name")  # noqa: B009  # all that have parameters have a name
        made = copies.column(name)
        own = [made] * copies.count if isinstance(made, str) else made
        first = len(names)
        if first + len(own) > MAX_ENTRIES:
            self._findings.error(path, f"with this there are more than {MAX_ENTRIES} {kind}; that is the limit.")
            return None
        hint = _missing_in(name, copies) if copies.count > 1 else ""
        for each in own:
            names.add(each, path, hint)
        return Expanded(entry, path, copies, own, first)

    def _copies(self, entry: Parameterized, path: Path) -> Copies | None:
        if self._contradicts(entry, path):
            return None
        key, made = "parameters", ONE
        try:
            if entry.parameters_file is not None:
                key = "parameters_file"
                made = self._table(entry.parameters_file)
            elif entry.use_parameters_file:
                key = "use_parameters_file"
                made = self._shared_table()
            elif entry.parameters is not None:
                made = combine(entry.parameters, entry.parameter_mode)
            elif entry.use_parameters is not None:
                key = "use_parameters"
                made = combine(self._shared(entry.use_parameters), entry.parameter_mode)
        except ParameterProblem as problem:
            self._findings.error((*path, key), str(problem), about=key)
            return None
        return made

    def _contradicts(self, entry: Parameterized, path: Path) -> bool:
        tables = [key for key in ("parameters_file", "use_parameters_file") if getattr(entry, key)]
        inline = [key for key in ("parameters", "use_parameters", "parameter_mode") if getattr(entry, key) is not None]
        if tables and (inline or len(tables) > 1):
            other = (inline or tables[1:])[0]
            self._findings.error(
                (*path, tables[0]), f"`{other}` is there too; an entry has one or the other.", key=True
            )
            return True
        return False

    def _shared(self, wanted: list[str]) -> dict[str, Any]:
        shared = self._top.parameters or {}
        for name in wanted:
            if name not in shared:
                match = nearest(name, shared)
                near = f" (did you mean '{match}'?)" if match else ""
                raise ParameterProblem(
                    f"the workflow's `parameters` have no '{name}'{near}; they have: {', '.join(shared) or 'nothing'}."
                )
        return {name: shared[name] for name in shared if name in wanted}

    def _shared_table(self) -> Copies:
        if self._top.parameters_file is None:
            raise ParameterProblem("the workflow has no `parameters_file`; write one at the top.")
        return self._table(self._top.parameters_file)

    def _table(self, path: str) -> Copies:
        if path not in self._tables:
            self._tables[path] = read_table(path, self._folder)
        return self._tables[path]


def _missing_in(name: str, copies: Copies) -> str:
    """Why the copies of an entry may have the same name."""
    absent = [each for each in copies.names if f"{{{each}}}" not in name and f"{{{each}:" not in name]
    if not absent:
        return ""
    if len(absent) == len(copies.names):
        return (
            f": no parameter is in the name. Write {{{absent[0]}}} in it; or, for one job after all of them, leave "
            "the parameters out and name what it waits for by `depends_on_regexes` or `input_file_regexes`"
        )
    if len(absent) == 1:
        return f": its parameter '{absent[0]}' is not in the name (write {{{absent[0]}}} in it)"
    return f": its parameters {', '.join(sorted(absent))} are not in the name (write {{{min(absent)}}} in it)"
