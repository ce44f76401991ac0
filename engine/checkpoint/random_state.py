"""Save and restore every rank's random generators; in another layout, seed them anew.

A rank's generators belong to its place in the layout (which slice of a layer it initialises or
drops out, which samples it draws). In another layout there is no such place; there every rank is
seeded as at the start of a run, with a seed derived from the run's seed and the step, so that the
numbers of the first steps are not drawn a second time.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject

KEY = "random"
"""Checkpoint key of the states."""


def layout() -> dict[str, int]:
    """Return the sizes that decide a rank's coordinates; equal on all ranks."""
    return {
        "processes": dist.get_world_size(),
        "tp": parallel_state.get_tensor_model_parallel_world_size(),
        "pp": parallel_state.get_pipeline_model_parallel_world_size(),
        "cp": parallel_state.get_context_parallel_world_size(),
        "ep": parallel_state.get_expert_model_parallel_world_size(),
        "etp": parallel_state.get_expert_tensor_parallel_world_size(),
    }


def sharded() -> ShardedObject:
    """Return the generators of this rank, as its piece of the state of all ranks."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }
    return ShardedObject(KEY, state, (dist.get_world_size(),), (dist.get_rank(),))


def restore(state: dict[str, Any]) -> None:
    """Restore the generators as :func:`sharded` found them on this rank."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state(state["cuda"])
    tensor_parallel.get_cuda_rng_tracker().set_states(state["tracker"])


def reseed(seed: int, step: int) -> None:
    """Seed the generators for a run that goes on at ``step`` in another layout.

    Args:
        seed: the run's.
    """
    derived = (seed * 1_000_003 + step) % 2**31
    mine = derived + dist.get_rank()
    random.seed(mine)
    np.random.seed(mine % 2**32)
    torch.manual_seed(mine)
    tensor_parallel.model_parallel_cuda_manual_seed(derived, force_reset_rng=True)
