"""megatron's optimizer step in two halves, and norms: between the halves a run may end."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from torch.nn.utils import get_total_norm


@torch.no_grad()
def ready_gradients(optimizer: Any) -> float:
    """Make the gradients ready for the step; return their norm over all ranks. A collective.

    Args:
        optimizer: megatron's chained optimizer.

    Returns:
        The norm before clipping, equal on all ranks; infinite where megatron's loss scaling found
        a gradient that is not finite.
    """
    found_inf = optimizer.prepare_grads()
    norm = float(optimizer.get_grad_norm())
    return math.inf if found_inf and math.isfinite(norm) else norm


@torch.no_grad()
def clip_and_step(optimizer: Any, norm: float) -> None:
    """Scale the gradients down to ``clip_grad``, and step.

    With :func:`ready_gradients` it is ``ChainedOptimizer.step`` (megatron-core 0.16.1,
    optimizer.py:1308), which would step whatever the norm is.

    Args:
        norm: what :func:`ready_gradients` returned.
    """
    for part in optimizer.chained_optimizers:
        if not part.is_stub_optimizer and (parameters := part.get_parameters()):
            clip_grad_by_total_norm_fp32(
                parameters,
                max_norm=part.config.clip_grad,
                total_norm=norm,
                use_decoupled_grad=part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8,
            )
    optimizer.step_with_ready_grads()


def weights_norm(optimizer: Any) -> float:
    """Return the norm of all weights that are trained; a collective of one number.

    Each rank reads the part that it updates (the master weights), once. Weights that ranks hold
    alike count on each of them.

    Returns:
        Equal on all ranks; NaN or infinite where a weight is, or where the squares of weights are
        more than float32 holds: from about 1e19 on a model multiplies them beyond it, too.
    """
    parts = [part for part in optimizer.chained_optimizers if not part.is_stub_optimizer]
    weights = [parameter.detach() for part in parts for parameter in part.get_parameters()]
    total = (
        get_total_norm(weights).double() ** 2 if weights else torch.zeros((), dtype=torch.float64)
    )
    total = total.to(torch.cuda.current_device())
    dist.all_reduce(total)
    return math.sqrt(float(total))
