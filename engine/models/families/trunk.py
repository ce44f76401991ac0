"""What every family has: so many layers of a width, SwiGLU, norms and initial weights."""

from __future__ import annotations

from typing import Any

from engine.models.family import HuggingFaceConfig


def trunk_arguments(config: HuggingFaceConfig) -> dict[str, Any]:
    """Keyword arguments of megatron's ``TransformerConfig`` that are called alike everywhere."""
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "init_method_std": config.get("initializer_range", 0.02),
    }
