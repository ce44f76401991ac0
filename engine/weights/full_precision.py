"""Plain tensors in the place of FP8 parameters, for what cuts, copies or fills weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from engine.platform.quantised import dequantise, is_quantised

HighPrecisionWeights = dict[torch.nn.Parameter, Tensor]
"""FP8 parameter -> values of its shape in its nominal dtype; empty where there are no such ones."""


@contextmanager
def in_full_precision(chunks: Sequence[torch.nn.Module]) -> Iterator[HighPrecisionWeights]:
    """Within the block a plain copy of its values stands where each FP8 parameter was.

    What is written into the copies stays there: who wants it in the parameters rounds it himself.
    The copies take as much memory as bfloat16 parameters would. Without FP8 parameters nothing
    happens.
    """
    copies: HighPrecisionWeights = {}
    replaced: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    try:
        for module in (module for chunk in chunks for module in chunk.modules()):
            for name, parameter in module._parameters.items():
                if parameter is not None and is_quantised(parameter):
                    copies[parameter] = dequantise(parameter)
                    replaced.append((module, name, parameter))
                    module._parameters[name] = _plain(copies[parameter])
        yield copies
    finally:
        for module, name, parameter in replaced:
            module._parameters[name] = parameter


def _plain(values: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)
