"""Section ``training``: how the policy's forward and backward passes are computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.section import Section


class TrainingConfig(Section):
    """Numbers and memory of the training passes."""

    dtype: Literal["float32", "bfloat16"] = Field(
        description="type of parameters and activations; gradients are reduced in float32"
    )
    tokens_per_microbatch: int = Field(
        ge=1,
        description="tokens packed into one microbatch, prompts included; bounds the memory",
    )
    logits_chunk_tokens: int = Field(
        1024,
        ge=1,
        description="tokens whose logits are held at once; bounds the memory of the output layer",
    )
    mtp_loss_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the multi-token prediction loss, averaged over depths (DeepSeek-V3: "
        "0.3, later 0.1); 0 leaves the prediction head as it is",
    )
