"""Configs of three small models with every kind of part: dense, MoE with GQA, MLA MoE with MTP.

Sizes are odd where layouts allow it, so that a mistake in a shape or an order cannot hide.
"""

from __future__ import annotations

from typing import Any

_COMMON = {
    "dtype": "float32",
    "vocab_size": 88,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.1,
    "max_position_embeddings": 256,
    "attention_bias": False,
}

DENSE: dict[str, Any] = {
    **_COMMON,
    "model_type": "qwen2",
    "intermediate_size": 88,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
GQA_MOE: dict[str, Any] = {
    **_COMMON,
    "model_type": "qwen3_moe",
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "router_aux_loss_coef": 0.02,
}
MLA_MOE: dict[str, Any] = {
    **_COMMON,
    "model_type": "deepseek_v3",
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 28,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": False,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "moe_intermediate_size": 40,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "aux_loss_alpha": 0.02,
    "num_nextn_predict_layers": 1,
}

MODELS = {"dense": DENSE, "moe gqa": GQA_MOE, "mla moe mtp": MLA_MOE}
