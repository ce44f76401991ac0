"""Layer specs for the path without Transformer Engine.

Module names and checkpoint keys are those of the Transformer Engine specs, so that either loads the
other's checkpoints: there a norm that precedes a column-parallel linear is fused into it.
"""

from __future__ import annotations

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_mlp_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.multi_latent_attention import (
    MLASelfAttention,
    MLASelfAttentionSubmodules,
)
from megatron.core.transformer.multi_token_prediction import (
    MultiTokenPredictionLayer,
    MultiTokenPredictionLayerSubmodules,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from engine.models.torch_layers.attention import PackedAttention
from engine.models.torch_layers.experts import GroupedSpecProvider
from engine.models.torch_layers.norm import RMSNorm
from engine.models.torch_layers.replicated_linear import ReplicatedLinear


def layer_specs(config: TransformerConfig) -> list[ModuleSpec]:
    """Return the specs of all layers of the model, dense or with experts."""
    frequency = config.moe_layer_freq
    dense, sparse = _layer(config, experts=False), _layer(config, experts=True)
    if config.num_moe_experts is None:
        return [dense] * config.num_layers
    if isinstance(frequency, int):
        frequency = [int(layer % frequency == 0) for layer in range(config.num_layers)]
    return [sparse if experts else dense for experts in frequency]


def mtp_layer_spec(layer: ModuleSpec) -> ModuleSpec:
    """Return the spec of a multi-token prediction depth whose transformer layer is ``layer``."""
    return ModuleSpec(
        module=MultiTokenPredictionLayer,
        submodules=MultiTokenPredictionLayerSubmodules(
            enorm=RMSNorm,
            hnorm=RMSNorm,
            eh_proj=LocalSpecProvider().column_parallel_linear(),
            transformer_layer=layer,
            layer_norm=RMSNorm,
        ),
    )


def _layer(config: TransformerConfig, experts: bool) -> ModuleSpec:
    latent = config.multi_latent_attention
    attention = _latent_attention() if latent else _grouped_query_attention(config)
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=get_mlp_module_spec_for_backend(
                GroupedSpecProvider() if config.moe_grouped_gemm else LocalSpecProvider(),
                num_experts=config.num_moe_experts if experts else None,
            ),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=_fused_names(latent, experts),
        ),
    )


def _fused_names(latent: bool, experts: bool) -> dict[str, str]:
    """Return our prefix of a norm's key -> its prefix in Transformer Engine's fused linear."""
    attention = "self_attention."
    if latent:
        keys = {
            f"{attention}q_layernorm.": f"{attention}linear_q_up_proj.layer_norm_",
            f"{attention}kv_layernorm.": f"{attention}linear_kv_up_proj.layer_norm_",
        }
    else:
        keys = {"input_layernorm.": f"{attention}linear_qkv.layer_norm_"}
    if not experts:
        keys["pre_mlp_layernorm."] = "mlp.linear_fc1.layer_norm_"
    return keys


def _grouped_query_attention(config: TransformerConfig) -> ModuleSpec:
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


def _latent_attention() -> ModuleSpec:
    backend = LocalSpecProvider()
    return ModuleSpec(
        module=MLASelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=MLASelfAttentionSubmodules(
            linear_q_proj=backend.column_parallel_linear(),
            linear_q_down_proj=ReplicatedLinear,
            linear_q_up_proj=backend.column_parallel_linear(),
            linear_kv_down_proj=ReplicatedLinear,
            linear_kv_up_proj=backend.column_parallel_linear(),
            core_attention=PackedAttention,
            linear_proj=backend.row_parallel_linear(),
            q_layernorm=RMSNorm,
            kv_layernorm=RMSNorm,
        ),
    )
