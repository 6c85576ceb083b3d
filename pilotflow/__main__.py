"""`python -m pilotflow` is the `pilotflow` command."""

from __future__ import annotations

from pilotflow.cli.main import main

if __name__ == "__main__":
    main()
