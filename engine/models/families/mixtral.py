"""Mixtral 8x7B and 8x22B: grouped-query attention, softmax over the chosen experts only.

Config keys as in transformers' ``MixtralConfig``. Sources: Mixtral of Experts (arXiv 2401.04088),
section 2; transformers' ``modeling_mixtral``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.shared_architecture import shared_arguments, softmax_router
from engine.models.family import Family, FeedForwardNames, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {"hidden_act": "silu", "sliding_window": None, "router_jitter_noise": 0.0}
"""Values that the rules below take for granted."""

_NAMES = FeedForwardNames("block_sparse_moe.", gate="w1", up="w3", down="w2")


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {
        **shared_arguments(config),
        "num_moe_experts": config["num_local_experts"],
        "moe_ffn_hidden_size": config["intermediate_size"],
        **softmax_router(config, normalise=True),
    }


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    layers = layer_rules.decoder_layers(range(config["num_hidden_layers"]))
    return [
        *layer_rules.outside_the_layers(config),
        *layer_rules.grouped_query_attention(layers, config),
        *layer_rules.experts(layers, config["num_local_experts"], names=_NAMES),
    ]


FAMILY = Family("mixtral", architecture, rules, _NAMES)
