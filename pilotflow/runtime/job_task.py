"""What a worker does for a workflow's job: its command or function, its files, its variables, its time.

Whatever happens to the job is its outcome; nothing is raised. Output goes to files named after the job
and the attempt. The interchange may hand a job out again whose worker was lost: then the attempt's
file is there already, and the next number is taken, so that each attempt is seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.context import RUNNING, Seated
from pilotflow.damaged import damaged_module
from pilotflow.errors import TaskTimeout
from pilotflow.runtime.commands import plain_argv
from pilotflow.runtime.spreading import spread_over
from pilotflow.runtime.tails import tail
from pilotflow.runtime.task_output import pointed
from pilotflow.runtime.worker_files import NODES, of_worker

MISSING_OUTPUT: Final = 1
"""Exit code of a job that ended well without a file that it had promised."""
CANNOT_START: Final = 126
FUNCTION_FAILED: Final = 1
JUST_BEGUN_S: Final = 1.0
"""A command that began earlier was there when its manager looked whom to tell."""


class Stdio(msgspec.Struct, frozen=True, array_like=True):
    """Which files a job's output goes to: paths up to the number of the attempt, or None; `combined` ones are one."""

    stdout: str | None
    stderr: str | None
    delete_on_success: bool = False
    combined: bool = False


class JobCall(msgspec.Struct, frozen=True, array_like=True):
    """One attempt at a job, as it travels.

    Attributes:
        job, name, attempt: whose, and its number from 1.
        command: for bash; None for a function.
        target, arguments: `package.module:name`, and [args, kwargs] as JSON, for a function.
        cwd: an absolute path.
        env: variables besides those that all jobs have.
        stdio: see there.
        stdin: a file to read, or None.
        outputs: files that must be there afterwards.
        script, last_code: what runs first, after an attempt that ended with this code.
        left_s: what is left of its `timeout`, or None.
        ranks: several processes run it at once and share its files, where it does not spread over its nodes itself.
        data: user data that it makes: a function's result is all of them, a command writes NAME.json into
            the directory that PILOTFLOW_DATA_DIR names.
        data_dir: where that directory is made, but for the number of the attempt.
    """

    job: int
    name: str
    attempt: int
    command: str | None
    target: str | None
    arguments: str
    cwd: str
    env: tuple[tuple[str, str], ...]
    stdio: Stdio
    stdin: str | None = None
    outputs: tuple[str, ...] = ()
    script: str | None = None
    last_code: int = 0
    left_s: float | None = None
    ranks: bool = False
    data: tuple[str, ...] = ()
    data_dir: str = ""


class Outcome(NamedTuple):
    """How an attempt ended: what travels back.

    Attributes:
        exit_code: 0, or what failed; 128 and the signal if one ended it.
        attempt: its number, which may have become larger than it was called with.
        terminated: its time was over.
        words: what is to be said of a failure; its last lines of stderr.
        result: the user data that it made, as a JSON object, or None.
    """

    exit_code: int
    attempt: int
    terminated: bool = False
    words: str = ""
    result: str | None = None


class JobFailed(Exception):
    """An attempt that did not end well, with its `Outcome`.

    It is raised and not returned, so that the manager knows: of a block that ends it hands back what fails.
    """

    def __init__(self, outcome: tuple[Any, ...]) -> None:
        super().__init__(outcome)
        self.outcome = Outcome(*outcome)


class _Over(TaskTimeout):
    """The job's own `timeout` is over, of which its manager knows nothing."""


