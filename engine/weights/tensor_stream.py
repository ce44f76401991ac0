"""Stream a model's whole megatron tensors, one bucket at a time, whatever the layout.

Who holds what does not change during a run, so it is exchanged once; after that tensor data alone
moves: for each bucket every rank that holds pieces of it sends them to the bucket's rank in one
message. Of FP8 parameters it moves the values that the trainer computes with, not the optimizer's
FP32 master weights: the servers must sample from the policy that is trained.

Beside the model a rank holds at most twice a bucket's bytes, whatever the model's size: the bucket
that it receives, and, on torch's current device, the pieces of one bucket that travel. A bucket has
the limit's bytes or is a single tensor that has more. On top of that comes a plain copy of one FP8
parameter, or of one piece that megatron cuts from the middle of a parameter.

All ranks go through the buckets in the plan's order and wait for each that they take part in before
they turn to the next: so nothing waits in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from engine.platform.quantised import dequantise
from engine.weights.buckets import Bucket
from engine.weights.full_precision import storage_of, without_values
from engine.weights.places import Place, make_up
from engine.weights.safetensors_file import Described
from engine.weights.shards import Shard, shards, unwrap
from engine.weights.tensor_maps import MapKey

Arrived = tuple[Bucket, dict[MapKey, Tensor]]
"""A bucket and its whole tensors, on the rank that received it."""


@dataclass(frozen=True)
class Piece:
    """One rank's piece of a tensor, without its values; see ``engine.weights.shards.Shard``."""

    key: MapKey
    whole: Described
    place: Place

    @property
    def itself(self) -> Described:
        """The piece's own dtype and shape."""
        return Described(self.whole.dtype, tuple(p.stop - p.start for p in self.place))


@dataclass(frozen=True)
class SentPiece:
    """A piece, the rank that sends it, and its number among that rank's."""

    piece: Piece
    rank: int
    number: int


class PlainCopies:
    """Makes plain copies of FP8 parameters, and keeps the last: its pieces follow each other."""

    def __init__(self) -> None:
        self._last: tuple[torch.nn.Parameter, Tensor] | None = None

    def of(self, parameter: torch.nn.Parameter) -> Tensor:
        """Return the values of ``parameter`` in its nominal dtype, contiguous."""
        if self._last is None or self._last[0] is not parameter:
            self._last = None  # first: at no time are there two
            self._last = parameter, dequantise(parameter).contiguous()
        return self._last[1]


Values = Callable[[PlainCopies], Tensor]
"""Gets a piece's values as they are then; one ``PlainCopies`` serves a message."""


