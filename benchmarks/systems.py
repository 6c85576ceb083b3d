"""Measures one system on tasks that do nothing, and prints one JSON line.

    python benchmarks/systems.py SYSTEM MEASURE [--quick]

Always 2 workers. bench.py runs each measure in a process of its own, so that no measure inherits
another's warm caches or swollen heap. Numbers of two systems compare only if both were measured in
turn in one sitting: machines drift.

Nothing heavy is imported before a system needs it: `first` counts from the start of the interpreter.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

MIB = 1 << 20
MARK = "PILOTFLOW_BENCH_MARK"
"""In the environment of a measured process and what it starts, so that detached children are found."""


class System(NamedTuple):
    """How to use one system: submit a task, wait for its result."""

    submit: Callable[..., Any]
    result: Callable[[Any], Any]
    chains: bool = False
    bash: Callable[..., Any] | None = None
    slow: bool = False
    many: int = 200_000


def noop(x: int = 0) -> int:
    return 7


def same(x: Any) -> Any:
    return x


def increment(x: int) -> int:
    return x + 1


def true_command(x: int) -> str:
    return "true"


# ---- systems --------------------------------------------------------------------------------


def _apps(decorate: Callable[[Any], Any]) -> Callable[..., Any]:
    """A `submit` for systems that decorate functions."""
    known: dict[Any, Any] = {}

    def submit(f: Any, *args: Any) -> Any:
        app = known.get(f)
        if app is None:
            app = known[f] = decorate(f)
        return app(*args)

    return submit


def _future(f: Any) -> Any:
    return f.result()


@contextmanager
def pilotflow(tcp: bool = False) -> Iterator[System]:
    import pilotflow as pf

    config = pf.Config(
        run_dir=tempfile.mkdtemp(prefix="bench-"),
        tcp=tcp,
        executors=[
            pf.ExecutorConfig(
                label="cpu",
                max_workers_per_node=2,
                provider=pf.LocalProvider(init_blocks=1, max_blocks=1),
                launcher=pf.SingleNodeLauncher(),
            )
        ],
    )
    with pf.load(config):
        yield System(_apps(pf.python_app), _future, chains=True, bash=pf.bash_app(true_command), many=1_000_000)


@contextmanager
def parsl() -> Iterator[System]:
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="htex",
        max_workers_per_node=2,
        cores_per_worker=1,
        address="127.0.0.1",
        encrypted=True,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    run_dir = tempfile.mkdtemp(prefix="bench-")
    with parsl.load(Config(run_dir=run_dir, usage_tracking=0, initialize_logging=False, executors=[executor])):
        yield System(_apps(parsl.python_app), _future, chains=True, bash=parsl.bash_app(true_command), slow=True)


@contextmanager
def process_pool() -> Iterator[System]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        yield System(pool.submit, _future)


@contextmanager
def multiprocessing_pool() -> Iterator[System]:
    import multiprocessing

    with multiprocessing.Pool(2) as pool:
        yield System(lambda f, *args: pool.apply_async(f, args), lambda f: f.get())


@contextmanager
def ray() -> Iterator[System]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    remote = _apps(lambda f: ray.remote(f).remote)
    yield System(remote, ray.get, chains=True, slow=True)
    ray.shutdown()


@contextmanager
def dask() -> Iterator[System]:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield System(lambda f, *args: client.submit(f, *args, pure=False), _future, chains=True, slow=True)


@contextmanager
def executorlib() -> Iterator[System]:
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=2, block_allocation=True) as executor:
        yield System(executor.submit, _future, chains=True, slow=True)


SYSTEMS: dict[str, Callable[[], AbstractContextManager[System]]] = {
    "pilotflow": pilotflow,
    "pilotflow-tcp": lambda: pilotflow(tcp=True),
    "parsl": parsl,
    "ppe": process_pool,
    "mpool": multiprocessing_pool,
    "ray": ray,
    "dask": dask,
    "executorlib": executorlib,
}


# ---- measures -------------------------------------------------------------------------------


def warm(system: System, tasks: int = 20) -> None:
    """Both workers have run something before the clock starts."""
    for f in [system.submit(noop) for _ in range(tasks)]:
        if system.result(f) != 7:
            raise AssertionError("a no-op came back wrong")


def rate(system: System, tasks: int) -> float:
    """Tasks a second, first submit to last result."""
    start = time.perf_counter()
    futures = [system.submit(noop, i) for i in range(tasks)]
    for f in futures:
        system.result(f)
    return tasks / (time.perf_counter() - start)


def throughput(system: System, quick: bool) -> dict[str, float]:
    tasks = (3_000 if system.slow else 10_000) // (5 if quick else 1)
    warm(system)
    rate(system, tasks // 10)
    return {"tasks_per_s": statistics.median(rate(system, tasks) for _ in range(3))}


def roundtrip(system: System, quick: bool) -> dict[str, float]:
    warm(system)
    times = []
    for _ in range(200 if quick else 1000):
        start = time.perf_counter()
        system.result(system.submit(noop))
        times.append(time.perf_counter() - start)
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}


def chain(system: System, quick: bool) -> dict[str, float]:
    if not system.chains:
        return {}
    links = 100 if quick else 300

    def once() -> float:
        start = time.perf_counter()
        f = system.submit(increment, 0)
        for _ in range(links - 1):
            f = system.submit(increment, f)
        if system.result(f) != links:
            raise AssertionError("a chain came back wrong")
        return links / (time.perf_counter() - start)

    warm(system)
    once()
    return {"links_per_s": statistics.median(once() for _ in range(3))}


def payload(system: System, quick: bool) -> dict[str, float]:
    count = 25 if quick else 100
    data = os.urandom(MIB)

    def once(n: int) -> float:
        start = time.perf_counter()
        for f in [system.submit(same, data) for _ in range(n)]:
            if len(system.result(f)) != MIB:
                raise AssertionError("a payload came back cut")
        return n / (time.perf_counter() - start)

    warm(system)
    once(5)
    return {"mib_per_s": statistics.median(once(count) for _ in range(3))}


def first(system: System, quick: bool) -> dict[str, float]:
    if system.result(system.submit(noop)) != 7:
        raise AssertionError("a no-op came back wrong")
    return {"seconds": time.time() - float(os.environ["PILOTFLOW_BENCH_START"])}


def bash(system: System, quick: bool) -> dict[str, float]:
    app = system.bash
    if app is None:
        return {}
    tasks = 100 if quick else 500

    def once() -> float:
        start = time.perf_counter()
        for f in [app(i) for i in range(tasks)]:
            if system.result(f) != 0:
                raise AssertionError("`true` did not end with 0")
        return tasks / (time.perf_counter() - start)

    warm(system)
    for f in [app(i) for i in range(20)]:
        system.result(f)
    return {"tasks_per_s": statistics.median(once() for _ in range(3))}


def million(system: System, quick: bool) -> dict[str, float]:
    """All tasks at once, every future held; memory of this process and of the interchange, if there is one.

    A million for us. Peers have a fifth of that, since they would take most of the sitting's time: rates
    are per second and memory is per task.
    """
    if system.slow:
        return {}
    import psutil

    tasks = system.many // (10 if quick else 1)
    warm(system)
    rate(system, 10_000)  # a slow first burst would flatter the comparison below
    small = statistics.median(rate(system, 10_000) for _ in range(5))
    client = psutil.Process()
    others = [p for p in tree() if p.pid != client.pid and is_interchange(p)]
    pids = [client.pid, *(p.pid for p in others)]
    before = sum(resident_bytes(pid) for pid in pids)
    sampler = subprocess.Popen(
        [sys.executable, __file__, "sample", *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != MARK},
    )
    start = time.perf_counter()
    futures = [system.submit(noop, i) for i in range(tasks)]
    submitted = time.perf_counter()
    for f in futures:
        system.result(f)
    end = time.perf_counter()
    after = [resident_bytes(pid) for pid in pids]
    peak = int(sampler.communicate(b"\n")[0])
    return {
        "tasks": tasks,
        "tasks_per_s": tasks / (end - start),
        "submits_per_s": tasks / (submitted - start),
        "small_tasks_per_s": small,
        "rate_ratio": tasks / (end - start) / small,
        "peak_kib_per_task": (peak - before) / tasks / 1024,
        "held_kib_per_task": (sum(after) - before) / tasks / 1024,
        "processes": len(pids),
    }


def idle(system: System, quick: bool) -> dict[str, float]:
    """What all processes of a run take that has nothing to do: per cent of one core, and wakes. Medians of windows."""
    span, windows = (5.0, 1) if quick else (20.0, 3)
    warm(system)
    time.sleep(3.0)
    found = [idle_window(span) for _ in range(windows)]
    return {name: statistics.median(figures[name] for figures in found) for name in found[0]}


def idle_window(span: float) -> dict[str, float]:
    """The same for one window. What it takes to look is not in it: finding processes is left out of both readings."""
    processes = tree()
    before, start = threads_of(processes), time.perf_counter()
    if not before:
        raise AssertionError("/proc has no schedstat of threads here, so their processor time cannot be told")
    time.sleep(span)
    took, after = time.perf_counter() - start, threads_of(processes)
    after |= threads_of([p for p in tree() if p not in processes])  # that were not there at the beginning
    used = [
        (now - then, slept - earlier)
        for id, (now, slept) in after.items()
        for then, earlier in [before.get(id, (0, 0))]
    ]
    nanoseconds, wakes = map(sum, zip(*used, strict=True))
    return {"percent": nanoseconds / took / 1e7, "wakes_per_s": wakes / took, "processes": len(processes)}


def threads_of(processes: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """Of each living thread: nanoseconds of processor time so far, and how often it has gone to sleep, to be woken.

    Clock ticks, which psutil counts, are too coarse: of a thread that wakes once a second they mostly see nothing.
    """
    found = {}
    for p in processes:
        for thread in Path(f"/proc/{p.pid}/task").glob("*"):
            with suppress(ProcessLookupError, FileNotFoundError):
                status = (thread / "status").read_text(encoding="utf-8", errors="replace")
                nanoseconds = int((thread / "schedstat").read_text(encoding="ascii").split()[0])
                slept = int(status.partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)[0])
                found[str(thread)] = (nanoseconds, slept)
    return found


def tree() -> list[Any]:
    """This process and everything it has started, detached or not."""
    import psutil

    me = psutil.Process()
    found = {me, *me.children(recursive=True)}
    mark = os.environ.get(MARK)
    for p in psutil.process_iter() if mark else ():
        try:
            if p.environ().get(MARK) == mark:
                found.add(p)
        except psutil.Error:
            continue
    return list(found)


def is_interchange(process: Any) -> bool:
    """Whether it is the process between client and managers, by the program it runs."""
    import psutil

    try:
        return any(word.endswith(("interchange", "interchange.py")) for word in process.cmdline()[:4])
    except psutil.Error:
        return False


def resident_bytes(pid: int) -> int:
    """Resident memory; 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def sample(pids: list[int]) -> None:
    """Print the highest sum of their resident memory, looking often, until a line comes in."""
    import select

    peak = 0
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        peak = max(peak, sum(map(resident_bytes, pids)))
    print(max(peak, sum(map(resident_bytes, pids))))


MEASURES: dict[str, Callable[[System, bool], dict[str, float]]] = {
    "throughput": throughput,
    "roundtrip": roundtrip,
    "chain": chain,
    "payload": payload,
    "first": first,
    "bash": bash,
    "million": million,
    "idle": idle,
}


def main(argv: list[str]) -> None:
    os.environ.setdefault("PILOTFLOW_BENCH_START", str(time.time()))
    if argv[:1] == ["sample"]:
        sample([int(pid) for pid in argv[1:]])
        return
    if len(argv) < 2 or argv[0] not in SYSTEMS or argv[1] not in MEASURES:
        raise SystemExit(f"{__doc__}\nSYSTEM: {' '.join(SYSTEMS)}\nMEASURE: {' '.join(MEASURES)}")
    with SYSTEMS[argv[0]]() as system:
        figures = MEASURES[argv[1]](system, "--quick" in argv)
        print(json.dumps({"system": argv[0], "measure": argv[1], "figures": figures}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
