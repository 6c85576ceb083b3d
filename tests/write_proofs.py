"""Writes docs/proofs.md from pytest's junit report: what was proved, how often, when, on which machine.

    python tests/write_proofs.py REPORT.xml docs/proofs.md

A proof is a test marked `soak`. Its name is a sentence already; its count is what it recorded with
`record_property("count", n)`, else the last number among its parameters.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple


class Proof(NamedTuple):
    where: str
    name: str
    size: str
    seconds: float
    result: str


def proof(case: ET.Element) -> Proof:
    """One test case of the report."""
    full = case.get("name", "")
    bare, _, parameters = full.partition("[")
    properties = {p.get("name"): p.get("value", "") for p in case.iter("property")}
    numbers = re.findall(r"\d+", parameters)
    count = properties.get("count") or (numbers[-1] if numbers else "")
    if case.find("failure") is not None or case.find("error") is not None:
        result = "FAILED"
    elif (skipped := case.find("skipped")) is not None:
        result = f"skipped: {skipped.get('message', '')}".replace("|", "/").replace("\n", " ")
    else:
        result = "holds"
    sentence = bare.removeprefix("test_").replace("_", " ") + (f" [{parameters}" if parameters else "")
    return Proof(
        where=case.get("classname", "").removeprefix("tests."),
        name=sentence.replace("|", "/"),
        size=f"{int(count):,}" if count.isdigit() else count,
        seconds=float(case.get("time", "0")),
        result=result,
    )


def machine() -> str:
    """This machine, in a line."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model[1] if model else platform.machine()}, {cores} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def page(proofs: list[Proof], now: datetime) -> str:
    """The whole page."""
    failed = sum(p.result == "FAILED" for p in proofs)
    seconds = sum(p.seconds for p in proofs)
    lines = [
        "# Proofs",
        "",
        "Long runs of what must always hold, with their full counts. `make soak` runs them and writes this page;",
        "`make test` runs a seeded sample of each.",
        "",
        f"{now:%Y-%m-%d %H:%M} UTC, {machine()}. {len(proofs)} proofs, {failed} failed, {seconds:,.0f} s together.",
        "",
        "| where | what holds | count | time (s) | result |",
        "|---|---|--:|--:|---|",
    ]
    lines += [f"| {p.where} | {p.name} | {p.size} | {p.seconds:.1f} | {p.result} |" for p in proofs]
    return "\n".join(lines) + "\n"


def main(report: str, out: str) -> int:
    """Read the report, write the page; 1 if there was nothing to write."""
    try:
        root = ET.parse(report).getroot()
    except (OSError, ET.ParseError) as error:
        print(f"No proofs were written: pytest left no readable report at {report} ({error}).", file=sys.stderr)
        return 1
    proofs = sorted(proof(case) for case in root.iter("testcase"))
    if not proofs:
        print("No proofs were written: no test is marked `soak`.", file=sys.stderr)
        return 1
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(page(proofs, datetime.now(timezone.utc)), encoding="utf-8")
    print(f"{len(proofs)} proofs written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
