"""What may be written in a workflow's file: every section, every key, as pydantic models.

The descriptions here are what editors show (`pilotflow schema workflow`) and what the reference page says
(`docs/workflow-reference.md`). What refers from one section to another is checked later, after parameters
have been expanded.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pilotflow.workflow.fields import (
    Amount,
    Amounts,
    Count,
    Cpus,
    Environment,
    Executors,
    ExitCode,
    Filled,
    Function,
    Gpus,
    Limit,
    Memory,
    Mpi,
    Name,
    Names,
    Nodes,
    Priority,
    Ranks,
    Runtime,
    Signal,
    SrunSignal,
    Text,
    Walltime,
)

ALIASES: Final[dict[str, dict[str, str]]] = {
    "": {"job_sort_method": "jobs_sort_method"},
    "jobs": {
        "slurm_scheduler": "scheduler",
        "scheduler_id": "scheduler",
        "resource_requirements_name": "resource_requirements",
        "blocked_by": "depends_on",
        "blocked_by_regexes": "depends_on_regexes",
        "input_files_regexes": "input_file_regexes",
        "output_files_regexes": "output_file_regexes",
    },
    "actions": {"job_names": "jobs"},
}
"""Other names of keys, by section, that files from elsewhere use."""

GONE: Final[dict[str, str]] = {
    "slurm_config": "it has become 'execution_config'",
    "local_schedulers": "blocks on this machine need no entry; give `scheduler_type: local` to an action",
}
"""Keys of the top level that are no longer known, and what to do instead."""

NOT_USED: Final = "Accepted and not used"
"""So the descriptions begin of keys that files from elsewhere have; who writes one of them is warned."""


class _Section(BaseModel):
    """A mapping of known keys; anything else in it is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameterized(_Section):
    """What every entry that parameters can multiply has."""

    parameters: dict[str, Any] | None = Field(
        None,
        description='Names and values; the entry is repeated for each combination. Values: a range "1:100" or '
        '"0:100:10" (its end is part of it), a float range "0.0:1.0:0.1", a list [1, 2] or "[1,2]" or '
        "\"['a','b']\", or one value. Write {name}, {name:03d} or {name:.2f} where a value goes.",
    )
    parameter_mode: Literal["product", "zip"] | None = Field(
        None,
        description="product: all combinations (the last parameter changes fastest). zip: first with first, and so on.",
    )
    use_parameters: Names | None = Field(
        None, description="Which of the workflow's `parameters` to use. An entry's own `parameters` replace them."
    )
    parameters_file: Filled | None = Field(
        None, description="A table (.csv, .json, .jsonl, .ndjson): the entry is repeated for each of its rows."
    )
    use_parameters_file: bool | None = Field(
        None, description="true: the entry is repeated for each row of the workflow's `parameters_file`."
    )


class StdioSpec(_Section):
    """Where the output of jobs goes."""

    mode: Literal["separate", "combined", "no_stdout", "no_stderr", "none"] = Field(
        "separate", description="Which files there are: two, one for both, one of them, or none."
    )
    delete_on_success: bool = Field(False, description="Whether they are deleted when the job has succeeded.")


