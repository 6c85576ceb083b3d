"""Activating an environment on a node: the text does what an activated shell shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pilotflow.providers.activation import Environment, activation_text, environment_of


def shell(text: str, show: str) -> list[str]:
    argv = ["bash", "-euc", f"{text}\n{show}"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONHOME": "/nowhere"}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_a_program_runs_in_is_a_virtual_environment_one_of_conda_or_the_systems() -> None:
    assert environment_of("/a", "/usr", has_conda_meta=False) == Environment("/a", "venv")
    assert environment_of("/a", "/a", has_conda_meta=True, name="ml") == Environment("/a", "conda", "ml")
    assert environment_of("/usr", "/usr", has_conda_meta=False) == Environment("/usr", "")
    assert environment_of("/a", "/conda", has_conda_meta=True).kind == "venv", "a venv made by conda's Python"


def test_the_systems_python_needs_nothing() -> None:
    assert activation_text(Environment("/usr", "")) == ""


def test_a_virtual_environment_comes_first_on_the_path() -> None:
    text = activation_text(Environment("/it's $here", "venv"))
    shown = shell(text, 'echo "$PATH"; echo "$VIRTUAL_ENV"; echo "${PYTHONHOME-unset}"')
    assert shown == ["/it's $here/bin:/usr/bin:/bin", "/it's $here", "unset"]


def test_activation_scripts_of_a_conda_environment_run(tmp_path: Path) -> None:
    folder = tmp_path / "etc/conda/activate.d"
    text = activation_text(Environment(str(tmp_path), "conda", "ml"))
    show = 'echo "$CONDA_PREFIX $CONDA_DEFAULT_ENV ${GDAL_DATA-}"'
    assert shell(text, show) == [f"{tmp_path} ml "], "there may be none"
    folder.mkdir(parents=True)
    (folder / "gdal.sh").write_text('export GDAL_DATA="$CONDA_PREFIX/share/gdal"\n')
    assert shell(text, show) == [f"{tmp_path} ml {tmp_path}/share/gdal"]
