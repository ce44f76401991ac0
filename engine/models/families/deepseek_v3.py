"""DeepSeek-V3 and R1: latent attention, sigmoid router with a bias for balance, MTP head.

Config keys as in DeepSeek's published ``config.json`` and transformers' ``DeepseekV3Config``.
Sources: DeepSeek-V3 technical report (arXiv 2412.19437), section 2; transformers'
``modeling_deepseek_v3`` (which drops the MTP head's weights; a checkpoint with
``num_nextn_predict_layers`` has them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import RunError
from engine.models.families import layer_rules
from engine.models.families.layer_rules import Place
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.rope import rope_settings, yarn_arguments
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

BIAS_UPDATE_RATE = 0.001
"""By how much an update moves the bias of an expert: gamma in section 4.2 of the report."""


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
        "mtp_num_layers": mtp_depths(config) or None,
        **_attention(config),
        **_experts(config),
    }


def _attention(config: HuggingFaceConfig) -> dict[str, Any]:
    rope = rope_settings(config, ("default", "yarn"))
    return {
        "multi_latent_attention": True,
        "num_attention_heads": config["num_attention_heads"],
        "q_lora_rank": config["q_lora_rank"],
        "kv_lora_rank": config["kv_lora_rank"],
        "qk_head_dim": config["qk_nope_head_dim"],
        "qk_pos_emb_head_dim": config["qk_rope_head_dim"],
        "v_head_dim": config["v_head_dim"],
        "qk_layernorm": True,
        "rotary_base": rope["rope_theta"],
        **(yarn_arguments(rope) if rope["rope_type"] == "yarn" else {"rope_type": "rope"}),
    }


def _experts(config: HuggingFaceConfig) -> dict[str, Any]:
    routed, groups, kept = (config[key] for key in ("n_routed_experts", "n_group", "topk_group"))
    chosen = config["num_experts_per_tok"]
    if routed % groups or kept > groups or chosen > kept * routed // groups:
        raise RunError(
            f"model: config.json wants {chosen} of {routed} experts from {kept} of {groups} groups"
        )
    dense = config["first_k_dense_replace"]
    shared = config["moe_intermediate_size"] * (config.get("n_shared_experts") or 0)
    return {
        "num_moe_experts": routed,
        "moe_layer_freq": [int(n >= dense) for n in range(config["num_hidden_layers"])],
        "moe_ffn_hidden_size": config["moe_intermediate_size"],
        "moe_shared_expert_intermediate_size": shared or None,
        "moe_router_topk": chosen,
        "moe_router_num_groups": groups,
        "moe_router_group_topk": kept,
        "moe_router_score_function": "sigmoid",
        "moe_router_pre_softmax": not config["norm_topk_prob"],
        "moe_router_topk_scaling_factor": config["routed_scaling_factor"],
        "moe_router_enable_expert_bias": True,
        "moe_router_bias_update_rate": BIAS_UPDATE_RATE,
        "moe_router_load_balancing_type": "none",  # the bias balances; engine.models.balance adds
        "moe_aux_loss_coeff": config.get("aux_loss_alpha") or 0.0,
    }


def mtp_depths(config: HuggingFaceConfig) -> int:
    """Number of multi-token prediction depths."""
    return int(config.get("num_nextn_predict_layers") or 0)


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Names and joins of every weight."""
    layers, dense = config["num_hidden_layers"], config["first_k_dense_replace"]
    depths = [f"model.layers.{layers + depth}." for depth in range(mtp_depths(config))]
    first, rest = range(min(dense, layers)), range(min(dense, layers), layers)
    return [
        *layer_rules.outside_the_layers(
            config,
            embedding_copies=tuple(depth + "embed_tokens.weight" for depth in depths),
            head_copies=tuple(depth + "shared_head.head.weight" for depth in depths),
        ),
        *_latent_attention(layer_rules.decoder_layers(range(layers)), config),
        *layer_rules.dense_mlp(layer_rules.decoder_layers(first)),
        *_mixture(layer_rules.decoder_layers(rest), config),
        *(rule for n, name in enumerate(depths) for rule in _mtp_depth(n, name, config)),
    ]


def _mtp_depth(depth: int, there: str, config: HuggingFaceConfig) -> list[Rule]:
    here = f"mtp.layers.{depth}."
    place, layer = Place(here, there), Place(f"{here}transformer_layer.", there)
    last_is_dense = config["first_k_dense_replace"] >= config["num_hidden_layers"]
    return [
        place.rule("enorm.weight", "enorm.weight"),
        place.rule("hnorm.weight", "hnorm.weight"),
        place.rule("eh_proj.weight", "eh_proj.weight"),
        place.rule("final_layernorm.weight", "shared_head.norm.weight"),
        *_latent_attention(layer, config),
        *(layer_rules.dense_mlp(layer) if last_is_dense else _mixture(layer, config)),
    ]


def _latent_attention(place: Place, config: HuggingFaceConfig) -> list[Rule]:
    return layer_rules.latent_attention(place, query_rank=config["q_lora_rank"])


def _mixture(place: Place, config: HuggingFaceConfig) -> list[Rule]:
    shared = bool(config.get("n_shared_experts"))
    return layer_rules.experts(place, config["n_routed_experts"], bias=True, shared=shared)


FAMILY = Family("deepseek_v3", architecture, rules)
