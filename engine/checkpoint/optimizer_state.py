"""Save and restore the optimizer's state by parameter, whatever optimizers hold it in a layout.

megatron trains with several optimizers, chained: one for dense parameters, one for experts, empty
where a pipeline stage has none. Its own state dict has one entry per optimizer, and for each the
hyperparameters of its groups; both depend on the layout, so that what two chained optimizers saved
does not load into one. Here only two things are saved: the tensors (master weight, first and second
moment), under the checkpoint key of their parameter; and the number of updates, which is the same
for all. Hyperparameters are configuration, not state, and stay those of the running optimizer.

Each rank owns a range of each flattened parameter (ZeRO-1) and saves just that, as slices of
the whole tensor: nothing is gathered and nothing copied. megatron's layout-independent form
("fully_reshardable") gathers everything on every rank instead, three float32 copies of the
parameters, while training waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.utils import extract_sharded_tensors_and_factories
from megatron.core.optimizer import DistributedOptimizer
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer
from torch import Tensor

from engine.checkpoint.shard_slices import shard_slices

KINDS = ("param", "exp_avg", "exp_avg_sq")
"""megatron's names for master weight, first moment, second moment."""


def sharded(optimizer: Any, model: dict[str, Any]) -> dict[str, Any]:
    """Return this rank's state tensors as megatron's sharded tensors, views of the state itself.

    Args:
        optimizer: megatron's chained optimizer.
        model: sharded state of all its parameters; a state tensor lies where its parameter lies.
    """
    described, _ = extract_sharded_tensors_and_factories(model)
    by_parameter = {id(base.data): base for base in nested_values(described)}
    return {
        name: {
            kind: list(_pieces(by_parameter[id(parameter)], kind, tensors[kind], start, part))
            for kind in KINDS
        }
        for name, part, parameter, start, tensors in _ranges(optimizer)
    }


@torch.no_grad()
def restore(optimizer: Any, state: dict[str, Any], updates: int) -> None:
    """Set the optimizer's state to the loaded tensors of :func:`sharded`, and its update count."""
    for name, part, parameter, _, tensors in _ranges(optimizer):
        loaded = {k: torch.cat([t.flatten() for t in state[name][k]]) for k in KINDS}
        part._set_main_param_and_optimizer_states(parameter, {**tensors, **loaded})
    for part in _parts(optimizer):
        if isinstance(part.optimizer, HybridDeviceOptimizer):
            part.optimizer._sync_hdo_state_to_sub_optimizers()
        _set_updates(part, updates)


def write_parameters(optimizer: Any) -> None:
    """Copy masters into this rank's parameters; data-parallel ranks agree on FP8 scales."""
    for part in _parts(optimizer):
        part._copy_main_params_to_model_params()


def updates(optimizer: Any) -> int:
    """Return how many updates the optimizer has made: Adam's bias correction depends on it.

    The same on all ranks; a collective, for a rank may hold no parameter to ask.
    """
    counted = [0]
    for inner in (inner for part in _parts(optimizer) for inner in _inner(part)):
        counted += [int(own["step"]) for own in inner.state.values() if "step" in own]
        counted += [int(group["step"]) for group in inner.param_groups if "step" in group]
    most = torch.tensor([max(counted)], device=torch.cuda.current_device())
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _ranges(
    optimizer: Any,
) -> Iterator[tuple[str, DistributedOptimizer, Tensor, int, dict[str, Tensor]]]:
    """Yield (name, optimizer, parameter, begin of this rank's range of it, flat state tensors)."""
    for number, part in enumerate(_parts(optimizer)):
        _allocate(part)
        buckets = (
            bucket
            for buffer in part.gbuf_ranges
            for buckets in buffer.values()
            for bucket in buckets
        )
        owned = ((p, place["param"]) for b in buckets for p, place in b["param_map"].items())
        for index, (parameter, place) in enumerate(owned):
            tensors = part._get_main_param_and_optimizer_states(parameter)
            yield f"{number}.{index}", part, parameter, place.start, tensors


def _pieces(
    base: ShardedTensor | ShardedTensorFactory,
    kind: str,
    flat: Tensor,
    start: int,
    part: DistributedOptimizer,
) -> Iterator[ShardedTensor]:
    """Describe ``flat``, elements ``start`` onwards of a parameter, by ``base``, the parameter."""
    # The last number of a parameter's replica id counts data-parallel copies: here it has none.
    replica = (*base.replica_id[:2], part.distributed_optimizer_instance_id)
    for begin, whole in _places(base):
        end = begin + prod(whole.local_shape)
        lo, hi = max(start, begin), min(start + flat.numel(), end)
        at = lo - start
        for offset, size in shard_slices(whole.local_shape, lo - begin, hi - begin):
            lead = whole.prepend_axis_num  # the expert's axis, which its parameter has not
            corner = whole.global_offset[lead:]
            shape = (*(1,) * lead, *size)
            yield ShardedTensor(
                key=f"optimizer.state.{kind}.{whole.key}",
                data=flat.detach()[at : at + prod(size)].view(shape),
                dtype=flat.dtype,
                local_shape=shape,
                global_shape=whole.global_shape,
                global_offset=(
                    *whole.global_offset[:lead],
                    *(o + c for o, c in zip(offset, corner, strict=True)),
                ),
                axis_fragmentations=None,  # not a regular grid
                replica_id=replica,
                allow_shape_mismatch=whole.allow_shape_mismatch,
            )
            at += prod(size)


def _places(base: ShardedTensor | ShardedTensorFactory) -> Iterator[tuple[int, ShardedTensor]]:
    """Yield the tensors that a parameter is part of, and the element where each part begins.

    A plain parameter is a piece of one; a factory makes several of it (gate and up projections).
    """
    if isinstance(base, ShardedTensor):
        yield 0, base
        return
    unreal = torch.empty_strided(base.data.shape, base.data.stride(), device="meta")
    for whole in nested_values(replace(base, data=unreal).build()):
        if not whole.data.is_contiguous():
            raise ValueError(f"{whole.key}: its part of the parameter is not contiguous")
        yield whole.data.storage_offset(), whole


def _parts(optimizer: Any) -> list[DistributedOptimizer]:
    return [part for part in optimizer.chained_optimizers if not part.is_stub_optimizer]


def _inner(part: DistributedOptimizer) -> list[torch.optim.Optimizer]:
    """Return the optimizers that compute: several where a share of it is done on the host."""
    own = part.optimizer
    return own.sub_optimizers if isinstance(own, HybridDeviceOptimizer) else [own]


def _allocate(part: DistributedOptimizer) -> None:
    """Give a fresh optimizer the state that its first update would: moments of zero."""
    if part.optimizer.state:
        return
    if isinstance(part.optimizer, HybridDeviceOptimizer):
        part.optimizer.dummy_step()
    else:
        part.init_state_fn(part.optimizer, part.config)
    _set_updates(part, 0)


def _set_updates(part: DistributedOptimizer, count: int) -> None:
    """Set the update count: torch's is one tensor a parameter, fused Adam's one number a group."""
    for inner in _inner(part):
        if isinstance(inner, torch.optim.Adam):  # AdamW is a subclass
            for own in inner.state.values():
                own["step"] = torch.tensor(float(count))
        else:
            for group in inner.param_groups:
                group["step"] = count
