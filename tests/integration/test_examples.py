"""The example runs as its page says, in threads and in processes, and finds the same in both."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pilotflow.config.file import load_config
from tests.integration.scripts import ROOT, TIMEOUT_S

SWEEP = ROOT / "examples" / "sweep"


def sweep(directory: Path, *arguments: str) -> list[str]:
    """Run the example at small size; the lines it prints."""
    done = subprocess.run(
        [sys.executable, str(SWEEP / "sweep.py"), "--targets", "2", "--draws", "400", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def rows_of(out: Path) -> list[dict[str, Any]]:
    if (out / "sweep.parquet").exists():
        parquet: Any = importlib.import_module("pyarrow.parquet")
        return list(parquet.read_table(out / "sweep.parquet").to_pylist())
    with (out / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The results of a sweep in threads, and of one in processes with promotion."""
    directory = tmp_path_factory.mktemp("sweep")
    printed = sweep(directory, "--local", "--out", "threads")
    assert printed[:2] == ["=== Stage A: building targets ===", "=== Stage B: running samplers ==="]
    printed = sweep(directory, "--config", str(SWEEP / "local.yaml"), "--promote", "--out", "processes")
    assert any(line.startswith("promoted 2 results") for line in printed)
    return directory / "threads", directory / "processes"


def test_the_table_is_the_same_wherever_the_sweep_runs(both: tuple[Path, Path]) -> None:
    threads, processes = map(rows_of, both)
    assert threads == processes
    assert [(row["target"], row["sampler"]) for row in threads] == [
        ("tgt_000", "walk"),
        ("tgt_000", "langevin"),
        ("tgt_001", "walk"),
        ("tgt_001", "langevin"),
    ]
    assert (both[0] / ("sweep.parquet" if importlib.util.find_spec("pyarrow") else "sweep.csv")).exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_table_is_parquet_if_that_can_be_written_else_csv(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    monkeypatch.syspath_prepend(str(SWEEP))
    report = importlib.import_module("report")
    rows = [{"target": "tgt_000", "sampler": "walk", "error": 0.25}, {"target": "é", "sampler": "x,y", "error": 1e-9}]
    assert report.write_table(rows, tmp_path) == tmp_path / f"sweep.{kind}"
    read = rows_of(tmp_path)
    assert [{**row, "error": float(row["error"])} for row in read] == rows


def test_the_plot_has_a_bar_for_each_row(both: tuple[Path, Path]) -> None:
    plot = ET.parse(both[0] / "sweep.svg").getroot()
    bars = [part for part in plot.iter() if part.tag.endswith("rect") and part.get("x")]
    assert len(bars) == 4


def test_each_task_has_its_logs_and_the_best_are_promoted(both: tuple[Path, Path]) -> None:
    for out in both:
        assert (out / "logs/build/tgt_001.log").read_text().startswith("building tgt_001")
        assert (out / "logs/sample/tgt_001_walk.log").read_text() == "walk on tgt_001: 400 draws\n"
    best = json.loads((both[1] / "gallery" / "tgt_000.json").read_text())
    errors = [float(row["error"]) for row in rows_of(both[1]) if row["target"] == "tgt_000"]
    assert best["error"] == pytest.approx(min(errors))
    assert not (both[0] / "gallery").exists()


@pytest.mark.parametrize("name", ["local.yaml", "slurm.yaml"])
def test_its_configurations_are_valid(name: str) -> None:
    assert load_config(SWEEP / name).block_executors
