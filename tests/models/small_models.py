"""Small models of every family, with odd shapes: no two sizes are equal by chance."""

from __future__ import annotations

from typing import Any

SAMPLES = (7, 1, 13, 24, 5, 12)
"""Positions of the samples that are packed into a row."""

_COMMON = {
    "vocab_size": 67,
    "hidden_size": 44,
    "num_hidden_layers": 3,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
}
_GROUPED = {
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 58,
}
_NO_HEAD = {"num_nextn_predict_layers": 0}
"""Newer transformers (5.17) assume one, and neither compute nor store it."""
_LATENT = {
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "intermediate_size": 58,
    "moe_intermediate_size": 26,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    **_NO_HEAD,
}
_LATENT_V2 = {
    **_LATENT,
    "hidden_size": 42,  # transformers wants a multiple of the heads
    "topk_method": "greedy",
    "norm_topk_prob": False,
}
_GLM = {
    "intermediate_size": 58,
    "moe_intermediate_size": 26,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "attention_bias": True,
    "use_qk_norm": True,
    "first_k_dense_replace": 1,
    "n_routed_experts": 9,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "n_group": 3,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    **_NO_HEAD,
}
_MIXTRAL = {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}
_QWEN3_MOE = {"head_dim": 10, "num_experts": 7, "num_experts_per_tok": 3}


def _theta(theta: float, **settings: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **settings}}


def _yarn(factor: float, **settings: float) -> dict[str, Any]:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor}
    trained = {"original_max_position_embeddings": 16, "beta_fast": 4, "beta_slow": 1}
    return {"rope_parameters": {**rope, **trained, **settings}}


def _groups(experts: int, groups: int, kept: int, chosen: int) -> dict[str, int]:
    return {
        "n_routed_experts": experts,
        "n_group": groups,
        "topk_group": kept,
        "num_experts_per_tok": chosen,
    }


_LLAMA3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 200.0,
        "factor": 5.0,
        "low_freq_factor": 1.5,
        "high_freq_factor": 6.0,
        "original_max_position_embeddings": 90,
    }
}

