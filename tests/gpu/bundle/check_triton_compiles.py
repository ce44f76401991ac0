"""Compile for a Hopper GPU, on a CPU, the Triton kernels that our models and servers launch.

    PYTHONPATH=.:SITES [LD_LIBRARY_PATH=STUB] python tests/gpu/bundle/check_triton_compiles.py

Transformer Engine's permutation, our own kernels over logits and, where SGLang is among SITES, its
attention and experts, in bfloat16, down to machine code: so a GPU meets no error of a compiler.
Nothing is computed. STUB is driver_stub.py's, for SGLang. Exit status: 1 if one does not compile.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository

import triton_on_cpu

LAUNCHED = triton_on_cpu.compile_only()

import smoke_checks  # noqa: E402
import smoke_operations  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402


def logits() -> None:
    """Compile the kernels of engine.training.heads.log_probability, forward and backward."""
    from engine.training.heads import logit_kernels

    tokens, words = 8, 151936
    products, column = torch.randn(tokens, words), torch.randint(words, (tokens,))
    logit_kernels.statistics_of_shard(products, column, 0.6)
    distribution, gradients = torch.randn(3, tokens), torch.randn(2, tokens)
    for dtype in (torch.float32, torch.bfloat16):
        logit_kernels.gradient_of_products(products, column, distribution, *gradients, 0.6, dtype)


def permutation() -> None:
    """Forward and backward passes of smoke.py's checks, without their comparisons."""

    def backward(found: Tensor, right: Tensor, *leaves: Tensor) -> str:
        torch.autograd.grad(found, leaves, torch.randn_like(found), retain_graph=True)
        return ""

    smoke_checks.CUDA = smoke_operations.CUDA = torch.device("cpu")
    smoke_operations.same = backward
    for name in smoke_operations.IN_TRITON:
        smoke_checks.CHECKS[name]()


def servers() -> None:
    """SGLang's kernels, which choose their settings by the GPU that they seem to meet."""
    import check_sglang
    import sglang_kernels

    check_sglang.pretend()
    sglang_kernels.DTYPE = torch.bfloat16
    sglang_kernels.compare = lambda found, right: ""
    for call in sglang_kernels.CALLS:
        call()


def compile_all(groups: list[Callable[[], None]]) -> int:
    """Print the kernels that were compiled, and how often each was launched; 1 if one failed."""
    failed = False
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # nothing of an earlier time
        for group in groups:
            LAUNCHED.clear()
            try:
                group()
                assert LAUNCHED, "no kernel was launched"
                said = ", ".join(f"{name} {count}" for name, count in LAUNCHED.items())
            except Exception:
                failed, said = True, f"FAILED\n{traceback.format_exc()}"
            print(f"compiled: {group.__name__}: {said}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(compile_all([logits, permutation, *([servers] if find_spec("sglang") else [])]))
