"""Where processes of a run import from: as the program does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pilotflow.names import ImportPath

LIBRARY = os.path.dirname(os.__file__)
PROGRAM = ImportPath(("/script", "/inserted"), (LIBRARY, "/site", "/appended"))


def test_what_a_program_imports_first_workers_import_first_and_our_own_processes_last() -> None:
    own = [LIBRARY, "/site"]
    assert PROGRAM.around(own) == ["/script", "/inserted", LIBRARY, "/site", "/appended"]
    assert PROGRAM.after(own) == [LIBRARY, "/site", "/script", "/inserted", "/appended"]


def test_a_directory_of_the_script_that_is_installed_too_moves_to_the_front() -> None:
    assert PROGRAM.around([LIBRARY, "/site", "/script"]) == ["/script", "/inserted", LIBRARY, "/site", "/appended"]


def test_what_a_node_puts_first_itself_stays_in_its_order() -> None:
    own = ["/module", "/inserted", LIBRARY, "/node-site"]
    assert PROGRAM.around(own) == ["/script", *own, "/site", "/appended"]


def test_entries_of_pythonpath_are_not_among_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/other{os.pathsep}/variable")
    monkeypatch.setattr(sys, "path", ["", "/variable", LIBRARY, "/site"])
    monkeypatch.chdir(tmp_path)
    assert ImportPath.here() == ImportPath((str(tmp_path),), ("/variable", LIBRARY, "/site"))
