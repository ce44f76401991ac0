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
    decoder_rules,
    expert_arguments,
    sigmoid_router,
)
from engine.models.families.shared_architecture import attention_arguments, trunk_arguments
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
    """Return the arguments of megatron's ``MLATransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {
        **trunk_arguments(config),
        "mtp_num_layers": config.get("num_nextn_predict_layers") or None,
        **attention_arguments(config),
        **expert_arguments(config),
        **sigmoid_router(config),
    }


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    return decoder_rules(config, layer_rules.latent_attention, router_bias=True)


FAMILY = Family("deepseek_v3", architecture, rules)
