"""Qwen3: grouped-query attention with QK-norm, dense SwiGLU.

Config keys as in transformers' ``Qwen3Config``. Sources: Qwen3 technical report
(arXiv 2505.09388), section 2; transformers' ``modeling_qwen3``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.shared_architecture import shared_arguments
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {**shared_arguments(config), "qk_layernorm": True}


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    layers = layer_rules.decoder_layers(range(config["num_hidden_layers"]))
    return [
        *layer_rules.outside_the_layers(config),
        *layer_rules.grouped_query_attention(layers, config, qk_norm=True),
        *layer_rules.dense_mlp(layers),
    ]


FAMILY = Family("qwen3", architecture, rules)
