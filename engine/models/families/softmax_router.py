"""The router of Qwen3-MoE and Mixtral: a softmax, and a loss for balance between the experts."""

from __future__ import annotations

from typing import Any

from engine.errors import RunError
from engine.models.family import HuggingFaceConfig


def softmax_router(config: HuggingFaceConfig, *, normalise: bool) -> dict[str, Any]:
    """Keyword arguments of megatron's ``TransformerConfig``.

    Args:
        config: contents of ``config.json``.
        normalise: whether the weights of a token's experts add up to one.

    Raises:
        RunError: one expert is chosen and its weight is always one, which megatron refuses: its
            router would never learn.
    """
    chosen = config["num_experts_per_tok"]
    if chosen == 1 and normalise:
        raise RunError("model: config.json has num_experts_per_tok 1, and its weight is always 1")
    return {
        "moe_router_topk": chosen,
        "moe_router_score_function": "softmax",
        # Softmax over the chosen experts only equals softmax over all, then normalised over them.
        "moe_router_pre_softmax": not normalise,
        "moe_router_load_balancing_type": "none",  # engine.models.balance does it
        "moe_aux_loss_coeff": config.get("router_aux_loss_coef", 0.001),
    }
