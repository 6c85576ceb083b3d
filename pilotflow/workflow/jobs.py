"""Jobs from entries: every copy with its texts in place and its references resolved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.workflow.entries import Expanded
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.model import JobSpec, StdioSpec
from pilotflow.workflow.names import Names
from pilotflow.workflow.reading import Path
from pilotflow.workflow.records import FunctionCall, Job, Mark, Stdio, StdioMode
from pilotflow.workflow.tokens import misspelt_in, tokens_in, with_files

_WHOLE_TOKEN: Final = re.compile(r"\{([^{}:]+)\}")
_NOTHING: Final[tuple[Any, ...]] = ()


class Context(NamedTuple):
    """What jobs refer to, and what holds for all of them.

    Attributes:
        requirements, schedulers, handlers, files, user_data: the names of these.
        requests: the request of each of the requirements.
        paths: the path of each file.
        env: variables of all jobs.
        stdio, stdio_of: where output goes, of all jobs and of single ones.
        strict: whether jobs run only on the scheduler they name.
    """

    requirements: Names
    schedulers: Names
    handlers: Names
    files: Names
    user_data: Names
    requests: Sequence[Request]
    paths: Sequence[str]
    env: Mapping[str, str]
    stdio: Stdio
    stdio_of: Mapping[str, Stdio]
    strict: bool = True


class Awaited(NamedTuple):
    """The jobs that a job says it depends on, by name and by regular expression, and where it says so."""

    names: tuple[str, ...]
    regexes: tuple[str, ...]
    path: Path


def stdio_of(spec: StdioSpec) -> Stdio:
    """The record for what is written."""
    return Stdio(mode=StdioMode(spec.mode), delete_on_success=spec.delete_on_success)


class JobMaker:
    """Makes the jobs of one entry after another; only what they depend on is left for the end."""

    def __init__(self, context: Context, findings: Findings) -> None:
        self._context = context
        self._findings = findings
        self._requests: dict[tuple[int, int, bool], Request] = {}
        self._same: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.jobs: list[Job] = []
        self.awaited: list[Awaited | None] = []

    def make(self, entry: Expanded[JobSpec], stage: int, at: Mark) -> None:
        """Make the jobs of an entry."""
        self._check(entry)
        given = entry.entry
        shared: dict[str, Any] = {
            "stage": stage,
            "at": at,
            "cancel_on_blocking_job_failure": given.cancel_on_blocking_job_failure is not False,
            "retries": given.retries or 0,
            "timeout_s": given.timeout,
        }
        columns: dict[str, Iterable[Any]] = {
            "name": entry.names,
            "request": self._requested(entry),
            "requirements": self._text(entry, given.resource_requirements),
            "scheduler": self._bound_to(entry),
            "failure_handler": self._one(entry, "failure_handler", self._context.handlers),
            "executors": self._executors(entry),
            "function": self._functions(entry),
            "env": self._environments(entry),
            "stdio": self._outputs(entry),
            "cwd": self._text(entry, given.cwd),
            "stdin": self._text(entry, given.stdin),
            "label": self._text(entry, given.label),
        }
        links: tuple[Iterator[tuple[int, ...]], ...] = (
            self._many(entry, "input_files", "input_file_regexes", self._context.files),
            self._many(entry, "output_files", "output_file_regexes", self._context.files),
            self._many(entry, "input_user_data", "input_user_data_regexes", self._context.user_data),
            self._many(entry, "output_user_data", "output_user_data_regexes", self._context.user_data),
        )
        commands = self._text(entry, given.command)
        scripts = self._text(entry, given.invocation_script)
        keys = list(columns)
        rows = zip(zip(*columns.values(), strict=False), commands, scripts, zip(*links, strict=False), strict=False)
        for row, command, script, linked in rows:
            if "${" in (command or "") or "${" in (script or ""):
                command, script, linked = self._link(entry.path, command, script, linked)
            self.jobs.append(
                Job(
                    index=len(self.jobs),
                    command=command,
                    invocation_script=script,
                    input_files=linked[0],
                    output_files=linked[1],
                    input_user_data=linked[2],
                    output_user_data=linked[3],
                    **dict(zip(keys, row, strict=True)),
                    **shared,
                )
            )
        self.awaited += self._awaited(entry)

    def _check(self, entry: Expanded[JobSpec]) -> None:
        """What the keys of one entry must not be together."""
        given, path = entry.entry, entry.path
        if given.command is None and given.function is None:
            self._findings.error(path, f"job '{given.name}' needs a `command`, or a `function`.")
        if given.function is not None:
            for key in ("command", "invocation_script"):
                if getattr(given, key) is not None:
                    self._findings.error(
                        (*path, key), f"`function` is there too; a job with a function has no {key}.", key=True
                    )
        else:
            for key in ("args", "kwargs"):
                if getattr(given, key) is not None:
                    self._findings.error((*path, key), f"`{key}` belongs to a `function`, and there is none.", key=True)
        self._check_braces(entry)

    def _check_braces(self, entry: Expanded[JobSpec]) -> None:
        """Names in braces that are nearly parameters, and tokens that are nearly files or user data."""
        names = entry.copies.names
        for key in ("name", "command", "invocation_script"):
            text = getattr(entry.entry, key) or ""
            for token in entry.copies.tokens(text) if names else ():
                near = self._findings.suggest(token, names) if token.isidentifier() else ""
                if "did you mean" in near:
                    self._findings.warn((*entry.path, key), f"{{{token}}} is no parameter{near} It stays as it is.")
            for wrong in misspelt_in(text):
                self._findings.error(
                    (*entry.path, key),
                    f"{wrong} is not known. Valid: ${{files.input.NAME}}, ${{files.output.NAME}}, "
                    "${user_data.input.NAME}, ${user_data.output.NAME}.",
                )

    def _text(self, entry: Expanded[JobSpec], text: str | None) -> Iterator[str | None]:
        return repeat(None, entry.copies.count) if text is None else entry.column(text)

    def _one(self, entry: Expanded[JobSpec], key: str, names: Names) -> Iterator[int | None]:
        text: str | None = getattr(entry.entry, key)
        path = (*entry.path, key)
        if text is None:
            return repeat(None, entry.copies.count)
        made = entry.copies.column(text)
        if isinstance(made, str):
            return repeat(names.find(made, path), entry.copies.count)
        return (names.find(each, path) for each in made)

    def _bound_to(self, entry: Expanded[JobSpec]) -> Iterator[int | None]:
        named = self._one(entry, "scheduler", self._context.schedulers)
        return named if self._context.strict else (None for _ in named)

    def _requested(self, entry: Expanded[JobSpec]) -> Iterator[Request]:
        priority, is_command = entry.entry.priority or 0, entry.entry.function is None
        for index in self._one(entry, "resource_requirements", self._context.requirements):
            key = (-1 if index is None else index, priority, is_command)
            if key not in self._requests:
                plain = DEFAULT_REQUEST if index is None else self._context.requests[index]
                itself = plain.spreads_itself and is_command
                same = itself == plain.spreads_itself and not priority
                made = plain if same else msgspec.structs.replace(plain, priority=priority, spreads_itself=itself)
                self._requests[key] = made
            yield self._requests[key]

    def _many(self, entry: Expanded[JobSpec], key: str, regex_key: str, names: Names) -> Iterator[tuple[int, ...]]:
        """The entries that each copy names, or matches, in order and without repetition."""
        exact: list[str] = getattr(entry.entry, key) or []
        patterns: list[str] = getattr(entry.entry, regex_key) or []
        count = entry.copies.count
        if not exact and not patterns:
            return repeat(_NOTHING, count)

        def found(row: Sequence[str]) -> tuple[int, ...]:
            indices = set[int]()
            for place, text in enumerate(row):
                if place < len(exact):
                    index = names.find(text, (*entry.path, key, place))
                    indices.update(() if index is None else (index,))
                else:
                    indices.update(names.matching(text, (*entry.path, regex_key, place - len(exact))))
            return self._shared(indices)

        columns = [entry.copies.column(text) for text in (*exact, *patterns)]
        if all(isinstance(each, str) for each in columns):
            return repeat(found([str(each) for each in columns]), count)
        return map(
            found, zip(*(repeat(each, count) if isinstance(each, str) else each for each in columns), strict=True)
        )

    def _shared(self, indices: Iterable[int]) -> tuple[int, ...]:
        made = tuple(sorted(indices))
        return self._same.setdefault(made, made)

    def _link(
        self, path: Path, command: str | None, script: str | None, linked: tuple[tuple[int, ...], ...]
    ) -> tuple[str | None, str | None, tuple[tuple[int, ...], ...]]:
        """Put paths into a command, and make the job read and write what it refers to."""
        groups = [set(each) for each in linked]
        wrong = False
        for key, text in (("command", command), ("invocation_script", script)):
            for token in tokens_in(text or ""):
                place = _PLACES[token.kind, token.direction]
                names = self._context.files if token.kind == "files" else self._context.user_data
                index = names.find(token.name, (*path, key))
                wrong = wrong or index is None
                groups[place].update(() if index is None else (index,))
        if not wrong:
            command, script = (None if text is None else with_files(text, self._path) for text in (command, script))
        return command, script, tuple(map(self._shared, groups))

    def _path(self, name: str) -> str:
        return self._context.paths[self._context.files.index_of[name]]

    def _executors(self, entry: Expanded[JobSpec]) -> Iterator[tuple[str, ...]]:
        labels = entry.entry.executors or []
        if not any("{" in each for each in labels):
            return repeat(tuple(labels), entry.copies.count)
        return map(tuple, zip(*(entry.column(each) for each in labels), strict=True))

    def _functions(self, entry: Expanded[JobSpec]) -> Iterator[FunctionCall | None]:
        target = entry.entry.function
        if target is None:
            return repeat(None, entry.copies.count)
        args = _each(entry, entry.entry.args or [])
        kwargs = _each(entry, entry.entry.kwargs or {})
        return (FunctionCall(target=target, args=tuple(a), kwargs=k) for a, k in zip(args, kwargs, strict=True))

    def _environments(self, entry: Expanded[JobSpec]) -> Iterator[tuple[tuple[str, str], ...]]:
        merged = {**self._context.env, **(entry.entry.env or {})}
        keys = sorted(merged)
        if not any("{" in merged[key] for key in (entry.entry.env or {})):
            return repeat(tuple((key, merged[key]) for key in keys), entry.copies.count)
        own = entry.entry.env or {}
        columns = [entry.column(merged[key]) if key in own else repeat(merged[key], entry.copies.count) for key in keys]
        return (tuple(zip(keys, row, strict=True)) for row in zip(*columns, strict=True))

    def _outputs(self, entry: Expanded[JobSpec]) -> Iterator[Stdio]:
        if entry.entry.stdio is not None:
            return repeat(stdio_of(entry.entry.stdio), entry.copies.count)
        if not self._context.stdio_of:
            return repeat(self._context.stdio, entry.copies.count)
        return (self._context.stdio_of.get(name, self._context.stdio) for name in entry.names)

    def _awaited(self, entry: Expanded[JobSpec]) -> Iterator[Awaited | None]:
        exact = entry.entry.depends_on or []
        patterns = entry.entry.depends_on_regexes or []
        if not exact and not patterns:
            return repeat(None, entry.copies.count)
        columns = [entry.copies.column(text) for text in (*exact, *patterns)]
        split = len(exact)
        if all(isinstance(each, str) for each in columns):
            row = [str(each) for each in columns]
            return repeat(Awaited(tuple(row[:split]), tuple(row[split:]), entry.path), entry.copies.count)
        rows = zip(*(repeat(each) if isinstance(each, str) else each for each in columns), strict=False)
        return (Awaited(row[:split], row[split:], entry.path) for row in rows)


_PLACES: Final = {
    ("files", "input"): 0,
    ("files", "output"): 1,
    ("user_data", "input"): 2,
    ("user_data", "output"): 3,
}


def _each(entry: Expanded[JobSpec], value: Any) -> Iterator[Any]:
    """An argument for each copy; a text that is only `{name}` is the parameter's value itself."""
    count = entry.copies.count
    if isinstance(value, str):
        match = _WHOLE_TOKEN.fullmatch(value)
        values, picks = entry.copies.values or {}, entry.copies.picks or {}
        if match is not None and match[1] in values:
            return map(values[match[1]].__getitem__, picks[match[1]])
        return entry.column(value)
    if isinstance(value, list) and value:
        return map(list, zip(*(_each(entry, item) for item in value), strict=True))
    if isinstance(value, dict) and value:
        rows = zip(*(_each(entry, item) for item in value.values()), strict=True)
        return (dict(zip(value, row, strict=True)) for row in rows)
    return repeat(value, count)