class TensorStream:
    """Brings a model's pieces together under megatron's keys. Built and called by all ranks.

    Attributes:
        tensors: dtype and shape of each whole tensor, by (megatron key, expert).
    """

    def __init__(self, chunks: Sequence[torch.nn.Module]) -> None:
        """Exchange which rank holds which pieces.

        Raises:
            ValueError: the pieces of a tensor do not make up the whole.
        """
        self._chunks = chunks
        mine, self._values = _pieces(chunks)
        everyones: list[list[Piece]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyones, mine)
        self._held: dict[MapKey, list[SentPiece]] = defaultdict(list)
        for rank, pieces in enumerate(everyones):
            for number, piece in enumerate(pieces):
                self._held[piece.key].append(SentPiece(piece, rank, number))
        self.tensors = {key: _whole(key, held) for key, held in self._held.items()}

    def buckets(
        self, plan: Sequence[Bucket], device: torch.device | str = "cpu"
    ) -> Iterator[Arrived]:
        """Yield the buckets that come to this rank, one after the other.

        As many buckets as there are ranks travel before any rank gets its own of them, so that what
        is done with them, such as writing, is done on all ranks side by side. Every rank has to
        take all of its buckets: the others need its pieces. Who keeps a bucket's tensors while it
        takes the next has both in memory.

        Args:
            plan: the same on all ranks; see :func:`engine.weights.buckets.plan_buckets`.
            device: where the tensors are to be.
        """
        for chunk in self._chunks:
            unwrap(chunk).wait_for_parameters()
        ranks = dist.get_world_size()
        for first in range(0, len(plan), ranks):
            arrived = self._transfer_all(plan[first : first + ranks], device)
            if arrived:
                yield arrived.pop()  # no reference stays here while the next one travels

    def collect(self) -> dict[MapKey, Tensor]:
        """Return the whole model on rank 0's CPU, and nothing on other ranks: for small models.

        For comparisons and tests. What a run does with weights goes bucket by bucket.
        """
        everything = Bucket(0, 0, tuple(self.tensors), 0)
        return next((whole for _, whole in self.buckets([everything])), {})

    def _transfer_all(self, buckets: Sequence[Bucket], device: torch.device | str) -> list[Arrived]:
        found = [(bucket, self._transfer(bucket, device)) for bucket in buckets]
        return [(bucket, whole) for bucket, whole in found if whole is not None]

    @torch.no_grad()
    def _transfer(self, bucket: Bucket, device: torch.device | str) -> dict[MapKey, Tensor] | None:
        """Move the pieces of ``bucket``; return its whole tensors where they arrive, else None."""
        parts = self._parts(bucket)
        mine = parts.pop(dist.get_rank(), [])
        if bucket.rank != dist.get_rank():
            if mine:
                _wait([dist.P2POp(dist.isend, self._message(mine), bucket.rank)])
            return None
        messages = {rank: _empty_message(held) for rank, held in parts.items()}
        _wait([dist.P2POp(dist.irecv, message, rank) for rank, message in messages.items()])
        whole = {
            key: torch.empty(self.tensors[key].shape, dtype=self.tensors[key].dtype, device=device)
            for key in bucket.keys
        }
        copies = PlainCopies()
        for own in mine:
            whole[own.piece.key][own.piece.place] = self._values[own.number](copies)
        del copies
        for rank, held in parts.items():
            for piece, values in _cut(held, messages.pop(rank)):
                whole[piece.key][piece.place] = values
        return whole

    def _parts(self, bucket: Bucket) -> dict[int, list[SentPiece]]:
        """Return the pieces of ``bucket`` by the rank that holds them, in its message's order."""
        parts: dict[int, list[SentPiece]] = defaultdict(list)
        for key in bucket.keys:
            for held in self._held[key]:
                parts[held.rank].append(held)
        for those in parts.values():  # the widest first: each then begins where its dtype may
            those.sort(key=lambda held: -held.piece.whole.dtype.itemsize)
        return parts

    def _message(self, held: Sequence[SentPiece]) -> Tensor:
        message, copies = _empty_message(held), PlainCopies()
        for one, (_, place) in zip(held, _cut(held, message), strict=True):
            place.copy_(self._values[one.number](copies))
        return message


def _pieces(chunks: Sequence[torch.nn.Module]) -> tuple[list[Piece], list[Values]]:
    """Return the pieces that this rank sends, and the values of each."""
    pieces, values = [], []
    with without_values(chunks) as quantised:
        for shard in shards(chunks):
            if shard.main:
                whole = Described(shard.data.dtype, shard.shape)
                piece = Piece((shard.key, shard.expert), whole, shard.place)
                pieces.append(piece)
                values.append(_values_of(shard, piece.itself.shape, quantised))
    return pieces, values


def _values_of(
    shard: Shard, shape: tuple[int, ...], quantised: Mapping[int, torch.nn.Parameter]
) -> Values:
    view = shard.data
    if not view.is_meta:
        return lambda _: view.reshape(shape)
    if storage_of(view) not in quantised:
        raise ValueError(f"{shard.key}: megatron describes an FP8 parameter by a copy of it")
    parameter = quantised[storage_of(view)]

    def values(copies: PlainCopies) -> Tensor:
        plain = copies.of(parameter)
        return plain.as_strided(view.size(), view.stride(), view.storage_offset()).reshape(shape)

    return values


def _whole(key: MapKey, held: Sequence[SentPiece]) -> Described:
    """Return the tensor that these pieces make up."""
    (first, *others) = {one.piece.whole for one in held}
    if others or not make_up(first.shape, [one.piece.place for one in held]):
        raise ValueError(f"the ranks' pieces of {key} do not make up {[first, *others]}")
    return first


def _empty_message(held: Sequence[SentPiece]) -> Tensor:
    size = sum(one.piece.itself.bytes for one in held)
    return torch.empty(size, dtype=torch.uint8, device=torch.cuda.current_device())


def _cut(held: Sequence[SentPiece], message: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    """Yield each piece of a message with its values, a view of the message."""
    begin = 0
    for piece in (one.piece for one in held):
        itself = piece.itself
        part = message[begin : begin + itself.bytes]
        yield piece, part.view(itself.dtype).view(itself.shape)
        begin += itself.bytes


def _wait(operations: Sequence[dist.P2POp]) -> None:
    if operations:
        for work in dist.batch_isend_irecv(list(operations)):
            work.wait()
