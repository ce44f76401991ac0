"""Slice a packed row for this context-parallel rank, and gather the slices of all ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from engine.parallel.context_slices import row_order, slice_of


def my_slice(cu_seqlens: Tensor, tokens: int) -> Tensor | None:
    """Return the positions of the row that this rank holds, int64 [T / cp]; None for all of them.

    Args:
        cu_seqlens: int32 [S + 1], the row's sample bounds.
        tokens: T.
    """
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks == 1:
        return None
    return slice_of(cu_seqlens, tokens, parallel_state.get_context_parallel_rank(), ranks)


def whole_row(part: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Gather the slices of all context-parallel ranks in the row's order: [T / cp] -> [T].

    Every rank then computes the same loss of the whole row; the gradient that comes back to it is
    its own slice's, so that summing parameter gradients over ranks counts each token once.
    """
    if parallel_state.get_context_parallel_world_size() == 1:
        return part
    whole: Tensor = _WholeRow.apply(part, cu_seqlens, parallel_state.get_context_parallel_group())
    return whole


class _WholeRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, cu_seqlens: Tensor, group: dist.ProcessGroup) -> Tensor:
        ranks = dist.get_world_size(group)
        parts = [torch.empty_like(part) for _ in range(ranks)]
        dist.all_gather(parts, part.contiguous(), group=group)
        tokens = part.shape[0] * ranks
        ctx.mine = slice_of(cu_seqlens, tokens, dist.get_rank(group), ranks)
        return torch.cat(parts)[row_order(cu_seqlens, tokens, ranks)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.mine], None, None
