"""Qwen3-MoE: grouped-query attention with QK-norm, softmax top-k router, SwiGLU experts.

Config keys as in transformers' ``Qwen3MoeConfig``. Sources: Qwen3 technical report
(arXiv 2505.09388), section 2; transformers' ``modeling_qwen3_moe``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import RunError
from engine.models.family import Family, HuggingFaceConfig
from engine.models.weight_rules import GateUp, GroupedQkv, Rule


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Keyword arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    for key, expected in {"decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu"}.items():
        if config.get(key, expected) not in (expected, None):
            raise RunError(f"model: config.json has {key} {config[key]!r}; only {expected!r} is known")
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "qk_layernorm": True,
        "add_qkv_bias": bool(config.get("attention_bias", False)),
        "layernorm_epsilon": config["rms_norm_eps"],
        "init_method_std": config.get("initializer_range", 0.02),
        "num_moe_experts": experts(config),
        "moe_ffn_hidden_size": config["moe_intermediate_size"],
        "moe_router_topk": config["num_experts_per_tok"],
        "moe_router_score_function": "softmax",
        # Softmax over the chosen experts only equals softmax over all, then normalised over them.
        "moe_router_pre_softmax": not config["norm_topk_prob"],
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": config.get("router_aux_loss_coef", 0.001),
    }


def experts(config: HuggingFaceConfig) -> int:
    """Number of routed experts: ``num_experts`` as published, transformers 5 writes another key."""
    return int(config.get("num_experts") or config["num_local_experts"])


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Names and joins of every weight."""
    layers, count = range(config["num_hidden_layers"]), experts(config)
    qkv = GroupedQkv(
        config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    )
    here, there = "decoder.layers.{layer}.", "model.layers.{layer}."
    attention, expert = there + "self_attn.", there + "mlp.experts.{expert}."

    def projections(kind: str) -> tuple[str, ...]:
        return tuple(f"{attention}{name}_proj.{kind}" for name in "qkv")

    listed = [
        Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",)),
        Rule("decoder.final_layernorm.weight", ("model.norm.weight",)),
        Rule(here + "self_attention.linear_qkv.layer_norm_weight", (there + "input_layernorm.weight",), layers=layers),
        Rule(here + "self_attention.linear_qkv.weight", projections("weight"), qkv, layers),
        Rule(here + "self_attention.q_layernorm.weight", (attention + "q_norm.weight",), layers=layers),
        Rule(here + "self_attention.k_layernorm.weight", (attention + "k_norm.weight",), layers=layers),
        Rule(here + "self_attention.linear_proj.weight", (attention + "o_proj.weight",), layers=layers),
        Rule(here + "pre_mlp_layernorm.weight", (there + "post_attention_layernorm.weight",), layers=layers),
        Rule(here + "mlp.router.weight", (there + "mlp.gate.weight",), layers=layers),
        Rule(
            here + "mlp.experts.experts.linear_fc1.weight",
            (expert + "gate_proj.weight", expert + "up_proj.weight"),
            GateUp(),
            layers,
            count,
        ),
        Rule(
            here + "mlp.experts.experts.linear_fc2.weight",
            (expert + "down_proj.weight",),
            layers=layers,
            experts=count,
        ),
    ]
    if config.get("attention_bias", False):
        listed.append(Rule(here + "self_attention.linear_qkv.bias", projections("bias"), qkv, layers))
    if not config.get("tie_word_embeddings", False):
        listed.append(Rule("output_layer.weight", ("lm_head.weight",)))
    return listed


FAMILY = Family("qwen3_moe", architecture, rules)
