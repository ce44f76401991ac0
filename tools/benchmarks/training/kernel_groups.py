"""Group kernels by their names: attention, matrix products, quantisation, and so on.

Names are those of cuDNN, cuBLAS, Transformer Engine 2.11, megatron-core's Triton kernels and torch
on a GPU, and of torch's operators on a CPU.
"""

from __future__ import annotations

import re

OTHER = "other"

_GROUPS: tuple[tuple[str, str], ...] = (
    ("communication", r"nccl|gloo|c10d|all_reduce|allreduce|all_to_all|broadcast_"),
    ("attention", r"sdpa|flash|fmha|scaled_dot_product|attention"),
    ("log-probabilities", r"statistics_of_rows|gradient_of_rows"),
    ("optimizer", r"multi_tensor|adam|lamb"),
    ("quantisation", r"quantize|block_scal|amax|cast_transpose|cast_only|float8|fp8_block"),
    (
        "matrix products",
        r"gemm|nvjet|cutlass|wgmma|xmma|cublas|splitk|::mm|::addmm|::bmm|::linear|::matmul|_mm\b",
    ),
    ("permutation", r"permut|row_id_map|sort|gather|scatter|index_select|index_put|indexing"),
    ("norms", r"norm"),
    ("rotary embedding", r"rope|rotary"),
    ("router", r"topk|router|softmax|sigmoid|histogram|bincount|cumsum|scan"),
    ("elementwise and sums", r"^triton_"),  # compiled by torch; names list all that was fused
    ("copies", r"memcpy|memset|copy|fill_|::zero|::to\b|::clone|::cat|catarray"),
    ("elementwise and sums", r"elementwise|reduce|vectorized|silu|swiglu|::"),
)
"""Group -> what its names contain. The first that fits holds."""

_PATTERNS = tuple((group, re.compile(pattern)) for group, pattern in _GROUPS)


def group_of(kernel: str) -> str:
    """Return the group of the kernel of this (demangled) name; ``other`` where none is known."""
    name = kernel.lower()
    return next((group for group, pattern in _PATTERNS if pattern.search(name)), OTHER)
