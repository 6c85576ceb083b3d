"""Files of the user's project that are named like modules that we import are never taken for those."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

COMMAND = Path(sys.executable).with_name("pilotflow")
"""As users call it; `python -m pilotflow` would have the working directory on its path by Python's own rule."""


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_workflow_runs_where_the_users_files_are_named_like_our_modules(verb: str, tmp_path: Path) -> None:
    for name in ("queue", "random", "selectors", "socket", "platform", "zmq", "msgspec", "psutil", "pilotflow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    (tmp_path / "one.yaml").write_text("name: one\njobs: [{name: hello, command: echo hello > said}]\n")

    def say(*words: str) -> str:
        done = subprocess.run([COMMAND, *words], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    say(verb, "one.yaml")
    until(lambda: json.loads(say("status", "--json"))["state"] == "succeeded", "the run to succeed")
    assert (tmp_path / "said").read_text() == "hello\n"
