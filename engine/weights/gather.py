"""Bringing the pieces of every tensor together on rank 0, whatever the layout.

Who holds what does not change during a run, so the plan is exchanged once; after that a push moves
tensor data only, all pieces of a rank and a dtype in one message (a bfloat16 model keeps the bias
of its routers in float32). Of FP8 parameters it moves the values that the trainer computes with,
not the optimizer's masters: the servers must sample from the policy that is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from engine.weights.full_precision import in_full_precision
from engine.weights.shards import Shard, shards, unwrap


@dataclass(frozen=True)
class Piece:
    """What rank 0 must know of a piece to put it in its place; see ``Shard``."""

    key: str
    expert: int | None
    shape: tuple[int, ...]
    place: tuple[slice, ...]
    dtype: torch.dtype

    @property
    def sizes(self) -> list[int]:
        """The piece's own shape."""
        return [part.stop - part.start for part in self.place]


class Gatherer:
    """Collects whole tensors of a model on rank 0. Built and called by all ranks together."""

    def __init__(self, chunks: Sequence[torch.nn.Module]) -> None:
        self._chunks = chunks
        with in_full_precision(chunks) as copies:
            pieces = _main_pieces(chunks)
        # Copies of FP8 parameters are of the weights as they are now: no good for the next push.
        self._views = None if copies else pieces
        mine = [Piece(s.key, s.expert, s.shape, s.place, s.data.dtype) for s in pieces]
        self._plan: list[list[Piece]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(self._plan, mine)

    @torch.no_grad()
    def gather(self) -> dict[tuple[str, int | None], Tensor]:
        """Whole tensors on the CPU by (megatron key, expert) on rank 0; empty on the others."""
        for chunk in self._chunks:
            unwrap(chunk).wait_for_parameters()
        mine = self._pieces()
        if dist.get_rank() != 0:
            for dtype in _dtypes(self._plan[dist.get_rank()]):
                dist.send(_message(mine, dtype), dst=0)
            return {}
        whole: dict[tuple[str, int | None], Tensor] = {}
        for rank, pieces in enumerate(self._plan):
            for dtype in _dtypes(pieces):
                sent = [piece for piece in pieces if piece.dtype == dtype]
                message = _message(mine, dtype) if rank == 0 else _receive(sent, rank)
                for piece, data in _cut(sent, message.cpu()):
                    empty = torch.empty(piece.shape, dtype=dtype)
                    whole.setdefault((piece.key, piece.expert), empty)[piece.place] = data
        return whole

    def _pieces(self) -> list[Shard]:
        """This rank's part of a push, as the weights are now."""
        if self._views is not None:
            return self._views
        with in_full_precision(self._chunks):
            return _main_pieces(self._chunks)


def _main_pieces(chunks: Sequence[torch.nn.Module]) -> list[Shard]:
    return [shard for shard in shards(chunks) if shard.main]


def _dtypes(pieces: Sequence[Piece]) -> list[torch.dtype]:
    """In an order that sender and receiver share."""
    return sorted({piece.dtype for piece in pieces}, key=str)


def _message(pieces: Sequence[Shard], dtype: torch.dtype) -> Tensor:
    return torch.cat([piece.data.reshape(-1) for piece in pieces if piece.data.dtype == dtype])


def _receive(pieces: Sequence[Piece], rank: int) -> Tensor:
    elements = sum(torch.Size(piece.sizes).numel() for piece in pieces)
    message = torch.empty(elements, dtype=pieces[0].dtype, device=torch.cuda.current_device())
    dist.recv(message, src=rank)
    return message


def _cut(pieces: Sequence[Piece], message: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    parts = message.split([torch.Size(piece.sizes).numel() for piece in pieces])
    for piece, data in zip(pieces, parts, strict=True):
        yield piece, data.view(piece.sizes)
