"""Specs of a model's layers: Transformer Engine's modules where it serves, ours elsewhere.

Two modules are our own on both: the router and the multi-token prediction layer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_layer_specs
from megatron.core.transformer.moe.moe_layer import MoESubmodules
from megatron.core.transformer.multi_token_prediction import (
    MultiTokenPredictionBlockSubmodules,
    get_mtp_layer_spec,
    get_mtp_num_layers_to_build,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from engine.models import torch_layers
from engine.models.mtp import MtpLayer
from engine.models.router import SigmoidRouter, SoftmaxRouter
from engine.platform import accelerator


def decoder_spec(
    config: TransformerConfig, vp_stage: int | None = None
) -> TransformerBlockSubmodules:
    """Return the specs of the decoder layers that this rank builds for ``vp_stage``."""
    first = get_transformer_layer_offset(config, vp_stage)
    count = get_num_layers_to_build(config, vp_stage)
    return TransformerBlockSubmodules(
        layer_specs=_all_layers(config)[first : first + count], layer_norm=_norm()
    )


def mtp_spec(
    config: TransformerConfig, vp_stage: int | None = None
) -> MultiTokenPredictionBlockSubmodules | None:
    """Return the specs of the prediction depths; None where this rank builds none.

    A depth's transformer layer is of the kind of the decoder's last one, as in DeepSeek-V3.
    """
    depths = get_mtp_num_layers_to_build(config, vp_stage)
    if not depths:
        return None
    last = _all_layers(config)[-1]
    if accelerator.has_transformer_engine():
        layer = get_mtp_layer_spec(last, use_transformer_engine=True)
    else:
        layer = torch_layers.mtp_layer_spec(last)
    layer.module = MtpLayer
    return MultiTokenPredictionBlockSubmodules(layer_specs=[layer] * depths)


def module_build_context() -> AbstractContextManager[None]:
    """Return the context in which modules are built from these specs."""
    if accelerator.has_transformer_engine():
        return nullcontext()
    return torch_layers.accepted_by_latent_attention()


def _all_layers(config: TransformerConfig) -> list[ModuleSpec]:
    if accelerator.has_transformer_engine():
        layers = get_gpt_decoder_layer_specs(config, use_transformer_engine=True)
    else:
        layers = torch_layers.layer_specs(config)
    sigmoid = config.moe_router_score_function == "sigmoid"
    for layer in layers:
        experts = layer.submodules.mlp.submodules
        if isinstance(experts, MoESubmodules):
            experts.router = SigmoidRouter if sigmoid else SoftmaxRouter
    return layers


def _norm() -> type:
    if accelerator.has_transformer_engine():
        from megatron.core.extensions.transformer_engine import TENorm

        return TENorm
    return torch_layers.RMSNorm
