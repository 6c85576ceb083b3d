"""`pilotflow resources` of a real run: the table, the JSON, and the page in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command_line import ROOT, pilotflow
from tests.core.test_usage import check_is_self_contained

WORKFLOW = """\
name: used
resource_requirements:
  - {name: fits, num_cpus: 1, memory: 120m, runtime: PT20S}
jobs:
  - {name: "hold_{i}", command: "python3 -c 'import time; x = bytearray(80 << 20); time.sleep(1.5)'", resource_requirements: fits, parameters: {i: "1:3"}}
  - {name: last, command: "exit 3", depends_on_regexes: ["^hold"]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where a workflow has run."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "w.yaml").write_text(WORKFLOW)
    done = pilotflow("run", "w.yaml", "--num-cpus", "2", cwd=folder)
    assert done.returncode == 1, done.stderr
    return folder


def test_requests_are_told_beside_peaks_for_people_and_for_programs(home: Path) -> None:
    done = pilotflow("resources", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hold_{i}          3       1" in done.stdout
    data = json.loads(pilotflow("resources", "last", "--json", cwd=home).stdout)
    holds = [job for job in data["jobs"] if job["name"].startswith("hold")]
    assert len(holds) == 3
    for job in holds:
        assert 0.6 < job["memory_share"] < 1
        assert job["verdicts"]["cpu"] == "under"
        assert job["verdicts"]["runtime"] == "under"
    assert [job["how"] for job in data["jobs"]].count("failed") == 1
    assert max(job["waited_s"] for job in holds) >= 1.5, "one waits for the other two"
    (node,) = data["nodes"]
    assert node["cores"] == 2
    assert data["core_s"]["asked"] <= data["core_s"]["there"]


def test_the_commands_on_the_page_about_planning_work(home: Path) -> None:
    text = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    commands = [line.split()[2:] for line in text.splitlines() if line.startswith("$ pilotflow resources")]
    assert len(commands) == 3
    assert [pilotflow(*command, cwd=home).returncode for command in commands] == [0, 0, 0]


def test_a_plan_takes_measured_times(home: Path) -> None:
    done = pilotflow("plan", "w.yaml", "--from", "last", "--site", "kestrel", "--json", cwd=home)
    data = json.loads(done.stdout)
    assert data["assumptions"][0] == "3 jobs take as long as in run 0001, 1 their whole `runtime`"
    (best,) = [choice for choice in data["choices"] if choice["recommended"]]
    assert 3600 < best["makespan_s"] < 3660, "the last job says nothing and has not ended well: it takes an hour"


def test_the_page_stands_alone_and_opens_in_a_browser(home: Path) -> None:
    done = pilotflow("resources", "-o", "page.html", cwd=home)
    assert done.stderr == "written: page.html\n"
    check_is_self_contained((home / "page.html").read_text(encoding="utf-8"))
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here, so nobody looks at the page")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}/browser", "--dump-dom")
    argv = [browser, *options, f"file://{home}/page.html"]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=True).stdout
    assert shown.count("<svg") == 3
    assert "hold_3, attempt 1: completed after" in shown


def test_what_cannot_be_told_is_said(home: Path) -> None:
    refused = pilotflow("resources", "-o", "nowhere/page.html", cwd=home)
    assert refused.returncode == 2
    assert "nowhere/page.html: cannot be written: No such file or directory." in refused.stderr
    other = home / "other.yaml"
    other.write_text("name: other\njobs: [{name: x, command: y}]\n")
    missed = pilotflow("plan", "other.yaml", "--from", "1", cwd=home)
    assert missed.returncode == 2
    assert "Run 0001 has no jobs of workflow 'other' that ended well" in missed.stderr