class JobSpec(Parameterized):
    """A step of the workflow: a command or a Python function."""

    name: Name = Field(description="Unique in the workflow, after parameters have been put in.")
    command: Filled | None = Field(
        None,
        description="What the shell runs. ${files.input.NAME} and ${files.output.NAME} become paths, "
        "${user_data.input.NAME} becomes JSON text, ${user_data.output.NAME} the name; each also makes the job an "
        "input or output of it. Required, unless there is a `function`.",
    )
    invocation_script: Filled | None = Field(
        None,
        description="A script that starts the command, which it gets as its arguments; one of several lines goes before "
        "the command.",
    )
    function: Function | None = Field(
        None,
        description='A Python function instead of a command, "package.module:name". What it returns goes to each of '
        "`output_user_data`.",
    )
    args: list[Any] | None = Field(None, description="Positional arguments of `function`.")
    kwargs: dict[str, Any] | None = Field(None, description="Arguments of `function` by name.")
    resource_requirements: Name | None = Field(
        None, description="What the job needs: the name of one of `resource_requirements`. Without, one core."
    )
    scheduler: Name | None = Field(
        None, description="The only one of `slurm_schedulers` the job may run on. Without, any."
    )
    executors: Executors | None = Field(
        None, description="Labels of the site's executors the job may run on. Without, any."
    )
    depends_on: Names | None = Field(None, description="Jobs that must have ended before.")
    depends_on_regexes: Names | None = Field(
        None, description="The same by regular expressions, which may match anywhere in a name."
    )
    input_files: Names | None = Field(None, description="Files it reads; it waits for the jobs that write them.")
    input_file_regexes: Names | None = Field(None, description="The same by regular expressions.")
    output_files: Names | None = Field(None, description="Files it writes; the job fails if one is missing at its end.")
    output_file_regexes: Names | None = Field(None, description="The same by regular expressions.")
    input_user_data: Names | None = Field(None, description="User data it reads; it waits for the jobs that write it.")
    input_user_data_regexes: Names | None = Field(None, description="The same by regular expressions.")
    output_user_data: Names | None = Field(None, description="User data it writes.")
    output_user_data_regexes: Names | None = Field(None, description="The same by regular expressions.")
    failure_handler: Name | None = Field(None, description="One of `failure_handlers`.")
    cancel_on_blocking_job_failure: bool | None = Field(
        None,
        description="Whether it is cancelled when a job it depends on fails (default true). If false, it runs when all of "
        "them have ended, however.",
    )
    retries: Amount | None = Field(
        None, description="How often it runs again after an exit code other than 0 that no rule takes (default 0)."
    )
    timeout: Limit | None = Field(None, description="Limit over all attempts, waiting not counted.")
    priority: Priority | None = Field(None, description="Higher runs sooner (default 0).")
    env: Environment | None = Field(None, description="Environment variables; they win over the workflow's.")
    cwd: Filled | None = Field(None, description="Where it is started (default: where the run was started).")
    stdin: Filled | None = Field(None, description="A file that it reads as its standard input.")
    stdio: StdioSpec | None = Field(None, description="Where its output goes.")
    supports_termination: bool | None = Field(
        None, description=f"{NOT_USED}: every job is sent `termination_signal` before it is ended."
    )
    label: Name | None = Field(None, description="Only runners started with this `--label` take it.")


class FileEntry(Parameterized):
    """A file that jobs read or write, so that they wait for each other."""

    name: Name = Field(description="Unique among files, after parameters have been put in.")
    path: Filled = Field(description="Where it is; relative to where the run was started.")
    identifier: Filled | None = Field(None, description="An identifier of your own, such as a DOI; unique.")
    st_mtime: float | None = Field(None, description=f"{NOT_USED}: modification times are looked up.")


class UserDataEntry(Parameterized):
    """A JSON value that jobs read or write, so that they wait for each other."""

    name: Name = Field(description="Unique among user data, after parameters have been put in.")
    data: Any = Field(
        None, description="The value at the start. Without, a job must write it. Its texts may hold {name}."
    )
    is_ephemeral: bool = Field(False, description="Whether it is cleared between runs.")


class RequirementsSpec(_Section):
    """What jobs need, all values for each node."""

    name: Name = Field(description="Unique among resource_requirements.")
    num_cpus: Cpus | None = Field(None, description="Cores on each node; parts such as 0.5 are fine (default 1).")
    memory: Memory | None = Field(
        None, description='Memory on each node: "4g", "512m" (in 1024s) or bytes. What is written is enforced.'
    )
    num_gpus: Gpus = Field(0, description="GPUs on each node, or a part of one (default 0).")
    num_nodes: Nodes = Field(1, description="Nodes; more than 1 reserves whole nodes (default 1).")
    ranks_per_node: Ranks = Field(
        1,
        description="Processes that are started on each node (default 1). In direct mode a command over several nodes "
        "is started once, on the first of them, if this is not written: `mpirun` and the like are its own.",
    )
    runtime: Runtime | None = Field(
        None,
        description='Limit of one attempt: "PT30M", "30m", "01:30:00". What is written is enforced; plans take 1h.',
    )
    resources: Amounts = Field((), description="Amounts of what the site counts, such as {licence: 1}.")


class FailureRuleSpec(_Section):
    """What to do after some exit codes."""

    exit_codes: list[ExitCode] = Field([], description="Exit codes; the first rule that names one is taken.")
    match_all_exit_codes: bool = Field(False, description="Take any exit code but 0 that no rule names.")
    recovery_script: Filled | None = Field(
        None, description="A command that runs before the next attempt; if it fails, the attempt is made anyway."
    )
    max_retries: Count = Field(3, description="Attempts in all, the first one counted (default 3).")


class FailureHandlerSpec(_Section):
    """Rules for jobs that fail."""

    name: Name = Field(description="Unique among failure_handlers.")
    rules: list[FailureRuleSpec] = Field(description="Rules, first come first.")


