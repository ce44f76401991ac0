"""Arguments of megatron's config that several families share: trunk, attention, softmax router."""

from __future__ import annotations

from typing import Any

from engine.config.model_sizes import model_sizes
from engine.errors import RunError
from engine.models.config_json import quoted
from engine.models.family import HuggingFaceConfig
from engine.models.rope_settings import GROUPED, LATENT, rope_settings, yarn_arguments


def trunk_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig`` that all families take alike.

    Raises:
        RunError: layers of several kinds, or sizes that do not go together.
    """
    _check_layer_types(config)
    _check_sizes(config)
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "init_method_std": config.get("initializer_range", 0.02),
    }


def _check_layer_types(config: HuggingFaceConfig) -> None:
    """Refuse ``layer_types`` that says otherwise than ``num_hidden_layers`` layers of one kind."""
    types, layers = config.get("layer_types"), config["num_hidden_layers"]
    if types is None:
        return
    if not isinstance(types, list) or len(types) != layers:
        count = len(types) if isinstance(types, list) else quoted(types)
        raise RunError(
            f"model: config.json has layer_types for {count} layers, expected one for each of "
            f"num_hidden_layers {layers}"
        )
    for layer, kind in enumerate(types):
        if kind != "full_attention":
            raise RunError(
                f"model: config.json has layer_types {quoted(kind)} for layer {layer}, only "
                "'full_attention' is known"
            )


def _check_sizes(config: HuggingFaceConfig) -> None:
    sizes = model_sizes(config)
    if sizes.groups and sizes.heads % sizes.groups:
        raise RunError(
            f"model: config.json has num_attention_heads {sizes.heads}, expected a multiple of "
            f"num_key_value_heads {sizes.groups}"
        )
    if sizes.chosen_experts > sizes.experts:
        raise RunError(
            f"model: config.json has num_experts_per_tok {sizes.chosen_experts}, expected at most "
            f"the number of experts {sizes.experts}"
        )


def shared_arguments(
    config: HuggingFaceConfig, *, partial_rotation: bool = False
) -> dict[str, Any]:
    """Return megatron's arguments for the trunk and grouped-query attention.

    Args:
        config: contents of ``config.json``.
        partial_rotation: whether the family rotates only a part of each head.

    Raises:
        RunError: a kind of rotary embedding that is not expressed here.
    """
    rope_settings(config, GROUPED, partial_rotation=partial_rotation)
    return {
        **trunk_arguments(config),
        "num_attention_heads": config["num_attention_heads"],
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": model_sizes(config).query_channels,
    }


def attention_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``MLATransformerConfig`` for latent attention.

    Raises:
        RunError: a kind of rotary embedding that is not expressed here.
    """
    rope = rope_settings(config, LATENT)
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


def softmax_router(config: HuggingFaceConfig, *, normalise: bool) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig`` for a softmax router.

    Args:
        config: contents of ``config.json``.
        normalise: whether the weights of a token's experts add up to one.

    Raises:
        RunError: one expert is chosen and its weight is always one, which megatron refuses: its
            router would never learn.
    """
    chosen = config["num_experts_per_tok"]
    if chosen == 1 and normalise:
        raise RunError("model: config.json has num_experts_per_tok 1, and its weight is always 1")
    return {
        "moe_router_topk": chosen,
        "moe_router_score_function": "softmax",
        # Softmax over the chosen experts only equals softmax over all, then normalised over them.
        "moe_router_pre_softmax": not normalise,
        "moe_router_load_balancing_type": "none",  # engine.models.balance does it
        "moe_aux_loss_coeff": config.get("router_aux_loss_coef", 0.001),
    }
