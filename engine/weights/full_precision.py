"""Put plain tensors in the place of FP8 parameters, for what cuts, copies or fills weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from engine.platform.quantised import dequantise, is_quantised

HighPrecisionWeights = dict[torch.nn.Parameter, Tensor]
"""FP8 parameter -> values of its shape in its nominal dtype; empty where there are no such ones."""


@contextmanager
def in_full_precision(chunks: Sequence[torch.nn.Module]) -> Iterator[HighPrecisionWeights]:
    """Put a plain copy of its values in the place of each FP8 parameter, within the block.

    What is written into the copies does not reach the parameters: the caller rounds it into them.
    The copies take as much memory as bfloat16 parameters would. Without FP8 parameters nothing
    happens.
    """
    with _replaced(chunks, dequantise) as copies:
        yield copies


@contextmanager
def without_values(chunks: Sequence[torch.nn.Module]) -> Iterator[dict[int, torch.nn.Parameter]]:
    """Put a tensor without values in the place of each FP8 parameter, within the block.

    It has no memory (torch's device ``meta``); a view of it tells where in the parameter a piece
    lies.

    Yields:
        The parameters by :func:`storage_of` what stands in their place, or of any view of that.
    """
    with _replaced(chunks, lambda p: torch.empty(p.shape, dtype=p.dtype, device="meta")) as empty:
        yield {storage_of(stand_in): parameter for parameter, stand_in in empty.items()}


def storage_of(tensor: Tensor) -> int:
    """Return a number that tensors share exactly when they are views of the same memory."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _replaced(
    chunks: Sequence[torch.nn.Module], make: Callable[[torch.nn.Parameter], Tensor]
) -> Iterator[HighPrecisionWeights]:
    made: HighPrecisionWeights = {}
    replaced: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    try:
        for module in (module for chunk in chunks for module in chunk.modules()):
            for name, parameter in module._parameters.items():
                if parameter is not None and is_quantised(parameter):
                    made[parameter] = make(parameter)
                    replaced.append((module, name, parameter))
                    module._parameters[name] = _plain(made[parameter])
        yield made
    finally:
        for module, name, parameter in replaced:
            module._parameters[name] = parameter


def _plain(values: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)
