"""Set the FP32 master weights of FP8 parameters from values that were never rounded to FP8."""

from __future__ import annotations

from typing import Any

import torch

from engine.weights.full_precision import HighPrecisionWeights


@torch.no_grad()
def set_fp8_master_weights(optimizer: Any, unrounded: HighPrecisionWeights) -> None:
    """Copy this rank's share of ``unrounded`` into the FP32 master weights of FP8 parameters.

    Not ``reload_model_params(state_dict)``: it finds parameters by a part of their name, and
    ``weight1`` is a part of ``weight10`` (distrib_optimizer.py:2519, grouped experts).

    Args:
        optimizer: megatron's chained optimizer.
        unrounded: whole tensors, as :func:`engine.weights.load.load` returns them.
    """
    for part in optimizer.chained_optimizers:
        if part.is_stub_optimizer:
            continue
        groups = zip(part.model_float16_groups, part.shard_fp32_from_float16_groups, strict=True)
        for parameters, masters in groups:
            for parameter, master in zip(parameters, masters, strict=True):
                if parameter in unrounded:
                    own = part._get_model_param_range_map(parameter)["param"]
                    master.copy_(unrounded[parameter].reshape(-1)[own.start : own.end])
