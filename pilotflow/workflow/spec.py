"""`read_workflow`: a `Workflow` from a file, or everything that is wrong with it, by line and column.

The way of a file: its text becomes plain values (`reading`), `variables` are put in (`variables`), every section
is checked by itself (`sections`, `model`), entries are multiplied by their parameters (`entries`), references are
resolved (`jobs`, `dependencies`, `settings`), and what is usually not meant is pointed out (`mistakes`). Each
step goes as far as it can, so that all errors are reported at once.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, Final

from msgspec.structs import replace
from pydantic import BaseModel

from pilotflow.config.site import Partition
from pilotflow.errors import ConfigError
from pilotflow.resources import NodeShape, SortMethod
from pilotflow.workflow import settings
from pilotflow.workflow.dependencies import Dependencies, check_for_cycles, producers
from pilotflow.workflow.entries import Multiplier
from pilotflow.workflow.findings import Findings, as_lines, first
from pilotflow.workflow.jobs import Context, JobMaker, stdio_of
from pilotflow.workflow.mistakes import look_for_mistakes
from pilotflow.workflow.model import NOT_USED, FileEntry, JobSpec, StdioSpec, UserDataEntry, WorkflowSpec
from pilotflow.workflow.names import Names
from pilotflow.workflow.parameters import Copies
from pilotflow.workflow.reading import BROKEN, STDIN, Path, Reading, read_file
from pilotflow.workflow.records import FileSpec, Job, Stdio, UserData, Workflow
from pilotflow.workflow.sections import Sections
from pilotflow.workflow.site_mistakes import look_at_partitions, node_of
from pilotflow.workflow.variables import put_in


def read_workflow(
    path: str | os.PathLike[str], *, nodes: Sequence[NodeShape] = (), partitions: Sequence[Partition] = ()
) -> Workflow:
    """The workflow in a YAML, JSON, JSON5 or KDL file.

    Args:
        path: the file; its suffix says which of them it is. `-` is standard input.
        nodes: what the nodes have on which it may run, as far as that is known; requirements that are more
            than any of them has are among `Workflow.warnings`.
        partitions: what the site has, whose limits are looked at in the same way.

    Raises:
        ConfigError: the file cannot be read, or anything in it is wrong. Everything is reported at once, one
            line each, as `file:line:column: what is wrong, what is allowed, the nearest valid name`.
    """
    name = os.fspath(path)
    with _no_collections():
        reading = read_file(name)
        findings = Findings(reading)
        folder = FilePath() if name == STDIN else FilePath(name).parent
        assembly = _Assembly(name, reading, findings, folder)
        workflow = assembly.workflow()
        if workflow is not None and not findings.any_errors:
            stages: list[Path] = [("jobs", index) for index, _ in assembly.stages]
            known = [*nodes, *map(node_of, partitions)]
            look_for_mistakes(workflow, stages, assembly.requirements, findings, known)
            if partitions:
                look_at_partitions(workflow, assembly.requirements, findings, partitions)
        errors = findings.errors()
        if errors or workflow is None:
            raise ConfigError(as_lines(name, errors) or f"{name}: this is no workflow.")
    return _with(workflow, findings)


def _with(workflow: Workflow, findings: Findings) -> Workflow:
    return replace(workflow, warnings=findings.warnings())


@contextmanager
def _no_collections() -> Iterator[None]:
    """No cyclic garbage collection: hundreds of thousands of records come into being, without a cycle."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


_SHORT: Final = {
    "resource_requirements": "entry of resource_requirements",
    "slurm_schedulers": "scheduler",
    "failure_handlers": "failure handler",
    "actions": "",
}
"""Lists without copies, and what an entry is called if it has a name."""


