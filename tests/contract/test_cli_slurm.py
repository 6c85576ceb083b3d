"""`pilotflow slurm script`: what Slurm would be given, without submitting anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.command_line import pilotflow

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return pilotflow("slurm", "script", *words, cwd=folder)


def test_the_script_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    done = script(tmp_path, str(CONFIGS / "slurm-large-and-small.yaml"), "--executor", "small")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in ("#SBATCH --time=00:30:00", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=8192M", "#SBATCH --nodes=1"):
        assert line in lines
    assert f"#SBATCH --output={tmp_path}/runs/NNNN/blocks/small-0/stdout" in lines
    assert list(tmp_path.iterdir()) == []


def test_a_staged_environment_is_shown_and_not_packed(tmp_path: Path) -> None:
    provider = "{type: slurm, partition: debug, walltime: 10m}"
    (tmp_path / "c.yaml").write_text(f"executors:\n- {{label: a, stage_env: /local, provider: {provider}}}\n")
    done = script(tmp_path, "c.yaml")
    assert done.returncode == 0, done.stderr
    assert f"bash {tmp_path}/runs/NNNN/stage.sh {tmp_path}/runs/.environments/" in done.stdout
    assert "export VIRTUAL_ENV=/local/pilotflow-env-" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_bash_can_read_the_script(tmp_path: Path) -> None:
    text = script(tmp_path, str(CONFIGS / "slurm.yaml")).stdout
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_an_executor_without_slurm_is_refused(tmp_path: Path) -> None:
    done = script(tmp_path, str(CONFIGS / "local.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "none of its executors has a provider of type slurm" in done.stderr
    done = script(tmp_path, str(CONFIGS / "slurm.yaml"), "--executor", "cpu")
    assert done.returncode == 2
    assert "Those with a provider of type slurm: slurm." in done.stderr
