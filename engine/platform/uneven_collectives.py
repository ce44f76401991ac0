"""Make gloo's all_gather and reduce_scatter take parts of different sizes.

gloo wants them equal. NCCL takes them as they are, and megatron relies on it: under expert tensor
parallelism ranks bring different numbers of tokens to an expert. Here parts are padded, or summed
whole.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def install() -> None:
    """Replace the two collectives in this process; equal parts go the usual way. Idempotent."""
    if not hasattr(dist.all_gather, "_takes_uneven"):
        dist.all_gather = _uneven_all_gather(dist.all_gather)
        dist.reduce_scatter = _uneven_reduce_scatter(dist.reduce_scatter)


def _uneven_all_gather(even: Any) -> Any:
    def all_gather(
        parts: list[Tensor], mine: Tensor, group: Any = None, async_op: bool = False
    ) -> Any:
        if len({part.shape for part in parts}) == 1:
            return even(parts, mine, group=group, async_op=async_op)
        longest = max(len(part) for part in parts)
        padded = [mine.new_empty(longest, *mine.shape[1:]) for _ in parts]
        filler = mine.new_zeros(longest - len(mine), *mine.shape[1:])
        even(padded, torch.cat([mine, filler]), group=group)
        for part, whole in zip(parts, padded, strict=True):
            part.copy_(whole[: len(part)])
        return None

    all_gather._takes_uneven = True  # type: ignore[attr-defined]
    return all_gather


def _uneven_reduce_scatter(even: Any) -> Any:
    def reduce_scatter(
        mine: Tensor,
        parts: list[Tensor],
        op: Any = dist.ReduceOp.SUM,
        group: Any = None,
        async_op: bool = False,
    ) -> Any:
        if len({part.shape for part in parts}) == 1:
            return even(mine, parts, op=op, group=group, async_op=async_op)
        whole = torch.cat(list(parts))
        dist.all_reduce(whole, op=op, group=group)
        mine.copy_(whole.split([len(part) for part in parts])[dist.get_rank(group)])
        return None

    return reduce_scatter
