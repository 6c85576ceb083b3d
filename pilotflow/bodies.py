"""Functions' bodies: what a manager is sent once of each function, and its workers keep.

A function that a worker can import is its name; any other is its code, as `pilotflow.serialize` packs
it inside arguments too.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from typing import Any

from pilotflow.errors import SerializationError
from pilotflow.names import importable_function, resolve
from pilotflow.serialize import pack, remedy, unpack

_NAMED = b"\1"
"""First byte of a function's body that is a name only; nor with this."""


def pack_function(function: Callable[..., Any]) -> bytes:
    """A function's body: its name if a worker can import it, else the code itself.

    Raises:
        SerializationError: naming the function.
    """
    name = importable_function(function)
    if name is not None:
        return _NAMED + pickle.dumps(name, 5)
    try:
        return pickle.dumps(tuple(pack(function)), 5)
    except SerializationError as error:
        shown = getattr(function, "__qualname__", None) or repr(function)
        raise SerializationError(f"function '{shown}' cannot be sent to a worker: {error}") from error.__cause__


def unpack_function(body: bytes) -> Callable[..., Any]:
    """The function of a body.

    Raises:
        SerializationError: if it cannot be imported or unpickled here.
    """
    if body[:1] != _NAMED:
        function: Callable[..., Any] = unpack(*unpack(body))
        return function
    module, qualname = unpack(body[1:])
    try:
        return resolve(module, qualname)
    except (Exception, SystemExit) as error:  # of a module that ends its program
        raise SerializationError(
            f"function '{qualname}' of module '{module}' cannot be imported on the worker: "
            f"{type(error).__name__}: {error}{remedy(error)}"
        ) from error


def digest(body: bytes) -> bytes:
    """16 bytes that name a function's body."""
    return hashlib.blake2b(body, digest_size=16).digest()
