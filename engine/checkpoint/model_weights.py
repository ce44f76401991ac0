"""The weights of any checkpoint into a model, without optimizer: of a converted one, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.serialization import load_sharded_metadata
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint.api import CheckpointException

from engine.checkpoint import manifest, training_state
from engine.checkpoint.child import reason
from engine.errors import RunError

_OTHER = ("optimizer.", "reference.", "random")
"""Beginnings of keys that are not the policy's weights."""


def load_weights(chunks: Sequence[torch.nn.Module], folder: Path) -> None:
    """Fill the parameters of this rank's model chunks from ``folder``; a collective.

    The layout may be any, whatever the checkpoint was written for. Tensors come in the dtype of
    the parameters.

    Raises:
        RunError: the checkpoint is damaged or belongs to another model.
    """
    ranks = dist.get_world_size()
    problems: list[str | None] = [None] * ranks
    dist.all_gather_object(problems, manifest.problem(folder, dist.get_rank(), ranks))
    if problem := next((found for found in problems if found is not None), None):
        raise RunError(f"checkpoint {folder} cannot be loaded: {problem}")
    try:
        request = training_state.sharded_chunks(chunks)
        _compare(folder, request)
        state = dist_checkpointing.load(request, str(folder), strict=StrictHandling.IGNORE_ALL)
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointingException) as error:
        raise RunError(f"checkpoint {folder} cannot be loaded: {reason(error)}") from error
    except CheckpointException as error:  # torch's, not an Exception: one error for each rank
        causes = [reason(cause) for cause, _ in error.failures.values()]
        raise RunError(f"checkpoint {folder} cannot be loaded: {causes[0]}") from None
    training_state.fill(chunks, state)


def _compare(folder: Path, request: dict[str, object]) -> None:
    """Refuse a checkpoint whose weights are not exactly the model's, on all ranks alike."""
    asked: list[set[str]] = [set()] * dist.get_world_size()
    dist.all_gather_object(asked, {piece.key for piece in nested_values(request)})
    stored = {piece.key for piece in load_sharded_metadata(str(folder)).values()}
    wanted, stored = _weights(set().union(*asked)), _weights(stored)
    if lacking := sorted(wanted - stored):
        raise RunError(f"checkpoint {folder} is of another model: it has no {lacking[0]}")
    if surplus := sorted(stored - wanted):
        raise RunError(
            f"checkpoint {folder} is of another model: it has {surplus[0]}, which the model has not"
        )


def _weights(keys: set[str]) -> set[str]:
    return {k for k in keys if training_state.EXTRA not in k and not k.startswith(_OTHER)}
