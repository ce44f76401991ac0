"""Fixtures of the end-to-end tests: a launcher, a base model, and one finished small run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from launched import launch  # noqa: F401  (a fixture)
from zero_runs import base_command, zero_command


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base run that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("end-to-end") / "base"
    subprocess.run(base_command(folder), check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def finished(base: Path) -> Path:
    """The folder of a Zero run that nothing disturbed."""
    folder = base.parent / "finished"
    subprocess.run(zero_command(base, folder), check=True, timeout=300)
    return folder
