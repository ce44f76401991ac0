"""Run SGLang's Triton kernels that our servers use in Triton's interpreter, on a CPU.

    PYTHONPATH=.:SITES python tests/gpu/bundle/check_sglang_triton.py

They are compared with plain torch in float32. Exit status: 1 if one is off.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository

import triton_on_cpu

triton_on_cpu.interpret()

import gpu_server  # noqa: E402  (stand-ins for what is not carried)
import sglang_kernels  # noqa: E402
import torch  # noqa: E402

NOT_HERE = (
    "rotation, norms, SiLU, storing keys and values, aligning tokens to experts: CUDA, compiled by "
    "check_sglang.py",
    "the router's softmax and top k: CUDA, in sgl_kernel",
)


def main() -> int:
    """Print what each call found, and what none can look at here."""
    gpu_server.install()
    torch.manual_seed(1)
    failed = False
    for call in sglang_kernels.CALLS:
        try:
            said = call()
        except Exception:
            failed, said = True, f"FAILED\n{traceback.format_exc()}"
        print(f"interpreted: {call.__name__}: {said}", flush=True)
    for what in NOT_HERE:
        print(f"not interpreted: {what}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
