"""What the how-to about plugins shows is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotflow.config.file import load_config
from pilotflow.errors import ConfigError

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto-plugins.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", HOWTO.read_text(), re.MULTILINE | re.DOTALL)


def shown_tests(programs: list[str]) -> dict[str, Callable[[Path], None]]:
    """The test functions that the programs define, run one after another like a single file."""
    names: dict[str, Any] = {"__name__": "howto"}
    for program in programs:
        exec(compile(program, str(HOWTO), "exec", dont_inherit=True), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


FILES = re.findall(r"^```yaml\n(.*?)^```$", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
TESTS = shown_tests(PROGRAMS)


def test_the_howto_shows_a_provider_and_a_launcher_with_their_tests() -> None:
    assert sorted(TESTS) == ["test_hosts_launcher_keeps_the_contract", "test_nice_provider_keeps_the_contract"]


@pytest.mark.parametrize("name", sorted(TESTS))
def test_what_the_howto_shows_keeps_the_contract(name: str, tmp_path: Path) -> None:
    TESTS[name](tmp_path)


def test_the_file_that_the_howto_shows_loads_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_site"
    package.mkdir()
    for name, word in (("providers", "NiceProvider"), ("launchers", "HostsLauncher")):
        (program,) = [text for text in PROGRAMS if f"class {word}(" in text]
        (package / f"{name}.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "site.yaml"
    (text,) = FILES
    path.write_text(text)
    nice, elsewhere = load_config(path).block_executors
    assert repr(nice.provider).startswith("NiceProvider(")
    assert nice.provider.max_blocks == 2
    assert nice.provider.niceness == 15  # type: ignore[attr-defined]
    assert elsewhere.launcher.hosts == ("node1", "node2")  # type: ignore[attr-defined]
    path.write_text(text.replace("15", "much"))
    with pytest.raises(ConfigError, match=r"6:17: executors\[0\]\.provider\.niceness: 'much' is str, expected int"):
        load_config(path)


def test_a_file_whose_provider_has_fields_and_is_no_dataclass_is_told_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = [text for text in PROGRAMS if "class NiceProvider(" in text]
    (tmp_path / "bare_site.py").write_text(program.replace(HEAD, "class NiceProvider(Provider):"))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "site.yaml"
    path.write_text("executors:\n  - label: a\n    provider: {type: 'bare_site:NiceProvider', niceness: 3}\n")
    with pytest.raises(ConfigError, match=r"3:22: .*class NiceProvider declares niceness and is no dataclass"):
        load_config(path)


ANSWER = "{batch_id: self._status_of(batch_id) for batch_id in ids}"
HEAD = "@dataclass(frozen=True, kw_only=True)\nclass NiceProvider(Provider):"
SUBMIT = "    def submit("


def end_fd(returns: str) -> str:
    return f"    def end_fd(self, batch_id):\n        return {returns}\n\n{SUBMIT}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # such a provider buries nobody
@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (ANSWER, "None", "returned None, not a dictionary"),
        (ANSWER, "[self._status_of(batch_id) for batch_id in ids]", "not a dictionary by batch id"),
        (ANSWER, ANSWER[:-1] + " if batch_id in self._running}", "what is not known is MISSING"),
        ("BlockStatus(BlockState.RUNNING)", '"RUNNING"', "no BlockStatus"),
        ("BlockStatus(BlockState.RUNNING)", 'BlockStatus("running")', "no BlockState"),
        ("self._running.get(batch_id)\n            if", "self._running[batch_id]\n            if", "must pass it over"),
        (HEAD, "class NiceProvider(Provider):", r"declares niceness and is no dataclass.* Write @dataclass"),
        (HEAD, HEAD.replace("(Provider)", ""), r"NiceProvider is no subclass of Provider\. Write:"),
        ("def cancel_argv", "def cancel_arguments", "NiceProvider lacks cancel_argv: write"),
        ("niceness: int = 10", "niceness: int", "every field of a provider needs a default"),
        (SUBMIT, end_fd("'no'"), r"NiceProvider\.end_fd returned 'no', which is no descriptor\. Return a new"),
        (SUBMIT, end_fd("True"), r"end_fd returned True, which is no descriptor"),
        (SUBMIT, end_fd("1 << 30"), r"end_fd returned 1073741824, which is no open descriptor"),
    ],
)
def test_a_mistake_in_a_provider_is_told_in_words(right: str, wrong: str, words: str, tmp_path: Path) -> None:
    (program,) = [text for text in PROGRAMS if "class NiceProvider(" in text]
    assert program.count(right) == 1
    tests = shown_tests([program.replace(right, wrong), *[text for text in PROGRAMS if "check_provider(" in text]])
    with pytest.raises(AssertionError, match=words):
        tests["test_nice_provider_keeps_the_contract"](tmp_path)
