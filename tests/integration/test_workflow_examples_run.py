"""The example workflows that name no batch system run to their ends on this machine, as their authors wrote them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from pilotflow.workflow.spec import read_workflow
from tests.core.workflow_texts import EXAMPLES
from tests.integration import workflow_tools as tools
from tests.integration.workflow_tools import Cli

pytestmark = pytest.mark.timeout(300)

NOTE = '#!/bin/sh\necho "${0##*/} $* $PILOTFLOW_JOB_NAME" >> notes\n'
TOOL = """\
import json, os, sys
if sys.argv[1] == "fetch":
    settings = json.loads(sys.argv[3])
    print(*[settings["word"]] * settings["lines"], sep="\\n")
else:
    print(sys.argv[2], os.environ["STAGE"], sys.stdin.read().count("it's"))
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    for name in ("process.sh", "preprocess.sh", "my_script.sh", "solve"):
        (tmp_path / name).write_text(NOTE)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").write_text("open('notes', 'a').write('train.py\\n')\n")
    (tmp_path / "tool.py").write_text(TOOL)
    return tools.command_line(tmp_path)


def notes(folder: Path) -> list[str]:
    return sorted((folder / "notes").read_text().splitlines())


def words_of(cli: Cli, name: str, *options: str, code: int = 0) -> dict[str, str]:
    """Run an example; returns what is said of the last attempt at each job."""
    done = cli("run", str(EXAMPLES / f"{name}.yaml"), "--json", *options, code=code)
    assert json.loads(done.stdout)["state"] == ("failed" if code else "succeeded")
    return {row["name"]: row["words"] for row in json.loads(cli("results", "last", "--json").stdout)}


def test_equal_jobs_run_a_few_at_once(cli: Cli, tmp_path: Path) -> None:
    words_of(cli, "equal_jobs", "--max-parallel-jobs", "4")
    assert Counter(notes(tmp_path)) == Counter(f"process.sh file{n}.txt process_file_{n}" for n in range(1, 101))


def test_jobs_of_different_size_run_on_what_fits_them(cli: Cli, tmp_path: Path) -> None:
    words_of(cli, "resource_classes", "--num-cpus", "16", "--num-gpus", "2", "--memory-gb", "160")
    assert notes(tmp_path) == ["preprocess.sh  preprocessing", "train.py"]


def test_a_job_runs_that_takes_a_whole_node(cli: Cli, tmp_path: Path) -> None:
    words_of(cli, "one_node_job", "--num-cpus", "32", "--memory-gb", "200")
    assert notes(tmp_path) == ["my_script.sh  work1"]


def test_files_and_user_data_go_through_the_diamond(cli: Cli, tmp_path: Path) -> None:
    words_of(cli, "diamond")
    assert (tmp_path / "whole.txt").read_text() == "1 test 4\n2 test 4\n"
    assert cli("logs", "last", "report", "--stdout").stdout == "total 18\n"


@pytest.mark.parametrize("name", ["totals_wrong", "nested_launchers"])
def test_mistakes_are_told_where_they_cannot_run(cli: Cli, tmp_path: Path, name: str) -> None:
    words = words_of(cli, name, "--num-cpus", "32", "--memory-gb", "128", code=1)
    assert all("can run nowhere in this run" in each for each in words.values())
    assert not (tmp_path / "notes").exists()


def test_a_job_over_four_nodes_is_started_once_on_four_logical_ones(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "here.yaml").write_text("name: here\nbatch_system: local\n")
    monkeypatch.setenv("PILOTFLOW_SITE_PATH", str(tmp_path / "sites"))
    text = (EXAMPLES / "totals_right.yaml").read_text()
    (tmp_path / "w.yaml").write_text(text.replace("num_cpus: 32", "num_cpus: 1").replace("128g", "100m"))
    run = tools.a_run(tmp_path, read_workflow(tmp_path / "w.yaml"), settings={"site": "here", "nodes_per_block": 4})
    assert tools.Program(run).wait() == 0, tools.states(run)
    assert notes(tmp_path) == ["solve  solve"]
