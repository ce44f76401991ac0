"""Starts the ranks of one layout as real processes on gloo and collects what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from launchers.ports import HOST, LoopbackPorts

PROGRAMS = Path(__file__).parent / "programs"
LIMIT_SECONDS = 240
EPS = 1e-5
"""Of Adam. With 1e-8 a weight whose gradient is nothing but rounding moves by a full step."""


def run_ranks(program: str, layout: dict[str, int], **arguments: object) -> list[dict]:
    """Run ``programs/<program>.py`` on every rank of ``layout``; the JSON each printed last.

    Fails with the log of the first rank that failed.
    """
    given = json.dumps({"layout": layout, **arguments}, default=str)
    shared = {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(next(LoopbackPorts())),
        "WORLD_SIZE": str(layout["processes"]),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAMS / f"{program}.py"), given],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(layout["processes"])
    ]
    try:
        outputs = [process.communicate(timeout=LIMIT_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(output.strip().splitlines()[-1]) for output, _ in outputs]