class JobTask:
    """The function that workers know: calls with an encoded `JobCall` return what is in an `Outcome`, or raise `JobFailed`.

    Args:
        env: variables of all jobs of the run.
        lead_s: time between the first signal and the last, when a job's time is over.
        timeout_exit_code: exit code of a job whose time was over.
        first_signal: what it is sent first.
    """

    def __init__(self, env: dict[str, str], lead_s: float, timeout_exit_code: int, first_signal: int) -> None:
        self.env = env
        self.lead_s = lead_s
        self.timeout_exit_code = timeout_exit_code
        self.first_signal = first_signal

    def __call__(self, encoded: bytes) -> tuple[Any, ...]:
        """Run the attempt."""
        call = msgspec.msgpack.decode(encoded, type=JobCall)
        outcome = self._outcome(call)
        if outcome.exit_code:
            raise JobFailed(tuple(outcome))
        return tuple(outcome)

    def _outcome(self, call: JobCall) -> Outcome:
        try:
            return self._run(call)
        except TaskTimeout as error:  # it fell between two steps
            return Outcome(self.timeout_exit_code, call.attempt, True, str(error))
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            return Outcome(CANNOT_START, call.attempt, words=f"it cannot start: {error.strerror}{where}")

    def _run(self, call: JobCall) -> Outcome:
        os.chdir(call.cwd)
        seat = _seat_of_several_nodes()
        attempt, out, err = _open_output(call, shared=call.ranks and seat is None)
        with contextlib.ExitStack() as stack:
            for opened in {out, err}:
                stack.callback(os.close, opened)
            inherited: Mapping[str, str] = os.environ
            if seat is not None:
                name, place = f"job-{call.job}-{attempt}", of_worker(seat.run_directory, NODES, os.getpid())
                inherited = stack.enter_context(spread_over(seat.nodes, seat.request, name, str(place), os.environ))
            env = {**inherited, **self.env, **_variables(call, attempt), **dict(call.env)}
            folder = f"{call.data_dir}.{attempt}.data" if call.data and call.command is not None else None
            if folder is not None:
                os.makedirs(folder, exist_ok=True)
                env["PILOTFLOW_DATA_DIR"] = folder
            with _limited(call.left_s):
                if call.script is not None:
                    self._command(call.script, env | {"TORC_RETURN_CODE": str(call.last_code)}, None, out, err)
                if call.command is not None:
                    code, over = self._command(call.command, env, call.stdin, out, err)
                    result = _written(folder, call.data) if folder is not None else None
                else:
                    code, over, result = self._function(call, env, out, err)
        words = ""
        if code == 0 and (missing := [path for path in call.outputs if not os.path.exists(path)]):
            code, words = MISSING_OUTPUT, f"it ended well, but did not make {', '.join(missing)}"
        elif code and call.stdio.stderr is not None:
            words = tail(f"{call.stdio.stderr}.{attempt}.{'out' if call.stdio.combined else 'err'}")
        elif code == 0 and call.stdio.delete_on_success:
            _remove(call, attempt)
        return Outcome(code, attempt, over, words, result)

    def _command(self, command: str, env: dict[str, str], stdin: str | None, out: int, err: int) -> tuple[int, bool]:
        """Run a command; returns its exit code, and whether its time was over."""
        began = time.monotonic()
        source = os.open(stdin or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, opened, fd) for fd, opened in ((0, source), (1, out), (2, err))]
            pid = _spawn(command, env, actions)
        finally:
            os.close(source)
        try:
            return _exit_code(os.waitpid(pid, 0)[1]), False
        except TaskTimeout as error:
            # Its manager has told it as well, unless it had just begun. Twice, it would be hit while it obeys.
            told = not isinstance(error, _Over) and time.monotonic() - began > JUST_BEGUN_S
            code = self._end(pid, told=told and self.first_signal == signal.SIGTERM)
            return (code if code == 0 else self.timeout_exit_code), code != 0

    def _end(self, pid: int, *, told: bool) -> int:
        """End a command whose time is over: ask, unless it was told, wait, kill."""
        if not told:
            _signal_group(pid, self.first_signal)
        deadline = time.monotonic() + self.lead_s
        while time.monotonic() < deadline:
            with contextlib.suppress(TaskTimeout):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _signal_group(pid, signal.SIGKILL)  # what it has left
                    return _exit_code(status)
                time.sleep(0.02)
        _signal_group(pid, signal.SIGKILL)
        return _exit_code(os.waitpid(pid, 0)[1])

    def _function(self, call: JobCall, env: dict[str, str], out: int, err: int) -> tuple[int, bool, str | None]:
        """Call a function; returns an exit code, whether its time was over, and its result as JSON."""
        before = dict(os.environ)
        with pointed([(1, out), (2, err)]):
            os.environ.update(env)
            try:
                args, kwargs = json.loads(call.arguments)
                value = _load(call.target or "", call.cwd)(*args, **kwargs)
                return 0, False, json.dumps(dict.fromkeys(call.data, value)) if call.data else None
            except TaskTimeout:
                return self.timeout_exit_code, True, None
            except SystemExit as error:
                if not isinstance(error.code, (int, type(None))):
                    print(error.code, file=sys.stderr)  # noqa: T201  what Python does with such a code
                return error.code if isinstance(error.code, int) else int(error.code is not None), False, None
            except BaseException as error:  # noqa: BLE001  whatever the user's function raises is its outcome
                traceback.print_exc()
                damage = damaged_module(error)
                if damage is not None:
                    print(f"{damage}.", file=sys.stderr)  # noqa: T201  as Python itself prints what comes before
                return FUNCTION_FAILED, False, None
            finally:
                os.environ.clear()
                os.environ.update(before)


