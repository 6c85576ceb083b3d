"""Stands in for mpirun where no MPI is needed: starts ranks, forwards SIGUSR1, ends all when one fails.

As Hydra does it: every rank in a session of its own, SIGTERM kills all of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main() -> int:
    count, command = int(sys.argv[1]), sys.argv[2:]
    ranks = [
        subprocess.Popen(
            command, env=os.environ | {"PMI_RANK": str(rank)}, stdin=subprocess.DEVNULL, start_new_session=True
        )
        for rank in range(count)
    ]

    def send(number: int) -> None:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, number)

    signal.signal(signal.SIGUSR1, lambda *_: send(signal.SIGUSR1))
    signal.signal(signal.SIGTERM, lambda *_: send(signal.SIGKILL))
    code = 0
    for _ in ranks:
        _, status = os.waitpid(-1, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended and not code:
            code = ended if ended > 0 else 128 - ended
            print(f"fake_mpirun: a rank ended with {ended}", file=sys.stderr)
            send(signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(main())
