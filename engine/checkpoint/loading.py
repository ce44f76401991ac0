"""Putting a verified checkpoint back into a running model, whatever layout it was saved in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.serialization import load_sharded_metadata
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint.api import CheckpointException

from engine.checkpoint import random_state, training_state
from engine.checkpoint.child import reason
from engine.checkpoint.files import RECORD
from engine.checkpoint.training_state import TrainingState
from engine.errors import RunError


def load(folder: Path, training: TrainingState, seed: int) -> dict[str, Any]:
    """Make ``training`` and the random generators those that were saved; a collective.

    Args:
        seed: the run's; where the layout is another one it seeds the random generators.

    Returns:
        The recipe's ``progress``.

    Raises:
        RunError: the checkpoint cannot be read or belongs to another model.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        same_layout = record["layout"] == random_state.layout()
        request = training_state.sharded(training, with_random=same_layout)
        _compare(folder, request)
        # Compared already: what is ignored is what Transformer Engine keeps beside parameters.
        state = dist_checkpointing.load(request, str(folder), strict=StrictHandling.IGNORE_ALL)
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointingException) as error:
        raise RunError(f"checkpoint {folder} cannot be loaded: {reason(error)}") from error
    except CheckpointException as error:  # torch's, not an Exception: one error for each rank
        causes = [reason(cause) for cause, _ in error.failures.values()]
        raise RunError(f"checkpoint {folder} cannot be loaded: {causes[0]}") from None
    training_state.put_back(training, state, record["updates"])
    if not same_layout:
        random_state.seed_afresh(seed, record["step"])
        say(f"checkpoint {folder} is of another layout: random generators are seeded afresh")
    progress: dict[str, Any] = record["progress"]
    return progress


def say(warning: str) -> None:
    """Rank 0 writes ``warning`` to stderr."""
    if dist.get_rank() == 0:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _compare(folder: Path, request: dict[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not exactly the model's, on all ranks alike.

    What Transformer Engine keeps beside parameters may be missing on either side: a checkpoint
    made without it has none. Random generators of another layout are not asked for.
    """
    asked: list[set[str]] = [set()] * dist.get_world_size()
    dist.all_gather_object(asked, _keys(nested_values(request)))
    wanted, stored = set().union(*asked), _keys(load_sharded_metadata(str(folder)).values())
    if lacking := sorted(wanted - stored):
        raise RunError(f"checkpoint {folder} is of another model: it has no {lacking[0]}")
    if surplus := sorted(stored - wanted):
        raise RunError(
            f"checkpoint {folder} is of another model: it has {surplus[0]}, which this run's "
            f"model has not"
        )


def _keys(pieces: Any) -> set[str]:
    keys = {piece.key for piece in pieces}
    return {k for k in keys if training_state.EXTRA not in k and k != random_state.KEY}
