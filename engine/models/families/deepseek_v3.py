"""DeepSeek-V3 and R1: latent attention, sigmoid router with a bias for balance, MTP head.

Config keys as in DeepSeek's published ``config.json`` and transformers' ``DeepseekV3Config``.
Sources: DeepSeek-V3 technical report (arXiv 2412.19437), section 2; transformers'
``modeling_deepseek_v3`` (which drops the MTP head's weights; a checkpoint with
``num_nextn_predict_layers`` has them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.fine_grained_experts import (
    dense_and_sparse,
    expert_arguments,
    sigmoid_router,
)
from engine.models.families.latent_attention import attention_arguments
from engine.models.families.layer_rules import Place
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_interleave": True,
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Keyword arguments of megatron's ``MLATransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "init_method_std": config.get("initializer_range", 0.02),
        "mtp_num_layers": config.get("num_nextn_predict_layers") or None,
        **attention_arguments(config),
        **expert_arguments(config),
        **sigmoid_router(config),
    }


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Names and joins of every weight."""
    dense, sparse = dense_and_sparse(config)
    return [
        *layer_rules.outside_the_layers(config),
        *_layer(layer_rules.decoder_layers(dense), config, sparse=False),
        *_layer(layer_rules.decoder_layers(sparse), config, sparse=True),
        *layer_rules.prediction_head(
            config, lambda place: _layer(place, config, sparse=bool(sparse))
        ),
    ]


def _layer(place: Place, config: HuggingFaceConfig, *, sparse: bool) -> list[Rule]:
    attention = layer_rules.latent_attention(place, query_rank=config["q_lora_rank"])
    if not sparse:
        return [*attention, *layer_rules.dense_mlp(place)]
    shared = bool(config.get("n_shared_experts"))
    count = config["n_routed_experts"]
    return [*attention, *layer_rules.experts(place, count, bias=True, shared=shared)]


FAMILY = Family("deepseek_v3", architecture, rules)
