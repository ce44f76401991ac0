"""Everything that a resumed run needs, as megatron's layout-independent sharded state."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, tensor_parallel
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.dist_checkpointing.utils import add_prefix_for_sharding
from megatron.core.optimizer import MegatronOptimizer

from engine.checkpoint.folders import CheckpointFolders
from engine.errors import RunError
from engine.models.shards import unwrap

_METADATA = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds besides random state and the recipe's own progress.

    Attributes:
        chunks: the trained model's chunks on this rank, as megatron's DDP wraps them.
        optimizer: megatron's optimizer over it.
        reference: chunks of the frozen model of recipes that have one.
    """

    chunks: Sequence[torch.nn.Module]
    optimizer: MegatronOptimizer
    reference: Sequence[torch.nn.Module] = ()


def save(
    folders: CheckpointFolders, step: int, training: TrainingState, progress: dict[str, Any]
) -> None:
    """Write the checkpoint of ``step``; returns on all ranks when it is whole.

    Args:
        step: the step that the next start begins with.
        progress: plain values that the recipe wants back (counters, data position).

    Raises:
        RunError: it cannot be written (full disk, permissions); earlier checkpoints stay whole.
    """
    state = {**_state(training, is_loading=False), "progress": progress}
    try:
        if dist.get_rank() == 0:
            folders.begin(step)
        dist.barrier()
        # One writer process a rank: more only pay where one rank has many gigabytes to write.
        writer = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1)
        dist_checkpointing.save(state, str(folders.partial(step)), writer)
        dist.barrier()
        if dist.get_rank() == 0:
            folders.commit(step)
    except (OSError, CheckpointingException, RuntimeError) as error:
        where = folders.partial(step)
        raise RunError(
            f"checkpoint of step {step} cannot be written to {where}: {error}"
        ) from error
    dist.barrier()


def load(folders: CheckpointFolders, step: int, training: TrainingState) -> dict[str, Any]:
    """Put model, optimizer, reference and random state back as ``save`` found them.

    Returns:
        The recipe's ``progress``.

    Raises:
        RunError: the checkpoint is unreadable or belongs to another model.
    """
    folder = folders.folder(step)
    try:
        state = dist_checkpointing.load(_state(training, is_loading=True), str(folder))
    except (OSError, CheckpointingException, RuntimeError) as error:
        raise RunError(f"checkpoint {folder} cannot be loaded: {error}") from error
    for number, chunk in enumerate(training.chunks):
        unwrap(chunk).load_state_dict(state[f"model{number}"])
    training.optimizer.load_state_dict(state["optimizer"])
    for number, chunk in enumerate(training.reference):
        unwrap(chunk).load_state_dict(state[f"reference{number}"])
    _restore_random_state(state["random"][0])
    progress: dict[str, Any] = state["progress"]
    return progress


def _state(training: TrainingState, *, is_loading: bool) -> dict[str, Any]:
    model = {
        f"model{number}": unwrap(chunk).sharded_state_dict(metadata=_METADATA)
        for number, chunk in enumerate(training.chunks)
    }
    state: dict[str, Any] = {
        **model,
        "optimizer": training.optimizer.sharded_state_dict(
            model, is_loading=is_loading, metadata=_METADATA
        ),
        "random": [_random_state()],
    }
    for number, chunk in enumerate(training.reference):
        reference = unwrap(chunk).sharded_state_dict(metadata=_METADATA)
        add_prefix_for_sharding(reference, "reference.")  # its keys are the model's otherwise
        state[f"reference{number}"] = reference
    return state


def _random_state() -> ShardedObject:
    """The generators of this rank; each rank has its own."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }
    return ShardedObject("random", state, (dist.get_world_size(),), (dist.get_rank(),))


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state(state["cuda"])
    tensor_parallel.get_cuda_rng_tracker().set_states(state["tracker"])
