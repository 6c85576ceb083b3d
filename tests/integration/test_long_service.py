"""A run that submits for days does not grow: what has ended and is no longer held is forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripts import ROOT

SERVICE = """
    import gc, json, sys, time
    from pathlib import Path
    import pilotflow as pf

    @pf.python_app
    def add(x, y=0):
        return x + y

    def memory(pid):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def allocated(most, patience_s):
        # As soon as that is no more than `most`: rows wait half a second to be recorded, and are objects.
        end, least = time.monotonic() + patience_s, sys.maxsize
        while time.monotonic() < end and least > most:
            gc.collect()
            least = min(least, sys.getallocatedblocks())
            time.sleep(0.02)
        return least

    total, batch, looks, slack = map(int, sys.argv[1:])
    if __name__ == "__main__":
        with pf.load(pf.Config.for_this_machine(max_workers=2), progress=False) as run:
            seen = []
            for done in range(0, total, batch):
                first = add(done)
                futures = [first, add(first, 1), *add.map(range(batch - 2))]
                assert [future.result() for future in futures[:3]] == [done, done + 1, 0]
                assert all(future.exception() is None for future in futures)
                del futures, first
                if (done // batch + 1) % max(1, total // batch // looks) == 0:
                    blocks = allocated(seen[0][1] + slack, 30) if seen else allocated(0, 2)
                    assert not seen or blocks <= seen[0][1] + slack, f"objects are kept: {blocks} after {seen}"
                    seen.append((done + batch, blocks, memory("self"), memory(run._interchange.pid)))
            assert run.counts().done == total, run.counts()
        print(json.dumps(seen))
"""
BLOCKS_MAX = 1_000
"""In Python's own count of what it has allocated: an object kept for each 90 tasks of 100,000 would show."""
GROWTH_MAX = 0.10
SLACK_BYTES = 4 << 20
"""What an allocator does with its pages while a program is young is not growth."""


@pytest.mark.parametrize(
    ("total", "batch", "warm", "slack"),
    [
        (100_000, 2_000, 50_000, SLACK_BYTES),
        pytest.param(2_000_000, 10_000, 200_000, 0, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_the_client_and_the_interchange_do_not_grow_with_the_tasks_that_have_ended(
    total: int, batch: int, warm: int, slack: int, tmp_path: Path, record_property: Any
) -> None:
    """No object is kept, and the memory of both processes is flat once they are warm."""
    script = tmp_path / "service.py"
    script.write_text("\n".join(line.removeprefix("    ") for line in SERVICE.splitlines()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(total), str(batch), "10", str(BLOCKS_MAX)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    looks = json.loads(done.stdout)
    record_property("count", total)
    record_property("allocated_blocks", [look[1] for look in looks])
    for number, who in ((2, "program"), (3, "interchange")):
        sizes = [look[number] for look in looks if look[0] >= warm]
        record_property(f"{who}_bytes", sizes)
        assert max(sizes) <= sizes[0] * (1 + GROWTH_MAX) + slack, f"the {who} grew: {looks}"
