"""`site generate` and `site check`: what a machine's batch system says, and whether a site file is true of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import TimeoutError as _TimeoutError  # the builtin since Python 3.11
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from pilotflow.config.compose import compose, expanded
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.config.settings import layer_of_call, resolve
from pilotflow.config.site import Site
from pilotflow.config.site_file import check_trusted, read_site
from pilotflow.config.site_from_slurm import SlurmFacts, accounts_in, site_text
from pilotflow.errors import ConfigError, InfrastructureError, PilotflowError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.mpirun import MpiexecLauncher, MpirunLauncher
from pilotflow.launchers.srun import SrunLauncher, SrunMPILauncher
from pilotflow.providers.base import BlockJob
from pilotflow.runtime.addresses import listening_address

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pilotflow.run import Run

TRIAL_WALLTIME_S: Final = 600.0
COMMAND_TIMEOUT_S: Final = 30.0
_CLOSED: Final = frozenset({"PartitionDown", "PartitionInactive"})
"""What Slurm says of jobs for a partition that takes none until its admins open it again."""
_CLOSED_S: Final = 10.0
"""How long that is believed to be passing."""
_COMMANDS: Final = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")


def generate_site(name: str | None, output: Path | None) -> None:
    """Write a site file from what Slurm says.

    Raises:
        InfrastructureError: Slurm's commands are not there, or do not answer.
        ConfigError: the file exists, or cannot be written.
    """
    facts = SlurmFacts(
        partitions=_asked("scontrol", "show", "partition", "--oneliner"),
        nodes=_asked("scontrol", "show", "node", "--oneliner"),
        config=_asked("scontrol", "show", "config"),
        accounts=_accounts(),
    )
    text = site_text(facts, dt.datetime.now(dt.timezone.utc).date().isoformat(), name)
    if output is None:
        print(text, end="")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{output} exists; give another name, or move it away.") from None
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from None
    print(f"{output} written. Look through it, then say: pilotflow site check {output}")


def _asked(*argv: str) -> str:
    done = _run(*argv)
    if done.returncode:
        raise InfrastructureError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise InfrastructureError(
            f"There is no {argv[0]} on this machine's PATH. Run this where jobs are submitted, or load Slurm's module."
        ) from None
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"`{' '.join(argv)}` has not answered for {COMMAND_TIMEOUT_S:.0f} s.") from None


def _accounts() -> list[str]:
    argv = (
        "sacctmgr",
        "--noheader",
        "--parsable2",
        "show",
        "associations",
        f"user={getpass.getuser()}",
        "format=account",
    )
    try:
        return accounts_in(_asked(*argv))
    except InfrastructureError:  # there is no accounting
        return []


@dataclass(frozen=True)
class Trial:
    """How far a check goes.

    Attributes:
        run: also run a task on one node of each partition.
        account: what to charge.
        partitions: only these; all if empty.
        timeout_s: how long a task may take to come back.
    """

    run: bool
    account: str | None
    partitions: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: whether it went well, and what came of it."""

    what: str
    passed: bool
    detail: str


def probe_site(path: Path, trial: Trial, as_json: bool) -> bool:
    """Check a site file, try what it says, print what came of it; False if something failed.

    Raises:
        ConfigError: the file itself is wrong.
    """
    site = read_site(path).site
    console = Console(highlight=False)
    findings: list[Finding] = []
    with contextlib.closing(_probes(path, site, trial)) as probes:
        for finding in probes:
            findings.append(finding)
            if not as_json:
                mark = ("pass", "green") if finding.passed else ("FAIL", "red")
                console.print(Text.assemble(mark, "  ", (finding.what, "bold"), f": {finding.detail}"), soft_wrap=True)
    failed = sum(not finding.passed for finding in findings)
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print(f"\n{len(findings) - failed} passed, {failed} failed.")
    return not failed


def _probes(path: Path, site: Site, trial: Trial) -> Generator[Finding, None, None]:
    """Everything that is tried, one after another, the quick things first."""
    yield Finding("file", True, f"{path} is read, and everything in it is known")
    yield _tried("file mode", partial(_trusted, path))
    yield _tried("address", lambda: f"nodes are told {listening_address(site.network.address, None)}")
    for word in ("runs", "scratch"):
        place = getattr(site.paths, word)
        if place is not None:
            yield _tried(f"paths.{word}", partial(_writable, place))
    if site.batch_system != "slurm":
        return
    for command in _COMMANDS:
        yield _tried(command, partial(_on_path, command))
    for name in trial.partitions or [partition.name for partition in site.partitions]:
        yield from _partition_probes(site, name, trial)


