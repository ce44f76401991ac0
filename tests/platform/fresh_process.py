"""Runs a program in a process of its own: what was imported first decides what it meets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(
    program: str, *arguments: object, paths: tuple[Path, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python's ``program`` with this repository, which ``paths`` come before, on its path.

    Raises:
        AssertionError: it failed; the end of its errors is the message.
    """
    path = os.pathsep.join(map(str, (*paths, Path.cwd())))
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
