"""What grouped-query models have in common: Qwen, Llama, Mixtral and GLM-4.5."""

from __future__ import annotations

from typing import Any

from engine.models.families.trunk import trunk_arguments
from engine.models.family import HuggingFaceConfig, head_dim
from engine.models.rope import ROPE_TYPES, rope_settings


def shared_arguments(
    config: HuggingFaceConfig, *, partial_rotation: bool = False
) -> dict[str, Any]:
    """Keyword arguments of megatron's ``TransformerConfig`` that they share.

    Args:
        config: contents of ``config.json``.
        partial_rotation: whether the family rotates only a part of each head.

    Raises:
        RunError: a kind of rotary embedding that is not expressed here.
    """
    rope_settings(config, ROPE_TYPES, partial_rotation=partial_rotation)
    return {
        **trunk_arguments(config),
        "num_attention_heads": config["num_attention_heads"],
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": head_dim(config),
    }
