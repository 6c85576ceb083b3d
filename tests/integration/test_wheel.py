"""An installation from a wheel, away from the source tree: what ships is there, and it works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "configs" / "sites").glob("*.yaml"))


def said(*argv: str | Path, cwd: Path, **variables: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PILOTFLOW_", "PYTHON"))}
    done = subprocess.run(
        argv, cwd=cwd, env={**own, **variables}, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pilotflow", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    said(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def fresh(wheel: Path) -> Path:
    """The folder of a new virtual environment with the wheel, which borrows what it depends on."""
    folder = wheel.parent / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    install(wheel, "--prefix", folder)
    Path(packages, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def install(wheel: Path, *where: str | Path) -> None:
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--ignore-installed", "--no-warn-script-location")
    said(sys.executable, "-m", "pip", "install", *options, *where, wheel, cwd=wheel.parent)


def test_a_wheel_brings_the_site_files_the_schemas_and_a_demo_that_runs(fresh: Path, tmp_path: Path) -> None:
    pilotflow = (fresh / "bin" / "python", fresh / "bin" / "pilotflow")
    sites = json.loads(said(*pilotflow, "site", "list", "--json", cwd=tmp_path))
    assert [site["name"] for site in sites] == SHIPPED
    assert all(Path(site["file"]).is_relative_to(fresh) for site in sites)
    for kind in ("site", "workflow"):
        assert json.loads(said(*pilotflow, "schema", kind, cwd=tmp_path))["properties"]
    assert "0 failed" in said(*pilotflow, "demo", cwd=tmp_path)
    code = "import pilotflow, pathlib; print((pathlib.Path(pilotflow.__file__).parent / 'py.typed').exists())"
    assert said(fresh / "bin" / "python", "-c", code, cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("way", ["--target", "--user"])
def test_site_files_are_found_wherever_pip_was_told_to_install(way: str, wheel: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    scheme = sysconfig.get_preferred_scheme("user")
    packages = {"--target": own, "--user": Path(sysconfig.get_path("purelib", scheme, vars={"userbase": str(own)}))}
    # What --user does; in an environment pip refuses it.
    install(wheel, way if way == "--target" else "--prefix", own)
    variables = {"PYTHONUSERBASE": str(own), "PYTHONPATH": f"{packages[way]}:{sysconfig.get_path('purelib')}"}
    found = said(sys.executable, "-m", "pilotflow", "site", "list", "--json", cwd=tmp_path, **variables)
    sites = json.loads(found)
    assert [site["name"] for site in sites] == SHIPPED
    assert all(Path(site["file"]).is_relative_to(own) for site in sites)
