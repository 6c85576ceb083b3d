"""The bundle for those who help with a run: what they need is in it, secrets and data are not."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pilotflow as pf
from pilotflow.cli.support_bundle import REMOVED, redacted
from pilotflow.runtime.connection import read_connection
from tests.command_line import pilotflow


def shout(word: str) -> None:
    print("a result of science")
    raise ValueError(word)


def test_a_bundle_has_logs_scripts_and_settings_but_no_keys_values_or_outputs(tmp_path: Path) -> None:
    init = "export MY_API_KEY=abc-123-def\nexport WEB=https://me:hunter22@host/x\n"
    provider = pf.LocalProvider(worker_init=init)
    config = pf.Config(
        run_dir=tmp_path / "runs", tcp=True, executors=[pf.ExecutorConfig(provider=provider, max_workers_per_node=1)]
    )
    with pf.load(config, progress=False) as run:
        future = pf.python_app(stdout=pf.AUTO_LOGNAME)(shout)("PRIVATE-WORD")
        assert isinstance(future.exception(60), ValueError)
        keys = read_connection(run.directory / "connection.json").keys
    done = pilotflow("support-bundle", "runs", "-o", "b.tar.gz", cwd=tmp_path, env={"SOME_TOKEN": "t0ken-t0ken"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "b.tar.gz") as bundle:
        texts = {name: bundle.extractfile(name).read().decode() for name in bundle.getnames()}  # type: ignore[union-attr]
    assert {
        "b/versions.txt",
        "b/settings.txt",
        "b/environment.txt",
        "b/tasks.txt",
        "b/run/pilotflow.log",
    } <= texts.keys()
    assert "b/run/scripts/local-0.sh" in texts
    assert "tasks/shout" in texts["b/files.txt"]
    assert f"MY_API_KEY={REMOVED}" in texts["b/run/scripts/local-0.sh"]
    whole = "\n".join(texts.values())
    for secret in (
        "abc-123-def",
        "hunter22",
        "t0ken-t0ken",
        keys.server_secret,
        keys.client_secret,
        "a result of science",
    ):
        assert secret not in whole


def test_what_exists_is_not_overwritten_and_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = pilotflow("support-bundle", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no run directory runs." in done.stderr


def test_secrets_are_found_by_name_and_by_value() -> None:
    text = "export DB_PASSWORD='a b'\ngithub_token: ghp_x\nkey1=ok\nsee ftp://u:p4ss@h/ and zzzz\n"
    assert redacted(text, ["zzzz", ""]) == (
        f"export DB_PASSWORD={REMOVED}\ngithub_token: {REMOVED}\nkey1=ok\nsee ftp://u:{REMOVED}@h/ and {REMOVED}\n"
    )
