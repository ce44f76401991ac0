"""Sizes that the matrix products of each FP8 recipe take.

Sources: Transformer Engine 2.11, pytorch/utils.py (``assert_dim_for_fp8_exec``,
``assert_dim_for_all_gather``), tensor/float8_blockwise_tensor.py (``is_quantizable``) and
common/gemm/cublaslt_gemm.cu; megatron-core 0.16.1, fp8_utils.py (``get_fp8_align_size``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Fp8Recipe = Literal["none", "blockwise", "tensorwise", "delayed", "mxfp8"]


def size_multiple(recipe: Fp8Recipe) -> int:
    """Return what must divide the rows and columns of multiplied matrices.

    16 bytes is what the tensor cores load; MXFP8 scales 32 values together. Blockwise scaling fills
    up its tiles of 128 itself, but see :func:`gathered_multiple`.
    """
    return {"none": 1, "mxfp8": 32}.get(recipe, 16)


def gathered_multiple(recipe: Fp8Recipe) -> int:
    """Return :func:`size_multiple` for what tensor-parallel ranks gather after quantisation.

    That is what column-parallel layers read under sequence parallelism; blockwise scaling then
    takes whole tiles of 128 only.
    """
    return 128 if recipe == "blockwise" else size_multiple(recipe)


def misfit(multiple: int, sizes: Mapping[str, int]) -> str | None:
    """Return a sentence with the sizes that ``multiple`` does not divide; None if there are none.

    Args:
        multiple: what has to divide every size.
        sizes: what a size is of -> the size on one rank; sizes of 0 are of absent parts.
    """
    odd = [f"{size} {name}" for name, size in sizes.items() if size % multiple]
    if not odd:
        return None
    return f"expected sizes on one rank that {multiple} divides, found {', '.join(odd)}"