MODELS: dict[str, dict[str, Any]] = {
    "deepseek_v3, plain rope": {"model_type": "deepseek_v3", **_LATENT, **_theta(5000.0)},
    "deepseek_v3, yarn, 1 of 2 groups": {
        "model_type": "deepseek_v3",
        **_LATENT,
        **_yarn(4.0, mscale=1.0, mscale_all_dim=1.0),
        **_groups(8, 2, 1, 2),
    },
    "deepseek_v3, yarn without mscale_all_dim, 2 of 4 groups": {
        "model_type": "deepseek_v3",
        **_LATENT,
        **_yarn(4.0, mscale=0.7, mscale_all_dim=0.0),
        **_groups(12, 4, 2, 3),
    },
    "deepseek_v3, yarn with two mscales, no query rank, scores as they are": {
        "model_type": "deepseek_v3",
        **_LATENT,
        **_yarn(40.0, mscale=0.7, mscale_all_dim=0.5),
        **_groups(12, 4, 3, 5),
        "q_lora_rank": None,
        "norm_topk_prob": False,
    },
    "deepseek_v3, one expert of 3 groups, another epsilon": {
        "model_type": "deepseek_v3",
        **_LATENT,
        **_theta(10000.0),
        **_groups(9, 3, 2, 1),
        "rms_norm_eps": 1e-3,
        "routed_scaling_factor": 1.0,
    },
    "deepseek_v2, greedy, no query rank": {
        "model_type": "deepseek_v2",
        **_LATENT_V2,
        **_theta(10000.0),
        "n_routed_experts": 7,
        "num_experts_per_tok": 3,
        "q_lora_rank": None,
        "routed_scaling_factor": 1.0,
    },
    "deepseek_v2, yarn, 2 of 4 groups": {
        "model_type": "deepseek_v2",
        **_LATENT_V2,
        **_yarn(40.0, mscale=0.7, mscale_all_dim=0.7),
        **_groups(12, 4, 2, 5),
        "topk_method": "group_limited_greedy",
        "routed_scaling_factor": 16.0,
    },
    "deepseek_v2, yarn with two mscales, 1 of 3 groups": {
        "model_type": "deepseek_v2",
        **_LATENT_V2,
        **_yarn(4.0, mscale=1.0, mscale_all_dim=0.5),
        **_groups(9, 3, 1, 2),
        "topk_method": "group_limited_greedy",
        "n_shared_experts": 1,
    },
    "glm4_moe": {"model_type": "glm4_moe", **_GLM, **_theta(1e6, partial_rotary_factor=0.5)},
    "glm4_moe, no biases, no norms, a third turns, two dense layers": {
        "model_type": "glm4_moe",
        **_GLM,
        **_theta(1e4, partial_rotary_factor=0.34),
        "first_k_dense_replace": 2,
        "n_group": 1,
        "topk_group": 1,
        "attention_bias": False,
        "use_qk_norm": False,
    },
    "mixtral": {"model_type": "mixtral", **_GROUPED, **_MIXTRAL, **_theta(1e6), "head_dim": 8},
    "mixtral, tied, 4 of 5": {
        "model_type": "mixtral",
        **_GROUPED,
        **_MIXTRAL,
        **_theta(1e4),
        "hidden_size": 48,
        "num_experts_per_tok": 4,
        "tie_word_embeddings": True,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **_GROUPED,
        **_QWEN3_MOE,
        **_theta(1e6),
        "moe_intermediate_size": 26,
        "norm_topk_prob": True,
    },
    "qwen3_moe, scores as they are, tied": {
        "model_type": "qwen3_moe",
        **_GROUPED,
        **_QWEN3_MOE,
        **_theta(1e4),
        "moe_intermediate_size": 26,
        "norm_topk_prob": False,
        "tie_word_embeddings": True,
    },
    "qwen3": {"model_type": "qwen3", **_GROUPED, **_theta(1e6), "head_dim": 12},
    "qwen2": {"model_type": "qwen2", **_GROUPED, **_theta(1e6), "hidden_size": 48},
    "qwen2, tied": {
        "model_type": "qwen2",
        **_GROUPED,
        **_theta(1e4),
        "hidden_size": 60,
        "tie_word_embeddings": True,
    },
    "llama, stretched": {
        "model_type": "llama",
        **_GROUPED,
        **_LLAMA3,
        "hidden_size": 42,
        "head_dim": 16,
    },
    "qwen3, yarn of DeepSeek-R1-0528-Qwen3-8B": {
        "model_type": "qwen3",
        **_GROUPED,
        **_yarn(4.0, attn_factor=0.8782488562869419),
        "head_dim": 12,
    },
    "qwen2, yarn, attention factor, no truncation, rope_scaling of old": {
        "model_type": "qwen2",
        **_GROUPED,
        "hidden_size": 48,
        "rope_theta": 3e4,
        "rope_scaling": {
            "type": "yarn",
            "factor": 2.5,
            "attention_factor": 1.3,
            "truncate": False,
            "original_max_position_embeddings": 14,
            "beta_fast": 3,
        },
    },
    "qwen3_moe, yarn with two mscales": {
        "model_type": "qwen3_moe",
        **_GROUPED,
        **_QWEN3_MOE,
        **_yarn(8.0, mscale=1.4, mscale_all_dim=0.6),
        "moe_intermediate_size": 26,
        "norm_topk_prob": True,
    },
    "glm4_moe, yarn, half of a head turns": {
        "model_type": "glm4_moe",
        **_GLM,
        **_yarn(6.0, partial_rotary_factor=0.5),
    },
    "llama, linear": {
        "model_type": "llama",
        **_GROUPED,
        "hidden_size": 36,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "llama, tied": {
        "model_type": "llama",
        **_GROUPED,
        **_theta(5e5),
        "hidden_size": 36,
        "tie_word_embeddings": True,
    },
}
MODELS = {name: {**_COMMON, **settings} for name, settings in MODELS.items()}
"""Name of the case -> contents of its ``config.json``."""

PREDICTING = {
    "one depth of glm4_moe": ("glm4_moe", 1),
    "one depth": ("deepseek_v3, yarn, 1 of 2 groups", 1),
    "two depths, no query rank": (
        "deepseek_v3, yarn with two mscales, no query rank, scores as they are",
        2,
    ),
}
"""Name of the case -> its model and the number of multi-token prediction depths on top."""

CLASSIFIERS = (
    "qwen2",
    "qwen2, tied",
    "qwen3",
    "llama, tied",
    "qwen3_moe",
    "qwen3_moe, scores as they are, tied",
    "mixtral",
    "deepseek_v2, greedy, no query rank",
    "deepseek_v3, plain rope",
)
"""Of MODELS, those that transformers has a sequence classification class for."""
