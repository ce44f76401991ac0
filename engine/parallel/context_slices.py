"""Positions of a packed row for each context-parallel rank: the zigzag of ring attention.

Every sample is cut into 2 x cp chunks of equal size, and rank r holds its chunks r and
2 cp - 1 - r: an early one, whose positions attend to little, and a late one, which attend to much,
so that causal attention costs all ranks the same. A rank's slice is those chunks, sample after
sample. Transformer Engine cuts a THD row the same way (``thd_get_partitioned_indices``).

Nothing here waits for the device: the number of tokens is known to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slice_of(cu_seqlens: Tensor, tokens: int, rank: int, ranks: int) -> Tensor:
    """Return the positions of the row that context-parallel rank ``rank`` holds.

    Args:
        cu_seqlens: int32 [S + 1], from 0 to ``tokens``; every sample's length is a multiple of
            2 x ranks, as ``pack(sample_multiple=2 * ranks)`` makes it (not looked at here: that
            would wait for the device). With one rank, any lengths.
        tokens: T.
    Returns:
        int64 [T / ranks] on the device of ``cu_seqlens``; ``row[slice_of(...)]`` is the slice.
    Raises:
        ValueError: T is no multiple of 2 x ranks.
    """
    if ranks > 1 and tokens % (2 * ranks):
        raise ValueError(
            f"a row of {tokens} tokens cannot be cut into {2 * ranks} chunks of equal size;"
            f" pack it with sample_multiple={2 * ranks}"
        )
    starts = cu_seqlens[:-1].long()
    lengths = cu_seqlens.diff().long()
    local = torch.arange(tokens // ranks, device=cu_seqlens.device)
    sample = torch.repeat_interleave(lengths // ranks, output_size=tokens // ranks)
    within = local - starts[sample] // ranks
    chunk = lengths[sample] // (2 * ranks)
    early = rank * chunk + within
    late = (2 * ranks - 1 - rank) * chunk + within - chunk
    return starts[sample] + torch.where(within < chunk, early, late)


def ahead(cu_seqlens: Tensor, positions: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    """Return the positions ``distance`` later, and which of them are in the same sample.

    Args:
        cu_seqlens: int [S + 1], where each sample begins and the last one ends.
        positions: int64 [m], of the row.
        distance: >= 0.
    Returns:
        int64 [m], 0 for those beyond their sample's end; and bool [m], False for those.
    """
    ends = cu_seqlens[1:].long()
    later = positions + distance
    inside = later < ends[torch.searchsorted(ends, positions, right=True)]
    return torch.where(inside, later, 0), inside


def row_order(cu_seqlens: Tensor, tokens: int, ranks: int) -> Tensor:
    """Return the inverse of all slices together, concatenated in the order of ranks.

    ``torch.cat([row[slice_of(..., rank, ranks)] for rank ...])[row_order(...)]`` is the row.
    Arguments, result type and errors as :func:`slice_of`; the result has T indices.
    """
    held = torch.cat([slice_of(cu_seqlens, tokens, rank, ranks) for rank in range(ranks)])
    order = torch.empty_like(held)
    order[held] = torch.arange(tokens, device=held.device)
    return order
