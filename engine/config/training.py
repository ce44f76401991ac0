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