class _Assembly:
    """Puts a workflow together from a file's values."""

    def __init__(self, name: str, reading: Reading, findings: Findings, folder: FilePath) -> None:
        self._name = name
        self._marks = reading.entries
        self._findings = findings
        self._folder = folder
        value = put_in(reading.value, findings, folder) if reading.value is not BROKEN else BROKEN
        reading.value = None  # the sections let go of entries as they are done
        self._sections = Sections(value, findings)
        self.stages: list[tuple[int, str]] = []
        self.requirements: dict[str, Path] = {}

    def workflow(self) -> Workflow | None:
        """The workflow, as far as it can be made; None if not even its top level is right."""
        top = self._sections.top
        if top is None:
            return None
        lists = {name: list(self._sections.entries(name)) for name in _SHORT}
        self.requirements = {
            each.name: ("resource_requirements", index) for index, each in lists["resource_requirements"]
        }
        multiplier = Multiplier(top, self._folder, self._findings)
        files, file_names = self._files(multiplier)
        data, data_names = self._user_data(multiplier)
        context = self._context(top, lists, files, file_names, data_names)
        jobs, job_names = self._jobs(multiplier, context)
        for name in _overrides(top):
            job_names.find(name, ("execution_config", "job_stdio_overrides", name))
        files, data = self._connect(jobs, job_names, files, data)
        check_for_cycles(jobs, [("jobs", index) for index, _ in self.stages], self._findings)
        execution = settings.execution(top, lists["actions"], self._findings)
        self._warn_of_unused(top, ())
        if top.execution_config is not None:
            self._warn_of_unused(top.execution_config, ("execution_config",))
        idle = top.compute_node_wait_for_new_jobs_seconds
        keep = top.compute_node_wait_for_healthy_database_minutes
        least = top.compute_node_min_time_for_new_jobs_seconds
        schedulers = settings.schedulers(
            lists["slurm_schedulers"], top, self._marks.get("slurm_schedulers", []), self._findings
        )
        settings.check_min_time(least, schedulers, self._findings)
        return Workflow(
            name=top.name,
            path=self._name,
            jobs=tuple(jobs),
            stages=tuple(name for _, name in self.stages),
            description=top.description,
            user=top.user,
            project=top.project,
            metadata=top.metadata,
            files=tuple(files),
            user_data=tuple(data),
            failure_handlers=settings.handlers(
                lists["failure_handlers"], self._marks.get("failure_handlers", []), self._findings
            ),
            slurm_schedulers=schedulers,
            actions=settings.actions(
                lists["actions"],
                job_names,
                context.schedulers,
                execution.mode,
                self._marks.get("actions", []),
                self._findings,
            ),
            execution=execution,
            sort_method=SortMethod(top.jobs_sort_method),
            use_pending_failed=top.use_pending_failed,
            idle_s=None if idle is None else float(idle),
            keep_s=None if keep is None else 60.0 * keep,
            min_time_s=None if least is None else float(least),
        )

    def _context(
        self,
        top: WorkflowSpec,
        lists: dict[str, list[tuple[int, Any]]],
        files: list[FileSpec],
        file_names: Names,
        data_names: Names,
    ) -> Context:
        """What jobs may refer to."""
        short = {
            name: settings.named(kind, name, lists[name], self._findings, incomplete=name in self._sections.incomplete)
            for name, kind in _SHORT.items()
            if kind
        }
        default = top.execution_config.stdio if top.execution_config is not None else None
        return Context(
            requirements=short["resource_requirements"],
            schedulers=short["slurm_schedulers"],
            handlers=short["failure_handlers"],
            files=file_names,
            user_data=data_names,
            requests=settings.requests(lists["resource_requirements"]),
            paths=[each.path for each in files],
            env=_environment(top),
            stdio=Stdio() if default is None else stdio_of(default),
            stdio_of={name: stdio_of(each) for name, each in _overrides(top).items()},
            strict=top.strict_scheduler_match,
        )

    def _warn_of_unused(self, section: BaseModel, path: Path) -> None:
        for key, field in type(section).model_fields.items():
            _, marked, why = (field.description or "").partition(NOT_USED)
            if marked and getattr(section, key) != field.default:
                self._findings.warn((*path, key), f"`{key}` is accepted, but has no effect here{why}", key=True)

    def _files(self, multiplier: Multiplier) -> tuple[list[FileSpec], Names]:
        names, made = Names("file", self._findings), list[FileSpec]()
        identifiers = Names("identifier", self._findings, "identifier")
        marks = self._marks.get("files", [])
        for index, entry in self._sections.entries("files"):
            assert isinstance(entry, FileEntry)
            expanded = multiplier.expand(index, "files", entry, names)
            if expanded is None:
                continue
            at = first(marks, index)
            own = expanded.column(entry.identifier) if entry.identifier is not None else iter(())
            for name, path in zip(expanded.names, expanded.column(entry.path), strict=True):
                identifier = next(own, None)
                if identifier is not None:
                    identifiers.add(identifier, expanded.path)
                made.append(FileSpec(name=name, path=path, identifier=identifier, at=at))
        names.incomplete |= "files" in self._sections.incomplete
        return made, names

    def _user_data(self, multiplier: Multiplier) -> tuple[list[UserData], Names]:
        names, made = Names("user data", self._findings), list[UserData]()
        marks = self._marks.get("user_data", [])
        for index, entry in self._sections.entries("user_data"):
            assert isinstance(entry, UserDataEntry)
            expanded = multiplier.expand(index, "user_data", entry, names)
            if expanded is None:
                continue
            given = "data" in entry.model_fields_set
            for name, data in zip(expanded.names, _texts(expanded.copies, entry.data), strict=True):
                made.append(
                    UserData(name=name, data=data, given=given, is_ephemeral=entry.is_ephemeral, at=first(marks, index))
                )
        names.incomplete |= "user_data" in self._sections.incomplete
        return made, names

    def _jobs(self, multiplier: Multiplier, context: Context) -> tuple[list[Job], Names]:
        names = Names("job", self._findings)
        maker = JobMaker(context, self._findings)
        marks = self._marks.get("jobs", [])
        for index, entry in self._sections.entries("jobs"):
            assert isinstance(entry, JobSpec)
            expanded = multiplier.expand(index, "jobs", entry, names)
            if expanded is None:
                continue
            self.stages.append((index, entry.name))
            maker.make(expanded, len(self.stages) - 1, first(marks, index))
        names.incomplete |= "jobs" in self._sections.incomplete
        self._awaited = maker.awaited
        return maker.jobs, names

    def _connect(
        self, jobs: list[Job], names: Names, files: list[FileSpec], data: list[UserData]
    ) -> tuple[list[FileSpec], list[UserData]]:
        """Give jobs their dependencies, and files and user data those who write them."""
        writers = (producers(jobs, len(files), "output_files"), producers(jobs, len(data), "output_user_data"))
        Dependencies(jobs, self._awaited, names, writers, self._findings).settle()
        files = [replace(each, producers=by) if by else each for each, by in zip(files, writers[0], strict=True)]
        data = [replace(each, producers=by) if by else each for each, by in zip(data, writers[1], strict=True)]
        read = {index for job in jobs for index in job.input_user_data}
        for index in sorted(read):
            if not data[index].given and not data[index].producers and data[index].name:
                self._findings.error(
                    ("user_data", self._entry_at("user_data", data[index].at)),
                    f"user data '{data[index].name}' is read, but has no `data`, and no job writes it.",
                    about="no data",
                )
        return files, data

    def _entry_at(self, section: str, at: Any) -> int:
        marks = self._marks.get(section, [])
        return marks.index(at) if at in marks else 0


