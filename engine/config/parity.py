"""Section ``parity``: trainer and sampler must mean the same model."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class ParityConfig(Section):
    """The gate on the difference between the trainer's and the sampler's log-probabilities."""

    max_logprob_difference: float = Field(
        gt=0, description="largest difference of any token, in nats; above it the run stops"
    )
    routing_tie: float = Field(
        1.0e-4,
        ge=0,
        description="margin of router scores below which experts are tied: rounding then decides "
        "between them, and that token and the rest of its sample are not compared",
    )
