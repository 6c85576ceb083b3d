"""What the tests of executors, apps and serialization run on workers. Imports little."""

from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pilotflow as pf
from tests.waiting import until

DEADLINE_S = 30.0
SETTINGS: dict[str, Any] = {"initialized": 0}


def add(x: Any, y: Any = 0) -> Any:
    return x + y


def same(value: Any) -> Any:
    return value


def gather(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def three_kinds(a: int, /, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


def hold(path: str) -> str:
    """Say that we run, and wait until somebody lets us go."""
    Path(f"{path}.started").write_text(str(os.getpid()), encoding="ascii")
    until(Path(f"{path}.go").exists, "leave to go on")
    return path


def hold_with_child(path: str) -> None:
    """As `hold`, with a child process in a session of its own."""
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    Path(f"{path}.child").write_text(str(child.pid), encoding="ascii")
    hold(path)


def started(path: str) -> int | None:
    """The process that runs `hold`, once it does."""
    try:
        return int(Path(f"{path}.started").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def let_go(path: str) -> None:
    Path(f"{path}.go").touch()


def fail(text: str = "as told") -> None:
    raise ValueError(text)


def fail_with_cause() -> None:
    try:
        fail("inner")
    except ValueError as error:
        raise RuntimeError("outer") from error


def fail_deep(depth: int) -> int:
    return fail_deep(depth - 1) if depth else 1 // 0


def recurse_for_ever(n: int = 0) -> int:
    return recurse_for_ever(n + 1) + 1


def leave(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def interrupt() -> None:
    raise KeyboardInterrupt("from the task")


def stop_iteration() -> None:
    raise StopIteration(7)


def generator_exit() -> None:
    raise GeneratorExit


def cancelled_error() -> None:
    raise asyncio.CancelledError


def pid() -> int:
    return os.getpid()


def unpicklable() -> Any:
    return threading.Lock()


def set_up(value: Any, path: str) -> None:
    SETTINGS["value"] = value
    SETTINGS["initialized"] += 1
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")


def set_up_badly() -> None:
    raise LookupError("no licence on this node")


def set_up_deadly(way: str) -> None:
    os.write(2, b"libfoo: no licence on this node\n")
    if way == "exit":
        os._exit(7)
    os.abort()


def append_to(values: Any, value: str) -> None:
    values.append(value)


def put(shared: Any, key: str, value: int) -> int:
    shared[key] = value
    return len(shared)


def has_authkey(key: bytes) -> bool:
    return bytes(multiprocessing.current_process().authkey) == key


def settings() -> dict[str, Any]:
    return {**SETTINGS, "pid": os.getpid()}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Tracked:
    """An object whose copies a worker can count."""

    def __init__(self, size: int = 10) -> None:
        self.load = [0] * size


def tracked() -> Tracked:
    return Tracked()


def fail_holding(value: Any) -> None:
    raise ValueError("holding")


def count_tracked() -> int:
    gc.collect()
    return sum(isinstance(found, Tracked) for found in gc.get_objects())


class CountsUnpickling:
    """Counts in each process how often one was unpickled."""

    count = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _counted, (self.value,)


def _counted(value: Any) -> CountsUnpickling:
    CountsUnpickling.count += 1
    return CountsUnpickling(value)


def make_counting(value: Any) -> CountsUnpickling:
    return CountsUnpickling(value)


def pass_on(counting: CountsUnpickling) -> CountsUnpickling:
    return CountsUnpickling(counting.value + 1)


def value_of(counting: CountsUnpickling) -> Any:
    return counting.value


class BadToUnpickle:
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> Any:
    raise OSError("cannot be unpickled")


def bad_to_unpickle() -> Any:
    return BadToUnpickle()


class LeavesWhenPickled:
    def __reduce__(self) -> tuple[Any, ...]:
        sys.exit(3)


class LeavesWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


class WithArguments(Exception):
    """Pickles, but does not unpickle by plain means."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


def fail_with_arguments() -> None:
    raise WithArguments(7, "seven")


class WithLock(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


def fail_with_lock() -> None:
    raise WithLock


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return ["traced", function(*args)]

    return wrapper


@traced
def decorated(x: int) -> int:
    return x + 1


class Box:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, other: Any) -> Any:
        return self.value + other

    def method(self, other: Any) -> Any:
        return self.value * other

    @pf.python_app
    def app_method(self, other: Any) -> Any:
        return self.value - other

    @staticmethod
    @pf.python_app
    def app_static(x: Any) -> Any:
        return -x


@pf.python_app
def inner_app(x: int) -> int:
    return x


@pf.python_app
def calls_an_app(x: int) -> Any:
    return inner_app(x)


@pf.python_app
def double(x: Any) -> Any:
    return x + x


@pf.python_app
def double_decorated(x: int) -> Any:
    return decorated(x)


@pf.python_app
@traced
def traced_app(x: int) -> int:
    return x * 10


def go_to(directory: str) -> str:
    """Change the working directory; one that is not there yet is removed again."""
    path = Path(directory)
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    os.chdir(path)
    if is_new:
        path.rmdir()
    return directory