def _overrides(top: WorkflowSpec) -> dict[str, StdioSpec]:
    """Where the output of single jobs goes, by name."""
    return (top.execution_config and top.execution_config.job_stdio_overrides) or {}


def _environment(top: WorkflowSpec) -> dict[str, str]:
    """The variables of all jobs; parameters of the workflow that have one value may be in them."""
    shared = top.parameters or {}
    single = {name: [value] for name, value in shared.items() if isinstance(value, (str, int, float))}
    if not top.env or not single:
        return dict(top.env or {})
    copies = Copies(1, single, {name: [0] for name in single})
    made = {key: copies.column(value) for key, value in top.env.items()}
    return {key: value if isinstance(value, str) else value[0] for key, value in made.items()}


def _texts(copies: Copies, value: Any) -> Iterator[Any]:
    """A JSON value for each copy, with the parameters in its texts."""
    if isinstance(value, str):
        made = copies.column(value)
        return iter([made] * copies.count) if isinstance(made, str) else iter(made)
    if isinstance(value, list) and value:
        return map(list, zip(*(_texts(copies, item) for item in value), strict=True))
    if isinstance(value, dict) and value:
        rows = zip(*(_texts(copies, item) for item in value.values()), strict=True)
        return (dict(zip(value, row, strict=True)) for row in rows)
    return iter([value] * copies.count)
