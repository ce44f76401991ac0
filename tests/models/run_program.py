"""Runs a program of ``programs/`` on one rank: megatron-core changes the process it lives in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from launchers.ports import HOST, LoopbackPorts

HERE = Path(__file__).parent


def run_program(name: str) -> dict[str, Any]:
    """What ``programs/<name>.py`` printed last, as JSON; fails with its log."""
    one_rank = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(next(LoopbackPorts())),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(HERE.parents[1]), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    done = subprocess.run(
        [sys.executable, HERE / "programs" / f"{name}.py"],
        env={**os.environ, **one_rank},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
