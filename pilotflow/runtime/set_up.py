"""What workers of a `PilotExecutor` call before their first task: how it is packed, and how it is called."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

from pilotflow.bodies import pack_function, unpack_function
from pilotflow.byvalue import GLOBALS
from pilotflow.serialize import Packed, join, pack, unpack


def pack_setup(function: Callable[..., object], args: tuple[Any, ...]) -> bytes:
    """A call that workers are to make.

    Raises:
        SerializationError: it cannot travel.
    """
    packed = join([pack(args)])
    whole = Packed(packed.payload, packed.layout, tuple(bytes(frame) for frame in packed.frames))
    return pickle.dumps((pack_function(function), tuple(whole)), 5)


def call_setup(payload: bytes) -> None:
    """Make the call that `pack_setup` was given; raises what it raises."""
    function, args = unpack(payload)
    with GLOBALS.set_up():
        unpack_function(function)(*unpack(*args))


def with_authkey(setup: bytes | None) -> bytes | None:
    """The setup, and before it the program's key for `multiprocessing`, if it has imported that.

    The key is a secret: what is returned may travel over protected links alone.
    """
    if "multiprocessing.process" not in sys.modules:
        return setup
    from multiprocessing import process

    return pack_setup(take_authkey, (bytes(process.current_process().authkey), setup))


def take_authkey(key: bytes, setup: bytes | None) -> None:
    """In a worker: be one of the processes that a manager's proxies may be used in, which is asked when they are unpickled."""
    from multiprocessing import process  # no task may need it

    process.current_process().authkey = key
    if setup is not None:
        call_setup(setup)
