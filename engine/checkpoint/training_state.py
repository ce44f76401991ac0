"""Describe and restore the state of training in megatron's layout-independent terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.utils import add_prefix_for_sharding

from engine.checkpoint import optimizer_state, random_state
from engine.platform.quantised import any_quantised, dequantise, is_quantised
from engine.weights.shards import unwrap

EXTRA = "_extra_state"
"""End of the keys of Transformer Engine's own state beside parameters: past FP8 scales."""


@dataclass(frozen=True)
class TrainingState:
    """The parts of a run that are saved and put back in place.

    The learning rate is no state: it is a function of the step. Neither are prompts and samples:
    their order is a function of (seed, epoch, index), and finished groups lie in the rollout store.

    Attributes:
        chunks: the trained model's chunks (virtual pipeline stages), as megatron's DDP wraps them.
        optimizer: megatron's optimizer over them.
        reference: the chunks of the frozen model of recipes that have one.
    """

    chunks: Sequence[torch.nn.Module]
    optimizer: Any
    reference: Sequence[torch.nn.Module] = ()


def sharded(training: TrainingState, *, with_random: bool) -> dict[str, Any]:
    """Return this rank's state as pieces of whole tensors; views, no copies.

    Args:
        with_random: include the random generators of this rank.
    """
    model = sharded_chunks(training.chunks)
    state: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer_state.sharded(training.optimizer, model),
    }
    # After the optimizer's part, which finds its tensors by the parameter itself.
    _dequantise_all(model)
    if training.reference:
        state["reference"] = sharded_chunks(training.reference)
        add_prefix_for_sharding(state["reference"], "reference.")  # its keys are the model's
    if with_random:
        state["random"] = [random_state.sharded()]
    return state


def restore(training: TrainingState, state: dict[str, Any], updates: int) -> None:
    """Set model, optimizer, reference and random generators to the loaded ``state``.

    Args:
        updates: how many the optimizer had made.
    """
    fill(training.chunks, state["model"])
    optimizer_state.restore(training.optimizer, state["optimizer"], updates)
    if any_quantised(training.chunks):
        _round_masters(training)
    if training.reference:
        fill(training.reference, state["reference"])
    if "random" in state:
        random_state.restore(state["random"][0])


def sharded_chunks(chunks: Sequence[torch.nn.Module]) -> dict[str, Any]:
    """Return the weights of this rank's model chunks as megatron's sharded tensors."""
    # Each layer has a key of its own. A new dict each time: megatron adds process groups to it.
    metadata = {"non_homogeneous_layers": True}
    return {
        f"chunk{index}": unwrap(chunk).sharded_state_dict(metadata=metadata)
        for index, chunk in enumerate(chunks)
    }


def fill(chunks: Sequence[torch.nn.Module], state: dict[str, Any]) -> None:
    """Put loaded tensors of :func:`sharded_chunks` into the chunks."""
    for index, chunk in enumerate(chunks):
        found = unwrap(chunk).load_state_dict(state[f"chunk{index}"], strict=False)
        odd = [key for key in (*found.missing_keys, *found.unexpected_keys) if EXTRA not in key]
        if odd:  # keys were compared with the checkpoint's before: this is a defect of ours
            raise ValueError(f"not loaded: {', '.join(odd)}")


def _dequantise_all(state: dict[str, Any]) -> None:
    """Replace FP8 parameters, which neither files nor factories can cut, by plain tensors."""
    for piece in nested_values(state):
        if is_quantised(getattr(piece, "data", None)):
            piece.data = dequantise(piece.data)


def _round_masters(training: TrainingState) -> None:
    """Round FP8 parameters from their masters, as an update leaves them. Never run on a GPU.

    Checkpoints hold rounded values, so that they load into bfloat16 parameters, too. In another
    layout tensors are cut elsewhere and scaled otherwise: rounded values would be rounded twice.
    """
    optimizer_state.write_parameters(training.optimizer)
    for chunk in training.chunks:
        chunk.start_param_sync()
