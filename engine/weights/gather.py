"""Bringing the pieces of every tensor together on rank 0, whatever the layout.

Who holds what does not change during a run, so the plan is exchanged once; after that a push moves
tensor data only, all pieces of a rank in one message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from engine.models.shards import Shard, shards

Piece = tuple[str, int | None, tuple[int, ...], tuple[slice, ...]]
"""Key, expert, shape of the whole tensor, and the place in it that the piece fills."""


class Gatherer:
    """Collects whole tensors of a model on rank 0. Built and called by all ranks together."""

    def __init__(self, chunks: Sequence[torch.nn.Module]) -> None:
        self._mine = [shard for shard in shards(chunks) if shard.main]
        mine = [(s.key, s.expert, s.shape, s.place) for s in self._mine]
        self._plan: list[list[Piece]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(self._plan, mine)

    @torch.no_grad()
    def gather(self) -> dict[tuple[str, int | None], Tensor]:
        """Whole tensors on the CPU by (megatron key, expert) on rank 0; empty on the others."""
        if dist.get_rank() != 0:
            if self._mine:
                dist.send(_flat(self._mine), dst=0)
            return {}
        mine = _flat(self._mine)  # rank 0 always speaks for something: the embedding at least
        whole: dict[tuple[str, int | None], Tensor] = {}
        for rank, pieces in enumerate(self._plan):
            message = mine
            if rank != 0 and pieces:
                message = mine.new_empty(sum(_elements(place) for *_, place in pieces))
                dist.recv(message, src=rank)
            for (key, expert, shape, place), data in _cut(pieces, message.cpu()):
                tensor = whole.setdefault((key, expert), torch.empty(shape, dtype=data.dtype))
                tensor[place] = data
        return whole


def _flat(pieces: list[Shard]) -> Tensor:
    return torch.cat([piece.data.reshape(-1) for piece in pieces])


def _elements(place: tuple[slice, ...]) -> int:
    return int(torch.Size([s.stop - s.start for s in place]).numel())


def _cut(pieces: list[Piece], message: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    start = 0
    for piece in pieces:
        place = piece[3]
        size = _elements(place)
        yield piece, message[start : start + size].view([s.stop - s.start for s in place])
        start += size
