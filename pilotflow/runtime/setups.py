"""The error of an executor whose setup fails."""

from __future__ import annotations

from pilotflow.errors import InitializerFailed, SerializationError
from pilotflow.messages.client import SetupFailed
from pilotflow.remote_errors import unpack_exception
from pilotflow.serialize import unpack


def setup_error(event: SetupFailed) -> InitializerFailed:
    """What a worker, or the manager of those that died, has said about it, as an exception."""
    if event.died:
        return InitializerFailed(
            f"the initializer ends the workers of executor '{event.executor}': {event.died}\n"
            "Look for what ends its process, such as os._exit, a crash in a library that it loads, or memory exhaustion."
        )
    text = f"the initializer raised in a worker of executor '{event.executor}'"
    try:
        error = InitializerFailed(text)
        error.__cause__ = unpack_exception(*unpack(event.payload))
    except (SerializationError, TypeError) as problem:  # who sent that does not speak as we do
        error = InitializerFailed(f"{text}, and how cannot be read: {problem}")
    return error
