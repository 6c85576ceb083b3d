"""The connection file: where a run's interchange is, and the keys to talk to it.

Links on one host are Unix sockets in a 0700 directory. Links over TCP use CURVE with a list of
allowed client keys for each kind of peer. Everything a peer needs is in the run's connection
file (0600).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pilotflow.errors import ConfigError
from pilotflow.names import ImportPath
from pilotflow.resources import SortMethod


class Keys(msgspec.Struct, frozen=True):
    """CURVE key pairs of a run, as Z85 text; all empty if `encrypted=False`."""

    server_public: str = ""
    server_secret: str = ""
    client_public: str = ""
    client_secret: str = ""
    manager_public: str = ""
    manager_secret: str = ""
    control_public: str = ""
    control_secret: str = ""


class Connection(msgspec.Struct, frozen=True):
    """The connection file: how to reach a run's interchange.

    `client`, `managers` and `control` are the endpoints of each kind of peer, best first: unix:PATH
    or tcp://HOST:PORT (of * or FIRST-LAST the interchange chooses one, and then writes the file anew).
    `path` is the submitting program's, so that workers import what it imports; `prefix` its Python
    environment, and `packages` the versions there of what packs values: other ones may not read them.
    A run whose program is gone waits `keep_s` seconds for another that goes on with it, while nothing runs; 0 if it
    ends then.
    """

    run_id: str
    epoch: int
    directory: str
    client: tuple[str, ...]
    managers: tuple[str, ...]
    control: tuple[str, ...]
    keys: Keys
    max_message_bytes: int
    heartbeat_limit_s: float
    client_pid: int
    host: str
    path: ImportPath = ImportPath()
    job_sort_method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY
    connect_timeout_s: float = 30.0
    prefix: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    keep_s: float = 0.0
    scratch: str = ""

    @property
    def over_tcp(self) -> bool:
        """Whether managers may be on other hosts."""
        return any(endpoint.startswith("tcp:") for endpoint in self.managers)

    @property
    def encrypted(self) -> bool:
        """Whether links over TCP have keys."""
        return self.keys != Keys()

    @property
    def scratch_here(self) -> str:
        """Where tasks' scratch directories are made on this host; variables such as `$TMPDIR` are those of this process."""
        return os.path.expandvars(self.scratch) if self.scratch else os.path.join(self.directory, "scratch")


def make_keys() -> Keys:
    """New key pairs for a run."""
    import zmq  # only runs with TCP links need it

    pairs = [tuple(key.decode() for key in zmq.curve_keypair()) for _ in range(4)]
    return Keys(*(key for pair in pairs for key in pair))


def write_connection(path: Path, connection: Connection) -> None:
    """Write the connection file, whole and readable by nobody else.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(path.name + ".new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(connection)))
    aside.replace(path)


def read_connection(path: Path) -> Connection:
    """Read a connection file.

    Raises:
        ConfigError: it is missing, or not a connection file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except OSError as error:
        raise ConfigError(f"Cannot read the connection file {path}: {error.strerror}.") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not a connection file of this pilotflow: {error}.") from None
