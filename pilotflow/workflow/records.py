"""A workflow as it is run: expanded, validated, every reference resolved.

`read_workflow` makes these records; whoever runs a workflow may rely on this:

- **Nothing is left to check.** Names are unique, references lead somewhere, there is no cycle, sizes and
  durations are parsed, parameters and `variables` are replaced. What could not be is a `ConfigError` of
  `read_workflow`, with its line and column; what looks wrong but runs is in `Workflow.warnings`.
- **References are positions**: `Job.depends_on` holds indices into `Workflow.jobs`, `Job.input_files` into
  `Workflow.files`, and so on. `Workflow.jobs[i].index == i`.
- **`Job.depends_on` is complete**: named and by regex, and the edges that files and user data make. Sorted,
  without repetition, never the job itself. Jobs that depend on the same jobs share one tuple, so that
  10,000 jobs behind 10,000 others cost no hundred million numbers; work with it the same way, by `id()` or
  by equality, where that matters.
- **Equal things are shared**: `Request`, `env`, `Stdio`, `at` and other tuples are the same object in all jobs
  that came out of one entry. A job's `request` has its `priority`.
- **Only what was written is in a request**: `runtime_s` is None and `memory_bytes` 0 where the file does not
  say, and what is there is to be enforced. Whoever plans without one uses `DEFAULT_RUNTIME_S`.
- **Commands** have the paths of `${files.*}` in them. `${user_data.*}` is still there, because its value may
  be made by another job: `pilotflow.workflow.tokens.with_user_data` puts it in, just before the job starts.
- **Records are plain data**: `msgspec.json.encode` writes them, `msgspec.json.decode(..., type=Workflow)` reads
  them back equal. A store may keep that instead of the file.
- **`at`** is the line and column of the entry in the file that a record came from, for messages;
  `Workflow.where(record.at)` writes it out.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.resources import DEFAULT_REQUEST, Request, SortMethod

DEFAULT_RUNTIME_S: Final = 3600.0
"""What a plan takes as the runtime of a job that does not say."""


class Mark(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


START: Final = Mark(1, 1)


class Mode(Enum):
    """How jobs are started on the nodes of an allocation."""

    AUTO = "auto"
    """`SLURM` inside a Slurm allocation, else `DIRECT`."""
    SLURM = "slurm"
    """Each job is a step, placed by `srun`."""
    DIRECT = "direct"
    """Managers start jobs themselves."""


class StdioMode(Enum):
    """Which files a job's output goes to."""

    SEPARATE = "separate"
    COMBINED = "combined"
    NO_STDOUT = "no_stdout"
    NO_STDERR = "no_stderr"
    NONE = "none"


class Trigger(Enum):
    """What an action waits for. The job triggers wait for all of the action's jobs."""

    ON_WORKFLOW_START = "on_workflow_start"
    ON_WORKFLOW_COMPLETE = "on_workflow_complete"
    ON_JOBS_READY = "on_jobs_ready"
    ON_JOBS_COMPLETE = "on_jobs_complete"
    ON_WORKER_START = "on_worker_start"
    ON_WORKER_COMPLETE = "on_worker_complete"


class Deed(Enum):
    """What an action does."""

    RUN_COMMANDS = "run_commands"
    SCHEDULE_NODES = "schedule_nodes"


class _Record(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Records hold plain data without cycles: the garbage collector need not look at them."""


class Stdio(_Record, frozen=True):
    """Where a job's output goes.

    Attributes:
        mode: which files there are.
        delete_on_success: whether they go when the job has succeeded.
    """

    mode: StdioMode = StdioMode.SEPARATE
    delete_on_success: bool = False


class FunctionCall(_Record, frozen=True):
    """A Python function that is the job, instead of a command.

    Attributes:
        target: `package.module:name`.
        args, kwargs: its arguments, plain data. Texts in them may hold `${user_data.input.NAME}`: where a
            text is nothing else the value itself takes its place, else its JSON text.
    """

    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # msgspec makes one for each record


class Job(_Record, frozen=True):
    """One step: a command, or a function.

    Attributes:
        index: its place in `Workflow.jobs`.
        name: unique in the workflow.
        stage: which of `Workflow.stages` it came from.
        at: where that entry is in the file.
        command: for a shell; None if `function` is there.
        invocation_script: what the command is started through: `script command`; a script of several lines
            comes before the command on lines of its own.
        function: what to call; None if `command` is there. Its result goes to each of `output_user_data`.
        request: what it needs on each node.
        requirements: the name of the `resource_requirements` that the request is from.
        scheduler: the only one of `Workflow.slurm_schedulers` that it may run on; None for any.
        executors: labels of the site's executors that it may run on; none for any.
        failure_handler: one of `Workflow.failure_handlers`.
        cancel_on_blocking_job_failure: whether it is cancelled when a job it depends on fails; else it runs then.
        depends_on: all jobs that must have ended first.
        input_files, output_files: of `Workflow.files`.
        input_user_data, output_user_data: of `Workflow.user_data`.
        retries: how often it runs again after an exit code other than 0 that no rule of its handler took.
        timeout_s: limit over its attempts, waiting not counted.
        cwd: where it is started; a relative one starts from the run's working directory, as None does.
        stdin: a file that it reads.
        env: variables of the workflow and its own, sorted; its own win.
        stdio: where its output goes.
        label: only runners with this label take it.
    """

    index: int
    name: str
    stage: int
    at: Mark = START
    command: str | None = None
    invocation_script: str | None = None
    function: FunctionCall | None = None
    request: Request = DEFAULT_REQUEST
    requirements: str | None = None
    scheduler: int | None = None
    executors: tuple[str, ...] = ()
    failure_handler: int | None = None
    cancel_on_blocking_job_failure: bool = True
    depends_on: tuple[int, ...] = ()
    input_files: tuple[int, ...] = ()
    output_files: tuple[int, ...] = ()
    input_user_data: tuple[int, ...] = ()
    output_user_data: tuple[int, ...] = ()
    retries: int = 0
    timeout_s: float | None = None
    cwd: str | None = None
    stdin: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    stdio: Stdio = Stdio()
    label: str | None = None


class FileSpec(_Record, frozen=True):
    """A file that jobs read or write.

    Attributes:
        name: unique among files.
        path: where it is; a relative path starts from the run's working directory.
        identifier: an id of the user's own.
        producers: jobs that write it, in order; none if it must be there before the run.
        at: where its entry is.
    """

    name: str
    path: str
    identifier: str | None = None
    producers: tuple[int, ...] = ()
    at: Mark = START


class UserData(_Record, frozen=True):
    """A value, as JSON, that jobs read or write.

    Attributes:
        name: unique among user data.
        data: the value at the start; None also if there is none, see `given`.
        given: whether the file gives a value.
        is_ephemeral: whether it is cleared between runs.
        producers: jobs that write it.
        at: where its entry is.
    """

    name: str
    data: Any = None
    given: bool = False
    is_ephemeral: bool = False
    producers: tuple[int, ...] = ()
    at: Mark = START


class FailureRule(_Record, frozen=True):
    """What to do after certain exit codes.

    Attributes:
        exit_codes: these; the first rule that names a code is taken.
        match_all_exit_codes: any other than 0, if no rule names it.
        recovery_script: a command that runs before the next attempt, whose failure does not stop it.
        max_attempts: attempts in all (the file's `max_retries`, which has always meant this).
    """

    exit_codes: tuple[int, ...] = ()
    match_all_exit_codes: bool = False
    recovery_script: str | None = None
    max_attempts: int = 3


class FailureHandler(_Record, frozen=True):
    """Rules for what follows a failure of the jobs that name it."""

    name: str
    rules: tuple[FailureRule, ...] = ()
    at: Mark = START

    def rule_for(self, exit_code: int) -> FailureRule | None:
        """The rule for an exit code: the first that names it, else the first that takes all."""
        for rule in self.rules:
            if exit_code in rule.exit_codes:
                return rule
        return next((rule for rule in self.rules if rule.match_all_exit_codes), None)


class SlurmScheduler(_Record, frozen=True):
    """What to ask Slurm for: one kind of allocation. It becomes an executor of the run.

    Attributes:
        name: unique among schedulers.
        nodes: nodes of one allocation.
        walltime_s: how long it lives.
        account, partition, qos, gres, mem, tmp: options of sbatch, as written.
        ntasks_per_node: as written.
        extra: more of sbatch's command line, as written.
        serialize_allocations: whether its allocations come one after another (`--dependency=singleton`).
        options: other long options of sbatch, from `slurm_defaults`, sorted; the value "" is a bare option.
        at: where its entry is.
    """

    name: str
    nodes: int = 1
    walltime_s: float = 3600.0
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    gres: str | None = None
    mem: str | None = None
    tmp: str | None = None
    ntasks_per_node: int | None = None
    extra: str | None = None
    serialize_allocations: bool = False
    options: tuple[tuple[str, str], ...] = ()
    at: Mark = START


class Action(_Record, frozen=True):
    """Something the run does by itself when a moment comes.

    Attributes:
        trigger: the moment.
        deed: what is done.
        jobs: for job triggers, the jobs that are waited for.
        commands: for `Deed.RUN_COMMANDS`, one after another.
        scheduler: for `Deed.SCHEDULE_NODES`, one of `Workflow.slurm_schedulers`; None for local blocks.
        num_allocations: how many.
        start_one_worker_per_node: in direct mode, whether each node has a manager, or only the first of them.
        max_parallel_jobs: these managers run at most so many at once and ignore requests.
        persistent: whether every manager does it, for worker triggers.
        at: where its entry is.
    """

    trigger: Trigger
    deed: Deed
    jobs: tuple[int, ...] = ()
    commands: tuple[str, ...] = ()
    scheduler: int | None = None
    num_allocations: int = 1
    start_one_worker_per_node: bool = False
    max_parallel_jobs: int | None = None
    persistent: bool = False
    at: Mark = START


class ExecutionConfig(_Record, frozen=True):
    """How jobs are started and ended.

    Attributes:
        mode: who starts them.
        limit_resources: whether a job is ended above its memory (direct mode).
        termination_signal: the first signal when time is up (direct mode).
        sigterm_lead_s: time between that signal and the kill (direct mode).
        oom_exit_code: exit code of a job killed for its memory (direct mode).
        srun_termination_signal: srun's `--signal`, such as `TERM@120` (slurm mode).
        enable_cpu_bind: whether srun may bind to cores (slurm mode); None for whatever Slurm does.
        srun_mpi: `--mpi` of the srun that starts one manager a node (direct mode).
        timeout_exit_code: exit code of a job whose time was up.
    """

    mode: Mode = Mode.AUTO
    limit_resources: bool = True
    termination_signal: str = "SIGTERM"
    sigterm_lead_s: float = 30.0
    oom_exit_code: int = 137
    srun_termination_signal: str | None = None
    enable_cpu_bind: bool | None = None
    srun_mpi: str | None = None
    timeout_exit_code: int = 152


class Warned(_Record, frozen=True):
    """Something in the file that runs, but is probably not meant.

    Attributes:
        at: where.
        text: what, and what to write instead.
    """

    at: Mark
    text: str


class Workflow(_Record, frozen=True):
    """A whole workflow.

    Attributes:
        name: what it is called.
        path: the file it came from.
        description, user, project, metadata: what the file says about it.
        jobs: all of them, in the file's order, those of one entry in the order of its parameters.
        stages: the name of each entry of the file's jobs, as written, such as `analyze_{i}`.
        files, user_data, failure_handlers, slurm_schedulers, actions: by index, as the jobs name them.
        execution: how jobs are started.
        idle_s: how long an idle manager waits for new jobs; None for the run's own rule.
        keep_s: how long managers keep results for a program that goes on with the run; None for an hour.
        min_time_s: seconds of its allocation that a job without a runtime needs; None for the usual.
        sort_method: which jobs come first among those of equal priority.
        use_pending_failed: whether a failure that no rule takes leaves the job `pending_failed`, its
            dependents waiting, instead of `failed`.
        warnings: what is probably not meant.
    """

    name: str
    path: str
    jobs: tuple[Job, ...]
    stages: tuple[str, ...]
    description: str | None = None
    user: str | None = None
    project: str | None = None
    metadata: Any = None
    files: tuple[FileSpec, ...] = ()
    user_data: tuple[UserData, ...] = ()
    failure_handlers: tuple[FailureHandler, ...] = ()
    slurm_schedulers: tuple[SlurmScheduler, ...] = ()
    actions: tuple[Action, ...] = ()
    execution: ExecutionConfig = ExecutionConfig()
    idle_s: float | None = None
    keep_s: float | None = None
    min_time_s: float | None = None
    sort_method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY
    use_pending_failed: bool = False
    warnings: tuple[Warned, ...] = ()

    def where(self, mark: Mark) -> str:
        """A place in the workflow's file, as editors know it: `file:line:column`."""
        return f"{self.path}:{mark.line}:{mark.column}"
