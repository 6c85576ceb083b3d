"""Runs a command as on an older kernel: system calls that came after Linux 4.18 are refused, to all it starts as well.

    python -m tests.old_kernel [ENOSYS|EPERM] COMMAND...

They are answered by ENOSYS, as such a kernel does, and those about pidfds by EPERM if that is asked for, as some
containers do. (With EPERM for all of them no program of a C library since 2.34 could start a thread.)

Source: seccomp(2), struct seccomp_data; numbers from 424 on (pidfd_send_signal, Linux 5.1) are those of newer calls, on every
architecture (arch/*/entry/syscalls of the kernel).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

FIRST_NEWER_CALL: Final = 424
PIDFD_CALLS: Final = (424, 434, 438)
"""pidfd_send_signal, pidfd_open, pidfd_getfd."""
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_NOT_LESS, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def refuse_newer_calls(number: int = errno.ENOSYS) -> None:
    """Refuse the calls to this process from now on, and to all that it starts; those about pidfds with this error."""
    steps = [
        struct.pack("HBBI", _LOAD_WORD, 0, 0, 0),  # the call's number
        *(struct.pack("HBBI", _JUMP_IF_EQUAL, len(PIDFD_CALLS) - at, 0, call) for at, call in enumerate(PIDFD_CALLS)),
        struct.pack("HBBI", _JUMP_IF_NOT_LESS, 1, 2, FIRST_NEWER_CALL),
        struct.pack("HBBI", _RETURN, 0, 0, _REFUSE | number),
        struct.pack("HBBI", _RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        struct.pack("HBBI", _RETURN, 0, 0, _ALLOW),
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), b"".join(steps))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no filter of system calls can be set here")


def main(argv: list[str]) -> None:
    """Become the command."""
    number = getattr(errno, argv[0]) if argv[0] in {"ENOSYS", "EPERM"} else 0
    refuse_newer_calls(number or errno.ENOSYS)
    command = argv[1:] if number else argv
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
