"""Qwen3-MoE: grouped-query attention with QK-norm, softmax top-k router, SwiGLU experts.

Config keys as in transformers' ``Qwen3MoeConfig``. Sources: Qwen3 technical report
(arXiv 2505.09388), section 2; transformers' ``modeling_qwen3_moe``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import RunError
from engine.models.family import Family, HuggingFaceConfig
from engine.models.weight_rules import GateUp, GroupedQkv, Rule, Same

_EXPRESSED = {"decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu"}
"""Values that the rules below take for granted."""


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Keyword arguments of megatron's ``TransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    for key, known in _EXPRESSED.items():
        if config.get(key, known) not in (known, None):
            raise RunError(f"model: config.json has {key} {config[key]!r}, only {known!r} is known")
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
    return [
        *_outside_the_layers(config),
        *_attention(config),
        *_experts(config),
    ]


def _outside_the_layers(config: HuggingFaceConfig) -> list[Rule]:
    found = [
        Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",)),
        Rule("decoder.final_layernorm.weight", ("model.norm.weight",)),
    ]
    if not config.get("tie_word_embeddings", False):
        found.append(Rule("output_layer.weight", ("lm_head.weight",)))
    return found


def _attention(config: HuggingFaceConfig) -> list[Rule]:
    layers = range(config["num_hidden_layers"])
    here, there = "decoder.layers.{layer}.self_attention.", "model.layers.{layer}.self_attn."
    qkv = GroupedQkv(
        config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    )
    same = {
        "linear_qkv.layer_norm_weight": "model.layers.{layer}.input_layernorm.weight",
        "q_layernorm.weight": there + "q_norm.weight",
        "k_layernorm.weight": there + "k_norm.weight",
        "linear_proj.weight": there + "o_proj.weight",
    }
    kinds = ["weight", "bias"] if config.get("attention_bias", False) else ["weight"]
    projections = {kind: tuple(f"{there}{name}_proj.{kind}" for name in "qkv") for kind in kinds}
    return [
        *(Rule(here + ours, (theirs,), layers=layers) for ours, theirs in same.items()),
        *(Rule(f"{here}linear_qkv.{kind}", projections[kind], qkv, layers) for kind in kinds),
    ]


def _experts(config: HuggingFaceConfig) -> list[Rule]:
    layers, count = range(config["num_hidden_layers"]), experts(config)
    here, there = "decoder.layers.{layer}.", "model.layers.{layer}."
    ours, theirs = here + "mlp.experts.experts.", there + "mlp.experts.{expert}."
    gate_up = (theirs + "gate_proj.weight", theirs + "up_proj.weight")
    down = (theirs + "down_proj.weight",)
    norm = (there + "post_attention_layernorm.weight",)
    return [
        Rule(here + "pre_mlp_layernorm.weight", norm, layers=layers),
        Rule(here + "mlp.router.weight", (there + "mlp.gate.weight",), layers=layers),
        Rule(ours + "linear_fc1.weight", gate_up, GateUp(), layers, count),
        Rule(ours + "linear_fc2.weight", down, Same(), layers, count),
    ]


FAMILY = Family("qwen3_moe", architecture, rules)
