"""Arguments of megatron's ``TransformerConfig`` for precision, kernels and recomputation.

Plain functions from the keys of section ``training`` to megatron's; what a key means is written
where it is defined, ``engine.config.training``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import silu

from engine.config.fp8 import gathered_multiple, misfit, size_multiple
from engine.config.layout import LayoutConfig
from engine.config.model_sizes import ModelSizes
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.platform import accelerator, kernels
from engine.platform.precision import fp8_obstacle, offload_obstacle


def check_machine(training: TrainingConfig) -> None:
    """Pass silently if this process's device can do what ``training`` asks; costs nothing.

    Raises:
        RunError: it cannot; names the key, what it needs and what was found.
    """
    hardware = accelerator.hardware()
    obstacles = {
        "fp8": fp8_obstacle(training.fp8, hardware),
        "optimizer_offload": offload_obstacle(training.optimizer_offload, hardware),
        "grouped_experts": (
            "expected true or null: Transformer Engine's experts are grouped, found false"
            if training.grouped_experts is False and hardware.transformer_engine
            else None
        ),
    }
    for key, obstacle in obstacles.items():
        if obstacle is not None:
            raise RunError(f"training.{key}: {obstacle}")


def kernels_of(training: TrainingConfig) -> dict[str, str]:
    """Return operation -> what computes it in a run with this ``training``."""
    return kernels.kernels(training.fp8, training.grouped_experts)


def transformer_config_args(
    training: TrainingConfig, layout: LayoutConfig, sizes: ModelSizes
) -> dict[str, Any]:
    """Return megatron's arguments for precision, kernels and recomputation.

    Args:
        training, layout: the run's.
        sizes: of the whole model: what there is to recompute or to multiply in FP8.

    Raises:
        RunError: ``training`` asks for what the model or this machine does not have.
    """
    check_machine(training)
    gpu, engine = accelerator.has_gpu(), accelerator.has_transformer_engine()
    grouped = engine if training.grouped_experts is None else training.grouped_experts
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
        "moe_grouped_gemm": grouped,
        "calculate_per_token_loss": True,
        "deallocate_pipeline_outputs": False,
        # Fused kernels: compiled by torch on any GPU, or of Transformer Engine.
        "bias_dropout_fusion": gpu,
        "bias_activation_fusion": gpu,
        "moe_permute_fusion": engine and sizes.experts > 0,
        "apply_rope_fusion": engine and not sizes.latent,  # latent attention's takes no plain RoPE
        "gradient_accumulation_fusion": kernels.accumulates_gradients_in_place(),
        **_recomputation(training, sizes, grouped=grouped and engine),
        **_fp8(training, layout, sizes),
    }


def _fp8(training: TrainingConfig, layout: LayoutConfig, sizes: ModelSizes) -> dict[str, Any]:
    """Return megatron's arguments for FP8.

    megatron enters Transformer Engine's FP8 context around decoder layers and MTP depths only, and
    the router's product is plain torch: what else there is stays as it is.
    """
    if training.fp8 == "none":
        return {}
    multiplied = _multiplied(sizes.on_rank(layout.tp, layout.etp))
    odd = misfit(size_multiple(training.fp8), multiplied)
    if odd is None and layout.tp > 1:
        gathered = {name: multiplied.get(name, 0) for name in _GATHERED}
        odd = misfit(gathered_multiple(training.fp8), gathered)
    if odd is not None:
        raise RunError(f"training.fp8: {training.fp8}: {odd}")
    scaled_by_tile = training.fp8 in ("blockwise", "mxfp8")
    kept = training.fp8_bfloat16_layers
    return {
        # A tile's own scale leaves gradients enough range in E4M3 (DeepSeek-V3, section 3.3.2).
        "fp8": "e4m3" if scaled_by_tile else "hybrid",
        "fp8_recipe": training.fp8,
        "fp8_param": training.fp8_parameters,
        "fp8_amax_history_len": 1024,
        "fp8_amax_compute_algo": "max",
        "first_last_layers_bf16": kept > 0,
        "num_layers_at_start_in_bf16": kept,
        "num_layers_at_end_in_bf16": kept,
    }


_GATHERED = (
    "hidden columns between layers",
    "compressed query columns",
    "compressed key and value columns",
)
"""What column-parallel layers read, of the names below."""


def _multiplied(part: ModelSizes) -> dict[str, int]:
    """Return the sizes of one rank's linear layers, by what they are."""
    sizes = {
        "hidden columns between layers": part.hidden,
        "hidden columns of dense layers": part.columns,
        "hidden columns of each expert": part.expert_columns,
        "hidden columns of the shared expert": part.shared_columns,
    }
    if not part.latent:
        return {
            **sizes,
            "columns of queries": part.query_columns,
            "columns of queries, keys and values": part.qkv_columns,
        }
    return {
        **sizes,
        "compressed query columns": part.query_rank,
        "compressed key and value columns": part.key_value_rank,
        "compressed columns with the shared key": part.compressed_columns,
        "columns of queries": part.query_columns,
        "columns of keys and values": part.key_value_columns,
        "columns of attention's output": part.value_columns,
    }


def _recomputation(training: TrainingConfig, sizes: ModelSizes, grouped: bool) -> dict[str, Any]:
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
        "recompute_modules": _modules(training, sizes, grouped),
    }


def _modules(training: TrainingConfig, sizes: ModelSizes, grouped: bool) -> list[str]:
    """Return the modules that are recomputed of this model on this machine."""
    experts = sizes.experts > 0
    # Transformer Engine's layers hold the norms before column-parallel linears; that of latent
    # attention and that of experts' layers stand alone (gpt_layer_specs.py).
    alone = experts or sizes.latent
    missing = {
        "layernorm": (
            None if alone or not accelerator.has_transformer_engine() else "norms of their own"
        ),
        "mla_up_proj": None if sizes.latent else "latent attention",
        "moe": None if experts else "experts",
        "shared_experts": None if sizes.shared_columns else "a shared expert",
        "moe_act": None if experts and grouped else "Transformer Engine's grouped experts",
    }
    if training.recompute_modules is None:
        chosen: list[str] = [module for module in training.recomputed if not missing.get(module)]
        if not chosen:
            raise RunError(
                "training.recompute: selective finds nothing to recompute in this model with "
                f"training.fp8 = {training.fp8}; name training.recompute_modules, or take full"
            )
        return chosen
    for module in training.recompute_modules:
        if missing.get(module):
            raise RunError(
                f"training.recompute_modules: {module} needs {missing[module]}, which are not "
                "there in this model on this machine"
            )
    return list(training.recompute_modules)
