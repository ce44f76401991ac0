"""The weights of any checkpoint into a model, without optimizer: of a converted one, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.checkpoint import loading, training_state
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
    if problem := loading.problem(folder):
        raise RunError(f"checkpoint {folder} cannot be loaded: {problem}")
    with loading.reading(folder):
        state = loading.read(folder, training_state.sharded_chunks(chunks), beside=_OTHER)
    training_state.fill(chunks, state)
