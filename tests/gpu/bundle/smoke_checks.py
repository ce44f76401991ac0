"""What checks of a GPU share: their registry, and how results are compared with plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CUDA = torch.device("cuda")
BOUND = 0.1
"""Relative distance. An H100 showed 4e-3 in bfloat16, 4e-2 in FP8, 6e-2 of gradients in E5M2."""

Check = Callable[[], str]
"""Returns what it measured; raises where something is wrong."""
CHECKS: dict[str, Check] = {}
"""By name, in an order in which a failure explains the next ones."""


def check(function: Check) -> Check:
    """Register a check."""
    CHECKS[function.__name__] = function
    return function


@torch.no_grad()
def distance(found: Tensor, right: Tensor) -> float:
    """Norm of the difference over the norm; NaN never passes."""
    least = torch.finfo(torch.float64).tiny  # an expert without tokens has no gradient
    off = float((found.double() - right.double()).norm() / right.double().norm().clamp(min=least))
    assert off < BOUND, f"off by {off:.2e}"
    return off


def same(found: Tensor, right: Tensor, *leaves: Tensor) -> str:
    """Compare values, and the gradients of ``leaves`` for a random gradient of the values."""
    said = f"{distance(found, right):.1e}"
    if leaves:
        gradient = torch.randn_like(found)
        ours = torch.autograd.grad(found, leaves, gradient, retain_graph=True)
        theirs = torch.autograd.grad(right, leaves, gradient.to(right.dtype), retain_graph=True)
        said += f", gradients {max(map(distance, ours, theirs)):.1e}"
    return said


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Random numbers on the GPU that want a gradient."""
    return torch.randn(shape, device=CUDA, dtype=dtype, requires_grad=True)
