"""Qwen3-MoE: grouped-query attention with QK-norm, softmax top-k router, SwiGLU experts.

Config keys as in transformers' ``Qwen3MoeConfig``. Sources: Qwen3 technical report
(arXiv 2505.09388), section 2; transformers' ``modeling_qwen3_moe``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config.model_sizes import model_sizes
from engine.models.families import layer_rules
from engine.models.families.shared_architecture import shared_arguments, softmax_router
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "hidden_act": "silu",
    "attention_bias": False,
    "use_sliding_window": False,
}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {
        **shared_arguments(config),
        "qk_layernorm": True,
        "num_moe_experts": experts(config),
        "moe_ffn_hidden_size": config["moe_intermediate_size"],
        **softmax_router(config, normalise=config["norm_topk_prob"]),
    }


def experts(config: HuggingFaceConfig) -> int:
    """Return the number of routed experts.

    Raises:
        KeyError: ``config.json`` does not say it.
    """
    if not (count := model_sizes(config).experts):
        raise KeyError("num_experts")
    return count


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    layers = layer_rules.decoder_layers(range(config["num_hidden_layers"]))
    return [
        *layer_rules.outside_the_layers(config),
        *layer_rules.grouped_query_attention(layers, config, qk_norm=True),
        *layer_rules.experts(layers, experts(config)),
    ]


FAMILY = Family("qwen3_moe", architecture, rules)
