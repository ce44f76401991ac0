"""Run Transformer Engine's Triton kernels that our models use in Triton's interpreter, on a CPU.

    PYTHONPATH=.:SITE python tests/gpu/bundle/check_te_triton.py

They are the permutation of tokens to experts and back. The checks are those of smoke.py, which
compare values and gradients with plain torch. Exit status: 1 if one failed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository

import triton_on_cpu

triton_on_cpu.interpret()

import smoke_checks  # noqa: E402
import smoke_operations  # noqa: E402
import torch  # noqa: E402

NOT_HERE = {
    "cross_entropy": "unused: the output layer is ours, chunk by chunk",
    "pad": "unused: only MXFP8, on Blackwell",
}
"""Transformer Engine's other Triton modules."""


def main() -> int:
    """Print what each check found, and which modules none looked at."""
    smoke_checks.CUDA = smoke_operations.CUDA = torch.device("cpu")
    failed = False
    for name in smoke_operations.IN_TRITON:
        try:
            said = smoke_checks.CHECKS[name]()
        except Exception:
            failed, said = True, f"FAILED\n{traceback.format_exc()}"
        print(f"interpreted: {name}: {said}", flush=True)
    for module, why in NOT_HERE.items():
        print(f"not interpreted: {module}: {why}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
