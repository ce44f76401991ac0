"""Load a verified checkpoint into a running model, whatever layout it was saved in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.serialization import load_sharded_metadata
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint.api import CheckpointException

from engine.checkpoint import manifest, random_state, training_state
from engine.checkpoint.folders import RECORD
from engine.checkpoint.forked_writer import reason
from engine.checkpoint.training_state import TrainingState
from engine.errors import RunError

_OTHER = ("optimizer.", "reference.", "random")
"""Beginnings of keys that are not the policy's weights."""


def load(folder: Path, training: TrainingState, seed: int) -> dict[str, Any]:
    """Restore ``training`` and the random generators from ``folder``; a collective.

    Args:
        seed: the run's; where the layout is another one it seeds the random generators.

    Returns:
        The recipe's ``progress``.

    Raises:
        RunError: the checkpoint cannot be read or belongs to another model.
    """
    with reading(folder):
        record = json.loads((folder / RECORD).read_text())
        same_layout = record["layout"] == random_state.layout()
        request = training_state.sharded(training, with_random=same_layout)
        state = read(folder, request, beside=(random_state.KEY,))
    training_state.restore(training, state, record["updates"])
    if not same_layout:
        random_state.reseed(seed, record["step"])
        say(f"checkpoint {folder} is of another layout: random generators are seeded afresh")
    progress: dict[str, Any] = record["progress"]
    return progress


def say(warning: str) -> None:
    """Write ``warning`` to stderr, on rank 0."""
    if dist.get_rank() == 0:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def problem(folder: Path) -> str | None:
    """Return what is wrong with the files of ``folder``, each rank reading a part; a collective."""
    ranks = dist.get_world_size()
    problems: list[str | None] = [None] * ranks
    dist.all_gather_object(problems, manifest.problem(folder, dist.get_rank(), ranks))
    return next((found for found in problems if found is not None), None)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with a checkpoint into one sentence: a RunError, naming ``folder``."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointingException) as error:
        raise RunError(f"checkpoint {folder} cannot be loaded: {reason(error)}") from error
    except CheckpointException as error:  # torch's, not an Exception: one error for each rank
        causes = [reason(cause) for cause, _ in error.failures.values()]
        raise RunError(f"checkpoint {folder} cannot be loaded: {causes[0]}") from None


def read(folder: Path, request: dict[str, Any], *, beside: tuple[str, ...]) -> dict[str, Any]:
    """Read the tensors that ``request`` describes, and return the state.

    Args:
        beside: beginnings of keys that the checkpoint may hold beside it.

    Raises:
        RunError: the checkpoint's tensors are not exactly those of the request, on all ranks alike.
            What Transformer Engine keeps beside parameters may be missing on either side: a
            checkpoint made without it has none.
    """

    def keys(pieces: Any) -> set[str]:
        found = {piece.key for piece in pieces}
        return {k for k in found if training_state.EXTRA not in k and not k.startswith(beside)}

    asked: list[set[str]] = [set()] * dist.get_world_size()
    dist.all_gather_object(asked, keys(nested_values(request)))
    wanted, stored = set().union(*asked), keys(load_sharded_metadata(str(folder)).values())
    if lacking := sorted(wanted - stored):
        raise RunError(f"checkpoint {folder} is of another model: it has no {lacking[0]}")
    if surplus := sorted(stored - wanted):
        raise RunError(
            f"checkpoint {folder} is of another model: it has {surplus[0]}, which this run's "
            f"model has not"
        )
    # Compared already: what is ignored is what Transformer Engine keeps beside parameters.
    state: dict[str, Any] = dist_checkpointing.load(
        request, str(folder), strict=StrictHandling.IGNORE_ALL
    )
    return state


def load_weights(chunks: Sequence[torch.nn.Module], folder: Path) -> None:
    """Fill the parameters of this rank's model chunks from ``folder``; a collective.

    The layout may be any, whatever the checkpoint was written for. Tensors come in the dtype of
    the parameters.

    Raises:
        RunError: the checkpoint is damaged or belongs to another model.
    """
    if found := problem(folder):
        raise RunError(f"checkpoint {folder} cannot be loaded: {found}")
    with reading(folder):
        state = read(folder, training_state.sharded_chunks(chunks), beside=_OTHER)
    training_state.fill(chunks, state)