class SchedulerSpec(_Section):
    """What to ask Slurm for."""

    name: Name = Field(description="Unique among slurm_schedulers; the label of the executor it becomes.")
    account: Filled | None = Field(None, description="Who pays; may come from `slurm_defaults` or the site.")
    partition: Filled | None = Field(None, description="Where to ask.")
    qos: Filled | None = Field(None, description="Quality of service.")
    nodes: Nodes = Field(1, description="Nodes of one allocation (default 1).")
    walltime: Walltime | None = Field(
        None, description='How long an allocation lives: "04:00:00", "1-12:00:00" (default 1h).'
    )
    mem: Text | None = Field(None, description="sbatch's --mem, as it takes it.")
    gres: Filled | None = Field(None, description="sbatch's --gres.")
    tmp: Text | None = Field(None, description="sbatch's --tmp.")
    ntasks_per_node: Count | None = Field(None, description="sbatch's --ntasks-per-node.")
    extra: Text | None = Field(None, description="More options for sbatch, as on its command line.")
    serialize_allocations: bool = Field(False, description="One allocation after another (--dependency=singleton).")


class ActionSpec(_Section):
    """Something the run does by itself when a moment comes."""

    trigger_type: Literal[
        "on_workflow_start",
        "on_workflow_complete",
        "on_jobs_ready",
        "on_jobs_complete",
        "on_worker_start",
        "on_worker_complete",
    ] = Field(description="The moment. The job triggers wait until all of the action's jobs are there.")
    action_type: Literal["run_commands", "schedule_nodes"] = Field(description="What is done.")
    jobs: Names | None = Field(None, description="Job triggers: the jobs that are waited for.")
    job_name_regexes: Names | None = Field(None, description="The same by regular expressions.")
    commands: Names | None = Field(None, description="run_commands: commands, one after another. A failure is logged.")
    scheduler: Name | None = Field(None, description="schedule_nodes: one of `slurm_schedulers`.")
    scheduler_type: Literal["slurm", "local"] | None = Field(None, description="schedule_nodes: where from.")
    num_allocations: Count = Field(1, description="schedule_nodes: how many allocations (default 1).")
    start_one_worker_per_node: bool = Field(
        False,
        description="schedule_nodes, direct mode: a manager on each node. Without it there is one, on the first node of "
        "the allocation: it runs all jobs on one node, and begins those on several.",
    )
    max_parallel_jobs: Count | None = Field(
        None, description="schedule_nodes: these managers run at most so many jobs at once and ignore requirements."
    )
    persistent: bool = Field(False, description="Worker triggers: whether every manager does it.")


class ExecutionSpec(_Section):
    """How jobs are started, limited and ended."""

    mode: Literal["auto", "slurm", "direct"] = Field(
        "auto",
        description="slurm: each job is a step, placed by srun. direct: managers start jobs themselves. auto: slurm "
        "inside a Slurm allocation, else direct.",
    )
    limit_resources: bool | None = Field(None, description="Direct mode: end a job above its memory (default true).")
    termination_signal: Signal | None = Field(
        None, description="Direct mode: the first signal when time is up (default SIGTERM)."
    )
    sigterm_lead_seconds: Amount | None = Field(
        None, description="Direct mode: seconds between that signal and the kill (default 30)."
    )
    oom_exit_code: ExitCode | None = Field(
        None, description="Direct mode: exit code of a job ended for its memory (default 137)."
    )
    srun_termination_signal: SrunSignal | None = Field(None, description='Slurm mode: srun\'s --signal, as "TERM@120".')
    enable_cpu_bind: bool | None = Field(
        None, description="Slurm mode: false keeps srun from binding jobs to cores; else Slurm decides."
    )
    srun_mpi: Mpi | None = Field(
        None, description="Direct mode with a manager on each node: --mpi of the srun that starts them."
    )
    sigkill_headroom_seconds: Amount | None = Field(
        None, description=f"{NOT_USED}: managers end some seconds before their allocation."
    )
    timeout_exit_code: ExitCode | None = Field(None, description="Exit code of a job whose time was up (default 152).")
    staggered_start: bool | None = Field(None, description=f"{NOT_USED}: managers start as their nodes come.")
    stdio: StdioSpec | None = Field(None, description="Where the output of all jobs goes.")
    job_stdio_overrides: dict[str, StdioSpec] | None = Field(None, description="The same for single jobs, by name.")


class JobMonitorSpec(_Section):
    """What is measured of jobs."""

    enabled: bool = Field(False, description="Whether anything is.")
    granularity: Literal["summary", "time_series"] = Field("summary", description="What is kept.")


class NodeMonitorSpec(JobMonitorSpec):
    """What is measured of nodes."""

    cpu: bool = Field(True, description="Whether cores are watched.")
    memory: bool = Field(True, description="Whether memory is watched.")


