"""The optimizer's state by the parameter it belongs to, whatever optimizers hold it in a layout.

megatron trains with several optimizers, chained: one for dense parameters, one for experts, none
where a pipeline stage has no such parameters. Its own state dict has one entry per optimizer, and
for each the hyperparameters of its groups; both depend on the layout, so that what two chained
optimizers saved does not load into one. Here only two things are saved: the tensors (master
weight, first and second moment), under the checkpoint key of their parameter; and the number of
updates, which is the same for all. Hyperparameters are configuration, not state, and stay those of
the running optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.optimizer import DistributedOptimizer
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer


def sharded(optimizer: Any, model: dict[str, Any], *, is_loading: bool) -> dict[str, Any]:
    """Every state tensor of this rank as megatron's sharded tensors.

    Args:
        optimizer: megatron's chained optimizer.
        model: sharded state of all its parameters; a state tensor lies where its parameter lies.
        is_loading: the tensors are to be filled; otherwise they hold the state, gathered over the
            data-parallel ranks (a collective) into host memory.
    """
    parts = dict(_parts(optimizer))
    for part in parts.values():
        _allocate(part)
    return {
        name: part.sharded_param_state_fully_reshardable(model, is_loading, metadata={})
        for name, part in parts.items()
    }


def put_back(optimizer: Any, state: dict[str, Any], updates: int) -> None:
    """Give the optimizer the loaded tensors of :func:`sharded`, and its number of updates."""
    for name, part in _parts(optimizer):
        for own in part.optimizer.state.values():
            # Megatron copies every entry from the loaded state, which has no step.
            own.pop("step", None)
        # A stage without experts has an optimizer for experts all the same: it holds nothing.
        part.load_parameter_state_from_fully_reshardable(state.get(name, {}))
        _set_updates(part, updates)


def updates(optimizer: Any) -> int:
    """How many updates the optimizer has made: Adam's bias correction depends on it.

    The same on all ranks; a collective, for a rank may hold no parameter to ask.
    """
    counted = [0]
    for _, part in _parts(optimizer):
        for inner in _inner(part):
            counted += [int(own["step"]) for own in inner.state.values() if "step" in own]
            counted += [int(group["step"]) for group in inner.param_groups if "step" in group]
    most = torch.tensor([max(counted)], device=torch.cuda.current_device())
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _parts(optimizer: Any) -> Iterator[tuple[str, DistributedOptimizer]]:
    for index, part in enumerate(optimizer.chained_optimizers):
        if not part.is_stub_optimizer:  # nothing to train for it on this rank
            yield str(index), part


def _inner(part: DistributedOptimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that do the arithmetic: several where a share of it is done on the host."""
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
    """torch counts for each parameter (a tensor that it changes in place), fused Adam by group."""
    for inner in _inner(part):
        if isinstance(inner, torch.optim.Adam):  # AdamW is a subclass
            for own in inner.state.values():
                own["step"] = torch.tensor(float(count))
        else:
            for group in inner.param_groups:
                group["step"] = count
