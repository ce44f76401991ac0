"""What models with multi-head latent attention have in common: DeepSeek-V2 and V3.

DeepSeek-V2 (arXiv 2405.04434), section 2.1.
"""

from __future__ import annotations

from typing import Any

from engine.models.family import HuggingFaceConfig
from engine.models.rope import rope_settings, yarn_arguments


def attention_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Keyword arguments of megatron's ``MLATransformerConfig`` for the attention.

    Raises:
        RunError: a kind of rotary embedding that is not expressed here.
    """
    rope = rope_settings(config, ("default", "yarn"))
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
