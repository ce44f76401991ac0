"""Name the weights that are not finite, or whose gradients are not, after a run has diverged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from engine.platform.quantised import dequantise, is_quantised
from engine.weights.shards import unwrap


def weights(chunks: Sequence[torch.nn.Module]) -> list[str]:
    """Return megatron's names of the weights that hold NaN or infinity; a collective."""
    return _over_ranks(name for name, weight in _parameters(chunks) if not _is_finite(weight))


def gradients(chunks: Sequence[torch.nn.Module]) -> list[str]:
    """Return megatron's names of the weights whose gradients hold NaN or infinity; a collective.

    After the backward pass: of a gradient that several ranks share out each has its own part whole,
    and of the others what it has added itself.

    Returns:
        The one nearest to the output first: everything below a layer that overflows is spoiled.
    """
    found = ((name, getattr(weight, "main_grad", None)) for name, weight in _parameters(chunks))
    names = _over_ranks(name for name, grad in found if grad is not None and not _is_finite(grad))
    return names[::-1]


def _parameters(chunks: Sequence[torch.nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter with its name, in which layers have their number in the whole model."""
    for chunk in chunks:
        model = unwrap(chunk)
        layers = {
            f"{name}.": f"{name.rpartition('.')[0]}.{module.layer_number - 1}."
            for name, module in model.named_modules()
            if name.rpartition(".")[2].isdigit() and hasattr(module, "layer_number")
        }
        for name, parameter in model.named_parameters():
            prefix = next((p for p in layers if name.startswith(p)), "")
            yield layers.get(prefix, "") + name.removeprefix(prefix), parameter


def _is_finite(tensor: Tensor) -> bool:
    values = dequantise(tensor) if is_quantised(tensor) else tensor.detach()
    return bool(values.isfinite().all())


def _over_ranks(mine: Iterator[str]) -> list[str]:
    found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, list(mine))
    return list(dict.fromkeys(name for names in found for name in names))
