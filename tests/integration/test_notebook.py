"""A notebook, executed as Jupyter does it: progress, tables, and `await` in its cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

CELLS = [
    """
    import time
    import pilotflow as pf

    @pf.python_app(num_cpus=1)
    def halve(x, wait=0.0):
        "Half of a number."
        time.sleep(wait)
        return x / 2

    run = pf.load(pf.Config.for_this_machine(max_workers=2))
    """,
    "futures = [halve(x, 0.1) for x in range(12)]; bad = halve('x'); results = [f.result() for f in futures]; results",
    "bad.exception(); bad",
    "futures[3]",
    "halve",
    "await halve(10)",
    "done = pf.progress([halve(x, 0.2) for x in range(8)], 'second part')",
    "run",
    "run.close(); run",
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells of the notebook after its execution."""
    directory: Path = tmp_path_factory.mktemp("notebook")
    notebook: Any = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(re.sub(r"^ {4}", "", code, flags=re.MULTILINE)) for code in CELLS]
    client = nbclient.NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    client.execute()
    nbformat.write(notebook, directory / "executed.ipynb")
    return list(notebook.cells)


def html_of(cell: Any) -> str:
    return "\n".join(output["data"].get("text/html", "") for output in cell.outputs if "data" in output)


def plain_of(cell: Any) -> str:
    return "\n".join(output["data"]["text/plain"] for output in cell.outputs if "data" in output)


def test_no_cell_prints_anything_else(cells: list[Any]) -> None:
    assert [output for cell in cells for output in cell.outputs if output.output_type == "stream"] == []


def test_the_cell_that_loaded_shows_how_it_all_went(cells: list[Any]) -> None:
    assert len(cells[0].outputs) == 1, "one place, changed as things go on"
    assert re.search(r"<b>runs/0001</b> <progress value=\"22\" max=\"22\".*21 done, 1 failed in ", html_of(cells[0]))
    assert plain_of(cells[0]).startswith("runs/0001 21 done, 1 failed in ")


def test_progress_of_some_futures_is_in_their_own_cell(cells: list[Any]) -> None:
    assert re.search(r"<b>second part</b> <progress value=\"8\" max=\"8\".*8 done in ", html_of(cells[6]))


def test_futures_apps_and_runs_are_small_tables(cells: list[Any]) -> None:
    failed, done, app, open_run, closed_run = (html_of(cells[number]) for number in (2, 3, 4, 7, 8))
    for cell in (failed, done, app, open_run, closed_run):
        assert cell.startswith("<table>")
        assert len(cell) < 2000
    assert "TypeError: unsupported operand" in failed
    assert "&#x27;str&#x27;" in failed, "text is escaped"
    assert "done" in done
    assert "Half of a number." in app
    assert "num_cpus" in app
    assert "21 done, 1 failed" in open_run
    assert "executor local" in open_run
    assert "runs/0001 (closed)" in closed_run


def test_their_plain_forms_are_short(cells: list[Any]) -> None:
    assert plain_of(cells[2]) == "<AppFuture halve #13 failed>"
    assert plain_of(cells[3]) == "<AppFuture halve #4 done>"
    assert plain_of(cells[4]) == "<python_app halve, num_cpus=1>"
    assert plain_of(cells[7]) == "<Run runs/0001: 21 done, 1 failed>"
    assert plain_of(cells[8]) == "<Run runs/0001: 21 done, 1 failed, closed>"


def test_a_cell_may_await_a_future(cells: list[Any]) -> None:
    assert plain_of(cells[5]) == "5.0"
