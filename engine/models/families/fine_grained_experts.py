"""Arguments and weight rules of models with many small experts: DeepSeek's and GLM-4.5.

Routed experts, shared ones that every token visits, a few dense layers first, and a choice that
may be limited to some groups of experts. DeepSeekMoE (arXiv 2401.06066).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.config.model_sizes import ModelSizes, model_sizes
from engine.errors import RunError
from engine.models.families import layer_rules
from engine.models.families.layer_rules import WeightPrefix
from engine.models.family import HuggingFaceConfig
from engine.models.weight_rules import Rule

BIAS_UPDATE_RATE = 0.001
"""By how much an update moves an expert's bias: gamma in section 4.2 of arXiv 2412.19437."""


def expert_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig`` for experts, not for the router."""
    sizes = _sizes(config)
    return {
        "num_moe_experts": config["n_routed_experts"],
        "moe_layer_freq": [int(sizes.is_sparse(layer)) for layer in range(sizes.layers)],
        "moe_ffn_hidden_size": config["moe_intermediate_size"],
        "moe_shared_expert_intermediate_size": sizes.shared_columns or None,
        "moe_router_topk": config["num_experts_per_tok"],
        "moe_router_topk_scaling_factor": config["routed_scaling_factor"],
        "moe_router_load_balancing_type": "none",  # engine.models.balance does it
        "moe_aux_loss_coeff": config.get("aux_loss_alpha") or 0.0,
    }


def _sizes(config: HuggingFaceConfig) -> ModelSizes:
    """Return the sizes of such a model.

    Raises:
        KeyError: ``config.json`` lacks one that :func:`model_sizes` would take for 0.
    """
    for key in ("first_k_dense_replace", "n_routed_experts", "moe_intermediate_size"):
        config[key]
    return model_sizes(config)


def sigmoid_router(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments for DeepSeek-V3's router, ``engine.models.router.SigmoidRouter``.

    Raises:
        RunError: the groups cannot hold as many experts as a token wants.
    """
    return {
        **group_arguments(config),
        "moe_router_score_function": "sigmoid",
        "moe_router_pre_softmax": not config["norm_topk_prob"],
        "moe_router_enable_expert_bias": True,
        "moe_router_bias_update_rate": BIAS_UPDATE_RATE,
    }


def group_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments for a choice limited to some groups of experts.

    Raises:
        RunError: the groups cannot hold as many experts as a token wants.
    """
    routed, groups, kept = (config[key] for key in ("n_routed_experts", "n_group", "topk_group"))
    chosen = config["num_experts_per_tok"]
    if routed % groups or kept > groups or chosen > kept * routed // groups:
        raise RunError(
            f"model: config.json wants {chosen} of {routed} experts from {kept} of {groups} groups"
        )
    return {"moe_router_num_groups": groups, "moe_router_group_topk": kept}


def decoder_rules(
    config: HuggingFaceConfig,
    attention: Callable[[WeightPrefix, HuggingFaceConfig], list[Rule]],
    *,
    router_bias: bool,
) -> list[Rule]:
    """Return the rules of every weight: a few dense layers, sparse ones, any prediction head.

    Args:
        config: contents of ``config.json``.
        attention: makes the rules of the attention below a prefix.
        router_bias: whether the router has DeepSeek-V3's bias for balance.
    """

    sizes = _sizes(config)

    def layer(prefix: WeightPrefix, sparse: bool) -> list[Rule]:
        if not sparse:
            return [*attention(prefix, config), *layer_rules.dense_mlp(prefix)]
        shared = sizes.shared_columns > 0
        experts = layer_rules.experts(prefix, sizes.experts, bias=router_bias, shared=shared)
        return [*attention(prefix, config), *experts]

    layers = range(sizes.layers)
    dense, sparse = layers[: sizes.dense_layers], layers[sizes.dense_layers :]
    return [
        *layer_rules.outside_the_layers(config),
        *layer(layer_rules.decoder_layers(dense), False),
        *layer(layer_rules.decoder_layers(sparse), True),
        *layer_rules.prediction_head(config, lambda prefix: layer(prefix, bool(sparse))),
    ]
