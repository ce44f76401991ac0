"""Llama 3: grouped-query attention, dense SwiGLU, rotary embedding stretched for long contexts.

Config keys as in transformers' ``LlamaConfig``. Sources: The Llama 3 herd of models
(arXiv 2407.21783), section 3.2; transformers' ``modeling_llama``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.shared_architecture import shared_arguments
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return shared_arguments(config)


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    layers = layer_rules.decoder_layers(range(config["num_hidden_layers"]))
    return [
        *layer_rules.outside_the_layers(config),
        *layer_rules.grouped_query_attention(layers, config),
        *layer_rules.dense_mlp(layers),
    ]


FAMILY = Family("llama", architecture, rules)
