"""The `pilotflow` command: ready for Ctrl-C before the imports that take a while."""

from __future__ import annotations

from pilotflow.cli.interrupts import leave_quietly


def main() -> None:
    """Run the command line in `sys.argv`; ends in `SystemExit`."""
    leave_quietly()
    from pilotflow.cli.commands import run

    run()
