"""Describe this rank's parameters as pieces of layout-independent tensors.

megatron describes each parameter by a :class:`ShardedTensor`: the checkpoint key of the whole
tensor, its shape, and where this rank's piece lies in it. Loading, exporting and comparing weights
all go through this description, so they need no rules for any particular layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
from torch import Tensor

from engine.platform.quantised import any_quantised


@dataclass(frozen=True)
class Shard:
    """One piece of one tensor.

    Attributes:
        key: checkpoint key of the whole tensor.
        expert: the expert it belongs to, for tensors that megatron stacks over experts.
        shape: shape of the whole tensor (of that one expert).
        place: the slices of the whole tensor that this piece fills.
        data: the piece itself, a view of the parameter.
        main: whether this rank is the one to speak for the piece among its replicas.
    """

    key: str
    expert: int | None
    shape: tuple[int, ...]
    place: tuple[slice, ...]
    data: Tensor
    main: bool


def unwrap(model: Any) -> torch.nn.Module:
    """Return the bare GPTModel inside megatron's wrappers (DDP, Float16Module)."""
    while hasattr(model, "module"):
        model = model.module
    bare: torch.nn.Module = model
    return bare


def shards(chunks: Sequence[torch.nn.Module]) -> Iterator[Shard]:
    """Yield every piece that this rank's model chunks hold, in their order.

    Raises:
        ValueError: there are FP8 parameters, which cannot be cut: see ``full_precision``.
    """
    if any_quantised(chunks):
        raise ValueError("FP8 parameters have no pieces outside in_full_precision()")
    for chunk in chunks:
        bare = unwrap(chunk)
        state = {"model": bare.sharded_state_dict(metadata={"non_homogeneous_layers": True})}
        apply_factories(state)  # fc1's gate and up halves are split over ranks separately
        for tensor in nested_values(state):
            if isinstance(tensor, ShardedTensor) and tensor.data is not None:
                yield _shard(tensor)


def _shard(tensor: ShardedTensor) -> Shard:
    stacked = tensor.prepend_axis_num
    if stacked > 1:
        raise ValueError(f"{tensor.key}: {stacked} stacked axes, only the expert axis is known")
    expert = tensor.global_offset[0] if stacked else None
    offset = tensor.global_offset[stacked:]
    place = tuple(slice(o, o + n) for o, n in zip(offset, tensor.local_shape, strict=True))
    return Shard(
        tensor.key,
        expert,
        tuple(tensor.global_shape[stacked:]),
        place,
        tensor.data,
        main=set(_flat(tensor.replica_id)) == {0},
    )


def _flat(replica_id: int | tuple[int, ...]) -> tuple[int, ...]:
    return replica_id if isinstance(replica_id, tuple) else (replica_id,)
