"""What checks of a GPU share: their registry, and how results are compared with plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CUDA = torch.device("cuda")
BOUNDS = {torch.bfloat16: 1e-2, torch.float32: 1e-3}
"""Relative distance by the type of the result. An H100 showed 3.5e-3, and 2.9e-4 in TF32."""
FP8_BOUND = 0.1
"""An H100 showed 4.1e-2, and 6.2e-2 of gradients in E5M2."""

Check = Callable[[], str]
"""Returns what it measured; raises where something is wrong."""
CHECKS: dict[str, Check] = {}
"""By name, in an order in which a failure explains the next ones."""


def check(function: Check) -> Check:
    """Register a check."""
    CHECKS[function.__name__] = function
    return function


@torch.no_grad()
def distance(found: Tensor, right: Tensor, bound: float | None = None) -> float:
    """Norm of the difference over the norm, less than ``bound``; NaN never passes."""
    least = torch.finfo(torch.float64).tiny  # an expert without tokens has no gradient
    off = float((found.double() - right.double()).norm() / right.double().norm().clamp(min=least))
    assert off < (bound or BOUNDS[found.dtype]), f"off by {off:.2e}"
    return off


def same(found: Tensor, right: Tensor, *leaves: Tensor, bound: float | None = None) -> str:
    """Compare values, and the gradients of ``leaves`` for a random gradient of the values."""
    said = f"{distance(found, right, bound):.1e}"
    if leaves:
        gradient = torch.randn_like(found)
        ours = torch.autograd.grad(found, leaves, gradient, retain_graph=True)
        theirs = torch.autograd.grad(right, leaves, gradient.to(right.dtype), retain_graph=True)
        pairs = zip(ours, theirs, strict=True)
        said += f", gradients {max(distance(*pair, bound) for pair in pairs):.1e}"
    return said


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Random numbers on the GPU that want a gradient."""
    return torch.randn(shape, device=CUDA, dtype=dtype, requires_grad=True)
