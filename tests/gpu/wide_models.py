"""The parity table's models, wide enough for attention kernels and for 16-bit tensor cores.

Flash attention and cuDNN's take heads in multiples of 8; the table's have 10 and 12 channels.
"""

from __future__ import annotations

from typing import Any

from tools.benchmarks.parity.models import MODELS

_WIDTHS: dict[str, dict[str, int]] = {
    "dense": {"hidden_size": 128, "intermediate_size": 96},
    "moe gqa": {"hidden_size": 64, "head_dim": 16, "moe_intermediate_size": 48},
    "mla moe mtp": {
        "hidden_size": 64,
        "q_lora_rank": 32,
        "kv_lora_rank": 48,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
        "moe_intermediate_size": 48,
    },
}

WIDE_MODELS: dict[str, dict[str, Any]] = {
    name: {**model, **_WIDTHS[name]} for name, model in MODELS.items()
}


def without_choice(model: dict[str, Any]) -> dict[str, Any]:
    """The same with every expert for every token: rounding cannot decide between experts."""
    all_experts = model.get("num_experts") or model.get("n_routed_experts")
    if all_experts is None:
        return model
    groups = {"topk_group": model["n_group"]} if "n_group" in model else {}
    return {**model, **groups, "num_experts_per_tok": all_experts}