def _seat_of_several_nodes() -> Seated | None:
    """What this task has of its nodes, if it is one program that uses several of them by itself."""
    running = RUNNING.get()
    return running[2] if running is not None and running[2].nodes else None


def _variables(call: JobCall, attempt: int) -> dict[str, str]:
    number, count = str(call.job), str(attempt)
    return {
        "TORC_JOB_ID": number,
        "TORC_JOB_NAME": call.name,
        "TORC_ATTEMPT_ID": count,
        "PILOTFLOW_JOB_ID": number,
        "PILOTFLOW_JOB_NAME": call.name,
        "PILOTFLOW_ATTEMPT": count,
    }


def _open_output(call: JobCall, *, shared: bool) -> tuple[int, int, int]:
    """The number of the attempt, and descriptors for its stdout and stderr."""
    stdio, attempt = call.stdio, call.attempt
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if shared else os.O_EXCL)
    first = stdio.stdout or stdio.stderr
    if first is None:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return attempt, nowhere, nowhere
    opened = -1
    while opened < 0:
        try:
            opened = os.open(f"{first}.{attempt}.{'out' if stdio.stdout else 'err'}", flags, 0o666)
        except FileExistsError:
            attempt += 1
    if stdio.combined:
        return attempt, opened, opened
    other = os.devnull if None in (stdio.stdout, stdio.stderr) else f"{stdio.stderr}.{attempt}.err"
    second = os.open(other, flags & ~os.O_EXCL, 0o666)
    return (attempt, opened, second) if stdio.stdout else (attempt, second, opened)


def _written(folder: str, names: tuple[str, ...]) -> str:
    """What a command has written of its user data, as one JSON object; what is no JSON counts as text."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            with open(f"{folder}/{name}.json", encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            continue
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return json.dumps(found)


def _remove(call: JobCall, attempt: int) -> None:
    for path, kind in ((call.stdio.stdout, "out"), (call.stdio.stderr, "err")):
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}.{attempt}.{kind}")


def _spawn(command: str, env: dict[str, str], actions: list[tuple[int, int, int]]) -> int:
    """Start a command in a process group of its own, in bash if it needs a shell."""
    quiet = [signal.SIGPIPE, signal.SIGINT]
    plain = plain_argv(command)
    if plain is not None:
        program, argv = plain[0], [command.split(maxsplit=1)[0], *plain[1:]]  # it calls itself as it was called
        try:
            return os.posix_spawn(program, argv, env, file_actions=actions, setpgroup=0, setsigdef=quiet)
        except OSError:  # a script without a first line, say: bash knows what to do with it
            pass
    argv = ["/bin/bash", "-c", command]
    return os.posix_spawn(argv[0], argv, env, file_actions=actions, setpgroup=0, setsigdef=quiet)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@contextlib.contextmanager
def _limited(left_s: float | None) -> Iterator[None]:
    """Raise `TaskTimeout` in so many seconds."""
    if left_s is None:
        yield
        return

    def over(*_: object) -> None:
        raise _Over("its timeout is over")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, left_s))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _load(target: str, cwd: str) -> Any:
    import importlib

    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return getattr(found, "__pilotflow_function__", found)  # an app is called as the function that it is