class MonitorSpec(_Section):
    """Accepted and not used: cores and memory of every job are measured, see `pilotflow resources`."""

    enabled: bool | None = Field(None, description="Jobs and nodes at once.")
    granularity: Literal["summary", "time_series"] | None = Field(None, description="Of jobs and nodes at once.")
    sample_interval_seconds: Count = Field(5, description="Seconds between two samples (default 5).")
    flush_interval_seconds: Count = Field(300, description="Seconds between two writes (default 300).")
    generate_plots: bool = Field(False, description="Whether plots are made at the end.")
    metrics: Names | None = Field(None, description=f"{NOT_USED}: cores and memory are always measured.")
    jobs: JobMonitorSpec | None = Field(None, description="Of jobs.")
    compute_node: NodeMonitorSpec | None = Field(None, description="Of nodes.")


class DynamicJobsSpec(_Section):
    """Accepted and not used: jobs cannot add jobs."""

    max_iterations: Count = Field(1000, description="How often (default 1000).")


class WorkflowSpec(_Section):
    """A workflow."""

    name: Name = Field(description="What it is called.")
    jobs: list[JobSpec] = Field(description="Its steps.")
    description: Text | None = Field(None, description="What it is for.")
    user: Text | None = Field(None, description="Whose it is (default: who runs it).")
    project: Text | None = Field(None, description="A name to group workflows by.")
    metadata: Any = Field(None, description="Anything; kept, not used.")
    parameters: dict[str, Any] | None = Field(
        None, description="Shared parameters; entries take them by `use_parameters`."
    )
    parameters_file: Filled | None = Field(
        None, description="A shared table; entries take it by `use_parameters_file: true`."
    )
    variables: dict[str, Any] | None = Field(
        None,
        description="Names and values; {name} is replaced by its value in every text of the file, before parameters. "
        "${name} is left alone.",
    )
    env: Environment | None = Field(None, description="Environment variables of all jobs, as they are written.")
    files: list[FileEntry] | None = Field(None, description="Files that jobs read and write.")
    user_data: list[UserDataEntry] | None = Field(None, description="JSON values that jobs read and write.")
    resource_requirements: list[RequirementsSpec] | None = Field(None, description="What jobs need, by name.")
    failure_handlers: list[FailureHandlerSpec] | None = Field(None, description="What follows failures, by name.")
    slurm_schedulers: list[SchedulerSpec] | None = Field(None, description="What to ask Slurm for, by name.")
    slurm_defaults: dict[str, Any] | None = Field(
        None,
        description="Long options of sbatch without dashes for all schedulers, which win. Not: partition, nodes, walltime, "
        "time, mem, gres, name, job-name.",
    )
    actions: list[ActionSpec] | None = Field(None, description="What the run does by itself.")
    execution_config: ExecutionSpec | None = Field(None, description="How jobs are started, limited and ended.")
    resource_monitor: MonitorSpec | None = Field(
        None, description=f"{NOT_USED}: cores and memory of every job are measured, see `pilotflow resources`."
    )
    jobs_sort_method: Literal["gpus_runtime_memory", "gpus_memory_runtime", "none"] = Field(
        "gpus_runtime_memory", description="Which jobs come first among those of equal priority."
    )
    strict_scheduler_match: bool = Field(
        True, description="Whether jobs run only on the `scheduler` they name; false: on any that has room."
    )
    use_pending_failed: bool = Field(
        False, description="A failure that no rule takes leaves the job pending_failed and its dependents waiting."
    )
    dynamic_jobs: DynamicJobsSpec | None = Field(None, description=f"{NOT_USED}: jobs cannot add jobs.")
    compute_node_wait_for_new_jobs_seconds: Amount | None = Field(
        None, description="How long an idle manager waits for jobs before it leaves."
    )
    compute_node_ignore_workflow_completion: bool = Field(
        False, description=f"{NOT_USED}: a run ends with its last job."
    )
    compute_node_wait_for_healthy_database_minutes: Amount | None = Field(
        None,
        description="How long managers wait for `resume` while nothing runs, and keep results for it, if the run's "
        "program dies (default 60); --keep goes before it.",
    )
    compute_node_expiration_buffer_seconds: Amount | None = Field(
        None, description=f"{NOT_USED}: managers end some seconds before their allocation."
    )
    compute_node_min_time_for_new_jobs_seconds: Amount | None = Field(
        None,
        description="A job without a runtime starts only where so much of its allocation is left (default 300, and a "
        "tenth of allocations shorter than 50 minutes).",
    )
    access_groups: Names | None = Field(None, description=f"{NOT_USED}: a run belongs to its user.")
    enable_ro_crate: bool | None = Field(None, description=f"{NOT_USED}.")
    datasets: Any = Field(None, description=f"{NOT_USED}.")
