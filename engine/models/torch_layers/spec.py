"""The decoder's layer spec without Transformer Engine.

Module names and checkpoint keys are those of the Transformer Engine spec, so that either loads the
other's checkpoints: there a norm that precedes a column-parallel linear is fused into it.
"""

from __future__ import annotations

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_mlp_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from engine.models.torch_layers.attention import PackedAttention
from engine.models.torch_layers.norm import RMSNorm


def decoder_spec(config: TransformerConfig, vp_stage: int | None) -> TransformerBlockSubmodules:
    """Specs of the layers that this pipeline stage builds."""
    first = get_transformer_layer_offset(config, vp_stage)
    layers = range(first, first + get_num_layers_to_build(config, vp_stage))
    return TransformerBlockSubmodules(
        layer_specs=[_layer(config, experts=_is_moe(config, layer)) for layer in layers],
        layer_norm=RMSNorm,
    )


def _is_moe(config: TransformerConfig, layer: int) -> bool:
    if config.num_moe_experts is None:
        return False
    frequency = config.moe_layer_freq
    return bool(frequency[layer]) if isinstance(frequency, list) else layer % frequency == 0


def _layer(config: TransformerConfig, experts: bool) -> ModuleSpec:
    keys = {"input_layernorm.": "self_attention.linear_qkv.layer_norm_"}
    if not experts:
        keys["pre_mlp_layernorm."] = "mlp.linear_fc1.layer_norm_"
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=_attention(config),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=get_mlp_module_spec_for_backend(
                LocalSpecProvider(), num_experts=config.num_moe_experts if experts else None
            ),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=keys,
        ),
    )


def _attention(config: TransformerConfig) -> ModuleSpec:
    backend = LocalSpecProvider()
    qk_norm = RMSNorm if config.qk_layernorm else IdentityOp
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=backend.column_parallel_linear(),
            core_attention=PackedAttention,
            linear_proj=backend.row_parallel_linear(),
            q_layernorm=qk_norm,
            k_layernorm=qk_norm,
        ),
    )
