"""The page about tasks over several nodes: its programs run and print what it says, its file loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilotflow.config.file import load_config
from pilotflow.config.plugins import launcher_names, load_launcher
from pilotflow.launchers.simple import WrappedLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.launchers.steps import Step, step_environment
from tests.command_line import pilotflow
from tests.integration import mpi_tools
from tests.integration.scripts import ROOT, run_script

PAGE = (ROOT / "docs" / "multi-node.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_shows_programs() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 2


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=["functions", "commands"])
def test_a_program_on_the_page_runs(program: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpi_tools.need_mpi4py()
    mpi_tools.plain_openmpi()
    monkeypatch.setenv("TMPDIR", "/tmp")  # Open MPI's sockets need short paths
    assert run_script(tmp_path, program).stdout == output


def test_the_file_on_the_page_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    (text,) = re.findall(r"^```yaml\n(executors:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path.write_text(text)
    wide, contained = load_config(path).block_executors
    assert wide.launcher == SrunLauncher(mpi="pmix", step_options=("--cpu-bind=cores",))
    assert contained.launcher == WrappedLauncher("apptainer exec $HOME/tools.sif")


def test_the_workflow_on_the_page_has_no_mistakes(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(name:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "w.yaml").write_text(text)
    done = pilotflow("create", "w.yaml", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_has_every_launcher_with_its_name() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+Launcher)` \|", PAGE, re.MULTILINE))
    assert rows == {name: load_launcher(name).__name__ for name in launcher_names()}


def test_the_page_has_every_variable() -> None:
    step = Step(name="a", nodes=("n1",), directory="/d")
    assert not [name for name in step_environment(step) if f"`{name}`" not in PAGE]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
