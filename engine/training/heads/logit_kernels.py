"""Triton kernels of the passes over a chunk's logits: each reads them once.

In plain torch every operation goes over the whole chunk [t, V / tp] in the GPU's memory: some
twelve times forward and thirteen backward, which takes longer than the output layer's products.
The formulas are those of ``engine.training.heads.logit_passes``, which is the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
"""Logits that a program holds at a time: 16 in each of its threads."""
_WARPS = 8
_LOWEST = tl.constexpr(-3.4e38)
"""Stands for a peak before there is one; minus infinity would make 0 times infinity of it."""


def statistics_of_shard(products: Tensor, column: Tensor, temperature: float) -> Tensor:
    """Return ``logit_passes.statistics_of_shard``, but leave ``products`` as they are."""
    tokens, words = products.shape
    statistics = products.new_empty(4, tokens)
    _statistics_of_rows[(tokens,)](
        products,
        column,
        statistics,
        tokens,
        products.stride(0),
        temperature,
        WORDS=words,
        BLOCK=_BLOCK,
        num_warps=_WARPS,
    )
    return statistics


def gradient_of_products(
    products: Tensor,
    column: Tensor,
    distribution: Tensor,
    grad_chosen: Tensor | None,
    grad_entropy: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return ``logit_passes.gradient_of_products``."""
    tokens, words = products.shape
    out = products if dtype == products.dtype else torch.empty_like(products, dtype=dtype)
    zero = products.new_zeros(1)
    _gradient_of_rows[(tokens, triton.cdiv(words, _BLOCK))](
        products,
        out,
        column,
        distribution.contiguous(),
        zero if grad_chosen is None else grad_chosen,
        zero if grad_entropy is None else grad_entropy,
        tokens,
        products.stride(0),
        0 if grad_chosen is None else grad_chosen.stride(0),
        0 if grad_entropy is None else grad_entropy.stride(0),
        temperature,
        WORDS=words,
        BLOCK=_BLOCK,
        num_warps=_WARPS,
    )
    return out


@triton.jit
def _statistics_of_rows(
    products,
    column,
    statistics,
    tokens,
    stride,
    temperature,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a row: peak m, sum e^(x - m) and sum (x - m) e^(x - m), as the peak rises."""
    row = tl.program_id(0).to(tl.int64)
    start_of_row = products + row * stride
    peak = _LOWEST + 0.0
    total = 0.0
    weighted = 0.0
    for start in range(0, WORDS, BLOCK):
        index = start + tl.arange(0, BLOCK)
        here = index < WORDS
        x = tl.load(start_of_row + index, mask=here, other=0.0) / temperature
        higher = tl.maximum(peak, tl.max(tl.where(here, x, _LOWEST), 0))
        down = peak - higher
        shifted = tl.where(here, x - higher, 0.0)
        exponentials = tl.where(here, tl.exp(shifted), 0.0)
        weighted = tl.exp(down) * (weighted + down * total) + tl.sum(exponentials * shifted, 0)
        total = tl.exp(down) * total + tl.sum(exponentials, 0)
        peak = higher
    target = tl.load(column + row)
    mine = (target >= 0) & (target < WORDS)
    chosen = tl.load(start_of_row + target, mask=mine, other=0.0) / temperature
    tl.store(statistics + row, tl.where(mine, chosen, float("-inf")))
    tl.store(statistics + tokens + row, peak)
    tl.store(statistics + 2 * tokens + row, total)
    tl.store(statistics + 3 * tokens + row, weighted)


@triton.jit
def _gradient_of_rows(
    products,
    out,
    column,
    distribution,
    grad_chosen,
    grad_entropy,
    tokens,
    stride,
    chosen_stride,
    entropy_stride,
    temperature,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a part of a row; ``out`` may be ``products``."""
    row = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = index < WORDS
    peak = tl.load(distribution + row)
    log_total = tl.load(distribution + tokens + row)
    entropy = tl.load(distribution + 2 * tokens + row)
    of_chosen = tl.load(grad_chosen + row * chosen_stride)
    of_entropy = tl.load(grad_entropy + row * entropy_stride)
    target = tl.load(column + row)
    x = tl.load(products + row * stride + index, mask=here, other=0.0) / temperature
    log_p = x - peak - log_total
    grad = -tl.exp(log_p) * (of_chosen + of_entropy * (log_p + entropy))
    grad += tl.where(index == target, of_chosen, 0.0)
    tl.store(out + row * stride + index, grad / temperature, mask=here)
