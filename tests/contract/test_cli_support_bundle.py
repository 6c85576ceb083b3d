"""The bundle for those who help with a run: what they need is in it, secrets and data are not."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pilotflow as pf
from pilotflow.cli.redaction import REMOVED, is_sensitive, redacted, without_output
from pilotflow.runtime.connection import read_connection
from tests.command_line import pilotflow


def shout(word: str) -> None:
    print("a result of science")
    sys.stderr.write("a warning of science\n")
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
        assert isinstance(pf.python_app(shout)("PRIVATE-WORD").exception(60), ValueError), "prints where its block does"
        keys = read_connection(run.directory / "connection.json").keys
    secrets = {"SOME_TOKEN": "t0ken-t0ken", "SLURM_JWT": "eyJhbGci"}
    done = pilotflow("support-bundle", "runs", "-o", "b.tar.gz", cwd=tmp_path, env=secrets)
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
        "eyJhbGci",
        "a result of science",
        "a warning of science",
        "PRIVATE-WORD",
    ):
        assert secret not in whole
    assert "left out, as tasks may have printed them: " in texts["b/run/blocks/local-0/stderr"]
    assert "failed\tValueError\n" in texts["b/tasks.txt"]


def test_a_bundle_of_a_workflow_has_how_jobs_ended_and_nothing_that_they_said(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        'name: w\njobs: [{name: a, command: "echo SAID-OUT; echo SAID-ERR >&2; exit 3", env: {X_TOKEN: SAID-ENV}}]\n'
        "actions: [{trigger_type: on_workflow_start, action_type: run_commands, commands: [hostname; printf SAID%s -ACT]}]\n"
    )
    assert pilotflow("run", "w.yaml", cwd=tmp_path).returncode == 1
    done = pilotflow("support-bundle", "runs", "-o", "b.tar.gz", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(tmp_path / "b.tar.gz") as bundle:
        texts = {name: bundle.extractfile(name).read().decode() for name in bundle.getnames()}  # type: ignore[union-attr]
    assert "failed\t3\texit\t1\n" in texts["b/tasks.txt"]
    assert "jobs/a.1.err" in texts["b/files.txt"]
    assert not [name for name, text in texts.items() if "SAID-" in text]


def test_what_exists_is_not_overwritten_and_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = pilotflow("support-bundle", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no run in " in done.stderr


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("export DB_PASSWORD='a b'\n", f"export DB_PASSWORD={REMOVED}\n"),
        ("github_token: ghp_x\nkey1=ok\n", f"github_token: {REMOVED}\nkey1=ok\n"),
        ("see ftp://u:p4ss@h/ and zzzz\n", f"see ftp://u:{REMOVED}@h/ and {REMOVED}\n"),
        ("redis://:p4ss@h:6379/0", f"redis://:{REMOVED}@h:6379/0"),
        ("git clone https://ghp_0123456789abcdefgh@github.com/x", f"git clone https://{REMOVED}@github.com/x"),
        ('{"user": "me", "password": "p4ss", "n": 1}', f'{{"user": "me", "password": {REMOVED}, "n": 1}}'),
        ("{'api_key': 'p4ss'}", f"{{'api_key': {REMOVED}}}"),
        ("Authorization: Bearer eyJhbGciOi.x", f"Authorization: {REMOVED}"),
        ("curl -H 'X: Bearer eyJhbGciOi.x' h", f"curl -H 'X: Bearer {REMOVED}' h"),
        ("tool --api-token p4ss --jobs 4", f"tool --api-token {REMOVED} --jobs 4"),
        ("tool --password=p4ss -v", f"tool --password={REMOVED} -v"),
        ("export GH_PAT=p4ss DEPLOY_KEY=p4ss HOME=/h", f"export GH_PAT={REMOVED} DEPLOY_KEY={REMOVED} HOME=/h"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nAAA=\n-----END RSA PRIVATE KEY-----\nx", f"{REMOVED}\nx"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut short", REMOVED),
        ("block 3 of 4 on node1: srun: error: Unable to create step", None),
        ("#SBATCH --account=abc --partition=debug --time=10", None),
    ],
)
def test_secrets_are_found_by_what_stands_before_them_and_by_value(text: str, safe: str | None) -> None:
    assert redacted(text, ["zzzz", ""]) == (text if safe is None else safe)


@settings(max_examples=200)
@given(
    st.sampled_from(["A_TOKEN", "password", "Db_Secret", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "SSH_KEY"]),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8).map(lambda text: f"S3cr{text}"),
    st.sampled_from(["{n}={v}", "export {n}='{v}'", '{n}: "{v}"', '{{"{n}": "{v}"}}', "{n} = {v}", "x; {n}={v}; y"]),
    st.text(max_size=20),
)
def test_no_form_of_an_assignment_lets_a_secret_through(name: str, value: str, form: str, around: str) -> None:
    assert is_sensitive(name)
    assert value not in redacted(f"{around}\n{form.format(n=name, v=value)}\n{around.replace(value, '')}", [])


def test_of_what_a_block_printed_only_the_batch_system_s_lines_remain() -> None:
    text = "hello\nslurmstepd: error: Detected 1 oom-kill\nbash: line 3: mpirun: command not found\nsrunning: my data\n"
    assert without_output(text) == (
        "slurmstepd: error: Detected 1 oom-kill\nbash: line 3: mpirun: command not found\n"
        "[left out, as tasks may have printed them: 2 lines]\n"
    )
    assert without_output("srun: error: x\n") == "srun: error: x\n"
