"""DeepSeek-V2, V2-Lite and the Coder-V2 models: latent attention, softmax router, shared experts.

Config keys as in DeepSeek's published ``config.json``. Sources: DeepSeek-V2 (arXiv 2405.04434),
section 2; its published ``modeling_deepseek``, and transformers' ``modeling_deepseek_v2``. The two
differ under YaRN: the published code, like SGLang, multiplies attention scores by the square of
mscale(factor, mscale_all_dim), transformers 5.12 does not. Here they are multiplied. Of the paper's
three losses for balance (section 2.2.3) there is the one between experts (``aux_loss_alpha``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import RunError
from engine.models.families import layer_rules
from engine.models.families.fine_grained_experts import (
    decoder_rules,
    expert_arguments,
    group_arguments,
)
from engine.models.families.shared_architecture import attention_arguments, trunk_arguments
from engine.models.family import Family, HuggingFaceConfig, check_expressed
from engine.models.weight_rules import Rule

_EXPRESSED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 0,
    "scoring_func": "softmax",
    # DeepSeek's code then leaves routed_scaling_factor out, transformers' never normalises.
    "norm_topk_prob": False,
}
"""Values that the rules below take for granted."""

_CHOICES = ("greedy", "group_limited_greedy")


def architecture(config: HuggingFaceConfig) -> dict[str, Any]:
    """Return the arguments of megatron's ``MLATransformerConfig``.

    Raises:
        RunError: a feature that this family file does not express is switched on.
    """
    check_expressed(config, _EXPRESSED)
    return {
        **trunk_arguments(config),
        **attention_arguments(config),
        **expert_arguments(config),
        **_router(config),
    }


def _router(config: HuggingFaceConfig) -> dict[str, Any]:
    method = config.get("topk_method", "greedy")
    if method not in _CHOICES:
        known = ", ".join(_CHOICES)
        raise RunError(f"model: config.json has topk_method {method!r}, known are {known}")
    return {
        **(group_arguments(config) if method == "group_limited_greedy" else {}),
        "moe_router_score_function": "softmax",
        "moe_router_pre_softmax": True,
    }


def rules(config: HuggingFaceConfig) -> Sequence[Rule]:
    """Return the names and joins of every weight."""
    return decoder_rules(config, layer_rules.latent_attention, router_bias=False)


FAMILY = Family("deepseek_v2", architecture, rules)
