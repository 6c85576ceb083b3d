"""`read_workflow`: a `Workflow` from a file, or everything that is wrong with it, by line and column."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pilotflow.config import yaml_tree
from pilotflow.errors import ConfigError
from pilotflow.requests import parse_request
from pilotflow.workflow.records import FileSpec, Job, Mark, Workflow


def read_workflow(path: str | os.PathLike[str]) -> Workflow:
    """The workflow in a YAML, JSON, JSON5 or KDL file.

    Args:
        path: the file; its suffix says which of them it is.

    Raises:
        ConfigError: the file cannot be read, or anything in it is wrong. Everything is reported at once, one
            line each, as `file:line:column: what is wrong, what is allowed, the nearest valid name`.
    """
    name = os.fspath(path)
    document = yaml_tree.parse(Path(name).read_bytes())
    if document.problems:
        raise ConfigError("\n".join(f"{name}:{mark.line}:{mark.column}: {text}" for mark, text in document.problems))
    return _workflow(name, document.value, document.values_at)


def _workflow(path: str, value: dict[str, Any], at: dict[yaml_tree.Path, yaml_tree.Mark]) -> Workflow:
    requests = {
        each["name"]: parse_request(**{key: item for key, item in each.items() if key != "name"})
        for each in value.get("resource_requirements", ())
    }
    entries = value["jobs"]
    number_of = {entry["name"]: index for index, entry in enumerate(entries)}
    file_names = [entry["name"] for entry in value.get("files", ())]
    makers: dict[str, list[int]] = {name: [] for name in file_names}
    for index, entry in enumerate(entries):
        for file in entry.get("output_files", ()):
            makers[file].append(index)
    jobs = tuple(
        Job(
            index=index,
            name=entry["name"],
            stage=index,
            at=Mark(*at["jobs", index]),
            command=entry["command"],
            request=requests[entry["resource_requirements"]] if "resource_requirements" in entry else parse_request(),
            requirements=entry.get("resource_requirements"),
            input_files=tuple(map(file_names.index, entry.get("input_files", ()))),
            output_files=tuple(map(file_names.index, entry.get("output_files", ()))),
            depends_on=tuple(
                sorted(
                    {number_of[name] for name in entry.get("depends_on", ())}
                    | {maker for file in entry.get("input_files", ()) for maker in makers[file]}
                )
            ),
        )
        for index, entry in enumerate(entries)
    )
    files = tuple(
        FileSpec(
            name=entry["name"], path=entry["path"], producers=tuple(makers[entry["name"]]), at=Mark(*at["files", index])
        )
        for index, entry in enumerate(value.get("files", ()))
    )
    return Workflow(name=value["name"], path=path, jobs=jobs, stages=tuple(job.name for job in jobs), files=files)
