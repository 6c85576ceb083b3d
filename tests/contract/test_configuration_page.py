"""The page about configuration: its examples run, and it has every key with its real default."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pilotflow.config.file import load_config
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.errors import ConfigError
from pilotflow.providers.local import LocalProvider

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def load_text(folder: Path, text: str) -> Config:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("program", blocks("python"))
def test_a_program_on_the_page_runs(program: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_file_on_the_page_loads(text: str, tmp_path: Path) -> None:
    assert load_text(tmp_path, text).executors


def test_the_first_program_and_the_first_file_are_the_same_configuration(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[0].partition("@pf")[0], names)
    assert load_text(tmp_path, blocks("yaml")[0]) == names["config"]


def test_the_wrong_file_on_the_page_is_refused_as_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, blocks("yaml wrong")[0])
    assert str(caught.value).replace(f"{tmp_path}/", "") + "\n" == blocks("text")[0]


@pytest.mark.parametrize("record", [Config, ExecutorConfig, LocalProvider], ids=lambda record: record.__name__)
def test_every_key_is_on_the_page_with_its_default(
    record: type[Config | ExecutorConfig | LocalProvider], tmp_path: Path
) -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    keys = [field.name for field in dataclasses.fields(record) if field.init]
    assert not [key for key in keys if key not in documented]
    shown = {key: match[1] for key in keys if (match := re.fullmatch(r"`(.*)`", documented[key]))}
    lines = "".join(f"{key}: {text}\n" for key, text in shown.items())
    if record is Config:
        assert load_text(tmp_path, lines) == Config()
    else:
        indented = "".join(f"    {line}\n" for line in lines.splitlines())
        of_provider = record is LocalProvider
        text = "executors:\n- provider:\n    type: local\n" if of_provider else "executors:\n-\n"
        assert load_text(tmp_path, text + indented) == Config()
