"""GLM-4.5, Air too: grouped-query attention rotated in part, DeepSeek-V3's router, MTP head.

Config keys as in transformers' ``Glm4MoeConfig``. Sources: GLM-4.5 (arXiv 2508.06471), section 2.1;
transformers' ``modeling_glm4_moe`` (which drops the MTP head's weights) and SGLang's
``glm4_moe_nextn``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.families import layer_rules
from engine.models.families.fine_grained_experts import (
    decoder_rules,
    expert_arguments,
    sigmoid_router,
)
from engine.models.families.layer_rules import WeightPrefix
from engine.models.families.shared_architecture import shared_arguments
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.rope_settings import rotated_part
from engine.models.weight_rules import Rule

_EXPRESSED = {"hidden_act": "silu", "tie_word_embeddings": False}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
        KeyError: ``config.json`` does not say which part of a head is rotated.
    """
    check_expressed(config, _EXPRESSED)
    if rotated_part(config) is None:
        raise KeyError("partial_rotary_factor")  # without it tools differ: a half, or all
    return {
        **shared_arguments(config, partial_rotation=True),
        **expert_arguments(config),
        **sigmoid_router(config),
        "add_qkv_bias": bool(config.get("attention_bias")),
        "qk_layernorm": bool(config.get("use_qk_norm")),
        "mtp_num_layers": config.get("num_nextn_predict_layers") or None,
    }


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    return decoder_rules(config, _attention, router_bias=True)


def _attention(prefix: WeightPrefix, config: HuggingFaceConfig) -> list[Rule]:
    return layer_rules.grouped_query_attention(
        prefix,
        config,
        bias=bool(config.get("attention_bias")),
        qk_norm=bool(config.get("use_qk_norm")),
    )


FAMILY = Family("glm4_moe", architecture, rules)
