"""Compiled modules (`.pyc` files) that are damaged, by a full disk or a crash, as Python's import does not name them."""

from __future__ import annotations

from types import CodeType, TracebackType
from typing import Final

_LOADER: Final = ("<frozen importlib._bootstrap_external>", "get_code")
"""The file and the function of Python's own import that read a compiled module."""


def damaged_module(error: BaseException) -> str | None:
    """A sentence on an error that a damaged compiled module has raised; None if it was something else."""
    cause: BaseException | None = error
    while cause is not None:
        at = cause.__traceback__
        while at is not None:
            file = _being_read(at)
            if file is not None:
                return (
                    f"The compiled module {file} is damaged ({cause}): remove that file, and Python compiles it again"
                )
            at = at.tb_next
        cause = cause.__cause__
    return None


def _being_read(at: TracebackType) -> str | None:
    code: CodeType = at.tb_frame.f_code
    if (code.co_filename, code.co_name) != _LOADER:
        return None
    file = at.tb_frame.f_locals.get("bytecode_path")
    # Without it, or when the source is what is being compiled, the compiled file is not to blame.
    calls = at.tb_next.tb_frame.f_code.co_name if at.tb_next is not None else ""
    return file if isinstance(file, str) and calls == "_compile_bytecode" else None
