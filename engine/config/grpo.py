"""Section ``grpo``: group relative policy optimization."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class GrpoConfig(Section):
    """Coefficients of GRPO (arXiv 2402.03300) and the reference model's renewal."""

    clip: float = Field(
        0.2, gt=0, description="epsilon: a token's ratio counts within 1 - epsilon .. 1 + epsilon"
    )
    kl_coefficient: float = Field(ge=0, description="beta: weight of the KL to the reference")
    reference_refresh_steps: int = Field(
        ge=1, description="the reference becomes the current policy after this many steps"
    )
    reference_offload: bool = Field(
        False,
        description="keep the reference's parameters in host memory; they are copied to the device "
        "for its pass over the rollout, once a step, and freed after it",
    )
    minibatches: int = Field(
        1, ge=1, description="optimizer updates per rollout; each sees its own share of the samples"
    )
