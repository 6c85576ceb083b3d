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
    import gc, json, sys
    from pathlib import Path
    import pilotflow as pf

    @pf.python_app
    def add(x, y=0):
        return x + y

    def memory(pid):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    total, batch, looks = map(int, sys.argv[1:])
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
                    gc.collect()
                    seen.append((done + batch, memory("self"), memory(run._interchange.pid)))
            assert run.counts().done == total, run.counts()
        print(json.dumps(seen))
"""
GROWTH_MAX = 0.10
SLACK_BYTES = 4 << 20
"""What an allocator does with its pages is not growth."""


@pytest.mark.parametrize(
    ("total", "batch"),
    [(100_000, 2_000), pytest.param(2_000_000, 10_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_the_client_and_the_interchange_stay_as_small_as_they_were_after_a_tenth(
    total: int, batch: int, tmp_path: Path, record_property: Any
) -> None:
    script = tmp_path / "service.py"
    script.write_text("\n".join(line.removeprefix("    ") for line in SERVICE.splitlines()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(total), str(batch), "20"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    looks = json.loads(done.stdout)
    early = [look for look in looks if look[0] >= total // 10]
    for number, who in ((1, "program"), (2, "interchange")):
        first, most = early[0][number], max(look[number] for look in early)
        record_property(f"{who}_bytes", [look[number] for look in looks])
        assert most <= first * (1 + GROWTH_MAX) + SLACK_BYTES, f"the {who} grew: {looks}"
    record_property("count", total)
