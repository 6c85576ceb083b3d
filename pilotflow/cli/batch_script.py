"""`pilotflow slurm script`: the batch script of an executor's first block."""

from __future__ import annotations

from pathlib import Path

from pilotflow.config.here import config_to_use
from pilotflow.errors import ConfigError
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.runtime.block_job import block_job
from pilotflow.supplies import kept_executors


def batch_script(path: str, label: str | None) -> str:
    """What sbatch would be given, for a run whose directory is called NNNN.

    Args:
        path: the configuration's file.
        label: which executor; None for the first whose provider is Slurm's.

    Raises:
        ConfigError: something is wrong with the file, or there is no such executor.
    """
    config = config_to_use(path, {})
    ours = [one.label for one in config.block_executors if isinstance(one.provider, SlurmProvider)]
    if label is None and not ours:
        raise ConfigError(f"{path}: none of its executors has a provider of type slurm.")
    if label is not None and label not in ours:
        there = f"Those with a provider of type slurm: {', '.join(ours)}." if ours else "None has one of type slurm."
        raise ConfigError(f"{path}: executor '{label}' has no provider of type slurm. {there}")
    directory = Path(config.run_dir).absolute() / "NNNN"
    kept = kept_executors(config, directory, directory / "connection.json", {}, write=False)
    chosen = next(one for one in kept if one.label == (label or ours[0]))
    assert isinstance(chosen.provider, SlurmProvider)
    return chosen.provider.script(block_job(chosen, f"{chosen.label}-0", directory, "NNNN"))
