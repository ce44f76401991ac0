"""What launchers/setup.sh says where it cannot, or need not, make an environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "launchers" / "setup.sh"


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    """A PATH on which the only Python is 3.9."""
    for name in ("python3", "python3.11"):
        program = tmp_path / name
        program.write_text(
            '#!/bin/sh\nif [ "$1" = --version ]; then echo "Python 3.9.2"; fi\nexit 1\n'
        )
        program.chmod(0o755)
    for tool in ("bash", "dirname", "grep"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    return tmp_path


def setup(*arguments: str, path: str, venv: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        env={"PATH": path, "R1_VENV": str(venv)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_named(old_python: Path):
    done = setup("cpu", path=str(old_python), venv=old_python / "venv")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Python 3.11 or newer is needed and none is on PATH (found: Python 3.9.2)\n"
    )
    assert not (old_python / "venv").exists()


def test_an_unknown_device_is_refused_with_the_usage(tmp_path: Path):
    done = setup("tpu", path=os.environ["PATH"], venv=tmp_path / "venv")
    assert done.returncode == 2
    assert "usage: bash launchers/setup.sh [cpu|gpu] [test]" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_help_is_given_without_making_anything(tmp_path: Path):
    done = setup("--help", path=os.environ["PATH"], venv=tmp_path / "venv")
    assert done.returncode == 0
    assert "R1_VENV" in done.stdout
    assert not (tmp_path / "venv").exists()
