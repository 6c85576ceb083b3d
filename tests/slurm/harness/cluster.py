"""The cluster: bring it up in about a second, break it, mend it, take it down.

python -m tests.slurm.harness up | down | on HOST COMMAND...     (as root; for trying things by hand)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pilotflow.runtime.process_end import ProcessEnd
from tests.command_line import CommandServer
from tests.slurm.harness import settings as texts
from tests.slurm.harness.hosts import Host, HostError, log_tail, port_of, shell, wait_for, wire
from tests.slurm.harness.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[3]
_FIT: Final = {"idle", "mixed", "allocated", "completing"}
_COMMAND_S: Final = 110.0
"""Longer than any command of pilotflow takes in a test; then it is killed."""
_GUARD: Final = "from tests.slurm.harness.cluster import guard; guard()"


class Cluster:
    """A cluster as described by its settings.

    Args:
        settings: what it is like.
        beside: another cluster, which is up: they share the network and its slurmdbd, so that each finds the
            other by `--clusters`. Give `settings` a prefix and a first_address of their own.
    """

    def __init__(self, settings: Settings, beside: Cluster | None = None) -> None:
        self.settings = settings
        self.state = settings.state
        self._beside = beside
        self._helpers: list[subprocess.Popen[Any]] = []
        self._server: CommandServer | None = None
        self._hosts = {name: Host(name, settings.state) for name in settings.hosts}
        self.login = self._hosts[settings.login]
        self._switch: Host = beside.login if beside is not None else self.login

    # ---- life -------------------------------------------------------------------------------

    def up(self, *, stays: bool = False) -> None:
        """Bring it up; what is left of an earlier one goes first.

        Args:
            stays: it outlives this process; otherwise it goes down when this process is gone.
        """
        self.down()
        self._write_files()
        first = self._beside is None
        private = self.settings.private_tmp
        self.login.boot()
        if first:
            address = self.settings.address(self.login.name)
            shell(
                self.login,
                f"ip link add br0 type bridge forward_delay 0\nip addr add {address}/24 dev br0\nip link set br0 up",
            )
        else:
            wire(self._switch, self.login, self.settings.address(self.login.name))
        for name in self.settings.node_names:
            self._hosts[name].boot(private_tmp=private)
            wire(self._switch, self._hosts[name], self.settings.address(name))
        self._start_munged(self.login)
        if self.settings.accounting and first:
            self._start_accounting()
        if self._accounting_host is not None:
            for command in (f"add cluster {self.settings.name}", *self.settings.sacctmgr):
                self.run("sacctmgr", "-i", "-Q", *command.split())
        self._start_controller("-c")
        if self._accounting_host is not None:
            shown = ("sacctmgr", "-n", "-P", "show", "cluster", self.settings.name)
            wait_for(lambda: "10.77" in self.run(*shown).stdout, "slurmdbd knows slurmctld")
        for name in self.settings.node_names:
            self._start_munged(self._hosts[name])
            self.start(name)
        wait_for(self.all_fit, f"all nodes are ready: {log_tail(self.state / 'log/slurmctld.log')}", 60)
        if not stays:
            self._start_guard()

    def down(self) -> None:
        """Take it down; nothing happens if it is not up."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for host in self._hosts.values():
            host.kill()
        for helper in self._helpers:
            helper.kill()
            helper.wait()
        self._helpers.clear()
        for group in Path("/sys/fs/cgroup").glob(f"*/slurm_{self.settings.prefix}node*"):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                _rmdir(folder)
            _rmdir(group)
        if (self.state / ".pilotflow-tests").exists():
            shutil.rmtree(self.state, ignore_errors=True)

    @property
    def is_up(self) -> bool:
        """Whether all its hosts are there, and all nodes are fit for work."""
        return all(host.pid for host in self._hosts.values()) and self.all_fit()

    def mended(self) -> bool:
        """Whether it is whole and empty, once what was cancelled is gone."""
        try:
            wait_for(lambda: self.is_up and not self.jobs(), "the cluster is empty", 2, 0.1)  # a new one is up as soon
        except HostError:
            return False
        return True

    def all_fit(self) -> bool:
        """Whether every node can take jobs."""
        done = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T", check=False)
        states = done.stdout.split()
        return len(states) == self.settings.nodes and _FIT.issuperset(states)

    # ---- commands ---------------------------------------------------------------------------

    def argv(self, host: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command on a host of this cluster."""
        return self._hosts[host].enter(command)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of programs on the cluster's hosts."""
        ours = {"SLURM_CONF": str(self.state / "etc/slurm.conf"), "PYTHONPATH": str(ROOT)}
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PYTEST_"))}
        return {**mine, **ours, **(more or {})}

    def run(
        self, *command: str, host: str = "", timeout_s: float = 60.0, check: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, `login` if none is named; a failure shows what it wrote."""
        done = subprocess.run(
            self.argv(host or self.login.name, command),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **more,
        )
        if check and done.returncode:
            raise HostError(f"{' '.join(command)[:400]}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def popen(self, *command: str, host: str = "", **more: Any) -> subprocess.Popen[str]:
        """Start a command on a host. To kill it, kill its pid there: `nsenter` is only its messenger."""
        argv = self.argv(host or self.login.name, command)
        return subprocess.Popen(argv, env=self.environment(), text=True, **more)

    def function(self, name: str, *arguments: object, cwd: Path, timeout_s: float = 60.0) -> str:
        """Call "module:function" with these arguments on `login`, in a process of its own; returns what it prints.

        Args:
            name: the function.
            arguments: values that JSON can carry.
            cwd: where it runs; all hosts see it.
            timeout_s: it is killed after this time.
        """
        done = self._served.run(arguments, cwd, self.environment(), timeout_s, function=name)
        if done.returncode:
            raise HostError(f"{name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def pilotflow(
        self, *words: str, cwd: Path, code: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """What a command of pilotflow does on `login`, with these variables besides; see `tests.command_line`.

        Args:
            words: the command, without its name.
            cwd: where it runs; all hosts see it.
            code: what its exit code must be; None for any.
        """
        done = self._served.run(words, cwd, self.environment(variables), _COMMAND_S)
        if code is not None and done.returncode != code:
            raise HostError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @property
    def _served(self) -> CommandServer:
        if self._server is None:
            python = self.argv(self.login.name, (sys.executable,))
            self._server = CommandServer(python, ("pytest",), self.environment(), self.state / "shared")
        return self._server

    def jobs(self, *options: str) -> list[str]:
        """Ids of the jobs that wait or run."""
        return self.run("squeue", "-h", "-o", "%A", *options).stdout.split()

    # ---- accidents --------------------------------------------------------------------------

    def cut(self, node: str) -> None:
        """The node's cable is pulled."""
        shell(self._switch, f"ip link set {port_of(self._hosts[node])} down")

    def heal(self, node: str) -> None:
        """And plugged in again."""
        shell(self._switch, f"ip link set {port_of(self._hosts[node])} up")

    def crash(self, node: str) -> None:
        """The node's power fails."""
        self._hosts[node].kill()

    def boot(self, node: str) -> None:
        """The node comes back after a crash, with nothing running."""
        host = self._hosts[node]
        host.boot(private_tmp=self.settings.private_tmp)
        wire(self._switch, host, self.settings.address(node))
        self._start_munged(host)
        self.start(node)

    def stop(self, host: str) -> None:
        """Slurm's daemon alone stops there: slurmd of a node (killed), slurmctld of login (asked)."""
        daemon, how = ("slurmctld", "TERM") if host == self.login.name else ("slurmd", "KILL")
        file = self.state / "host" / host / "run" / f"{daemon}.pid"
        self.run("sh", "-c", f'kill -{how} "$(cat {self.state}/run/{daemon}.pid)"', host=host)
        pid = file.read_text().strip() if file.exists() else ""
        self.run("sh", "-c", f"while kill -0 {pid or 0} 2>/dev/null; do sleep 0.05; done", host=host, timeout_s=20)

    def start(self, host: str) -> None:
        """Slurm's daemon starts there again."""
        if host == self.login.name:
            self._start_controller()
        else:
            self.run("slurmd", "-N", host, host=host)  # not -c, by which running steps would be forgotten

    # ---- inside -----------------------------------------------------------------------------

    @property
    def _accounting_host(self) -> str | None:
        if self._beside is not None and self._beside._accounting_host is not None:
            return self._beside._accounting_host
        return self.login.name if self.settings.accounting else None

    def _write_files(self) -> None:
        state, of = self.state, self.settings
        if state.exists():
            raise HostError(f"{state} is there and is not a cluster of these tests")
        for name in ("pid", "etc", "log", "ctld/env_cache", "run", "local", "shared", "dev", "host"):
            (state / name).mkdir(parents=True)
        (state / ".pilotflow-tests").touch()
        state.chmod(0o755)
        (state / "shared").chmod(0o1777)
        login = subprocess.run(["su", "-", "root", "-c", "env"], capture_output=True, check=True)
        (state / "ctld/env_cache/root").write_bytes(login.stdout)
        key = state / "etc/munge.key"
        key.write_bytes(
            os.urandom(128) if self._beside is None else (self._beside.state / key.relative_to(state)).read_bytes()
        )
        key.chmod(0o400)
        everyone = [of] if self._beside is None else [self._beside.settings, of]
        for cluster in everyone:
            (cluster.state / "etc/hosts").write_text(texts.hosts_text(everyone))  # in place: it is mounted
        (state / "etc/slurm.conf").write_text(texts.slurm_conf(of, self._accounting_host))
        (state / "etc/gres.conf").write_text(texts.gres_conf(of))
        (state / "etc/cgroup.conf").write_text(texts.cgroup_conf(of))
        for number in range(of.gpus if of.gpu_nodes else 0):
            os.mknod(state / f"dev/gpu{number}", 0o20666, os.makedev(1, 3))

    def _start_munged(self, host: Host) -> None:
        run = self.state / "run"  # each host has one of its own: Slurm's messages may not come twice to one
        self.run(
            "munged",
            "--force",
            f"--key-file={self.state}/etc/munge.key",
            f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid",
            f"--log-file={self.state}/log/munged.{host.name}.log",
            f"--seed-file={run}/munged.seed",
            host=host.name,
        )

    def _start_controller(self, *options: str) -> None:
        file = self.state / "host" / self.login.name / "run/slurmctld.pid"
        file.unlink(missing_ok=True)
        self.run("slurmctld", *options)
        log = self.state / "log/slurmctld.log"
        wait_for(lambda: file.exists() and file.read_text().strip(), f"slurmctld starts: {log_tail(log)}")
        wait_for(lambda: not self.run("scontrol", "ping", check=False).returncode, "slurmctld answers")

    def _start_accounting(self) -> None:
        """MariaDB without rights, on the login host's own loopback, and slurmdbd."""
        data, run = self.state / "mysql", self.state / "host" / self.login.name / "run"
        data.mkdir()
        conf = self.state / "etc/slurmdbd.conf"
        conf.write_text(texts.dbd_conf(self.settings))
        conf.chmod(0o600)
        with (self.state / "log/mariadbd.log").open("ab") as log:
            database = self.popen(
                *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-grant-tables"),
                *("--bind-address=127.0.0.1", "--port=3306", f"--socket={self.state}/run/mysql.sock"),
                *("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
                *("--innodb-flush-log-at-trx-commit=0",),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._helpers.append(database)
        wait_for((run / "mysql.sock").exists, f"MariaDB starts: {log_tail(self.state / 'log/mariadbd.log')}")
        self.run("slurmdbd")
        wait_for(
            lambda: not self.run("sacctmgr", "-n", "show", "cluster", check=False).returncode,
            f"slurmdbd answers: {log_tail(self.state / 'log/slurmdbd.log')}",
        )

    def _start_guard(self) -> None:
        """A process that takes the cluster down when this one is gone, however it went."""
        argv = [sys.executable, "-c", _GUARD, str(os.getpid()), str(self.state), *self._hosts]
        self._helpers.append(subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True))


def guard() -> None:
    """Wait for the end of a process, then take down what is left of a cluster: PID STATE HOST..."""
    pid, state, hosts = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    first = {name: Host(name, state).pid for name in hosts}
    try:
        end = ProcessEnd(pid)
    except ProcessLookupError:
        pass
    else:
        while not end.has_come(5.0):
            if not state.exists():
                return
    if any(first[name] is not None and Host(name, state).pid == first[name] for name in hosts):
        for name in hosts:
            Host(name, state).kill()
        shutil.rmtree(state, ignore_errors=True)


def _rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass
