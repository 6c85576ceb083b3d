"""The shape of the package: imports go downward only, the core is pure, modules stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pilotflow"
MAX_LINES = 450

LAYER_OF_PACKAGE = {
    "messages": 0,
    "core": 1,
    "providers": 2,
    "launchers": 2,
    "node": 2,
    "runtime": 2,
    "config": 3,
    "workflow": 4,
    "cli": 5,
    "testing": 5,
}
LAYER_OF_MODULE = {
    "errors": 0,
    "ids": 0,
    "own_pid": 0,
    "units": 0,
    "resources": 0,
    "requests": 0,
    "explanation": 0,
    "serialize": 0,
    "chunks": 0,
    "memfile": 0,
    "framefile": 0,
    "missing": 0,
    "names": 0,
    "bodies": 0,
    "nested": 0,
    "byvalue": 0,
    "script_globals": 0,
    "made_anew": 0,
    "blame": 0,
    "damaged": 0,
    "remote_errors": 0,
    "typechecks": 0,
    "context": 0,
    "notebook": 0,
    "future_errors": 2,
    "lazy_future": 2,
    "futures": 2,  # what the client loop settles; apps and executors only hand it out
    "__main__": 5,
}
SURFACE = 4
"""Layer of the package itself (its public names) and of top-level modules not named above."""

FORBIDDEN_IN_CORE = {
    "asyncio",
    "logging",
    "multiprocessing",
    "os",
    "psutil",
    "random",
    "select",
    "selectors",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "zmq",
}


class Import(NamedTuple):
    line: int
    module: str
    name: str | None


def layer(module: str) -> int:
    parts = module.split(".")
    if len(parts) == 1:
        return SURFACE
    if parts[1] in LAYER_OF_PACKAGE:
        return LAYER_OF_PACKAGE[parts[1]]
    return LAYER_OF_MODULE.get(parts[1], SURFACE)


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module: at its top, inside functions, for type checking."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield Import(node.lineno, base, alias.name)


def target(found: Import, known: frozenset[str]) -> str:
    """The module that an import reaches: `from pilotflow.core import pool` reaches the pool."""
    whole = f"{found.module}.{found.name}"
    return whole if found.name and whole in known else found.module


def problems(source: str, module: str, known: frozenset[str], *, is_package: bool = False) -> list[str]:
    """What is wrong with a module's imports, one line each."""
    out = []
    for found in imports(source, module, is_package=is_package):
        to = target(found, known)
        top = to.split(".", maxsplit=1)[0]
        if top == "pilotflow" and layer(to) > layer(module):
            out.append(
                f"{module}:{found.line} (layer {layer(module)}) imports {to} (layer {layer(to)}): "
                f"imports go downward only. Move what is shared down, or hand it in."
            )
        if module.startswith("pilotflow.core") and top in FORBIDDEN_IN_CORE:
            out.append(
                f"{module}:{found.line} imports {top}: the core decides and does not act. "
                f"Hand in the time or the value, return what to do."
            )
    return out


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
KNOWN = frozenset(MODULES)
EVERY_MODULE = pytest.mark.parametrize("module", sorted(KNOWN))


@EVERY_MODULE
def test_imports_go_downward_only_and_the_core_stays_pure(module: str) -> None:
    path = MODULES[module]
    found = problems(path.read_text(), module, KNOWN, is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


@EVERY_MODULE
def test_a_module_is_short_enough_to_be_read_at_once(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines, at most {MAX_LINES}: give each part a module of its own"


@EVERY_MODULE
def test_a_public_module_says_what_it_is_for(module: str) -> None:
    if any(part.startswith("_") for part in module.split(".")):
        return
    source = MODULES[module].read_text()
    empty_package = MODULES[module].name == "__init__.py" and not source.strip()
    assert empty_package or ast.get_docstring(ast.parse(source)), f"{module} has no docstring"


def test_the_page_of_the_architecture_names_only_files_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    paths = [f"/{path.relative_to(PACKAGE)}" for path in MODULES.values()]
    assert named
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in paths)] == []


NAMES = frozenset({"pilotflow", "pilotflow.errors", "pilotflow.core.pool", "pilotflow.runtime.manager"})


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pilotflow.core.pool", "from pilotflow.runtime.manager import Manager"),
        ("pilotflow.core.pool", "from ..runtime import manager"),
        ("pilotflow.core.pool", "import pilotflow.runtime.manager"),
        ("pilotflow.core.pool", "def f():\n    from pilotflow.runtime import manager"),
        ("pilotflow.core.pool", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pilotflow.apps"),
        ("pilotflow.core.pool", "import time"),
        ("pilotflow.core.pool", "def f():\n    from os.path import join"),
        ("pilotflow.core.pool", "from pilotflow import python_app"),
        ("pilotflow.errors", "from . import python_app"),
        ("pilotflow.runtime.manager", "from pilotflow.config.run import Config"),
        ("pilotflow.apps", "from pilotflow.cli import main"),
    ],
)
def test_an_import_upward_is_found(module: str, source: str) -> None:
    assert problems(source, module, NAMES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pilotflow.core.pool", "from pilotflow import errors"),
        ("pilotflow.core.pool", "from ..errors import PilotflowError\nimport heapq"),
        ("pilotflow.runtime.manager", "from pilotflow.core import pool\nimport os, zmq"),
        ("pilotflow.runtime.manager", "from pilotflow.providers.base import Provider"),
        ("pilotflow", "from pilotflow.apps import python_app"),
        ("pilotflow.cli.main", "import pilotflow"),
    ],
)
def test_an_import_downward_or_beside_is_fine(module: str, source: str) -> None:
    assert not problems(source, module, NAMES)


def test_a_package_resolves_its_own_relative_imports() -> None:
    found = list(imports("from .run import Config", "pilotflow.config", is_package=True))
    assert found == [Import(1, "pilotflow.config.run", "Config")]