def _partition_probes(site: Site, name: str, trial: Trial) -> Iterator[Finding]:
    what = f"partition {name}"
    try:
        site.partition(name)
        executor = _trial_executor(site, name, trial)
    except PilotflowError as error:
        yield Finding(what, False, str(error))
        return
    launcher = _program_of(executor.launcher)
    if launcher is not None:
        yield _tried(f"{what}, launcher", partial(_on_path, launcher))
    accepted = _tried(f"{what}, batch job", partial(_test_only, executor))
    yield accepted
    if trial.run and accepted.passed:
        yield _tried(f"{what}, task", partial(_run_a_task, executor, trial.timeout_s))


def _tried(what: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, trial())
    except (PilotflowError, OSError) as error:
        return Finding(what, False, str(error) or type(error).__name__)


def _trusted(path: Path) -> str:
    check_trusted(path.resolve())
    return "only its owner can change it"


def _on_path(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        raise InfrastructureError(f"there is no {command} on this machine's PATH")
    return found


def _writable(folder: str) -> str:
    folder = expanded(folder, os.environ)
    place = Path(folder)
    existing = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    with tempfile.NamedTemporaryFile(dir=existing, prefix=".pilotflow-"):
        pass
    return f"{folder} can be written" if existing == place else f"{folder} can be made in {existing}"


def _program_of(launcher: Launcher) -> str | None:
    if isinstance(launcher, (SrunLauncher, SrunMPILauncher)):
        return "srun"
    if isinstance(launcher, MpirunLauncher):
        return "mpirun"
    return "mpiexec" if isinstance(launcher, MpiexecLauncher) else None


def _trial_executor(site: Site, name: str, trial: Trial) -> ExecutorConfig:
    """The executor that users of this partition get, with one small block."""
    partition = site.partition(name)
    walltime_s = min(TRIAL_WALLTIME_S, partition.max_walltime_s or TRIAL_WALLTIME_S)
    said = {"partition": name, "account": trial.account, "walltime": walltime_s}
    layer = layer_of_call({**said, "init_blocks": 1, "min_blocks": 0, "max_blocks": 1})
    (executor,) = compose(site, resolve([layer]), (), os.environ).block_executors
    return executor


def _test_only(executor: ExecutorConfig) -> str:
    provider: Any = executor.provider
    with tempfile.TemporaryDirectory(prefix="pilotflow-probe-") as folder:
        here = Path(folder)
        job = BlockJob(
            "trial",
            "true",
            here / "trial.sh",
            here / "out",
            here / "err",
            provider.nodes_per_block,
            provider.walltime_s,
        )
        job.script.write_text(provider.script(job), encoding="utf-8")
        done = _run("sbatch", "--test-only", str(job.script))
    said = " ".join(line.removeprefix("sbatch: ") for line in (done.stderr + done.stdout).splitlines())
    if done.returncode:
        raise InfrastructureError(f"Slurm would refuse it: {said}")
    return said


def _run_a_task(executor: ExecutorConfig, timeout_s: float) -> str:
    from pilotflow.apps import python_app
    from pilotflow.loading import load

    with tempfile.TemporaryDirectory(prefix="pilotflow-trial-", dir=".") as folder:
        began = time.monotonic()
        run = load(Config(executors=[executor], run_dir=Path(folder).resolve()), progress=False)
        try:
            host = result_of(run, python_app(socket.gethostname)(), timeout_s)
        except _TimeoutError:
            blocks = "; ".join(
                f"{block.block}: {block.phase.value}, {block.said or block.reason}" for block in run.blocks()
            )
            waited = f"no result after {time.monotonic() - began:.0f} s"
            raise InfrastructureError(f"{waited} ({blocks or 'no block'})") from None
        finally:
            run.close(wait=False)
    return f"ran on {host}, {time.monotonic() - began:.1f} s after it was asked for"


def result_of(run: Run, future: Future[str], timeout_s: float, closed_s: float = _CLOSED_S) -> str:
    """What the task returns; not waited for to the end while the block's partition is closed.

    Args:
        run: whose blocks say so.
        future: the task's.
        timeout_s: how long to wait at most.
        closed_s: how long a partition may be closed.

    Raises:
        TimeoutError: nothing came.
    """
    began, closed_at = time.monotonic(), None
    while True:
        waited_s = time.monotonic() - began
        try:
            return future.result(timeout=max(0.0, min(1.0, timeout_s - waited_s)))
        except _TimeoutError:
            if not any(block.said in _CLOSED for block in run.blocks()):
                closed_at = None
            elif closed_at is None:
                closed_at = time.monotonic()
            if waited_s >= timeout_s or (closed_at is not None and time.monotonic() - closed_at >= closed_s):
                raise
