"""How the layers compute: the part of megatron's config that is neither model nor layout.

Plain functions from our keys to megatron's; what a key means is written where it is defined,
``engine.config.training``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import silu

from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.platform import accelerator


def numerics(training: TrainingConfig, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """megatron's arguments for precision, kernels and recomputation.

    Args:
        architecture: the family's arguments: what there is to recompute.

    Raises:
        RunError: ``training`` names parts that the model or this machine does not have.
    """
    gpu = accelerator.has_gpu()
    dtype: torch.dtype = getattr(torch, training.dtype)
    return {
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "activation_func": silu,
        "add_bias_linear": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": training.dispatcher,
        "moe_grouped_gemm": gpu,
        "calculate_per_token_loss": True,
        "bias_dropout_fusion": gpu,
        "masked_softmax_fusion": gpu,
        "bias_activation_fusion": gpu,
        "gradient_accumulation_fusion": False,
        "deallocate_pipeline_outputs": False,
        **_recomputation(training, architecture, grouped=gpu),
    }


def _recomputation(
    training: TrainingConfig, architecture: Mapping[str, Any], grouped: bool
) -> dict[str, Any]:
    if training.recompute == "none":
        return {}
    if training.recompute == "full":
        return {
            "recompute_granularity": "full",
            "recompute_method": "uniform",
            "recompute_num_layers": training.recompute_layers,
        }
    return {
        "recompute_granularity": "selective",
        "recompute_modules": _modules(training, architecture, grouped),
    }


def _modules(training: TrainingConfig, architecture: Mapping[str, Any], grouped: bool) -> list[str]:
    """What is recomputed; the default is DeepSeek-V3's choice (arXiv 2412.19437, section 3.2.3)."""
    experts = bool(architecture.get("num_moe_experts"))
    missing = {
        "mla_up_proj": None if architecture.get("multi_latent_attention") else "latent attention",
        "moe": None if experts else "experts",
        "shared_experts": (
            None if architecture.get("moe_shared_expert_intermediate_size") else "a shared expert"
        ),
        "moe_act": None if experts and grouped else "experts computed in groups",
    }
    if training.recompute_modules is None:
        chosen = ("layernorm", "mla_up_proj", "moe_act")
        return [module for module in chosen if not missing.get(module)]
    for module in training.recompute_modules:
        if missing.get(module):
            raise RunError(
                f"training.recompute_modules: {module} needs {missing[module]}, which this model "
                "does not have here"
            )
    return list(training.recompute_modules)
