"""A compiled module that is damaged is named, wherever something imports it."""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from pilotflow.config.file import load_config
from pilotflow.damaged import damaged_module
from pilotflow.errors import ConfigError, SerializationError
from pilotflow.serialize import unpack

ROOT = Path(__file__).resolve().parents[2]


def damaged(folder: Path, name: str, text: str = "x = 1\n", keep: int = 40) -> Path:
    """Write a module, and of what Python compiles of it only the beginning; returns the compiled file."""
    source = folder / f"{name}.py"
    source.write_text(text)
    compiled = Path(py_compile.compile(str(source), doraise=True) or "")
    compiled.write_bytes(compiled.read_bytes()[:keep])
    return compiled


def test_the_damaged_file_behind_an_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = damaged(tmp_path, "bad_inner")
    (tmp_path / "outer_of_bad.py").write_text("import bad_inner\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EOFError) as raised:
        importlib.import_module("outer_of_bad")
    words = damaged_module(raised.value)
    assert words is not None
    assert f"{compiled} is damaged" in words
    with pytest.raises(SerializationError, match=r"is damaged .*: remove that file"):
        unpack(b"cbad_inner\nx\n.")


def test_another_end_of_file_is_not_taken_for_a_damaged_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_early.py").write_text("raise EOFError('in the module itself')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EOFError) as raised:
        importlib.import_module("ends_early")
    assert damaged_module(raised.value) is None


def test_a_provider_of_a_damaged_module_is_refused_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = damaged(tmp_path, "bad_provider")
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "site.yaml"
    config.write_text('executors:\n  - {label: a, provider: {type: "bad_provider:Mine"}}\n')
    with pytest.raises(ConfigError) as raised:
        load_config(config)
    assert f"{compiled} is damaged" in str(raised.value)
    assert "site.yaml:2" in str(raised.value)


@pytest.mark.parametrize("module", ["pilotflow.cli.create", "pilotflow.cli.commands"])
def test_a_damaged_module_of_ours_is_named_by_the_command_and_nothing_is_only_aborted(
    tmp_path: Path, module: str
) -> None:
    package = tmp_path / "pilotflow"
    package.mkdir()
    for entry in (ROOT / "pilotflow").iterdir():
        if entry.name not in {"cli", "__pycache__"}:
            (package / entry.name).symlink_to(entry)
    (package / "cli").mkdir()
    for source in (ROOT / "pilotflow" / "cli").glob("*.py"):
        (package / "cli" / source.name).write_bytes(source.read_bytes())
    name = module.rpartition(".")[2]
    compiled = damaged(package / "cli", name, (ROOT / "pilotflow" / "cli" / f"{name}.py").read_text())
    (tmp_path / "w.yaml").write_text("name: w\njobs: [{name: a, command: 'true'}]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pilotflow", "create", "w.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Aborted" not in done.stderr
    assert f"{compiled} is damaged" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
