"""A kernel that cannot show the ends of processes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import pilotflow as pf


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_pidfd_open_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def refuse(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(pf.ConfigError, match=r"does not allow pidfd_open here \(.*\)\. pilotflow needs Linux 5\.3"):
        pf.load(pf.Config(run_dir=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
