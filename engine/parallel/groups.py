"""Start and end the process groups of a layout, and tell this rank's index in them.

megatron-core keeps the groups in its ``parallel_state``; this module is the only one that starts
and ends them. The vocabulary is that of ``engine.config.layout``.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.common.embeddings import RotaryEmbedding, YarnRotaryEmbedding

from engine.config.layout import LayoutConfig
from engine.errors import RunError
from engine.platform import accelerator

COLLECTIVE_LIMIT = datetime.timedelta(minutes=10)
"""A collective that some rank has not joined after this long ends the run."""


@contextmanager
def process_groups(
    layout: LayoutConfig, seed: int, store: dist.Store | None = None
) -> Iterator[None]:
    """Start the process groups of ``layout`` for this rank, seed it, and end them on leaving.

    An exception ends NCCL's groups with the process, not here: to take them down would wait for the
    other ranks, and these wait for this one. Reads ``RANK`` and ``WORLD_SIZE`` as
    torchrun sets them.

    Args:
        store: where ranks meet; default: the one at ``MASTER_ADDR`` and ``MASTER_PORT``.

    Raises:
        RunError: the number of started processes is not the layout's.
    """
    started = int(os.environ["WORLD_SIZE"])
    if started != layout.processes:
        raise RunError(
            f"layout.processes: {layout.processes} trainer processes expected, {started} started"
        )
    dist.init_process_group(
        accelerator.backend(),
        timeout=COLLECTIVE_LIMIT,
        **({} if store is None else _meeting_at(store)),
    )
    try:
        parallel_state.initialize_model_parallel(
            layout.tp,
            layout.pp,
            layout.vpp if layout.vpp > 1 else None,
            context_parallel_size=layout.cp,
            expert_model_parallel_size=layout.ep,
            expert_tensor_parallel_size=layout.etp,
        )
        tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)
        yield
    except BaseException:
        if dist.get_backend() != "nccl":
            _end_groups()
        raise
    _end_groups()


def _end_groups() -> None:
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
    # parallel_state never empties this list, and a group's threads and sockets live as long as the
    # last reference to it: a process that starts groups again would pile them up.
    parallel_state._global_process_group_list = None
    # These caches hold the modules they were called on, and those their context parallel group.
    for embedding in (RotaryEmbedding, YarnRotaryEmbedding):
        embedding.forward.cache_clear()


def _meeting_at(store: dist.Store) -> dict[str, Any]:
    ranks = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    return {"store": store, **ranks}


def data_rank() -> int:
    """Return this rank's index among the data-parallel ranks: its share of a batch."""
    return parallel_state.get_data_parallel_rank()


def data_ranks() -> int:
    """Return the number of data-parallel ranks."""
    return parallel_state.get_data_parallel_world_size()


def is_last_stage() -> bool:
    """Return whether this rank holds the output layer, and so log-probabilities and losses."""
    return parallel_state.is_pipeline_last_stage()


def counts_its_tokens() -> bool:
    """Return whether this rank's per-token sums count: one rank's do for each share of a batch.

    Every tensor- and context-parallel rank of the last stage computes the same sums over whole
    rows; only the first counts.
    """
    first = parallel_state.get_tensor_model_parallel_rank() == 0
    return is_last_stage() and first and parallel_state.get_context_parallel_rank() == 0
