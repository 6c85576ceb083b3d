"""What a block that did not start left behind, for the message about it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pilotflow.runtime.tails import tail

REMEDY: Final = (
    "Check worker_init, that the Python on the block's nodes exists and can import this version of pilotflow, "
    "and that the nodes reach this machine."
)


def why_no_start(run_dir: Path, block: str) -> str:
    """The end of a block's stderr (or else of its newest log), what to check, and where to look."""
    folder, script = run_dir / "blocks" / block, run_dir / "scripts" / f"{block}.sh"
    stderr = folder / "stderr"
    if not stderr.exists():  # it has never run
        return f"Its script is {script}." if script.exists() else ""
    lines: list[str] = []
    if text := tail(stderr):
        lines += [f"Its stderr ({stderr}) ends with:", text]
    else:
        lines.append(f"Its stderr ({stderr}) is empty.")
        logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        if logs and (text := tail(logs[-1])):
            lines += [f"Its log ({logs[-1]}) ends with:", text]
    lines.append(f"{REMEDY} Its script is {script}." if script.exists() else REMEDY)
    return "\n".join(lines)
