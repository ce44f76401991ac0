"""The Triton kernels over logits on a CPU: interpreted, and compiled for a GPU that is not here.

Processes of their own: Triton chooses when it is imported, and nothing else may see it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRITON = Path(sys.prefix, "triton")
"""Where ``launchers/setup.sh cpu test`` puts it; a CUDA build of torch brings its own."""


BUNDLE = HERE.parent / "gpu" / "bundle"
COMPILED = """
import sys, check_triton_compiles as checks
sys.exit(checks.compile_all([checks.logits]))
"""


def run(*command: object, **variables: str) -> str:
    path = os.pathsep.join(map(str, [TRITON, Path.cwd(), BUNDLE]))
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_interpreted_they_compute_what_torch_does() -> None:
    program = HERE / "interpreted_logit_kernels.py"
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", program, TRITON_INTERPRET="1")
    assert "7 passed" in said


@pytest.mark.slow
def test_they_compile_for_a_hopper_gpu() -> None:
    """As they are launched: for both types of gradients."""
    said = run("-c", COMPILED)
    assert said == "compiled: logits: _statistics_of_rows 1, _gradient_of_rows 2\n"
