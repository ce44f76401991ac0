"""Qwen2 and Qwen2.5: grouped-query attention with biases on query, key and value, dense SwiGLU.

Config keys as in transformers' ``Qwen2Config``. Sources: Qwen2 technical report
(arXiv 2407.10671), section 2; transformers' ``modeling_qwen2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.shared_architecture import shared_arguments
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {"hidden_act": "silu", "use_sliding_window": False}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {**shared_arguments(config), "add_qkv_bias": True}


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    layers = layer_rules.decoder_layers(range(config["num_hidden_layers"]))
    return [
        *layer_rules.outside_the_layers(config),
        *layer_rules.grouped_query_attention(layers, config, bias=True),
        *layer_rules.dense_mlp(layers),
    ]


FAMILY = Family("qwen2", architecture, rules)
