"""What travels to a worker for each attempt at a job, made from the job's record."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from pilotflow.runtime.job_task import JobCall, JobTask, Stdio
from pilotflow.workflow.records import ExecutionConfig, Job, StdioMode, Workflow
from pilotflow.workflow.tokens import in_arguments, with_user_data

JOBS_DIR: Final = "jobs"
"""Where in the run directory the output of jobs goes."""
_SAFE: Final = re.compile(r"[A-Za-z0-9_@%+=,][A-Za-z0-9_@%+=:,.-]{0,150}")


class NoValue(ValueError):
    """User data that a job needs has no value; the message names it."""


def output_base(directory: Path, job: Job) -> Path:
    """The path of a job's output, up to `.ATTEMPT.out`: its name, or its number where that names no file."""
    return directory / JOBS_DIR / (job.name if _SAFE.fullmatch(job.name) else f"job-{job.index + 1}")


def output_paths(directory: Path, job: Job, attempt: int) -> tuple[Path | None, Path | None]:
    """Where an attempt's stdout and stderr are; None if it has none. Both are one if they are combined."""
    stdio = _stdio(directory, job)
    err = "out" if stdio.combined else "err"
    return (
        Path(f"{stdio.stdout}.{attempt}.out") if stdio.stdout else None,
        Path(f"{stdio.stderr}.{attempt}.{err}") if stdio.stderr else None,
    )


def _stdio(directory: Path, job: Job) -> Stdio:
    base, mode = str(output_base(directory, job)), job.stdio.mode
    out = None if mode in (StdioMode.NO_STDOUT, StdioMode.NONE) else base
    err = None if mode in (StdioMode.NO_STDERR, StdioMode.NONE) else base
    return Stdio(out, err, job.stdio.delete_on_success, mode is StdioMode.COMBINED)


class Calls:
    """Makes the calls of one run.

    Args:
        workflow: what is run.
        directory: the run directory.
        home: the working directory from which relative paths start.
    """

    def __init__(self, workflow: Workflow, directory: Path, home: Path) -> None:
        self._workflow = workflow
        self._directory = directory
        self._home = home

    def make(
        self,
        job: Job,
        attempt: int,
        values: Mapping[int, str],
        after: tuple[str | None, int] | None = None,
        left_s: float | None = None,
    ) -> bytes:
        """One attempt, encoded.

        Args:
            job: whose.
            attempt: its number.
            values: user data as JSON, by number.
            after: what runs first, and the exit code of the attempt before; None if there was none.
            left_s: what is left of the job's `timeout`.

        Raises:
            NoValue: user data that it names has no value.
        """
        command, target, arguments = self._work(job, values)
        script, code = after or (None, 0)
        files = self._workflow.files
        call = JobCall(
            job.index + 1,
            job.name,
            attempt,
            command,
            target,
            arguments,
            os.path.join(self._home, job.cwd) if job.cwd else str(self._home),
            job.env,
            _stdio(self._directory, job),
            os.path.join(self._home, job.stdin) if job.stdin else None,
            tuple(os.path.join(self._home, files[number].path) for number in job.output_files),
            script,
            code,
            left_s,
            job.request.has_ranks,
            tuple(self._workflow.user_data[number].name for number in job.output_user_data),
            str(output_base(self._directory, job)),
        )
        return msgspec.msgpack.encode(call)

    def _work(self, job: Job, values: Mapping[int, str]) -> tuple[str | None, str | None, str]:
        """The command, or the function and its arguments as JSON, with user data in place."""
        known: dict[str, Any] = {}
        for number in job.input_user_data:
            name = self._workflow.user_data[number].name
            if number in values:
                known[name] = json.loads(values[number])
        try:
            if job.function is not None:
                args = in_arguments(job.function.args, known)
                return None, job.function.target, json.dumps([args, in_arguments(job.function.kwargs, known)])
            command = with_user_data(job.command or "", known)
            if job.invocation_script is not None:
                before = with_user_data(job.invocation_script, known)
                command = before.rstrip("\n") + ("\n" if "\n" in before.strip("\n") else " ") + command
        except KeyError as error:
            raise NoValue(
                f"it needs user data {error}, which has no value: no job has written it, and the workflow gives none"
            ) from None
        return command, None, ""


def make_task(workflow: Workflow, directory: Path, home: Path, connection_file: Path, number: str) -> JobTask:
    """The function that runs the jobs of a run.

    Args:
        workflow, directory, home: as for `Calls`.
        connection_file: the run's.
        number: how the run is called on the command line.
    """
    execution = workflow.execution
    env = {
        "TORC_WORKFLOW_ID": number,
        "TORC_RUN_ID": number,
        "TORC_OUTPUT_DIR": str(directory),
        "TORC_WORKFLOW_SUBMISSION_DIR": str(home),
        "TORC_API_URL": str(connection_file),
        "PILOTFLOW_WORKFLOW": workflow.name,
        "PILOTFLOW_RUN_DIR": str(directory),
        "PILOTFLOW_HOME_DIR": str(home),
    }
    return JobTask(env, execution.sigterm_lead_s, execution.timeout_exit_code, first_signal(execution))


def first_signal(execution: ExecutionConfig) -> int:
    """The number of the signal that a job is sent first when its time is over."""
    name = execution.termination_signal.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", signal.SIGTERM)
    return int(found)
